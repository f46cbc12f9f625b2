//! Subscriptions: a cursor on the read path, and a wake-up.
//!
//! No queue and no copy per subscriber: a slow one is never cut off and never holds memory back; it reads from disk what
//! has left memory, and is in step again when it has caught up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use serde::{Deserialize, Serialize};

use super::{EventReader, after_damage};
use crate::append::backlog::relieve;
use crate::append::wait::block_on;
use crate::channel::Channel;
use crate::channel_name::ChannelName;
use crate::error::{Poisoned, ReadError, SubscribeError};
use crate::event::RedexEvent;
use crate::ids::{Epoch, Seq};
use crate::segment::chunk::EventChunk;
use crate::tail::waiters::Registration;

/// A position in a channel that survives crashes: the epoch that gave it, and the sequence.
///
/// A sequence that a crash took back is given again, to another event; the epoch tells the two apart (design D11).
///
/// To be kept by whoever consumes: by serde as a struct of its two fields, or as text, `epoch:seq`.
///
/// ```
/// let cursor = redex::Cursor { epoch: 3, seq: 1000 };
/// assert_eq!(cursor.to_string(), "3:1000");
/// assert_eq!("3:1000".parse(), Ok(cursor));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// Epoch of the store in which the position was taken.
    pub epoch: u32,
    /// Sequence of the next event to deliver.
    pub seq: u64,
}

/// Where a subscription begins: a plain sequence, or a [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// This sequence, whatever it is now.
    Seq(u64),
    /// This position, or an error if a crash took it back.
    Cursor(Cursor),
}

impl std::convert::From<u64> for From {
    fn from(seq: u64) -> Self {
        Self::Seq(seq)
    }
}

impl std::convert::From<Cursor> for From {
    fn from(cursor: Cursor) -> Self {
        Self::Cursor(cursor)
    }
}

/// Why a subscription has ended, or what it could not deliver.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailEnd {
    /// The channel or the store was closed, and everything was delivered.
    #[error("the channel was closed")]
    Closed,
    /// Events that the cursor has seen were lost in a crash, or cut off. [`TailResults`] reports this first and goes on at `from`, the
    /// first position that survived: the events there are others than those that were seen.
    #[error(
        "channel {channel}: events {from}..{to} that the cursor has seen were lost in a crash or cut off; the tail goes on at {from}"
    )]
    Lost {
        /// Which channel.
        channel: ChannelName,
        /// First event that is gone.
        from: u64,
        /// End of those that are gone, exclusive, as far as the cursor knows.
        to: u64,
    },
    /// The subscription could not begin, for another reason than a loss: a cursor of another store.
    #[error(transparent)]
    Refused(SubscribeError),
    /// The subscription was so far behind that the channel's limits dropped what comes next. [`TailResults`] reports this once
    /// and goes on at `to`, the head.
    #[error(
        "channel {channel}: events {from}..{to} were dropped by retention before they were read; the tail goes on at {to}"
    )]
    Lagged {
        /// Which channel.
        channel: ChannelName,
        /// First event that was to come.
        from: u64,
        /// First event that is there.
        to: u64,
    },
    /// Events could not be read. [`TailResults`] reports this and goes on where it can.
    #[error(transparent)]
    Unreadable(ReadError),
    /// The shard failed; everything that is readable was delivered.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

impl std::convert::From<ReadError> for TailEnd {
    /// Events that retention dropped are [`TailEnd::Lagged`], those that were cut off [`TailEnd::Lost`].
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Trimmed { channel, from, to } => Self::Lagged { channel, from, to },
            ReadError::CutOff { channel, from, to } => Self::Lost { channel, from, to },
            other => Self::Unreadable(other),
        }
    }
}

impl std::convert::From<SubscribeError> for TailEnd {
    /// Lost events are [`TailEnd::Lost`], as [`TailResults`] reports them, and everything else is [`TailEnd::Refused`].
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::LostEvents { channel, from, to } => Self::Lost { channel, from, to },
            refused => Self::Refused(refused),
        }
    }
}

/// The future of a subscription; resolves at once.
#[derive(Debug)]
#[must_use = "a subscription begins when this is awaited or waited for"]
pub struct Subscribe(Option<Result<Tail, SubscribeError>>);

impl Subscribe {
    pub(crate) fn from(channel: &Arc<Channel>, generation: u32, from: From) -> Self {
        Self(Some(start(channel, from).map(|seq| Tail::new(channel, generation, seq))))
    }

