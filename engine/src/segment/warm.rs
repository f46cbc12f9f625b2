//! The warm tier: sealed segments, mapped, and read without a copy.
//!
//! Each index block and each payload is checked when it is first read, and remembered as checked: four words for each index
//! block, a bit for each of its 204 payloads, one for all of them, and one for the block itself. What was remembered counts only as
//! long as the files are those that were mapped.
//!
//! Promises: what a chunk of a mapped segment shows was checked. Whatever is wrong here is no error here: the reader then reads the
//! same events by plain calls, which say what is damaged, and where.
//! What it leaves to others: choosing the segment, and reading what is not mapped (`read.rs`).

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::block::{BlockPlace, INDEX_BLOCK_SIZE, RECORDS_PER_BLOCK, decode_block, records_of};
use super::chunk::EventChunk;
use super::footer::{FOOTER_SIZE, Footer};
use super::record::{IndexRecord, RecordPlace};
use crate::event::{EventTime, Payload, RedexEvent};
use crate::ids::Seq;
use crate::io::budget::{Budget, Holder};
use crate::io::{File, FileStamp, Mapping};

/// Index blocks looked at in one step.
const BLOCKS_PER_STEP: usize = 64;
/// Payload bytes looked at in one step, unless one event has more.
const DAT_BYTES_PER_STEP: usize = 1 << 20;

/// Words of bits for each index block.
const WORDS_PER_BLOCK: usize = 4;
/// In the last word of a block: the index block was checked.
const BLOCK_CHECKED: u64 = 1 << 63;
/// In the last word of a block: all its payloads were checked.
const PAYLOADS_CHECKED: u64 = 1 << 62;

const _: () = assert!(RECORDS_PER_BLOCK <= WORDS_PER_BLOCK * 64 - 2);

/// One mapped file.
#[derive(Debug)]
pub struct MappedFile {
    file: Arc<dyn File>,
    stamp: FileStamp,
    mapping: Mapping,
}

/// Why a segment is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotMapped {
    /// There is no room, or the system refuses: perhaps later.
    NotNow,
    /// The files are not what those of a sealed segment should be, or lie where nothing is mapped.
    Never,
}

impl MappedFile {
    /// Maps the beginning of a file, or all of it.
    fn open(budget: &Arc<Budget>, file: &Arc<dyn File>, len: Option<u64>) -> Result<Arc<Self>, NotMapped> {
        // Before the mapping: a change in between is found later.
        let stamp = file.stamp().map_err(|_| NotMapped::NotNow)?;
        let len = len.unwrap_or(stamp.size);
        if len == 0 || len > stamp.size {
            return Err(NotMapped::Never);
        }
        let share = budget.take(len).ok_or(NotMapped::NotNow)?;
        let len = usize::try_from(len).map_err(|_| NotMapped::Never)?;
        let mapping = file.map(len, share).map_err(|_| NotMapped::NotNow)?.ok_or(NotMapped::Never)?;
        Ok(Arc::new(Self { file: file.clone(), stamp, mapping }))
    }

    /// Its bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.mapping.bytes()
    }

    /// Whether the file is what was mapped. One that cannot be asked is: it was removed, which changes no byte of it.
    pub fn is_current(&self) -> bool {
        !self.mapping.is_broken() && !self.file.stamp().is_ok_and(|stamp| stamp != self.stamp)
    }
}

/// A sealed segment, mapped.
#[derive(Debug)]
pub struct MappedSegment {
    place: BlockPlace,
    footer: Footer,
    idx: Arc<MappedFile>,
    dat: Option<Arc<MappedFile>>,
    checked: Box<[AtomicU64]>,
}

