//! One shard as a reader sees it: what the checkpoint says of its channels, and what the journal says above.
//!
//! The follower applies commits ([`View::apply`]) and takes over checkpoints ([`View::take_checkpoint`], [`View::replace`]);
//! readers open channels ([`View::open_channel`]). One lock, for short; reading events does not take it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::cursor::ReadCommit;
use super::load::Place;
use super::names::Names;
use super::overlay::{News, Overlay};
use super::polls::Polls;
use crate::channel::{Channel, ChannelParts, Life, Persistence};
use crate::channel_name::ChannelName;
use crate::clock::Clock;
use crate::config::RedexFileConfig;
use crate::error::{OpenError, OpenFileError};
use crate::ids::{ChannelId, CheckpointNo, Epoch, Lsn, Seq, ShardId, StoreUuid};
use crate::io::Disk;
use crate::journal::format::Entry;
use crate::read::offload::Offload;
use crate::redex::ChannelInfo;
use crate::segment::path::meta_path;
use crate::shard::checkpoint::{Known, Located, load_located_tail};
use crate::shard::handle::ShardHandle;
use crate::store::checkpoint::{ChannelState, CheckpointError, Tail as Unfinished};
use crate::store::meta::Meta;
use crate::store::open::on_disk;
use crate::tail::pool::PagePool;
use crate::tail::{Tail, TailStart};

/// No checkpoint file has the state: the journal alone knows of the channel.
const NO_FILE: CheckpointNo = CheckpointNo(0);

/// What readers of all shards share.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The store's files.
    pub disk: Arc<dyn Disk>,
    /// Who reads history for futures.
    pub offload: Arc<Offload>,
    /// Never asked for a page; a tail has one.
    pub pages: Arc<PagePool>,
    /// Time.
    pub clock: Clock,
    /// The channels' names.
    pub names: Arc<Names>,
    /// Readers that wait for what the journal says.
    pub polls: Arc<Polls>,
}

/// See the module's text.
#[derive(Debug)]
pub struct View {
    /// Tells tails of a failure, and of the end.
    pub handle: Arc<ShardHandle>,
    ground: Ground,
    inner: Mutex<Inner>,
    /// Channels that show something new, whose readers are to be woken.
    shown: Mutex<Vec<Arc<Channel>>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Epoch of the run that writes the journal.
    epoch: Epoch,
    known: Known,
    /// The checkpoint files that `known` is from.
    files: Vec<CheckpointNo>,
    /// Channels with news, and those that are open.
    overlays: HashMap<ChannelId, Arc<Overlay>>,
    open: HashMap<ChannelId, Arc<Channel>>,
}

/// What fills no block of the channels that are open, as a checkpoint has it.
pub type Tails = HashMap<ChannelId, Unfinished>;

