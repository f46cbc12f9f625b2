//! Appending, as the caller sees it: the call itself makes the event, if there is room; the future only waits.
//!
//! The event is published with the call, or by the producer whose copy still stands before it. A dropped future cancels nothing, and one thread can have thousands of appends in flight. What a future waits for is
//! decided when the event is published: nothing, or durability of some position (by the policy, or `append_durable`). An
//! append that finds no room lines up in the [`backlog`] and is published from there, in the order of the calls.

pub mod backlog;
pub mod wait;

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::channel::Channel;
use crate::error::AppendError;
use crate::ids::Seq;
use crate::segment::record::INLINE_SIZE_MAX;
use crate::tail::waiters::Registration;
use crate::tail::{PAGE_EVENTS_MAX, Refusal, Reserved};

use self::backlog::{Denied, Refused, Ticket, Waiting, line_up, relieve};
use self::wait::{Goal, block_on, poll_durable};

/// Payload bytes a batch may have.
pub const BATCH_SIZE_MAX: usize = 64 << 20;

/// How long an append that found no room waits for the shard before it looks again, if nobody wakes it.
pub(crate) const FULL_RETRY: std::time::Duration = std::time::Duration::from_millis(5);

/// What has been published, and up to where to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Sequence of the first event.
    pub first: Seq,
    /// Sequence behind the last.
    pub end: Seq,
    /// Events below are to be durable before the append resolves.
    pub wait_below: Option<Seq>,
    /// [`Goal::resets`] of all that.
    pub resets: u32,
}

impl Published {
    /// What to wait for after an append, by the caller's wish and the policy's. Tells the shard, but does not ring: a burst
    /// of appends from one thread makes one commit, begun when somebody waits.
    fn new(channel: &Channel, durable: bool, reserved: Reserved, count: u64, policy: Option<Seq>) -> Self {
        let end = Seq(reserved.first.0 + count);
        let wait_below = if durable && channel.persistence().is_some() { Some(end) } else { policy };
        if let Some(below) = wait_below {
            channel.want_durable(below);
        }
        Self { first: reserved.first, end, wait_below, resets: reserved.resets }
    }
}

#[derive(Debug)]
enum State {
    Failed(Option<AppendError>),
    /// With the sequence that it is to get.
    LinedUp(Arc<Ticket>, Option<Seq>),
    /// Appended, and published once the producers before it have made their copies: first event, and what to wait for.
    Publishing(Seq, Goal, Registration),
    Waiting(Seq, Goal, Registration),
    Done(Seq),
}

/// The future of one append. Resolves to the event's sequence; see [`crate::RedexFile::append`].
#[derive(Debug)]
#[must_use = "the append is made, but whether it was refused and when its policy is met only the future tells"]
pub struct Append<'f> {
    channel: &'f Channel,
    state: State,
}

/// The future of a batch. Resolves to the events' sequences; see [`crate::RedexFile::append_batch`].
#[derive(Debug)]
#[must_use = "the batch is appended, but whether it was refused and when its policy is met only the future tells"]
pub struct AppendBatch<'f> {
    append: Append<'f>,
    count: u64,
}

impl State {
    #[inline]
    fn published(channel: &Channel, published: Published) -> Self {
        let goal = |below| Goal { below, resets: Some(published.resets) };
        match published.wait_below {
            None if channel.tail.published() >= published.end => Self::Done(published.first),
            None => Self::Publishing(published.first, goal(published.end), Registration::default()),
            Some(below) => Self::Waiting(published.first, goal(below), Registration::default()),
        }
    }

    fn refused(
        channel: &Channel,
        refusal: Refusal,
        durable: bool,
        expected: Option<Seq>,
        waiting: impl FnOnce() -> Waiting,
    ) -> Self {
        match refusal {
            Refusal::Full => Self::lined_up(channel, waiting(), durable, expected),
            Refusal::Closed => Self::Failed(Some(why_closed(channel))),
            Refusal::OtherSeq(actual) => Self::other_seq(channel, expected, actual),
        }
    }

    #[cold]
    fn lined_up(channel: &Channel, waiting: Waiting, durable: bool, expected: Option<Seq>) -> Self {
        match line_up(channel, waiting, durable) {
            Err(Refused::TooMuch) => Self::Failed(Some(AppendError::Full { channel: channel.name.clone() })),
            Err(Refused::Closed) => Self::Failed(Some(why_closed(channel))),
            Ok(ticket) => Self::LinedUp(ticket, expected),
        }
    }

