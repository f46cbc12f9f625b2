//! What the journal says of a channel above its checkpoint: the newest durable events, in memory.
//!
//! Events come by pieces, one an entry of a commit: their records, and the payload bytes that lay in the journal. Payloads
//! that went around the journal are read from dat. Below [`News::base`] the channel is on disk, as its checkpoint says.
//!
//! Promises: what is read is checked, or was when it was taken from the journal; a checkpoint takes over what it contains
//! without a moment in which it is in neither place. What is cut off is told to readers first, by the channel
//! ([`crate::channel::Channel::follow_cut`]); what they find here meanwhile they look at again.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::polls::Polls;
use crate::channel_name::ChannelName;
use crate::error::ReadError;
use crate::ids::{ChannelId, Epoch, Lsn, Seq};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, OpenMode};
use crate::journal::format::{EventsEntry, EventsFields};
use crate::segment::chunk::{DatBytes, EventChunk};
use crate::segment::path::dat_path;
use crate::segment::read::OnDisk;
use crate::segment::record::{IndexRecord, RecordPlace};
use crate::store::checkpoint::ChannelState;

/// Events that a reader takes at once.
const EVENTS_AT_ONCE: usize = 4096;
/// Payload bytes of an extent that are read at once, unless one event has more.
const EXTENT_BYTES_AT_ONCE: u64 = 1 << 20;

/// The events of one entry of a commit.
#[derive(Debug)]
struct Piece {
    lsn: Lsn,
    fields: EventsFields,
    records: Arc<[IndexRecord]>,
    inline: Bytes,
    /// Records beyond were truncated.
    len: usize,
}

