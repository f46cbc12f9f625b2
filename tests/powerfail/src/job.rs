//! One job: cases one after the other, each on the rig of its kind, told to the run as lines of JSON on standard output.
//!
//! Ends with its standard input, so that nothing is left when the run is killed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::args::{JobArgs, Work};
use crate::case::{Case, CaseError, Listener, Tally, file_name};
use crate::rig::{Kind, Rig, namespace};

/// A point that takes longer hangs.
const POINT_TIME_MAX: Duration = Duration::from_secs(120);
/// How often counts are told.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// A line of a job.
#[derive(Debug, Serialize, Deserialize)]
pub enum Line {
    /// So much more was done.
    Counted(Tally),
    /// Something is not as it must be.
    Failed(Report),
}

/// A failure, for people.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// What.
    pub what: String,
    /// The case's seed.
    pub seed: u64,
    /// What it ran on.
    pub kind: Kind,
    /// The point's number, if there is one.
    pub point: Option<u64>,
    /// The saved recording, if there is one.
    pub recording: Option<PathBuf>,
}

/// Runs cases until the input ends or one fails; with a point, that one only.
///
/// # Errors
///
/// The rig cannot be set up. A failed case is no error here: it is told.
pub fn run(args: &JobArgs) -> anyhow::Result<()> {
    let room = namespace::enter()?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut told = Told::new();
    thread::spawn({
        let stop = stop.clone();
        move || end_with_input(&stop)
    });
    thread::spawn({
        let beats = told.beats.clone();
        move || watch(&beats)
    });
    let kinds = args.work.kinds();
    let mut rigs = HashMap::new();
    let mut seed = args.work.seed;
    while !stop.load(Ordering::Relaxed) {
        let kind = kinds[(seed % kinds.len() as u64) as usize];
        let rig = rig(&mut rigs, &room, kind)?;
        let Work { point: only, broken, .. } = args.work;
        let mut case = Case { rig, seed, only, broken, stop: &stop };
        if let Err(error) = case.run(&mut told) {
            told.flush();
            let report = report(error, seed, kind, args.work.out.as_deref());
            tell(&Line::Failed(report));
            break;
        }
        if only.is_some() {
            break;
        }
        seed += args.stride;
    }
    told.flush();
    Ok(())
}

fn rig<'a>(rigs: &'a mut HashMap<Kind, Rig>, room: &Path, kind: Kind) -> anyhow::Result<&'a mut Rig> {
    let context = || format!("{} with sectors of {} bytes cannot be set up", kind.file_system, kind.sector_size);
    Ok(match rigs.entry(kind) {
        Entry::Occupied(rig) => rig.into_mut(),
        Entry::Vacant(place) => place.insert(Rig::new(room, kind).with_context(context)?),
    })
}

fn end_with_input(stop: &AtomicBool) {
    let mut bytes = [0; 64];
    while std::io::stdin().read(&mut bytes).is_ok_and(|read| read > 0) {}
    stop.store(true, Ordering::Relaxed);
}

/// Ends the job when a point takes too long: the drive's process ends with it, and the kernel frees what hangs.
fn watch(beats: &AtomicU64) {
    let mut last = (0, Instant::now());
    loop {
        thread::sleep(Duration::from_secs(1));
        let now = beats.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > POINT_TIME_MAX {
            eprintln!("a point has not ended within {} s: something hangs", POINT_TIME_MAX.as_secs());
            std::process::exit(3);
        }
    }
}

fn report(error: CaseError, seed: u64, kind: Kind, out: Option<&Path>) -> Report {
    let CaseError { point, mut what, saved } = error;
    let recording = saved.zip(point).and_then(|(saved, point)| {
        let path = out.unwrap_or(Path::new(".")).join(file_name(kind, seed, point));
        let bytes = postcard::to_stdvec(&*saved).expect("it has no value that does not encode");
        match std::fs::write(&path, bytes) {
            Ok(()) => Some(path),
            Err(error) => {
                what = format!("{what} (the recording cannot be saved to {}: {error})", path.display());
                None
            }
        }
    });
    Report { what, seed, kind, point, recording }
}

fn tell(line: &Line) {
    let line = serde_json::to_string(line).expect("it has no value that does not encode");
    // If nobody listens any more, the input has ended too.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Gathers counts, so that a line is not written for each point.
struct Told {
    tally: Tally,
    last: Instant,
    beats: Arc<AtomicU64>,
}

impl Told {
    fn new() -> Self {
        Self { tally: Tally::default(), last: Instant::now(), beats: Arc::default() }
    }

    fn flush(&mut self) {
        tell(&Line::Counted(std::mem::take(&mut self.tally)));
        self.last = Instant::now();
    }
}

impl Listener for Told {
    fn counted(&mut self, tally: &Tally) {
        self.tally.add(tally);
        self.alive();
        if self.last.elapsed() > TOLD_EVERY {
            self.flush();
        }
    }

    fn alive(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}