impl View {
    /// A shard of which nothing is known yet.
    pub fn new(shard: ShardId, ground: Ground) -> Self {
        Self {
            handle: ShardHandle::new(shard, Known::default()),
            ground,
            inner: Mutex::default(),
            shown: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while the lock is held")
    }

    /// The checkpoint files that are known already.
    pub fn files(&self) -> Vec<CheckpointNo> {
        self.lock().files.clone()
    }

    /// Shows what a durable commit says.
    ///
    /// # Errors
    ///
    /// If it contradicts what is known: what follows cannot be shown either.
    pub fn apply(&self, commit: &ReadCommit) -> Result<(), OpenError> {
        let mut inner = self.lock();
        for (entry, inline) in commit.entries() {
            match entry {
                Entry::ChannelCreated { channel, name, config } => {
                    self.create(&mut inner, commit.lsn, channel, name, config)?;
                }
                Entry::Checkpoint(_) | Entry::Roll { .. } => {}
                Entry::ChannelConfigured { channel, config } => inner.configure(commit.lsn, channel, config),
                Entry::ChannelDeleted { channel } => self.delete(&mut inner, commit.lsn, channel),
                Entry::Events(events) => {
                    let Some(overlay) = self.overlay(&mut inner, commit.lsn, events.fields.channel)? else { continue };
                    let follows = overlay.news().push(commit.lsn, commit.epoch, &events, inline);
                    if !follows {
                        let why = "the journal's events do not follow those of the checkpoint";
                        return Err(OpenError::Inconsistent { channel: overlay.name().to_string(), why });
                    }
                    self.show(&inner, events.fields.channel);
                }
                Entry::HeadTrimmed { channel, head } => {
                    let Some(overlay) = self.overlay(&mut inner, commit.lsn, channel)? else { continue };
                    overlay.news().trim(commit.lsn, head);
                    self.show(&inner, channel);
                    inner.drop_below_head(channel);
                }
                Entry::SuffixTruncated { channel, end } => {
                    let Some(overlay) = self.overlay(&mut inner, commit.lsn, channel)? else { continue };
                    if !inner.cut_off(channel, &overlay, commit, end) {
                        let why = "the journal cuts off what is not there";
                        return Err(OpenError::Inconsistent { channel: overlay.name().to_string(), why });
                    }
                    self.show(&inner, channel);
                }
            }
        }
        Ok(())
    }

    fn create(
        &self,
        inner: &mut Inner,
        lsn: Lsn,
        channel: ChannelId,
        name: &str,
        config: &[u8],
    ) -> Result<(), OpenError> {
        if inner.known.contains_key(&channel) {
            return Ok(());
        }
        let state = ChannelState {
            id: channel.0,
            name: name.to_owned(),
            config: config.to_vec(),
            lsn: lsn.0,
            ..ChannelState::default()
        };
        self.ground.names.insert(&state, self.handle.id)?;
        inner.known.insert(channel, Located { state: Arc::new(state), file: NO_FILE });
        Ok(())
    }

    fn delete(&self, inner: &mut Inner, lsn: Lsn, channel: ChannelId) {
        if inner.known.get(&channel).is_some_and(|located| located.state.lsn <= lsn.0) {
            let located = inner.known.remove(&channel).expect("just seen");
            self.forget(inner, channel, &located.state.name);
        }
    }

    /// The channel is gone: its tails end when they have delivered what they can.
    fn forget(&self, inner: &mut Inner, channel: ChannelId, name: &str) {
        self.ground.names.remove(name, channel);
        inner.overlays.remove(&channel);
        if let Some(open) = inner.open.remove(&channel) {
            self.end_channel(&open);
        }
    }

    /// Ends a channel that is gone: its tails when they have delivered what they can.
    fn end_channel(&self, channel: &Arc<Channel>) {
        channel.set_life(Life::Over);
        self.note_shown(channel);
        if let Some(persistence) = channel.persistence() {
            self.handle.deleted(persistence.slot, persistence.id);
            self.handle.take_deleted();
        }
    }

    /// The overlay of a channel of which a commit says something; none if its state contains the commit.
    fn overlay(&self, inner: &mut Inner, lsn: Lsn, channel: ChannelId) -> Result<Option<Arc<Overlay>>, OpenError> {
        let located = inner.known.get(&channel).ok_or_else(|| OpenError::Inconsistent {
            channel: channel.to_string(),
            why: "the journal has events of it, but nothing says that it was created",
        })?;
        if lsn.0 < located.state.lsn {
            return Ok(None);
        }
        if let Some(overlay) = inner.overlays.get(&channel) {
            return Ok(Some(overlay.clone()));
        }
        let overlay = self.new_overlay(&located.state)?;
        inner.overlays.insert(channel, overlay.clone());
        Ok(Some(overlay))
    }

    fn new_overlay(&self, state: &ChannelState) -> Result<Arc<Overlay>, OpenError> {
        let name = Names::check(&state.name)?;
        let news = News::above(state);
        let (disk, polls) = (self.ground.disk.clone(), self.ground.polls.clone());
        Ok(Arc::new(Overlay::new(disk, ChannelId(state.id), name, news, polls)))
    }

    /// Reads the tails of those open channels that have new states.
    pub fn load_tails(&self, states: &[(ChannelId, Located)]) -> Result<Tails, CheckpointError> {
        let open: Vec<ChannelId> = self.lock().open.keys().copied().collect();
        if open.is_empty() {
            return Ok(Tails::new());
        }
        let states = states.iter().filter(|(id, _)| open.contains(id));
        let tail = |(id, located): &(ChannelId, Located)| {
            Ok((*id, load_located_tail(&*self.ground.disk, self.handle.id, located)?))
        };
        states.map(tail).collect()
    }

    /// A checkpoint contains what the journal said below: takes over the states of its new files, and forgets that.
    ///
    /// `false` if a channel has been opened meanwhile whose tail was not read: then once more.
    pub fn take_checkpoint(
        &self,
        files: &[CheckpointNo],
        states: Vec<(ChannelId, Located)>,
        mut tails: Tails,
    ) -> Result<bool, OpenError> {
        let mut inner = self.lock();
        let missing = |(id, _): &(ChannelId, Located)| inner.open.contains_key(id) && !tails.contains_key(id);
        if states.iter().any(missing) {
            return Ok(false);
        }
        for (id, located) in states {
            // A channel that is not known here was deleted since.
            let Some(before) = inner.known.get(&id).filter(|before| before.state.lsn <= located.state.lsn) else {
                continue;
            };
            if located.state.deleted {
                let name = before.state.name.clone();
                inner.known.remove(&id);
                self.forget(&mut inner, id, &name);
                continue;
            }
            if let Some(tail) = tails.remove(&id) {
                inner.put_on_disk(&self.ground.disk, id, &located.state, &tail)?;
            }
            inner.contain(id, &located.state);
            inner.known.insert(id, located);
        }
        let live = |file: CheckpointNo| file == NO_FILE || files.contains(&file);
        if inner.files.iter().any(|file| !files.contains(file)) {
            let gone: Vec<_> =
                inner.known.iter().filter(|(_, located)| !live(located.file)).map(|(id, _)| *id).collect();
            for id in gone {
                let located = inner.known.remove(&id).expect("just seen");
                self.forget(&mut inner, id, &located.state.name);
            }
        }
        inner.files = files.to_vec();
        Ok(true)
    }

    /// Takes over everything that was found anew: the store was closed or opened again, or the journal went on without the
    /// reader. What was shown stays: it was durable.
    ///
    /// `false` if a channel has been opened meanwhile whose tail was not read: then once more.
    ///
    /// # Errors
    ///
    /// If a channel ends before what was shown, and nothing says that it was truncated. Nothing was changed then.
    pub fn replace(
        &self,
        epoch: Epoch,
        known: Known,
        files: Vec<CheckpointNo>,
        commits: &[ReadCommit],
        mut tails: Tails,
    ) -> Result<bool, OpenError> {
        let fresh = Self::new(self.handle.id, Ground { names: Arc::default(), ..self.ground.clone() });
        {
            let mut inner = fresh.lock();
            inner.epoch = epoch;
            for located in known.values().filter(|located| !located.state.deleted) {
                fresh.ground.names.insert(&located.state, self.handle.id)?;
            }
            (inner.known, inner.files) = (known, files);
            inner.known.retain(|_, located| !located.state.deleted);
        }
        commits.iter().try_for_each(|commit| fresh.apply(commit))?;
        let mut fresh = std::mem::take(&mut *fresh.lock());
        let mut inner = self.lock();
        if inner.open.keys().any(|id| fresh.known.contains_key(id) && !tails.contains_key(id)) {
            return Ok(false);
        }
        for (id, channel) in &inner.open {
            inner.check_goes_on(*id, channel, &fresh)?;
        }
        for (id, channel) in std::mem::take(&mut inner.open) {
            let Some(located) = fresh.known.get(&id) else {
                self.end_channel(&channel);
                continue;
            };
            let overlay = inner.overlays.remove(&id).expect("an open channel has one");
            let mut news = match fresh.overlays.remove(&id) {
                Some(overlay) => std::mem::replace(&mut *overlay.news(), News::above(&located.state)),
                None => News::above(&located.state),
            };
            news.begin_epoch(epoch, news.end);
            let tail = tails.remove(&id).expect("looked for above");
            inner.swap(&self.ground.disk, &channel, &overlay, &located.state, &tail, news);
            self.note_shown(&channel);
            fresh.overlays.insert(id, overlay);
            fresh.open.insert(id, channel);
        }
        self.ground.names.replace(self.handle.id, &fresh.known)?;
        *inner = fresh;
        Ok(true)
    }

    /// Opens a channel for reading.
    pub fn open_channel(
        &self,
        uuid: StoreUuid,
        id: ChannelId,
        name: &ChannelName,
    ) -> Result<Arc<Channel>, OpenFileError> {
        let mut inner = self.lock();
        if let Some(channel) = inner.open.get(&id) {
            return Ok(channel.clone());
        }
        let located = inner.known.get(&id).cloned();
        let Some(located) = located else { return Err(OpenFileError::NoSuchChannel { channel: name.clone() }) };
        let state = &located.state;
        let config = RedexFileConfig::decode(&state.config)
            .ok_or_else(|| OpenFileError::UnknownConfig { channel: name.clone() })?;
        let disk = &self.ground.disk;
        let tail = load_located_tail(&**disk, self.handle.id, &located)
            .map_err(|error| OpenFileError::Damaged { channel: name.clone(), error })?;
        if state.has_blocks() {
            let path = meta_path(id);
            let meta = Meta::check(&**disk, &path, uuid, id, name.as_str());
            meta.map_err(|source| OpenFileError::Meta { channel: name.clone(), path: path.into(), offset: 0, source })?;
        }
        let overlay = match inner.overlays.get(&id) {
            Some(overlay) => overlay.clone(),
            None => self.new_overlay(state).map_err(Arc::new)?,
        };
        let run = inner.epoch;
        let channel = self.handle.register(|slot| {
            let persistence = Persistence {
                shard: self.handle.clone(),
                slot,
                id,
                on_disk: on_disk(disk.clone(), name, state, &tail.records, &tail.bytes.into()),
                offload: self.ground.offload.clone(),
                overlay: Some(overlay.clone()),
            };
            Arc::new(self.channel(name, config, &overlay, run, persistence))
        });
        lay_bounds(&channel, &overlay.news());
        inner.overlays.insert(id, overlay);
        inner.open.insert(id, channel.clone());
        Ok(channel)
    }

    fn channel(
        &self,
        name: &ChannelName,
        config: RedexFileConfig,
        overlay: &Overlay,
        run: Epoch,
        persistence: Persistence,
    ) -> Channel {
        let mut news = overlay.news();
        let end = news.end;
        news.begin_epoch(run, end);
        let start =
            TailStart { next: end, segment_first: end, last_time_us: news.last_time_us, ..TailStart::default() };
        let limits = config.tail_limits(false);
        Channel::new(ChannelParts {
            name: name.clone(),
            config,
            tail: Tail::new(start, limits, self.ground.pages.clone()),
            epochs: news.epochs.clone(),
            head: news.head,
            epoch: news.epochs.last().map_or(run, |(epoch, _)| *epoch),
            payload_size_max: 0,
            persistence: Some(persistence),
            clock: self.ground.clock.clone(),
        })
    }

    /// What is known of some channels, in no order.
    pub fn infos(&self, wanted: impl Fn(&str) -> bool) -> Vec<ChannelInfo> {
        let inner = self.lock();
        let known = inner.known.iter().filter(|(_, located)| wanted(&located.state.name));
        let info = |(id, located): (&ChannelId, &Located)| {
            let state = &located.state;
            let news = inner.overlays.get(id).map(|overlay| overlay.news());
            let (head, end) = news.map_or((state.head, state.end), |news| (news.head.0.min(news.end.0), news.end.0));
            Some(ChannelInfo {
                name: ChannelName::new(&state.name).ok()?,
                persistent: true,
                open: inner.open.contains_key(id),
                head_seq: head,
                next_seq: end,
            })
        };
        known.filter_map(info).collect()
    }

    /// Reads the states of files that are not known yet, and the tails of the channels that are open.
    pub fn load_new(
        &self,
        place: &Place<'_>,
        files: &[CheckpointNo],
    ) -> Result<Vec<(ChannelId, Located)>, super::load::Trouble> {
        let have = self.files();
        let mut states = Vec::new();
        for number in files.iter().filter(|number| !have.contains(number)) {
            states.extend(place.load_file(*number)?);
        }
        Ok(states)
    }

    /// Lets readers of an open channel see what its overlay says.
    fn show(&self, inner: &Inner, id: ChannelId) {
        if let (Some(channel), Some(overlay)) = (inner.open.get(&id), inner.overlays.get(&id)) {
            channel.follow(&overlay.news());
            self.note_shown(channel);
        }
    }

    fn note_shown(&self, channel: &Arc<Channel>) {
        let mut shown = self.shown.lock().expect("no panic while the lock is held");
        if !shown.last().is_some_and(|last| Arc::ptr_eq(last, channel)) {
            shown.push(channel.clone());
        }
    }

    /// Wakes the readers of channels that show something new. Without any lock: a waker may do anything.
    pub fn wake(&self) {
        let shown = std::mem::take(&mut *self.shown.lock().expect("no panic while the lock is held"));
        shown.iter().for_each(|channel| channel.wake_followers());
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.handle.set_closed();
        self.handle.forget_channels();
    }
}

impl Inner {
    fn configure(&mut self, lsn: Lsn, channel: ChannelId, config: &[u8]) {
        if let Some(located) = self.known.get_mut(&channel).filter(|located| located.state.lsn <= lsn.0) {
            Arc::make_mut(&mut located.state).config = config.to_vec();
            if let (Some(open), Some(config)) = (self.open.get(&channel), RedexFileConfig::decode(config)) {
                open.config.change(|present| *present = config);
            }
        }
    }

