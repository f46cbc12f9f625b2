//! Follows a store that another process writes, or that nobody has open: by reads alone.
//!
//! ```text
//!  STORE -> checkpoint files (states)          -> what is on disk  (segment/read.rs)
//!        -> journal, read on at every poll     -> what is above    (overlay.rs)
//! ```
//!
//! A [`Follower`] takes no lock that the writer takes and writes nothing. It shows what is known to be durable: a commit of
//! which a later one says so, or everything after a clean close. At a poll each shard's journal is read on ([`cursor`]); what
//! became durable is applied ([`view`]); a checkpoint takes over what it contains. When nothing has come, STORE is looked at:
//! the store may have been closed, or opened again, and then everything is found anew ([`load`]). So it is when the journal
//! went on faster than it was read, and what comes next has been recycled.
//!
//! Memory is bounded by the journal since the last checkpoint, as long as the checkpoints' files can be read.
//!
//! What it leaves to others: when to poll (`run`), and reading events (`crate::read`).

pub mod cursor;
pub mod load;
pub mod names;
pub mod overlay;
pub mod polls;
pub mod run;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(all(test, not(redex_loom)))]
mod tests;
pub mod view;

use std::io;
use std::path::Path;
use std::sync::Arc;

use self::cursor::{Found, JournalCursor};
use self::load::{Loaded, Place, Trouble, is_gone};
use self::names::Names;
use self::polls::Polls;
use self::view::{Ground, View};
use crate::channel::Channel;
use crate::channel_name::ChannelName;
use crate::error::{OpenError, OpenFileError, Poisoned};
use crate::ids::ShardId;
use crate::journal::format::CheckpointEntry;
use crate::redex::ChannelInfo;
use crate::store::open::read_superblock;
use crate::store::superblock::Superblock;

/// Polls without news between two looks at STORE.
const STORE_AFTER: u64 = 2;
/// Polls without news after which the place in the journal is looked at: whether it is still there.
const LOOK_AFTER: u32 = 16;
/// Polls without news after which a commit that does not hold is judged.
const JUDGE_AFTER: u32 = 512;
/// Attempts in a row that fail, after which a failure is one.
const ATTEMPTS: u32 = 64;

/// What a poll came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Something came.
    News,
    /// Nothing did.
    Nothing,
}

#[derive(Debug)]
struct Shard {
    view: Arc<View>,
    cursor: Option<JournalCursor>,
    /// A durable checkpoint entry whose files have not been taken over yet.
    checkpoint: Option<CheckpointEntry>,
    idle: u32,
}

/// See the module's text.
#[derive(Debug)]
pub struct Follower {
    ground: Ground,
    store: Superblock,
    shards: Vec<Shard>,
    /// Whether everything has to be found anew.
    again: bool,
    /// Attempts that failed since the last that did not.
    failures: u32,
    failed: bool,
    /// Polls without news.
    quiet: u64,
}

impl Follower {
    /// Finds the store.
    ///
    /// # Errors
    ///
    /// [`Trouble`]; with [`Trouble::Failed`] the writer may have changed the store meanwhile: only an error that comes again
    /// and again is one.
    pub fn open(ground: Ground) -> Result<Self, Trouble> {
        let store = read_store(&ground)?;
        let view = |index| Arc::new(View::new(ShardId(index as u16), ground.clone()));
        let shards =
            (0..store.shards.len()).map(|index| Shard { view: view(index), cursor: None, checkpoint: None, idle: 0 });
        let shards = shards.collect();
        let mut follower = Self { ground, store, shards, again: false, failures: 0, failed: false, quiet: 0 };
        for index in 0..follower.shards.len() {
            follower.load(index)?;
        }
        follower.look_at_store()?;
        Ok(follower)
    }

    /// The shards, for readers.
    pub fn views(&self) -> Vec<Arc<View>> {
        self.shards.iter().map(|shard| shard.view.clone()).collect()
    }

    /// Says what a writer would say of the journals, if nobody is writing them: reads each to its end.
    ///
    /// # Errors
    ///
    /// What is damaged. An error with [`Trouble::Moved`] is none: somebody writes.
    pub fn judge(&mut self) -> Result<(), Trouble> {
        for index in 0..self.shards.len() {
            let Some(cursor) = &self.shards[index].cursor else { continue };
            let before = cursor.position();
            let judged = Place::new(&self.ground.disk, &self.store, index).judge();
            let Err(error) = judged else { continue };
            self.poll_shard(index)?;
            let stands = self.shards[index].cursor.as_ref().is_some_and(|cursor| cursor.position() == before);
            return Err(if stands { Trouble::Failed(error) } else { Trouble::Moved });
        }
        Ok(())
    }

