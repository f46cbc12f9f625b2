//! Errors, one type per operation. Each says what is true now and what to do next; all convert into [`RedexError`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::channel_name::{ChannelName, ChannelNameError};
use crate::cold::failure::ColdError;
use crate::ids::ShardId;
use crate::index::{IndexOpenError, IndexWaitError};
use crate::journal::scan::JournalError;
use crate::read::cursor::CursorParseError;
use crate::read::subscribe::TailEnd;
use crate::segment::block::BlockError;
use crate::segment::footer::FooterError;
use crate::segment::record::RecordError;
use crate::store::checkpoint::CheckpointError;
use crate::store::meta::MetaError;
use crate::store::superblock::SuperblockError;

/// A write or flush that failed. The shard takes no more; what was in flight is unknown until the next open. Close the
/// store and open it again to recover.
#[derive(Clone, Debug, thiserror::Error)]
#[error("shard {shard} stopped after a failed {what}: {file}; close the store and open it again to recover")]
pub struct Poisoned {
    /// Whose I/O failed.
    pub shard: ShardId,
    /// What failed, e.g. `journal write`.
    pub what: &'static str,
    /// The file or directory, beneath the base directory.
    pub file: String,
    /// The first cause.
    #[source]
    pub cause: Arc<io::Error>,
}

/// Why a store could not be opened. Nothing of it was changed, but for a recovery that was under way: that starts anew
/// with the next open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody has the store open, in another process or in this one. Close it there, or wait for that process to end.
    #[error("store {path} is in use by {holder}; close it there, or wait for that process to end")]
    InUse {
        /// Base directory.
        path: PathBuf,
        /// Process and host of the holder, as far as known.
        holder: String,
    },
    /// There is no store to read. Open it for writing first, or name another directory.
    #[error("there is no store in {path}; open it for writing first, or name another directory", path = path.display())]
    NoStore {
        /// Base directory.
        path: PathBuf,
    },
    /// The store's writer changed it faster than it could be read. Try again.
    #[error("the store in {path} changes faster than it can be read; try again", path = path.display())]
    Busy {
        /// Base directory.
        path: PathBuf,
    },
    /// The base directory is not a directory. Name another.
    #[error("base directory {path} is not a directory; name another, or move what is there")]
    NotADirectory {
        /// What was named.
        path: PathBuf,
    },
    /// The operating system refused something. Opening again is safe once the cause is gone.
    #[error("cannot {what} {path}; open the store again when the cause is gone")]
    Io {
        /// What was tried, e.g. `create`.
        what: &'static str,
        /// On which path, in the base directory.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// STORE is damaged or of a newer format. The text says what to do.
    #[error("{path}: {error}")]
    Superblock {
        /// Path of STORE.
        path: PathBuf,
        /// What is wrong.
        error: SuperblockError,
    },
    /// The journal cannot be read, or is damaged below what was acknowledged: going on would hide a loss. The text
    /// says where, and what to do.
    #[error("the journal of shard {shard} cannot be recovered: {error}")]
    Journal {
        /// Whose journal.
        shard: ShardId,
        /// What is wrong, with file and offset.
        error: JournalError,
    },
    /// A checkpoint file cannot be read or is damaged. The text says where, and what to do.
    #[error("a checkpoint of shard {shard} cannot be loaded: {error}")]
    Checkpoint {
        /// Whose checkpoint.
        shard: ShardId,
        /// What is wrong, with file and offset.
        error: CheckpointError,
    },
    /// The journal and the checkpoint contradict each other. Keep the directory as it is, and restore the store from a copy.
    #[error(
        "channel {channel:?} cannot be recovered: {why}; keep the directory as it is, and restore the store from a copy"
    )]
    Inconsistent {
        /// Which channel; its id if the name is unknown.
        channel: String,
        /// What does not fit.
        why: &'static str,
    },
    /// A setting is out of range.
    #[error("{setting} is {value}, it must be {allowed}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// What was given.
        value: u64,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl OpenError {
    /// Puts the base directory before the paths, which the engine knows beneath it only.
    pub(crate) fn beneath(mut self, base: &Path) -> Self {
        match &mut self {
            Self::Io { path, .. } | Self::Superblock { path, .. } | Self::NoStore { path } | Self::Busy { path } => {
                *path = path_beneath(base, path)
            }
            Self::Journal { error, .. } => error.put_beneath(base),
            Self::Checkpoint { error, .. } => error.put_beneath(base),
            Self::InUse { .. } | Self::NotADirectory { .. } | Self::Inconsistent { .. } | Self::Setting { .. } => {}
        }
        self
    }
}

