//! One golden file of each kind, byte for byte, and the error of each when a bit is flipped.
//!
//! The values are written here. Decoding a file must give them, encoding them must give the file. Checkpoint files have no
//! public decoder: `store.rs` reads one through a whole store.

use std::path::Path;

use redex::format::block::{
    BlockError, BlockPlace, INDEX_BLOCK_FORMAT, INDEX_BLOCK_SIZE, RECORDS_PER_BLOCK, decode_block, encode_block,
};
use redex::format::envelope::{self, EnvelopeError};
use redex::format::footer::{Footer, FooterError, TimeIndex, TimeSample, idx_hash_append};
use redex::format::journal::{
    BLOCK_SIZE, COMMIT_HEADER_SIZE, CheckpointEntry, CommitError, CommitFields, CommitHeader, Entry, EntryError,
    EventsEntry, EventsFields, HeaderError, MetaWriter, PayloadError, SegmentHeader, entries, finish_commit,
};
use redex::format::meta::{META_SIZE, Meta};
use redex::format::record::{IndexRecord, RecordError};
use redex::format::superblock::{CleanEnd, SUPERBLOCK_SIZE, ShardRoot, Superblock, SuperblockError};
use redex::format::{ChannelId, CheckpointNo, Epoch, Lsn, SegmentNo, Seq, ShardId, StoreUuid};

use super::{flipped, golden_file, pattern};

const UUID: StoreUuid = StoreUuid(*b"golden store v1!");
const CHANNEL: ChannelId = ChannelId(0x0000_0003_0000_0007);
const NAME: &str = "golden/größe 1";
const TIME: u64 = 1_700_000_000_000_000;
/// Persistent, `EveryN(100)`, segments of 1 GiB.
const CONFIG: &[u8] = &[1, 1, 100, 0x80, 0x80, 0x80, 0x80, 0x04];

