//! One thing that is wrong, or worth a word, in a store that nobody has open: as data and as text.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ids::ChannelId;

/// What a finding means for the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Severity {
    /// No damage: something that a person may want to know.
    Note,
    /// Damage to what exists a second time, or can be made again: no event is lost, and the store opens.
    Redundant,
    /// Damage to events, or to what the store needs to open.
    Loss,
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A copy of STORE is bad.
    StoreCopy,
    /// No copy of STORE is good, or it is missing.
    Store,
    /// A channel's META is bad or missing.
    Meta,
    /// The header of a journal segment that is needed is bad.
    JournalHeader,
    /// A journal segment that is needed is missing.
    JournalMissing,
    /// A commit that was durable is bad.
    JournalCommit,
    /// A payload in a commit that was durable is bad.
    JournalPayload,
    /// A payload that a durable commit wrote straight to dat is bad.
    JournalExtent,
    /// A checkpoint file that is needed is missing.
    CheckpointMissing,
    /// The header of a checkpoint file is bad.
    CheckpointHeader,
    /// A channel's state in a checkpoint file is bad.
    CheckpointState,
    /// The records and bytes of a channel that fill no block are bad in a checkpoint file.
    CheckpointTail,
    /// A file of a segment is missing.
    SegmentMissing,
    /// A file of a segment is shorter than it was.
    SegmentShort,
    /// An index block is bad.
    IndexBlock,
    /// An index record in a good block makes no sense.
    Record,
    /// A payload is not what its record says.
    Payload,
    /// The footer of a sealed segment is bad.
    Footer,
    /// A time block of a sealed segment is bad.
    TimeBlock,
    /// An event is earlier than the one before it.
    TimeBackwards,
    /// Sequences are missing between two parts of a channel.
    SequenceGap,
    /// The epochs of a channel are not in order, or above the store's.
    Epochs,
    /// The manifest of a channel's cold segments is bad.
    ColdManifest,
    /// The device does not give the bytes.
    Unreadable,
    /// Newer software wrote it.
    Newer,
    /// Opening the store would fail for this reason.
    WouldNotOpen,
    /// The journal ends in a commit that a crash cut off, and that nobody was told of.
    TornTail,
    /// A file that a crash left behind; an opening removes it.
    Leftover,
    /// A file that is not the store's.
    UnknownFile,
}

impl FindingKind {
    /// What to do about it.
    #[must_use]
    pub fn advice(self, severity: Severity) -> &'static str {
        match (self, severity) {
            (Self::TornTail, _) => "nothing: the next open cuts it off",
            (Self::Leftover, _) => "nothing: an open removes it",
            (Self::UnknownFile, _) => "look what it is, and move it away if nobody needs it",
            (Self::Newer, _) => "use the software that wrote it, or a later one",
            (Self::Unreadable, _) => {
                "try again when the device answers; if it never does, salvage or restore from a copy"
            }
            (Self::StoreCopy, _) => "open and close the store: both copies are written then",
            (Self::TimeBlock, _) => "nothing is lost, searches by time are slower; salvage to have it whole again",
            (Self::ColdManifest, _) => "open the store with its cold store: the manifest is made again from a listing",
            (Self::JournalCommit | Self::JournalPayload, Severity::Redundant) => {
                "nothing: the store was closed, and the next open begins a new journal"
            }
            (_, Severity::Note) => "nothing",
            (_, Severity::Redundant) => "nothing is lost; restore this file from a copy, or salvage",
            (_, Severity::Loss) => {
                "keep the directory as it is; restore the store from a copy, or salvage what is intact to a new directory"
            }
        }
    }
}

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FoundChannel {
    /// Its id, 16 hexadecimal digits, as in its directory's name.
    pub id: String,
    /// Its name, if anything tells it.
    pub name: Option<String>,
}

impl FoundChannel {
    /// A channel.
    pub(crate) fn new(id: ChannelId, name: Option<&str>) -> Self {
        Self { id: id.to_string(), name: name.map(str::to_owned) }
    }
}

impl fmt::Display for FoundChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "channel {name}"),
            None => write!(f, "channel {} (its name is lost)", self.id),
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreFinding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// What it means for the data.
    pub severity: Severity,
    /// Which file, beneath the base directory.
    pub file: String,
    /// Where in it, bytes.
    pub offset: u64,
    /// Whose it is, where it is one channel's.
    pub channel: Option<FoundChannel>,
    /// The events that cannot be read for it, as far as is known; none if there are none.
    pub events: Option<Range<u64>>,
    /// What is wrong: which checksum, which field, which error of the system.
    pub cause: String,
    /// What to do about it.
    pub advice: String,
}

impl StoreFinding {
    /// A finding about a place.
    pub(crate) fn new(
        kind: FindingKind,
        severity: Severity,
        file: &str,
        offset: u64,
        cause: impl fmt::Display,
    ) -> Self {
        Self {
            kind,
            severity,
            file: file.to_owned(),
            offset,
            channel: None,
            events: None,
            cause: cause.to_string(),
            advice: kind.advice(severity).to_owned(),
        }
    }

    /// Damage that loses something.
    pub(crate) fn loss(kind: FindingKind, file: &str, offset: u64, cause: impl fmt::Display) -> Self {
        Self::new(kind, Severity::Loss, file, offset, cause)
    }

    /// Something that is no damage.
    pub(crate) fn note(kind: FindingKind, file: &str, cause: impl fmt::Display) -> Self {
        Self::new(kind, Severity::Note, file, 0, cause)
    }

    /// Of this channel.
    pub(crate) fn of(mut self, channel: &FoundChannel) -> Self {
        self.channel = Some(channel.clone());
        self
    }

    /// With these events, which are lost for it.
    pub(crate) fn losing(mut self, events: Range<u64>) -> Self {
        self.events = (!events.is_empty()).then_some(events);
        self
    }

    /// It is about events that are trimmed or cut off, and nothing else.
    pub(crate) fn of_no_event(mut self) -> Self {
        self.cause += "; none of the events that are left lies there";
        (self.severity, self.events) = (Severity::Redundant, None);
        self.advice = self.kind.advice(self.severity).to_owned();
        self
    }

    /// Whether another one is the same thing, of the events that follow in the same file.
    pub(crate) fn is_continued_by(&self, next: &Self) -> bool {
        let (Some(events), Some(behind)) = (&self.events, &next.events) else { return false };
        let same = (self.kind, self.severity) == (next.kind, next.severity);
        same && self.file == next.file && self.channel == next.channel && events.end == behind.start
    }
}

impl fmt::Display for StoreFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Redundant => "damage without loss",
            Severity::Loss => "DAMAGE",
        };
        write!(f, "{severity}: {} at byte {}", self.file, self.offset)?;
        if let Some(channel) = &self.channel {
            write!(f, ", {channel}")?;
        }
        if let Some(events) = &self.events {
            write!(f, ", events {}..{}", events.start, events.end)?;
        }
        write!(f, ": {}; {}", self.cause, self.advice)
    }
}
