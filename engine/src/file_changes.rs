//! The door to one channel: what changes it beside appends.

use crate::channel::Channel;
use crate::config::{FsyncPolicy, RedexFileConfig, Retention};
use crate::error::ChangeError;
use crate::file::RedexFile;
use crate::ids::Seq;
use crate::memory;
use crate::request::{Change, Request};
use crate::shard::errands::ErrandKind;
use crate::shard::handle::Control;
use crate::shard::retention::TrimRequest;

impl RedexFile {
    /// Drops what the channel's limits do not keep, exactly: the newest `max_events`, those of the newest that have
    /// `max_bytes`, those up to `max_age`; readers hold back what they may. Appends do the same by themselves, in larger
    /// steps. Resolves to the head, when that is durable; nothing of it comes back in a crash.
    ///
    /// Finding the place reads some index blocks on the calling thread.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Read`] if they cannot be read, and those of [`RedexFile::trim_head`].
    pub fn sweep_retention(&self) -> Change<u64> {
        let channel = self.channel();
        let Some(retention) = channel.config.retention() else { return decided(Ok(self.head_seq())) };
        let resets = channel.tail.resets();
        match memory::head_within(channel, &retention, channel.clock.wall_us()) {
            Ok(head) => self.trim(head, Some(resets)),
            Err(error) => decided(Err(error.into())),
        }
    }

    /// Drops the events below `head`, whatever the limits and the readers say; a head only moves forward. Resolves to the
    /// head, when that is durable. Space comes back as whole segments.
    ///
    /// # Errors
    ///
    /// [`ChangeError::OutOfRange`] beyond the next event; [`ChangeError::Closed`], [`ChangeError::Poisoned`].
    pub fn trim_head(&self, head: u64) -> Change<u64> {
        let channel = self.channel();
        match out_of_range(channel, head) {
            Some(error) => decided(Err(self.refused_change().unwrap_or(error))),
            None => self.trim(Seq(head), None),
        }
    }

    /// Moves the head to `to`; not if that was found at another count of resets.
    fn trim(&self, to: Seq, found_at: Option<u32>) -> Change<u64> {
        let channel = self.channel();
        if let Some(error) = self.refused_change() {
            return decided(Err(error));
        }
        match channel.persistence() {
            Some(persistence) => {
                let request = Request::new();
                let wanted = TrimRequest { to, found_at, request: request.clone() };
                persistence.shard.send(Control::Trim { slot: persistence.slot, wanted });
                Change::by_shard(request, persistence.shard.clone(), channel.name.clone(), seq)
            }
            None if memory::trim(channel, to, found_at) => decided(Ok(channel.head().0)),
            // It has become persistent meanwhile.
            None => self.trim(to, found_at),
        }
    }

    /// Drops the events from `end` on: sequences from there on are given again, in a new epoch, so that no [`Cursor`]
    /// behind the cut leads to another event ([`SubscribeError::LostEvents`]). Subscriptions that had some of them report
    /// [`TailEnd::Lost`]. For consensus, which takes back what a leader did not get accepted.
    ///
    /// Everything of the channel is made durable first, appends wait meanwhile. Resolves to the new end when the cut is
    /// durable. An `end` below the head is the new head too.
    ///
    /// [`Cursor`]: crate::Cursor
    /// [`SubscribeError::LostEvents`]: crate::SubscribeError::LostEvents
    /// [`TailEnd::Lost`]: crate::TailEnd::Lost
    ///
    /// # Errors
    ///
    /// [`ChangeError::OutOfRange`] outside of the channel's events; [`ChangeError::Closed`], [`ChangeError::Poisoned`].
    pub fn truncate_suffix(&self, end: u64) -> Change<u64> {
        let channel = self.channel();
        let range = (end < self.head_seq()).then(|| range_error(channel, end)).or_else(|| out_of_range(channel, end));
        match self.refused_change().or(range) {
            Some(error) => decided(Err(error)),
            None if end == self.next_seq() && channel.tail.is_settled() => decided(Ok(end)),
            None => change(channel, ErrandKind::CutOff(Seq(end)), seq),
        }
    }

