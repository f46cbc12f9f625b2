//! Operations on channels, in memory and on a simulated disk, beside a plain model.
//!
//! The input is operations of 4 bytes, `kind, channel, a, b`; all of them mean something. Each is done to a store in memory and to
//! one on a disk, and awaited.
//!
//! - Both give the sequences that the model gives, and read what it has, byte for byte.
//! - After a close everything is there; after a kill or a power cut a prefix of each channel with all that was durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStore};
use redex::{FsyncPolicy, Redex, RedexFile, RedexFileConfig};

use super::{Outcome, Target, ensure};
use crate::dice::Dice;
use crate::drive::{drive, rest};
use crate::failure::chain;
use crate::workload::poll;

const SIZE: usize = 4;
const OPERATIONS_MAX: usize = 120;
const CHANNELS: u8 = 4;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "operations",
    about: "operations on channels, beside a model",
    run,
    mutate,
    seeds,
    // What the operations write is bounded by their number.
    memory_max: |_| 64 << 20,
    input_max: SIZE * OPERATIONS_MAX,
    unit: SIZE,
    weight: 3,
};

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for kind in 0..16 {
        let before = [[0, 0, 10, 1], [1, 0, 9, 2], [0, 1, 255, 1]].concat();
        let after = [[kind, 0, 4, 3], [0, 0, 7, 7], [13, 0, 0, 0], [8, 0, 0, 0]].concat();
        found.push((format!("kind-{kind:02}"), [before, after].concat()));
    }
    for seed in 0..8 {
        let mut dice = Dice::new(seed);
        found.push((format!("drawn-{seed}"), (0..60).flat_map(|_| draw(&mut dice)).collect()));
    }
    found
}

fn draw(dice: &mut Dice) -> [u8; SIZE] {
    let kind = if dice.percent(60) { dice.within(0..4) } else { dice.within(0..16) };
    [kind as u8, dice.bits() as u8, dice.bits() as u8, dice.bits() as u8]
}

fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..dice.within(1..5) {
        let at = dice.within(0..input.len() as u64 / SIZE as u64 + 1) as usize * SIZE;
        match dice.within(0..6) {
            0..3 => _ = input.splice(at..at, draw(dice)),
            3 if at < input.len() => _ = input.drain(at..(at + SIZE).min(input.len())),
            4 => _ = input.splice(at..at, other.iter().copied().take(dice.within(0..20) as usize * SIZE)),
            _ if !input.is_empty() => {
                let at = dice.within(0..input.len() as u64) as usize;
                input[at] = dice.bits() as u8;
            }
            _ => {}
        }
    }
    input.truncate(SIZE * OPERATIONS_MAX);
}

/// A channel as it must be.
#[derive(Clone, Debug, Default)]
struct Model {
    head: u64,
    /// All events from 0 on.
    events: Vec<Vec<u8>>,
    /// How many were durable at least.
    durable: u64,
}

struct World {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    store: Option<SimStore>,
    memory: Redex,
    models: BTreeMap<u8, Model>,
    /// Told apart by this number.
    written: u64,
    seed: u64,
}

fn config(channel: u8) -> RedexFileConfig {
    let policy = match channel {
        0 => FsyncPolicy::Never,
        1 => FsyncPolicy::EveryN(1),
        _ => FsyncPolicy::EveryN(7),
    };
    RedexFileConfig::default().with_fsync_policy(policy).with_segment_bytes(16 << 10)
}

fn run(input: &[u8]) -> Result<Outcome, String> {
    let disk = SimDisk::new(u64::from(crc32c::crc32c(input)), SimOptions::default());
    let (clock, memory) = (Arc::new(ManualClock::default()), Redex::in_memory());
    let mut world = World { disk, clock, store: None, memory, models: BTreeMap::new(), written: 0, seed: 1 };
    world.reopen()?;
    let mut kinds = 0_u64;
    for (index, operation) in input.chunks_exact(SIZE).take(OPERATIONS_MAX).enumerate() {
        let done = world.operate(operation);
        done.map_err(|what| format!("operation {index}, {operation:?}: {what}"))?;
        kinds |= 1 << (operation[0] % 16);
    }
    world.check_all()?;
    world.close()?;
    world.reopen()?;
    world.check_all()?;
    Ok(Outcome(kinds))
}

impl World {
    fn store(&mut self) -> &mut SimStore {
        self.store.as_mut().expect("it is open between operations")
    }

    /// The channel on the disk, and in memory.
    fn files(&mut self, channel: u8) -> Result<(RedexFile, RedexFile), String> {
        let (name, config) = (format!("c/{channel}"), config(channel));
        self.models.entry(channel).or_default();
        let in_memory = self.memory.open_file(&*name, config.clone()).map_err(|error| chain(&error))?;
        let on_disk = self.store().redex().open_file(&*name, config.with_persistent(true));
        Ok((on_disk.map_err(|error| chain(&error))?, in_memory))
    }

