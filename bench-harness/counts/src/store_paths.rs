//! Paths of a store: commit, recovery, checkpoint. The whole engine on the simulated disk, one thread, turns by hand.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStep, SimStore};
use redex::{Append, RedexFile, RedexFileConfig};

use crate::path::Path;
use crate::region::counted;

const SEED: u64 = 1;

/// Events of one commit where the number of commits does not matter.
const GROUP: u64 = 16;

/// Turns after which a store that waits for something is taken for stuck.
const STEPS_MAX: usize = 100_000;

/// All of them.
pub fn all() -> Vec<Path> {
    let path = |name, unit, lengths, go| Path { name, unit, lengths, go };
    vec![
        path("commit-1", "event", (100, 300), commit::<1>),
        path("commit-16", "event", (1600, 4800), commit::<16>),
        path("commit-256", "event", (5120, 15_360), commit::<256>),
        path("recovery", "event", (1600, 4800), recovery),
        path("checkpoint", "channel", (100, 300), checkpoint),
    ]
}

/// A journal that takes all of a path, so that nothing but what is counted happens.
fn settings() -> SimSettings {
    SimSettings {
        journal_segment_bytes: 16 << 20,
        checkpoint_bytes: 16 << 20,
        page_budget_bytes: 64 << 20,
        extent_bytes: 256 << 10,
        commit_depth: 4,
        ..SimSettings::default()
    }
}

/// A store and its disk.
struct Ground {
    disk: SimDisk,
    clock: Arc<ManualClock>,
}

impl Ground {
    fn new() -> Self {
        Self { disk: SimDisk::new(SEED, SimOptions::default()), clock: Arc::new(ManualClock::default()) }
    }

    fn open(&self) -> SimStore {
        SimStore::open(&self.disk, &settings(), &self.clock, SEED).expect("the disk is honest")
    }
}

fn channel(store: &SimStore, number: u64) -> RedexFile {
    let config = RedexFileConfig::default().with_persistent(true);
    store.redex().open_file(format!("counted/{number}"), config).expect("the name is valid")
}

/// Steps the store until this append is durable.
fn finish(store: &mut SimStore, mut append: Append<'_>) {
    for _ in 0..STEPS_MAX {
        match Pin::new(&mut append).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(seq) => {
                seq.expect("the disk is honest");
                return;
            }
            Poll::Pending => _ = store.step(),
        }
    }
    panic!("an append does not become durable");
}

/// Appends `events` events, `group` at a time: each time one commit.
fn append(store: &mut SimStore, file: &RedexFile, events: u64, group: u64) {
    for _ in 0..events / group {
        for _ in 1..group {
            drop(file.append([7; 256]));
        }
        finish(store, file.append_durable([7; 256]));
    }
}

fn commit<const GROUP_SIZE: u64>(events: u64) {
    let ground = Ground::new();
    let mut store = ground.open();
    let file = channel(&store, 0);
    append(&mut store, &file, 32 * GROUP_SIZE, GROUP_SIZE);
    let commits = store.redex().stats().commits;
    counted(|| append(&mut store, &file, events, GROUP_SIZE));
    assert_eq!(file.durable(), 32 * GROUP_SIZE + events);
    assert_eq!(store.redex().stats().commits - commits, events / GROUP_SIZE, "one commit each time");
}

/// A killed process leaves a journal; opening replays it.
fn recovery(events: u64) {
    let ground = Ground::new();
    let mut store = ground.open();
    let file = channel(&store, 0);
    append(&mut store, &file, events, GROUP);
    drop((file, store));
    let store = counted(|| ground.open());
    assert_eq!(channel(&store, 0).next_seq(), events);
}

/// What closing takes for each channel that has changed: its state and its unfilled blocks go to the checkpoint file.
fn checkpoint(channels: u64) {
    let ground = Ground::new();
    let mut store = ground.open();
    for number in 0..channels {
        let file = channel(&store, number);
        finish(&mut store, file.append_durable([7; 256]));
    }
    let checkpoints = store.redex().stats().checkpoints;
    counted(|| {
        store.begin_close();
        let ended = (0..STEPS_MAX).any(|_| store.step() == SimStep::Ended);
        assert!(ended, "the store closes");
    });
    assert_eq!(store.redex().stats().checkpoints - checkpoints, 1);
    store.finish_close().expect("the disk is honest");
}
