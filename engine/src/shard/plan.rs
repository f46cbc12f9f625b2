//! Decides what goes into the next commit: which events, and which bytes of them go inline or by extent.
//!
//! Planning only reads pages and moves the channels' `at`; nothing is written. A channel with many whole blocks to commit
//! sends them straight to its dat file (an *extent*, design D3): that needs the file to itself, so the channel is
//! *deferred* until a write that is under way has ended.

use std::ops::Range;
use std::sync::Arc;

use super::active::{Active, Position, Sealing};
use crate::ids::Seq;
use crate::io::BLOCK_SIZE;
use crate::journal::format::entry_size_events;
use crate::tail::page::Page;

/// Consecutive events of one page in a commit.
#[derive(Debug)]
pub struct Piece {
    /// Whose.
    pub slot: super::handle::Slot,
    /// Where they lie.
    pub page: Arc<Page>,
    /// Their slots there.
    pub slots: Range<usize>,
    /// Bytes of the page that are written to the journal.
    pub inline: Range<usize>,
    /// Whole blocks of the page that are written to dat.
    pub extent: Option<Range<usize>>,
    /// Whether the page ends with the extent.
    pub completes_page: bool,
    /// Payload bytes of the events that lie in dat; those inside records are not among them.
    pub dat_bytes: usize,
}

impl Piece {
    /// Bytes of the entry and of the inline payload.
    fn size(&self) -> usize {
        entry_size_events(self.slots.len()) + self.inline.len()
    }
}

/// What came of planning a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Everything published is in the plan.
    All,
    /// There was no room for the rest.
    NoRoom,
    /// It has to wait for its dat file.
    Deferred,
}

/// A commit in the making.
#[derive(Debug, Default)]
pub struct Plan {
    /// Events, in order.
    pub pieces: Vec<Piece>,
    /// Bytes left for entries and inline payloads.
    pub room: usize,
    /// Bytes from which a page's new blocks go by extent.
    pub extent_bytes: usize,
    /// Whether a batch over several channels found too little room.
    pub group_lacks_room: bool,
    /// Whether no commit could have more room than this one had at first: then a batch that does not fit is split.
    pub is_largest: bool,
}

impl Plan {
    /// Empties the plan for a commit with so much room.
    pub fn reset(&mut self, room: usize, extent_bytes: usize, is_largest: bool) {
        self.pieces.clear();
        self.is_largest = is_largest;
        self.group_lacks_room = false;
        self.room = room;
        self.extent_bytes = extent_bytes;
    }

    /// Adds what the channel has published, and moves its `at`.
    pub fn add(&mut self, active: &mut Active) -> Planned {
        // One extent a commit: its page's blocks keep the dat file busy until the commit is written.
        let mut dat_free = !active.dat_busy && matches!(active.sealing, Sealing::No);
        loop {
            let Some(page) = active.look_up_page() else { return Planned::All };
            if active.at.slot == 0 {
                active.at.byte = page.start().prefix as usize;
            }
            let published = (active.channel.tail.published().0.saturating_sub(page.start().first_seq.0)) as usize;
            let page_end = page.end();
            let to = page_end.map_or(published, |end| published.min(end.slots as usize));
            // A batch over several channels goes into a commit as a whole, or stays in front of it.
            let before = active.group.map(|(first, _)| first.0.saturating_sub(page.start().first_seq.0) as usize);
            let to = before.map_or(to, |before| to.min(before.max(active.at.slot)));
            if to <= active.at.slot {
                if page_end.is_some_and(|end| end.slots as usize == active.at.slot) {
                    active.at = Position { page_no: active.at.page_no + 1, slot: 0, byte: 0, ..active.at };
                    continue;
                }
                return Planned::All;
            }
            let end_of = |slot: usize| page.ready(slot - 1).expect("published slots are ready") as usize;
            let big = end_of(to) - active.at.byte >= self.extent_bytes;
            let piece = if big {
                let free = dat_free && active.dat_page == active.at.page_no && active.dat_is_ready_for(&page);
                if !free {
                    return Planned::Deferred;
                }
                self.by_extent(active, &page, to, end_of)
            } else {
                self.inline(active, &page, to, end_of)
            };
            let Some(piece) = piece else { return Planned::NoRoom };
            dat_free &= piece.extent.is_none();
            let (taken, byte) = (piece.slots.end, end_of(piece.slots.end));
            active.at.bytes_total += (byte - active.at.byte) as u64;
            active.at.byte = byte;
            active.at.seq.0 += (taken - active.at.slot) as u64;
            active.at.slot = taken;
            active.at.segment_first = page.start().segment_first;
            self.room -= piece.size();
            self.pieces.push(piece);
            if taken < to {
                return Planned::NoRoom;
            }
            if page_end.is_none() {
                return Planned::All;
            }
        }
    }

    /// Where the events up to `end`, which a batch over several channels has, lie, all in one page: `None` if they are not
    /// the next ones there.
    fn group_page(active: &mut Active, end: Seq) -> Option<Arc<Page>> {
        loop {
            let page = active.look_up_page()?;
            if active.at.slot == 0 {
                active.at.byte = page.start().prefix as usize;
            }
            if page.end().is_none_or(|page_end| page_end.slots as usize > active.at.slot) {
                let slots = (end.0 - page.start().first_seq.0) as usize;
                return page.ready(slots - 1).map(|_| page);
            }
            active.at = Position { page_no: active.at.page_no + 1, slot: 0, byte: 0, ..active.at };
        }
    }

