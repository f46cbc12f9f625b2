//! Looks at every byte of one segment that counts: index blocks, records, payloads, time blocks, footer.
//!
//! idx and dat are read side by side from front to back, each byte once. What is whole goes to a [`Sink`], what is not becomes a
//! finding there; the pass goes on behind it.

use std::ops::Range;

use super::finding::{FindingKind, FoundChannel, Severity, StoreFinding};
use super::plan::PlannedSegment;
use super::readahead::{Reader, Stream};
use crate::ids::{ChannelId, Seq};
use crate::io::{AlignedBuf, BLOCK_SIZE};
use crate::segment::block::{BlockPlace, RECORDS_PER_BLOCK, decode_block};
use crate::segment::footer::{FOOTER_SIZE, Footer, idx_hash_append};
use crate::segment::path::{dat_path, idx_path};
use crate::segment::record::{IndexRecord, RecordPlace};
use crate::segment::time_block::decode_time_block;
use crate::store::checkpoint::Tail;

/// Takes what a pass finds.
pub trait Sink {
    /// Whether payloads are wanted, or only checked.
    const PAYLOADS: bool;
    /// An event that is whole. Without [`Sink::PAYLOADS`] the payload is empty.
    fn event(&mut self, seq: u64, record: &IndexRecord, payload: &[u8]);
    /// Something that is wrong.
    fn finding(&mut self, finding: StoreFinding);
}

/// A segment to look at.
#[derive(Debug)]
pub struct Pass<'a> {
    /// Whose it is, for messages.
    pub channel: &'a FoundChannel,
    /// The channel.
    pub id: ChannelId,
    /// The segment.
    pub segment: &'a PlannedSegment,
    /// The checkpoint file that has its tail, and where.
    pub tail_place: (&'a str, u64),
    /// First sequence that nobody has from here: the next segment begins there.
    pub bound: u64,
    /// Oldest sequence that is left of the channel.
    pub head: u64,
    /// Whether the cold store has it: then the files need not be there.
    pub is_cold: bool,
}

/// What a pass came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// Times of the first and the last whole event.
    pub times: Option<(u64, u64)>,
    /// Behind the last event that is there, whole or not.
    pub end: u64,
}

struct Walk<'a, 'r, S: Sink> {
    pass: &'a Pass<'a>,
    reader: &'r mut Reader,
    sink: &'a mut S,
    place: BlockPlace,
    idx_path: String,
    dat: Dat<'a>,
    passed: Passed,
    /// Behind the last event that counts.
    wanted_end: u64,
    /// What was found of events that do not count, one of each kind.
    of_no_event: Vec<FindingKind>,
    last_offset: u64,
    payload: Vec<u8>,
}

/// The payload bytes: the file, and behind it what fills no block.
struct Dat<'a> {
    path: String,
    stream: Option<Stream>,
    /// Where the bytes that fill no block begin.
    tail_base: u64,
    tail_end: u64,
    tail: Result<&'a Tail, &'static str>,
    error: Option<String>,
}

/// What the blocks of an idx file add up to.
#[derive(Default)]
struct Sums {
    hash: u32,
    first_times: Vec<u64>,
    last_time_us: u64,
    is_whole: bool,
}

impl Pass<'_> {
    /// Looks at it.
    pub fn run<S: Sink>(&self, reader: &mut Reader, sink: &mut S) -> Passed {
        let segment = self.segment;
        let (idx_path, dat_path) = (idx_path(self.id, Seq(segment.first)), dat_path(self.id, Seq(segment.first)));
        // What is behind the bytes of a checkpoint is not known to be written.
        let known = (!segment.sealed && segment.adopted.is_empty()).then_some(segment.dat_size - segment.tail_bytes);
        let (stream, error) = match reader.open(&dat_path, known) {
            Ok(stream) => (stream, None),
            Err(error) => (None, Some(error.to_string())),
        };
        if self.is_cold && stream.is_none() && error.is_none() && segment.dat_size > 0 {
            // An eviction was cut off, and the directory kept one file of the two.
            return Passed { times: None, end: segment.end };
        }
        let tail_base = if segment.tail_bytes > 0 { segment.dat_size - segment.tail_bytes } else { u64::MAX };
        let tail = segment.tail.load();
        let tail = tail.as_ref().map_err(|what| *what);
        let mut walk = Walk {
            pass: self,
            reader,
            sink,
            place: BlockPlace { channel: self.id, segment_first: Seq(segment.first) },
            idx_path,
            dat: Dat { path: dat_path, stream, tail_base, tail_end: segment.dat_size, tail, error },
            passed: Passed { times: None, end: segment.first },
            wanted_end: segment.end.min(self.bound),
            of_no_event: Vec::new(),
            last_offset: 0,
            payload: Vec::new(),
        };
        walk.run();
        let Walk { dat, passed, .. } = walk;
        if let Some(stream) = dat.stream {
            stream.finish(reader);
        }
        passed
    }
}

