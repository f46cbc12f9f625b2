//! What a store must hold: a plain vector beside each channel.

use std::collections::VecDeque;
use std::time::Duration;

use redex::{Cursor, FsyncPolicy, RedexFileConfig};

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
    /// Whether the next event was appended with it, in a batch that one commit can hold: no crash may part the two.
    pub continues: bool,
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

/// What is appended together: seed and length of each payload.
pub type Wanted = Vec<(u64, usize)>;

/// One channel.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Its configuration.
    pub config: RedexFileConfig,
    /// All events that were published.
    pub events: Vec<Event>,
    /// Appends, in the order of their calls, of which nothing was published yet: seed and length of each payload.
    pub waiting: VecDeque<Wanted>,
    /// Positions that subscriptions had, and the sequence that each leads to; `None` if a crash took back what it has
    /// seen.
    pub cursors: Vec<(Cursor, Option<u64>)>,
    /// Events when the present life began.
    pub base: u64,
    /// Events below must survive a power cut.
    pub floor: u64,
}

impl Channel {
    /// An empty channel.
    #[must_use]
    pub fn new(name: String, config: RedexFileConfig) -> Self {
        Self { name, config, events: Vec::new(), waiting: VecDeque::new(), cursors: Vec::new(), base: 0, floor: 0 }
    }

    /// Sequence of the next event.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.events.len() as u64
    }

    /// Takes an event that was published at `wall_us`: times never go backwards.
    pub fn push(&mut self, (seed, len): (u64, usize), wall_us: u64) {
        let time_us = self.events.last().map_or(wall_us, |last| last.time_us.max(wall_us));
        self.events.push(Event { seed, len, time_us, continues: false });
    }

    /// Takes a whole append; `is_whole` says that no crash may leave a part of it.
    fn push_batch(&mut self, wanted: Wanted, wall_us: u64, is_whole: bool) {
        let first = self.events.len();
        wanted.into_iter().for_each(|event| self.push(event, wall_us));
        let parted = self.events[first..].split_last_mut();
        parted.into_iter().flat_map(|(_, before)| before).for_each(|event| event.continues = is_whole);
    }

    /// Whether a crash may leave so many events: none that parts a batch.
    #[must_use]
    pub fn may_end_at(&self, end: u64) -> bool {
        let last = end.checked_sub(1).and_then(|last| self.events.get(last as usize));
        last.is_none_or(|event| !event.continues)
    }

    /// Takes what was published at `wall_us` into the model: whole appends, in the order of their calls. `is_there` says
    /// whether the event of a sequence has the content of a seed and a length: if appends may have been refused, the ones
    /// that are not there were. `fits_commit` says whether one commit can hold an append.
    ///
    /// # Errors
    ///
    /// What was published and never appended, or in part.
    pub fn catch_up(
        &mut self,
        published: u64,
        wall_us: u64,
        refusable: bool,
        fits_commit: impl Fn(&[(u64, usize)]) -> bool,
        is_there: impl Fn(u64, Event) -> bool,
    ) -> Result<(), String> {
        while self.next() < published {
            let (name, next) = (&self.name, self.next());
            let Some(wanted) = self.waiting.pop_front() else {
                return Err(format!("{name}: {published} events published, {next} appended"));
            };
            let fits = next + wanted.len() as u64 <= published;
            let event = |(seed, len)| Event { seed, len, time_us: 0, continues: false };
            let is_it = || wanted.iter().zip(next..).all(|(wanted, seq)| is_there(seq, event(*wanted)));
            if refusable && !(fits && is_it()) {
                continue;
            }
            if !fits {
                return Err(format!(
                    "{name}: {next} events, {} appended together, {published} published",
                    wanted.len()
                ));
            }
            let is_whole = fits_commit(&wanted);
            self.push_batch(wanted, wall_us, is_whole);
        }
        Ok(())
    }

    /// Whether these events lie at `seq`.
    #[must_use]
    pub fn has(&self, seq: u64, wanted: &[(u64, usize)]) -> bool {
        let there = self.events.get(seq as usize..).unwrap_or_default();
        there.len() >= wanted.len()
            && there.iter().zip(wanted).all(|(event, wanted)| (event.seed, event.len) == *wanted)
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

    /// Keeps a position that a subscription had.
    pub fn note_cursor(&mut self, cursor: Cursor) {
        self.cursors.push((cursor, Some(cursor.seq)));
    }

    /// What is left after a crash, and where the next life begins.
    pub fn cut(&mut self, survived: u64) {
        self.events.truncate(survived as usize);
        self.waiting.clear();
        for (cursor, leads_to) in &mut self.cursors {
            *leads_to = leads_to.filter(|_| cursor.seq <= survived);
        }
        (self.base, self.floor) = (survived, survived);
    }
}
