//! Journal segments: the roll to the next one, and spare ones made ahead.
//!
//! The order of a roll (design D6): everything before is done; the next segment's header is durable; then a roll entry in the
//! old segment names it; then commits go there. Each step waits for the one before, once in a segment's life.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};

use super::commit::{ControlEntry, Kind};
use super::handle::ShardHandle;
use super::ops::Purpose;
use super::stats::add;
use super::{SPACE_RETRY_US, Shard};
use crate::error::Poisoned;
use crate::ids::{Lsn, SegmentNo};
use crate::io::{AlignedBuf, BLOCK_SIZE, Durability, File, IoBuf, Operation};
use crate::journal::format::{SegmentHeader, commit_size_checkpoint};
use crate::journal::pool::ZEROS_BYTES;
use crate::journal::writer::{Next, Rolling};
use crate::journal::{segment_path, spare_dir};

/// Ready segments that a shard wants: one to roll to, one kept back for recovery.
pub const SPARES_WANTED: usize = 2;
/// Ready segments kept at the most: removing a file may make the device discard its blocks, which takes tens of
/// milliseconds.
pub const SPARES_KEPT: usize = 6;

/// Spares are made once so small a part of the first segment is written: a store that takes a few events never needs them.
const SPARES_FROM: u64 = 32;

/// A spare segment in the making.
#[derive(Debug)]
pub struct Making {
    name: String,
    file: Arc<dyn File>,
    /// Bytes written with zeros.
    written: u64,
    /// Bytes of the slice that is being written.
    slice: u64,
}

impl Shard {
    /// Bytes at the end of a segment that events leave free: for the roll's entry, and for those of two checkpoints. A
    /// roll that finds no spare waits for a checkpoint to recycle one (on a full disk nothing else does): the one that is
    /// under way may free nothing, the next frees all segments but the present one.
    pub(super) fn journal_reserve(&self) -> u64 {
        (BLOCK_SIZE + 2 * commit_size_checkpoint(self.checkpoint_files.files.len() + 1)) as u64
    }

    /// Whether fewer segments are ready than should be: one is kept back for recovery, which takes it when the disk is full.
    pub(super) fn lacks_spares(&self) -> bool {
        let wanted = if self.closing { usize::from(self.journal.is_rolling()) } else { SPARES_WANTED };
        self.pool.ready() < wanted
    }

    /// Whether the disk has no room for a spare that is wanted, and a checkpoint would free one.
    pub(super) fn wants_recycling(&self) -> bool {
        let retries = self.timers.spare_retry_at.is_some() && self.lacks_spares();
        retries && self.journal.has_older() && !self.journal.ends_below(self.replay_from)
    }

    /// Decides to roll. Commits wait until it is done.
    pub(super) fn begin_roll(&mut self) -> Result<(), Poisoned> {
        if !self.journal.is_rolling() {
            self.journal.rolling = Rolling::Wanted;
        }
        self.roll()
    }

    /// Takes the next step of a roll, if it can be taken.
    pub(super) fn roll(&mut self) -> Result<(), Poisoned> {
        if !matches!(self.journal.rolling, Rolling::Wanted)
            || self.commits.in_flight() > 0
            || self.commits.has_barrier()
        {
            return Ok(());
        }
        if self.lacks_spares() {
            return self.make_spare();
        }
        let number = SegmentNo(self.journal.number().0 + 1);
        let taken = self.pool.take(number);
        let Some(file) = self.checked("journal rename", &segment_path(self.handle.id, number), taken)? else {
            return self.make_spare();
        };
        let header = SegmentHeader {
            uuid: self.journal.header().uuid,
            shard: self.handle.id,
            number,
            epoch: self.journal.header().epoch,
            salt: self.random.next_u64(),
            key_id: 0,
            predecessor: Some(self.journal.number()),
            // The roll entry comes before it.
            first_lsn: Lsn(self.commits.next.0 + 1),
        };
        let mut buf = AlignedBuf::new(BLOCK_SIZE);
        header.encode(&mut buf[..BLOCK_SIZE]);
        let buf = IoBuf::Owned { buf, len: BLOCK_SIZE };
        let operation = Operation::Write { file: file.clone(), offset: 0, buf, durability: Durability::Durable };
        self.ops.submit(&mut *self.driver, Purpose::RollHeader, operation);
        add(&self.handle.stats.checkpoint_flushes, 1);
        add(&self.handle.stats.header_bytes, BLOCK_SIZE as u64);
        self.journal.rolling = Rolling::Header(Next { header, file });
        Ok(())
    }