impl<S: Sink> Walk<'_, '_, S> {
    fn run(&mut self) {
        let segment = self.pass.segment;
        let block_end = if segment.sealed { segment.stored_end } else { segment.tail_first };
        if block_end > segment.first {
            self.blocks(block_end);
        }
        if !segment.sealed && segment.stored_end > segment.tail_first {
            self.tail();
        }
        if !segment.adopted.is_empty() {
            self.adopted();
        }
    }

    /// The events of which only blocks tell. These were looked at before: they are the channel's.
    fn adopted(&mut self) {
        let (segment, place) = (self.pass.segment, self.place);
        self.wanted_end = u64::MAX;
        let mut idx = match self.reader.open(&self.idx_path, None) {
            Ok(Some(idx)) => idx,
            Ok(None) => return self.adopted_lost(FindingKind::SegmentMissing, "it is missing"),
            Err(error) => return self.adopted_lost(FindingKind::Unreadable, &error.to_string()),
        };
        for events in &segment.adopted {
            let mut at = events.start;
            while at < events.end {
                let block = (at - segment.first) / RECORDS_PER_BLOCK as u64;
                let base = segment.first + block * RECORDS_PER_BLOCK as u64;
                let end = events.end.min(base + RECORDS_PER_BLOCK as u64);
                let offset = block * BLOCK_SIZE as u64;
                let bytes = idx.bytes(self.reader, offset);
                match decode_block(&bytes[..bytes.len().min(BLOCK_SIZE)], place, Seq(base)) {
                    Ok(records) => (at..end)
                        .zip(records.iter().skip((at - base) as usize))
                        .for_each(|(seq, record)| self.event(seq, record)),
                    Err(error) => {
                        let found = StoreFinding::loss(FindingKind::IndexBlock, &self.idx_path, offset, error);
                        self.lose(found, at..end);
                    }
                }
                at = end;
            }
        }
        idx.finish(self.reader);
    }

    fn adopted_lost(&mut self, kind: FindingKind, cause: &str) {
        for events in &self.pass.segment.adopted {
            let found = StoreFinding::loss(kind, &self.idx_path, 0, cause);
            self.lose(found, events.clone());
        }
    }

    fn blocks(&mut self, block_end: u64) {
        let segment = self.pass.segment;
        let opened = self.reader.open(&self.idx_path, None);
        let mut idx = match opened {
            Ok(Some(idx)) => idx,
            Ok(None) if self.pass.is_cold => {
                self.passed.end = segment.end;
                return;
            }
            Ok(None) => return self.whole_file(FindingKind::SegmentMissing, "it is missing", block_end),
            Err(error) => return self.whole_file(FindingKind::Unreadable, &error.to_string(), block_end),
        };
        let footer = if segment.sealed { self.footer(&idx) } else { Ok(None) };
        let blocks = match &footer {
            Ok(Some((footer, _))) => footer.block_count(),
            _ => (block_end - segment.first).div_ceil(RECORDS_PER_BLOCK as u64),
        };
        let file_end = match &footer {
            Ok(Some((footer, _))) => footer.end.0,
            _ => block_end,
        };
        // Without a footer, a cut may have left more than counts.
        let is_exact = !segment.sealed || matches!(footer, Ok(Some(_)));
        let sums = self.index_blocks(&mut idx, blocks, file_end, is_exact);
        match footer {
            Ok(Some((footer, offset))) => self.compare(&footer, offset, &sums, &idx),
            Err((offset, cause)) if segment.sealed => {
                let found = StoreFinding::new(FindingKind::Footer, Severity::Redundant, &self.idx_path, offset, cause);
                self.sink.finding(found.of(self.pass.channel));
            }
            _ => {}
        }
        idx.finish(self.reader);
    }

