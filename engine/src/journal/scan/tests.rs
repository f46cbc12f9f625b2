//! Every case of the table, on small journals in memory; then every flipped bit and every truncation.

use super::*;
use crate::ids::{ChannelId, CheckpointNo, Seq};
use crate::journal::format::{CommitFields, EventsFields, MetaWriter, SegmentContext, finish_commit};
use crate::segment::record::IndexRecord;
use crate::store::memory_disk::MemoryDisk;
use zerocopy::IntoBytes;

const UUID: StoreUuid = StoreUuid([6; 16]);
const SHARD: ShardId = ShardId(0);
const EPOCH: Epoch = Epoch(5);
const CHANNEL: ChannelId = ChannelId(77);
const BLOCK: u64 = BLOCK_SIZE as u64;

/// Makes one segment, of `blocks` blocks.
struct Builder {
    header: SegmentHeader,
    bytes: Vec<u8>,
    at: usize,
}

impl Builder {
    fn new(number: u64, first_lsn: u64) -> Self {
        let header = SegmentHeader {
            uuid: UUID,
            shard: SHARD,
            number: SegmentNo(number),
            epoch: EPOCH,
            salt: 0x5a17 + number,
            key_id: 0,
            predecessor: (number > 1).then(|| SegmentNo(number - 1)),
            first_lsn: Lsn(first_lsn),
        };
        Self { header, bytes: vec![0; 8 * BLOCK_SIZE], at: BLOCK_SIZE }.with_header(|_| {})
    }

    fn with_header(mut self, change: impl FnOnce(&mut SegmentHeader)) -> Self {
        change(&mut self.header);
        self.header.encode(&mut self.bytes[..BLOCK_SIZE]);
        self
    }

    /// A commit with whatever `write` puts into its meta, and `payload`.
    fn commit(mut self, lsn: u64, durable: u64, payload: &[u8], write: impl FnOnce(&mut MetaWriter<'_>)) -> Self {
        let buf = &mut self.bytes[self.at..];
        let mut meta = MetaWriter::new(&mut buf[COMMIT_HEADER_SIZE..]);
        write(&mut meta);
        let (meta_len, entry_count) = (meta.len(), meta.entry_count());
        let start = COMMIT_HEADER_SIZE + meta_len;
        buf[start..start + payload.len()].copy_from_slice(payload);
        let fields = CommitFields {
            lsn: Lsn(lsn),
            durable_lsn: Lsn(durable),
            epoch: EPOCH,
            offset: self.at as u32,
            meta_len: meta_len as u32,
            payload_len: payload.len() as u32,
            entry_count,
        };
        let header = self.header;
        let context = SegmentContext::new(header.uuid, header.shard, header.number, header.salt);
        self.at += finish_commit(buf, &context, &fields);
        self
    }

    /// A commit of one event of 40 bytes, filled with its LSN, and an inline one.
    fn events(self, lsn: u64, durable: u64) -> Self {
        let payload = [lsn as u8; 40];
        let at = 40 * lsn as u32;
        let dat = IndexRecord::in_dat(at, 40, crc32c::crc32c(&payload), lsn);
        self.commit(lsn, durable, &payload, |meta| {
            let fields = EventsFields { dat_offset: at, inline_len: 40, ..fields(lsn) };
            let place = meta.begin_events(&fields, 2).unwrap();
            place.copy_from_slice([dat, IndexRecord::inline(b"short", lsn)].as_bytes());
        })
    }

    /// A commit of one event that lies in an extent.
    fn extent(self, lsn: u64, durable: u64) -> Self {
        self.commit(lsn, durable, &[], |meta| {
            let fields = EventsFields { extent_offset: 4096, extent_len: 4096, ..fields(lsn) };
            let place = meta.begin_events(&fields, 1).unwrap();
            place.copy_from_slice(IndexRecord::in_dat(4096, 4096, lsn as u32, lsn).as_bytes());
        })
    }

    fn roll(self, lsn: u64, durable: u64, next: u64) -> Self {
        self.commit(lsn, durable, &[], |meta| meta.roll(SegmentNo(next)).unwrap())
    }

    fn checkpoint(self, lsn: u64, durable: u64, replay_lsn: u64, replay_segment: u64) -> Self {
        self.commit(lsn, durable, &[], |meta| {
            meta.checkpoint(Lsn(replay_lsn), SegmentNo(replay_segment), &[CheckpointNo(lsn)]).unwrap();
        })
    }

    fn empty(self, lsn: u64, durable: u64) -> Self {
        self.commit(lsn, durable, &[], |_| {})
    }

    fn put(self, disk: &MemoryDisk) {
        self.put_as(disk, self.header.number.0);
    }

    fn put_as(&self, disk: &MemoryDisk, number: u64) {
        disk.put(&path(number), self.bytes.clone());
    }
}

fn fields(lsn: u64) -> EventsFields {
    EventsFields {
        channel: CHANNEL,
        first: Seq(lsn * 2),
        segment_first: Seq(0),
        dat_offset: 0,
        inline_len: 0,
        extent_offset: 0,
        extent_len: 0,
    }
}

fn path(number: u64) -> String {
    segment_path(SHARD, SegmentNo(number))
}

fn root(segment: u64) -> ShardRoot {
    ShardRoot { segment: SegmentNo(segment), clean: None }
}

fn closed(segment: u64, end: (u64, u64), next_lsn: u64) -> ShardRoot {
    let clean = CleanEnd { segment: SegmentNo(end.0), offset: end.1, next_lsn: Lsn(next_lsn) };
    ShardRoot { segment: SegmentNo(segment), clean: Some(clean) }
}

fn scan_root(disk: &MemoryDisk, root: &ShardRoot) -> Result<JournalScan, JournalError> {
    let recovery = Recovery { disk, uuid: UUID, shard: SHARD, root, epoch: EPOCH };
    scan(&recovery, &mut |_, _| Ok(true))
}

fn scan_one(disk: &MemoryDisk) -> Result<JournalScan, JournalError> {
    scan_root(disk, &root(1))
}

fn lsns(scan: &JournalScan) -> Vec<u64> {
    scan.commits.iter().map(|commit| commit.lsn.0).collect()
}

fn flip(disk: &MemoryDisk, number: u64, byte: usize) {
    disk.change(&path(number), |bytes| bytes[byte] ^= 1);
}

/// Three commits; each knows that the ones before it are durable.
fn three() -> MemoryDisk {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).events(1, 1).events(2, 2).events(3, 3).put(&disk);
    disk
}

