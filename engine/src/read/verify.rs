//! Checks a whole channel: what is on disk from the disk, and what is in memory there.
//!
//! Of every sealed segment: the footer, the hash over its index blocks, its time blocks. Of every event: its index block, its
//! record, its payload, its time. It goes on behind damage, so that the report has all of it.
//!
//! In steps of about a megabyte, past the page cache and past what readers remember as checked. On a future each step is a job
//! of the store's reading thread, so that others' reads come in between; appends are not touched at all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::after_damage;
use super::offload::Offloaded;
use crate::channel::Channel;
use crate::error::{Damage, ReadError};
use crate::ids::Seq;
use crate::segment::check::FooterCheck;
use crate::segment::chunk::EventChunk;
use crate::segment::record::{RECORD_SIZE, RecordPlace};

/// Findings that a report lists.
const FINDINGS_MAX: usize = 100;

/// Events that are read one by one behind a place that the device cannot read: as many as one call reads.
const ONE_BY_ONE: u64 = 16 * 204;

/// What [`crate::RedexFile::verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Sealed segments that were checked.
    pub segments: u64,
    /// Events that are what was appended.
    pub events: u64,
    /// Bytes that were checked: payloads, index records, and the idx files of sealed segments.
    pub bytes: u64,
    /// What is wrong, in the order of the events, neighbours as one; the first hundred.
    pub findings: Vec<Finding>,
    /// How many there are, listed or not.
    pub findings_count: u64,
}

impl VerifyReport {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings_count == 0
    }

    fn add(&mut self, finding: Finding) {
        if let Some(last) = self.findings.last_mut().filter(|last| last.is_continued_by(&finding)) {
            last.to = finding.to;
            return;
        }
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Which file, beneath the base directory; empty for what is in memory.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// First event affected.
    pub from: u64,
    /// End of the events affected, exclusive.
    pub to: u64,
    /// What is wrong.
    pub damage: Damage,
}

impl Finding {
    /// Whether another one is the same thing, of the events that follow.
    fn is_continued_by(&self, next: &Self) -> bool {
        let same = std::mem::discriminant(&self.damage) == std::mem::discriminant(&next.damage);
        let same = same
            && match (&self.damage, &next.damage) {
                (Damage::Read(a), Damage::Read(b)) => std::mem::discriminant(a) == std::mem::discriminant(b),
                _ => false,
            };
        same && self.file == next.file && self.to == next.from
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, offset, from, to, damage } = self;
        write!(f, "events {from}..{to}: {file} at byte {offset}: {damage}")
    }
}

/// A check in progress.
#[derive(Debug)]
struct Check {
    channel: Arc<Channel>,
    next: Seq,
    end: Seq,
    /// Sealed segments that begin behind what was checked, and the one being checked, the last first.
    sealed: Vec<(Seq, Seq)>,
    footer: Option<FooterCheck>,
    /// End of the sealed segment whose footer was checked.
    sealed_end: Seq,
    last_time_us: u64,
    one_by_one_until: Seq,
    report: VerifyReport,
}

impl Check {
    fn new(channel: &Arc<Channel>) -> Self {
        let (next, end) = (channel.head(), channel.tail.published());
        let mut sealed = match channel.persistence() {
            Some(persistence) => persistence.on_disk.sealed_segments(),
            None => Vec::new(),
        };
        sealed.retain(|(_, end)| *end > next);
        sealed.reverse();
        Self {
            channel: channel.clone(),
            next,
            end,
            sealed,
            footer: None,
            sealed_end: Seq(0),
            last_time_us: 0,
            one_by_one_until: Seq(0),
            report: VerifyReport::default(),
        }
    }

    /// Checks about a megabyte. Says whether there is more.
    fn step(&mut self) -> bool {
        if self.footer.is_some() {
            self.step_footer();
        } else if let Some((first, end)) = self.sealed.pop_if(|(first, _)| *first <= self.next) {
            self.begin_segment(first, end);
        } else if self.next < self.end {
            self.step_events();
        }
        self.footer.is_some() || self.next < self.end
    }