    /// The events from `end` on are gone. `false` if they are not there.
    fn cut_off(&self, id: ChannelId, overlay: &Overlay, commit: &ReadCommit, end: Seq) -> bool {
        let open = self.open.get(&id);
        if end > overlay.news().end {
            return false;
        }
        open.inspect(|channel| channel.follow_cut(end, commit.epoch));
        let mut news = overlay.news();
        let is_there = news.cut_off(commit.lsn, commit.epoch, end);
        open.inspect(|channel| lay_bounds(channel, &news));
        is_there
    }

    /// What readers look for is not to be looked for in segments whose files are gone.
    fn drop_below_head(&self, id: ChannelId) {
        if let (Some(channel), Some(overlay)) = (self.open.get(&id), self.overlays.get(&id)) {
            lay_bounds(channel, &overlay.news());
        }
    }

    /// The state of a channel contains what is in its overlay below.
    fn contain(&mut self, id: ChannelId, state: &ChannelState) {
        let Some(overlay) = self.overlays.get(&id) else { return };
        let contained = {
            let mut news = overlay.news();
            news.drop_contained(state);
            news.is_contained(state)
        };
        if let Some(channel) = self.open.get(&id) {
            lay_bounds(channel, &self.overlays[&id].news());
        }
        if contained && !self.open.contains_key(&id) {
            self.overlays.remove(&id);
        }
    }

