//! Two golden stores, made by the engine: one that was closed, one as a killed process leaves it.
//!
//! `store/` was opened twice: five channels, sealed and active segments, an extent, two checkpoint files with states and
//! tails. `crashed/` was copied while it was open: all its events lie in the journal alone. Each is copied, opened, compared
//! event for event, gone on with, closed and opened again. LOCK and the spare journal files, which hold nothing, are
//! left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redex::format::block::{BlockPlace, INDEX_BLOCK_SIZE, RECORDS_PER_BLOCK, decode_block, encode_block};
use redex::format::envelope;
use redex::format::footer::{Footer, idx_hash_append};
use redex::format::journal::{BLOCK_SIZE, CommitHeader, Entry, SegmentHeader, entries};
use redex::format::meta::{META_SIZE, Meta};
use redex::format::superblock::{SUPERBLOCK_SIZE, Superblock, SuperblockError};
use redex::format::{Epoch, Seq, ShardId};
use redex::{
    Cursor, FsyncPolicy, OpenError, OpenFileError, ReadError, Redex, RedexFile, RedexFileConfig, SubscribeError,
};

use super::{flipped, golden, pattern, scratch};

/// A channel and how many events it has.
struct Golden {
    name: &'static str,
    config: fn(RedexFileConfig) -> RedexFileConfig,
    len: fn(u64) -> usize,
    /// In `store/`: events after the first and the second opening.
    end: [u64; 2],
}

const BULK: &str = "golden/bulk";
const SMALL: &str = "golden/small";

const CLOSED: &[Golden] = &[
    Golden { name: BULK, config: |config| config.with_segment_bytes(16 << 10), len: bulk_len, end: [255, 269] },
    Golden { name: "golden/empty", config: |config| config, len: |_| 0, end: [0, 0] },
    Golden { name: "golden/late", config: |config| config, len: |seq| seq as usize, end: [0, 20] },
    Golden {
        name: SMALL,
        config: |config| config.with_fsync_policy(FsyncPolicy::EveryN(1)),
        len: mixed_len,
        end: [9, 30],
    },
    Golden { name: "golden/Röhre 管", config: bounded, len: |_| 300, end: [2, 3] },
];

const CRASHED: &[Golden] = &[
    Golden { name: "golden/one", config: |config| config, len: mixed_len, end: [40, 40] },
    Golden { name: "golden/two", config: bounded, len: |_| 300, end: [5, 5] },
];

fn bounded(config: RedexFileConfig) -> RedexFileConfig {
    let period = Duration::from_millis(1500);
    config.with_fsync_policy(FsyncPolicy::IntervalOrBytes { period, max_bytes: 100_000 })
}

/// More than an index block of short events, a batch in blocks, an extent, more blocks, a tail.
fn bulk_len(seq: u64) -> usize {
    match seq {
        0..250 if seq % 25 == 24 => 100,
        0..250 => seq as usize % 9,
        250..253 => 1500,
        253..255 => 6000,
        255..259 => 2500,
        _ => 20,
    }
}

fn mixed_len(seq: u64) -> usize {
    [0, 1, 7, 8, 9, 50][seq as usize % 6]
}

impl Golden {
    fn config(&self) -> RedexFileConfig {
        (self.config)(RedexFileConfig::default().with_persistent(true))
    }

    fn payload(&self, seq: u64) -> Vec<u8> {
        pattern(u64::from(crc32c::crc32c(self.name.as_bytes())) + seq, (self.len)(seq))
    }

    fn open(&self, redex: &Redex) -> RedexFile {
        redex.open_file(self.name, self.config()).unwrap()
    }

    fn append_to(&self, file: &RedexFile, end: u64) {
        let payloads: Vec<_> = (file.next_seq()..end).map(|seq| self.payload(seq)).collect();
        // Batches of different kinds, so that what is bulk goes around the journal.
        for batch in payloads.chunk_by(|a, b| (a.len() > 1000) == (b.len() > 1000)) {
            file.append_batch_durable(batch).wait().unwrap();
        }
    }
}

fn open(dir: &Path) -> Result<Redex, OpenError> {
    let builder = Redex::builder().persistent_dir(dir).shards(1).extent_bytes(8 << 10);
    builder.journal_segment_bytes(64 << 10).checkpoint_bytes(64 << 10).build()
}

// Making them

