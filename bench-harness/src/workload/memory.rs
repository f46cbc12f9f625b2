//! `memory`: what an idle channel takes, and whether memory stays flat while a program appends. Only with `--only memory`.
//!
//! `idle`: a process makes 100,000 channels (10,000 with `--quick`) without an event and closes the store. Fresh processes then open it, and look at their resident memory: with channels that nobody opened, opened
//! ones without an event, and ones with an event that was just appended and synced; then once more, with the event on disk since an earlier run. What an empty store takes is measured by a process of its own and taken off. `p50` is the time of opening a
//! channel.
//!
//! `steady`: one thread appends as fast as it can, not durable, to a channel that keeps 1 GiB (256 MiB with `--quick`). Resident memory and that of pages are
//! looked at all the while; the note has the most of each third of the time, after a first sixth that counts for nothing.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, Redex, RedexFile, RedexFileConfig};
use serde::{Deserialize, Serialize};

use super::Workload;
use super::million::resident;
use crate::args::{ChildPlace, MillionChildArgs};
use crate::counters::Meter;
use crate::load::Payloads;
use crate::readback;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "memory";
const CHANNEL: &str = "bench/memory";
const IDLE_PAYLOAD_SIZE: usize = 64;
const CHANNEL_COUNT: u64 = 100_000;
const QUICK_CHANNEL_COUNT: u64 = 10_000;
/// What a channel that nobody opened may take.
const TARGET_RESIDENT_BYTES: f64 = 1024.0;
const PAYLOAD_SIZE: usize = 256;
const KEPT_BYTES: u64 = 1 << 30;
const QUICK_KEPT_BYTES: u64 = 256 << 20;
/// Parts of a steady row: the first warms up, then thirds of what is left.
const THIRDS: usize = 3;
const WARMING_SHARE: f64 = 1.0 / 6.0;
/// Appends between two looks at memory.
const APPENDS_PER_LOOK: u64 = 20_000;
/// One append in this many is timed. A prime, so that it is not always the one that crosses a block or a page.
const APPENDS_PER_SAMPLE: u64 = 61;
/// Growth from the first third to the last that still counts as flat, and bytes beside: the memory of pages goes up and down.
const FLAT_GROWTH_MAX: f64 = 1.05;
const FLAT_SLACK_BYTES: f64 = (8 << 20) as f64;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 2;

/// Resident memory of a process with a store, bytes, at one moment after the other.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Idle {
    before: u64,
    store_open: u64,
    channels_open: u64,
    appended: u64,
    /// Memory of pages after the appends, by the engine's count.
    page_bytes: u64,
    open_channels_ns: u64,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    idle(session)?;
    steady(session)
}

