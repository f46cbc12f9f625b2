//! Searches segments of every size, the largest there is among them, and counts what is read.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::channel_name::ChannelName;
use crate::ids::ChannelId;
use crate::io::{DirEntry, Disk, Driver, File, FileHandle, IoFacts, OpenMode};
use crate::segment::block::encode_block;
use crate::segment::time_block::BlockTimes;

const CHANNEL: ChannelId = ChannelId(1);
const RECORDS: u64 = RECORDS_PER_BLOCK as u64;

/// An idx file whose blocks are made when they are read: the largest has 337 MB.
#[derive(Debug)]
struct MadeFile {
    first: u64,
    end: u64,
    times: fn(u64) -> u64,
    /// Time blocks and footer; empty while the segment is active.
    last: Vec<u8>,
    reads: Arc<AtomicU64>,
    path: String,
}

impl MadeFile {
    fn new(first: u64, end: u64, times: fn(u64) -> u64, version: u16, reads: &Arc<AtomicU64>) -> Self {
        let place = BlockPlace { channel: CHANNEL, segment_first: Seq(first) };
        let mut block_times = BlockTimes::default();
        for block in 0..(end - first).div_ceil(RECORDS) {
            block_times.push(block as u32, times(first + block * RECORDS));
        }
        let time_blocks = if version == 2 { block_times.block_count() } else { 0 };
        let mut last = vec![0; (time_blocks + 1) * BLOCK_SIZE];
        if time_blocks > 0 {
            block_times.encode(&mut last[..time_blocks * BLOCK_SIZE], place);
        }
        let footer = Footer {
            channel: CHANNEL,
            first: Seq(first),
            end: Seq(end),
            dat_size: 0,
            first_time_us: times(first),
            last_time_us: times(end - 1),
            idx_hash: 0,
            time_index: block_times.index().clone(),
            has_time_blocks: time_blocks > 0,
        };
        footer.encode(&mut last[time_blocks * BLOCK_SIZE..]);
        if version == 0 {
            last.clear();
        }
        Self { first, end, times, last, reads: reads.clone(), path: super::super::path::idx_path(CHANNEL, Seq(first)) }
    }

    fn blocks(&self) -> u64 {
        (self.end - self.first).div_ceil(RECORDS)
    }
}

impl File for MadeFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        assert_eq!(buf.len(), BLOCK_SIZE, "one block at a time");
        self.reads.fetch_add(1, Ordering::Relaxed);
        let block = offset / BLOCK_SIZE as u64;
        if let Some(behind) = block.checked_sub(self.blocks()) {
            let at = behind as usize * BLOCK_SIZE;
            let Some(block) = self.last.get(at..at + BLOCK_SIZE) else { return Ok(0) };
            buf.copy_from_slice(block);
            return Ok(BLOCK_SIZE);
        }
        let base = self.first + block * RECORDS;
        let record = |seq: u64| IndexRecord::inline(&seq.to_le_bytes()[..4], (self.times)(seq));
        let records: Vec<IndexRecord> = (base..(base + RECORDS).min(self.end)).map(record).collect();
        encode_block(buf, &records, Seq(base), BlockPlace { channel: CHANNEL, segment_first: Seq(self.first) });
        Ok(BLOCK_SIZE)
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.blocks() * BLOCK_SIZE as u64 + self.last.len() as u64)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn flush(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn set_size(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn handle(&self) -> io::Result<FileHandle> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn path(&self) -> &str {
        &self.path
    }
}

/// Has these files and nothing else.
#[derive(Debug)]
struct MadeDisk(Vec<Arc<MadeFile>>);

impl Disk for MadeDisk {
    fn open(&self, path: &str, _: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.0.iter().find(|file| file.path == path).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.clone())
    }
    fn create_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &str) -> io::Result<Vec<DirEntry>> {
        Ok(Vec::new())
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn unlink(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn driver(&self) -> io::Result<Box<dyn Driver>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn facts(&self) -> IoFacts {
        IoFacts::default()
    }
}

/// Segments that end at these sequences; `version` is that of their footers, the last one has none.
fn channel(ends: &[u64], times: fn(u64) -> u64, version: u16) -> (OnDisk, Arc<AtomicU64>) {
    let reads = Arc::new(AtomicU64::new(0));
    let (mut files, mut segments, mut first) = (Vec::new(), Vec::new(), 0);
    for (i, end) in ends.iter().enumerate() {
        let sealed = i + 1 < ends.len();
        files.push(Arc::new(MadeFile::new(first, *end, times, if sealed { version } else { 0 }, &reads)));
        segments.push((Seq(first), sealed.then_some(Seq(*end))));
        first = *end;
    }
    let name = ChannelName::new("a").unwrap();
    let on_disk =
        OnDisk::new(Arc::new(MadeDisk(files)), CHANNEL, name, &segments, Seq(first), &[], (0, bytes::Bytes::new()));
    (on_disk, reads)
}

/// The first event at or after a time, by looking at all.
fn expected(times: fn(u64) -> u64, time_us: u64, end: u64) -> u64 {
    let (mut from, mut to) = (0, end);
    while from < to {
        let middle = from.midpoint(to);
        if times(middle) < time_us { from = middle + 1 } else { to = middle }
    }
    from
}

const SHAPES: [fn(u64) -> u64; 5] = [
    |seq| seq * 10,
    // Many events have the same time, over blocks and over segments.
    |seq| seq / 5000 * 777,
    |_| 42,
    // Dense at the end.
    |seq| seq * seq / 1000,
    // Long silences.
    |seq| (seq / 100_000) * 1_000_000_000 + seq % 100_000 / 37,
];

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 16
}

