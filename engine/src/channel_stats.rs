//! What can be told of one channel, for `RedexFile::stats`.

use std::time::Duration;

use crate::channel::Channel;
use crate::event::EventTime;
use crate::ids::Seq;
use crate::segment::read::sizes::SegmentSize;

/// A channel at one moment: watermarks, sizes, lag. Read while others append, so the numbers may be of slightly different
/// moments, each right at its own; the watermarks keep their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// Sequence of the first event that is there.
    pub head_seq: u64,
    /// Sequence of the next event.
    pub next_seq: u64,
    /// Events below have been handed to the kernel: they survive the process. In memory the same as `next_seq`.
    pub written_seq: u64,
    /// Events below survive a power cut. In memory the same as `next_seq`.
    pub durable_seq: u64,
    /// Events that are there.
    pub events: u64,
    /// Bytes of dat of the segments that are there: payloads, and the rest of a block wherever a page of memory ended. Payloads of up to 8
    /// bytes lie inside index records, and are not among them. Events below the head count until their segment goes.
    pub bytes: u64,
    /// Segments, the active one too.
    pub segments: u64,
    /// Bytes of the segments' files, whole blocks, without space allocated ahead. 0 in memory.
    pub disk_bytes: u64,
    /// Pages of the newest events in memory.
    pub pages: u64,
    /// Memory that they take, bytes.
    pub page_bytes: u64,
    /// Appends that wait for room.
    pub waiting_appends: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Time of the newest event; `None` before the first.
    pub last_time: Option<EventTime>,
    /// Events that are not durable: `next_seq - durable_seq`.
    pub lag_events: u64,
    /// How old the oldest of them is; zero if there is none.
    pub lag: Duration,
}

impl Channel {
    /// See [`ChannelStats`]. Touches no disk.
    pub fn stats(&self) -> ChannelStats {
        // In this order: each mark is at most the one that is read after it.
        let head = self.head().0;
        let durable = self.durable();
        let written = self.written_mark().max(durable);
        let next = self.tail.published().max(written);
        let in_memory = self.tail.size();
        let on_disk = self.persistence().map_or_else(Vec::new, |persistence| persistence.on_disk.sizes());
        let (waiting_appends, waiting_bytes) = self.backlog.size();
        let newer =
            in_memory.dat_ends.iter().filter(|(first, _)| on_disk.last().is_none_or(|last| last.first < *first));
        let bytes_of = |segment: &SegmentSize| {
            let in_memory = in_memory.dat_ends.iter().find(|(first, _)| *first == segment.first && !segment.sealed);
            u64::from(in_memory.map_or(segment.dat_bytes, |(_, end)| *end))
        };
        ChannelStats {
            head_seq: head,
            next_seq: next.0,
            written_seq: written.0,
            durable_seq: durable.0,
            events: next.0 - head.min(next.0),
            bytes: on_disk.iter().map(bytes_of).sum::<u64>()
                + newer.clone().map(|(_, end)| u64::from(*end)).sum::<u64>(),
            segments: (on_disk.len() + newer.count()) as u64,
            disk_bytes: on_disk.iter().map(|segment| segment.disk_bytes).sum(),
            pages: in_memory.pages,
            page_bytes: in_memory.bytes,
            waiting_appends,
            waiting_bytes,
            last_time: self.last_time(next).map(EventTime),
            lag_events: next.0 - durable.0,
            lag: self.lag(durable, next),
        }
    }

    /// How old the oldest event is that is not durable.
    pub fn lag(&self, durable: Seq, next: Seq) -> Duration {
        if durable >= next {
            return Duration::ZERO;
        }
        let first_in_memory = self.tail.first_in_memory();
        // One that has left memory is older than those that have not.
        let since = self.time_in_memory(durable).or_else(|| self.time_in_memory(first_in_memory));
        since.map_or(Duration::ZERO, |since| Duration::from_micros(self.clock.wall_us().saturating_sub(since)))
    }

    fn last_time(&self, next: Seq) -> Option<u64> {
        let last = Seq(next.0.checked_sub(1)?);
        Some(self.time_in_memory(last).unwrap_or_else(|| self.tail.time_before()))
    }

    /// Time of an event, if its record is in memory.
    fn time_in_memory(&self, seq: Seq) -> Option<u64> {
        match self.tail.page_of(seq).filter(|_| seq < self.tail.published()) {
            Some(page) => Some(page.record((seq.0 - page.start().first_seq.0) as usize).time_us()),
            None => Some(self.persistence()?.on_disk.stub_record(seq)?.time_us()),
        }
    }
}
