//! All that is intact of a shard's journal, damaged or not.
//!
//! The strict scan (`journal/scan.rs`) ends at the first bad commit. This one goes on behind it, block by block, and notes what is
//! missing between two whole commits ([`Hole`]). Which holes are damage and which are a torn tail is decided by the same rule: a
//! commit that a later one calls durable was acknowledged, and what lies behind the first that nobody calls so is cut off.
//!
//! A segment whose header is bad is read by what its commits say of themselves; one that lies in another one's place by
//! its header (`journal_files.rs`).

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::finding::{FindingKind, StoreFinding};
use super::journal_files::{JournalFiles, Segment};
use crate::ids::{Epoch, Lsn, SegmentNo, Seq, ShardId, StoreUuid};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, OpenMode, read_full};
use crate::journal::format::{
    COMMIT_HEADER_SIZE, CheckpointEntry, CommitError, CommitFields, CommitHeader, Entry, SegmentContext, entries,
};
use crate::journal::{SEGMENT_SIZE_MAX, segment_path};
use crate::segment::record::{IndexRecord, RecordPlace};
use crate::store::superblock::{CleanEnd, ShardRoot};

/// Where a commit header has the salt of its segment.
const SALT_AT: Range<usize> = 16..24;

/// A whole commit.
#[derive(Clone, Debug)]
pub struct SurveyedCommit {
    /// What its header says.
    pub fields: CommitFields,
    /// Its file.
    pub path: Arc<str>,
    segment: SegmentNo,
    image: Arc<AlignedBuf>,
    meta: Range<usize>,
    payload: Range<usize>,
    /// Events whose inline payloads are bad.
    bad_payloads: bool,
    /// Why some of its blocks are not known: the device does not give them.
    unreadable: Option<String>,
}

impl SurveyedCommit {
    /// Its entries, each with its inline bytes: the range in the image.
    pub fn entries(&self) -> impl Iterator<Item = (Entry<'_>, Range<usize>)> {
        let mut at = self.payload.start;
        entries(&self.image[self.meta.clone()]).map_while(Result::ok).map(move |entry| {
            let len = match &entry {
                Entry::Events(events) => events.fields.inline_len as usize,
                _ => 0,
            };
            let inline = at..at + len;
            at += len;
            (entry, inline)
        })
    }

    /// The bytes that ranges of [`SurveyedCommit::entries`] refer to.
    pub fn image(&self) -> &Arc<AlignedBuf> {
        &self.image
    }

    /// The segment that has it.
    pub fn segment(&self) -> SegmentNo {
        self.segment
    }

    /// Where it begins in its file, bytes.
    pub fn offset(&self) -> u64 {
        u64::from(self.fields.offset)
    }
}

/// Commits that were durable and are not there.
#[derive(Clone, Debug)]
pub struct Hole {
    /// Their positions in the journal.
    pub lsns: Range<u64>,
    /// What kind of damage it is.
    pub kind: FindingKind,
    /// Where it is.
    pub path: String,
    /// Where in the file, bytes.
    pub offset: u64,
    /// What is wrong.
    pub cause: String,
}

impl Hole {
    /// Whether the device does not give what lies there, so that nobody knows what it is.
    pub fn is_unreadable(&self) -> bool {
        self.kind == FindingKind::Unreadable
    }
}

/// What is there of a shard's journal.
#[derive(Debug, Default)]
pub struct JournalSurvey {
    /// The commits that hold, ascending by LSN; those of earlier runs too, as far as they are not void.
    pub commits: Vec<SurveyedCommit>,
    /// What is missing between them.
    pub holes: Vec<Hole>,
    /// All commits below are known to have been durable.
    pub witnessed: u64,
    /// The latest checkpoint.
    pub checkpoint: Option<CheckpointEntry>,
    /// Bytes read.
    pub bytes: u64,
    /// Segments that were read.
    pub segments: u64,
}

/// Whose journal is read.
#[derive(Debug)]
pub struct JournalPlace<'a> {
    /// Where the files are.
    pub disk: &'a dyn Disk,
    /// The store.
    pub uuid: StoreUuid,
    /// The shard.
    pub shard: ShardId,
    /// What STORE says, if it says anything.
    pub root: Option<ShardRoot>,
    /// Epoch of STORE.
    pub epoch: Option<Epoch>,
}

