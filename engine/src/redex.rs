//! The door to a store: its channels.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::append::wait::block_on;
use crate::batch::Batch;
use crate::channel::{Channel, ChannelParts, Life};
use crate::channel_name::{ChannelName, IntoChannelName};
use crate::clock::Clock;
use crate::cold::ColdStore;
use crate::cold::failure::ColdError;
use crate::cold::pass::sweep_store;
use crate::cold::read::ColdWork;
use crate::config::{RedexFileConfig, SEGMENT_BYTES_RANGE};
use crate::error::{ChangeError, CloseError, OpenError, OpenFileError};
use crate::file::RedexFile;
use crate::file_changes::change;
use crate::ids::{Epoch, Seq};
use crate::io::probe::DurableWrite;
use crate::options::{Backend, Options};
use crate::request::Change;
use crate::shard::errands::ErrandKind;
use crate::shard::stats::Stats;
use crate::store::Store;
use crate::sync::scheduled::Mutex;
use crate::tail::pool::PagePool;
use crate::tail::{Tail, TailStart};

/// A store of channels, on disk or in memory. A cheap clone; all clones are the same store.
///
/// ```
/// # fn main() -> Result<(), redex::RedexError> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// use redex::{FsyncPolicy, Redex, RedexFileConfig};
/// let redex = Redex::new().with_persistent_dir(dir);
/// let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(100));
/// let file = redex.open_file("orders", config)?;
/// let seq = file.append_durable(b"an order that survives a power cut").wait()?;
/// assert!(file.durable() > seq);
/// redex.close().wait()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Redex {
    inner: Arc<Inner>,
    /// A base directory that was set too late by this handle, or the one that it was cloned from.
    refused_dir: Option<PathBuf>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    clock: Clock,
    state: Mutex<State>,
    #[cfg(feature = "metrics")]
    exporter: Mutex<crate::export::Exporter>,
}

#[derive(Debug, Default)]
struct State {
    /// Base directory. Stays as it is once there is a store.
    dir: Option<PathBuf>,
    store: Option<Arc<Store>>,
    channels: HashMap<ChannelName, Arc<Channel>>,
    closed: bool,
}

/// What [`Redex::channels`] tells of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its name.
    pub name: ChannelName,
    /// Whether it is kept on disk.
    pub persistent: bool,
    /// Whether it has been opened since the store was.
    pub open: bool,
    /// Sequence of its first event.
    pub head_seq: u64,
    /// Sequence of its next event.
    pub next_seq: u64,
}

impl Default for Redex {
    fn default() -> Self {
        Self::new()
    }
}

impl Redex {
    /// A store without a base directory: its channels live in memory. Add one by [`Redex::with_persistent_dir`].
    #[must_use]
    pub fn new() -> Self {
        Self::from_options(Options::default(), None, Clock::system())
    }

