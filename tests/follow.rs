//! A reader beside the writer on a simulated disk, polled between any two of its steps: what it shows is durable, is what was
//! appended, and is never taken back, over rolls, checkpoints, seals, closes, killed processes and power cuts.

use std::sync::Arc;
use std::time::Duration;

use redex::sim::{ManualClock, SimDisk, SimFollower, SimOptions, SimSettings, SimStore};
use redex::{FsyncPolicy, OpenError, ReadOnlyFile, RedexFile, RedexFileConfig, TailResults};
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

struct World {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    dice: Dice,
    store: Option<SimStore>,
    files: Vec<RedexFile>,
    /// What was appended and not lost.
    model: Vec<Vec<Vec<u8>>>,
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
            store.redex().open_file(name(channel), config.with_fsync_policy(policy)).unwrap()
        };
        self.files = policies.into_iter().enumerate().map(open).collect();
        self.store = Some(store);
        for ((file, model), shown) in self.files.iter().zip(&mut self.model).zip(&self.shown) {
            let survived = file.next_seq() as usize;
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
            self.model[channel].push(payload);
        }
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
        follower.poll();
        assert!(follower.poisoned().is_none(), "{:?}", follower.poisoned());
        for channel in 0..CHANNELS {
            if self.followed[channel].is_none() && self.dice.below(8) == 0 {
                self.followed[channel] = match follower.open_file(name(channel)) {
                    Ok(file) => file.map(|file| Followed { tail: file.tail(0), file, delivered: 0 }),
                    Err(_) => None,
                };
            }
            let Some(followed) = &mut self.followed[channel] else { continue };
            let shown = followed.file.published();
            if self.store.is_some() {
                let durable = self.files[channel].durable();
                assert!(shown <= durable, "channel {channel}: {shown} shown, {durable} durable");
            }
            assert!(shown as usize >= followed.delivered, "nothing is taken back");
            self.shown[channel] = self.shown[channel].max(shown);
            while (followed.delivered as u64) < shown {
                let event = followed.tail.next_wait().unwrap().unwrap();
                assert_eq!(event.seq, followed.delivered as u64);
                assert!(event.payload == self.model[channel][followed.delivered], "channel {channel}, {}", event.seq);
                followed.delivered += 1;
                self.counts.delivered += 1;
            }
        }
    }

    /// Reads everything again that is shown.
    fn read_again(&mut self) {
        for (channel, followed) in self.followed.iter().enumerate() {
            let Some(followed) = followed else { continue };
            let events = followed.file.read_range(0, u64::MAX).wait().unwrap();
            assert_eq!(events.len() as u64, followed.file.published());
            for (event, wanted) in events.iter().zip(&self.model[channel]) {
                assert!(event.payload == *wanted, "channel {channel}, {}", event.seq);
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
        }
        self.read_again();
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
    ] {
        assert!(count >= 10, "{what}: only {count}");
    }
}
