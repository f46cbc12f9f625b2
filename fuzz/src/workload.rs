//! What is done to a store while it runs: appends, reads, turns of its shards, and the clock.
//!
//! Nothing waits here: a future is polled, and the store is stepped until it resolves, or it is dropped. After each
//! step what the store says is held against the model.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use redex::sim::{SimStep, SimStore};
use redex::{AppendError, RedexFile};

use crate::dice::Dice;
use crate::failure::chain;
use crate::follow::Follower;
use crate::history::{Part, World};
use crate::model::{Channel, Event, Pending, Wanted};
use crate::{branch, changes, faults, groups, settings};

/// Steps after which an append that waits is taken for stuck.
pub(crate) const STEPS_MAX: usize = 20_000;

/// A life under way.
pub struct Run<'w> {
    pub(crate) world: &'w mut World,
    pub(crate) store: SimStore,
    pub(crate) files: Vec<RedexFile>,
    /// A subscription.
    pub(crate) tail: Option<Follower>,
    /// The channels that something is done to: their first, and how many.
    busy: (u64, u64),
    /// Whether the store has failed, as it may.
    over: bool,
}

impl<'w> Run<'w> {
    /// A life that begins with these channels open, in the order of the model.
    pub fn new(world: &'w mut World, store: SimStore, files: Vec<RedexFile>) -> Self {
        let count = files.len().max(1) as u64;
        // At times a few channels only, so that a checkpoint has news of some and not of the others.
        let busy =
            if world.dice.one_in(2) { (0, u64::MAX) } else { (world.dice.within(0..count), world.dice.within(1..4)) };
        Self { world, store, files, tail: None, busy, over: false }
    }

    /// Does so many things, or until the power goes off. Gives the store back, and the channels.
    ///
    /// # Errors
    ///
    /// What is not as it must be.
    pub fn run(mut self, actions: u64) -> Result<(SimStore, Vec<RedexFile>), String> {
        for action in 0..actions {
            if self.over || self.world.disk.is_off() {
                break;
            }
            if !self.world.does(action) {
                continue;
            }
            self.world.turn_to(Part::Action(action));
            branch::now_and_then(self.world, &self.store, 3)?;
            self.act()?;
        }
        self.observe()?;
        Ok((self.store, self.files))
    }

    pub(crate) fn dice(&mut self) -> &mut Dice {
        &mut self.world.dice
    }

    fn act(&mut self) -> Result<(), String> {
        let missing = self.world.channels_max.saturating_sub(self.files.len());
        if self.files.is_empty() || (missing > 6 && self.dice().one_in(4)) {
            return self.open_new();
        }
        let (first, count) = (self.busy.0, self.files.len() as u64);
        let channel = ((first + self.world.dice.within(0..count.min(self.busy.1))) % count) as usize;
        if !self.world.channels[channel].is_there {
            return self.open_again(channel);
        }
        if matches!(self.world.channels[channel].pending, Some(Pending::Delete(_))) {
            return self.turns();
        }
        if self.world.dice.percent(self.world.changes_percent) {
            return self.change(channel);
        }
        if self.world.groups_dice.as_mut().is_some_and(|dice| dice.one_in(5)) {
            return self.append_group();
        }
        match self.world.dice.within(0..100) {
            0..30 => self.append_one(channel, false),
            30..40 => self.append_batch(channel),
            40..48 => self.append_one(channel, true),
            48..53 => self.sync(channel),
            53..80 => self.turns(),
            80..87 => self.move_clock(),
            87..90 => self.open_new(),
            90..92 => self.reopen(channel),
            92..96 => self.read(channel),
            _ => self.follow(channel),
        }
    }

