//! Drops the oldest events of a channel: by the limits that its settings have, or because somebody asks for it.
//!
//! ```text
//!  over a limit, by more than an eighth of it  -->  how far? (readers hold back)  -->  note: the head lies there now
//!     --> durable: the head moves, segments wholly below it are buried (`reclaim`)
//! ```
//!
//! Numbers of events are exact; bytes and age drop whole segments here, which are an eighth of the limit. What is exact
//! about those takes reads of history: `sweep_retention` does them on the caller's thread and sends the head that it found.
//! A segment whose events get old ends ahead of time, so that the space of a slow channel comes back too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Shard;
use super::active::Active;
use super::handle::Slot;
use super::notes::NoteKind;
use super::reclaim::Dead;
use crate::channel_name::ChannelName;
use crate::config::Retention;
use crate::error::ChangeError;
use crate::ids::{Lsn, Seq};
use crate::read::offload::Offloaded;
use crate::request::Request;
use crate::retention::{Aged, look_at_ages};
use crate::segment::record::RECORD_SIZE;
use crate::store::checkpoint::SegmentState;

/// How often ages are looked at: so many times in a limit, but within these bounds.
const LOOKS_PER_AGE: u32 = 8;
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_secs(60);

/// What a channel's shard keeps for its retention.
#[derive(Debug, Default)]
pub struct RetentionState {
    /// The highest head that was noted.
    noted: Seq,
    /// The commit that noted the present head.
    lsn: Lsn,
    /// Where the newest segment begins that a checkpoint or a cut tells of, without events of its own.
    known_from: Seq,
    /// Bytes of sealed segments.
    sealed_bytes: u64,
    /// [`super::active::Position::bytes_total`] where the active segment begins.
    active_base: u64,
    /// Bytes of the active segment that were there when the channel was opened.
    active_before: u64,
    /// Those who wait for a head.
    requests: Vec<TrimRequest>,
    /// Whether ages are looked at now and then.
    is_aging: bool,
}

/// Somebody waits for a head.
#[derive(Debug)]
pub struct TrimRequest {
    /// It lies here, or behind.
    pub to: Seq,
    /// Count of resets for which a sweep has found that; `None` where it was asked for by number.
    pub found_at: Option<u32>,
    /// Who waits.
    pub request: Request,
}

impl TrimRequest {
    /// Whether the suffix was cut off since: then the place is one among other events.
    fn is_outdated(&self, resets: u32) -> bool {
        self.found_at.is_some_and(|found_at| found_at != resets)
    }
}

/// A look at the ages of a channel's events, beside the shard.
#[derive(Debug)]
pub struct AgeLook {
    slot: Slot,
    /// How often the channel's suffix had been cut off: afterwards what was found is about other events.
    resets: u32,
    look: Offloaded<Aged>,
}

/// Bytes that a segment counts.
pub fn segment_bytes(segment: &SegmentState) -> u64 {
    u64::from(segment.dat_size) + (segment.end - segment.first) * RECORD_SIZE as u64
}

impl RetentionState {
    /// A channel that goes on with these segments and this head, and has this count of bytes.
    pub fn new(head: Seq, segments: &[SegmentState], bytes_total: u64) -> Self {
        let known_from = segments.last().map_or(Seq(0), |segment| Seq(segment.first));
        let mut state = Self { noted: head, known_from, ..Self::default() };
        state.count(segments);
        state.active_base = bytes_total;
        state
    }

    fn count(&mut self, segments: &[SegmentState]) {
        self.sealed_bytes = segments.iter().filter(|segment| segment.sealed).map(segment_bytes).sum();
        self.active_before = segments.last().filter(|last| !last.sealed).map_or(0, |last| last.dat_size.into());
        self.active_base = 0;
    }

    /// The highest head that was noted.
    pub fn noted(&self) -> Seq {
        self.noted
    }

    /// The channel was cut off.
    pub fn restart(&mut self, end: Seq, segments: &[SegmentState]) {
        (self.noted, self.known_from) = (self.noted.min(end), end);
        for waiting in &mut self.requests {
            waiting.to = if waiting.found_at.is_some() { Seq(0) } else { end.min(waiting.to) };
        }
        self.count(segments);
    }

    /// Answers those who wait for no more than this head.
    fn answer(&mut self, head: Seq) {
        self.requests.retain(|waiting| {
            let there = waiting.to <= head;
            if there {
                waiting.request.decide(Ok(head.0));
            }
            !there
        });
    }

    /// The channel is gone.
    pub fn refuse_requests(&self, channel: &ChannelName) {
        for waiting in &self.requests {
            waiting.request.decide(Err(ChangeError::Closed { channel: channel.clone() }));
        }
    }

    /// The active segment was sealed; the next one begins at this count of bytes.
    pub fn sealed(&mut self, segment: &SegmentState, next_base: u64) {
        self.sealed_bytes += segment_bytes(segment);
        self.active_before = 0;
        self.active_base = next_base;
    }
}

