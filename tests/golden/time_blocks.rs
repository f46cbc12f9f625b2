//! The end of an idx file with time blocks: the first of them, and the footer of version 2.

use std::path::Path;

use redex::format::block::{BlockPlace, INDEX_BLOCK_SIZE};
use redex::format::footer::{Footer, FooterError};
use redex::format::time_block::{BlockTimes, decode_time_block};
use redex::format::{ChannelId, Seq};

use super::{flipped, golden, golden_file};

const NAME: &str = "times.idx";
const CHANNEL: ChannelId = ChannelId(0x0000_0003_0000_0007);
const PLACE: BlockPlace = BlockPlace { channel: CHANNEL, segment_first: Seq(1000) };
const TIME: u64 = 1_700_000_000_000_000;
const BLOCKS: u32 = 401;

pub fn write(dir: &Path) {
    std::fs::write(dir.join(NAME), bytes()).unwrap();
}

/// Writes the file, which came after the others of its version.
#[test]
#[ignore = "writes a golden file; only for a new format version"]
fn regenerate_times() {
    assert!(!golden().join(NAME).exists(), "golden files are never written again");
    write(&golden());
}

fn time(block: u32) -> u64 {
    TIME + u64::from(block) * 1_000_003
}

fn times() -> BlockTimes {
    let mut times = BlockTimes::default();
    (0..BLOCKS).for_each(|block| times.push(block, time(block)));
    times
}

fn footer() -> Footer {
    Footer {
        channel: CHANNEL,
        first: Seq(1000),
        end: Seq(1000 + u64::from(BLOCKS) * 204 - 9),
        dat_size: 77,
        first_time_us: TIME,
        last_time_us: time(BLOCKS),
        idx_hash: 0x0102_0304,
        time_index: times().index().clone(),
        has_time_blocks: true,
    }
}

/// The first time block and the footer; the other time blocks are left out.
fn bytes() -> Vec<u8> {
    let mut all = vec![0; times().block_count() * INDEX_BLOCK_SIZE];
    times().encode(&mut all, PLACE);
    all.truncate(INDEX_BLOCK_SIZE);
    let mut last = vec![0; INDEX_BLOCK_SIZE];
    footer().encode(&mut last);
    all.extend(last);
    all
}

#[test]
fn time_blocks_and_their_footer_read_and_write_the_same() {
    let found = golden_file(NAME);
    assert_eq!(found, bytes());
    let (block, last) = found.split_at(INDEX_BLOCK_SIZE);
    let decoded = Footer::decode(last).unwrap();
    assert_eq!(decoded, footer());
    // 401 index blocks, every fourth a sample.
    assert_eq!((decoded.block_count(), decoded.time_index.stride()), (401, 4));
    assert_eq!((decoded.footer_offset(), decoded.time_block_offset(0)), (502 * 4096, Some(401 * 4096)));
    assert_eq!((decoded.time_block_offset(100), decoded.time_block_offset(101)), (Some(501 * 4096), None));
    assert_eq!(decode_time_block(block, 0, PLACE).unwrap(), [time(0), time(1), time(2), time(3)]);
    assert_eq!(u16::from_le_bytes([last[8], last[9]]), 2);
}

#[test]
fn damage_of_a_time_block_or_its_footer_is_refused() {
    let found = golden_file(NAME);
    let (block, last) = found.split_at(INDEX_BLOCK_SIZE);
    for at in [0, 27, 28, 3584, 4084, 4088, 4090, 4095] {
        assert!(decode_time_block(&flipped(block, at), 0, PLACE).is_none(), "{at}");
    }
    assert!(decode_time_block(block, 4, PLACE).is_none());
    assert!(matches!(Footer::decode(&flipped(last, 8)), Err(FooterError::Checksum { .. })));
}
