//! Blocks of events that neither a state nor the journal tells of: which of them belong to what the channel was last.
//!
//! A block is written when its events are, not when they are durable, and it stays where a crash takes them back or a truncation
//! cuts them off, until another one is written there. So a whole block alone proves nothing. What is known goes before: a block
//! that differs from the tail of a checkpoint or from the journal is of a timeline that is no more, and so is what follows it. A
//! block of which nothing is known counts in two cases:
//!
//! - further on a block has events that the journal has, too: the last timeline went through all in front of it;
//! - the event in front is later than the last crash and the last cut ([`Search::times_tell`]), and the block is not earlier than
//!   that event. What is dead was made before a crash or a cut, and is earlier.
//!
//! Else its events are lost: better than to show others in their place. Where nothing at all is known but the files, the times say
//! which of two files that overlap is the later one.

use std::collections::BTreeSet;
use std::ops::{Bound, Range};
use std::sync::Arc;

use super::Survey;
use super::finding::{FindingKind, StoreFinding};
use super::plan::{Plan, PlannedSegment};
use crate::ids::Seq;
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, File, OpenMode, read_full};
use crate::segment::block::{BlockPlace, RECORDS_PER_BLOCK, decode_block};
use crate::segment::footer::{FOOTER_SIZE, Footer};
use crate::segment::path::idx_path;
use crate::segment::record::IndexRecord;
use crate::store::checkpoint::Tail;

/// Blocks of an idx file that are read at once.
const CHUNK_BYTES: usize = 64 * BLOCK_SIZE;

/// What is known to be missing of what a channel was.
#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    /// Whether a newer state of the channel may have been.
    pub states: bool,
    /// Whether commits are missing that may have been about it.
    pub commits: bool,
    /// Whether some of them come behind all that is known of it.
    pub end: bool,
    /// Epoch that the last open gave: what bears it or a higher one is later than the last crash.
    pub run_epoch: u32,
}

impl Doubt {
    /// Nothing is known.
    pub const ALL: Self = Self { states: true, commits: true, end: true, run_epoch: u32::MAX };
}

/// The segment files of a channel, by their first sequences.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// Those of indices.
    pub idx: &'a BTreeSet<u64>,
    /// Those of payloads.
    pub dat: &'a BTreeSet<u64>,
}

/// Adds to the plan what blocks have beyond it; says whether they may have had more.
pub fn adopt(disk: &dyn Disk, plan: &mut Plan, files: Files<'_>, doubt: Doubt, findings: &mut Vec<StoreFinding>) {
    let from_files = plan.is_of_files();
    plan.end_unknown = from_files || doubt.states || doubt.end;
    let mut searches = Vec::new();
    if from_files {
        searches.extend(files.idx.first().map(|first| (*first..u64::MAX, true)));
    } else if doubt.commits || doubt.states {
        let unknown = plan.gaps.iter().map(|gap| gap.seqs.clone());
        searches.extend(unknown.map(|seqs| (seqs.clone(), times_tell(plan, seqs.start, doubt))));
        // Nothing comes behind it that could prove more.
        searches.extend(times_tell(plan, plan.end, doubt).then_some((plan.end..u64::MAX, true)));
    }
    for (seqs, times_tell) in searches {
        let (runs, lost) = Search::new(disk, plan, files, seqs, times_tell).run();
        findings.extend(lost);
        runs.into_iter().for_each(|run| take(plan, run));
    }
    plan.segments.sort_by_key(|segment| segment.first);
}

/// Whether everything dead that may lie at `seq` is earlier than the event in front of it.
fn times_tell(plan: &Plan, seq: u64, doubt: Doubt) -> bool {
    // A cut or a reset came last: what it took may be later than what is in front.
    if plan.epochs.iter().any(|(_, first)| *first == seq) {
        return false;
    }
    let in_front = plan.epochs.iter().rfind(|(_, first)| *first < seq).map(|(epoch, _)| *epoch);
    // With its newest state gone, the files must say how it went on, and most of the time nothing was taken back.
    doubt.states || in_front.unwrap_or(plan.id.epoch().0) >= doubt.run_epoch
}

/// Puts a run of events into the segment that has it; what the journal has is not taken twice.
fn take(plan: &mut Plan, run: Run) {
    let mut at = run.seqs.start;
    let mut parts = Vec::new();
    let covering = plan.pieces.range(..=at).next_back().map_or(at, |(first, _)| *first);
    for piece in plan.pieces.range(covering..run.seqs.end).map(|(_, piece)| piece.first()..piece.end()) {
        parts.push(at..piece.start.clamp(at, run.seqs.end));
        at = at.max(piece.end);
    }
    parts.push(at..run.seqs.end.max(at));
    parts.retain(|part| !part.is_empty());
    let place = plan.segments.iter().position(|segment| segment.first == run.segment);
    let place = place.unwrap_or_else(|| {
        plan.segments.push(PlannedSegment::of_files(run.segment));
        plan.segments.len() - 1
    });
    plan.segments[place].adopted.extend(parts);
}

