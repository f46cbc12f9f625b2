//! The table that is printed while the loads come in.

use redex_bench::units;

use super::row::Row;
use crate::engines::OURS;

/// Title and width of each column.
const COLUMNS: [(&str, usize); 8] = [
    ("engine", 12),
    ("events/s", 10),
    ("p50", 9),
    ("p99", 9),
    ("p99.9", 9),
    ("cpu/event", 9),
    ("of L", 6),
    ("ours x", 7),
];

/// Lines for the rows of one load.
pub(crate) fn lines(rows: &[Row], before: Option<&Row>) -> Vec<String> {
    let Some(first) = rows.first() else { return Vec::new() };
    let mut lines = vec![String::new()];
    if before.is_none_or(|before| before.workload != first.workload) {
        lines.push(format!("== {}", first.workload));
    }
    lines.push(load_title(first));
    let title = COLUMNS.iter().map(|(title, width)| pad(title, *width)).collect::<Vec<_>>();
    lines.push(title.join(" "));
    let ours = rows.iter().find(|row| row.engine == OURS);
    lines.extend(rows.iter().map(|row| line(row, ours)));
    if let (Some(rate), Some(p50)) = (first.raw_events_per_s, first.raw_p50_ns) {
        let cells = ["bare device".to_owned(), units::count(rate), units::time(p50 as f64)];
        let cells = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| pad(cell, width));
        lines.push(cells.collect::<Vec<_>>().join(" "));
    }
    lines
}

/// What the rows of a load have in common.
pub(crate) fn load_title(row: &Row) -> String {
    let mut parts = vec![units::size(row.payload_bytes as f64)];
    if row.batch != 1 {
        parts.push(format!("{} a call", row.batch));
    }
    match row.mode {
        "" if row.in_flight == 1 && row.workload != "durable" => {}
        "" => parts.push(format!("{} in flight", row.in_flight)),
        mode if row.in_flight == 1 => parts.push(mode.to_owned()),
        mode => parts.push(format!("{} {mode}", row.in_flight)),
    }
    parts.join(", ")
}

fn line(row: &Row, ours: Option<&Row>) -> String {
    let note = row.note.clone().unwrap_or_default();
    if row.events == 0 {
        return format!("{} {note}", pad(row.engine, COLUMNS[0].1));
    }
    let ratio = ours.filter(|_| row.engine != OURS).map(|ours| ours.times_as_good(row));
    let cells = [
        row.engine.to_owned(),
        units::count(row.events_per_s),
        units::time(row.p50_ns as f64),
        units::time(row.p99_ns as f64),
        units::time(row.p999_ns as f64),
        cpu(row),
        row.of_limit().map(|share| format!("{share:.2}")).unwrap_or_default(),
        ratio.map(|ratio| format!("{ratio:.2}x")).unwrap_or_default(),
    ];
    let cells = cells.iter().zip(COLUMNS).map(|(cell, (_, width))| pad(cell, width));
    let mut notes: Vec<String> = row.numbers.iter().map(|(name, value)| number(name, *value)).collect();
    notes.extend(row.note.clone());
    format!("{}  {}", cells.collect::<Vec<_>>().join(" "), notes.join(", ")).trim_end().to_owned()
}

/// CPU time of an event, where it was counted.
pub(crate) fn cpu(row: &Row) -> String {
    if row.cpu_ns_per_event > 0.0 { units::time(row.cpu_ns_per_event) } else { String::new() }
}

/// A number that only this workload has, by the unit in its name.
pub(crate) fn number(name: &str, value: f64) -> String {
    match name.rsplit_once('_') {
        Some((what, "ns")) => format!("{what} {}", units::time(value)),
        Some((what, "s")) if what.ends_with("_per") => {
            format!("{} {}/s", what.trim_end_matches("_events_per"), units::count(value))
        }
        _ => format!("{name} {}", units::count(value)),
    }
}

/// The first column to the left, all others to the right.
fn pad(cell: &str, width: usize) -> String {
    if width == COLUMNS[0].1 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
}
