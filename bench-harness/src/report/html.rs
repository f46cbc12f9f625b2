//! The page: one file, no network, for a reader who has never heard of the project.

use std::fmt::Write;

use super::figures::{Figures, escape};
use super::plot::{Bar, Bars, Curve, Curves, row_name};
use super::{commits, table, units};
use crate::machine::Machine;
use crate::row::Row;
use crate::sweep::Sweep;
use crate::workload::Workload;

const STYLE: &str = include_str!("style.css");

/// A page, and its charts as pictures.
#[derive(Debug)]
pub(crate) struct Page {
    /// The text, charts and style included.
    pub(crate) text: String,
    /// File name and bytes of each PNG.
    pub(crate) images: Vec<(String, Vec<u8>)>,
}

/// What the page says before any figure.
const INTRODUCTION: &str = "<p>RedEX is a library that keeps <em>logs</em>: a program appends events to named channels, reads them \
    back in order, and follows new ones as they come. This page shows how fast it was on the machine below, in one run of \
    <code>redex-bench</code>.</p>\
    <p>An append is <b>durable</b> when the event survives a power cut: the disk itself has confirmed it. That takes one trip to \
    the disk, which no software can avoid; so durable figures stand beside the <b>raw device</b>, a loop that writes the same bytes \
    with one write and one flush and does nothing else, on the same file system, in turns with the engine. A ratio of 1.0x would \
    mean that the log costs nothing beyond the disk. <b>file</b> is what a program without a log library would do: append to a plain \
    file and call <code>fdatasync</code>.</p>\
    <p><b>In flight</b> is how many events are on their way at once: with more of them, one trip to the disk serves many. \
    <b>p50</b> is the time that half of the events did not exceed, <b>p99</b> that 99 of 100 did not.</p>";

/// The whole page.
pub(crate) fn page(
    rows: &[Row],
    machine: &Machine,
    warnings: &[String],
    sweep: Option<&Sweep>,
) -> anyhow::Result<Page> {
    let mut figures = Figures::default();
    let mut body = format!("<h1>RedEX on this machine</h1>{INTRODUCTION}");
    for warning in warnings {
        let _ = write!(body, "<p class=\"warning\">Warning: {}</p>", escape(warning));
    }
    body += &headlines(rows);
    body += &machine_table(rows, machine);
    for workload in Workload::all() {
        let own: Vec<&Row> = rows.iter().filter(|row| row.workload == workload.name()).collect();
        if !own.is_empty() {
            body += &section(workload, &own, &mut figures)?;
        }
    }
    if let Some(sweep) = sweep {
        body += &sweep.section(&mut figures)?;
    }
    body += "<footer>Latency logs in HdrHistogram's text form lie in <code>hdr/</code>, the charts as pictures in <code>charts/</code>, all \
             figures in <code>results.jsonl</code>.</footer>";
    Ok(Page { text: document("RedEX on this machine", &body), images: figures.into_images() })
}

/// A page of its own for a sweep.
pub(crate) fn sweep_page(sweep: &Sweep) -> anyhow::Result<Page> {
    let mut figures = Figures::default();
    let section = sweep.section(&mut figures)?;
    let body = format!("<h1>RedEX: how much in flight</h1>{}{section}", machine_table(&[], &sweep.machine));
    Ok(Page { text: document("RedEX: how much in flight", &body), images: figures.into_images() })
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
}

/// The few figures that a reader takes home.
fn headlines(rows: &[Row]) -> String {
    let find = |wanted: &dyn Fn(&Row) -> bool| rows.iter().find(|row| row.engine == "redex" && wanted(row));
    let mut cards = String::new();
    let mut card = |figure: String, text: String| {
        let _ = write!(cards, "<div class=\"card\"><b>{figure}</b><span>{}</span></div>", escape(&text));
    };
    if let Some(row) = find(&|row| row.workload == "durable" && row.in_flight == 1) {
        let ratio = row.raw.as_ref().and_then(|raw| raw.ratio_p50).unwrap_or(0.0);
        card(units::time(row.p50_ns as f64), format!("for one durable append of 256 B: {ratio:.2}x the raw device"));
    }
    if let Some(row) = find(&|row| row.workload == "durable" && row.in_flight == 4096 && row.mode.is_empty()) {
        let ratio = row.ratio_file.unwrap_or(0.0);
        card(
            format!("{}/s", units::count(row.events_per_s)),
            format!("durable events of 256 B, 4096 in flight: {ratio:.2}x a plain file"),
        );
    }
    if let Some(row) = find(&|row| row.workload == "nondurable" && row.payload_bytes == 64 && row.batch == 1) {
        card(
            units::time(1e9 / row.events_per_s.max(1e-9)),
            "for one append of 64 B that need not wait for the disk".to_owned(),
        );
    }
    if let Some(row) = find(&|row| row.workload == "tail" && row.mode == "parked") {
        card(units::time(row.p50_ns as f64), "from an append to a subscriber that was asleep".to_owned());
    }
    if let Some(row) = rows.iter().rev().find(|row| row.workload == "reopen" && row.mode == "killed") {
        let events = units::count(row.log_events.unwrap_or(0) as f64);
        card(units::time(row.p50_ns as f64), format!("to open a log of {events} events after its process was killed"));
    }
    format!("<div class=\"cards\">{cards}</div>")
}

