//! The checkpoint file: the states of a shard's channels, and the tails of their idx and dat files.
//!
//! A tail is what fills no block of its file yet: the last records and the last bytes. The file is one header block,
//! then all states one behind the other, then the tails, padded with zeros to a block. It is written front to back
//! in whole blocks ([`CheckpointEncoder`]), and read in two ways: all states at once when a store is opened
//! ([`load_states`]), a tail when its channel is ([`load_tail`]).
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..8 | `magic` | `REDEXCKP` |
//! | 8..10 | `version` | 1 |
//! | 10..12 | `shard` | |
//! | 12..16 | `crc32c` | over the whole block without these four bytes |
//! | 16..32 | `store_uuid` | |
//! | 32..40 | `number` | |
//! | 40..48 | `state_count` | |
//! | 48..56 | `states_len` | bytes; states begin at 4096 |
//! | 56..64 | `tails_offset` | where the tails begin |
//! | 64..72 | `size` | of the file |
//! | 72..4096 | | zero |
//!
//! A state is `len u32, crc32c u32` and the body of `len` bytes. A tail, at a multiple of 4, is `crc32c u32,
//! record_count u32, bytes_len u32`, the records, the bytes. The checksum of a state also covers uuid, shard and number
//! of the file, that of a tail the channel's id and LSN: what belongs elsewhere is wrong. In the file a state gives its
//! tail's offset from `tails_offset`; a loaded state gives it from the beginning of the file.

pub mod survey;

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::put_beneath;
use crate::ids::{CheckpointNo, ShardId, StoreUuid};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, File, OpenMode, read_full};
use crate::segment::block::RECORDS_PER_BLOCK;
use crate::segment::record::{IndexRecord, RECORD_SIZE};

/// Version of the checkpoint file's layout.
pub const CHECKPOINT_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"REDEXCKP";
const CRC_OFFSET: usize = 12;
const FIELDS_SIZE: usize = 72;
const STATE_HEAD_SIZE: usize = 8;
const TAIL_HEAD_SIZE: usize = 12;
const NAME_SIZE_MAX: usize = 255;

/// Largest state of a channel, bytes. One with so many segments had more files than a directory holds.
const STATE_SIZE_MAX: usize = 256 << 20;
/// States for which memory is set aside before they are read.
const STATES_AHEAD_MAX: u64 = 1 << 16;
/// Largest read, bytes.
const READ_SIZE: usize = 1 << 20;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U16,
    shard: U16,
    crc32c: U32,
    store_uuid: [u8; 16],
    number: U64,
    state_count: U64,
    states_len: U64,
    tails_offset: U64,
    size: U64,
    reserved: [u8; BLOCK_SIZE - FIELDS_SIZE],
}

const _: () = {
    assert!(size_of::<RawHeader>() == BLOCK_SIZE);
    assert!(std::mem::offset_of!(RawHeader, crc32c) == CRC_OFFSET);
    assert!(std::mem::offset_of!(RawHeader, reserved) == FIELDS_SIZE);
};

/// One idx/dat pair of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentState {
    /// First sequence.
    pub first: u64,
    /// End, exclusive.
    pub end: u64,
    /// Size of dat with its tail, bytes.
    pub dat_size: u32,
    /// Whether it is sealed.
    pub sealed: bool,
}

/// Where a channel's tail lies in the checkpoint file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailRef {
    /// Byte offset in the file. Meaningless if the tail is empty.
    pub offset: u64,
    /// Records that fill no idx block.
    pub record_count: u32,
    /// Bytes that fill no dat block.
    pub bytes_len: u32,
}

/// What a checkpoint knows of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// Its id.
    pub id: u64,
    /// Its name, 1 to 255 bytes.
    pub name: String,
    /// Its configuration, in an encoding of its own.
    pub config: Vec<u8>,
    /// Commits below are contained in this state.
    pub lsn: u64,
    /// Oldest sequence that is left.
    pub head: u64,
    /// End, exclusive.
    pub end: u64,
    /// Time of the newest event, microseconds since the Unix epoch.
    pub last_time_us: u64,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Epochs in which it grew, each with the first sequence it gave; ascending.
    pub epochs: Vec<(u32, u64)>,
    /// Its segments, ascending; the last is the active one.
    pub segments: Vec<SegmentState>,
    /// Running hash over the whole idx blocks of the active segment.
    pub idx_hash: u32,
    /// What of the active segment fills no block.
    pub tail: TailRef,
}

