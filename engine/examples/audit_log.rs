//! An audit log: who did what, each entry durable before the deed is confirmed, all of it verified after a reopen.
//!
//! `cargo run -p redex --example audit_log` works in a directory of its own below the current one, and removes it.
//! Each entry names the sequence of the one before about the same account, so that the log proves itself.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

use redex::{Redex, RedexError, RedexFileConfig, TypedRedexFile};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    account: u32,
    deed: Deed,
    /// Sequence of the entry before about this account.
    previous: Option<u64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Deed {
    Opened { owner: String },
    Paid { cents: i64 },
    Closed,
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let written = write(dir.path())?;
    verify(dir.path(), written)?;
    Ok(())
}

fn open(redex: &Redex) -> Result<TypedRedexFile<Entry>, RedexError> {
    let file = redex.open_file("audit/accounts", RedexFileConfig::default().with_persistent(true))?;
    Ok(TypedRedexFile::new(file))
}

/// Writes 300 entries about 50 accounts.
fn write(dir: &Path) -> Result<u64, RedexError> {
    let redex = Redex::open(dir)?;
    let log = open(&redex)?;
    let mut last = HashMap::new();
    for step in 0..6 {
        for account in 0..50 {
            let deed = match step {
                0 => Deed::Opened { owner: format!("owner {account}") },
                5 => Deed::Closed,
                _ => Deed::Paid { cents: i64::from(account) * 100 - step },
            };
            let entry = Entry { account, deed, previous: last.get(&account).copied() };
            let seq = log.append_durable(&entry).wait()?;
            assert!(log.file().durable() > seq, "confirmed, so a power cut does not take it back");
            last.insert(account, seq);
        }
    }
    redex.close().wait()?;
    Ok(300)
}

/// Reads every entry back. One that does not decode would be an error that names it, and no gap.
fn verify(dir: &Path, written: u64) -> Result<(), RedexError> {
    let redex = Redex::open(dir)?;
    let (log, mut last, mut next, mut paid) = (open(&redex)?, HashMap::new(), 0, 0);
    for event in log.read_from(0).blocking() {
        let event = event?;
        assert_eq!(event.seq, next, "no entry is missing");
        assert_eq!(event.value.previous, last.insert(event.value.account, event.seq), "no entry was exchanged");
        if let Deed::Paid { cents } = event.value.deed {
            paid += cents;
        }
        next += 1;
    }
    assert_eq!(next, written);
    println!("verified {next} entries about {} accounts, {paid} cents paid in all", last.len());
    redex.close().wait()?;
    Ok(())
}
