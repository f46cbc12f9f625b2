//! `crash`: kills a writing process at random moments and checks that nothing it acknowledged is lost or changed.
//!
//! A child process appends at full speed to several channels and reports through a pipe what was acknowledged to it. Beside that
//! segments are sealed, old events are dropped, batches go over two channels, a channel loses its end again and again, and two
//! threads read and compare. It is killed with SIGKILL, now while it opens the store, now while it writes. The parent reopens the
//! store and compares what was acknowledged with what is there, byte for byte; in some rounds it looks away, so that the next child
//! recovers a store that nobody has opened since the kill. Many rounds use one store; most stores are made with a journal so small
//! that it rolls, and checkpoints are taken, all the time.
//!
//! A killed process is not a power cut: what the kernel was given stays. Power cuts are simulated elsewhere.

mod beside;
mod channels;
pub(crate) mod child;
mod ledger;
mod payload;
mod pipe;
mod round;
mod verify;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::args::{CrashArgs, Policy};
use crate::load::splitmix64;
use crate::progress::Progress;
use crate::scratch::Scratch;
use ledger::{Ledger, Wrongs};
use payload::Author;
use round::Told;

/// What a kill may take under `Policy::Never`.
const NEVER_WINDOW: Duration = Duration::from_millis(10);

/// A store that holds more payload bytes than this is replaced by a new one, so that many rounds do not fill the disk, and
/// that comparing all of it takes no longer than a few rounds.
const STORE_BYTES_MAX: u64 = 48 << 20;

/// One round in this many is not looked at by the parent.
const LOOK_AWAY: u64 = 4;

/// Where a store is, and the how manieth of this run it is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    number: u32,
}

impl Place {
    fn new(scratch: &Scratch, number: u32) -> anyhow::Result<Self> {
        Ok(Self { dir: scratch.place(&format!("store-{number}"))?, number })
    }
}

/// Sums over all rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    acknowledged: u64,
    compared: u64,
    missing: u64,
    wrong: u64,
    lost: u64,
    oldest_lost: Duration,
}

/// Runs what `args` say.
pub(crate) fn run(args: &CrashArgs) -> anyhow::Result<ExitCode> {
    let mut scratch = Scratch::new(args.place.dir.as_deref())?;
    let progress = Progress::new(u64::from(args.rounds));
    let mut totals = Totals::default();
    let ended = rounds(args, &scratch, &progress, &mut totals);
    progress.finish();
    let intact = ended.is_ok() && totals.missing == 0 && totals.wrong == 0;
    if !intact {
        scratch.keep();
        eprintln!("the store is left in {}", scratch.path().display());
    }
    ended?;
    println!("{}", summary(args, &totals));
    Ok(ExitCode::from(u8::from(!intact)))
}

fn rounds(args: &CrashArgs, scratch: &Scratch, progress: &Progress, totals: &mut Totals) -> anyhow::Result<()> {
    let mut random = args.seed;
    let mut store = Place::new(scratch, 0)?;
    let mut ledger = Ledger::new();
    let (mut store_bytes, mut unseen) = (0, None);
    for round in 0..args.rounds {
        progress.doing(format!("crash, policy {}, round {}", args.policy, round + 1));
        let told = round::kill_once(args, &store, round, &mut random)?;
        let mut outcome = Outcome::default();
        if let Some(opened) = &told.opened {
            outcome.recovered(&mut unseen, opened, ledger.opened(opened, Some(round)));
        }
        let size = |channel, seq| {
            let mut bytes = Vec::new();
            payload::make(&mut bytes, args.seed, Author::of(round), channel, seq);
            bytes.len() as u64
        };
        ledger.require(&told.required(args.policy, size));
        told.beside.iter().for_each(|what| ledger.beside(round, *what));
        let (lived, acknowledged) = (told.lived, told.acknowledged());
        unseen = if told.opened.is_some() { Some(told) } else { unseen };
        let last = round + 1 == args.rounds;
        if last || !splitmix64(&mut random).is_multiple_of(LOOK_AWAY) {
            let all = last || store_bytes > STORE_BYTES_MAX;
            let verified = verify::reopen(args, &store, &mut ledger, all, random)?;
            outcome.opened(&mut unseen, &verified.next, verified.missing);
            outcome.compared = Some(verified.compared);
            outcome.wrong += verified.wrong;
            store_bytes += verified.bytes;
            if all && !last && outcome.intact() {
                std::fs::remove_dir_all(&store.dir)?;
                store = Place::new(scratch, store.number + 1)?;
                (ledger, store_bytes) = (Ledger::new(), 0);
            }
        }
        totals.add(acknowledged, &outcome);
        progress.print(&format!(
            "round {:>3}: killed after {:>4} ms, {acknowledged:>9} acknowledged{outcome}",
            round + 1,
            lived.as_millis()
        ));
        progress.step();
    }
    Ok(())
}

