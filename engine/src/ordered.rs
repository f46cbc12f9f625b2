//! Several threads, one order: [`OrderedAppender`].
//!
//! A [`Turn`] is a place in the channel, taken now and filled later: the threads that hold turns make their payloads side by
//! side, and the events have the order in which the turns were taken.
//!
//! ```text
//!  turn() --> place 7: taken --- append --> ready: payload ---.
//!                        '------ dropped -> given up ---------+--> the first places leave in order: RedexFile::append
//! ```
//!
//! A payload that comes before its turn is kept (so a future that is dropped cancels nothing), and whoever fills or gives up
//! the first place appends it, with all that are ready behind it. As long as places are open, plain appends line up behind them.
//!
//! Promises: the order; every future resolves once the turns before it are used or dropped; no lock is held while the channel
//! is called or anything is waited for.
//! What it leaves to others: durability and backpressure, which are the channel's.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::append::backlog::BACKLOG_BYTES_MAX;
use crate::append::wait::block_on;
use crate::append::{Append, AppendBatch, FULL_RETRY};
use crate::error::AppendError;
use crate::file::RedexFile;
use crate::sync::scheduled::atomic::{AtomicUsize, Ordering};
use crate::sync::scheduled::{Mutex, MutexGuard};

/// Payload bytes of plain appends that may wait for turns before them, as many as may wait in a channel.
const READY_BYTES_MAX: usize = BACKLOG_BYTES_MAX;
/// What an append counts beside its payload.
const READY_BYTES_EACH: usize = 64;

/// Appends of several threads in one order: that of the calls, or of the turns. A cheap clone; all clones share the order.
///
/// A [`RedexFile`] alone keeps the order of the calls; this adds places that are taken before the payload is known. Events
/// that others append to the channel directly come in between.
///
/// ```
/// # fn main() -> Result<(), redex::RedexError> {
/// use redex::{OrderedAppender, Redex, RedexFileConfig};
/// let file = Redex::in_memory().open_file("frames", RedexFileConfig::default())?;
/// let appender = OrderedAppender::new(file);
///
/// let (first, second) = (appender.turn(), appender.turn());
/// let encoder = std::thread::spawn(move || second.append("encoded early").wait());
/// let third = appender.append("a plain call comes behind the turns that were taken before");
/// first.append("encoded late").wait()?;
///
/// assert_eq!(encoder.join().unwrap()?, 1);
/// assert_eq!(third.wait()?, 2);
/// assert_eq!(appender.file().read_one(0).wait()?.unwrap().payload, b"encoded late");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OrderedAppender {
    shared: Arc<Shared>,
}

impl OrderedAppender {
    /// An order of its own over a channel. Use clones of one appender: two that are made anew know nothing of each other.
    #[must_use]
    pub fn new(file: RedexFile) -> Self {
        Self { shared: Arc::new(Shared { file, open: AtomicUsize::new(0), line: Mutex::default() }) }
    }

    /// The channel.
    #[must_use]
    pub fn file(&self) -> &RedexFile {
        &self.shared.file
    }

    /// Takes the next place in the order. Never waits.
    ///
    /// Everything behind waits until the turn is used or dropped: hold it no longer than it takes to make the payload. How
    /// many turns are out at once bounds the payloads that wait for those before them.
    pub fn turn(&self) -> Turn {
        let number = self.shared.line().take_place(&self.shared.open);
        Turn { place: Some(Place { shared: self.shared.clone(), number }) }
    }

    /// How many places are taken that are not yet appended or given up: turns, and what waits behind them.
    #[must_use]
    pub fn open_places(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Appends one event, in the order of the calls and turns; else as [`RedexFile::append`].
    ///
    /// # Errors
    ///
    /// [`AppendError`]. `Full` also if more than 64 MiB of appends wait for turns before them: nothing was appended, and no place
    /// is kept.
    pub fn append(&self, payload: impl AsRef<[u8]>) -> OrderedAppend<'_> {
        let payload = payload.as_ref();
        match self.line_up(payload.len()) {
            Lined::Free => OrderedAppend(State::Direct(self.shared.file.append(payload))),
            Lined::Behind(turn) => turn.append(payload),
            Lined::TooMuch(error) => OrderedAppend(State::Refused(Some(error))),
        }
    }