    /// Looks for what has come. A failure that stays is told to all tails.
    pub fn poll(&mut self) -> Polled {
        if self.failed {
            return Polled::Nothing;
        }
        match self.try_poll() {
            Ok(polled) => {
                (self.again, self.failures) = (false, 0);
                self.ground.polls.note();
                polled
            }
            Err(trouble) => {
                self.again = true;
                if let Trouble::Failed(error) = trouble {
                    self.failures += 1;
                    if self.failures >= ATTEMPTS {
                        self.fail(error);
                    }
                }
                Polled::Nothing
            }
        }
    }

    fn try_poll(&mut self) -> Result<Polled, Trouble> {
        let mut polled = Polled::Nothing;
        if self.again {
            // It may be an open file that failed: the next one is found by its name. Or the store was closed or opened again
            // meanwhile, and what STORE named before is gone: so that is read first.
            self.store = self.read_store_again()?;
            (0..self.shards.len()).try_for_each(|index| self.load(index))?;
        }
        for index in 0..self.shards.len() {
            if self.poll_shard(index)? {
                polled = Polled::News;
            }
        }
        if polled == Polled::Nothing {
            self.quiet += 1;
            if self.quiet.is_multiple_of(STORE_AFTER) && self.look_at_store()? {
                polled = Polled::News;
            }
        }
        Ok(polled)
    }

    /// Reads on in one journal. Says whether something came.
    fn poll_shard(&mut self, index: usize) -> Result<bool, Trouble> {
        let place = Place::new(&self.ground.disk, &self.store, index);
        let shard = &mut self.shards[index];
        let Some(cursor) = &mut shard.cursor else { return Ok(false) };
        let found = cursor.read_on().map_err(|error| place.cursor_error(cursor, error))?;
        let mut news = false;
        while let Some(mut commit) = cursor.pop_durable() {
            shard.checkpoint = commit.checkpoint.take().or(shard.checkpoint.take());
            shard.view.apply(&commit)?;
            news = true;
        }
        if let Some(checkpoint) = shard.checkpoint.take()
            && !take_checkpoint(&shard.view, &place, &checkpoint)?
        {
            // A newer one is on its way; what this one contains stays in memory until then.
            shard.checkpoint = Some(checkpoint);
        }
        if found == Found::Gone {
            self.load(index)?;
            return Ok(true);
        }
        shard.idle = if found == Found::Commits(0) { shard.idle.saturating_add(1) } else { 0 };
        if !news && shard.idle > 0 {
            self.look_around(index)?;
        }
        Ok(news || found != Found::Commits(0))
    }

    /// Nothing has come for some time: the journal may have gone on elsewhere, or may be damaged.
    fn look_around(&mut self, index: usize) -> Result<(), Trouble> {
        let shard = &self.shards[index];
        let cursor = shard.cursor.as_ref().expect("the journal was just read");
        if shard.idle.is_multiple_of(LOOK_AFTER) {
            let place = Place::new(&self.ground.disk, &self.store, index);
            if !cursor.is_current().map_err(|error| place.cursor_error(cursor, error.into()))? {
                return self.load(index);
            }
        }
        if cursor.is_begun() && shard.idle.is_multiple_of(JUDGE_AFTER) {
            match self.judge() {
                Err(Trouble::Failed(error)) => self.fail(error),
                Ok(()) | Err(Trouble::Moved) => {}
            }
        }
        Ok(())
    }

    /// Finds a shard anew.
    fn load(&mut self, index: usize) -> Result<(), Trouble> {
        let view = self.shards[index].view.clone();
        let place = Place::new(&self.ground.disk, &self.store, index);
        let Loaded { epoch, known, files, mut cursor } = place.load()?;
        let mut commits = Vec::new();
        if let Some(cursor) = &mut cursor {
            commits.extend(std::iter::from_fn(|| cursor.pop_durable()));
        }
        let states: Vec<_> = known.iter().map(|(id, located)| (*id, located.clone())).collect();
        let tails = view.load_tails(&states).map_err(|error| OpenError::Checkpoint { shard: place.shard, error })?;
        if !view.replace(epoch, known, files, &commits, tails)? {
            return Err(Trouble::Moved);
        }
        self.shards[index] = Shard { view, cursor, checkpoint: None, idle: 0 };
        Ok(())
    }

