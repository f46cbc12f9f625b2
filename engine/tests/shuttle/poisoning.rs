//! Producers and readers against a disk that fails: everybody is told, and what was acknowledged as durable is there afterwards.

use futures_util::StreamExt;
use redex::sim::FaultKind;
use redex::{AppendError, FsyncPolicy, RedexFile, SyncError, TailEnd};

use crate::world::{Answers, Left, World, check_answers, drive, everything, explore, payload, small_segments, wait};

const PRODUCERS: u8 = 2;

/// Appends durably until the shard has failed.
fn produce(file: &RedexFile, producer: u8) -> Answers {
    let append = |number| match wait(file.append_durable(payload(producer, number))) {
        Ok(seq) => Some(Some(seq)),
        Err(AppendError::Poisoned(_)) => None,
        Err(other) => panic!("{other}"),
    };
    (0..u8::MAX).map_while(append).collect()
}

/// Reads until the tail says why it ends; how many events came.
fn follow(file: &RedexFile) -> u64 {
    let mut tail = file.tail(0);
    let mut next = 0;
    loop {
        match wait(tail.next()).expect("it says why it ends") {
            Ok(event) => assert_eq!(event.seq, next, "each event once, in order"),
            Err(TailEnd::Poisoned(_)) => return next,
            Err(other) => panic!("{other}"),
        }
        next += 1;
    }
}

/// Syncs until the shard has failed.
fn sync(file: &RedexFile) {
    while match wait(file.sync()) {
        Ok(()) => true,
        Err(SyncError::Poisoned(_)) => false,
        Err(other) => panic!("{other}"),
    } {
        shuttle::thread::yield_now();
    }
}

fn fails(kind: FaultKind) -> impl Fn(u64) {
    move |number| {
        let world = World::new(number);
        let mut store = world.open();
        let file = store.redex().open_file("orders", small_segments(FsyncPolicy::Never)).unwrap();
        let left = Left::default();
        let producers = left.producers(PRODUCERS, &file, produce);
        let (reader, syncer) = (left.with(&file, follow), left.with(&file, sync));
        // Early or late, and whatever it hits.
        world.disk.one_shot_fault(kind, 1 + number % 23);
        let answers = drive(&mut store, producers, &left);
        drive(&mut store, vec![syncer], &left);
        let seen = drive(&mut store, vec![reader], &left).remove(0);
        assert!(seen >= file.durable(), "a tail ends when everything readable was delivered");
        drop((file, store));
        world.disk.power_cut();
        world.disk.forget_faults();

        let store = world.open();
        let file = store.redex().open_file("orders", small_segments(FsyncPolicy::Never)).unwrap();
        let end = file.next_seq();
        let acknowledged = answers.iter().flatten().flatten().max().map_or(0, |last| last + 1);
        assert!(end >= acknowledged, "acknowledged up to {acknowledged}, and the channel ends at {end}");
        check_answers(&everything(&file), &answers, end);
        drop(file);
        store.close().expect("a clean close");
    }
}

#[test]
fn a_failing_write_is_told_to_everybody() {
    explore(31, fails(FaultKind::Write));
}

#[test]
fn a_failing_flush_is_told_to_everybody() {
    explore(32, fails(FaultKind::Flush));
}
