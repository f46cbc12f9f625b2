//! Producers against a close, of the channel and of the store: everybody is told, and what was acknowledged is there afterwards.

use futures_util::StreamExt;
use redex::{AppendError, FsyncPolicy, RedexFile};

use crate::world::{
    Answers, Left, World, check_answers, drive, drive_to_end, everything, explore, payload, small_segments, wait,
};

const PRODUCERS: u8 = 2;
const EVENTS: u8 = 5;

/// Appends until refused.
fn produce(file: &RedexFile, producer: u8) -> Answers {
    let append = |number| match wait(file.append(payload(producer, number))) {
        Ok(seq) => Some(Some(seq)),
        Err(AppendError::Closed { .. }) => None,
        Err(other) => panic!("{other}"),
    };
    (0..EVENTS).map_while(append).collect()
}

/// Reads to the end of the tail; how many events came.
fn follow(file: &RedexFile) -> u64 {
    let mut tail = file.tail(0);
    let mut next = 0;
    while let Some(item) = wait(tail.next()) {
        let event = item.expect("nothing is lost");
        assert_eq!(event.seq, next, "each event once, in order");
        next += 1;
    }
    next
}

/// Producers, a reader, and `close` beside them; then the store is opened again.
fn closed_by(close: impl Fn(&redex::Redex, &RedexFile) + Clone + Send + Sync + 'static) -> impl Fn(u64) {
    move |number| {
        let world = World::new(number);
        let mut store = world.open();
        let file = store.redex().open_file("orders", small_segments(FsyncPolicy::EveryN(2))).unwrap();
        let left = Left::default();
        let producers = left.producers(PRODUCERS, &file, produce);
        let reader = left.with(&file, follow);
        let closer = left.with(&(store.redex().clone(), file.clone(), close.clone()), |(redex, file, close)| {
            close(redex, file);
        });
        let answers = drive(&mut store, producers, &left);
        drive(&mut store, vec![closer], &left);
        let seen = drive(&mut store, vec![reader], &left).remove(0);
        // What is appended while a close is under way comes before it or behind it.
        let meanwhile = u64::from(PRODUCERS);
        assert!(seen <= file.published() && file.published() <= seen + meanwhile, "{seen} of {}", file.published());
        let end = file.published();
        drop(file);
        store.begin_close();
        drive_to_end(&mut store);
        store.finish_close().expect("a clean close");

        let store = world.open();
        let file = store.redex().open_file("orders", small_segments(FsyncPolicy::EveryN(2))).unwrap();
        assert_eq!(file.next_seq(), end, "a close flushes");
        check_answers(&everything(&file), &answers, end);
        let acknowledged = answers.iter().flatten().flatten().count() as u64;
        assert_eq!(acknowledged, end, "what was refused is not there");
        drop(file);
        store.close().expect("a clean close");
    }
}

#[test]
fn a_channel_that_closes_refuses_or_keeps_every_append() {
    explore(21, closed_by(|_, file| wait(file.close()).expect("it closes")));
}

/// The turns go on until the close resolves: the last of them end the shard.
#[test]
fn a_store_that_closes_refuses_or_keeps_every_append() {
    explore(22, closed_by(|redex, _| drop(redex.close())));
}
