//! A store that is open: its lock, its shards, the names of its channels.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::checkpoint::{ChannelState, SegmentState, Tail as Unfinished};
use super::lock::StoreLock;
use super::meta::Meta;
use super::recover::{Restored, find, restore};
use super::roots::{Roots, read_copies, write_copies, write_superblock};
use super::superblock::{STORE_FILE_SIZE, STORE_PATH, ShardRoot, Superblock};
use crate::channel::{Channel, ChannelParts, Persistence};
use crate::channel_name::ChannelName;
use crate::clock::Clock;
use crate::cold::channel::ColdChannel;
use crate::cold::tier::{ColdSetup, ColdTier};
use crate::config::RedexFileConfig;
use crate::error::{CloseError, OpenError, OpenFileError, path_beneath};
use crate::ids::{ChannelId, Epoch, Lsn, SegmentNo, Seq, ShardId, StoreUuid};
use crate::io::posix::PosixDisk;
use crate::io::uring::UringDisk;
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, OpenMode, probe};
use crate::journal::{journal_dir, spare_dir};
use crate::options::{Backend, Options};
use crate::random::Random;
use crate::read::offload::Offload;
use crate::redex::ChannelInfo;
use crate::request::Request;
use crate::segment::block::RECORDS_PER_BLOCK;
use crate::segment::path::{CHANNELS_DIR, meta_path};
use crate::segment::read::OnDisk;
use crate::segment::record::IndexRecord;
use crate::shard::ShardSeed;
use crate::shard::checkpoint::{CHECKPOINT_DIR, Located, checkpoint_dir, load_located_tail};
use crate::shard::handle::{Control, Opened, ShardHandle, active_segment};
use crate::shard::reclaim::{remove_channel, remove_other_segments};
use crate::shard::roll::SPARES_KEPT;
use crate::shard::run::run;
use crate::shard::stats::Stats;
use crate::sync::scheduled::atomic::{AtomicU32, Ordering};
use crate::sync::scheduled::{Mutex, MutexGuard};
use crate::tail::pool::PagePool;
use crate::tail::{Tail, TailStart};

/// Threads that make files, and flush many: they mostly wait for flushes, which the file system merges.
const FILE_MAKERS: usize = 16;
/// Its name while it is made.
const STORE_NEW_PATH: &str = "STORE.new";

/// What a store stands on.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub random: Random,
    /// Who reads history for futures.
    pub offload: Arc<Offload>,
    /// Who makes segment files for the shards.
    pub file_maker: Arc<Offload>,
    /// Memory for pages.
    pub pages: Arc<PagePool>,
    /// Where the files lie, for messages.
    pub base: PathBuf,
    /// Where old segments go.
    pub cold: Option<ColdSetup>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Store {
    environment: Environment,
    epoch: Epoch,
    shards: Vec<Arc<ShardHandle>>,
    names: Mutex<HashMap<ChannelName, (ShardId, ChannelId)>>,
    created: AtomicU32,
    roots: Arc<Roots>,
    cold: Option<Arc<ColdTier>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<StoreLock>>,
    ended: Mutex<Option<Result<(), CloseError>>>,
}

fn io_error(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.into();
    move |source| OpenError::Io { what, path, source }
}

impl Store {
    /// Opens the store in this directory, or makes it, and starts its shards.
    pub fn open(base: &Path, options: &Options, clock: Clock) -> Result<Arc<Self>, OpenError> {
        options.check()?;
        let (disk, lock) = open_disk(base, options)?;
        let environment = Environment {
            disk,
            clock,
            random: Random::system(),
            offload: Arc::new(Offload::new("redex-read", 1)),
            file_maker: Arc::new(Offload::new("redex-files", FILE_MAKERS)),
            pages: PagePool::new(options.page_budget_bytes, options.page_budget_bytes / 2),
            base: base.to_owned(),
            cold: options.cold_store.clone().map(|store| ColdSetup::new(store, options.cold_cache_bytes)),
        };
        let (store, seeds) = Self::recover(environment, options).map_err(|error| error.beneath(base))?;
        *store.lock.lock().expect("no panic while the lock is held") = Some(lock);
        store.start(seeds, options).map_err(|error| error.beneath(base))?;
        Ok(Arc::new(store))
    }

