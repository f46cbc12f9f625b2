//! Telemetry that keeps itself small: a sensor's log with a limit of bytes, of which old segments go by themselves.
//!
//! `cargo run -p redex --example telemetry_retention` works in a directory of its own below the current one, and removes it.
//! It writes twenty times the limit, looks at the disk all the while, and shows a reader that is too slow for it.

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use redex::{Redex, RedexFileConfig, TailEnd};

/// What is kept, bytes of payloads and index.
const LIMIT: u64 = 2 << 20;
const EVENT_SIZE: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let redex = Redex::open(dir.path())?;
    let config = RedexFileConfig::default()
        .with_persistent(true)
        .with_retention_max_bytes(LIMIT)
        .with_retention_max_age(Duration::from_secs(24 * 3600));
    let file = redex.open_file("sensors/engine/vibration", config.clone())?;

    // A dashboard that stops after the first event. The log waits for it, until it is behind by twice the limit.
    let mut dashboard = file.tail(0);
    let (mut written, mut most) = (0, 0);
    while written < 20 * LIMIT {
        let samples: Vec<Vec<u8>> = (0..1000_u64).map(|i| sample(file.next_seq() + i)).collect();
        file.append_batch(&samples).wait()?;
        written += samples.iter().map(|sample| sample.len() as u64 + 20).sum::<u64>();
        most = most.max(bytes_beneath(&dir.path().join("channels"))?);
        if written < LIMIT {
            dashboard.next_wait().ok_or("the first event is there")??;
        }
    }
    file.sync().wait()?;
    println!("written: {} KiB, on disk at the most: {} KiB, limit: {} KiB", written >> 10, most >> 10, LIMIT >> 10);
    // Twice the limit, since somebody was behind, a quarter of that, and a segment.
    assert!(most <= 2 * LIMIT * 5 / 4 + 2 * LIMIT / 8 + (64 << 10), "{most} bytes");

    match dashboard.next_wait().ok_or("it goes on")? {
        Err(TailEnd::Lagged { from, to, .. }) => println!("the dashboard missed {from}..{to}, and goes on at {to}"),
        other => return Err(format!("it is far behind, and got {other:?}").into()),
    }
    let event = dashboard.next_wait().ok_or("there is more")??;
    assert_eq!(event.payload, sample(event.seq));
    drop(dashboard);

    // Nobody holds anything back now: exactly the limit is left.
    let head = file.sweep_retention().wait()?;
    let last_minute = file.seek_time(SystemTime::now() - Duration::from_secs(60)).wait()?;
    println!("kept: {head}..{}, of the last minute: from {last_minute} on", file.next_seq());
    assert!(file.len() * (EVENT_SIZE as u64 + 20) <= LIMIT);
    redex.close().wait()?;

    // What went does not come back, and sequences go on.
    let redex = Redex::open(dir.path())?;
    let file = redex.open_file("sensors/engine/vibration", config)?;
    assert_eq!(file.head_seq(), head);
    redex.close().wait()?;
    Ok(())
}

fn sample(seq: u64) -> Vec<u8> {
    let mut sample = seq.to_le_bytes().repeat(EVENT_SIZE / 8);
    sample.resize(EVENT_SIZE, 0);
    sample
}

fn bytes_beneath(dir: &Path) -> Result<u64, Box<dyn Error>> {
    let mut bytes = 0;
    let Ok(entries) = fs::read_dir(dir) else { return Ok(0) };
    for entry in entries {
        let entry = entry?;
        // A file may go while it is looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { bytes_beneath(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
