//! What a program asks of the cold tier: reads that come from the cold store alone, passes now, manifests made anew.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::failure::ColdError;
use super::file::ColdDisk;
use super::pass::of_list;
use super::tier::ColdTier;
use super::worker::Job;
use crate::append::wait::block_on;
use crate::channel::Channel;
use crate::error::ReadError;
use crate::event::RedexEvent;
use crate::ids::Seq;
use crate::read::offload::{Offload, Offloaded};
use crate::segment::read::OnDisk;

/// The future of [`crate::RedexFile::read_cold`].
#[derive(Debug)]
#[must_use = "nothing is read before the future is polled or waited for"]
pub struct ReadCold {
    channel: Arc<Channel>,
    range: Range<u64>,
    reading: Option<Offloaded<Result<Vec<RedexEvent>, ReadError>>>,
}

impl ReadCold {
    pub(crate) fn new(channel: &Arc<Channel>, range: Range<u64>) -> Self {
        Self { channel: channel.clone(), range, reading: None }
    }

    /// Reads on this thread, without a runtime.
    pub fn wait(self) -> Result<Vec<RedexEvent>, ReadError> {
        read_cold(&self.channel, self.range)
    }
}

impl Future for ReadCold {
    type Output = Result<Vec<RedexEvent>, ReadError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(persistence) = this.channel.persistence() else {
            return Poll::Ready(read_cold(&this.channel, this.range.clone()));
        };
        let (channel, range) = (&this.channel, &this.range);
        let reading = this.reading.get_or_insert_with(|| {
            let (channel, range) = (channel.clone(), range.clone());
            persistence.offload.run(move || read_cold(&channel, range))
        });
        Pin::new(reading).poll(cx)
    }
}

/// Reads what of a range lies in the cold store, and nothing from anywhere else.
fn read_cold(channel: &Channel, range: Range<u64>) -> Result<Vec<RedexEvent>, ReadError> {
    if range.start > range.end {
        return Err(ReadError::BadRange { channel: channel.name.clone(), start: range.start, end: range.end });
    }
    let persistence = channel.persistence();
    let cold = persistence.and_then(|persistence| Some((persistence, persistence.on_disk.cold()?)));
    let Some((persistence, cold)) = cold else {
        let source = io::Error::new(io::ErrorKind::NotFound, "the store was opened without a cold store");
        return Err(ReadError::Cold {
            channel: channel.name.clone(),
            file: String::new(),
            object: String::new(),
            offset: 0,
            source: Arc::new(source),
        });
    };
    let manifest = cold.manifest_for_reader().map_err(|source| ReadError::Cold {
        channel: channel.name.clone(),
        file: super::manifest::manifest_path(cold.id),
        object: cold.prefix(),
        offset: 0,
        source: Arc::new(source),
    })?;
    let list: BTreeMap<Seq, Seq> = persistence.on_disk.sealed().into_iter().collect();
    let present = manifest.segments.iter().filter_map(|segment| of_list(&list, segment));
    let segments: Vec<(Seq, Option<Seq>)> =
        present.map(|segment| (Seq(segment.first), Some(Seq(segment.end)))).collect();
    let (Some((first, _)), Some((_, end))) = (segments.first(), segments.last()) else { return Ok(Vec::new()) };
    let head = channel.head().0;
    let mut next = Seq(range.start.max(first.0).max(head));
    let end = Seq(range.end.min(end.map_or(0, |end| end.0)));
    let disk = Arc::new(ColdDisk(cold.clone()));
    let on_disk = OnDisk::new(disk, channel.id(), channel.name.clone(), &segments, end, &[], (0, bytes::Bytes::new()));
    let mut events = Vec::new();
    while next < end {
        let chunk = on_disk.read(next, end)?;
        events.extend((0..chunk.len()).map(|index| chunk.event(index)));
        next = Seq(chunk.end_seq());
    }
    Ok(events)
}

/// The future of what is done with the cold store beside reading.
#[derive(Debug)]
#[must_use = "only the future tells what came of it"]
pub struct ColdWork<T>(Offloaded<Result<T, ColdError>>);

impl<T: Send + 'static> ColdWork<T> {
    /// Does something on the thread of the passes.
    pub(crate) fn run(tier: &Arc<ColdTier>, work: impl FnOnce() -> Result<T, ColdError> + Send + 'static) -> Self {
        let (job, offloaded) = Offload::job(work);
        tier.push(Job::Call(job));
        Self(offloaded)
    }

    /// It is known already.
    pub(crate) fn known(result: Result<T, ColdError>) -> Self {
        let (job, offloaded) = Offload::job(move || result);
        job();
        Self(offloaded)
    }

    /// Waits on this thread, without a runtime.
    pub fn wait(mut self) -> Result<T, ColdError> {
        block_on(Duration::MAX, |cx| Pin::new(&mut self.0).poll(cx))
    }
}

impl<T> Future for ColdWork<T> {
    type Output = Result<T, ColdError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.get_mut().0).poll(cx)
    }
}

/// Does something with a channel's cold segments on the thread of the passes.
pub fn of_channel<T: Send + 'static>(
    channel: &Arc<Channel>,
    what: &'static str,
    work: impl FnOnce(&Channel) -> io::Result<T> + Send + 'static,
) -> ColdWork<T> {
    let Some(persistence) = channel.persistence() else {
        return ColdWork::known(Err(ColdError::InMemory { channel: channel.name.clone() }));
    };
    let Some(cold) = persistence.on_disk.cold() else { return ColdWork::known(Err(ColdError::NoColdStore)) };
    let channel = channel.clone();
    ColdWork::run(&cold.tier, move || {
        let failed = |source| ColdError::Failed { channel: channel.name.to_string(), what, source: Arc::new(source) };
        work(&channel).map_err(failed)
    })
}
