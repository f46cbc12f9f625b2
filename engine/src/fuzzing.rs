//! What the fuzz targets need of formats that only the engine reads: one journal segment, one checkpoint file, a channel's
//! stored configuration, and how large a buffer for direct I/O was asked for.
//!
//! Everything else that the targets read is in [`crate::format`]. Bytes in, what they hold or an error out; nothing here is
//! for users of the engine, and nothing of it is kept between versions.

use std::cell::Cell;

use crate::config::RedexFileConfig;
use crate::error::OpenError;
use crate::ids::{CheckpointNo, Epoch, Lsn, SegmentNo, ShardId, StoreUuid};
use crate::io::sim::{SimDisk, SimOptions};
use crate::io::{Disk, OpenMode};
use crate::journal::format::SegmentHeader;
use crate::journal::scan::{Recovery, scan};
use crate::journal::segment_path;
use crate::shard::checkpoint::checkpoint_path;
use crate::store::checkpoint::{ChannelState, CheckpointEncoder, Tail, load_states, load_tail};
use crate::store::superblock::ShardRoot;

thread_local! {
    static LARGEST_BUFFER: Cell<usize> = const { Cell::new(0) };
}

/// Notes that a buffer of this size was made on this thread.
pub(crate) fn note_buffer(size_bytes: usize) {
    LARGEST_BUFFER.with(|largest| largest.set(largest.get().max(size_bytes)));
}

/// The largest buffer for direct I/O that this thread has made since the last call, bytes. An allocator that counts does not see
/// the large ones: they are mapped.
#[must_use]
pub fn take_largest_buffer() -> usize {
    LARGEST_BUFFER.with(Cell::take)
}

/// A commit that a scan accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalCommit {
    /// Position in the journal.
    pub lsn: Lsn,
    /// Epoch in which it was written.
    pub epoch: Epoch,
    /// Where it begins in the segment, bytes.
    pub offset: u64,
    /// Its entries, encoded.
    pub meta: Vec<u8>,
    /// The inline bytes of its entries.
    pub payload: Vec<u8>,
}

/// What a scan found in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalPrefix {
    /// The commits that recovery would replay, in order.
    pub commits: Vec<JournalCommit>,
    /// LSN behind the last commit that holds.
    pub next_lsn: Lsn,
    /// Where the journal ends, bytes.
    pub end: u64,
    /// Whether a torn tail was cut.
    pub is_torn: bool,
}

/// Scans a journal that has this one segment, as recovery does after a crash. Extents never verify: there is no dat file.
///
/// # Errors
///
/// As of [`crate::Redex::open`].
pub fn scan_segment(bytes: &[u8]) -> Result<JournalPrefix, OpenError> {
    let header = bytes.get(..crate::io::BLOCK_SIZE).and_then(|block| SegmentHeader::verify(block).ok());
    let (uuid, shard, number) = match header {
        Some(header) => (header.uuid, header.shard, header.number),
        None => (StoreUuid([0; 16]), ShardId(0), SegmentNo(1)),
    };
    let disk = SimDisk::new(1, SimOptions::default());
    disk.write_file(&segment_path(shard, number), bytes).expect("a simulated disk takes every file");
    let root = ShardRoot { segment: number, clean: None };
    let recovery = Recovery { disk: &disk, uuid, shard, root: &root, epoch: Epoch(u32::MAX) };
    let found = scan(&recovery, &mut |_, _| Ok(false)).map_err(|error| OpenError::Journal { shard, error })?;
    let commit = |commit: &crate::journal::scan::ScannedCommit| JournalCommit {
        lsn: commit.lsn,
        epoch: commit.epoch,
        offset: commit.offset,
        meta: commit.meta().to_vec(),
        payload: commit.payload().to_vec(),
    };
    Ok(JournalPrefix {
        commits: found.commits.iter().map(commit).collect(),
        next_lsn: found.next_lsn,
        end: found.last_offset,
        is_torn: found.torn.is_some(),
    })
}

/// Whose a checkpoint file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointIdentity {
    /// The store.
    pub uuid: StoreUuid,
    /// The shard.
    pub shard: ShardId,
    /// The file.
    pub number: CheckpointNo,
}

/// A state, and its tail if that is whole.
type Read = (ChannelState, Option<Tail>);

/// What a checkpoint file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    identity: CheckpointIdentity,
    /// States, and tails as far as they are whole. Where in the file a tail lies is left out.
    channels: Vec<Read>,
}

/// Reads the states of a checkpoint file and the tail of each.
///
/// # Errors
///
/// If header or states are damaged; a damaged tail is its channel's affair.
pub fn read_checkpoint(bytes: &[u8], identity: CheckpointIdentity) -> Result<Checkpoint, OpenError> {
    let CheckpointIdentity { uuid, shard, number } = identity;
    let (disk, path) = (SimDisk::new(1, SimOptions::default()), checkpoint_path(shard, number));
    disk.write_file(&path, bytes).expect("a simulated disk takes every file");
    let states = load_states(&disk, &path, uuid, shard, number);
    let states = states.map_err(|error| OpenError::Checkpoint { shard, error })?;
    let file = disk.open(&path, OpenMode::Read).expect("it was just read");
    let with_tail = |mut state: ChannelState| {
        let tail = load_tail(&*file, &path, &state).ok();
        state.tail.offset = 0;
        (state, tail)
    };
    Ok(Checkpoint { identity, channels: states.into_iter().map(with_tail).collect() })
}

impl Checkpoint {
    /// How many channels it has, and how many of their tails are whole.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.channels.len(), self.channels.iter().filter(|(_, tail)| tail.is_some()).count())
    }

    /// Whether it is the other one, but for tails that are damaged in one of them. A changed bit may also be the one that was
    /// changed before.
    #[must_use]
    pub fn is_same_but_for_damage(&self, other: &Self) -> bool {
        let same_tail = |tail: &Option<Tail>, other: &Option<Tail>| tail.is_none() || other.is_none() || tail == other;
        let same = |((state, tail), (other, other_tail)): (&Read, &Read)| state == other && same_tail(tail, other_tail);
        self.identity == other.identity
            && self.channels.len() == other.channels.len()
            && self.channels.iter().zip(&other.channels).all(same)
    }

    /// The bytes of a file that holds the same; `None` if a tail is not whole.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let CheckpointIdentity { uuid, shard, number } = self.identity;
        let mut encoder = CheckpointEncoder::new(uuid, shard, number);
        self.channels.iter().for_each(|(state, _)| _ = encoder.push_state(state));
        encoder.end_states();
        for (state, tail) in &self.channels {
            let tail = tail.as_ref()?;
            if !state.tail.is_empty() {
                encoder.push_tail(state.id, &tail.records, &tail.bytes);
            }
        }
        encoder.finish();
        let mut bytes = vec![0; encoder.bytes_left()];
        let size = encoder.drain(&mut bytes);
        assert_eq!(size, bytes.len(), "a finished file is whole blocks");
        Some(bytes)
    }
}

/// Decodes a channel's stored configuration and encodes it again; `None` if it does not decode.
#[must_use]
pub fn recode_config(bytes: &[u8]) -> Option<Vec<u8>> {
    RedexFileConfig::decode(bytes).map(|config| config.encode())
}
