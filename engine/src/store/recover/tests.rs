//! Recovery of what a running shard leaves only after a long life: more checkpoint files than a block can name.

use std::collections::HashSet;

use super::*;
use crate::clock::Clock;
use crate::io::sim::{SimDisk, SimOptions};
use crate::options::{CheckpointLimits, Options};
use crate::read::offload::Offload;
use crate::shard::Shard;
use crate::shard::Turn;
use crate::store::Store;
use crate::store::open::{Environment, make_dirs, make_superblock};
use crate::store::superblock::Superblock;
use crate::tail::pool::PagePool;

const UUID: StoreUuid = StoreUuid([7; 16]);
const SHARD: ShardId = ShardId(0);
const FILES: u64 = 1500;

fn options() -> Options {
    Options { shards: Some(1), journal_segment_bytes: 64 << 10, checkpoint_bytes: 64 << 10, ..Options::default() }
}

fn environment(disk: &Arc<dyn Disk>) -> Environment {
    Environment {
        disk: disk.clone(),
        clock: Clock::system(),
        random: Random::seeded(3),
        offload: Arc::new(Offload::new("redex-test", 1)),
        file_maker: Arc::new(Offload::new("redex-test", 1)),
        pages: PagePool::new(1 << 20, 1 << 19),
        base: std::path::PathBuf::new(),
        cold: None,
    }
}

fn empty() -> Found {
    Found {
        shard: SHARD,
        commits: Vec::new(),
        next_lsn: Lsn(1),
        last_segment: None,
        leftovers: Vec::new(),
        number_max: SegmentNo(0),
        epoch_max: Epoch(1),
        known: Known::default(),
        files: CheckpointFiles { files: Vec::new(), next: CheckpointNo(1), limits: CheckpointLimits::default() },
        unused_checkpoints: Vec::new(),
    }
}

/// A shard with a channel in each of so many checkpoint files, and a journal that names them.
fn shard_with_many_files(disk: &Arc<dyn Disk>) -> (Journal, Lsn) {
    make_dirs(&**disk, 1).unwrap();
    let mut found = empty();
    for id in 1..=FILES {
        let state = ChannelState { id, name: format!("c{id}"), ..ChannelState::default() };
        write_checkpoint(&**disk, UUID, vec![(state, Tail::default())], &mut found).unwrap();
    }
    let mut pool = SegmentPool::new(disk.clone(), SHARD, Epoch(1), options().journal_segment_bytes);
    begin_journal(&mut pool, UUID, &found, Epoch(1), &Random::seeded(1)).unwrap()
}

fn new_disk() -> Arc<dyn Disk> {
    Arc::new(SimDisk::new(1, SimOptions::default()))
}

#[test]
fn an_entry_of_several_blocks_is_read_after_a_kill_and_after_a_clean_close() {
    let disk = new_disk();
    let (journal, next_lsn) = shard_with_many_files(&disk);
    assert!(journal.offset() > 2 * BLOCK_SIZE as u64, "the entry fits no block");
    let (segment, offset) = (journal.number(), journal.offset());
    for clean in [None, Some(CleanEnd { segment, offset, next_lsn })] {
        let root = ShardRoot { segment, clean };
        let found = find(&*disk, UUID, SHARD, &root, Epoch(1), CheckpointLimits::default()).unwrap();
        assert_eq!((found.next_lsn, found.known.len()), (next_lsn, FILES as usize), "{clean:?}");
        assert_eq!(found.files.files.len(), FILES as usize);
    }
}

#[test]
fn a_clean_end_in_the_midst_of_a_commit_is_an_error() {
    let disk = new_disk();
    let (journal, next_lsn) = shard_with_many_files(&disk);
    for offset in [0, journal.offset() - BLOCK_SIZE as u64, journal.offset() + BLOCK_SIZE as u64, 1 << 50] {
        let clean = Some(CleanEnd { segment: journal.number(), offset, next_lsn });
        let root = ShardRoot { segment: journal.number(), clean };
        let error = find(&*disk, UUID, SHARD, &root, Epoch(1), CheckpointLimits::default()).unwrap_err();
        assert!(matches!(error, OpenError::Journal { error: JournalError::Corrupt { .. }, .. }), "{offset}: {error}");
    }
}

#[test]
fn a_store_with_too_many_checkpoint_files_opens_and_merges_them() {
    let disk = new_disk();
    let (journal, _) = shard_with_many_files(&disk);
    let shards = vec![ShardRoot { segment: journal.number(), clean: None }];
    make_superblock(&*disk, &Superblock { uuid: UUID, epoch: Epoch(1), generation: 1, shards }).unwrap();
    drop(journal);
    for round in 0..2 {
        let (store, seeds) = Store::recover(environment(&disk), &options()).unwrap();
        let mut shards: Vec<Shard> = seeds.into_iter().map(|seed| Shard::new(seed).unwrap()).collect();
        store.begin_close();
        let ended = (0..10_000).any(|_| shards[0].turn().unwrap() == Turn::Ended);
        assert!(ended, "round {round}: the close finds no end");
        assert_eq!(store.closed_channels(|_| true).len(), FILES as usize);
        drop(shards);
        store.finish_close().unwrap();
        let left = disk.list(&checkpoint_dir(SHARD)).unwrap().len();
        assert!(left <= CheckpointLimits::default().files_max, "round {round}: {left} files are left");
    }
}

