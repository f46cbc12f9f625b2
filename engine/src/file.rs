//! The door to one channel.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::append::backlog::{Ticket, Waiting, line_up, relieve};
use crate::append::wait::{Goal, Gone, block_on, poll_durable, wait_durable};
use crate::append::{Append, AppendBatch, FULL_RETRY, try_one};
use crate::channel::Channel;
use crate::channel_name::ChannelName;
use crate::channel_stats::ChannelStats;
use crate::cold::pass::{ColdPass, pass, rebuild};
use crate::cold::read::{ColdWork, ReadCold, of_channel};
use crate::config::RedexFileConfig;
use crate::error::{AppendError, SyncError};
use crate::event::EventTime;
use crate::ids::Seq;
use crate::read::range::{ReadOne, ReadRange, Scan};
use crate::read::subscribe::{Cursor, From, Subscribe, TailResults};
use crate::read::time::{ReadTimeRange, SeekTime};
use crate::read::verify::Verify;
use crate::tail::waiters::Registration;

/// A channel: a named, append-only log. A cheap clone; all clones are the same channel.
///
/// Appends are made by the call itself; the future that it returns only waits for what the policy asks, and dropping it
/// cancels nothing. Every future also has `.wait()`, for threads without a runtime.
///
/// ```
/// # fn main() -> Result<(), redex::RedexError> {
/// use redex::{Redex, RedexFileConfig};
/// let redex = Redex::in_memory();
/// let file = redex.open_file("sensors/lidar/front", RedexFileConfig::default())?;
/// let seq = file.append(b"a point cloud").wait()?;
/// assert_eq!(file.read_one(seq).wait()?.unwrap().payload, b"a point cloud");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedexFile {
    channel: Arc<Channel>,
    generation: u32,
}

impl RedexFile {
    pub(crate) fn new(channel: Arc<Channel>) -> Self {
        let generation = channel.open_generation();
        Self { channel, generation }
    }