/// What one walk through a segment found.
#[derive(Debug, Default)]
struct Walked {
    commits: Vec<SurveyedCommit>,
    holes: Vec<Hole>,
    /// Where it ended, with what; none if it was not read.
    end: Option<Fault>,
    next: Option<u64>,
    rolls_to: Option<SegmentNo>,
    /// All commits below are known to have been durable, by headers that are whole wherever they lie.
    witnessed: u64,
}

/// A place that is bad.
#[derive(Debug)]
struct Fault {
    kind: FindingKind,
    offset: u64,
    cause: String,
}

/// Reads the journal. What cannot be read of the files is a hole.
pub fn survey(place: &JournalPlace<'_>, files: &JournalFiles, findings: &mut Vec<StoreFinding>) -> JournalSurvey {
    let mut survey = JournalSurvey::default();
    let root = place.root.map_or(0, |root| root.segment.0);
    let mut segments = files.of_shard(place.shard, SegmentNo(root));
    let clean = place.root.and_then(|root| root.clean);
    if let Some(clean) = clean {
        segments.retain(|number, _| *number <= clean.segment);
    }
    let misplaced: Vec<_> = segments.values().filter(|segment| segment.is_misplaced).cloned().collect();
    let mut walks = Vec::new();
    for segment in segments.into_values() {
        let end = clean.filter(|clean| clean.segment == segment.number).map(|clean| clean.offset);
        if let Some((segment, walked)) = walk(place, segment, end, &mut survey) {
            walks.push((segment, walked));
        }
    }
    drop_void(&mut walks, root);
    join(place, walks, root, &mut survey);
    if let Some(clean) = clean {
        survey.witnessed = survey.witnessed.max(clean.next_lsn.0);
    }
    check_end(place, &mut survey);
    cut_torn_tail(place, &mut survey, findings);
    survey.checkpoint = survey.commits.iter().rev().find_map(checkpoint_of);
    check_beginning(place, root, &mut survey);
    pass_over_spares(&misplaced, &mut survey);
    misplaced.iter().for_each(|segment| tell_misplaced(place, segment, &survey, findings));
    survey
}

/// The first segment that is needed.
fn needed_from(survey: &JournalSurvey) -> SegmentNo {
    survey.checkpoint.as_ref().map_or(SegmentNo(0), |checkpoint| checkpoint.replay_segment)
}

/// A spare segment that was about to become another one has lost what the first commits of that one were written over, while its
/// header is that of before. Nobody needs what it had.
fn pass_over_spares(misplaced: &[Segment], survey: &mut JournalSurvey) {
    let needed = needed_from(survey);
    let is_spare = |path: &str| misplaced.iter().any(|segment| segment.number < needed && segment.path == path);
    survey.holes.retain(|hole| !is_spare(&hole.path));
}

/// A segment in another one's place gives all that it has, and no open finds it there. What a checkpoint has made needless may
/// be a spare one by now.
fn tell_misplaced(
    place: &JournalPlace<'_>,
    segment: &Segment,
    survey: &JournalSurvey,
    findings: &mut Vec<StoreFinding>,
) {
    if segment.number >= needed_from(survey) {
        let cause = format!("by its header it is segment {} of shard {}", segment.number, place.shard);
        findings.push(StoreFinding::loss(FindingKind::JournalHeader, &segment.path, 0, cause));
    }
}

fn checkpoint_of(commit: &SurveyedCommit) -> Option<CheckpointEntry> {
    commit.entries().find_map(|(entry, _)| match entry {
        Entry::Checkpoint(checkpoint) => Some(checkpoint),
        _ => None,
    })
}

