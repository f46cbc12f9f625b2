//! When the next commit begins, if somebody asked for it while the last one was under way.
//!
//! Who is woken by a commit mostly appends again at once. A commit that begins before these appends are there leaves
//! them to the one behind it; and from then on two groups commit in turn, and each event pays two commits. So the next one
//! is held for a moment, until somebody rings again: by then who was woken has appended, and waits. Where several tasks were
//! woken that is the first of them; the others are right behind it.
//!
//! Promises: a commit is held for [`HOLD_US`] and [`FOLLOW_US_MAX`] at the longest, and only behind one that somebody waited for.

/// Until the first ring at the longest: what one thread takes to make some hundreds of appends, less than half of a commit.
pub const HOLD_US: u64 = 30;
/// Behind the first ring at the longest: for about sixteen tasks of one thread. More of them are not worth the wait, since those
/// who come later fill the next commit while this one is under way.
pub const FOLLOW_US_MAX: u64 = 8;
/// Tasks of one thread that follow in a microsecond.
const TASKS_PER_US: u64 = 2;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Regroup {
    until_us: u64,
    /// How long the commit is held behind the first ring; `None` once there was one.
    follow_us: Option<u64>,
}

impl Regroup {
    /// A commit was acknowledged to those who waited for it, so many tasks among them.
    pub fn acknowledged(&mut self, now_us: u64, tasks: usize) {
        let others = tasks.saturating_sub(1) as u64;
        *self = Self { until_us: now_us + HOLD_US, follow_us: Some((others / TASKS_PER_US).min(FOLLOW_US_MAX)) };
    }

    /// Somebody starts to wait.
    pub fn rung(&mut self, now_us: u64) {
        if let Some(follow_us) = self.follow_us.take() {
            self.until_us = self.until_us.min(now_us) + follow_us;
        }
    }

    /// Until when the next commit is held, if it is.
    pub fn held_until_us(&self, now_us: u64) -> Option<u64> {
        (now_us < self.until_us).then_some(self.until_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_held_until_the_bell_or_the_end_of_the_hold() {
        let mut regroup = Regroup::default();
        assert_eq!(regroup.held_until_us(5), None, "nothing was acknowledged");
        regroup.rung(90);
        regroup.acknowledged(100, 1);
        assert_eq!(regroup.held_until_us(100), Some(100 + HOLD_US), "that ring was for what came before");
        assert_eq!(regroup.held_until_us(100 + HOLD_US), None);
        regroup.rung(101);
        assert_eq!(regroup.held_until_us(101), None);
    }

    #[test]
    fn who_follows_the_first_is_waited_for() {
        let mut regroup = Regroup::default();
        for (tasks, follow_us) in [(0, 0), (2, 0), (3, 1), (9, 4), (17, 8), (1000, 8)] {
            regroup.acknowledged(100, tasks);
            regroup.rung(110);
            assert_eq!(regroup.held_until_us(109), Some(110 + follow_us), "{tasks} tasks");
            regroup.rung(112);
            assert_eq!(regroup.held_until_us(110 + follow_us), None, "a second ring changes nothing");
        }
        regroup.acknowledged(100, 17);
        regroup.rung(500);
        assert_eq!(regroup.held_until_us(500), None, "it came too late");
    }
}
