//! A full disk, simulated to the byte: what goes on, what is refused, and that nothing is stuck or lost.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStep, SimStore};
use redex::{AppendError, FsyncPolicy, RedexFile, RedexFileConfig};

const SEGMENT: u64 = 64 << 10;
/// Steps after which what waits is taken for stuck.
const STEPS_MAX: usize = 500;

fn open(disk: &SimDisk, settings: &SimSettings) -> SimStore {
    let clock = Arc::new(ManualClock::default());
    SimStore::open(disk, settings, &clock, 5).expect("the store opens")
}

fn config() -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(1))
}

/// So small that no block of idx or dat fills up: nothing but journal and checkpoints takes space.
fn payload(seq: u64) -> Vec<u8> {
    vec![seq as u8; 20]
}

/// Drives an append to its end; `None` if it is refused for want of space.
fn append(store: &mut SimStore, file: &RedexFile, payload: &[u8]) -> Option<u64> {
    let mut future = pin!(file.append_durable(payload));
    for _ in 0..STEPS_MAX {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(seq)) => return Some(seq),
            Poll::Ready(Err(AppendError::NoSpace { .. })) => return None,
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => _ = store.step(),
        }
    }
    panic!("an append waits for ever");
}

/// Appends, and when it is refused steps until it is not.
fn append_patiently(store: &mut SimStore, file: &RedexFile, seq: u64) {
    for _ in 0..100 {
        match append(store, file, &payload(seq)) {
            Some(appended) => return assert_eq!(appended, seq),
            None => _ = store.step(),
        }
    }
    panic!("event {seq} is refused for ever");
}

fn spares(disk: &SimDisk) -> usize {
    disk.list_all().iter().filter(|path| path.contains("/spare/") && path.ends_with(".wal")).count()
}

fn segments(disk: &SimDisk) -> usize {
    disk.list_all().iter().filter(|path| path.starts_with("journal/000/0")).count()
}

fn check(file: &RedexFile, end: u64) {
    assert_eq!(file.next_seq(), end);
    let events = file.read_range(0, end).wait().unwrap();
    assert!(events.iter().zip(0..).all(|(event, seq)| event.seq == seq && event.payload == payload(seq)));
}

/// Several segments of the journal are in use, and the disk has no room for another: a checkpoint, which needs far less,
/// frees them. Checkpoints are not due by themselves here.
#[test]
fn a_checkpoint_frees_the_segment_that_a_full_disk_refuses() {
    let settings = SimSettings { checkpoint_bytes: 1 << 20, journal_segment_bytes: SEGMENT, ..SimSettings::default() };
    let disk = SimDisk::new(1, SimOptions::default());
    let mut store = open(&disk, &settings);
    let file = store.redex().open_file("a", config()).unwrap();
    let mut end = 0;
    while segments(&disk) < 4 {
        assert_eq!(append(&mut store, &file, &payload(end)), Some(end));
        end += 1;
    }
    // Room for checkpoints, none for a segment.
    disk.set_space(Some(disk.space_used() + SEGMENT - 8192));
    for _ in 0..60 {
        append_patiently(&mut store, &file, end);
        end += 1;
        assert!(spares(&disk) >= 1, "recovery would have no segment to begin with");
    }
    check(&file, end);
    drop((file, store));
    disk.power_cut();
    let store = open(&disk, &settings);
    let file = store.redex().open_file("a", config()).unwrap();
    check(&file, end);
    drop(file);
    store.close().expect("the close finds room for its checkpoint");
}

/// Files of the spare directory, whole or in the making.
fn spares_begun(disk: &SimDisk) -> usize {
    disk.list_all().iter().filter(|path| path.contains("/spare/")).count()
}

/// A new store makes its spares long before it needs them. One that finds no room then refuses nothing: the first half of the segment
/// is as good as ever. Behind it, where the next roll has nothing to go to, appends are refused.
#[test]
fn a_spare_that_is_not_needed_yet_refuses_nothing() {
    const BIG: u64 = 1 << 20;
    let settings = SimSettings { checkpoint_bytes: 4 * BIG, journal_segment_bytes: BIG, ..SimSettings::default() };
    let disk = SimDisk::new(1, SimOptions::default());
    let mut store = open(&disk, &settings);
    let file = store.redex().open_file("a", config()).unwrap();
    assert_eq!(append(&mut store, &file, &payload(0)), Some(0));
    let before = spares_begun(&disk);
    assert!(before < 2, "a store that holds one event has written no spare but that for recovery: {before}");
    disk.set_space(Some(disk.space_used() + BIG / 2));
    let mut end = 1;
    // A commit takes a block.
    while end < BIG / 4096 / 2 - 16 {
        assert_eq!(append(&mut store, &file, &payload(end)), Some(end), "in the first half");
        end += 1;
    }
    assert_eq!(spares(&disk), before, "there was no room");
    let refused = (0..BIG / 4096).any(|_| match append(&mut store, &file, &payload(end)) {
        Some(seq) => {
            assert_eq!(seq, end);
            end += 1;
            false
        }
        None => true,
    });
    assert!(refused, "the last half is kept for what lets appends in again");
    disk.set_space(None);
    append_patiently(&mut store, &file, end);
    assert_eq!(spares(&disk), 2);
    check(&file, end + 1);
}