/// Reads one segment; none if nothing in it is of the shard's journal.
fn walk(
    place: &JournalPlace<'_>,
    mut segment: Segment,
    end: Option<u64>,
    survey: &mut JournalSurvey,
) -> Option<(Segment, Walked)> {
    // An opening that was cut off has made it, and nothing names it.
    let is_void = |epoch: Epoch| place.epoch.is_some_and(|known| epoch > known);
    if is_void(Epoch(segment.epoch)) {
        return None;
    }
    let (image, unreadable) = match read_image(place.disk, &segment.path, end) {
        Ok(image) => image,
        Err(error) => {
            segment.fault = Some(format!("it cannot be read: {error}"));
            return Some((segment, Walked::default()));
        }
    };
    survey.bytes += image.len() as u64;
    survey.segments += 1;
    let image = Arc::new(image);
    if segment.context.is_none() {
        let guessed = guess_context(place, segment.number, &image);
        if guessed.is_some_and(|(_, epoch)| is_void(epoch)) {
            return None;
        }
        segment.context = guessed.map(|(context, _)| context);
    }
    let Some(context) = segment.context else { return Some((segment, Walked::default())) };
    let walked = walk_commits(&segment, context, &image, &unreadable);
    Some((segment, walked))
}

/// A segment that has lost its header: its commits say under which salt they stand, and of which epoch they are.
fn guess_context(place: &JournalPlace<'_>, number: SegmentNo, image: &AlignedBuf) -> Option<(SegmentContext, Epoch)> {
    (BLOCK_SIZE..image.len()).step_by(BLOCK_SIZE).find_map(|offset| {
        let salt = u64::from_le_bytes(image[offset..][SALT_AT].try_into().expect("eight bytes"));
        let context = SegmentContext::new(place.uuid, place.shard, number, salt);
        let header = CommitHeader::verify(&image[offset..], &context, offset as u64).ok()?;
        Some((context, header.fields().epoch))
    })
}

/// A whole file, with the blocks of it that the device does not give.
fn read_image(disk: &dyn Disk, path: &str, end: Option<u64>) -> io::Result<(AlignedBuf, Vec<(u64, String)>)> {
    let file = disk.open(path, OpenMode::Read)?;
    let size = file.size()?;
    // No store was ever made with larger segments: a file that is longer takes no more memory.
    let size = size.min(end.unwrap_or(size)).min(SEGMENT_SIZE_MAX) as usize;
    let mut image = AlignedBuf::new(size);
    let mut unreadable = Vec::new();
    let whole = image.len();
    for start in (0..whole).step_by(super::readahead::CHUNK_BYTES) {
        let stop = (start + super::readahead::CHUNK_BYTES).min(whole);
        if read_full(&*file, &mut image[start..stop], start as u64).is_ok() {
            continue;
        }
        for start in (start..stop).step_by(BLOCK_SIZE) {
            if let Err(error) = read_full(&*file, &mut image[start..start + BLOCK_SIZE], start as u64) {
                image[start..start + BLOCK_SIZE].fill(0);
                unreadable.push((start as u64, error.to_string()));
            }
        }
    }
    Ok((image, unreadable))
}

fn walk_commits(
    segment: &Segment,
    context: SegmentContext,
    image: &Arc<AlignedBuf>,
    unreadable: &[(u64, String)],
) -> Walked {
    let path: Arc<str> = segment.path.as_str().into();
    let mut walked = Walked { next: segment.first_lsn, ..Walked::default() };
    let mut at = BLOCK_SIZE;
    // The first place that is bad since the last whole commit; or one that cannot be read, which outweighs it.
    let mut fault: Option<Fault> = None;
    while at < image.len() {
        match look(image, &context, at, walked.next) {
            Look::Whole(fields, size) => {
                let lsn = fields.lsn.0;
                let from = walked.next.unwrap_or(lsn);
                if lsn > from {
                    let fault = fault.take().unwrap_or_else(|| Fault::at(at, format!("commit {lsn} lies there")));
                    walked.holes.push(fault.hole(from..lsn, segment.path.clone()));
                }
                fault = None;
                let mut commit = SurveyedCommit::new(fields, path.clone(), segment.number, image, at);
                commit.unreadable = read_error(unreadable, at, size).map(|(_, error)| error.clone());
                if commit.bad_payloads {
                    walked.witnessed = walked.witnessed.max(best_witness(image, &context, at..at + size));
                }
                walked.rolls_to = commit.entries().find_map(|(entry, _)| match entry {
                    Entry::Roll { next } => Some(next),
                    _ => None,
                });
                walked.commits.push(commit);
                (walked.next, at) = (Some(lsn + 1), at + size);
                if walked.rolls_to.is_some() {
                    break;
                }
            }
            // What lies in it may bear witness, so the next block is looked at whatever its length is.
            Look::Bad(cause) => {
                let found = match read_error(unreadable, at, BLOCK_SIZE) {
                    Some((_, error)) => Fault::unreadable(at, error),
                    None => Fault::at(at, cause),
                };
                let outweighs = found.kind == FindingKind::Unreadable;
                if fault.as_ref().is_none_or(|fault| outweighs && fault.kind != found.kind) {
                    fault = Some(found);
                }
                walked.witnessed = walked.witnessed.max(best_witness(image, &context, at..at + BLOCK_SIZE));
                at += BLOCK_SIZE;
            }
        }
    }
    walked.end = Some(fault.unwrap_or_else(|| Fault::at(at, "there is no commit".to_owned())));
    walked
}

