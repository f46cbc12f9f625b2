//! A write or flush that fails stops its shard: everybody is told, with the first cause, nothing is tried again, and the
//! next open has everything that was acknowledged. On a simulated disk.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::{FutureExt, Stream};
use redex::sim::{FaultKind, ManualClock, SimDisk, SimOptions, SimSettings, SimStep, SimStore};
use redex::{
    AppendError, CloseError, FsyncPolicy, OpenFileError, Poisoned, Redex, RedexFile, RedexFileConfig, SyncError,
    TailEnd,
};
use redex_tests::drive;

const TURNS_MAX: usize = 100_000;

/// Events that are acknowledged before something fails.
const BEFORE: u64 = 20;

struct World {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    settings: SimSettings,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed, SimOptions::default());
        // Appends beside each other: a flush that fails may have followers in flight.
        Self { disk, clock: Arc::default(), settings: SimSettings { commit_depth: 2, ..SimSettings::default() } }
    }

    fn open(&self) -> SimStore {
        SimStore::open(&self.disk, &self.settings, &self.clock, 1).unwrap()
    }
}

fn channel(redex: &Redex, policy: FsyncPolicy) -> RedexFile {
    let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(policy);
    redex.open_file("orders", config).unwrap()
}

fn payload(seq: u64) -> Vec<u8> {
    format!("the order {seq}, which is longer than eight bytes").into_bytes()
}

/// A store with acknowledged events.
fn prepared(world: &World) -> (SimStore, RedexFile) {
    let mut store = world.open();
    let file = channel(store.redex(), FsyncPolicy::Never);
    for seq in 0..BEFORE {
        assert_eq!(drive(&mut store, file.append_durable(payload(seq))).unwrap(), seq);
    }
    // Nothing is in flight: whatever fails now is what the test lets fail.
    assert!(store.run_until_idle(TURNS_MAX));
    (store, file)
}

/// The next append finds what went before written and not flushed: so it needs a flush, and not a durable write.
fn leave_a_backlog(store: &mut SimStore, file: &RedexFile) -> u64 {
    let seq = file.append(payload(BEFORE)).now_or_never().expect("Never waits for nothing").unwrap();
    let commits = store.redex().stats().commits;
    for _ in 0..TURNS_MAX {
        if store.redex().stats().commits > commits && store.run_until_idle(TURNS_MAX) {
            return seq + 1;
        }
        store.step();
    }
    panic!("nothing is written behind");
}

/// Who asks, and what each is told.
fn told(store: &mut SimStore, file: &RedexFile, next: u64) -> Vec<(&'static str, Poisoned)> {
    let redex = store.redex().clone();
    let mut told = Vec::new();
    match drive(store, file.append(payload(next))) {
        Err(AppendError::Poisoned(poisoned)) => told.push(("append", poisoned)),
        other => panic!("append: {other:?}"),
    }
    match drive(store, file.append_durable(payload(next))) {
        Err(AppendError::Poisoned(poisoned)) => told.push(("append_durable", poisoned)),
        other => panic!("append_durable: {other:?}"),
    }
    match file.try_append(payload(next)) {
        Err(AppendError::Poisoned(poisoned)) => told.push(("try_append", poisoned)),
        other => panic!("try_append: {other:?}"),
    }
    match drive(store, file.append_batch(&[payload(next), payload(next + 1)])) {
        Err(AppendError::Poisoned(poisoned)) => told.push(("append_batch", poisoned)),
        other => panic!("append_batch: {other:?}"),
    }
    match drive(store, file.sync()) {
        Err(SyncError::Poisoned(poisoned)) => told.push(("sync", poisoned)),
        other => panic!("sync: {other:?}"),
    }
    match drive(store, file.wait_durable(next)) {
        Err(SyncError::Poisoned(poisoned)) => told.push(("wait_durable", poisoned)),
        other => panic!("wait_durable: {other:?}"),
    }
    match redex.open_file("another", RedexFileConfig::default().with_persistent(true)) {
        Err(OpenFileError::Poisoned(poisoned)) => told.push(("open_file", poisoned)),
        other => panic!("open_file: {other:?}"),
    }
    told
}