    fn begin_segment(&mut self, first: Seq, end: Seq) {
        let on_disk = &self.channel.persistence().expect("in memory nothing is sealed").on_disk;
        self.sealed_end = end;
        self.report.segments += 1;
        match FooterCheck::begin(on_disk, first, end) {
            Ok(Ok(check)) => self.footer = Some(check),
            Ok(Err((offset, damage))) => {
                let file = on_disk.idx_path(first);
                self.report.add(Finding { file, offset, from: first.0, to: end.0, damage });
            }
            // A segment that was removed meanwhile is no finding; any other error comes again with its events.
            Err(_) => {}
        }
    }

    fn step_footer(&mut self) {
        let Some(check) = &mut self.footer else { return };
        let on_disk = &self.channel.persistence().expect("in memory nothing is sealed").on_disk;
        match check.step(on_disk) {
            Ok(None) => {}
            Ok(Some(found)) => {
                self.report.bytes += check.bytes();
                for (offset, damage) in found {
                    let (file, from, to) = (check.path().to_owned(), self.next.0, self.sealed_end.0);
                    self.report.add(Finding { file, offset, from, to, damage });
                }
                self.footer = None;
            }
            Err(error) => {
                self.report.add(finding(error, self.next, self.sealed_end));
                self.footer = None;
            }
        }
    }

    fn step_events(&mut self) {
        // What is sealed is checked on disk, also if it is in memory still.
        let in_page = if self.next < self.sealed_end { None } else { self.channel.tail.page_of(self.next) };
        if let Some(page) = in_page {
            self.check_page(&page);
            return;
        }
        match self.read() {
            Ok(chunk) => self.look_at(&chunk),
            Err(error) => self.skip(error),
        }
    }

    fn read(&self) -> Result<EventChunk, ReadError> {
        let persistence = self.channel.persistence().expect("in memory, everything is in pages");
        let to = match self.next < self.sealed_end {
            true => self.sealed_end,
            false if persistence.overlay.is_some() => self.end,
            false => self.end.min(self.channel.tail.first_in_memory().max(Seq(self.next.0 + 1))),
        };
        let to = if self.next < self.one_by_one_until { Seq(self.next.0 + 1) } else { to };
        match &persistence.overlay {
            Some(overlay) => overlay.read_checked(&persistence.on_disk, self.next, to),
            None => persistence.on_disk.read_checked(self.next, to),
        }
    }

    /// Notes what is wrong, and goes on behind it.
    fn skip(&mut self, error: ReadError) {
        let head = self.channel.head();
        if self.next < head {
            // Removed meanwhile.
            self.next = head.min(self.end);
            return;
        }
        let behind = match after_damage(&error, self.next) {
            Some(behind) => behind,
            // Which of the events it is shows when they are read one by one.
            None if is_missing(&error) => self.segment_end(),
            None if self.next >= self.one_by_one_until => {
                self.one_by_one_until = Seq(self.next.0 + ONE_BY_ONE);
                return;
            }
            None => self.behind_unreadable(&error),
        };
        let behind = behind.max(Seq(self.next.0 + 1)).min(self.end);
        self.report.add(finding(error, self.next, behind));
        self.next = behind;
    }

    fn segment_end(&self) -> Seq {
        if self.next < self.sealed_end { self.sealed_end } else { self.end }
    }

    /// Behind what one read of one event needs: its index block, or its payload.
    fn behind_unreadable(&self, error: &ReadError) -> Seq {
        let persistence = self.channel.persistence().expect("in memory nothing is read");
        let (idx, _) = persistence.on_disk.block_place(self.next);
        match error {
            ReadError::Io { file, .. } if *file == idx => {
                persistence.on_disk.next_block(self.next).min(self.segment_end())
            }
            _ => Seq(self.next.0 + 1),
        }
    }

    fn look_at(&mut self, chunk: &EventChunk) {
        for event in chunk {
            let time_us = event.time.as_micros();
            self.look_at_time(event.seq, time_us);
            self.report.bytes += (RECORD_SIZE + event.payload.len()) as u64;
        }
        self.report.events += chunk.len() as u64;
        self.next = Seq(chunk.end_seq());
    }