/// A path of the store as the user knows it.
pub(crate) fn path_beneath(base: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { base.to_owned() } else { base.join(path) }
}

/// The same for a path that is kept as text.
pub(crate) fn put_beneath(base: &Path, path: &mut String) {
    *path = path_beneath(base, Path::new(path)).to_string_lossy().into_owned();
}

/// Why a channel could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenFileError {
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] ChannelNameError),
    /// A persistent channel needs a base directory: use `with_persistent_dir`.
    #[error(
        "channel {channel} is persistent, but this Redex has no base directory; \
         make it by `Redex::open` or `with_persistent_dir`"
    )]
    NoBaseDirectory {
        /// Which channel.
        channel: ChannelName,
    },
    /// The store was open before this handle's base directory was set: it stays where it is. Use a handle of its own, by
    /// [`crate::Redex::open`], for the other directory.
    #[error("channel {channel}: the store is open in {present}, so its base directory cannot become {wanted}; open the other one by a handle of its own, `Redex::open`", present = present.display(), wanted = wanted.display())]
    BaseDirectoryConflict {
        /// Which channel.
        channel: ChannelName,
        /// Base directory of the store.
        present: PathBuf,
        /// The one that was set too late.
        wanted: PathBuf,
    },
    /// The channel is there with another configuration. Open it with that one.
    #[error("channel {channel} has {setting} {present}, not {wanted}; open it with {setting} {present}")]
    ConfigConflict {
        /// Which channel.
        channel: ChannelName,
        /// Which setting differs.
        setting: &'static str,
        /// Its value.
        present: String,
        /// The value that was asked for.
        wanted: String,
    },
    /// A setting is out of range.
    #[error("channel {channel}: {setting} is {value}, it must be {allowed}")]
    Setting {
        /// Which channel.
        channel: ChannelName,
        /// Which setting.
        setting: &'static str,
        /// What was given.
        value: u64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The store, opened by the first persistent channel, could not be.
    #[error(transparent)]
    Store(#[from] Arc<OpenError>),
    /// The shard of the channel has failed.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The channel's newest events, which fill no block, could not be read from the checkpoint. The text says where, and
    /// what to do.
    #[error("channel {channel} cannot be opened, its newest events cannot be read: {error}")]
    Damaged {
        /// Which channel.
        channel: ChannelName,
        /// What is wrong.
        error: CheckpointError,
    },
    /// META of the channel, which has segment files, is damaged, missing or another's. The events may be whole, but something
    /// has changed what nobody writes a second time. Restore the store, or this file alone, from a copy.
    #[error(
        "channel {channel} cannot be opened: {path} is damaged at offset {offset}; \
         restore this file, or the store, from a copy"
    )]
    Meta {
        /// Which channel.
        channel: ChannelName,
        /// Path of META.
        path: PathBuf,
        /// Where the damaged block begins, bytes.
        offset: u64,
        /// What is wrong.
        #[source]
        source: MetaError,
    },
    /// The stored configuration of the channel does not decode, though its checksum is right: newer software wrote it.
    #[error("channel {channel} has a configuration that this software does not know; use the software that wrote it")]
    UnknownConfig {
        /// Which channel.
        channel: ChannelName,
    },
    /// The store is open for reading only, and has no channel of this name, as far as is durable. Wait until its writer has
    /// made it.
    #[error("there is no channel {channel} in the store; wait until its writer has made it durably")]
    NoSuchChannel {
        /// Which channel.
        channel: ChannelName,
    },
    /// The channel is being deleted. Wait for that, then open it again: it will be a new one.
    #[error("channel {channel} is being deleted; wait for that, then open it again")]
    BeingDeleted {
        /// Which channel.
        channel: ChannelName,
    },
    /// `close` was called.
    #[error("the store is closed; open it again for its channels")]
    Closed,
}

impl OpenFileError {
    /// Puts the base directory before the paths, which the engine knows beneath it only.
    pub(crate) fn beneath(mut self, base: &Path) -> Self {
        match &mut self {
            Self::Damaged { error, .. } => error.put_beneath(base),
            Self::Meta { path, .. } => *path = path_beneath(base, path),
            _ => {}
        }
        self
    }
}