    /// What its users share.
    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Whether this handle was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.channel.is_closed(self.generation)
    }

    fn closed(&self) -> Option<AppendError> {
        self.channel.is_closed(self.generation).then(|| AppendError::Closed { channel: self.channel.name.clone() })
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &ChannelName {
        &self.channel.name
    }

    /// Its present settings.
    #[must_use]
    pub fn config(&self) -> RedexFileConfig {
        self.channel.config.get()
    }

    /// What can be told of the channel at this moment: watermarks, sizes, lag. Touches no disk; takes short locks that the
    /// shard takes too, so not for every event.
    #[must_use]
    pub fn stats(&self) -> ChannelStats {
        self.channel.stats()
    }

    /// Appends one event, and resolves to its sequence as the channel's policy says.
    ///
    /// A payload of up to 8 bytes is kept inside its index record. The event is made by the call itself, unless memory
    /// or the shard is behind: then a copy waits its turn, and later appends to the channel line up behind it. So events
    /// have the order of the calls, awaited or not, and dropping the future cancels nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the channel is as it was, unless the shard failed while the future waited.
    #[inline]
    pub fn append(&self, payload: impl AsRef<[u8]>) -> Append<'_> {
        match self.closed() {
            None => Append::one(&self.channel, payload.as_ref(), false, None),
            Some(error) => Append::failed(&self.channel, error),
        }
    }

    /// Appends one event, and resolves when it is durable, under any policy.
    #[inline]
    pub fn append_durable(&self, payload: impl AsRef<[u8]>) -> Append<'_> {
        match self.closed() {
            None => Append::one(&self.channel, payload.as_ref(), true, None),
            Some(error) => Append::failed(&self.channel, error),
        }
    }

    /// Appends one event of up to 8 bytes, which lies inside its index record. [`RedexFile::append`] does the same by
    /// itself; this one refuses a longer payload.
    pub fn append_inline(&self, payload: impl AsRef<[u8]>) -> Append<'_> {
        match self.closed() {
            None => Append::inline(&self.channel, payload.as_ref()),
            Some(error) => Append::failed(&self.channel, error),
        }
    }

    /// Appends several events, all or none, with consecutive sequences, visible together.
    ///
    /// At most 64 MiB of payload and 1,048,575 events. A crash keeps all of a batch or nothing, if its index records fit
    /// one commit (100,000 events with the default journal); a larger batch may be cut.
    pub fn append_batch<P: AsRef<[u8]>>(&self, payloads: &[P]) -> AppendBatch<'_> {
        match self.closed() {
            None => AppendBatch::new(&self.channel, payloads, false, None),
            Some(error) => AppendBatch::failed(&self.channel, error),
        }
    }

    /// Appends several events as [`RedexFile::append_batch`] does, and resolves when all are durable.
    pub fn append_batch_durable<P: AsRef<[u8]>>(&self, payloads: &[P]) -> AppendBatch<'_> {
        match self.closed() {
            None => AppendBatch::new(&self.channel, payloads, true, None),
            Some(error) => AppendBatch::failed(&self.channel, error),
        }
    }

    /// Appends one event if it gets the sequence `expected`, as when nobody else has appended since the caller looked:
    /// compare and append. Resolves as [`RedexFile::append`] does.
    ///
    /// # Errors
    ///
    /// [`AppendError::OtherSeq`]: nothing was appended, and the next event has another sequence.
    pub fn append_if(&self, expected: u64, payload: impl AsRef<[u8]>) -> Append<'_> {
        match self.closed() {
            None => Append::one(&self.channel, payload.as_ref(), false, Some(Seq(expected))),
            Some(error) => Append::failed(&self.channel, error),
        }
    }

    /// Appends several events as [`RedexFile::append_batch`] does, if the first gets the sequence `expected`.
    ///
    /// # Errors
    ///
    /// [`AppendError::OtherSeq`]: nothing was appended, and the next event has another sequence.
    pub fn append_batch_if<P: AsRef<[u8]>>(&self, expected: u64, payloads: &[P]) -> AppendBatch<'_> {
        match self.closed() {
            None => AppendBatch::new(&self.channel, payloads, false, Some(Seq(expected))),
            Some(error) => AppendBatch::failed(&self.channel, error),
        }
    }

    /// Appends one event without ever waiting: returns its sequence once it is published, or [`AppendError::Full`].
    ///
    /// Where the policy would make `append` wait, the flush is started and not waited for.
    pub fn try_append(&self, payload: impl AsRef<[u8]>) -> Result<u64, AppendError> {
        match self.closed() {
            None => try_one(&self.channel, payload.as_ref()),
            Some(error) => Err(error),
        }
    }

    /// Reads the events of `start..end` that are there: from the head, below the published mark.
    pub fn read_range(&self, start: u64, end: u64) -> ReadRange {
        ReadRange::new(&self.channel, start..end)
    }

    /// Reads one event; `None` if it is not there (yet, or any more).
    pub fn read_one(&self, seq: u64) -> ReadOne {
        ReadOne::new(&self.channel, seq)
    }

    /// Reads the events of `start..end` that lie in the cold store, from there and from nowhere else: for audits.
    pub fn read_cold(&self, start: u64, end: u64) -> ReadCold {
        ReadCold::new(&self.channel, start..end)
    }

    /// Makes a pass over the channel's cold segments now, and resolves when it has ended: uploads what the policy sends away and
    /// a checkpoint covers, unlinks what is verified there, deletes what was trimmed. Passes also come by themselves, after
    /// checkpoints.
    ///
    /// # Errors
    ///
    /// [`ColdError`](crate::ColdError): nothing is lost, and it is tried again with the next pass.
    pub fn sweep_cold(&self) -> ColdWork<ColdPass> {
        of_channel(&self.channel, "bring old segments to the cold store", pass)
    }

    /// Makes the manifest of the channel's cold segments anew from what the cold store holds; resolves to their number. It comes
    /// by itself when the manifest is missing or damaged.
    ///
    /// # Errors
    ///
    /// [`ColdError`](crate::ColdError): the manifest is as it was.
    pub fn rebuild_cold_manifest(&self) -> ColdWork<u64> {
        of_channel(&self.channel, "make the manifest of cold segments anew", rebuild)
    }

    /// Streams the events of a range, with bounded memory.
    pub fn scan(&self, range: Range<u64>) -> Scan {
        Scan::new(&self.channel, range)
    }

    /// Streams from `seq` to the present end, with bounded memory.
    pub fn read_from(&self, seq: u64) -> Scan {
        Scan::new(&self.channel, seq..self.next_seq().max(seq))
    }

    /// Sequence of the first event at or after a time ([`EventTime`], or the standard library's `SystemTime`); that of the next
    /// event if all are earlier.
    ///
    /// At most two blocks of a sealed segment are read, beside its footer when it is looked for the first time.
    pub fn seek_time(&self, time: impl Into<EventTime>) -> SeekTime {
        SeekTime::new(&self.channel, time.into())
    }

    /// Reads the events from one time up to another, which is not included.
    pub fn read_time_range<T: Into<EventTime>>(&self, range: Range<T>) -> ReadTimeRange {
        ReadTimeRange::new(&self.channel, range.start.into()..range.end.into())
    }

    /// Checks everything that is there: on disk from the disk, every checksum, the order of times, what sealed segments say of
    /// themselves; in memory the events there. Goes on behind damage, and reports all of it. Appends go on meanwhile; what comes
    /// after the call is not checked.
    ///
    /// ```
    /// # fn main() -> Result<(), redex::RedexError> {
    /// # let file = redex::Redex::in_memory().open_file("orders", redex::RedexFileConfig::default())?;
    /// # file.append(b"an order").wait()?;
    /// let report = file.verify().wait();
    /// for finding in &report.findings {
    ///     eprintln!("{finding}");
    /// }
    /// assert!(report.is_clean());
    /// # assert_eq!(report.events, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(&self) -> Verify {
        Verify::new(&self.channel)
    }

    /// Subscribes to what comes from now on.
    pub fn subscribe_tail(&self) -> Subscribe {
        Subscribe::from(&self.channel, self.generation, From::Seq(self.next_seq()))
    }

    /// Subscribes from a sequence (inclusive: so at least once), or from a [`Cursor`].
    pub fn subscribe_from(&self, from: impl Into<From>) -> Subscribe {
        Subscribe::from(&self.channel, self.generation, from.into())
    }

    /// Subscribes as [`RedexFile::subscribe_from`] does, to a stream of `Result` that never fails to begin: what cannot be
    /// delivered comes as an item, and the stream goes on where it can.
    ///
    /// If a crash took back events that a [`Cursor`] has seen, the first item is [`TailEnd::Lost`](crate::TailEnd::Lost) with
    /// their range, and the next one the first event behind what survived. A cursor of another store is
    /// [`TailEnd::Refused`](crate::TailEnd::Refused), and nothing follows.
    ///
    /// ```
    /// # fn main() -> Result<(), redex::RedexError> {
    /// # let file = redex::Redex::in_memory().open_file("orders", redex::RedexFileConfig::default())?;
    /// use redex::TailEnd;
    /// # file.append(b"an order").wait()?;
    /// # let last_cursor = redex::Cursor { seq: 0, ..file.cursor() };
    /// let mut tail = file.tail(last_cursor);
    /// # file.close().wait()?;
    /// while let Some(item) = tail.next_wait() {
    ///     match item {
    ///         Ok(event) => println!("{}: {} bytes", event.seq, event.payload.len()),
    ///         Err(TailEnd::Lost { from, to, .. }) => println!("forget events {from}..{to}"),
    ///         Err(other) => eprintln!("{other}"),
    ///     }
    /// }
    /// # assert_eq!(tail.cursor(), file.cursor());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a subscription does nothing unless it is read"]
    pub fn tail(&self, from: impl Into<From>) -> TailResults {
        TailResults::from(&self.channel, self.generation, from.into())
    }

    /// Makes everything durable that was appended before the call, under any policy.
    pub fn sync(&self) -> Durable<'_> {
        Durable::of_all(&self.channel)
    }

    /// Makes everything durable that was appended before the call, and ends this handle and its clones: appends are refused, tails end
    /// when they have delivered everything. The channel can be opened again.
    pub fn close(&self) -> Durable<'_> {
        self.channel.close(self.generation);
        self.sync()
    }

    /// Resolves when the event `seq` itself is durable, or was before it was cut off. Asks for the flush.
    pub fn wait_durable(&self, seq: u64) -> Durable<'_> {
        Durable::new(&self.channel, Goal::to(&self.channel, Seq(seq.saturating_add(1))))
    }

    /// Resolves when the event `seq` itself is published.
    pub fn wait_published(&self, seq: u64) -> PublishedWait<'_> {
        PublishedWait {
            channel: &self.channel,
            generation: self.generation,
            below: Seq(seq.saturating_add(1)),
            registration: Registration::default(),
        }
    }

    /// Sequence that the next event will get, if nobody else appends: one more than that of the last published event.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.published()
    }

    /// Sequence of the first event that is there.
    #[must_use]
    pub fn head_seq(&self) -> u64 {
        self.channel.head().0
    }

    /// How many events are there.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.published().saturating_sub(self.head_seq())
    }

    /// Whether no event is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events below this can be read. One load.
    #[inline]
    #[must_use]
    pub fn published(&self) -> u64 {
        self.channel.tail.published().0
    }

    /// Events below this survive a power cut. One load. In memory: those that are published.
    #[inline]
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.channel.durable().0
    }

    /// The present end as a [`Cursor`].
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.channel.epoch().0, seq: self.next_seq() }
    }
}

