//! The one read path: page, stub, segment.
//!
//! [`EventReader`] is a cursor on it. A range, a scan and a subscription are that cursor with different ends, so that
//! backfill and live cannot leave a gap.

pub mod cursor;
pub mod hold;
pub mod offload;
pub mod range;
pub mod subscribe;
pub mod time;
pub mod verify;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use self::hold::Hold;
use self::offload::{Ahead, Offloaded};
use self::subscribe::{Cursor, check_cursor};
use crate::channel::Channel;
use crate::error::{ReadError, SubscribeError};
use crate::event::RedexEvent;
use crate::ids::{Epoch, Seq};
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
    fetching: Option<Fetching>,
    /// What follows the chunk from here on, while that is looked at.
    ahead: Option<(Seq, Ahead<Fetched>)>,
    /// How often the channel's suffix had been cut off when this was last looked at, and the epoch since then.
    resets: u32,
    epoch: Epoch,
    /// Keeps retention from dropping what is ahead.
    hold: Option<Hold>,
}

/// A read beside this thread.
#[derive(Debug)]
enum Fetching {
    Demanded(Offloaded<Fetched>),
    /// It was begun before it was needed.
    Ahead(Ahead<Fetched>),
}

impl Future for Fetching {
    type Output = Fetched;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fetched> {
        match self.get_mut() {
            Self::Demanded(fetching) => Pin::new(fetching).poll(cx),
            Self::Ahead(fetching) => Pin::new(fetching).poll(cx),
        }
    }
}

/// What one look at memory found.
enum Look<T> {
    Found(T),
    Failed(ReadError),
    OnDisk,
    /// It was cut off.
    Gone,
    /// The channel was cut off meanwhile: what is next may be there still.
    Again,
}

impl EventReader {
    /// A cursor that stands before `next`.
    pub fn new(channel: Arc<Channel>, next: Seq) -> Self {
        // The count first: a cut that comes between is noticed, at worst twice.
        let resets = channel.tail.resets();
        let epoch = channel.epoch();
        let (page, chunk, failed, fetching, ahead, hold) = (None, None, None, None, None, None);
        Self { channel, next, page, chunk, failed, fetching, ahead, resets, epoch, hold }
    }

    /// The same, and retention waits for it as long as the channel allows.
    #[must_use]
    pub fn holding(mut self) -> Self {
        self.hold = Some(self.channel.holds.begin(self.next));
        self
    }

    /// The epoch in which its position counts.
    pub fn epoch(&self) -> Epoch {
        self.channel.epoch_of_reader(self.epoch, self.resets)
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
        let cursor = Cursor { epoch: self.epoch().0, seq: self.next.0 };
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

    /// What is next was cut off or dropped meanwhile. Also where it is still in memory: what is there does not depend on that.
    #[inline]
    fn not_there(&mut self) -> Option<ReadError> {
        if let Some(error) = self.cut_off() {
            return Some(error);
        }
        let error = trimmed(&self.channel, self.next)?;
        self.chunk = None;
        Some(error)
    }

    /// The next event if it is in memory; `end` is above [`EventReader::next_seq`] and published.
    #[inline]
    fn look(&mut self) -> Look<RedexEvent> {
        if let Some(error) = self.not_there() {
            return Look::Failed(error);
        }
        if let Some((chunk, shown)) = &mut self.chunk {
            if *shown < chunk.len() {
                let event = chunk.event(*shown);
                debug_assert_eq!(event.seq, self.next.0);
                *shown += 1;
                self.advance_to(Seq(self.next.0 + 1));
                return Look::Found(event);
            }
            self.end_chunk();
        }
        if let Some(error) = self.failed.take() {
            return Look::Failed(error);
        }
        match self.next_in_page() {
            Some(event) => {
                self.advance_to(Seq(self.next.0 + 1));
                Look::Found(event)
            }
            None => self.not_in_a_page(),
        }
    }

    /// What is next was published once, and is not in a page: it is on disk, or, in memory, was dropped since it was looked for; or
    /// a cut has come between, which need not have taken it.
    #[cold]
    fn not_in_a_page<T>(&self) -> Look<T> {
        // A cut brings this back before it is counted.
        let is_there = self.next < self.channel.tail.published();
        if self.is_cut_off() {
            return Look::Again;
        }
        if is_there && self.channel.persistence().is_some() {
            return Look::OnDisk;
        }
        // The head moves before the page goes.
        trimmed(&self.channel, self.next).map_or(Look::Gone, Look::Failed)
    }

    /// All events of the chunk were shown; whether they were what was checked is known only now.
    fn end_chunk(&mut self) {
        let Some((chunk, _)) = self.chunk.take() else { return };
        self.failed = self.failed.take().or_else(|| self.changed(&chunk));
    }

    /// The error of a chunk whose file was changed by another program while it was looked at.
    pub fn changed(&self, chunk: &EventChunk) -> Option<ReadError> {
        let file = chunk.changed_file()?;
        Some(self.channel.persistence()?.on_disk.changed(&file))
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
            if self.is_cut_off() {
                // It may be a page from behind the cut. Pages that were found before stay as they are.
                self.page = None;
                return None;
            }
        }
        // After a cut the page that would have it may not, any more.
        let next = self.next.0;
        self.page.as_ref().filter(|page| next < page.start().first_seq.0 + page.published_slots() as u64)
    }

