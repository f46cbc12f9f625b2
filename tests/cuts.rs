//! Suffixes cut off, on a simulated disk: what a log under consensus does with its channels.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStep, SimStore};
use redex::{ReadError, RedexFile, RedexFileConfig};
use redex_tests::drive;

fn open(disk: &SimDisk, seed: u64) -> (SimStore, RedexFile) {
    let store = SimStore::open(disk, &SimSettings::default(), &Arc::new(ManualClock::default()), seed).unwrap();
    let file = store.redex().open_file("raft", RedexFileConfig::default().with_persistent(true)).unwrap();
    (store, file)
}

fn append(store: &mut SimStore, file: &RedexFile, count: usize, len: usize) {
    drive(store, file.append_batch_durable(&vec![vec![7; len]; count])).unwrap();
}

/// The segment in which the channel was cut off lies below the head when the journal ends: replay has nothing of it.
#[test]
fn a_trim_takes_a_segment_that_was_cut() {
    let disk = SimDisk::new(1, SimOptions::default());
    let (mut store, file) = open(&disk, 1);
    append(&mut store, &file, 10, 100);
    assert_eq!(drive(&mut store, file.truncate_suffix(8)).unwrap(), 8);
    append(&mut store, &file, 12, 100);
    assert_eq!(drive(&mut store, file.trim_head(15)).unwrap(), 15);
    drop((file, store));
    disk.power_cut();
    let (mut store, file) = open(&disk, 2);
    assert_eq!((file.head_seq(), file.next_seq()), (15, 20));
    assert_eq!(drive(&mut store, file.read_range(0, 20)).unwrap().len(), 5);
}

/// Bulk forces a channel's destage, and leaves it at that.
#[test]
fn a_cut_behind_bulk_comes_to_an_end() {
    let disk = SimDisk::new(1, SimOptions::default());
    let (mut store, file) = open(&disk, 1);
    for round in 0..20 {
        append(&mut store, &file, 4, 1000 * round);
        append(&mut store, &file, 3, 100);
        let end = file.next_seq() - 2;
        assert_eq!(drive(&mut store, file.truncate_suffix(end)).unwrap(), end);
    }
}

/// A cut makes everything durable first. So who waits for an event that it takes is not left waiting for another one.
#[test]
fn nobody_waits_for_an_event_that_was_cut_off() {
    let disk = SimDisk::new(1, SimOptions::default());
    let (mut store, file) = open(&disk, 1);
    append(&mut store, &file, 10, 100);
    let mut cx = Context::from_waker(Waker::noop());
    for polled_before in [false, true] {
        let mut batch = pin!(file.append_batch_durable(&[b"cut", b"off"]));
        let mut waiting = pin!(file.wait_durable(11));
        let mut coming = pin!(file.wait_durable(12));
        if polled_before {
            assert!(batch.as_mut().poll(&mut cx).is_pending());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
        }
        assert!(coming.as_mut().poll(&mut cx).is_pending());
        drive(&mut store, file.truncate_suffix(10)).unwrap();
        assert_eq!(drive(&mut store, batch).unwrap(), 10..12);
        drive(&mut store, waiting).unwrap();
        assert!(matches!(coming.as_mut().poll(&mut cx), Poll::Pending), "that one is still to come");
        append(&mut store, &file, 3, 10);
        drive(&mut store, coming).unwrap();
        drive(&mut store, file.truncate_suffix(10)).unwrap();
    }
}

/// A batch is appended to its channels one after the other. A channel in which it finds no room is not deleted, and not cut,
/// before it is in all of them.
#[test]
fn a_half_appended_batch_comes_before_a_change() {
    let mut half_appended = 0;
    for (seed, is_cut) in (0..60).flat_map(|seed| [(seed, false), (seed, true)]) {
        let disk = SimDisk::new(seed, SimOptions::default());
        let settings = SimSettings { journal_segment_bytes: 1 << 20, ..SimSettings::default() };
        let mut store = SimStore::open(&disk, &settings, &Arc::new(ManualClock::default()), seed).unwrap();
        let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(16 << 10);
        let roomy = store.redex().open_file("roomy", config.clone()).unwrap();
        let tight = store.redex().open_file("tight", config).unwrap();
        // What is appended and not written yet fills its pages.
        let before: Vec<_> = (0..seed).map(|_| tight.append(vec![1; 9_000])).collect();
        let mut batch = store.redex().batch();
        batch.append(&roomy, b"one");
        (0..4).for_each(|_| _ = batch.append(&tight, vec![2; 12_000]));
        let batch = batch.commit();
        store.step();
        half_appended += u64::from(roomy.next_seq() == 1 && !before.is_empty() && tight.next_seq() < seed + 4);
        let cut = is_cut.then(|| tight.truncate_suffix(tight.next_seq()));
        let delete = (!is_cut).then(|| store.redex().delete_channel("tight"));
        let committed = drive(&mut store, batch);
        assert_eq!(committed.is_ok(), roomy.next_seq() == 1, "{committed:?}");
        if let Some(cut) = cut {
            drive(&mut store, cut).unwrap();
        }
        if let Some(delete) = delete {
            drive(&mut store, delete).unwrap();
        }
        drop(before);
        append(&mut store, &roomy, 1, 10);
        store.close().unwrap();
    }
    assert!(half_appended > 1, "a batch finds room for one channel and not for the other");
}

/// Events behind a batch over channels are written as soon as it is, though nobody waits for them.
#[test]
fn what_stands_behind_a_batch_is_written() {
    for in_front in 0..60 {
        let disk = SimDisk::new(1, SimOptions::default());
        let (mut store, file) = open(&disk, 1);
        let other = store.redex().open_file("other", file.config()).unwrap();
        // More than a commit has room for, so that the batch is appended a few commits before its own.
        let front: Vec<_> = (0..in_front).map(|_| file.append(vec![1; 2_000])).collect();
        let mut batch = store.redex().batch();
        batch.append(&file, b"of it").append(&other, b"of it");
        let batch = batch.commit();
        let behind = file.append(b"behind");
        while matches!(store.step(), SimStep::Worked | SimStep::Waited) {}
        assert_eq!((file.next_seq(), store.redex().stats().events), (in_front + 2, in_front + 3));
        drive(&mut store, batch).unwrap();
        drop((front, behind));
    }
}

/// A scan that begins while a trim is on its way begins behind it.
#[test]
fn a_scan_begins_behind_a_trim_that_is_on_its_way() {
    let disk = SimDisk::new(1, SimOptions::default());
    let (mut store, file) = open(&disk, 1);
    append(&mut store, &file, 10, 100);
    let trim = file.trim_head(5);
    let (mut events, mut chunks, mut late) = (file.read_from(0), file.read_from(0), file.read_from(0));
    assert_eq!(late.next_wait().unwrap().unwrap().seq, 0);
    assert_eq!(drive(&mut store, trim).unwrap(), 5);
    assert_eq!(events.next_wait().unwrap().unwrap().seq, 5);
    assert_eq!(chunks.next_chunk_wait().unwrap().unwrap().first_seq(), 5);
    let told = late.blocking().find_map(Result::err);
    assert!(matches!(told, Some(ReadError::Trimmed { from: 1, to: 5, .. })), "{told:?}");
}
