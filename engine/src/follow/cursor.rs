//! Reads on in a journal that another process may be writing.
//!
//! A [`JournalCursor`] stands behind the last commit that it has read whole. What lies there is looked at again at every
//! call: nothing, a commit of an earlier life of the file, one that is being written at this moment, or the next commit.
//! So nothing here is damage; only that a commit holds is certain.
//!
//! Promises: commits come in the order of their numbers, each whole, and only once a later one says that it was durable
//! ([`JournalCursor::pop_durable`]). What it leaves to others: what to do when the journal has gone on without it
//! ([`Found::Gone`]), and whether a commit that never holds is damage ([`crate::journal::scan`]).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::ids::{Epoch, Lsn, SegmentNo, ShardId, StoreUuid};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, File, OpenMode, read_full};
use crate::journal::format::{
    CheckpointEntry, CommitError, CommitHeader, Entry, EntryError, EventsEntry, SegmentHeader, entries,
};
use crate::journal::{read_header, segment_path};

/// Bytes of the first look at a time: one read of the device, whether there is news or not.
const LOOK_BYTES: usize = 16 << 10;
/// Bytes read at once at the most, unless a commit has more.
const READ_BYTES: usize = 1 << 20;

/// A commit that was read whole.
#[derive(Debug)]
pub struct ReadCommit {
    /// Its number.
    pub lsn: Lsn,
    /// Epoch in which it was written.
    pub epoch: Epoch,
    /// The last checkpoint entry in it.
    pub checkpoint: Option<CheckpointEntry>,
    meta: Vec<u8>,
    payload: Vec<u8>,
}

impl ReadCommit {
    /// The commit's entries, each with its inline bytes (empty but for events). All were decoded before.
    pub fn entries(&self) -> impl Iterator<Item = (Entry<'_>, &[u8])> {
        let mut rest = &self.payload[..];
        entries(&self.meta).map_while(Result::ok).map(move |entry| {
            let len = match &entry {
                Entry::Events(events) => events.fields.inline_len as usize,
                _ => 0,
            };
            let (inline, behind) = rest.split_at(len.min(rest.len()));
            rest = behind;
            (entry, inline)
        })
    }
}

/// What a look at the journal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Everything that is there was read: so many commits.
    Commits(usize),
    /// The journal went on elsewhere, and what comes next is not where it should be: begin again at STORE.
    Gone,
}

/// Why the journal cannot be read on.
#[derive(Debug)]
pub enum CursorError {
    /// The system refuses.
    Io(io::Error),
    /// A whole commit has an entry of a kind that this software does not know.
    Newer {
        /// Where the commit begins, bytes.
        offset: u64,
        /// Its number.
        lsn: Lsn,
        /// The kind.
        kind: u8,
    },
}

impl From<io::Error> for CursorError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct JournalCursor {
    disk: Arc<dyn Disk>,
    segment: SegmentHeader,
    file: Arc<dyn File>,
    size: u64,
    offset: u64,
    next_lsn: Lsn,
    witnessed: Lsn,
    /// Commits that were read, and are not all known to be durable.
    pending: VecDeque<ReadCommit>,
    /// Whether something of a commit lies where the next one should be, that does not hold.
    is_begun: bool,
    buf: AlignedBuf,
}

/// What lies at one place of the buffer.
enum Look {
    Commit {
        size: usize,
        commit: ReadCommit,
        durable_lsn: Lsn,
        roll: Option<SegmentNo>,
    },
    /// A commit that needs so many bytes.
    Cut(usize),
    Nothing {
        is_begun: bool,
    },
}

impl JournalCursor {
    /// Stands before the first commit of a segment whose header was read. `NotFound` if it is not there any more.
    pub fn new(disk: Arc<dyn Disk>, segment: SegmentHeader) -> io::Result<Self> {
        let file = disk.open(&segment_path(segment.shard, segment.number), OpenMode::Read)?;
        let size = file.size()?;
        Ok(Self {
            disk,
            segment,
            file,
            size: size - size % BLOCK_SIZE as u64,
            offset: BLOCK_SIZE as u64,
            next_lsn: segment.first_lsn,
            witnessed: Lsn(0),
            pending: VecDeque::new(),
            is_begun: false,
            buf: AlignedBuf::new(READ_BYTES),
        })
    }