fn machine_table(rows: &[Row], machine: &Machine) -> String {
    let cost = rows.iter().find_map(|row| row.cost.as_ref());
    let known = |flag: Option<bool>| flag.map_or("unknown", |yes| if yes { "yes" } else { "no" });
    let facts = [
        ("processor", format!("{} x {}", machine.cpus, machine.cpu)),
        ("memory", units::size(machine.memory_bytes as f64)),
        ("kernel", format!("Linux {}", machine.kernel)),
        ("file system", machine.file_system.clone()),
        (
            "disk",
            format!(
                "{}; write cache: {}; FUA: {}",
                machine.device,
                machine.device_write_cache,
                known(machine.device_fua)
            ),
        ),
        (
            "engine's way to the disk",
            cost.map(|cost| {
                let ring = if cost.ring_restricted { ", restricted ring" } else { "" };
                format!("{}{ring}, {}", cost.backend, cost.durable_write)
            })
            .unwrap_or_default(),
        ),
        ("commit", machine.commit.clone()),
    ];
    let line = |(name, value): &(&str, String)| format!("<tr><th>{name}</th><td>{}</td></tr>", escape(value));
    format!("<h2>Where</h2><table class=\"facts\">{}</table>", facts.iter().map(line).collect::<String>())
}

fn section(workload: Workload, rows: &[&Row], figures: &mut Figures) -> anyhow::Result<String> {
    let (title, text) = explanation(workload);
    figures.begin(workload.name(), title);
    let mut section = format!("<h2>{title}</h2><p>{text}</p>");
    for (heading, own) in parts(rows, |row| throughput_part(workload, row)) {
        section += &throughput(workload, &heading, &own, figures)?;
    }
    for (size, own) in parts(rows, |row| units::size(row.payload_bytes as f64)) {
        if workload != Workload::Reopen {
            section += &latency(&size, &own, figures)?;
        }
        section += &commits::histograms(&size, &own, figures)?;
    }
    section += &rows_table(rows);
    Ok(section)
}

/// Rows that one plot shows together, in order.
fn parts<'a>(rows: &[&'a Row], part: impl Fn(&Row) -> String) -> Vec<(String, Vec<&'a Row>)> {
    let mut parts: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let name = part(row);
        match parts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, rows)) => rows.push(row),
            None => parts.push((name, vec![row])),
        }
    }
    parts
}

/// Rows of one throughput plot differ in one thing only.
fn throughput_part(workload: Workload, row: &Row) -> String {
    match workload {
        Workload::Durable => format!(", events of {}", units::size(row.payload_bytes as f64)),
        Workload::Nondurable if row.batch == 1 => ", one a call".to_owned(),
        Workload::Nondurable => format!(", {} a call", row.batch),
        Workload::Warm | Workload::Verify => format!(", events of {}", units::size(row.payload_bytes as f64)),
        _ => String::new(),
    }
}