/// What of an active segment fills no block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The last records.
    pub records: Vec<IndexRecord>,
    /// The last bytes of dat.
    pub bytes: Vec<u8>,
}

/// Why a checkpoint file cannot be read. The journal names it, so it is needed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file or a part of it cannot be read. Try again when the device answers; if it never does, restore from a copy.
    #[error(
        "{path} at offset {offset} cannot be read: {error}; open the store again when the device answers, \
         or restore it from a copy"
    )]
    Io {
        /// The file.
        path: String,
        /// Where, bytes.
        offset: u64,
        /// The cause.
        error: io::Error,
    },
    /// The file is whole, but newer software wrote it. Use that, or a later one.
    #[error(
        "{path} has format version {version}, this software knows {CHECKPOINT_VERSION}; \
         use the software that wrote it, or a later one"
    )]
    Newer {
        /// The file.
        path: String,
        /// Version found.
        version: u16,
    },
    /// The file is damaged, or not the one that the journal names. Restore from a copy.
    #[error(
        "{path} is damaged at offset {offset}: {what}; \
         keep the directory as it is, and restore the store from a copy"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Where, bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
}

impl CheckpointError {
    /// Puts the base directory before the path.
    pub(crate) fn put_beneath(&mut self, base: &Path) {
        match self {
            Self::Io { path, .. } | Self::Newer { path, .. } | Self::Damaged { path, .. } => put_beneath(base, path),
        }
    }
}

impl ChannelState {
    /// Whether whole blocks of the channel lie in segment files. Then its META was made before.
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        let has_blocks = |segment: &SegmentState| {
            let records = segment.end - segment.first;
            segment.sealed || segment.dat_size as usize >= BLOCK_SIZE || records >= RECORDS_PER_BLOCK as u64
        };
        self.segments.iter().any(has_blocks)
    }
}

impl TailRef {
    /// Whether there is nothing that fills no block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_count == 0 && self.bytes_len == 0
    }

    /// Space in the file, bytes.
    pub(crate) fn size(&self) -> u64 {
        let size =
            TAIL_HEAD_SIZE as u64 + u64::from(self.record_count) * RECORD_SIZE as u64 + u64::from(self.bytes_len);
        if self.is_empty() { 0 } else { size.next_multiple_of(4) }
    }
}

/// Makes the bytes of a checkpoint file, front to back.
///
/// Feed all states, call [`end_states`](Self::end_states), feed the tails that are not empty in the same order, call
/// [`finish`](Self::finish); drain whole blocks at any time in between. A state is encoded when it is fed: the channel
/// may go on, as long as its tail is fed as it was then. Nothing can be drained before the states have ended, since
/// the header counts them: all states lie in memory until then.
#[derive(Debug)]
pub struct CheckpointEncoder {
    uuid: StoreUuid,
    shard: ShardId,
    number: CheckpointNo,
    seed: u32,
    /// Bytes of the file from `drained` on; the first `read` of them have been drained too.
    buf: Vec<u8>,
    read: usize,
    state_count: u64,
    tails_len: u64,
    /// Channel, LSN and shape of the tails to come.
    tails: VecDeque<(u64, u64, TailRef)>,
    tails_offset: Option<u64>,
    finished: bool,
}

impl CheckpointEncoder {
    /// Begins a file.
    #[must_use]
    pub fn new(uuid: StoreUuid, shard: ShardId, number: CheckpointNo) -> Self {
        Self {
            uuid,
            shard,
            number,
            seed: file_seed(uuid, shard, number),
            buf: vec![0; BLOCK_SIZE],
            read: 0,
            state_count: 0,
            tails_len: 0,
            tails: VecDeque::new(),
            tails_offset: None,
            finished: false,
        }
    }

