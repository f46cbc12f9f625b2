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

    /// Positions just before each flush: where the most is at stake.
    #[must_use]
    pub fn flushes(&self) -> Vec<usize> {
        let is_flush = |(place, entry): (usize, &Entry)| matches!(entry, Entry::Flush).then_some(place);
        self.entries.iter().enumerate().filter_map(is_flush).collect()
    }
}
