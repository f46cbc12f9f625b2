//! The checkpoint files in use, and which of their entries the next one takes along.
//!
//! Every checkpoint adds a file. A file goes when none of its entries is its channel's newest, and two bounds see to it
//! that files go as fast as they come, whatever the number of channels:
//!
//! - their *number*: above [`CheckpointLimits::files_max`], whole files move along, those with the fewest living entries first. The share that
//!   may move grows with the number of files, while the smallest file shrinks: with `n` channels the number stays at
//!   about the root of `n / 512` (45 for a million), since from there on the smallest file always fits the share.
//! - their *size*: when the dead entries are the greater part, living ones of the oldest file move along, a share each time
//!   (design D5).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::checkpoint::{Known, Located};
use crate::ids::{ChannelId, CheckpointNo};
use crate::options::CheckpointLimits;
use crate::store::checkpoint::ChannelState;

/// A file in use.
#[derive(Debug)]
pub struct CheckpointFile {
    /// Its number.
    pub number: CheckpointNo,
    /// Channels that it has entries of.
    pub channels: Vec<ChannelId>,
    /// How many of those are their channels' newest.
    pub live: usize,
    /// Whether some of those do not load: it stays until they have newer ones, and nothing of it moves along.
    pub stays: bool,
}

/// The files in use, oldest first.
#[derive(Debug)]
pub struct CheckpointFiles {
    /// The files.
    pub files: Vec<CheckpointFile>,
    /// Number of the next one.
    pub next: CheckpointNo,
    /// When entries move.
    pub limits: CheckpointLimits,
}

impl CheckpointFiles {
    /// The entries that should move along into a file that has the `fresh` channels, file by file. Files that stay anyway
    /// come on top of the bounds.
    pub fn to_move(&self, known: &Known, fresh: &HashSet<ChannelId>) -> Vec<Located> {
        let mut left = self.live_without(known, fresh.iter().copied());
        left.retain(|_, live| *live > 0);
        for file in self.files.iter().filter(|file| file.stays) {
            left.remove(&file.number);
        }
        // As many as there are new ones never are too many: what is written then only doubles.
        let mut share = fresh.len().max(self.limits.moved_per_file * self.files.len().max(self.limits.files_max));
        let mut whole: Vec<(usize, CheckpointNo)> = left.iter().map(|(number, live)| (*live, *number)).collect();
        whole.sort_unstable();
        // The new one counts too.
        whole.truncate((left.len() + 1).saturating_sub(self.limits.files_max));
        let mut moved = Vec::new();
        for (live, number) in whole {
            if live > share {
                break;
            }
            share -= live;
            left.remove(&number);
            moved.extend(self.movable(number, known, fresh));
        }
        if let Some(oldest) = self.files.iter().find(|file| left.contains_key(&file.number))
            && self.is_mostly_dead(&left)
        {
            moved.extend(self.movable(oldest.number, known, fresh).take(share));
        }
        moved
    }

    /// An entry of this file does not load.
    pub fn keep(&mut self, number: CheckpointNo) {
        for file in self.files.iter_mut().filter(|file| file.number == number) {
            file.stays = true;
        }
    }