fn explanation(workload: Workload) -> (&'static str, &'static str) {
    match workload {
        Workload::Durable => (
            "Durable appends",
            "One thread appends and keeps a number of events in flight; an event counts when the disk has confirmed it. After each row \
             the store is opened again and a sample of the events is compared. Bars are shares of what the raw device \
             did with the same bytes in the same seconds; the numbers above them are events per second.",
        ),
        Workload::Nondurable => (
            "Appends that do not wait",
            "The event is visible to readers at once and written to disk soon after; a power cut may take the last of them. <b>file</b> \
             is <code>write</code> on a plain file. With 1000 a call, latency is that of the whole call.",
        ),
        Workload::Tail => (
            "From an append to its subscriber",
            "One thread appends at a steady rate, another follows the channel: <b>spin</b> asks again and again, <b>parked</b> sleeps \
             until it is woken. Latency is from the call of append to the subscriber having the event.",
        ),
        Workload::Scan => (
            "Reading a whole log",
            "Every event of a log that was closed and opened again, read in order, verified and compared. The raw device reads as many \
             bytes and looks at none of them. Latency is that of 1000 events.",
        ),
        Workload::Reopen => (
            "Opening a store",
            "From nothing to having read the last event: after a clean close, and after the process was killed while it appended. \
             Latency is the time of one opening; it should not grow with the log.",
        ),
        Workload::Channels => (
            "One channel or a thousand",
            "1000 durable appends in flight from one thread, all to one channel, and spread over 1,000 channels.",
        ),
        Workload::SecondProcess => (
            "A second process that reads",
            "It has opened the store for reading only, and follows. <b>sight</b> is from the acknowledgement of a durable append to the \
             moment when the other process has the event; <b>alone</b> and <b>followed</b> are the writer's rates without and with it.",
        ),
        Workload::Warm => (
            "Reading older events",
            "A scan of sealed segments on one core: from the disk (<b>cold</b>), from the page cache with every checksum checked \
             (<b>first</b>), and once more (<b>second</b>); latency is that of a chunk of about a megabyte. Then single events by \
             sequence, from memory, from the segment being written and from a sealed one, and the first event at or after a time.",
        ),
        Workload::Verify => (
            "Checking a whole store",
            "Every byte of a closed store is read and every checksum computed, by a thread a core. The raw device reads the same files with \
             as many threads and looks at none of the bytes. Latency is that of one check.",
        ),
        Workload::PageCache => (
            "Writing past the page cache",
            "1 GiB is appended and synced; pages of the store's files that the kernel keeps are counted before and after each part. The \
             machine's own count is moved by anything else that runs.",
        ),
        Workload::Retention => (
            "A log that stays small",
            "Twenty times a channel's limit of bytes is appended; what its files take is looked at all the while. The note says how much that \
             was at the most.",
        ),
        Workload::Many => (
            "A hundred thousand channels",
            "1000 durable appends in flight from one thread, to one channel and spread over 100,000, while the journal holds the load; then \
             laps of a journal of 1 GiB, each with all the blocks that leave it.",
        ),
        Workload::Million => (
            "A million channels",
            "A store with a million channels is opened by a fresh process; then channels are opened. Latency is the time of the opening.",
        ),
        Workload::Tasks => (
            "Many writers",
            "16 and 256 async tasks, each waiting for its own durable append, on a runtime with one thread and on one with two; as many \
             threads that wait for theirs; and as many that each append to a plain file and call <code>fdatasync</code>.",
        ),
        other => other.about(),
    }
}

/// What the bars of a workload are as high as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Events per second, as a share of the raw device's.
    Share,
    /// Events per second.
    Rate,
    /// Median latency.
    Median,
}

impl Measure {
    fn of(workload: Workload) -> Self {
        match workload {
            Workload::Durable => Self::Share,
            Workload::Tail | Workload::Reopen | Workload::Million => Self::Median,
            _ => Self::Rate,
        }
    }

    fn bar(self, row: &Row) -> Bar {
        let color = usize::from(row.engine != "redex");
        let rate = units::count(row.events_per_s);
        let raw = row.raw.as_ref();
        match self {
            Self::Share => {
                let value = raw.map_or(0.0, |raw| 100.0 * raw.ratio_events_per_s);
                Bar { value, label: rate, color, limit: Some(100.0) }
            }
            Self::Rate => {
                Bar { value: row.events_per_s, label: rate, color, limit: raw.map(|raw| raw.raw_events_per_s) }
            }
            Self::Median => {
                Bar { value: row.p50_ns as f64 / 1e3, label: units::time(row.p50_ns as f64), color, limit: None }
            }
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Share => " %",
            Self::Rate => "",
            Self::Median => " us",
        }
    }

    fn axis(self) -> &'static str {
        match self {
            Self::Share => "share of the raw device",
            Self::Rate => "events per second",
            Self::Median => "median latency",
        }
    }

    fn caption(self, part: &str) -> String {
        match self {
            Self::Share => format!("Share of the raw device's events per second{part}. Higher is better."),
            Self::Rate => format!("Events per second{part}. Higher is better."),
            Self::Median => format!("Median latency{part}. Lower is better."),
        }
    }
}

/// Bars of a part.
fn throughput(workload: Workload, part: &str, rows: &[&Row], figures: &mut Figures) -> anyhow::Result<String> {
    let measure = Measure::of(workload);
    let mut groups: Vec<(String, Vec<Bar>)> = Vec::new();
    for row in rows.iter().filter(|row| measure != Measure::Share || row.raw.is_some()) {
        let (name, bar) = (group_name(workload, row), measure.bar(row));
        match groups.iter_mut().find(|(group, _)| *group == name) {
            Some((_, bars)) => bars.push(bar),
            None => groups.push((name, vec![bar])),
        }
    }
    let limited = groups.iter().flat_map(|(_, bars)| bars).any(|bar| bar.limit.is_some());
    let entries: &[_] = if rows.iter().any(|row| row.engine != "redex") { &["redex", "file"] } else { &[] };
    let legend = entries.iter().enumerate().map(|(color, name)| (color, (*name).to_owned())).collect();
    let bars = Bars { groups, unit: measure.unit(), x_title: "", y_title: measure.axis() };
    figures.add(&bars, legend, limited.then_some("raw device"), &measure.caption(part))
}

