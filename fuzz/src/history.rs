//! One history: what one seed decides.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redex::sim::{ManualClock, SimCommit, SimDisk, SimSettings, StepKind};

use crate::cold::Cold;
use crate::damage::{self, Verdict};
use crate::dice::Dice;
use crate::failure::Failure;
use crate::groups::Group;
use crate::life;
use crate::model::Channel;
use crate::script::Script;
use crate::settings;

/// What the disk does beside losing its power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: it is honest.
    #[default]
    Honest,
    /// It fails at times, and says so.
    Faults,
    /// It damages what it holds, in the last life, and says nothing.
    Damage,
}

/// How the last life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The power went off.
    PowerCut,
    /// The process died; the disk went on.
    Killed,
    /// The store was closed.
    Closed,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Histories.
    pub histories: u64,
    /// Lives.
    pub lives: u64,
    /// Power cuts by the kind of step in which they fell.
    pub cuts: BTreeMap<StepKind, u64>,
    /// Lives that ended with the process.
    pub kills: u64,
    /// Lives that ended by a clean close.
    pub closes: u64,
    /// Failures that a faulty disk caused.
    pub faults: u64,
    /// Events published.
    pub events: u64,
    /// Entries of channels that moved along from an older checkpoint file.
    pub checkpoint_moves: u64,
    /// Batches over several channels of which a crash left all.
    pub groups_kept: u64,
    /// The same, of which it left nothing.
    pub groups_lost: u64,
    /// Power cuts of copies of a disk, each with a recovery and a comparison.
    pub branches: u64,
    /// Lives in which much was damaged.
    pub storms: u64,
    /// Damages by what came of them.
    pub blows: BTreeMap<Verdict, u64>,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.lives += other.lives;
        self.kills += other.kills;
        self.closes += other.closes;
        self.faults += other.faults;
        self.events += other.events;
        self.checkpoint_moves += other.checkpoint_moves;
        self.groups_kept += other.groups_kept;
        self.groups_lost += other.groups_lost;
        self.branches += other.branches;
        self.storms += other.storms;
        for (kind, count) in &other.cuts {
            *self.cuts.entry(*kind).or_default() += count;
        }
        for (verdict, count) in &other.blows {
            *self.blows.entry(*verdict).or_default() += count;
        }
    }

    /// Power cuts, all kinds.
    #[must_use]
    pub fn cut_count(&self) -> u64 {
        self.cuts.values().sum()
    }
}

/// What something is drawn for: each has its own seed, so that what is left of a history stays what it was.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The beginning of a life.
    Begin,
    /// One of its actions.
    Action(u64),
    /// Its end.
    End,
}

/// A history under way.
#[derive(Debug)]
pub struct World {
    /// Its seed.
    pub seed: u64,
    /// Which life is lived, from 0.
    pub life: u32,
    /// What is left of the history, if not all.
    pub script: Option<Script>,
    /// What was done in each life.
    pub done: Script,
    /// The disk.
    pub disk: SimDisk,
    /// Time.
    pub clock: Arc<ManualClock>,
    /// Chance.
    pub dice: Dice,
    /// How the store is opened.
    pub settings: SimSettings,
    /// The model.
    pub channels: Vec<Channel>,
    /// How many channels there may be.
    pub channels_max: usize,
    /// How many of a hundred actions change channels otherwise than by appends.
    pub changes_percent: u64,
    /// Directories of channels that were deleted.
    pub deleted: Vec<String>,
    /// The latest time that the wall clock has shown.
    pub wall_max_us: u64,
    /// What each shard committed in the last life.
    pub commits: Vec<Vec<SimCommit>>,
    /// How the last life ended.
    pub end: End,
    /// Whether the disk fails at times.
    pub faults: bool,
    /// Whether the disk may have lost or misdirected a write of the present life.
    pub is_struck: bool,
    /// Where old segments go, in the histories that have such a place.
    pub cold: Option<Cold>,
    /// Chance for power cuts in steps that are rare, in the histories that aim at them.
    pub aim: Option<Dice>,
    /// Chance for batches over channels and for channels that begin in memory, in the histories that have them.
    pub groups_dice: Option<Dice>,
    /// Chance for power cuts of copies of the disk, unless it damages what it holds.
    pub branches: Option<Dice>,
    /// Batches over channels that were begun in the present life.
    pub groups: Vec<Group>,
    /// Steps of the disk in the last life: where the next power cut may fall.
    pub steps: u64,
    /// What was counted.
    pub tally: Tally,
}

