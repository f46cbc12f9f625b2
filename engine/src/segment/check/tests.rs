//! Checks a made segment, whole and with one thing wrong.

use std::sync::Arc;

use super::*;
use crate::channel_name::ChannelName;
use crate::ids::ChannelId;
use crate::segment::block::encode_block;
use crate::segment::footer::TimeIndex;
use crate::segment::path::idx_path;
use crate::segment::time_block::BlockTimes;
use crate::store::memory_disk::MemoryDisk;

const CHANNEL: ChannelId = ChannelId(6);
/// 401 index blocks, the last one short, and 101 time blocks.
const END: u64 = 400 * 204 + 7;

/// The idx file; the footer as `change` leaves it.
fn idx(change: impl FnOnce(&mut Footer)) -> Vec<u8> {
    let place = BlockPlace { channel: CHANNEL, segment_first: Seq(0) };
    let records: Vec<_> = (0..END).map(|seq| IndexRecord::inline(&seq.to_le_bytes()[..3], seq / 10)).collect();
    let (mut bytes, mut times, mut hash) = (Vec::new(), BlockTimes::default(), 0);
    for (i, records) in records.chunks(RECORDS_PER_BLOCK).enumerate() {
        let mut block = vec![0; BLOCK_SIZE];
        encode_block(&mut block, records, Seq((i * RECORDS_PER_BLOCK) as u64), place);
        times.push(i as u32, records[0].time_us());
        hash = idx_hash_append(hash, &block);
        bytes.extend(block);
    }
    let at = bytes.len();
    bytes.resize(at + (times.block_count() + 1) * BLOCK_SIZE, 0);
    let (time_blocks, last) = bytes[at..].split_at_mut(times.block_count() * BLOCK_SIZE);
    times.encode(time_blocks, place);
    let mut footer = Footer {
        channel: CHANNEL,
        first: Seq(0),
        end: Seq(END),
        dat_size: 0,
        first_time_us: 0,
        last_time_us: (END - 1) / 10,
        idx_hash: hash,
        time_index: times.index().clone(),
        has_time_blocks: true,
    };
    change(&mut footer);
    footer.encode(last);
    bytes
}

/// What is wrong with a segment of this file that ends at `end`.
fn check(idx: Vec<u8>, end: u64) -> Vec<Found> {
    let disk = MemoryDisk::default();
    disk.put(&idx_path(CHANNEL, Seq(0)), idx);
    let (name, segments) = (ChannelName::new("a").unwrap(), [(Seq(0), Some(Seq(end)))]);
    let on_disk = OnDisk::new(Arc::new(disk), CHANNEL, name, &segments, Seq(end), &[], (0, bytes::Bytes::new()));
    let mut check = match FooterCheck::begin(&on_disk, Seq(0), Seq(end)).unwrap() {
        Ok(check) => check,
        Err(found) => return vec![found],
    };
    (0..10).find_map(|_| check.step(&on_disk).unwrap()).expect("401 blocks are two steps")
}

#[test]
fn a_whole_segment_is_clean_also_if_its_suffix_was_cut_off() {
    for end in [END, END - 1, 300 * 204, 204, 1] {
        assert!(check(idx(|_| {}), end).is_empty(), "ends at {end}");
    }
}

#[test]
fn a_footer_that_says_something_else_is_found() {
    type Change = fn(&mut Footer);
    let changes: [(&str, Change); 5] = [
        ("channel", |footer| footer.channel = ChannelId(7)),
        ("end_seq", |footer| footer.end = Seq(END - 1)),
        ("dat_size", |footer| footer.dat_size = 1),
        ("first_time_us, last_time_us", |footer| footer.last_time_us += 1),
        ("samples", |footer| {
            let mut other = TimeIndex::new();
            (0..401).for_each(|block| other.push(block, u64::from(block)));
            footer.time_index = other;
        }),
    ];
    for (expected, change) in changes {
        let found = check(idx(change), END);
        let [(offset, Damage::FooterField { field })] = found[..] else { panic!("{expected}: {found:?}") };
        assert_eq!((field, offset), (expected, (401 + 101) * 4096));
    }
    let found = check(idx(|footer| footer.idx_hash ^= 1), END);
    assert!(matches!(found[..], [(_, Damage::IdxHash { .. })]), "{found:?}");
}

#[test]
fn a_damaged_time_block_is_found_and_an_index_block_is_left_to_its_readers() {
    for (block, offset) in [(401, Some(401 * 4096)), (450, Some(450 * 4096)), (0, None), (399, None)] {
        let mut bytes = idx(|_| {});
        bytes[block * 4096 + 77] ^= 1;
        let found = check(bytes, END);
        match offset {
            Some(offset) => assert!(matches!(found[..], [(at, Damage::TimeBlock)] if at == offset), "{found:?}"),
            None => assert!(found.is_empty(), "{found:?}"),
        }
    }
    let mut bytes = idx(|_| {});
    bytes.truncate(300 * 4096);
    let found = check(bytes, END);
    assert!(matches!(found[..], [(at, Damage::Footer(_))] if at == 299 * 4096), "{found:?}");
}
