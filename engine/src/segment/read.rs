//! Reads events from a channel's segments.
//!
//! An event that has left memory has its record in an index block on disk, or, as long as its block is not full, in the
//! *stub*: the records of the unfinished index block and, after a reopen, the bytes of the unfinished dat block. A reader
//! looks in the pages, then in the stub, then on disk; what it looks for moves only in that direction.
//!
//! Promises: every block and every payload is checked before it is shown; damage names the file, the place and the
//! events. The shard's thread tells what is on disk; nothing here writes.

mod buf;
pub mod sizes;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use self::buf::ReadBuf;
use super::block::{BlockPlace, RECORDS_PER_BLOCK, decode_block};
use super::chunk::{DatBytes, EventChunk};
use super::footer::Footer;
use super::path::{dat_path, idx_path};
use super::record::{IndexRecord, RecordPlace};
use super::warm::WarmPlace;
use crate::channel_name::ChannelName;
use crate::cold::channel::ColdChannel;
use crate::cold::failure::ColdFailure;
use crate::cold::manifest::has_manifest;
use crate::cold::object::Part;
use crate::error::ReadError;
use crate::ids::{ChannelId, Seq};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, File, OpenMode};
use crate::sync::scheduled::Mutex;

/// Index blocks read at once.
const IDX_BLOCKS_PER_READ: usize = 32;
/// Payload bytes read at once, unless one event has more.
const DAT_BYTES_PER_READ: usize = 1 << 20;
/// Bytes for which memory is had because a record says so. For more its file is asked first: whole checksums around wrong lengths are
/// rare, and not impossible.
const LENGTH_TRUSTED: u64 = 4 << 20;

/// One segment as readers see it.
#[derive(Debug)]
struct SegmentRef {
    first: Seq,
    /// End of its events, once no more come.
    end: Option<Seq>,
    /// Bytes of its dat, once no more come.
    dat_size: Option<u32>,
    idx: Option<Arc<dyn File>>,
    dat: Option<Arc<dyn File>>,
    /// Where it is mapped, once it is sealed and was read.
    warm: Option<Arc<WarmPlace>>,
    /// Its footer, once it was looked for; `None` in it if there is none to be had.
    footer: Option<Option<Arc<Footer>>>,
    /// Time of its first event, once it was looked for in the segment without a footer.
    first_time_us: Option<u64>,
}

/// What a search or a check needs of a segment.
#[derive(Debug)]
pub struct SegmentFiles {
    /// First sequence.
    pub first: Seq,
    /// Whether no more events come.
    pub is_sealed: bool,
    /// Its idx.
    pub idx: Arc<dyn File>,
    /// See [`SegmentRef::footer`].
    pub footer: Option<Option<Arc<Footer>>>,
    /// See [`SegmentRef::first_time_us`].
    pub first_time_us: Option<u64>,
}

impl SegmentRef {
    /// One whose files nobody has opened.
    fn new(first: Seq, end: Option<Seq>) -> Self {
        Self { first, end, dat_size: None, idx: None, dat: None, warm: None, footer: None, first_time_us: None }
    }
}

/// What is on disk only in part; see the module's text.
#[derive(Debug, Default)]
struct Stub {
    base: Seq,
    records: VecDeque<IndexRecord>,
    dat_offset: u32,
    dat: Bytes,
}

#[derive(Debug, Default)]
struct Inner {
    segments: Vec<SegmentRef>,
    stub: Stub,
    /// Records below are in index blocks.
    idx_done: Seq,
    /// Bytes of the active segment's dat that were written, whole blocks.
    dat_done: u32,
}

/// A channel's segments, shared by its shard and its readers.
#[derive(Debug)]
pub struct OnDisk {
    disk: Arc<dyn Disk>,
    channel: ChannelId,
    name: ChannelName,
    /// What lies in the cold store, if the store has one.
    cold: OnceLock<Arc<ColdChannel>>,
    inner: Mutex<Inner>,
}

/// What one step of a read goes by.
struct Plan {
    /// Where the segment is mapped, if it is sealed.
    warm: Option<Arc<WarmPlace>>,
    segment_first: Seq,
    idx: Option<Arc<dyn File>>,
    dat: Option<Arc<dyn File>>,
    records: Vec<IndexRecord>,
    to: Seq,
    dat_tail: (u32, Bytes),
}