/// Behind a roll the segment that a checkpoint gives back becomes the spare: no third one is made while checkpoints keep up.
#[test]
fn a_segment_that_comes_back_is_a_spare() {
    const BIG: u64 = 256 << 10;
    let settings = SimSettings { checkpoint_bytes: BIG / 4, journal_segment_bytes: BIG, ..SimSettings::default() };
    for seed in 0..8 {
        let disk = SimDisk::new(seed, SimOptions::default());
        let mut store = open(&disk, &settings);
        let file = store.redex().open_file("a", config()).unwrap();
        for seq in 0..4 * BIG / 4096 {
            append_patiently(&mut store, &file, seq);
            let files = segments(&disk) + spares_begun(&disk);
            assert!(files <= 3, "seed {seed}, event {seq}: {files} segments in all");
        }
    }
}

/// A commit's extent finds no room: nothing fails, appends are refused meanwhile, and what was accepted is acknowledged in
/// its order once there is room.
#[test]
fn an_extent_that_finds_no_room_is_written_again() {
    for (commit_depth, seed) in (1..=3).flat_map(|depth| (0..8).map(move |seed| (depth, seed))) {
        let settings = SimSettings { commit_depth, extent_bytes: 8192, ..SimSettings::default() };
        let disk = SimDisk::new(seed, SimOptions { slow: 0.3, ..SimOptions::default() });
        let mut store = open(&disk, &settings);
        let small = store.redex().open_file("small", config()).unwrap();
        let bulk = store.redex().open_file("bulk", config()).unwrap();
        let big = vec![7; 40_000];
        assert_eq!(append(&mut store, &small, &payload(0)), Some(0));
        // Its dat file has room for the next ones too.
        assert_eq!(append(&mut store, &bulk, &big), Some(0));
        disk.set_options(SimOptions { extent_no_space: 1.0, ..disk.options() });
        let mut waits = pin!(bulk.append_durable(&big));
        let mut cx = Context::from_waker(Waker::noop());
        let refused = (0..STEPS_MAX).any(|_| {
            assert!(waits.as_mut().poll(&mut cx).is_pending(), "it is not written");
            store.step();
            matches!(small.try_append(payload(1)), Err(AppendError::NoSpace { .. }))
        });
        assert!(refused, "appends are refused");
        let end = small.next_seq();
        for _ in 0..50 {
            store.step();
            assert!(waits.as_mut().poll(&mut cx).is_pending(), "it is not written");
            assert!(matches!(small.try_append(payload(1)), Err(AppendError::NoSpace { .. })), "still refused");
            assert_eq!(bulk.durable(), 1);
        }
        disk.set_options(SimOptions { extent_no_space: 0.0, ..disk.options() });
        let written = (0..STEPS_MAX).find_map(|_| {
            store.step();
            match waits.as_mut().poll(&mut cx) {
                Poll::Ready(result) => Some(result.unwrap()),
                Poll::Pending => None,
            }
        });
        assert_eq!(written, Some(1), "depth {commit_depth}, seed {seed}");
        append_patiently(&mut store, &small, end);
        disk.power_cut();
        drop(store);
        let store = open(&disk, &settings);
        let bulk = store.redex().open_file("bulk", config()).unwrap();
        assert!(bulk.read_range(0, 2).wait().unwrap().iter().all(|event| event.payload == big));
        assert_eq!(store.redex().open_file("small", config()).unwrap().next_seq(), end + 1);
        drop(bulk);
        store.close().unwrap();
    }
}