/// A segment of 16 Mi records between two others: at most two blocks for each search, once the footers are there.
#[test]
fn two_blocks_of_a_segment_are_enough_whatever_its_size() {
    for times in SHAPES {
        let ends = [1000, 1000 + (16 << 20), 1000 + (16 << 20) + 30_000];
        let (on_disk, reads) = channel(&ends, times, 2);
        let end = ends[2];
        on_disk.seek_time(0, Seq(end)).unwrap();
        on_disk.seek_time(u64::MAX, Seq(end)).unwrap();
        let mut state = 7;
        for i in 0..400 {
            let seq = random(&mut state) % ends[1];
            // Times that are there, and times between them.
            let time_us = times(seq) + i % 3;
            let before = reads.load(Ordering::Relaxed);
            let found = on_disk.seek_time(time_us, Seq(end)).unwrap();
            assert_eq!(found.0, expected(times, time_us, end), "time {time_us}");
            let read = reads.load(Ordering::Relaxed) - before;
            // The active segment has no footer: there it is a search over its 148 blocks.
            let most = if found.0 > ends[1] { 9 } else { 2 };
            assert!(read <= most, "{read} blocks for event {found}");
        }
    }
}

/// Each footer is read once: the second search reads two blocks in all.
#[test]
fn footers_are_kept() {
    let ends: Vec<u64> = (1..=64).map(|i| i * 50_000).collect();
    let (on_disk, reads) = channel(&[&ends[..], &[64 * 50_000 + 204]].concat(), SHAPES[0], 2);
    let limit = Seq(64 * 50_000 + 204);
    for (search, most) in [(0, 2 + 7), (1, 2)] {
        let before = reads.load(Ordering::Relaxed);
        assert_eq!(on_disk.seek_time(12_345_670, limit).unwrap(), Seq(1_234_567));
        let read = reads.load(Ordering::Relaxed) - before;
        assert!(read <= most, "search {search}: {read} blocks");
    }
}

/// Segments of many sizes, with and without time blocks and footers, at every edge.
#[test]
fn every_edge_of_every_segment_is_found() {
    let ends = [1, 204, 205, 5000, 5000 + 192 * 204, 5000 + 2 * 192 * 204 + 7, 150_000, 151_000];
    for times in SHAPES {
        for version in [0, 1, 2] {
            let (on_disk, _) = channel(&ends, times, version);
            for edge in ends.iter().chain(&[0, 5000 + 204, 5000 + 408]) {
                for seq in edge.saturating_sub(2)..(edge + 2).min(151_000) {
                    for time_us in [times(seq).saturating_sub(1), times(seq), times(seq) + 1] {
                        for limit in [seq, seq + 1, 150_000, 151_000] {
                            let found = on_disk.seek_time(time_us, Seq(limit)).unwrap().0;
                            let right = expected(times, time_us, 151_000).min(limit);
                            assert_eq!(found, right, "version {version}, time {time_us}, below {limit}");
                        }
                    }
                }
            }
        }
    }
}

/// A block that is not there is named.
#[test]
fn a_missing_block_is_named() {
    let (on_disk, _) = channel(&[1000, 2000], SHAPES[0], 2);
    let error = on_disk.seek_time(29_999, Seq(4000)).unwrap_err();
    assert!(matches!(error, ReadError::Missing { from: 2428.., .. }), "{error:?}");
}