    /// Looks whether the store was closed, or opened again. Says whether it was.
    fn look_at_store(&mut self) -> Result<bool, Trouble> {
        let store = self.read_store_again()?;
        if store.generation == self.store.generation {
            return Ok(false);
        }
        let before = std::mem::replace(&mut self.store, store);
        for index in 0..self.shards.len() {
            if self.store.shards[index] == before.shards[index] {
                continue;
            }
            if let Err(trouble) = self.load(index) {
                // Found anew from the same place next time.
                self.store.generation = before.generation;
                self.store.shards[index..].copy_from_slice(&before.shards[index..]);
                return Err(trouble);
            }
        }
        Ok(true)
    }

    fn read_store_again(&self) -> Result<Superblock, Trouble> {
        let store = read_store(&self.ground)?;
        if store.uuid != self.store.uuid || store.shards.len() != self.store.shards.len() {
            let channel = "(STORE)".to_owned();
            return Err(OpenError::Inconsistent { channel, why: "another store has taken its place" }.into());
        }
        Ok(store)
    }

    fn fail(&mut self, error: OpenError) {
        self.failed = true;
        let cause = Arc::new(io::Error::other(error));
        for shard in &self.shards {
            let file = crate::journal::journal_dir(shard.view.handle.id);
            let (shard_id, cause) = (shard.view.handle.id, cause.clone());
            shard.view.handle.poison(Poisoned {
                shard: shard_id,
                what: "read of another process's store",
                file,
                cause,
            });
        }
    }

    /// Opens a channel for reading. Again, after a poll, while the writer takes the files away that it is read from.
    ///
    /// # Errors
    ///
    /// [`OpenFileError`], with whether it may be a file that the writer has just taken away.
    pub fn open_channel(&self, name: &ChannelName) -> Result<Arc<Channel>, (OpenFileError, bool)> {
        let no_such_channel = || OpenFileError::NoSuchChannel { channel: name.clone() };
        let (shard, id) = self.ground.names.get(name).ok_or_else(|| (no_such_channel(), false))?;
        let view = &self.shards[usize::from(shard.0)].view;
        if let Some(poisoned) = view.handle.poisoned() {
            return Err((poisoned.clone().into(), false));
        }
        view.open_channel(self.store.uuid, id, name).map_err(|error| {
            let gone = matches!(&error, OpenFileError::Damaged { error, .. } if is_gone(error));
            (error, gone)
        })
    }

    /// Who waits for polls.
    pub fn polls(&self) -> Arc<Polls> {
        self.ground.polls.clone()
    }

    /// The channels whose names are wanted, sorted by name.
    pub fn channels(&self, wanted: impl Fn(&str) -> bool) -> Vec<ChannelInfo> {
        let mut infos: Vec<_> = self.shards.iter().flat_map(|shard| shard.view.infos(&wanted)).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }
}

/// Says what a writer would say of the journals of a store that cannot be found, if nobody is writing it.
pub fn judge(ground: &Ground) -> Result<(), OpenError> {
    let Ok(store) = read_store(ground) else { return Ok(()) };
    let open = |index: &usize| store.shards[*index].clean.is_none() && store.shards[*index].segment.0 > 0;
    (0..store.shards.len()).filter(open).try_for_each(|index| Place::new(&ground.disk, &store, index).judge())
}

/// Takes over the files of a checkpoint. `false` if they are gone, or a channel was opened meanwhile.
fn take_checkpoint(view: &View, place: &Place<'_>, checkpoint: &CheckpointEntry) -> Result<bool, Trouble> {
    let states = match view.load_new(place, &checkpoint.files) {
        Err(Trouble::Failed(OpenError::Checkpoint { error, .. })) if is_gone(&error) => return Ok(false),
        states => states?,
    };
    let tails = match view.load_tails(&states) {
        Err(error) if is_gone(&error) => return Ok(false),
        tails => tails.map_err(|error| OpenError::Checkpoint { shard: place.shard, error })?,
    };
    Ok(view.take_checkpoint(&checkpoint.files, states, tails)?)
}

fn read_store(ground: &Ground) -> Result<Superblock, Trouble> {
    match read_superblock(&*ground.disk)? {
        Some(store) => Ok(store),
        None => Err(Trouble::Failed(OpenError::NoStore { path: Path::new("").into() })),
    }
}

/// What a follower of a store stands on.
pub fn ground(
    disk: Arc<dyn crate::io::Disk>,
    clock: crate::clock::Clock,
    offload: Arc<crate::read::offload::Offload>,
) -> Ground {
    // A tail without pages takes nothing from it.
    let pages = crate::tail::pool::PagePool::new(0, 0);
    Ground { disk, offload, pages, clock, names: Arc::<Names>::default(), polls: Arc::<Polls>::default() }
}