/// Writes all files of this module.
pub fn write(dir: &Path) {
    let files = [
        ("STORE", store_file()),
        ("META", meta_file()),
        ("segment.wal", journal_file()),
        ("block.idx", block_file()),
        ("sealed.idx", sealed_file()),
    ];
    for (name, bytes) in files {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
}

#[test]
fn checksum_is_crc_32c() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

// STORE

fn superblock() -> Superblock {
    let clean = CleanEnd { segment: SegmentNo(44), offset: 60 << 20, next_lsn: Lsn(987_654_321) };
    let shards = vec![
        ShardRoot { segment: SegmentNo(41), clean: Some(clean) },
        ShardRoot { segment: SegmentNo(0), clean: None },
        ShardRoot { segment: SegmentNo(u64::MAX), clean: None },
    ];
    Superblock { uuid: UUID, epoch: Epoch(300), generation: 601, shards }
}

/// The first copy is of the generation before.
fn store_file() -> Vec<u8> {
    let mut bytes = vec![0; 2 * SUPERBLOCK_SIZE];
    let older = Superblock { generation: 600, ..superblock() };
    older.encode(&mut bytes[..SUPERBLOCK_SIZE]).unwrap();
    superblock().encode(&mut bytes[SUPERBLOCK_SIZE..]).unwrap();
    bytes
}

#[test]
fn store_reads_and_writes_the_same() {
    let bytes = golden_file("STORE");
    assert_eq!(Superblock::decode(&bytes), Ok(superblock()));
    let older = Superblock { generation: 600, ..superblock() };
    assert_eq!(Superblock::decode_copy(&bytes[..SUPERBLOCK_SIZE]), Ok(older));
    assert!(store_file() == bytes, "STORE is encoded differently");
}

#[test]
fn damage_of_store_is_named() {
    let bytes = golden_file("STORE");
    let copy = |at| Superblock::decode_copy(&flipped(&bytes[..SUPERBLOCK_SIZE], at)).unwrap_err();
    assert_eq!(copy(0), EnvelopeError::Magic);
    assert!(matches!(copy(8), EnvelopeError::Checksum { .. }), "version");
    assert!(matches!(copy(14), EnvelopeError::Cut { .. }), "length");
    assert!(matches!(copy(16), EnvelopeError::Checksum { .. }), "checksum");
    assert!(matches!(copy(20), EnvelopeError::Checksum { .. }), "body");
    let second_damaged = flipped(&bytes, SUPERBLOCK_SIZE + 20);
    assert_eq!(Superblock::decode(&second_damaged).unwrap().generation, 600, "the other copy counts");
    let SuperblockError::Damaged { first, second } = Superblock::decode(&flipped(&second_damaged, 0)).unwrap_err()
    else {
        panic!("both copies are damaged");
    };
    assert_eq!(first, EnvelopeError::Magic);
    assert!(matches!(second, EnvelopeError::Checksum { .. }));
}

#[test]
fn newer_store_is_refused() {
    let mut bytes = golden_file("STORE");
    let (_, body) = envelope::unseal(&bytes[..SUPERBLOCK_SIZE], *b"REDEXSTO", 1).unwrap();
    let body = body.to_vec();
    envelope::seal(&mut bytes[..SUPERBLOCK_SIZE], *b"REDEXSTO", 2, &body).unwrap();
    assert_eq!(Superblock::decode(&bytes), Err(SuperblockError::Newer { version: 2 }));
}

// META

fn meta() -> Meta {
    Meta { uuid: UUID, id: CHANNEL, name: NAME.to_owned(), created: Epoch(3), created_us: TIME }
}

fn meta_file() -> Vec<u8> {
    let mut bytes = vec![0; META_SIZE];
    meta().encode(&mut bytes);
    bytes
}

#[test]
fn meta_reads_and_writes_the_same() {
    let bytes = golden_file("META");
    assert_eq!(Meta::decode(&bytes), Ok(meta()));
    assert!(meta_file() == bytes, "META is encoded differently");
}

#[test]
fn damage_of_meta_is_named() {
    let bytes = golden_file("META");
    let decode = |at| Meta::decode(&flipped(&bytes, at)).unwrap_err();
    assert_eq!(decode(7), EnvelopeError::Magic);
    for at in [9, 10, 17, 20, 50] {
        assert!(matches!(decode(at), EnvelopeError::Checksum { .. }), "{at}");
    }
    assert_eq!(Meta::decode(&bytes[..19]), Err(EnvelopeError::Cut { needed: 20, size: 19 }));
    let mut newer = bytes.clone();
    envelope::seal(&mut newer, *b"REDEXCHM", 2, b"?").unwrap();
    assert_eq!(Meta::decode(&newer), Err(EnvelopeError::Newer { version: 2, known: 1 }));
    assert_eq!(Superblock::decode_copy(&bytes), Err(EnvelopeError::Magic), "META is no STORE");
}

// A journal segment

fn header() -> SegmentHeader {
    SegmentHeader {
        uuid: UUID,
        shard: ShardId(5),
        number: SegmentNo(42),
        epoch: Epoch(300),
        salt: 0x0123_4567_89ab_cdef,
        key_id: 0,
        predecessor: Some(SegmentNo(41)),
        first_lsn: Lsn(1000),
    }
}

struct Commit<'a> {
    entries: Vec<Entry<'a>>,
    payload: Vec<u8>,
}

/// The events of the journal segment.
struct Events {
    /// In the journal: inline ones, and 100 and 5000 bytes in dat.
    small: Vec<IndexRecord>,
    small_bytes: Vec<u8>,
    /// By extent: 5000 bytes, of which 904 lie behind its end, in the commit.
    bulk: Vec<IndexRecord>,
    bulk_bytes: Vec<u8>,
}