    /// The subscription.
    pub fn wait(mut self) -> Result<Tail, SubscribeError> {
        self.0.take().expect("not taken before")
    }
}

impl Future for Subscribe {
    type Output = Result<Tail, SubscribeError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(self.get_mut().0.take().expect("a future is not polled after it has resolved"))
    }
}

fn start(channel: &Channel, from: From) -> Result<Seq, SubscribeError> {
    match from {
        From::Seq(seq) => Ok(Seq(seq)),
        From::Cursor(cursor) => check_cursor(channel, cursor),
    }
}

/// A cursor of an epoch points at what that epoch appended: up to where the next one began.
pub(super) fn check_cursor(channel: &Channel, cursor: Cursor) -> Result<Seq, SubscribeError> {
    let present = channel.epoch().0;
    if cursor.epoch > present {
        let epoch = cursor.epoch;
        return Err(SubscribeError::UnknownEpoch { channel: channel.name.clone(), epoch, present });
    }
    let epochs = channel.epochs.lock().expect("no panic while the lock is held");
    let next_epoch = epochs.iter().find(|(epoch, _)| *epoch > Epoch(cursor.epoch));
    match next_epoch {
        Some((_, first)) if cursor.seq > first.0 => {
            Err(SubscribeError::LostEvents { channel: channel.name.clone(), from: first.0, to: cursor.seq })
        }
        _ => Ok(Seq(cursor.seq)),
    }
}

/// A subscription: a stream of events, in order, without a gap, from history into the present.
///
/// It ends only at `close` or at something that it cannot deliver; [`Tail::ended`] then says which.
#[derive(Debug)]
pub struct Tail {
    reader: EventReader,
    /// Of the handle that it was made from.
    generation: u32,
    durable_only: bool,
    ended: Option<TailEnd>,
    durable_registration: Registration,
    published_registration: Registration,
}

impl Tail {
    fn new(channel: &Arc<Channel>, generation: u32, from: Seq) -> Self {
        let reader = EventReader::new(channel.clone(), from).holding();
        Self {
            reader,
            generation,
            durable_only: false,
            ended: None,
            durable_registration: Registration::default(),
            published_registration: Registration::default(),
        }
    }

    /// Delivers events only once they are durable. Asks for no flush itself: the channel's policy and its writers do.
    #[must_use]
    pub fn durable_only(mut self) -> Self {
        self.durable_only = true;
        self
    }

    /// The same stream as `Result`, which reports damage and poison as items and goes on where it can.
    ///
    /// A loss is found when the subscription begins: [`crate::RedexFile::subscribe_from`] refuses such a cursor, while
    /// [`crate::RedexFile::tail`] reports it as the first item.
    #[must_use]
    pub fn results(self) -> TailResults {
        TailResults { tail: self, first: None }
    }

    /// Why the stream has ended; `None` while it has not.
    #[must_use]
    pub fn ended(&self) -> Option<&TailEnd> {
        self.ended.as_ref()
    }