/// Why an append was refused. The channel is as it was before the call, but for [`AppendError::Poisoned`] of an append that
/// was already published: whether it survives is unknown until the next open.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Split the payload, or store it elsewhere and append where it is.
    #[error(
        "channel {channel}: payload is {size} bytes, the limit is {limit}; split it, or store it elsewhere and append where"
    )]
    TooLarge {
        /// Which channel.
        channel: ChannelName,
        /// Payload size, bytes.
        size: usize,
        /// Largest payload, bytes.
        limit: usize,
    },
    /// Split the batch.
    #[error(
        "channel {channel}: batch has {size} bytes in {count} events, the limits are {limit} bytes and {count_limit} \
         events; split it"
    )]
    BatchTooLarge {
        /// Which channel.
        channel: ChannelName,
        /// Payload bytes of the batch.
        size: usize,
        /// Events of the batch.
        count: usize,
        /// Most bytes a batch may have.
        limit: usize,
        /// Most events a batch may have.
        count_limit: usize,
    },
    /// Somebody else has appended: nothing was. Read from `expected` on, decide anew, and append at `actual`.
    #[error("channel {channel}: the next event would be {actual}, not {expected}; read what came, and decide anew")]
    OtherSeq {
        /// Which channel.
        channel: ChannelName,
        /// The sequence that was to be given.
        expected: u64,
        /// The one that would have been.
        actual: u64,
    },
    /// An inline payload has at most 8 bytes; use `append`.
    #[error("channel {channel}: inline payload is {size} bytes, the limit is 8; use `append`")]
    NotInline {
        /// Which channel.
        channel: ChannelName,
        /// Payload size, bytes.
        size: usize,
    },
    /// Memory for events that wait to be written is used up. From `try_append`: try again. From the others: 64 MiB of appends
    /// to the channel wait for room besides, so await some before the next.
    #[error(
        "channel {channel} has no room for more events that wait to be written; wait for earlier appends, then try again"
    )]
    Full {
        /// Which channel.
        channel: ChannelName,
    },
    /// The disk is full. Make room; appends then work again by themselves. What was acknowledged is safe.
    #[error("no space left to write channel {channel}; make room and append again")]
    NoSpace {
        /// Which channel.
        channel: ChannelName,
    },
    /// The channel or the store was closed.
    #[error("channel {channel} is closed; open the store again to append")]
    Closed {
        /// Which channel.
        channel: ChannelName,
    },
    /// An earlier write or flush failed.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// Why a channel was not changed: its head, its end, its settings, or whether it is there. Unless it says otherwise the channel