/// The future of [`RedexFile::sync`], [`RedexFile::close`] and [`RedexFile::wait_durable`].
#[derive(Debug)]
#[must_use = "only the future tells whether the events are durable"]
pub struct Durable<'f> {
    channel: &'f Channel,
    goal: Goal,
    /// Whether everything appended before is meant: then a failed shard is an error even if nothing is left to flush, since
    /// it has refused what waited for room.
    all: bool,
    /// Where the goal will lie, as long as appends wait for room that are to be covered.
    mark: Option<Arc<Ticket>>,
    registration: Registration,
}

impl<'f> Durable<'f> {
    fn new(channel: &'f Channel, goal: Goal) -> Self {
        channel.want_durable(goal.below);
        Self { channel, goal, all: false, mark: None, registration: Registration::default() }
    }

    fn of_all(channel: &'f Channel) -> Self {
        let mark = if channel.backlog.is_empty() { None } else { line_up(channel, Waiting::Mark, true).ok() };
        Self { all: true, mark, ..Self::new(channel, Goal::all(channel)) }
    }

    /// Waits until what is to be covered is published.
    fn poll_mark(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mark) = &self.mark else { return Poll::Ready(()) };
        mark.wake_when_decided(cx.waker());
        relieve(self.channel);
        match mark.outcome() {
            None => {
                if self.channel.persistence().is_none() {
                    // Nobody else publishes what waits there.
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            Some(outcome) => {
                if let Ok(published) = outcome {
                    self.goal = Goal { below: published.first, resets: Some(published.resets) };
                    self.channel.want_durable(published.first);
                }
            }
        }
        self.mark = None;
        Poll::Ready(())
    }

    /// Waits on this thread, without a runtime.
    pub fn wait(mut self) -> Result<(), SyncError> {
        if self.mark.is_some() {
            block_on(FULL_RETRY, |cx| self.poll_mark(cx));
        }
        if self.channel.persistence().is_none() {
            return wait_in_memory(self.channel, self.goal);
        }
        let reached = wait_durable(self.channel, self.goal);
        self.result(reached)
    }

    fn result(&self, reached: Result<(), Gone>) -> Result<(), SyncError> {
        let poisoned = self.channel.persistence().and_then(|persistence| persistence.shard.poisoned());
        match (reached, poisoned) {
            (Ok(()), Some(poisoned)) if self.all => Err(SyncError::Poisoned(poisoned.clone())),
            (reached, _) => reached.map_err(|gone| why(self.channel, self.goal.below, gone)),
        }
    }
}

/// In memory an event is as durable as it gets when it is published.
fn wait_in_memory(channel: &Channel, goal: Goal) -> Result<(), SyncError> {
    let mut registration = Registration::default();
    block_on(std::time::Duration::MAX, |cx| poll_in_memory(channel, goal, &mut registration, cx))
}

fn poll_in_memory(
    channel: &Channel,
    goal: Goal,
    registration: &mut Registration,
    cx: &mut Context<'_>,
) -> Poll<Result<(), SyncError>> {
    let is_there = || channel.tail.published() >= goal.below || goal.was_before_a_cut(channel);
    if !is_there() {
        channel.tail.wait_published(registration, cx.waker());
        if !is_there() {
            return Poll::Pending;
        }
    }
    Poll::Ready(Ok(()))
}

fn why(channel: &Channel, below: Seq, _: Gone) -> SyncError {
    match channel.persistence().and_then(|persistence| persistence.shard.poisoned()) {
        Some(poisoned) => SyncError::Poisoned(poisoned.clone()),
        None => SyncError::Closed { channel: channel.name.clone(), seq: below.0.saturating_sub(1) },
    }
}

impl Future for Durable<'_> {
    type Output = Result<(), SyncError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.poll_mark(cx).is_pending() {
            return Poll::Pending;
        }
        if this.channel.persistence().is_none() {
            return poll_in_memory(this.channel, this.goal, &mut this.registration, cx);
        }
        poll_durable(this.channel, this.goal, &mut this.registration, cx).map(|reached| this.result(reached))
    }
}

/// The future of [`RedexFile::wait_published`].
#[derive(Debug)]
#[must_use = "nothing is waited for before the future is polled or waited for"]
pub struct PublishedWait<'f> {
    channel: &'f Channel,
    generation: u32,
    below: Seq,
    registration: Registration,
}

impl PublishedWait<'_> {
    /// Waits on this thread, without a runtime.
    pub fn wait(mut self) -> Result<(), SyncError> {
        block_on(std::time::Duration::MAX, |cx| self.poll_published(cx))
    }

    fn poll_published(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SyncError>> {
        let channel = self.channel;
        if channel.tail.published() >= self.below {
            return Poll::Ready(Ok(()));
        }
        channel.tail.wait_published(&mut self.registration, cx.waker());
        let over = channel.is_closed(self.generation)
            || channel.persistence().is_some_and(|p| p.shard.poisoned().is_some() || p.shard.is_closed());
        if channel.tail.published() >= self.below {
            Poll::Ready(Ok(()))
        } else if over {
            Poll::Ready(Err(why(channel, self.below, Gone)))
        } else {
            Poll::Pending
        }
    }
}

impl Future for PublishedWait<'_> {
    type Output = Result<(), SyncError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_published(cx)
    }
}
