//! Producers against seals, the group commit and readers: everything is acknowledged, and every reader sees each event once.

use futures_util::StreamExt;
use redex::{FsyncPolicy, RedexFile};

use crate::world::{Answers, Left, World, check_answers, drive, everything, explore, payload, small_segments, wait};

const PRODUCERS: u8 = 2;
const EVENTS: u8 = 8;

fn produce(file: &RedexFile, producer: u8) -> Answers {
    let append = |number| {
        let payload = payload(producer, number);
        let appended =
            if number % 3 == producer % 3 { wait(file.append_durable(&payload)) } else { wait(file.append(&payload)) };
        Some(appended.expect("nothing refuses it"))
    };
    (0..EVENTS).map(append).collect()
}

/// Follows the tail until everything has come; the events as they came.
fn follow(file: &RedexFile, durable_only: bool) -> Vec<redex::RedexEvent> {
    let tail = file.tail(0);
    let mut tail = if durable_only { tail.durable_only() } else { tail };
    let mut events = Vec::new();
    while events.len() < usize::from(PRODUCERS * EVENTS) {
        let event = wait(tail.next()).expect("it does not end").expect("nothing is lost");
        assert_eq!(event.seq, events.len() as u64, "each event once, in order");
        assert!(!durable_only || file.durable() > event.seq, "event {} is not durable", event.seq);
        events.push(event);
    }
    events
}

fn everybody_follows(policy: FsyncPolicy) -> impl Fn(u64) {
    move |number| {
        let world = World::new(number);
        let mut store = world.open();
        let file = store.redex().open_file("orders", small_segments(policy)).unwrap();
        let left = Left::default();
        let producers = left.producers(PRODUCERS, &file, produce);
        let readers = [false, true].map(|durable_only| left.with(&file, move |file| follow(file, durable_only)));
        // The second reader waits for what nobody else may wait for.
        let sync = left.with(&file, |file| {
            wait(file.wait_published(u64::from(PRODUCERS * EVENTS) - 1)).unwrap();
            wait(file.sync()).unwrap();
        });
        let answers = drive(&mut store, producers, &left);
        drive(&mut store, vec![sync], &left);
        let events = everything(&file);
        check_answers(&events, &answers, file.next_seq());
        assert!(answers.iter().flatten().all(Option::is_some));
        for seen in drive(&mut store, readers.into(), &left) {
            check_answers(&seen, &answers, file.next_seq());
        }
        drop(file);
        store.close().expect("a clean close");
    }
}

#[test]
fn every_event_is_acknowledged_and_seen_once_if_appends_wait_for_nothing() {
    explore(11, everybody_follows(FsyncPolicy::Never));
}

#[test]
fn every_event_is_acknowledged_and_seen_once_if_each_append_is_durable() {
    explore(12, everybody_follows(FsyncPolicy::EveryN(1)));
}

#[test]
fn every_event_is_acknowledged_and_seen_once_if_some_appends_wait() {
    explore(13, everybody_follows(FsyncPolicy::EveryN(3)));
}