/// is as it was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// There is no such channel.
    #[error("there is no channel {channel}; `Redex::channels` lists those that are there")]
    NotFound {
        /// Which channel.
        channel: ChannelName,
    },
    /// The position is not one that the channel has.
    #[error(
        "channel {channel} has events {head}..{next}: it cannot end at {end}; give a sequence from {head} to {next}"
    )]
    OutOfRange {
        /// Which channel.
        channel: ChannelName,
        /// The position.
        end: u64,
        /// First event that is there.
        head: u64,
        /// Sequence of the next event.
        next: u64,
    },
    /// A batch has channels of several shards: no commit can hold it. Make them with the same
    /// [`RedexFileConfig::with_affinity`](crate::RedexFileConfig::with_affinity).
    #[error(
        "channels {channel} and {other} lie on different shards, so no batch can be atomic over both; \
         make them with the same affinity"
    )]
    Apart {
        /// Which channel.
        channel: ChannelName,
        /// The other one.
        other: ChannelName,
    },
    /// Split the batch: it must fit one commit.
    #[error("the batch takes {size} bytes of a commit, the limit is {limit}; split it")]
    BatchTooLarge {
        /// What it takes, bytes.
        size: usize,
        /// What a commit has room for, bytes.
        limit: usize,
    },
    /// An append of the batch was refused, and with it all of it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What the limits drop could not be found out, since events cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The channel could not be opened for it.
    #[error(transparent)]
    OpenFile(Arc<OpenFileError>),
    /// The channel, or the store, was closed.
    #[error("channel {channel} is closed; open it again to change it")]
    Closed {
        /// Which channel.
        channel: ChannelName,
    },
    /// A write or flush failed. Whether the change was made is known after the next open.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// Why events could not be read. Reading again may help only after [`ReadError::Io`] and [`ReadError::Cold`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The range ends before it begins. Give the lower sequence first.
    #[error("channel {channel}: range {start}..{end} ends before it begins; give the lower sequence first")]
    BadRange {
        /// Which channel.
        channel: ChannelName,
        /// First sequence.
        start: u64,
        /// End, exclusive.
        end: u64,
    },
    /// The range of times ends before it begins. Give the earlier time first.
    #[error(
        "channel {channel}: the times from {start_us} to {end_us} us end before they begin; give the earlier one first"
    )]
    BadTimeRange {
        /// Which channel.
        channel: ChannelName,
        /// Start, microseconds since the Unix epoch.
        start_us: u64,
        /// End, exclusive, likewise.
        end_us: u64,
    },
    /// An index block is damaged. Events before and behind can be read; for these the store has to be restored from a copy.
    #[error(
        "channel {channel}, events {from}..{to}: {file} at byte {offset} is damaged; \
         read on from {to}, or restore the store from a copy"
    )]
    Index {
        /// Which channel.
        channel: ChannelName,
        /// First event affected.
        from: u64,
        /// End of the events affected, exclusive.
        to: u64,
        /// Which file, beneath the base directory.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        #[source]
        source: BlockError,
    },
    /// An index record makes no sense. Other events can be read.
    #[error(
        "channel {channel}, event {seq}: its record is damaged; read on behind it, or restore the store from a copy"
    )]
    Record {
        /// Which channel.
        channel: ChannelName,
        /// Which event.
        seq: u64,
        /// What is wrong.
        #[source]
        source: RecordError,
    },
    /// A payload does not have the checksum of its record. Other events can be read.
    #[error(
        "channel {channel}, event {seq}: {file} at byte {offset} is damaged: the payload of {len} bytes has another \
         checksum; read on behind it, or restore the store from a copy"
    )]
    Payload {
        /// Which channel.
        channel: ChannelName,
        /// Which event.
        seq: u64,
        /// Which file, beneath the base directory.
        file: String,
        /// Where in it.
        offset: u64,
        /// Payload size, bytes.
        len: u32,
    },
    /// The operating system refused to read.
    #[error("channel {channel}: cannot read {file} at byte {offset}; read again when the device answers")]
    Io {
        /// Which channel.
        channel: ChannelName,
        /// Which file, beneath the base directory.
        file: String,
        /// Where in it.
        offset: u64,
        /// Its answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The events were dropped by the channel's limits, or by `trim_head`, while they were to be read. Read on from `to`.
    #[error("channel {channel}: events {from}..{to} were dropped by retention; read on from {to}")]
    Trimmed {
        /// Which channel.
        channel: ChannelName,
        /// First event that was to be read.
        from: u64,
        /// First event that is there.
        to: u64,
    },
    /// The events were cut off, by `truncate_suffix` or `reset_channel`, while they were to be read. Those from `from` on are
    /// others now, or yet to come.
    #[error("channel {channel}: events {from}..{to} were cut off; forget them, and read on from {from}")]
    CutOff {
        /// Which channel.
        channel: ChannelName,
        /// First event that is gone.
        from: u64,
        /// End of those that the reader had, exclusive.
        to: u64,
    },
    /// The segment lies in the cold store, and that has not given it: out of reach, the object is gone, or it is damaged.
    /// Events that are on the local disk or in memory can be read.
    #[error(
        "channel {channel}: {file} is in the cold store, and object {object} there cannot be read at byte {offset}; \
         read again when the cold store answers; an object that is damaged or gone has to be restored there"
    )]
    Cold {
        /// Which channel.
        channel: ChannelName,
        /// Which file it would be beneath the base directory.
        file: String,
        /// Key of the object.
        object: String,
        /// Where in it.
        offset: u64,
        /// What the cold store answered, or what is wrong with its answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file is shorter than the channel's state says.
    #[error(
        "channel {channel}: {file} ends at byte {offset}, but events {from}..{to} should follow; \
         put the file back, or restore the store from a copy"
    )]
    Missing {
        /// Which channel.
        channel: ChannelName,
        /// Which file, beneath the base directory.
        file: String,
        /// Where it ends.
        offset: u64,
        /// First event missing.
        from: u64,
        /// End of the events missing, exclusive.
        to: u64,
    },
}