    fn whole_file(&mut self, kind: FindingKind, cause: &str, end: u64) {
        let segment = self.pass.segment;
        self.lose(StoreFinding::loss(kind, &self.idx_path, 0, cause), segment.first..end);
    }

    /// The footer and where it lies; or where it should, and what is wrong.
    fn footer(&mut self, idx: &Stream) -> Result<Option<(Footer, u64)>, (u64, String)> {
        let segment = self.pass.segment;
        let size = idx.size();
        let at = size.saturating_sub(FOOTER_SIZE as u64) / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        let mut buf = AlignedBuf::new(FOOTER_SIZE);
        let read =
            idx.read_at(&mut buf[..FOOTER_SIZE], at).map_err(|error| (at, format!("it cannot be read: {error}")))?;
        let footer = Footer::decode(&buf[..read]).map_err(|error| (at, error.to_string()))?;
        let wrong = [
            ("channel", footer.channel != self.place.channel),
            ("first_seq", footer.first.0 != segment.first),
            ("end_seq", footer.end.0 < segment.stored_end),
            ("count", footer.footer_offset() != at || !size.is_multiple_of(BLOCK_SIZE as u64)),
            ("dat_size", segment.sealed && footer.dat_size < segment.dat_size),
        ];
        match wrong.into_iter().find(|(_, wrong)| *wrong) {
            Some((field, _)) => Err((at, format!("field `{field}` of the footer is not that of this segment"))),
            None => Ok(Some((footer, at))),
        }
    }

    fn index_blocks(&mut self, idx: &mut Stream, blocks: u64, file_end: u64, is_exact: bool) -> Sums {
        let segment = self.pass.segment;
        let mut sums = Sums { is_whole: true, ..Sums::default() };
        for block in 0..blocks {
            let offset = block * BLOCK_SIZE as u64;
            let base = segment.first + block * RECORDS_PER_BLOCK as u64;
            let behind = (base + RECORDS_PER_BLOCK as u64).min(file_end.max(base));
            let events = base..behind;
            let bytes = idx.bytes(self.reader, offset);
            if bytes.len() < BLOCK_SIZE {
                sums.is_whole = false;
                let cause = format!("the file ends at byte {}, {blocks} index blocks were there", idx.size());
                let found = StoreFinding::loss(FindingKind::SegmentShort, &self.idx_path, idx.size(), cause);
                self.lose(found, base..file_end);
                break;
            }
            let bytes = &bytes[..BLOCK_SIZE];
            sums.hash = idx_hash_append(sums.hash, bytes);
            let records = match decode_block(bytes, self.place, Seq(base)) {
                Ok(records) if records.len() as u64 == behind - base => records,
                Ok(records) if !is_exact && records.len() as u64 > behind - base => records,
                Ok(records) => {
                    let cause = format!("it holds {} records instead of {}", records.len(), behind - base);
                    sums.is_whole = false;
                    let found = StoreFinding::loss(FindingKind::IndexBlock, &self.idx_path, offset, cause);
                    self.lose(found, events);
                    continue;
                }
                Err(error) => {
                    sums.is_whole = false;
                    let gap = idx.gap_in(&(offset..offset + BLOCK_SIZE as u64)).map(|gap| gap.error.clone());
                    let kind = if gap.is_some() { FindingKind::Unreadable } else { FindingKind::IndexBlock };
                    let cause = gap.unwrap_or_else(|| error.to_string());
                    self.lose(StoreFinding::loss(kind, &self.idx_path, offset, cause), events);
                    continue;
                }
            };
            sums.first_times.push(records.first().map_or(0, IndexRecord::time_us));
            sums.last_time_us = records.last().map_or(0, IndexRecord::time_us);
            let end = self.wanted_end;
            for (seq, record) in (base..end.max(base)).zip(records) {
                self.event(seq, record);
            }
        }
        sums
    }

    /// Events are lost, as far as they count; damage to others is told once of each kind.
    fn lose(&mut self, found: StoreFinding, events: Range<u64>) {
        let found = found.of(self.pass.channel);
        let events = events.start.max(self.pass.head)..events.end.min(self.wanted_end);
        if !events.is_empty() {
            self.passed.end = self.passed.end.max(events.end);
            self.sink.finding(found.losing(events));
        } else if !self.of_no_event.contains(&found.kind) {
            self.of_no_event.push(found.kind);
            self.sink.finding(found.of_no_event());
        }
    }

