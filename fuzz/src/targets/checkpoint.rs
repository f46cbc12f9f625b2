//! A checkpoint file: its states, and the tail of each.
//!
//! - What is read survives being encoded and read again.
//! - A changed bit is an error, or damages one channel's tail, or lies in the padding.

use redex::format::{CheckpointNo, ShardId, StoreUuid};
use redex::fuzzing::{Checkpoint, CheckpointIdentity, read_checkpoint};

use super::{Outcome, Target, ensure, flipped, place_in};
use crate::mutate::then_repair;
use crate::repair::checkpoint;
use crate::seeds;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "checkpoint",
    about: "a checkpoint file",
    run,
    mutate: |input, other, dice| then_repair(input, other, dice, checkpoint::repair),
    seeds: || seeds::of_ending(".ckp"),
    // Read in steps of a megabyte. A state of a few bytes becomes a few hundred.
    memory_max: |len| (4 << 20) + 64 * len as u64,
    input_max: 128 << 10,
    unit: 4,
    weight: 2,
};

/// Whose the file says that it is.
fn identity(input: &[u8]) -> CheckpointIdentity {
    let bytes = |at: usize| input.get(at..).and_then(<[u8]>::first_chunk::<8>).copied().unwrap_or_default();
    let uuid = input.get(16..).and_then(<[u8]>::first_chunk::<16>).copied().unwrap_or_default();
    let shard = u64::from_le_bytes(bytes(10)) as u16;
    CheckpointIdentity {
        uuid: StoreUuid(uuid),
        shard: ShardId(shard),
        number: CheckpointNo(u64::from_le_bytes(bytes(32))),
    }
}

fn run(input: &[u8]) -> Result<Outcome, String> {
    let identity = identity(input);
    let found = match read_checkpoint(input, identity) {
        Ok(found) => found,
        Err(error) => return Ok(Outcome::of_error(&error)),
    };
    if let Some(encoded) = found.encode() {
        let again = read_checkpoint(&encoded, identity).map_err(|error| format!("encoded again: {error}"))?;
        ensure(again == found, || "it is another when it is read again".to_owned())?;
    }
    check_flip(&found, input, identity)?;
    let (channels, tails) = found.counts();
    Ok(Outcome(((channels.min(4) as u64) << 8) | tails.min(4) as u64))
}

fn check_flip(found: &Checkpoint, input: &[u8], identity: CheckpointIdentity) -> Result<(), String> {
    let at = place_in(input, 1, input.len());
    let Ok(changed) = read_checkpoint(&flipped(input, at, place_in(input, 2, 8)), identity) else { return Ok(()) };
    ensure(changed.is_same_but_for_damage(found), || format!("a changed bit at {at} makes another checkpoint"))
}
