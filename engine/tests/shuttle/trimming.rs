//! Producers and readers against retention: limits, sweeps and trims. A reader that was overtaken is told once, from where to where.

use futures_util::StreamExt;
use redex::{ChangeError, FsyncPolicy, RedexFile, TailEnd};

use crate::world::{
    Answers, Left, World, author, check_answers, drive, everything, explore, payload, small_segments, wait,
};

const PRODUCERS: u8 = 2;
const EVENTS: u8 = 10;

fn produce(file: &RedexFile, producer: u8) -> Answers {
    (0..EVENTS).map(|number| Some(wait(file.append(payload(producer, number))).expect("nothing refuses it"))).collect()
}

fn follow(file: &RedexFile) {
    let mut tail = file.tail(0);
    let mut next = 0;
    while next < u64::from(PRODUCERS * EVENTS) {
        match wait(tail.next()).expect("it does not end") {
            Ok(event) => {
                assert_eq!(event.seq, next, "each event once, in order");
                author(&event);
                next += 1;
            }
            Err(TailEnd::Lagged { from, to, .. }) => {
                assert!(from == next && to > from, "{from}..{to} at {next}");
                next = to;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Moves the head, by all ways there are; heads only go forward.
fn trim(file: &RedexFile, times: u8) {
    for time in 0..times {
        let head = file.head_seq();
        let moved = match time % 2 {
            0 => wait(file.trim_head(head + (file.next_seq() - head) / 2)),
            _ => wait(file.sweep_retention()),
        };
        match moved {
            Ok(moved) => {
                assert!(moved >= head && file.head_seq() >= moved, "the head went back from {head} to {moved}")
            }
            // The producers' own limits were faster.
            Err(ChangeError::OutOfRange { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        // A range may lose its beginning meanwhile, and nothing else.
        let events = wait(file.read_range(0, u64::MAX)).expect("what is there can be read");
        assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "a range has no gap");
    }
}

/// With `hold`, readers that are behind hold events back; without, they are overtaken.
fn trims(hold_percent: u32) -> impl Fn(u64) {
    move |number| {
        let world = World::new(number);
        let mut store = world.open();
        let config = small_segments(FsyncPolicy::Never).with_retention_max_events(8).with_retention_hold(hold_percent);
        let file = store.redex().open_file("orders", config.clone()).unwrap();
        let left = Left::default();
        let producers = left.producers(PRODUCERS, &file, produce);
        let others = vec![left.with(&file, follow), left.with(&file, |file| trim(file, 4))];
        let answers = drive(&mut store, producers, &left);
        drive(&mut store, others, &left);
        let (head, next) = (file.head_seq(), file.next_seq());
        assert_eq!(next, u64::from(PRODUCERS * EVENTS));
        check_answers(&everything(&file), &answers, next);
        drop(file);
        store.close().expect("a clean close");

        let store = world.open();
        let file = store.redex().open_file("orders", config.clone()).unwrap();
        assert!(file.head_seq() >= head, "a head never comes back");
        assert_eq!(file.next_seq(), next);
        check_answers(&everything(&file), &answers, next);
        drop(file);
        store.close().expect("a clean close");
    }
}

/// Producers drop events themselves there, and nothing is on disk.
#[test]
fn appends_and_readers_meet_trims_in_memory() {
    explore(43, |number| {
        let world = World::new(number);
        let mut store = world.open();
        let config = small_segments(FsyncPolicy::Never).with_persistent(false).with_retention_hold(0);
        let file = store.redex().open_file("orders", config.with_retention_max_events(4)).unwrap();
        let left = Left::default();
        let producers = left.producers(PRODUCERS, &file, produce);
        let others = vec![left.with(&file, follow), left.with(&file, |file| trim(file, 6))];
        let answers = drive(&mut store, producers, &left);
        drive(&mut store, others, &left);
        check_answers(&everything(&file), &answers, file.next_seq());
        drop(file);
        store.close().expect("a clean close");
    });
}

#[test]
fn appends_and_readers_meet_trims_that_wait_for_readers() {
    explore(41, trims(100));
}

#[test]
fn appends_and_readers_meet_trims_that_wait_for_nobody() {
    explore(42, trims(0));
}
