//! The log of a drive: every write, when it was answered, and every flush, in the order in which the drive saw them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One thing that the drive saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// A write.
    Write {
        /// Where, bytes.
        offset: u64,
        /// What.
        data: Arc<[u8]>,
        /// Whether its answer came later; then an [`Entry::Answered`] says when. Otherwise it came at once.
        is_held: bool,
    },
    /// A held write was answered.
    Answered {
        /// Its place in the log.
        write: usize,
    },
    /// A flush: every write that was answered before it is durable once it is done.
    Flush,
}

/// A flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flush {
    /// The position just before it.
    pub position: usize,
    /// Writes that a power cut there may take.
    pub uncovered: usize,
}

/// All that a drive saw. A position in it is a number of entries: a power cut at `n` comes after the first `n`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Log {
    entries: Vec<Entry>,
}

impl Log {
    /// Appends an entry, and returns its place.
    pub fn push(&mut self, entry: Entry) -> usize {
        self.entries.push(entry);
        self.entries.len() - 1
    }

    /// The position behind the newest entry.
    #[must_use]
    pub fn position(&self) -> usize {
        self.entries.len()
    }

    /// The entries before a position; all, if there are fewer.
    #[must_use]
    pub fn before(&self, position: usize) -> &[Entry] {
        &self.entries[..position.min(self.entries.len())]
    }

    /// All flushes: where the most is at stake.
    #[must_use]
    pub fn flushes(&self) -> Vec<Flush> {
        let (mut flushes, mut uncovered, mut answered) = (Vec::new(), 0, 0);
        for (position, entry) in self.entries.iter().enumerate() {
            match entry {
                Entry::Write { is_held, .. } => {
                    uncovered += 1;
                    answered += usize::from(!is_held);
                }
                Entry::Answered { .. } => answered += 1,
                Entry::Flush => {
                    flushes.push(Flush { position, uncovered });
                    uncovered -= answered;
                    answered = 0;
                }
            }
        }
        flushes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_knows_what_is_at_stake_before_it() {
        let mut log = Log::default();
        let write = |is_held| Entry::Write { offset: 0, data: Arc::from([1; 512]), is_held };
        log.push(write(false));
        let held = log.push(write(true));
        log.push(Entry::Flush);
        log.push(Entry::Answered { write: held });
        log.push(write(false));
        log.push(Entry::Flush);
        log.push(Entry::Flush);
        let at = |position, uncovered| Flush { position, uncovered };
        assert_eq!(log.flushes(), [at(2, 2), at(5, 2), at(6, 0)]);
    }
}
