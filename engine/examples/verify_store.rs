//! Checks a whole store that nobody has open: every checksum, every sequence, every reference from one file to another.
//!
//! `cargo run --release -p redex --example verify_store -- --help` tells the rest. It writes nothing to the store.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use redex::{Redex, RedexFileConfig, StoreReport, VerifyOptions, verify};

const HELP: &str = "\
Checks a store that nobody has open. Reads every byte that counts, and writes nothing.

usage: verify_store [--json] [--threads N] [--quiet] DIR
       verify_store --demo

  --json       the report as JSON instead of text
  --threads N  threads that compute checksums; one a core unless set
  --quiet      no progress on standard error
  --demo       makes a small store below the current directory, checks it, damages it, and checks it again

exit code: 0 nothing is damaged, 1 something is, 2 the store could not be checked";

/// What the command line says.
#[derive(Default)]
struct Arguments {
    dir: Option<String>,
    threads: Option<usize>,
    json: bool,
    quiet: bool,
    demo: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(what) => {
            eprintln!("{what}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let result = if arguments.demo { demo() } else { run(&arguments) };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => arguments.json = true,
            "--quiet" => arguments.quiet = true,
            "--demo" => arguments.demo = true,
            "--threads" => {
                let number = words.next().and_then(|number| number.parse().ok());
                arguments.threads = Some(number.ok_or("--threads wants a number")?);
            }
            _ if word.starts_with('-') || arguments.dir.is_some() => return Err(format!("what is {word:?}?")),
            _ => arguments.dir = Some(word),
        }
    }
    match arguments.demo || arguments.dir.is_some() {
        true => Ok(Some(arguments)),
        false => Err("name the directory of a store".to_owned()),
    }
}

/// Checks the store; says whether nothing is damaged.
fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let mut options = VerifyOptions::new();
    if let Some(threads) = arguments.threads {
        options = options.with_threads(threads);
    }
    if !arguments.quiet {
        let told = Mutex::new(Instant::now());
        options = options.with_progress(move |now| {
            let mut told = told.lock().expect("nobody panics with it");
            if told.elapsed() > Duration::from_secs(1) {
                *told = Instant::now();
                let mib = now.bytes >> 20;
                eprintln!("{} of {} segments, {mib} MiB, {} damages", now.segments, now.segments_total, now.damages);
            }
        });
    }
    let report = verify(arguments.dir.as_deref().unwrap_or_default(), &options)?;
    show(&report, arguments.json)?;
    Ok(report.is_clean())
}

fn show(report: &StoreReport, json: bool) -> Result<(), Box<dyn Error>> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(report)?),
        false => print!("{report}"),
    }
    Ok(())
}

/// A store of its own: clean at first, and then with one bit changed.
fn demo() -> Result<bool, Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let redex = Redex::open(dir.path())?;
    let file =
        redex.open_file("demo", RedexFileConfig::default().with_persistent(true).with_segment_bytes(64 << 10))?;
    for number in 0..1000_u64 {
        file.append(format!("event {number}, {}", "x".repeat(200))).wait()?;
    }
    redex.close().wait()?;
    let report = verify(dir.path(), &VerifyOptions::new())?;
    show(&report, false)?;
    assert!(report.is_clean(), "the store is whole");
    let store = dir.path().join("STORE");
    let mut bytes = std::fs::read(&store)?;
    bytes[40] ^= 1;
    std::fs::write(&store, bytes)?;
    let report = verify(dir.path(), &VerifyOptions::new())?;
    show(&report, false)?;
    assert!(!report.is_clean() && report.losses == 0, "one of two copies of STORE is damaged");
    Ok(true)
}