    /// Changes when appends resolve, from now on. Resolves when the setting is durable; it counts at once.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Closed`], [`ChangeError::Poisoned`].
    pub fn set_fsync_policy(&self, policy: FsyncPolicy) -> Change<()> {
        self.configure(|config| *config = config.clone().with_fsync_policy(policy))
    }

    /// Changes what is kept, from now on; the next append or [`RedexFile::sweep_retention`] drops what is too much. Resolves
    /// when the setting is durable; it counts at once. Segments that are begun afterwards follow it in size.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Closed`], [`ChangeError::Poisoned`].
    pub fn set_retention(&self, retention: Retention) -> Change<()> {
        self.configure(|config| *config = config.clone().with_retention(retention))
    }

    fn configure(&self, set: impl FnOnce(&mut RedexFileConfig)) -> Change<()> {
        if let Some(error) = self.refused_change() {
            return Change::decided(Err(error), drop);
        }
        configure(self.channel(), set)
    }

    fn refused_change(&self) -> Option<ChangeError> {
        let channel = self.channel();
        if let Some(poisoned) = channel.persistence().and_then(|persistence| persistence.shard.poisoned()) {
            return Some(ChangeError::Poisoned(poisoned.clone()));
        }
        let closed = self.is_closed() || channel.tail.is_closed();
        closed.then(|| ChangeError::Closed { channel: channel.name.clone() })
    }
}

/// Changes settings of an open channel.
pub fn configure(channel: &Channel, set: impl FnOnce(&mut RedexFileConfig)) -> Change<()> {
    channel.config.change(set);
    channel.tail.set_limits(channel.config.get().tail_limits(channel.persistence().is_some()));
    match channel.persistence() {
        None => Change::decided(Ok(0), drop),
        Some(persistence) => {
            let (slot, request) = (persistence.slot, Request::new());
            persistence.shard.send(Control::Configured { slot, request: request.clone() });
            Change::by_shard(request, persistence.shard.clone(), channel.name.clone(), drop)
        }
    }
}

fn seq(seq: u64) -> u64 {
    seq
}

fn decided(outcome: Result<u64, ChangeError>) -> Change<u64> {
    Change::decided(outcome, seq)
}

/// Begins a change for which the channel has to be at rest.
pub fn change<T>(channel: &Channel, kind: ErrandKind, answer: fn(u64) -> T) -> Change<T> {
    match (channel.persistence(), kind) {
        (Some(persistence), _) => {
            let (slot, request) = (persistence.slot, Request::new());
            persistence.shard.send(Control::Errand { slot, kind, request: request.clone() });
            Change::by_shard(request, persistence.shard.clone(), channel.name.clone(), answer)
        }
        (None, ErrandKind::CutOff(end)) => cut_off_in_memory(channel, kind, end, answer),
        (None, ErrandKind::Reset) => cut_off_in_memory(channel, kind, Seq(0), answer),
        (None, ErrandKind::Delete) => {
            channel.set_life(crate::channel::Life::Over);
            channel.tail.close();
            channel.wake_after_cut();
            Change::decided(Ok(0), answer)
        }
    }
}

fn cut_off_in_memory<T>(channel: &Channel, kind: ErrandKind, end: Seq, answer: fn(u64) -> T) -> Change<T> {
    match memory::cut_off(channel, end, kind) {
        Some(outcome) => Change::decided(outcome, answer),
        // It has become persistent meanwhile.
        None => change(channel, kind, answer),
    }
}

fn out_of_range(channel: &Channel, seq: u64) -> Option<ChangeError> {
    (seq > channel.tail.published().0).then(|| range_error(channel, seq))
}

fn range_error(channel: &Channel, end: u64) -> ChangeError {
    let (head, next) = (channel.head().0, channel.tail.published().0);
    ChangeError::OutOfRange { channel: channel.name.clone(), end, head, next }
}
