//! Takes living entries of older checkpoint files along into a new one: loads their tails.
//!
//! The tails of one file lie one behind the other, in the order of its states: neighbours are read at once. Each step is one
//! read of at most [`READ_BYTES`], so that a running shard commits in between, and no lock is held: an entry's file stays
//! at least until the new one is in use.
//!
//! An entry whose tail does not load stays where it is, and so does its file, until its channel has a newer one. That
//! is reported once; the damage itself is found by who opens the channel.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::checkpoint::{Known, Located, checkpoint_path};
use super::checkpoint_files::CheckpointFiles;
use crate::ids::{ChannelId, CheckpointNo, ShardId};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, File, OpenMode, read_full};
use crate::store::checkpoint::{ChannelState, CheckpointError, Tail, tail_in};

/// Most bytes read in a step.
pub const READ_BYTES: usize = 1 << 20;
/// Bytes between two tails from which a read of its own costs less.
const GAP_BYTES: u64 = 64 << 10;
/// Most entries taken in a step.
const ENTRIES: usize = 2048;

/// Entries on their way into a new file.
#[derive(Debug, Default)]
pub struct Moving {
    /// Those to come, by file and offset.
    left: VecDeque<Located>,
    moved: Vec<(ChannelState, Tail)>,
    open: Option<(CheckpointNo, Arc<dyn File>)>,
    buf: Option<AlignedBuf>,
    /// A file of which a read of many failed: they are read one by one.
    one_by_one: Option<CheckpointNo>,
}

impl Moving {
    /// Begins with these entries.
    pub fn new(mut entries: Vec<Located>) -> Self {
        entries.sort_by_key(|located| (located.file, located.state.tail.offset));
        Self { left: entries.into(), ..Self::default() }
    }

    /// The entries that have moved, each with its tail.
    pub fn into_moved(self) -> Vec<(ChannelState, Tail)> {
        self.moved
    }

    /// Takes some entries along by one read at the most. Says whether there are more.
    pub fn step(&mut self, disk: &dyn Disk, shard: ShardId, files: &mut CheckpointFiles) -> bool {
        let batch = self.next_batch();
        let Some(number) = batch.first().map(|located| located.file) else { return false };
        let moved_before = self.moved.len();
        if let Err(error) = self.load(disk, shard, number, &batch) {
            let several = batch.len() > 1 && self.one_by_one != Some(number);
            if several && matches!(error, CheckpointError::Io { .. }) {
                // One bad sector, which may be nobody's, need not keep them all.
                self.moved.truncate(moved_before);
                self.one_by_one = Some(number);
                batch.into_iter().rev().for_each(|located| self.left.push_front(located));
            } else {
                tracing::warn!(%shard, checkpoint = %number, %error, "entries of a checkpoint file cannot move, and stay in it");
                files.keep(number);
                self.left.retain(|located| located.file != number);
            }
        }
        !self.left.is_empty()
    }

    /// The next entries whose tails one read gives.
    fn next_batch(&mut self) -> Vec<Located> {
        let mut batch: Vec<Located> = Vec::new();
        let mut range: Option<(u64, u64)> = None;
        while let Some(next) = self.left.front() {
            let alone = self.one_by_one == Some(next.file);
            let other_file = batch.first().is_some_and(|first| first.file != next.file);
            if other_file || batch.len() >= if alone { 1 } else { ENTRIES } {
                break;
            }
            if let Some((start, end)) = blocks_of(next) {
                let begin = range.map_or(start, |(begin, _)| begin);
                let far = range.is_some_and(|(_, read)| start > read + GAP_BYTES);
                if far || (range.is_some() && end - begin > READ_BYTES as u64) {
                    break;
                }
                range = Some((begin, end.max(range.map_or(0, |(_, read)| read))));
            }
            batch.extend(self.left.pop_front());
        }
        batch
    }