    /// A store in memory: the same calls, nothing on disk.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new()
    }

    /// Sets the base directory, of all clones. Never fails and touches no disk: the first persistent channel opens the store,
    /// and returns its errors. Until then the directory may be set again, also with channels in memory open.
    ///
    /// Once the store is open its directory stays. Then the handle that this returns (and its clones) says so whenever it
    /// is to open a persistent channel: [`OpenFileError::BaseDirectoryConflict`]. Other handles go on.
    #[must_use]
    pub fn with_persistent_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        let mut state = self.state();
        if state.store.is_none() {
            state.dir = Some(dir);
            drop(state);
            self.refused_dir = None;
        } else {
            let same = state.dir.as_ref() == Some(&dir);
            drop(state);
            self.refused_dir = (!same).then_some(dir);
        }
        self
    }

    /// Opens the store in this directory at once, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: in use, damaged, or refused by the operating system.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::builder().persistent_dir(dir).build()
    }

    /// For everything that can be set.
    #[must_use]
    pub fn builder() -> RedexBuilder {
        RedexBuilder { options: Options::default(), dir: None }
    }

    fn from_options(options: Options, dir: Option<PathBuf>, clock: Clock) -> Self {
        let state = Mutex::new(State { dir, ..State::default() });
        let inner = Inner {
            options,
            clock,
            state,
            #[cfg(feature = "metrics")]
            exporter: Mutex::default(),
        };
        Self { inner: Arc::new(inner), refused_dir: None }
    }

    /// A store over one that was opened by hand, for the simulator.
    #[cfg(feature = "sim")]
    pub(crate) fn over(store: Arc<Store>, options: Options, clock: Clock) -> Self {
        let redex = Self::from_options(options, None, clock);
        redex.state().store = Some(store);
        redex
    }

    fn state(&self) -> crate::sync::scheduled::MutexGuard<'_, State> {
        self.inner.state.lock().expect("no panic while the lock is held")
    }

    /// Opens a channel, and makes it if there is none. Not asynchronous; the first persistent channel opens the store.
    ///
    /// A channel that is open already is the same one, if the configuration is the same. One in memory that is opened as a
    /// persistent one becomes that, in place, with these settings: its events and sequences stay, and so do its handles and
    /// subscriptions; what it has is written soon, and is durable after `sync`. A head that was moved in memory is durable a
    /// commit later: a crash just then keeps some events below it. The other way round is an error.
    ///
    /// # Errors
    ///
    /// [`OpenFileError`]; nothing was changed.
    pub fn open_file(&self, name: impl IntoChannelName, config: RedexFileConfig) -> Result<RedexFile, OpenFileError> {
        let name = name.into_channel_name()?;
        check_settings(&name, &config)?;
        let mut state = self.state();
        if state.closed {
            return Err(OpenFileError::Closed);
        }
        if config.persistent() {
            self.check_dir(&state, &name)?;
        }
        forget_deleted(&mut state, &name)?;
        if let Some(channel) = state.channels.get(&name).cloned() {
            if config.persistent() && channel.persistence().is_none() {
                let store = self.store(&mut state, &name)?;
                store.adopt(&channel, config)?;
                return Ok(RedexFile::new(channel));
            }
            check_conflict(&channel, &config)?;
            return Ok(RedexFile::new(channel.clone()));
        }
        let channel = if config.persistent() {
            let store = self.store(&mut state, &name)?;
            store.open_channel(&name, config, &self.inner.options)?
        } else {
            if state.store.as_ref().is_some_and(|store| store.contains(&name)) {
                let (present, wanted) = ("true".to_owned(), "false".to_owned());
                return Err(OpenFileError::ConfigConflict { channel: name, setting: "persistent", present, wanted });
            }
            Arc::new(self.memory_channel(&name, config))
        };
        state.channels.insert(name, channel.clone());
        Ok(RedexFile::new(channel))
    }

    /// A store in a directory, on this clock: for copies of stores, whose events have their times.
    pub(crate) fn on_clock(dir: PathBuf, options: Options, clock: Clock) -> Self {
        Self::from_options(options, Some(dir), clock)
    }

    /// Makes a persistent channel whose first event has the sequence `first`.
    pub(crate) fn make_file_from(
        &self,
        name: &ChannelName,
        config: RedexFileConfig,
        first: Seq,
    ) -> Result<RedexFile, OpenFileError> {
        let mut state = self.state();
        let store = self.store(&mut state, name)?;
        let channel = store.open_channel_from(name, config, &self.inner.options, first)?;
        state.channels.insert(name.clone(), channel.clone());
        Ok(RedexFile::new(channel))
    }

    /// Refuses persistent channels to a handle that asked for another base directory than the store has.
    fn check_dir(&self, state: &State, name: &ChannelName) -> Result<(), OpenFileError> {
        let Some(wanted) = &self.refused_dir else { return Ok(()) };
        Err(OpenFileError::BaseDirectoryConflict {
            channel: name.clone(),
            present: state.dir.clone().unwrap_or_default(),
            wanted: wanted.clone(),
        })
    }

    fn store(&self, state: &mut State, name: &ChannelName) -> Result<Arc<Store>, OpenFileError> {
        if let Some(store) = &state.store {
            return Ok(store.clone());
        }
        let Some(dir) = &state.dir else {
            return Err(OpenFileError::NoBaseDirectory { channel: name.clone() });
        };
        let store = Store::open(dir, &self.inner.options, self.inner.clock.clone()).map_err(Arc::new)?;
        state.store = Some(store.clone());
        Ok(store)
    }

    fn memory_channel(&self, name: &ChannelName, config: RedexFileConfig) -> Channel {
        let limits = config.tail_limits(false);
        // What is kept in memory for good is the user's own decision: no budget.
        let pool = PagePool::new(usize::MAX / 2, self.inner.options.page_budget_bytes);
        Channel::new(ChannelParts {
            name: name.clone(),
            config,
            tail: Tail::new(TailStart::default(), limits, pool),
            epochs: Vec::new(),
            head: Seq(0),
            epoch: Epoch(1),
            payload_size_max: self.inner.options.payload_size_max,
            persistence: None,
            clock: self.inner.clock.clone(),
        })
    }

    /// Drops what the limits of each open channel do not keep; see [`RedexFile::sweep_retention`]. Gives the first error;
    /// the others are swept all the same.
    ///
    /// # Errors
    ///
    /// Those of [`RedexFile::sweep_retention`].
    pub fn sweep_retention(&self) -> Result<(), ChangeError> {
        let channels: Vec<_> = self.state().channels.values().cloned().collect();
        let sweeps: Vec<_> = channels.into_iter().map(|channel| RedexFile::new(channel).sweep_retention()).collect();
        let results: Vec<_> = sweeps.into_iter().map(Change::wait).collect();
        results.into_iter().try_for_each(|result| result.map(drop))
    }

    /// Begins a batch over several channels, which a crash keeps whole or not at all; see [`Batch`].
    pub fn batch(&self) -> Batch {
        Batch::default()
    }

    /// Deletes a channel with all its events, open or not. Handles refuse appends from now on, subscriptions end. Resolves
    /// when that is durable: then the name is free for a new channel, and no crash brings the old one back. Its files go
    /// soon afterwards.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NotFound`]; [`ChangeError::OpenFile`] for one that is not open and cannot be opened; [`ChangeError::Poisoned`].
    pub fn delete_channel(&self, name: impl IntoChannelName) -> Change<()> {
        self.change_channel(name, ErrandKind::Delete)
    }

    /// Drops all events of a channel, open or not: its sequences begin at 0 again, in a new epoch, as after
    /// [`RedexFile::truncate_suffix`]. Handles stay.
    ///
    /// # Errors
    ///
    /// As [`Redex::delete_channel`].
    pub fn reset_channel(&self, name: impl IntoChannelName) -> Change<()> {
        self.change_channel(name, ErrandKind::Reset)
    }

    fn change_channel(&self, name: impl IntoChannelName, kind: ErrandKind) -> Change<()> {
        let channel =
            name.into_channel_name().map_err(OpenFileError::from).and_then(|name| self.channel_to_change(&name));
        match channel {
            Ok(Ok(channel)) => change(&channel, kind, drop),
            Ok(Err(error)) => Change::decided(Err(error), drop),
            Err(error) => Change::decided(Err(ChangeError::OpenFile(Arc::new(error))), drop),
        }
    }

    fn channel_to_change(&self, name: &ChannelName) -> Result<Result<Arc<Channel>, ChangeError>, OpenFileError> {
        let mut state = self.state();
        forget_deleted(&mut state, name)?;
        if state.closed {
            return Ok(Err(ChangeError::Closed { channel: name.clone() }));
        }
        if let Some(channel) = state.channels.get(name) {
            return Ok(Ok(channel.clone()));
        }
        if state.store.is_none() && state.dir.is_some() {
            self.store(&mut state, name)?;
        }
        let store = state.store.clone().filter(|store| store.contains(name));
        let Some(store) = store else { return Ok(Err(ChangeError::NotFound { channel: name.clone() })) };
        let channel = store.open_as_stored(name, &self.inner.options)?;
        state.channels.insert(name.clone(), channel.clone());
        Ok(Ok(channel))
    }

    /// All channels: those that were opened, and those that lie in the store. Sorted by name.
    ///
    /// Touches no disk. Before the first persistent channel has opened the store ([`Redex::with_persistent_dir`]), nothing
    /// is known of what lies there: only channels in memory are listed. [`Redex::open`] opens the store at once.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.channels_with_prefix("")
    }

    /// The channels whose names begin with this. As [`Redex::channels`]; looks at every name, and copies only those.
    #[must_use]
    pub fn channels_with_prefix(&self, prefix: &str) -> Vec<ChannelInfo> {
        let state = self.state();
        let wanted = |name: &ChannelName| name.as_str().starts_with(prefix);
        let mut infos: Vec<ChannelInfo> = state
            .channels
            .values()
            .filter(|channel| channel.life() != Life::Over && wanted(&channel.name))
            .map(|channel| ChannelInfo {
                name: channel.name.clone(),
                persistent: channel.persistence().is_some(),
                open: true,
                head_seq: channel.head().0,
                next_seq: channel.tail.published().0,
            })
            .collect();
        if let Some(store) = &state.store {
            infos.extend(store.closed_channels(|name| wanted(name) && !state.channels.contains_key(name)));
        }
        // Of a million this takes a second: nobody waits for it.
        drop(state);
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    /// Deletes objects of deleted channels that a crash has left in the cold store. Lists all that is there of this store; channels
    /// that exist see to their own by themselves. Resolves to the number of objects deleted.
    ///
    /// # Errors
    ///
    /// [`ColdError`]; what is left goes at the next call.
    pub fn sweep_cold(&self) -> ColdWork<u64> {
        let store = self.state().store.clone();
        let Some((tier, shards)) = store.as_ref().and_then(|store| store.cold()) else {
            return ColdWork::known(Err(ColdError::NoColdStore));
        };
        let theirs = tier.clone();
        ColdWork::run(tier, move || sweep_store(&theirs, &shards))
    }

    /// What the store has counted since it was opened; all zero without one.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.state();
        state.store.as_ref().map_or_else(Stats::empty, |store| store.stats())
    }

    /// [`Redex::stats`] of each shard by itself, in the order of their numbers; empty without a store. Memory and files, which the
    /// shards share, are the same in all.
    #[must_use]
    pub fn shard_stats(&self) -> Vec<Stats> {
        let state = self.state();
        state.store.as_ref().map_or_else(Vec::new, |store| store.shard_stats())
    }

    /// Sets the counters, gauges and histograms of the `metrics` facade's recorder (the caller's local one, or the global one) to what
    /// the engine has counted. Nothing is exported between two calls: call it before a scrape, or every few seconds.
    ///
    /// Looks at every open channel once, about a microsecond each. The first 1,000 channels that grow get series of their own, set when
    /// they have changed. `docs/observability.md` has the names. Exports of clones come one after the other.
    #[cfg(feature = "metrics")]
    pub fn export_metrics(&self) {
        let mut exporter = self.inner.exporter.lock().expect("no panic while the lock is held");
        let channels: Vec<Arc<Channel>> = self.state().channels.values().cloned().collect();
        exporter.export(&self.stats(), &self.shard_stats(), &channels);
    }

    /// Makes everything durable, takes a checkpoint and ends the store: the next open has nothing to recover. Handles refuse
    /// appends from now on; tails end when they have delivered everything.
    ///
    /// On a full disk it ends with [`CloseError::NoSpace`] if nothing but the checkpoint is missing: the next open recovers.
    /// While something that was appended has no place yet (a payload that goes straight to its file, or that no journal holds
    /// since memory is full) it waits for room, without a bound: make some, or drop the last clone to give that up.
    ///
    /// Dropping the last clone does the same, without saying whether it went well; only that it waits for no room. When it
    /// was tried again and nothing moves, what has no place is given up, and whoever waits for it, or for this, gets
    /// [`Poisoned`](crate::Poisoned) with the system's error. Nothing of it was acknowledged as durable.
    pub fn close(&self) -> Close {
        let mut state = self.state();
        state.closed = true;
        for channel in state.channels.values().filter(|channel| channel.persistence().is_none()) {
            channel.close(u32::MAX - 1);
        }
        let store = state.store.clone();
        drop(state);
        if let Some(store) = &store {
            store.begin_close();
        }
        Close { store }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().expect("no panic while the lock is held");
        if let Some(store) = &state.store {
            store.begin_drop();
            if let Err(error) = store.finish_close() {
                tracing::error!(%error, "the store was not closed cleanly");
            }
        }
    }
}