/// What a history came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was counted.
    pub tally: Tally,
    /// Hash over every operation on the disk.
    pub trace_hash: u64,
}

impl World {
    /// The beginning of the history of this seed.
    #[must_use]
    pub fn new(seed: u64, mode: Mode) -> Self {
        let mut dice = Dice::new(seed);
        let settings = settings::store(&mut dice);
        let disk = SimDisk::new(dice.bits(), settings::disk(&mut dice));
        let channels_max = settings::channels_max(&mut dice);
        let aims = seed % 4 == 2;
        let changes_percent = if aims { 20 } else { dice.pick(&[0, 5, 15, 30]) };
        let clock = Arc::new(ManualClock::default());
        clock.set_wall_us(1_700_000_000_000_000);
        Self {
            seed,
            life: 0,
            script: None,
            done: Script::default(),
            disk: disk.clone(),
            clock,
            dice,
            settings,
            channels: Vec::new(),
            channels_max,
            changes_percent,
            deleted: Vec::new(),
            wall_max_us: 0,
            commits: Vec::new(),
            end: End::Closed,
            faults: mode == Mode::Faults,
            is_struck: false,
            cold: (seed % 4 == 2 && mode != Mode::Damage).then(|| Cold::new(seed, &disk)),
            aim: aims.then(|| Dice::new(!seed)),
            groups_dice: (seed % 7 == 4 && mode != Mode::Damage).then(|| Dice::new(seed ^ 0xba7c)),
            branches: (mode != Mode::Damage).then(|| Dice::new(seed ^ 0xb4a9)),
            groups: Vec::new(),
            steps: 150,
            tally: Tally { histories: 1, ..Tally::default() },
        }
    }

    /// Draws from the seed of this part of the present life from now on.
    pub fn turn_to(&mut self, part: Part) {
        let number = match part {
            Part::Begin => 0,
            Part::End => 1,
            Part::Action(action) => 2 + action,
        };
        let mut dice = Dice::new(self.seed ^ (u64::from(self.life) << 32) ^ (number << 40));
        self.dice = Dice::new(dice.bits());
        let rest = [&mut self.aim, &mut self.groups_dice, &mut self.branches];
        rest.into_iter().for_each(|own| *own = own.take().map(|_| Dice::new(dice.bits())));
        if let Some(cold) = &mut self.cold {
            cold.turn_to(dice.bits());
        }
    }

    /// Whether an action of the present life is done; it is noted if so.
    pub fn does(&mut self, action: u64) -> bool {
        let left = self.script.as_ref().map(|script| &script.lives[&self.life]);
        let does = left.is_none_or(|actions| actions.binary_search(&action).is_ok());
        if does {
            self.done.lives.get_mut(&self.life).expect("noted as it began").push(action);
        }
        does
    }
}

/// Runs the history of a seed.
///
/// # Errors
///
/// The first thing that is not as it must be; a panic of the engine is one.
pub fn run(seed: u64, mode: Mode) -> Result<Outcome, Failure> {
    run_script(seed, mode, None)
}

/// Runs what a script has of the history of a seed, or all of it.
///
/// # Errors
///
/// As [`run`].
pub fn run_script(seed: u64, mode: Mode, script: Option<&Script>) -> Result<Outcome, Failure> {
    let mut world = World::new(seed, mode);
    world.script = script.cloned();
    let lives = world.dice.within(4..14) as u32;
    for life in (0..lives).filter(|life| script.is_none_or(|script| script.lives.contains_key(life))) {
        world.life = life;
        world.done.lives.insert(life, Vec::new());
        let lived = catch_unwind(AssertUnwindSafe(|| life::live(&mut world)));
        let lived = lived.unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))));
        lived.map_err(|what| Failure { seed, mode, life, what, script: world.done.clone() })?;
    }
    world.life = lives;
    world.turn_to(Part::Begin);
    world.script = None;
    world.done.lives.insert(lives, Vec::new());
    let last = catch_unwind(AssertUnwindSafe(|| match mode {
        Mode::Honest | Mode::Faults => life::finish(&mut world),
        Mode::Damage => damage::finish(&mut world),
    }));
    let last = last.unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))));
    world.done.lives.remove(&lives);
    last.map_err(|what| Failure { seed, mode, life: lives, what, script: world.done.clone() })?;
    Ok(Outcome { trace_hash: world.disk.trace_hash(), tally: world.tally })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without words".to_owned())
}
