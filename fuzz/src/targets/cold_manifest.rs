//! COLD: which segments of a channel lie in the cold store.
//!
//! - What is read survives being encoded and read again; its segments are in order and each has a key that is told apart.
//! - A changed bit is found, or lies in the padding.

use redex::format::cold_manifest::ColdManifest;
use redex::format::cold_object::parse_key;

use super::{Outcome, Target, check_read_again, ensure};
use crate::mutate::then_repair;
use crate::repair::envelope;
use crate::seeds;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "cold_manifest",
    about: "COLD of a channel",
    run,
    mutate: |input, other, dice| then_repair(input, other, dice, envelope::repair),
    seeds: seeds::cold_manifests,
    memory_max: |len| (64 << 10) + 32 * len as u64,
    input_max: 32 << 10,
    unit: 1,
    weight: 1,
};

fn run(input: &[u8]) -> Result<Outcome, String> {
    let manifest = match check_read_again("COLD", input, ColdManifest::decode, ColdManifest::encode)? {
        Ok(manifest) => manifest,
        Err(refused) => return Ok(refused),
    };
    for segment in &manifest.segments {
        let key = manifest.key(segment);
        let parsed = parse_key(manifest.uuid, &key).map(|(channel, first, hash)| (channel, first.0, hash));
        ensure(parsed == Some((manifest.channel, segment.first, segment.hash)), || format!("{key} is another key"))?;
        ensure(manifest.segment(redex::format::Seq(segment.first)) == Some(segment), || {
            format!("the segment from {} on is not found", segment.first)
        })?;
    }
    Ok(Outcome(manifest.segments.len().min(4) as u64))
}