fn check_settings(name: &ChannelName, config: &RedexFileConfig) -> Result<(), OpenFileError> {
    if SEGMENT_BYTES_RANGE.contains(&config.segment_bytes()) {
        return Ok(());
    }
    Err(OpenFileError::Setting {
        channel: name.clone(),
        setting: "segment_bytes",
        value: config.segment_bytes(),
        allowed: "16 KiB to 3.75 GiB",
    })
}

/// A channel that was deleted is forgotten, and one that is being deleted is in the way of a namesake.
fn forget_deleted(state: &mut State, name: &ChannelName) -> Result<(), OpenFileError> {
    match state.channels.get(name).map(|channel| channel.life()) {
        None | Some(Life::There) => Ok(()),
        Some(Life::Ending) => Err(OpenFileError::BeingDeleted { channel: name.clone() }),
        Some(Life::Over) => {
            state.channels.remove(name);
            Ok(())
        }
    }
}

/// An open channel has one configuration.
fn check_conflict(channel: &Channel, wanted: &RedexFileConfig) -> Result<(), OpenFileError> {
    let present = channel.config.get();
    let conflict = |setting, present: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
        let (present, wanted) = (format!("{present:?}"), format!("{wanted:?}"));
        Err(OpenFileError::ConfigConflict { channel: channel.name.clone(), setting, present, wanted })
    };
    if present.persistent() != wanted.persistent() {
        return conflict("persistent", &present.persistent(), &wanted.persistent());
    }
    if present.fsync_policy() != wanted.fsync_policy() {
        return conflict("fsync_policy", &present.fsync_policy(), &wanted.fsync_policy());
    }
    if present.retention() != wanted.retention() {
        return conflict("retention", &present.retention(), &wanted.retention());
    }
    if present.segment_bytes() != wanted.segment_bytes() {
        return conflict("segment_bytes", &present.segment_bytes(), &wanted.segment_bytes());
    }
    Ok(())
}