    /// Recovers a store on any disk. The shards are not started.
    pub fn recover(environment: Environment, options: &Options) -> Result<(Self, Vec<ShardSeed>), OpenError> {
        let begun_us = environment.clock.steady_us();
        let disk = &environment.disk;
        let mut superblock = match read_superblock(&**disk)? {
            Some(superblock) => {
                // A killed process may have made it without making its name durable.
                disk.sync_dir("").map_err(io_error("sync", ""))?;
                superblock
            }
            None => make_store(&**disk, options, &environment.random)?,
        };
        let uuid = superblock.uuid;
        let mut found = Vec::with_capacity(superblock.shards.len());
        for (index, root) in superblock.shards.iter().enumerate() {
            found.push(find(&**disk, uuid, ShardId(index as u16), root, superblock.epoch, options.checkpoint_limits)?);
        }
        let epoch_max = found.iter().map(|shard| shard.epoch_max).max().expect("a store has a shard");
        let epoch_max = epoch_max.max(superblock.epoch);
        let epoch = Epoch(epoch_max.0.checked_add(1).ok_or_else(|| {
            let what = format!(
                "its epoch, {epoch_max}, has none above it: a damaged or foreign file; restore the store from a copy"
            );
            io_error("begin an epoch of", STORE_PATH)(io::Error::other(what))
        })?);
        let mut restored = Vec::with_capacity(found.len());
        for shard in found {
            restored.push(restore(disk, uuid, shard, epoch, options.journal_segment_bytes, &environment.random)?);
        }
        superblock.epoch = epoch;
        superblock.shards =
            restored.iter().map(|shard| ShardRoot { segment: shard.journal.number(), clean: None }).collect();
        superblock.generation += 1;
        write_superblock(&**disk, &superblock).map_err(io_error("write", STORE_PATH))?;
        let cold = environment.cold.as_ref();
        let cold = cold.map(|setup| ColdTier::new(setup, uuid, epoch, disk.clone(), environment.clock.clone()));
        let mut seeds = Vec::with_capacity(restored.len());
        let mut names = HashMap::with_capacity(restored.iter().map(|shard| shard.known.len()).sum());
        for (index, mut shard) in restored.into_iter().enumerate() {
            let id = ShardId(index as u16);
            clean_up(&**disk, id, &mut shard).map_err(io_error("clean up", journal_dir(id)))?;
            for located in shard.known.values().filter(|located| !located.state.deleted) {
                let name = ChannelName::new(&located.state.name).map_err(|_| OpenError::Inconsistent {
                    channel: located.state.name.clone(),
                    why: "the name breaks the rules",
                })?;
                names.insert(name, (id, ChannelId(located.state.id)));
            }
            let seed = seed(&environment, options, id, shard);
            if let Some(cold) = &cold {
                seed.handle.cold.set(cold.clone()).expect("it has none yet");
            }
            seeds.push(seed);
        }
        let roots = Arc::new(Roots::new(disk.clone(), superblock));
        seeds.iter().for_each(|seed| seed.handle.set_roots(roots.clone()));
        let elapsed_us = environment.clock.steady_us().saturating_sub(begun_us);
        let (store, shards, channels) = (environment.base.display(), seeds.len(), names.len());
        tracing::info!(%store, %uuid, %epoch, shards, channels, elapsed_us, "store opened");
        let store = Self {
            epoch,
            shards: seeds.iter().map(|seed| seed.handle.clone()).collect(),
            names: Mutex::new(names),
            created: AtomicU32::new(0),
            roots,
            cold,
            threads: Mutex::new(Vec::new()),
            lock: Mutex::new(None),
            ended: Mutex::new(None),
            environment,
        };
        Ok((store, seeds))
    }

    /// Starts the threads. After a failure those that run already end when the store is dropped.
    fn start(&self, seeds: Vec<ShardSeed>, options: &Options) -> Result<(), OpenError> {
        let cores = if options.pin_cores { allowed_cores() } else { Vec::new() };
        for seed in seeds {
            let id = seed.handle.id;
            let core = cores.get(usize::from(id.0) % cores.len().max(1)).copied();
            let (begun, begins) = std::sync::mpsc::channel();
            let thread = std::thread::Builder::new()
                .name(format!("redex-{}", id.0))
                .spawn(move || run(seed, core, |result| _ = begun.send(result)))
                .map_err(io_error("start the thread of", journal_dir(id)))?;
            self.threads.lock().expect("no panic while the lock is held").push(thread);
            let result = begins.recv().unwrap_or_else(|_| Err(io::Error::other("the shard's thread ended")));
            result.map_err(io_error("start the ring of", journal_dir(id)))?;
        }
        Ok(())
    }

