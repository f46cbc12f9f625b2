//! A reader beside the writer on a simulated disk, polled between any two of its steps: what it shows is durable, is what was
//! appended, and is never taken back but by a cut, which is told, over rolls, checkpoints, seals, closes, killed processes and power
//! cuts; trims, retention, cuts and batches among the appends.

use std::sync::Arc;
use std::time::Duration;

use redex::sim::{ManualClock, SimDisk, SimFollower, SimOptions, SimSettings, SimStore};
use redex::{
    Change, FsyncPolicy, OpenError, ReadError, ReadOnlyFile, RedexFile, RedexFileConfig, TailEnd, TailResults,
};
use redex_tests::drive;

const CHANNELS: usize = 4;

/// Chance from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// A channel as the reader has it.
struct Followed {
    file: ReadOnlyFile,
    tail: TailResults,
    /// Events that the tail has delivered.
    delivered: usize,
}

/// A file that is gone, or another one behind a cut, before the reader could be told so: nothing polls while it reads.
fn is_gone(error: &ReadError, knows_of_cuts: bool) -> bool {
    let not_there = matches!(error, ReadError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    not_there || !knows_of_cuts
}

struct World {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    dice: Dice,
    store: Option<SimStore>,
    files: Vec<RedexFile>,
    /// What was appended and not lost.
    model: Vec<Vec<Arc<[u8]>>>,
    /// The same before each cut: a reader may not know of it yet.
    before_cuts: Vec<Vec<Vec<Arc<[u8]>>>>,
    /// Where channels were cut, and the epoch of the last time.
    cuts: Vec<Vec<u64>>,
    cut_epochs: Vec<u32>,
    /// How far heads may have moved.
    heads: Vec<u64>,
    /// Sequences of batches over the first two channels, which a reader sees together.
    batches: Vec<(u64, u64)>,
    follower: Option<SimFollower>,
    followed: Vec<Option<Followed>>,
    /// What any reader has shown.
    shown: Vec<u64>,
    counts: Counts,
}

/// What has happened: a run in which something never did shows nothing.
#[derive(Debug, Default)]
struct Counts {
    polls: u64,
    delivered: u64,
    cuts: u64,
    kills: u64,
    closes: u64,
    checkpoints: u64,
    extents: u64,
    lost: u64,
    truncations: u64,
    told_lost: u64,
    trims: u64,
    told_lagged: u64,
    batches: u64,
    stale: u64,
}

fn settings() -> SimSettings {
    SimSettings { shards: 2, ..SimSettings::default() }
}

fn name(channel: usize) -> String {
    format!("channel/{channel}")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            disk: SimDisk::new(seed, SimOptions::default()),
            clock: Arc::default(),
            dice: Dice(seed),
            store: None,
            files: Vec::new(),
            model: vec![Vec::new(); CHANNELS],
            before_cuts: vec![Vec::new(); CHANNELS],
            cuts: vec![Vec::new(); CHANNELS],
            cut_epochs: vec![0; CHANNELS],
            heads: vec![0; CHANNELS],
            batches: Vec::new(),
            follower: None,
            followed: (0..CHANNELS).map(|_| None).collect(),
            shown: vec![0; CHANNELS],
            counts: Counts::default(),
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let seed = self.dice.below(u64::MAX);
        let store = SimStore::open(&self.disk, &settings(), &self.clock, seed).unwrap();
        let policies = [
            FsyncPolicy::Never,
            FsyncPolicy::EveryN(5),
            FsyncPolicy::Interval(Duration::from_millis(20)),
            FsyncPolicy::IntervalOrBytes { period: Duration::from_millis(50), max_bytes: 10_000 },
        ];
        let open = |(channel, policy)| {
            let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(64 << 10);
            let config = match channel {
                0 | 1 => config.with_affinity("a pair"),
                3 => config.with_retention_max_events(400).with_retention_hold(0),
                _ => config,
            };
            store.redex().open_file(name(channel), config.with_fsync_policy(policy)).unwrap()
        };
        self.files = policies.into_iter().enumerate().map(open).collect();
        self.store = Some(store);
        self.batches.clear();
        for ((file, model), (shown, head)) in
            self.files.iter().zip(&mut self.model).zip(self.shown.iter().zip(&mut self.heads))
        {
            let survived = file.next_seq() as usize;
            *head = (*head).max(file.head_seq());
            assert!(survived <= model.len());
            assert!(survived as u64 >= *shown, "{}: {shown} shown, {survived} survived", file.name());
            self.counts.lost += (model.len() - survived) as u64;
            model.truncate(survived);
        }
    }

    fn append(&mut self) {
        let channel = self.dice.below(CHANNELS as u64) as usize;
        let len = match self.dice.below(20) {
            0 => 20_000 + self.dice.below(30_000),
            1..5 => self.dice.below(9),
            _ => 9 + self.dice.below(2_000),
        };
        self.counts.extents += u64::from(len >= 20_000);
        let salt = self.dice.below(256);
        let payload: Vec<u8> = (0..len).map(|i| (salt + i * 7 + i / 256) as u8).collect();
        let seq = self.files[channel].try_append(&payload);
        if seq.is_ok() {
            self.model[channel].push(payload.into());
        }
    }

    /// Both or none.
    fn append_batch(&mut self) {
        let mut store = self.store.take().unwrap();
        let mut batch = store.redex().batch();
        let payloads: [Arc<[u8]>; 2] = [0, 1].map(|_| vec![self.dice.below(256) as u8; 50].into());
        for (file, payload) in self.files.iter().zip(&payloads) {
            batch.append(file, payload);
        }
        let seqs = drive(&mut store, batch.commit()).unwrap();
        self.store = Some(store);
        for (channel, payload) in payloads.into_iter().enumerate() {
            assert_eq!(seqs[channel] as usize, self.model[channel].len());
            self.model[channel].push(payload);
        }
        self.batches.push((seqs[0], seqs[1]));
        self.counts.batches += 1;
    }

    /// Has the writer change a channel, and looks between any two of its steps.
    fn change(&mut self, change: Change<u64>) {
        let mut change = std::pin::pin!(change);
        let mut steps = 0;
        loop {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(result) = std::future::Future::poll(change.as_mut(), &mut cx) {
                result.unwrap();
                return;
            }
            self.store.as_mut().unwrap().step();
            if self.dice.below(4) == 0 {
                self.poll();
            }
            steps += 1;
            assert!(steps < 100_000, "the change comes to no end");
        }
    }

    fn truncate(&mut self) {
        let channel = self.dice.below(CHANNELS as u64) as usize;
        let file = self.files[channel].clone();
        let (head, next) = (file.head_seq(), file.next_seq());
        let back = if self.dice.below(3) == 0 { next - head } else { (next - head).min(30) };
        let end = next - self.dice.below(back + 1);
        if end == next {
            return;
        }
        self.cuts[channel].push(end);
        self.batches.clear();
        // Until it is done a reader may be on either side of it.
        self.cut_epochs[channel] = u32::MAX;
        self.change(file.truncate_suffix(end));
        let before = self.model[channel].clone();
        self.before_cuts[channel].push(before);
        self.model[channel].truncate(end as usize);
        self.cut_epochs[channel] = file.cursor().epoch;
        self.shown[channel] = self.shown[channel].min(end);
        self.counts.truncations += 1;
    }

    fn trim(&mut self) {
        let channel = self.dice.below(CHANNELS as u64) as usize;
        let file = self.files[channel].clone();
        let head = file.head_seq() + self.dice.below(file.len() / 2 + 1);
        self.heads[channel] = self.heads[channel].max(head);
        self.change(file.trim_head(head));
        self.counts.trims += 1;
    }

    /// Whether an event is what was appended at this sequence, before a cut or after.
    fn is_right(&self, channel: usize, seq: usize, payload: &[u8]) -> bool {
        let models = self.before_cuts[channel].iter().chain([&self.model[channel]]);
        models.rev().any(|model| model.get(seq).is_some_and(|it| **it == *payload))
    }

    /// Whether a reader has been told of the last cut of a channel, and no other is under way.
    fn knows_of_cuts(&self, channel: usize, followed: &Followed) -> bool {
        followed.file.cursor().epoch >= self.cut_epochs[channel]
    }

    /// Takes what a tail has; `false` if that came to an end since its files went.
    fn take(&mut self, channel: usize, followed: &mut Followed) -> bool {
        let shown = followed.file.published();
        while followed.delivered as u64 != shown {
            match followed.tail.next_wait().expect("a tail goes on") {
                Ok(event) => {
                    assert_eq!(event.seq, followed.delivered as u64);
                    assert!(
                        self.is_right(channel, followed.delivered, &event.payload),
                        "channel {channel}, {}",
                        event.seq
                    );
                    followed.delivered += 1;
                    self.counts.delivered += 1;
                }
                Err(TailEnd::Lost { from, to, .. }) => {
                    assert_eq!(to, followed.delivered as u64);
                    assert!(
                        from < to && self.cuts[channel].iter().any(|cut| *cut <= from),
                        "{from}..{to} was not cut off"
                    );
                    followed.delivered = from as usize;
                    self.counts.told_lost += 1;
                }
                Err(TailEnd::Lagged { from, to, .. }) => {
                    assert_eq!(from, followed.delivered as u64);
                    assert!(to <= self.heads[channel], "channel {channel}: {from}..{to} is there");
                    followed.delivered = to as usize;
                    self.counts.told_lagged += 1;
                }
                Err(TailEnd::Unreadable(error)) if is_gone(&error, self.knows_of_cuts(channel, followed)) => {
                    self.counts.stale += 1;
                    return false;
                }
                Err(error) => panic!("channel {channel}: {error}"),
            }
        }
        true
    }

    /// Looks, and compares all that is new.
    fn poll(&mut self) {
        self.counts.polls += 1;
        let Some(follower) = &mut self.follower else {
            match SimFollower::open(&self.disk, &self.clock) {
                Ok(follower) => self.follower = follower,
                Err(error) => {
                    assert!(matches!(error, OpenError::Checkpoint { .. } | OpenError::Journal { .. }), "{error}")
                }
            }
            return;
        };
        for (head, file) in self.heads.iter_mut().zip(&self.files) {
            *head = (*head).max(file.head_seq());
        }
        follower.poll();
        assert!(follower.poisoned().is_none(), "{:?}", follower.poisoned());
        for channel in 0..CHANNELS {
            if self.followed[channel].is_none() && self.dice.below(8) == 0 {
                let follower = self.follower.as_ref().expect("looked at above");
                self.followed[channel] = match follower.open_file(name(channel)) {
                    Ok(file) => file.map(|file| Followed { tail: file.tail(0), file, delivered: 0 }),
                    Err(_) => None,
                };
            }
            let Some(mut followed) = self.followed[channel].take() else { continue };
            let shown = followed.file.published();
            // One that does not know of the last cut shows what was durable then.
            if self.knows_of_cuts(channel, &followed) {
                if self.store.is_some() {
                    let durable = self.files[channel].durable();
                    assert!(shown <= durable, "channel {channel}: {shown} shown, {durable} durable");
                }
                self.shown[channel] = self.shown[channel].max(shown);
            }
            if self.take(channel, &mut followed) {
                self.followed[channel] = Some(followed);
            }
        }
        // One that does not know of a cut shows events in the places where the batches behind it are.
        if let [Some(a), Some(b), ..] = &self.followed[..]
            && self.knows_of_cuts(0, a)
            && self.knows_of_cuts(1, b)
        {
            let (a, b) = (a.file.published(), b.file.published());
            for batch in &self.batches {
                assert_eq!(a > batch.0, b > batch.1, "the batch {batch:?} is seen in part: {a}, {b}");
            }
        }
    }

    /// Reads everything again that is shown.
    fn read_again(&mut self) {
        for (channel, followed) in self.followed.iter().enumerate() {
            let Some(followed) = followed else { continue };
            let events = match followed.file.read_range(0, u64::MAX).wait() {
                Err(error) if is_gone(&error, self.knows_of_cuts(channel, followed)) => continue,
                events => events.unwrap(),
            };
            assert_eq!(events.len() as u64, followed.file.len());
            for event in &events {
                assert!(self.is_right(channel, event.seq as usize, &event.payload), "channel {channel}, {}", event.seq);
            }
        }
    }

    /// The writer's process ends, one way or another, and another begins.
    fn end_writer(&mut self) {
        let store = self.store.take().unwrap();
        self.counts.checkpoints += store.redex().stats().checkpoints;
        match self.dice.below(3) {
            0 => {
                self.counts.closes += 1;
                store.close().unwrap();
            }
            1 => {
                self.counts.kills += 1;
                drop(store);
            }
            _ => {
                self.counts.cuts += 1;
                self.disk.power_cut();
                drop(store);
                self.end_reader();
            }
        }
        self.files.clear();
        for _ in 0..self.dice.below(3) {
            self.poll();
        }
        if self.dice.below(4) == 0 {
            // Another reader, which finds what this writer left.
            self.end_reader();
            self.poll();
        }
        self.open();
    }

    fn end_reader(&mut self) {
        self.follower = None;
        self.followed.iter_mut().for_each(|followed| *followed = None);
    }

    /// When all is durable and a witness is there, everything is shown.
    fn settle(&mut self) {
        let mut store = self.store.take().unwrap();
        for file in &self.files {
            drive(&mut store, file.sync()).unwrap();
        }
        for _ in 0..200 {
            store.step();
        }
        self.store = Some(store);
        for _ in 0..200 {
            self.poll();
        }
        for channel in 0..CHANNELS {
            let (shown, durable) =
                (self.followed[channel].as_ref().map(|it| it.file.published()), self.files[channel].durable());
            assert_eq!(shown, Some(durable), "channel {channel}");
            assert_eq!(durable as usize, self.model[channel].len());
            // Nobody is behind: what is there is what was appended last.
            let file = &self.followed[channel].as_ref().unwrap().file;
            assert_eq!(file.head_seq(), self.files[channel].head_seq());
            for event in file.read_range(0, u64::MAX).wait().unwrap() {
                assert!(*event.payload == *self.model[channel][event.seq as usize], "channel {channel}, {}", event.seq);
            }
            let report = file.verify().wait();
            assert!(report.is_clean(), "channel {channel}: {:?}", report.findings);
            assert_eq!(report.events, file.len());
            self.before_cuts[channel].clear();
        }
    }
}

