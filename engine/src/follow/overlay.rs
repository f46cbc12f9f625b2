//! What the journal says of a channel above its checkpoint: the newest durable events, in memory.
//!
//! Events come by pieces, one an entry of a commit: their records, and the payload bytes that lay in the journal. Payloads
//! that went around the journal are read from dat. Below [`News::base`] the channel is on disk, as its checkpoint says.
//!
//! Promises: what is read is checked, or was when it was taken from the journal; a checkpoint takes over what it contains
//! without a moment in which it is in neither place. A reader that had events which were truncated since is told
//! ([`Overlay::truncated_since`]).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::channel_name::ChannelName;
use crate::error::ReadError;
use crate::event::{EventTime, Payload, RedexEvent};
use crate::ids::{ChannelId, Epoch, Lsn, Seq};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, OpenMode};
use crate::journal::format::{EventsEntry, EventsFields};
use crate::segment::path::dat_path;
use crate::segment::record::{IndexRecord, RecordPlace};
use crate::store::checkpoint::ChannelState;

/// Events that a reader takes at once.
const EVENTS_AT_ONCE: usize = 256;
/// Payload bytes of an extent that are read at once, unless one event has more.
const EXTENT_BYTES_AT_ONCE: u64 = 1 << 20;
/// Truncations that are told apart; of older ones only the lowest end is known.
const TRUNCATIONS_KEPT: usize = 1024;

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
            pieces: VecDeque::new(),
        }
    }

    /// Takes the events of an entry. `false` if they do not follow.
    pub fn push(&mut self, lsn: Lsn, epoch: Epoch, entry: &EventsEntry<'_>, inline: &[u8]) -> bool {
        if entry.fields.first != self.end {
            return false;
        }
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

    /// Drops the events from `end` on.
    pub fn truncate(&mut self, lsn: Lsn, epoch: Epoch, end: Seq) {
        self.lsn = lsn;
        if end >= self.end {
            return;
        }
        while self.pieces.back().is_some_and(|piece| piece.fields.first >= end) {
            self.pieces.pop_back();
        }
        if let Some(piece) = self.pieces.back_mut() {
            piece.len = piece.len.min((end.0 - piece.fields.first.0) as usize);
        }
        (self.base, self.end) = (self.base.min(end), end);
        self.epochs.retain(|(_, first)| *first <= end);
        self.begin_epoch(epoch, end);
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

/// Where a truncation left the channel: all after the `count`th, up to the next kept, ended at `end` or above.
#[derive(Clone, Copy, Debug)]
struct Truncation {
    count: u64,
    end: Seq,
}

/// A channel's [`News`], shared by the follower and readers.
#[derive(Debug)]
pub struct Overlay {
    disk: Arc<dyn Disk>,
    channel: ChannelId,
    name: ChannelName,
    news: Mutex<News>,
    /// The store's epoch.
    epoch: AtomicU32,
    /// How often the end went back.
    truncations: AtomicU64,
    /// Ends, ascending in both.
    ends: Mutex<VecDeque<Truncation>>,
}

/// What a look into memory found.
enum Look {
    Events,
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
    pub fn new(disk: Arc<dyn Disk>, channel: ChannelId, name: ChannelName, news: News, epoch: Epoch) -> Self {
        Self {
            disk,
            channel,
            name,
            news: Mutex::new(news),
            epoch: AtomicU32::new(epoch.0),
            truncations: AtomicU64::new(0),
            ends: Mutex::default(),
        }
    }

    /// The news, for the follower.
    pub fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().expect("no panic while the lock is held")
    }

    /// The channel's name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// The store's epoch.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// The store was opened again.
    pub fn set_epoch(&self, epoch: Epoch) {
        self.epoch.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// How often the channel's end went back.
    #[inline]
    pub fn truncations(&self) -> u64 {
        self.truncations.load(Ordering::Acquire)
    }

    /// Notes that the channel's end went back. Before anything else shows it.
    pub fn note_truncation(&self, end: Seq) {
        let mut ends = self.ends.lock().expect("no panic while the lock is held");
        let count = self.truncations.load(Ordering::Relaxed);
        while ends.back().is_some_and(|last| last.end >= end) {
            ends.pop_back();
        }
        ends.push_back(Truncation { count, end });
        if ends.len() > TRUNCATIONS_KEPT {
            let first = ends.pop_front().expect("there are many");
            ends[0].end = first.end;
        }
        self.truncations.store(count + 1, Ordering::Release);
    }

    /// The lowest end since the `count`th truncation.
    pub fn truncated_since(&self, count: u64) -> Option<Seq> {
        let ends = self.ends.lock().expect("no panic while the lock is held");
        ends.iter().find(|truncation| truncation.count >= count).map(|truncation| truncation.end)
    }

    /// Moves events from `from` on to `out`, as many as lie in memory and are read at once; none if it does not.
    pub fn read_memory(&self, from: Seq, out: &mut VecDeque<RedexEvent>) -> bool {
        matches!(self.look(from, out), Look::Events)
    }

    /// Reads events of `from..to`, at least one; below the news by `on_disk`.
    pub fn read(
        &self,
        from: Seq,
        to: Seq,
        out: &mut VecDeque<RedexEvent>,
        on_disk: impl FnOnce(Seq, &mut VecDeque<RedexEvent>) -> Result<Seq, ReadError>,
    ) -> Result<Seq, ReadError> {
        match self.look(from, out) {
            Look::Events => Ok(Seq(from.0 + out.len() as u64)),
            Look::OnDisk(base) => on_disk(if base > from { to.min(base) } else { to }, out),
            Look::Extent(read) => self.read_extent(&read, out),
        }
    }

    fn look(&self, from: Seq, out: &mut VecDeque<RedexEvent>) -> Look {
        let news = self.news();
        let Some((piece, at)) = news.find(from) else { return Look::OnDisk(news.base) };
        for (i, record) in piece.records[at..piece.len].iter().enumerate().take(EVENTS_AT_ONCE) {
            let Some(payload) = payload_in_memory(piece, record) else { break };
            out.push_back(RedexEvent { seq: from.0 + i as u64, payload, time: EventTime(record.time_us()) });
        }
        if !out.is_empty() {
            return Look::Events;
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
    fn read_extent(&self, read: &ExtentRead, out: &mut VecDeque<RedexEvent>) -> Result<Seq, ReadError> {
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
        let end = records[..count].iter().filter_map(dat_end).max().unwrap_or(start).min(read.border);
        let floor = start - start % BLOCK_SIZE as u64;
        let len = ((end - floor) as usize).next_multiple_of(BLOCK_SIZE);
        let mut buf = AlignedBuf::new(len);
        let file = self.disk.open_segment(&path, OpenMode::Read).map_err(|error| io(floor, error))?;
        let have = file.read_at(&mut buf[..len], floor).map_err(|error| io(floor, error))?;
        let bytes = Bytes::from_owner(buf).slice(..have);
        for (i, record) in records[..count].iter().enumerate() {
            let seq = read.first.0 + i as u64;
            match payload_on_disk(record, floor, &bytes, read) {
                Some(payload) => out.push_back(RedexEvent { seq, payload, time: EventTime(record.time_us()) }),
                // What lies before the damage is shown first; the next step reports it.
                None if i > 0 => break,
                None => {
                    let (offset, len) = (dat_start(record), record.payload_len() as u32);
                    let channel = self.name.clone();
                    return Err(ReadError::Payload { channel, seq, file: path, offset, len });
                }
            }
        }
        Ok(Seq(read.first.0 + out.len() as u64))
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

/// The payload, if all of it lies in the record or in the piece's inline bytes.
fn payload_in_memory(piece: &Piece, record: &IndexRecord) -> Option<Payload> {
    match record.place() {
        RecordPlace::Inline { bytes, len } => Some(Payload::inline(&bytes[..len])),
        RecordPlace::Dat { len: 0, .. } => Some(Payload::inline(&[])),
        RecordPlace::Dat { offset, len } => {
            let from = offset.checked_sub(piece.fields.dat_offset)? as usize;
            let to = from + len as usize;
            (to <= piece.inline.len()).then(|| Payload::shared(piece.inline.slice(from..to)))
        }
    }
}

/// The payload from bytes of dat that begin at `floor`, and from the inline bytes behind the extent; `None` if it is not
/// whole.
fn payload_on_disk(record: &IndexRecord, floor: u64, bytes: &Bytes, read: &ExtentRead) -> Option<Payload> {
    let RecordPlace::Dat { offset, len } = record.place() else {
        let RecordPlace::Inline { bytes, len } = record.place() else { return None };
        return Some(Payload::inline(&bytes[..len]));
    };
    let (start, end) = (u64::from(offset), u64::from(offset) + u64::from(len));
    if start >= read.border {
        let from = (start - read.border) as usize;
        let payload = read.inline.get(from..from + len as usize)?;
        return Some(Payload::shared(read.inline.slice_ref(payload)));
    }
    let from = usize::try_from(start.checked_sub(floor)?).ok()?;
    let first = bytes.get(from..from + (end.min(read.border) - start) as usize)?;
    let payload = match end.checked_sub(read.border).filter(|behind| *behind > 0) {
        None => bytes.slice_ref(first),
        Some(behind) => Bytes::from([first, read.inline.get(..behind as usize)?].concat()),
    };
    record.verify_payload(&payload).then(|| Payload::shared(payload))
}