    /// Takes a channel's state; of its tail only the counts matter. Gives the tail's offset from
    /// [`tails_offset`](Self::tails_offset).
    ///
    /// # Panics
    ///
    /// If the states have ended, or the state contradicts itself.
    pub fn push_state(&mut self, state: &ChannelState) -> u64 {
        assert!(self.tails_offset.is_none(), "the states have ended");
        assert_eq!(contradiction(state), None, "state of channel {:016x}", state.id);
        let tail = TailRef { offset: self.tails_len, ..state.tail };
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; STATE_HEAD_SIZE]);
        let mut buf = postcard::to_extend(&OnDisk { state, tail }, std::mem::take(&mut self.buf))
            .expect("numbers, names and bytes always encode");
        let (head, body) = buf[start..].split_at_mut(STATE_HEAD_SIZE);
        assert!(body.len() <= STATE_SIZE_MAX, "state of channel {:016x}: {} bytes", state.id, body.len());
        let len = body.len() as u32;
        let crc = crc32c::crc32c_append(self.seed, body);
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..].copy_from_slice(&crc.to_le_bytes());
        self.buf = buf;
        self.state_count += 1;
        self.tails_len += tail.size();
        if !tail.is_empty() {
            self.tails.push_back((state.id, state.lsn, tail));
        }
        tail.offset
    }

    /// Ends the states and writes the header. Gives the size that the file will have.
    ///
    /// # Panics
    ///
    /// If they have ended before.
    pub fn end_states(&mut self) -> u64 {
        assert!(self.tails_offset.is_none(), "the states have ended");
        let states_len = (self.buf.len() - BLOCK_SIZE) as u64;
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
        let tails_offset = self.buf.len() as u64;
        let size = (tails_offset + self.tails_len).next_multiple_of(BLOCK_SIZE as u64);
        self.tails_offset = Some(tails_offset);
        let raw = RawHeader {
            magic: MAGIC,
            version: U16::new(CHECKPOINT_VERSION),
            shard: U16::new(self.shard.0),
            crc32c: U32::ZERO,
            store_uuid: self.uuid.0,
            number: U64::new(self.number.0),
            state_count: U64::new(self.state_count),
            states_len: U64::new(states_len),
            tails_offset: U64::new(tails_offset),
            size: U64::new(size),
            reserved: [0; BLOCK_SIZE - FIELDS_SIZE],
        };
        self.buf[..BLOCK_SIZE].copy_from_slice(raw.as_bytes());
        let crc = header_crc(&self.buf[..BLOCK_SIZE]);
        self.buf[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
        size
    }

    /// Where in the file the tails begin, once the states have ended.
    #[must_use]
    pub fn tails_offset(&self) -> Option<u64> {
        self.tails_offset
    }

    /// Takes the next tail: of the next channel whose tail is not empty, in the order of the states. `records` and
    /// `bytes` are those of the moment when the state was fed.
    ///
    /// # Panics
    ///
    /// If the states have not ended, no tail is missing, or this is not the next one.
    pub fn push_tail(&mut self, channel: u64, records: &[IndexRecord], bytes: &[u8]) {
        assert!(self.tails_offset.is_some(), "the states have not ended");
        let (id, lsn, tail) = self.tails.pop_front().expect("a tail is missing");
        let shape = (id, tail.record_count as usize, tail.bytes_len as usize);
        assert_eq!(shape, (channel, records.len(), bytes.len()), "the next tail is another");
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&tail.record_count.to_le_bytes());
        self.buf.extend_from_slice(&tail.bytes_len.to_le_bytes());
        self.buf.extend_from_slice(records.as_bytes());
        self.buf.extend_from_slice(bytes);
        let crc = crc32c::crc32c_append(tail_seed(id, lsn), &self.buf[start + 4..]);
        self.buf[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    /// Ends the file: what is left becomes whole blocks.
    ///
    /// # Panics
    ///
    /// If the states have not ended or tails are missing.
    pub fn finish(&mut self) {
        assert!(self.tails_offset.is_some(), "the states have not ended");
        assert!(self.tails.is_empty(), "{} tails are missing", self.tails.len());
        self.buf.resize(self.read + (self.buf.len() - self.read).next_multiple_of(BLOCK_SIZE), 0);
        self.finished = true;
    }

    /// Bytes of the file that were not drained yet, once it is finished.
    #[must_use]
    pub fn bytes_left(&self) -> usize {
        self.buf.len() - self.read
    }

    /// Moves the next whole blocks of the file to `out`; gives their size, 0 if none is ready.
    pub fn drain(&mut self, out: &mut [u8]) -> usize {
        if self.tails_offset.is_none() {
            return 0;
        }
        let ready = (self.buf.len() - self.read).min(out.len());
        let size = ready - ready % BLOCK_SIZE;
        out[..size].copy_from_slice(&self.buf[self.read..self.read + size]);
        self.read += size;
        self.forget_drained();
        size
    }

    /// Whether the file has ended and all of it was drained.
    #[cfg(test)]
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.finished && self.read == self.buf.len()
    }

    /// Gives drained bytes back when they are the larger part, so that each byte is moved a bounded number of times.
    fn forget_drained(&mut self) {
        if self.read * 2 >= self.buf.len() {
            self.buf.drain(..self.read);
            self.read = 0;
        }
    }
}

