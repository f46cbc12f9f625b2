//! The tables as Markdown: ours beside the best peer in every load, then every engine in every load.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use redex_bench::machine::Machine;
use redex_bench::units;

use super::date;
use super::row::Row;
use super::table::{cpu, load_title, number};
use crate::engine::Engine;
use crate::engines::{OURS, REFERENCE, version};

/// What is between these lines of a file is replaced.
const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// The machine in one line.
pub(crate) fn machine(machine: &Machine) -> String {
    let memory = units::size(machine.memory_bytes as f64);
    format!(
        "{} x {}, {memory}, Linux {}, {} on {} (write cache: {}), commit {}",
        machine.cpus,
        machine.cpu,
        machine.kernel,
        machine.file_system,
        machine.device,
        machine.device_write_cache,
        machine.commit
    )
}

/// Everything that a run has to say.
pub(crate) fn page(
    rows: &[Row],
    engines: &[&'static dyn Engine],
    on: &Machine,
    command: &str,
    took: Duration,
) -> String {
    let mut text = format!("Measured {}, {:.0} s, by `{command}`.\n", date::today(), took.as_secs_f64());
    let _ = writeln!(text, "{}.\n", machine(on));
    text += &summary(rows);
    text += "\n### Every engine\n";
    for load in loads(rows) {
        text += &details(&load);
    }
    text += "\n### Configurations\n\n| engine | version | configuration |\n|---|---|---|\n";
    for engine in engines {
        let version = engine.package().map(version).unwrap_or("");
        let _ = writeln!(text, "| {} | {version} | {} |", engine.name(), engine.configuration());
    }
    text
}

/// The rows, load by load.
fn loads(rows: &[Row]) -> Vec<Vec<&Row>> {
    let mut loads: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        match loads.last_mut() {
            Some(load) if load[0].load() == row.load() => load.push(row),
            _ => loads.push(vec![row]),
        }
    }
    loads
}

/// One line a load: ours, the best engine, the best plain file; by rate, and by latency where the rate is given.
fn summary(rows: &[Row]) -> String {
    let mut text = format!(
        "| load | RedEX | RedEX p50 | RedEX / raw device | best peer | RedEX / best peer | best plain file | RedEX / plain file | {REFERENCE} |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    for load in loads(rows) {
        let Some(ours) = load.iter().find(|row| row.engine == OURS && row.is_sound()) else { continue };
        let others = others_than(ours, rows);
        let best = |plain_file: bool| {
            let rows = others.iter().filter(|row| row.plain_file == plain_file);
            rows.copied().reduce(|best, row| if row.times_as_good(best) > 1.0 { row } else { best })
        };
        let (peer, file) = (best(false), best(true));
        let named = |row: &Row| format!("{} ({})", figure(row), row.engine);
        let ratio = |row: &Row| format!("{:.2}", ours.times_as_good(row));
        let cells = [
            format!("{}: {}", ours.workload, load_title(ours)),
            figure(ours),
            units::time(ours.p50_ns as f64),
            ours.of_limit().map(|share| format!("{share:.2}")).unwrap_or_default(),
            peer.map(named).unwrap_or_default(),
            peer.map(ratio).unwrap_or_default(),
            file.map(named).unwrap_or_default(),
            file.map(ratio).unwrap_or_default(),
            others.iter().find(|row| row.engine == REFERENCE).map(|row| figure(row)).unwrap_or_default(),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// What a row is judged by.
fn figure(row: &Row) -> String {
    if row.is_paced() { units::time(row.p50_ns as f64) } else { format!("{}/s", units::count(row.events_per_s)) }
}

/// Rows of others that did the same as `ours`, and did it well. Tasks, which no other engine has, are held against threads.
fn others_than<'a>(ours: &Row, rows: &'a [Row]) -> Vec<&'a Row> {
    let of = |mode: &str| {
        let (workload, _, payload_bytes, batch, in_flight) = ours.load();
        let load = (workload, mode, payload_bytes, batch, in_flight);
        let other = |row: &&Row| row.load() == load && row.engine != OURS && row.is_sound();
        rows.iter().filter(other).collect::<Vec<_>>()
    };
    let others = of(ours.mode);
    if others.is_empty() { of("threads") } else { others }
}

/// All engines under one load.
fn details(load: &[&Row]) -> String {
    let first = load[0];
    let mut text = format!("\n**{}: {}**", first.workload, load_title(first));
    if let (Some(rate), Some(p50)) = (first.raw_events_per_s, first.raw_p50_ns) {
        let _ = write!(text, " (raw device {}/s, p50 {})", units::count(rate), units::time(p50 as f64));
    }
    text += "\n\n| engine | events/s | p50 | p99 | p99.9 | CPU/event | |\n|---|---|---|---|---|---|---|\n";
    for row in load {
        let mut notes: Vec<String> = row.numbers.iter().map(|(name, value)| number(name, *value)).collect();
        notes.extend(row.note.clone());
        let notes = notes.join(", ");
        if row.events == 0 {
            let _ = writeln!(text, "| {} | | | | | | {notes} |", row.engine);
            continue;
        }
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {notes} |",
            row.engine,
            units::count(row.events_per_s),
            units::time(row.p50_ns as f64),
            units::time(row.p99_ns as f64),
            units::time(row.p999_ns as f64),
            cpu(row),
        );
    }
    text
}

/// Puts `text` between the marks of `file`; where there is no such file, or it has no marks, `text` with marks becomes the file.
pub(crate) fn put(file: &Path, text: &str) -> io::Result<()> {
    let marked = format!("{BEGIN}\n{text}{END}\n");
    let old = fs::read_to_string(file).unwrap_or_default();
    let new = match (old.split_once(BEGIN), old.split_once(END)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{marked}{}", after.trim_start_matches('\n')),
        _ => marked,
    };
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(file, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(engine: &str, events_per_s: f64, note: Option<&str>) -> Row {
        let engine = crate::engines::ALL.iter().find(|known| known.name() == engine).unwrap();
        let mut row = Row::new("durable", *engine, 256, &redex_bench::sample::Turns::default());
        (row.events, row.events_per_s, row.raw_events_per_s) = (1, events_per_s, Some(400.0));
        row.note = note.map(str::to_owned);
        row
    }

    #[test]
    fn the_best_sound_peer_and_the_best_plain_file_stand_beside_ours() {
        let rows = [
            row("redex", 200.0, None),
            row("net-mesh", 50.0, None),
            row("redb", 100.0, None),
            row("fjall", 999.0, Some("FAILED reading back: lost")),
            row("std", 100.0, None),
            row("std-dsync", 250.0, None),
        ];
        let text = summary(&rows);
        let line = text.lines().last().unwrap();
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert_eq!(cells[2], "200/s");
        assert_eq!(cells[4..10], ["0.50", "100/s (redb)", "2.00", "250/s (std-dsync)", "0.80", "50/s"]);
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/page.md");
        put(&file, "one\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{BEGIN}\none\n{END}\n"));
        fs::write(&file, format!("# Head\n\n{BEGIN}\none\n{END}\n\nFoot\n")).unwrap();
        put(&file, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("# Head\n\n{BEGIN}\ntwo\n{END}\nFoot\n"));
    }
}