    /// The next segment's header is durable: names it in the present one.
    pub(super) fn roll_header_written(&mut self) {
        let Rolling::Header(next) = std::mem::replace(&mut self.journal.rolling, Rolling::No) else {
            unreachable!("a header is written in a roll only");
        };
        let entry = ControlEntry::Roll(next.header.number);
        self.journal.rolling = Rolling::Entry(next);
        self.commit_entry(Kind::Roll, &entry, true);
    }

    /// The roll entry is durable: goes on in the next segment.
    pub(super) fn rolled(&mut self) {
        let Rolling::Entry(next) = std::mem::replace(&mut self.journal.rolling, Rolling::No) else {
            unreachable!("a roll entry is written in a roll only");
        };
        assert_eq!(next.header.first_lsn, self.commits.next, "nothing was committed in between");
        tracing::debug!(shard = %self.handle.id, segment = %next.header.number, "journal rolled");
        self.journal.switch(next);
        add(&self.handle.stats.rolls, 1);
    }

    /// Begins a spare segment, unless one is in the making.
    pub(super) fn make_spare(&mut self) -> Result<(), Poisoned> {
        if self.making.is_some() || self.timers.spare_retry_at.is_some() {
            return Ok(());
        }
        let (name, file) = match self.pool.begin() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.spare_found_no_space();
                return Ok(());
            }
            begun => self.checked("making of a spare", &spare_dir(self.handle.id), begun)?,
        };
        self.making = Some(Making { name, file, written: 0, slice: 0 });
        self.write_zeros();
        Ok(())
    }

    fn write_zeros(&mut self) {
        let making = self.making.as_mut().expect("one is in the making");
        let left = self.journal.segment_bytes() - making.written;
        // Commits wait behind a slice. Many small ones make more of them late, by less: large ones keep that below one of a hundred.
        making.slice = left.min(ZEROS_BYTES as u64);
        let (len, offset) = (making.slice as usize, making.written);
        let file = making.file.clone();
        if left == 0 {
            add(&self.handle.stats.checkpoint_flushes, 1);
            self.ops.submit(&mut *self.driver, Purpose::SpareFlush, Operation::Flush { file });
            return;
        }
        add(&self.handle.stats.prepared_bytes, len as u64);
        let buf = match self.zeros.take() {
            Some(buf) => buf,
            None => AlignedBuf::new(ZEROS_BYTES),
        };
        let operation =
            Operation::Write { file, offset, buf: IoBuf::Owned { buf, len }, durability: Durability::Written };
        self.ops.submit(&mut *self.driver, Purpose::SpareZero, operation);
    }

    /// A slice of zeros was written.
    pub(super) fn zeros_written(&mut self) -> Result<(), Poisoned> {
        if self.closing && !self.lacks_spares() {
            // Nothing rolls any more: whoever closes does not wait for the rest.
            self.abandon_spare()?;
            self.space_was_found();
            return Ok(());
        }
        if let Some(making) = &mut self.making {
            making.written += making.slice;
            self.write_zeros();
        }
        Ok(())
    }

    /// There is no room for a spare. It is tried again later; what else needs room need not wait for that.
    fn spare_found_no_space(&mut self) {
        if self.spares_are_due() {
            self.handle.set_no_space(true);
        }
        self.timers.spare_retry_at = Some(self.now_us + SPACE_RETRY_US);
    }

    /// Tries again to make a spare. Appends are let in again once the journal has what it needs for its next roll: what is
    /// let in must find a place there.
    pub(super) fn retry_spare(&mut self) -> Result<(), Poisoned> {
        if self.lacks_spares() {
            self.make_spare()?;
        }
        self.space_was_found();
        Ok(())
    }

    /// There was no room for the zeros: the file goes, and is tried again later.
    pub(super) fn zeros_found_no_space(&mut self) -> Result<(), Poisoned> {
        self.spare_found_no_space();
        self.abandon_spare()
    }

    fn abandon_spare(&mut self) -> Result<(), Poisoned> {
        if let Some(making) = self.making.take() {
            drop(making.file);
            let result = self.pool.abandon(&making.name);
            self.checked("removal of a spare", &spare_dir(self.handle.id), result)?;
        }
        Ok(())
    }

    /// The spare segment is whole.
    pub(super) fn spare_flushed(&mut self) -> Result<(), Poisoned> {
        if let Some(making) = self.making.take() {
            let result = self.pool.finish(&making.name);
            self.checked("rename of a spare", &spare_dir(self.handle.id), result)?;
            self.space_was_found();
        }
        self.zeros = None;
        Ok(())
    }

    /// Keeps the wanted number of spares in the making: in the first segment soon after its first events, so that all that come
    /// later find them ready; behind a roll from the middle of a segment on, since a checkpoint has recycled one by then, as a
    /// rule; and while appends are refused for lack of space, since they are let in again only when the spares are there.
    pub(super) fn keep_spares(&mut self) -> Result<(), Poisoned> {
        if self.closing || !self.lacks_spares() {
            return Ok(());
        }
        let segment = self.journal.segment_bytes();
        let is_first = !self.journal.has_rolled() && !self.journal.is_rolling();
        let is_early = is_first && self.journal.offset() > segment / SPARES_FROM;
        if self.spares_are_due() && self.timers.spare_retry_at.is_some() {
            // It was tried before, when nobody needed it yet.
            self.handle.set_no_space(true);
        }
        if is_early || self.spares_are_due() || self.handle.no_space() {
            self.make_spare()?;
        }
        Ok(())
    }

    /// Whether the next roll comes so soon that a spare which cannot be made is a lack of space. Once a roll has its segment it is the
    /// roll after that.
    fn spares_are_due(&self) -> bool {
        let half = self.journal.bytes_left() < self.journal.segment_bytes() / 2;
        self.journal.waits_to_roll() || (half && !self.journal.is_rolling())
    }

    /// Removes spares beyond those that are wanted, whose room something else needs. Says whether there were any.
    pub(super) fn give_up_spares(&mut self) -> bool {
        self.pool.shrink(SPARES_WANTED).unwrap_or_else(|error| {
            tracing::warn!(shard = %self.handle.id, %error, "a spare segment stays on a full disk");
            false
        })
    }

    /// Gives the segments below a checkpoint back to the pool, one at a time, beside the shard: each takes several flushes.
    pub(super) fn recycle(&mut self) -> Result<bool, Poisoned> {
        if self.recycling.is_none() {
            let Some(number) = self.journal.pop_below(self.replay_from) else { return Ok(false) };
            let path = segment_path(self.handle.id, number);
            let name = path.rsplit('/').next().expect("a path has a last part").to_owned();
            let keep = if self.handle.no_space() { SPARES_WANTED } else { SPARES_KEPT };
            let recycling = self.pool.begin_recycling(name, keep);
            self.recycling = Some((path, self.file_maker.run(move || recycling.run())));
        }
        let (path, mut recycling) = self.recycling.take().expect("one is under way");
        match Pin::new(&mut recycling).poll(&mut Context::from_waker(&self.errand_waker)) {
            Poll::Pending => {
                self.recycling = Some((path, recycling));
                Ok(false)
            }
            Poll::Ready(result) => {
                let spare = self.checked("journal recycling", &path, result)?;
                self.pool.finish_recycling(spare);
                add(&self.handle.stats.recycled, 1);
                if !self.lacks_spares() {
                    self.timers.spare_retry_at = None;
                }
                self.space_was_found();
                Ok(true)
            }
        }
    }
}

/// Wakes the shard when something that is done beside it has ended.
pub struct ErrandDone(pub Arc<ShardHandle>);

impl Wake for ErrandDone {
    fn wake(self: Arc<Self>) {
        self.0.ring();
    }
}
