//! What a channel should have, by its newest state and the journal above it; and what of the journal can give its events again.
//!
//! The journal is replayed as recovery does it, in memory and without payloads. Where commits are missing, replay goes on behind
//! them: the sequences that are skipped are a [`SeqGap`].

use std::collections::BTreeMap;
use std::ops::Range;

use super::journal::SurveyedCommit;
use super::piece::Piece;
use super::stored_tail::StoredTail;
use crate::ids::{ChannelId, Epoch};
use crate::journal::format::{Entry, EventsEntry};
use crate::segment::record::IndexRecord;
use crate::store::checkpoint::{ChannelState, Tail};

/// A segment of a channel.
#[derive(Clone, Debug)]
pub struct PlannedSegment {
    /// First sequence.
    pub first: u64,
    /// End of what a state or the journal tells of, exclusive.
    pub end: u64,
    /// Size of dat by the checkpoint, bytes.
    pub dat_size: u64,
    /// Whether the checkpoint says that it is sealed.
    pub sealed: bool,
    /// First of the records that fill no block, which lie in the checkpoint file; what comes before lies in blocks.
    pub tail_first: u64,
    /// Bytes that fill no block.
    pub tail_bytes: u64,
    /// Where those records and bytes lie.
    pub tail: StoredTail,
    /// End of what a checkpoint has put on disk, its tail included, which may lie behind a cut; `first` for a segment that only the
    /// journal tells of.
    pub stored_end: u64,
    /// Events of which only its blocks tell, ascending.
    pub adopted: Vec<Range<u64>>,
}

impl PlannedSegment {
    /// A segment that lies in the journal alone.
    fn in_journal(first: u64) -> Self {
        let tail = StoredTail::default();
        let (tail_first, tail_bytes, dat_size) = (first, 0, 0);
        let (end, stored_end, sealed, adopted) = (first, first, false, Vec::new());
        Self { first, end, dat_size, sealed, tail_first, tail_bytes, tail, stored_end, adopted }
    }

    /// A segment of which only the files tell.
    pub fn of_files(first: u64) -> Self {
        Self::in_journal(first)
    }

    /// Whether its files have something that is wanted.
    pub fn is_on_disk(&self) -> bool {
        self.sealed || self.stored_end > self.first || !self.adopted.is_empty()
    }

    /// The record of an event that fills no block, as the checkpoint has it in the segment's tail.
    fn tail_record<'t>(&self, tail: &'t Tail, seq: u64) -> Option<&'t IndexRecord> {
        if self.sealed || seq >= self.stored_end.min(self.end) {
            return None;
        }
        tail.records.get(usize::try_from(seq.checked_sub(self.tail_first)?).ok()?)
    }
}

/// Sequences that nothing tells of.
#[derive(Clone, Debug)]
pub struct SeqGap {
    /// The sequences.
    pub seqs: Range<u64>,
    /// The commit behind them: what is missing lies before it.
    pub before_lsn: u64,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The channel.
    pub id: ChannelId,
    /// Its name, if anything tells it.
    pub name: Option<String>,
    /// Its settings, encoded, if anything tells them.
    pub config: Option<Vec<u8>>,
    /// Whether it was deleted.
    pub deleted: bool,
    /// The checkpoint file that has its state; none if no state was found.
    pub state_path: Option<String>,
    /// Where the state's tail lies in that file, bytes.
    pub tail_offset: u64,
    /// Whether the state puts blocks on disk, so that there is a META.
    pub has_blocks: bool,
    /// Whether the journal tells how it was made.
    pub created: bool,
    /// Oldest sequence that is left.
    pub head: u64,
    /// End, exclusive.
    pub end: u64,
    /// Epochs, each with the first sequence it could give.
    pub epochs: Vec<(u32, u64)>,
    /// Its segments, ascending.
    pub segments: Vec<PlannedSegment>,
    /// What the journal has, by first sequence; nothing twice.
    pub pieces: BTreeMap<u64, Piece>,
    /// Sequences that nothing tells of.
    pub gaps: Vec<SeqGap>,
    /// Sequences that lie in the cold store, by the manifest.
    pub cold: Vec<Range<u64>>,
    /// Whether more may have come behind all that anything tells of.
    pub end_unknown: bool,
    /// Oldest sequence that the journal's trims have left.
    trimmed: u64,
    /// End of what the state tells of, as far as it was not cut off since, and the time of its last event.
    state_end: (u64, u64),
    lsn: u64,
    replayed: bool,
}

