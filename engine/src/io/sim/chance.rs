//! Chance from one seed, and the ways in which a power cut picks what survives.
//!
//! Nothing here looks at time, addresses or the order of a hash map: the same seed draws the same numbers.

/// A seeded generator: splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Chance {
    state: u64,
}

impl Chance {
    /// Starts from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `limit`, which is not zero.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0);
        u64::try_from((u128::from(self.bits()) * u128::from(limit)) >> 64).expect("high half")
    }

    /// True with probability `p`. Draws nothing for 0, so a fault that is off changes no other choice.
    pub(super) fn happens(&mut self, p: f64) -> bool {
        // 53 bits, as many as a double holds.
        p > 0.0 && ((self.bits() >> 11) as f64) < p * 9_007_199_254_740_992.0
    }

    /// Takes a random element; `items` is not empty.
    pub(super) fn take<T>(&mut self, items: &mut Vec<T>) -> T {
        let at = self.below(items.len() as u64) as usize;
        items.swap_remove(at)
    }
}

/// The finalizer of splitmix64: spreads every bit over the whole word.
pub(super) fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// What a power cut keeps of the effects that were not durable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Style {
    /// Everything.
    All,
    /// Nothing.
    None,
    /// Each sector of each effect with this probability.
    Sectors(f64),
    /// Each effect, whole, with this probability.
    Whole(f64),
    /// What was done before this order; of the effect with this order, each sector with probability one half.
    Prefix(u64),
    /// The newest effect only.
    Newest,
}

impl Style {
    /// Draws one; extremes are as common as mixtures. Orders of effects are in `oldest..=newest`.
    pub(super) fn draw(chance: &mut Chance, oldest: u64, newest: u64) -> Self {
        const ODDS: [f64; 5] = [0.02, 0.2, 0.5, 0.8, 0.98];
        let odds = ODDS[chance.below(5) as usize];
        match chance.below(8) {
            0 => Self::All,
            1 => Self::None,
            2 | 3 => Self::Sectors(odds),
            4 => Self::Whole(odds),
            5 | 6 => Self::Prefix(oldest + chance.below(newest.saturating_sub(oldest) + 1)),
            _ => Self::Newest,
        }
    }

    /// Whether an effect survives; the answer for [`Style::Sectors`] is for one sector of it.
    pub(super) fn keeps(self, chance: &mut Chance, order: u64, newest: u64) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Sectors(p) | Self::Whole(p) => chance.happens(p),
            Self::Prefix(last) => order < last || (order == last && chance.happens(0.5)),
            Self::Newest => order == newest,
        }
    }
}
