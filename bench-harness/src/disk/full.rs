//! `full-disk`: a file system is filled to its last byte while a store on it is appended to.
//!
//! 1. Appends go on until they are refused, and a ballast file takes every byte that is left: from then on all appends are refused
//!    as `NoSpace`, and everything acknowledged can be read.
//! 2. The ballast goes: appends work again by themselves, within seconds. What waited for room is there.
//! 3. A process appends until the disk is full, and is killed. On the full disk the store opens with everything acknowledged, or
//!    fails for want of space; once there is room it opens with everything, and goes on.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use redex::{AppendError, RedexFile};

use super::load::{self, COUNT, LARGE, SMALL};
use crate::args::{ChildPlace, DiskChildArgs, DiskWriterArgs, word};
use crate::store;

/// What the store finds when the first appends come: enough for its journal and some segments, and soon used up.
const ROOM_BYTES: u64 = 40 << 20;

/// Refusals in a row that count as full, once the ballast has the last byte.
const REFUSALS: u32 = 200;

/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does all of it on the mounted file system.
pub(crate) fn run(args: &DiskChildArgs) -> anyhow::Result<()> {
    let (dir, ballast) = (args.place.dir.join("store"), args.place.dir.join("ballast"));
    let acknowledged = fills_and_goes_on(args, &dir, &ballast)?;
    is_killed_while_full(args, &dir, &ballast, acknowledged)?;
    println!("full-disk: {}: nothing acknowledged is lost", word(&args.fs));
    Ok(())
}

/// Steps 1 and 2; how much is acknowledged.
fn fills_and_goes_on(args: &DiskChildArgs, dir: &Path, ballast: &Path) -> anyhow::Result<[u64; COUNT]> {
    let (redex, files) = load::open(dir, args.place.backend)?;
    let mut acknowledged = [0; COUNT];
    append_some(&files, &mut acknowledged, 50)?;
    take_all_but(ballast, ROOM_BYTES)?;

    // A large event may wait for room: so it waits beside.
    let large = files[LARGE].clone();
    let (waits_until_over, over) = std::sync::mpsc::channel::<()>();
    let beside = std::thread::spawn(move || append_large(&large, &over));
    append_until_refused(&files[SMALL], &mut acknowledged[SMALL])?;
    let refused = refused_for_good(&files[SMALL], &mut acknowledged[SMALL], ballast)?;
    let stats = redex.stats();
    ensure!(stats.shards_without_space > 0 && stats.shards_stopped == 0, "a full disk stops no shard");
    let compared = load::check(&files, acknowledged)?;
    println!("full: {refused} appends refused, {compared} events read and compared meanwhile");

    let freed = Instant::now();
    std::fs::remove_file(ballast).context("removing the ballast")?;
    while !append_one(&files[SMALL], &mut acknowledged[SMALL])? {
        ensure!(freed.elapsed() < PATIENCE, "appends are refused {PATIENCE:?} after space was freed");
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("freed: appends work again after {} ms", freed.elapsed().as_millis());
    drop(waits_until_over);
    acknowledged[LARGE] = beside.join().expect("appending does not panic")?;
    append_some(&files, &mut acknowledged, 50)?;
    load::check(&files, acknowledged)?;
    drop(files);
    store::close(redex)?;
    let (redex, files) = load::open(dir, args.place.backend).context("reopening once there was room")?;
    let compared = load::check(&files, acknowledged)?;
    println!("reopened: {compared} events compared");
    drop(files);
    store::close(redex)?;
    Ok(acknowledged)
}

/// Appends one event, durably. Says whether it was accepted: a refusal for want of space is none.
fn append_one(file: &RedexFile, acknowledged: &mut u64) -> anyhow::Result<bool> {
    let bytes = load::payload(SMALL, *acknowledged);
    match file.append_durable(bytes).wait() {
        Ok(seq) => {
            ensure!(seq == *acknowledged, "event {acknowledged} got sequence {seq}");
            *acknowledged += 1;
            Ok(true)
        }
        Err(AppendError::NoSpace { .. }) => Ok(false),
        Err(other) => Err(other).context("appending"),
    }
}

fn append_some(files: &[RedexFile; COUNT], acknowledged: &mut [u64; COUNT], count: u64) -> anyhow::Result<()> {
    for _ in 0..count {
        ensure!(append_one(&files[SMALL], &mut acknowledged[SMALL])?, "refused for want of space where there is some");
    }
    let seq = acknowledged[LARGE];
    let appended = files[LARGE].append_durable(load::payload(LARGE, seq)).wait().context("appending")?;
    ensure!(appended == seq, "event {seq} got sequence {appended}");
    acknowledged[LARGE] += 1;
    Ok(())
}

/// Appends large events until told to end; those that are refused are tried again. How many were acknowledged.
fn append_large(file: &RedexFile, over: &std::sync::mpsc::Receiver<()>) -> anyhow::Result<u64> {
    let mut next = file.next_seq();
    while over.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
        match file.append_durable(load::payload(LARGE, next)).wait() {
            Ok(seq) => {
                ensure!(seq == next, "large event {next} got sequence {seq}");
                next += 1;
            }
            Err(AppendError::NoSpace { .. }) => std::thread::sleep(Duration::from_millis(5)),
            Err(other) => return Err(other).context("appending a large event"),
        }
    }
    Ok(next)
}

fn append_until_refused(file: &RedexFile, acknowledged: &mut u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    while append_one(file, acknowledged)? {
        ensure!(begun.elapsed() < PATIENCE, "the disk is not full after {PATIENCE:?}");
    }
    Ok(())
}