    #[cold]
    fn other_seq(channel: &Channel, expected: Option<Seq>, actual: Seq) -> Self {
        let (channel, expected) = (channel.name.clone(), expected.unwrap_or(actual).0);
        Self::Failed(Some(AppendError::OtherSeq { channel, expected, actual: actual.0 }))
    }

    fn decided(channel: &Channel, outcome: Result<Published, Denied>, expected: Option<Seq>) -> Self {
        match outcome {
            Ok(published) => Self::published(channel, published),
            Err(Denied::Closed) => Self::Failed(Some(why_closed(channel))),
            Err(Denied::NoSpace) => Self::Failed(Some(AppendError::NoSpace { channel: channel.name.clone() })),
            Err(Denied::OtherSeq(actual)) => Self::other_seq(channel, expected, actual),
        }
    }
}

impl<'f> Append<'f> {
    /// Appends one event now, if there is room, and if it gets the expected sequence.
    #[inline]
    pub(crate) fn one(channel: &'f Channel, payload: &[u8], durable: bool, expected: Option<Seq>) -> Self {
        let time_us = channel.clock.wall_us();
        let state = match admit(channel, payload.len()) {
            Err(error) => State::Failed(Some(error)),
            Ok(()) if must_line_up(channel, durable, time_us) => {
                State::lined_up(channel, Waiting::One(payload.to_vec(), expected), durable, expected)
            }
            Ok(()) => match channel.append(payload, time_us, expected) {
                Ok((reserved, policy)) => {
                    State::published(channel, Published::new(channel, durable, reserved, 1, policy))
                }
                Err(refusal) => {
                    State::refused(channel, refusal, durable, expected, || Waiting::One(payload.to_vec(), expected))
                }
            },
        };
        Self { channel, state }
    }

    /// Appends an event that must fit into its record.
    pub(crate) fn inline(channel: &'f Channel, payload: &[u8]) -> Self {
        if payload.len() <= INLINE_SIZE_MAX {
            return Self::one(channel, payload, false, None);
        }
        Self::failed(channel, AppendError::NotInline { channel: channel.name.clone(), size: payload.len() })
    }

