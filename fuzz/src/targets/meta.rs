//! META: who a channel's directory belongs to.
//!
//! - What is read survives being encoded and read again.
//! - A changed bit is found, or lies in the padding.

use redex::format::meta::{META_SIZE, Meta};

use super::{Outcome, Target, ensure, flipped, place_in};
use crate::dice::Dice;
use crate::repair::envelope;
use crate::seeds;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "meta",
    about: "META of a channel",
    run,
    mutate,
    seeds: || seeds::of_ending("META"),
    memory_max: |len| (64 << 10) + 16 * len as u64,
    input_max: 8 << 10,
    unit: 1,
    weight: 1,
};

fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    crate::mutate::bytes(input, other, dice);
    if !dice.one_in(4) {
        envelope::repair(input);
    }
}

fn run(input: &[u8]) -> Result<Outcome, String> {
    let meta = match Meta::decode(input) {
        Ok(meta) => meta,
        Err(error) => return Ok(Outcome::of_error(&error)),
    };
    let mut out = vec![0; META_SIZE];
    meta.encode(&mut out);
    ensure(Meta::decode(&out) == Ok(meta.clone()), || "META is another when it is read again".to_owned())?;
    let changed = Meta::decode(&flipped(input, place_in(input, 1, input.len()), place_in(input, 2, 8)));
    ensure(changed.is_err() || changed == Ok(meta), || "a changed bit makes another META".to_owned())?;
    Ok(Outcome::of("read"))
}