impl Events {
    fn new() -> Self {
        let (short, long, bulk) = (pattern(1, 100), pattern(2, 5000), pattern(3, 5000));
        let small = vec![
            IndexRecord::inline(b"", TIME),
            IndexRecord::inline(b"12345678", TIME + 1),
            IndexRecord::in_dat(300, 100, crc32c::crc32c(&short), TIME + 1).with_tombstone(),
            IndexRecord::in_dat(400, 5000, crc32c::crc32c(&long), TIME + 2),
        ];
        let bulk_record = IndexRecord::in_dat(8192, 5000, crc32c::crc32c(&bulk), TIME + 3);
        Self { small, small_bytes: [short, long].concat(), bulk: vec![bulk_record], bulk_bytes: bulk }
    }

    fn extent(&self) -> &[u8] {
        &self.bulk_bytes[..4096]
    }
}

fn small_fields() -> EventsFields {
    EventsFields {
        channel: CHANNEL,
        first: Seq(1010),
        segment_first: Seq(1000),
        dat_offset: 300,
        inline_len: 5100,
        extent_offset: 0,
        extent_len: 0,
    }
}

fn bulk_fields() -> EventsFields {
    EventsFields {
        channel: CHANNEL,
        first: Seq(1014),
        segment_first: Seq(1000),
        dat_offset: 12288,
        inline_len: 904,
        extent_offset: 8192,
        extent_len: 4096,
    }
}

/// Every kind of entry, one commit without any, and one whose payload bytes fill a second block.
fn commits(events: &Events) -> Vec<Commit<'_>> {
    let small = EventsEntry { fields: small_fields(), records: &events.small };
    let bulk = EventsEntry { fields: bulk_fields(), records: &events.bulk };
    let files = vec![CheckpointNo(6), CheckpointNo(9)];
    let checkpoint = CheckpointEntry { replay_lsn: Lsn(900), replay_segment: SegmentNo(40), files };
    vec![
        Commit {
            entries: vec![Entry::ChannelCreated { channel: CHANNEL, name: NAME, config: CONFIG }, Entry::Events(small)],
            payload: events.small_bytes.clone(),
        },
        Commit { entries: vec![Entry::Events(bulk)], payload: events.bulk_bytes[4096..].to_vec() },
        Commit { entries: Vec::new(), payload: Vec::new() },
        Commit {
            entries: vec![
                Entry::ChannelConfigured { channel: CHANNEL, config: &CONFIG[..7] },
                Entry::HeadTrimmed { channel: CHANNEL, head: Seq(1001) },
                Entry::SuffixTruncated { channel: CHANNEL, end: Seq(1012) },
                Entry::ChannelDeleted { channel: CHANNEL },
            ],
            payload: Vec::new(),
        },
        Commit {
            entries: vec![Entry::Checkpoint(checkpoint), Entry::Roll { next: SegmentNo(43) }],
            payload: Vec::new(),
        },
    ]
}

/// LSN and durable LSN of the commits, in order.
const LSNS: [(u64, u64); 5] = [(1000, 998), (1001, 1000), (1002, 1002), (1003, 1002), (1004, 1004)];

fn journal_file() -> Vec<u8> {
    let events = Events::new();
    let mut bytes = vec![0; BLOCK_SIZE];
    header().encode(&mut bytes);
    for (commit, (lsn, durable_lsn)) in commits(&events).iter().zip(LSNS) {
        let mut buf = vec![0; 4 * BLOCK_SIZE];
        let mut meta = MetaWriter::new(&mut buf[COMMIT_HEADER_SIZE..]);
        commit.entries.iter().for_each(|entry| write_entry(&mut meta, entry));
        let (meta_len, entry_count) = (meta.len(), meta.entry_count());
        let payload_at = COMMIT_HEADER_SIZE + meta_len;
        buf[payload_at..payload_at + commit.payload.len()].copy_from_slice(&commit.payload);
        let fields = CommitFields {
            lsn: Lsn(lsn),
            durable_lsn: Lsn(durable_lsn),
            epoch: Epoch(300),
            offset: bytes.len() as u32,
            meta_len: meta_len as u32,
            payload_len: commit.payload.len() as u32,
            entry_count,
        };
        let size = finish_commit(&mut buf, &header().context(), &fields);
        bytes.extend_from_slice(&buf[..size]);
    }
    bytes
}