    /// What the events up to `end` take of a commit.
    pub fn size_of_group(active: &mut Active, end: Seq) -> Option<usize> {
        let page = Self::group_page(active, end)?;
        let slots = (end.0 - page.start().first_seq.0) as usize;
        let bytes = page.ready(slots - 1).expect("looked at before") as usize - active.at.byte;
        Some(entry_size_events(slots - active.at.slot) + bytes)
    }

    /// Adds the events up to `end`, for which there is room.
    pub fn add_group(&mut self, active: &mut Active, end: Seq) {
        let page = Self::group_page(active, end).expect("looked at before");
        let slots = (end.0 - page.start().first_seq.0) as usize;
        let byte = page.ready(slots - 1).expect("looked at before") as usize;
        let piece = Piece {
            slot: active.slot,
            page: page.clone(),
            slots: active.at.slot..slots,
            inline: active.at.byte..byte,
            extent: None,
            completes_page: false,
            dat_bytes: byte - active.at.byte,
        };
        active.at.bytes_total += (byte - active.at.byte) as u64;
        active.at.byte = byte;
        active.at.seq = end;
        active.at.slot = slots;
        active.at.segment_first = page.start().segment_first;
        self.room -= piece.size();
        self.is_largest = false;
        self.pieces.push(piece);
    }

    /// The last slot at or below `to` that no batch spans. A batch is in one commit, so that a crash keeps all of it or
    /// nothing; only one that fits no commit is split.
    fn between_batches(&self, page: &Page, from: usize, to: usize) -> Option<usize> {
        let between = (from + 1..=to).rev().find(|slot| !page.continues(slot - 1));
        between.or((self.is_largest && self.pieces.is_empty()).then_some(to))
    }

    fn inline(&self, active: &Active, page: &Arc<Page>, to: usize, end_of: impl Fn(usize) -> usize) -> Option<Piece> {
        let from = active.at.slot;
        let fits = |slot: usize| entry_size_events(slot - from) + end_of(slot) - active.at.byte <= self.room;
        let to = self.between_batches(page, from, last_that(from, to, fits)?)?;
        Some(Piece {
            slot: active.slot,
            page: page.clone(),
            slots: from..to,
            inline: active.at.byte..end_of(to),
            extent: None,
            completes_page: false,
            dat_bytes: end_of(to) - active.at.byte,
        })
    }

    fn by_extent(
        &self,
        active: &Active,
        page: &Arc<Page>,
        to: usize,
        end_of: impl Fn(usize) -> usize,
    ) -> Option<Piece> {
        let from = active.at.slot;
        // Less than a block is left over for the journal.
        let fits = |slot: usize| entry_size_events(slot - from) + BLOCK_SIZE <= self.room;
        let to = self.between_batches(page, from, last_that(from, to, fits)?)?;
        let end = end_of(to);
        let completes_page = page.end().is_some_and(|page_end| page_end.slots as usize == to);
        let blocks_to = if completes_page { end.next_multiple_of(BLOCK_SIZE) } else { end / BLOCK_SIZE * BLOCK_SIZE };
        if blocks_to <= active.at.byte {
            // The room for records let in too few events to fill a block.
            return self.inline(active, page, to, end_of);
        }
        assert!(active.dat_byte <= active.at.byte, "only what is written is destaged");
        Some(Piece {
            slot: active.slot,
            page: page.clone(),
            slots: from..to,
            inline: blocks_to.min(end)..end,
            extent: Some(active.dat_byte..blocks_to),
            completes_page,
            dat_bytes: end - active.at.byte,
        })
    }
}

/// The highest number in `from + 1..=to` that fits; what fits grows with the number.
fn last_that(from: usize, to: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    if fits(to) {
        return Some(to);
    }
    let (mut low, mut high) = (from, to);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low > from).then_some(low)
}

#[cfg(test)]
mod tests {
    use super::{Plan, last_that};
    use crate::tail::pool::PagePool;
    use crate::tail::{Tail, TailLimits, TailStart};

    /// One event, a batch of three, one of two: slots 0, 1 to 3, 4 and 5.
    #[test]
    fn a_commit_ends_between_batches() {
        let limits = TailLimits { segment_bytes: 1 << 20, segment_records: 16 << 20, bounded: true };
        let tail = Tail::new(TailStart::default(), limits, PagePool::new(1 << 20, 1 << 20));
        tail.append(b"alone", 0).unwrap();
        tail.append_batch(&[b"one of three"; 3], 0).unwrap();
        tail.append_batch(&[b"one of two"; 2], 0).unwrap();
        let page = tail.page(0).expect("it was appended to");
        let mut plan = Plan::default();
        plan.reset(1 << 10, 1 << 20, false);
        for (to, end) in [(1, 1), (2, 1), (3, 1), (4, 4), (5, 4), (6, 6)] {
            assert_eq!(plan.between_batches(&page, 0, to), Some(end), "up to {to}");
        }
        assert_eq!(plan.between_batches(&page, 1, 3), None, "the batch waits for a commit with more room");
        plan.reset(1 << 10, 1 << 20, true);
        assert_eq!(plan.between_batches(&page, 1, 3), Some(3), "no commit has more room: it is split");
    }

    #[test]
    fn finds_the_last_number_that_fits() {
        for to in 1..20 {
            for limit in 0..25 {
                let expected = (1..=to).rev().find(|n| *n <= limit);
                assert_eq!(last_that(0, to, |n| n <= limit), expected);
            }
        }
    }
}
