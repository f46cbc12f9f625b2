//! Why events of a channel are not there: what the survey has found, and what the walk through the channel finds.
//!
//! The walk goes through the sequences once, and so do the causes: one that lies behind is dropped, and events that follow each other
//! and are lost for the same cause are one. So a segment whose every payload is gone costs one cause, not one an event.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use crate::ids::ChannelId;
use crate::survey::Survey;
use crate::survey::finding::StoreFinding;

/// What the survey has found of events, by channel.
#[derive(Debug, Default)]
pub struct KnownLosses(HashMap<String, Vec<StoreFinding>>);

impl KnownLosses {
    /// All of a store.
    pub fn of(survey: &Survey) -> Self {
        let mut by_channel: HashMap<String, Vec<StoreFinding>> = HashMap::new();
        for finding in survey.gap_findings().into_iter().chain(survey.findings.iter().cloned()) {
            if let (Some(channel), Some(_)) = (&finding.channel, &finding.events) {
                by_channel.entry(channel.id.clone()).or_default().push(finding);
            }
        }
        by_channel.values_mut().for_each(|findings| findings.sort_by_key(start));
        Self(by_channel)
    }

    /// Those of a channel.
    pub fn of_channel(&self, channel: ChannelId) -> Causes {
        let mut causes = Causes::default();
        causes.known.extend(self.0.get(&channel.to_string()).into_iter().flatten().cloned());
        causes
    }
}

/// The causes that are not behind yet.
#[derive(Debug, Default)]
pub struct Causes {
    /// What was known before, by where it begins.
    known: VecDeque<StoreFinding>,
    /// What the walk has found, in its order.
    found: VecDeque<StoreFinding>,
    /// Causes that were looked at.
    #[cfg(test)]
    looks: u64,
}

fn start(finding: &StoreFinding) -> u64 {
    finding.events.as_ref().map_or(0, |events| events.start)
}

fn end(finding: &StoreFinding) -> u64 {
    finding.events.as_ref().map_or(0, |events| events.end)
}

impl Causes {
    /// The walk has found one.
    pub fn add(&mut self, finding: StoreFinding) {
        match self.found.back_mut().filter(|last| last.is_continued_by(&finding)) {
            Some(last) => last.events = Some(start(last)..end(&finding)),
            None => self.found.push_back(finding),
        }
    }

    /// The cause for an event: what the walk has found before what was known. Sequences only go up from call to call.
    pub fn of_event(&mut self, seq: u64) -> Option<&StoreFinding> {
        for causes in [&mut self.found, &mut self.known] {
            while causes.front().is_some_and(|cause| end(cause) <= seq) {
                causes.pop_front();
                #[cfg(test)]
                (self.looks += 1);
            }
        }
        let covers = |cause: &&StoreFinding| start(cause) <= seq && seq < end(cause);
        let begun = |causes: &VecDeque<StoreFinding>| causes.partition_point(|cause| start(cause) <= seq);
        let found = self.found.range(..begun(&self.found)).rev().find(covers);
        found.or_else(|| self.known.range(..begun(&self.known)).rev().find(covers))
    }

    /// Where the next cause begins behind an event that has none.
    pub fn next_start(&self, behind: Range<u64>) -> u64 {
        let starts = [&self.found, &self.known].map(|causes| {
            let at = causes.partition_point(|cause| start(cause) <= behind.start);
            causes.get(at).map_or(behind.end, start)
        });
        starts[0].min(starts[1]).min(behind.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::finding::FindingKind;

    fn lost(kind: FindingKind, events: Range<u64>) -> StoreFinding {
        StoreFinding::loss(kind, "a.dat", 0, "it is gone").losing(events)
    }

    /// A file with all payloads is gone: a third of a million events, one cause.
    #[test]
    fn events_that_are_lost_for_one_cause_are_one() {
        let mut causes = Causes::default();
        (0..300_000).for_each(|seq| causes.add(lost(FindingKind::SegmentMissing, seq..seq + 1)));
        assert_eq!(causes.found.len(), 1);
        assert_eq!(causes.of_event(0).and_then(|cause| cause.events.clone()), Some(0..300_000));
    }

    /// Causes of two kinds in turn: each is looked at once, and none stays.
    #[test]
    fn causes_that_lie_behind_are_dropped() {
        let mut causes = Causes::default();
        let kinds = [FindingKind::Payload, FindingKind::Record];
        (0..300_000_u64).for_each(|seq| causes.add(lost(kinds[(seq % 2) as usize], seq..seq + 1)));
        causes.known.push_back(lost(FindingKind::SequenceGap, 299_999..300_010));
        for seq in 0..300_000_u64 {
            assert_eq!(causes.of_event(seq).map(|cause| cause.kind), Some(kinds[(seq % 2) as usize]));
        }
        assert!(causes.looks <= 300_000 && causes.found.len() == 1, "{}", causes.looks);
        assert_eq!(causes.of_event(300_001).map(|cause| cause.kind), Some(FindingKind::SequenceGap));
        assert_eq!(causes.of_event(300_010), None);
        assert_eq!(causes.next_start(300_010..300_020), 300_020);
    }
}
