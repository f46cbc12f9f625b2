//! An audit log whose old segments go to an archive: the local disk stays small, and every event can still be read.
//!
//! `cargo run -p redex --features cold --example cold_archive` works in two directories of its own below the current one: the
//! store, and the archive, a directory in the place of a bucket. For S3, GCS or Azure it is `ObjectStoreCold::new` with a store of the crate
//! `object_store`.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redex::{ObjectStoreCold, Redex, RedexFileConfig};

const EVENTS: u64 = 40_000;

fn entry(seq: u64) -> String {
    format!(
        "{{\"seq\":{seq},\"user\":\"user-{}\",\"action\":\"read\",\"object\":\"/documents/{}\"}}",
        seq % 97,
        seq * 31
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let archive = tempfile::tempdir_in(".")?;
    let redex = Redex::builder()
        .persistent_dir(dir.path())
        .checkpoint_bytes(1 << 20)
        .cold_store(Arc::new(ObjectStoreCold::directory(archive.path())?))
        .build()?;
    // Segments of 256 KiB; the newest two stay here, older ones are compressed and go.
    let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(256 << 10);
    let file = redex.open_file("audit", config.clone().with_cold_keep_segments(2).with_cold_zstd(3))?;

    let mut largest = 0;
    for start in (0..EVENTS).step_by(1000) {
        let entries: Vec<String> = (start..start + 1000).map(entry).collect();
        file.append_batch_durable(&entries).wait()?;
        largest = largest.max(bytes_below(&dir.path().join("channels"))?);
    }
    // Segments go by themselves after checkpoints. A close takes one; the pass behind it is asked for here.
    redex.close().wait()?;
    drop((redex, file));
    let redex = Redex::builder()
        .persistent_dir(dir.path())
        .cold_store(Arc::new(ObjectStoreCold::directory(archive.path())?))
        .build()?;
    let file = redex.open_file("audit", config.with_cold_keep_segments(2).with_cold_zstd(3))?;
    let begun = Instant::now();
    file.sweep_cold().wait()?;

    let payload_bytes: u64 = (0..EVENTS).map(|seq| entry(seq).len() as u64).sum();
    let (local, archived) = (bytes_below(&dir.path().join("channels"))?, bytes_below(archive.path())?);
    println!("{EVENTS} events, {} KiB of payload", payload_bytes >> 10);
    println!("local segments: at most {} KiB, now {} KiB", largest >> 10, local >> 10);
    println!("archive: {} KiB, compressed; the last pass took {:?}", archived >> 10, begun.elapsed());
    assert!(local < payload_bytes / 2, "old segments have left the local disk");
    assert!(archived < payload_bytes, "zstd makes them smaller");

    // One call reads across memory, local segments and the archive.
    let mut next = 0;
    for event in file.read_from(0).blocking() {
        let event = event?;
        assert_eq!((event.seq, &*event.payload), (next, entry(next).as_bytes()));
        next += 1;
    }
    assert_eq!(next, EVENTS);
    // An audit reads what is in the archive, from there alone.
    let archived_events = file.read_cold(0, EVENTS).wait()?;
    assert!(archived_events.iter().all(|event| *event.payload == *entry(event.seq).as_bytes()));
    println!("read all {next} events across the tiers, and {} from the archive alone", archived_events.len());
    assert!(begun.elapsed() < Duration::from_secs(60));
    redex.close().wait()?;
    Ok(())
}

/// Bytes of all files below a directory.
fn bytes_below(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    if !dir.exists() {
        return Ok(0);
    }
    for entry in fs::read_dir(dir)? {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
        if kind?.is_dir() {
            bytes += bytes_below(&path)?;
        } else if let Ok(meta) = fs::metadata(&path) {
            // Gone meanwhile: it was a segment on its way.
            bytes += meta.len();
        }
    }
    Ok(bytes)
}
