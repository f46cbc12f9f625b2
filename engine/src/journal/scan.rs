//! Reads one shard's journal at recovery: finds its commits and its end, and tells a torn tail from corruption.
//!
//! Commits in flight at a power cut reach the disk in any subset. So the first bad commit ends the journal silently,
//! as a torn tail, **unless** a commit behind it was written when the bad one was already known to be durable (a
//! *witness*): then acknowledged data is damaged, and the scan fails with its position. A commit survives a cut without
//! the extents that went with it, so those of commits without a witness are verified too.
//!
//! | case | what is found | what follows |
//! |---|---|---|
//! | A | bad commit, no witness behind it | torn tail: cut there |
//! | B | bad commit, a witness behind it, in its segment or a later one | [`JournalError::Corrupt`] |
//! | C | bad commit before a clean end that STORE names, or first in the segment that STORE names | [`JournalError::Corrupt`] |
//! | D | extent of a commit without a witness does not verify | torn tail: cut there |
//! | E | roll entry | goes on in the segment it names, whose header must be whole and follow |
//! | F | later segment, but no roll entry before the end | prepared and never used; searched for witnesses |
//! | G | commit that a successor's first LSN makes void | goes on in the successor |
//! | H | header that is bad, or of another store, shard, number or run | see below |
//! | I | the first segments are gone | recycled, if a checkpoint makes them needless; else [`JournalError::Lost`] |
//! | K | whole commit with an unknown entry kind | [`JournalError::NewerEntry`] |
//!
//! H: it is an unused file, unless STORE, a roll entry, or a successor that no checkpoint frees of it needs it; then it
//! is [`JournalError::BadHeader`].
//!
//! Nothing here writes. Reading goes through [`Disk`], in large blocking reads. A segment is read to its end, since a
//! witness may lie anywhere behind a bad commit; behind a clean end nothing is read.

mod commit;
mod error;
mod files;
mod image;

use std::io;
use std::ops::Range;
use std::sync::Arc;

pub use error::{CommitFault, HeaderFault, JournalError, NamedBy, Witness};

use self::commit::{Expected, Found, Place, look};
use self::files::Files;
use self::image::Image;
use crate::ids::{Epoch, Lsn, SegmentNo, ShardId, StoreUuid};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk};
use crate::journal::format::{
    COMMIT_HEADER_SIZE, CheckpointEntry, CommitError, CommitHeader, Entry, EntryError, EventsEntry, SegmentHeader,
    entries,
};
use crate::journal::segment_path;
use crate::store::superblock::{CleanEnd, ShardRoot};

/// Whose journal is read, and what STORE says about it.
#[derive(Clone, Copy, Debug)]
pub struct Recovery<'a> {
    /// Where the files are.
    pub disk: &'a dyn Disk,
    /// The store.
    pub uuid: StoreUuid,
    /// The shard.
    pub shard: ShardId,
    /// Where the journal begins, and where it ends after a clean close.
    pub root: &'a ShardRoot,
    /// Epoch of STORE.
    pub epoch: Epoch,
}

/// Says whether the payloads of an entry that lie in its extent verify; gets the entry and its inline bytes (see
/// [`EventsEntry::verify_extent`]). Called for commits without a witness only. A file that is missing or too short is
/// `Ok(false)`; an error ends the scan.
pub type VerifyExtent<'a> = dyn FnMut(&EventsEntry<'_>, &[u8]) -> io::Result<bool> + 'a;

/// A commit that holds.
#[derive(Clone, Debug)]
pub struct ScannedCommit {
    /// Position in the journal.
    pub lsn: Lsn,
    /// Epoch in which it was written.
    pub epoch: Epoch,
    /// Segment it lies in.
    pub segment: SegmentNo,
    /// Where it begins in the segment, bytes.
    pub offset: u64,
    image: Arc<AlignedBuf>,
    meta: Range<usize>,
    payload: Range<usize>,
}

/// Where a torn tail was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Segment of the first commit that does not hold.
    pub segment: SegmentNo,
    /// Where that commit begins, bytes.
    pub offset: u64,
    /// Its LSN.
    pub lsn: Lsn,
}