impl MappedSegment {
    /// Maps the files of a segment.
    fn open(
        budget: &Arc<Budget>,
        place: BlockPlace,
        idx: &Arc<dyn File>,
        dat: Option<&Arc<dyn File>>,
    ) -> Result<Self, NotMapped> {
        let idx = MappedFile::open(budget, idx, None)?;
        let size = idx.mapping.bytes().len();
        let footer_at = size.checked_sub(FOOTER_SIZE).ok_or(NotMapped::Never)?;
        idx.mapping.populate(footer_at..size).map_err(|_| NotMapped::NotNow)?;
        let footer = Footer::decode(&idx.mapping.bytes()[footer_at..]).map_err(|_| NotMapped::Never)?;
        let is_its_own = footer.channel == place.channel && footer.first == place.segment_first;
        if !is_its_own || footer.footer_offset() != footer_at as u64 {
            return Err(NotMapped::Never);
        }
        let dat = match footer.dat_size {
            0 => None,
            size => Some(MappedFile::open(budget, dat.ok_or(NotMapped::Never)?, Some(size))?),
        };
        let blocks = usize::try_from(footer.block_count()).map_err(|_| NotMapped::Never)?;
        let checked = (0..blocks * WORDS_PER_BLOCK).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { place, footer, idx, dat, checked })
    }

    fn files(&self) -> impl Iterator<Item = &Arc<MappedFile>> {
        std::iter::once(&self.idx).chain(&self.dat)
    }

    /// Whether its files are those that were mapped.
    fn is_current(&self) -> bool {
        self.files().all(|file| file.is_current())
    }

    /// The file that is not what was mapped, if there is one.
    pub fn changed_file(&self) -> Option<String> {
        self.files().find(|file| !file.is_current()).map(|file| file.file.path().to_owned())
    }

    /// Whether nobody but who asks has it, or payloads of it.
    fn is_unused(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.files().all(|file| Arc::strong_count(file) == 1)
    }

    /// Payload bytes.
    #[inline]
    pub fn dat_bytes(&self) -> &[u8] {
        self.dat.as_ref().map_or(&[], |dat| dat.mapping.bytes())
    }

    fn block_of(&self, seq: Seq) -> (usize, usize) {
        let at = (seq.0 - self.place.segment_first.0) as usize;
        (at / RECORDS_PER_BLOCK, at % RECORDS_PER_BLOCK)
    }

    /// How many records a block has.
    fn count_in(&self, block: usize) -> usize {
        (self.footer.count() as usize).saturating_sub(block * RECORDS_PER_BLOCK).min(RECORDS_PER_BLOCK)
    }

    fn block_bytes(&self, block: usize) -> &[u8] {
        let at = block * INDEX_BLOCK_SIZE;
        &self.idx.mapping.bytes()[at..at + INDEX_BLOCK_SIZE]
    }

    /// Records of checked blocks: those of the first block, and the bytes of the blocks behind it.
    #[inline]
    pub fn records_from(&self, first: Seq, count: usize) -> (&[IndexRecord], &[u8]) {
        let (block, slot) = self.block_of(first);
        let in_block = self.count_in(block);
        let run = records_of(self.block_bytes(block), in_block.min(slot + count));
        let behind = &self.idx.mapping.bytes()[(block + 1) * INDEX_BLOCK_SIZE..];
        (run.get(slot..).unwrap_or_default(), behind)
    }

    /// A checked event.
    #[inline]
    pub fn event(&self, seq: Seq) -> RedexEvent {
        let (block, slot) = self.block_of(seq);
        let record = &records_of(self.block_bytes(block), RECORDS_PER_BLOCK)[slot];
        let payload = match record.place() {
            RecordPlace::Inline { bytes, len } => Payload::inline(&bytes[..len]),
            RecordPlace::Dat { offset, len } => match &self.dat {
                // It was checked to lie there; it may not if somebody has cut the file, which the reader then finds.
                Some(dat) => Payload::mapped(dat, offset, len),
                None => Payload::inline(&[]),
            },
        };
        RedexEvent { seq: seq.0, payload, time: EventTime(record.time_us()) }
    }

    /// The records of a block, checked now or before; `None` if they are damaged.
    fn checked_records(&self, block: usize) -> Option<&[IndexRecord]> {
        let bytes = self.block_bytes(block);
        let count = self.count_in(block);
        let flags = &self.checked[block * WORDS_PER_BLOCK + WORDS_PER_BLOCK - 1];
        if flags.load(Ordering::Acquire) & BLOCK_CHECKED == 0 {
            let base = Seq(self.place.segment_first.0 + (block * RECORDS_PER_BLOCK) as u64);
            let records = decode_block(bytes, self.place, base).ok()?;
            if records.len() != count || records.iter().any(|record| record.check().is_err()) {
                return None;
            }
            flags.fetch_or(BLOCK_CHECKED, Ordering::AcqRel);
        }
        Some(records_of(bytes, count))
    }

    /// Checked events from `from` on, below `to`, as many as one step takes. `None` if not even the first can be had.
    fn read(self: &Arc<Self>, from: Seq, to: Seq) -> Option<EventChunk> {
        let to = to.min(self.footer.end);
        if from >= to {
            return None;
        }
        let (first_block, slot) = self.block_of(from);
        let last_block = self.block_of(Seq(to.0 - 1)).0.min(first_block + BLOCKS_PER_STEP - 1);
        let idx = first_block * INDEX_BLOCK_SIZE..(last_block + 1) * INDEX_BLOCK_SIZE;
        let fresh = self.checked[last_block * WORDS_PER_BLOCK + WORDS_PER_BLOCK - 1].load(Ordering::Relaxed)
            & PAYLOADS_CHECKED
            == 0;
        if fresh {
            self.idx.mapping.prefetch(idx.clone());
        }
        self.idx.mapping.populate(idx).ok()?;
        let wanted = (to.0 - from.0) as usize;
        let (count, dat) = self.fitting(first_block, slot, last_block, wanted);
        if count == 0 {
            return None;
        }
        if let (Some(file), Some(dat)) = (&self.dat, dat) {
            if fresh {
                file.mapping.prefetch(dat.clone());
            }
            file.mapping.populate(dat.clone()).ok()?;
            if fresh && count < wanted {
                // What the next step will want is read while this one is checked and looked at.
                file.mapping.prefetch(dat.end..dat.end + DAT_BYTES_PER_STEP);
            }
        }
        if fresh && count < wanted {
            let next = self.block_of(Seq(from.0 + count as u64)).0 * INDEX_BLOCK_SIZE;
            self.idx.mapping.prefetch(next..next + BLOCKS_PER_STEP * INDEX_BLOCK_SIZE);
        }
        let checked = self.check_payloads(first_block, slot, count);
        (checked > 0).then(|| EventChunk::mapped(self.clone(), from, checked))
    }

    /// How many events one step takes, and where in dat their payloads lie.
    fn fitting(
        &self,
        first_block: usize,
        slot: usize,
        last_block: usize,
        wanted: usize,
    ) -> (usize, Option<Range<usize>>) {
        let dat_size = self.dat_bytes().len();
        let mut count = 0;
        let mut dat: Option<Range<usize>> = None;
        for block in first_block..=last_block {
            let Some(records) = self.checked_records(block) else { break };
            let records = &records[if block == first_block { slot } else { 0 }..];
            let records = &records[..records.len().min(wanted - count)];
            if let Some(range) = range_of(records) {
                let all = dat.clone().map_or(range.start, |dat| dat.start)..range.end;
                if all.start < all.end && all.end <= dat_size && all.len() <= DAT_BYTES_PER_STEP {
                    dat = Some(all);
                } else {
                    let fitting = fitting_in(records, &mut dat, dat_size, count == 0);
                    if fitting < records.len() {
                        return (count + fitting, dat);
                    }
                }
            }
            count += records.len();
        }
        (count, dat)
    }

    /// Checks the payloads of `count` events that were not checked before. Says how many of the first are whole.
    fn check_payloads(&self, first_block: usize, slot: usize, count: usize) -> usize {
        let dat = self.dat_bytes();
        let (mut block, mut slot, mut done) = (first_block, slot, 0);
        while done < count {
            let in_block = self.count_in(block);
            let end = in_block.min(slot + count - done);
            let words = &self.checked[block * WORDS_PER_BLOCK..(block + 1) * WORDS_PER_BLOCK];
            let flags = &words[WORDS_PER_BLOCK - 1];
            if flags.load(Ordering::Acquire) & PAYLOADS_CHECKED == 0 {
                let records = records_of(self.block_bytes(block), in_block);
                let is_whole = |record: &IndexRecord| match record.place() {
                    // Checked with the record.
                    RecordPlace::Inline { .. } => true,
                    RecordPlace::Dat { offset, len } => dat
                        .get(offset as usize..offset as usize + len as usize)
                        .is_some_and(|payload| record.verify_payload(payload)),
                };
                if slot == 0 && end == in_block && records.iter().all(is_whole) {
                    flags.fetch_or(PAYLOADS_CHECKED, Ordering::AcqRel);
                    done += end;
                    block += 1;
                    continue;
                }
                let seen: [u64; WORDS_PER_BLOCK] = std::array::from_fn(|i| words[i].load(Ordering::Acquire));
                let mut whole = seen;
                for at in slot..end {
                    let bit = 1 << (at % 64);
                    if whole[at / 64] & bit == 0 {
                        if !is_whole(&records[at]) {
                            remember(words, &whole);
                            return done + at - slot;
                        }
                        whole[at / 64] |= bit;
                    }
                }
                if (0..in_block).all(|at| whole[at / 64] & (1 << (at % 64)) != 0) {
                    whole[WORDS_PER_BLOCK - 1] |= PAYLOADS_CHECKED;
                }
                remember(words, &whole);
            }
            done += end - slot;
            (block, slot) = (block + 1, 0);
        }
        done
    }
}