impl OnDisk {
    /// The segments `(first, end if sealed)` in order, and the stub: records from `base` on, and the bytes from
    /// `dat_offset` on, of the last segment.
    pub fn new(
        disk: Arc<dyn Disk>,
        channel: ChannelId,
        name: ChannelName,
        segments: &[(Seq, Option<Seq>)],
        base: Seq,
        records: &[IndexRecord],
        dat_tail: (u32, Bytes),
    ) -> Self {
        let segments = segments.iter().map(|(first, end)| SegmentRef::new(*first, *end)).collect();
        let dat_tail_offset = dat_tail.0;
        let stub = Stub { base, records: records.iter().copied().collect(), dat_offset: dat_tail.0, dat: dat_tail.1 };
        let inner = Inner { segments, stub, idx_done: base, dat_done: dat_tail_offset };
        Self { disk, channel, name, cold: OnceLock::new(), inner: Mutex::new(inner) }
    }

    /// Sealed segments may lie in the cold store only. Said once, before anything is read.
    pub fn set_cold(&self, cold: Arc<ColdChannel>) {
        assert!(self.cold.set(cold).is_ok(), "a channel has one cold half");
    }

    /// What lies in the cold store.
    pub fn cold(&self) -> Option<&Arc<ColdChannel>> {
        self.cold.get()
    }

    /// The sealed segments: first sequence and end of each, in order.
    pub fn sealed(&self) -> Vec<(Seq, Seq)> {
        self.lock().segments.iter().filter_map(|segment| Some((segment.first, segment.end?))).collect()
    }

    /// The local pair of a sealed segment is about to go: readers open its files anew.
    pub fn forget_files(&self, first: Seq) {
        let mut inner = self.lock();
        for segment in inner.segments.iter_mut().filter(|segment| segment.first == first) {
            *segment = SegmentRef { dat_size: segment.dat_size, ..SegmentRef::new(segment.first, segment.end) };
        }
    }

