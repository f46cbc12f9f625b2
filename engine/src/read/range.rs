//! Reads with an end: a range at once, one event, a scan.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::EventReader;
use crate::channel::Channel;
use crate::error::ReadError;
use crate::event::{EventRef, RedexEvent};
use crate::ids::Seq;
use crate::segment::chunk::EventChunk;

/// The part of a range that is there: from the head, below what is published.
fn clamp(channel: &Channel, range: Range<u64>) -> Result<Range<u64>, ReadError> {
    if range.start > range.end {
        return Err(ReadError::BadRange { channel: channel.name.clone(), start: range.start, end: range.end });
    }
    let head = channel.head().0;
    let end = range.end.min(channel.tail.published().0);
    let start = range.start.max(head).min(end);
    Ok(start..end)
}

/// The future of [`crate::RedexFile::read_range`].
#[derive(Debug)]
#[must_use = "nothing is read before the future is polled or waited for"]
pub struct ReadRange {
    reader: EventReader,
    end: Seq,
    events: Vec<RedexEvent>,
    refused: Option<ReadError>,
}

impl ReadRange {
    pub(crate) fn new(channel: &Arc<Channel>, range: Range<u64>) -> Self {
        let (range, refused) = match clamp(channel, range) {
            Ok(range) => (range, None),
            Err(error) => (0..0, Some(error)),
        };
        let reader = EventReader::new(channel.clone(), Seq(range.start));
        // What nothing drops needs no hold, which costs as much as the rest of a read from memory.
        let reader = if channel.config.is_limited() { reader.holding() } else { reader };
        Self { reader, end: Seq(range.end), events: Vec::new(), refused }
    }

    /// Reads on this thread, without a runtime.
    pub fn wait(mut self) -> Result<Vec<RedexEvent>, ReadError> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        while let Some(event) = self.reader.next_blocking(self.end) {
            self.take(event)?;
        }
        Ok(self.events)
    }

    /// What is dropped meanwhile is not there, as if it had been dropped at the call: a head may have been on its way then.
    fn take(&mut self, event: Result<RedexEvent, ReadError>) -> Result<(), ReadError> {
        match event {
            Ok(event) => self.events.push(event),
            Err(ReadError::Trimmed { to, .. }) => {
                self.events.clear();
                self.reader.seek(Seq(to));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Future for ReadRange {
    type Output = Result<Vec<RedexEvent>, ReadError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(error) = this.refused.take() {
            return Poll::Ready(Err(error));
        }
        loop {
            match this.reader.poll_next(this.end, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(event)) => {
                    if let Err(error) = this.take(event) {
                        return Poll::Ready(Err(error));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Ok(std::mem::take(&mut this.events))),
            }
        }
    }
}

/// The future of [`crate::RedexFile::read_one`].
#[derive(Debug)]
#[must_use = "nothing is read before the future is polled or waited for"]
pub struct ReadOne(ReadRange);

impl ReadOne {
    pub(crate) fn new(channel: &Arc<Channel>, seq: u64) -> Self {
        let head = channel.head().0;
        let end = if seq < head { seq } else { seq.saturating_add(1) };
        Self(ReadRange::new(channel, seq..end))
    }

    /// Reads on this thread, without a runtime.
    pub fn wait(self) -> Result<Option<RedexEvent>, ReadError> {
        self.0.wait().map(|mut events| events.pop())
    }
}

impl Future for ReadOne {
    type Output = Result<Option<RedexEvent>, ReadError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.get_mut().0).poll(cx).map_ok(|mut events| events.pop())
    }
}

/// Events of a range, one after the other: a stream, and on a plain thread an iterator by [`Scan::blocking`].
///
/// Memory is bounded: about two megabytes are at hand, or two events that are larger. It ends after an error.
#[derive(Debug)]
pub struct Scan {
    reader: EventReader,
    end: Seq,
    /// Whether something was shown.
    begun: bool,
    refused: Option<ReadError>,
}

impl Scan {
    pub(crate) fn new(channel: &Arc<Channel>, range: Range<u64>) -> Self {
        let (range, refused) = match clamp(channel, range) {
            Ok(range) => (range, None),
            Err(error) => (0..0, Some(error)),
        };
        let reader = EventReader::new(channel.clone(), Seq(range.start)).holding();
        Self { reader, end: Seq(range.end), begun: false, refused }
    }

    /// The next event, read on this thread; `None` at the end.
    pub fn next_wait(&mut self) -> Option<Result<RedexEvent, ReadError>> {
        if let Some(error) = self.refused.take() {
            return Some(Err(error));
        }
        loop {
            let next = self.reader.next_blocking(self.end);
            if !self.passes_over(&next) {
                return next;
            }
        }
    }

    /// An iterator that reads on this thread.
    pub fn blocking(mut self) -> impl Iterator<Item = Result<RedexEvent, ReadError>> {
        std::iter::from_fn(move || self.next_wait())
    }