    /// Has an open channel read from disk what this state says.
    fn put_on_disk(
        &self,
        disk: &Arc<dyn Disk>,
        id: ChannelId,
        state: &ChannelState,
        tail: &Unfinished,
    ) -> Result<(), OpenError> {
        let Some(channel) = self.open.get(&id) else { return Ok(()) };
        let persistence = channel.persistence().expect("a followed channel has a store");
        persistence.on_disk.replace(on_disk(
            disk.clone(),
            &channel.name,
            state,
            &tail.records,
            &tail.bytes.clone().into(),
        ));
        Ok(())
    }

    /// Whether a channel that was found anew has what was shown of it.
    fn check_goes_on(&self, id: ChannelId, channel: &Channel, fresh: &Self) -> Result<(), OpenError> {
        let Some(located) = fresh.known.get(&id) else { return Ok(()) };
        let overlay = &self.overlays[&id];
        let (end, epochs) = match fresh.overlays.get(&id) {
            Some(overlay) => {
                let news = overlay.news();
                (news.end, news.epochs.clone())
            }
            None => (Seq(located.state.end), News::above(&located.state).epochs),
        };
        let cut = cut_at(&channel.epochs_now(), &epochs);
        let shown = overlay.news().end;
        if end < shown && cut.is_none_or(|(_, at)| at > end) {
            let why = "it ends before events that were durable";
            return Err(OpenError::Inconsistent { channel: channel.name.to_string(), why });
        }
        Ok(())
    }