/// Events in one segment's blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    segment: u64,
    seqs: Range<u64>,
}

/// A walk along the blocks that may have some sequences.
struct Search<'a> {
    disk: &'a dyn Disk,
    plan: &'a Plan,
    files: Files<'a>,
    seqs: Range<u64>,
    /// Whether everything dead is earlier than what is known in front.
    times_tell: bool,
    runs: Vec<Run>,
    /// Blocks that are bad, with whole ones behind them.
    lost: Vec<StoreFinding>,
    /// Behind the last event that was believed.
    end: u64,
    /// Its time.
    time_us: u64,
    /// Whether the journal has events of a block behind the sequences, the same ones.
    proven: bool,
}

impl<'a> Search<'a> {
    fn new(disk: &'a dyn Disk, plan: &'a Plan, files: Files<'a>, seqs: Range<u64>, times_tell: bool) -> Self {
        let end = seqs.start;
        let (runs, lost) = (Vec::new(), Vec::new());
        let time_us = plan.time_before(end);
        Self { disk, plan, files, seqs, times_tell, runs, lost, end, time_us, proven: false }
    }

    /// What is to be believed, and which blocks of it are bad.
    fn run(mut self) -> (Vec<Run>, Vec<StoreFinding>) {
        let mut at = self.start();
        while let Some(segment) = at {
            let bound = self.plan.segments.iter().map(|planned| planned.first).find(|first| *first > segment);
            self.segment(segment, bound.unwrap_or(u64::MAX));
            at = self.segment_behind(segment, bound);
        }
        match self.times_tell || self.proven {
            true => (self.runs, self.lost),
            false => (Vec::new(), Vec::new()),
        }
    }

    fn start(&self) -> Option<u64> {
        let start = self.seqs.start;
        let planned = self.plan.segments.iter().rfind(|planned| planned.first <= start).map(|planned| planned.first);
        planned.or_else(|| self.files.idx.contains(&start).then_some(start))
    }

    fn segment(&mut self, first: u64, bound: u64) {
        let Some(mut idx) = IdxFile::open(self.disk, self.plan, first) else { return };
        let footer = idx.footer();
        let blocks = footer.as_ref().map_or(idx.size / BLOCK_SIZE as u64, Footer::block_count);
        let from = self.end.max(first);
        let planned = self.plan.segments.iter().find(|planned| planned.first == first);
        let tail = planned.and_then(|planned| planned.tail.load().ok());
        let mut doubtful = Vec::new();
        for block in (from - first) / RECORDS_PER_BLOCK as u64..blocks {
            let base = first + block * RECORDS_PER_BLOCK as u64;
            // One block of what the journal has behind the sequences, as the proof.
            if base >= bound || base > self.seqs.end && self.end > self.seqs.end {
                break;
            }
            let records = match idx.block(block, base) {
                Ok(records) => records,
                Err((kind, cause)) => {
                    let offset = block * BLOCK_SIZE as u64;
                    let events = self.within(base..(base + RECORDS_PER_BLOCK as u64).min(bound));
                    let found = StoreFinding::loss(kind, &idx.path, offset, cause).of(&Survey::found(self.plan));
                    doubtful.push(found.losing(events));
                    continue;
                }
            };
            let count = (bound - base).min(records.len() as u64);
            if !self.believe(planned.zip(tail.as_ref()), base, &records[..count as usize]) {
                return;
            }
            self.lost.append(&mut doubtful);
            let run = Run { segment: first, seqs: self.within(base..base + count) };
            self.runs.extend((!run.seqs.is_empty()).then_some(run));
            self.end = self.end.max(base + count);
        }
        // A footer knows of blocks that are bad now.
        if let Some(footer) = footer.filter(|footer| footer.last_time_us >= self.time_us && footer.end.0 > self.end) {
            self.lost.append(&mut doubtful);
            self.end = footer.end.0.min(bound);
        }
    }

    fn within(&self, seqs: Range<u64>) -> Range<u64> {
        let start = seqs.start.max(self.seqs.start);
        start..seqs.end.min(self.seqs.end).max(start)
    }

    /// Whether a block may be of the last timeline, by what is known.
    fn believe(&mut self, segment: Option<(&PlannedSegment, &Tail)>, base: u64, records: &[IndexRecord]) -> bool {
        let (mut time_us, mut agrees) = (self.time_us, false);
        for (seq, record) in (base..).zip(records) {
            match self.plan.known_record(segment, seq) {
                Some(known) if known != record => return false,
                Some(_) => agrees |= seq >= self.seqs.end,
                None if seq < self.seqs.start => continue,
                None if record.time_us() < time_us => return false,
                None => {}
            }
            time_us = time_us.max(record.time_us());
        }
        let behind = self.plan.pieces.range(base + records.len() as u64..).next();
        let behind = behind.and_then(|(first, piece)| piece.record(*first)).map(IndexRecord::time_us);
        if behind.is_some_and(|behind| behind < time_us) {
            return false;
        }
        self.time_us = time_us;
        self.proven |= agrees;
        true
    }