fn write_entry(meta: &mut MetaWriter<'_>, entry: &Entry<'_>) {
    let result = match entry {
        Entry::Events(events) => meta.begin_events(&events.fields, events.records.len()).map(|place| {
            let records: Vec<u8> = events.records.iter().flat_map(|record| *record.as_bytes()).collect();
            place.copy_from_slice(&records);
        }),
        Entry::ChannelCreated { channel, name, config } => meta.channel_created(*channel, name, config),
        Entry::ChannelConfigured { channel, config } => meta.channel_configured(*channel, config),
        Entry::ChannelDeleted { channel } => meta.channel_deleted(*channel),
        Entry::HeadTrimmed { channel, head } => meta.head_trimmed(*channel, *head),
        Entry::SuffixTruncated { channel, end } => meta.suffix_truncated(*channel, *end),
        Entry::Checkpoint(entry) => meta.checkpoint(entry.replay_lsn, entry.replay_segment, &entry.files),
        Entry::Roll { next } => meta.roll(*next),
    };
    result.expect("four blocks are enough");
}

/// Where the commits begin.
const COMMIT_OFFSETS: [usize; 5] = [4096, 12288, 16384, 20480, 24576];

#[test]
fn journal_segment_reads_and_writes_the_same() {
    let bytes = golden_file("segment.wal");
    assert_eq!(SegmentHeader::verify(&bytes[..BLOCK_SIZE]), Ok(header()));
    let events = Events::new();
    let mut at = BLOCK_SIZE;
    for (i, expected) in commits(&events).iter().enumerate() {
        assert_eq!(at, COMMIT_OFFSETS[i]);
        let commit = CommitHeader::verify(&bytes[at..], &header().context(), at as u64).unwrap();
        let fields = commit.fields();
        assert_eq!((fields.lsn.0, fields.durable_lsn.0), LSNS[i]);
        assert_eq!((fields.epoch, fields.entry_count as usize), (Epoch(300), expected.entries.len()));
        let (meta, payload) = commit.body(&bytes[at..]).unwrap();
        assert_eq!(entries(meta).collect::<Result<Vec<_>, _>>().unwrap(), expected.entries);
        assert!(payload == expected.payload, "payload bytes of commit {i}");
        at += commit.commit_size();
    }
    assert_eq!(at, bytes.len());
    assert!(journal_file() == bytes, "the journal is encoded differently");
}

/// Meta and payload bytes of commit `i`.
fn body(bytes: &[u8], i: usize) -> Result<(&[u8], &[u8]), CommitError> {
    let at = COMMIT_OFFSETS[i];
    CommitHeader::verify(&bytes[at..], &header().context(), at as u64)?.body(&bytes[at..])
}

fn first_events(meta: &[u8]) -> EventsEntry<'_> {
    let events = |entry| if let Ok(Entry::Events(events)) = entry { Some(events) } else { None };
    entries(meta).find_map(events).expect("the commit has events")
}

#[test]
fn payloads_in_the_journal_match_their_records() {
    let (bytes, events) = (golden_file("segment.wal"), Events::new());
    let (meta, payload) = body(&bytes, 0).unwrap();
    first_events(meta).verify_inline(payload).unwrap();
    let (meta, payload) = body(&bytes, 1).unwrap();
    first_events(meta).verify_inline(payload).unwrap();
    first_events(meta).verify_extent(events.extent(), payload).unwrap();
    let damaged = flipped(events.extent(), 4095);
    let error = PayloadError::Checksum { seq: Seq(1014) };
    assert_eq!(first_events(meta).verify_extent(&damaged, payload), Err(error));
}