/// A store that was made with room for one journal segment and no spare meets the end of the disk early in that segment,
/// by a destage: when there is room, its spares are made at once, and appends are let in.
#[test]
fn a_new_store_without_spares_takes_appends_again_when_there_is_room() {
    let journal_segment_bytes = 256 << 10;
    let settings =
        SimSettings { checkpoint_bytes: 1 << 20, journal_segment_bytes, extent_bytes: 8192, ..SimSettings::default() };
    let disk = SimDisk::new(1, SimOptions::default());
    disk.set_space(Some(journal_segment_bytes + 60_000));
    let mut store = open(&disk, &settings);
    assert_eq!(spares(&disk), 0);
    let bulk = store.redex().open_file("bulk", config()).unwrap();
    let small = store.redex().open_file("small", config()).unwrap();
    assert_eq!(append(&mut store, &small, &payload(0)), Some(0));
    let big = vec![7; 12_000];
    let mut waits = pin!(bulk.append_durable(&big));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..STEPS_MAX {
        assert!(waits.as_mut().poll(&mut cx).is_pending(), "its dat file has no room");
        store.step();
    }
    assert!(matches!(small.try_append(payload(1)), Err(AppendError::NoSpace { .. })), "appends are refused");
    disk.set_space(None);
    let written = (0..STEPS_MAX).any(|_| {
        store.step();
        waits.as_mut().poll(&mut cx).is_ready()
    });
    assert!(written, "what waited is written");
    append_patiently(&mut store, &small, 1);
    assert!(spares(&disk) >= 2, "as many as a shard wants");
}

/// What keeps an append from the journal on a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Its payload goes straight to a dat file that has no room for it.
    ForItsDatFile,
    /// The same, but the commit was begun, and its extent refused.
    ForItsExtent,
}

/// A store with an acknowledged event, and an append that waits for room; both are checked.
fn with_one_that_waits(waits: Waits, seed: u64, check: impl FnOnce(SimDisk, SimStore, &mut dyn FnMut() -> Polled)) {
    let settings = settings_of_extents();
    let disk = SimDisk::new(seed, SimOptions { slow: 0.3, ..SimOptions::default() });
    let mut store = open(&disk, &settings);
    let small = store.redex().open_file("small", config()).unwrap();
    let bulk = store.redex().open_file("bulk", config()).unwrap();
    let big = vec![7; 12_000];
    assert_eq!(append(&mut store, &small, &payload(0)), Some(0));
    match waits {
        Waits::ForItsDatFile => disk.set_space(Some(disk.space_used() + 4096)),
        Waits::ForItsExtent => {
            assert_eq!(append(&mut store, &bulk, &big), Some(0));
            disk.set_options(SimOptions { extent_no_space: 1.0, ..disk.options() });
        }
    }
    let mut future = pin!(bulk.append_durable(&big));
    let mut poll = || future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    for _ in 0..STEPS_MAX {
        assert!(poll().is_pending(), "{waits:?}: there is no room");
        store.step();
    }
    check(disk, store, &mut poll);
}

type Polled = Poll<Result<u64, AppendError>>;

fn settings_of_extents() -> SimSettings {
    SimSettings {
        checkpoint_bytes: 1 << 20,
        journal_segment_bytes: 256 << 10,
        extent_bytes: 8192,
        ..SimSettings::default()
    }
}

/// A close flushes: it waits for room with what waits for room, and ends well when there is some.
#[test]
fn a_close_waits_for_room_with_what_waits_for_it() {
    for (waits, seed) in
        [Waits::ForItsDatFile, Waits::ForItsExtent].into_iter().flat_map(|w| (0..4).map(move |s| (w, s)))
    {
        with_one_that_waits(waits, seed, |disk, mut store, poll| {
            store.begin_close();
            for _ in 0..STEPS_MAX {
                assert!(!matches!(store.step(), SimStep::Ended | SimStep::Failed), "{waits:?}");
            }
            disk.set_space(None);
            disk.set_options(SimOptions { extent_no_space: 0.0, ..disk.options() });
            assert!((0..STEPS_MAX).any(|_| store.step() == SimStep::Ended), "{waits:?}");
            assert!(matches!(poll(), Poll::Ready(Ok(_))), "{waits:?}");
            store.finish_close().unwrap();
        });
    }
}

/// Nobody has the store any more: it ends without the room that an append waits for. That append is told, and everything
/// that was acknowledged is there at the next open, also on the full disk.
#[test]
fn a_dropped_store_waits_for_no_room() {
    for (waits, seed) in
        [Waits::ForItsDatFile, Waits::ForItsExtent].into_iter().flat_map(|w| (0..4).map(move |s| (w, s)))
    {
        with_one_that_waits(waits, seed, |disk, mut store, poll| {
            store.begin_drop();
            assert!((0..STEPS_MAX).any(|_| store.step() == SimStep::Failed), "{waits:?}: it waits for ever");
            match poll() {
                Poll::Ready(Err(AppendError::Poisoned(poisoned))) => {
                    assert_eq!(poisoned.cause.kind(), std::io::ErrorKind::StorageFull, "{poisoned}");
                }
                other => panic!("{waits:?}: {other:?}"),
            }
            store.finish_close().unwrap_err();
            disk.power_cut();
            disk.set_options(SimOptions { extent_no_space: 0.0, ..disk.options() });
            disk.set_space(None);
            let store = open(&disk, &settings_of_extents());
            check(&store.redex().open_file("small", config()).unwrap(), 1);
            let bulk = store.redex().open_file("bulk", config()).unwrap();
            // A write that is refused may have landed: what nobody was promised may be there, whole.
            let (least, most) = if waits == Waits::ForItsExtent { (1, 2) } else { (0, 0) };
            assert!((least..=most).contains(&bulk.next_seq()), "{waits:?}: {}", bulk.next_seq());
            let events = bulk.read_range(0, bulk.next_seq()).wait().unwrap();
            assert!(events.iter().all(|event| event.payload == vec![7; 12_000]));
            drop(bulk);
            store.close().unwrap();
        });
    }
}

