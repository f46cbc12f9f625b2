//! What is written comes back; what is damaged, cut off or of another file does not.

use super::*;
use crate::store::memory_disk::MemoryDisk;

const UUID: StoreUuid = StoreUuid([4; 16]);
const SHARD: ShardId = ShardId(1);
const NUMBER: CheckpointNo = CheckpointNo(9);
const PATH: &str = "checkpoint/001/00000000000000000009.ckp";

fn tail(i: u64) -> Tail {
    let records = (0..i % 204).map(|n| IndexRecord::in_dat(n as u32, 1, i as u32, n));
    let bytes = (0..i * 37 % 4096).map(|n| (n ^ i) as u8);
    Tail { records: records.collect(), bytes: bytes.collect() }
}

fn state(i: u64) -> ChannelState {
    let tail = tail(i);
    let sealed = SegmentState { first: 0, end: 1000, dat_size: 1 << 30, sealed: true };
    let dat_size = (1 << 20) + tail.bytes.len() as u32;
    let active = SegmentState { first: 1000, end: 1000 + i, dat_size, sealed: false };
    ChannelState {
        id: i,
        name: format!("plant/line-{i}/sensor"),
        config: vec![i as u8; 12],
        lsn: 1000 + i,
        head: 0,
        end: 1000 + i,
        last_time_us: 1 << 50,
        deleted: i % 7 == 6,
        epochs: vec![(1, 0), (2, 900)],
        segments: vec![sealed, active],
        idx_hash: 0xdead_beef,
        tail: TailRef { offset: 0, record_count: tail.records.len() as u32, bytes_len: tail.bytes.len() as u32 },
    }
}

/// One that leaves nothing over.
fn state_of_blocks(i: u64) -> ChannelState {
    let state = state(i);
    let end = 1000 + i * RECORDS_PER_BLOCK as u64;
    let active = SegmentState { end, dat_size: 1 << 20, ..state.segments[1] };
    ChannelState { end, segments: vec![state.segments[0], active], tail: TailRef::default(), ..state }
}

/// Drains in small steps between the tails, as a shard does.
fn encoded(count: u64) -> Vec<u8> {
    let mut encoder = CheckpointEncoder::new(UUID, SHARD, NUMBER);
    let (mut file, mut out) = (Vec::new(), vec![0; 3 * BLOCK_SIZE + 100]);
    for i in 0..count {
        encoder.push_state(&state(i));
        assert_eq!(encoder.drain(&mut out), 0);
    }
    let size = encoder.end_states();
    for i in 0..count {
        let tail = tail(i);
        if i > 0 {
            encoder.push_tail(i, &tail.records, &tail.bytes);
        }
        let drained = encoder.drain(&mut out);
        file.extend_from_slice(&out[..drained]);
    }
    encoder.finish();
    while !encoder.is_drained() {
        let drained = encoder.drain(&mut out);
        assert!(drained > 0 && drained.is_multiple_of(BLOCK_SIZE));
        file.extend_from_slice(&out[..drained]);
    }
    assert_eq!(file.len() as u64, size);
    file
}

fn encoded_without_tails(states: &[ChannelState]) -> Vec<u8> {
    let mut encoder = CheckpointEncoder::new(UUID, SHARD, NUMBER);
    states.iter().for_each(|state| _ = encoder.push_state(state));
    let mut file = vec![0; encoder.end_states() as usize];
    encoder.finish();
    assert_eq!(encoder.drain(&mut file), file.len());
    file
}

fn disk(bytes: Vec<u8>) -> MemoryDisk {
    let disk = MemoryDisk::default();
    disk.put(PATH, bytes);
    disk
}

fn load(disk: &MemoryDisk) -> Result<Vec<ChannelState>, CheckpointError> {
    load_states(disk, PATH, UUID, SHARD, NUMBER)
}