#[test]
fn damage_of_a_journal_header_is_named() {
    let bytes = golden_file("segment.wal");
    let verify = |at| SegmentHeader::verify(&flipped(&bytes[..BLOCK_SIZE], at)).unwrap_err();
    assert_eq!(verify(3), HeaderError::Magic);
    for at in [8, 10, 12, 20, 35, 45, 50, 52, 60, 70, 4095] {
        assert!(matches!(verify(at), HeaderError::Checksum { .. }), "{at}");
    }
    assert_eq!(SegmentHeader::verify(&bytes[..4095]), Err(HeaderError::Size { size: 4095 }));
    let mut newer = bytes[..BLOCK_SIZE].to_vec();
    newer[8] = 2;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..52]), &newer[56..]);
    newer[52..56].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentHeader::verify(&newer), Err(HeaderError::Version { version: 2 }));
}

#[test]
fn damage_of_a_commit_is_named() {
    let bytes = golden_file("segment.wal");
    let damaged = |at: usize| body(&flipped(&bytes, COMMIT_OFFSETS[0] + at), 0).map(|_| ()).unwrap_err();
    assert_eq!(damaged(0), CommitError::Magic);
    assert_eq!(damaged(16), CommitError::Salt);
    for at in [4, 8, 12, 14, 24, 32, 40, 48, 52, 56, 60, 64, 79] {
        assert!(matches!(damaged(at), CommitError::HeaderChecksum { .. }), "{at}");
    }
    for at in [80, 90, 200] {
        assert!(matches!(damaged(at), CommitError::BodyChecksum { .. }), "{at}");
    }
    let moved = CommitHeader::verify(&bytes[4096..], &header().context(), 8192);
    let place = CommitError::Place { shard: ShardId(5), segment: SegmentNo(42), offset: 4096 };
    assert_eq!(moved, Err(place));
    let context = SegmentHeader { uuid: StoreUuid([0; 16]), ..header() }.context();
    let other_store = CommitHeader::verify(&bytes[4096..], &context, 4096).unwrap_err();
    assert!(matches!(other_store, CommitError::HeaderChecksum { .. }));
    let cut = CommitHeader::verify(&bytes[4096..8192], &header().context(), 4096).unwrap().body(&bytes[4096..8192]);
    assert_eq!(cut, Err(CommitError::BodyCut { size: 8192 }));
}

#[test]
fn damage_of_payload_bytes_is_named_by_its_event() {
    let bytes = golden_file("segment.wal");
    let (meta, payload) = body(&bytes, 0).unwrap();
    for (at, seq) in [(0, 1012), (99, 1012), (100, 1013), (5099, 1013)] {
        let verdict = first_events(meta).verify_inline(&flipped(payload, at));
        assert_eq!(verdict, Err(PayloadError::Checksum { seq: Seq(seq) }));
    }
}

#[test]
fn unknown_entries_are_refused() {
    let bytes = golden_file("segment.wal");
    let (meta, _) = body(&bytes, 3).unwrap();
    let first = |meta: &[u8]| entries(meta).next().unwrap().map(|_| ()).unwrap_err();
    assert_eq!(first(&flipped(meta, 0)), EntryError::UnknownKind { at: 0, kind: 3 ^ 0x10 });
    assert_eq!(first(&flipped(meta, 1)), EntryError::Field { at: 0, field: "flags" });
    assert_eq!(first(&flipped(meta, 7)), EntryError::Length { at: 0 });
}

// idx

const PLACE: BlockPlace = BlockPlace { channel: CHANNEL, segment_first: Seq(1000) };