    /// Where the walk goes on: where the events of this segment end, or where others take their place.
    fn segment_behind(&mut self, segment: u64, bound: Option<u64>) -> Option<u64> {
        if self.end > self.seqs.end || self.end == self.seqs.end && bound != Some(self.end) {
            return None;
        }
        let to = bound.unwrap_or(u64::MAX).min(self.end);
        let from = segment.max(self.seqs.start.saturating_sub(1));
        let inside = (Bound::Excluded(from), Bound::Included(to));
        let follows = |first: &u64| Some(*first) == bound || self.is_later(*first, *first == self.end);
        let files = if from < to { self.files.idx.range(inside).copied().find(follows) } else { None };
        if let Some(next) = files {
            self.runs.iter_mut().for_each(|run| run.seqs.end = run.seqs.end.min(next.max(run.seqs.start)));
            self.runs.retain(|run| !run.seqs.is_empty() && run.seqs.start < next);
            self.end = next;
            return Some(next);
        }
        if let Some(bound) = bound.filter(|bound| *bound <= self.seqs.end) {
            self.end = self.end.max(bound);
            return Some(bound);
        }
        // Of a segment that was here the half is gone.
        let half = self.files.dat.contains(&self.end) && !self.files.idx.contains(&self.end);
        let next =
            self.files.idx.range(self.end..).next().copied().filter(|next| half && self.is_later(*next, true))?;
        self.end = next;
        Some(next)
    }

    /// Whether the events of a file are later than all that was believed so far.
    fn is_later(&self, first: u64, if_unknown: bool) -> bool {
        let mut idx = IdxFile::open(self.disk, self.plan, first);
        let records = idx.as_mut().and_then(|idx| idx.block(0, first).ok());
        let time_us = records.as_ref().and_then(|records| records.first()).map(IndexRecord::time_us);
        time_us.map_or(if_unknown, |time_us| time_us >= self.time_us)
    }
}

/// The blocks of an idx file, a chunk at a time.
struct IdxFile {
    file: Arc<dyn File>,
    path: String,
    size: u64,
    place: BlockPlace,
    chunk: AlignedBuf,
    /// What of the file is in the chunk.
    loaded: Range<u64>,
}

impl IdxFile {
    fn open(disk: &dyn Disk, plan: &Plan, first: u64) -> Option<Self> {
        let path = idx_path(plan.id, Seq(first));
        let file = disk.open(&path, OpenMode::Read).ok()?;
        let size = file.size().ok()?;
        let place = BlockPlace { channel: plan.id, segment_first: Seq(first) };
        Some(Self { file, path, size, place, chunk: AlignedBuf::new(CHUNK_BYTES), loaded: 0..0 })
    }

    fn block(&mut self, block: u64, base: u64) -> Result<Vec<IndexRecord>, (FindingKind, String)> {
        let offset = block * BLOCK_SIZE as u64;
        if !self.loaded.contains(&offset) {
            self.load(offset).map_err(|error| (FindingKind::Unreadable, error.to_string()))?;
        }
        let at = (offset - self.loaded.start) as usize;
        let bytes = &self.chunk[at..at + BLOCK_SIZE];
        let records = decode_block(bytes, self.place, Seq(base));
        records.map(<[_]>::to_vec).map_err(|error| (FindingKind::IndexBlock, error.to_string()))
    }

    fn load(&mut self, offset: u64) -> std::io::Result<()> {
        self.loaded = 0..0;
        let mut size = CHUNK_BYTES;
        let read = read_full(&*self.file, &mut self.chunk[..size], offset).or_else(|_| {
            size = BLOCK_SIZE;
            read_full(&*self.file, &mut self.chunk[..size], offset)
        })?;
        self.chunk[read..size].fill(0);
        self.loaded = offset..offset + size as u64;
        Ok(())
    }

    fn footer(&self) -> Option<Footer> {
        let at = self.size.checked_sub(FOOTER_SIZE as u64)?;
        let mut buf = AlignedBuf::new(FOOTER_SIZE);
        let read = read_full(&*self.file, &mut buf[..FOOTER_SIZE], at - at % BLOCK_SIZE as u64).ok()?;
        let footer = Footer::decode(&buf[..read]).ok()?;
        let is_ours = (footer.channel, footer.first) == (self.place.channel, self.place.segment_first);
        (is_ours && footer.footer_offset() == at).then_some(footer)
    }
}
