//! One case: what one seed decides. A few recordings, each but the first on what a power cut left of the one before, and many
//! power cuts in each.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use fastrand::Rng;
use redex::Backend;
use serde::{Deserialize, Serialize};

use crate::check::check;
use crate::drive::Tape;
use crate::drive::cut::{Cut, Left};
use crate::drive::log::Flush;
use crate::history::{Found, History, Position};
use crate::rig::{Kind, Rig};
use crate::server::remote::Kept;
use crate::settings::{self, Settings, pick};
use crate::workload::{Break, record};

/// Points of a recording, beside the one that the next recording goes on from, whose number follows theirs.
pub const POINTS: u64 = 150;
/// Recordings of a case at the most.
const ROUNDS_MAX: u64 = 3;
/// Flushes of which the one with the most at stake is taken.
const FLUSHES_DRAWN: usize = 4;

/// What a case counts, as it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Power cuts after which the drive was mounted, opened and compared.
    pub points: u64,
    /// Those of them that fell into a recovery or right behind it.
    pub in_recovery: u64,
    /// Points that were opened through io_uring.
    pub by_uring: u64,
    /// Recordings.
    pub recordings: u64,
    /// Writes kept, torn and lost that no flush covered.
    pub left: Left,
    /// Events that were read back and compared.
    pub events: u64,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.points += other.points;
        self.in_recovery += other.in_recovery;
        self.by_uring += other.by_uring;
        self.recordings += other.recordings;
        self.events += other.events;
        self.left.kept += other.left.kept;
        self.left.torn += other.left.torn;
        self.left.lost += other.left.lost;
    }
}

/// A point: where the power goes off, and how the store is opened afterwards.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Point {
    /// The power cut.
    pub cut: Cut,
    /// A second one, in the log of the first one's recovery.
    pub again: Option<Again>,
    /// Whether the store is opened through io_uring.
    pub by_uring: bool,
}

/// A power cut in a recovery.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Again {
    /// How far in it, of a hundred; 100 is right behind it.
    pub percent: u8,
    /// See [`Cut::seed`].
    pub seed: u64,
}

/// Everything that a point needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    /// What the rig was made of.
    pub kind: Kind,
    /// How the store was opened.
    pub settings: Settings,
    /// What was acknowledged.
    pub history: History,
    /// What the drive saw.
    pub tape: Tape,
    /// The point.
    pub point: Point,
    /// What was not as it must be, in words.
    pub what: String,
    /// The recovery's own log and the cut in it, if it was the second cut that failed: the log of another recovery is never quite
    /// the same.
    pub second: Option<Second>,
}

/// A second power cut, with the log that it fell into.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Second {
    /// What the recovery did.
    pub tape: Tape,
    /// The cut.
    pub cut: Cut,
    /// Where that log ended when the store was open.
    pub recovered: Position,
    /// What the recovery had found.
    pub history: History,
    /// Whether the store was opened through io_uring.
    pub by_uring: bool,
}

/// What went wrong, and where.
#[derive(Debug)]
pub struct CaseError {
    /// The point's number in its case; none while it was recorded.
    pub point: Option<u64>,
    /// What, in words.
    pub what: String,
    /// To repeat it exactly; none while it was recorded.
    pub saved: Option<Box<Saved>>,
}

/// What is told while a case runs.
pub trait Listener {
    /// So much more was done.
    fn counted(&mut self, tally: &Tally);
    /// Sign of life.
    fn alive(&self);
}

/// A case.
#[derive(Debug)]
pub struct Case<'a> {
    /// The rig it runs on.
    pub rig: &'a mut Rig,
    /// Its seed.
    pub seed: u64,
    /// Only this point.
    pub only: Option<u64>,
    /// A mistake of the harness's own.
    pub broken: Option<Break>,
    /// Set when it is to end early.
    pub stop: &'a AtomicBool,
}

/// What is checked at the points of one recording.
struct Recorded {
    settings: Settings,
    history: History,
    kept: Kept,
}