impl Plan {
    /// Of a channel without a state.
    pub fn new(id: ChannelId) -> Self {
        Self {
            id,
            name: None,
            config: None,
            deleted: false,
            state_path: None,
            tail_offset: 0,
            has_blocks: false,
            created: false,
            head: 0,
            end: 0,
            epochs: Vec::new(),
            segments: Vec::new(),
            pieces: BTreeMap::new(),
            gaps: Vec::new(),
            cold: Vec::new(),
            end_unknown: false,
            trimmed: 0,
            state_end: (0, 0),
            lsn: 0,
            replayed: false,
        }
    }

    /// As a checkpoint file has it.
    pub fn of_state(state: &ChannelState, tail: StoredTail, path: &str) -> Self {
        let mut segments: Vec<_> = state
            .segments
            .iter()
            .map(|segment| PlannedSegment {
                end: segment.end,
                dat_size: u64::from(segment.dat_size),
                sealed: segment.sealed,
                stored_end: segment.end,
                tail_first: segment.end,
                ..PlannedSegment::in_journal(segment.first)
            })
            .collect();
        if let Some(active) = segments.last_mut().filter(|segment| !segment.sealed) {
            active.tail_first = active.end - u64::from(state.tail.record_count).min(active.end - active.first);
            active.tail_bytes = u64::from(state.tail.bytes_len);
            active.tail = tail;
        }
        Self {
            name: Some(state.name.clone()),
            config: Some(state.config.clone()),
            deleted: state.deleted,
            state_path: Some(path.to_owned()),
            tail_offset: state.tail.offset,
            has_blocks: state.has_blocks(),
            head: state.head,
            end: state.end,
            epochs: state.epochs.clone(),
            segments,
            state_end: (state.end, state.last_time_us),
            lsn: state.lsn,
            ..Self::new(ChannelId(state.id))
        }
    }

    /// Takes an entry of a commit that is about the channel.
    pub fn take(&mut self, commit: &SurveyedCommit, entry: &Entry<'_>, inline: Range<usize>) {
        let contained = commit.fields.lsn.0 < self.lsn;
        if !contained && !std::mem::replace(&mut self.replayed, true) {
            self.cut_pieces(self.end_known());
        }
        match entry {
            Entry::Events(events) => {
                let piece = Piece::new(commit, events, inline);
                self.cut_pieces(piece.first());
                if !contained {
                    self.events(events, commit);
                }
                self.pieces.insert(piece.first(), piece);
            }
            Entry::SuffixTruncated { end, .. } => {
                self.cut_pieces(end.0);
                if !contained {
                    self.cut_off(end.0, commit.fields.epoch);
                }
            }
            Entry::ChannelCreated { name, config, .. } if self.state_path.is_none() => {
                self.created = true;
                (self.name, self.config) = (Some((*name).to_owned()), Some(config.to_vec()));
            }
            Entry::ChannelConfigured { config, .. } if !contained => self.config = Some(config.to_vec()),
            Entry::ChannelDeleted { .. } if !contained => self.deleted = true,
            Entry::HeadTrimmed { head, .. } if !contained => {
                self.trimmed = self.trimmed.max(head.0);
                self.head = self.head.max(head.0);
            }
            _ => {}
        }
    }

    /// The journal has ended.
    pub fn finish(&mut self) {
        if !self.replayed {
            self.cut_pieces(self.end_known());
        }
        let head = self.head;
        self.segments.retain(|segment| segment.end > head);
        self.gaps.retain_mut(|gap| {
            gap.seqs.start = gap.seqs.start.max(head);
            !gap.seqs.is_empty()
        });
    }

    /// Up to where the state tells; without one there is no bound.
    fn end_known(&self) -> u64 {
        if self.state_path.is_some() { self.end } else { u64::MAX }
    }

    fn cut_pieces(&mut self, end: u64) {
        self.pieces.split_off(&end);
        if let Some(mut last) = self.pieces.last_entry() {
            last.get_mut().cut(end);
        }
    }

    fn events(&mut self, events: &EventsEntry<'_>, commit: &SurveyedCommit) {
        let (first, segment_first, end) = (events.fields.first.0, events.fields.segment_first.0, events.end().0);
        let is_new = self.end == 0 && self.segments.is_empty() && self.state_path.is_none();
        if is_new && (first == segment_first || !self.created) {
            // It was in memory before; or what comes before lies in files, or is lost.
            self.head = self.head.max(first);
        } else if first > self.end {
            let before_lsn = commit.fields.lsn.0;
            self.gaps.push(SeqGap { seqs: self.end..first, before_lsn });
        } else if first < self.end {
            self.cut_segments(first);
            self.cut_gaps(first);
        }
        if self.segments.last().is_none_or(|segment| segment.first != segment_first) {
            self.segments.push(PlannedSegment::in_journal(segment_first));
        }
        let segment = self.segments.last_mut().expect("just made sure of");
        segment.end = end;
        if self.epochs.last().is_none_or(|(last, _)| *last < commit.fields.epoch.0) {
            self.epochs.push((commit.fields.epoch.0, first));
        }
        self.end = end;
    }

