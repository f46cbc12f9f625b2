//! Why a shard's journal cannot be recovered. Each error says what is wrong, in which file and where.

use std::fmt;
use std::io;
use std::path::Path;

use crate::error::put_beneath;
use crate::ids::{Epoch, Lsn, SegmentNo, ShardId, StoreUuid};
use crate::journal::format::{CommitError, EntryError, HeaderError, PayloadError};

/// Why a shard's journal cannot be recovered. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A file or a part of it cannot be read. Try again when the device answers; if it never does, restore from a copy.
    #[error(
        "{path} at offset {offset} cannot be read: {error}; open the store again when the device answers, \
         or restore it from a copy"
    )]
    Io {
        /// The file or directory.
        path: String,
        /// Where, bytes.
        offset: u64,
        /// The cause.
        error: io::Error,
    },
    /// Newer software wrote the journal. Use that, or a later one.
    #[error("{path} has format version {version}, which this software does not know; use the software that wrote it")]
    Newer {
        /// The file.
        path: String,
        /// Version found.
        version: u16,
    },
    /// A whole commit has an entry of a kind that this software does not know. Use the software that wrote it.
    #[error(
        "commit {lsn} in {path} at offset {offset} has an entry of the unknown kind {kind}; \
         use the software that wrote it"
    )]
    NewerEntry {
        /// The file.
        path: String,
        /// Where the commit begins, bytes.
        offset: u64,
        /// The commit.
        lsn: Lsn,
        /// The kind.
        kind: u8,
    },
    /// The header of a segment that is needed is damaged. Restore from a copy.
    #[error(
        "header of {path} at offset 0 is bad, and {named_by} names it: {fault}; \
         keep the directory as it is, and restore the store from a copy"
    )]
    BadHeader {
        /// The file.
        path: String,
        /// What is wrong with it.
        fault: HeaderFault,
        /// Why it is needed.
        named_by: NamedBy,
    },
    /// A segment that is needed is missing. Put it back, or restore from a copy.
    #[error("{path} is missing, and {named_by} names it; put it back, or restore the store from a copy")]
    Lost {
        /// The file.
        path: String,
        /// Why it is needed.
        named_by: NamedBy,
    },
    /// A commit that was durable is damaged. Restore from a copy.
    #[error(
        "commit {lsn} in {path} at offset {offset} was durable and is damaged: {fault}; {witness}; \
         keep the directory as it is, and restore the store from a copy"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// Where the commit begins, bytes.
        offset: u64,
        /// The commit.
        lsn: Lsn,
        /// What is wrong with it.
        fault: CommitFault,
        /// What says that it was durable.
        witness: Box<Witness>,
    },
    /// A commit whose checksums are right contradicts itself: an error of the software that wrote it. Report it, and restore
    /// from a copy.
    #[error(
        "commit {lsn} in {path} at offset {offset} is whole, but contradicts itself: {fault}; \
         keep the directory as it is, and restore the store from a copy"
    )]
    Contradiction {
        /// The file.
        path: String,
        /// Where the commit begins, bytes.
        offset: u64,
        /// The commit.
        lsn: Lsn,
        /// The contradiction.
        fault: CommitFault,
    },
    /// The next segment is whole, but does not go on where this one ends. Restore from a copy.
    #[error(
        "segment {next} does not go on where {path} ends, with commit {lsn} at offset {offset}; \
         keep the directory as it is, and restore the store from a copy"
    )]
    BrokenChain {
        /// The file.
        path: String,
        /// Where the commit begins, bytes.
        offset: u64,
        /// The commit: a roll, or one that the next segment makes void.
        lsn: Lsn,
        /// The next segment.
        next: SegmentNo,
    },
    /// The journal is whole, but does not end where STORE says that it was closed. Restore from a copy.
    #[error(
        "{path} reaches commit {lsn} at offset {offset}, but STORE says that the journal was closed \
         at another place; \
         keep the directory as it is, and restore the store from a copy"
    )]
    WrongEnd {
        /// The file.
        path: String,
        /// Where reading ended, bytes.
        offset: u64,
        /// LSN behind the last commit read.
        lsn: Lsn,
    },
}