    fn operate(&mut self, operation: &[u8]) -> Result<(), String> {
        let (channel, a, b) = (operation[1] % CHANNELS, u64::from(operation[2]), u64::from(operation[3]));
        match operation[0] % 16 {
            0 => self.append(channel, a * (b % 24), false),
            1 => self.append_batch(channel, a % 40, b),
            2 => self.append(channel, a * (b % 24), true),
            3 => self.append(channel, a % 9, false),
            4 => self.trim(channel, a),
            5 => self.cut(channel, a),
            6 => self.read(channel, a, b),
            7 => self.sync(channel),
            8 => self.check_all(),
            9 => {
                rest(self.store());
                Ok(())
            }
            10 => {
                (0..b % 16).for_each(|_| _ = self.store().step());
                Ok(())
            }
            11 => self.delete(channel),
            12 => self.close().and_then(|()| self.reopen()),
            13 => self.die(false),
            14 => self.die(true),
            _ => self.reset(channel),
        }
    }

    fn payload(&mut self, len: u64) -> Vec<u8> {
        self.written += 1;
        let mut dice = Dice::new(self.written);
        (0..len).map(|_| dice.bits() as u8).collect()
    }

    fn append(&mut self, channel: u8, len: u64, durable: bool) -> Result<(), String> {
        let (file, in_memory) = self.files(channel)?;
        let bytes = self.payload(len);
        let expected = self.models[&channel].events.len() as u64;
        let future = if durable { file.append_durable(&bytes) } else { file.append(&bytes) };
        let seq = resolved("an append", drive(self.store(), future))?;
        let other = at_once("an append in memory", poll(&mut in_memory.append(&bytes)))?;
        ensure((seq, other) == (expected, expected), || {
            format!("sequence {seq} on disk, {other} in memory, {expected} is next")
        })?;
        self.models.get_mut(&channel).expect("files() made it").events.push(bytes);
        self.look(channel, &file, if durable { expected + 1 } else { 0 })
    }

    fn append_batch(&mut self, channel: u8, count: u64, len: u64) -> Result<(), String> {
        let (file, in_memory) = self.files(channel)?;
        let payloads: Vec<Vec<u8>> = (0..count).map(|i| self.payload((len + i) % 300)).collect();
        let first = self.models[&channel].events.len() as u64;
        let range = resolved("a batch", drive(self.store(), file.append_batch(&payloads)))?;
        let other = at_once("a batch in memory", poll(&mut in_memory.append_batch(&payloads)))?;
        let expected = first..first + count;
        ensure(range == expected && other == expected, || format!("{range:?} and {other:?}, not {expected:?}"))?;
        self.models.get_mut(&channel).expect("files() made it").events.extend(payloads);
        self.look(channel, &file, 0)
    }

    /// Notes what is durable, which must reach `least`.
    fn look(&mut self, channel: u8, file: &RedexFile, least: u64) -> Result<(), String> {
        let model = self.models.get_mut(&channel).expect("files() made it");
        let (durable, next) = (file.durable(), model.events.len() as u64);
        ensure(durable >= least && durable <= next && durable >= model.durable, || {
            format!("durable up to {durable}; of {next}, {least} were asked for and {} were before", model.durable)
        })?;
        model.durable = durable;
        Ok(())
    }

    fn trim(&mut self, channel: u8, a: u64) -> Result<(), String> {
        let (file, in_memory) = self.files(channel)?;
        let model = &self.models[&channel];
        let to = model.head + a % (model.events.len() as u64 - model.head + 1);
        let head = resolved("a trim", drive(self.store(), file.trim_head(to)))?;
        let other = at_once("a trim in memory", poll(&mut in_memory.trim_head(to)))?;
        ensure((head, other) == (to, to), || format!("heads {head} and {other}, not {to}"))?;
        self.models.get_mut(&channel).expect("files() made it").head = to;
        self.look(channel, &file, to)
    }

    fn cut(&mut self, channel: u8, a: u64) -> Result<(), String> {
        let (file, in_memory) = self.files(channel)?;
        let model = &self.models[&channel];
        let to = model.head + a % (model.events.len() as u64 - model.head + 1);
        let end = resolved("a cut", drive(self.store(), file.truncate_suffix(to)))?;
        let other = at_once("a cut in memory", poll(&mut in_memory.truncate_suffix(to)))?;
        ensure((end, other) == (to, to), || format!("ends {end} and {other}, not {to}"))?;
        let model = self.models.get_mut(&channel).expect("files() made it");
        model.events.truncate(to as usize);
        model.durable = model.durable.min(to);
        self.look(channel, &file, 0)
    }

    fn read(&mut self, channel: u8, a: u64, b: u64) -> Result<(), String> {
        let (file, in_memory) = self.files(channel)?;
        let model = &self.models[&channel];
        let next = model.events.len() as u64;
        let from = a * 3 % (next + 2);
        let to = from + b;
        for file in [&file, &in_memory] {
            let events = file.read_range(from, to).wait().map_err(|error| chain(&error))?;
            let expected = from.max(model.head)..to.min(next);
            ensure(events.iter().map(|event| event.seq).eq(expected.clone()), || {
                format!("{} events of {from}..{to}, {expected:?} are there", events.len())
            })?;
            for event in &events {
                let same = event.payload == model.events[event.seq as usize];
                ensure(same, || format!("event {} is another", event.seq))?;
            }
        }
        Ok(())
    }