fn run(seed: u64, rounds: u64) -> Counts {
    let mut world = World::new(seed);
    for round in 0..rounds {
        // Now a reader that keeps up, now one that is left behind.
        let polls_each = [1, 1, 40, 400][world.dice.below(4) as usize];
        for _ in 0..world.dice.below(400) {
            for _ in 0..world.dice.below(6) {
                world.append();
            }
            match world.dice.below(60) {
                0 => world.truncate(),
                1 => world.trim(),
                2 | 3 => world.append_batch(),
                _ => {}
            }
            for _ in 0..1 + world.dice.below(4) {
                world.store.as_mut().unwrap().step();
                if world.dice.below(polls_each) == 0 {
                    world.poll();
                }
            }
        }
        if round % 3 == 2 {
            world.settle();
        }
        world.poll();
        world.read_again();
        world.end_writer();
    }
    world.settle();
    world.counts
}

#[test]
fn a_follower_shows_a_durable_prefix_whenever_it_looks() {
    let mut all = Vec::new();
    for seed in 0..12 {
        let counts = run(seed, 8);
        println!("seed {seed}: {counts:?}");
        all.push(counts);
    }
    let sum = |of: fn(&Counts) -> u64| all.iter().map(of).sum::<u64>();
    for (what, count) in [
        ("delivered", sum(|counts| counts.delivered)),
        ("power cuts", sum(|counts| counts.cuts)),
        ("kills", sum(|counts| counts.kills)),
        ("closes", sum(|counts| counts.closes)),
        ("checkpoints", sum(|counts| counts.checkpoints)),
        ("extents", sum(|counts| counts.extents)),
        ("lost", sum(|counts| counts.lost)),
        ("truncations", sum(|counts| counts.truncations)),
        ("told of a loss", sum(|counts| counts.told_lost)),
        ("trims", sum(|counts| counts.trims)),
        ("told of a lag", sum(|counts| counts.told_lagged)),
        ("batches", sum(|counts| counts.batches)),
    ] {
        assert!(count >= 10, "{what}: only {count}");
    }
}