/// A state with the offset of its tail replaced. Encodes as [`ChannelState`] does.
struct OnDisk<'a> {
    state: &'a ChannelState,
    tail: TailRef,
}

impl Serialize for OnDisk<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state = self.state;
        let counters = (state.lsn, state.head, state.end, state.last_time_us, state.deleted);
        let names = (state.id, &state.name, &state.config);
        (names, counters, &state.epochs, &state.segments, state.idx_hash, self.tail).serialize(serializer)
    }
}

/// Reads all states of a checkpoint file; tails are left where they are.
///
/// Only header and states are read, in order, 1 MiB at a time.
///
/// # Errors
///
/// If the file cannot be read, is damaged, or is not the one of this store, shard and number.
pub fn load_states(
    disk: &dyn Disk,
    path: &str,
    uuid: StoreUuid,
    shard: ShardId,
    number: CheckpointNo,
) -> Result<Vec<ChannelState>, CheckpointError> {
    let file = disk.open(path, OpenMode::Read).map_err(|error| io_error(path, 0, error))?;
    let header = load_header(&*file, path)?;
    header.check_identity(uuid, shard, number).map_err(|what| damaged(path, 0, what))?;
    let reader = StateReader {
        path,
        seed: file_seed(uuid, shard, number),
        tails_offset: header.tails_offset.get(),
        tails_len: header.size.get() - header.tails_offset.get(),
        offset: BLOCK_SIZE as u64,
    };
    reader.read_all(&*file, header.states_len.get(), header.state_count.get())
}

