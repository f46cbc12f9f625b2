//! What a shard does when nobody asks: moments on the steady clock, microseconds.

use crate::channel::Channel;

/// See each field. A moment that is `None` will not come.
#[derive(Debug, Default)]
pub struct Timers {
    /// Events that nobody waits for are written.
    pub write_behind_at: Option<u64>,
    /// A policy's period ends: everything is flushed.
    pub flush_at: Option<u64>,
    /// A witness is left.
    pub idle_at: Option<u64>,
    /// The ages of events are looked at.
    pub ages_at: Option<u64>,
    /// What found no room on disk is tried again.
    pub space_retry_at: Option<u64>,
    /// The same for a spare journal segment, the largest piece: what is smaller may find room meanwhile.
    pub spare_retry_at: Option<u64>,
}

impl Timers {
    /// Whether events have waited long enough to be written.
    pub fn write_behind_due(&self, now_us: u64) -> bool {
        self.write_behind_at.is_some_and(|at| at <= now_us)
    }

    /// The next moment. What waits to be written waits for the commit that is under way, if there is one.
    pub fn next(&self, can_commit: bool) -> Option<u64> {
        let retries = [self.space_retry_at, self.spare_retry_at, self.ages_at];
        let others = [self.write_behind_at.filter(|_| can_commit), self.flush_at, self.idle_at];
        others.into_iter().chain(retries).flatten().min()
    }

    /// Makes sure that a channel whose policy has a period is flushed in time.
    pub fn note_policy(&mut self, channel: &Channel, now_us: u64) {
        let Some(period_us) = channel.config.period_us() else { return };
        let durable = channel.durable();
        if durable == channel.tail.published() {
            channel.set_unflushed_since(0);
            return;
        }
        // Times are of the wall clock, timers of the steady one: the age carries over.
        let page = channel.tail.page_of(durable);
        let since = page.map_or(0, |page| page.record((durable.0 - page.start().first_seq.0) as usize).time_us());
        channel.set_unflushed_since(since);
        self.arm_flush(since, period_us, channel.clock.wall_us(), now_us);
    }

    /// Flushes so long after `since_us` of the wall clock.
    pub fn arm_flush(&mut self, since_us: u64, period_us: u64, wall_us: u64, now_us: u64) {
        let age = wall_us.saturating_sub(since_us);
        // At half the period, so that the flush is over before an append would have to wait for it.
        let left = (period_us / 2).saturating_sub(age);
        let at = now_us + left;
        self.flush_at = Some(self.flush_at.map_or(at, |before| before.min(at)));
    }
}