    fn lock(&self) -> crate::sync::scheduled::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while the lock is held")
    }

    /// Goes on from another state of the same channel, which has all events that this one has, or lies below what readers see.
    pub fn replace(&self, other: Self) {
        *self.lock() = other.inner.into_inner().expect("no panic while the lock is held");
    }

    /// A segment was begun. Readers open its files themselves, when they first read from it.
    pub fn add_segment(&self, first: Seq) {
        let mut inner = self.lock();
        assert!(inner.segments.last().is_none_or(|last| last.first < first), "segments come in order");
        inner.segments.push(SegmentRef::new(first, None));
        inner.dat_done = 0;
    }

    /// No more events come to the segment that began with `first`.
    pub fn end_segment(&self, first: Seq, end: Seq) {
        let mut inner = self.lock();
        if let Some(segment) = inner.segments.iter_mut().find(|segment| segment.first == first) {
            segment.end = Some(end);
        }
    }

    /// Segments that begin below `first` are gone.
    pub fn drop_below(&self, first: Seq) {
        let mut inner = self.lock();
        inner.segments.retain(|segment| segment.first >= first);
    }

    /// The events from `end` on are gone, all of which lay in sealed segments; a new one begins there.
    pub fn cut_off(&self, end: Seq) {
        let mut inner = self.lock();
        inner.segments.retain_mut(|segment| {
            segment.end = segment.end.map(|before| before.min(end));
            segment.first < end
        });
        inner.segments.push(SegmentRef::new(end, None));
        inner.stub = Stub { base: end, ..Stub::default() };
        inner.idx_done = end;
        inner.dat_done = 0;
    }

    /// Events from `end` on are not to be looked for here; those below stay where they are.
    pub fn end_at(&self, end: Seq) {
        let mut inner = self.lock();
        let Inner { segments, stub, .. } = &mut *inner;
        let last = segments.last().map(|segment| segment.first);
        segments.retain_mut(|segment| {
            segment.end = segment.end.map(|before| before.min(end));
            segment.first < end
        });
        if segments.last().map(|segment| segment.first) == last {
            stub.records.truncate(usize::try_from(end.0.saturating_sub(stub.base.0)).unwrap_or(usize::MAX));
        } else {
            *stub = Stub { base: end, ..Stub::default() };
        }
    }

    /// First sequence and end of each segment.
    pub fn bounds(&self) -> Vec<(Seq, Seq)> {
        let inner = self.lock();
        let next = inner.segments.iter().skip(1).map(|segment| segment.first).chain([Seq(u64::MAX)]);
        inner.segments.iter().zip(next).map(|(segment, next)| (segment.first, segment.end.unwrap_or(next))).collect()
    }

    /// Record of an event.
    pub fn record(&self, seq: Seq) -> Result<IndexRecord, ReadError> {
        let mut plan = self.plan(seq, Seq(seq.0 + 1))?;
        if plan.records.is_empty() {
            self.read_records(seq, &mut plan)?;
        }
        self.check_records(&mut plan.records, seq)?;
        Ok(plan.records[0])
    }

    /// Adds the records of a page that is about to leave memory, `first` being the sequence of the first.
    pub fn push_stub(&self, first: Seq, records: impl Iterator<Item = IndexRecord>) {
        let mut inner = self.lock();
        if inner.stub.records.is_empty() {
            inner.stub.base = first;
        }
        assert_eq!(inner.stub.base.0 + inner.stub.records.len() as u64, first.0, "the stub has no gap");
        inner.stub.records.extend(records);
    }

    /// Records below `seq` are on disk now.
    pub fn trim_stub(&self, seq: Seq) {
        let mut inner = self.lock();
        inner.idx_done = inner.idx_done.max(seq);
        let stub = &mut inner.stub;
        let gone = usize::try_from(seq.0.saturating_sub(stub.base.0))
            .map_or(stub.records.len(), |n| n.min(stub.records.len()));
        stub.records.drain(..gone);
        stub.base = Seq(stub.base.0 + gone as u64);
    }

    /// Record of an event in the stub.
    pub fn stub_record(&self, seq: Seq) -> Option<IndexRecord> {
        let inner = self.lock();
        let index = usize::try_from(seq.0.checked_sub(inner.stub.base.0)?).ok()?;
        inner.stub.records.get(index).copied()
    }

    /// Appends the records of `from..to` to `out`, as far as the stub has them. Returns the next sequence.
    pub fn copy_stub(&self, from: Seq, to: Seq, out: &mut Vec<IndexRecord>) -> Seq {
        let inner = self.lock();
        let stub = &inner.stub;
        let end = to.0.min(stub.base.0 + stub.records.len() as u64);
        if from < stub.base || from.0 >= end {
            return from;
        }
        out.extend(stub.records.range((from.0 - stub.base.0) as usize..(end - stub.base.0) as usize));
        Seq(end)
    }

    /// The block of dat that was unfinished at the reopen is on disk now.
    pub fn drop_dat_tail(&self) {
        self.lock().stub.dat = Bytes::new();
    }

    /// Reads events of `from..to`, as many as one step takes; at least one.
    pub fn read(&self, from: Seq, to: Seq) -> Result<EventChunk, ReadError> {
        assert!(from < to, "the caller reads something");
        let plan = self.plan(from, to)?;
        match self.read_warm(from, &plan) {
            Some(chunk) => Ok(chunk),
            None => self.read_plan(from, plan),
        }
    }

    /// As [`OnDisk::read`], past the page cache and what is remembered as checked.
    pub fn read_checked(&self, from: Seq, to: Seq) -> Result<EventChunk, ReadError> {
        assert!(from < to, "the caller reads something");
        self.read_plan(from, self.plan(from, to)?)
    }

    fn read_plan(&self, from: Seq, mut plan: Plan) -> Result<EventChunk, ReadError> {
        if plan.records.is_empty() {
            self.read_records(from, &mut plan)?;
        }
        self.check_records(&mut plan.records, from)?;
        let count = records_within(&plan.records, DAT_BYTES_PER_READ);
        let (count, dat) = self.read_dat(&plan, from, count)?;
        plan.records.truncate(count);
        let whole = self.check_payloads(&plan, from, &dat)?;
        plan.records.truncate(whole);
        Ok(EventChunk::read(from, plan.records, dat))
    }

    /// Reads from the mapping of a sealed segment; `None` if it has to be read by plain calls.
    fn read_warm(&self, from: Seq, plan: &Plan) -> Option<EventChunk> {
        let (warm, idx) = (plan.warm.as_ref()?, plan.idx.as_ref()?);
        let place = BlockPlace { channel: self.channel, segment_first: plan.segment_first };
        warm.read(self.disk.mapping_budget()?, place, (idx, plan.dat.as_ref()), (from, plan.to))
    }

    /// Keeps the records in front of the first that is damaged: their events are shown first, and the next step reports it.
    fn check_records(&self, records: &mut Vec<IndexRecord>, from: Seq) -> Result<(), ReadError> {
        let damaged = records.iter().enumerate().find_map(|(i, record)| Some((i, record.check().err()?)));
        match damaged {
            None => Ok(()),
            Some((0, source)) => Err(ReadError::Record { channel: self.name.clone(), seq: from.0, source }),
            Some((i, _)) => {
                records.truncate(i);
                Ok(())
            }
        }
    }

    /// Finds the segment and what of the records is in the stub.
    fn plan(&self, from: Seq, to: Seq) -> Result<Plan, ReadError> {
        let mut inner = self.lock();
        let Inner { segments, stub, .. } = &mut *inner;
        let index = segments.partition_point(|segment| segment.first <= from);
        let Some(index) = index.checked_sub(1) else { return Err(self.missing(from, to, from)) };
        let next_first = segments.get(index + 1).map(|segment| segment.first);
        let segment = &mut segments[index];
        let end = segment.end.or(next_first).unwrap_or(Seq(u64::MAX));
        let mut to = to.min(end);
        if from >= to {
            return Err(self.missing(segment.first, to, from));
        }
        let mut records = Vec::new();
        let stub_end = stub.base.0 + stub.records.len() as u64;
        if from >= stub.base && from.0 < stub_end {
            let range = (from.0 - stub.base.0) as usize..(to.0.min(stub_end) - stub.base.0) as usize;
            records.extend(stub.records.range(range));
        } else if from < stub.base {
            to = to.min(stub.base);
        }
        let is_last = next_first.is_none();
        let dat_tail = if is_last { (stub.dat_offset, stub.dat.clone()) } else { (0, Bytes::new()) };
        if records.is_empty() && segment.idx.is_none() {
            let path = idx_path(self.channel, segment.first);
            let opened = self.open(&path, segment, Part::Idx);
            segment.idx = Some(opened.map_err(|error| self.io(&path, 0, error))?);
        }
        let on_disk = |record: &IndexRecord| matches!(record.place(), RecordPlace::Dat { .. });
        let needs_dat = records.is_empty() || records.iter().any(on_disk);
        let dat_path = dat_path(self.channel, segment.first);
        if needs_dat && segment.dat.is_none() {
            // A channel without a payload on disk has no dat file: then no record will ask for it.
            segment.dat = match self.open(&dat_path, segment, Part::Dat) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(self.io(&dat_path, 0, error)),
            };
        }
        if segment.end.is_some() && segment.warm.is_none() && self.disk.mapping_budget().is_some() {
            segment.warm = Some(Arc::default());
        }
        Ok(Plan {
            warm: segment.warm.clone().filter(|_| segment.end.is_some() && records.is_empty()),
            segment_first: segment.first,
            idx: segment.idx.clone(),
            dat: segment.dat.clone(),
            records,
            to,
            dat_tail,
        })
    }

    /// First sequence and end of the segments that begin below `limit`; none of them ends above it.
    pub fn segment_ranges(&self, limit: Seq) -> Vec<(Seq, Seq)> {
        let inner = self.lock();
        let firsts = inner.segments.iter().map(|segment| segment.first).skip(1).chain([Seq(u64::MAX)]);
        let ranges = inner.segments.iter().zip(firsts);
        let range = |(segment, next): (&SegmentRef, Seq)| (segment.first, segment.end.unwrap_or(next).min(limit));
        ranges.map(range).take_while(|(first, _)| *first < limit).filter(|(first, end)| first < end).collect()
    }

    /// First sequence and end of the sealed segments.
    pub fn sealed_segments(&self) -> Vec<(Seq, Seq)> {
        self.lock().segments.iter().filter_map(|segment| Some((segment.first, segment.end?))).collect()
    }

    /// Path of the idx file of the segment that begins with `first`.
    pub fn idx_path(&self, first: Seq) -> String {
        idx_path(self.channel, first)
    }

    /// In which idx file the record of an event lies, and where its block begins.
    pub fn block_place(&self, seq: Seq) -> (String, u64) {
        let inner = self.lock();
        let index = inner.segments.partition_point(|segment| segment.first <= seq);
        let first = index.checked_sub(1).map_or(Seq(0), |index| inner.segments[index].first);
        let block = (seq.0 - first.0) / RECORDS_PER_BLOCK as u64;
        (self.idx_path(first), block * BLOCK_SIZE as u64)
    }

    /// First sequence of the index block behind that of an event.
    pub fn next_block(&self, seq: Seq) -> Seq {
        let inner = self.lock();
        let index = inner.segments.partition_point(|segment| segment.first <= seq);
        let first = index.checked_sub(1).map_or(Seq(0), |index| inner.segments[index].first);
        Seq(first.0 + ((seq.0 - first.0) / RECORDS_PER_BLOCK as u64 + 1) * RECORDS_PER_BLOCK as u64)
    }

    /// Size of the dat file of a segment; 0 if it has none.
    pub fn dat_len(&self, first: Seq) -> Result<u64, ReadError> {
        let path = dat_path(self.channel, first);
        let opened = {
            let inner = self.lock();
            let Some(segment) = inner.segments.iter().find(|segment| segment.first == first) else { return Ok(0) };
            self.open(&path, segment, Part::Dat)
        };
        let size = opened.and_then(|file| file.size());
        match size {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            size => size.map_err(|error| self.io(&path, 0, error)),
        }
    }

    /// The files of the segment that begins with `first`, opened.
    pub fn segment_files(&self, first: Seq) -> Result<SegmentFiles, ReadError> {
        let mut inner = self.lock();
        let segment = inner.segments.iter_mut().find(|segment| segment.first == first);
        let Some(segment) = segment else { return Err(self.missing(first, first, first)) };
        let idx = match &segment.idx {
            Some(idx) => idx.clone(),
            None => {
                let path = idx_path(self.channel, first);
                let opened = self.open(&path, segment, Part::Idx).map_err(|error| self.io(&path, 0, error))?;
                segment.idx.insert(opened).clone()
            }
        };
        let (is_sealed, footer) = (segment.end.is_some(), segment.footer.clone());
        Ok(SegmentFiles { first, is_sealed, idx, footer, first_time_us: segment.first_time_us })
    }

    /// Keeps a segment's footer for the next search.
    pub fn keep_footer(&self, first: Seq, footer: Option<Arc<Footer>>) {
        let mut inner = self.lock();
        if let Some(segment) = inner.segments.iter_mut().find(|segment| segment.first == first) {
            segment.footer = Some(footer);
        }
    }

    /// Keeps the time of a segment's first event for the next search.
    pub fn keep_first_time(&self, first: Seq, time_us: u64) {
        let mut inner = self.lock();
        if let Some(segment) = inner.segments.iter_mut().find(|segment| segment.first == first) {
            segment.first_time_us = Some(time_us);
        }
    }

    /// The channel's name.
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// What the blocks of a segment say of their place.
    pub fn place(&self, segment_first: Seq) -> BlockPlace {
        BlockPlace { channel: self.channel, segment_first }
    }

    /// The first event in the stub at or after a time, if an earlier one is there too; else the first in the stub, if any.
    pub fn seek_stub(&self, time_us: u64) -> Result<Seq, Option<Seq>> {
        let inner = self.lock();
        let Stub { base, records, .. } = &inner.stub;
        match records.partition_point(|record| record.time_us() < time_us) {
            0 => Err((!records.is_empty()).then_some(*base)),
            before => Ok(Seq(base.0 + before as u64)),
        }
    }

    /// Opens a file of a segment, wherever it is. Under the lock, so the cold store is not asked here.
    fn open(&self, path: &str, segment: &SegmentRef, part: Part) -> io::Result<Arc<dyn File>> {
        if let Some(cold) = self.cold.get().filter(|_| segment.end.is_some()) {
            return cold.open_file(&*self.disk, path, segment.first, part);
        }
        self.disk.open_segment(path, OpenMode::Read).map_err(|error| {
            let is_cold = segment.end.is_some()
                && error.kind() == io::ErrorKind::NotFound
                && has_manifest(&*self.disk, self.channel);
            if !is_cold {
                return error;
            }
            let answer = io::Error::other("the store was opened without its cold store; open it with that");
            ColdFailure::io("(unknown)", 0)(answer)
        })
    }

    /// The error of a call that the system refused.
    pub fn io(&self, path: &str, offset: u64, error: io::Error) -> ReadError {
        if let Some(ColdFailure { object, offset, source }) = ColdFailure::of(&error) {
            let (object, offset, source) = (object.clone(), *offset, source.clone());
            return ReadError::Cold { channel: self.name.clone(), file: path.to_owned(), object, offset, source };
        }
        ReadError::Io { channel: self.name.clone(), file: path.to_owned(), offset, source: Arc::new(error) }
    }

    fn missing(&self, segment_first: Seq, to: Seq, from: Seq) -> ReadError {
        let file = idx_path(self.channel, segment_first);
        ReadError::Missing { channel: self.name.clone(), file, offset: 0, from: from.0, to: to.0 }
    }

    /// Reads and checks the index blocks of some events.
    fn read_records(&self, from: Seq, plan: &mut Plan) -> Result<(), ReadError> {
        let idx = plan.idx.as_ref().expect("opened when no record is in the stub");
        let path = idx_path(self.channel, plan.segment_first);
        let place = BlockPlace { channel: self.channel, segment_first: plan.segment_first };
        let in_segment = from.0 - plan.segment_first.0;
        let block = in_segment / RECORDS_PER_BLOCK as u64;
        let last = (plan.to.0 - 1 - plan.segment_first.0) / RECORDS_PER_BLOCK as u64;
        let blocks = usize::try_from(last - block + 1).map_or(IDX_BLOCKS_PER_READ, |n| n.min(IDX_BLOCKS_PER_READ));
        let offset = block * BLOCK_SIZE as u64;
        let mut buf = AlignedBuf::new(blocks * BLOCK_SIZE);
        let read =
            idx.read_at(&mut buf[..blocks * BLOCK_SIZE], offset).map_err(|error| self.io(&path, offset, error))?;
        let mut skip = (in_segment % RECORDS_PER_BLOCK as u64) as usize;
        for (i, bytes) in buf[..read].chunks_exact(BLOCK_SIZE).enumerate() {
            let base = Seq(plan.segment_first.0 + (block + i as u64) * RECORDS_PER_BLOCK as u64);
            let records = decode_block(bytes, place, base).map_err(|source| ReadError::Index {
                channel: self.name.clone(),
                from: base.0.max(from.0),
                to: (base.0 + RECORDS_PER_BLOCK as u64).min(plan.to.0),
                file: path.clone(),
                offset: offset + (i * BLOCK_SIZE) as u64,
                source,
            });
            let records = match records {
                Ok(records) => records,
                // What lies before the damage is shown first.
                Err(_) if !plan.records.is_empty() => break,
                Err(error) => return Err(error),
            };
            plan.records.extend(records.iter().skip(skip));
            skip = 0;
            if records.len() < RECORDS_PER_BLOCK {
                break;
            }
        }
        plan.records.truncate(usize::try_from(plan.to.0 - from.0).unwrap_or(usize::MAX));
        if plan.records.is_empty() {
            let end = offset + read as u64;
            let to = plan.to.0;
            return Err(ReadError::Missing { channel: self.name.clone(), file: path, offset: end, from: from.0, to });
        }
        Ok(())
    }

    /// Reads the payload bytes of the first `count` records in one go; where dat ends early, of those in front of its end.
    /// Says of how many.
    fn read_dat(&self, plan: &Plan, from: Seq, count: usize) -> Result<(usize, DatBytes), ReadError> {
        let Some((start, end)) = dat_range(&plan.records[..count]) else {
            return Ok((count, DatBytes { base: 0, bytes: bytes::Bytes::new() }));
        };
        let path = dat_path(self.channel, plan.segment_first);
        let (tail_offset, tail) = &plan.dat_tail;
        let first_block = start / BLOCK_SIZE as u32 * BLOCK_SIZE as u32;
        let end = if end - u64::from(start) > LENGTH_TRUSTED { end.min(self.dat_end(plan)?) } else { end };
        let len = end.saturating_sub(u64::from(first_block)) as usize;
        let mut buf = ReadBuf::new(len);
        let rounded = len.next_multiple_of(BLOCK_SIZE);
        let read = match &plan.dat {
            Some(dat) => {
                let buf = &mut buf[..rounded];
                dat.read_at(buf, u64::from(first_block)).map_err(|error| self.io(&path, first_block.into(), error))?
            }
            None => 0,
        };
        let mut have = u64::from(first_block) + read as u64;
        let joins = have >= u64::from(*tail_offset) || first_block >= *tail_offset;
        let skip = first_block.saturating_sub(*tail_offset) as usize;
        if skip < tail.len() && end > u64::from(*tail_offset) && joins {
            // The unfinished block of a reopened channel: its bytes are in memory.
            let at = (tail_offset + skip as u32 - first_block) as usize;
            let n = (tail.len() - skip).min(rounded - at);
            buf[at..at + n].copy_from_slice(&tail[skip..skip + n]);
            have = have.max(u64::from(first_block) + (at + n) as u64);
        }
        let is_there = |record: &IndexRecord| payload_end(record).is_none_or(|end| end <= have);
        // What lies before the cut is shown first; the next step reports it.
        let count = plan.records[..count].iter().take_while(|record| is_there(record)).count();
        if count == 0 {
            let in_tail = |record: &IndexRecord| match record.place() {
                RecordPlace::Inline { .. } => true,
                RecordPlace::Dat { offset, .. } => offset >= *tail_offset && !tail.is_empty(),
            };
            let missing = plan.records.iter().take_while(|record| !is_there(record) && !in_tail(record)).count();
            let to = from.0 + missing.max(1) as u64;
            return Err(ReadError::Missing { channel: self.name.clone(), file: path, offset: have, from: from.0, to });
        }
        Ok((count, DatBytes { base: first_block, bytes: bytes::Bytes::from_owner(buf) }))
    }

    /// Where the payload bytes of a segment end, in its file or in memory.
    fn dat_end(&self, plan: &Plan) -> Result<u64, ReadError> {
        let path = dat_path(self.channel, plan.segment_first);
        let size = plan.dat.as_ref().map_or(Ok(0), |dat| dat.size()).map_err(|error| self.io(&path, 0, error))?;
        let (tail_offset, tail) = &plan.dat_tail;
        Ok(size.max(u64::from(*tail_offset) + tail.len() as u64))
    }

    /// Checks payloads, up to the first that is damaged. Says how many.
    fn check_payloads(&self, plan: &Plan, from: Seq, dat: &DatBytes) -> Result<usize, ReadError> {
        for (i, record) in plan.records.iter().enumerate() {
            let RecordPlace::Dat { offset, len } = record.place() else { continue };
            let at = (offset - dat.base) as usize;
            if record.verify_payload(&dat.bytes[at..at + len as usize]) {
                continue;
            }
            if i > 0 {
                // What lies before the damage is shown first; the next step reports it.
                return Ok(i);
            }
            let file = dat_path(self.channel, plan.segment_first);
            return Err(ReadError::Payload {
                channel: self.name.clone(),
                seq: from.0,
                file,
                offset: offset.into(),
                len,
            });
        }
        Ok(plan.records.len())
    }

    /// The error of a file that was changed by another program while its events were looked at.
    pub fn changed(&self, file: &str) -> ReadError {
        let why = "the file was changed by another program while its events were read; read them again";
        self.io(file, 0, io::Error::new(io::ErrorKind::InvalidData, why))
    }
}

