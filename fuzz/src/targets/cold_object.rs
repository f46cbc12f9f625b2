//! Header and table of an object of the cold store.
//!
//! - A header that decodes has the same bytes when it is encoded again, and so has the table.
//! - Chunks lie within the object, one behind the other, and each is a part of idx or dat.
//! - A changed bit of header or table is found.

use redex::format::cold_object::{OBJECT_HEADER_SIZE, ObjectHeader, Part, chunk_crc, decode_table, encode_table};

use super::{Outcome, Target, ensure, flipped, place_in};
use crate::mutate::then_repair;
use crate::repair::cold;
use crate::seeds;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "cold_object",
    about: "an object of the cold store",
    run,
    mutate: |input, other, dice| then_repair(input, other, dice, cold::repair),
    seeds: seeds::cold_objects,
    memory_max: |len| (64 << 10) + 16 * len as u64,
    input_max: 128 << 10,
    unit: 1,
    weight: 1,
};

fn run(input: &[u8]) -> Result<Outcome, String> {
    let Some(bytes) = input.get(..OBJECT_HEADER_SIZE) else { return Ok(Outcome(0)) };
    let (header, crc) = match ObjectHeader::decode(bytes) {
        Ok(header) => header,
        Err(error) => return Ok(Outcome::of_error(&error)),
    };
    ensure(header.encode() == (bytes.to_vec(), crc), || "the header encodes otherwise".to_owned())?;
    let changed = flipped(bytes, place_in(input, 1, OBJECT_HEADER_SIZE), place_in(input, 2, 8));
    ensure(ObjectHeader::decode(&changed).is_err(), || "a changed bit of the header passes".to_owned())?;
    // As the engine does: no more of the table is read than there is of the object.
    let table_at = input.len().checked_sub(usize::try_from(header.table_size()).unwrap_or(usize::MAX));
    let Some(table_at) = table_at.filter(|at| *at >= OBJECT_HEADER_SIZE) else {
        return Ok(Outcome::of("the table is cut off"));
    };
    check_table(&header, crc, input, table_at)
}

fn check_table(header: &ObjectHeader, crc: u32, input: &[u8], table_at: usize) -> Result<Outcome, String> {
    let (table, size) = (&input[table_at..], input.len() as u64);
    let chunks = match decode_table(table, header, crc, size) {
        Ok(chunks) => chunks,
        Err(error) => return Ok(Outcome::of_error(&error)),
    };
    ensure(encode_table(crc, &chunks) == table, || "the table encodes otherwise".to_owned())?;
    let changed = flipped(table, place_in(input, 3, table.len()), place_in(input, 4, 8));
    ensure(decode_table(&changed, header, crc, size).is_err(), || "a changed bit of the table passes".to_owned())?;
    let mut whole = 0;
    for (index, chunk) in (0..).zip(&chunks) {
        let end = chunk.offset as usize + chunk.stored_len as usize;
        let stored = input.get(chunk.offset as usize..end.min(table_at)).unwrap_or(&[]);
        ensure(stored.len() == chunk.stored_len as usize, || format!("chunk {index} lies behind the object"))?;
        let (part, range) = header.range_of(index);
        let size = if part == Part::Idx { header.idx_size } else { header.dat_size };
        ensure(range.start < range.end && range.end <= size, || format!("chunk {index} is {range:?} of {size}"))?;
        whole += usize::from(chunk_crc(crc, index, stored) == chunk.crc32c);
    }
    Ok(Outcome::of(&format!(
        "{:?} {}",
        header.codec,
        ["none", "some", "all"][if whole == chunks.len() { 2 } else { whole.min(1) }]
    )))
}
