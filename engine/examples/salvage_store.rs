//! Copies every intact event of a damaged store to a new one, and says exactly what is lost.
//!
//! `cargo run --release -p redex --example salvage_store -- --help` tells the rest. It writes nothing to the damaged store.

use std::error::Error;
use std::process::ExitCode;

use redex::{Redex, RedexFileConfig, SalvageOptions, SalvageReport, salvage};

const HELP: &str = "\
Copies every event that is intact from a store that nobody has open to a new one.

usage: salvage_store [--json] FROM TO
       salvage_store --demo

  FROM    the store; nothing is written there
  TO      a directory that is empty or not there
  --json  the report as JSON instead of text
  --demo  makes a small store below the current directory, damages it, and salvages it

The report names every range of events that is lost, with file, offset and cause, and where the kept ones stand.
exit code: 0 everything was kept, 1 something is lost, 2 the store could not be salvaged";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let json = words.iter().any(|word| word == "--json");
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--json").collect();
    let result = match words[..] {
        ["--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ["--demo"] => demo(),
        [from, to] if !from.starts_with('-') && !to.starts_with('-') => run(from, to, json),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::from(2)
        }
    }
}

/// Salvages; says whether everything was kept.
fn run(from: &str, to: &str, json: bool) -> Result<bool, Box<dyn Error>> {
    let report = salvage(from, to, &SalvageOptions::new())?;
    show(&report, json)?;
    Ok(report.is_complete())
}

fn show(report: &SalvageReport, json: bool) -> Result<(), Box<dyn Error>> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(report)?),
        false => print!("{report}"),
    }
    Ok(())
}

/// A store of its own, of which one payload is damaged.
fn demo() -> Result<bool, Box<dyn Error>> {
    let (dir, to) = (tempfile::tempdir_in(".")?, tempfile::tempdir_in(".")?);
    let redex = Redex::open(dir.path())?;
    let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(64 << 10);
    let file = redex.open_file("demo", config.clone())?;
    for number in 0..1000_u64 {
        file.append(format!("event {number}, {}", "x".repeat(200))).wait()?;
    }
    redex.close().wait()?;
    // The journal of the first run has every event once more, and would give it back: the next run has a journal of its own.
    Redex::open(dir.path())?.close().wait()?;
    let segment = std::fs::read_dir(dir.path().join("channels/00"))?.next().ok_or("a channel has a directory")??.path();
    let dat = segment.join(format!("{:020}.dat", 0));
    let mut bytes = std::fs::read(&dat)?;
    bytes[100] ^= 1;
    std::fs::write(&dat, bytes)?;
    let report = salvage(dir.path(), to.path(), &SalvageOptions::new())?;
    show(&report, false)?;
    assert_eq!((report.events_kept(), report.events_lost()), (999, 1));
    let redex = Redex::open(to.path())?;
    let file = redex.open_file("demo", config)?;
    assert_eq!((file.len(), file.next_seq()), (999, 1000), "the last events keep their sequences");
    redex.close().wait()?;
    Ok(true)
}
