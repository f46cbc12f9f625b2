//! `million`: opening a store with a million channels, and what a channel costs in memory. Only with `--only million`.
//!
//! Processes of their own make the channels, 50,000 each, with one event in each of them, and close the store. Then fresh processes open it:
//! `p50` is the time of the opening alone. The last one also lists the channels, and opens 100,000 of them, without using them; what its
//! resident memory grows by is divided by the number of channels. With `--quick` there are 50,000 channels.

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use redex::FsyncPolicy;
use serde::{Deserialize, Serialize};

use super::{Workload, memory};
use crate::args::{ChildPlace, MillionChildArgs};
use crate::load::Payloads;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "million";
const PAYLOAD_SIZE: usize = 64;
const CHANNEL_COUNT: u64 = 1_000_000;
const QUICK_CHANNEL_COUNT: u64 = 50_000;
/// Channels that one process makes.
const MADE_AT_ONCE: u64 = 50_000;
/// Channels that are opened.
const OPENED: u64 = 100_000;
const OPENINGS: usize = 3;

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 1;

/// What a process that opens the store prints, as one line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Opening {
    open_ns: u64,
    resident_before: u64,
    resident_open: u64,
    list_ns: u64,
    prefix_ns: u64,
    opened: u64,
    open_channels_ns: u64,
    resident_channels: u64,
    descriptors: u64,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let channels = if session.quick { QUICK_CHANNEL_COUNT } else { CHANNEL_COUNT };
    let _fixed_by_size = session.row_time(Workload::Million);
    let dir = session.place("store")?;
    let common = |make: bool, first: u64, count: u64| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "million-child",
            "--seed",
            &session.seed.to_string(),
            "--first",
            &first.to_string(),
            "--count",
            &count.to_string(),
        ]);
        if make {
            command.arg("--make");
        }
        ChildPlace::new(&dir, session.backend).add_to(&mut command);
        anyhow::Ok(command)
    };
    for first in (0..channels).step_by(MADE_AT_ONCE as usize) {
        session.doing(format!("million, making channels from {first} on"));
        let status = common(true, first, MADE_AT_ONCE.min(channels - first))?.status()?;
        ensure!(status.success(), "the process that makes channels failed");
    }
    session.doing(format!("million, opening {channels} channels"));
    let mut turns = Turns::default();
    let mut last = None;
    for turn in 1..=OPENINGS {
        let opened = if turn == OPENINGS { OPENED.min(channels) } else { 0 };
        let output = common(false, 0, opened)?.stdout(Stdio::piped()).output()?;
        ensure!(output.status.success(), "the process that opens the store failed");
        let opening: Opening = serde_json::from_slice(&output.stdout).context("reading what it printed")?;
        let mut latencies = Latencies::new();
        let elapsed = Duration::from_nanos(opening.open_ns);
        latencies.record(elapsed);
        turns.push(Turn { latencies, events: channels, elapsed });
        last = Some(opening);
    }
    session.place("store")?;
    let row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
    session.finish(complete(row, channels, &last.context("it was opened")?))
}

fn complete(mut row: Row, channels: u64, opening: &Opening) -> Row {
    let known = opening.resident_open.saturating_sub(opening.resident_before) as f64 / channels as f64;
    let grown = opening.resident_channels.saturating_sub(opening.resident_open);
    let open = grown as f64 / opening.opened.max(1) as f64;
    let each_us = opening.open_channels_ns as f64 / 1e3 / opening.opened.max(1) as f64;
    for (name, value) in [
        ("open_ms", row.p50_ns as f64 / 1e6),
        ("resident_bytes_per_channel", known),
        ("resident_bytes_per_open_channel", open),
        ("descriptors", opening.descriptors as f64),
        ("list_ms", opening.list_ns as f64 / 1e6),
        ("prefix_list_ms", opening.prefix_ns as f64 / 1e6),
        ("open_channel_us", each_us),
    ] {
        row.numbers.insert(name.to_owned(), value);
    }
    row.channels = channels;
    row.note = Some(format!(
        "opened in {:.0} ms; {known:.0} B of memory a channel, {open:.0} B more for each of {} that are open (opened in {each_us:.0} us); \
         {} descriptors; all listed in {:.0} ms, a thousandth by its prefix in {:.2} ms",
        row.p50_ns as f64 / 1e6,
        opening.opened,
        opening.descriptors,
        opening.list_ns as f64 / 1e6,
        opening.prefix_ns as f64 / 1e6,
    ));
    row
}

/// A process that makes channels, or opens them and tells what that takes.
pub(crate) fn child(args: &MillionChildArgs) -> anyhow::Result<ExitCode> {
    if args.idle {
        memory::child(args)?
    } else if args.make {
        make(args)?
    } else {
        open(args)?
    }
    Ok(ExitCode::SUCCESS)
}

/// A thousand channels for each of many prefixes.
fn name(number: u64) -> String {
    format!("plant/{:03}/sensor/{:03}", number / 1000, number % 1000)
}

fn make(args: &MillionChildArgs) -> anyhow::Result<()> {
    let payloads = Payloads::new(args.seed, PAYLOAD_SIZE);
    let redex = store::open(&args.place.dir, args.place.backend)?;
    for number in args.first..args.first + args.count {
        let file = store::channel(&redex, &name(number), FsyncPolicy::Never)?;
        file.append(payloads.get(number)).wait().context("appending")?;
    }
    store::close(redex)
}

fn open(args: &MillionChildArgs) -> anyhow::Result<()> {
    let resident_before = resident();
    let start = Instant::now();
    let redex = store::open(&args.place.dir, args.place.backend)?;
    let open_ns = start.elapsed().as_nanos() as u64;
    let resident_open = resident();
    let files = (0..args.count).map(|number| store::channel(&redex, &name(number), FsyncPolicy::Never));
    let start = Instant::now();
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    let open_channels_ns = start.elapsed().as_nanos() as u64;
    let (resident_channels, descriptors) = (resident(), descriptors());
    let payloads = Payloads::new(args.seed, PAYLOAD_SIZE);
    for (number, file) in files.iter().enumerate().step_by(997) {
        let event = file.read_one(0).wait().context("reading")?.context("a channel lost its event")?;
        ensure!(event.payload == payloads.get(number as u64), "channel {number} has another event");
    }
    let start = Instant::now();
    let all = redex.channels().len();
    let list_ns = start.elapsed().as_nanos() as u64;
    let start = Instant::now();
    let some = redex.channels_with_prefix("plant/007/").len();
    let prefix_ns = start.elapsed().as_nanos() as u64;
    ensure!(some == 1000.min(all), "{some} channels have the prefix");
    let opened = args.count;
    drop(files);
    store::close(redex)?;
    let opening = Opening {
        open_ns,
        resident_before,
        resident_open,
        list_ns,
        prefix_ns,
        opened,
        open_channels_ns,
        resident_channels,
        descriptors,
    };
    println!("{}", serde_json::to_string(&opening)?);
    Ok(())
}

/// Resident memory of this process, bytes.
pub(super) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}
