//! What was appended and changed, and what of it was acknowledged, each with its position in the drive's log.
//!
//! Positions of acknowledgements are read after them, and those of beginnings before: an error is always to the side of
//! promising less.

use redex::{FsyncPolicy, RedexFileConfig};
use serde::{Deserialize, Serialize};

/// Number of entries of the drive's log.
pub type Position = usize;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Decides the bytes.
    pub seed: u64,
    /// Their number.
    pub len: usize,
    /// It cannot be in the store at a power cut before this.
    pub begun: Position,
    /// Whether the next one was appended with it, in one batch: a crash keeps both or none.
    pub continues: bool,
}

impl Event {
    /// The payload.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        fastrand::Rng::with_seed(self.seed).fill(&mut bytes);
        bytes
    }
}

/// A change of the head, or of what there is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Change {
    /// It cannot have happened at a power cut before this.
    pub begun: Position,
    /// It has happened at a power cut from here on.
    pub acknowledged: Option<Position>,
}

/// The events of a channel from one cut, reset or deletion to the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The change that made it.
    pub change: Change,
    /// Events that it has from the one before.
    pub inherited: u64,
    /// All events, those below the head too.
    pub events: Vec<Event>,
    /// Events below the first are durable at power cuts from the second on.
    pub durable: Vec<(u64, Position)>,
    /// Heads that somebody set.
    pub trims: Vec<(u64, Change)>,
    /// Heads that were seen: what is below stays away from then on.
    pub heads: Vec<(u64, Position)>,
    /// Where the head may be because of the version before.
    pub head_before: u64,
}

impl Version {
    /// An empty one.
    #[must_use]
    pub fn empty(change: Change) -> Self {
        let (events, durable, trims, heads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { change, inherited: 0, events, durable, trims, heads, head_before: 0 }
    }

    /// Events that may be there after a power cut.
    #[must_use]
    pub fn begun_before(&self, cut: Position) -> u64 {
        self.events.partition_point(|event| event.begun <= cut) as u64
    }

    /// Events that must be.
    #[must_use]
    pub fn durable_at(&self, cut: Position) -> u64 {
        highest(&self.durable, cut).max(self.inherited)
    }

    /// Where the head is at the least.
    #[must_use]
    pub fn head_at(&self, cut: Position) -> u64 {
        let acknowledged =
            self.trims.iter().filter(|(_, change)| change.acknowledged.is_some_and(|position| position <= cut));
        acknowledged.map(|(head, _)| *head).max().unwrap_or(0).max(highest(&self.heads, cut))
    }

    /// Where somebody may have set the head to.
    #[must_use]
    pub fn head_wanted_at(&self, cut: Position) -> u64 {
        let begun = self.trims.iter().filter(|(_, change)| change.begun <= cut).map(|(head, _)| *head).max();
        begun.unwrap_or(0).max(highest(&self.heads, cut)).max(self.head_before)
    }
}

fn highest(marks: &[(u64, Position)], cut: Position) -> u64 {
    marks.iter().filter(|(_, position)| *position <= cut).map(|(mark, _)| *mark).max().unwrap_or(0)
}

/// How a channel is kept.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Keep {
    /// When its appends resolve.
    pub fsync_policy: FsyncPolicy,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// Newest events kept.
    pub max_events: Option<u64>,
    /// Bytes of the newest events kept.
    pub max_bytes: Option<u64>,
}

impl Keep {
    /// For the engine. All channels are placed together, so that batches can go over any of them.
    #[must_use]
    pub fn config(&self) -> RedexFileConfig {
        RedexFileConfig::default()
            .with_persistent(true)
            .with_fsync_policy(self.fsync_policy)
            .with_segment_bytes(self.segment_bytes)
            .with_retention_max_events(self.max_events)
            .with_retention_max_bytes(self.max_bytes)
    }

    /// Where the limits may have moved the head of these events to.
    #[must_use]
    pub fn head_max(&self, events: &[Event]) -> u64 {
        let count = events.len() as u64;
        let by_count = self.max_events.map_or(0, |max| count.saturating_sub(max));
        let Some(max_bytes) = self.max_bytes else { return by_count };
        let mut sum = 0;
        let fits = |event: &&Event| {
            sum += event.len as u64 + 20;
            sum <= max_bytes
        };
        by_count.max(count - events.iter().rev().take_while(fits).count() as u64)
    }
}

