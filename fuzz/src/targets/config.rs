//! The stored configuration of a channel.
//!
//! - What is read, encoded and read again stays what it is.

use redex::fuzzing::recode_config;

use super::{Outcome, Target, ensure};
use crate::dice::Dice;
use crate::seeds;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "config",
    about: "the stored configuration of a channel",
    run,
    mutate: |input: &mut Vec<u8>, other: &[u8], dice: &mut Dice| crate::mutate::bytes(input, other, dice),
    seeds: seeds::configs,
    memory_max: |len| (64 << 10) + 16 * len as u64,
    input_max: 1 << 10,
    unit: 1,
    weight: 1,
};

fn run(input: &[u8]) -> Result<Outcome, String> {
    let Some(encoded) = recode_config(input) else { return Ok(Outcome::of("refused")) };
    ensure(recode_config(&encoded).as_ref() == Some(&encoded), || "it is another when it is read again".to_owned())?;
    Ok(Outcome(encoded.len() as u64))
}
