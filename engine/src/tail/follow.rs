//! The tail of a channel that another process writes: no page, only the mark.

use super::Tail;
use crate::ids::Seq;
use crate::sync::atomic::Ordering;

impl Tail {
    /// Says that events below can be read, elsewhere than in pages. Only for a tail that nobody appends to; the caller wakes
    /// those who wait.
    pub fn follow_to(&self, end: Seq) {
        self.published.store(end.0, Ordering::Release);
    }
}
