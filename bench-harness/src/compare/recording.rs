//! The rows of a run, read back from its `results.jsonl`.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::args::UsageError;
use crate::machine::Machine;
use crate::report::RESULTS;
use crate::sample::median;

/// What a comparison needs of a row.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Recorded {
    /// Rows with the same id measure the same.
    pub(crate) id: String,
    /// Events a second that an open loop intended.
    pub(crate) rate: Option<f64>,
    /// Events a second of every turn.
    pub(crate) turn_events_per_s: Vec<f64>,
    /// Median latency of every turn, ns.
    pub(crate) turn_p50_ns: Vec<u64>,
    /// Where it was measured.
    pub(crate) machine: Machine,
}

/// All rows of a file; of several runs, if their files were put behind each other.
#[derive(Clone, Debug)]
pub(crate) struct Recording(Vec<Recorded>);

impl Recording {
    /// Reads a file, or the `results.jsonl` in a directory.
    pub(crate) fn read(path: &Path) -> Result<Self, UsageError> {
        let file = if path.is_dir() { path.join(RESULTS) } else { path.to_owned() };
        let text = fs::read_to_string(&file)
            .map_err(|error| UsageError(format!("{} cannot be read: {error}", file.display())))?;
        Self::parse(&text).map_err(|error| UsageError(format!("{}: {error}", file.display())))
    }

    /// Reads JSON lines.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let row = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: no row of a run: {error}", index + 1))
        };
        let rows: Vec<Recorded> = lines.map(row).collect::<Result<_, _>>()?;
        if rows.is_empty() { Err("there are no rows".to_owned()) } else { Ok(Self(rows)) }
    }

    /// Every row.
    pub(crate) fn rows(&self) -> &[Recorded] {
        &self.0
    }

    /// Names of the rows, each once, in order.
    pub(crate) fn ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = Vec::new();
        for row in &self.0 {
            if !ids.contains(&row.id.as_str()) {
                ids.push(&row.id);
            }
        }
        ids
    }

    /// The rows of this name: one for each run.
    pub(crate) fn of(&self, id: &str) -> Vec<&Recorded> {
        self.0.iter().filter(|row| row.id == id).collect()
    }
}

/// What is taken as one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A turn: there is one run only.
    Turn,
    /// A run: its median over the turns.
    Run,
}

/// Values of rows with the same id: rates, then median latencies.
pub(crate) fn samples(rows: &[&Recorded], unit: Unit) -> (Vec<f64>, Vec<f64>) {
    let rates = rows.iter().map(|row| row.turn_events_per_s.clone());
    let p50s = rows.iter().map(|row| row.turn_p50_ns.iter().map(|ns| *ns as f64).collect::<Vec<_>>());
    match unit {
        Unit::Turn => (rates.flatten().collect(), p50s.flatten().collect()),
        Unit::Run => (rates.map(median).collect(), p50s.map(median).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::example;

    #[test]
    fn a_row_that_was_written_is_read() {
        let line = serde_json::to_string(&example()).unwrap();
        let recording = Recording::parse(&format!("{line}\n\n{line}\n")).unwrap();
        assert_eq!(recording.ids(), [example().id()]);
        let rows = recording.of(&example().id());
        assert_eq!(samples(&rows, Unit::Run), (vec![2000.0; 2], vec![500_223.0; 2]));
        assert_eq!(samples(&rows, Unit::Turn).0.len(), 2);
    }

    #[test]
    fn what_is_no_row_is_named_by_its_line() {
        let error = Recording::parse("{\"id\": \"a\"}").unwrap_err();
        assert!(error.starts_with("line 1: "), "{error}");
        assert_eq!(Recording::parse("\n").unwrap_err(), "there are no rows");
    }
}