/// Records of every shape: inline ones of 0 to 8 bytes, ones in dat, encrypted ones, tombstones.
fn record(i: u64) -> IndexRecord {
    let (time, crc) = (TIME + i / 3, crc32c::crc32c(&i.to_le_bytes()));
    match i % 12 {
        len @ 0..=8 => IndexRecord::inline(&pattern(i, len as usize), time),
        9 => IndexRecord::in_dat(i as u32 * 4096, 9 + i as u32, crc, time),
        10 => IndexRecord::in_dat(u32::MAX - 4096, 4096, crc, time).with_encrypted(),
        _ => IndexRecord::in_dat(7, 0, crc, time).with_tombstone(),
    }
}

fn records(numbers: std::ops::Range<u64>) -> Vec<IndexRecord> {
    numbers.map(record).collect()
}

/// The second block of its segment, full.
fn block_file() -> Vec<u8> {
    let mut bytes = vec![0; INDEX_BLOCK_SIZE];
    encode_block(&mut bytes, &records(204..408), Seq(1204), PLACE);
    bytes
}

#[test]
fn index_block_reads_and_writes_the_same() {
    let bytes = golden_file("block.idx");
    let found = decode_block(&bytes, PLACE, Seq(1204)).unwrap();
    assert_eq!(found, records(204..408));
    found.iter().for_each(|record| record.check().unwrap());
    assert!(block_file() == bytes, "index blocks are encoded differently");
    // Record 213: 222 bytes at 872448 of dat.
    let raw = &bytes[9 * 20..10 * 20];
    assert_eq!(raw[..8], [0x00, 0x50, 0x0d, 0x00, 0xde, 0x00, 0x00, 0x00]);
    assert_eq!(raw[12..], (TIME + 71).to_le_bytes());
    // Record 212: 8 bytes inline.
    assert_eq!((&bytes[8 * 20..8 * 20 + 8], bytes[8 * 20 + 19]), (&pattern(212, 8)[..], 9));
}

#[test]
fn damage_of_an_index_block_is_named() {
    let bytes = golden_file("block.idx");
    let decode = |bytes: &[u8]| decode_block(bytes, PLACE, Seq(1204)).map(|_| ()).unwrap_err();
    for at in [0, 4079, 4080, 4088, 4090, 4092] {
        assert!(matches!(decode(&flipped(&bytes, at)), BlockError::Checksum { .. }), "{at}");
    }
    assert_eq!(decode(&bytes[..4095]), BlockError::Size { size: 4095 });
    let other_place = BlockPlace { channel: ChannelId(1), ..PLACE };
    assert!(matches!(decode_block(&bytes, other_place, Seq(1204)), Err(BlockError::Checksum { .. })));
    let position = BlockError::Position { channel: CHANNEL, expected: Seq(1000), found: Seq(1204) };
    assert_eq!(decode_block(&bytes, PLACE, Seq(1000)), Err(position));
    let mut newer = bytes.clone();
    newer[4090] = 2;
    seal_block(&mut newer);
    let format = BlockError::Format { channel: CHANNEL, base: Seq(1204), format: INDEX_BLOCK_FORMAT + 1 };
    assert_eq!(decode(&newer), format);
    let mut overfull = bytes;
    overfull[4088] = 205;
    seal_block(&mut overfull);
    assert_eq!(decode(&overfull), BlockError::Count { channel: CHANNEL, base: Seq(1204), count: 205 });
}