    /// Says that commits below were durable, as another than the journal tells.
    pub fn witness(&mut self, below: Lsn) {
        self.witnessed = self.witnessed.max(below);
    }

    /// Commits below are known to be durable.
    pub fn witnessed(&self) -> Lsn {
        self.witnessed.min(self.next_lsn)
    }

    /// Number of the commit that comes next.
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Whether something of a commit lies where the next one should be, and does not hold: it is being written, was cut off, or
    /// is damaged.
    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Epoch of the run that writes this journal. That of STORE is higher once a suffix was cut off.
    pub fn epoch(&self) -> Epoch {
        self.segment.epoch
    }

    /// Segment and byte of the next commit.
    pub fn position(&self) -> (SegmentNo, u64) {
        (self.segment.number, self.offset)
    }

    /// The commits that were read and not taken.
    pub fn pending(&self) -> impl DoubleEndedIterator<Item = &ReadCommit> {
        self.pending.iter()
    }

    /// Forgets commits below, which a checkpoint contains.
    pub fn drop_below(&mut self, lsn: Lsn) {
        while self.pending.front().is_some_and(|commit| commit.lsn < lsn) {
            self.pending.pop_front();
        }
    }

    /// Takes the next commit if it is known to be durable.
    pub fn pop_durable(&mut self) -> Option<ReadCommit> {
        self.pending.pop_front_if(|commit| commit.lsn < self.witnessed)
    }