    fn event(&mut self, seq: u64, record: &IndexRecord) {
        let time_us = record.time_us();
        if let Err(fault) = self.check(record) {
            let found = StoreFinding::loss(fault.kind, &fault.path, fault.offset, fault.cause);
            return self.lose(found, seq..seq + 1);
        }
        if let Some((_, last)) = self.passed.times.filter(|(_, last)| time_us < *last) {
            let cause = format!("event {seq} is of {time_us} us, the one before of {last} us");
            let (kind, path) = (FindingKind::TimeBackwards, self.idx_path.clone());
            let found = StoreFinding::new(kind, Severity::Redundant, &path, 0, cause).of(self.pass.channel);
            self.sink.finding(found);
        }
        let first = self.passed.times.map_or(time_us, |(first, _)| first);
        let last = self.passed.times.map_or(time_us, |(_, last)| last.max(time_us));
        self.passed.times = Some((first, last));
        self.passed.end = self.passed.end.max(seq + 1);
        self.sink.event(seq, record, &self.payload);
    }

    /// Checks a record and its payload; with payloads wanted it is in `self.payload` then.
    fn check(&mut self, record: &IndexRecord) -> Result<(), Fault> {
        self.payload.clear();
        record.check().map_err(|error| Fault {
            kind: FindingKind::Record,
            path: self.idx_path.clone(),
            offset: 0,
            cause: error.to_string(),
        })?;
        let (offset, len) = match record.place() {
            RecordPlace::Inline { bytes, len } => {
                if S::PAYLOADS {
                    self.payload.extend_from_slice(&bytes[..len]);
                }
                return Ok(());
            }
            RecordPlace::Dat { offset, len } => (u64::from(offset), u64::from(len)),
        };
        let order = offset >= self.last_offset;
        self.last_offset = self.last_offset.max(offset + len);
        let crc = self.dat.read::<S>(self.reader, offset..offset + len, &mut self.payload);
        let crc = crc.map_err(|(kind, cause)| self.dat_fault(kind, offset..offset + len, cause))?;
        if crc != record.payload_crc() {
            let cause =
                format!("checksum of the payload is {crc:#010x}, its record says {:#010x}", record.payload_crc());
            return Err(self.dat_fault(FindingKind::Payload, offset..offset + len, cause));
        }
        match order {
            true => Ok(()),
            false => Err(Fault {
                kind: FindingKind::Record,
                path: self.idx_path.clone(),
                offset: 0,
                cause: format!("it puts its payload at byte {offset} of dat, before the end of the one in front"),
            }),
        }
    }

    fn dat_fault(&self, kind: FindingKind, range: Range<u64>, cause: String) -> Fault {
        // What fills no block lies in the checkpoint file.
        if range.end > self.dat.tail_base && (self.dat.tail.is_err() || range.start >= self.dat.tail_base) {
            let (path, offset) = (self.pass.tail_place.0.to_owned(), self.pass.tail_place.1);
            return Fault { kind: FindingKind::CheckpointTail, path, offset, cause };
        }
        let gap = self.dat.stream.as_ref().and_then(|stream| stream.gap_in(&range));
        let (kind, cause) = match gap {
            Some(gap) => (FindingKind::Unreadable, gap.error.clone()),
            None => (kind, cause),
        };
        Fault { kind, path: self.dat.path.clone(), offset: range.start, cause }
    }

    fn tail(&mut self) {
        let segment = self.pass.segment;
        let first = segment.tail_first;
        match self.dat.tail {
            Ok(tail) => {
                let end = self.wanted_end;
                for (seq, record) in (first..end.max(first)).zip(&tail.records) {
                    self.event(seq, record);
                }
            }
            Err(what) => {
                let (path, offset) = self.pass.tail_place;
                let found = StoreFinding::loss(FindingKind::CheckpointTail, path, offset, what);
                self.lose(found, first..segment.stored_end);
            }
        }
    }