fn idle(session: &mut Session) -> anyhow::Result<()> {
    let count = if session.quick { QUICK_CHANNEL_COUNT } else { CHANNEL_COUNT };
    session.doing(format!("memory, {count} idle channels"));
    let _fixed_by_size = session.row_time(Workload::Memory);
    let (dir, empty) = (session.place("store")?, session.place("empty")?);
    process(session, &dir, count, true)?;
    let nothing = process(session, &empty, 0, false)?.context("an opening process says what it took")?;
    let fresh = process(session, &dir, count, false)?.context("an opening process says what it took")?;
    let again = process(session, &dir, count, false)?.context("an opening process says what it took")?;
    session.place("store")?;
    session.place("empty")?;

    let store = nothing.store_open.saturating_sub(nothing.before) as f64;
    let each = |bytes: f64| bytes / count as f64;
    let grown = |from: u64, to: u64| each(to as f64 - from as f64);
    let known = |idle: &Idle| each(idle.store_open as f64 - idle.before as f64 - store);
    let open = |idle: &Idle| known(idle) + grown(idle.store_open, idle.channels_open);
    let numbers = [
        ("resident_bytes_empty_store", store),
        ("resident_bytes_never_opened", known(&fresh)),
        ("resident_bytes_open_no_event", open(&fresh)),
        ("resident_bytes_one_event_appended", open(&fresh) + grown(fresh.channels_open, fresh.appended)),
        ("page_bytes_one_event_appended", each(fresh.page_bytes as f64)),
        ("resident_bytes_never_opened_one_event", known(&again)),
        ("resident_bytes_open_one_event", open(&again)),
        ("target_resident_bytes_never_opened", TARGET_RESIDENT_BYTES),
        ("open_ns_no_event", fresh.open_channels_ns as f64 / count as f64),
        ("open_ns_one_event", again.open_channels_ns as f64 / count as f64),
    ];
    let mut turns = Turns::default();
    for idle in [&fresh, &again] {
        let mut latencies = Latencies::new();
        latencies.record_n(Duration::from_nanos(idle.open_channels_ns / count), count);
        let elapsed = Duration::from_nanos(idle.open_channels_ns);
        turns.push(Turn { latencies, events: count, elapsed });
    }
    let mut row = Row::new(NAME, "redex", IDLE_PAYLOAD_SIZE, &turns, &session.machine);
    (row.mode, row.channels) = ("idle", count);
    row.numbers.extend(numbers.map(|(name, value)| (name.to_owned(), value)));
    row.note = Some(format!(
        "bytes a channel: {:.0} never opened, {:.0} open without an event, {:.0} with an event just appended (of which {:.0} of pages); \
         with an event on disk {:.0} never opened, {:.0} open; opened in {:.1} us, with an event in {:.1} us; an empty store {:.1} MiB",
        numbers[1].1,
        numbers[2].1,
        numbers[3].1,
        numbers[4].1,
        numbers[5].1,
        numbers[6].1,
        numbers[8].1 / 1e3,
        numbers[9].1 / 1e3,
        store / f64::from(1 << 20)
    ));
    session.finish(row)
}

/// Has a process make channels, or open them and say what that took.
fn process(session: &Session, dir: &Path, count: u64, make: bool) -> anyhow::Result<Option<Idle>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["million-child", "--idle", "--first", "0"]);
    command.args(["--seed", &session.seed.to_string(), "--count", &count.to_string()]);
    if make {
        command.arg("--make");
    }
    ChildPlace::new(dir, session.backend).add_to(&mut command);
    let output = command.stdout(Stdio::piped()).output().context("starting a process of channels")?;
    ensure!(output.status.success(), "a process of channels failed");
    match make {
        true => Ok(None),
        false => serde_json::from_slice(&output.stdout).map(Some).context("reading what it printed"),
    }
}

/// What such a process does.
pub(super) fn child(args: &MillionChildArgs) -> anyhow::Result<()> {
    let name = |number: u64| format!("idle/{number}");
    let numbers = args.first..args.first + args.count;
    if args.make {
        let redex = store::open(&args.place.dir, args.place.backend)?;
        for number in numbers {
            store::channel(&redex, &name(number), FsyncPolicy::Never)?;
        }
        return store::close(redex);
    }
    let before = resident();
    let redex = store::open(&args.place.dir, args.place.backend)?;
    let store_open = resident();
    let mut files: Vec<RedexFile> = Vec::with_capacity(args.count as usize);
    let start = Instant::now();
    for number in numbers {
        files.push(store::channel(&redex, &name(number), FsyncPolicy::Never)?);
    }
    let open_channels_ns = start.elapsed().as_nanos() as u64;
    let channels_open = resident();
    let payloads = Payloads::new(args.seed, IDLE_PAYLOAD_SIZE);
    let had = files.first().map_or(0, RedexFile::next_seq);
    for (number, file) in files.iter().enumerate() {
        ensure!(file.next_seq() == had, "channel {number} has {} events", file.next_seq());
        file.append(payloads.get(number as u64)).wait().context("appending")?;
    }
    files.iter().try_for_each(|file| file.sync().wait()).context("syncing")?;
    let (appended, page_bytes) = (resident(), redex.stats().page_bytes);
    drop(files);
    store::close(redex)?;
    let idle = Idle { before, store_open, channels_open, appended, page_bytes, open_channels_ns };
    println!("{}", serde_json::to_string(&idle)?);
    Ok(())
}

/// The most memory seen in a part.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    resident: u64,
    pages: u64,
    held: u64,
}