    fn cut_segments(&mut self, end: u64) {
        self.segments.retain_mut(|segment| {
            // What lies on disk stays as it is.
            segment.end = segment.end.min(end);
            segment.first < end
        });
    }

    fn cut_gaps(&mut self, end: u64) {
        self.gaps.retain_mut(|gap| {
            gap.seqs.end = gap.seqs.end.min(end);
            !gap.seqs.is_empty()
        });
    }

    fn cut_off(&mut self, end: u64, epoch: Epoch) {
        self.cut_segments(end);
        self.cut_gaps(end);
        (self.end, self.head) = (end, self.head.min(end));
        (self.trimmed, self.state_end.0) = (self.trimmed.min(end), self.state_end.0.min(end));
        self.epochs.retain(|(_, first)| *first < end);
        self.epochs.push((epoch.0, end));
        self.segments.push(PlannedSegment::in_journal(end));
    }

    /// Commits below are contained in the state that it began with.
    pub fn state_lsn(&self) -> u64 {
        self.lsn
    }

    /// Whether nothing tells of it but its files, and entries of the journal that go on with what came before.
    pub fn is_of_files(&self) -> bool {
        self.state_path.is_none() && !self.created
    }

    /// With nothing but files, it begins where these, the cold store or the journal begin; a trim that the journal tells of holds.
    pub fn begin_by_files(&mut self) {
        let adopted = self.segments.iter().filter_map(|segment| segment.adopted.first());
        let starts = adopted.chain(&self.cold).map(|range| range.start);
        let first = starts.chain(self.pieces.keys().copied()).min();
        self.head = first.unwrap_or(self.head).max(self.trimmed);
    }

    /// LSN of the last commit that is known to have given it events, or of its state.
    pub fn last_lsn(&self) -> u64 {
        self.pieces.values().map(|piece| piece.lsn).fold(self.lsn, u64::max)
    }

    /// What the checkpoint's tail, if it could be read, or the journal says of an event that a segment may have in its blocks, too.
    pub fn known_record<'a>(
        &'a self,
        segment: Option<(&PlannedSegment, &'a Tail)>,
        seq: u64,
    ) -> Option<&'a IndexRecord> {
        let piece = || self.piece_of(seq).and_then(|piece| piece.record(seq));
        segment.and_then(|(segment, tail)| segment.tail_record(tail, seq)).or_else(piece)
    }

    /// Time of the last event below `end` whose time is known.
    pub fn time_before(&self, end: u64) -> u64 {
        let piece = self.pieces.range(..end).next_back().map(|(_, piece)| piece);
        let record = piece.and_then(|piece| piece.record(piece.end().min(end).checked_sub(1)?));
        let of_state = if end >= self.state_end.0 { self.state_end.1 } else { 0 };
        record.map_or(0, IndexRecord::time_us).max(of_state)
    }

    /// What of these sequences its blocks do not have either.
    pub fn not_adopted(&self, seqs: &Range<u64>) -> Vec<Range<u64>> {
        let (mut at, mut left) = (seqs.start, Vec::new());
        for adopted in self.segments.iter().flat_map(|segment| &segment.adopted) {
            left.push(at..adopted.start.min(seqs.end));
            at = at.max(adopted.end);
        }
        left.push(at..seqs.end);
        left.retain(|range| !range.is_empty());
        left
    }

    /// Whether the cold store has the segment that begins here.
    pub fn is_cold(&self, first: u64) -> bool {
        self.cold.iter().any(|cold| cold.start == first)
    }

    /// Whether a checkpoint has put an event on disk.
    pub fn is_stored(&self, seq: u64) -> bool {
        self.segments.iter().any(|segment| (segment.first..segment.stored_end.min(segment.end)).contains(&seq))
    }

    /// The piece that has an event.
    pub fn piece_of(&self, seq: u64) -> Option<&Piece> {
        let (_, piece) = self.pieces.range(..=seq).next_back()?;
        piece.record(seq).map(|_| piece)
    }
}