/// Two commits and a roll, then two commits.
fn rolled() -> MemoryDisk {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).events(1, 1).events(2, 2).roll(3, 3, 2).put(&disk);
    Builder::new(2, 4).events(4, 4).events(5, 5).put(&disk);
    disk
}

#[test]
fn whole_journal_comes_back() {
    let scan = scan_one(&three()).unwrap();
    assert_eq!(lsns(&scan), [1, 2, 3]);
    assert_eq!((scan.next_lsn, scan.witnessed, scan.torn), (Lsn(4), Lsn(3), None));
    assert_eq!((scan.last_segment, scan.last_offset), (SegmentNo(1), 4 * BLOCK));
    for commit in &scan.commits {
        let (entry, inline) = commit.entries().next().unwrap().unwrap();
        let Entry::Events(events) = entry else { panic!("no events") };
        assert_eq!((events.fields.first.0, events.records.len()), (commit.lsn.0 * 2, 2));
        assert_eq!((inline, commit.payload()), (&[commit.lsn.0 as u8; 40][..], inline));
        assert_eq!((commit.epoch, commit.offset), (EPOCH, commit.lsn.0 * BLOCK));
    }
}

/// STORE names a segment only once its first commit is durable: one without it has lost it.
#[test]
fn case_c_a_named_segment_without_its_first_commit_is_corruption() {
    let disk = MemoryDisk::default();
    Builder::new(1, 10).put(&disk);
    let error = scan_one(&disk).unwrap_err();
    let JournalError::Corrupt { witness, offset, .. } = error else { panic!("{error}") };
    assert_eq!((*witness, offset), (Witness::Store, BLOCK));
}

