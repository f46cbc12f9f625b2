//! Chance, as it comes in from outside: salts and identities.

#[cfg(any(test, feature = "sim"))]
use std::sync::Arc;
#[cfg(any(test, feature = "sim"))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Where random numbers come from. A cheap clone.
#[derive(Clone, Debug)]
pub struct Random(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    #[cfg(any(test, feature = "sim"))]
    Seeded(Arc<AtomicU64>),
}

impl Random {
    /// The kernel's.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A sequence that the seed decides: splitmix64 (Steele, Lea, Flood 2014).
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(AtomicU64::new(seed))))
    }

    /// The next number.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        match &self.0 {
            Source::System => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).expect("the kernel gives random numbers");
                u64::from_le_bytes(bytes)
            }
            #[cfg(any(test, feature = "sim"))]
            Source::Seeded(state) => {
                let z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
        }
    }
}
