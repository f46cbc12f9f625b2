//! The report of a check: data for programs, text for people.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::findings::Findings;
use crate::survey::Survey;
use crate::survey::finding::{Severity, StoreFinding};

/// Findings that a report lists.
pub(super) const FINDINGS_MAX: usize = 10_000;

/// What [`crate::verify()`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreReport {
    /// Base directory.
    pub store: String,
    /// Identity of the store.
    pub uuid: String,
    /// Its latest epoch.
    pub epoch: u32,
    /// Whether it was closed, and not left by a crash.
    pub closed: bool,
    /// Its shards.
    pub shards: u64,
    /// Its channels, deleted ones not among them.
    pub channels: u64,
    /// Journal segments that were read.
    pub journal_segments: u64,
    /// Checkpoint files that were read.
    pub checkpoint_files: u64,
    /// Segments whose files were read.
    pub segments: u64,
    /// Events that are whole.
    pub events: u64,
    /// Events that are damaged or gone, as far as their number is known.
    pub events_lost: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// How long it took, microseconds.
    pub elapsed_us: u64,
    /// Findings that are losses.
    pub losses: u64,
    /// Findings that are damage without a loss.
    pub redundant: u64,
    /// Findings that are no damage.
    pub notes: u64,
    /// The findings, neighbours as one, the worst first: ten thousand at the most, and a thousand of one segment.
    pub findings: Vec<StoreFinding>,
}

impl StoreReport {
    pub(crate) fn new(base: &Path, survey: &Survey) -> Self {
        let closed =
            |store: &crate::store::superblock::Superblock| store.shards.iter().all(|root| root.clean.is_some());
        Self {
            store: base.display().to_string(),
            uuid: survey.uuid.to_string(),
            epoch: survey.epoch.0,
            closed: survey.store.as_ref().is_some_and(closed),
            shards: survey.shards.len() as u64,
            channels: survey.channels.iter().filter(|(_, plan)| !plan.deleted).count() as u64,
            journal_segments: survey.journal_segments,
            checkpoint_files: survey.checkpoint_files,
            bytes: survey.bytes,
            ..Self::default()
        }
    }

    /// Whether nothing is damaged. Notes are no damage.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.losses == 0 && self.redundant == 0
    }

    /// The findings that are damage.
    pub fn damages(&self) -> impl Iterator<Item = &StoreFinding> {
        self.findings.iter().filter(|finding| finding.severity > Severity::Note)
    }

    pub(crate) fn finish(&mut self, findings: Findings, elapsed: Duration) {
        self.elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        [self.losses, self.redundant, self.notes] = findings.counts();
        self.events_lost = findings.events_lost();
        self.findings = findings.into_list();
    }
}

impl fmt::Display for StoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.losses, self.redundant) {
            (0, 0) => "clean",
            (0, _) => "damaged, nothing is lost",
            _ => "DAMAGED",
        };
        let closed = if self.closed { "closed" } else { "not closed: the next open recovers it" };
        writeln!(f, "store {} ({}), epoch {}, {closed}: {verdict}", self.store, self.uuid, self.epoch)?;
        let mib_per_s = self.bytes as f64 / 1_048_576.0 / (self.elapsed_us.max(1) as f64 / 1e6);
        writeln!(
            f,
            "{} channels, {} shards; {} segments, {} journal segments, {} checkpoint files; {} events whole, {} lost; \
             {} bytes in {} ms ({mib_per_s:.0} MiB/s)",
            self.channels,
            self.shards,
            self.segments,
            self.journal_segments,
            self.checkpoint_files,
            self.events,
            self.events_lost,
            self.bytes,
            self.elapsed_us / 1000,
        )?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        let unlisted = self.losses + self.redundant + self.notes - self.findings.len() as u64;
        if unlisted > 0 {
            writeln!(f, "and {unlisted} findings more")?;
        }
        Ok(())
    }
}