    /// The names of the channels, those that were deleted left out.
    fn names(&self) -> MutexGuard<'_, HashMap<ChannelName, (ShardId, ChannelId)>> {
        let mut names = self.names.lock().expect("no panic while the lock is held");
        for shard in &self.shards {
            let deleted = shard.take_deleted();
            if !deleted.is_empty() {
                names.retain(|_, (_, id)| !deleted.contains(id));
            }
        }
        names
    }

    /// Whether a channel of this name lies in the store.
    pub fn contains(&self, name: &ChannelName) -> bool {
        self.names().contains_key(name)
    }

    /// Of the channels that lie in the store those that are `wanted`: closed ones, and of the right names.
    pub fn closed_channels(&self, wanted: impl Fn(&ChannelName) -> bool) -> Vec<ChannelInfo> {
        let names = self.names();
        let closed = names.iter().filter(|(name, _)| wanted(name));
        let info = |(name, (shard, id)): (&ChannelName, &(ShardId, ChannelId))| {
            let known = self.shards[usize::from(shard.0)].known();
            let state = &known.get(id)?.state;
            Some(ChannelInfo {
                name: name.clone(),
                persistent: true,
                open: false,
                head_seq: state.head,
                next_seq: state.end,
            })
        };
        closed.filter_map(info).collect()
    }

    /// What the shards have counted.
    pub fn stats(&self) -> Stats {
        let channels = self.names().len();
        self.stats_of(&self.shards, channels)
    }

    /// The same for each shard by itself. What the shards share is the same in all.
    pub fn shard_stats(&self) -> Vec<Stats> {
        let mut channels = vec![0; self.shards.len()];
        self.names().values().for_each(|(shard, _)| channels[usize::from(shard.0)] += 1);
        self.shards.chunks(1).zip(channels).map(|(shard, channels)| self.stats_of(shard, channels)).collect()
    }

    fn stats_of(&self, shards: &[Arc<ShardHandle>], channels: usize) -> Stats {
        let mut stats = Stats::empty();
        for shard in shards {
            shard.add_stats(&mut stats, &self.environment.clock);
        }
        stats.cold = self.cold.as_ref().map(|cold| cold.counters.read()).unwrap_or_default();
        let pages = &self.environment.pages;
        let (chained, held) = pages.used_bytes();
        stats.channels = channels as u64;
        stats.page_bytes = chained as u64;
        stats.held_page_bytes = held as u64;
        stats.page_budget_bytes = pages.budget_bytes() as u64;
        stats.open_segment_files = self.environment.disk.open_segment_files() as u64;
        stats
    }

    /// Where old segments go, and the channels that there are, deleted ones not among them.
    pub fn cold(&self) -> Option<(&Arc<ColdTier>, Vec<Arc<ShardHandle>>)> {
        Some((self.cold.as_ref()?, self.shards.clone()))
    }

    /// Opens a channel that is not open, or makes it. Calls for one name come one after the other.
    pub fn open_channel(
        &self,
        name: &ChannelName,
        config: RedexFileConfig,
        options: &Options,
    ) -> Result<Arc<Channel>, OpenFileError> {
        self.open_channel_from(name, config, options, Seq(0))
    }

    /// The same; one that is made begins with this sequence.
    pub fn open_channel_from(
        &self,
        name: &ChannelName,
        config: RedexFileConfig,
        options: &Options,
        first: Seq,
    ) -> Result<Arc<Channel>, OpenFileError> {
        let present = self.names().get(name).copied();
        let (shard, id) = present.unwrap_or_else(|| self.place_new(name, &config));
        let handle = &self.shards[usize::from(shard.0)];
        if let Some(poisoned) = handle.poisoned() {
            return Err(poisoned.clone().into());
        }
        if handle.is_closed() {
            return Err(OpenFileError::Closed);
        }
        let located = handle.known().get(&id).cloned();
        let (state, tail) = match located {
            Some(_) => self.load(handle, id, name)?,
            None => (Arc::new(beginning_at(first, new_state(id, name, &config))), Unfinished::default()),
        };
        check_stored(name, &state, &config)?;
        let has_blocks = state.has_blocks();
        let state = without_dead(state);
        if has_blocks {
            self.check_meta(name, id)?;
        }
        let created = present.is_none();
        if !created {
            self.remove_leftovers(&state);
        }
        let differs = !created && state.config != config.encode();
        let cold_policy = config.cold();
        // One copy for the tail, the readers and the shard.
        let tail_bytes = Bytes::from(tail.bytes);
        let records = &tail.records;
        let channel = handle.register(|slot| {
            let persistence = Persistence {
                shard: handle.clone(),
                slot,
                id,
                on_disk: self.on_disk(name, &state, records, &tail_bytes),
                offload: self.environment.offload.clone(),
                overlay: None,
            };
            Arc::new(self.channel(name, config, options, &state, &tail_bytes, persistence))
        });
        if let Some(poisoned) = handle.poisoned() {
            // It failed meanwhile, and may not have seen the channel.
            channel.tail.close();
            return Err(poisoned.clone().into());
        }
        let slot = channel.persistence().expect("made with it").slot;
        let opened = Opened { channel: channel.clone(), slot, state, tail_bytes, created, page: None };
        tracing::debug!(channel = %name, %id, %shard, created, next_seq = channel.tail.published().0, "channel opened");
        handle.send(Control::Open(Box::new(opened)));
        if differs {
            // What was set anew is stored. Nobody waits for it.
            handle.send(Control::Configured { slot, request: Request::new() });
        }
        self.names().insert(name.clone(), (shard, id));
        match &self.cold {
            // What a crash or the last run has left to do.
            Some(cold) => cold.due(&channel),
            None if cold_policy.is_set() => {
                tracing::warn!(channel = %name, "it has a cold policy, and the store no cold store; everything stays local");
            }
            None => {}
        }
        Ok(channel)
    }

    /// Makes a channel in memory a persistent one, in place. What it has is the shard's to write from now on.
    pub fn adopt(&self, channel: &Arc<Channel>, config: RedexFileConfig) -> Result<(), OpenFileError> {
        let name = &channel.name;
        if self.contains(name) {
            let (present, wanted) = ("false, in memory, beside another one in the store".to_owned(), "true".to_owned());
            return Err(OpenFileError::ConfigConflict {
                channel: name.clone(),
                setting: "persistent",
                present,
                wanted,
            });
        }
        let (shard, id) = self.place_new(name, &config);
        let handle = &self.shards[usize::from(shard.0)];
        if let Some(poisoned) = handle.poisoned() {
            return Err(poisoned.clone().into());
        }
        if handle.is_closed() {
            return Err(OpenFileError::Closed);
        }
        // Nothing is dropped in memory from here on.
        let _turn = channel.begin_retaining();
        let epoch = if channel.epoch() < self.epoch {
            self.epoch
        } else {
            // Its suffix was cut off more often than the store was opened.
            let raised = self.roots.raise_epoch_above(channel.epoch());
            raised.map_err(|source| OpenFileError::Store(Arc::new(io_error("write", STORE_PATH)(source))))?
        };
        // In this order: an event that is appended meanwhile lies in the page, or behind.
        let (published, page) = (channel.tail.published(), channel.tail.front());
        let first = page.map_or(published, |page| page.first_seq);
        let segment = SegmentState { first: first.0, end: first.0, dat_size: 0, sealed: false };
        let head = channel.head().0.min(first.0);
        let state = ChannelState { head, end: first.0, segments: vec![segment], ..new_state(id, name, &config) };
        channel.config.change(|present| *present = config.clone());
        channel.tail.set_limits(config.tail_limits(true));
        let channel = handle.register(|slot| {
            let persistence = Persistence {
                shard: handle.clone(),
                slot,
                id,
                on_disk: self.on_disk(name, &state, &[], &Bytes::new()),
                offload: self.environment.offload.clone(),
                overlay: None,
            };
            channel.bind(persistence, (first, page.map_or(0, |page| page.byte_base)), epoch);
            channel.clone()
        });
        let slot = channel.persistence().expect("just bound").slot;
        let (state, tail_bytes) = (Arc::new(state), Bytes::new());
        let opened = Opened { channel: channel.clone(), slot, state, tail_bytes, created: true, page };
        handle.send(Control::Open(Box::new(opened)));
        channel.tail.bind_to_shard();
        handle.push_dirty(slot, &self.environment.clock);
        handle.ring();
        self.names().insert(name.clone(), (shard, id));
        Ok(())
    }

    /// Opens a channel that lies in the store, as it was last configured.
    pub fn open_as_stored(&self, name: &ChannelName, options: &Options) -> Result<Arc<Channel>, OpenFileError> {
        let (shard, id) = *self.names().get(name).expect("the caller has looked");
        let known = self.shards[usize::from(shard.0)].known().get(&id).cloned();
        let stored = known.map(|located| RedexFileConfig::decode(&located.state.config));
        let config = stored.ok_or(OpenFileError::Closed)?;
        let config = config.ok_or_else(|| OpenFileError::UnknownConfig { channel: name.clone() })?;
        self.open_channel(name, config, options)
    }

    /// A channel's shard is decided once, by its name or its affinity, then stored.
    fn place_new(&self, name: &ChannelName, config: &RedexFileConfig) -> (ShardId, ChannelId) {
        let key = config.affinity().unwrap_or(name.as_str());
        let shard = crc32c::crc32c(key.as_bytes()) as usize % self.shards.len();
        let id = ChannelId::new(self.epoch, self.created.fetch_add(1, Ordering::Relaxed));
        (ShardId(shard as u16), id)
    }

    /// Reads what fills no block. Under the lock that keeps the checkpoint file from going meanwhile.
    fn load(
        &self,
        handle: &ShardHandle,
        id: ChannelId,
        name: &ChannelName,
    ) -> Result<(Arc<ChannelState>, Unfinished), OpenFileError> {
        let known = handle.known();
        let located: &Located = known.get(&id).expect("looked up before");
        let tail = load_located_tail(&*self.environment.disk, handle.id, located).map_err(|mut error| {
            error.put_beneath(&self.environment.base);
            OpenFileError::Damaged { channel: name.clone(), error }
        })?;
        Ok((located.state.clone(), tail))
    }

    /// Removes segment files that the channel does not have any more: a crash came before they went.
    fn remove_leftovers(&self, state: &ChannelState) {
        let (disk, id) = (&*self.environment.disk, ChannelId(state.id));
        // Without blocks it has no files, but may have had some before all was cut off.
        let segments = if state.has_blocks() { &state.segments[..] } else { &[] };
        let known: Vec<u64> = segments.iter().map(|segment| segment.first).collect();
        if let Err(error) = remove_other_segments(disk, id, &known) {
            tracing::warn!(channel = %id, %error, "files that nobody needs any more stay");
        }
    }

    /// Checks META of a channel that has segment files.
    fn check_meta(&self, name: &ChannelName, id: ChannelId) -> Result<(), OpenFileError> {
        let path = meta_path(id);
        let uuid = self.roots.superblock().uuid;
        Meta::check(&*self.environment.disk, &path, uuid, id, name.as_str()).map_err(|source| OpenFileError::Meta {
            channel: name.clone(),
            path: path_beneath(&self.environment.base, Path::new(&path)),
            offset: 0,
            source,
        })
    }

    fn on_disk(&self, name: &ChannelName, state: &ChannelState, records: &[IndexRecord], bytes: &Bytes) -> OnDisk {
        let on_disk = on_disk(self.environment.disk.clone(), name, state, records, bytes);
        if let Some(cold) = &self.cold {
            on_disk.set_cold(ColdChannel::new(cold.clone(), ChannelId(state.id), name.as_str()));
        }
        on_disk
    }

    fn channel(
        &self,
        name: &ChannelName,
        config: RedexFileConfig,
        options: &Options,
        state: &ChannelState,
        tail_bytes: &Bytes,
        persistence: Persistence,
    ) -> Channel {
        let (segment_first, dat_size) = active_segment(state);
        let start = TailStart {
            next: Seq(state.end),
            segment_first,
            dat_size,
            dat_tail: tail_bytes.clone(),
            last_time_us: state.last_time_us,
        };
        let limits = config.tail_limits(true);
        Channel::new(ChannelParts {
            name: name.clone(),
            config,
            tail: Tail::new(start, limits, self.environment.pages.clone()),
            epochs: state.epochs.iter().map(|(epoch, first)| (Epoch(*epoch), Seq(*first))).collect(),
            head: Seq(state.head),
            epoch: self.epoch,
            payload_size_max: options.payload_size_max,
            persistence: Some(persistence),
            clock: self.environment.clock.clone(),
        })
    }

    /// Refuses appends, and tells the shards to end.
    pub fn begin_close(&self) {
        for shard in &self.shards {
            shard.begin_close();
        }
    }

    /// The same for a store that nobody has any more: where it would wait for room on disk it gives up instead.
    pub fn begin_drop(&self) {
        self.shards.iter().for_each(|shard| shard.give_up_waiting());
        self.begin_close();
    }

    /// Whether all shards have ended.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        for shard in &self.shards {
            let over = || shard.is_closed() || shard.poisoned().is_some();
            if !over() {
                shard.close_waiters.register(0, cx.waker());
                if !over() {
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }

    /// Waits for the threads, writes the end to STORE, and gives the lock back. Once; later calls get the same answer.
    pub fn finish_close(&self) -> Result<(), CloseError> {
        let mut ended = self.ended.lock().expect("no panic while the lock is held");
        if let Some(result) = &*ended {
            return result.clone();
        }
        self.join_threads();
        if let Some(cold) = &self.cold {
            cold.finish();
        }
        // A failed shard leaves errands behind: they end before somebody else may have the store.
        self.environment.file_maker.finish();
        // Nor does a read that nobody waits for keep a file open.
        self.environment.offload.finish_ahead();
        let result = self.write_clean_end();
        self.shards.iter().for_each(|shard| shard.forget_channels());
        self.lock.lock().expect("no panic while the lock is held").take();
        match &result {
            Ok(()) => tracing::info!(store = %self.environment.base.display(), epoch = %self.epoch, "store closed"),
            Err(error) => {
                tracing::warn!(store = %self.environment.base.display(), epoch = %self.epoch, %error, "store ended without a clean close");
            }
        }
        *ended = Some(result.clone());
        result
    }

    fn join_threads(&self) {
        for thread in self.threads.lock().expect("no panic while the lock is held").drain(..) {
            // A shard that panicked has said so; the next open recovers.
            let _ = thread.join();
        }
    }

    fn write_clean_end(&self) -> Result<(), CloseError> {
        let mut superblock = self.roots.superblock();
        for (root, shard) in superblock.shards.iter_mut().zip(&self.shards) {
            if let Some(poisoned) = shard.poisoned() {
                return Err(poisoned.clone().into());
            }
            let end = shard.clean_end();
            let Some(end) = end else { return Err(CloseError::NoSpace) };
            *root = ShardRoot { segment: end.segment, clean: Some(end) };
        }
        superblock.generation += 1;
        write_superblock(&*self.environment.disk, &superblock).map_err(|error| CloseError::Store {
            path: path_beneath(&self.environment.base, Path::new(STORE_PATH)),
            source: Arc::new(error),
        })
    }
}

