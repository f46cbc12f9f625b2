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
use crate::event::RedexEvent;
use crate::ids::Seq;

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

    /// What was dropped before the first event is not there, as if it had been at the call.
    fn take(&mut self, event: Result<RedexEvent, ReadError>) -> Result<(), ReadError> {
        match event {
            Ok(event) => self.events.push(event),
            Err(ReadError::Trimmed { to, .. }) if self.events.is_empty() => self.reader.seek(Seq(to)),
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
/// Memory is bounded: about a megabyte is read ahead. It ends after an error.
#[derive(Debug)]
pub struct Scan {
    reader: EventReader,
    end: Seq,
    refused: Option<ReadError>,
}

impl Scan {
    pub(crate) fn new(channel: &Arc<Channel>, range: Range<u64>) -> Self {
        let (range, refused) = match clamp(channel, range) {
            Ok(range) => (range, None),
            Err(error) => (0..0, Some(error)),
        };
        Self { reader: EventReader::new(channel.clone(), Seq(range.start)).holding(), end: Seq(range.end), refused }
    }

    /// The next event, read on this thread; `None` at the end.
    pub fn next_wait(&mut self) -> Option<Result<RedexEvent, ReadError>> {
        if let Some(error) = self.refused.take() {
            return Some(Err(error));
        }
        let next = self.reader.next_blocking(self.end);
        self.end_after(&next);
        next
    }

    /// An iterator that reads on this thread.
    pub fn blocking(mut self) -> impl Iterator<Item = Result<RedexEvent, ReadError>> {
        std::iter::from_fn(move || self.next_wait())
    }

    fn end_after(&mut self, next: &Option<Result<RedexEvent, ReadError>>) {
        if let Some(Err(_)) = next {
            self.end = self.reader.next_seq();
        }
    }
}

impl Stream for Scan {
    type Item = Result<RedexEvent, ReadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(error) = this.refused.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let next = std::task::ready!(this.reader.poll_next(this.end, cx));
        this.end_after(&next);
        Poll::Ready(next)
    }
}
