//! Power cuts on a simulated disk, at any step: the log that is found again is the one after some of the operations, in
//! their order, and no acknowledged one is missing.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStore};

use super::log::RaftLog;
use super::model::{Model, Operation, Random};

/// Stores.
const SEEDS: u64 = 80;
/// Lives of one store, each ended by a power cut or a kill.
const LIVES: usize = 5;
/// Operations of one life, if it lasts so long.
const OPERATIONS: usize = 80;
/// Few, so that heads move.
const MARKS_KEPT: u64 = 8;

/// Steps the store until the operation has ended; `None` if the power went off before.
fn drive<T>(store: &mut SimStore, disk: &SimDisk, future: impl Future<Output = io::Result<T>>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..100_000 {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(output)) => return Some(output),
            _ if disk.is_off() => return None,
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => _ = store.step(),
        }
    }
    panic!("an operation comes to no end");
}

/// What is there.
pub(crate) async fn found(log: &RaftLog) -> io::Result<Model> {
    Ok(Model { marks: log.marks(), last: log.last(), entries: log.read(0..u64::MAX).await? })
}

/// Whether this was found after one of these. The mark of what is committed is not flushed, and lies in another channel than
/// the entries: it may be that of an earlier or a later one, as far as there are entries.
pub(crate) fn is_one_of(found: &Model, allowed: &[Model]) -> bool {
    let committed = found.marks.committed;
    let with_mark = |model: &Model| {
        let mut model = model.clone();
        model.marks.committed = committed;
        model
    };
    let marked = allowed.iter().any(|model| model.marks.committed.min(found.last) == committed);
    marked && allowed.iter().any(|model| with_mark(model) == *found)
}

/// Does an operation; of an append, the sequence behind it, below which it is to be durable.
pub(crate) async fn perform(log: &RaftLog, operation: &Operation) -> io::Result<Option<u64>> {
    match operation {
        Operation::Vote(vote) => log.save_vote(vote).await?,
        Operation::Append(entries) => return log.append(entries).await.map(Some),
        Operation::Commit(id) => log.save_committed(Some(*id)).await?,
        Operation::Truncate(last) => log.truncate_after(*last).await?,
        Operation::Purge(id) | Operation::PurgeBeyond(id) => log.purge(*id).await?,
    }
    Ok(None)
}

/// A group, and what may be found of it after the next cut.
struct Group {
    disk: SimDisk,
    random: Random,
    /// After each operation since the last opening; the first is what was found there.
    states: Vec<Model>,
    /// The last operation that was acknowledged.
    acknowledged: usize,
    /// Which operation each cut has hit.
    hit: [u64; Operation::NAMES.len()],
}

impl Group {
    /// Opens the log, and compares it; `None` if the power went off meanwhile.
    fn open(&mut self, seed: u64) -> Option<(SimStore, RaftLog)> {
        let clock = Arc::new(ManualClock::default());
        let mut store = match SimStore::open(&self.disk, &SimSettings::default(), &clock, seed) {
            Ok(store) => store,
            Err(_) if self.disk.is_off() => return None,
            Err(error) => panic!("{error}"),
        };
        let redex = store.redex().clone();
        let log = drive(&mut store, &self.disk, RaftLog::open(&redex, "raft", MARKS_KEPT))?;
        let found = drive(&mut store, &self.disk, found(&log))?;
        let allowed = &self.states[self.acknowledged..];
        assert!(
            is_one_of(&found, allowed),
            "seed {seed}: found {found:?}\nafter operation {} of these: {allowed:#?}",
            self.acknowledged
        );
        self.states = vec![found];
        self.acknowledged = 0;
        Some((store, log))
    }

    /// Operates until the power goes off, or for a while.
    fn live(&mut self, mut store: SimStore, log: &RaftLog) {
        let mut appended: VecDeque<(usize, u64)> = VecDeque::new();
        for _ in 0..OPERATIONS {
            let state = self.states.last().expect("there is a first");
            let operation = state.next(&mut self.random);
            let after = state.after(&operation);
            // What changes nothing waits for nothing, and a commit mark becomes durable with what is flushed next.
            let is_flushed = after != *state && !matches!(operation, Operation::Commit(_));
            self.states.push(after);
            let number = self.states.len() - 1;
            match drive(&mut store, &self.disk, perform(log, &operation)) {
                None => {
                    self.hit[operation.kind()] += 1;
                    return;
                }
                Some(Some(end)) => appended.push_back((number, end)),
                Some(None) if is_flushed => self.acknowledged = number,
                Some(None) => {}
            }
            for _ in 0..self.random.below(4) {
                // The callback of an append asks for its flush.
                if let Some((_, end)) = appended.back().filter(|(number, _)| *number > self.acknowledged) {
                    let mut durable = pin!(log.file().wait_durable(end - 1));
                    let _ = durable.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
                store.step();
            }
            while let Some((number, end)) = appended.pop_front() {
                // A cut has made it durable, and has taken it back.
                let over = number <= self.acknowledged;
                if !over && end > log.file().durable() {
                    appended.push_front((number, end));
                    break;
                }
                self.acknowledged = self.acknowledged.max(number);
            }
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut() {
    let mut hit = [0; Operation::NAMES.len()];
    let mut openings_cut = 0;
    for seed in 1..=SEEDS {
        let disk = SimDisk::new(seed, SimOptions::default());
        let mut group = Group { disk, random: Random::new(seed), states: vec![Model::default()], acknowledged: 0, hit };
        for life in 0..LIVES {
            let steps = group.random.below(100);
            group.disk.power_off_after((group.random.below(4) == 0).then_some(steps));
            let opened = group.open(seed * 100 + life as u64);
            openings_cut += u64::from(opened.is_none());
            if let Some((store, log)) = opened {
                let steps = 1 + group.random.below(1500);
                group.disk.power_off_after(Some(steps));
                group.live(store, &log);
            }
            if group.random.below(4) == 0 { group.disk.kill() } else { group.disk.power_cut() }
        }
        group.disk.power_off_after(None);
        assert!(group.open(seed * 100 + 99).is_some());
        hit = group.hit;
    }
    for (name, hit) in Operation::NAMES.iter().zip(hit) {
        println!("{name}: {hit} cuts");
        assert!(hit > 0, "no cut has hit a {name}");
    }
    assert!(openings_cut > 0);
}