    /// An append that is refused.
    pub(crate) fn failed(channel: &'f Channel, error: AppendError) -> Self {
        Self { channel, state: State::Failed(Some(error)) }
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<Seq, AppendError>> {
        loop {
            match &mut self.state {
                State::Done(seq) => return Poll::Ready(Ok(*seq)),
                State::Failed(error) => {
                    return Poll::Ready(Err(error.take().expect("a future is not polled after it has resolved")));
                }
                State::Publishing(first, goal, registration) => {
                    let (first, goal, channel) = (*first, *goal, self.channel);
                    let is_there = || channel.tail.published() >= goal.below || goal.was_before_a_cut(channel);
                    if !is_there() {
                        channel.tail.wait_published(registration, cx.waker());
                        if !is_there() {
                            return Poll::Pending;
                        }
                    }
                    return Poll::Ready(Ok(first));
                }
                State::Waiting(first, goal, registration) => {
                    let (first, goal) = (*first, *goal);
                    return poll_durable(self.channel, goal, registration, cx).map(|result| {
                        result.map_err(|_| why_closed(self.channel))?;
                        Ok(first)
                    });
                }
                State::LinedUp(ticket, expected) => {
                    ticket.wake_when_decided(cx.waker());
                    relieve(self.channel);
                    match ticket.outcome() {
                        Some(outcome) => self.state = State::decided(self.channel, outcome, *expected),
                        None => {
                            if self.channel.persistence().is_none() {
                                // In memory, room comes when another producer has finished its copy.
                                cx.waker().wake_by_ref();
                            }
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
    }

    /// Waits on this thread, without a runtime. Must not be called from within an asynchronous task.
    pub fn wait(mut self) -> Result<u64, AppendError> {
        self.wait_first().map(|seq| seq.0)
    }

    fn wait_first(&mut self) -> Result<Seq, AppendError> {
        if let State::Done(seq) = self.state {
            return Ok(seq);
        }
        if let State::Waiting(first, goal, _) = self.state {
            wait::wait_durable(self.channel, goal).map_err(|_| why_closed(self.channel))?;
            return Ok(first);
        }
        block_on(FULL_RETRY, |cx| self.poll_first(cx))
    }
}

impl Future for Append<'_> {
    type Output = Result<u64, AppendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_first(cx).map_ok(|seq| seq.0)
    }
}

impl<'f> AppendBatch<'f> {
    /// Appends events now, if there is room, and if the first gets the expected sequence.
    pub(crate) fn new<P: AsRef<[u8]>>(
        channel: &'f Channel,
        payloads: &[P],
        durable: bool,
        expected: Option<Seq>,
    ) -> Self {
        let (count, time_us) = (payloads.len() as u64, channel.clock.wall_us());
        let state = match admit_batch(channel, payloads) {
            Err(error) => State::Failed(Some(error)),
            _ if payloads.is_empty() => State::Done(channel.tail.published()),
            Ok(()) if must_line_up(channel, durable, time_us) => {
                State::lined_up(channel, copy(payloads, expected), durable, expected)
            }
            Ok(()) => match channel.append_batch(payloads, time_us, expected) {
                Ok((reserved, policy)) => {
                    State::published(channel, Published::new(channel, durable, reserved, count, policy))
                }
                Err(refusal) => State::refused(channel, refusal, durable, expected, || copy(payloads, expected)),
            },
        };
        Self { append: Append { channel, state }, count }
    }

    /// A batch that is refused.
    pub(crate) fn failed(channel: &'f Channel, error: AppendError) -> Self {
        Self { append: Append::failed(channel, error), count: 0 }
    }

    /// Waits on this thread, without a runtime. Must not be called from within an asynchronous task.
    pub fn wait(mut self) -> Result<Range<u64>, AppendError> {
        let first = self.append.wait_first()?;
        Ok(first.0..first.0 + self.count)
    }
}

impl Future for AppendBatch<'_> {
    type Output = Result<Range<u64>, AppendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let count = this.count;
        this.append.poll_first(cx).map_ok(|first| first.0..first.0 + count)
    }
}

/// Appends without waiting, for `try_append`.
pub(crate) fn try_one(channel: &Channel, payload: &[u8]) -> Result<u64, AppendError> {
    let full = || AppendError::Full { channel: channel.name.clone() };
    admit(channel, payload.len())?;
    let time_us = channel.clock.wall_us();
    if must_line_up(channel, false, time_us) {
        channel.ring();
        return Err(full());
    }
    match channel.append(payload, time_us, None) {
        Ok((reserved, policy)) => {
            if let Some(below) = policy {
                channel.want_durable(below);
                channel.ring();
            }
            Ok(reserved.first.0)
        }
        Err(Refusal::Closed) => Err(why_closed(channel)),
        Err(Refusal::Full | Refusal::OtherSeq(_)) => {
            channel.ring();
            Err(full())
        }
    }
}

/// Whether an append may be tried at all.
#[inline]
fn admit(channel: &Channel, size: usize) -> Result<(), AppendError> {
    if size > channel.payload_size_max {
        return Err(too_large(channel, size));
    }
    match channel.persistence() {
        Some(persistence) if persistence.shard.no_space() => {
            Err(AppendError::NoSpace { channel: channel.name.clone() })
        }
        _ => Ok(()),
    }
}

#[cold]
fn too_large(channel: &Channel, size: usize) -> AppendError {
    AppendError::TooLarge { channel: channel.name.clone(), size, limit: channel.payload_size_max }
}

/// Whether a batch may be tried at all.
pub(crate) fn admit_batch<P: AsRef<[u8]>>(channel: &Channel, payloads: &[P]) -> Result<(), AppendError> {
    let mut size = 0;
    for payload in payloads {
        let len = payload.as_ref().len();
        if len > channel.payload_size_max {
            return Err(too_large(channel, len));
        }
        size += len;
    }
    let count = payloads.len();
    if size > BATCH_SIZE_MAX || count > PAGE_EVENTS_MAX {
        let (limit, count_limit) = (BATCH_SIZE_MAX, PAGE_EVENTS_MAX);
        return Err(AppendError::BatchTooLarge { channel: channel.name.clone(), size, count, limit, count_limit });
    }
    admit(channel, 0)
}

/// Whether an append has to wait for its turn.
#[inline]
fn must_line_up(channel: &Channel, durable: bool, time_us: u64) -> bool {
    channel.holds_back(durable, time_us) || (!channel.backlog.is_empty() && still_lined_up(channel))
}

#[cold]
fn still_lined_up(channel: &Channel) -> bool {
    relieve(channel);
    !channel.backlog.is_empty()
}

fn copy<P: AsRef<[u8]>>(payloads: &[P], expected: Option<Seq>) -> Waiting {
    Waiting::Batch(payloads.iter().map(|payload| payload.as_ref().to_vec()).collect(), expected)
}

/// Why the channel takes no appends.
fn why_closed(channel: &Channel) -> AppendError {
    match channel.persistence().and_then(|persistence| persistence.shard.poisoned()) {
        Some(poisoned) => AppendError::Poisoned(poisoned.clone()),
        None => AppendError::Closed { channel: channel.name.clone() },
    }
}