/// Makes the checksum right again.
fn seal_block(bytes: &mut [u8]) {
    let prefix = [CHANNEL.0.to_le_bytes(), 1000u64.to_le_bytes()].concat();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&prefix), &bytes[..4092]);
    bytes[4092..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn damage_of_a_record_is_named() {
    let bytes = golden_file("block.idx");
    let found = decode_block(&bytes, PLACE, Seq(1204)).unwrap();
    let check = |i: usize, at: usize| {
        let mut one = [found[i]];
        let mut buf = vec![0; INDEX_BLOCK_SIZE];
        encode_block(&mut buf, &one, Seq(1000), PLACE);
        let mut buf = flipped(&buf, at);
        seal_block(&mut buf);
        one.copy_from_slice(decode_block(&buf, PLACE, Seq(1000)).unwrap());
        one[0].check()
    };
    assert!(matches!(check(8, 0), Err(RecordError::InlineChecksum { len: 8, .. })));
    assert_eq!(check(3, 5), Err(RecordError::InlinePadding { len: 3 }));
    assert_eq!(check(3, 19), Err(RecordError::InlineEncrypted));
    assert!(matches!(check(10, 6), Err(RecordError::Range { .. })));
}

/// 300 events: a full block, a short one, and the footer.
fn footer(idx_hash: u32) -> Footer {
    let mut time_index = TimeIndex::new();
    time_index.push(0, TIME);
    time_index.push(1, TIME + 68);
    Footer {
        channel: CHANNEL,
        first: Seq(1000),
        end: Seq(1300),
        dat_size: 123_457,
        first_time_us: TIME,
        last_time_us: TIME + 99,
        idx_hash,
        time_index,
        has_time_blocks: false,
    }
}

fn sealed_file() -> Vec<u8> {
    let mut bytes = vec![0; 3 * INDEX_BLOCK_SIZE];
    encode_block(&mut bytes[..4096], &records(0..204), Seq(1000), PLACE);
    encode_block(&mut bytes[4096..8192], &records(204..300), Seq(1204), PLACE);
    let idx_hash = crc32c::crc32c(&bytes[..8192]);
    footer(idx_hash).encode(&mut bytes[8192..]);
    bytes
}

#[test]
fn sealed_idx_reads_and_writes_the_same() {
    let bytes = golden_file("sealed.idx");
    let (blocks, last) = bytes.split_at(2 * INDEX_BLOCK_SIZE);
    let found = Footer::decode(last).unwrap();
    let idx_hash = blocks.chunks(INDEX_BLOCK_SIZE).fold(0, idx_hash_append);
    assert_eq!(found, footer(idx_hash));
    assert_eq!((found.count(), found.block_count()), (300, 2));
    let samples = [TimeSample { block: 0, first_time_us: TIME }, TimeSample { block: 1, first_time_us: TIME + 68 }];
    assert_eq!(found.time_index.samples(), samples);
    let second = Seq(1000 + RECORDS_PER_BLOCK as u64);
    assert_eq!(decode_block(&blocks[..4096], PLACE, Seq(1000)).unwrap(), records(0..204));
    assert_eq!(decode_block(&blocks[4096..], PLACE, second).unwrap(), records(204..300));
    assert!(sealed_file() == bytes, "sealed idx files are encoded differently");
}

#[test]
fn damage_of_a_footer_is_named() {
    let bytes = golden_file("sealed.idx");
    let last = &bytes[8192..];
    let decode = |at| Footer::decode(&flipped(last, at)).unwrap_err();
    assert_eq!(decode(0), FooterError::Magic);
    for at in [8, 10, 12, 16, 24, 32, 40, 48, 56, 64, 68, 72, 2375, 4095] {
        assert!(matches!(decode(at), FooterError::Checksum { .. }), "{at}");
    }
    assert_eq!(Footer::decode(&last[1..]), Err(FooterError::Size { size: 4095 }));
    let resealed = |at: usize, value: u8| {
        let mut bytes = last.to_vec();
        bytes[at] = value;
        bytes[68..72].fill(0);
        let crc = crc32c::crc32c(&bytes);
        bytes[68..72].copy_from_slice(&crc.to_le_bytes());
        Footer::decode(&bytes).unwrap_err()
    };
    assert_eq!(resealed(8, 3), FooterError::Version { version: 3 });
    assert_eq!(resealed(8, 2), FooterError::Field { field: "version" });
    assert_eq!(resealed(12, 0), FooterError::Field { field: "count" });
    assert_eq!(resealed(4000, 1), FooterError::Field { field: "reserved" });
}