impl Shard {
    /// A channel has grown: drops what is too much.
    pub(super) fn look_at_retention(&mut self, slot: Slot) {
        let active = self.active[slot as usize].as_ref().expect("written channels are open");
        let head = active.channel.head();
        if head > active.retention.noted && active.written.seq >= head {
            // It was in memory before, and has dropped some there.
            self.trim(slot, head);
        }
        let active = self.active[slot as usize].as_mut().expect("written channels are open");
        let Some(retention) = active.channel.config.retention() else { return };
        if retention.max_age.is_some() && !active.retention.is_aging {
            active.retention.is_aging = true;
            self.aging.push(slot);
            self.arm_ages();
        }
        let active = self.active[slot as usize].as_ref().expect("looked at before");
        let wanted = excess_of_events(active, &retention, true).max(excess_of_bytes(active, &retention));
        if wanted > active.retention.noted {
            let held = retention.with_hold();
            let hard = excess_of_events(active, &held, false).max(excess_of_bytes(active, &held));
            self.trim_within(slot, wanted, hard);
        }
    }

    /// Moves a head as far as readers allow, and to `hard` in any case.
    fn trim_within(&mut self, slot: Slot, wanted: Seq, hard: Seq) {
        let active = self.active[slot as usize].as_ref().expect("the channel is open");
        let to = active.channel.holds.lowest().map_or(wanted, |lowest| wanted.min(lowest.max(hard)));
        self.trim(slot, to);
    }

    /// Moves a head to `to`, if it lies below.
    fn trim(&mut self, slot: Slot, to: Seq) {
        if self.errands.holds_trims_up(slot) {
            // The channel may end before that. What was asked for is looked at again.
            return;
        }
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        // What is not in a commit yet has no place that could be given back.
        let to = to.min(active.at.seq);
        if to > active.retention.noted {
            active.retention.noted = to;
            self.note(slot, NoteKind::Trimmed(to));
        }
    }

    /// Somebody asks for a head.
    pub(super) fn trim_for(&mut self, slot: Slot, mut wanted: TrimRequest) {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        if wanted.is_outdated(active.channel.tail.resets()) {
            wanted.to = Seq(0);
        }
        active.retention.requests.push(wanted);
        self.trim_as_asked(slot);
    }

    /// Moves a head as far as was asked for and is committed, and answers those who ask for no more.
    pub(super) fn trim_as_asked(&mut self, slot: Slot) {
        let Some(active) = self.active.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        active.retention.answer(active.channel.head());
        let Some(wanted) = active.retention.requests.iter().map(|waiting| waiting.to).max() else { return };
        self.commit_now |= wanted > active.at.seq;
        self.trim(slot, wanted);
    }

    /// A head lies here now, durably.
    pub(super) fn trimmed(&mut self, slot: Slot, head: Seq, lsn: Lsn) {
        let Some(active) = self.active[slot as usize].as_mut() else { return };
        active.channel.move_head(head);
        active.retention.lsn = lsn;
        active.retention.answer(head);
        self.bury_below_head(slot);
    }

    /// Gives up the segments that this commit has cut off at the head.
    pub(super) fn bury_after_cut(&mut self, slot: Slot, lsn: Lsn) {
        self.active[slot as usize].as_mut().expect("the channel is open").retention.lsn = lsn;
        self.bury_below_head(slot);
    }

    /// Gives up the sealed segments that lie below the head.
    pub(super) fn bury_below_head(&mut self, slot: Slot) {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        let (head, id) = (active.channel.head(), active.channel.id());
        let below = active.segments.iter().take_while(|segment| is_dead(active, segment, head)).count();
        if below == 0 {
            return;
        }
        // Whichever commit has that event, it is none behind the channel's newest.
        let lsn = active.retention.lsn.max(Lsn(active.lsn.0.saturating_sub(1)));
        let gone: Vec<SegmentState> = active.segments.drain(..below).collect();
        active.retention.sealed_bytes -= gone.iter().map(segment_bytes).sum::<u64>();
        let first = active.segments.first().map(|segment| Seq(segment.first));
        let persistence = active.channel.persistence().expect("a shard's channels are persistent");
        persistence.on_disk.drop_below(first.expect("the active segment stays"));
        let channel = active.channel.clone();
        for segment in gone {
            self.bury(slot, id, Dead::Segment(Seq(segment.first)), lsn);
        }
        self.handle.cold_due([channel]);
    }

    /// Whether a channel with a limit of bytes has dropped segments whose files are still there: the next one waits for that,
    /// so that the limit holds however fast events come. Where a full disk or journal waits for blocks to be written, it does not.
    pub(super) fn holds_to_limit(&self, active: &Active) -> bool {
        let limited = active.channel.config.retention().is_some_and(|limits| limits.max_bytes.is_some());
        if !limited || self.handle.no_space() || self.wants_recycling() || self.closing {
            return false;
        }
        // Only what will go: the last one below the head stays until an event behind it is written, which may wait for this.
        let goes = |segment: &SegmentState| is_dead(active, segment, active.retention.noted);
        active.segments.first().is_some_and(goes) || self.reclaim.has_some_of(active.channel.id())
    }