    /// An error is in order if there is no power, or if the disk was told to fail or to do damage.
    pub(crate) fn excuse(&mut self, what: &str, error: &(dyn std::error::Error + 'static)) -> Result<(), String> {
        self.over = true;
        match self.world.disk.is_off() || self.world.faults || self.world.is_struck {
            true => Ok(()),
            false => Err(format!("{what}: {}", chain(error))),
        }
    }

    pub(crate) fn observe(&mut self) -> Result<(), String> {
        let wall_us = self.world.clock.wall_us();
        observe(self.world, &self.files, wall_us)
    }

    fn length(&mut self) -> usize {
        let dice = self.dice();
        let range = match dice.within(0..100) {
            0..30 => 0..9,
            30..70 => 9..300,
            70..90 => 300..5000,
            90..99 => 5000..20_000,
            _ => 100_000..220_000,
        };
        dice.within(range) as usize
    }

    fn append_one(&mut self, channel: usize, durable: bool) -> Result<(), String> {
        let wanted = vec![(self.dice().bits(), self.length())];
        let payload = Event::payload(wanted[0].0, wanted[0].1);
        let file = self.files[channel].clone();
        if !durable && self.dice().one_in(10) {
            return self.try_append(channel, &file, &wanted, &payload);
        }
        if !durable && self.dice().one_in(15) {
            return self.append_if(channel, &file, &wanted, &payload);
        }
        let future = if durable { file.append_durable(&payload) } else { file.append(&payload) };
        self.drive(channel, &wanted, durable, future)
    }

    fn try_append(&mut self, channel: usize, file: &RedexFile, wanted: &Wanted, payload: &[u8]) -> Result<(), String> {
        let result = file.try_append(payload);
        if result.is_ok() {
            self.world.channels[channel].waiting.push_back(wanted.clone());
        }
        self.observe()?;
        match result {
            Ok(seq) if self.world.channels[channel].has(seq, wanted) => Ok(()),
            Ok(seq) => Err(format!("try_append got sequence {seq}, where another event is")),
            Err(AppendError::Full { .. }) => Ok(()),
            Err(AppendError::NoSpace { .. }) if self.world.faults => Ok(()),
            Err(error) => self.excuse("try_append", &error),
        }
    }

    fn append_batch(&mut self, channel: usize) -> Result<(), String> {
        let (count, len) = match self.dice().within(0..100) {
            0..50 => (1..40, 0..100),
            50..78 => (1..300, 0..60),
            // About as many records as the smallest commits hold.
            78..80 => (2000..3500, 0..9),
            _ => (5..40, 1000..5000),
        };
        let count = self.dice().within(count);
        let wanted: Wanted =
            (0..count).map(|_| (self.dice().bits(), self.dice().within(len.clone()) as usize)).collect();
        let payloads: Vec<Vec<u8>> = wanted.iter().map(|(seed, len)| Event::payload(*seed, *len)).collect();
        let file = self.files[channel].clone();
        if self.dice().one_in(3) {
            self.drive(channel, &wanted, true, Batch(file.append_batch_durable(&payloads)))
        } else {
            self.drive(channel, &wanted, false, Batch(file.append_batch(&payloads)))
        }
    }

    /// Polls an append until it resolves, or drops it: it is made all the same.
    fn drive<F>(&mut self, channel: usize, wanted: &Wanted, durable: bool, mut future: F) -> Result<(), String>
    where
        F: Future<Output = Result<u64, AppendError>> + Unpin,
    {
        self.world.channels[channel].waiting.push_back(wanted.clone());
        let cuts = self.world.channels[channel].cuts;
        self.observe()?;
        let patient = self.dice().percent(60);
        for step in 0..STEPS_MAX {
            faults::make_room(self.world, step);
            let polled = poll(&mut future);
            self.observe()?;
            match polled {
                // Cut off again, or its channel was deleted: it says where it was.
                Poll::Ready(Ok(_) | Err(AppendError::Closed { .. })) if self.world.channels[channel].cuts > cuts => {
                    return Ok(());
                }
                Poll::Ready(Ok(seq)) if self.world.channels[channel].has(seq, wanted) => {
                    return self.resolved(channel, seq + wanted.len() as u64, durable);
                }
                Poll::Ready(Ok(seq)) => return Err(format!("an append got sequence {seq}, where another event is")),
                Poll::Ready(Err(AppendError::NoSpace { .. })) if self.world.faults => {
                    self.world.channels[channel].waiting.retain(|waiting| waiting != wanted);
                    return Ok(());
                }
                Poll::Ready(Err(error)) => return self.excuse("append", &error),
                Poll::Pending if !patient => return Ok(()),
                Poll::Pending => self.step("an append")?,
            }
        }
        Err(format!("an append to {} waits for ever", self.world.channels[channel].name))
    }

    /// An append has resolved: what was promised with it must hold.
    fn resolved(&mut self, channel: usize, end: u64, durable: bool) -> Result<(), String> {
        let (model, mark) = (&self.world.channels[channel], self.files[channel].durable());
        if durable && mark < end {
            return Err(format!("{}: acknowledged as durable at {end}, the mark is {mark}", model.name));
        }
        model.check_bound(mark, self.world.clock.wall_us())?;
        self.observe()
    }

    /// One step of the store, for something that waits.
    pub(crate) fn step(&mut self, who: &str) -> Result<(), String> {
        // The step moves the clock at its end, if at all.
        let wall_us = self.world.clock.wall_us();
        let step = self.store.step();
        if step == SimStep::Idle {
            return Err(format!("{who} waits, and nothing is to be done"));
        }
        observe(self.world, &self.files, wall_us)
    }

    fn sync(&mut self, channel: usize) -> Result<(), String> {
        let file = self.files[channel].clone();
        let (next, cuts) = (self.world.channels[channel].next(), self.world.channels[channel].cuts);
        let mut future = file.sync();
        let patient = self.dice().percent(60);
        for step in 0..STEPS_MAX {
            faults::make_room(self.world, step);
            let polled = poll(&mut future);
            self.observe()?;
            let model = &mut self.world.channels[channel];
            match polled {
                // What was there is durable; what came behind a cut was asked for later.
                Poll::Ready(Ok(())) if model.cuts > cuts => return Ok(()),
                Poll::Ready(Ok(())) if model.pending.is_some() && file.durable() >= next => return Ok(()),
                Poll::Ready(Ok(())) => {
                    if self.world.faults {
                        // What still waits in the model was refused.
                        model.waiting.clear();
                    }
                    return match file.durable() == model.next() && model.waiting.is_empty() {
                        true => Ok(()),
                        false => Err(format!(
                            "sync resolved at {} of {} events, and {} appends wait",
                            file.durable(),
                            model.next(),
                            model.waiting.len()
                        )),
                    };
                }
                Poll::Ready(Err(error)) => return self.excuse("sync", &error),
                Poll::Pending if !patient => return Ok(()),
                Poll::Pending => self.step("a sync")?,
            }
        }
        Err("a sync waits for ever".to_owned())
    }

    fn turns(&mut self) -> Result<(), String> {
        for _ in 0..self.dice().within(1..12) {
            let shards = self.store.shard_count() as u64;
            let shard = self.dice().within(0..shards) as usize;
            self.store.turn(shard);
            self.observe()?;
        }
        if self.dice().one_in(20) {
            return self.rest();
        }
        Ok(())
    }

    /// Takes turns until nothing is to be done before the next timer.
    fn rest(&mut self) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            let idle = self.store.run_until_idle(1);
            self.observe()?;
            if idle {
                return Ok(());
            }
        }
        Err("the shards find no rest".to_owned())
    }

    fn move_clock(&mut self) -> Result<(), String> {
        let us = self.dice().pick(&[1, 100, 1000, 3000, 20_000, 100_000]);
        self.world.clock.advance(Duration::from_micros(us));
        if self.dice().one_in(10) {
            let wall_us = self.world.clock.wall_us();
            let jump = self.dice().within(0..2_000_000);
            self.world.clock.set_wall_us((wall_us + jump).saturating_sub(1_000_000));
        }
        Ok(())
    }

    fn open_new(&mut self) -> Result<(), String> {
        if self.files.len() >= self.world.channels_max {
            return Ok(());
        }
        let name = format!("c/{}", self.files.len());
        let config = settings::channel(self.dice());
        let config = match &mut self.world.cold {
            Some(cold) => cold.policy(config),
            None => config,
        };
        let mut model = Channel::new(name, config);
        // A model of appends that may be refused looks whether they are there, and a limit may have dropped them.
        let may_begin_in_memory = !self.world.faults;
        if may_begin_in_memory && self.world.groups_dice.as_mut().is_some_and(|dice| dice.one_in(2)) {
            let Some(file) = self.open_in_memory(&mut model)? else { return Ok(()) };
            model.opened(&file);
            self.world.channels.push(model);
            self.files.push(file);
            return self.observe();
        }
        match self.store.redex().open_file(&*model.name, model.config.clone()) {
            Ok(file) => {
                model.opened(&file);
                self.world.channels.push(model);
                self.files.push(file);
                self.observe()
            }
            Err(error) => self.excuse("open_file", &error),
        }
    }

    /// Closes a channel's handle and opens it again.
    fn reopen(&mut self, channel: usize) -> Result<(), String> {
        let old = self.files[channel].clone();
        let mut closing = old.close();
        let polled = poll(&mut closing);
        if let Poll::Ready(Err(error)) = polled {
            return self.excuse("close of a channel", &error);
        }
        // Who asks for all also helps what waits for room on.
        self.observe()?;
        if let Some(mut follower) = self.tail.take_if(|follower| follower.channel == channel) {
            // A close does what it does, awaited or not.
            drop(closing);
            self.end_of(&mut follower)?;
        }
        let model = &self.world.channels[channel];
        match self.store.redex().open_file(&*model.name, model.config.clone()) {
            Ok(file) => self.files[channel] = file,
            Err(error) => return self.excuse("open_file", &error),
        }
        match poll(&mut old.append(b"x")) {
            Poll::Ready(Err(AppendError::Closed { .. } | AppendError::Poisoned(_))) => self.observe(),
            other => Err(format!("an append to a closed handle: {other:?}")),
        }
    }

    fn read(&mut self, channel: usize) -> Result<(), String> {
        let (head, next) = (self.world.channels[channel].head, self.world.channels[channel].next());
        let from = self.dice().within(0..next + 1);
        let to = from + self.dice().within(0..60);
        let file = self.files[channel].clone();
        let events = match file.read_range(from, to).wait() {
            Ok(events) => events,
            Err(error) => return self.excuse("read_range", &error),
        };
        let model = &self.world.channels[channel];
        // What lies below the head is not there.
        let (first, end) = (from.max(head), to.min(next));
        if events.len() as u64 != end.saturating_sub(first) {
            return Err(format!("{}: {} events of {from}..{to} in {head}..{next}", model.name, events.len()));
        }
        for (event, seq) in events.iter().zip(first..) {
            crate::check::same(model, seq, event)?;
        }
        Ok(())
    }
}