    #[inline]
    fn next_in_page(&mut self) -> Option<RedexEvent> {
        let next = self.next;
        let page = self.page()?;
        Some(event_in_page(page, next.0, (next.0 - page.start().first_seq.0) as usize))
    }

    /// The events from the next one on that are at hand, below `end`, which is published.
    fn look_chunk(&mut self, end: Seq) -> Look<EventChunk> {
        if let Some(error) = self.not_there() {
            return Look::Failed(error);
        }
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
        let Some(page) = self.page() else { return self.not_in_a_page() };
        let in_page = page.start().first_seq.0 + page.published_slots() as u64;
        let chunk = EventChunk::in_page(page.clone(), next, (end.0.min(in_page) - next.0) as usize);
        Look::Found(self.pass(chunk, end))
    }

    fn pass(&mut self, mut chunk: EventChunk, end: Seq) -> EventChunk {
        chunk.truncate((end.0 - self.next.0) as usize);
        self.advance_to(Seq(chunk.end_seq()));
        chunk
    }

    fn fetch(channel: &Channel, from: Seq, to: Seq) -> Fetched {
        let persistence = channel.persistence().expect("events of a channel in memory are in its pages");
        let fetched = match &persistence.overlay {
            Some(overlay) => overlay.read(&persistence.on_disk, from, to),
            None => {
                // Index blocks may be on disk before the payloads of their last events, which are in pages.
                let to = to.min(channel.tail.first_in_memory().max(Seq(from.0 + 1)));
                persistence.on_disk.read(from, to)
            }
        };
        // Files go when their events were dropped: then that is what is wrong.
        fetched.map_err(|error| trimmed(channel, from).unwrap_or(error))
    }

    /// Has what comes next at hand, read on this thread unless another one has.
    #[cold]
    #[inline(never)]
    fn fetch_here(&mut self, end: Seq) {
        // What failed some time ago may not fail now.
        let ahead = self.take_ahead().and_then(|ahead| ahead.wait().ok());
        let fetched = ahead.map_or_else(|| Self::fetch(&self.channel, self.next, end), Ok);
        self.take_fetched(fetched);
        self.read_ahead(end);
    }

    fn begin_fetch(&mut self, end: Seq) -> Fetching {
        if let Some(ahead) = self.take_ahead() {
            return Fetching::Ahead(ahead);
        }
        let (channel, from) = (self.channel.clone(), self.next);
        let persistence = channel.persistence().expect("in memory, everything is in pages");
        let offload = persistence.offload.clone();
        Fetching::Demanded(offload.run(move || Self::fetch(&channel, from, end)))
    }