    fn look_at_time(&mut self, seq: u64, time_us: u64) {
        if time_us < self.last_time_us {
            let (file, offset) = match self.channel.persistence() {
                Some(persistence) => persistence.on_disk.block_place(Seq(seq)),
                None => (String::new(), 0),
            };
            let damage = Damage::TimeBackwards { before_us: self.last_time_us, time_us };
            self.report.add(Finding { file, offset, from: seq, to: seq + 1, damage });
        }
        self.last_time_us = self.last_time_us.max(time_us);
    }

    fn check_page(&mut self, page: &crate::tail::page::Page) {
        let first = page.start().first_seq.0;
        let end = self.end.0.min(first + page.published_slots() as u64);
        let records = page.records((self.next.0 - first) as usize..(end - first) as usize);
        for (seq, record) in (self.next.0..).zip(records) {
            self.look_at_time(seq, record.time_us());
            let payload = page.payload_range(record).map_or(&[][..], |range| page.published_bytes(range));
            let wrong = match record.place() {
                RecordPlace::Inline { .. } => record.check().err().map(|source| {
                    let channel = self.channel.name.clone();
                    ReadError::Record { channel, seq, source }
                }),
                RecordPlace::Dat { offset, len } => (!record.verify_payload(payload)).then(|| {
                    let (channel, file) = (self.channel.name.clone(), String::new());
                    ReadError::Payload { channel, seq, file, offset: offset.into(), len }
                }),
            };
            self.report.bytes += (RECORD_SIZE + record.payload_len()) as u64;
            match wrong {
                None => self.report.events += 1,
                Some(error) => self.report.add(finding(error, Seq(seq), Seq(seq + 1))),
            }
        }
        self.next = Seq(end);
    }
}

/// Whether a file is not there at all.
fn is_missing(error: &ReadError) -> bool {
    matches!(error, ReadError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// A finding of what a reader would have been told.
fn finding(error: ReadError, from: Seq, to: Seq) -> Finding {
    let (file, offset) = match &error {
        ReadError::Index { file, offset, .. }
        | ReadError::Payload { file, offset, .. }
        | ReadError::Io { file, offset, .. }
        | ReadError::Cold { file, offset, .. }
        | ReadError::Missing { file, offset, .. } => (file.clone(), *offset),
        ReadError::Record { .. }
        | ReadError::BadRange { .. }
        | ReadError::BadTimeRange { .. }
        | ReadError::Trimmed { .. }
        | ReadError::CutOff { .. } => (String::new(), 0),
    };
    Finding { file, offset, from: from.0, to: to.0, damage: Damage::Read(error) }
}

/// The future of [`crate::RedexFile::verify`].
#[derive(Debug)]
#[must_use = "nothing is checked before the future is polled or waited for"]
pub struct Verify {
    check: Option<Check>,
    stepping: Option<Offloaded<(Check, bool)>>,
}

impl Verify {
    pub(crate) fn new(channel: &Arc<Channel>) -> Self {
        Self { check: Some(Check::new(channel)), stepping: None }
    }

    /// Checks on this thread, without a runtime.
    #[must_use]
    pub fn wait(mut self) -> VerifyReport {
        let mut check = self.check.take().expect("not polled before");
        while check.step() {}
        check.report
    }
}

impl Future for Verify {
    type Output = VerifyReport;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<VerifyReport> {
        let this = self.get_mut();
        loop {
            let (mut check, more) = match &mut this.stepping {
                Some(stepping) => ready!(Pin::new(stepping).poll(cx)),
                None => (this.check.take().expect("a future is not polled after it has resolved"), true),
            };
            this.stepping = None;
            if !more {
                return Poll::Ready(check.report);
            }
            let offload = check.channel.persistence().map(|persistence| persistence.offload.clone());
            match offload {
                Some(offload) => {
                    this.stepping = Some(offload.run(move || {
                        let more = check.step();
                        (check, more)
                    }));
                }
                None => {
                    if !check.step() {
                        return Poll::Ready(check.report);
                    }
                    this.check = Some(check);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}