/// A program that always dies before its first checkpoint, with another channel each time.
#[test]
fn opens_without_a_checkpoint_leave_few_files() {
    let disk = new_disk();
    make_dirs(&*disk, 1).unwrap();
    let mut found = empty();
    for id in 1..=100 {
        let state = ChannelState { id, name: format!("c{id}"), ..ChannelState::default() };
        let mut entries = vec![(state, Tail::default())];
        let fresh = HashSet::from([ChannelId(id)]);
        entries.extend(move_along(&*disk, SHARD, &mut found.files, &found.known, &fresh));
        write_checkpoint(&*disk, UUID, entries, &mut found).unwrap();
        found.files.files.retain(|file| file.live > 0);
        assert!(
            found.files.files.len() <= CheckpointLimits::default().files_max,
            "{} files after {id} opens",
            found.files.files.len()
        );
        assert_eq!(found.known.len() as u64, id);
    }
}

#[test]
fn a_clean_end_within_a_block_is_an_error() {
    let disk = new_disk();
    let (journal, next_lsn) = shard_with_many_files(&disk);
    for offset in [1, journal.offset() + 5, journal.offset() - 512, u64::MAX] {
        let clean = Some(CleanEnd { segment: journal.number(), offset, next_lsn });
        let root = ShardRoot { segment: journal.number(), clean };
        let error = find(&*disk, UUID, SHARD, &root, Epoch(1), CheckpointLimits::default()).unwrap_err();
        assert!(matches!(error, OpenError::Journal { error: JournalError::WrongEnd { .. }, .. }), "{offset}: {error}");
    }
}

#[test]
fn a_clean_end_behind_another_commit_than_a_checkpoint_says_so() {
    let disk = new_disk();
    let (journal, next_lsn) = shard_with_many_files(&disk);
    let mut commit = AlignedBuf::new(BLOCK_SIZE);
    let mut meta = MetaWriter::new(&mut commit[COMMIT_HEADER_SIZE..]);
    meta.roll(SegmentNo(9)).unwrap();
    let (meta_len, entry_count) = (meta.len() as u32, meta.entry_count());
    let offset = journal.offset() as u32;
    let (lsn, epoch) = (next_lsn, Epoch(1));
    let fields = CommitFields { lsn, durable_lsn: lsn, epoch, offset, meta_len, payload_len: 0, entry_count };
    let size = finish_commit(&mut commit, &journal.header().context(), &fields);
    let file = disk.open(&segment_path(SHARD, journal.number()), OpenMode::Write).unwrap();
    file.write_at(&commit[..size], journal.offset()).unwrap();
    let end =
        CleanEnd { segment: journal.number(), offset: journal.offset() + size as u64, next_lsn: Lsn(next_lsn.0 + 1) };
    let root = ShardRoot { segment: journal.number(), clean: Some(end) };
    let error = find(&*disk, UUID, SHARD, &root, Epoch(1), CheckpointLimits::default()).unwrap_err();
    let OpenError::Journal { error: JournalError::Corrupt { fault, .. }, .. } = error else { panic!("{error}") };
    assert_eq!(fault, CommitFault::NoCheckpoint);
}

#[test]
fn a_store_without_a_further_epoch_is_refused() {
    for (epoch, refused) in [(u32::MAX - 1, false), (u32::MAX, true)] {
        let disk = new_disk();
        make_dirs(&*disk, 1).unwrap();
        let shards = vec![ShardRoot { segment: SegmentNo(0), clean: None }];
        make_superblock(&*disk, &Superblock { uuid: UUID, epoch: Epoch(epoch), generation: 1, shards }).unwrap();
        let opened = Store::recover(environment(&disk), &options()).map(drop);
        assert_eq!(opened.is_err(), refused);
        if let Err(error) = opened {
            assert!(error.to_string().contains("STORE"), "{error}");
        }
    }
}

/// Recovery merges by the same limits as the shard.
#[test]
fn recovery_goes_by_the_limits_of_the_options() {
    let disk = new_disk();
    let (journal, _) = shard_with_many_files(&disk);
    let limits = CheckpointLimits { files_max: 3, ..CheckpointLimits::default() };
    let root = ShardRoot { segment: journal.number(), clean: None };
    let found = find(&*disk, UUID, SHARD, &root, Epoch(1), limits).unwrap();
    assert_eq!(found.files.limits.files_max, 3);
}
