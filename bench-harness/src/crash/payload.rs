//! Payloads that can be made again from where they are: seed, round, channel and sequence.
//!
//! The round is part of it because a sequence that a crash took back is given again: the event of the earlier round must not come back.

use crate::load::{fill, mix, splitmix64};

/// Makes the payload in `bytes`: mostly small, some small enough to lie in the index, a few as large as an extent.
pub(crate) fn make(bytes: &mut Vec<u8>, seed: u64, round: u32, channel: usize, seq: u64) {
    let mut state = mix(mix(mix(seed ^ u64::from(round)) ^ channel as u64) ^ seq);
    let (kind, size) = (splitmix64(&mut state) % 4096, splitmix64(&mut state));
    let size = match kind {
        0 => size % 400_000,
        1..40 => size % 8192,
        40..440 => size % 9,
        _ => 9 + size % 400,
    };
    bytes.resize(size as usize, 0);
    fill(bytes, state);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(seed: u64, round: u32, channel: usize, seq: u64) -> Vec<u8> {
        let mut bytes = vec![1; 17];
        make(&mut bytes, seed, round, channel, seq);
        bytes
    }

    #[test]
    fn a_payload_can_be_made_again_and_depends_on_everything() {
        let (seed, round, channel, seq) = (1, 2, 3, (0..).find(|seq| made(1, 2, 3, *seq).len() > 16).unwrap());
        let payload = made(seed, round, channel, seq);
        assert_eq!(payload, made(seed, round, channel, seq));
        for other in [made(2, 2, 3, seq), made(1, 3, 3, seq), made(1, 2, 4, seq), made(1, 2, 3, seq + 1)] {
            assert_ne!(payload, other);
        }
    }

    #[test]
    fn every_kind_of_size_comes() {
        let sizes: Vec<usize> = (0..20_000).map(|seq| made(1, 1, 1, seq).len()).collect();
        for range in [0..1, 1..9, 9..409, 409..8192, 100_000..400_000] {
            assert!(sizes.iter().any(|size| range.contains(size)), "{range:?}");
        }
    }
}
