//! A subscription from history into the present, beside a thread that writes.
//!
//! `cargo run -p redex --example follow` works in a directory of its own below the current one, and removes it.
//! The reader begins with events of an earlier run, comes to those that are written meanwhile, and ends with the channel:
//! one stream, in order, without a gap.

use std::error::Error;
use std::thread;

use redex::{Redex, RedexError, RedexFile, RedexFileConfig};

/// Events of the earlier run.
const BEFORE: u64 = 50_000;
/// Events that are written while the reader reads.
const MEANWHILE: u64 = 50_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let config = RedexFileConfig::default().with_persistent(true);

    let redex = Redex::open(dir.path())?;
    write(&redex.open_file("orders", config.clone())?, 0..BEFORE)?;
    redex.close().wait()?;

    let redex = Redex::open(dir.path())?;
    let file = redex.open_file("orders", config)?;
    let mut tail = file.subscribe_from(0).wait()?;
    let writer = thread::spawn(move || -> Result<(), RedexError> {
        write(&file, BEFORE..BEFORE + MEANWHILE)?;
        file.close().wait()?;
        Ok(())
    });

    let mut next = 0;
    while let Some(event) = tail.next_wait() {
        assert_eq!(event.seq, next, "in order, without a gap");
        assert_eq!(event.payload, order(next));
        next += 1;
    }
    println!("followed {next} events, {BEFORE} of them from before; the tail ended: {}", tail.ended().ok_or("it has")?);
    assert_eq!(next, BEFORE + MEANWHILE);

    writer.join().map_err(|_| "the writer panicked")??;
    redex.close().wait()?;
    Ok(())
}

fn write(file: &RedexFile, orders: std::ops::Range<u64>) -> Result<(), RedexError> {
    for number in orders {
        file.append(order(number)).wait()?;
    }
    Ok(())
}

fn order(number: u64) -> String {
    format!("order {number}: {} pieces", number % 7 + 1)
}
