//! The report of a rescue: data for programs, text for people.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::survey::Survey;
use crate::survey::finding::{FindingKind, Severity, StoreFinding};

/// Events that stand under these sequences in the new store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedRange {
    /// Sequences in the old store.
    pub from: Range<u64>,
    /// Sequences in the new one: as many, the same unless something behind them is lost.
    pub to: Range<u64>,
}

/// Events that are lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRange {
    /// Their sequences in the old store.
    pub events: Range<u64>,
    /// What kind of damage took them.
    pub kind: FindingKind,
    /// The file that is damaged, beneath the old directory.
    pub file: String,
    /// Where in it, bytes.
    pub offset: u64,
    /// What is wrong there: which checksum, which error of the system.
    pub cause: String,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SalvagedChannel {
    /// Its name in the new store.
    pub name: String,
    /// Its id in the old one, 16 hexadecimal digits.
    pub id: String,
    /// Whether nothing told its name, or a newer channel has it: then `name` is made from the id.
    pub name_lost: bool,
    /// Whether nothing told its settings: then they are the default.
    pub settings_lost: bool,
    /// Whether events may have come behind the last one that is known.
    pub end_unknown: bool,
    /// Sequence of its first event in the new store.
    pub head_seq: u64,
    /// Sequence of its next event in the new store.
    pub next_seq: u64,
    /// Events that were kept.
    pub events_kept: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// What was kept, and where it is: ascending.
    pub kept: Vec<MovedRange>,
    /// What is lost: ascending.
    pub lost: Vec<LostRange>,
    /// What lies in the cold store and was not copied.
    pub in_cold_store: Vec<Range<u64>>,
}

impl SalvagedChannel {
    /// Events that are lost.
    #[must_use]
    pub fn events_lost(&self) -> u64 {
        self.lost.iter().map(|lost| lost.events.end - lost.events.start).sum()
    }
}

/// What [`crate::salvage()`] did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The old directory.
    pub from: String,
    /// The new directory.
    pub to: String,
    /// Identity of the old store.
    pub uuid: String,
    /// The channels, in the order in which they were made.
    pub channels: Vec<SalvagedChannel>,
    /// Damage to what is no channel's events: STORE, journals, checkpoint files, META.
    pub damages: Vec<StoreFinding>,
}

impl SalvageReport {
    pub(crate) fn new(from: &Path, to: &Path, survey: &Survey) -> Self {
        let damages = survey.findings.iter().filter(|finding| finding.severity > Severity::Note);
        Self {
            from: from.display().to_string(),
            to: to.display().to_string(),
            uuid: survey.uuid.to_string(),
            channels: Vec::new(),
            damages: damages.cloned().collect(),
        }
    }

    pub(crate) fn add(&mut self, channel: SalvagedChannel) {
        self.channels.push(channel);
    }

    /// Whether every event that was is in the new store, as far as anything tells.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.channels.iter().all(|channel| channel.lost.is_empty() && channel.in_cold_store.is_empty())
            && !self.damages.iter().any(|damage| damage.severity == Severity::Loss)
    }

    /// Events that were kept.
    #[must_use]
    pub fn events_kept(&self) -> u64 {
        self.channels.iter().map(|channel| channel.events_kept).sum()
    }

    /// Events that are lost, as far as their number is known.
    #[must_use]
    pub fn events_lost(&self) -> u64 {
        self.channels.iter().map(SalvagedChannel::events_lost).sum()
    }
}

impl fmt::Display for SalvageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kept, lost) = (self.events_kept(), self.events_lost());
        writeln!(f, "store {} ({}) to {}: {kept} events kept, {lost} lost", self.from, self.uuid, self.to)?;
        self.damages.iter().try_for_each(|damage| writeln!(f, "{damage}"))?;
        self.channels.iter().try_for_each(|channel| write!(f, "{channel}"))
    }
}

impl fmt::Display for SalvagedChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, head_seq, next_seq, .. } = self;
        write!(f, "channel {name} ({id}): {} events kept, now {head_seq}..{next_seq}", self.events_kept)?;
        for (so, what) in [
            (self.name_lost, "its own name is lost"),
            (self.settings_lost, "its settings are lost"),
            (self.end_unknown, "more may have come behind them"),
        ] {
            if so {
                write!(f, "; {what}")?;
            }
        }
        writeln!(f)?;
        for MovedRange { from, to } in self.kept.iter().filter(|range| range.from != range.to) {
            writeln!(f, "  events {}..{} are {}..{} now", from.start, from.end, to.start, to.end)?;
        }
        for LostRange { events, file, offset, cause, .. } in &self.lost {
            writeln!(f, "  LOST: events {}..{}: {file} at byte {offset}: {cause}", events.start, events.end)?;
        }
        for events in &self.in_cold_store {
            writeln!(f, "  events {}..{} lie in the cold store and were not copied", events.start, events.end)?;
        }
        Ok(())
    }
}
