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
use crate::follow::overlay::Overlay;
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
    /// Truncations of a followed channel ([`crate::follow`]) that were there when this was fetched, and that were told.
    fetched_at: u64,
    told: u64,
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
        let told = channel.overlay().map_or(0, Overlay::truncations);
        let fetched = VecDeque::new();
        Self { channel, next, page: None, fetched, failed: None, fetching: None, fetched_at: told, told }
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
        // A loss that was not told yet is still to be.
        let told = self.told;
        *self = Self { told, ..Self::new(self.channel.clone(), next) };
    }

    /// The next event if it is in memory; `end` is above [`EventReader::next_seq`] and published.
    fn look(&mut self) -> Look {
        self.forget_truncated();
        if let Some(event) = self.fetched.pop_front() {
            debug_assert_eq!(event.seq, self.next.0);
            self.next.0 += 1;
            return Look::Event(event);
        }
        if let Some(error) = self.failed.take() {
            return Look::Failed(error);
        }
        match self.next_in_page().or_else(|| self.next_in_overlay()) {
            Some(event) => {
                self.next.0 += 1;
                Look::Event(event)
            }
            None => Look::OnDisk,
        }
    }

    /// Forgets what was fetched of a followed channel before its end went back: other events may lie there now.
    #[inline]
    fn forget_truncated(&mut self) {
        let Some(overlay) = self.channel.overlay() else { return };
        let truncations = overlay.truncations();
        if truncations != self.fetched_at {
            self.fetched_at = truncations;
            self.fetched.clear();
            self.failed = None;
        }
    }

    /// The next event of a followed channel, if what the journal says of it lies in memory.
    fn next_in_overlay(&mut self) -> Option<RedexEvent> {
        let overlay = self.channel.overlay()?;
        overlay.read_memory(self.next, &mut self.fetched);
        self.fetched.pop_front()
    }

    /// What a followed channel has lost of the events that were delivered: its new end and the old one. The cursor then stands at
    /// the new end.
    pub fn take_loss(&mut self) -> Option<(Seq, Seq)> {
        let overlay = self.channel.overlay()?;
        let truncations = overlay.truncations();
        if truncations == self.told {
            return None;
        }
        let end = overlay.truncated_since(self.told);
        self.told = truncations;
        let (end, next) = (end.filter(|end| *end < self.next)?, self.next);
        self.seek(end);
        Some((end, next))
    }

    /// Whether the end of a followed channel went back since a loss was looked for.
    pub fn may_have_loss(&self) -> bool {
        self.channel.overlay().is_some_and(|overlay| overlay.truncations() != self.told)
    }

    /// Where a read ends now: the end of a followed channel may have gone back since it began.
    #[inline]
    fn limit(&self, end: Seq) -> Seq {
        if self.channel.overlay().is_some() { end.min(self.channel.tail.published()) } else { end }
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
        if let Some(overlay) = channel.overlay() {
            let result = read_followed(channel, overlay, from, to, &mut events);
            return (events, result);
        }
        // Index blocks may be on disk before the payloads of their last events, which are in pages.
        let to = to.min(channel.tail.first_in_memory().max(Seq(from.0 + 1)));
        let persistence = channel.persistence.as_ref().expect("events of a channel in memory are in its pages");
        let result = persistence.on_disk.read(from, to, &mut events);
        (events, result)
    }

    fn take_fetched(&mut self, (events, result): Fetched) {
        if self.channel.overlay().is_some_and(|overlay| overlay.truncations() != self.fetched_at) {
            // It may be of before. What is there now is fetched again.
            return;
        }
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
        while self.next < self.limit(end) {
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
        while self.next < self.limit(end) {
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

/// Reads events of a channel that another process writes.
fn read_followed(
    channel: &Channel,
    overlay: &Overlay,
    from: Seq,
    to: Seq,
    events: &mut VecDeque<RedexEvent>,
) -> Result<Seq, ReadError> {
    let persistence = channel.persistence.as_ref().expect("a followed channel has a store");
    overlay.read(from, to, events, |to, events| persistence.on_disk.read(from, to, events))
}

/// Where to go on after a read error, if something follows the damage that may be whole.
pub fn after_damage(error: &ReadError, at: Seq) -> Option<Seq> {
    match error {
        ReadError::Index { to, .. } => Some(Seq(*to)),
        ReadError::Payload { seq, .. } | ReadError::Record { seq, .. } => Some(Seq(seq + 1)),
        ReadError::Missing { to, .. } => Some(Seq((*to).max(at.0 + 1))),
        ReadError::Io { .. } | ReadError::BadRange { .. } => None,
    }
}
