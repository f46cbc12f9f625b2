//! The one read path: page, stub, segment.
//!
//! [`EventReader`] is a cursor on it. A range, a scan and a subscription are that cursor with different ends, so that
//! backfill and live cannot leave a gap.

pub mod offload;
pub mod range;
pub mod subscribe;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use self::offload::Offloaded;
use crate::channel::Channel;
use crate::error::ReadError;
use crate::event::{EventTime, Payload, RedexEvent};
use crate::ids::Seq;
use crate::segment::record::RecordPlace;
use crate::tail::page::Page;

type Fetched = (VecDeque<RedexEvent>, Result<Seq, ReadError>);

/// A cursor on a channel's events.
#[derive(Debug)]
pub struct EventReader {
    channel: Arc<Channel>,
    next: Seq,
    page: Option<Arc<Page>>,
    fetched: VecDeque<RedexEvent>,
    failed: Option<ReadError>,
    fetching: Option<Offloaded<Fetched>>,
}

/// What one look at memory found.
enum Look {
    Event(RedexEvent),
    Failed(ReadError),
    OnDisk,
}

impl EventReader {
    /// A cursor that stands before `next`.
    pub fn new(channel: Arc<Channel>, next: Seq) -> Self {
        Self { channel, next, page: None, fetched: VecDeque::new(), failed: None, fetching: None }
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
    fn look(&mut self) -> Look {
        if let Some(event) = self.fetched.pop_front() {
            debug_assert_eq!(event.seq, self.next.0);
            self.next.0 += 1;
            return Look::Event(event);
        }
        if let Some(error) = self.failed.take() {
            return Look::Failed(error);
        }
        match self.next_in_page() {
            Some(event) => {
                self.next.0 += 1;
                Look::Event(event)
            }
            None => Look::OnDisk,
        }
    }

    #[inline]
    fn next_in_page(&mut self) -> Option<RedexEvent> {
        let in_page = |page: &Page| {
            let first = page.start().first_seq;
            // A page that is not closed is the last: everything published above its first slot lies in it.
            self.next >= first && page.end().is_none_or(|end| self.next.0 < first.0 + u64::from(end.slots))
        };
        if !self.page.as_deref().is_some_and(in_page) {
            self.page = self.channel.tail.page_of(self.next);
        }
        let page = self.page.as_ref()?;
        let slot = (self.next.0 - page.start().first_seq.0) as usize;
        let record = page.record(slot);
        let payload = match record.place() {
            RecordPlace::Inline { bytes, len } => Payload::inline(&bytes[..len]),
            RecordPlace::Dat { .. } => {
                let range = page.payload_range(&record).expect("a page has the payloads of its records");
                if page.readers_should_copy() {
                    Payload::shared(bytes::Bytes::copy_from_slice(page.published_bytes(range)))
                } else {
                    Payload::in_page(page.clone(), range)
                }
            }
        };
        Some(RedexEvent { seq: self.next.0, payload, time: EventTime(record.time_us()) })
    }

    fn fetch(channel: &Channel, from: Seq, to: Seq) -> Fetched {
        let mut events = VecDeque::new();
        // Index blocks may be on disk before the payloads of their last events, which are in pages.
        let to = to.min(channel.tail.first_in_memory().max(Seq(from.0 + 1)));
        let persistence = channel.persistence.as_ref().expect("events of a channel in memory are in its pages");
        let result = persistence.on_disk.read(from, to, &mut events);
        (events, result)
    }

    fn take_fetched(&mut self, (events, result): Fetched) {
        self.page = None;
        self.fetched = events;
        self.failed = result.err();
    }

    /// The next event below `end`, from memory only: `None` if it would have to be read from disk.
    pub fn try_next(&mut self, end: Seq) -> Option<Result<RedexEvent, ReadError>> {
        if self.next >= end || self.fetching.is_some() {
            return None;
        }
        match self.look() {
            Look::Event(event) => Some(Ok(event)),
            Look::Failed(error) => Some(Err(error)),
            Look::OnDisk => None,
        }
    }

    /// The next event below `end`, read on this thread if need be; `None` at the end.
    pub fn next_blocking(&mut self, end: Seq) -> Option<Result<RedexEvent, ReadError>> {
        self.fetching = None;
        while self.next < end {
            match self.look() {
                Look::Event(event) => return Some(Ok(event)),
                Look::Failed(error) => return Some(Err(error)),
                Look::OnDisk => {
                    let fetched = Self::fetch(&self.channel, self.next, end);
                    self.take_fetched(fetched);
                }
            }
        }
        None
    }

    /// The next event below `end`, read beside the executor if need be; `None` at the end.
    pub fn poll_next(&mut self, end: Seq, cx: &mut Context<'_>) -> Poll<Option<Result<RedexEvent, ReadError>>> {
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
            match self.look() {
                Look::Event(event) => return Poll::Ready(Some(Ok(event))),
                Look::Failed(error) => return Poll::Ready(Some(Err(error))),
                Look::OnDisk => {
                    let (channel, from) = (self.channel.clone(), self.next);
                    let persistence = channel.persistence.as_ref().expect("in memory, everything is in pages");
                    let offload = persistence.offload.clone();
                    self.fetching = Some(offload.run(move || Self::fetch(&channel, from, end)));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// Where to go on after a read error, if something follows the damage that may be whole.
pub fn after_damage(error: &ReadError, at: Seq) -> Option<Seq> {
    match error {
        ReadError::Index { to, .. } => Some(Seq(*to)),
        ReadError::Payload { seq, .. } | ReadError::Record { seq, .. } => Some(Seq(seq + 1)),
        ReadError::Missing { to, .. } => Some(Seq((*to).max(at.0 + 1))),
        ReadError::Io { .. } | ReadError::Cold { .. } | ReadError::BadRange { .. } => None,
    }
}