impl Most {
    fn look(&mut self, redex: &Redex) {
        let stats = redex.stats();
        self.resident = self.resident.max(resident());
        self.pages = self.pages.max(stats.page_bytes);
        self.held = self.held.max(stats.held_page_bytes);
    }
}

fn steady(session: &mut Session) -> anyhow::Result<()> {
    session.doing("memory, steady".to_owned());
    let time = session.row_time(Workload::Memory);
    let kept = if session.quick { QUICK_KEPT_BYTES } else { KEPT_BYTES };
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let config = RedexFileConfig::default().with_persistent(true).with_retention_max_bytes(kept);
    let file = store::channel_with(&redex, CHANNEL, config)?;
    let mut meter = Meter::new(&dir);
    let (mut turns, mut most) = (Turns::default(), [Most::default(); THIRDS]);
    part(&redex, &file, &payloads, time.mul_f64(WARMING_SHARE))?;
    for most in &mut most {
        let third = time.mul_f64((1.0 - WARMING_SHARE) / THIRDS as f64);
        turns.push(meter.around(&redex, || {
            let (turn, seen) = part(&redex, &file, &payloads, third)?;
            *most = seen;
            Ok(turn)
        })?);
    }
    let (facts, budget) = (redex.stats().io, redex.stats().page_budget_bytes);
    file.sync().wait().context("syncing")?;
    let (head, end) = (file.head_seq(), file.durable());
    for seq in [head, u64::midpoint(head, end), end - 1] {
        readback::compare(&file, seq, payloads.get(seq))?;
    }
    drop(file);
    store::close(redex)?;
    session.place("store")?;

    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
    row.mode = "steady";
    let growth = most[THIRDS - 1].resident as f64 / most[0].resident.max(1) as f64;
    for (number, most) in most.iter().enumerate() {
        for (name, value) in [("resident", most.resident), ("page", most.pages), ("held_page", most.held)] {
            row.numbers.insert(format!("{name}_bytes_third{}", number + 1), value as f64);
        }
    }
    row.numbers.insert("resident_growth".to_owned(), growth);
    let bar = FLAT_GROWTH_MAX * most[0].resident as f64 + FLAT_SLACK_BYTES;
    row.numbers.insert("target_resident_bytes_third3".to_owned(), bar);
    row.numbers.insert("page_budget_bytes".to_owned(), budget as f64);
    let mib = |bytes: u64| bytes >> 20;
    let thirds = most.map(|most| format!("{} ({})", mib(most.resident), mib(most.pages))).join(", ");
    let flat = if most[THIRDS - 1].resident as f64 <= bar { "flat" } else { "not flat" };
    row.note = Some(format!("{flat}: MiB resident (of pages) in each third at the most {thirds}"));
    session.finish(row.costing(&meter.usage(), &facts))
}

/// Appends for `time`, and looks at memory meanwhile.
fn part(redex: &Redex, file: &RedexFile, payloads: &Payloads, time: Duration) -> anyhow::Result<(Turn, Most)> {
    let (mut latencies, mut most) = (Latencies::new(), Most::default());
    let first = file.next_seq();
    let mut next = first;
    let start = Instant::now();
    while start.elapsed() < time {
        for _ in 0..APPENDS_PER_LOOK {
            let sent = next.is_multiple_of(APPENDS_PER_SAMPLE).then(Instant::now);
            file.append(payloads.get(next)).wait().context("appending")?;
            if let Some(sent) = sent {
                latencies.record(sent.elapsed());
            }
            next += 1;
        }
        most.look(redex);
    }
    Ok((Turn { latencies, events: next - first, elapsed: start.elapsed() }, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a part has seen is at least what is there at its end.
    #[test]
    fn memory_is_looked_at_while_events_are_appended() {
        let redex = Redex::in_memory();
        let file = redex.open_file("memory", RedexFileConfig::default()).unwrap();
        let payloads = Payloads::new(1, 64);
        let (turn, most) = part(&redex, &file, &payloads, Duration::from_millis(1)).unwrap();
        assert_eq!(turn.events, file.next_seq());
        assert!(most.resident > 0, "this process has memory");
    }
}