/// How many of the first records have payloads within `bytes`; at least one.
fn records_within(records: &[IndexRecord], bytes: usize) -> usize {
    let mut start = None;
    for (i, record) in records.iter().enumerate() {
        if let RecordPlace::Dat { offset, len } = record.place() {
            let start = *start.get_or_insert(offset);
            // A record that points backwards is damaged or begins another run: it starts the next step.
            if i > 0 && (offset < start || (offset - start) as usize + len as usize > bytes) {
                return i;
            }
        }
    }
    records.len()
}

/// Where in dat a payload ends, if it lies there.
fn payload_end(record: &IndexRecord) -> Option<u64> {
    match record.place() {
        RecordPlace::Inline { .. } => None,
        RecordPlace::Dat { offset, len } => Some(u64::from(offset) + u64::from(len)),
    }
}

/// First byte and end of the payloads of some records.
fn dat_range(records: &[IndexRecord]) -> Option<(u32, u64)> {
    let mut range: Option<(u32, u64)> = None;
    for record in records {
        if let RecordPlace::Dat { offset, len } = record.place() {
            let end = u64::from(offset) + u64::from(len);
            let (start, so_far) = range.unwrap_or((offset, end));
            range = Some((start.min(offset), so_far.max(end)));
        }
    }
    range
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::io::sim::{SimDisk, SimOptions};
    use crate::read::after_damage;
    use crate::segment::block::encode_block;
    use crate::segment::path::{CHANNELS_DIR, channel_dir, fan_dir};

    const CHANNEL: ChannelId = ChannelId(1);
    const COUNT: usize = 100;
    /// Bytes of each payload that lies in dat; every tenth event is in its record.
    const LEN: usize = 100;

    fn payload(seq: usize) -> Vec<u8> {
        vec![seq as u8; if seq.is_multiple_of(10) { 5 } else { LEN }]
    }

    /// Records and dat of the events.
    fn events() -> (Vec<IndexRecord>, Vec<u8>) {
        let mut dat = Vec::new();
        let records = (0..COUNT).map(|seq| {
            let payload = payload(seq);
            let time = seq as u64;
            match payload.len() {
                5 => IndexRecord::inline(&payload, time),
                _ => {
                    let offset = dat.len() as u32;
                    dat.extend(&payload);
                    IndexRecord::in_dat(offset, payload.len() as u32, crc32c::crc32c(&payload), time)
                }
            }
        });
        (records.collect(), dat)
    }

    /// A channel of one segment with these files, and with the unfinished block of dat in memory if there is one.
    fn channel(records: &[IndexRecord], dat: &[u8], tail: (u32, Vec<u8>)) -> OnDisk {
        let disk = SimDisk::new(1, SimOptions::default());
        for dir in [CHANNELS_DIR.to_owned(), fan_dir(CHANNEL), channel_dir(CHANNEL)] {
            disk.create_dir(&dir).unwrap();
        }
        let mut block = vec![0; BLOCK_SIZE];
        encode_block(&mut block, records, Seq(0), BlockPlace { channel: CHANNEL, segment_first: Seq(0) });
        disk.write_file(&idx_path(CHANNEL, Seq(0)), &block).unwrap();
        disk.write_file(&dat_path(CHANNEL, Seq(0)), dat).unwrap();
        let (name, end) = (ChannelName::new("a").unwrap(), Seq(COUNT as u64));
        OnDisk::new(Arc::new(disk), CHANNEL, name, &[(Seq(0), Some(end))], end, &[], (tail.0, tail.1.into()))
    }

    /// Reads everything as a stream of results does: each event is delivered or named once. Gives those that are named.
    fn read_all(on_disk: &OnDisk) -> (Vec<u64>, Vec<ReadError>) {
        let (mut next, end) = (Seq(0), Seq(COUNT as u64));
        let (mut named, mut errors) = (Vec::new(), Vec::new());
        while next < end {
            match on_disk.read(next, end) {
                Ok(chunk) => {
                    assert_eq!((chunk.first_seq(), chunk.is_empty()), (next.0, false), "at least one event");
                    for (i, event) in chunk.iter().enumerate() {
                        assert_eq!((event.seq, event.payload), (next.0, &payload(next.0 as usize)[..]));
                        assert_eq!(chunk.event(i), event.to_event());
                        next.0 += 1;
                    }
                    assert_eq!(chunk.end_seq(), next.0, "what is passed was delivered");
                }
                Err(error) => {
                    let to = after_damage(&error, next).expect("something follows");
                    assert!(next < to && to <= end, "{error}");
                    named.extend(next.0..to.0);
                    next = to;
                    errors.push(error);
                }
            }
        }
        (named, errors)
    }

    /// A record that makes no sense, in a block whose checksum is right, at every place.
    #[test]
    fn a_bad_record_takes_no_other_event_with_it() {
        let (records, dat) = events();
        assert_eq!(read_all(&channel(&records, &dat, (0, Vec::new()))).0, [0; 0]);
        for bad in 0..COUNT {
            let mut records = records.clone();
            records[bad].as_mut_bytes()[19] |= 0x80;
            let (named, errors) = read_all(&channel(&records, &dat, (0, Vec::new())));
            assert_eq!(named, [bad as u64]);
            assert!(matches!(errors[..], [ReadError::Record { seq, .. }] if seq == bad as u64), "{errors:?}");
        }
    }

    /// A record with a right checksum around a length of gigabytes is an error, and not a reason to allocate them.
    #[test]
    fn a_record_longer_than_its_dat_takes_no_memory() {
        let (mut records, dat) = events();
        // More than any event has, and as much as one may have.
        for len in [u32::MAX - 600, 100 << 20] {
            records[7] = IndexRecord::in_dat(600, len, 0, 7);
            let on_disk = channel(&records, &dat, (0, Vec::new()));
            let _before = crate::fuzzing::take_largest_buffer();
            let (named, errors) = read_all(&on_disk);
            assert_eq!(named, [7]);
            match errors[..] {
                [ReadError::Record { seq: 7, .. }] => assert!(len > 100 << 20),
                [ReadError::Missing { from: 7, to: 8, .. }] => assert_eq!(len, 100 << 20),
                _ => panic!("{errors:?}"),
            }
            assert!(crate::fuzzing::take_largest_buffer() < 2 << 20);
        }
    }

    /// Dat is cut at every byte: the events in front are there, so are those in their records, the others are named.
    #[test]
    fn a_cut_dat_takes_no_event_in_front_of_the_cut_with_it() {
        let (records, dat) = events();
        for cut in 0..dat.len() {
            let (named, errors) = read_all(&channel(&records, &dat[..cut], (0, Vec::new())));
            let gone = |seq: &u64| payload_end(&records[*seq as usize]).is_some_and(|end| end > cut as u64);
            assert_eq!(named, (0..COUNT as u64).filter(gone).collect::<Vec<_>>(), "cut at {cut}");
            assert!(errors.iter().all(|error| matches!(error, ReadError::Missing { .. })), "{errors:?}");
        }
    }

    /// The same, of a channel whose unfinished block is in memory: what lies there is not missing.
    #[test]
    fn a_cut_dat_takes_nothing_with_it_that_is_in_memory() {
        let (records, dat) = events();
        let tail = BLOCK_SIZE;
        for cut in (0..tail).step_by(50) {
            let (named, _) = read_all(&channel(&records, &dat[..cut], (tail as u32, dat[tail..].to_vec())));
            let gone = |seq: &u64| match records[*seq as usize].place() {
                RecordPlace::Inline { .. } => false,
                RecordPlace::Dat { offset, len } => (offset + len) as usize > cut && (offset as usize) < tail,
            };
            assert_eq!(named, (0..COUNT as u64).filter(gone).collect::<Vec<_>>(), "cut at {cut}");
        }
    }
}
