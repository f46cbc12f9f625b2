//! The one read path: page, stub, segment.
//!
//! [`EventReader`] is a cursor on it. A range, a scan and a subscription are that cursor with different ends, so that
//! backfill and live cannot leave a gap.

pub mod cursor;
pub mod hold;
pub mod offload;
pub mod range;
pub mod subscribe;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use self::hold::Hold;
use self::offload::Offloaded;
use self::subscribe::{Cursor, check_cursor};
use crate::channel::Channel;
use crate::error::{ReadError, SubscribeError};
use crate::event::{EventTime, Payload, RedexEvent};
use crate::ids::{Epoch, Seq};
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
    /// How often the channel's suffix had been cut off when this was last looked at, and the epoch since then.
    resets: u32,
    epoch: Epoch,
    /// Keeps retention from dropping what is ahead.
    hold: Option<Hold>,
}

/// What one look at memory found.
enum Look {
    Event(RedexEvent),
    Failed(ReadError),
    OnDisk,
    /// It was cut off.
    Gone,
}

impl EventReader {
    /// A cursor that stands before `next`.
    pub fn new(channel: Arc<Channel>, next: Seq) -> Self {
        // The count first: a cut that comes between is noticed, at worst twice.
        let resets = channel.tail.resets();
        let epoch = channel.epoch();
        Self {
            channel,
            next,
            page: None,
            fetched: VecDeque::new(),
            failed: None,
            fetching: None,
            resets,
            epoch,
            hold: None,
        }
    }

    /// The same, and retention waits for it as long as the channel allows.
    #[must_use]
    pub fn holding(mut self) -> Self {
        self.hold = Some(self.channel.holds.begin(self.next));
        self
    }

    /// The epoch in which its position counts.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the channel's suffix was cut off since the last look.
    #[inline]
    pub fn is_cut_off(&self) -> bool {
        self.channel.tail.resets() != self.resets
    }

    /// Looks whether the channel's suffix was cut off, and takes this back with it: an error if it had events that are gone.
    #[inline]
    pub fn cut_off(&mut self) -> Option<ReadError> {
        if self.is_cut_off() { self.take_back() } else { None }
    }

    #[cold]
    fn take_back(&mut self) -> Option<ReadError> {
        let cursor = Cursor { epoch: self.epoch.0, seq: self.next.0 };
        let (next, hold) = (self.next, self.hold.take());
        *self = Self { hold, ..Self::new(self.channel.clone(), next) };
        match check_cursor(&self.channel, cursor) {
            Err(SubscribeError::LostEvents { channel, from, to }) => {
                self.advance_to(Seq(from));
                Some(ReadError::CutOff { channel, from, to })
            }
            _ => None,
        }
    }

    #[inline]
    fn advance_to(&mut self, next: Seq) {
        self.next = next;
        if let Some(hold) = &self.hold {
            hold.move_to(next);
        }
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
        let hold = self.hold.take();
        *self = Self { hold, ..Self::new(self.channel.clone(), next) };
        self.advance_to(next);
    }

    /// The next event if it is in memory; `end` is above [`EventReader::next_seq`] and published.
    fn look(&mut self) -> Look {
        if let Some(error) = self.cut_off() {
            return Look::Failed(error);
        }
        // Also where it is still in memory: what is there does not depend on that.
        if let Some(error) = trimmed(&self.channel, self.next) {
            self.fetched.clear();
            return Look::Failed(error);
        }
        if let Some(event) = self.fetched.pop_front() {
            debug_assert_eq!(event.seq, self.next.0);
            self.advance_to(Seq(self.next.0 + 1));
            return Look::Event(event);
        }
        if let Some(error) = self.failed.take() {
            return Look::Failed(error);
        }
        match self.next_in_page() {
            Some(event) => {
                self.advance_to(Seq(self.next.0 + 1));
                Look::Event(event)
            }
            None if self.is_cut_off() || self.next >= self.channel.tail.published() => Look::Gone,
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
            if self.is_cut_off() {
                // It may be a page from behind the cut. Pages that were found before stay as they are.
                self.page = None;
                return None;
            }
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
        let persistence = channel.persistence().expect("events of a channel in memory are in its pages");
        let result = persistence.on_disk.read(from, to, &mut events);
        // Files go when their events were dropped: then that is what is wrong.
        let result = result.map_err(|error| trimmed(channel, from).unwrap_or(error));
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
            Look::OnDisk | Look::Gone => None,
        }
    }

    /// The next event below `end`, read on this thread if need be; `None` at the end.
    pub fn next_blocking(&mut self, end: Seq) -> Option<Result<RedexEvent, ReadError>> {
        self.fetching = None;
        while self.next < end {
            match self.look() {
                Look::Event(event) => return Some(Ok(event)),
                Look::Failed(error) => return Some(Err(error)),
                Look::Gone => return None,
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
                Look::Gone => return Poll::Ready(None),
                Look::OnDisk => {
                    let (channel, from) = (self.channel.clone(), self.next);
                    let persistence = channel.persistence().expect("in memory, everything is in pages");
                    let offload = persistence.offload.clone();
                    self.fetching = Some(offload.run(move || Self::fetch(&channel, from, end)));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// Events from `next` on were dropped, up to the head.
#[inline]
fn trimmed(channel: &Channel, next: Seq) -> Option<ReadError> {
    let head = channel.head();
    if next < head { Some(were_trimmed(channel, next, head)) } else { None }
}

#[cold]
fn were_trimmed(channel: &Channel, from: Seq, to: Seq) -> ReadError {
    ReadError::Trimmed { channel: channel.name.clone(), from: from.0, to: to.0 }
}

/// Where to go on after a read error, if something follows the damage that may be whole.
pub fn after_damage(error: &ReadError, at: Seq) -> Option<Seq> {
    match error {
        ReadError::Index { to, .. } => Some(Seq(*to)),
        ReadError::Payload { seq, .. } | ReadError::Record { seq, .. } => Some(Seq(seq + 1)),
        ReadError::Missing { to, .. } => Some(Seq((*to).max(at.0 + 1))),
        ReadError::Trimmed { to, .. } => Some(Seq(*to)),
        ReadError::CutOff { from, .. } => Some(Seq(*from)),
        ReadError::Io { .. } | ReadError::BadRange { .. } => None,
    }
}
