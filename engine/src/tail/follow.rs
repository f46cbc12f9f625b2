//! The tail of a channel that another process writes: no page, only the mark.

use super::Tail;
use crate::ids::Seq;
use crate::sync::atomic::Ordering;

impl Tail {
    /// Says that events below can be read, elsewhere than in pages. Only for a tail that nobody appends to; the caller wakes
    /// those who wait.
    pub fn follow_to(&self, end: Seq) {
        self.published.seq.store(end.0, Ordering::Release);
    }

    /// Has readers look anew in which epoch they stand, and whether they have seen what is gone: [`Tail::resets`]. The caller
    /// has changed the channel's epochs, and moved the mark if it moves back; it wakes those who wait.
    pub fn follow_epochs(&self) {
        self.published.resets.fetch_add(1, Ordering::AcqRel);
    }
}
