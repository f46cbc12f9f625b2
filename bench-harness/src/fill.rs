//! Fills logs for the workloads that read, in this process or in one that will be killed.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, RedexFile};

use crate::args::{Backend, ChildPlace, FillChildArgs};
use crate::load::Payloads;
use crate::store;

/// Channel that is filled for `reopen`.
pub(crate) const CHANNEL: &str = "bench/reopen";

/// Size of its payloads, bytes.
pub(crate) const PAYLOAD_SIZE: usize = 64;

/// Events of one call.
const BATCH: u64 = 1000;

/// Says on standard output that everything asked for is appended and synced.
const READY: &str = "ready";

/// Appends the payloads `first..end` to a channel whose next sequence is `first`.
pub(crate) fn append(file: &RedexFile, payloads: &Payloads, first: u64, end: u64) -> anyhow::Result<()> {
    let mut batch = Vec::new();
    let mut next = first;
    while next < end {
        let until = end.min(next + BATCH);
        batch.clear();
        batch.extend((next..until).map(|index| payloads.get(index)));
        let seqs = file.append_batch(&batch).wait().context("filling")?;
        ensure!(seqs == (next..until), "filling got sequences {seqs:?} instead of {next}..{until}");
        next = until;
    }
    Ok(())
}

/// The process that is killed: appends and syncs what it is told to, says so, and goes on appending until it is killed.
pub(crate) fn child(args: &FillChildArgs) -> anyhow::Result<ExitCode> {
    let payloads = Payloads::new(args.seed, PAYLOAD_SIZE);
    let redex = store::open(&args.place.dir, args.place.backend)?;
    let file = store::channel(&redex, CHANNEL, FsyncPolicy::Never)?;
    let mut next = file.next_seq();
    append(&file, &payloads, next, next + args.events)?;
    file.sync().wait().context("syncing")?;
    next += args.events;
    let mut out = std::io::stdout();
    writeln!(out, "{READY}").and_then(|()| out.flush())?;
    // A parent that died without killing this process must not leave it running: its standard input ends then.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    loop {
        file.append(payloads.get(next)).wait().context("appending")?;
        next += 1;
        std::thread::yield_now();
    }
}

/// Starts a process that adds `events` events to the store in `dir`, and kills it soon after they are durable.
pub(crate) fn fill_and_kill(dir: &Path, seed: u64, events: u64, backend: Option<Backend>) -> anyhow::Result<()> {
    let mut child = spawn(dir, seed, events, backend).context("starting the filling process")?;
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().expect("standard output is piped"));
    let read = std::io::BufRead::read_line(&mut out, &mut line);
    child.kill().context("killing the filling process")?;
    child.wait()?;
    read?;
    ensure!(line.trim_end() == READY, "the filling process ended before it was done");
    Ok(())
}

fn spawn(dir: &Path, seed: u64, events: u64, backend: Option<Backend>) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["fill-child", "--seed", &seed.to_string(), "--events", &events.to_string()]);
    ChildPlace::new(dir, backend).add_to(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}