#[test]
fn case_a_torn_tail_is_cut() {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).events(1, 1).events(2, 1).events(3, 2).put(&disk);
    flip(&disk, 1, 2 * BLOCK_SIZE + COMMIT_HEADER_SIZE + 100);
    let scan = scan_one(&disk).unwrap();
    assert_eq!((lsns(&scan), scan.next_lsn, scan.witnessed), (vec![1], Lsn(2), Lsn(2)));
    let torn = TornTail { segment: SegmentNo(1), offset: 2 * BLOCK, lsn: Lsn(2) };
    assert_eq!((scan.torn, scan.last_offset), (Some(torn), 2 * BLOCK));
}

#[test]
fn case_a_torn_payload_is_cut() {
    let disk = three();
    let payload = COMMIT_HEADER_SIZE + 56 + 40;
    flip(&disk, 1, 3 * BLOCK_SIZE + payload + 39);
    let scan = scan_one(&disk).unwrap();
    assert_eq!((lsns(&scan), scan.torn.map(|torn| torn.lsn)), (vec![1, 2], Some(Lsn(3))));
}

#[test]
fn case_b_damage_with_a_witness_is_corruption() {
    let disk = three();
    flip(&disk, 1, BLOCK_SIZE);
    let error = scan_one(&disk).unwrap_err();
    let JournalError::Corrupt { offset, lsn, witness, .. } = &error else { panic!("{error}") };
    assert_eq!((*offset, *lsn), (BLOCK, Lsn(1)));
    let expected = Witness::Commit { path: path(1), offset: 3 * BLOCK, lsn: Lsn(3), durable_lsn: Lsn(3) };
    assert_eq!(**witness, expected);
    let text = error.to_string();
    assert!(text.contains(&path(1)) && text.contains("offset 4096") && text.contains("from a copy"), "{text}");
}

/// A witness that went over the commit that it knows to be durable still bears witness; over any block of it.
#[test]
fn case_b_misplaced_witness_counts() {
    for block in 0..2 {
        let disk = MemoryDisk::default();
        let payload = [7; 5000];
        let two_blocks = |meta: &mut MetaWriter<'_>| {
            let fields = EventsFields { inline_len: 5000, ..fields(2) };
            let record = IndexRecord::in_dat(0, 5000, crc32c::crc32c(&payload), 2);
            meta.begin_events(&fields, 1).unwrap().copy_from_slice(record.as_bytes());
        };
        let builder = Builder::new(1, 1).events(1, 1).commit(2, 2, &payload, two_blocks).empty(3, 3);
        let mut bytes = builder.bytes.clone();
        let (lost, witness) = ((2 + block) * BLOCK_SIZE, 4 * BLOCK_SIZE);
        bytes.copy_within(witness..witness + BLOCK_SIZE, lost);
        bytes[witness..witness + BLOCK_SIZE].fill(0);
        disk.put(&path(1), bytes);
        let error = scan_one(&disk).unwrap_err();
        let JournalError::Corrupt { lsn, witness, .. } = &error else { panic!("{error}") };
        assert_eq!(*lsn, Lsn(2), "{error}");
        assert!(matches!(**witness, Witness::Commit { lsn: Lsn(3), durable_lsn: Lsn(3), .. }), "{error}");
    }
}

#[test]
fn case_b_witness_may_lie_in_a_later_segment() {
    let disk = rolled();
    flip(&disk, 1, 3 * BLOCK_SIZE + 30);
    let error = scan_one(&disk).unwrap_err();
    let JournalError::Corrupt { lsn, witness, .. } = error else { panic!("{error}") };
    assert_eq!(lsn, Lsn(3));
    assert!(matches!(*witness, Witness::Commit { lsn: Lsn(5), durable_lsn: Lsn(5), .. }));
}

#[test]
fn empty_commit_is_a_witness() {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).events(1, 1).empty(2, 2).put(&disk);
    assert_eq!(scan_one(&disk).unwrap().witnessed, Lsn(2));
    flip(&disk, 1, BLOCK_SIZE + 200);
    assert!(matches!(scan_one(&disk), Err(JournalError::Corrupt { lsn: Lsn(1), .. })));
}