/// What a shard's journal holds.
#[derive(Debug)]
pub struct JournalScan {
    /// The commits to replay, in order: those not below the latest checkpoint's `replay_lsn`.
    pub commits: Vec<ScannedCommit>,
    /// LSN behind the last commit that holds.
    pub next_lsn: Lsn,
    /// All commits below are known to have been durable.
    pub witnessed: Lsn,
    /// Segment of the journal's end.
    pub last_segment: SegmentNo,
    /// Where in it the journal ends, bytes.
    pub last_offset: u64,
    /// The segments in use, ascending; the last is `last_segment`.
    pub chain: Vec<SegmentNo>,
    /// Names of segment files that nobody needs.
    pub leftovers: Vec<String>,
    /// Names in the journal's directory that are no segment's of this store. To be reported, never deleted.
    pub unknown: Vec<String>,
    /// Highest epoch in STORE and any header; the next opening goes above.
    pub epoch_max: Epoch,
    /// Highest number of any segment; the next one goes above.
    pub number_max: SegmentNo,
    /// The latest checkpoint.
    pub checkpoint: Option<CheckpointEntry>,
    /// Where a torn tail was cut, if there was one. (One that left nothing but zeros is none.)
    pub torn: Option<TornTail>,
}

impl ScannedCommit {
    /// The commit's entries, encoded.
    #[must_use]
    pub fn meta(&self) -> &[u8] {
        &self.image[self.meta.clone()]
    }

    /// The inline bytes of all its entries, packed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.image[self.payload.clone()]
    }

    /// The commit's entries, each with its inline bytes (empty but for events). A scanned commit's entries all decode.
    pub fn entries(&self) -> impl Iterator<Item = Result<(Entry<'_>, &[u8]), EntryError>> {
        let mut rest = self.payload();
        entries(self.meta()).map(move |entry| {
            let entry = entry?;
            let len = match &entry {
                Entry::Events(events) => events.fields.inline_len as usize,
                _ => 0,
            };
            let (inline, behind) = rest.split_at(len.min(rest.len()));
            rest = behind;
            Ok((entry, inline))
        })
    }

    fn new(found: &Found, segment: SegmentNo, image: &Arc<AlignedBuf>) -> Self {
        let meta = found.fields.offset as usize + COMMIT_HEADER_SIZE;
        let payload = meta + found.fields.meta_len as usize;
        Self {
            lsn: found.fields.lsn,
            epoch: found.fields.epoch,
            segment,
            offset: u64::from(found.fields.offset),
            image: Arc::clone(image),
            meta: meta..payload,
            payload: payload..payload + found.fields.payload_len as usize,
        }
    }
}

/// Reads the journal of one shard.
///
/// # Errors
///
/// If anything that was durable is damaged or missing, newer software wrote it, or it cannot be read. Nothing is
/// changed then or otherwise.
pub fn scan(recovery: &Recovery<'_>, verify_extent: &mut VerifyExtent<'_>) -> Result<JournalScan, JournalError> {
    let files = Files::read(recovery)?;
    let mut walk = Walk::begin(recovery, &files)?;
    let torn = match walk.run()? {
        Stop::CleanEnd => None,
        Stop::Bad(fault) => walk.judge(fault)?,
    };
    let torn = walk.cut_at_bad_extent(verify_extent)?.or(torn);
    walk.check_beginning()?;
    Ok(walk.finish(torn))
}

/// How reading the commits one after the other ended.
enum Stop {
    CleanEnd,
    Bad(CommitFault),
}

/// What goes through the chain of segments.
struct Walk<'a> {
    recovery: &'a Recovery<'a>,
    files: &'a Files,
    chain: Vec<SegmentHeader>,
    /// One a segment of the chain that was entered.
    images: Vec<Image>,
    /// The commits that hold, each with its segment's index in the chain.
    commits: Vec<(usize, Found)>,
    /// Index in the chain, and offset, of the next commit.
    at: (usize, usize),
    next_lsn: Lsn,
    witnessed: Lsn,
}

impl<'a> Walk<'a> {
    /// Stands at the beginning of the chain.
    fn begin(recovery: &'a Recovery<'a>, files: &'a Files) -> Result<Self, JournalError> {
        let chain = chain(recovery, files)?;
        let next_lsn = chain[0].first_lsn;
        let first = open(recovery, &chain[0])?;
        Ok(Self {
            recovery,
            files,
            chain,
            images: vec![first],
            commits: Vec::new(),
            at: (0, BLOCK_SIZE),
            next_lsn,
            witnessed: Lsn(0),
        })
    }

    /// Takes commit after commit, to the clean end or the first bad one.
    fn run(&mut self) -> Result<Stop, JournalError> {
        loop {
            if let Some(end) = self.recovery.root.clean
                && self.has_reached(&end)?
            {
                self.witnessed = self.next_lsn;
                return Ok(Stop::CleanEnd);
            }
            match self.look()? {
                Place::Commit(found) => self.take(found)?,
                Place::Void => self.leave_void()?,
                Place::Bad(fault) => return Ok(Stop::Bad(fault)),
            }
        }
    }