    /// Where the subscription stands: the next event to deliver, with the store's epoch.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.reader.epoch().0, seq: self.reader.next_seq().0 }
    }

    fn mark(&self) -> Seq {
        let channel = self.reader.channel();
        if self.durable_only { channel.durable() } else { channel.tail.published() }
    }

    /// Whether no event will come any more, and why.
    fn over(&self) -> Option<TailEnd> {
        let channel = self.reader.channel();
        let shard = channel.persistence().map(|persistence| &persistence.shard);
        if let Some(poisoned) = shard.and_then(|shard| shard.poisoned()) {
            return Some(TailEnd::Poisoned(poisoned.clone()));
        }
        if shard.is_none() && channel.is_closed(self.generation) {
            // Nobody else may publish what waits for room in memory.
            relieve(channel);
        }
        let ended = shard.is_some_and(|shard| shard.is_closed());
        let closed = ended || channel.is_closed(self.generation);
        // What was appended before the close is still to be delivered: what waits for room, and closing flushes, so also to
        // those who follow the durable mark.
        let complete = (ended || channel.backlog.is_empty())
            && (!self.durable_only || channel.durable() >= channel.tail.published());
        (closed && complete).then_some(TailEnd::Closed)
    }

    /// The next event if it is there and in memory. Never blocks, never waits: for a thread that spins.
    ///
    /// An event that has left memory is not found this way; use the stream, or [`Tail::next_wait`].
    #[inline]
    pub fn try_next(&mut self) -> Option<RedexEvent> {
        let mark = self.mark();
        let next = self.reader.try_next(mark)?;
        self.or_ended(next.map_err(TailEnd::from))
    }

    /// The next event, waited for on this thread; `None` when the stream has ended.
    pub fn next_wait(&mut self) -> Option<RedexEvent> {
        let next = self.next_result_wait()?;
        self.or_ended(next)
    }

    /// What comes next, or why nothing does.
    fn or_ended<T>(&mut self, next: Result<T, TailEnd>) -> Option<T> {
        next.map_err(|end| self.ended = Some(end)).ok()
    }

    /// The next events that are there and in memory, to be looked at where they lie: all of one page, at least one. As
    /// [`Tail::try_next`], and many times faster where many events come.
    #[inline]
    pub fn try_next_chunk(&mut self) -> Option<EventChunk> {
        let mark = self.mark();
        let next = self.reader.try_next_chunk(mark)?;
        self.or_ended(next.map_err(TailEnd::from))
    }

    /// The next events, to be looked at where they lie: as many as are at hand, at least one; resolves to `None` when the stream has
    /// ended. Beside the stream of single events, from one cursor: whatever is given by one is not given by the other.
    ///
    /// A chunk from a sealed segment is looked at where the file is mapped. Whether another program has changed the file meanwhile
    /// is told by [`Tail::check`].
    ///
    /// ```
    /// # fn main() -> Result<(), redex::RedexError> {
    /// # let file = redex::Redex::in_memory().open_file("orders", redex::RedexFileConfig::default())?;
    /// file.append_batch(&[b"one order".to_vec(), b"another".to_vec()]).wait()?;
    /// let mut tail = file.subscribe_from(0).wait()?;
    /// let chunk = tail.next_chunk().wait().expect("the channel is open");
    /// assert_eq!(chunk.iter().map(|event| event.seq).collect::<Vec<_>>(), [0, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_chunk(&mut self) -> NextTailChunk<'_> {
        NextTailChunk(self)
    }

    /// Whether the file of a chunk that was looked at is still what it was when the chunk was checked.
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] names the file that another program has changed: what the chunk showed may be wrong.
    pub fn check(&self, chunk: &EventChunk) -> Result<(), ReadError> {
        self.reader.changed(chunk).map_or(Ok(()), Err)
    }

    fn next_result_wait(&mut self) -> Option<Result<RedexEvent, TailEnd>> {
        self.wait_for(EventReader::next_blocking)
    }

    /// What `next` finds below the mark, waited for on this thread.
    fn wait_for<T>(
        &mut self,
        next: impl Fn(&mut EventReader, Seq) -> Option<Result<T, ReadError>>,
    ) -> Option<Result<T, TailEnd>> {
        if self.ended.is_some() {
            return None;
        }
        loop {
            if let Some(error) = self.reader.cut_off() {
                return Some(Err(error.into()));
            }
            let mark = self.mark();
            if let Some(next) = next(&mut self.reader, mark) {
                return Some(next.map_err(TailEnd::from));
            }
            if let Err(end) = block_on(Duration::MAX, |cx| self.poll_mark(cx)) {
                return Some(Err(end));
            }
        }
    }

    /// Waits until there is something above the cursor, or nothing will come any more.
    fn poll_mark(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TailEnd>> {
        let next = self.reader.next_seq();
        if self.mark() > next {
            return Poll::Ready(Ok(()));
        }
        let channel = self.reader.channel().clone();
        if self.durable_only {
            self.durable_registration.register(&channel.durable_waiters, next.0, cx.waker());
        }
        // The end of a channel wakes those who wait for events, whichever mark they follow.
        channel.tail.wait_published(&mut self.published_registration, cx.waker());
        let over = self.over();
        if self.reader.is_cut_off() {
            return Poll::Ready(Ok(()));
        }
        match over {
            _ if self.mark() > next => Poll::Ready(Ok(())),
            Some(end) => Poll::Ready(Err(end)),
            None => {
                if channel.persistence().is_none() && channel.is_closed(self.generation) {
                    // Nobody else publishes what waits there.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }

    fn poll_result(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RedexEvent, TailEnd>>> {
        self.poll_for(cx, EventReader::poll_next)
    }

    /// What `next` finds below the mark.
    fn poll_for<T>(
        &mut self,
        cx: &mut Context<'_>,
        next: impl Fn(&mut EventReader, Seq, &mut Context<'_>) -> Poll<Option<Result<T, ReadError>>>,
    ) -> Poll<Option<Result<T, TailEnd>>> {
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        loop {
            if let Some(error) = self.reader.cut_off() {
                return Poll::Ready(Some(Err(error.into())));
            }
            let mark = self.mark();
            if let Some(next) = std::task::ready!(next(&mut self.reader, mark, cx)) {
                return Poll::Ready(Some(next.map_err(TailEnd::from)));
            }
            if let Err(end) = std::task::ready!(self.poll_mark(cx)) {
                return Poll::Ready(Some(Err(end)));
            }
        }
    }
}

impl Stream for Tail {
    type Item = RedexEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RedexEvent>> {
        let this = self.get_mut();
        let next = std::task::ready!(this.poll_result(cx));
        Poll::Ready(next.and_then(|next| this.or_ended(next)))
    }
}

/// The future of [`Tail::next_chunk`].
#[derive(Debug)]
#[must_use = "nothing is taken before the future is polled or waited for"]
pub struct NextTailChunk<'t>(&'t mut Tail);

impl NextTailChunk<'_> {
    /// Waits on this thread, without a runtime.
    pub fn wait(self) -> Option<EventChunk> {
        let next = self.0.wait_for(EventReader::next_chunk_blocking)?;
        self.0.or_ended(next)
    }
}

impl Future for NextTailChunk<'_> {
    type Output = Option<EventChunk>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<EventChunk>> {
        let tail = &mut *self.get_mut().0;
        let next = std::task::ready!(tail.poll_for(cx, EventReader::poll_next_chunk));
        Poll::Ready(next.and_then(|next| tail.or_ended(next)))
    }
}

/// A subscription that reports what it cannot deliver, and goes on behind it: by [`crate::RedexFile::tail`] or
/// [`Tail::results`].
///
/// Items are events in order, and among them an error for each thing that cannot be delivered. It goes on after
/// [`TailEnd::Lost`] and after damage ([`TailEnd::Unreadable`], unless the operating system refuses to read); it ends after
/// [`TailEnd::Poisoned`] and [`TailEnd::Refused`], and without an error at [`TailEnd::Closed`].
#[derive(Debug)]
pub struct TailResults {
    tail: Tail,
    /// What is reported before anything else.
    first: Option<TailEnd>,
}

impl TailResults {
    pub(crate) fn from(channel: &Arc<Channel>, generation: u32, from: From) -> Self {
        let (seq, first) = match start(channel, from) {
            Ok(seq) => (seq, None),
            Err(error) => {
                let end = TailEnd::from(error);
                let seq = if let TailEnd::Lost { from, .. } = end { Seq(from) } else { channel.tail.published() };
                (seq, Some(end))
            }
        };
        Self { tail: Tail::new(channel, generation, seq), first }
    }

    /// Delivers events only once they are durable; see [`Tail::durable_only`].
    #[must_use]
    pub fn durable_only(mut self) -> Self {
        self.tail = self.tail.durable_only();
        self
    }

    /// Where the subscription stands; see [`Tail::cursor`].
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.tail.cursor()
    }

    /// Why the stream has ended; `None` while it has not.
    #[must_use]
    pub fn ended(&self) -> Option<&TailEnd> {
        self.tail.ended()
    }

    /// The next item, waited for on this thread; `None` when the stream has ended.
    pub fn next_wait(&mut self) -> Option<Result<RedexEvent, TailEnd>> {
        let result = match self.first.take() {
            Some(end) => Err(end),
            None => self.tail.next_result_wait()?,
        };
        self.settle(result)
    }

    fn settle(&mut self, result: Result<RedexEvent, TailEnd>) -> Option<Result<RedexEvent, TailEnd>> {
        let end = match result {
            Ok(event) => return Some(Ok(event)),
            Err(end) => end,
        };
        let next = self.tail.reader.next_seq();
        let go_on = match &end {
            TailEnd::Lost { from, .. } => Some(Seq(*from)),
            TailEnd::Lagged { to, .. } => Some(Seq(*to)),
            TailEnd::Unreadable(error) => after_damage(error, next),
            TailEnd::Closed | TailEnd::Poisoned(_) | TailEnd::Refused(_) => None,
        };
        match go_on {
            Some(seq) => self.tail.reader.seek(seq),
            None => self.tail.ended = Some(end.clone()),
        }
        if matches!(end, TailEnd::Closed) { None } else { Some(Err(end)) }
    }
}

impl Stream for TailResults {
    type Item = Result<RedexEvent, TailEnd>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let result = match this.first.take() {
            Some(end) => Some(Err(end)),
            None => std::task::ready!(this.tail.poll_result(cx)),
        };
        Poll::Ready(result.and_then(|result| this.settle(result)))
    }
}