#[test]
fn case_c_clean_end_is_reached_exactly() {
    let disk = rolled();
    let scan = scan_root(&disk, &closed(1, (2, 3 * BLOCK), 6)).unwrap();
    assert_eq!((lsns(&scan), scan.witnessed, scan.torn), (vec![1, 2, 3, 4, 5], Lsn(6), None));
    let early = scan_root(&disk, &closed(1, (2, 2 * BLOCK), 5)).unwrap();
    assert_eq!((lsns(&early), early.last_offset), (vec![1, 2, 3, 4], 2 * BLOCK));
    for (end, next) in [((2, 3 * BLOCK), 5), ((2, 2 * BLOCK + 1), 6), ((1, BLOCK), 2)] {
        let error = scan_root(&disk, &closed(1, end, next)).unwrap_err();
        let wrong = matches!(error, JournalError::WrongEnd { .. } | JournalError::Corrupt { .. });
        assert!(wrong, "{end:?}: {error}");
    }
    let late = scan_root(&disk, &closed(1, (2, 4 * BLOCK), 7)).unwrap_err();
    assert!(matches!(late, JournalError::Corrupt { lsn: Lsn(6), .. }));
    let elsewhere = scan_root(&disk, &closed(1, (3, BLOCK), 6)).unwrap_err();
    assert!(matches!(elsewhere, JournalError::Lost { named_by: NamedBy::Store, .. }));
}

#[test]
fn case_c_damage_before_a_clean_end_is_corruption() {
    let disk = three();
    flip(&disk, 1, 3 * BLOCK_SIZE);
    let error = scan_root(&disk, &closed(1, (1, 4 * BLOCK), 4)).unwrap_err();
    let witness = Witness::CleanEnd { next_lsn: Lsn(4) };
    assert!(matches!(error, JournalError::Corrupt { lsn: Lsn(3), witness: found, .. } if *found == witness));
}

/// Counts the calls; extents of commits in `bad` do not verify.
fn scan_extents(disk: &MemoryDisk, bad: &[u64]) -> (Vec<u64>, JournalScan) {
    let mut asked = Vec::new();
    let recovery = Recovery { disk, uuid: UUID, shard: SHARD, root: &root(1), epoch: EPOCH };
    let scan = scan(&recovery, &mut |events, _| {
        asked.push(events.fields.first.0 / 2);
        Ok(!bad.contains(&(events.fields.first.0 / 2)))
    });
    (asked, scan.unwrap())
}

#[test]
fn case_d_extents_without_a_witness_are_verified() {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).extent(1, 1).extent(2, 2).extent(3, 2).extent(4, 2).put(&disk);
    let (asked, scan) = scan_extents(&disk, &[1, 3]);
    assert_eq!((asked, lsns(&scan)), (vec![2, 3], vec![1, 2]));
    let torn = TornTail { segment: SegmentNo(1), offset: 3 * BLOCK, lsn: Lsn(3) };
    assert_eq!((scan.torn, scan.next_lsn, scan.last_offset), (Some(torn), Lsn(3), 3 * BLOCK));
    assert_eq!(scan_extents(&disk, &[]).1.next_lsn, Lsn(5));
}

#[test]
fn case_d_witness_behind_a_torn_commit_counts() {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).extent(1, 1).extent(2, 1).events(3, 2).events(4, 3).put(&disk);
    flip(&disk, 1, 3 * BLOCK_SIZE);
    let (asked, scan) = scan_extents(&disk, &[1, 2]);
    assert_eq!((asked, lsns(&scan), scan.witnessed), (vec![], vec![1, 2], Lsn(3)));
}

#[test]
fn case_d_error_of_the_check_ends_the_scan() {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).extent(1, 1).put(&disk);
    let recovery = Recovery { disk: &disk, uuid: UUID, shard: SHARD, root: &root(1), epoch: EPOCH };
    let found = scan(&recovery, &mut |_, _| Err(io::ErrorKind::Other.into()));
    assert!(matches!(found, Err(JournalError::Io { .. })));
}

#[test]
fn case_e_roll_goes_on_in_the_next_segment() {
    let scan = scan_one(&rolled()).unwrap();
    assert_eq!(lsns(&scan), [1, 2, 3, 4, 5]);
    assert_eq!(scan.chain, [SegmentNo(1), SegmentNo(2)]);
    assert_eq!((scan.last_segment, scan.last_offset), (SegmentNo(2), 3 * BLOCK));
    assert!(scan.leftovers.is_empty());
}

