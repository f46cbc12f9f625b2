//! The whole engine on a simulated disk, driven by hand: no thread, no clock and no chance but those given.
//!
//! A [`SimStore`] is a store whose shards take a turn when told to. The same seed, the same calls in the same order give
//! the same operations on the disk ([`SimDisk::trace_hash`] proves it). Dropping it is a killed process: what was
//! submitted still lands, nothing is closed. It belongs to one thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::cold::ColdStore;
use crate::cold::tier::ColdSetup;
use crate::error::{CloseError, OpenError};
use crate::file::RedexFile;
use crate::io::BLOCK_SIZE;
use crate::journal::format::entry_size_events;
use crate::options::Options;
use crate::random::Random;
use crate::read::offload::Offload;
use crate::redex::Redex;
use crate::segment::path::channel_dir;
use crate::segment::record::INLINE_SIZE_MAX;
use crate::shard::Shard;
use crate::shard::Turn;
use crate::shard::commit::{extent_bytes, largest_room};
use crate::store::Store;
use crate::store::open::Environment;
use crate::store_verify::{StoreReport, VerifyOptions, verify_ground};
use crate::survey::{Ground, SurveyError};
use crate::tail::pool::PagePool;

pub use crate::channel_name::ChannelName;
pub use crate::clock::ManualClock;
pub use crate::cold::sim::{ColdFault, SimColdStore};
pub use crate::follow::sim::SimFollower;
pub use crate::io::sim::{FaultKind, SimDisk, SimOptions, StepKind, is_power_off};
pub use crate::options::CheckpointLimits;

/// Memory for chunks of the cold store: few enough that some go.
const SIM_CACHE_BYTES: usize = 64 << 10;

/// What a simulated store is opened with; as in [`crate::RedexBuilder`], which says what each is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimSettings {
    /// Shards of a store that is made anew.
    pub shards: usize,
    /// Size of a journal segment, bytes: at least 64 KiB.
    pub journal_segment_bytes: u64,
    /// Journal bytes after which a checkpoint is taken: at least 64 KiB.
    pub checkpoint_bytes: u64,
    /// When the entries of old checkpoint files move along to new ones.
    pub checkpoint_limits: CheckpointLimits,
    /// Memory for pages, bytes: at least 1 MiB.
    pub page_budget_bytes: usize,
    /// Whole blocks that go around the journal, bytes: at least 4096.
    pub extent_bytes: usize,
    /// Commits in flight at the most: 1 to 8.
    pub commit_depth: usize,
    /// How long an event may stay in memory before it is written.
    pub write_behind: Duration,
    /// How long a shard has nothing to commit before it leaves a witness.
    pub idle_witness: Duration,
    /// Unflushed bytes above which a shard flushes by itself.
    pub unflushed_bytes_max: u64,
}

impl Default for SimSettings {
    /// As small as it gets, so that everything happens often.
    fn default() -> Self {
        Self {
            shards: 1,
            journal_segment_bytes: 64 << 10,
            checkpoint_bytes: 64 << 10,
            checkpoint_limits: CheckpointLimits {
                files_max: 3,
                dead_entries_max: 4,
                moved_per_file: 16,
                flushed_beside: 3,
            },
            page_budget_bytes: 1 << 20,
            extent_bytes: 16 << 10,
            commit_depth: 1,
            write_behind: Duration::from_millis(10),
            idle_witness: Duration::from_millis(2),
            unflushed_bytes_max: 1 << 20,
        }
    }
}

impl SimSettings {
    /// Whether some commit can hold a batch of payloads of these lengths, together with the making of its channel: then
    /// a crash keeps all of it or nothing.
    #[must_use]
    pub fn fits_commit(&self, lens: impl ExactSizeIterator<Item = usize>) -> bool {
        let records = entry_size_events(lens.len());
        let bytes: usize = lens.filter(|len| *len > INLINE_SIZE_MAX).sum();
        // More goes by extent, but for less than a block.
        let inline = bytes.min(extent_bytes(self.extent_bytes, self.journal_segment_bytes)).max(BLOCK_SIZE);
        // A roll's entry and two checkpoints' stay free.
        records + inline <= largest_room(self.journal_segment_bytes, 3 * BLOCK_SIZE as u64)
    }