    /// Newest entries that a file has, but for those of `fresh` channels.
    fn movable<'a>(
        &'a self,
        number: CheckpointNo,
        known: &'a Known,
        fresh: &'a HashSet<ChannelId>,
    ) -> impl Iterator<Item = Located> + 'a {
        self.living(number, known).filter(|channel| !fresh.contains(channel)).map(|channel| known[&channel].clone())
    }

    /// Whether the files that are `left` have more dead entries than living ones.
    fn is_mostly_dead(&self, left: &HashMap<CheckpointNo, usize>) -> bool {
        let files = self.files.iter().filter(|file| left.contains_key(&file.number));
        let entries: usize = files.map(|file| file.channels.len()).sum();
        entries > 2 * left.values().sum::<usize>() + self.limits.dead_entries_max
    }

    /// Channels whose newest entry a file has.
    fn living<'a>(&'a self, number: CheckpointNo, known: &'a Known) -> impl Iterator<Item = ChannelId> + 'a {
        let file = self.files.iter().find(|file| file.number == number).expect("it is in use");
        let lives = move |channel: &ChannelId| known.get(channel).is_some_and(|located| located.file == number);
        file.channels.iter().copied().filter(lives)
    }

    /// How many living entries each file has once the newest of these channels are elsewhere.
    fn live_without(&self, known: &Known, channels: impl Iterator<Item = ChannelId>) -> HashMap<CheckpointNo, usize> {
        let mut left: HashMap<_, _> = self.files.iter().map(|file| (file.number, file.live)).collect();
        for channel in channels {
            if let Some(live) = known.get(&channel).and_then(|located| left.get_mut(&located.file)) {
                *live -= 1;
            }
        }
        left
    }

    /// The files that will be in use with a new one that has entries of these channels.
    pub fn after(
        &self,
        known: &Known,
        number: CheckpointNo,
        channels: impl Iterator<Item = ChannelId>,
    ) -> Vec<CheckpointNo> {
        let left = self.live_without(known, channels);
        let older = self.files.iter().map(|file| file.number);
        older.filter(|number| left[number] > 0).chain([number]).collect()
    }

    /// Takes in a new file with these entries, each its channel's newest from now on. Gives the files that have none any
    /// more: they are forgotten.
    pub fn take_in(
        &mut self,
        known: &mut Known,
        number: CheckpointNo,
        states: impl Iterator<Item = ChannelState>,
    ) -> Vec<CheckpointNo> {
        let mut channels = Vec::new();
        for state in states {
            let id = ChannelId(state.id);
            channels.push(id);
            if let Some(before) = known.insert(id, Located { state: Arc::new(state), file: number }) {
                let file = self.files.iter_mut().find(|file| file.number == before.file);
                file.expect("the file of a known entry is in use").live -= 1;
            }
        }
        let live = channels.len();
        let dropped = self.files.extract_if(.., |file| file.live == 0).map(|file| file.number).collect();
        self.files.push(CheckpointFile { number, channels, live, stays: false });
        self.forget_tombstones(known);
        dropped
    }

    /// A deleted channel is remembered as long as an older file may have an entry of it: none is older than the oldest.
    fn forget_tombstones(&mut self, known: &mut Known) {
        let Some(oldest) = self.files.first_mut() else { return };
        for channel in &oldest.channels {
            if known.get(channel).is_some_and(|located| located.file == oldest.number && located.state.deleted) {
                known.remove(channel);
                oldest.live -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CheckpointLimits =
        CheckpointLimits { files_max: 16, dead_entries_max: 1024, moved_per_file: 512, flushed_beside: 64 };

    /// Checkpoints as a shard takes them, of channels that a rule names.
    struct Shard {
        files: CheckpointFiles,
        known: Known,
    }

    impl Shard {
        fn new() -> Self {
            Self {
                files: CheckpointFiles { files: Vec::new(), next: CheckpointNo(1), limits: LIMITS },
                known: Known::default(),
            }
        }

        /// Gives how many entries moved.
        fn checkpoint(&mut self, changed: impl Iterator<Item = u64>) -> usize {
            let fresh: HashSet<ChannelId> = changed.map(ChannelId).collect();
            let moved: Vec<_> =
                self.files.to_move(&self.known, &fresh).iter().map(|moved| ChannelId(moved.state.id)).collect();
            let written: Vec<ChannelId> = fresh.iter().chain(&moved).copied().collect();
            assert_eq!(written.iter().collect::<HashSet<_>>().len(), written.len(), "no channel has two entries");
            let number = self.files.next;
            self.files.next.0 += 1;
            let after = self.files.after(&self.known, number, written.iter().copied());
            let states = written.iter().map(|id| ChannelState { id: id.0, ..ChannelState::default() });
            self.files.take_in(&mut self.known, number, states);
            let files: Vec<CheckpointNo> = self.files.files.iter().map(|file| file.number).collect();
            assert_eq!(files, after);
            moved.len()
        }

        fn check_counts(&self) {
            for file in &self.files.files {
                assert_eq!(self.files.living(file.number, &self.known).count(), file.live);
            }
        }

        fn entries(&self) -> usize {
            self.files.files.iter().map(|file| file.channels.len()).sum()
        }
    }

    #[test]
    fn few_channels_on_top_of_many_leave_few_files() {
        let mut shard = Shard::new();
        shard.checkpoint(0..50_000);
        let mut most = 0;
        for round in 0..200 {
            // Every time other ones.
            let moved = shard.checkpoint((0..100).map(|i| (round * 100 + i) * 7 % 50_000));
            assert!(moved <= 2 * 8192, "{moved} entries moved");
            most = most.max(shard.files.files.len());
        }
        assert!(most <= LIMITS.files_max, "{most} files");
        assert_eq!(shard.known.len(), 50_000);
        shard.check_counts();
    }

    #[test]
    fn large_files_stay_few() {
        let mut shard = Shard::new();
        let mut most = 0;
        for round in 0..60 {
            // New ones for ever: no entry ever dies.
            shard.checkpoint(round * 6000..(round + 1) * 6000);
            most = most.max(shard.files.files.len());
        }
        shard.check_counts();
        let bound = ((60.0 * 6000.0_f64 / LIMITS.moved_per_file as f64).sqrt()) as usize + 2;
        assert!(most <= bound, "{most} files, not {bound}");
    }

    #[test]
    fn dead_entries_go() {
        let mut shard = Shard::new();
        shard.checkpoint(0..20_000);
        let mut numbers = 1_u64;
        for _ in 0..60 {
            let changed: Vec<u64> = (0..4_000)
                .map(|_| {
                    numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (numbers >> 33) % 20_000
                })
                .collect();
            shard.checkpoint(changed.into_iter());
            let entries = shard.entries();
            assert!(
                entries <= 2 * 20_000 + 2 * 4_000 + LIMITS.dead_entries_max,
                "{entries} entries for 20,000 channels"
            );
        }
    }
}