    /// Reads what has come, up to about 64 MiB at a time.
    pub fn read_on(&mut self) -> Result<Found, CursorError> {
        const READS: usize = 64;
        let (mut count, mut window) = (0, LOOK_BYTES);
        for _ in 0..READS {
            let room = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX).min(window);
            if room < BLOCK_SIZE {
                break;
            }
            if self.buf.len() < room {
                self.buf = AlignedBuf::new(room);
            }
            let read = self.file.read_at(&mut self.buf[..room], self.offset)?;
            let step = self.take_commits(read)?;
            count += step.commits;
            match step.next {
                Next::Look => break,
                // By and by more: what is read in vain stays in proportion to what has come.
                Next::Read(needed) if needed as u64 <= self.size - self.offset => {
                    window = needed.max((window * 4).min(READ_BYTES));
                }
                // It says that it goes on behind the end of the file: another life's, or damage.
                Next::Read(_) => break,
                Next::Roll(next) => match self.enter(next)? {
                    true => {}
                    false => return Ok(Found::Gone),
                },
            }
        }
        if self.buf.len() > READ_BYTES {
            self.buf = AlignedBuf::new(READ_BYTES);
        }
        Ok(Found::Commits(count))
    }

    /// Whether the segment in which the cursor stands is still the journal's: not recycled meanwhile.
    pub fn is_current(&self) -> io::Result<bool> {
        match read_header(&*self.disk, &segment_path(self.segment.shard, self.segment.number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
            Ok(header) => Ok(header == Ok(self.segment)),
        }
    }

    /// Takes the commits of the first `read` bytes of the buffer.
    fn take_commits(&mut self, read: usize) -> Result<Taken, CursorError> {
        let (mut at, mut commits) = (0, 0);
        let next = loop {
            if at + BLOCK_SIZE > read {
                break Next::Read(0);
            }
            match self.look(at, read)? {
                Look::Commit { size, commit, durable_lsn, roll } => {
                    at += size;
                    commits += 1;
                    self.next_lsn.0 += 1;
                    self.witnessed = self.witnessed.max(durable_lsn);
                    self.pending.push_back(commit);
                    if let Some(next) = roll {
                        break Next::Roll(next);
                    }
                }
                Look::Cut(size) => break Next::Read(size),
                Look::Nothing { is_begun } => {
                    self.is_begun = is_begun;
                    break Next::Look;
                }
            }
        };
        self.offset += at as u64;
        Ok(Taken { commits, next })
    }

    fn look(&self, at: usize, read: usize) -> Result<Look, CursorError> {
        let offset = self.offset + at as u64;
        let header = match CommitHeader::verify(&self.buf[at..read], &self.segment.context(), offset) {
            Ok(header) => header,
            // What an earlier life left, and what was never written.
            Err(CommitError::Magic | CommitError::Salt | CommitError::Cut) => {
                return Ok(Look::Nothing { is_begun: false });
            }
            Err(_) => return Ok(Look::Nothing { is_begun: true }),
        };
        let size = header.commit_size();
        if at + size > read {
            return Ok(Look::Cut(size));
        }
        let fields = *header.fields();
        let nothing = Ok(Look::Nothing { is_begun: true });
        let Ok((meta, payload)) = header.body(&self.buf[at..at + size]) else { return nothing };
        if fields.lsn != self.next_lsn {
            return nothing;
        }
        let whole = match check_entries(meta, payload, fields.entry_count) {
            Ok(Some(whole)) => whole,
            Ok(None) => return nothing,
            Err(kind) => return Err(CursorError::Newer { offset, lsn: fields.lsn, kind }),
        };
        let commit = ReadCommit {
            lsn: fields.lsn,
            epoch: fields.epoch,
            checkpoint: whole.checkpoint,
            meta: meta.to_vec(),
            payload: payload.to_vec(),
        };
        Ok(Look::Commit { size, commit, durable_lsn: fields.durable_lsn, roll: whole.roll })
    }

    /// Goes on in the segment that a roll entry names. Its header was durable before the entry was written, so if it is not
    /// there, it has been recycled since.
    fn enter(&mut self, number: SegmentNo) -> io::Result<bool> {
        let Some(header) = header_of(&*self.disk, self.segment.uuid, self.segment.shard, number)? else {
            return Ok(false);
        };
        if header.predecessor != Some(self.segment.number) || header.first_lsn != self.next_lsn {
            return Ok(false);
        }
        let file = match self.disk.open(&segment_path(header.shard, number), OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        // The file that is open now may be another than the one whose header was read: this one cannot change its name.
        let mut block = AlignedBuf::new(BLOCK_SIZE);
        let read = read_full(&*file, &mut block, 0)?;
        if SegmentHeader::verify(&block[..read]) != Ok(header) {
            return Ok(false);
        }
        let size = file.size()?;
        self.segment = header;
        self.file = file;
        self.size = size - size % BLOCK_SIZE as u64;
        self.offset = BLOCK_SIZE as u64;
        self.is_begun = false;
        Ok(true)
    }
}

struct Taken {
    commits: usize,
    next: Next,
}

/// What follows a look.
enum Next {
    /// Another look, later.
    Look,
    /// More, at once: so many bytes at the least.
    Read(usize),
    Roll(SegmentNo),
}

/// What a whole commit says besides events.
struct Whole {
    checkpoint: Option<CheckpointEntry>,
    roll: Option<SegmentNo>,
}

/// Checks entries and payloads; `None` if they are not whole. A kind that is not known is an error.
fn check_entries(meta: &[u8], payload: &[u8], count: u32) -> Result<Option<Whole>, u8> {
    let mut whole = Whole { checkpoint: None, roll: None };
    let (mut left, mut rest) = (count, payload);
    for entry in entries(meta) {
        let Some(less) = left.checked_sub(1) else { return Ok(None) };
        left = less;
        match entry {
            Ok(Entry::Events(events)) => match split_inline(&events, rest) {
                Some(behind) => rest = behind,
                None => return Ok(None),
            },
            Ok(Entry::Checkpoint(checkpoint)) => whole.checkpoint = Some(checkpoint),
            Ok(Entry::Roll { next }) => whole.roll = Some(next),
            Ok(_) => {}
            Err(EntryError::UnknownKind { kind, .. }) => return Err(kind),
            Err(_) => return Ok(None),
        }
    }
    Ok((left == 0 && rest.is_empty()).then_some(whole))
}

/// What follows the inline bytes of an entry, if these are whole.
fn split_inline<'p>(events: &EventsEntry<'_>, payload: &'p [u8]) -> Option<&'p [u8]> {
    let (inline, behind) = payload.split_at_checked(events.fields.inline_len as usize)?;
    events.verify_inline(inline).ok()?;
    Some(behind)
}

/// The header of a segment of this store, if the file is there and has one.
pub fn header_of(
    disk: &dyn Disk,
    uuid: StoreUuid,
    shard: ShardId,
    number: SegmentNo,
) -> io::Result<Option<SegmentHeader>> {
    match read_header(disk, &segment_path(shard, number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(header) => {
            Ok(header.ok().filter(|header| header.uuid == uuid && header.shard == shard && header.number == number))
        }
    }
}