    /// Puts new news in the place of the old ones, and a new state under them.
    fn swap(
        &self,
        disk: &Arc<dyn Disk>,
        channel: &Channel,
        overlay: &Overlay,
        state: &ChannelState,
        tail: &Unfinished,
        news: News,
    ) {
        let shown = overlay.news().end;
        let cut = cut_at(&channel.epochs_now(), &news.epochs).filter(|(_, at)| *at < shown);
        if let Some((epoch, at)) = cut {
            channel.follow_cut(at.min(news.end), epoch);
        }
        // What the new state does not have any more lies below.
        channel.move_head(news.head.min(news.end));
        let persistence = channel.persistence().expect("a followed channel has a store");
        // Below the old news and up to the new ones the state has everything: so no event is ever in neither place.
        persistence.on_disk.replace(on_disk(
            disk.clone(),
            &channel.name,
            state,
            &tail.records,
            &tail.bytes.clone().into(),
        ));
        let mut old = overlay.news();
        *old = news;
        lay_bounds(channel, &old);
        channel.follow(&old);
    }
}

/// What lies on disk is known as far as it is there: from the head, below what the journal says.
fn lay_bounds(channel: &Channel, news: &News) {
    let persistence = channel.persistence().expect("a followed channel has a store");
    let on_disk = &persistence.on_disk;
    on_disk.end_at(news.base);
    let begins = on_disk.bounds().iter().rev().map(|(first, _)| *first).find(|first| *first <= news.head);
    begins.into_iter().for_each(|first| on_disk.drop_below(first));
}

/// Where a channel's suffix was cut off, and in which epoch, if it was: an epoch that was not known begins before what the last
/// known one had.
fn cut_at(before: &[(Epoch, Seq)], after: &[(Epoch, Seq)]) -> Option<(Epoch, Seq)> {
    let last = before.last().map_or(Epoch(0), |(epoch, _)| *epoch);
    after.iter().filter(|(epoch, _)| *epoch > last).min_by_key(|(_, first)| *first).copied()
}

impl Channel {
    fn epochs_now(&self) -> Vec<(Epoch, Seq)> {
        self.epochs.lock().expect("no panic while the lock is held").clone()
    }
}