    /// Loads the tails of a batch, up to the first that does not load.
    fn load(
        &mut self,
        disk: &dyn Disk,
        shard: ShardId,
        number: CheckpointNo,
        batch: &[Located],
    ) -> Result<(), CheckpointError> {
        let path = checkpoint_path(shard, number);
        let ranges = || batch.iter().filter_map(blocks_of);
        let (start, end) =
            (ranges().next().map_or(0, |range| range.0), ranges().map(|range| range.1).max().unwrap_or(0));
        let io_error = |error| CheckpointError::Io { path: path.clone(), offset: start, error };
        let len = (end - start) as usize;
        let mut buf = match self.buf.take().filter(|buf| buf.len() >= len) {
            Some(buf) => buf,
            None => AlignedBuf::new(len.max(READ_BYTES)),
        };
        let mut found = 0;
        if len > 0 {
            let file = match self.open.take().filter(|(open, _)| *open == number) {
                Some((_, file)) => file,
                None => disk.open(&path, OpenMode::Read).map_err(io_error)?,
            };
            found = read_full(&*file, &mut buf[..len], start).map_err(io_error)?;
            self.open = Some((number, file));
        }
        for located in batch {
            let tail = tail_in(&buf[..found], start, &path, &located.state)?;
            self.moved.push((ChannelState::clone(&located.state), tail));
        }
        self.buf = Some(buf);
        Ok(())
    }
}

/// The blocks in which an entry's tail lies, in bytes; `None` if it has none.
fn blocks_of(located: &Located) -> Option<(u64, u64)> {
    let tail = &located.state.tail;
    let block = BLOCK_SIZE as u64;
    (!tail.is_empty()).then(|| (tail.offset / block * block, (tail.offset + tail.size()).next_multiple_of(block)))
}