/// What a check of a channel found wrong ([`crate::VerifyReport`]).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Events cannot be read: what a reader of them is told.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The footer of a sealed segment is damaged. Its events can be read; searches by time read more of it.
    #[error("the footer is damaged")]
    Footer(#[source] FooterError),
    /// The footer is whole, but the files are not what it says.
    #[error("field `{field}` of the footer is not what the files hold")]
    FooterField {
        /// Name of the field.
        field: &'static str,
    },
    /// Every index block is whole, but they are not those that were sealed.
    #[error("the index blocks have the hash {found:#010x}, the footer says {expected:#010x}")]
    IdxHash {
        /// What the footer says.
        expected: u32,
        /// What the blocks have.
        found: u32,
    },
    /// A time block is damaged, or not what the index blocks hold. Searches by time read more of the segment.
    #[error("a time block is damaged")]
    TimeBlock,
    /// An event is earlier than one in front of it.
    #[error("the time goes back from {before_us} to {time_us} us")]
    TimeBackwards {
        /// Time of an event in front, microseconds since the Unix epoch.
        before_us: u64,
        /// Time of the event.
        time_us: u64,
    },
}

/// Why a subscription could not begin.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The cursor points at events that a crash took back. Go on at `from`: what was seen between is not in the log.
    #[error("channel {channel}: events {from}..{to} that the cursor has seen were lost in a crash; go on at {from}")]
    LostEvents {
        /// Which channel.
        channel: ChannelName,
        /// First event that is gone.
        from: u64,
        /// End of those that are gone, exclusive, as far as the cursor knows.
        to: u64,
    },
    /// The cursor is of an epoch that this store has not had.
    #[error(
        "channel {channel}: the cursor is of epoch {epoch}, the store is at {present}: it is of another store; \
         subscribe from a sequence instead"
    )]
    UnknownEpoch {
        /// Which channel.
        channel: ChannelName,
        /// The cursor's epoch.
        epoch: u32,
        /// The store's epoch.
        present: u32,
    },
}

/// Why events are not known to be durable.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// A write or flush failed.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The store was closed before the event became durable; what was published before the close is durable.
    #[error("channel {channel} was closed before event {seq} was appended; open the store again to append it")]
    Closed {
        /// Which channel.
        channel: ChannelName,
        /// Which event was waited for.
        seq: u64,
    },
}

/// Why a close did not end cleanly. Everything acknowledged as durable stays so; the next open recovers the rest.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// A write or flush failed.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The disk is full, so no checkpoint could be taken: make room; the next open recovers, as after a crash.
    #[error("no space left for a checkpoint; make room: the next open recovers what is in the journal")]
    NoSpace,
    /// STORE could not be written: the next open recovers as after a crash.
    #[error("cannot write the store's end to {path}; nothing is lost: the next open recovers")]
    Store {
        /// Path of STORE.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedexError {
    /// See [`OpenError`].
    #[error(transparent)]
    Open(#[from] OpenError),
    /// See [`OpenFileError`].
    #[error(transparent)]
    OpenFile(#[from] OpenFileError),
    /// See [`AppendError`].
    #[error(transparent)]
    Append(#[from] AppendError),
    /// See [`ReadError`].
    #[error(transparent)]
    Read(#[from] ReadError),
    /// See [`ChangeError`].
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// See [`SubscribeError`].
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// See [`TailEnd`].
    #[error(transparent)]
    Tail(#[from] TailEnd),
    /// See [`SyncError`].
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// See [`CloseError`].
    #[error(transparent)]
    Close(#[from] CloseError),
    /// See [`ColdError`].
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// See [`ChannelNameError`].
    #[error(transparent)]
    Name(#[from] ChannelNameError),
    /// A value that does not encode, or an event that does not decode:
    /// [`TypedAppendError::Encode`](crate::typed::TypedAppendError::Encode) or [`Undecodable`](crate::typed::Undecodable).
    #[error(transparent)]
    Codec(Box<dyn std::error::Error + Send + Sync>),
    /// See [`CursorParseError`].
    #[error(transparent)]
    Cursor(#[from] CursorParseError),
    /// See [`IndexOpenError`].
    #[error(transparent)]
    IndexOpen(#[from] IndexOpenError),
    /// See [`IndexWaitError`].
    #[error(transparent)]
    IndexWait(#[from] IndexWaitError),
}

#[cfg(test)]
mod tests;