/// Whether a file is whole as far as its header tells, and not this store's, or of a newer format: not for this software to
/// remove.
///
/// # Errors
///
/// If it cannot be read.
pub fn is_of_other_store(disk: &dyn Disk, path: &str, uuid: StoreUuid) -> io::Result<bool> {
    let file = disk.open(path, OpenMode::Read)?;
    match load_header(&*file, path) {
        Ok(header) => Ok(header.store_uuid != uuid.0),
        Err(CheckpointError::Newer { .. }) => Ok(true),
        Err(CheckpointError::Io { error, .. }) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Reads the tail of a channel, whose state was loaded from the same file.
///
/// # Errors
///
/// If the file cannot be read there, or the tail is damaged.
pub fn load_tail(file: &dyn File, path: &str, state: &ChannelState) -> Result<Tail, CheckpointError> {
    let tail = state.tail;
    if tail.is_empty() {
        return Ok(Tail::default());
    }
    let size = file.size().map_err(|error| io_error(path, tail.offset, error))?;
    let end = tail.offset.checked_add(tail.size()).filter(|&end| end <= size);
    let end = end.ok_or_else(|| damaged(path, tail.offset, "a tail lies behind the end of the file"))?;
    let start = tail.offset - tail.offset % BLOCK_SIZE as u64;
    let mut buf = AlignedBuf::new((end - start) as usize);
    let found = read_full(file, &mut buf, start).map_err(|error| io_error(path, start, error))?;
    tail_in(&buf[..found], start, path, state)
}

/// The tail of a channel from bytes of its file, which begin at `start`, not behind the tail.
///
/// # Errors
///
/// If the tail is damaged, or not whole in these bytes.
pub fn tail_in(bytes: &[u8], start: u64, path: &str, state: &ChannelState) -> Result<Tail, CheckpointError> {
    let tail = state.tail;
    if tail.is_empty() {
        return Ok(Tail::default());
    }
    let skip = (tail.offset - start) as usize;
    match bytes.get(skip..skip + tail.size() as usize) {
        Some(bytes) => decode_tail(bytes, state).map_err(|what| damaged(path, tail.offset, what)),
        None => Err(damaged(path, tail.offset, "a tail is cut off")),
    }
}

fn decode_tail(bytes: &[u8], state: &ChannelState) -> Result<Tail, &'static str> {
    let TailRef { record_count, bytes_len, .. } = state.tail;
    let (head, body) = bytes.split_at(TAIL_HEAD_SIZE);
    let records_size = record_count as usize * RECORD_SIZE;
    let used = records_size + bytes_len as usize;
    let crc = crc32c::crc32c_append(tail_seed(state.id, state.lsn), &bytes[4..TAIL_HEAD_SIZE + used]);
    if head[..4] != crc.to_le_bytes() {
        return Err("the checksum of a tail is wrong");
    }
    if head[4..8] != record_count.to_le_bytes() || head[8..] != bytes_len.to_le_bytes() {
        return Err("a tail has another size than its state says");
    }
    let (records, rest) = body.split_at(records_size);
    let records = <[IndexRecord]>::ref_from_bytes(records).map_err(|_| "a tail has no whole records")?;
    Ok(Tail { records: records.to_vec(), bytes: rest[..bytes_len as usize].to_vec() })
}

fn load_header(file: &dyn File, path: &str) -> Result<RawHeader, CheckpointError> {
    let mut block = AlignedBuf::new(BLOCK_SIZE);
    let found = read_full(file, &mut block, 0).map_err(|error| io_error(path, 0, error))?;
    let header = RawHeader::read_from_bytes(&block[..found]);
    let header = header.map_err(|_| damaged(path, 0, "the header is cut off"))?;
    if header.magic != MAGIC {
        return Err(damaged(path, 0, "it does not begin with its magic number"));
    }
    if header.crc32c.get() != header_crc(&block) {
        return Err(damaged(path, 0, "the checksum of the header is wrong"));
    }
    if header.version.get() != CHECKPOINT_VERSION {
        return Err(CheckpointError::Newer { path: path.to_owned(), version: header.version.get() });
    }
    let size = file.size().map_err(|error| io_error(path, 0, error))?;
    header.check_sizes(size).map_err(|what| damaged(path, 0, what))?;
    Ok(header)
}

impl RawHeader {
    fn check_sizes(&self, file_size: u64) -> Result<(), &'static str> {
        let states_end = self.states_len.get().checked_add(BLOCK_SIZE as u64);
        let in_order = states_end.is_some_and(|end| end <= self.tails_offset.get());
        if !in_order || self.tails_offset.get() > self.size.get() {
            return Err("the sizes in the header contradict each other");
        }
        if self.size.get() > file_size {
            return Err("the file is cut off");
        }
        Ok(())
    }

    fn check_identity(&self, uuid: StoreUuid, shard: ShardId, number: CheckpointNo) -> Result<(), &'static str> {
        if self.store_uuid != uuid.0 {
            return Err("it belongs to another store");
        }
        if self.shard.get() != shard.0 || self.number.get() != number.0 {
            return Err("it is the checkpoint of another shard or number");
        }
        Ok(())
    }
}

struct StateReader<'a> {
    path: &'a str,
    seed: u32,
    tails_offset: u64,
    tails_len: u64,
    /// Where the next state lies in the file.
    offset: u64,
}

