//! The events of one channel that are whole, in order, wherever they lie: segments and the checkpoint's tail first, the journal for
//! what is bad there and for what comes behind.

use std::ops::Range;

use super::SalvageError;
use super::causes::{Causes, KnownLosses};
use super::report::LostRange;
use crate::segment::record::IndexRecord;
use crate::store_verify::pass;
use crate::survey::finding::{FindingKind, StoreFinding};
use crate::survey::piece::Piece;
use crate::survey::plan::Plan;
use crate::survey::readahead::Reader;
use crate::survey::segment::Sink;
use crate::survey::{Ground, Survey};

/// Takes the events.
pub trait Visit {
    /// An event, with its sequence in the old store.
    fn event(&mut self, seq: u64, time_us: u64, payload: &[u8]) -> Result<(), SalvageError>;
}

/// What a walk through a channel came to.
#[derive(Debug, Default)]
pub struct Merged {
    /// Behind the last event that was, whole or not.
    pub end: u64,
    /// Whether more may have come behind it.
    pub end_unknown: bool,
    /// What is lost.
    pub lost: Vec<LostRange>,
    /// What lies in the cold store.
    pub cold: Vec<Range<u64>>,
}

/// A walk through a channel.
pub struct Merge<'a> {
    ground: &'a Ground,
    known: &'a KnownLosses,
    reader: &'a mut Reader,
    plan: &'a Plan,
}

/// Where the walk stands, and what it has seen.
struct State<'a, V> {
    ground: &'a Ground,
    plan: &'a Plan,
    visit: &'a mut V,
    next: u64,
    /// What is known to be wrong with events.
    causes: Causes,
    merged: Merged,
    error: Option<SalvageError>,
}

impl<'a> Merge<'a> {
    /// Of this channel.
    pub fn new(ground: &'a Ground, known: &'a KnownLosses, reader: &'a mut Reader, plan: &'a Plan) -> Self {
        Self { ground, known, reader, plan }
    }

    /// Goes through it.
    pub fn run<V: Visit>(self, visit: &mut V) -> Result<Merged, SalvageError> {
        let (found, causes) = (Survey::found(self.plan), self.known.of_channel(self.plan.id));
        let (plan, ground) = (self.plan, self.ground);
        let merged = Merged::default();
        let mut state = State { ground, plan, visit, next: plan.head, causes, merged, error: None };
        let mut end = plan.end.max(plan.head);
        for (index, segment) in plan.segments.iter().enumerate() {
            if segment.is_on_disk() {
                let passed = pass(plan, index, &found).run(self.reader, &mut state);
                end = end.max(passed.end);
            }
        }
        if plan.is_of_files() {
            end = plan.cold.iter().map(|cold| cold.end).fold(end, u64::max);
        }
        state.fill(end);
        (state.merged.end, state.merged.end_unknown) = (end, plan.end_unknown);
        match state.error {
            Some(error) => Err(error),
            None => Ok(state.merged),
        }
    }
}

impl<V: Visit> Sink for State<'_, V> {
    const PAYLOADS: bool = true;

    fn event(&mut self, seq: u64, record: &IndexRecord, payload: &[u8]) {
        if seq < self.next {
            return;
        }
        self.fill(seq);
        self.give(seq, record.time_us(), payload);
        self.next = seq + 1;
    }

    fn finding(&mut self, finding: StoreFinding) {
        if let Some(events) = finding.events.clone() {
            // The walk comes back to nothing that lies in front.
            self.fill(events.start);
            self.causes.add(finding);
        }
    }
}

impl<V: Visit> State<'_, V> {
    fn give(&mut self, seq: u64, time_us: u64, payload: &[u8]) {
        if self.error.is_none() {
            self.error = self.visit.event(seq, time_us, payload).err();
        }
    }

    /// Goes up to `end` by what the journal has; what it has not is lost.
    fn fill(&mut self, end: u64) {
        let plan = self.plan;
        while self.next < end && self.error.is_none() {
            let seq = self.next;
            if let Some(cold) =
                plan.cold.iter().find(|cold| cold.contains(&seq)).filter(|_| plan.piece_of(seq).is_none())
            {
                let range = seq..cold.end.min(end);
                self.next = range.end;
                self.merged.cold.push(range);
                continue;
            }
            let disk = &*self.ground.disk;
            let payload = |piece: &Piece| match piece.payload(disk, plan.id, seq) {
                Err(bad) => piece.payload_in_dat(disk, plan.id, seq).ok_or(bad),
                whole => whole,
            };
            match plan.piece_of(seq).map(|piece| (piece, payload(piece))) {
                Some((piece, Ok(payload))) => {
                    let time_us = piece.record(seq).map_or(0, IndexRecord::time_us);
                    self.give(seq, time_us, &payload);
                }
                Some((_, Err(bad))) => {
                    let kind = if bad.in_extent { FindingKind::JournalExtent } else { FindingKind::JournalPayload };
                    self.lose(seq..seq + 1, kind, bad.path, bad.offset, bad.cause);
                }
                None => {
                    self.lose_unknown(end);
                    continue;
                }
            }
            self.next = seq + 1;
        }
    }

    /// Loses from here to where the journal has something again, or another cause begins.
    fn lose_unknown(&mut self, end: u64) {
        let seq = self.next;
        let of_piece = self.plan.pieces.range(seq..end).next().map_or(end, |(first, _)| *first);
        let (to, lost) = match self.causes.of_event(seq) {
            Some(found) => {
                let to = found.events.as_ref().map_or(of_piece, |events| events.end).min(of_piece);
                (to, (found.kind, found.file.clone(), found.offset, found.cause.clone()))
            }
            None => {
                let path = crate::segment::path::channel_dir(self.plan.id);
                let cause = "no file has these events, and nothing tells what became of them".to_owned();
                (self.causes.next_start(seq..of_piece), (FindingKind::SequenceGap, path, 0, cause))
            }
        };
        let to = to.min(end);
        let to = to.max(seq + 1);
        let (kind, file, offset, cause) = lost;
        self.lose(seq..to, kind, file, offset, cause);
        self.next = to;
    }

    fn lose(&mut self, events: Range<u64>, kind: FindingKind, file: String, offset: u64, cause: String) {
        let same = |last: &&mut LostRange| last.events.end == events.start && last.kind == kind && last.file == file;
        match self.merged.lost.last_mut().filter(same) {
            Some(last) => last.events.end = events.end,
            None => self.merged.lost.push(LostRange { events, kind, file, offset, cause }),
        }
    }
}