/// Makes both stores, and the table of their events' times.
pub fn write(dir: &Path) {
    let mut times = String::new();
    let made = scratch();
    for run in 0..2 {
        let redex = open(made.path()).unwrap();
        append_all(&redex, CLOSED, run);
        if run == 1 {
            note_times(&redex, CLOSED, &mut times);
        }
        redex.close().wait().unwrap();
    }
    copy(made.path(), &dir.join("store"));
    let made = scratch();
    let redex = open(made.path()).unwrap();
    append_all(&redex, CRASHED, 0);
    note_times(&redex, CRASHED, &mut times);
    // By now the idle shard has written its witness.
    std::thread::sleep(Duration::from_millis(100));
    copy(made.path(), &dir.join("crashed"));
    redex.close().wait().unwrap();
    for store in ["store", "crashed"] {
        fs::remove_dir_all(dir.join(store).join("journal/000/spare")).unwrap();
    }
    fs::write(dir.join("times.tsv"), times).unwrap();
}

fn append_all(redex: &Redex, channels: &[Golden], run: usize) {
    for channel in channels {
        channel.append_to(&channel.open(redex), channel.end[run]);
    }
}

fn note_times(redex: &Redex, channels: &[Golden], times: &mut String) {
    for channel in channels {
        times.push_str(channel.name);
        let mut last = 0;
        for event in channel.open(redex).read_range(0, u64::MAX).wait().unwrap() {
            let time = event.time.as_micros();
            times.push_str(&format!("\t{}", time - last));
            last = time;
        }
        times.push('\n');
    }
}

/// Copies a store without LOCK, and makes the directories that are empty: version control does not keep those.
fn copy(from: &Path, to: &Path) {
    for dir in ["journal/000/spare", "checkpoint/000", "channels"] {
        fs::create_dir_all(to.join(dir)).unwrap();
    }
    copy_dir(from, to);
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &place);
        } else if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}

// Reading them

struct Copy(tempfile::TempDir);

impl Copy {
    fn of(store: &str) -> Self {
        let dir = scratch();
        copy(&golden().join(store), dir.path());
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// All files whose names end in this, in order.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        find(self.path(), ending, &mut files);
        files.sort();
        files
    }

    /// The only one.
    fn file(&self, ending: &str) -> PathBuf {
        let files = self.files(ending);
        assert_eq!(files.len(), 1, "files that end in {ending}");
        files.into_iter().next().unwrap()
    }

    fn newest_checkpoint(&self) -> PathBuf {
        self.files(".ckp").pop().expect("the store has checkpoints")
    }

    fn superblock(&self) -> Superblock {
        Superblock::decode(&fs::read(self.path().join("STORE")).unwrap()).unwrap()
    }

    fn change(&self, path: &Path, change: impl FnOnce(&[u8]) -> Vec<u8>) {
        let bytes = fs::read(path).unwrap();
        fs::write(path, change(&bytes)).unwrap();
    }

    /// As if it had not been closed.
    fn forget_clean_end(&self) {
        let mut superblock = self.superblock();
        superblock.shards.iter_mut().for_each(|root| root.clean = None);
        self.write_superblock(&superblock);
    }

    fn write_superblock(&self, superblock: &Superblock) {
        let mut copy = vec![0; SUPERBLOCK_SIZE];
        superblock.encode(&mut copy).unwrap();
        fs::write(self.path().join("STORE"), [&copy[..], &copy].concat()).unwrap();
    }

    fn refused(&self) -> OpenError {
        open(self.path()).expect_err("the store is damaged")
    }
}

fn find(dir: &Path, ending: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, ending, files);
        } else if path.to_str().unwrap().ends_with(ending) {
            files.push(path);
        }
    }
}

/// The times of each channel's events: the table has the first one, and what each adds to the one before.
fn times() -> BTreeMap<String, Vec<u64>> {
    let table = String::from_utf8(super::golden_file("times.tsv")).unwrap();
    let line = |line: &str| {
        let mut columns = line.split('\t');
        let name = columns.next().expect("a line has a name").to_owned();
        let time = |time: &mut u64, step: &str| {
            *time += step.parse::<u64>().unwrap();
            Some(*time)
        };
        (name, columns.scan(0, time).collect())
    };
    table.lines().map(line).collect()
}