/// Gives every byte that is left to the ballast, until so many appends in a row are refused; how many were in all.
fn refused_for_good(file: &RedexFile, acknowledged: &mut u64, ballast: &Path) -> anyhow::Result<u32> {
    let (begun, mut all, mut in_a_row) = (Instant::now(), 0, 0);
    while in_a_row < REFUSALS {
        ensure!(begun.elapsed() < PATIENCE, "appends are not refused for good after {PATIENCE:?}");
        take_the_rest(&mut OpenOptions::new().append(true).create(true).open(ballast)?)?;
        if append_one(file, acknowledged)? {
            in_a_row = 0;
        } else {
            (all, in_a_row) = (all + 1, in_a_row + 1);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(all)
}

/// Fills the file system with a file, and gives `room` bytes back.
fn take_all_but(ballast: &Path, room: u64) -> anyhow::Result<()> {
    let mut file = File::create(ballast)?;
    take_the_rest(&mut file)?;
    let size = file.metadata()?.len();
    ensure!(size > room, "the file system has room for {size} bytes beside the store: less than {room}");
    file.set_len(size - room).context("giving room back")?;
    file.sync_all().context("giving room back")
}

/// Writes to the end of a file until no byte fits.
fn take_the_rest(file: &mut File) -> anyhow::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut size = zeros.len();
    while size > 0 {
        match file.write(&zeros[..size]) {
            Ok(1..) => {}
            Ok(0) => size /= 2,
            Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
            Err(error) => return Err(error).context("filling the disk"),
        }
    }
    // Delayed allocation is over now; what finds no room after all is not there, and that is as well.
    match file.sync_all() {
        Err(error) if error.kind() != ErrorKind::StorageFull => Err(error).context("filling the disk"),
        _ => Ok(()),
    }
}

/// Step 3.
fn is_killed_while_full(
    args: &DiskChildArgs,
    dir: &Path,
    ballast: &Path,
    mut acknowledged: [u64; COUNT],
) -> anyhow::Result<()> {
    take_all_but(ballast, ROOM_BYTES / 2)?;
    acknowledged[SMALL] = kill_a_writer(args, dir, ballast)?.unwrap_or(acknowledged[SMALL]);
    match load::open(dir, args.place.backend) {
        Ok((redex, files)) => {
            let compared = load::check(&files, acknowledged).context("on the full disk")?;
            println!("killed while full: opens on the full disk, {compared} events compared");
            drop(files);
            // Its checkpoint finds no room; what the journal holds is recovered by the next open.
            if let Err(error) = store::close(redex) {
                println!("its close: {error:#}");
            }
        }
        Err(error) if is_for_want_of_space(&error) => println!("killed while full: does not open yet: {error:#}"),
        Err(error) => return Err(error).context("opening on the full disk"),
    }
    std::fs::remove_file(ballast).context("removing the ballast")?;
    let (redex, files) = load::open(dir, args.place.backend).context("opening once there was room")?;
    let compared = load::check(&files, acknowledged)?;
    println!("opened once there was room: {compared} events compared");
    let mut next = [files[SMALL].next_seq(), files[LARGE].next_seq()];
    append_some(&files, &mut next, 50)?;
    load::check(&files, next)?;
    drop(files);
    store::close(redex)
}

fn is_for_want_of_space(error: &anyhow::Error) -> bool {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::StorageFull)
    };
    error.chain().any(is_full)
}

/// Starts a process that appends, fills the disk under it, and kills it; the last sequence that was acknowledged to it.
fn kill_a_writer(args: &DiskChildArgs, dir: &Path, ballast: &Path) -> anyhow::Result<Option<u64>> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.arg("disk-writer");
    ChildPlace::new(dir, args.place.backend).add_to(&mut command);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting the writer")?;
    let mut out = BufReader::new(child.stdout.take().expect("standard output is piped"));
    let (mut line, mut acknowledged, mut refused) = (String::new(), None, 0);
    let begun = Instant::now();
    while refused < REFUSALS / 4 && begun.elapsed() < PATIENCE {
        line.clear();
        if out.read_line(&mut line)? == 0 {
            bail!("the writer ended by itself ({})", child.wait()?);
        }
        match line.trim_end().strip_prefix("A ") {
            Some(end) => acknowledged = Some(end.parse::<u64>()?),
            None => {
                refused += 1;
                take_the_rest(&mut OpenOptions::new().append(true).open(ballast)?)?;
            }
        }
    }
    child.kill().context("killing the writer")?;
    child.wait()?;
    // What it said between the last look and its end; a line that was cut off was never said.
    for line in out.lines().map_while(Result::ok) {
        acknowledged = line.strip_prefix("A ").and_then(|end| end.parse().ok()).max(acknowledged);
    }
    ensure!(refused > 0, "the disk was not full within {PATIENCE:?}");
    Ok(acknowledged)
}

/// The process that is killed: appends small events, and says of each whether it was acknowledged or refused.
pub(crate) fn writer(args: &DiskWriterArgs) -> anyhow::Result<ExitCode> {
    super::end_with_parent();
    let (_redex, files) = load::open(&args.place.dir, args.place.backend)?;
    let mut next = files[SMALL].next_seq();
    let mut out = std::io::stdout().lock();
    loop {
        let line = if append_one(&files[SMALL], &mut next)? { format!("A {next}\n") } else { "F\n".to_owned() };
        out.write_all(line.as_bytes()).and_then(|()| out.flush())?;
    }
}
