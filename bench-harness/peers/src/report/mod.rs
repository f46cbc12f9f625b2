//! What a run leaves behind: a table on the terminal, JSON lines, and Markdown.

mod date;
mod markdown;
pub(crate) mod row;
mod table;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use redex_bench::machine::Machine;

use crate::engine::Engine;
use crate::engines::{ALL, version};
use row::Row;

/// The rows of one run, written as they come.
pub(crate) struct Report {
    lines: File,
    place: PathBuf,
    machine: Machine,
    engines: Vec<&'static dyn Engine>,
    rows: Vec<Row>,
}

impl Report {
    /// Makes the output directory and file.
    pub(crate) fn create(dir: &Path, machine: Machine, engines: &[&'static dyn Engine]) -> anyhow::Result<Self> {
        let place = dir.join("results.jsonl");
        fs::create_dir_all(dir).with_context(|| format!("--out: making {}", dir.display()))?;
        let lines = File::create(&place).with_context(|| format!("--out: making {}", place.display()))?;
        Ok(Self { lines, place, machine, engines: engines.to_vec(), rows: Vec::new() })
    }

    /// Lines that go before the first row.
    pub(crate) fn begin(&self) -> Vec<String> {
        let mut lines = vec![markdown::machine(&self.machine), String::new()];
        lines.extend(described(&self.engines));
        lines
    }

    /// Writes the rows of one load; gives the lines to print.
    pub(crate) fn add(&mut self, rows: Vec<Row>) -> anyhow::Result<Vec<String>> {
        for row in &rows {
            let mut line = serde_json::to_vec(&row.with_machine(&self.machine))?;
            line.push(b'\n');
            self.lines.write_all(&line).context("writing results.jsonl")?;
        }
        let printed = table::lines(&rows, self.rows.last());
        self.rows.extend(rows);
        Ok(printed)
    }

    /// Where the rows are.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Writes the tables to `file`.
    pub(crate) fn markdown(&self, file: &Path, command: &str, took: Duration) -> anyhow::Result<()> {
        let text = markdown::page(&self.rows, &self.engines, &self.machine, command, took);
        markdown::put(file, &text).with_context(|| format!("writing {}", file.display()))
    }
}

/// All engines, as `list` shows them.
pub(crate) fn list() -> Vec<String> {
    described(ALL)
}

fn described(engines: &[&dyn Engine]) -> Vec<String> {
    let line = |engine: &&dyn Engine| {
        let version = engine.package().map(version).unwrap_or("-");
        format!("{:<12} {version:<8} {}", engine.name(), engine.configuration())
    };
    engines.iter().map(line).collect()
}
