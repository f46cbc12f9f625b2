//! What a store must hold: a plain vector beside each channel.

use std::time::Duration;

use redex::{FsyncPolicy, RedexFileConfig};

use crate::dice::Dice;

/// An event as it was appended. Its bytes are made again when they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Decides the bytes.
    pub seed: u64,
    /// Their number.
    pub len: usize,
    /// The time that it must have, microseconds.
    pub time_us: u64,
}

impl Event {
    /// The payload.
    #[must_use]
    pub fn payload(seed: u64, len: usize) -> Vec<u8> {
        let mut dice = Dice::new(seed);
        let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
        while bytes.len() < len {
            bytes.extend_from_slice(&dice.bits().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Whether these are its bytes.
    #[must_use]
    pub fn is(&self, payload: &[u8]) -> bool {
        let mut dice = Dice::new(self.seed);
        let same = |part: &[u8]| part == &dice.bits().to_le_bytes()[..part.len()];
        payload.len() == self.len && payload.chunks(8).all(same)
    }
}

/// One channel.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Its configuration.
    pub config: RedexFileConfig,
    /// All events that were published.
    pub events: Vec<Event>,
    /// Events when the present life began.
    pub base: u64,
    /// Events below must survive a power cut.
    pub floor: u64,
}

impl Channel {
    /// An empty channel.
    #[must_use]
    pub fn new(name: String, config: RedexFileConfig) -> Self {
        Self { name, config, events: Vec::new(), base: 0, floor: 0 }
    }

    /// Sequence of the next event.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.events.len() as u64
    }

    /// Takes an event that was published at `wall_us`: times never go backwards.
    pub fn push(&mut self, (seed, len): (u64, usize), wall_us: u64) {
        let time_us = self.events.last().map_or(wall_us, |last| last.time_us.max(wall_us));
        self.events.push(Event { seed, len, time_us });
    }

    /// Events below this survive a power cut, as the store said.
    pub fn acknowledged(&mut self, durable: u64) {
        self.floor = self.floor.max(durable);
    }

    /// An append resolved when `durable` was the durable mark: the bound of the policy (design section 4) holds then.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub fn check_bound(&self, durable: u64, wall_us: u64) -> Result<(), String> {
        let unflushed = &self.events[durable as usize..];
        let late = |period: Duration| {
            let limit = wall_us.saturating_sub(period.as_micros() as u64);
            unflushed.first().filter(|event| event.time_us < limit).map(|event| wall_us - event.time_us)
        };
        let broken = match self.config.fsync_policy() {
            FsyncPolicy::Never => None,
            FsyncPolicy::EveryN(n) => {
                (unflushed.len() as u64 >= n.max(1)).then(|| format!("{} events", unflushed.len()))
            }
            FsyncPolicy::Interval(period) => late(period).map(|age| format!("one of {age} us")),
            FsyncPolicy::IntervalOrBytes { period, max_bytes } => {
                let bytes: u64 = unflushed.iter().map(|event| event.len as u64 + 8).sum();
                let late = late(period).map(|age| format!("one of {age} us"));
                (bytes > max_bytes + 8 * unflushed.len() as u64).then(|| format!("{bytes} bytes")).or(late)
            }
        };
        match broken {
            Some(what) => Err(format!("{what} unflushed under {:?} in {}", self.config.fsync_policy(), self.name)),
            None => Ok(()),
        }
    }

    /// What is left after a crash, and where the next life begins.
    pub fn cut(&mut self, survived: u64) {
        self.events.truncate(survived as usize);
        (self.base, self.floor) = (survived, survived);
    }
}
