//! The table that is printed while the rows come in.

use super::units;
use crate::machine::Machine;
use crate::row::Row;

/// Title and width of each column.
const COLUMNS: [(&str, usize); 12] = [
    ("engine", 6),
    ("payload", 7),
    ("batch", 5),
    ("flight", 6),
    ("channels", 8),
    ("events/s", 9),
    ("p50", 8),
    ("p99", 8),
    ("p99.9", 8),
    ("max", 8),
    ("p50/raw", 7),
    ("ev/raw", 6),
];

/// Lines before the first row.
pub(crate) fn header(machine: &Machine) -> Vec<String> {
    let memory = units::size(machine.memory_bytes as f64);
    let device = match (machine.device.as_str(), machine.device_write_cache.as_str()) {
        ("", _) => "no block device".to_owned(),
        (device, "") => device.to_owned(),
        (device, cache) => format!("{device} (write cache: {cache})"),
    };
    vec![
        format!("{} x {}, {memory}, Linux {}", machine.cpus, machine.cpu, machine.kernel),
        format!("{} on {device}, commit {}", machine.file_system, machine.commit),
        "raw: the bare device, one write and one flush at a time. file: a plain file through the standard library."
            .to_owned(),
    ]
}

/// Lines for one row; a new workload begins with its column titles.
pub(crate) fn lines(row: &Row, before: Option<&Row>) -> Vec<String> {
    let mut lines = Vec::new();
    if before.is_none_or(|before| before.workload != row.workload) {
        let titles = COLUMNS.map(|(title, width)| format!("{title:>width$}"));
        lines.push(String::new());
        lines.push(format!("{:<10} {}", row.workload, titles.join(" ")));
    }
    let cells = COLUMNS.iter().zip(cells(row)).map(|((_, width), cell)| format!("{cell:>width$}"));
    let cells: Vec<_> = cells.collect();
    lines.push(format!("{:<10} {}{}", "", cells.join(" "), remarks(row)).trim_end().to_owned());
    lines
}

fn cells(row: &Row) -> [String; 12] {
    let raw = row.raw.as_ref();
    let ratio = |value: Option<f64>| value.map(|value| format!("{value:.2}x")).unwrap_or_default();
    [
        row.engine.to_owned(),
        units::size(row.payload_bytes as f64),
        row.batch.to_string(),
        row.in_flight.to_string(),
        row.channels.to_string(),
        units::count(row.events_per_s),
        units::time(row.p50_ns as f64),
        units::time(row.p99_ns as f64),
        units::time(row.p999_ns as f64),
        units::time(row.max_ns as f64),
        ratio(raw.and_then(|raw| raw.ratio_p50)),
        ratio(raw.map(|raw| raw.ratio_events_per_s)),
    ]
}

/// What has no column of its own.
pub(crate) fn remarks(row: &Row) -> String {
    let mut remarks = Vec::new();
    if !row.mode.is_empty() {
        remarks.push(row.mode.to_owned());
    }
    remarks.extend(row.rate.map(|rate| format!("due at {}/s", units::count(rate))));
    remarks.extend(row.log_events.map(|events| format!("{} events in the log", units::count(events as f64))));
    remarks.extend(row.ratio_file.map(|ratio| format!("{ratio:.2}x file")));
    remarks.extend(row.ratio_one_channel.map(|ratio| format!("{ratio:.2}x one channel")));
    remarks.extend(row.synced_events_per_s.map(|rate| format!("{}/s with the closing sync", units::count(rate))));
    remarks.extend(
        row.cost
            .as_ref()
            .filter(|cost| cost.iou_wrk_threads > 0)
            .map(|cost| format!("{} iou-wrk", cost.iou_wrk_threads)),
    );
    remarks.extend(row.note.clone());
    if remarks.is_empty() { String::new() } else { format!("  {}", remarks.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::example;

    #[test]
    fn a_workload_has_its_titles_once_and_columns_line_up() {
        let first = lines(&example(), None);
        let second = lines(&example(), Some(&example()));
        assert_eq!((first.len(), second.len()), (3, 1));
        assert_eq!(first[2], second[0]);
        let end = first[1].find("events/s").unwrap() + "events/s".len();
        assert_eq!(&second[0][end - 3..end], "2 k");
        assert!(second[0].ends_with("1.50x file"));
    }
}
