//! What a store must hold: a plain vector beside each channel.

use std::collections::VecDeque;
use std::time::Duration;

use redex::sim::SimStore;
use redex::{Change, Cursor, FsyncPolicy, RedexFile, RedexFileConfig, Retention};

use crate::dice::Dice;
use crate::survivors::Extent;

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

/// A change on its way, for which a channel is brought to rest; who waits for it, unless nobody does.
#[derive(Debug)]
pub enum Pending {
    /// The events from this one on go.
    CutOff(u64, Option<Change<u64>>),
    /// All events go, and sequences begin anew.
    Reset(Option<Change<()>>),
    /// The channel goes.
    Delete(Option<Change<()>>),
}

impl Pending {
    /// The same, with nobody who waits for it.
    fn without_waiter(&self) -> Self {
        match self {
            Self::CutOff(end, _) => Self::CutOff(*end, None),
            Self::Reset(_) => Self::Reset(None),
            Self::Delete(_) => Self::Delete(None),
        }
    }

    /// Whether it was answered with an error: it will not count, or has already.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::CutOff(_, None) | Self::Reset(None) | Self::Delete(None))
    }
}

/// One channel.
#[derive(Debug)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Its configuration.
    pub config: RedexFileConfig,
    /// Limits that it has had in the present life.
    pub limits: Vec<Retention>,
    /// Directory of its files.
    pub dir: String,
    /// The same of the one that was there when the present life began.
    pub base_dir: String,
    /// Whether it is there; a deleted one is not until its name is opened again.
    pub is_there: bool,
    /// All events that were published and not cut off, those below the head too.
    pub events: Vec<Event>,
    /// First event that is there.
    pub head: u64,
    /// The highest head that somebody has asked for.
    pub trim_wanted: u64,
    /// The latest time that an event of it had, of those too that were cut off.
    pub last_time_us: u64,
    /// Appends, in the order of their calls, of which nothing was published yet: seed and length of each payload.
    pub waiting: VecDeque<Wanted>,
    /// Positions that subscriptions had, and the sequence that each leads to; `None` if a crash or a cut took back what it
    /// has seen.
    pub cursors: Vec<(Cursor, Option<u64>)>,
    /// A cut, reset or deletion that has not counted yet.
    pub pending: Option<Pending>,
    /// How many of those have counted in the present life.
    pub cuts: u64,
    /// Where its durable events began when it became persistent in the present life, if it was in memory before.
    pub began_in_memory: Option<u64>,
    /// Where.
    pub cut_ends: Vec<u64>,
    /// Epoch in which it gives sequences.
    pub epoch: u32,
    /// What there was when the present life began.
    pub base: Extent,
    /// Events below must survive a power cut.
    pub floor: u64,
    /// The policy holds for events from here on.
    pub bound_from: u64,
}

impl Channel {
    /// An empty channel that was opened.
    #[must_use]
    pub fn new(name: String, config: RedexFileConfig) -> Self {
        Self {
            name,
            dir: String::new(),
            base_dir: String::new(),
            limits: vec![config.retention()],
            config,
            is_there: true,
            events: Vec::new(),
            head: 0,
            trim_wanted: 0,
            last_time_us: 0,
            waiting: VecDeque::new(),
            cursors: Vec::new(),
            pending: None,
            cuts: 0,
            began_in_memory: None,
            cut_ends: Vec::new(),
            epoch: 0,
            base: Extent::default(),
            floor: 0,
            bound_from: 0,
        }
    }

    /// The same, with nobody who waits for what is on its way.
    #[must_use]
    pub fn without_waiters(&self) -> Self {
        Self {
            name: self.name.clone(),
            config: self.config.clone(),
            limits: self.limits.clone(),
            dir: self.dir.clone(),
            base_dir: self.base_dir.clone(),
            events: self.events.clone(),
            waiting: self.waiting.clone(),
            cursors: self.cursors.clone(),
            pending: self.pending.as_ref().map(Pending::without_waiter),
            cut_ends: self.cut_ends.clone(),
            ..*self
        }
    }