impl Fault {
    fn at(offset: usize, cause: String) -> Self {
        Self { kind: FindingKind::JournalCommit, offset: offset as u64, cause }
    }

    fn unreadable(offset: usize, error: &str) -> Self {
        let cause = format!("it cannot be read: {error}");
        Self { kind: FindingKind::Unreadable, offset: offset as u64, cause }
    }

    fn hole(self, lsns: Range<u64>, path: String) -> Hole {
        Hole { lsns, kind: self.kind, path, offset: self.offset, cause: self.cause }
    }
}

/// The first block of a part of a segment that the device does not give.
fn read_error(unreadable: &[(u64, String)], at: usize, size: usize) -> Option<&(u64, String)> {
    unreadable.iter().find(|(offset, _)| (at as u64..(at + size) as u64).contains(offset))
}

/// Up to which commit the headers in some blocks call everything durable. One of this segment that went to a wrong place,
/// perhaps over what it bears witness to, is as true as any; so is one whose body is bad.
fn best_witness(image: &AlignedBuf, context: &SegmentContext, range: Range<usize>) -> u64 {
    let witness = |offset: usize| {
        let bytes = &image[offset..];
        let header = match CommitHeader::verify(bytes, context, offset as u64) {
            Err(CommitError::Place { offset: own, .. }) => CommitHeader::verify(bytes, context, own.into()),
            header => header,
        };
        header.map_or(0, |header| header.fields().durable_lsn.0)
    };
    range.step_by(BLOCK_SIZE).map(witness).max().unwrap_or(0)
}

enum Look {
    Whole(CommitFields, usize),
    Bad(String),
}

fn look(image: &AlignedBuf, context: &SegmentContext, at: usize, next: Option<u64>) -> Look {
    let header = match CommitHeader::verify(&image[at..], context, at as u64) {
        Ok(header) => header,
        Err(error) => return Look::Bad(error.to_string()),
    };
    let (fields, size) = (*header.fields(), header.commit_size());
    if next.is_some_and(|next| fields.lsn.0 < next) {
        return Look::Bad(format!("commit {} lies there", fields.lsn));
    }
    let meta = match header.body(&image[at..]) {
        Ok((meta, _)) => meta,
        Err(CommitError::BodyCut { size }) => {
            return Look::Bad(format!("commit of {size} bytes is cut off"));
        }
        Err(error) => return Look::Bad(error.to_string()),
    };
    let (mut count, mut inline) = (0, 0);
    for entry in entries(meta) {
        match entry {
            Ok(Entry::Events(events)) => inline += u64::from(events.fields.inline_len),
            Ok(_) => {}
            Err(error) => return Look::Bad(error.to_string()),
        }
        count += 1;
    }
    if count != fields.entry_count || inline != u64::from(fields.payload_len) {
        return Look::Bad("its entries are not what its header says".to_owned());
    }
    Look::Whole(fields, size)
}

impl SurveyedCommit {
    fn new(fields: CommitFields, path: Arc<str>, segment: SegmentNo, image: &Arc<AlignedBuf>, at: usize) -> Self {
        let meta = at + COMMIT_HEADER_SIZE..at + COMMIT_HEADER_SIZE + fields.meta_len as usize;
        let payload = meta.end..meta.end + fields.payload_len as usize;
        let mut commit =
            Self { fields, path, segment, image: image.clone(), meta, payload, bad_payloads: false, unreadable: None };
        let bad = commit.entries().any(|(entry, inline)| match entry {
            Entry::Events(events) => events.verify_inline(&commit.image[inline]).is_err(),
            _ => false,
        });
        commit.bad_payloads = bad;
        commit
    }