fn group_name(workload: Workload, row: &Row) -> String {
    match workload {
        Workload::Durable => format!("{} in flight", row.in_flight),
        Workload::Nondurable => units::size(row.payload_bytes as f64),
        _ => row_name(row),
    }
}

/// Latency curves of a part; thin ones for the raw device.
fn latency(size: &str, rows: &[&Row], figures: &mut Figures) -> anyhow::Result<String> {
    let curves = curves(rows);
    if curves.is_empty() {
        return Ok(String::new());
    }
    let thick = curves.iter().filter(|curve| !curve.reference);
    let legend = thick.map(|curve| (curve.color, curve.name.clone())).collect();
    let thin =
        if curves.iter().any(|curve| curve.reference) { " Thin lines: the raw device with as many bytes." } else { "" };
    let caption = format!("Latency, events of {size}. Lower is better, flat is better.{thin}");
    figures.add(&Curves(curves), legend, None, &caption)
}

/// A curve for each row of the engine, and thin ones for what it is compared with.
fn curves<'a>(rows: &[&'a Row]) -> Vec<Curve<'a>> {
    let mut curves = Vec::new();
    for (color, row) in rows.iter().filter(|row| row.engine == "redex").enumerate() {
        curves.push(Curve { name: row_name(row), latencies: &row.latencies, color, reference: false });
        if let Some(raw) = &row.raw_latencies {
            curves.push(Curve {
                name: format!("{}: raw device", row_name(row)),
                latencies: raw,
                color,
                reference: true,
            });
        }
    }
    curves
}

fn rows_table(rows: &[&Row]) -> String {
    let titles = [
        "",
        "by",
        "events/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "p50 to raw",
        "events/s to raw",
        "CPU/event",
        "commits",
        "flushes",
        "",
    ];
    let head: String = titles.iter().map(|title| format!("<th>{title}</th>")).collect();
    let body: String = rows.iter().map(|row| row_line(row)).collect();
    format!("<div class=\"wide\"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
}

fn row_line(row: &Row) -> String {
    let ratio = |value: Option<f64>| value.map(|value| format!("{value:.2}x")).unwrap_or_default();
    let raw = row.raw.as_ref();
    let cost = row.cost.as_ref();
    let cells = [
        row_name(row),
        row.engine.to_owned(),
        units::count(row.events_per_s),
        units::time(row.p50_ns as f64),
        units::time(row.p99_ns as f64),
        units::time(row.p999_ns as f64),
        units::time(row.max_ns as f64),
        ratio(raw.and_then(|raw| raw.ratio_p50)),
        ratio(raw.map(|raw| raw.ratio_events_per_s)),
        cost.map(|cost| units::time(cost.cpu_ns_per_event)).unwrap_or_default(),
        cost.map(|cost| units::count(cost.commits as f64)).unwrap_or_default(),
        cost.map(|cost| units::count(cost.flushes as f64)).unwrap_or_default(),
        table::remarks(row).trim().to_owned(),
    ];
    format!("<tr>{}</tr>", cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::example;

    /// The page stands alone: nothing in it is fetched, and what comes from outside is escaped.
    #[test]
    fn the_page_is_self_contained() {
        let machine = Machine { cpu: "<script>".to_owned(), ..Machine::default() };
        let sweep = crate::sweep::tests::example();
        let mut row = example();
        let cost = row.cost.as_mut().unwrap();
        (cost.commits, cost.commit_events_log2, cost.queue_depth) = (30, vec![0, 10, 20], vec![30]);
        let page = page(&[row], &machine, &["a < b".to_owned()], Some(&sweep)).unwrap();
        for fetched in ["src=", "href=", "@import", "url(", "<script"] {
            assert!(!page.text.contains(fetched), "{fetched}");
        }
        assert!(page.text.contains("&lt;script&gt;") && page.text.contains("a &lt; b"));
        // Bars, curves, two histograms of commits; rate and latency of the sweep. Each is a picture, too.
        assert_eq!(page.text.matches("<svg").count(), 6);
        let names: Vec<&str> = page.images.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["durable-1.png", "durable-2.png", "durable-3.png", "durable-4.png", "sweep-1.png", "sweep-2.png"]
        );
    }

    #[test]
    fn a_run_without_rows_has_a_page_too() {
        assert!(page(&[], &Machine::default(), &[], None).unwrap().text.ends_with("</html>\n"));
    }
}
