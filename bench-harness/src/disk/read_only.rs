//! `read-only-remount`: a file system turns read-only under a store, as ext4 does by itself on an error, and XFS shuts down.
//!
//! The store stops with the first cause, and says it to everybody; what it has is read on. Mounted anew, the store opens with
//! everything acknowledged.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use redex::{AppendError, Poisoned};

use super::load::{self, COUNT, SMALL};
use super::{mount, tool, unmount};
use crate::args::{DiskChildArgs, FileSystem, word};
use crate::store;

/// Events acknowledged before the harm is done.
const EVENTS: u64 = 2000;

/// The store notices within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does all of it on the mounted file system.
pub(crate) fn run(args: &DiskChildArgs) -> anyhow::Result<()> {
    let dir = args.place.dir.join("store");
    let (redex, files) = load::open(&dir, args.place.backend)?;
    let mut acknowledged = [0; COUNT];
    for seq in 0..EVENTS {
        let channel = usize::from(seq % 200 == 199);
        let next = &mut acknowledged[channel];
        let appended = files[channel].append_durable(load::payload(channel, *next)).wait().context("appending")?;
        ensure!(appended == *next, "event {next} got sequence {appended}");
        *next += 1;
    }
    turn_read_only(args)?;
    let poisoned = append_until_poisoned(&files[SMALL], &mut acknowledged[SMALL])?;
    println!("read-only: {poisoned}: {}", poisoned.cause);
    ensure!(!poisoned.file.is_empty(), "the failure names no file: {poisoned}");
    ensure!(redex.stats().shards_stopped > 0, "a failed write stops its shard");
    match load::check(&files, acknowledged) {
        Ok(compared) => println!("read-only: {compared} events read and compared"),
        // A file system that has shut down reads nothing from its device.
        Err(error) if args.fs == FileSystem::Xfs => println!("read-only: {error:#}"),
        Err(error) => return Err(error).context("reading while the file system is read-only"),
    }
    drop(files);
    ensure!(store::close(redex).is_err(), "the close of a store that has stopped says so");

    unmount(args)?;
    mount(args)?;
    let (redex, files) = load::open(&dir, args.place.backend).context("reopening on the file system mounted anew")?;
    let compared = load::check(&files, acknowledged)?;
    let next = files[SMALL].next_seq();
    files[SMALL].append_durable(load::payload(SMALL, next)).wait().context("appending after the reopen")?;
    drop(files);
    store::close(redex)?;
    println!("read-only-remount: {}: {compared} events compared after it was mounted anew", word(&args.fs));
    Ok(())
}

/// Lets the file system find an error: then it takes no writes any more, whoever has files open. A plain remount is refused while
/// somebody has.
fn turn_read_only(args: &DiskChildArgs) -> anyhow::Result<()> {
    if args.fs == FileSystem::Xfs {
        return tool(Command::new("xfs_io").args(["-x", "-c", "shutdown -f"]).arg(&args.place.dir));
    }
    tool(Command::new("mount").args(["-o", "remount,errors=remount-ro"]).arg(&args.place.dir))?;
    let table = std::fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let point = args.place.dir.to_string_lossy();
    let device = table.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        let device = fields.next()?;
        (fields.next()? == point).then(|| device.trim_start_matches("/dev/").to_owned())
    });
    let device = device.with_context(|| format!("{point} is not in /proc/self/mounts"))?;
    let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
    std::fs::write(&trigger, "1").with_context(|| format!("writing {trigger}"))
}

/// Appends until the store has stopped.
fn append_until_poisoned(file: &redex::RedexFile, acknowledged: &mut u64) -> anyhow::Result<Poisoned> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match file.append_durable(load::payload(SMALL, *acknowledged)).wait() {
            Ok(_) => *acknowledged += 1,
            Err(AppendError::Poisoned(poisoned)) => return Ok(poisoned),
            Err(other) => return Err(other).context("appending"),
        }
    }
    bail!("the store has not noticed within {PATIENCE:?} that its file system takes no writes")
}