/// States and tails of a file, or the first error.
fn load_all(disk: &MemoryDisk) -> Result<Vec<(ChannelState, Tail)>, CheckpointError> {
    let file = disk.open(PATH, OpenMode::Read).unwrap();
    let with_tail = |state: ChannelState| {
        let tail = load_tail(&*file, PATH, &state)?;
        Ok((state, tail))
    };
    load(disk)?.into_iter().map(with_tail).collect()
}

#[test]
fn states_and_tails_come_back() {
    for count in [0, 1, 2, 50, 500] {
        let loaded = load_all(&disk(encoded(count))).unwrap();
        assert_eq!(loaded.len() as u64, count);
        for (i, (mut found, tail_found)) in (0..).zip(loaded) {
            found.tail.offset = 0;
            assert_eq!((found, tail_found), (state(i), tail(i)));
        }
    }
}

/// Every state crosses a border between two reads once.
#[test]
fn states_across_the_border_of_a_read_come_back() {
    let states: Vec<_> = (0..30_000).map(state_of_blocks).collect();
    let file = encoded_without_tails(&states);
    assert!(file.len() > 2 * READ_SIZE);
    let mut found = load(&disk(file)).unwrap();
    found.iter_mut().for_each(|state| state.tail.offset = 0);
    assert!(found == states);
}