/// What the openings of one round found.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// Events compared; `None` if the parent looked away.
    compared: Option<u64>,
    missing: u64,
    wrong: u64,
    lost: u64,
    oldest_lost: Duration,
}

impl Outcome {
    /// An opening found the channels' ends at `next`, and `missing` events gone that had to be there. `unseen` is the round whose kill
    /// nobody has looked behind yet.
    fn opened(&mut self, unseen: &mut Option<Told>, next: &[u64], missing: u64) {
        self.missing += missing;
        if let Some(told) = unseen.take() {
            let (lost, oldest) = told.lost(next);
            self.lost += lost;
            self.oldest_lost = self.oldest_lost.max(oldest);
        }
    }

    /// The same, by a child, which tells of nothing but its channels' ends.
    fn recovered(&mut self, unseen: &mut Option<Told>, next: &[u64], wrongs: Wrongs) {
        wrongs.broken.iter().for_each(|what| eprintln!("{what}"));
        self.wrong += wrongs.broken.len() as u64;
        self.opened(unseen, next, wrongs.missing);
    }

    fn intact(&self) -> bool {
        self.missing == 0 && self.wrong == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.compared {
            Some(compared) => write!(f, ", {compared:>9} compared")?,
            None => f.write_str(", left to the next process to recover")?,
        }
        if self.lost > 0 {
            write!(f, ", {} lost (oldest {:.1} ms before the last)", self.lost, self.oldest_lost.as_secs_f64() * 1e3)?;
        }
        if self.missing > 0 {
            write!(f, ", {} MISSING", self.missing)?;
        }
        if self.wrong > 0 {
            write!(f, ", {} WRONG", self.wrong)?;
        }
        Ok(())
    }
}

impl Totals {
    fn add(&mut self, acknowledged: u64, outcome: &Outcome) {
        self.acknowledged += acknowledged;
        self.compared += outcome.compared.unwrap_or(0);
        self.missing += outcome.missing;
        self.wrong += outcome.wrong;
        self.lost += outcome.lost;
        self.oldest_lost = self.oldest_lost.max(outcome.oldest_lost);
    }
}

fn summary(args: &CrashArgs, totals: &Totals) -> String {
    format!(
        "crash: {} rounds, policy {}, seed {}: {} events acknowledged, {} compared, {} missing, {} wrong; \
         {} lost in all, the oldest {:.1} ms before its last event was accepted (the policy allows {})",
        args.rounds,
        args.policy,
        args.seed,
        totals.acknowledged,
        totals.compared,
        totals.missing,
        totals.wrong,
        totals.lost,
        totals.oldest_lost.as_secs_f64() * 1e3,
        bound(args.policy),
    )
}

/// What the policy allows a kill to take, in words.
fn bound(policy: Policy) -> String {
    match policy {
        Policy::Never => format!("the last {} ms", NEVER_WINDOW.as_millis()),
        Policy::Every(n) => format!("{} of each channel", n - 1),
        Policy::Interval(period) => format!("the last {} ms", period.as_millis()),
        Policy::IntervalOrBytes { period, max_bytes } => {
            format!("the last {} ms, and {max_bytes} bytes of each channel", period.as_millis())
        }
        Policy::Durable => "none".to_owned(),
    }
}
