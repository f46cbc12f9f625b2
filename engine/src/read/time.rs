//! Reads by time: the first event at or after a moment, and the events between two.
//!
//! As every read it looks in the pages, then in the stub, then on disk; times never decrease, so each is a binary search.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::offload::Offloaded;
use super::range::ReadRange;
use crate::channel::Channel;
use crate::error::ReadError;
use crate::event::{EventTime, RedexEvent};
use crate::ids::Seq;

/// What memory knows of a time.
enum Sought {
    Found(Seq),
    /// Below this, which is the first event in memory.
    OnDisk(Seq),
}

fn seek_in_memory(channel: &Channel, time_us: u64) -> Sought {
    let first = match channel.tail.seek_time(time_us) {
        Ok(found) => return Sought::Found(found),
        Err(first) => first,
    };
    let Some(persistence) = channel.persistence() else { return Sought::Found(first) };
    let first = match persistence.overlay.as_ref().map(|overlay| overlay.seek_time(time_us)) {
        None => first,
        Some(Ok(found)) => return Sought::Found(found),
        Some(Err(base)) if base <= channel.head() => return Sought::Found(base),
        Some(Err(base)) => base,
    };
    // What leaves a page meanwhile goes to the stub, and from there to disk: none of it is above `first`.
    match persistence.on_disk.seek_stub(time_us) {
        Ok(found) => Sought::Found(found.min(first)),
        Err(base) => Sought::OnDisk(base.map_or(first, |base| base.min(first))),
    }
}

fn seek_on_disk(channel: &Channel, time_us: u64, limit: Seq) -> Result<Seq, ReadError> {
    let persistence = channel.persistence().expect("in memory, everything is in pages");
    match &persistence.overlay {
        Some(overlay) => overlay.caught_up(|| persistence.on_disk.seek_time(time_us, limit)),
        None => persistence.on_disk.seek_time(time_us, limit),
    }
}

fn clamp(channel: &Channel, found: Seq) -> u64 {
    found.0.max(channel.head().0).min(channel.tail.published().0)
}

/// The future of [`crate::RedexFile::seek_time`].
#[derive(Debug)]
#[must_use = "nothing is read before the future is polled or waited for"]
pub struct SeekTime {
    channel: Arc<Channel>,
    time_us: u64,
    seeking: Option<Offloaded<Result<Seq, ReadError>>>,
}

impl SeekTime {
    pub(crate) fn new(channel: &Arc<Channel>, time: EventTime) -> Self {
        Self { channel: channel.clone(), time_us: time.as_micros(), seeking: None }
    }

    /// Reads on this thread, without a runtime.
    pub fn wait(self) -> Result<u64, ReadError> {
        let found = match seek_in_memory(&self.channel, self.time_us) {
            Sought::Found(found) => found,
            Sought::OnDisk(limit) => seek_on_disk(&self.channel, self.time_us, limit)?,
        };
        Ok(clamp(&self.channel, found))
    }
}

impl Future for SeekTime {
    type Output = Result<u64, ReadError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.seeking.is_none() {
            match seek_in_memory(&this.channel, this.time_us) {
                Sought::Found(found) => return Poll::Ready(Ok(clamp(&this.channel, found))),
                Sought::OnDisk(limit) => {
                    let (channel, time_us) = (this.channel.clone(), this.time_us);
                    let persistence = this.channel.persistence().expect("in memory, everything is in pages");
                    let job = move || seek_on_disk(&channel, time_us, limit);
                    this.seeking = Some(persistence.offload.run(job));
                }
            }
        }
        let seeking = this.seeking.as_mut().expect("begun above");
        let found = ready!(Pin::new(seeking).poll(cx));
        this.seeking = None;
        Poll::Ready(found.map(|found| clamp(&this.channel, found)))
    }
}

/// The future of [`crate::RedexFile::read_time_range`].
#[derive(Debug)]
#[must_use = "nothing is read before the future is polled or waited for"]
pub struct ReadTimeRange {
    channel: Arc<Channel>,
    range: Range<EventTime>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Start(SeekTime),
    End(u64, SeekTime),
    Read(ReadRange),
}

impl ReadTimeRange {
    pub(crate) fn new(channel: &Arc<Channel>, range: Range<EventTime>) -> Self {
        let step = Step::Start(SeekTime::new(channel, range.start));
        Self { channel: channel.clone(), range, step }
    }

    fn check(&self) -> Result<(), ReadError> {
        if self.range.start <= self.range.end {
            return Ok(());
        }
        let (start_us, end_us) = (self.range.start.as_micros(), self.range.end.as_micros());
        Err(ReadError::BadTimeRange { channel: self.channel.name.clone(), start_us, end_us })
    }

    /// Reads on this thread, without a runtime.
    pub fn wait(self) -> Result<Vec<RedexEvent>, ReadError> {
        self.check()?;
        let start = SeekTime::new(&self.channel, self.range.start).wait()?;
        let end = SeekTime::new(&self.channel, self.range.end).wait()?;
        ReadRange::new(&self.channel, start..end.max(start)).wait()
    }
}

impl Future for ReadTimeRange {
    type Output = Result<Vec<RedexEvent>, ReadError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.check()?;
        loop {
            this.step = match &mut this.step {
                Step::Start(seek) => {
                    let start = ready!(Pin::new(seek).poll(cx))?;
                    Step::End(start, SeekTime::new(&this.channel, this.range.end))
                }
                Step::End(start, seek) => {
                    let end = ready!(Pin::new(seek).poll(cx))?;
                    Step::Read(ReadRange::new(&this.channel, *start..end.max(*start)))
                }
                Step::Read(read) => return Pin::new(read).poll(cx),
            };
        }
    }
}
