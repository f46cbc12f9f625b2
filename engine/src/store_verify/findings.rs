//! Findings of a check: all are counted, the worst are listed.

use crate::survey::finding::{Severity, StoreFinding};

/// See the module's text.
#[derive(Debug)]
pub struct Findings {
    /// How many are listed at the most.
    listed_max: usize,
    /// Losses, damage without a loss, notes: each in the order in which they were found.
    listed: [Vec<StoreFinding>; 3],
    /// How many there were, neighbours as one.
    counts: [u64; 3],
    events_lost: u64,
}

fn rank(severity: Severity) -> usize {
    match severity {
        Severity::Loss => 0,
        Severity::Redundant => 1,
        Severity::Note => 2,
    }
}

impl Findings {
    /// None yet.
    pub fn new(listed_max: usize) -> Self {
        Self { listed_max, listed: [const { Vec::new() }; 3], counts: [0; 3], events_lost: 0 }
    }

    /// Takes one. A worse one takes the place of one that is less bad.
    pub fn add(&mut self, finding: StoreFinding) {
        self.events_lost += finding.events.as_ref().map_or(0, |events| events.end - events.start);
        let rank = rank(finding.severity);
        if let Some(last) = self.listed[rank].last_mut().filter(|last| last.is_continued_by(&finding)) {
            if let (Some(events), Some(behind)) = (last.events.as_mut(), finding.events) {
                events.end = behind.end;
            }
            return;
        }
        self.counts[rank] += 1;
        let listed: usize = self.listed.iter().map(Vec::len).sum();
        if listed < self.listed_max || self.listed[rank + 1..].iter_mut().rev().any(|less| less.pop().is_some()) {
            self.listed[rank].push(finding);
        }
    }

    /// Takes those of a part.
    pub fn take(&mut self, part: Self) {
        let listed = part.listed.each_ref().map(|listed| listed.len() as u64);
        let of_listed: u64 = part.listed.iter().flatten().filter_map(|found| found.events.as_ref()).map(length).sum();
        for (rank, listed) in listed.iter().enumerate() {
            self.counts[rank] += part.counts[rank] - listed;
        }
        self.events_lost += part.events_lost - of_listed;
        part.listed.into_iter().flatten().for_each(|finding| self.add(finding));
    }

    /// Findings that are losses, damage without a loss, notes.
    pub fn counts(&self) -> [u64; 3] {
        self.counts
    }

    /// Findings that are damage.
    pub fn damages(&self) -> u64 {
        self.counts[0] + self.counts[1]
    }

    /// Events that are damaged or gone.
    pub fn events_lost(&self) -> u64 {
        self.events_lost
    }

    /// The worst first; within, as they were found.
    pub fn into_list(self) -> Vec<StoreFinding> {
        self.listed.into_iter().flatten().collect()
    }
}

fn length(events: &std::ops::Range<u64>) -> u64 {
    events.end - events.start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::finding::FindingKind;

    fn lost(seq: u64) -> StoreFinding {
        StoreFinding::loss(FindingKind::Payload, "a.dat", 0, "bad").losing(seq..seq + 1)
    }

    fn note(number: u64) -> StoreFinding {
        StoreFinding::note(FindingKind::UnknownFile, &format!("{number}"), "whose is it")
    }

    /// However many notes came before it, a loss is listed; and all are counted.
    #[test]
    fn notes_hide_no_loss() {
        let mut findings = Findings::new(10);
        (0..1000).for_each(|number| findings.add(note(number)));
        (0..3).for_each(|seq| findings.add(lost(seq * 2)));
        assert_eq!((findings.counts(), findings.events_lost()), ([3, 0, 1000], 3));
        let listed = findings.into_list();
        assert!(listed.len() == 10 && listed[..3].iter().all(|found| found.severity == Severity::Loss));
        assert_eq!(listed[3].file, "0");
    }

    /// Of a million that are no neighbours, a few are kept; of neighbours one.
    #[test]
    fn a_list_stays_short() {
        let mut whole = Findings::new(10);
        for part in 0..3 {
            let mut findings = Findings::new(4);
            (0..100_000).for_each(|seq| findings.add(lost(part * 1_000_000 + seq * 2)));
            assert!(findings.listed.iter().map(Vec::len).sum::<usize>() == 4);
            whole.take(findings);
        }
        assert_eq!((whole.counts(), whole.events_lost()), ([300_000, 0, 0], 300_000));
        assert_eq!(whole.into_list().len(), 10);
        let mut neighbours = Findings::new(10);
        (0..100_000).for_each(|seq| neighbours.add(lost(seq)));
        assert_eq!((neighbours.counts(), neighbours.into_list().len()), ([1, 0, 0], 1));
    }
}