impl Drop for Store {
    /// A store that never came to its close, since it could not be started whole: its threads end before the lock goes.
    fn drop(&mut self) {
        if !self.threads.get_mut().is_ok_and(|threads| threads.is_empty()) {
            self.begin_drop();
            self.join_threads();
            if let Some(cold) = &self.cold {
                cold.finish();
            }
        }
    }
}

/// Cores that the calling thread may run on; its shards get no others.
fn allowed_cores() -> Vec<usize> {
    match nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)) {
        Ok(set) => (0..nix::sched::CpuSet::count()).filter(|core| set.is_set(*core) == Ok(true)).collect(),
        Err(error) => {
            tracing::warn!(%error, "the allowed cores are unknown; no thread is bound to one");
            Vec::new()
        }
    }
}

/// Opens the base directory by the backend that can be had, and takes the lock.
fn open_disk(base: &Path, options: &Options) -> Result<(Arc<dyn Disk>, StoreLock), OpenError> {
    if base.exists() && !base.is_dir() {
        return Err(OpenError::NotADirectory { path: base.to_owned() });
    }
    let uring = match (options.backend, probe::uring_available()) {
        (Backend::Posix, _) => false,
        (_, Ok(())) => true,
        (Backend::Uring, Err(source)) => {
            return Err(OpenError::Io { what: "use io_uring for", path: base.to_owned(), source });
        }
        (Backend::Auto, Err(error)) => {
            tracing::warn!(store = %base.display(), %error, "io_uring cannot be used; plain calls take over");
            false
        }
    };
    if uring {
        let disk = UringDisk::open(base, options.durable_write).map_err(io_error("open", base))?;
        let disk = disk.with_mapped_bytes_max(options.mapped_bytes_max);
        let lock = take_lock(base, disk.posix())?;
        Ok((Arc::new(disk), lock))
    } else {
        let disk = PosixDisk::open(base, options.durable_write).map_err(io_error("open", base))?;
        let disk = disk.with_mapped_bytes_max(options.mapped_bytes_max);
        let lock = take_lock(base, &disk)?;
        Ok((Arc::new(disk), lock))
    }
}