/// One channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Decides its shard.
    pub affinity: String,
    /// How it is kept.
    pub keep: Keep,
    /// Never empty.
    pub versions: Vec<Version>,
}

impl Channel {
    /// One that nobody has appended to.
    #[must_use]
    pub fn new(name: String, affinity: String, keep: Keep) -> Self {
        let change = Change { begun: 0, acknowledged: Some(0) };
        Self { name, affinity, keep, versions: vec![Version::empty(change)] }
    }

    /// For the engine.
    #[must_use]
    pub fn config(&self) -> RedexFileConfig {
        self.keep.config().with_affinity(self.affinity.as_str())
    }

    /// The newest version.
    ///
    /// # Panics
    ///
    /// Never: there is always one.
    #[must_use]
    pub fn now(&self) -> &Version {
        self.versions.last().expect("never empty")
    }

    /// The newest version.
    ///
    /// # Panics
    ///
    /// Never: there is always one.
    pub fn now_mut(&mut self) -> &mut Version {
        self.versions.last_mut().expect("never empty")
    }

    /// A cut, reset or deletion begins: a version with the first `end` events of the newest one. `head` is where the head
    /// was seen before.
    pub fn cut_off(&mut self, end: u64, head: u64, begun: Position) {
        let (now, keep) = (self.now(), self.keep);
        let mut version = Version::empty(Change { begun, acknowledged: None });
        version.inherited = end;
        version.events = now.events[..end as usize].to_vec();
        if let Some(last) = version.events.last_mut() {
            last.continues = false;
        }
        version.heads = vec![(head.min(end), begun)];
        version.head_before = keep.head_max(&now.events).max(now.head_wanted_at(begun)).min(end);
        self.versions.push(version);
    }

    /// Where the head of a version is at the most after a power cut: where somebody set it, where a limit of events moves it, or
    /// where it was seen next. A limit of bytes counts them as they lie in the files, which is not known here: behind the last look
    /// it may have moved the head anywhere.
    #[must_use]
    pub fn head_most(&self, number: usize, cut: Position) -> u64 {
        let version = &self.versions[number];
        let begun = &version.events[..version.begun_before(cut) as usize];
        let known = version.head_wanted_at(cut).max(self.keep.head_max(begun));
        let looks = self.versions[number..].iter().flat_map(|version| &version.heads);
        let next = looks.filter(|(_, position)| *position > cut).min_by_key(|(_, position)| *position);
        match next {
            Some((head, _)) => known.max(*head),
            None if self.keep.max_bytes.is_some() => u64::MAX,
            None => known,
        }
    }

    /// Sequence of the next event.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.now().events.len() as u64
    }
}

/// A batch over channels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Of each channel: its number, which version of it, and where the batch's events end.
    pub members: Vec<(usize, usize, u64)>,
}

/// All of a recording.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// The channels.
    pub channels: Vec<Channel>,
    /// The batches over channels.
    pub groups: Vec<Group>,
    /// Positions of acknowledgements.
    pub acknowledgements: Vec<Position>,
}

/// What a channel was found to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which version it is.
    pub version: usize,
    /// The first event.
    pub head: u64,
    /// Behind the last.
    pub next: u64,
}

impl History {
    /// A history that begins with what was found in this one: all of it is durable from the beginning.
    #[must_use]
    pub fn going_on(&self, found: &[Found]) -> Self {
        let from = |(channel, found): (&Channel, &Found)| {
            let mut version = Version::empty(Change { begun: 0, acknowledged: Some(0) });
            version.events = channel.versions[found.version].events[..found.next as usize].to_vec();
            version.events.iter_mut().for_each(|event| event.begun = 0);
            version.durable = vec![(found.next, 0)];
            version.heads = vec![(found.head, 0)];
            Channel { versions: vec![version], ..channel.clone() }
        };
        Self { channels: self.channels.iter().zip(found).map(from).collect(), ..Self::default() }
    }
}
