//! The one read path: page, stub, segment.
//!
//! [`EventReader`] is a cursor on it. A range, a scan and a subscription are that cursor with different ends, so that
//! backfill and live cannot leave a gap.

pub mod offload;
pub mod range;
pub mod subscribe;
pub mod time;
pub mod verify;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use self::offload::Offloaded;
use crate::channel::Channel;
use crate::error::ReadError;
use crate::event::RedexEvent;
use crate::ids::Seq;
use crate::segment::chunk::{EventChunk, event_in_page};
use crate::tail::page::Page;

type Fetched = Result<EventChunk, ReadError>;

/// A cursor on a channel's events.
#[derive(Debug)]
pub struct EventReader {
    channel: Arc<Channel>,
    next: Seq,
    page: Option<Arc<Page>>,
    /// What was read from disk, and how much of it was shown.
    chunk: Option<(EventChunk, usize)>,
    failed: Option<ReadError>,
    fetching: Option<Offloaded<Fetched>>,
}

/// What one look at memory found.
enum Look<T> {
    Found(T),
    Failed(ReadError),
    OnDisk,
}

impl EventReader {
    /// A cursor that stands before `next`.
    pub fn new(channel: Arc<Channel>, next: Seq) -> Self {
        Self { channel, next, page: None, chunk: None, failed: None, fetching: None }
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Sequence of the next event.
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Goes on elsewhere.
    pub fn seek(&mut self, next: Seq) {
        *self = Self::new(self.channel.clone(), next);
    }

    /// The next event if it is in memory; `end` is above [`EventReader::next_seq`] and published.
    #[inline]
    fn look(&mut self) -> Look<RedexEvent> {
        if let Some((chunk, shown)) = &mut self.chunk {
            if *shown < chunk.len() {
                let event = chunk.event(*shown);
                debug_assert_eq!(event.seq, self.next.0);
                *shown += 1;
                self.next.0 += 1;
                return Look::Found(event);
            }
            self.end_chunk();
        }
        if let Some(error) = self.failed.take() {
            return Look::Failed(error);
        }
        match self.next_in_page() {
            Some(event) => {
                self.next.0 += 1;
                Look::Found(event)
            }
            None => Look::OnDisk,
        }
    }

    /// All events of the chunk were shown; whether they were what was checked is known only now.
    fn end_chunk(&mut self) {
        let Some((chunk, _)) = self.chunk.take() else { return };
        self.failed = self.failed.take().or_else(|| self.changed(&chunk));
    }

    /// The error of a chunk whose file was changed by another program while it was looked at.
    pub fn changed(&self, chunk: &EventChunk) -> Option<ReadError> {
        let file = chunk.changed_file()?;
        Some(self.channel.persistence.as_ref()?.on_disk.changed(&file))
    }

    /// Has the page of the next event at hand, if that is in memory.
    #[inline]
    fn page(&mut self) -> Option<&Arc<Page>> {
        let in_page = |page: &Page| {
            let first = page.start().first_seq;
            // A page that is not closed is the last: everything published above its first slot lies in it.
            self.next >= first && page.end().is_none_or(|end| self.next.0 < first.0 + u64::from(end.slots))
        };
        if !self.page.as_deref().is_some_and(in_page) {
            self.page = self.channel.tail.page_of(self.next);
        }
        self.page.as_ref()
    }

    #[inline]
    fn next_in_page(&mut self) -> Option<RedexEvent> {
        let next = self.next;
        let page = self.page()?;
        Some(event_in_page(page, next.0, (next.0 - page.start().first_seq.0) as usize))
    }

    /// The events from the next one on that are at hand, below `end`, which is published.
    fn look_chunk(&mut self, end: Seq) -> Look<EventChunk> {
        if let Some((chunk, shown)) = self.chunk.take_if(|(chunk, shown)| *shown < chunk.len()) {
            let mut chunk = chunk;
            chunk.skip(shown);
            return Look::Found(self.pass(chunk, end));
        }
        self.end_chunk();
        if let Some(error) = self.failed.take() {
            return Look::Failed(error);
        }
        let next = self.next;
        let Some(page) = self.page() else { return Look::OnDisk };
        let in_page = page.end().map_or(u64::MAX, |end| page.start().first_seq.0 + u64::from(end.slots));
        let chunk = EventChunk::in_page(page.clone(), next, (end.0.min(in_page) - next.0) as usize);
        Look::Found(self.pass(chunk, end))
    }

    fn pass(&mut self, mut chunk: EventChunk, end: Seq) -> EventChunk {
        chunk.truncate((end.0 - self.next.0) as usize);
        self.next = Seq(chunk.end_seq());
        chunk
    }

    fn fetch(channel: &Channel, from: Seq, to: Seq) -> Fetched {
        // Index blocks may be on disk before the payloads of their last events, which are in pages.
        let to = to.min(channel.tail.first_in_memory().max(Seq(from.0 + 1)));
        let persistence = channel.persistence.as_ref().expect("events of a channel in memory are in its pages");
        persistence.on_disk.read(from, to)
    }

    fn take_fetched(&mut self, fetched: Fetched) {
        self.page = None;
        match fetched {
            Ok(chunk) => self.chunk = Some((chunk, 0)),
            Err(error) => self.failed = Some(error),
        }
    }

    /// The next event below `end`, from memory only: `None` if it would have to be read from disk.
    pub fn try_next(&mut self, end: Seq) -> Option<Result<RedexEvent, ReadError>> {
        if self.next >= end || self.fetching.is_some() {
            return None;
        }
        match self.look() {
            Look::Found(event) => Some(Ok(event)),
            Look::Failed(error) => Some(Err(error)),
            Look::OnDisk => None,
        }
    }

    /// The next event below `end`, read on this thread if need be; `None` at the end.
    #[inline]
    pub fn next_blocking(&mut self, end: Seq) -> Option<Result<RedexEvent, ReadError>> {
        self.blocking(end, Self::look)
    }

    /// The next events below `end`, read on this thread if need be; `None` at the end.
    pub fn next_chunk_blocking(&mut self, end: Seq) -> Option<Fetched> {
        self.blocking(end, |reader| reader.look_chunk(end))
    }

    #[inline]
    fn blocking<T>(&mut self, end: Seq, look: impl Fn(&mut Self) -> Look<T>) -> Option<Result<T, ReadError>> {
        self.fetching = None;
        while self.next < end {
            match look(self) {
                Look::Found(found) => return Some(Ok(found)),
                Look::Failed(error) => return Some(Err(error)),
                Look::OnDisk => {
                    let fetched = Self::fetch(&self.channel, self.next, end);
                    self.take_fetched(fetched);
                }
            }
        }
        self.at_end().map(Err)
    }

    /// What is left to say when all events were shown.
    fn at_end(&mut self) -> Option<ReadError> {
        if self.chunk.as_ref().is_some_and(|(chunk, shown)| *shown == chunk.len()) {
            self.end_chunk();
        }
        self.failed.take()
    }

    /// The next event below `end`, read beside the executor if need be; `None` at the end.
    pub fn poll_next(&mut self, end: Seq, cx: &mut Context<'_>) -> Poll<Option<Result<RedexEvent, ReadError>>> {
        self.poll(end, cx, Self::look)
    }

    /// The next events below `end`, read beside the executor if need be; `None` at the end.
    pub fn poll_next_chunk(&mut self, end: Seq, cx: &mut Context<'_>) -> Poll<Option<Fetched>> {
        self.poll(end, cx, |reader| reader.look_chunk(end))
    }

    fn poll<T>(
        &mut self,
        end: Seq,
        cx: &mut Context<'_>,
        look: impl Fn(&mut Self) -> Look<T>,
    ) -> Poll<Option<Result<T, ReadError>>> {
        while self.next < end {
            if let Some(fetching) = &mut self.fetching {
                match Pin::new(fetching).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(fetched) => {
                        self.fetching = None;
                        self.take_fetched(fetched);
                    }
                }
            }
            match look(self) {
                Look::Found(found) => return Poll::Ready(Some(Ok(found))),
                Look::Failed(error) => return Poll::Ready(Some(Err(error))),
                Look::OnDisk => {
                    let (channel, from) = (self.channel.clone(), self.next);
                    let persistence = channel.persistence.as_ref().expect("in memory, everything is in pages");
                    let offload = persistence.offload.clone();
                    self.fetching = Some(offload.run(move || Self::fetch(&channel, from, end)));
                }
            }
        }
        Poll::Ready(self.at_end().map(Err))
    }
}

/// Where to go on after a read error, if something follows the damage that may be whole.
pub fn after_damage(error: &ReadError, at: Seq) -> Option<Seq> {
    match error {
        ReadError::Index { to, .. } => Some(Seq(*to)),
        ReadError::Payload { seq, .. } | ReadError::Record { seq, .. } => Some(Seq(seq + 1)),
        ReadError::Missing { to, .. } => Some(Seq((*to).max(at.0 + 1))),
        ReadError::Io { .. } | ReadError::BadRange { .. } | ReadError::BadTimeRange { .. } => None,
    }
}