    /// Makes sure that ages are looked at.
    fn arm_ages(&mut self) {
        let age = |slot: &Slot| self.active[*slot as usize].as_ref()?.channel.config.retention()?.max_age;
        let shortest = self.aging.iter().filter_map(age).min();
        if let Some(age) = shortest.filter(|_| self.timers.ages_at.is_none()) {
            let pause = (age / LOOKS_PER_AGE).clamp(LOOK_MIN, LOOK_MAX);
            self.timers.ages_at = Some(self.now_us + pause.as_micros() as u64);
        }
    }

    /// It is time to look at ages.
    pub(super) fn ages_due(&mut self) {
        self.to_look_at = self.aging.clone();
        self.aging.retain(|slot| {
            let Some(active) = self.active[*slot as usize].as_mut() else { return false };
            active.retention.is_aging =
                active.channel.config.retention().is_some_and(|limits| limits.max_age.is_some());
            active.retention.is_aging
        });
        self.arm_ages();
    }

    /// Looks at the ages of one channel after the other, beside the shard: it takes reads.
    pub(super) fn step_ages(&mut self) -> bool {
        if self.age_look.is_none() && !self.begin_age_look() {
            return false;
        }
        let Some(AgeLook { slot, resets, mut look }) = self.age_look.take() else { return false };
        match Pin::new(&mut look).poll(&mut Context::from_waker(&self.errand_waker)) {
            Poll::Pending => {
                self.age_look = Some(AgeLook { slot, resets, look });
                false
            }
            Poll::Ready(aged) => {
                self.aged(slot, resets, &aged);
                true
            }
        }
    }

    fn begin_age_look(&mut self) -> bool {
        while let Some(slot) = self.to_look_at.pop() {
            let Some(active) = self.active[slot as usize].as_ref() else { continue };
            let Some(retention) = active.channel.config.retention() else { continue };
            let sealed = active.segments.iter().filter(|segment| segment.sealed);
            let ends: Vec<Seq> = sealed.map(|segment| Seq(segment.end)).collect();
            let (channel, first, now_us) = (active.channel.clone(), active.segment.first, self.clock.wall_us());
            let resets = channel.tail.resets();
            let look = self.file_maker.run(move || look_at_ages(&channel, &retention, &ends, first, now_us));
            self.age_look = Some(AgeLook { slot, resets, look });
            return true;
        }
        false
    }

    fn aged(&mut self, slot: Slot, resets: u32, aged: &Aged) {
        let Some(active) = self.active[slot as usize].as_ref() else { return };
        if active.channel.tail.resets() != resets {
            return;
        }
        if aged.active_is_old && !self.closing {
            // Full: its pages are on their way, and the next look comes.
            if let Ok(true) = active.channel.tail.end_segment() {
                self.handle.push_dirty(slot, &self.clock);
            }
            self.active[slot as usize].as_mut().expect("looked at before").force_destage = true;
            self.queue_destage(slot);
        }
        self.trim_within(slot, aged.wanted, aged.hard);
    }
}

/// Whether a sealed segment below a head can go. The journal tells where the next one begins by its first event: before that is
/// written, a recovery goes on in this one.
fn is_dead(active: &Active, segment: &SegmentState, head: Seq) -> bool {
    let told = segment.end < active.written.seq.0 || segment.end <= active.retention.known_from.0;
    segment.sealed && segment.end <= head.0 && told
}

/// The head that leaves no more events than allowed.
fn excess_of_events(active: &Active, retention: &Retention, with_slack: bool) -> Seq {
    let Some(limit) = retention.max_events else { return Seq(0) };
    let kept = active.written.seq.0.saturating_sub(active.retention.noted.0);
    let slack = if with_slack { Retention::slack(limit) } else { 0 };
    if kept > limit.saturating_add(slack) { Seq(active.written.seq.0 - limit) } else { Seq(0) }
}

/// The head that leaves whole segments with no less than allowed.
fn excess_of_bytes(active: &Active, retention: &Retention) -> Seq {
    let Some(limit) = retention.max_bytes else { return Seq(0) };
    let state = &active.retention;
    let in_active = (active.written.seq.0 - active.segment.first.0) * RECORD_SIZE as u64
        + active.written.bytes_total.saturating_sub(state.active_base)
        + state.active_before;
    let mut left = state.sealed_bytes + in_active;
    let mut head = Seq(0);
    for segment in active.segments.iter().filter(|segment| segment.sealed) {
        let bytes = segment_bytes(segment);
        if left.saturating_sub(bytes) < limit {
            break;
        }
        left -= bytes;
        head = Seq(segment.end);
    }
    head
}