/// All of it at once: the entries that should move along into a file that has the `fresh` ones, with their tails.
pub fn move_along(
    disk: &dyn Disk,
    shard: ShardId,
    files: &mut CheckpointFiles,
    known: &Known,
    fresh: &HashSet<ChannelId>,
) -> Vec<(ChannelState, Tail)> {
    let mut moving = Moving::new(files.to_move(known, fresh));
    while moving.step(disk, shard, files) {}
    moving.into_moved()
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;
    use crate::ids::StoreUuid;
    use crate::io::sim::{SimDisk, SimOptions};
    use crate::options::CheckpointLimits;
    use crate::segment::record::IndexRecord;
    use crate::shard::checkpoint::load_located_tail;
    use crate::shard::checkpoint_files::CheckpointFile;
    use crate::store::checkpoint::{CheckpointEncoder, SegmentState, TailRef, load_states};

    const UUID: StoreUuid = StoreUuid([5; 16]);
    const SHARD: ShardId = ShardId(0);
    const LIMITS: CheckpointLimits =
        CheckpointLimits { files_max: 1, dead_entries_max: 0, moved_per_file: 1 << 20, flushed_beside: 64 };

    fn tail(id: u64) -> Tail {
        let records = (0..id % 3).map(|n| IndexRecord::in_dat(n as u32, 1, id as u32, n));
        Tail { records: records.collect(), bytes: vec![id as u8; id as usize % 100] }
    }

    fn state(id: u64) -> ChannelState {
        let Tail { records, bytes } = tail(id);
        let (end, size) = (records.len() as u64, bytes.len() as u32);
        ChannelState {
            id,
            name: format!("c{id}"),
            end,
            segments: vec![SegmentState { first: 0, end, dat_size: size, sealed: false }],
            tail: TailRef { offset: 0, record_count: records.len() as u32, bytes_len: size },
            ..ChannelState::default()
        }
    }

    /// A file with an entry of each of so many channels.
    fn file_of(count: u64) -> (SimDisk, CheckpointFiles, Known) {
        let disk = SimDisk::new(1, SimOptions::default());
        disk.create_dir("checkpoint").unwrap();
        disk.create_dir("checkpoint/000").unwrap();
        let (number, path) = (CheckpointNo(1), checkpoint_path(SHARD, CheckpointNo(1)));
        let mut encoder = CheckpointEncoder::new(UUID, SHARD, number);
        (0..count).for_each(|id| _ = encoder.push_state(&state(id)));
        encoder.end_states();
        for id in (0..count).filter(|id| !state(*id).tail.is_empty()) {
            encoder.push_tail(id, &tail(id).records, &tail(id).bytes);
        }
        encoder.finish();
        let mut bytes = vec![0; encoder.bytes_left()];
        encoder.drain(&mut bytes);
        disk.write_file(&path, &bytes).unwrap();
        let states = load_states(&disk, &path, UUID, SHARD, number).unwrap();
        let known = states
            .into_iter()
            .map(|state| (ChannelId(state.id), Located { state: Arc::new(state), file: number }))
            .collect();
        let channels = (0..count).map(ChannelId).collect();
        let file = CheckpointFile { number, channels, live: count as usize, stays: false };
        (disk, CheckpointFiles { files: vec![file], next: CheckpointNo(2), limits: LIMITS }, known)
    }

    /// Gives what moved, and the number of reads at the most.
    fn steps(
        disk: &SimDisk,
        files: &mut CheckpointFiles,
        known: &Known,
        fresh: &HashSet<ChannelId>,
    ) -> (Vec<(ChannelState, Tail)>, usize) {
        let mut moving = Moving::new(files.to_move(known, fresh));
        let mut steps = 1;
        while moving.step(disk, SHARD, files) {
            steps += 1;
        }
        (moving.into_moved(), steps)
    }

    #[test]
    fn neighbours_are_read_at_once() {
        let count = 20_000;
        let (disk, mut files, known) = file_of(count);
        let (moved, steps) = steps(&disk, &mut files, &known, &HashSet::new());
        assert_eq!(moved.len() as u64, count);
        for (state, loaded) in &moved {
            assert_eq!(*loaded, tail(state.id));
        }
        assert!(steps <= count as usize / ENTRIES + 3, "{steps} reads");
    }

    #[test]
    fn tails_that_lie_far_apart_are_read_one_by_one() {
        let count = 20_000;
        let (disk, mut files, known) = file_of(count);
        // About 80 bytes each, so these lie 400 KB apart.
        let fresh = (0..count).filter(|id| id % 5000 != 50).map(ChannelId).collect();
        let (moved, steps) = steps(&disk, &mut files, &known, &fresh);
        assert_eq!(moved.iter().map(|(state, _)| state.id).collect::<Vec<_>>(), [50, 5050, 10_050, 15_050]);
        assert!(moved.iter().all(|(state, loaded)| *loaded == tail(state.id)));
        assert_eq!(steps, 4);
    }

    #[test]
    fn a_bad_sector_that_no_living_tail_has_keeps_nothing() {
        let (disk, mut files, known) = file_of(2000);
        let path = checkpoint_path(SHARD, CheckpointNo(1));
        let sector = known[&ChannelId(1050)].state.tail.offset / 512;
        disk.add_latent_sector(&path, sector).unwrap();
        assert!(load_located_tail(&disk, SHARD, &known[&ChannelId(1050)]).is_err());
        let fresh = (900..1200).map(ChannelId).collect();
        let moved = move_along(&disk, SHARD, &mut files, &known, &fresh);
        assert_eq!(moved.len(), 1700);
        assert!(moved.iter().all(|(state, loaded)| *loaded == tail(state.id)));
        assert!(!files.files[0].stays);
    }

    #[test]
    fn an_entry_that_does_not_load_stays_and_is_not_tried_again() {
        for unreadable in [false, true] {
            let (disk, mut files, known) = file_of(2000);
            let path = checkpoint_path(SHARD, CheckpointNo(1));
            let offset = known[&ChannelId(1050)].state.tail.offset;
            if unreadable {
                disk.add_latent_sector(&path, offset / 512).unwrap();
            } else {
                assert!(disk.flip_bit(&path, offset + 13, 1).unwrap());
            }
            let moved = move_along(&disk, SHARD, &mut files, &known, &HashSet::new());
            assert!(moved.iter().all(|(state, loaded)| state.id != 1050 && *loaded == tail(state.id)));
            assert!(files.files[0].stays);
            assert!(files.to_move(&known, &HashSet::new()).is_empty());
            let ids = moved.iter().map(|(state, _)| ChannelId(state.id));
            assert_eq!(files.after(&known, CheckpointNo(2), ids), [CheckpointNo(1), CheckpointNo(2)]);
        }
    }
}