/// From the first payload in dat to the end of the last.
fn range_of(records: &[IndexRecord]) -> Option<Range<usize>> {
    let mut ends = records.iter().filter_map(|record| match record.place() {
        RecordPlace::Inline { .. } => None,
        RecordPlace::Dat { offset, len } => Some(offset as usize..offset as usize + len as usize),
    });
    let first = ends.next()?;
    Some(first.start..ends.next_back().map_or(first.end, |last| last.end))
}

/// How many of the first records have payloads that one step takes, behind those of `dat`, which grows by them; one at the least
/// if it is the first of the step.
fn fitting_in(records: &[IndexRecord], dat: &mut Option<Range<usize>>, dat_size: usize, is_first: bool) -> usize {
    for (i, record) in records.iter().enumerate() {
        let RecordPlace::Dat { offset, len } = record.place() else { continue };
        let (start, end) = (offset as usize, offset as usize + len as usize);
        let range = dat.get_or_insert(start..start);
        let alone = is_first && range.start == range.end;
        // A record that points backwards, or behind the end, is damaged: plain calls say what is wrong with it.
        if end > dat_size || start < range.end || (!alone && end - range.start > DAT_BYTES_PER_STEP) {
            return i;
        }
        range.end = end;
    }
    records.len()
}

fn remember(words: &[AtomicU64], whole: &[u64; WORDS_PER_BLOCK]) {
    for (word, whole) in words.iter().zip(whole) {
        word.fetch_or(*whole, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
enum State {
    /// Not mapped now.
    #[default]
    Unmapped,
    Mapped(Arc<MappedSegment>),
    /// The files are not what they should be, or of a disk that maps nothing.
    Unmappable,
}

/// Where a segment is mapped when it is read.
#[derive(Debug, Default)]
pub struct WarmPlace {
    state: Mutex<State>,
    used: AtomicU64,
    is_enlisted: Mutex<bool>,
}

impl WarmPlace {
    /// Reads events of the segment from its mapping, which is made if need be. `None` if they have to be read by plain calls:
    /// there is no mapping, or something is wrong with the first of them.
    pub fn read(
        self: &Arc<Self>,
        budget: &Arc<Budget>,
        place: BlockPlace,
        files: (&Arc<dyn File>, Option<&Arc<dyn File>>),
        (from, to): (Seq, Seq),
    ) -> Option<EventChunk> {
        self.get(budget, place, files)?.read(from, to)
    }

    /// The mapped segment, checked to be the files that are there.
    pub fn get(
        self: &Arc<Self>,
        budget: &Arc<Budget>,
        place: BlockPlace,
        (idx, dat): (&Arc<dyn File>, Option<&Arc<dyn File>>),
    ) -> Option<Arc<MappedSegment>> {
        self.used.store(budget.tick(), Ordering::Relaxed);
        let mut state = self.state.lock().expect("no panic while the lock is held");
        match &*state {
            State::Mapped(segment) if segment.is_current() => return Some(segment.clone()),
            State::Unmappable => return None,
            // What was checked counts for nothing if somebody has changed the files: they are mapped and checked anew.
            State::Mapped(_) | State::Unmapped => *state = State::Unmapped,
        }
        match MappedSegment::open(budget, place, idx, dat).map(Arc::new) {
            Ok(segment) => {
                *state = State::Mapped(segment.clone());
                drop(state);
                self.enlist(budget);
                Some(segment)
            }
            Err(NotMapped::NotNow) => None,
            Err(NotMapped::Never) => {
                *state = State::Unmappable;
                None
            }
        }
    }

    fn enlist(self: &Arc<Self>, budget: &Budget) {
        let mut is_enlisted = self.is_enlisted.lock().expect("no panic while the lock is held");
        if !*is_enlisted {
            *is_enlisted = true;
            let this: Weak<Self> = Arc::downgrade(self);
            budget.enlist(this);
        }
    }
}

impl Holder for WarmPlace {
    fn idle_since(&self) -> Option<u64> {
        // Who has the lock is using it, or asks for room itself.
        let state = self.state.try_lock().ok()?;
        matches!(&*state, State::Mapped(segment) if segment.is_unused()).then(|| self.used.load(Ordering::Relaxed))
    }

    fn let_go(&self) {
        if let Ok(mut state) = self.state.try_lock()
            && matches!(&*state, State::Mapped(segment) if segment.is_unused())
        {
            *state = State::Unmapped;
        }
    }
}
