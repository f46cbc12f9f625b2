//! Appending, as the caller sees it: the event is published by the call itself, if there is room; the future only waits.
//!
//! So a dropped future cancels nothing, and one thread can have thousands of appends in flight. What a future waits for is
//! decided when the event is published: nothing, durability of some position (by the policy, or `append_durable`), or, when
//! memory or disk is full, room to publish at all.

pub mod wait;

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::channel::Channel;
use crate::error::AppendError;
use crate::ids::Seq;
use crate::segment::record::INLINE_SIZE_MAX;
use crate::tail::waiters::Registration;
use crate::tail::{PAGE_EVENTS_MAX, Refusal, Reserved};

use self::wait::{block_on, poll_durable};

/// Payload bytes a batch may have.
pub const BATCH_SIZE_MAX: usize = 64 << 20;

/// How long an append that found no room waits for the shard before it looks again, if nobody wakes it.
const FULL_RETRY: std::time::Duration = std::time::Duration::from_millis(5);

/// What has been published, and up to where to wait.
#[derive(Clone, Copy, Debug)]
struct Published {
    first: Seq,
    wait_below: Option<Seq>,
}

/// What is to be appended once there is room. A copy: the caller's bytes are gone by then.
#[derive(Debug)]
enum Pending {
    One(Vec<u8>),
    Batch(Vec<Vec<u8>>),
}

#[derive(Debug)]
enum State {
    Failed(Option<AppendError>),
    Full(Pending, Registration),
    Waiting(Published, Registration),
    Done(Seq),
}

/// The future of one append. Resolves to the event's sequence; see [`crate::RedexFile::append`].
#[derive(Debug)]
#[must_use = "the event is published, but whether it was refused and when its policy is met only the future tells"]
pub struct Append<'f> {
    channel: &'f Channel,
    durable: bool,
    state: State,
}

/// The future of a batch. Resolves to the events' sequences; see [`crate::RedexFile::append_batch`].
#[derive(Debug)]
#[must_use = "the batch is published, but whether it was refused and when its policy is met only the future tells"]
pub struct AppendBatch<'f> {
    append: Append<'f>,
    count: u64,
}

impl<'f> Append<'f> {
    /// Appends one event now, if there is room.
    #[inline]
    pub(crate) fn one(channel: &'f Channel, payload: &[u8], durable: bool) -> Self {
        let state = match admit(channel, payload.len()) {
            Err(error) => State::Failed(Some(error)),
            Ok(()) if channel.holds_back(durable) => {
                Self::refused(channel, Refusal::Full, || Pending::One(payload.to_vec()))
            }
            Ok(()) => match channel.append(payload) {
                Ok((reserved, policy)) => Self::published(channel, durable, reserved, 1, policy),
                Err(refusal) => Self::refused(channel, refusal, || Pending::One(payload.to_vec())),
            },
        };
        Self { channel, durable, state }
    }

    /// Appends an event that must fit into its record.
    pub(crate) fn inline(channel: &'f Channel, payload: &[u8]) -> Self {
        if payload.len() <= INLINE_SIZE_MAX {
            return Self::one(channel, payload, false);
        }
        Self::failed(channel, AppendError::NotInline { size: payload.len() })
    }

    /// An append that is refused.
    pub(crate) fn failed(channel: &'f Channel, error: AppendError) -> Self {
        Self { channel, durable: false, state: State::Failed(Some(error)) }
    }

    fn published(channel: &Channel, durable: bool, reserved: Reserved, count: u64, policy: Option<Seq>) -> State {
        let end = Seq(reserved.first.0 + count);
        let wait_below = if durable && channel.persistence.is_some() { Some(end) } else { policy };
        match wait_below {
            None => State::Done(reserved.first),
            Some(wait_below) => {
                // Not rung yet: a burst of appends from one thread makes one commit, begun when somebody waits.
                channel.want_durable(wait_below);
                State::Waiting(
                    Published { first: reserved.first, wait_below: Some(wait_below) },
                    Registration::default(),
                )
            }
        }
    }

    fn refused(channel: &Channel, refusal: Refusal, pending: impl FnOnce() -> Pending) -> State {
        match refusal {
            Refusal::Full => State::Full(pending(), Registration::default()),
            Refusal::Closed => State::Failed(Some(why_closed(channel))),
        }
    }