#[test]
fn case_e_roll_into_a_bad_or_missing_segment_is_an_error() {
    let disk = rolled();
    flip(&disk, 2, 100);
    let error = scan_one(&disk).unwrap_err();
    assert!(matches!(&error, JournalError::BadHeader { named_by: NamedBy::Roll { .. }, .. }), "{error}");
    disk.unlink(&path(2)).unwrap();
    let error = scan_one(&disk).unwrap_err();
    assert!(matches!(&error, JournalError::Lost { named_by: NamedBy::Roll { .. }, .. }), "{error}");
    Builder::new(2, 5).events(5, 4).put(&disk);
    assert!(matches!(scan_one(&disk), Err(JournalError::BrokenChain { lsn: Lsn(3), .. })));
}

#[test]
fn case_f_prepared_segment_is_a_leftover() {
    let disk = three();
    Builder::new(2, 9).put(&disk);
    let scan = scan_one(&disk).unwrap();
    assert_eq!((lsns(&scan), scan.chain), (vec![1, 2, 3], vec![SegmentNo(1)]));
    assert_eq!(scan.leftovers, [format!("{:020}.wal", 2)]);
    assert_eq!((scan.number_max, scan.torn), (SegmentNo(2), None));
}

#[test]
fn case_f_torn_roll_cuts_what_came_behind_it() {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).events(1, 1).roll(2, 1, 2).put(&disk);
    Builder::new(2, 3).events(3, 2).put(&disk);
    flip(&disk, 1, 2 * BLOCK_SIZE);
    let scan = scan_one(&disk).unwrap();
    assert_eq!((lsns(&scan), scan.torn.map(|torn| torn.lsn)), (vec![1], Some(Lsn(2))));
    assert_eq!(scan.leftovers, [format!("{:020}.wal", 2)]);
}

#[test]
fn case_g_successor_makes_the_rest_void() {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).events(1, 1).events(2, 1).events(3, 1).put(&disk);
    Builder::new(2, 2).events(2, 1).put(&disk);
    let scan = scan_one(&disk).unwrap();
    assert_eq!((lsns(&scan), scan.next_lsn), (vec![1, 2], Lsn(3)));
    assert_eq!(scan.commits[1].segment, SegmentNo(2));
}

#[test]
fn case_g_void_commits_with_a_witness_are_an_error() {
    let disk = three();
    Builder::new(2, 2).put(&disk);
    assert!(matches!(scan_one(&disk), Err(JournalError::BrokenChain { lsn: Lsn(2), .. })));
}

#[test]
fn case_h_unused_files_are_leftovers() {
    let disk = three();
    let two = Builder::new(2, 4).events(4, 4);
    disk.put(&path(2), vec![0; 2 * BLOCK_SIZE]);
    disk.put(&path(3), vec![1, 2, 3]);
    two.put_as(&disk, 4);
    Builder::new(5, 4).with_header(|header| header.shard = ShardId(1)).put(&disk);
    Builder::new(6, 4).with_header(|header| header.epoch = Epoch(9)).put(&disk);
    Builder::new(7, 4).with_header(|header| header.uuid = StoreUuid([9; 16])).put(&disk);
    disk.put("journal/000/notes.txt", vec![]);
    disk.put("journal/000/spare/1.wal", vec![]);
    let scan = scan_one(&disk).unwrap();
    assert_eq!(lsns(&scan), [1, 2, 3]);
    assert_eq!(scan.leftovers, [2, 3, 4, 5, 6].map(|number| format!("{number:020}.wal")));
    assert_eq!(scan.unknown, [format!("{:020}.wal", 7), "notes.txt".to_owned()]);
    assert_eq!((scan.epoch_max, scan.number_max), (Epoch(9), SegmentNo(7)));
}

