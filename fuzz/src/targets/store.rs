//! STORE: two copies of the superblock.
//!
//! - What is read is one of the copies, the newer one if both are whole.
//! - It survives being encoded and read again.
//! - A changed bit leaves one of the copies that were there, or is an error.

use redex::format::superblock::{STORE_FILE_SIZE, SUPERBLOCK_SIZE, Superblock};

use super::{Outcome, Target, ensure, flipped, place_in};
use crate::mutate::then_repair;
use crate::repair::envelope;
use crate::seeds;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "store",
    about: "STORE",
    run,
    mutate: |input, other, dice| then_repair(input, other, dice, repair),
    seeds: || seeds::of_ending("STORE"),
    memory_max: |len| (64 << 10) + 64 * len as u64,
    input_max: 16 << 10,
    unit: 1,
    weight: 1,
};

fn repair(input: &mut [u8]) {
    input.chunks_mut(SUPERBLOCK_SIZE).for_each(envelope::repair);
}

fn run(input: &[u8]) -> Result<Outcome, String> {
    let store = match Superblock::decode(input) {
        Ok(store) => store,
        Err(error) => return Ok(Outcome::of_error(&error)),
    };
    let copies = copies(input);
    ensure(copies.contains(&store), || "STORE is none of its copies".to_owned())?;
    let newest = copies.iter().map(|copy| copy.generation).max().unwrap_or(0);
    ensure(store.generation == newest, || format!("generation {} of {newest}", store.generation))?;
    let mut out = vec![0; STORE_FILE_SIZE];
    let (first, second) = out.split_at_mut(SUPERBLOCK_SIZE);
    store.encode(first).and_then(|()| store.encode(second)).map_err(|error| format!("STORE was read, but {error}"))?;
    ensure(Superblock::decode(&out) == Ok(store.clone()), || "STORE is another when it is read again".to_owned())?;
    let changed = flipped(input, place_in(input, 1, input.len()), place_in(input, 2, 8));
    if let Ok(changed) = Superblock::decode(&changed) {
        ensure(copies.contains(&changed), || "a changed bit makes another STORE".to_owned())?;
    }
    Ok(Outcome::of(&format!("{} copies, {} shards", copies.len(), store.shards.len().min(4))))
}

fn copies(input: &[u8]) -> Vec<Superblock> {
    let (first, second) = input.split_at(input.len().min(SUPERBLOCK_SIZE));
    [first, second].into_iter().filter_map(|copy| Superblock::decode_copy(copy).ok()).collect()
}