    fn look(&mut self) -> Result<Place, JournalError> {
        let (index, offset) = self.at;
        let expected = Expected {
            segment: &self.chain[index],
            offset,
            lsn: self.next_lsn,
            epoch_max: self.recovery.epoch,
            void_from: self.void_from(index),
        };
        look(&mut self.images[index], &expected)
    }

    /// LSN from which on the segment's commits are void: its successor's first.
    fn void_from(&self, index: usize) -> Option<Lsn> {
        let next = self.chain.get(index + 1)?;
        (next.predecessor == Some(self.chain[index].number)).then_some(next.first_lsn)
    }

    fn take(&mut self, found: Found) -> Result<(), JournalError> {
        let (index, offset) = self.at;
        let (lsn, roll) = (found.fields.lsn, found.roll);
        self.at.1 += found.size;
        self.next_lsn = Lsn(lsn.0 + 1);
        self.witnessed = self.witnessed.max(found.fields.durable_lsn);
        self.commits.push((index, found));
        match roll {
            Some(next) => self.roll(next, offset as u64, lsn),
            None => Ok(()),
        }
    }

    /// Follows a roll entry.
    fn roll(&mut self, next: SegmentNo, offset: u64, lsn: Lsn) -> Result<(), JournalError> {
        let index = self.at.0;
        let follows = self.chain.get(index + 1).is_some_and(|header| {
            let from_here = header.predecessor == Some(self.chain[index].number);
            header.number == next && from_here && header.first_lsn == self.next_lsn
        });
        if follows {
            return self.enter_next();
        }
        let path = self.path(index);
        if self.files.run.contains_key(&next) {
            return Err(JournalError::BrokenChain { path, offset, lsn, next });
        }
        Err(missing(self.recovery, self.files, next, NamedBy::Roll { path, offset }))
    }

    fn enter_next(&mut self) -> Result<(), JournalError> {
        let index = self.at.0 + 1;
        self.images.push(open(self.recovery, &self.chain[index])?);
        self.at = (index, BLOCK_SIZE);
        Ok(())
    }

    /// Goes on in the successor, which makes the rest of this segment void. What was ever cut had no witness; so one
    /// in the void part contradicts the successor.
    fn leave_void(&mut self) -> Result<(), JournalError> {
        let ((index, offset), lsn) = (self.at, self.next_lsn);
        let next = self.chain[index + 1];
        let witness = best_witness(&mut self.images[index], &self.chain[index], offset, lsn)?;
        if next.first_lsn != lsn || witness.is_some_and(|(durable_lsn, _)| durable_lsn > lsn) {
            let (path, offset) = (self.path(index), offset as u64);
            return Err(JournalError::BrokenChain { path, offset, lsn, next: next.number });
        }
        self.enter_next()
    }

    fn has_reached(&self, end: &CleanEnd) -> Result<bool, JournalError> {
        let (index, offset) = self.at;
        let here = (self.chain[index].number, offset as u64);
        if here < (end.segment, end.offset) {
            return Ok(false);
        }
        if here == (end.segment, end.offset) && self.next_lsn == end.next_lsn {
            return Ok(true);
        }
        Err(JournalError::WrongEnd { path: self.path(index), offset: here.1, lsn: self.next_lsn })
    }

    /// Decides what the first bad commit is: corruption, a torn tail, or just the end.
    fn judge(&mut self, fault: CommitFault) -> Result<Option<TornTail>, JournalError> {
        if let Some(CleanEnd { next_lsn, .. }) = self.recovery.root.clean {
            return Err(self.corrupt(fault, Witness::CleanEnd { next_lsn }));
        }
        let behind = self.look_behind()?;
        let (lsn, torn) = (self.next_lsn, self.here());
        let first_of_root = self.chain[self.at.0].number == self.recovery.root.segment && self.at.1 == BLOCK_SIZE;
        match behind {
            Some((durable_lsn, witness)) if durable_lsn > lsn => Err(self.corrupt(fault, witness)),
            // STORE names a segment only once its first commit is durable.
            _ if first_of_root => Err(self.corrupt(fault, Witness::Store)),
            Some((durable_lsn, _)) => {
                self.witnessed = self.witnessed.max(durable_lsn);
                Ok(Some(torn))
            }
            None => Ok(was_begun(&fault).then_some(torn)),
        }
    }