    fn sync(&mut self, channel: u8) -> Result<(), String> {
        let (file, _) = self.files(channel)?;
        resolved("a sync", drive(self.store(), file.sync()))?;
        let next = self.models[&channel].events.len() as u64;
        self.look(channel, &file, next)
    }

    fn delete(&mut self, channel: u8) -> Result<(), String> {
        self.files(channel)?;
        let name = format!("c/{channel}");
        let change = self.store().redex().delete_channel(&*name);
        resolved("a deletion", drive(self.store(), change))?;
        at_once("a deletion in memory", poll(&mut self.memory.delete_channel(&*name)))?;
        self.models.remove(&channel);
        Ok(())
    }

    fn reset(&mut self, channel: u8) -> Result<(), String> {
        self.files(channel)?;
        let name = format!("c/{channel}");
        let change = self.store().redex().reset_channel(&*name);
        resolved("a reset", drive(self.store(), change))?;
        at_once("a reset in memory", poll(&mut self.memory.reset_channel(&*name)))?;
        let (file, _) = self.files(channel)?;
        let (head, next) = (file.head_seq(), file.next_seq());
        ensure((head, next) == (0, 0), || format!("after a reset it has {head}..{next}"))?;
        self.models.insert(channel, Model::default());
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let store = self.store.take().expect("it is open between operations");
        store.close().map_err(|error| chain(&error))?;
        self.models.values_mut().for_each(|model| model.durable = model.events.len() as u64);
        Ok(())
    }

    /// The process dies, or the power goes off.
    fn die(&mut self, power: bool) -> Result<(), String> {
        for channel in self.models.keys().copied().collect::<Vec<_>>() {
            let (file, _) = self.files(channel)?;
            self.look(channel, &file, 0)?;
        }
        drop(self.store.take());
        if power {
            self.disk.power_cut()
        } else {
            self.disk.kill()
        }
        self.reopen()
    }

    /// Opens the store, and takes over what survived.
    fn reopen(&mut self) -> Result<(), String> {
        self.seed += 1;
        let opened = SimStore::open(&self.disk, &SimSettings::default(), &self.clock, self.seed);
        self.store = Some(opened.map_err(|error| chain(&error))?);
        let infos = self.store().redex().channels();
        for (channel, mut model) in std::mem::take(&mut self.models) {
            let name = format!("c/{channel}");
            let next = infos.iter().find(|info| info.name.as_str() == name).map_or(0, |info| info.next_seq);
            let (durable, published) = (model.durable, model.events.len() as u64);
            ensure((durable..=published).contains(&next), || {
                format!("{name}: {next} events survived of {published}, of which {durable} were durable")
            })?;
            model.events.truncate(next as usize);
            model.durable = next;
            self.forget_in_memory(channel, &model)?;
            self.models.insert(channel, model);
        }
        Ok(())
    }

    /// What did not survive on the disk is taken from the store in memory.
    fn forget_in_memory(&mut self, channel: u8, model: &Model) -> Result<(), String> {
        let file = self.memory.open_file(&*format!("c/{channel}"), config(channel)).map_err(|error| chain(&error))?;
        let next = model.events.len() as u64;
        if next < file.next_seq() {
            at_once("a cut in memory", poll(&mut file.truncate_suffix(next)))?;
        }
        Ok(())
    }

    fn check_all(&mut self) -> Result<(), String> {
        for channel in self.models.keys().copied().collect::<Vec<_>>() {
            let (on_disk, in_memory) = self.files(channel)?;
            let model = &self.models[&channel];
            for file in [&on_disk, &in_memory] {
                let ends = (file.head_seq(), file.next_seq());
                let expected = (model.head, model.events.len() as u64);
                ensure(ends == expected, || format!("c/{channel} has {ends:?}, not {expected:?}"))?;
                let mut next = model.head;
                for event in file.read_from(0).blocking() {
                    let event = event.map_err(|error| format!("event {next}: {}", chain(&error)))?;
                    let same = event.seq == next && event.payload == model.events[next as usize];
                    ensure(same, || format!("c/{channel}: event {} where {next} belongs, or another", event.seq))?;
                    next += 1;
                }
                ensure(next == expected.1, || format!("c/{channel}: reading ends at {next} of {}", expected.1))?;
            }
        }
        Ok(())
    }
}

fn resolved<T, E: std::error::Error + 'static>(what: &str, result: Option<Result<T, E>>) -> Result<T, String> {
    let result = result.ok_or_else(|| format!("{what} waits for ever"))?;
    result.map_err(|error| format!("{what}: {}", chain(&error)))
}

fn at_once<T, E: std::error::Error + 'static>(what: &str, result: Poll<Result<T, E>>) -> Result<T, String> {
    match result {
        Poll::Ready(result) => result.map_err(|error| format!("{what}: {}", chain(&error))),
        Poll::Pending => Err(format!("{what} waits")),
    }
}