#[test]
fn case_h_bad_header_that_store_names_is_an_error() {
    let disk = three();
    flip(&disk, 1, 4000);
    let error = scan_one(&disk).unwrap_err();
    assert!(matches!(&error, JournalError::BadHeader { named_by: NamedBy::Store, .. }), "{error}");
    disk.unlink(&path(1)).unwrap();
    assert!(matches!(scan_one(&disk), Err(JournalError::Lost { named_by: NamedBy::Store, .. })));
}

#[test]
fn case_h_lower_numbers_are_leftovers() {
    let disk = MemoryDisk::default();
    Builder::new(3, 1).events(1, 1).put(&disk);
    Builder::new(4, 1).events(1, 1).put(&disk);
    let scan = scan_root(&disk, &root(4)).unwrap();
    assert_eq!((scan.chain, scan.leftovers), (vec![SegmentNo(4)], vec![format!("{:020}.wal", 3)]));
}

#[test]
fn case_i_recycled_beginning_needs_a_checkpoint() {
    let disk = MemoryDisk::default();
    Builder::new(2, 4).events(4, 4).events(5, 5).checkpoint(6, 6, 5, 2).events(7, 7).put(&disk);
    let scan = scan_one(&disk).unwrap();
    assert_eq!(lsns(&scan), [5, 6, 7]);
    assert_eq!(scan.checkpoint.unwrap().files, [CheckpointNo(6)]);
    flip(&disk, 2, 2 * BLOCK_SIZE);
    assert!(matches!(scan_one(&disk), Err(JournalError::Corrupt { lsn: Lsn(5), .. })));
}

#[test]
fn case_i_lost_segment_is_an_error() {
    let disk = MemoryDisk::default();
    Builder::new(2, 4).events(4, 4).checkpoint(5, 5, 3, 1).put(&disk);
    let error = scan_one(&disk).unwrap_err();
    assert!(matches!(&error, JournalError::Lost { named_by: NamedBy::Successor { .. }, .. }), "{error}");
    disk.put(&path(1), vec![0; BLOCK_SIZE]);
    let error = scan_one(&disk).unwrap_err();
    assert!(matches!(&error, JournalError::BadHeader { named_by: NamedBy::Successor { .. }, .. }), "{error}");
}

#[test]
fn case_i_gap_starts_the_chain_behind_it() {
    let disk = rolled();
    Builder::new(4, 9).events(9, 9).checkpoint(10, 9, 9, 4).put(&disk);
    let scan = scan_one(&disk).unwrap();
    assert_eq!((lsns(&scan), scan.chain), (vec![9, 10], vec![SegmentNo(4)]));
    assert_eq!(scan.leftovers.len(), 2);
}

#[test]
fn case_k_unknown_kinds_and_newer_headers_are_refused() {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).commit(1, 1, &[], |meta| meta.roll(SegmentNo(2)).unwrap()).put(&disk);
    disk.change(&path(1), |bytes| {
        bytes[BLOCK_SIZE + COMMIT_HEADER_SIZE] = 9;
        let fields = CommitFields {
            lsn: Lsn(1),
            durable_lsn: Lsn(1),
            epoch: EPOCH,
            offset: 4096,
            meta_len: 16,
            payload_len: 0,
            entry_count: 1,
        };
        let context = SegmentHeader::verify(&bytes[..BLOCK_SIZE]).unwrap().context();
        finish_commit(&mut bytes[BLOCK_SIZE..], &context, &fields);
    });
    assert!(matches!(scan_one(&disk), Err(JournalError::NewerEntry { kind: 9, lsn: Lsn(1), .. })));
    disk.change(&path(1), |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..52]), &bytes[56..BLOCK_SIZE]);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    });
    assert!(matches!(scan_one(&disk), Err(JournalError::Newer { version: 2, .. })));
}

#[test]
fn stale_commits_of_an_earlier_life_are_no_witnesses() {
    let disk = MemoryDisk::default();
    let stale = Builder::new(1, 1).events(1, 1).events(2, 2).events(3, 3).events(4, 4);
    let fresh = Builder::new(1, 1).with_header(|header| header.salt = 1).events(1, 1);
    let mut bytes = stale.bytes;
    bytes[..2 * BLOCK_SIZE].copy_from_slice(&fresh.bytes[..2 * BLOCK_SIZE]);
    disk.put(&path(1), bytes);
    let scan = scan_one(&disk).unwrap();
    assert_eq!((lsns(&scan), scan.torn), (vec![1], None));
}

