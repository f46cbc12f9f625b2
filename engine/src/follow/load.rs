//! Finds where a shard's journal stands, by reads alone: the newest checkpoint that is known to be durable, the states that it
//! names, and a cursor behind the commits that are there.
//!
//! The writer may be at work meanwhile, and take away files that were just named. Then what was found is of no use
//! ([`Trouble::Moved`]), and the next attempt begins at STORE.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::cursor::{CursorError, Found, JournalCursor, header_of};
use crate::error::OpenError;
use crate::ids::{ChannelId, CheckpointNo, Epoch, Lsn, SegmentNo, ShardId, StoreUuid};
use crate::io::Disk;
use crate::journal::format::{CheckpointEntry, SegmentHeader};
use crate::journal::scan::{JournalError, Recovery, scan};
use crate::journal::{journal_dir, segment_number, segment_path};
use crate::shard::checkpoint::{Known, Located, checkpoint_path};
use crate::store::checkpoint::{CheckpointError, load_states};
use crate::store::recover::read_clean_end;
use crate::store::superblock::{ShardRoot, Superblock};

/// Why there is nothing yet.
#[derive(Debug)]
pub enum Trouble {
    /// The store has changed meanwhile: begin again at STORE.
    Moved,
    /// The store is damaged, or the system refuses to read; or it has changed meanwhile, in a way that looks like it.
    Failed(OpenError),
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}

/// One shard as it was found.
#[derive(Debug)]
pub struct Loaded {
    /// Epoch of the run that wrote its journal last.
    pub epoch: Epoch,
    /// Its channels, as the checkpoint has them.
    pub known: Known,
    /// The checkpoint files that they are from.
    pub files: Vec<CheckpointNo>,
    /// Where its journal goes on; none after a clean close.
    pub cursor: Option<JournalCursor>,
}

/// A shard to be found.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Where the files are.
    pub disk: &'a Arc<dyn Disk>,
    /// The store.
    pub uuid: StoreUuid,
    /// Which shard.
    pub shard: ShardId,
    /// What STORE says of it.
    pub root: &'a ShardRoot,
    /// Epoch of STORE.
    pub epoch: Epoch,
}

impl<'a> Place<'a> {
    /// A shard of a store.
    pub fn new(disk: &'a Arc<dyn Disk>, store: &'a Superblock, index: usize) -> Self {
        let (shard, root) = (ShardId(index as u16), &store.shards[index]);
        Self { disk, uuid: store.uuid, shard, root, epoch: store.epoch }
    }

    /// Finds it.
    pub fn load(&self) -> Result<Loaded, Trouble> {
        if self.root.segment == SegmentNo(0) {
            // It was made, and never opened whole.
            return Ok(Loaded { epoch: Epoch(0), known: Known::default(), files: Vec::new(), cursor: None });
        }
        if let Some(clean) = &self.root.clean {
            let checkpoint = read_clean_end(&**self.disk, self.uuid, self.shard, clean)?;
            let known = self.load_known(&checkpoint)?;
            let header = header_of(&**self.disk, self.uuid, self.shard, clean.segment);
            let header = header.map_err(|error| self.io_error(segment_path(self.shard, clean.segment), error))?;
            let epoch = header.map_or(Epoch(0), |header| header.epoch);
            return Ok(Loaded { epoch, known, files: checkpoint.files, cursor: None });
        }
        let mut cursor = self.first_cursor()?;
        loop {
            let found = cursor.read_on().map_err(|error| self.cursor_error(&cursor, error))?;
            let durable = newest_checkpoint(&cursor, cursor.witnessed()).map(|(_, entry)| entry.replay_lsn);
            durable.into_iter().for_each(|lsn| cursor.drop_below(lsn));
            match found {
                Found::Commits(0) => break,
                Found::Commits(_) => {}
                Found::Gone => return Err(Trouble::Moved),
            }
        }
        self.with_cursor(cursor)
    }

    /// Chooses the checkpoint: the newest durable one. Its files go only when a newer one is durable too; so that they are
    /// gone proves that, before the journal tells.
    fn with_cursor(&self, mut cursor: JournalCursor) -> Result<Loaded, Trouble> {
        let newest = |below| newest_checkpoint(&cursor, below).map(|(lsn, entry)| (lsn, entry.clone()));
        let (durable, newest) = (newest(cursor.witnessed()), newest(cursor.next_lsn()));
        let mut gone = Trouble::Moved;
        for (lsn, checkpoint) in durable.into_iter().chain(newest) {
            cursor.drop_below(checkpoint.replay_lsn);
            if cursor.pending().next().is_none_or(|commit| commit.lsn != checkpoint.replay_lsn) {
                continue; // what has to be replayed was recycled before it was read
            }
            match self.load_known(&checkpoint) {
                Ok(known) => {
                    cursor.witness(Lsn(lsn.0 + 1));
                    let epoch = cursor.epoch();
                    return Ok(Loaded { epoch, known, files: checkpoint.files, cursor: Some(cursor) });
                }
                Err(Trouble::Failed(OpenError::Checkpoint { error, shard })) if is_gone(&error) => {
                    gone = Trouble::Failed(OpenError::Checkpoint { error, shard });
                }
                Err(error) => return Err(error),
            }
        }
        Err(gone)
    }