impl StateReader<'_> {
    fn read_all(mut self, file: &dyn File, states_len: u64, count: u64) -> Result<Vec<ChannelState>, CheckpointError> {
        let end = BLOCK_SIZE as u64 + states_len;
        let mut states = Vec::with_capacity(count.min(states_len / 16).min(STATES_AHEAD_MAX) as usize);
        let mut chunk = AlignedBuf::new(states_len.min(READ_SIZE as u64) as usize);
        let mut carried = Vec::new();
        let mut at = BLOCK_SIZE as u64;
        while at < end {
            let wanted = (end - at).min(READ_SIZE as u64) as usize;
            let part = &mut chunk[..wanted.next_multiple_of(BLOCK_SIZE)];
            let found = read_full(file, part, at).map_err(|error| io_error(self.path, at, error))?;
            if found < wanted {
                return Err(damaged(self.path, at + found as u64, "the file is cut off"));
            }
            carried.extend_from_slice(&chunk[..wanted]);
            let used = self.take_whole(&carried, &mut states)?;
            carried.drain(..used);
            at += wanted as u64;
        }
        if !carried.is_empty() || states.len() as u64 != count {
            return Err(damaged(self.path, self.offset, "the number of states is not what the header says"));
        }
        Ok(states)
    }

    /// Decodes the states that lie in `bytes` whole; gives their size.
    fn take_whole(&mut self, bytes: &[u8], states: &mut Vec<ChannelState>) -> Result<usize, CheckpointError> {
        let mut used = 0;
        while let Some((crc, body)) = self.split_state(&bytes[used..])? {
            let state = self.decode(crc, body).map_err(|what| damaged(self.path, self.offset, what))?;
            states.push(state);
            used += STATE_HEAD_SIZE + body.len();
            self.offset += (STATE_HEAD_SIZE + body.len()) as u64;
        }
        Ok(used)
    }

    /// As [`split_state`]; refuses a length that no state has, before more is read for it.
    fn split_state<'b>(&self, bytes: &'b [u8]) -> Result<Option<(u32, &'b [u8])>, CheckpointError> {
        match bytes.first_chunk::<4>() {
            Some(len) if u32::from_le_bytes(*len) as usize > STATE_SIZE_MAX => {
                Err(damaged(self.path, self.offset, "a state is longer than any that is written"))
            }
            _ => Ok(split_state(bytes)),
        }
    }

    fn decode(&self, crc: u32, body: &[u8]) -> Result<ChannelState, &'static str> {
        if crc != crc32c::crc32c_append(self.seed, body) {
            return Err("the checksum of a state is wrong");
        }
        let decoded = postcard::take_from_bytes::<ChannelState>(body);
        let (mut state, rest) = decoded.map_err(|_| "a state does not decode")?;
        if !rest.is_empty() {
            return Err("a state has bytes behind its end");
        }
        let tail_end = state.tail.offset.checked_add(state.tail.size());
        if tail_end.is_none_or(|end| end > self.tails_len) {
            return Err("a state's tail lies behind the end of the file");
        }
        state.tail.offset += self.tails_offset;
        match contradiction(&state) {
            Some(what) => Err(what),
            None => Ok(state),
        }
    }
}

/// Splits a state off that lies in `bytes` whole: checksum and body.
fn split_state(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.get(..u32::from_le_bytes(*len) as usize)?;
    Some((u32::from_le_bytes(*crc), body))
}

/// What in a state cannot be.
fn contradiction(state: &ChannelState) -> Option<&'static str> {
    let segments = &state.segments;
    let active = segments.last().filter(|segment| !segment.sealed);
    // What of the active segment fills no block: records, bytes.
    let left_over = active.map_or((0, 0), |segment| {
        let records = segment.end.saturating_sub(segment.first) % RECORDS_PER_BLOCK as u64;
        (records as u32, segment.dat_size % BLOCK_SIZE as u32)
    });
    [
        (!(1..=NAME_SIZE_MAX).contains(&state.name.len()), "a channel's name has not 1 to 255 bytes"),
        (state.head > state.end, "a channel's head lies behind its end"),
        (segments.iter().any(|segment| segment.first > segment.end), "a segment ends before it begins"),
        (segments.windows(2).any(|pair| pair[0].end != pair[1].first), "there is a gap between segments"),
        (segments.iter().rev().skip(1).any(|segment| !segment.sealed), "a segment in the middle is not sealed"),
        (
            segments.last().is_some_and(|last| last.end != state.end),
            "the last segment does not end where its channel does",
        ),
        ((state.tail.record_count, state.tail.bytes_len) != left_over, "a tail is not what its segment leaves over"),
    ]
    .into_iter()
    .find_map(|(bad, what)| bad.then_some(what))
}

fn header_crc(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..CRC_OFFSET]), &block[CRC_OFFSET + 4..])
}

fn file_seed(uuid: StoreUuid, shard: ShardId, number: CheckpointNo) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&uuid.0), &shard.0.to_le_bytes());
    crc32c::crc32c_append(crc, &number.0.to_le_bytes())
}

fn tail_seed(channel: u64, lsn: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&channel.to_le_bytes()), &lsn.to_le_bytes())
}

fn io_error(path: &str, offset: u64, error: io::Error) -> CheckpointError {
    CheckpointError::Io { path: path.to_owned(), offset, error }
}

fn damaged(path: &str, offset: u64, what: &'static str) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_owned(), offset, what }
}

#[cfg(test)]
mod tests;