#[test]
fn commits_of_another_place_do_not_count() {
    let disk = three();
    disk.change(&path(1), |bytes| bytes.copy_within(BLOCK_SIZE..2 * BLOCK_SIZE, 4 * BLOCK_SIZE));
    let scan = scan_one(&disk).unwrap();
    assert_eq!((lsns(&scan), scan.next_lsn), (vec![1, 2, 3], Lsn(4)));
}

#[test]
fn commits_that_contradict_themselves_are_an_error() {
    let disk = MemoryDisk::default();
    Builder::new(1, 1).commit(1, 1, b"bytes of nobody", |_| {}).put(&disk);
    assert!(matches!(scan_one(&disk), Err(JournalError::Contradiction { fault: CommitFault::Count, .. })));
    let outside = IndexRecord::in_dat(50, 1, 0, 0);
    let fields = EventsFields { inline_len: 4, ..fields(1) };
    let write = |meta: &mut MetaWriter<'_>| {
        meta.begin_events(&fields, 1).unwrap().copy_from_slice(outside.as_bytes());
    };
    Builder::new(1, 1).commit(1, 1, b"four", write).put(&disk);
    assert!(matches!(scan_one(&disk), Err(JournalError::Contradiction { .. })));
}

/// Flips every bit of the files in turn (of padding, one a byte). Each gives an error, or a journal that still has
/// what was witnessed before.
fn flip_every_bit(disk: &MemoryDisk, numbers: &[u64], witnessed: u64) {
    for &number in numbers {
        let bytes = disk.get(&path(number));
        for (at, byte) in bytes.iter().enumerate() {
            let bits = if *byte == 0 && at % BLOCK_SIZE > 256 { 0..1 } else { 0..8 };
            for bit in bits {
                disk.change(&path(number), |bytes| bytes[at] ^= 1 << bit);
                if let Ok(scan) = scan_one(disk) {
                    assert!(scan.next_lsn.0 >= witnessed, "segment {number}, byte {at}, bit {bit}");
                    assert!(lsns(&scan).into_iter().eq(1..scan.next_lsn.0));
                }
                disk.change(&path(number), |bytes| bytes[at] ^= 1 << bit);
            }
        }
    }
}

#[test]
fn no_flipped_bit_drops_a_witnessed_commit() {
    let disk = three();
    disk.change(&path(1), |bytes| bytes.truncate(5 * BLOCK_SIZE));
    flip_every_bit(&disk, &[1], 3);
}

#[test]
fn no_flipped_bit_in_two_segments_drops_a_witnessed_commit() {
    let disk = rolled();
    disk.change(&path(1), |bytes| bytes.truncate(4 * BLOCK_SIZE));
    disk.change(&path(2), |bytes| bytes.truncate(3 * BLOCK_SIZE));
    flip_every_bit(&disk, &[1, 2], 5);
}

/// A file cut off loses its end, witnesses too; what is left is a prefix, or an error.
#[test]
fn every_truncation_leaves_a_prefix_or_is_an_error() {
    let disk = three();
    let bytes = disk.get(&path(1));
    for size in 0..4 * BLOCK_SIZE {
        disk.put(&path(1), bytes[..size].to_vec());
        match scan_one(&disk) {
            Ok(scan) => {
                assert!(lsns(&scan).into_iter().eq(1..scan.next_lsn.0));
                assert!(scan.next_lsn.0 >= (size / BLOCK_SIZE) as u64, "{size}");
            }
            // The header and the first commit, which STORE vouches for, cannot be cut off.
            Err(error) => assert!(size < 2 * BLOCK_SIZE, "{size}: {error}"),
        }
    }
}

/// With a witness in the next segment nothing can be cut off.
#[test]
fn every_truncation_before_a_witness_is_an_error() {
    let disk = rolled();
    let bytes = disk.get(&path(1));
    for size in (0..3 * BLOCK_SIZE + COMMIT_HEADER_SIZE).step_by(7) {
        disk.put(&path(1), bytes[..size].to_vec());
        assert!(scan_one(&disk).is_err(), "{size}");
    }
}
