//! `second-process`: a process that opened the store for reading only follows one that writes it.
//!
//! `sight`: durable appends at a steady rate; the latency is from the acknowledgement in the writer to the moment when the other
//! process has the event. `alone` and `followed`: appends at full speed under `EveryN(256)`, without and with a process that
//! follows and reads every event, in turns on one store.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, Redex, RedexFile};

use super::{TURN_COUNT, Workload};
use crate::args::FollowChildArgs;
use crate::load::Payloads;
use crate::pace::Pace;
use crate::row::Row;
use crate::run::Session;
use crate::sample::{Latencies, Turn, Turns};
use crate::store;

const NAME: &str = "second-process";
const CHANNEL: &str = "bench/second-process";
const PAYLOAD_SIZE: usize = 256;
/// Durable events a second, unless `--rate` says otherwise.
const RATE: f64 = 500.0;
/// Most that a full-speed turn appends: 256 MiB.
const EVENTS_MAX: u64 = 1 << 20;
/// Unflushed events at full speed.
const UNFLUSHED: u64 = 256;
/// Says that the process follows.
const READY: &str = "ready";

/// Rows that it measures.
pub(super) const ROW_COUNT: u32 = 3;

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    sight(session)?;
    beside(session)
}

fn sight(session: &mut Session) -> anyhow::Result<()> {
    session.doing("second-process, sight".to_owned());
    let rate = session.rate.unwrap_or(RATE);
    let count = ((session.row_time(Workload::SecondProcess).as_secs_f64() * rate) as u64).max(1);
    let payloads = Payloads::new(session.seed_for(1), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::EveryN(1))?;
    file.append_durable(payloads.get(0)).wait().context("appending")?;
    let reader = Reader::start(&dir, true)?;
    let (start, pace) = (Instant::now(), Pace::new(Instant::now(), rate));
    let mut acknowledged = Vec::with_capacity(count as usize);
    for index in 0..count {
        pace.wait(index);
        file.append_durable(payloads.get(index + 1)).wait().context("appending")?;
        acknowledged.push(now_ns());
    }
    let elapsed = start.elapsed();
    // The last is seen within milliseconds.
    std::thread::sleep(Duration::from_millis(100));
    let seen = reader.end()?;
    let mut latencies = Latencies::new();
    let mut events = 0;
    for (seq, at_ns) in seen {
        if let Some(index) = seq.checked_sub(1) {
            let acknowledged =
                acknowledged.get(index as usize).context("the reader saw an event that was not appended")?;
            latencies.record(Duration::from_nanos(at_ns.saturating_sub(*acknowledged)));
            events += 1;
        }
    }
    ensure!(events == count, "the reader saw {events} of {count} events");
    close(session, file, redex)?;
    let mut turns = Turns::default();
    turns.push(Turn { latencies, events, elapsed });
    let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, &turns, &session.machine);
    (row.mode, row.rate) = ("sight", Some(rate));
    row.note = Some("from the acknowledgement to sight in another process".to_owned());
    session.finish(row)
}

fn beside(session: &mut Session) -> anyhow::Result<()> {
    session.doing("second-process, beside".to_owned());
    let time = session.row_time(Workload::SecondProcess) / TURN_COUNT;
    let payloads = Payloads::new(session.seed_for(2), PAYLOAD_SIZE);
    let dir = session.place("store")?;
    let redex = store::open(&dir, session.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::EveryN(UNFLUSHED))?;
    file.append_durable(payloads.get(0)).wait().context("appending")?;
    let (mut alone, mut followed) = (Turns::default(), Turns::default());
    for turn in 0..TURN_COUNT {
        // Now the one first, now the other.
        for is_followed in [turn % 2 == 0, turn % 2 == 1] {
            if is_followed {
                let reader = Reader::start(&dir, false)?;
                followed.push(full_speed(&file, &payloads, time)?);
                reader.end()?;
            } else {
                alone.push(full_speed(&file, &payloads, time)?);
            }
        }
    }
    close(session, file, redex)?;
    for (mode, turns) in [("alone", &alone), ("followed", &followed)] {
        let mut row = Row::new(NAME, "redex", PAYLOAD_SIZE, turns, &session.machine);
        (row.mode, row.in_flight) = (mode, UNFLUSHED);
        if mode == "followed" {
            let share = 100.0 * followed.rate() / alone.rate().max(1e-9);
            row.note = Some(format!("{share:.0}% of the writer's rate alone"));
        }
        session.finish(row)?;
    }
    Ok(())
}