    /// Appends one event as [`OrderedAppender::append`] does, and resolves when it is durable.
    pub fn append_durable(&self, payload: impl AsRef<[u8]>) -> OrderedAppend<'_> {
        let payload = payload.as_ref();
        match self.line_up(payload.len()) {
            Lined::Free => OrderedAppend(State::Direct(self.shared.file.append_durable(payload))),
            Lined::Behind(turn) => turn.append_durable(payload),
            Lined::TooMuch(error) => OrderedAppend(State::Refused(Some(error))),
        }
    }

    /// Appends several events with consecutive sequences, visible together, in the order of the calls and turns; else as
    /// [`RedexFile::append_batch`].
    pub fn append_batch<P: AsRef<[u8]>>(&self, payloads: &[P]) -> OrderedAppendBatch<'_> {
        match self.line_up(payloads.iter().map(|payload| payload.as_ref().len()).sum()) {
            Lined::Free => OrderedAppendBatch(State::Direct(self.shared.file.append_batch(payloads))),
            Lined::Behind(turn) => turn.append_batch(payloads),
            Lined::TooMuch(error) => OrderedAppendBatch(State::Refused(Some(error))),
        }
    }

    /// Where a plain append goes. With no place open it needs none: every place that is taken before this call is open now, and
    /// with one that is taken beside it either order is that of the calls.
    fn line_up(&self, size: usize) -> Lined {
        if self.open_places() == 0 {
            return Lined::Free;
        }
        let mut line = self.shared.line();
        if line.ready_bytes > 0 && line.ready_bytes + size > READY_BYTES_MAX {
            return Lined::TooMuch(AppendError::Full { channel: self.shared.file.name().clone() });
        }
        let number = line.take_place(&self.shared.open);
        Lined::Behind(Turn { place: Some(Place { shared: self.shared.clone(), number }) })
    }
}

enum Lined {
    Free,
    Behind(Turn),
    TooMuch(AppendError),
}

/// A place in the order of an [`OrderedAppender`], to be used by any thread. Dropping it gives the place up, and nobody waits
/// for it any more.
///
/// ```
/// # fn main() -> Result<(), redex::RedexError> {
/// # use redex::{OrderedAppender, Redex, RedexFileConfig};
/// # let appender = OrderedAppender::new(Redex::in_memory().open_file("frames", RedexFileConfig::default())?);
/// let (first, second) = (appender.turn(), appender.turn());
/// let second = second.append("waits for the first");
/// drop(first);
/// assert_eq!(second.wait()?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping a turn gives its place up"]
pub struct Turn {
    place: Option<Place>,
}

impl Turn {
    /// Appends one event at this place. A copy waits for its turn, whatever becomes of the future.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; the place is given up then.
    pub fn append(self, payload: impl AsRef<[u8]>) -> OrderedAppend<'static> {
        let payload = payload.as_ref().to_vec();
        OrderedAppend(State::Waiting(
            self.fill(payload.len(), |file| Box::pin(async move { file.append(payload).await })),
        ))
    }

    /// Appends one event at this place, and resolves when it is durable, under any policy.
    pub fn append_durable(self, payload: impl AsRef<[u8]>) -> OrderedAppend<'static> {
        let payload = payload.as_ref().to_vec();
        OrderedAppend(State::Waiting(
            self.fill(payload.len(), |file| Box::pin(async move { file.append_durable(payload).await })),
        ))
    }

    /// Appends several events at this place, with consecutive sequences, visible together.
    pub fn append_batch<P: AsRef<[u8]>>(self, payloads: &[P]) -> OrderedAppendBatch<'static> {
        let payloads: Vec<Vec<u8>> = payloads.iter().map(|payload| payload.as_ref().to_vec()).collect();
        let size = payloads.iter().map(Vec::len).sum();
        OrderedAppendBatch(State::Waiting(
            self.fill(size, |file| Box::pin(async move { file.append_batch(&payloads).await })),
        ))
    }

    fn fill<R: Send + 'static>(
        mut self,
        size: usize,
        call: impl FnOnce(RedexFile) -> Called<R> + Send + 'static,
    ) -> Arc<Outcome<R>> {
        let place = self.place.take().expect("a turn is used once");
        let outcome = Arc::new(Outcome::default());
        let for_caller = outcome.clone();
        let append = Box::new(move |file: &RedexFile| outcome.begin(call(file.clone())));
        place.fill(Content::Ready { append, size: size + READY_BYTES_EACH });
        for_caller
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.fill(Content::GivenUp);
        }
    }
}

/// A place that is taken.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Place {
    fn fill(self, content: Content) {
        self.shared.line().fill(self.number, content);
        self.shared.append_ready();
    }
}

/// What a place holds.
enum Content {
    /// A turn that is out.
    Taken,
    GivenUp,
    /// Makes the append; counts as so many bytes.
    Ready {
        append: Box<dyn FnOnce(&RedexFile) + Send>,
        size: usize,
    },
}