    fn options(&self) -> Options {
        Options {
            shards: Some(self.shards),
            journal_segment_bytes: self.journal_segment_bytes,
            checkpoint_bytes: self.checkpoint_bytes,
            checkpoint_limits: self.checkpoint_limits,
            page_budget_bytes: self.page_budget_bytes,
            extent_bytes: self.extent_bytes,
            commit_depth: self.commit_depth,
            write_behind: self.write_behind,
            idle_witness: self.idle_witness,
            unflushed_bytes_max: self.unflushed_bytes_max,
            ..Options::default()
        }
    }
}

/// One commit of a shard's journal, and what it says of channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimCommit {
    /// Its number in the journal.
    pub lsn: u64,
    /// What it says, in order.
    pub changes: Vec<(ChannelName, SimChange)>,
}

/// What a commit says of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimChange {
    /// It is new.
    Created {
        /// Its first event will be this one: it may have been in memory before.
        begin: u64,
    },
    /// It has other settings.
    Configured,
    /// Its head lies here.
    Trimmed(u64),
    /// It ends here; sequences from here on are given again.
    CutOff(u64),
    /// It is gone.
    Deleted,
    /// It has events up to here, exclusive.
    Events(u64),
}

/// What a step of all shards came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimStep {
    /// Something was done or is in flight.
    Worked,
    /// Nothing was to be done, so the clock was moved to the next timer.
    Waited,
    /// Nothing is to be done, ever, unless something is appended.
    Idle,
    /// Some shard has failed, and the others have nothing to do.
    Failed,
    /// All shards were closed.
    Ended,
}

/// Checks the store on this disk, which nobody has open; as [`crate::verify()`].
///
/// # Errors
///
/// [`SurveyError`].
pub fn verify(disk: &SimDisk) -> Result<StoreReport, SurveyError> {
    let ground = Ground::of_disk(Arc::new(disk.clone()));
    verify_ground(&ground, Path::new(""), &VerifyOptions::new().with_threads(1))
}

/// See the module's text.
#[derive(Debug)]
pub struct SimStore {
    // Before the store: what is in flight ends first.
    shards: Vec<Shard>,
    redex: Redex,
    clock: Arc<ManualClock>,
    /// What other threads do beside the shards: run between turns, sooner or later.
    file_maker: Arc<Offload>,
    random: Random,
}

impl SimStore {
    /// Opens the store on this disk, or makes it. Steps of the recovery are labelled as such.
    ///
    /// # Errors
    ///
    /// [`OpenError`], also when the power goes off meanwhile ([`SimDisk::is_off`]).
    pub fn open(
        disk: &SimDisk,
        settings: &SimSettings,
        clock: &Arc<ManualClock>,
        seed: u64,
    ) -> Result<Self, OpenError> {
        Self::open_with(disk, settings, clock, seed, None)
    }

    /// As [`SimStore::open`], with a cold store. Passes run within the turns; chunks have 8 KiB.
    ///
    /// # Errors
    ///
    /// As [`SimStore::open`].
    pub fn open_with_cold(
        disk: &SimDisk,
        settings: &SimSettings,
        clock: &Arc<ManualClock>,
        seed: u64,
        cold: Arc<dyn ColdStore>,
    ) -> Result<Self, OpenError> {
        let setup =
            ColdSetup { store: cold, cache_bytes: SIM_CACHE_BYTES, chunk_size: 2 * BLOCK_SIZE as u32, inline: true };
        Self::open_with(disk, settings, clock, seed, Some(setup))
    }

    fn open_with(
        disk: &SimDisk,
        settings: &SimSettings,
        clock: &Arc<ManualClock>,
        seed: u64,
        cold: Option<ColdSetup>,
    ) -> Result<Self, OpenError> {
        let options = settings.options();
        options.check()?;
        let file_maker = Arc::new(Offload::by_hand());
        let environment = Environment {
            disk: Arc::new(disk.clone()),
            clock: Clock::manual(clock.clone()),
            random: Random::seeded(seed),
            offload: Arc::new(Offload::inline()),
            file_maker: file_maker.clone(),
            base: PathBuf::new(),
            cold,
            pages: PagePool::new(options.page_budget_bytes, options.page_budget_bytes / 2),
        };
        disk.set_phase(Some(StepKind::Recovery.name()));
        let recovered = Store::recover(environment, &options);
        disk.set_phase(None);
        let (store, seeds) = recovered?;
        let redex = Redex::over(Arc::new(store), options, Clock::manual(clock.clone()));
        let shards: Result<Vec<Shard>, _> = seeds.into_iter().map(Shard::new).collect();
        let shards = shards.map_err(|source| OpenError::Io { what: "make the queue of", path: "".into(), source })?;
        Ok(Self { shards, redex, clock: clock.clone(), file_maker, random: Random::seeded(!seed) })
    }