fn close(session: &mut Session, file: RedexFile, redex: Redex) -> anyhow::Result<()> {
    drop(file);
    store::close(redex)?;
    session.place("store").map(drop)
}

fn full_speed(file: &RedexFile, payloads: &Payloads, time: Duration) -> anyhow::Result<Turn> {
    let (mut latencies, mut events, start) = (Latencies::new(), 0, Instant::now());
    while start.elapsed() < time && events < EVENTS_MAX {
        let before = Instant::now();
        file.append(payloads.get(events)).wait().context("appending")?;
        latencies.record(before.elapsed());
        events += 1;
    }
    file.sync().wait().context("syncing")?;
    Ok(Turn { latencies, events, elapsed: start.elapsed() })
}

/// The wall clock, which two processes share, ns.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// A process that follows.
struct Reader {
    process: Child,
    /// Ends the process when it is dropped.
    stdin: ChildStdin,
    seen: JoinHandle<Vec<(u64, u64)>>,
}

impl Reader {
    fn start(dir: &Path, tells: bool) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("follow-child").arg("--dir").arg(dir);
        if tells {
            command.arg("--tells");
        }
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting the reader")?;
        let stdin = process.stdin.take().expect("standard input is piped");
        let mut out = BufReader::new(process.stdout.take().expect("standard output is piped"));
        let mut line = String::new();
        out.read_line(&mut line)?;
        ensure!(line.trim_end() == READY, "the reading process ended before it followed");
        let seen = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut pair = [0; 16];
            while out.read_exact(&mut pair).is_ok() {
                let (seq, at) = pair.split_at(8);
                let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                seen.push((number(seq), number(at)));
            }
            seen
        });
        Ok(Self { process, stdin, seen })
    }

    /// Ends it; what it saw, and when.
    fn end(mut self) -> anyhow::Result<Vec<(u64, u64)>> {
        drop(self.stdin);
        let status = self.process.wait()?;
        ensure!(status.success(), "the reading process failed: {status}");
        Ok(self.seen.join().expect("the thread does not panic"))
    }
}

/// The process that follows, until its standard input ends: reads every event, and tells when it saw it if it is to.
pub(crate) fn child(args: &FollowChildArgs) -> anyhow::Result<ExitCode> {
    let redex = Redex::open_read_only(&args.dir).context("opening for reading")?;
    // Its first event was acknowledged before this process was started, and is seen when it has a witness.
    let file = loop {
        match redex.open_file(CHANNEL) {
            Ok(file) => break file,
            Err(redex::OpenFileError::NoSuchChannel { .. }) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error.into()),
        }
    };
    let from = if args.tells { 0 } else { file.next_seq() };
    let mut tail = file.subscribe_from(from).wait()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{READY}").and_then(|()| out.flush())?;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(redex);
        std::process::exit(0);
    });
    let mut bytes = 0;
    while let Some(event) = tail.next_wait() {
        bytes += event.payload.len();
        if args.tells {
            let mut pair = event.seq.to_le_bytes().to_vec();
            pair.extend(now_ns().to_le_bytes());
            out.write_all(&pair)?;
            out.flush()?;
        }
    }
    ensure!(bytes > 0, "nothing was read");
    Ok(ExitCode::SUCCESS)
}