#[derive(Debug)]
struct Shared {
    file: RedexFile,
    /// How many places are in the line, the one that is being appended included. What every plain append looks at.
    open: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    /// Number of the first place.
    first: u64,
    places: VecDeque<Content>,
    ready_bytes: usize,
    /// Somebody appends what is ready; he takes along what becomes ready meanwhile.
    appending: bool,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("first", &self.first).field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl Line {
    fn take_place(&mut self, open: &AtomicUsize) -> u64 {
        self.places.push_back(Content::Taken);
        open.fetch_add(1, Ordering::Release);
        self.first + (self.places.len() - 1) as u64
    }

    fn fill(&mut self, number: u64, content: Content) {
        if let Content::Ready { size, .. } = &content {
            self.ready_bytes += size;
        }
        // A place that is taken is never passed.
        self.places[(number - self.first) as usize] = content;
    }

    /// Takes the first place out, unless its turn is still out.
    fn leave(&mut self) -> Option<Content> {
        if matches!(self.places.front(), None | Some(Content::Taken)) {
            return None;
        }
        self.first += 1;
        self.places.pop_front()
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().expect("no panic while the lock is held")
    }

    /// Appends from the first place on, as far as the places are ready. One thread at a time; the lock is free while it calls
    /// the channel.
    fn append_ready(&self) {
        let mut line = self.line();
        if std::mem::replace(&mut line.appending, true) {
            return;
        }
        while let Some(content) = line.leave() {
            if let Content::Ready { append, size } = content {
                drop(line);
                // A waker that panics keeps nobody else from his turn.
                let _ = catch_unwind(AssertUnwindSafe(|| append(&self.file)));
                line = self.line();
                line.ready_bytes -= size;
            }
            // Only now: a plain append that finds no place open goes to the channel at once.
            self.open.fetch_sub(1, Ordering::Release);
        }
        line.appending = false;
    }
}

/// A call of the channel, on its way to its result.
type Called<R> = Pin<Box<dyn Future<Output = Result<R, AppendError>> + Send>>;

/// Where whoever fills a place and whoever appends from it meet.
struct Outcome<R>(Mutex<OutcomeState<R>>);

enum OutcomeState<R> {
    /// The turn has not come. Woken when it does.
    Waiting(Option<Waker>),
    Called(Option<Called<R>>),
}

impl<R> Default for Outcome<R> {
    fn default() -> Self {
        Self(Mutex::new(OutcomeState::Waiting(None)))
    }
}

impl<R: Send + 'static> Outcome<R> {
    /// The turn has come: makes the call, which is made by the first poll, and leaves what remains to the caller.
    fn begin(&self, called: Called<R>) {
        let called = begun(called);
        let before = {
            let mut state = self.0.lock().expect("no panic while the lock is held");
            std::mem::replace(&mut *state, OutcomeState::Called(Some(called)))
        };
        if let OutcomeState::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }

    /// The call, once it is made.
    fn poll_called(&self, cx: &mut Context<'_>) -> Poll<Called<R>> {
        match &mut *self.0.lock().expect("no panic while the lock is held") {
            OutcomeState::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            OutcomeState::Called(called) => Poll::Ready(called.take().expect("the call is taken once")),
        }
    }
}

/// Polls once, which makes the call; nobody has to be woken for it.
fn begun<R: Send + 'static>(mut called: Called<R>) -> Called<R> {
    match called.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Box::pin(std::future::ready(result)),
        Poll::Pending => called,
    }
}

/// What a caller waits for: `A` is the channel's own future.
enum State<A, R> {
    Direct(A),
    Waiting(Arc<Outcome<R>>),
    Called(Called<R>),
    Refused(Option<AppendError>),
}

impl<A, R: Send + 'static> State<A, R>
where
    A: Future<Output = Result<R, AppendError>> + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, AppendError>> {
        loop {
            *self = match self {
                Self::Direct(append) => return Pin::new(append).poll(cx),
                Self::Called(called) => return called.as_mut().poll(cx),
                Self::Waiting(outcome) => Self::Called(std::task::ready!(outcome.poll_called(cx))),
                Self::Refused(error) => {
                    return Poll::Ready(Err(error.take().expect("a future is not polled after it has resolved")));
                }
            };
        }
    }
}

impl<A, R> fmt::Debug for State<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct(_) => "Direct",
            Self::Waiting(_) => "Waiting",
            Self::Called(_) => "Called",
            Self::Refused(_) => "Refused",
        })
    }
}

/// The future of one append. Resolves to the event's sequence, when its turn has come and the channel's policy is met.
#[derive(Debug)]
#[must_use = "the append has its place, but whether it was refused and when its policy is met only the future tells"]
pub struct OrderedAppend<'f>(State<Append<'f>, u64>);

impl OrderedAppend<'_> {
    /// Waits on this thread, without a runtime. Must not be called from within an asynchronous task, nor by a thread that
    /// holds an earlier turn.
    pub fn wait(self) -> Result<u64, AppendError> {
        match self.0 {
            State::Direct(append) => append.wait(),
            mut state => block_on(FULL_RETRY, |cx| state.poll(cx)),
        }
    }
}

impl Future for OrderedAppend<'_> {
    type Output = Result<u64, AppendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.poll(cx)
    }
}

/// The future of a batch. Resolves to the events' sequences, when its turn has come and the channel's policy is met.
#[derive(Debug)]
#[must_use = "the batch has its place, but whether it was refused and when its policy is met only the future tells"]
pub struct OrderedAppendBatch<'f>(State<AppendBatch<'f>, Range<u64>>);

impl OrderedAppendBatch<'_> {
    /// Waits on this thread, without a runtime. Must not be called from within an asynchronous task, nor by a thread that
    /// holds an earlier turn.
    pub fn wait(self) -> Result<Range<u64>, AppendError> {
        match self.0 {
            State::Direct(append) => append.wait(),
            mut state => block_on(FULL_RETRY, |cx| state.poll(cx)),
        }
    }
}

impl Future for OrderedAppendBatch<'_> {
    type Output = Result<Range<u64>, AppendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.poll(cx)
    }
}
