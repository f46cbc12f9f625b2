//! What the workloads append: bytes that come from a seed, and can be named again when they are read back.
//!
//! A payload is a slice of one pool of random bytes, chosen by the event's number: making one costs a multiplication,
//! so that the row measures the engine and not the generator, and every payload can be compared afterwards.

/// Random bytes that payloads start in. Fits the second cache level, like the buffer of a program that just made its events.
const POOL_SIZE: usize = 256 * 1024;

/// Payloads start at multiples of this.
const POOL_STEP: usize = 8;

/// Next number of the splitmix64 sequence; `state` moves on.
pub fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state)
}

/// Spreads the bits of a number over all 64.
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Fills `bytes` from the sequence that starts at `state`.
pub fn fill(bytes: &mut [u8], mut state: u64) {
    for chunk in bytes.chunks_mut(8) {
        let word = splitmix64(&mut state).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// The payloads of one seed and size.
#[derive(Debug)]
pub struct Payloads {
    pool: Vec<u8>,
    size: usize,
}

impl Payloads {
    /// Makes the payloads of `size` bytes that belong to `seed`.
    pub fn new(seed: u64, size: usize) -> Self {
        let mut pool = vec![0; POOL_SIZE + size];
        fill(&mut pool, seed);
        Self { pool, size }
    }

    /// Size of each payload, bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Payload of the `index`th event.
    #[inline]
    pub fn get(&self, index: u64) -> &[u8] {
        let slot = (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % (POOL_SIZE / POOL_STEP);
        &self.pool[slot * POOL_STEP..][..self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_payloads_and_another_seed_others() {
        let (a, b, c) = (Payloads::new(7, 100), Payloads::new(7, 100), Payloads::new(8, 100));
        for index in [0, 1, 12_345, u64::MAX] {
            assert_eq!(a.get(index), b.get(index));
            assert_ne!(a.get(index), c.get(index));
            assert_eq!(a.get(index).len(), 100);
        }
    }

    #[test]
    fn neighbours_differ() {
        let payloads = Payloads::new(1, 32);
        assert!((0..10_000).all(|i| payloads.get(i) != payloads.get(i + 1)));
    }

    #[test]
    fn a_short_end_is_filled_too() {
        let mut bytes = [0; 13];
        fill(&mut bytes, 3);
        assert_ne!(bytes[8..], [0; 5]);
    }
}