fn take_lock(base: &Path, disk: &PosixDisk) -> Result<StoreLock, OpenError> {
    let file = disk.lock_file().map_err(io_error("open", base.join("LOCK")))?;
    let lock = StoreLock::take(base, file)?;
    disk.set_lock_file(lock.file());
    Ok(lock)
}

/// What lies on disk of a channel in this state; records and bytes are those that fill no block.
pub fn on_disk(
    disk: Arc<dyn Disk>,
    name: &ChannelName,
    state: &ChannelState,
    records: &[IndexRecord],
    bytes: &Bytes,
) -> OnDisk {
    let (first, dat_size) = active_segment(state);
    let mut segments: Vec<(Seq, Option<Seq>)> =
        state.segments.iter().map(|segment| (Seq(segment.first), segment.sealed.then_some(Seq(segment.end)))).collect();
    if segments.last().is_none_or(|(last, _)| *last != first) {
        segments.push((first, None));
    }
    let in_block = (state.end - first.0) % RECORDS_PER_BLOCK as u64;
    let base = Seq(state.end - in_block);
    let dat_offset = dat_size / BLOCK_SIZE as u32 * BLOCK_SIZE as u32;
    let dat_tail = (dat_offset, bytes.clone());
    let on_disk = OnDisk::new(disk, ChannelId(state.id), name.clone(), &segments, base, records, dat_tail);
    for segment in state.segments.iter().filter(|segment| segment.sealed) {
        on_disk.set_dat_size(Seq(segment.first), segment.dat_size);
    }
    on_disk
}