    /// What kind of damage its bad payloads are.
    pub fn payload_fault(&self) -> FindingKind {
        match self.unreadable {
            Some(_) => FindingKind::Unreadable,
            None => FindingKind::JournalPayload,
        }
    }

    /// Events whose payloads lie in the commit and are bad, each with why.
    pub fn bad_payloads(&self) -> Vec<(crate::ids::ChannelId, Seq, String)> {
        let mut bad = Vec::new();
        if !self.bad_payloads {
            return bad;
        }
        for (entry, inline) in self.entries() {
            let Entry::Events(events) = entry else { continue };
            for (seq, record) in (events.fields.first.0..).zip(events.records) {
                let bytes = &self.image[inline.clone()];
                if let Err(cause) = check_inline(record, events.fields.dat_offset, bytes) {
                    let unreadable = self.unreadable.as_ref().map(|error| format!("it cannot be read: {error}"));
                    bad.push((events.fields.channel, Seq(seq), unreadable.unwrap_or(cause)));
                }
            }
        }
        bad
    }
}

/// Checks a record, and its payload if it lies in the inline bytes as a whole.
fn check_inline(record: &IndexRecord, base: u32, inline: &[u8]) -> Result<(), String> {
    record.check().map_err(|error| error.to_string())?;
    let RecordPlace::Dat { offset, len } = record.place() else { return Ok(()) };
    let Some(start) = offset.checked_sub(base) else { return Ok(()) };
    match inline.get(start as usize..start as usize + len as usize) {
        Some(payload) if !record.verify_payload(payload) => {
            let (found, expected) = (crate::checksum::crc32c(payload), record.payload_crc());
            Err(format!("checksum of its payload is {found:#010x}, its record says {expected:#010x}"))
        }
        _ => Ok(()),
    }
}

/// What a segment's successor makes void is none of the journal.
fn drop_void(walks: &mut [(Segment, Walked)], root: u64) {
    // Earlier runs, and openings that were cut off, have no say about what the present run holds or has lost.
    let begins = walks.iter().find(|(segment, _)| segment.number.0 == root).and_then(|(segment, _)| segment.first_lsn);
    for (_, walked) in walks.iter_mut().take_while(|(segment, _)| segment.number.0 < root) {
        walked.commits.retain(|commit| begins.is_none_or(|begins| commit.fields.lsn.0 < begins));
        walked.holes.clear();
        (walked.rolls_to, walked.witnessed) = (None, 0);
    }
    for i in 0..walks.len() {
        let number = walks[i].0.number;
        let follows = |(segment, _): &&(Segment, Walked)| segment.predecessor == Some(number);
        let Some(void_from) = walks[i + 1..].iter().find(follows).and_then(|(segment, _)| segment.first_lsn) else {
            continue;
        };
        let walked = &mut walks[i].1;
        walked.commits.retain(|commit| commit.fields.lsn.0 < void_from);
        walked.holes.retain(|hole| hole.lsns.start < void_from);
        walked.holes.iter_mut().for_each(|hole| hole.lsns.end = hole.lsns.end.min(void_from));
        walked.next = walked.next.map(|next| next.min(void_from));
        walked.witnessed = walked.witnessed.min(void_from);
    }
}