    /// Looks for commits behind the first bad one: at every block of the rest of its segment and of the later segments.
    /// Gives the one that knows most to be durable.
    fn look_behind(&mut self) -> Result<Option<(Lsn, Witness)>, JournalError> {
        let (index, offset) = self.at;
        let mut best = best_witness(&mut self.images[index], &self.chain[index], offset, self.next_lsn)?;
        for header in &self.chain[index + 1..] {
            let mut image = open(self.recovery, header)?;
            let found = best_witness(&mut image, header, BLOCK_SIZE, self.next_lsn)?;
            best = better(best, found);
        }
        Ok(best)
    }

    /// Verifies the extents of commits without a witness; cuts at the first that does not.
    fn cut_at_bad_extent(&mut self, verify: &mut VerifyExtent<'_>) -> Result<Option<TornTail>, JournalError> {
        let from = self.witnessed.max(self.checkpoint().map_or(Lsn(0), |checkpoint| checkpoint.replay_lsn));
        let start = self.commits.partition_point(|(_, found)| found.fields.lsn < from);
        for i in start..self.commits.len() {
            if !self.extents_verify(i, verify)? {
                let (index, found) = &self.commits[i];
                self.at = (*index, found.fields.offset as usize);
                self.next_lsn = found.fields.lsn;
                self.commits.truncate(i);
                return Ok(Some(self.here()));
            }
        }
        Ok(None)
    }

