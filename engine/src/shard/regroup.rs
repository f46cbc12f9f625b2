//! When the next commit begins, if somebody asked for it while the last one was under way.
//!
//! Who is woken by a commit mostly appends again at once. A commit that begins before these appends are there leaves
//! them to the one behind it; and from then on two groups commit in turn, and each event pays two commits. So the next one
//! is held for a moment, until somebody rings again: by then who was woken has appended, and waits.
//!
//! Promises: a commit is held for [`HOLD_US`] at the longest, and only behind one that somebody waited for.

/// Longest hold: what one thread takes to make some hundreds of appends, less than half of a commit.
pub const HOLD_US: u64 = 30;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Regroup {
    until_us: u64,
    rung: bool,
}

impl Regroup {
    /// A commit was acknowledged to those who waited for it.
    pub fn acknowledged(&mut self, now_us: u64) {
        *self = Self { until_us: now_us + HOLD_US, rung: false };
    }

    /// Somebody starts to wait.
    pub fn rung(&mut self) {
        self.rung = true;
    }

    /// Until when the next commit is held, if it is.
    pub fn held_until_us(&self, now_us: u64) -> Option<u64> {
        (!self.rung && now_us < self.until_us).then_some(self.until_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_held_until_the_bell_or_the_end_of_the_hold() {
        let mut regroup = Regroup::default();
        assert_eq!(regroup.held_until_us(5), None, "nothing was acknowledged");
        regroup.rung();
        regroup.acknowledged(100);
        assert_eq!(regroup.held_until_us(100), Some(100 + HOLD_US), "that ring was for what came before");
        assert_eq!(regroup.held_until_us(100 + HOLD_US), None);
        regroup.rung();
        assert_eq!(regroup.held_until_us(101), None);
    }
}
