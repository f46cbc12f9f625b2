//! A consumer that is stopped and goes on where it stood: without loss, and without being fooled by what a crash took back.
//!
//! `cargo run -p redex --example resumable_consumer` works in a directory of its own below the current one, and removes it.
//! The cursor is stored after the events were processed: killed between the two, a consumer sees some of them again, and none
//! is skipped. The epoch in the cursor tells events from others that got their sequences after a crash.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use redex::{Cursor, Redex, RedexFile, RedexFileConfig, TailEnd};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let (data, stored) = (dir.path().join("data"), dir.path().join("cursor"));
    let config = RedexFileConfig::default().with_persistent(true);
    let mut processed: Vec<Vec<u8>> = Vec::new();
    let mut written = 0;
    for (life, count) in [(1, 70), (2, 90), (3, 140)] {
        let redex = Redex::open(&data)?;
        let file = redex.open_file("orders", config.clone())?;
        for _ in 0..100 {
            file.append(format!("order {written}")).wait()?;
            written += 1;
        }
        consume(&file, &stored, count, &mut processed)?;
        println!("life {life}: processed {} of {written}, stopped at cursor {}", processed.len(), load(&stored)?);
        redex.close().wait()?;
    }
    assert!(processed.iter().enumerate().all(|(i, order)| *order == format!("order {i}").into_bytes()));

    // As after a power cut that took back three events which had been processed: others get their sequences.
    processed.extend((300..303).map(|i| format!("order {i}").into_bytes()));
    store(&stored, Cursor { seq: 303, ..load(&stored)? })?;
    let redex = Redex::open(&data)?;
    let file = redex.open_file("orders", config)?;
    file.append_batch(&["new order 300", "new order 301"]).wait()?;
    consume(&file, &stored, 2, &mut processed)?;
    assert_eq!(processed[299..], [b"order 299".to_vec(), b"new order 300".to_vec(), b"new order 301".to_vec()]);
    redex.close().wait()?;
    Ok(())
}

/// Processes `count` events from the stored cursor on.
fn consume(file: &RedexFile, stored: &Path, count: usize, processed: &mut Vec<Vec<u8>>) -> Result<(), Box<dyn Error>> {
    let mut tail = file.tail(load(stored)?);
    let mut left = count;
    while left > 0 {
        match tail.next_wait().ok_or("the channel was closed")? {
            Ok(event) => {
                assert_eq!(event.seq, processed.len() as u64, "without a gap");
                processed.push(event.payload.to_vec());
                left -= 1;
            }
            Err(TailEnd::Lost { from, to, .. }) => {
                println!("events {from}..{to} were lost in a crash: what they did is undone");
                processed.truncate(usize::try_from(from)?);
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(store(stored, tail.cursor())?)
}

/// The stored cursor; the beginning if there is none.
fn load(path: &Path) -> Result<Cursor, Box<dyn Error>> {
    if path.exists() { Ok(fs::read_to_string(path)?.parse()?) } else { Ok(Cursor { epoch: 0, seq: 0 }) }
}

/// Replaces the stored cursor: after a power cut there is the one before or this one, whole.
fn store(path: &Path, cursor: Cursor) -> std::io::Result<()> {
    let (new, dir) = (path.with_extension("new"), path.parent().unwrap_or(Path::new(".")));
    let mut file = File::create(&new)?;
    write!(file, "{cursor}")?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(dir)?.sync_all()
}
