//! Random work on real files, and in memory, beside a `Vec` of what was appended: every read and every reopen agrees with it.

mod support;

use std::ops::Range;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult};
use redex::{FsyncPolicy, Redex, RedexFile, RedexFileConfig, Tail};

use support::scratch;

/// Channels that the work goes to.
const CHANNELS: usize = 3;

/// One step.
#[derive(Clone, Debug)]
enum Step {
    Append(usize, usize),
    TryAppend(usize, usize),
    AppendDurable(usize, usize),
    Batch(usize, Vec<usize>),
    Sync(usize),
    ReadOne(usize, u16),
    ReadRange(usize, u16, u16),
    Scan(usize),
    Follow(usize),
    AppendIf(usize, usize, bool),
    Trim(usize, u16),
    CutOff(usize, u16),
    Reset(usize),
    Delete(usize),
    ReopenFile(usize),
    ReopenStore { by_close: bool },
}

/// A store that rolls, seals and checkpoints after little.
#[derive(Clone, Debug)]
struct Settings {
    persistent: bool,
    segment_bytes: u64,
    extent_bytes: usize,
    commit_depth: usize,
    shards: usize,
    policies: Vec<FsyncPolicy>,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..16usize, 6 => 16..600usize, 3 => 600..6000usize, 2 => 6000..20_000usize]
}

fn step() -> impl Strategy<Value = Step> {
    let channel = 0..CHANNELS;
    prop_oneof![
        10 => (channel.clone(), size()).prop_map(|(c, size)| Step::Append(c, size)),
        2 => (channel.clone(), size()).prop_map(|(c, size)| Step::TryAppend(c, size)),
        3 => (channel.clone(), size()).prop_map(|(c, size)| Step::AppendDurable(c, size)),
        5 => (channel.clone(), prop::collection::vec(size(), 0..30)).prop_map(|(c, sizes)| Step::Batch(c, sizes)),
        1 => channel.clone().prop_map(Step::Sync),
        3 => (channel.clone(), any::<u16>()).prop_map(|(c, at)| Step::ReadOne(c, at)),
        2 => (channel.clone(), any::<u16>(), any::<u16>()).prop_map(|(c, from, len)| Step::ReadRange(c, from, len)),
        1 => channel.clone().prop_map(Step::Scan),
        3 => channel.clone().prop_map(Step::Follow),
        2 => (channel.clone(), size(), any::<bool>()).prop_map(|(c, size, right)| Step::AppendIf(c, size, right)),
        2 => (channel.clone(), any::<u16>()).prop_map(|(c, at)| Step::Trim(c, at)),
        2 => (channel.clone(), any::<u16>()).prop_map(|(c, at)| Step::CutOff(c, at)),
        1 => channel.clone().prop_map(Step::Reset),
        1 => channel.clone().prop_map(Step::Delete),
        1 => channel.prop_map(Step::ReopenFile),
        1 => any::<bool>().prop_map(|by_close| Step::ReopenStore { by_close }),
    ]
}

fn policy() -> impl Strategy<Value = FsyncPolicy> {
    let period = std::time::Duration::from_millis(3);
    prop_oneof![
        3 => Just(FsyncPolicy::Never),
        1 => (0..20u64).prop_map(FsyncPolicy::EveryN),
        1 => Just(FsyncPolicy::Interval(period)),
        1 => Just(FsyncPolicy::IntervalOrBytes { period, max_bytes: 9000 }),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let policies = prop::collection::vec(policy(), CHANNELS);
    let on_disk = prop::bool::weighted(0.7);
    (16..=64u64, 1..=16usize, 1..=4usize, 1..=2usize, policies, on_disk).prop_map(
        |(segment_kib, extent_blocks, commit_depth, shards, policies, persistent)| Settings {
            persistent,
            segment_bytes: segment_kib << 10,
            extent_bytes: extent_blocks * 4096,
            commit_depth,
            shards,
            policies,
        },
    )
}

/// The channels as they should be, and the real ones beside them.
struct World<'a> {
    dir: &'a Path,
    settings: &'a Settings,
    /// What was appended and not cut off, and where the heads lie.
    model: Vec<Vec<Vec<u8>>>,
    heads: Vec<u64>,
    appended: u64,
    real: Option<Real>,
}

struct Real {
    redex: Redex,
    files: Vec<RedexFile>,
    tails: Vec<(Tail, u64)>,
}

impl Settings {
    fn config(&self, channel: usize) -> RedexFileConfig {
        let config = RedexFileConfig::default().with_persistent(self.persistent);
        config.with_segment_bytes(self.segment_bytes).with_fsync_policy(self.policies[channel])
    }