/// Compares all events of the channels; `more` came behind the golden ones.
fn compare(redex: &Redex, channels: &[Golden], more: u64) {
    let times = times();
    let mut names: Vec<_> = channels.iter().map(|channel| channel.name).collect();
    names.sort_unstable();
    let found = redex.channels();
    assert_eq!(found.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), names);
    assert!(found.iter().all(|info| info.persistent && info.head_seq == 0));
    for channel in channels {
        let (name, end) = (channel.name, channel.end[1]);
        let events = channel.open(redex).read_range(0, u64::MAX).wait().unwrap();
        assert_eq!(events.len() as u64, end + more, "{name}");
        for (seq, event) in events.iter().enumerate() {
            assert_eq!(event.seq, seq as u64, "{name}");
            assert_eq!(event.payload, channel.payload(event.seq), "{name}, event {seq}");
        }
        let found: Vec<_> = events[..end as usize].iter().map(|event| event.time.as_micros()).collect();
        assert_eq!(found, times[name], "{name}");
        assert!(events.windows(2).all(|pair| pair[0].time <= pair[1].time), "{name}");
    }
}

fn reads_goes_on_and_reads_again(copy: &Copy, channels: &[Golden]) {
    let epoch = copy.superblock().epoch;
    for run in 0..3 {
        let redex = open(copy.path()).unwrap();
        assert_eq!(copy.superblock().epoch, Epoch(epoch.0 + run + 1));
        compare(&redex, channels, u64::from(run) * 100);
        for channel in channels {
            channel.append_to(&channel.open(&redex), channel.end[1] + u64::from(run + 1) * 100);
        }
        compare(&redex, channels, u64::from(run + 1) * 100);
        redex.close().wait().unwrap();
    }
}

#[test]
fn closed_store_reads_and_goes_on() {
    reads_goes_on_and_reads_again(&Copy::of("store"), CLOSED);
}

#[test]
fn closed_store_reads_as_after_a_crash() {
    let copy = Copy::of("store");
    copy.forget_clean_end();
    reads_goes_on_and_reads_again(&copy, CLOSED);
}

#[test]
fn crashed_store_reads_and_goes_on() {
    reads_goes_on_and_reads_again(&Copy::of("crashed"), CRASHED);
}

#[test]
fn configuration_and_epochs_are_kept() {
    let copy = Copy::of("store");
    let redex = open(copy.path()).unwrap();
    let other = RedexFileConfig::default().with_persistent(true);
    let conflict = redex.open_file(BULK, other).unwrap_err();
    assert!(matches!(conflict, OpenFileError::ConfigConflict { setting: "segment_bytes", .. }), "{conflict}");
    let file = CLOSED[0].open(&redex);
    assert!(file.subscribe_from(Cursor { epoch: 1, seq: 255 }).wait().is_ok());
    let lost = file.subscribe_from(Cursor { epoch: 1, seq: 260 }).wait().unwrap_err();
    assert!(matches!(lost, SubscribeError::LostEvents { from: 255, to: 260, .. }), "{lost}");
    assert!(file.subscribe_from(Cursor { epoch: 2, seq: 269 }).wait().is_ok());
}

// Their files

#[test]
fn files_of_the_closed_store_are_written_the_same() {
    let copy = Copy::of("store");
    let bytes = fs::read(copy.path().join("STORE")).unwrap();
    let superblock = copy.superblock();
    let mut encoded = vec![0; SUPERBLOCK_SIZE];
    superblock.encode(&mut encoded).unwrap();
    assert!(bytes == [&encoded[..], &encoded].concat(), "STORE is encoded differently");
    assert_eq!((superblock.epoch, superblock.shards.len()), (Epoch(2), 1));

    let bytes = fs::read(copy.file(".wal")).unwrap();
    let header = SegmentHeader::verify(&bytes[..BLOCK_SIZE]).unwrap();
    assert_eq!((header.uuid, header.shard), (superblock.uuid, ShardId(0)));
    let mut encoded = vec![0; BLOCK_SIZE];
    header.encode(&mut encoded);
    assert!(bytes[..BLOCK_SIZE] == encoded, "journal headers are encoded differently");
    let clean = superblock.shards[0].clean.unwrap();
    assert_eq!(clean.segment, header.number);
    check_commits(&bytes[..clean.offset as usize], &header);

    let bytes = fs::read(copy.file("META")).unwrap();
    let meta = Meta::decode(&bytes).unwrap();
    assert_eq!((&*meta.name, meta.uuid, meta.created), (BULK, superblock.uuid, Epoch(1)));
    let mut encoded = vec![0; META_SIZE];
    meta.encode(&mut encoded);
    assert!(bytes == encoded, "META is encoded differently");

    let idx_files = copy.files(".idx");
    let (active, sealed) = idx_files.split_last().unwrap();
    let mut first = Seq(0);
    for path in sealed {
        first = check_sealed(&fs::read(path).unwrap(), meta.id, first);
    }
    assert!(active.ends_with(format!("{:020}.idx", first.0)));
    assert!(sealed.len() >= 2 && first.0 > 0);
}