/// Reads a tail to its end: the events are those that are readable, and then comes the cause.
fn tail_to_the_end(file: &RedexFile, readable: u64) -> Poisoned {
    let mut results = file.tail(0);
    let mut tail = file.subscribe_from(0).now_or_never().unwrap().unwrap();
    for seq in 0..readable {
        let event = results.next_wait().unwrap().unwrap();
        assert_eq!((event.seq, &event.payload[..]), (seq, &payload(seq)[..]));
        assert_eq!(tail.next_wait().unwrap().seq, seq);
    }
    assert!(tail.next_wait().is_none());
    assert!(matches!(tail.ended(), Some(TailEnd::Poisoned(_))), "{:?}", tail.ended());
    let poisoned = match results.next_wait() {
        Some(Err(TailEnd::Poisoned(poisoned))) => poisoned,
        other => panic!("{other:?}"),
    };
    assert!(results.next_wait().is_none(), "the cause is the last item");
    poisoned
}

/// Lets one operation fail under a durable append, asks everybody, and reopens. Returns what they were told.
fn fails(world: &World, kind: FaultKind, with_backlog: bool) -> Poisoned {
    let (mut store, file) = prepared(world);
    let next = if with_backlog { leave_a_backlog(&mut store, &file) } else { BEFORE };
    let mut waiting = file.tail(next + 1);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut waiting).poll_next(&mut cx).is_pending());
    world.disk.one_shot_fault(kind, 1);
    let first = match drive(&mut store, file.append_durable(payload(next))) {
        Err(AppendError::Poisoned(poisoned)) => poisoned,
        other => panic!("{other:?}"),
    };
    assert_eq!(file.durable(), BEFORE, "what was not flushed is not called durable");
    // A second fault is nobody's cause: nothing is written or flushed any more, by whomever it is asked for.
    world.disk.one_shot_fault(kind, 1);
    let (steps, flushes) = (world.disk.steps(), store.redex().stats().flushes);
    let same = |who: &str, poisoned: &Poisoned| {
        assert!(Arc::ptr_eq(&poisoned.cause, &first.cause), "{who}: {poisoned:?}");
        assert_eq!((poisoned.what, &poisoned.file), (first.what, &first.file), "{who}");
    };
    for (who, poisoned) in told(&mut store, &file, next + 1) {
        same(who, &poisoned);
    }
    same("tail", &tail_to_the_end(&file, next + 1));
    match Pin::new(&mut waiting).poll_next(&mut cx) {
        Poll::Ready(Some(Err(TailEnd::Poisoned(poisoned)))) => same("a tail that waited", &poisoned),
        other => panic!("{other:?}"),
    }
    for _ in 0..1000 {
        assert_eq!(store.step(), SimStep::Failed);
    }
    assert_eq!(world.disk.steps(), steps, "nothing is tried again");
    assert_eq!(store.redex().stats().flushes, flushes);
    match store.close() {
        Err(CloseError::Poisoned(poisoned)) => same("close", &poisoned),
        other => panic!("{other:?}"),
    }
    drop((file, waiting));
    world.disk.forget_faults();
    first
}

/// Reopens, and checks that what was acknowledged is there, and beyond it only what was appended.
fn reopens(world: &World, appended: u64) {
    let mut store = world.open();
    let file = channel(store.redex(), FsyncPolicy::Never);
    let end = file.next_seq();
    assert!((BEFORE..=appended).contains(&end), "{end} events");
    for seq in 0..end {
        assert_eq!(drive(&mut store, file.read_one(seq)).unwrap().unwrap().payload, payload(seq), "event {seq}");
    }
    assert_eq!(drive(&mut store, file.append_durable(payload(end))).unwrap(), end, "the store works again");
    store.close().unwrap();
}

#[test]
fn a_failing_flush_is_told_to_everybody_and_never_tried_again() {
    for seed in 0..20 {
        for power_cut in [false, true] {
            let world = World::new(seed);
            let first = fails(&world, FaultKind::Flush, true);
            assert!(first.what.ends_with("flush"), "{first}");
            assert_eq!(first.cause.raw_os_error(), Some(5), "{:?}", first.cause);
            assert!(
                first.file.starts_with("journal/000/") && first.file.ends_with(".wal"),
                "the file is named: {first:?}"
            );
            if power_cut {
                world.disk.power_cut()
            } else {
                world.disk.kill()
            }
            reopens(&world, BEFORE + 2);
        }
    }
}

#[test]
fn a_failing_write_is_told_to_everybody_and_never_tried_again() {
    for seed in 0..20 {
        for (power_cut, with_backlog) in [(false, false), (false, true), (true, false), (true, true)] {
            let world = World::new(seed);
            let first = fails(&world, FaultKind::Write, with_backlog);
            assert_eq!(first.what, "journal write", "{first}");
            assert_eq!(first.cause.kind(), io::Error::from_raw_os_error(5).kind());
            if power_cut {
                world.disk.power_cut()
            } else {
                world.disk.kill()
            }
            reopens(&world, BEFORE + 1 + u64::from(with_backlog));
        }
    }
}