/// Reads STORE; none if there is none.
pub fn read_superblock(disk: &dyn Disk) -> Result<Option<Superblock>, OpenError> {
    let file = match disk.open(STORE_PATH, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(io_error("open", STORE_PATH))?,
    };
    let mut buf = AlignedBuf::new(STORE_FILE_SIZE);
    let read = read_copies(&*file, &mut buf[..STORE_FILE_SIZE]).map_err(io_error("read", STORE_PATH))?;
    if read == 0 {
        // Its making was cut off before anything was in it.
        return Ok(None);
    }
    let superblock = Superblock::decode(&buf[..read]);
    superblock.map(Some).map_err(|error| OpenError::Superblock { path: STORE_PATH.into(), error })
}

/// Makes the directories and STORE of a new store.
fn make_store(disk: &dyn Disk, options: &Options, random: &Random) -> Result<Superblock, OpenError> {
    refuse_orphans(disk)?;
    let shards = options.shards_of_new_store();
    make_dirs(disk, shards).map_err(io_error("make the directories of", ""))?;
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&random.next_u64().to_le_bytes());
    uuid[8..].copy_from_slice(&random.next_u64().to_le_bytes());
    let root = ShardRoot { segment: SegmentNo(0), clean: None };
    let superblock = Superblock { uuid: StoreUuid(uuid), epoch: Epoch(0), generation: 1, shards: vec![root; shards] };
    let made = make_superblock(disk, &superblock);
    made.map_err(io_error("write", STORE_PATH))?;
    Ok(superblock)
}