/// Decodes all commits of the closed journal.
fn check_commits(bytes: &[u8], header: &SegmentHeader) {
    let (mut at, mut lsn) = (BLOCK_SIZE, header.first_lsn);
    let (mut extents, mut last) = (0, None);
    while at < bytes.len() {
        let commit = CommitHeader::verify(&bytes[at..], &header.context(), at as u64).unwrap();
        assert_eq!((commit.fields().lsn, commit.fields().epoch), (lsn, header.epoch));
        let (meta, _) = commit.body(&bytes[at..]).unwrap();
        for entry in entries(meta) {
            let entry = entry.unwrap();
            extents += usize::from(matches!(&entry, Entry::Events(events) if events.fields.extent_len > 0));
            last = Some(entry);
        }
        at += commit.commit_size();
        lsn.0 += 1;
    }
    assert_eq!(at, bytes.len());
    assert_eq!(extents, 1, "a batch went around the journal");
    assert!(matches!(last, Some(Entry::Checkpoint(_))), "the journal ends with a checkpoint");
}

/// Decodes a sealed idx file and encodes it again. Gives its end.
fn check_sealed(bytes: &[u8], channel: redex::format::ChannelId, first: Seq) -> Seq {
    let (blocks, last) = bytes.split_at(bytes.len() - INDEX_BLOCK_SIZE);
    let footer = Footer::decode(last).unwrap();
    assert_eq!((footer.channel, footer.first), (channel, first));
    assert_eq!(footer.block_count() as usize, blocks.len() / INDEX_BLOCK_SIZE);
    assert_eq!(footer.idx_hash, blocks.chunks(INDEX_BLOCK_SIZE).fold(0, idx_hash_append));
    let mut encoded = vec![0; INDEX_BLOCK_SIZE];
    footer.encode(&mut encoded);
    assert!(encoded == last, "footers are encoded differently");
    let place = BlockPlace { channel, segment_first: first };
    for (i, block) in blocks.chunks(INDEX_BLOCK_SIZE).enumerate() {
        let base = Seq(first.0 + (i * RECORDS_PER_BLOCK) as u64);
        let records = decode_block(block, place, base).unwrap();
        records.iter().for_each(|record| record.check().unwrap());
        encode_block(&mut encoded, records, base, place);
        assert!(encoded == block, "index blocks are encoded differently");
    }
    footer.end
}

// Damage

#[test]
fn damaged_store_file_is_refused_if_both_copies_are_bad() {
    let copy = Copy::of("store");
    let path = copy.path().join("STORE");
    copy.change(&path, |bytes| flipped(bytes, 25));
    copy.change(&path, |bytes| flipped(bytes, SUPERBLOCK_SIZE + 25));
    let error = copy.refused();
    assert!(matches!(error, OpenError::Superblock { error: SuperblockError::Damaged { .. }, .. }), "{error}");
    copy.change(&path, |bytes| flipped(bytes, 25));
    compare(&open(copy.path()).unwrap(), CLOSED, 0);
}

#[test]
fn newer_store_is_refused() {
    let copy = Copy::of("store");
    copy.change(&copy.path().join("STORE"), |bytes| {
        let (_, body) = envelope::unseal(&bytes[..SUPERBLOCK_SIZE], *b"REDEXSTO", 1).unwrap();
        let mut newer = vec![0; SUPERBLOCK_SIZE];
        envelope::seal(&mut newer, *b"REDEXSTO", 2, body).unwrap();
        [&newer[..], &newer].concat()
    });
    let error = copy.refused();
    assert!(matches!(error, OpenError::Superblock { error: SuperblockError::Newer { version: 2 }, .. }), "{error}");
}

/// What opening says of a checkpoint file that was changed.
fn checkpoint_refusal(change: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let copy = Copy::of("store");
    copy.change(&copy.newest_checkpoint(), change);
    let error = copy.refused();
    assert!(matches!(error, OpenError::Checkpoint { .. }), "{error}");
    error.to_string()
}