    /// The store's channels. Futures must be polled, never waited for: nothing moves between turns.
    #[must_use]
    pub fn redex(&self) -> &Redex {
        &self.redex
    }

    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// One turn of one shard; says whether it did something. A shard that has failed or ended does nothing.
    ///
    /// # Panics
    ///
    /// If there is no such shard, or if the engine breaks an invariant of its own.
    pub fn turn(&mut self, shard: usize) -> bool {
        self.work_beside();
        matches!(self.shards[shard].turn(), Ok(Turn::Worked))
    }

    /// One turn of every shard; if none did anything and nothing is in flight, the clock is moved to the next timer.
    pub fn step(&mut self) -> SimStep {
        self.work_beside();
        let (mut busy, mut failed, mut ended, mut timer) = (false, false, true, None);
        for shard in &mut self.shards {
            match shard.turn() {
                Ok(Turn::Worked) => (busy, ended) = (true, false),
                Ok(Turn::Idle { until_us }) => {
                    (busy, ended) = (busy | (shard.in_flight() > 0), false);
                    timer = [timer, until_us].into_iter().flatten().min();
                }
                Ok(Turn::Ended) => {}
                Err(_) => failed = true,
            }
        }
        match timer {
            _ if busy || (self.file_maker.has_waiting() && !failed && !ended) => SimStep::Worked,
            // Behind the errands of the shard that failed are those of one that goes on: threads would come to them.
            None if failed && self.file_maker.run_next() => SimStep::Worked,
            Some(at_us) => {
                self.clock.advance(Duration::from_micros(at_us.saturating_sub(self.clock.steady_us())));
                SimStep::Waited
            }
            None if failed => SimStep::Failed,
            None if ended => SimStep::Ended,
            None => SimStep::Idle,
        }
    }

    /// Does some of what other threads would, or none.
    fn work_beside(&mut self) {
        while self.random.next_u64().is_multiple_of(2) && self.file_maker.run_next() {}
    }

    /// Takes turns until nothing is to be done before the next timer; says whether that came within `turns_max` turns of
    /// each shard.
    pub fn run_until_idle(&mut self, turns_max: usize) -> bool {
        (0..turns_max).any(|_| {
            self.work_beside();
            let beside = self.file_maker.has_waiting();
            !beside
                & self.shards.iter_mut().fold(true, |idle, shard| {
                    let turn = shard.turn();
                    idle & (turn.is_err() || !matches!(turn, Ok(Turn::Worked)) && shard.in_flight() == 0)
                })
        })
    }

    /// The commits of a shard since the store was opened, in order.
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    #[must_use]
    pub fn commits(&self, shard: usize) -> Vec<SimCommit> {
        self.shards[shard].commit_log().to_vec()
    }

    /// Directory of a channel's files, whether it is there or not.
    #[must_use]
    pub fn dir_of(file: &RedexFile) -> String {
        channel_dir(file.channel().id())
    }

    /// Begins the close: from now on steps lead to the end.
    pub fn begin_close(&mut self) {
        drop(self.redex.close());
    }

    /// Begins what dropping the last clone does: as a close, but it waits for no room on disk.
    pub fn begin_drop(&mut self) {
        self.begin_close();
        self.shards.iter().for_each(Shard::give_up_waiting);
    }

    /// Ends the store, once a step said [`SimStep::Ended`] or [`SimStep::Failed`].
    ///
    /// # Errors
    ///
    /// [`CloseError`]: a shard has failed, or STORE could not be written.
    ///
    /// # Panics
    ///
    /// If the shards have neither ended nor failed.
    pub fn finish_close(self) -> Result<(), CloseError> {
        let over = |shard: &mut Shard| !matches!(shard.turn(), Ok(Turn::Worked | Turn::Idle { .. }));
        let Self { mut shards, redex, .. } = self;
        assert!(shards.iter_mut().all(over), "the shards are driven to their end first");
        redex.close().wait()
    }

    /// Closes the store cleanly, driving the shards to their end.
    ///
    /// # Errors
    ///
    /// As [`SimStore::finish_close`].
    ///
    /// # Panics
    ///
    /// If the shards come to no end.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.begin_close();
        for _ in 0..1_000_000 {
            match self.step() {
                SimStep::Worked | SimStep::Waited => {}
                SimStep::Ended | SimStep::Failed => return self.finish_close(),
                SimStep::Idle => break,
            }
        }
        panic!("a store that is closing finds no end");
    }
}