/// Puts the segments one behind the other; notes what is missing between two.
fn join(place: &JournalPlace<'_>, walks: Vec<(Segment, Walked)>, root: u64, survey: &mut JournalSurvey) {
    // Where the last one ended: number, path, fault, next LSN, and the segment that it names.
    type Last = (SegmentNo, String, Fault, u64, Option<SegmentNo>);
    let mut last: Option<Last> = None;
    let there: Vec<SegmentNo> = walks.iter().map(|(segment, _)| segment.number).collect();
    for (segment, walked) in walks {
        survey.witnessed = survey.witnessed.max(walked.witnessed);
        let begin = segment.first_lsn.or(walked.commits.first().map(|commit| commit.fields.lsn.0));
        let is_named = segment.number.0 == root && place.root.is_some()
            || last.as_ref().is_some_and(|(.., rolls_to)| *rolls_to == Some(segment.number))
            || !walked.commits.is_empty() && segment.number.0 >= root;
        if let Some(fault) = segment.fault.as_ref().filter(|_| is_named) {
            let from = last.as_ref().map_or(0, |(_, _, _, next, _)| *next).min(begin.unwrap_or(0));
            let (kind, path, cause) = (FindingKind::JournalHeader, segment.path.clone(), fault.clone());
            let end = begin.unwrap_or(from);
            survey.holes.push(Hole { lsns: from..end.max(from), kind, path, offset: 0, cause });
            survey.witnessed = survey.witnessed.max(from + 1);
        }
        let Some(begin) = begin else { continue };
        if let Some((number, path, end, next, _)) = last.take()
            && next < begin
            && segment.number.0 > root
        {
            let hole = match number.0 + 1 == segment.number.0 {
                true => end.hole(next..begin, path),
                false => missing(place, SegmentNo(number.0 + 1), next..begin, "it is missing"),
            };
            survey.holes.push(hole);
        }
        let next = walked.next.unwrap_or(begin).max(begin);
        let end = walked.end.unwrap_or_else(|| Fault::at(0, segment.fault.unwrap_or_default()));
        last = Some((segment.number, segment.path, end, next, walked.rolls_to));
        survey.holes.extend(walked.holes);
        survey.commits.extend(walked.commits);
    }
    // A file that lies under another one's name may be found twice; of two runs the later one counts.
    survey.commits.sort_by_key(|commit| (commit.fields.lsn, std::cmp::Reverse(commit.segment)));
    survey.commits.dedup_by_key(|commit| commit.fields.lsn);
    let of_run = survey.commits.iter().filter(|commit| commit.segment.0 >= root);
    let known = of_run.map(|commit| commit.fields.durable_lsn.0).max().unwrap_or(0);
    survey.witnessed = survey.witnessed.max(known);
    survey.holes.sort_by_key(|hole| hole.lsns.start);
    // Without any segment of the run, STORE tells what is missing.
    let Some((_, path, end, next, rolls_to)) = last.filter(|(number, ..)| number.0 >= root) else { return };
    let lsns = next..u64::MAX;
    match rolls_to.filter(|next| !there.contains(next)) {
        // The header of a segment is durable before a roll names it.
        Some(number) => {
            survey.witnessed = survey.witnessed.max(next + 1);
            survey.holes.push(missing(place, number, lsns, "the roll to it is there, and it is missing"));
        }
        None => survey.holes.push(end.hole(lsns, path)),
    }
}

/// A segment that is not there.
fn missing(place: &JournalPlace<'_>, number: SegmentNo, lsns: Range<u64>, cause: &str) -> Hole {
    let (path, kind) = (segment_path(place.shard, number), FindingKind::JournalMissing);
    Hole { lsns, kind, path, offset: 0, cause: cause.to_owned() }
}

/// The end of the journal: what STORE or a witness says was there, and is not.
fn check_end(place: &JournalPlace<'_>, survey: &mut JournalSurvey) {
    let end = survey.holes.pop_if(|hole| hole.lsns.end == u64::MAX);
    let clean = place.root.and_then(|root| root.clean);
    // STORE names a segment only once its first commit is durable.
    let root = place.root.map_or(SegmentNo(0), |root| root.segment);
    let has_root = survey.commits.iter().any(|commit| commit.segment == root);
    if let Some(end) = end.as_ref().filter(|end| !has_root && root.0 > 0 && end.path == segment_path(place.shard, root))
    {
        survey.witnessed = survey.witnessed.max(end.lsns.start + 1);
    }
    match end {
        Some(end) if end.lsns.start < survey.witnessed || end.is_unreadable() => {
            let lsns = end.lsns.start..survey.witnessed.max(end.lsns.start + 1);
            survey.holes.push(Hole { lsns, ..end });
        }
        None if root.0 > 0 => {
            let number = clean.map_or(root, |clean| clean.segment);
            let lsns = 1..survey.witnessed.max(2);
            survey.holes.push(missing(place, number, lsns, "STORE names it, and it is missing"));
            survey.witnessed = survey.witnessed.max(2);
        }
        _ => {}
    }
    if let Some(clean) = clean
        && !survey.commits.iter().any(|commit| commit.fields.lsn.0 + 1 == clean.next_lsn.0)
        && !survey.holes.iter().any(|hole| hole.lsns.end >= clean.next_lsn.0)
    {
        let lsns = clean.next_lsn.0 - 1..clean.next_lsn.0;
        let hole = missing(place, clean.segment, lsns, "STORE says that the journal ends there");
        survey.holes.push(Hole { offset: clean.offset, ..hole });
    }
}