    /// Compares what the index blocks hold with what the footer says of them.
    fn compare(&mut self, footer: &Footer, offset: u64, sums: &Sums, idx: &Stream) {
        let mut wrong = Vec::new();
        // A damaged index block was named already.
        if sums.is_whole {
            if footer.idx_hash != sums.hash {
                let (expected, found) = (footer.idx_hash, sums.hash);
                wrong.push(format!("hash of the index blocks is {found:#010x}, the footer says {expected:#010x}"));
            }
            let times = (sums.first_times.first().copied().unwrap_or(0), sums.last_time_us);
            if footer.block_count() > 0 && times != (footer.first_time_us, footer.last_time_us) {
                wrong.push("the times of the footer are not those of its first and last event".to_owned());
            }
            let samples = footer.time_index.samples();
            if samples.iter().any(|sample| sums.first_times.get(sample.block as usize) != Some(&sample.first_time_us)) {
                wrong.push("a time sample of the footer is not that of its index block".to_owned());
            }
        }
        for cause in wrong {
            let found = StoreFinding::new(FindingKind::Footer, Severity::Redundant, &self.idx_path, offset, cause);
            self.sink.finding(found.of(self.pass.channel));
        }
        self.time_blocks(footer, sums, idx);
    }

    fn time_blocks(&mut self, footer: &Footer, sums: &Sums, idx: &Stream) {
        let samples = footer.time_index.samples();
        for (i, sample) in samples.iter().enumerate() {
            let Some(offset) = footer.time_block_offset(i) else { break };
            let mut buf = AlignedBuf::new(BLOCK_SIZE);
            let read = idx.read_at(&mut buf[..BLOCK_SIZE], offset).unwrap_or(0);
            let times = decode_time_block(&buf[..read], sample.block, self.place);
            let next = samples.get(i + 1).map_or(footer.block_count() as usize, |next| next.block as usize);
            let right = sums.first_times.get(sample.block as usize..next);
            if times.is_none() || sums.is_whole && times.as_deref() != right {
                let cause = "it is not the times of its index blocks";
                let kind = FindingKind::TimeBlock;
                let found = StoreFinding::new(kind, Severity::Redundant, &self.idx_path, offset, cause);
                self.sink.finding(found.of(self.pass.channel));
            }
        }
    }
}

struct Fault {
    kind: FindingKind,
    path: String,
    offset: u64,
    cause: String,
}

impl Dat<'_> {
    /// Checksum of a range; its bytes go to `out` if they are wanted.
    fn read<S: Sink>(
        &mut self,
        reader: &mut Reader,
        range: Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<u32, (FindingKind, String)> {
        let (mut crc, mut at) = (0, range.start);
        while at < range.end {
            let bytes = match at < self.tail_base || at >= self.tail_end {
                true => {
                    let end = if at < self.tail_base { range.end.min(self.tail_base) } else { range.end };
                    self.in_file(reader, at..end)?
                }
                false => self.in_tail(at..range.end.min(self.tail_end))?,
            };
            crc = crc32c::crc32c_append(crc, bytes);
            if S::PAYLOADS {
                out.extend_from_slice(bytes);
            }
            at += bytes.len() as u64;
        }
        Ok(crc)
    }

    /// The first bytes of a range that are at hand, at least one.
    fn in_file(&mut self, reader: &mut Reader, range: Range<u64>) -> Result<&[u8], (FindingKind, String)> {
        let Some(stream) = &mut self.stream else {
            return match &self.error {
                Some(error) => Err((FindingKind::Unreadable, error.clone())),
                None => Err((FindingKind::SegmentMissing, "it is missing".to_owned())),
            };
        };
        if range.start >= stream.end() {
            return Err((FindingKind::SegmentShort, format!("the file ends at byte {}", stream.end())));
        }
        let bytes = stream.bytes(reader, range.start);
        Ok(&bytes[..bytes.len().min((range.end - range.start) as usize)])
    }

    fn in_tail(&self, range: Range<u64>) -> Result<&[u8], (FindingKind, String)> {
        let tail = self.tail.map_err(|what| (FindingKind::CheckpointTail, what.to_owned()))?;
        let bytes = (range.start - self.tail_base) as usize..(range.end - self.tail_base) as usize;
        let outside = || (FindingKind::CheckpointTail, "the payload lies behind the bytes of the tail".to_owned());
        tail.bytes.get(bytes).ok_or_else(outside)
    }
}