impl Case<'_> {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// The first thing that is not as it must be.
    pub fn run(&mut self, listener: &mut impl Listener) -> Result<(), CaseError> {
        let mut rng = Rng::with_seed(self.seed);
        let mut settings = Settings::draw(&mut rng);
        let shards = settings.shards;
        let mut history = History { channels: settings::channels(&mut rng), ..History::default() };
        self.rig.drive.blank().map_err(|error| while_recording(&error))?;
        for round in 0..rng.u64(1..=ROUNDS_MAX) {
            let recorded = self.record(settings, history, rng.u64(..)).map_err(|error| while_recording(&error))?;
            listener.counted(&Tally { recordings: 1, ..Tally::default() });
            let first = round * (POINTS + 1);
            let last = first + POINTS;
            for number in first..last {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if self.only.is_none_or(|only| only == number) {
                    let point = self.draw_point(&recorded, number);
                    self.check_point(&recorded, number, point, listener)?;
                }
            }
            if self.only.is_some_and(|only| only < last) {
                return Ok(());
            }
            // The next recording begins with a recovery.
            let point = Point { again: None, ..self.draw_point(&recorded, last) };
            let found = self.check_point(&recorded, last, point, listener)?;
            if self.only == Some(last) {
                return Ok(());
            }
            self.rig.drive.cut(point.cut).map_err(|error| while_recording(&error))?;
            history = recorded.history.going_on(&found);
            settings = Settings { shards, ..Settings::draw(&mut rng) };
        }
        Ok(())
    }

    fn record(&mut self, settings: Settings, history: History, seed: u64) -> anyhow::Result<Recorded> {
        self.rig.drive.hold_percent(settings.hold_percent)?;
        let mounted = self.rig.mount()?;
        let dir = mounted.at().join("store");
        let broken = self.broken;
        let drive = &mut self.rig.drive;
        let history = unwound(|| record(drive, &dir, settings, history, seed, broken))?;
        mounted.unmount()?;
        self.rig.drive.hold_percent(0)?;
        let kept = self.rig.drive.keep_tape()?;
        Ok(Recorded { settings, history, kept })
    }

    /// Where the power goes off: anywhere, where the most is unflushed, and where an acknowledgement has just been given.
    fn draw_point(&self, recorded: &Recorded, number: u64) -> Point {
        let rng = &mut Rng::with_seed(self.seed.rotate_left(32) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let Recorded { kept, history, .. } = recorded;
        let anywhere = rng.usize(0..=kept.end);
        let position = match rng.u8(0..10) {
            0..=3 => anywhere,
            4..=6 if !kept.flushes.is_empty() => at_stake(rng, &kept.flushes),
            7 if !kept.flushes.is_empty() => at_stake(rng, &kept.flushes) + 1,
            8..=9 if !history.acknowledgements.is_empty() => pick(rng, &history.acknowledgements),
            _ => anywhere,
        };
        let cut = Cut {
            position,
            seed: rng.u64(..),
            sector_size: self.rig.kind.sector_size as usize,
            whole: self.rig.kind.file_system.whole(),
            flushes_count: self.broken != Some(Break::LyingDrive),
        };
        let percent = if rng.bool() { 100 } else { rng.u8(0..100) };
        let again = (rng.u8(0..4) == 0).then(|| Again { percent, seed: rng.u64(..) });
        Point { cut, again, by_uring: rng.u8(0..4) == 0 }
    }

    /// What comes of a failed point if it is made again at once. It counts as failed in any case; but where only time differs, the
    /// engine or the kernel raced.
    fn once_more(&mut self, recorded: &Recorded, point: Point) -> &'static str {
        match check_cut(self.rig, &recorded.settings, &recorded.history, point, &mut Tally::default()) {
            Ok(_) => "made again at once it is as it must be: a race",
            Err(_) => "made again at once it fails, too",
        }
    }

    fn check_point(
        &mut self,
        recorded: &Recorded,
        number: u64,
        point: Point,
        listener: &mut impl Listener,
    ) -> Result<Vec<Found>, CaseError> {
        listener.alive();
        let mut tally = Tally::default();
        let result = check_cut(self.rig, &recorded.settings, &recorded.history, point, &mut tally);
        listener.counted(&tally);
        result.map_err(|Failed { error, second }| {
            let what = describe(&point, &error);
            let what = format!("{what}; {}", self.once_more(recorded, point));
            let saved = self.rig.drive.tape().ok().map(|tape| {
                let (kind, settings, history) = (self.rig.kind, recorded.settings, recorded.history.clone());
                Box::new(Saved {
                    kind,
                    settings,
                    history,
                    tape,
                    point,
                    what: what.clone(),
                    second: second.map(|second| *second),
                })
            });
            CaseError { point: Some(number), what, saved }
        })
    }
}