/// Cuts at the first commit that nobody calls durable and that does not hold.
fn cut_torn_tail(place: &JournalPlace<'_>, survey: &mut JournalSurvey, findings: &mut Vec<StoreFinding>) {
    let witnessed = survey.witnessed;
    // STORE names a segment only once its first commit is durable.
    let root = place.root.map(|root| root.segment);
    let is_torn_hole = |hole: &&Hole| {
        let first_of_root = hole.offset == BLOCK_SIZE as u64
            && root.is_some_and(|root| hole.path == segment_path(place.shard, root) && root.0 > 0);
        // What the device does not give may have been acknowledged.
        hole.lsns.start >= witnessed && !first_of_root && !hole.is_unreadable()
    };
    let hole = survey.holes.iter().find(is_torn_hole).map(|hole| hole.lsns.start);
    let torn = |commit: &&SurveyedCommit| {
        commit.bad_payloads && commit.unreadable.is_none() && commit.fields.lsn.0 >= witnessed
    };
    let commit = survey.commits.iter().find(torn).map(|commit| commit.fields.lsn.0);
    let Some(end) = hole.into_iter().chain(commit).min() else { return };
    survey.cut(Lsn(end), findings);
}

impl JournalSurvey {
    /// Whether the segment and the commit are whole in which a closed journal ends: its checkpoint has everything then, and an
    /// open reads nothing else of the journal.
    pub fn has_end(&self, end: &CleanEnd) -> bool {
        let is_last = |commit: &SurveyedCommit| {
            let is_checkpoint = matches!(commit.entries().next(), Some((Entry::Checkpoint(_), _)));
            is_checkpoint && (commit.fields.lsn.0 + 1, commit.segment) == (end.next_lsn.0, end.segment)
        };
        self.commits.last().is_some_and(is_last)
            && !self.holes.iter().any(|hole| hole.kind == FindingKind::JournalHeader)
    }

    /// The journal ends before this commit, which a crash cut off.
    pub fn cut(&mut self, end: Lsn, findings: &mut Vec<StoreFinding>) {
        let place =
            self.holes.iter().find(|hole| hole.lsns.start >= end.0).map(|hole| (hole.path.clone(), hole.offset));
        let commit = self.commits.iter().find(|commit| commit.fields.lsn >= end);
        let place = commit.map(|commit| (commit.path.to_string(), commit.offset())).or(place);
        if let Some((path, offset)) = place {
            let cause = format!("the journal ends before commit {end}, which a crash cut off");
            let mut note = StoreFinding::note(FindingKind::TornTail, &path, cause);
            note.offset = offset;
            findings.push(note);
        }
        self.commits.retain(|commit| commit.fields.lsn < end);
        self.holes.retain(|hole| hole.lsns.start < end.0);
    }
}

/// If the journal's first segments are gone, a checkpoint must make them needless.
fn check_beginning(place: &JournalPlace<'_>, root: u64, survey: &mut JournalSurvey) {
    let Some(first) = survey.commits.iter().find(|commit| commit.segment.0 >= root) else { return };
    let (begins, lsn) = (first.segment.0, first.fields.lsn.0);
    let needed = survey.checkpoint.as_ref().map_or(root, |checkpoint| checkpoint.replay_segment.0.max(root));
    let from = survey.checkpoint.as_ref().map_or(1, |checkpoint| checkpoint.replay_lsn.0);
    if place.root.is_some() && begins > needed && from < lsn {
        let known = survey.holes.iter().any(|hole| hole.lsns.contains(&(lsn - 1)));
        if !known {
            let cause = "it is missing, and no checkpoint makes it needless";
            survey.holes.insert(0, missing(place, SegmentNo(begins - 1), from..lsn, cause));
        }
    }
}