#[test]
fn damaged_checkpoint_is_refused() {
    let cases: [(usize, &str); 6] = [
        (0, "it does not begin with its magic number"),
        (8, "the checksum of the header is wrong"),
        (12, "the checksum of the header is wrong"),
        (4095, "the checksum of the header is wrong"),
        (4096 + 4, "the checksum of a state is wrong"),
        (4096 + 8 + 12, "the checksum of a state is wrong"),
    ];
    for (at, why) in cases {
        let refusal = checkpoint_refusal(|bytes| flipped(bytes, at));
        assert!(refusal.contains(why), "byte {at}: {refusal}");
    }
    let cut = checkpoint_refusal(|bytes| bytes[..4096].to_vec());
    assert!(cut.contains("the file is cut off"), "{cut}");
}

#[test]
fn newer_checkpoint_is_refused() {
    let refusal = checkpoint_refusal(|bytes| {
        let mut bytes = bytes.to_vec();
        bytes[8] = 2;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..4096]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    });
    assert!(refusal.contains("format version 2"), "{refusal}");
}

#[test]
fn damaged_tail_is_named_by_its_channel() {
    let copy = Copy::of("store");
    copy.change(&copy.newest_checkpoint(), |bytes| {
        let tails = u64::from_le_bytes(bytes[56..64].try_into().unwrap()) as usize;
        // Every tail begins with its checksum; this is the first one's.
        flipped(bytes, tails)
    });
    let redex = open(copy.path()).unwrap();
    let refused: Vec<_> =
        CLOSED.iter().filter_map(|channel| redex.open_file(channel.name, channel.config()).err()).collect();
    assert_eq!(refused.len(), 1, "one channel is damaged, the others are not");
    assert!(matches!(&refused[0], OpenFileError::Damaged { .. }), "{}", refused[0]);
    assert!(refused[0].to_string().contains("the checksum of a tail is wrong"), "{}", refused[0]);
}

/// What opening says of a journal with a flipped bit in byte `at` of its last segment.
fn journal_refusal(store: &str, at: usize) -> String {
    let copy = Copy::of(store);
    copy.change(&copy.file(".wal"), |bytes| flipped(bytes, at));
    let error = copy.refused();
    assert!(matches!(error, OpenError::Journal { .. }), "byte {at}: {error}");
    error.to_string()
}

#[test]
fn damaged_end_of_a_closed_journal_is_refused() {
    let end = Copy::of("store").superblock().shards[0].clean.unwrap().offset as usize;
    for (at, why) in [(0, "header of"), (end - BLOCK_SIZE, "is damaged"), (end - BLOCK_SIZE + 80, "is damaged")] {
        let refusal = journal_refusal("store", at);
        assert!(refusal.contains(why), "byte {at}: {refusal}");
    }
}

#[test]
fn damaged_journal_of_a_crashed_store_is_refused() {
    for (at, why) in [(3, "header of"), (BLOCK_SIZE, "is damaged"), (2 * BLOCK_SIZE + 90, "is damaged")] {
        let refusal = journal_refusal("crashed", at);
        assert!(refusal.contains(why), "byte {at}: {refusal}");
    }
}

#[test]
fn damaged_segments_are_named_by_their_events() {
    let copy = Copy::of("store");
    copy.change(&copy.files(".idx")[0], |bytes| flipped(bytes, 100));
    copy.change(&copy.files(".dat")[1], |bytes| flipped(bytes, 100));
    let redex = open(copy.path()).unwrap();
    let file = CLOSED[0].open(&redex);
    let error = file.read_range(0, 1).wait().unwrap_err();
    assert!(matches!(error, ReadError::Index { from: 0, .. }), "{error}");
    let second = segment_first(&copy.files(".dat")[1]);
    let error = file.read_range(second, second + 1).wait().unwrap_err();
    assert!(matches!(error, ReadError::Payload { seq, .. } if seq == second), "{error}");
    let last = file.next_seq() - 1;
    assert_eq!(file.read_one(last).wait().unwrap().unwrap().payload, CLOSED[0].payload(last));
}

#[test]
fn damaged_meta_is_refused_with_its_channel() {
    let copy = Copy::of("store");
    let path = copy.file("META");
    copy.change(&path, |bytes| flipped(bytes, 30));
    let redex = open(copy.path()).unwrap();
    let refused: Vec<_> =
        CLOSED.iter().filter_map(|channel| redex.open_file(channel.name, channel.config()).err()).collect();
    let [OpenFileError::Meta { channel, path: found, offset: 0, .. }] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((channel.as_str(), found), (CLOSED[0].name, &path));
}

fn segment_first(path: &Path) -> u64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}