/// Holds what the channels say against the model, and takes into it what was published at `wall_us`, and what was dropped.
///
/// # Errors
///
/// What is not as it must be.
pub fn observe(world: &mut World, files: &[RedexFile], wall_us: u64) -> Result<(), String> {
    world.wall_max_us = world.wall_max_us.max(wall_us).max(world.clock.wall_us());
    let durable_groups = groups::settle(world)?;
    for (model, file) in world.channels.iter_mut().zip(files) {
        if changes::look(model, file)? {
            world.deleted.push(SimStore::dir_of(file));
        }
        if !model.is_there {
            continue;
        }
        let (durable, published, before) = (file.durable(), file.published(), model.next());
        let read = |seq| file.read_one(seq).wait().ok().flatten();
        let is_there = |seq, event: Event| read(seq).is_some_and(|read| event.is(&read.payload));
        let time_of = |seq| Some(read(seq)?.time.as_micros());
        let fits_commit = |wanted: &[(u64, usize)]| world.settings.fits_commit(wanted.iter().map(|(_, len)| *len));
        model.catch_up(published, wall_us, world.faults, fits_commit, is_there, time_of)?;
        if published < model.next() {
            return Err(format!("{}: {published} events, {before} before", model.name));
        }
        world.tally.events += published - before;
        if durable > published {
            return Err(format!("{}: durable {durable}, published {published}", model.name));
        }
        model.acknowledged(durable);
        model.move_head(file.head_seq(), world.wall_max_us)?;
    }
    groups::check_durable(world, &durable_groups)
}

/// A batch whose range is told by its first sequence.
struct Batch<'f>(redex::AppendBatch<'f>);

impl Future for Batch<'_> {
    type Output = Result<u64, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(|range| range.start)
    }
}

/// Polls a future that nobody will wake for.
pub fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
