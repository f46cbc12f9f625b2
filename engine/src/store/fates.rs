//! What becomes of the segments that a journal tells of: which of them are gone at its end.
//!
//! A segment below the head, behind a cut, or of a deleted channel may have lost its files before the crash. So replay must know
//! beforehand, and leaves it alone. One pass over the journal collects what happens to each channel, another one, backwards,
//! finds whether something that comes later takes a segment with it.

use std::collections::{HashMap, VecDeque};

use crate::ids::{ChannelId, Seq};
use crate::journal::format::Entry;

/// What matters here of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// A segment begins.
    Segment(Seq),
    /// The head moves.
    Trim(Seq),
    /// A suffix is cut off.
    Cut(Seq),
    /// The channel is deleted.
    Deleted,
}

/// What happens to the channels, in order.
#[derive(Debug, Default)]
pub struct Fates(HashMap<ChannelId, Vec<Mark>>);

impl Fates {
    /// The journal tells of a channel, which stands in the segment that begins here, and whose head lies here: that may be
    /// its end, and then this segment went as soon as it was sealed.
    pub fn begin(&mut self, channel: ChannelId, segment_first: Seq, head: Seq) {
        self.0.entry(channel).or_insert_with(|| vec![Mark::Segment(segment_first), Mark::Trim(head)]);
    }

    /// Whether the journal has told of it before.
    pub fn knows(&self, channel: ChannelId) -> bool {
        self.0.contains_key(&channel)
    }

    /// Takes an entry about a channel that was begun.
    pub fn take(&mut self, channel: ChannelId, entry: &Entry<'_>) {
        let marks = self.0.get_mut(&channel).expect("begun before");
        match entry {
            Entry::Events(events) => {
                let first = events.fields.segment_first;
                let present = marks.iter().rev().find_map(|mark| match mark {
                    Mark::Segment(first) => Some(*first),
                    _ => None,
                });
                if present != Some(first) {
                    marks.push(Mark::Segment(first));
                }
            }
            Entry::HeadTrimmed { head, .. } => marks.push(Mark::Trim(*head)),
            Entry::SuffixTruncated { end, .. } => marks.extend([Mark::Cut(*end), Mark::Segment(*end)]),
            Entry::ChannelDeleted { .. } => marks.push(Mark::Deleted),
            Entry::ChannelCreated { .. }
            | Entry::ChannelConfigured { .. }
            | Entry::Checkpoint(_)
            | Entry::Roll { .. } => {}
        }
    }

    /// Whether each segment of a channel that the journal tells of is gone at its end, in order.
    pub fn of(&self, channel: ChannelId) -> VecDeque<bool> {
        let mut gone = VecDeque::new();
        let (mut next, mut head, mut cut) = (None, Seq(0), Seq(u64::MAX));
        for mark in self.0[&channel].iter().rev() {
            match *mark {
                Mark::Segment(first) if cut <= first => gone.push_front(true),
                Mark::Segment(first) => {
                    // What lies behind a cut ends nothing before it: the segment of the cut does.
                    gone.push_front(next.is_some_and(|end| head >= end));
                    next = Some(first);
                }
                Mark::Trim(to) => head = head.max(to),
                Mark::Cut(end) => cut = cut.min(end),
                Mark::Deleted => cut = Seq(0),
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(marks: &[Mark]) -> Vec<bool> {
        let channel = ChannelId(1);
        Fates(HashMap::from([(channel, marks.to_vec())])).of(channel).into()
    }

    #[test]
    fn what_comes_later_takes_segments_with_it() {
        use Mark::{Cut, Deleted, Segment, Trim};
        let s = |first| Segment(Seq(first));
        assert_eq!(fates(&[s(0), s(10), s(20)]), [false, false, false]);
        // The head lies in the second one: the first is gone.
        assert_eq!(fates(&[s(0), s(10), s(20), Trim(Seq(15))]), [true, false, false]);
        // A head at the end of all leaves the last one, which goes on.
        assert_eq!(fates(&[s(0), s(10), Trim(Seq(20)), s(20)]), [true, true, false]);
        // A cut within the first one; the new one has the same first sequence as an old one.
        assert_eq!(fates(&[s(0), s(10), Cut(Seq(10)), s(10)]), [false, true, false]);
        assert_eq!(fates(&[s(0), s(10), Cut(Seq(5)), s(5), s(9)]), [false, true, false, false]);
        // A head between a cut and what began behind it before.
        assert_eq!(fates(&[s(5), s(9), Cut(Seq(7)), s(7), Trim(Seq(8))]), [true, true, false]);
        // A reset: what was trimmed before it says nothing of what comes.
        assert_eq!(fates(&[s(0), s(10), Trim(Seq(12)), Cut(Seq(0)), s(0), s(8)]), [true, true, false, false]);
        assert_eq!(fates(&[s(0), s(10), Deleted]), [true, true]);
    }
}