    /// Tries again what found no room.
    fn retry(&mut self) {
        let State::Full(pending, _) = &mut self.state else { return };
        let channel = self.channel;
        if channel.persistence.as_ref().is_some_and(|p| p.shard.poisoned().is_some() || p.shard.is_closed()) {
            self.state = State::Failed(Some(why_closed(channel)));
            return;
        }
        if channel.holds_back(self.durable) {
            return;
        }
        let result = match admit(channel, 0) {
            Err(error) => {
                self.state = State::Failed(Some(error));
                return;
            }
            Ok(()) => match &*pending {
                Pending::One(payload) => channel.append(payload).map(|done| (done, 1)),
                Pending::Batch(payloads) => channel.append_batch(payloads).map(|done| (done, payloads.len() as u64)),
            },
        };
        match result {
            Ok(((reserved, policy), count)) => {
                self.state = Self::published(channel, self.durable, reserved, count, policy);
            }
            Err(Refusal::Closed) => self.state = State::Failed(Some(why_closed(channel))),
            Err(Refusal::Full) => {}
        }
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<Seq, AppendError>> {
        loop {
            match &mut self.state {
                State::Done(seq) => return Poll::Ready(Ok(*seq)),
                State::Failed(error) => {
                    return Poll::Ready(Err(error.take().expect("a future is not polled after it has resolved")));
                }
                State::Waiting(published, registration) => {
                    let Some(below) = published.wait_below else { return Poll::Ready(Ok(published.first)) };
                    let first = published.first;
                    return poll_durable(self.channel, below, registration, cx).map(|result| {
                        result.map_err(|_| why_closed(self.channel))?;
                        Ok(first)
                    });
                }
                State::Full(_, registration) => {
                    if let Some(persistence) = &self.channel.persistence {
                        registration.register(&persistence.shard.room, 0, cx.waker());
                        persistence.shard.ring();
                    } else {
                        // In memory, room comes when another producer has finished its copy.
                        cx.waker().wake_by_ref();
                    }
                    self.retry();
                    if let State::Full(..) = self.state {
                        return Poll::Pending;
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
        if let State::Waiting(Published { first, wait_below: Some(below) }, _) = self.state {
            wait::wait_durable(self.channel, below).map_err(|_| why_closed(self.channel))?;
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
    /// Appends events now, if there is room.
    pub(crate) fn new<P: AsRef<[u8]>>(channel: &'f Channel, payloads: &[P], durable: bool) -> Self {
        let count = payloads.len() as u64;
        let state = match admit_batch(channel, payloads) {
            Err(error) => State::Failed(Some(error)),
            _ if payloads.is_empty() => State::Done(channel.tail.published()),
            Ok(()) if channel.holds_back(durable) => Append::refused(channel, Refusal::Full, || copy(payloads)),
            Ok(()) => match channel.append_batch(payloads) {
                Ok((reserved, policy)) => Append::published(channel, durable, reserved, count, policy),
                Err(refusal) => Append::refused(channel, refusal, || copy(payloads)),
            },
        };
        Self { append: Append { channel, durable, state }, count }
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
    if channel.holds_back(false) {
        channel.ring();
        return Err(full());
    }
    match channel.append(payload) {
        Ok((reserved, policy)) => {
            if let Some(below) = policy {
                channel.want_durable(below);
                channel.ring();
            }
            Ok(reserved.first.0)
        }
        Err(Refusal::Closed) => Err(why_closed(channel)),
        Err(Refusal::Full) => {
            channel.ring();
            Err(full())
        }
    }
}

/// Whether an append may be tried at all.
#[inline]
fn admit(channel: &Channel, size: usize) -> Result<(), AppendError> {
    if size > channel.payload_size_max {
        return Err(AppendError::TooLarge { size, limit: channel.payload_size_max });
    }
    match &channel.persistence {
        Some(persistence) if persistence.shard.no_space() => {
            Err(AppendError::NoSpace { channel: channel.name.clone() })
        }
        _ => Ok(()),
    }
}

fn admit_batch<P: AsRef<[u8]>>(channel: &Channel, payloads: &[P]) -> Result<(), AppendError> {
    let mut size = 0;
    for payload in payloads {
        let len = payload.as_ref().len();
        if len > channel.payload_size_max {
            return Err(AppendError::TooLarge { size: len, limit: channel.payload_size_max });
        }
        size += len;
    }
    let count = payloads.len();
    if size > BATCH_SIZE_MAX || count > PAGE_EVENTS_MAX {
        let (limit, count_limit) = (BATCH_SIZE_MAX, PAGE_EVENTS_MAX);
        return Err(AppendError::BatchTooLarge { size, count, limit, count_limit });
    }
    admit(channel, 0)
}

fn copy<P: AsRef<[u8]>>(payloads: &[P]) -> Pending {
    Pending::Batch(payloads.iter().map(|payload| payload.as_ref().to_vec()).collect())
}

/// Why the channel takes no appends.
fn why_closed(channel: &Channel) -> AppendError {
    match channel.persistence.as_ref().and_then(|persistence| persistence.shard.poisoned()) {
        Some(poisoned) => AppendError::Poisoned(poisoned.clone()),
        None => AppendError::Closed { channel: channel.name.clone() },
    }
}