    fn open(&self, dir: &Path) -> Real {
        let builder = Redex::builder();
        let builder = if self.persistent { builder.persistent_dir(dir) } else { builder };
        let redex = builder
            .shards(self.shards)
            .journal_segment_bytes(64 << 10)
            .checkpoint_bytes(64 << 10)
            .extent_bytes(self.extent_bytes)
            .commit_depth(self.commit_depth)
            .page_budget_bytes(1 << 20)
            .build()
            .unwrap();
        let open = |channel| redex.open_file(format!("channel/{channel}"), self.config(channel)).unwrap();
        let files: Vec<_> = (0..CHANNELS).map(open).collect();
        let tails = files.iter().map(follow).collect();
        Real { redex, files, tails }
    }
}

fn follow(file: &RedexFile) -> (Tail, u64) {
    (file.subscribe_tail().wait().unwrap(), file.next_seq())
}

impl World<'_> {
    /// The next payload of this size: no two are alike.
    fn payload(&mut self, size: usize) -> Vec<u8> {
        self.appended += 1;
        let mut state = self.appended.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..size).map(next).collect()
    }

    fn real(&mut self) -> &mut Real {
        self.real.as_mut().expect("open between steps")
    }

    /// Channels whose appends came one by one have the sequences of the model.
    fn take(&mut self, step: &Step) -> TestCaseResult {
        match step {
            Step::Append(c, size) | Step::TryAppend(c, size) | Step::AppendDurable(c, size) => {
                let payload = self.payload(*size);
                let expected = self.model[*c].len() as u64;
                let file = self.real().files[*c].clone();
                let seq = match step {
                    Step::Append(..) => file.append(&payload).wait().unwrap(),
                    Step::TryAppend(..) => match file.try_append(&payload) {
                        Err(redex::AppendError::Full { .. }) => return Ok(()),
                        result => result.unwrap(),
                    },
                    _ => {
                        let seq = file.append_durable(&payload).wait().unwrap();
                        prop_assert!(file.durable() > seq);
                        seq
                    }
                };
                prop_assert_eq!(seq, expected);
                self.model[*c].push(payload);
            }
            Step::Batch(c, sizes) => {
                let batch: Vec<_> = sizes.iter().map(|size| self.payload(*size)).collect();
                let first = self.model[*c].len() as u64;
                let seqs = self.real().files[*c].append_batch(&batch).wait().unwrap();
                prop_assert_eq!(seqs, first..first + batch.len() as u64);
                self.model[*c].extend(batch);
            }
            Step::Sync(c) => {
                let file = &self.real().files[*c];
                file.sync().wait().unwrap();
                prop_assert_eq!(file.durable(), file.published());
            }
            Step::ReadOne(c, at) => {
                let at = u64::from(*at) % (self.model[*c].len() as u64 + 2);
                let event = self.real().files[*c].read_one(at).wait().unwrap();
                let read = event.map(|event| event.payload.to_vec());
                let expected = self.model[*c].get(at as usize).filter(|_| at >= self.heads[*c]);
                prop_assert_eq!(read.as_ref(), expected);
            }
            Step::ReadRange(c, from, len) => {
                let end = self.model[*c].len() as u64;
                let from = u64::from(*from) % (end + 2);
                let to = from + u64::from(*len) % (end + 2);
                let events = self.real().files[*c].read_range(from, to).wait().unwrap();
                self.compare(*c, from.max(self.heads[*c]).min(end)..to.max(self.heads[*c]).min(end), &events)?;
            }
            Step::Scan(c) => self.scan(*c)?,
            Step::Follow(c) => self.catch_up(*c)?,
            Step::AppendIf(c, size, right) => {
                let payload = self.payload(*size);
                let next = self.model[*c].len() as u64;
                let file = self.real().files[*c].clone();
                let appended = file.append_if(if *right { next } else { next + 1 }, &payload).wait();
                prop_assert_eq!(appended.is_ok(), *right);
                self.model[*c].extend(right.then_some(payload));
            }
            Step::Trim(c, at) => {
                self.catch_up(*c)?;
                let to = u64::from(*at) % (self.model[*c].len() as u64 + 1);
                self.heads[*c] = self.heads[*c].max(to);
                let file = self.real().files[*c].clone();
                prop_assert_eq!(file.trim_head(to).wait().unwrap(), self.heads[*c]);
                prop_assert_eq!(file.head_seq(), self.heads[*c]);
            }
            Step::CutOff(c, at) => {
                let (head, next) = (self.heads[*c], self.model[*c].len() as u64);
                let end = head + u64::from(*at) % (next - head + 1);
                let file = self.real().files[*c].clone();
                prop_assert_eq!(file.truncate_suffix(end).wait().unwrap(), end);
                self.model[*c].truncate(end as usize);
                prop_assert_eq!(file.next_seq(), end);
                self.real().tails[*c] = follow(&file);
            }
            Step::Reset(c) => {
                self.real().redex.reset_channel(format!("channel/{c}")).wait().unwrap();
                (self.model[*c], self.heads[*c]) = (Vec::new(), 0);
                let file = self.real().files[*c].clone();
                prop_assert_eq!((file.head_seq(), file.next_seq()), (0, 0));
                self.real().tails[*c] = follow(&file);
            }
            Step::Delete(c) => {
                let (name, config) = (format!("channel/{c}"), self.settings.config(*c));
                let real = self.real();
                real.redex.delete_channel(&*name).wait().unwrap();
                prop_assert!(real.files[*c].append(b"").wait().is_err());
                real.files[*c] = real.redex.open_file(&*name, config).unwrap();
                real.tails[*c] = follow(&real.files[*c]);
                (self.model[*c], self.heads[*c]) = (Vec::new(), 0);
            }
            Step::ReopenFile(c) => {
                self.catch_up(*c)?;
                let (channel, config) = (format!("channel/{c}"), self.settings.config(*c));
                let real = self.real();
                real.files[*c].close().wait().unwrap();
                prop_assert_eq!(real.files[*c].durable(), real.files[*c].published());
                prop_assert!(real.files[*c].append(b"").wait().is_err());
                prop_assert!(real.tails[*c].0.next_wait().is_none());
                real.files[*c] = real.redex.open_file(channel, config).unwrap();
                real.tails[*c] = follow(&real.files[*c]);
            }
            Step::ReopenStore { by_close } => self.reopen(*by_close)?,
        }
        Ok(())
    }

    fn compare(&self, channel: usize, range: Range<u64>, events: &[redex::RedexEvent]) -> TestCaseResult {
        prop_assert_eq!(events.len() as u64, range.end - range.start);
        for (event, seq) in events.iter().zip(range) {
            prop_assert_eq!(event.seq, seq);
            prop_assert!(event.payload == self.model[channel][seq as usize], "channel {} event {}", channel, seq);
        }
        let ordered = events.windows(2).all(|pair| pair[0].time <= pair[1].time);
        prop_assert!(ordered, "times go backwards");
        Ok(())
    }

    fn scan(&mut self, channel: usize) -> TestCaseResult {
        let events: Vec<_> = self.real().files[channel].read_from(0).blocking().map(Result::unwrap).collect();
        self.compare(channel, self.heads[channel]..self.model[channel].len() as u64, &events)
    }

    /// Follows the tail up to the model's end, first without waiting as far as that goes.
    fn catch_up(&mut self, channel: usize) -> TestCaseResult {
        let end = self.model[channel].len() as u64;
        let (tail, next) = &mut self.real().tails[channel];
        let first = *next;
        let mut events = Vec::new();
        while *next < end {
            let event = tail.try_next().or_else(|| tail.next_wait()).expect("the tail goes on");
            events.push(event);
            *next += 1;
        }
        prop_assert!(tail.try_next().is_none());
        self.compare(channel, first..end, &events)
    }

    fn reopen(&mut self, by_close: bool) -> TestCaseResult {
        if !self.settings.persistent {
            return Ok(());
        }
        let real = self.real.take().expect("open between steps");
        if by_close {
            real.redex.close().wait().unwrap();
        }
        drop(real);
        self.real = Some(self.settings.open(self.dir));
        for channel in 0..CHANNELS {
            let file = &self.real().files[channel];
            let (head, next, durable) = (file.head_seq(), file.next_seq(), file.durable());
            prop_assert_eq!(head, self.heads[channel]);
            prop_assert_eq!(next, self.model[channel].len() as u64);
            prop_assert_eq!(durable, next);
            self.scan(channel)?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(Config { cases: 40, max_shrink_iters: 200, failure_persistence: None, ..Config::default() })]

    /// Each case is a store of its own; in the end everything is read once more, then after a reopen.
    #[test]
    fn random_work_agrees_with_a_vec(settings in settings(), steps in prop::collection::vec(step(), 20..120)) {
        let dir = scratch();
        let mut world = World {
            dir: dir.path(),
            settings: &settings,
            model: vec![Vec::new(); CHANNELS],
            heads: vec![0; CHANNELS],
            appended: 0,
            real: Some(settings.open(dir.path())),
        };
        for step in &steps {
            world.take(step)?;
        }
        for channel in 0..CHANNELS {
            world.catch_up(channel)?;
            world.scan(channel)?;
        }
        world.reopen(true)?;
    }
}