    fn take_fetched(&mut self, fetched: Fetched) {
        self.page = None;
        match fetched {
            Ok(chunk) => self.chunk = Some((chunk, 0)),
            Err(error) => self.failed = Some(error),
        }
    }

    /// Begins to read what follows the chunk that was just read from a file, so that the device works while this thread does. What is
    /// in memory, or mapped, needs no such thing.
    fn read_ahead(&mut self, end: Seq) {
        let Some((chunk, _)) = &self.chunk else { return };
        let Some(persistence) = self.channel.persistence() else { return };
        let (channel, from) = (self.channel.clone(), Seq(chunk.end_seq()));
        let is_on_disk = from < end && from < self.channel.tail.first_in_memory();
        // What may have to be fetched from afar would keep the one thread from what is asked for now.
        let is_near = persistence.overlay.is_none() && persistence.on_disk.cold().is_none();
        if !chunk.is_from_file() || !is_on_disk || !is_near {
            return;
        }
        let ahead = persistence.offload.run_ahead(move || Self::fetch(&channel, from, end));
        self.ahead = ahead.map(|ahead| (from, ahead));
    }

    /// What was read ahead, if it is what comes next.
    fn take_ahead(&mut self) -> Option<Ahead<Fetched>> {
        let (from, ahead) = self.ahead.take()?;
        (from == self.next).then_some(ahead)
    }

    /// Has what comes next at hand, if another process writes the channel and the journal's part of it, in memory, has that.
    fn take_overlay(&mut self) -> bool {
        let chunk = self.channel.overlay().and_then(|overlay| overlay.chunk_in_memory(self.next));
        let Some(chunk) = chunk else { return false };
        self.take_fetched(Ok(chunk));
        true
    }

    /// The next event below `end`, from memory only: `None` if it would have to be read from disk.
    #[inline]
    pub fn try_next(&mut self, end: Seq) -> Option<Result<RedexEvent, ReadError>> {
        self.in_memory(end, Self::look)
    }

    /// The next events below `end`, from memory only: `None` if they would have to be read from disk.
    pub fn try_next_chunk(&mut self, end: Seq) -> Option<Fetched> {
        self.in_memory(end, |reader| reader.look_chunk(end))
    }

    #[inline]
    fn in_memory<T>(&mut self, end: Seq, look: impl Fn(&mut Self) -> Look<T>) -> Option<Result<T, ReadError>> {
        if self.fetching.is_some() {
            return None;
        }
        while self.next < end {
            match look(self) {
                Look::Found(found) => return Some(Ok(found)),
                Look::Failed(error) => return Some(Err(error)),
                Look::Again => {}
                Look::OnDisk if self.take_overlay() => {}
                Look::OnDisk | Look::Gone => return None,
            }
        }
        None
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
                Look::Gone => return None,
                Look::Again => {}
                Look::OnDisk => self.fetch_here(end),
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
                let was_ahead = matches!(fetching, Fetching::Ahead(_));
                match Pin::new(fetching).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) if was_ahead => {
                        // What failed some time ago may not fail now.
                        self.fetching = Some(self.begin_fetch(end));
                        continue;
                    }
                    Poll::Ready(fetched) => {
                        self.fetching = None;
                        self.take_fetched(fetched);
                        self.read_ahead(end);
                    }
                }
            }
            match look(self) {
                Look::Found(found) => return Poll::Ready(Some(Ok(found))),
                Look::Failed(error) => return Poll::Ready(Some(Err(error))),
                Look::Gone => return Poll::Ready(None),
                Look::Again => {}
                Look::OnDisk if self.take_overlay() => {}
                Look::OnDisk => self.fetching = Some(self.begin_fetch(end)),
            }
        }
        Poll::Ready(self.at_end().map(Err))
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
        ReadError::Io { .. } | ReadError::Cold { .. } | ReadError::BadRange { .. } | ReadError::BadTimeRange { .. } => {
            None
        }
    }
}