    fn extents_verify(&mut self, i: usize, verify: &mut VerifyExtent<'_>) -> Result<bool, JournalError> {
        let (index, found) = &self.commits[i];
        if !found.has_extent {
            return Ok(true);
        }
        let start = found.fields.offset as usize;
        let image = &mut self.images[*index];
        let path = image.path().to_owned();
        let body = &image.bytes(start..start + found.size)?[COMMIT_HEADER_SIZE..];
        let (meta, mut payload) = body.split_at(found.fields.meta_len as usize);
        for entry in entries(meta) {
            let Ok(Entry::Events(events)) = entry else { continue };
            let (inline, rest) = payload.split_at(events.fields.inline_len as usize);
            payload = rest;
            let verified = events.fields.extent_len == 0
                || verify(&events, inline).map_err(|error| io_error(&path, start as u64, error))?;
            if !verified {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// If the journal's first segments are gone, a checkpoint must make them needless.
    fn check_beginning(&self) -> Result<(), JournalError> {
        let first = self.chain[0].number;
        let needless = self.checkpoint().is_some_and(|checkpoint| checkpoint.replay_segment >= first);
        if first <= self.recovery.root.segment || needless {
            return Ok(());
        }
        let named_by = NamedBy::Successor { path: self.path(0) };
        Err(missing(self.recovery, self.files, SegmentNo(first.0 - 1), named_by))
    }

    fn finish(self, torn: Option<TornTail>) -> JournalScan {
        let (last, last_offset) = self.at;
        let checkpoint = self.checkpoint().cloned();
        let replay_lsn = checkpoint.as_ref().map_or(Lsn(0), |checkpoint| checkpoint.replay_lsn);
        let chain: Vec<_> = self.chain[..=last].iter().map(|header| header.number).collect();
        let images: Vec<_> = self.images.into_iter().map(Image::into_bytes).collect();
        let replayed = self.commits.iter().filter(|(_, found)| found.fields.lsn >= replay_lsn);
        let commits = replayed.map(|(index, found)| ScannedCommit::new(found, chain[*index], &images[*index]));
        let commits = commits.collect();
        JournalScan {
            commits,
            next_lsn: self.next_lsn,
            witnessed: self.witnessed,
            last_segment: chain[last],
            last_offset: last_offset as u64,
            leftovers: leftovers(self.files, &chain),
            chain,
            unknown: self.files.unknown.clone(),
            epoch_max: self.files.epoch_max,
            number_max: self.files.number_max,
            checkpoint,
            torn,
        }
    }

    fn checkpoint(&self) -> Option<&CheckpointEntry> {
        self.commits.iter().rev().find_map(|(_, found)| found.checkpoint.as_ref())
    }

    fn here(&self) -> TornTail {
        let (index, offset) = self.at;
        TornTail { segment: self.chain[index].number, offset: offset as u64, lsn: self.next_lsn }
    }

    fn path(&self, index: usize) -> String {
        segment_path(self.recovery.shard, self.chain[index].number)
    }

    fn corrupt(&self, fault: CommitFault, witness: Witness) -> JournalError {
        let (index, offset) = self.at;
        JournalError::Corrupt {
            path: self.path(index),
            offset: offset as u64,
            lsn: self.next_lsn,
            fault,
            witness: Box::new(witness),
        }
    }
}

/// The segments of the run from the highest number down, as long as none is missing; ascending, at least one. After a
/// clean close the highest is the one in which STORE says that the journal ends.
fn chain(recovery: &Recovery<'_>, files: &Files) -> Result<Vec<SegmentHeader>, JournalError> {
    let ShardRoot { segment: root, clean } = *recovery.root;
    let last = match clean {
        Some(end) => files.run.get(&end.segment).ok_or(end.segment),
        None => files.run.last_key_value().map(|(_, header)| header).ok_or(root),
    };
    let last = last.map_err(|number| missing(recovery, files, number, NamedBy::Store))?;
    let mut chain = vec![*last];
    while let Some(header) = chain.last().and_then(|header| files.run.get(&SegmentNo(header.number.0 - 1))) {
        chain.push(*header);
    }
    chain.reverse();
    Ok(chain)
}

/// Opens a segment for reading; nothing behind a clean end counts.
fn open(recovery: &Recovery<'_>, header: &SegmentHeader) -> Result<Image, JournalError> {
    let clean = recovery.root.clean.filter(|end| end.segment == header.number);
    let path = segment_path(recovery.shard, header.number);
    Image::open(recovery.disk, path, clean.map(|end| end.offset))
}

/// The error for a segment that is needed and not there, or there and not usable.
fn missing(recovery: &Recovery<'_>, files: &Files, number: SegmentNo, named_by: NamedBy) -> JournalError {
    let path = segment_path(recovery.shard, number);
    match files.others.get(&number) {
        Some(fault) => JournalError::BadHeader { path, fault: fault.copy(), named_by },
        None => JournalError::Lost { path, named_by },
    }
}

/// The commit from `offset` on, of at least `lsn`, that knows most to be durable.
fn best_witness(
    image: &mut Image,
    segment: &SegmentHeader,
    offset: usize,
    lsn: Lsn,
) -> Result<Option<(Lsn, Witness)>, JournalError> {
    let context = segment.context();
    let mut best = None;
    for offset in (offset..image.size()).step_by(BLOCK_SIZE) {
        let bytes = image.bytes(offset..offset + COMMIT_HEADER_SIZE)?;
        let header = match CommitHeader::verify(bytes, &context, offset as u64) {
            // A commit of this segment that went to a wrong place, perhaps over what it bears witness to: it is as true.
            Err(CommitError::Place { shard, segment: number, offset: own })
                if (shard, number) == (segment.shard, segment.number) =>
            {
                CommitHeader::verify(bytes, &context, own.into())
            }
            result => result,
        };
        let Ok(header) = header else { continue };
        let fields = *header.fields();
        if fields.lsn < lsn {
            continue;
        }
        let witness = Witness::Commit {
            path: image.path().to_owned(),
            offset: offset as u64,
            lsn: fields.lsn,
            durable_lsn: fields.durable_lsn,
        };
        best = better(best, Some((fields.durable_lsn, witness)));
    }
    Ok(best)
}

fn better(a: Option<(Lsn, Witness)>, b: Option<(Lsn, Witness)>) -> Option<(Lsn, Witness)> {
    match (a, b) {
        (Some(a), Some(b)) if b.0 > a.0 => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    }
}

/// Whether something of the commit had been written, as far as one can tell: not if there is nothing of this life of
/// the file.
fn was_begun(fault: &CommitFault) -> bool {
    let nothing = [CommitError::Magic, CommitError::Salt, CommitError::Cut];
    !matches!(fault, CommitFault::Commit(error) if nothing.contains(error))
}

/// Names of segment files outside of the chain, but for those of other stores, and those that do not tell whose they are.
fn leftovers(files: &Files, chain: &[SegmentNo]) -> Vec<String> {
    let own = |fault: &HeaderFault| !matches!(fault, HeaderFault::OtherStore(_) | HeaderFault::Unreadable(_));
    let own = files.others.iter().filter(|(_, fault)| own(fault));
    let mut numbers: Vec<_> = own.map(|(number, _)| *number).collect();
    numbers.extend(files.run.keys().filter(|number| !chain.contains(number)));
    numbers.sort();
    numbers.iter().map(|number| format!("{:020}.wal", number.0)).collect()
}

fn io_error(path: &str, offset: u64, error: io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), offset, error }
}

#[cfg(test)]
mod tests;