    /// Sequence of the next event.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.events.len() as u64
    }

    /// Takes an event that was published at `wall_us`: times never go backwards. After a cut they go on where they were,
    /// as far as that is known after a crash: then what the store says counts, within bounds.
    fn push(&mut self, (seed, len): (u64, usize), wall_us: u64, time_of: impl Fn(u64) -> Option<u64>) {
        let least = self.events.last().map_or(wall_us, |last| last.time_us.max(wall_us));
        let most = self.last_time_us.max(least);
        let told = if least == most { None } else { time_of(self.next()) };
        let time_us = told.unwrap_or(most).clamp(least, most);
        self.last_time_us = most;
        self.events.push(Event { seed, len, time_us, continues: false });
    }

    /// Takes a whole append; `is_whole` says that no crash may leave a part of it.
    fn push_batch(&mut self, wanted: Wanted, wall_us: u64, is_whole: bool, time_of: impl Fn(u64) -> Option<u64>) {
        let first = self.events.len();
        wanted.into_iter().for_each(|event| self.push(event, wall_us, &time_of));
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
        time_of: impl Fn(u64) -> Option<u64>,
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
            self.push_batch(wanted, wall_us, is_whole, &time_of);
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
        // Where it began is called durable before it is there. A cut makes all that is left of it durable.
        if self.began_in_memory != Some(durable) || self.cuts > 0 {
            self.floor = self.floor.max(durable);
        }
    }

    /// An append resolved when `durable` was the durable mark: the bound of the policy (design section 4) holds then.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub fn check_bound(&self, durable: u64, wall_us: u64) -> Result<(), String> {
        let unflushed = &self.events[durable.max(self.bound_from).min(self.next()) as usize..];
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

    /// Its handle is this one from now on.
    pub fn opened(&mut self, file: &RedexFile) {
        (self.is_there, self.epoch, self.dir) = (true, file.cursor().epoch, SimStore::dir_of(file));
    }

    /// A cut has counted: the events from `end` on are gone, and what was left is durable.
    pub fn cut_off(&mut self, end: u64, epoch: u32) {
        self.events.truncate(end as usize);
        if let Some(last) = self.events.last_mut() {
            last.continues = false;
        }
        self.head = self.head.min(end);
        self.trim_wanted = self.trim_wanted.min(end);
        self.floor = end;
        self.bound_from = 0;
        self.forget_cursors_behind(end);
        self.cut_ends.push(end);
        (self.epoch, self.cuts, self.pending) = (epoch, self.cuts + 1, None);
    }

    /// A deletion has counted.
    pub fn deleted(&mut self) {
        let (name, config) = (std::mem::take(&mut self.name), self.config.clone());
        let (base_dir, base) = (std::mem::take(&mut self.base_dir), self.base);
        *self = Self { is_there: false, cuts: self.cuts + 1, base_dir, base, ..Self::new(name, config) };
    }

    fn forget_cursors_behind(&mut self, end: u64) {
        for (cursor, leads_to) in &mut self.cursors {
            *leads_to = leads_to.filter(|_| cursor.seq <= end);
        }
    }

    /// The head has moved here: somebody has asked for it, or a limit allows it.
    ///
    /// # Errors
    ///
    /// Why it must not.
    pub fn move_head(&mut self, head: u64, wall_us: u64) -> Result<(), String> {
        let name = &self.name;
        if head < self.head || head > self.next() {
            return Err(format!("{name}: the head went from {} to {head}, of {}", self.head, self.next()));
        }
        if head > self.head && head > self.trim_wanted && !self.limits.iter().any(|l| self.allows(l, head, wall_us)) {
            return Err(format!("{name}: the head is {head} of {}, more than {:?} drop", self.next(), self.limits));
        }
        self.head = head;
        Ok(())
    }

    /// Whether limits drop what lies below `head`.
    fn allows(&self, limits: &Retention, head: u64, wall_us: u64) -> bool {
        let last = self.events[head as usize - 1];
        let kept = &self.events[head as usize - 1..];
        let by_events = limits.max_events.is_some_and(|limit| self.next() - head >= limit);
        let by_age = limits.max_age.is_some_and(|age| last.time_us < wall_us.saturating_sub(age.as_micros() as u64));
        let bytes: u64 = kept.iter().map(|event| event.len as u64 + 20).sum();
        // Blocks that a page leaves unfinished count too.
        let by_bytes = limits.max_bytes.is_some_and(|limit| 2 * bytes + (64 << 10) >= limit);
        by_events || by_age || by_bytes
    }

    /// What is left after a crash, and where the next life begins.
    pub fn cut(&mut self, survived: Extent) {
        self.events.truncate(survived.end as usize);
        if let Some(last) = self.events.last_mut() {
            // A cut that was on its way may have parted a batch.
            last.continues = false;
        }
        self.waiting.clear();
        self.forget_cursors_behind(survived.end);
        if !survived.is_there {
            self.cursors.clear();
            self.last_time_us = 0;
        }
        self.is_there = survived.is_there;
        (self.head, self.trim_wanted, self.floor) = (survived.head, survived.head, survived.end);
        (self.pending, self.cuts, self.base, self.bound_from) = (None, 0, survived, 0);
        self.began_in_memory = None;
    }
}