/// The future of [`Redex::close`].
#[derive(Debug)]
#[must_use = "only the future tells whether the close went well"]
pub struct Close {
    store: Option<Arc<Store>>,
}

impl Close {
    /// Waits on this thread, without a runtime.
    pub fn wait(self) -> Result<(), CloseError> {
        let Some(store) = &self.store else { return Ok(()) };
        block_on(Duration::MAX, |cx| store.poll_closed(cx));
        store.finish_close()
    }
}

impl Future for Close {
    type Output = Result<(), CloseError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(store) = &this.store else { return Poll::Ready(Ok(())) };
        std::task::ready!(store.poll_closed(cx));
        Poll::Ready(store.finish_close())
    }
}

/// Everything that can be set of a store; see each call. [`RedexBuilder::build`] opens it.
#[derive(Clone, Debug)]
pub struct RedexBuilder {
    options: Options,
    dir: Option<PathBuf>,
}

impl RedexBuilder {
    /// Base directory; without one the store is in memory.
    #[must_use]
    pub fn persistent_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Shards of a store that is made anew: 1 to 64; as many as cores less one unless set, at least one. A store that is
    /// there keeps its number.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.options.shards = Some(shards);
        self
    }

    /// Whether each shard's thread is bound to one core. Off unless set.
    #[must_use]
    pub fn pin_cores(mut self, pin: bool) -> Self {
        self.options.pin_cores = pin;
        self
    }

    /// Size of a journal segment, bytes: 64 KiB to 1 GiB, whole blocks; 64 MiB unless set.
    #[must_use]
    pub fn journal_segment_bytes(mut self, bytes: u64) -> Self {
        self.options.journal_segment_bytes = bytes;
        self
    }

    /// Journal bytes after which a checkpoint is taken: 64 MiB unless set; up to four times as many when hundreds of channels
    /// have changed. More makes reopening after a crash slower.
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.options.checkpoint_bytes = bytes;
        self
    }

    /// Memory for events that are not yet on disk, over all channels, bytes: at least 1 MiB; 256 MiB unless set. Appends
    /// wait above it.
    #[must_use]
    pub fn page_budget_bytes(mut self, bytes: usize) -> Self {
        self.options.page_budget_bytes = bytes;
        self
    }

    /// Bytes of sealed segments that may be mapped for reading at a time, over all channels, payloads that a program holds
    /// included: 16 GiB unless set, which takes 32 MiB of page tables at the most. Above it the longest unused are unmapped,
    /// and what finds no room is read by plain calls. With 0 nothing is mapped, and no handler for SIGBUS is installed.
    #[must_use]
    pub fn mapped_bytes_max(mut self, bytes: u64) -> Self {
        self.options.mapped_bytes_max = bytes;
        self
    }

    /// How I/O is done: by io_uring if the kernel allows it, unless set.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.options.backend = backend;
        self
    }

    /// Does durable writes as where `RWF_DSYNC` is refused, for tests: the write, then fdatasync.
    #[doc(hidden)]
    #[must_use]
    pub fn write_then_flush(mut self) -> Self {
        self.options.durable_write = Some(DurableWrite::WriteThenFlush);
        self
    }

    /// How long an event may stay in memory before it is written, though not flushed: 100 microseconds to 1 second; 10 ms
    /// unless set. What a killed process can lose under [`crate::FsyncPolicy::Never`].
    #[must_use]
    pub fn write_behind(mut self, delay: Duration) -> Self {
        self.options.write_behind = delay;
        self
    }

    /// Commits in flight at the most: 1 to 8; 1 unless set.
    #[must_use]
    pub fn commit_depth(mut self, depth: usize) -> Self {
        self.options.commit_depth = depth;
        self
    }

    /// Largest payload, bytes: up to 64 MiB; 16 MiB unless set.
    #[must_use]
    pub fn payload_size_max(mut self, bytes: usize) -> Self {
        self.options.payload_size_max = bytes;
        self
    }

    /// Bytes of whole blocks that a channel must have to commit for them to go straight to its segment, around the
    /// journal: 256 KiB unless set.
    #[must_use]
    pub fn extent_bytes(mut self, bytes: usize) -> Self {
        self.options.extent_bytes = bytes;
        self
    }

    /// Where sealed segments go that a channel does not keep on the local disk
    /// ([`RedexFileConfig::with_cold_keep_segments`]): none unless set. Only one store may use what lies there under its uuid:
    /// a copy of the directory is the same store.
    #[must_use]
    pub fn cold_store(mut self, store: Arc<dyn ColdStore>) -> Self {
        self.options.cold_store = Some(store);
        self
    }

    /// Memory for what was read from the cold store, over all channels, bytes: 64 MiB unless set.
    #[must_use]
    pub fn cold_cache_bytes(mut self, bytes: usize) -> Self {
        self.options.cold_cache_bytes = bytes;
        self
    }

    /// Opens the store, if there is a base directory.
    ///
    /// # Errors
    ///
    /// [`OpenError::Setting`] for a value out of range; the others if the store cannot be opened.
    pub fn build(self) -> Result<Redex, OpenError> {
        self.options.check()?;
        let clock = Clock::system();
        let store = match &self.dir {
            Some(dir) => Some(Store::open(dir, &self.options, clock.clone())?),
            None => None,
        };
        let redex = Redex::from_options(self.options, self.dir, clock);
        redex.state().store = store;
        Ok(redex)
    }
}