    /// The next events, read on this thread; `None` at the end. As [`Scan::next_chunk`] gives them.
    pub fn next_chunk_wait(&mut self) -> Option<Result<EventChunk, ReadError>> {
        if let Some(error) = self.refused.take() {
            return Some(Err(error));
        }
        loop {
            let next = self.reader.next_chunk_blocking(self.end);
            if !self.passes_over(&next) {
                return next;
            }
        }
    }

    /// The next events, to be looked at where they lie: several at once, at least one, `None` at the end. What lies before
    /// damage comes first, then the error that names the place.
    ///
    /// The events were checked when the chunk was made. Whether another program has cut their file while they were looked at is
    /// asked by [`Scan::check`], which [`Scan::for_each_ref`] does by itself.
    pub fn next_chunk(&mut self) -> NextChunk<'_> {
        NextChunk(self)
    }

    /// Whether the file of a chunk that was looked at is still what it was when the chunk was checked.
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] names the file that another program has changed: what the chunk showed may be wrong, read it again.
    pub fn check(&self, chunk: &EventChunk) -> Result<(), ReadError> {
        self.reader.changed(chunk).map_or(Ok(()), Err)
    }

    /// Shows every event to `visit`, borrowed from where it lies: the fastest way through a log. Resolves to how many.
    ///
    /// ```
    /// # fn main() -> Result<(), redex::RedexError> {
    /// # let file = redex::Redex::in_memory().open_file("orders", redex::RedexFileConfig::default())?;
    /// # file.append(b"an order").wait()?;
    /// let mut bytes = 0;
    /// let events = file.read_from(0).for_each_ref(|event| bytes += event.payload.len()).wait()?;
    /// assert_eq!((events, bytes), (1, 8));
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_each_ref<F: FnMut(EventRef<'_>)>(self, visit: F) -> ForEachRef<F> {
        ForEachRef { scan: self, visit, count: 0 }
    }

    /// What is dropped before anything was shown is not there, as if it had been dropped at the call: a head may have been on its
    /// way then. Any other error is the last thing.
    fn passes_over<T>(&mut self, next: &Option<Result<T, ReadError>>) -> bool {
        match next {
            Some(Err(ReadError::Trimmed { to, .. })) if !self.begun => {
                self.reader.seek(Seq(*to));
                return true;
            }
            Some(Err(_)) => self.end = self.reader.next_seq(),
            _ => {}
        }
        self.begun = true;
        false
    }
}

impl Stream for Scan {
    type Item = Result<RedexEvent, ReadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(error) = this.refused.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let next = std::task::ready!(this.reader.poll_next(this.end, cx));
            if !this.passes_over(&next) {
                return Poll::Ready(next);
            }
        }
    }
}

/// The future of [`Scan::next_chunk`].
#[derive(Debug)]
#[must_use = "nothing is read before the future is polled or waited for"]
pub struct NextChunk<'s>(&'s mut Scan);

impl NextChunk<'_> {
    /// Reads on this thread, without a runtime.
    pub fn wait(self) -> Option<Result<EventChunk, ReadError>> {
        self.0.next_chunk_wait()
    }
}

impl Future for NextChunk<'_> {
    type Output = Option<Result<EventChunk, ReadError>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let scan = &mut *self.get_mut().0;
        if let Some(error) = scan.refused.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let next = std::task::ready!(scan.reader.poll_next_chunk(scan.end, cx));
            if !scan.passes_over(&next) {
                return Poll::Ready(next);
            }
        }
    }
}

/// The future of [`Scan::for_each_ref`].
#[must_use = "nothing is read before the future is polled or waited for"]
pub struct ForEachRef<F> {
    scan: Scan,
    visit: F,
    count: u64,
}

impl<F> std::fmt::Debug for ForEachRef<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForEachRef").field("scan", &self.scan).field("count", &self.count).finish_non_exhaustive()
    }
}

impl<F: FnMut(EventRef<'_>)> ForEachRef<F> {
    /// Reads on this thread, without a runtime.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong; the events in front of it were shown.
    pub fn wait(mut self) -> Result<u64, ReadError> {
        while let Some(chunk) = self.scan.next_chunk_wait() {
            self.show(&chunk?)?;
        }
        Ok(self.count)
    }

    #[inline]
    fn show(&mut self, chunk: &EventChunk) -> Result<(), ReadError> {
        chunk.iter().for_each(&mut self.visit);
        self.count += chunk.len() as u64;
        self.scan.check(chunk)
    }
}

impl<F: FnMut(EventRef<'_>) + Unpin> Future for ForEachRef<F> {
    type Output = Result<u64, ReadError>;

    /// Shows one chunk, and lets others go first before the next.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match std::task::ready!(Pin::new(&mut this.scan.next_chunk()).poll(cx)) {
            None => Poll::Ready(Ok(this.count)),
            Some(chunk) => {
                if let Err(error) = chunk.and_then(|chunk| this.show(&chunk)) {
                    return Poll::Ready(Err(error));
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