pub fn make_superblock(disk: &dyn Disk, superblock: &Superblock) -> io::Result<()> {
    // It gets its name when it is whole: a STORE that is neither there nor whole is damage.
    let file = match disk.open(STORE_NEW_PATH, OpenMode::Create) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(STORE_NEW_PATH, OpenMode::Write)?,
        result => result?,
    };
    write_copies(&*file, superblock)?;
    disk.rename(STORE_NEW_PATH, STORE_PATH)?;
    disk.sync_dir("")
}

/// A directory with channels, a journal or checkpoints, but without STORE, is no new store: making one would hide what is there.
fn refuse_orphans(disk: &dyn Disk) -> Result<(), OpenError> {
    let orphans = count_orphans(disk).map_err(|(dir, error)| io_error("list", dir)(error))?;
    if orphans == 0 {
        return Ok(());
    }
    let source =
        io::Error::new(io::ErrorKind::NotFound, "it is missing, but there are channels: put it back from a copy");
    Err(OpenError::Io { what: "open", path: STORE_PATH.into(), source })
}

/// How many things there are that a store has once STORE was made; or the directory that cannot be listed.
pub fn count_orphans(disk: &dyn Disk) -> Result<usize, (String, io::Error)> {
    let list = |dir: &str| match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(|error| (dir.to_owned(), error)),
    };
    let mut orphans = list(CHANNELS_DIR)?.len();
    for dir in ["journal", CHECKPOINT_DIR] {
        for shard in list(dir)? {
            orphans += list(&format!("{dir}/{}", shard.name))?.iter().filter(|entry| !entry.is_dir).count();
        }
    }
    Ok(orphans)
}