/// Cuts the power in the kept tape, mounts what is left, opens it, and compares; then once more in the recovery's own log, if
/// the point says so.
///
/// # Errors
///
/// What is not as it must be.
pub fn check_cut(
    rig: &mut Rig,
    settings: &Settings,
    history: &History,
    point: Point,
    tally: &mut Tally,
) -> Result<Vec<Found>, Failed> {
    let left = rig.drive.cut(point.cut)?;
    let (found, recovered) = check_once(rig, settings, history, point.cut.position, point.by_uring, left, tally)?;
    let Some(again) = point.again else { return Ok(found) };
    let position = recovered * usize::from(again.percent) / 100;
    let cut = Cut { position, seed: again.seed, ..point.cut };
    let left = rig.drive.cut_again(cut)?;
    tally.in_recovery += 1;
    // Recovery has made durable what it has shown, and finds the same however often it is cut off.
    let history = history.going_on(&found);
    let by_uring = !point.by_uring;
    let Err(error) = check_once(rig, settings, &history, position, by_uring, left, tally) else { return Ok(found) };
    let second = rig.drive.tape_again().ok();
    let second = second.map(|tape| Box::new(Second { tape, cut, recovered, history, by_uring }));
    Err(Failed { error: in_recovery(error, position, recovered), second })
}

fn in_recovery(error: anyhow::Error, position: Position, recovered: Position) -> anyhow::Error {
    error.context(format!("after a second power cut at {position} of {recovered} in the recovery"))
}

/// Makes the second cut of a saved point again, in the very log that it fell into.
///
/// # Errors
///
/// What is not as it must be.
pub fn check_second(rig: &mut Rig, settings: &Settings, second: &Second) -> anyhow::Result<()> {
    rig.drive.use_tape(second.tape.clone())?;
    let left = rig.drive.cut(second.cut)?;
    let Second { cut: Cut { position, .. }, recovered, by_uring, .. } = *second;
    let checked = check_once(rig, settings, &second.history, position, by_uring, left, &mut Tally::default());
    checked.map(drop).map_err(|error| in_recovery(error, position, recovered))
}

/// What is not as it must be at a point.
#[derive(Debug)]
pub struct Failed {
    /// What.
    pub error: anyhow::Error,
    /// To repeat it exactly, if it is behind a second cut.
    pub second: Option<Box<Second>>,
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self { error, second: None }
    }
}

/// Returns what was found, and the position in the drive's log when it was.
fn check_once(
    rig: &mut Rig,
    settings: &Settings,
    history: &History,
    cut: Position,
    by_uring: bool,
    left: Left,
    tally: &mut Tally,
) -> anyhow::Result<(Vec<Found>, Position)> {
    let mounted = rig.mount()?;
    let dir = mounted.at().join("store");
    let backend = if by_uring { Backend::Uring } else { Backend::Posix };
    let found = unwound(|| {
        let store = settings.open(&dir, backend).context("the store does not open after a mere crash")?;
        let found = check(&store, history, cut)?;
        let recovered = rig.drive.position()?;
        Ok((found, recovered))
    })?;
    mounted.unmount()?;
    let events = found.0.iter().map(|found| found.next - found.head).sum();
    tally.add(&Tally { points: 1, by_uring: u64::from(by_uring), left, events, ..Tally::default() });
    Ok(found)
}

/// A panic of the engine on this thread is a failure like any other.
fn unwound<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(anyhow!("panic: {text}"))
    })
}

fn while_recording(error: &anyhow::Error) -> CaseError {
    CaseError { point: None, what: format!("while it was recorded: {error:#}"), saved: None }
}

/// What failed, with the point in words.
#[must_use]
pub fn describe(point: &Point, error: &anyhow::Error) -> String {
    let Cut { position, seed, sector_size, .. } = point.cut;
    let again = point.again.map_or(String::new(), |again| format!(", again at {} %", again.percent));
    let backend = if point.by_uring { "io_uring" } else { "plain calls" };
    format!("{error:#} [cut at {position}{again}, fates {seed}, sectors of {sector_size}, opened by {backend}]")
}

/// Of a few flushes, the position of the one before which the most could be lost.
fn at_stake(rng: &mut Rng, flushes: &[Flush]) -> Position {
    let drawn = (0..FLUSHES_DRAWN).map(|_| pick(rng, flushes));
    drawn.max_by_key(|flush| flush.uncovered).map_or(0, |flush| flush.position)
}

/// Where the recording of a failed point is written.
#[must_use]
pub fn file_name(kind: Kind, seed: u64, point: u64) -> PathBuf {
    PathBuf::from(format!("powerfail-{}-{}-{seed}-{point}.recording", kind.file_system, kind.sector_size))
}
