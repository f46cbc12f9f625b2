//! COLD: which segments of a channel lie in the cold store.
//!
//! - What is read survives being encoded and read again; its segments are in order and each has a key that is told apart.
//! - A changed bit is found, or lies in the padding.

use redex::format::cold_manifest::ColdManifest;
use redex::format::cold_object::parse_key;

use super::{Outcome, Target, ensure, flipped, place_in};
use crate::dice::Dice;
use crate::repair::envelope;
use crate::seeds;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "cold_manifest",
    about: "COLD of a channel",
    run,
    mutate,
    seeds: seeds::cold_manifests,
    memory_max: |len| (64 << 10) + 32 * len as u64,
    input_max: 32 << 10,
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
    let manifest = match ColdManifest::decode(input) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Outcome::of_error(&error)),
    };
    let again = ColdManifest::decode(&manifest.encode());
    ensure(again == Ok(manifest.clone()), || "COLD is another when it is read again".to_owned())?;
    for segment in &manifest.segments {
        let key = manifest.key(segment);
        let parsed = parse_key(manifest.uuid, &key).map(|(channel, first, hash)| (channel, first.0, hash));
        ensure(parsed == Some((manifest.channel, segment.first, segment.hash)), || format!("{key} is another key"))?;
        ensure(manifest.segment(redex::format::Seq(segment.first)) == Some(segment), || {
            format!("the segment from {} on is not found", segment.first)
        })?;
    }
    let changed = ColdManifest::decode(&flipped(input, place_in(input, 1, input.len()), place_in(input, 2, 8)));
    let count = manifest.segments.len();
    ensure(changed.is_err() || changed == Ok(manifest), || "a changed bit makes another COLD".to_owned())?;
    Ok(Outcome(count.min(4) as u64))
}