/// The same, but there is room soon: a dropped store ends as a close does, and keeps what waited.
#[test]
fn a_dropped_store_keeps_what_finds_room() {
    for waits in [Waits::ForItsDatFile, Waits::ForItsExtent] {
        with_one_that_waits(waits, 1, |disk, mut store, poll| {
            disk.set_space(None);
            disk.set_options(SimOptions { extent_no_space: 0.0, ..disk.options() });
            store.begin_drop();
            assert!((0..STEPS_MAX).any(|_| store.step() == SimStep::Ended), "{waits:?}");
            assert!(matches!(poll(), Poll::Ready(Ok(_))), "{waits:?}");
            store.finish_close().unwrap();
        });
    }
}

/// A store that finds no room when it is opened is opened again and again: that must not fill the disk.
#[test]
fn recoveries_that_find_no_room_leave_nothing_behind() {
    let settings = SimSettings { checkpoint_bytes: 16 << 20, journal_segment_bytes: 1 << 20, ..SimSettings::default() };
    let disk = SimDisk::new(1, SimOptions::default());
    let mut store = open(&disk, &settings);
    for i in 0..400 {
        let file = store.redex().open_file(&*format!("c{i}"), config()).unwrap();
        assert_eq!(append(&mut store, &file, &payload(0)), Some(0));
    }
    drop(store);
    disk.power_cut();
    let used = disk.space_used();
    let files = disk.list_all();
    for _ in 0..4 {
        // Less than the checkpoint file of this many channels takes.
        disk.set_space(Some(used + 20_000));
        let clock = Arc::new(ManualClock::default());
        let error = SimStore::open(&disk, &settings, &clock, 5).map(drop).unwrap_err();
        assert!(format!("{error}").contains(".ckp"), "{error}");
        assert_eq!((disk.space_used(), disk.list_all()), (used, files.clone()));
    }
    disk.set_space(None);
    let store = open(&disk, &settings);
    for i in 0..400 {
        assert_eq!(store.redex().open_file(&*format!("c{i}"), config()).unwrap().next_seq(), 1);
    }
}

/// Segments that retention has dropped give their space back on a full disk too, though nothing that was appended is flushed and
/// the journal's segment is full: everything else may wait for that room. So do spares of the journal that are not needed.
#[test]
fn what_nobody_needs_makes_room_on_a_full_disk() {
    const LIMIT: u64 = 48 << 10;
    const CHANNEL_SEGMENT: u64 = 16 << 10;
    let settings = SimSettings { journal_segment_bytes: SEGMENT, ..SimSettings::default() };
    let config = RedexFileConfig::default()
        .with_persistent(true)
        .with_segment_bytes(CHANNEL_SEGMENT)
        .with_retention_max_bytes(Some(LIMIT));
    let mut stopped = 0;
    for seed in 0..24_u64 {
        let disk = SimDisk::new(seed, SimOptions::default());
        let mut store = open(&disk, &settings);
        let file = store.redex().open_file("a", config.clone()).unwrap();
        let mut append_in_steps = |steps| {
            let before = file.next_seq();
            for _ in 0..steps {
                while file.try_append(vec![1; 900 + seed as usize]).is_ok() {}
                store.step();
            }
            file.next_seq() - before
        };
        append_in_steps(600 + seed * 3);
        disk.set_space(Some(disk.space_used() + (seed % 5) * 4096));
        append_in_steps(2000);
        if append_in_steps(400) == 0 {
            stopped += 1;
            let pairs = disk.list_all().iter().filter(|path| path.ends_with(".dat")).count() as u64;
            assert!(pairs <= LIMIT / CHANNEL_SEGMENT + 2, "seed {seed}: {pairs} segments of the channel");
            assert!(spares(&disk) <= 2, "seed {seed}: {} spares", spares(&disk));
        }
        disk.set_space(None);
        assert!(append_in_steps(400) > 0, "seed {seed}: it goes on when there is room");
    }
    assert!(stopped > 3, "the disk was full {stopped} times");
}
