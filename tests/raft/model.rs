//! What a group's log should keep, and what Raft may ask of it next.

use std::ops::Range;

use openraft::EntryPayload;
use openraft::testing::log_id;

use super::Types;
use super::log::{Entry, LogId, Marks, Vote};

/// Numbers that look random, from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// What Raft asks of a log.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Vote(Vote),
    Append(Vec<Entry>),
    Commit(LogId),
    /// A new leader has other entries from here on.
    Truncate(Option<LogId>),
    Purge(LogId),
    /// A snapshot covers more than the log has.
    PurgeBeyond(LogId),
}

impl Operation {
    pub(crate) const NAMES: [&str; 6] = ["vote", "append", "commit", "truncate", "purge", "purge beyond"];

    /// Its place among the names.
    pub(crate) fn kind(&self) -> usize {
        match self {
            Self::Vote(_) => 0,
            Self::Append(_) => 1,
            Self::Commit(_) => 2,
            Self::Truncate(_) => 3,
            Self::Purge(_) => 4,
            Self::PurgeBeyond(_) => 5,
        }
    }
}

/// All that is to be there.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Model {
    pub marks: Marks,
    pub last: Option<LogId>,
    pub entries: Vec<Entry>,
}

impl std::fmt::Debug for Model {
    /// In one line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let index = |id: &Option<LogId>| id.as_ref().map(|id| (id.leader_id.term, id.index));
        let len = |entry: &Entry| match &entry.payload {
            EntryPayload::Normal(command) => command.len(),
            _ => 0,
        };
        let entry = |entry: &Entry| format!("{}.{}:{}", entry.log_id.leader_id.term, entry.log_id.index, len(entry));
        let entries: Vec<String> = self.entries.iter().map(entry).collect();
        let Marks { vote, committed, purged } = &self.marks;
        let vote = vote.as_ref().map(|vote| (vote.leader_id.term, vote.leader_id.node_id));
        let (committed, purged, last) = (index(committed), index(purged), index(&self.last));
        write!(f, "vote {vote:?} committed {committed:?} purged {purged:?} last {last:?} {}", entries.join(" "))
    }
}

impl Model {
    /// An operation that Raft may ask for now.
    pub(crate) fn next(&self, random: &mut Random) -> Operation {
        let term = self.marks.vote.map_or(0, |vote| vote.leader_id.term);
        let next = self.last.map_or(0, |last| last.index + 1);
        let committed = self.marks.committed.map_or(0, |committed| committed.index + 1);
        let chosen = match random.below(16) {
            0..3 => Some(Operation::Vote(Vote::new(term + 1, random.below(3)))),
            3 | 4 => self.entry(committed..u64::MAX, random).map(Operation::Commit),
            5 | 6 => self.entry(committed..u64::MAX, random).map(|first| Operation::Truncate(self.before(first))),
            7 | 8 => self.entry(0..committed, random).map(Operation::Purge),
            9 if random.below(2) == 0 => Some(Operation::PurgeBeyond(log_id::<Types>(term, 0, next + random.below(5)))),
            _ => None,
        };
        chosen.unwrap_or_else(|| append(term, next, random))
    }

    /// Some entry of these indexes.
    fn entry(&self, indexes: Range<u64>, random: &mut Random) -> Option<LogId> {
        let ids = self.entries.iter().map(|entry| entry.log_id);
        let there: Vec<LogId> = ids.filter(|id| indexes.contains(&id.index)).collect();
        (!there.is_empty()).then(|| there[random.below(there.len() as u64) as usize])
    }

    /// What lies before an entry.
    fn before(&self, entry: LogId) -> Option<LogId> {
        let ids = self.entries.iter().map(|entry| entry.log_id);
        ids.take_while(|id| id.index < entry.index).last().or(self.marks.purged)
    }

    /// The model after an operation.
    pub(crate) fn after(&self, operation: &Operation) -> Self {
        let mut after = self.clone();
        match operation {
            Operation::Vote(vote) => after.marks.vote = Some(*vote),
            Operation::Append(entries) => after.entries.extend_from_slice(entries),
            Operation::Commit(id) => after.marks.committed = Some(*id),
            Operation::Truncate(last) => {
                let end = last.as_ref().map_or(0, |last| last.index + 1);
                after.entries.retain(|entry| entry.log_id.index < end);
            }
            Operation::Purge(id) | Operation::PurgeBeyond(id) => {
                after.marks.purged = Some(*id);
                after.entries.retain(|entry| entry.log_id.index > id.index);
            }
        }
        after.last = after.entries.last().map(|entry| entry.log_id).or(after.marks.purged);
        after
    }
}

fn append(term: u64, next: u64, random: &mut Random) -> Operation {
    let entry = |index: u64, random: &mut Random| {
        let len = [0, 5, 100, 1000, 6000][random.below(5) as usize] as usize;
        let command = format!("{index:0len$}");
        Entry { log_id: log_id::<Types>(term, 0, index), payload: EntryPayload::Normal(command) }
    };
    let count = 1 + random.below(4);
    Operation::Append((next..next + count).map(|index| entry(index, random)).collect())
}
