//! Payloads that can be made again from where they are: seed, author, channel and sequence.
//!
//! The author is part of it because a sequence that a crash or a cut took back is given again: the event of the earlier one must
//! not come back.

use super::channels;
use crate::load::{fill, mix, splitmix64};

/// Who appended an event: a round, and the cuts that it had made in that channel before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Author {
    pub(crate) round: u32,
    pub(crate) cuts: u32,
}

impl Author {
    /// A round that has cut nothing yet.
    pub(crate) fn of(round: u32) -> Self {
        Self { round, cuts: 0 }
    }
}

/// Largest payload of a batch over channels, bytes: a few of them fit the journal's smallest segment.
const GROUPED_SIZE_MAX: u64 = 40_000;

/// Makes the payload in `bytes`: mostly small, some small enough to lie in the index, a few as large as an extent.
pub(crate) fn make(bytes: &mut Vec<u8>, seed: u64, author: Author, channel: usize, seq: u64) {
    let mut state = mix(mix(mix(mix(seed ^ u64::from(author.round)) ^ u64::from(author.cuts)) ^ channel as u64) ^ seq);
    let (kind, size) = (splitmix64(&mut state) % 4096, splitmix64(&mut state));
    let size = match kind {
        0 if channels::GROUPED.contains(&channel) => size % GROUPED_SIZE_MAX,
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
        made_by(seed, Author::of(round), channel, seq)
    }

    fn made_by(seed: u64, author: Author, channel: usize, seq: u64) -> Vec<u8> {
        let mut bytes = vec![1; 17];
        make(&mut bytes, seed, author, channel, seq);
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
        assert_ne!(payload, made_by(seed, Author { round, cuts: 1 }, channel, seq));
    }

    #[test]
    fn every_kind_of_size_comes() {
        let sizes: Vec<usize> = (0..20_000).map(|seq| made(1, 1, 1, seq).len()).collect();
        for range in [0..1, 1..9, 9..409, 409..8192, 100_000..400_000] {
            assert!(sizes.iter().any(|size| range.contains(size)), "{range:?}");
        }
    }
}
