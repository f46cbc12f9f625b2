//! META: who a channel's directory belongs to.
//!
//! - What is read survives being encoded and read again.
//! - A changed bit is found, or lies in the padding.

use redex::format::meta::{META_SIZE, Meta};

use super::{Outcome, Target, check_read_again};
use crate::mutate::then_repair;
use crate::repair::envelope;
use crate::seeds;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "meta",
    about: "META of a channel",
    run,
    mutate: |input, other, dice| then_repair(input, other, dice, envelope::repair),
    seeds: || seeds::of_ending("META"),
    memory_max: |len| (64 << 10) + 16 * len as u64,
    input_max: 8 << 10,
    unit: 1,
    weight: 1,
};

fn run(input: &[u8]) -> Result<Outcome, String> {
    let read = check_read_again("META", input, Meta::decode, |meta| {
        let mut out = vec![0; META_SIZE];
        meta.encode(&mut out);
        out
    })?;
    Ok(read.map_or_else(|refused| refused, |_| Outcome::of("read")))
}