impl Piece {
    fn end(&self) -> Seq {
        Seq(self.fields.first.0 + self.len as u64)
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct News {
    /// The newest commit that said something of the channel.
    pub lsn: Lsn,
    /// Events below are on disk as the checkpoint says.
    pub base: Seq,
    /// End of the events.
    pub end: Seq,
    /// First event that is there.
    pub head: Seq,
    /// Epochs that have appended, each with its first sequence.
    pub epochs: Vec<(Epoch, Seq)>,
    /// Time of the last event.
    pub last_time_us: u64,
    /// Whether anything was said of the channel since it was made: before, its first event may have any sequence.
    has_begun: bool,
    pieces: VecDeque<Piece>,
}

impl News {
    /// Nothing above this state.
    pub fn above(state: &ChannelState) -> Self {
        Self {
            lsn: Lsn(0),
            base: Seq(state.end),
            end: Seq(state.end),
            head: Seq(state.head),
            epochs: state.epochs.iter().map(|(epoch, first)| (Epoch(*epoch), Seq(*first))).collect(),
            last_time_us: state.last_time_us,
            has_begun: state.end > 0 || !state.epochs.is_empty(),
            pieces: VecDeque::new(),
        }
    }

    /// Takes the events of an entry. `false` if they do not follow.
    pub fn push(&mut self, lsn: Lsn, epoch: Epoch, entry: &EventsEntry<'_>, inline: &[u8]) -> bool {
        let first = entry.fields.first;
        if !self.has_begun && first == entry.fields.segment_first {
            // A channel that was in memory before begins behind what it had dropped there.
            (self.head, self.base, self.end) = (self.head.max(first), first, first);
        }
        if first != self.end {
            return false;
        }
        self.has_begun = true;
        self.lsn = lsn;
        self.begin_epoch(epoch, entry.fields.first);
        self.last_time_us = entry.records.last().map_or(self.last_time_us, IndexRecord::time_us);
        let records: Arc<[IndexRecord]> = entry.records.into();
        let inline = Bytes::copy_from_slice(inline);
        self.pieces.push_back(Piece { lsn, fields: entry.fields, len: records.len(), records, inline });
        self.end = entry.end();
        true
    }

    /// Notes that an epoch begins at this sequence, unless it has begun.
    pub fn begin_epoch(&mut self, epoch: Epoch, first: Seq) {
        if self.epochs.last().is_none_or(|(last, _)| *last < epoch) {
            if self.epochs.last().is_some_and(|(_, last)| *last >= first) {
                self.epochs.pop();
            }
            self.epochs.push((epoch, first));
        }
    }

    /// Moves the head.
    pub fn trim(&mut self, lsn: Lsn, head: Seq) {
        self.lsn = lsn;
        self.head = self.head.max(head);
    }

    /// Drops the events from `end` on, in this epoch. `false` if they are not there.
    pub fn cut_off(&mut self, lsn: Lsn, epoch: Epoch, end: Seq) -> bool {
        if end > self.end {
            return false;
        }
        (self.lsn, self.has_begun) = (lsn, true);
        while self.pieces.back().is_some_and(|piece| piece.fields.first >= end) {
            self.pieces.pop_back();
        }
        if let Some(piece) = self.pieces.back_mut() {
            piece.len = piece.len.min((end.0 - piece.fields.first.0) as usize);
        }
        (self.base, self.end, self.head) = (self.base.min(end), end, self.head.min(end));
        while self.epochs.last().is_some_and(|(_, first)| *first >= end) {
            self.epochs.pop();
        }
        self.epochs.push((epoch, end));
        true
    }

    /// A checkpoint contains the commits below `state.lsn`: forgets what they brought.
    pub fn drop_contained(&mut self, state: &ChannelState) {
        while self.pieces.front().is_some_and(|piece| piece.lsn.0 < state.lsn) {
            self.pieces.pop_front();
        }
        let first = self.pieces.front().map_or(self.end, |piece| piece.fields.first);
        self.base = first.min(Seq(state.end));
    }

    /// Whether a state contains everything that is said here.
    pub fn is_contained(&self, state: &ChannelState) -> bool {
        self.lsn.0 < state.lsn
    }

    /// The piece with this event, and the event's place in it.
    fn find(&self, seq: Seq) -> Option<(&Piece, usize)> {
        let index = self.pieces.partition_point(|piece| piece.fields.first <= seq).checked_sub(1)?;
        let piece = &self.pieces[index];
        (seq < piece.end()).then(|| (piece, (seq.0 - piece.fields.first.0) as usize))
    }
}

/// A channel's [`News`], shared by the follower and readers.
#[derive(Debug)]
pub struct Overlay {
    disk: Arc<dyn Disk>,
    channel: ChannelId,
    name: ChannelName,
    news: Mutex<News>,
    polls: Arc<Polls>,
}

/// What a look into memory found.
enum Look {
    Events(EventChunk),
    OnDisk(Seq),
    Extent(ExtentRead),
}

/// Events whose payloads lie in dat, at least in part.
struct ExtentRead {
    segment_first: Seq,
    first: Seq,
    records: Arc<[IndexRecord]>,
    range: std::ops::Range<usize>,
    /// Where in dat the extent ends and the inline bytes begin.
    border: u64,
    inline: Bytes,
}

impl Overlay {
    /// The overlay of a channel.
    pub fn new(disk: Arc<dyn Disk>, channel: ChannelId, name: ChannelName, news: News, polls: Arc<Polls>) -> Self {
        Self { disk, channel, name, news: Mutex::new(news), polls }
    }

    /// The news, for the follower.
    pub fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().expect("no panic while the lock is held")
    }

    /// The channel's name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Events from `from` on, as many as lie in memory and are read at once, if that one does.
    pub fn chunk_in_memory(&self, from: Seq) -> Option<EventChunk> {
        match self.look(from) {
            Look::Events(chunk) => Some(chunk),
            Look::OnDisk(_) | Look::Extent(_) => None,
        }
    }

    /// Reads events of `from..to`, at least one, from wherever they lie.
    pub fn read(&self, on_disk: &OnDisk, from: Seq, to: Seq) -> Result<EventChunk, ReadError> {
        self.read_by(from, to, |to| on_disk.read(from, to))
    }

    /// As [`Overlay::read`], as [`OnDisk::read_checked`] does it.
    pub fn read_checked(&self, on_disk: &OnDisk, from: Seq, to: Seq) -> Result<EventChunk, ReadError> {
        self.read_by(from, to, |to| on_disk.read_checked(from, to))
    }

    fn read_by(
        &self,
        from: Seq,
        to: Seq,
        on_disk: impl Fn(Seq) -> Result<EventChunk, ReadError>,
    ) -> Result<EventChunk, ReadError> {
        let chunk = self.caught_up(|| match self.look(from) {
            Look::Events(chunk) => Ok(chunk),
            Look::OnDisk(base) => on_disk(if base > from { to.min(base) } else { to }),
            Look::Extent(read) => self.read_extent(&read),
        });
        chunk.map(|mut chunk| {
            chunk.truncate((to.0 - from.0) as usize);
            chunk
        })
    }

    /// Reads, and once more if that fails: the writer has dropped a file, or made another of its name behind a cut, and has
    /// told of that before. So the channel's head or end says so once the journal was read on. Damage stays.
    pub fn caught_up<T>(&self, read: impl Fn() -> Result<T, ReadError>) -> Result<T, ReadError> {
        match read() {
            Err(_) if self.polls.wait_for_next() => read(),
            result => result,
        }
    }

    /// The first event at or after a time, if an earlier one is above the checkpoint too; else where that begins.
    pub fn seek_time(&self, time_us: u64) -> Result<Seq, Seq> {
        let news = self.news();
        let is_before = |record: &IndexRecord| record.time_us() < time_us;
        let after = news.pieces.partition_point(|piece| piece.records.first().is_some_and(is_before));
        let piece = after.checked_sub(1).map(|last| &news.pieces[last]).ok_or(news.base)?;
        Ok(Seq(piece.fields.first.0 + piece.records[..piece.len].partition_point(is_before) as u64))
    }

    fn look(&self, from: Seq) -> Look {
        let news = self.news();
        let Some((piece, at)) = news.find(from) else { return Look::OnDisk(news.base) };
        let records = &piece.records[at..piece.len.min(at + EVENTS_AT_ONCE)];
        let count = records.iter().take_while(|record| is_in_memory(piece, record)).count();
        if count > 0 {
            let dat = DatBytes { base: piece.fields.dat_offset, bytes: piece.inline.clone() };
            return Look::Events(EventChunk::read(from, records[..count].to_vec(), dat));
        }
        Look::Extent(ExtentRead {
            segment_first: piece.fields.segment_first,
            first: from,
            records: piece.records.clone(),
            range: at..piece.len,
            border: piece.fields.extent_range().end,
            inline: piece.inline.clone(),
        })
    }

    /// Reads payloads from dat, as many as are read at once; checks them.
    fn read_extent(&self, read: &ExtentRead) -> Result<EventChunk, ReadError> {
        let path = dat_path(self.channel, read.segment_first);
        let io = |offset, error: io::Error| ReadError::Io {
            channel: self.name.clone(),
            file: path.clone(),
            offset,
            source: Arc::new(error),
        };
        let records = &read.records[read.range.clone()];
        let start = dat_start(&records[0]);
        let within = |record: &&IndexRecord| dat_end(record).is_none_or(|end| end <= start + EXTENT_BYTES_AT_ONCE);
        let count = records.iter().take_while(within).count().max(1);
        let end = records[..count].iter().filter_map(dat_end).max().unwrap_or(start);
        let floor = start - start % BLOCK_SIZE as u64;
        let mut buf = AlignedBuf::new((end - floor) as usize);
        let in_dat = (end.min(read.border).saturating_sub(floor) as usize).next_multiple_of(BLOCK_SIZE);
        let file = self.disk.open_segment(&path, OpenMode::Read).map_err(|error| io(floor, error))?;
        file.read_at(&mut buf[..in_dat], floor).map_err(|error| io(floor, error))?;
        // Behind the extent lie the entry's own bytes.
        let from = (read.border.max(floor) - floor) as usize;
        let skip = floor.saturating_sub(read.border).min(read.inline.len() as u64) as usize;
        let behind = (read.inline.len() - skip).min(buf.len().saturating_sub(from));
        if behind > 0 {
            buf[from..from + behind].copy_from_slice(&read.inline[skip..skip + behind]);
        }
        let (base, bytes) = (floor as u32, Bytes::from_owner(buf));
        let whole = records[..count].iter().take_while(|record| is_whole(record, base, &bytes)).count();
        if whole == 0 {
            let (offset, len) = (start, records[0].payload_len() as u32);
            let (channel, seq) = (self.name.clone(), read.first.0);
            return Err(ReadError::Payload { channel, seq, file: path, offset, len });
        }
        // What lies before damage is shown first; the next step reports it.
        Ok(EventChunk::read(read.first, records[..whole].to_vec(), DatBytes { base, bytes }))
    }
}

/// Where a payload begins in dat; 0 if it does not lie there.
fn dat_start(record: &IndexRecord) -> u64 {
    match record.place() {
        RecordPlace::Dat { offset, .. } => offset.into(),
        RecordPlace::Inline { .. } => 0,
    }
}

/// Where a payload ends in dat, if it lies there.
fn dat_end(record: &IndexRecord) -> Option<u64> {
    match record.place() {
        RecordPlace::Dat { offset, len } => Some(u64::from(offset) + u64::from(len)),
        RecordPlace::Inline { .. } => None,
    }
}

/// Whether all of a payload lies in the record or in the piece's inline bytes.
fn is_in_memory(piece: &Piece, record: &IndexRecord) -> bool {
    match record.place() {
        RecordPlace::Inline { .. } => true,
        RecordPlace::Dat { offset, len } => offset
            .checked_sub(piece.fields.dat_offset)
            .is_some_and(|from| u64::from(from) + u64::from(len) <= piece.inline.len() as u64),
    }
}

/// Whether a payload is what the record says, in bytes of dat that begin at `base`.
fn is_whole(record: &IndexRecord, base: u32, bytes: &[u8]) -> bool {
    let RecordPlace::Dat { offset, len } = record.place() else { return true };
    let Some(from) = offset.checked_sub(base) else { return false };
    let range = from as usize..from as usize + len as usize;
    bytes.get(range).is_some_and(|payload| record.verify_payload(payload))
}