impl JournalError {
    /// Puts the base directory before every path.
    pub(crate) fn put_beneath(&mut self, base: &Path) {
        match self {
            Self::Io { path, .. }
            | Self::Newer { path, .. }
            | Self::NewerEntry { path, .. }
            | Self::Contradiction { path, .. }
            | Self::BrokenChain { path, .. }
            | Self::WrongEnd { path, .. } => put_beneath(base, path),
            Self::BadHeader { path, named_by, .. } | Self::Lost { path, named_by } => {
                put_beneath(base, path);
                if let NamedBy::Roll { path, .. } | NamedBy::Successor { path } = named_by {
                    put_beneath(base, path);
                }
            }
            Self::Corrupt { path, witness, .. } => {
                put_beneath(base, path);
                if let Witness::Commit { path, .. } = &mut **witness {
                    put_beneath(base, path);
                }
            }
        }
    }
}

/// What is wrong with a segment's header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is damaged.
    #[error(transparent)]
    Damaged(HeaderError),
    /// It is whole, and another store's.
    #[error("it belongs to store {0}")]
    OtherStore(StoreUuid),
    /// It is whole, and another shard's.
    #[error("it belongs to shard {0}")]
    OtherShard(ShardId),
    /// It is whole, and has another number than the file.
    #[error("it has the number {0}")]
    OtherNumber(SegmentNo),
    /// It is whole, and of another run of the store.
    #[error("it was written in epoch {0}, by another run of the store")]
    OtherRun(Epoch),
}

impl HeaderFault {
    /// The same fault for another error; of the cause only kind and text stay.
    pub(super) fn copy(&self) -> Self {
        match self {
            Self::Unreadable(error) => Self::Unreadable(io::Error::new(error.kind(), error.to_string())),
            Self::Damaged(error) => Self::Damaged(*error),
            Self::OtherStore(uuid) => Self::OtherStore(*uuid),
            Self::OtherShard(shard) => Self::OtherShard(*shard),
            Self::OtherNumber(number) => Self::OtherNumber(*number),
            Self::OtherRun(epoch) => Self::OtherRun(*epoch),
        }
    }
}

/// What is wrong with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitFault {
    /// Header or entries.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It is whole, and another commit.
    #[error("it is commit {0}")]
    OtherLsn(Lsn),
    /// Its epoch is not one of the run.
    #[error("it has epoch {0}, which STORE or its segment does not know")]
    OtherEpoch(Epoch),
    /// An entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The header counts other entries or payload bytes than there are.
    #[error("its header counts other entries or bytes than it has")]
    Count,
    /// An event.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The last commit of a journal that was closed is another one than its last checkpoint.
    #[error("it ends a journal that was closed, and is no checkpoint")]
    NoCheckpoint,
}

/// Why a segment is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamedBy {
    /// STORE says that the journal begins or ends in it.
    Store,
    /// A roll entry says that the journal goes on in it.
    Roll {
        /// The file of the entry's commit.
        path: String,
        /// Where that commit begins, bytes.
        offset: u64,
    },
    /// It comes before a segment that is there, and no checkpoint makes it needless.
    Successor {
        /// The file of the segment behind it.
        path: String,
    },
}

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("STORE"),
            Self::Roll { path, offset } => write!(f, "the commit in {path} at offset {offset}"),
            Self::Successor { path } => write!(f, "its successor {path}"),
        }
    }
}

/// What says that a commit was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Witness {
    /// A later commit, which was written when all commits below `durable_lsn` were known to be durable.
    Commit {
        /// Its file.
        path: String,
        /// Where it begins, bytes.
        offset: u64,
        /// Its position in the journal.
        lsn: Lsn,
        /// What it says.
        durable_lsn: Lsn,
    },
    /// STORE, which names the segment only once its first commit is durable.
    Store,
    /// STORE, which says that the journal was closed behind it.
    CleanEnd {
        /// LSN behind the last commit.
        next_lsn: Lsn,
    },
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit { path, offset, lsn, durable_lsn } => {
                write!(f, "commit {lsn} in {path} at offset {offset} says that all below {durable_lsn} were durable")
            }
            Self::Store => f.write_str("STORE names this segment, so its first commit was durable"),
            Self::CleanEnd { next_lsn } => write!(f, "STORE was closed with {next_lsn} to come next"),
        }
    }
}