    /// Says what a writer would say of the journal: reads it as a recovery does, to its end. Only if nobody writes meanwhile.
    pub fn judge(&self) -> Result<(), OpenError> {
        let recovery =
            Recovery { disk: &**self.disk, uuid: self.uuid, shard: self.shard, root: self.root, epoch: self.epoch };
        scan(&recovery, &mut |_, _| Ok(true)).map(|_| ()).map_err(|error| self.journal_error(error))
    }

    fn load_known(&self, checkpoint: &CheckpointEntry) -> Result<Known, Trouble> {
        let mut known = Known::default();
        for number in &checkpoint.files {
            known.extend(self.load_file(*number)?);
        }
        Ok(known)
    }

    /// The states of one checkpoint file.
    pub fn load_file(&self, number: CheckpointNo) -> Result<Vec<(ChannelId, Located)>, Trouble> {
        let path = checkpoint_path(self.shard, number);
        let states = load_states(&**self.disk, &path, self.uuid, self.shard, number);
        let states = states.map_err(|error| OpenError::Checkpoint { shard: self.shard, error })?;
        let located = |state: crate::store::checkpoint::ChannelState| {
            (ChannelId(state.id), Located { state: Arc::new(state), file: number })
        };
        Ok(states.into_iter().map(located).collect())
    }

    /// A cursor at the beginning of the journal's segments that are left.
    fn first_cursor(&self) -> Result<JournalCursor, Trouble> {
        let headers = self.headers()?;
        let Some((_, last)) = headers.last_key_value() else { return Err(Trouble::Moved) };
        let mut first = last;
        while let Some(before) = headers.get(&SegmentNo(first.number.0 - 1)) {
            first = before;
        }
        let mut cursor = match JournalCursor::new(self.disk.clone(), *first) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Trouble::Moved),
            Err(error) => return Err(self.io_error(segment_path(self.shard, first.number), error).into()),
            Ok(cursor) => cursor,
        };
        if first.number == self.root.segment {
            // STORE names a segment only once its first commit is durable.
            cursor.witness(Lsn(first.first_lsn.0 + 1));
        }
        Ok(cursor)
    }

    /// The headers of the run that STORE names.
    fn headers(&self) -> Result<BTreeMap<SegmentNo, SegmentHeader>, Trouble> {
        let dir = journal_dir(self.shard);
        let entries = self.disk.list(&dir).map_err(|error| self.io_error(dir, error))?;
        let mut headers = BTreeMap::new();
        let numbers = entries.iter().filter(|entry| !entry.is_dir).filter_map(|entry| segment_number(&entry.name));
        for number in numbers.filter(|number| *number >= self.root.segment) {
            let header = header_of(&**self.disk, self.uuid, self.shard, number);
            // One that cannot be read may be one that nobody needs; if not, the journal's judge says so.
            if let Ok(Some(header)) = header
                && header.epoch <= self.epoch
            {
                headers.insert(number, header);
            }
        }
        Ok(headers)
    }

    /// What a cursor says, as a writer would.
    pub fn cursor_error(&self, cursor: &JournalCursor, error: CursorError) -> OpenError {
        let (segment, at) = cursor.position();
        let path = segment_path(self.shard, segment);
        self.journal_error(match error {
            CursorError::Io(error) => JournalError::Io { path, offset: at, error },
            CursorError::Newer { offset, lsn, kind } => JournalError::NewerEntry { path, offset, lsn, kind },
        })
    }

    fn journal_error(&self, error: JournalError) -> OpenError {
        OpenError::Journal { shard: self.shard, error }
    }

    fn io_error(&self, path: String, error: io::Error) -> OpenError {
        self.journal_error(JournalError::Io { path, offset: 0, error })
    }
}

/// The newest checkpoint entry in a commit below `below`, and that commit.
fn newest_checkpoint(cursor: &JournalCursor, below: Lsn) -> Option<(Lsn, &CheckpointEntry)> {
    let commits = cursor.pending().rev().filter(|commit| commit.lsn < below);
    commits.filter_map(|commit| Some((commit.lsn, commit.checkpoint.as_ref()?))).next()
}

/// Whether an error only says that a file is gone: the writer has removed what it needs no more.
pub fn is_gone(error: &CheckpointError) -> bool {
    matches!(error, CheckpointError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
}
