//! `reopen`: a log of 64-byte events is written, synced and closed, its pages are taken out of the page cache; then it is
//! opened, and every event is read and compared.
//!
//! `events_per_s` counts the events over opening and scan together; both are told apart beside it. Engines whose opening reads
//! everything pay there, those that look at the last events only pay while they scan.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;
use redex_bench::sample::{Latencies, Turn, Turns, median};
use redex_bench::uncache;

use super::contest::failure;
use crate::engine::{Engine, Opening, Reader, Reopened};
use crate::report::row::Row;
use crate::run::Session;

const NAME: &str = "reopen";
const PAYLOAD_SIZE: usize = 64;
const EVENT_COUNT: u64 = 1_000_000;
const QUICK_EVENT_COUNT: u64 = 100_000;

/// Events of one call while the log is filled.
const BATCH: u64 = 1000;

/// How often each log is opened.
const OPENINGS: u32 = 3;

/// Bytes that engines prepare space for, for each event.
const ROOM_PER_EVENT: u64 = 96;

/// An engine with its filled log.
struct Filled {
    engine: &'static dyn Engine,
    opening: Opening,
    openings: Turns,
    opened: Vec<f64>,
    scanned: Vec<f64>,
    note: Option<String>,
}

/// Measures it.
pub(super) fn run(session: &mut Session) -> anyhow::Result<()> {
    let count = session.reopen_events.unwrap_or(if session.quick { QUICK_EVENT_COUNT } else { EVENT_COUNT });
    let mut all = Vec::new();
    for engine in session.engines.clone() {
        session.doing(format!("{NAME}, {count} events: filling {}", engine.name()));
        all.push(Filled::new(session, engine, count)?);
    }
    for turn in 1..=OPENINGS {
        for filled in &mut all {
            session.doing(format!("{NAME}, {count} events: opening {}, {turn} of {OPENINGS}", filled.engine.name()));
            filled.open(session, count);
        }
    }
    let rows = all.iter().map(|filled| filled.row(count)).collect();
    for filled in &all {
        session.place(filled.engine.name())?;
    }
    session.finish(rows)
}

impl Filled {
    fn new(session: &Session, engine: &'static dyn Engine, count: u64) -> anyhow::Result<Self> {
        let dir = session.place(engine.name())?;
        let opening = Opening::new(&dir, count * ROOM_PER_EVENT);
        let note = fill(session, engine, &opening, count).err().map(|error| failure("filling", &error));
        Ok(Self { engine, opening, openings: Turns::default(), opened: Vec::new(), scanned: Vec::new(), note })
    }

    /// Opens it cold; what fails is out.
    fn open(&mut self, session: &Session, count: u64) {
        if self.note.is_some() {
            return;
        }
        match cold(session, self.engine, &self.opening, count) {
            Ok(reopened) => {
                let elapsed = reopened.opened + reopened.scanned;
                let mut latencies = Latencies::new();
                latencies.record(elapsed);
                self.openings.push(Turn { latencies, events: count, elapsed });
                self.opened.push(reopened.opened.as_nanos() as f64);
                self.scanned.push(reopened.scanned.as_nanos() as f64);
            }
            Err(error) => self.note = Some(failure("reading back", &error)),
        }
    }

    fn row(&self, count: u64) -> Row {
        let mut row = Row::new(NAME, self.engine, PAYLOAD_SIZE, &self.openings);
        row.mode = "cold";
        row.note.clone_from(&self.note);
        row.numbers.insert("log_events", count as f64);
        row.numbers.insert("open_ns", median(self.opened.clone()));
        row.numbers.insert("scan_ns", median(self.scanned.clone()));
        row
    }
}

fn fill(session: &Session, engine: &dyn Engine, opening: &Opening, count: u64) -> anyhow::Result<()> {
    let payloads = session.payloads(PAYLOAD_SIZE);
    let mut log = engine.open(opening)?;
    for first in (0..count).step_by(BATCH as usize) {
        let events: Vec<&[u8]> = (first..count.min(first + BATCH)).map(|number| payloads.get(number)).collect();
        if engine.offers().nondurable { log.append_batch(&events)? } else { log.commit(&events)? }
    }
    log.sync()?;
    log.close()
}

fn cold(session: &Session, engine: &dyn Engine, opening: &Opening, count: u64) -> anyhow::Result<Reopened> {
    uncache_all(&opening.dir).context("clearing the page cache")?;
    let reopened = engine.reopen(opening, Reader::in_order(session.payloads(PAYLOAD_SIZE)))?;
    reopened.reader.check(count)?;
    Ok(reopened)
}

/// Takes the pages of all files below `dir` out of the page cache.
fn uncache_all(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            uncache_all(&path)?;
        } else if path.is_file() {
            let file = File::open(path)?;
            // Dirty pages stay otherwise.
            file.sync_all()?;
            uncache(&file)?;
        }
    }
    Ok(())
}