#[test]
fn every_flipped_bit_is_found_or_is_padding() {
    let good = encoded(3);
    let expected = load_all(&disk(good.clone())).unwrap();
    let header = RawHeader::read_from_bytes(&good[..BLOCK_SIZE]).unwrap();
    let last = expected.last().unwrap().0.tail;
    let states_end = BLOCK_SIZE + header.states_len.get() as usize;
    let mut padding = Vec::new();
    padding.push(states_end..header.tails_offset.get() as usize);
    for (state, _) in &expected[1..] {
        let end = (state.tail.offset as usize) + TAIL_HEAD_SIZE + state.tail.bytes_len as usize;
        let end = end + state.tail.record_count as usize * RECORD_SIZE;
        padding.push(end..end.next_multiple_of(4));
    }
    padding.push((last.offset + last.size()) as usize..good.len());
    let disk = disk(good.clone());
    for bit in 0..good.len() * 8 {
        disk.change(PATH, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let is_padding = padding.iter().any(|range| range.contains(&(bit / 8)));
        assert_eq!(load_all(&disk).is_ok(), is_padding, "byte {}", bit / 8);
        disk.change(PATH, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
}

#[test]
fn every_truncation_is_found() {
    let good = encoded(3);
    for size in 0..good.len() {
        assert!(load(&disk(good[..size].to_vec())).is_err(), "{size}");
    }
}

#[test]
fn files_of_another_store_shard_or_number_are_refused() {
    let disk = disk(encoded(3));
    for (uuid, shard, number) in [(StoreUuid([5; 16]), 1, 9), (UUID, 2, 9), (UUID, 1, 10)] {
        let found = load_states(&disk, PATH, uuid, ShardId(shard), CheckpointNo(number));
        assert!(matches!(found, Err(CheckpointError::Damaged { offset: 0, .. })));
    }
    let missing = load_states(&disk, "no", UUID, SHARD, NUMBER);
    assert!(matches!(missing, Err(CheckpointError::Io { .. })));
}

#[test]
fn newer_version_has_its_own_error() {
    let disk = disk(encoded(3));
    disk.change(PATH, |bytes| {
        bytes[8] = 2;
        let crc = header_crc(&bytes[..BLOCK_SIZE]);
        bytes[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
    });
    assert!(matches!(load(&disk), Err(CheckpointError::Newer { version: 2, .. })));
}

#[test]
fn tail_of_another_channel_or_state_is_refused() {
    let disk = disk(encoded(5));
    let file = disk.open(PATH, OpenMode::Read).unwrap();
    let good = load(&disk).unwrap().remove(3);
    let lsn = ChannelState { lsn: good.lsn + 1, ..good.clone() };
    let id = ChannelState { id: 4, ..good.clone() };
    let far = ChannelState { tail: TailRef { offset: u64::MAX - 3, ..good.tail }, ..good.clone() };
    load_tail(&*file, PATH, &good).unwrap();
    for state in [lsn, id, far] {
        assert!(load_tail(&*file, PATH, &state).is_err());
    }
}

/// Right checksums around what cannot be: an error, for whoever goes by it would panic.
#[test]
fn a_state_that_contradicts_itself_is_refused() {
    let reader = |tails_len| StateReader { path: PATH, seed: 7, tails_offset: 8192, tails_len, offset: 4096 };
    let decode = |state: &ChannelState| {
        let body = postcard::to_extend(state, Vec::new()).unwrap();
        reader(1 << 20).decode(crc32c::crc32c_append(7, &body), &body).map(drop)
    };
    type Change = fn(&mut ChannelState);
    let changes: [Change; 14] = [
        |state| state.name.clear(),
        |state| state.head = state.end + 1,
        |state| state.segments[1].end = 10,
        |state| state.segments[1].first += 1,
        |state| state.segments[0].sealed = false,
        |state| state.end += 1,
        |state| state.end -= 1,
        |state| state.segments[1].dat_size += 1,
        |state| state.segments[1].dat_size = 0,
        |state| state.tail.record_count += 204,
        |state| state.tail.record_count -= 1,
        |state| state.tail.bytes_len += 4096,
        |state| state.segments[1].sealed = true,
        |state| state.segments.clear(),
    ];
    let empty = ChannelState { segments: Vec::new(), end: 0, tail: TailRef::default(), ..state(1) };
    let mut sealed = state_of_blocks(1);
    sealed.segments[1] = SegmentState { dat_size: 77, sealed: true, ..sealed.segments[1] };
    for good in [state(5), state_of_blocks(5), empty, sealed] {
        assert_eq!(decode(&good), Ok(()), "{good:?}");
    }
    for (i, change) in changes.iter().enumerate() {
        let mut state = state(5);
        change(&mut state);
        assert!(decode(&state).is_err(), "change {i}: {state:?}");
    }
}

/// Not run by default: a measurement. A million small states load in well under a second.
#[test]
#[ignore = "a measurement, for release builds"]
fn million_states_load_in_well_under_a_second() {
    let mut encoder = CheckpointEncoder::new(UUID, SHARD, NUMBER);
    let began = std::time::Instant::now();
    for i in 0..1_000_000 {
        let state = state_of_blocks(i);
        let active = SegmentState { first: 0, ..state.segments[1] };
        let active = SegmentState { end: active.end - 1000, ..active };
        encoder.push_state(&ChannelState { epochs: vec![(1, 0)], segments: vec![active], end: active.end, ..state });
    }
    let mut file = vec![0; encoder.end_states() as usize];
    encoder.finish();
    encoder.drain(&mut file);
    println!("encoded {} bytes in {:?}", file.len(), began.elapsed());
    let disk = disk(file);
    let began = std::time::Instant::now();
    let states = load(&disk).unwrap();
    println!("loaded {} states in {:?}", states.len(), began.elapsed());
}

/// A header with a right checksum that claims so many states, in so many bytes; the first says that it has `state_len`.
fn claiming(count: u64, states_len: u64, state_len: u32) -> AlignedBuf {
    let mut bytes = AlignedBuf::new(2 * BLOCK_SIZE);
    let empty = encoded(0);
    let mut header = RawHeader::read_from_bytes(&empty[..BLOCK_SIZE]).unwrap();
    let end = BLOCK_SIZE as u64 + states_len;
    (header.state_count, header.states_len) = (U64::new(count), U64::new(states_len));
    (header.tails_offset, header.size) = (U64::new(end), U64::new(end));
    bytes[..BLOCK_SIZE].copy_from_slice(header.as_bytes());
    let crc = header_crc(&bytes[..BLOCK_SIZE]);
    bytes[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
    bytes[BLOCK_SIZE..BLOCK_SIZE + 4].copy_from_slice(&state_len.to_le_bytes());
    bytes
}

/// A state that says it is longer than any is refused before it is read.
#[test]
fn the_longest_state_passes_and_one_byte_more_does_not() {
    let load = |state_len: usize| {
        let disk = MemoryDisk::default();
        let bytes = claiming(1, BLOCK_SIZE as u64, state_len as u32);
        disk.open(PATH, OpenMode::Create).unwrap().write_at(&bytes, 0).unwrap();
        load_states(&disk, PATH, UUID, SHARD, NUMBER).unwrap_err().to_string()
    };
    let error = load(STATE_SIZE_MAX);
    assert!(error.contains("the number of states is not what the header says"), "it is only cut off: {error}");
    let error = load(STATE_SIZE_MAX + 1);
    assert!(error.contains("a state is longer than any that is written"), "{error}");
}

/// A sparse file costs nothing, and its header may claim what it likes: memory is set aside for few states.
#[cfg(not(redex_loom))]
#[test]
fn what_a_header_claims_takes_no_memory() {
    let dir = crate::io::posix::tests::temp_dir();
    let disk = crate::io::posix::PosixDisk::open(dir.path(), None).unwrap();
    std::fs::create_dir_all(dir.path().join("checkpoint/001")).unwrap();
    let file = disk.open(PATH, OpenMode::Create).unwrap();
    for count in [1 << 40, u64::MAX] {
        let states_len = 4 << 40;
        file.write_at(&claiming(count, states_len, 0), 0).unwrap();
        file.set_size(BLOCK_SIZE as u64 + states_len).unwrap();
        let error = load_states(&disk, PATH, UUID, SHARD, NUMBER).unwrap_err().to_string();
        assert!(error.contains("the checksum of a state is wrong"), "{error}");
    }
}

fn surveyed(disk: &MemoryDisk) -> survey::CheckpointSurvey {
    survey::survey(disk, PATH, UUID, SHARD, NUMBER).unwrap()
}

/// Around damage everything else is found, across the borders of reads.
#[test]
fn a_survey_finds_what_is_whole_around_damage() {
    let good = encoded_without_tails(&(0..20_000).map(state_of_blocks).collect::<Vec<_>>());
    let whole = surveyed(&disk(good.clone()));
    assert_eq!((whole.states.len(), whole.missing, whole.header.is_some()), (20_000, 0, false));
    let header = RawHeader::read_from_bytes(&good[..BLOCK_SIZE]).unwrap();
    assert!(header.states_len.get() as usize > READ_SIZE);
    let places = [5, 9_000, 9_001, 19_999].map(|index| whole.states[index].offset as usize);
    // A body, which leaves the length as it is; a length; the header as well.
    for (flipped, with_header) in [(12, false), (1, false), (3, false), (12, true), (1, true)] {
        let disk = disk(good.clone());
        disk.change(PATH, |bytes| {
            places.iter().for_each(|at| bytes[at + flipped] ^= 0xff);
            bytes[20] ^= u8::from(with_header);
        });
        let found = surveyed(&disk);
        let left = || whole.states.iter().filter(|state| !places.contains(&(state.offset as usize)));
        let ids = |states: &[survey::SurveyedState]| states.iter().map(|found| found.state.id).collect::<Vec<_>>();
        let expected: Vec<_> = left().map(|found| found.state.id).collect();
        assert_eq!(ids(&found.states), expected, "{flipped}, {with_header}");
        assert_eq!(found.header.is_some(), with_header);
        assert_eq!(found.bad_states.len(), if with_header { 2 } else { 3 }, "two of them touch, the last has no next");
    }
}

/// What is behind the states is not taken for states at any price: random bytes, of which each may be a length.
#[test]
fn a_survey_without_a_header_is_bounded() {
    let mut random = 7_u64;
    let mut file = encoded(3);
    file[20] ^= 1;
    file.extend((0..1 << 20).map(|_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    }));
    file.resize(64 << 20, 0);
    let found = surveyed(&disk(file));
    assert_eq!((found.states.len(), found.header.is_some()), (3, true));
    assert!(found.bytes < 40 << 20, "{}", found.bytes);
}
