//! What each I/O operation in flight was for.

use std::ops::Range;
use std::sync::Arc;

use super::handle::Slot;
use crate::ids::{Lsn, Seq};
use crate::io::{Driver, Durability, File, IoBuf, Operation};
use crate::tail::page::Page;

/// A commit's write to a dat file: all that it takes to make it again.
#[derive(Debug)]
pub struct Extent {
    /// The commit.
    pub lsn: Lsn,
    /// Where the blocks lie.
    pub page: Arc<Page>,
    /// Which blocks of the page, bytes.
    pub blocks: Range<usize>,
    /// What its completion promises.
    pub durability: Durability,
    /// Whether it found no room before.
    pub again: bool,
}

impl Extent {
    /// The write.
    pub fn operation(&self, file: Arc<dyn File>) -> Operation {
        let offset = u64::from(self.page.start().dat_start) + self.blocks.start as u64;
        let buf = IoBuf::Stable(self.page.blocks(self.blocks.clone()));
        Operation::Write { file, offset, buf, durability: self.durability }
    }
}

/// Why an operation was submitted: what its completion means.
#[derive(Debug)]
pub enum Purpose {
    /// A commit's write to the journal.
    CommitWrite(Lsn),
    /// A commit's write to a dat file.
    CommitExtent(Extent),
    /// A flush that a commit waits for.
    CommitFlush(Lsn),
    /// Blocks of dat, up to `byte` of a page.
    Dat {
        /// Whose.
        slot: Slot,
        /// End of what was written, bytes into the page.
        byte: usize,
    },
    /// Index blocks, up to an event.
    Idx {
        /// Whose.
        slot: Slot,
        /// End of the records written.
        end: Seq,
    },
    /// The last index block and the footer of a segment.
    SealWrite(Slot),
    /// A flush of a sealed segment's file.
    SealFlush(Slot),
    /// The header of the next journal segment.
    RollHeader,
    /// Zeros for a spare journal segment.
    SpareZero,
    /// The flush of a spare journal segment.
    SpareFlush,
    /// A flush of a segment's file before a checkpoint.
    CheckpointFlush,
    /// A slice of a checkpoint file.
    CheckpointWrite,
    /// The flush of the checkpoint file.
    CheckpointFileFlush,
}

impl Purpose {
    /// For messages.
    pub fn what(&self) -> &'static str {
        match self {
            Self::CommitWrite(_) => "journal write",
            Self::CommitExtent(_) => "extent write",
            Self::CommitFlush(_) => "commit flush",
            Self::Dat { .. } => "dat write",
            Self::Idx { .. } => "index write",
            Self::SealWrite(_) => "seal write",
            Self::SealFlush(_) => "seal flush",
            Self::RollHeader => "journal header write",
            Self::SpareZero => "spare segment write",
            Self::SpareFlush => "spare segment flush",
            Self::CheckpointFlush => "segment flush",
            Self::CheckpointWrite => "checkpoint write",
            Self::CheckpointFileFlush => "checkpoint flush",
        }
    }

    /// Whether it is a write to a segment's file behind the journal.
    pub fn is_segment_write(&self) -> bool {
        matches!(self, Self::Dat { .. } | Self::Idx { .. } | Self::SealWrite(_))
    }

    /// What the simulated disk counts it as, where the path alone does not tell.
    #[cfg(any(test, feature = "sim"))]
    fn step_kind(&self) -> Option<crate::io::sim::StepKind> {
        use crate::io::sim::StepKind;
        match self {
            Self::CommitExtent(_) => Some(StepKind::Extent),
            Self::SealWrite(_) => Some(StepKind::Seal),
            Self::RollHeader => Some(StepKind::Roll),
            _ => None,
        }
    }

    /// Whether ENOSPC of this operation leaves everything as it was, to be tried again.
    pub fn may_find_no_space(&self) -> bool {
        matches!(
            self,
            Self::CommitExtent(_)
                | Self::Dat { .. }
                | Self::Idx { .. }
                | Self::SealWrite(_)
                | Self::SpareZero
                | Self::CheckpointWrite
        )
    }
}

/// Operations in flight, by token.
#[derive(Debug, Default)]
pub struct Ops {
    purposes: Vec<Option<(Purpose, Arc<dyn File>)>>,
    free: Vec<usize>,
    in_flight: usize,
}

impl Ops {
    /// Submits an operation and remembers what for.
    pub fn submit(&mut self, driver: &mut dyn Driver, purpose: Purpose, operation: Operation) {
        #[cfg(any(test, feature = "sim"))]
        let _label = crate::io::sim::StepLabel::begin(purpose.step_kind());
        let file = match &operation {
            Operation::Write { file, .. } | Operation::Flush { file } => file.clone(),
        };
        let token = self.free.pop().unwrap_or_else(|| {
            self.purposes.push(None);
            self.purposes.len() - 1
        });
        self.purposes[token] = Some((purpose, file));
        self.in_flight += 1;
        driver.submit(token as u64, operation);
    }

    /// What a completed operation was for.
    pub fn finish(&mut self, token: u64) -> (Purpose, Arc<dyn File>) {
        let token = usize::try_from(token).expect("a token that was given out");
        let purpose = self.purposes[token].take().expect("an operation completes once");
        self.free.push(token);
        self.in_flight -= 1;
        purpose
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}
