//! Blocks of an idx file: index blocks, time blocks, the footer. In front of the file: the channel's id and the segment's first
//! sequence, 8 bytes each, which the file's blocks are checked against.
//!
//! - What decodes has the same bytes when it is encoded again.
//! - A changed bit of a block is found, whatever it is; so is a block at another place.
//! - Records that check say where they lie, and encode again.

use redex::format::block::{BlockPlace, RECORDS_PER_BLOCK, decode_block, encode_block};
use redex::format::footer::{FOOTER_SIZE, Footer};
use redex::format::record::{IndexRecord, RecordPlace};
use redex::format::time_block::decode_time_block;
use redex::format::{ChannelId, Seq};

use super::{Outcome, Target, ensure, flipped, place_in};
use crate::dice::Dice;
use crate::repair::{Repair, index};
use crate::seeds;

const BLOCK: usize = 4096;
const PREFIX: usize = 16;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "idx",
    about: "index blocks, time blocks and the footer",
    run,
    mutate,
    seeds: seeds::idx_files,
    memory_max: |len| (128 << 10) + 8 * len as u64,
    input_max: 64 << 10,
    unit: 4,
    weight: 2,
};

fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    crate::mutate::bytes(input, other, dice);
    let (Some((place, file)), false) = (input.split_at_mut_checked(PREFIX), dice.one_in(4)) else { return };
    let (channel, first) = numbers(place);
    index::repair(file, channel, first, if dice.one_in(2) { Repair::Payloads } else { Repair::Structure });
}

fn numbers(place: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from_le_bytes(*place[at..].first_chunk().expect("8 bytes of 16"));
    (number(0), number(8))
}

fn run(input: &[u8]) -> Result<Outcome, String> {
    let Some((place, file)) = input.split_at_checked(PREFIX) else { return Ok(Outcome(0)) };
    let (channel, first) = numbers(place);
    let place = BlockPlace { channel: ChannelId(channel), segment_first: Seq(first) };
    let mut seen = String::new();
    for (index, block) in file.chunks(BLOCK).enumerate() {
        let base = Seq(first.wrapping_add((index * RECORDS_PER_BLOCK) as u64));
        // Whoever asks for a block asks for one of a segment that does not end behind the last sequence.
        let what = match base.0.checked_add(RECORDS_PER_BLOCK as u64) {
            Some(_) if base >= place.segment_first => check_block(block, place, base, input)?,
            _ => "out of range".to_owned(),
        };
        seen += &what;
        seen += &check_times(block, index as u32, place)?;
        seen += &check_footer(block, input)?;
    }
    Ok(Outcome::of(&seen))
}

fn check_block(block: &[u8], place: BlockPlace, base: Seq, input: &[u8]) -> Result<String, String> {
    let records = match decode_block(block, place, base) {
        Ok(records) => records,
        Err(error) => return Ok(error.to_string()),
    };
    let mut out = vec![0; BLOCK];
    encode_block(&mut out, records, base, place);
    ensure(out == block, || format!("the index block of {base} encodes otherwise"))?;
    let changed = flipped(block, place_in(input, 5, BLOCK), place_in(input, 6, 8));
    ensure(decode_block(&changed, place, base).is_err(), || format!("a changed bit of the block of {base} passes"))?;
    let elsewhere = BlockPlace { channel: ChannelId(place.channel.0 ^ 1), ..place };
    ensure(decode_block(block, elsewhere, base).is_err(), || "a block passes for another channel's".to_owned())?;
    let mut seen = String::new();
    for record in records {
        match record.check() {
            Ok(()) => check_record(record)?,
            Err(error) => seen = error.to_string(),
        }
    }
    Ok(format!("block {seen}"))
}

fn check_record(record: &IndexRecord) -> Result<(), String> {
    let again = match record.place() {
        RecordPlace::Inline { bytes, len } => {
            ensure(record.inline_payload() == Some(&bytes[..len]), || format!("{record:?} has two payloads"))?;
            ensure(record.verify_payload(&bytes[..len]), || format!("{record:?} does not match itself"))?;
            IndexRecord::inline(&bytes[..len], record.time_us())
        }
        RecordPlace::Dat { offset, len } => IndexRecord::in_dat(offset, len, record.payload_crc(), record.time_us()),
    };
    let again = if record.is_encrypted() { again.with_encrypted() } else { again };
    let again = if record.is_tombstone() { again.with_tombstone() } else { again };
    ensure(again == *record, || format!("{record:?} encodes as {again:?}"))
}

fn check_times(block: &[u8], first_block: u32, place: BlockPlace) -> Result<String, String> {
    let number = block.get(4084..4088).map_or(first_block, |bytes| u32::from_le_bytes(bytes.try_into().expect("4")));
    let Some(times) = decode_time_block(block, number, place) else { return Ok(String::new()) };
    ensure(times.is_sorted() && (1..=512).contains(&times.len()), || format!("{} times", times.len()))?;
    let unused = &block[times.len() * 7..4084];
    ensure(unused.iter().all(|byte| *byte == 0), || "a time block has bytes where there are zeros".to_owned())?;
    Ok("times".to_owned())
}

fn check_footer(block: &[u8], input: &[u8]) -> Result<String, String> {
    let footer = match Footer::decode(block) {
        Ok(footer) => footer,
        Err(error) => return Ok(format!("{error}")),
    };
    let mut out = vec![0; FOOTER_SIZE];
    footer.encode(&mut out);
    ensure(out == block, || "the footer encodes otherwise".to_owned())?;
    let changed = flipped(block, place_in(input, 7, BLOCK), place_in(input, 8, 8));
    ensure(Footer::decode(&changed).is_err(), || "a changed bit of the footer passes".to_owned())?;
    let samples = footer.time_index.samples();
    let before = footer.time_index.block_before(footer.last_time_us);
    ensure(samples.is_empty() || u64::from(before) < footer.block_count().max(1), || {
        format!("a search begins at block {before} of {}", footer.block_count())
    })?;
    // Offsets of what lies in front of it must not overflow.
    let mut offsets = samples.iter().enumerate().filter_map(|(i, _)| footer.time_block_offset(i));
    let last = offsets.next_back().unwrap_or(0);
    ensure(last <= footer.footer_offset(), || format!("a time block at {last} lies behind its footer"))?;
    Ok(format!("footer {} {}", footer.has_time_blocks, samples.len().min(3)))
}