pub fn make_dirs(disk: &dyn Disk, shards: usize) -> io::Result<()> {
    let make = |parent: &str, dir: &str| {
        match disk.create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        disk.sync_dir(parent)
    };
    for dir in ["journal", CHECKPOINT_DIR, CHANNELS_DIR] {
        make("", dir)?;
    }
    for shard in (0..shards).map(|shard| ShardId(shard as u16)) {
        make("journal", &journal_dir(shard))?;
        make(&journal_dir(shard), &spare_dir(shard))?;
        make(CHECKPOINT_DIR, &checkpoint_dir(shard))?;
    }
    Ok(())
}

/// Recycles what the old journal needed, and removes checkpoint files that nothing names. STORE names the new ones.
fn clean_up(disk: &dyn Disk, shard: ShardId, restored: &mut Restored) -> io::Result<()> {
    for name in std::mem::take(&mut restored.leftovers) {
        restored.pool.recycle(&name, SPARES_KEPT)?;
    }
    for located in restored.known.values().filter(|located| located.state.deleted) {
        // Its deletion counts; a crash may have come before its files went.
        remove_channel(disk, ChannelId(located.state.id))?;
    }
    let dir = checkpoint_dir(shard);
    let unused = std::mem::take(&mut restored.unused_checkpoints);
    for name in &unused {
        disk.unlink(&format!("{dir}/{name}"))?;
    }
    if unused.is_empty() { Ok(()) } else { disk.sync_dir(&dir) }
}

fn seed(environment: &Environment, options: &Options, id: ShardId, restored: Restored) -> ShardSeed {
    ShardSeed {
        handle: ShardHandle::new(id, restored.known),
        disk: environment.disk.clone(),
        journal: restored.journal,
        pool: restored.pool,
        next_lsn: restored.next_lsn,
        replay_from: Lsn(0),
        checkpoint_files: restored.checkpoint_files,
        pages: environment.pages.clone(),
        options: options.clone(),
        clock: environment.clock.clone(),
        random: environment.random.clone(),
        file_maker: environment.file_maker.clone(),
    }
}

fn new_state(id: ChannelId, name: &ChannelName, config: &RedexFileConfig) -> ChannelState {
    ChannelState { id: id.0, name: name.as_str().to_owned(), config: config.encode(), ..ChannelState::default() }
}

/// The state of a new channel whose first event has this sequence.
fn beginning_at(first: Seq, state: ChannelState) -> ChannelState {
    if first == Seq(0) {
        return state;
    }
    let segment = SegmentState { first: first.0, end: first.0, dat_size: 0, sealed: false };
    ChannelState { head: first.0, end: first.0, segments: vec![segment], ..state }
}

/// Leaves sealed segments out that lie below the head: a checkpoint may have come before they went.
fn without_dead(state: Arc<ChannelState>) -> Arc<ChannelState> {
    let is_dead = |segment: &SegmentState| segment.sealed && segment.end <= state.head;
    if !state.segments.iter().any(is_dead) {
        return state;
    }
    let living = state.segments.iter().filter(|segment| !is_dead(segment)).copied().collect();
    Arc::new(ChannelState { segments: living, ..ChannelState::clone(&state) })
}

/// What is stored decides where the formats do; the policy may differ from one opening of the store to the next.
fn check_stored(name: &ChannelName, state: &ChannelState, wanted: &RedexFileConfig) -> Result<(), OpenFileError> {
    let stored =
        RedexFileConfig::decode(&state.config).ok_or_else(|| OpenFileError::UnknownConfig { channel: name.clone() })?;
    if stored.segment_bytes() == wanted.segment_bytes() {
        return Ok(());
    }
    Err(OpenFileError::ConfigConflict {
        channel: name.clone(),
        setting: "segment_bytes",
        present: stored.segment_bytes().to_string(),
        wanted: wanted.segment_bytes().to_string(),
    })
}

#[cfg(all(test, not(redex_loom)))]
mod tests;
