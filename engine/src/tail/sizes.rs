//! What a tail holds in memory: for its channel's statistics.

use super::Tail;
use crate::ids::Seq;

/// What lies in a tail's pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailSize {
    /// Pages.
    pub pages: u64,
    /// Memory that they take, bytes.
    pub bytes: u64,
    /// First sequence of each segment that has a page here, ascending, and where its published bytes end in dat. Without pages
    /// the one in which the channel goes on.
    pub dat_ends: Vec<(Seq, u32)>,
}

impl Tail {
    /// What lies in memory.
    pub fn size(&self) -> TailSize {
        let mut size = TailSize::default();
        let chain = self.chain.lock().expect("no panic while the lock is held");
        for page in &*chain {
            let start = page.start();
            size.pages += 1;
            size.bytes += page.size().cost() as u64;
            let end = start.dat_start + page.published_len() as u32;
            match size.dat_ends.last_mut().filter(|(first, _)| *first == start.segment_first) {
                // A page without events yet begins at a block, behind the end.
                Some(last) if page.published_len() > 0 => last.1 = end,
                Some(_) => {}
                None => size.dat_ends.push((start.segment_first, end)),
            }
        }
        drop(chain);
        if size.pages == 0 {
            let growth = self.grow.lock().expect("no panic while the lock is held");
            size.dat_ends.push((growth.origin.segment_first, growth.origin.dat_size));
        }
        size
    }

    /// Time of the last event before the tail began; 0 if there was none.
    pub fn time_before(&self) -> u64 {
        self.grow.lock().expect("no panic while the lock is held").origin.last_time_us
    }
}
