//! A secondary index over a channel: complete, in step, and never silent about what it lacks.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Waker};
use std::thread;

use proptest::prelude::*;
use redex::index::{IndexEnd, IndexGap, IndexOpenError, IndexWait, IndexWaitError};
use redex::{
    Backend, Cursor, IndexOp, IndexStart, Redex, RedexError, RedexEvent, RedexFile, RedexFileConfig, RedexIndex,
    TypedRedexFile,
};

use support::{open, persistent, scratch, wait_until};

/// Every event under its first byte.
fn by_first_byte(event: &RedexEvent) -> Vec<IndexOp<u8, u64>> {
    event.payload.first().map(|first| IndexOp::Insert(*first, event.seq)).into_iter().collect()
}

fn memory() -> RedexFile {
    Redex::in_memory().open_file("indexed", RedexFileConfig::default()).unwrap()
}

fn index(file: &RedexFile, start: impl Into<IndexStart>) -> RedexIndex<u8, u64> {
    RedexIndex::open(file, start, by_first_byte).unwrap()
}

fn append(file: &RedexFile, events: std::ops::Range<u64>) {
    let payloads: Vec<_> = events.map(|seq| [(seq % 7) as u8; 20]).collect();
    file.append_batch(&payloads).wait().unwrap();
}

/// All that an index holds.
fn content<K: Ord + Clone, V: Ord + Clone>(index: &RedexIndex<K, V>) -> BTreeMap<K, BTreeSet<V>> {
    index.range(.., usize::MAX).into_iter().collect()
}

fn expected(events: std::ops::Range<u64>) -> BTreeMap<u8, BTreeSet<u64>> {
    let mut all: BTreeMap<u8, BTreeSet<u64>> = BTreeMap::new();
    for seq in events {
        all.entry((seq % 7) as u8).or_default().insert(seq);
    }
    all
}

/// A long history, of which most has left memory, and a burst while it is read: nothing cuts the index off.
#[test]
fn follows_from_history_through_a_burst() {
    const BEFORE: u64 = 100_000;
    const ALL: u64 = 150_000;
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    append(&redex.open_file("indexed", persistent()).unwrap(), 0..BEFORE);
    redex.close().wait().unwrap();

    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("indexed", persistent()).unwrap();
    let index = index(&file, IndexStart::BEGINNING);
    for burst in 0..10 {
        append(&file, BEFORE + burst * 5000..BEFORE + (burst + 1) * 5000);
    }
    assert!(index.applied() <= file.published());
    index.wait_for_seq(ALL - 1).wait().unwrap();
    assert_eq!((index.applied(), index.lag(), index.errors().count), (ALL, 0, 0));
    assert_eq!(content(&index), expected(0..ALL));
    redex.close().wait().unwrap();
}

#[test]
fn begins_where_it_is_told() {
    let file = memory();
    append(&file, 0..50);
    let from_20 = index(&file, 20);
    let from_cursor = index(&file, Cursor { seq: 30, ..file.cursor() });
    let from_later = index(&file, 60);
    assert!(from_later.applied() <= file.published(), "never above the mark");
    append(&file, 50..70);
    for (index, start) in [(&from_20, 20), (&from_cursor, 30), (&from_later, 60)] {
        index.wait_for_seq(69).wait().unwrap();
        assert_eq!(content(index), expected(start..70));
        assert_eq!(index.read(|view| (view.start(), view.applied())), (start, 70));
        let before = index.wait_for_seq(start - 1).wait().unwrap_err();
        assert!(matches!(before, IndexWaitError::Before { seq, from, .. } if (seq, from) == (start - 1, start)));
        index.wait_for_seq(start).wait().unwrap();
    }
    let foreign = Cursor { epoch: 99, seq: 0 };
    let refused = RedexIndex::open(&file, foreign, by_first_byte).unwrap_err();
    assert!(matches!(refused, IndexOpenError::Subscribe(_)), "{refused}");
}

/// What each operation does, and each way to read it.
#[test]
fn operations_and_reads() {
    let file = memory();
    let words = TypedRedexFile::<Vec<(u8, String, u32)>>::new(file);
    let index = RedexIndex::<String, u32>::open_typed(&words, IndexStart::BEGINNING, |event| {
        let op = |(op, key, value): &(u8, String, u32)| match op {
            0 => IndexOp::Insert(key.clone(), *value),
            1 => IndexOp::Remove(key.clone(), *value),
            2 => IndexOp::Replace(key.clone(), *value),
            _ => IndexOp::RemoveKey(key.clone()),
        };
        event.value.iter().map(op).collect()
    })
    .unwrap();
    let apply = |ops: &[(u8, &str, u32)]| {
        let ops = ops.iter().map(|(op, key, value)| (*op, (*key).to_owned(), *value)).collect();
        index.wait_for_seq(words.append(&ops).wait().unwrap()).wait().unwrap();
    };
    apply(&[(0, "a", 1), (0, "a", 2), (0, "b", 3), (0, "c", 4), (0, "a", 1)]);
    assert_eq!(index.get("a"), Some(BTreeSet::from([1, 2])));
    assert!(index.contains("b", &3) && !index.contains("b", &4) && !index.contains("x", &1));
    assert_eq!((index.len(), index.is_empty(), index.get("x")), (3, false, None));
    apply(&[(1, "a", 1), (1, "b", 3), (1, "x", 9), (2, "c", 5), (0, "d", 6)]);
    assert_eq!(index.get("a"), Some(BTreeSet::from([2])));
    assert_eq!((index.get("b"), index.get("c")), (None, Some(BTreeSet::from([5]))));
    assert_eq!(index.keys(.., 10), ["a", "c", "d"]);
    assert_eq!(index.keys("b".to_owned().., 1), ["c"]);
    let behind_c = (Bound::Excluded("c".to_owned()), Bound::Unbounded);
    assert_eq!(index.range(behind_c, 10), [("d".to_owned(), BTreeSet::from([6]))]);
    // What a map would panic on.
    assert!(index.range("d".to_owned().."a".to_owned(), 10).is_empty());
    let between = (Bound::Excluded("c".to_owned()), Bound::Excluded("c".to_owned()));
    assert!(index.range(between, 10).is_empty());
    apply(&[(3, "a", 0), (3, "c", 0), (3, "d", 0), (3, "x", 0)]);
    assert!(index.is_empty());
}

/// Each event moves a value from one key to another. However often one looks, exactly one of them has it, and the view's mark
/// says which.
#[test]
fn a_reader_never_sees_half_an_event() {
    const EVENTS: u64 = 20_000;
    let file = memory();
    let index = RedexIndex::open(&file, IndexStart::BEGINNING, |event| {
        let seq = event.seq;
        let mut ops = vec![IndexOp::Insert(seq % 10, "it")];
        ops.extend(seq.checked_sub(1).map(|before| IndexOp::Remove(before % 10, "it")));
        ops
    })
    .unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < EVENTS {
                    let keys = index.keys(.., 10);
                    assert!(keys.len() == usize::from(seen > 0) || (seen == 0 && keys.len() <= 1), "{keys:?}");
                    let applied = index.read(|view| {
                        let keys: Vec<u64> = view.keys().copied().collect();
                        let applied = view.applied();
                        assert_eq!(keys, applied.checked_sub(1).map(|last| last % 10).into_iter().collect::<Vec<_>>());
                        applied
                    });
                    assert!(applied >= seen, "the mark does not go back");
                    seen = applied;
                }
            });
        }
        for seq in 0..EVENTS {
            file.append(seq.to_le_bytes()).wait().unwrap();
            assert!(index.applied() <= file.published());
        }
    });
}

/// Undecodable events, more than are listed: each is counted and named, those behind are indexed, and who waits for one is told.
#[test]
fn undecodable_events_are_counted_and_named() {
    let words = TypedRedexFile::<String>::new(memory());
    let index = RedexIndex::open_typed(&words, IndexStart::BEGINNING, |event| {
        vec![IndexOp::Insert(event.value.clone(), (event.seq, event.time))]
    })
    .unwrap();
    words.append(&"first".to_owned()).wait().unwrap();
    for _ in 0..1500 {
        words.file().append(b"\x7f").wait().unwrap();
    }
    let last = words.append(&"last".to_owned()).wait().unwrap();
    index.wait_for_seq(last).wait().unwrap();
    assert_eq!(index.keys(.., 10), ["first", "last"]);
    let check = || {
        let errors = index.errors();
        assert_eq!((errors.count, errors.newest.len()), (1500, 1024));
        assert_eq!(errors.newest.first().map(IndexGap::range), Some(477..478));
        assert_eq!(errors.newest.last().map(IndexGap::range), Some(1500..1501));
        let newest = errors.newest.last().unwrap();
        assert!(support::text(newest).contains("event 1500") && support::text(newest).contains("postcard"));
    };
    check();
    match index.wait_for_seq(1500).wait() {
        Err(IndexWaitError::Gap(IndexGap::Undecodable { seq: 1500, .. })) => {}
        other => panic!("{other:?}"),
    }
    index.wait_for_seq(0).wait().unwrap();
    // A rebuild meets them again: they are the same.
    index.rebuild().wait().unwrap();
    check();
}

/// The projection panics: whoever waits gets an error at once, by thread and by task, and what was indexed is still read.
#[test]
fn a_panic_of_the_projection_stops_the_index_and_tells() {
    let file = memory();
    let (entered, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let barriers = (entered.clone(), go_on.clone());
    let index = RedexIndex::open(&file, IndexStart::BEGINNING, move |event| {
        if event.payload == b"bad" {
            barriers.0.wait();
            barriers.1.wait();
            panic!("cannot project {}", event.seq);
        }
        vec![IndexOp::Insert(event.payload.to_vec(), event.seq)]
    })
    .unwrap();
    file.append_batch(&["good", "bad", "never"]).wait().unwrap();
    entered.wait();
    let waiting = index.wait_for_seq(2);
    let mut polled = pin!(index.wait_for_seq(1));
    assert!(polled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let waiter = thread::spawn(move || waiting.wait());
    go_on.wait();
    let check = |result: Result<(), IndexWaitError>| match result {
        Err(IndexWaitError::Stopped { applied: 1, end: IndexEnd::Panicked { seq: 1, message }, .. }) => {
            assert_eq!(&*message, "cannot project 1");
        }
        other => panic!("{other:?}"),
    };
    check(waiter.join().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    check(runtime.block_on(polled));
    check(index.wait_for_seq(1000).wait());
    check(index.rebuild().wait());
    index.wait_for_seq(0).wait().expect("what was indexed before is");
    assert_eq!(index.keys(.., 10), [b"good".to_vec()]);
    assert_eq!((index.applied(), index.lag()), (1, 2));
    assert!(matches!(index.ended(), Some(IndexEnd::Panicked { seq: 1, .. })));
    assert!(RedexError::from(index.wait_for_seq(1).wait().unwrap_err()).to_string().contains("cannot project 1"));
}

/// Closing the channel ends the index, with everything in it; so does closing the store.
#[test]
fn ends_with_the_channel() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let closed = redex.open_file("closed", persistent()).unwrap();
    let open = redex.open_file("open", persistent()).unwrap();
    let indexes = [index(&closed, 0), index(&open, IndexStart::BEGINNING.durable_only())];
    let waiters = indexes.clone().map(|index| thread::spawn(move || index.wait_for_seq(500).wait()));
    append(&closed, 0..500);
    append(&open, 0..500);
    closed.close().wait().unwrap();
    redex.close().wait().unwrap();
    for (index, waiter) in indexes.iter().zip(waiters) {
        let refused = waiter.join().unwrap().unwrap_err();
        assert!(matches!(refused, IndexWaitError::Stopped { applied: 500, end: IndexEnd::Closed, .. }), "{refused}");
        assert_eq!(content(index), expected(0..500));
    }
}

/// The thread ends with the last clone, also while the channel stays open and quiet; a wait that is left over says so.
#[test]
fn ends_with_its_last_clone() {
    struct Ended(Arc<AtomicBool>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let file = memory();
    let ended = Arc::new(AtomicBool::new(false));
    let held = Ended(ended.clone());
    let index = RedexIndex::open(&file, IndexStart::BEGINNING, move |event| {
        let _ = &held;
        by_first_byte(event)
    })
    .unwrap();
    append(&file, 0..10);
    let clone = index.clone();
    drop(index);
    clone.wait_for_seq(9).wait().unwrap();
    let left: [IndexWait<u8, u64>; 2] = [10, u64::MAX].map(|seq| clone.wait_for_seq(seq));
    let left = left.map(|wait| thread::spawn(move || wait.wait()));
    assert!(!ended.load(Ordering::Acquire));
    drop(clone);
    for wait in left {
        assert!(matches!(wait.join().unwrap(), Err(IndexWaitError::Stopped { end: IndexEnd::Dropped, .. })));
    }
    wait_until("the end of the index's thread", || ended.load(Ordering::Acquire));
}

/// While an index is made anew, the present one is read; then the new one is, and it has what came meanwhile.
#[test]
fn a_rebuild_takes_the_place_of_what_is_read_meanwhile() {
    let file = memory();
    append(&file, 0..1000);
    // What a projection does is its own business: this one gives another value each time around.
    let (round, pause) = (Arc::new(AtomicU64::new(0)), Arc::new(Barrier::new(2)));
    let of_projection = (round.clone(), pause.clone());
    let index = RedexIndex::open(&file, IndexStart::BEGINNING, move |event| {
        let round = of_projection.0.load(Ordering::Acquire);
        if round == 1 && event.seq == 500 {
            of_projection.1.wait();
            of_projection.1.wait();
        }
        vec![IndexOp::Insert(event.seq, round)]
    })
    .unwrap();
    index.wait_for_seq(999).wait().unwrap();
    round.store(1, Ordering::Release);
    let rebuilt = index.rebuild();
    pause.wait();
    append(&file, 1000..1500);
    assert_eq!((index.applied(), index.lag(), index.len()), (1000, 500, 1000));
    assert!(index.contains(&0, &0) && index.contains(&999, &0));
    index.wait_for_seq(999).wait().unwrap();
    pause.wait();
    rebuilt.wait().unwrap();
    index.wait_for_seq(1499).wait().unwrap();
    let all = content(&index);
    assert_eq!(all.len(), 1500);
    assert!(all.values().all(|rounds| *rounds == BTreeSet::from([1])));
}

/// A cursor that has seen more than survived: the loss is told, and what now stands at those sequences is indexed.
#[test]
fn a_cursor_with_lost_events_begins_behind_what_survived() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("indexed", persistent()).unwrap();
    append(&file, 0..100);
    let epoch = file.cursor().epoch;
    redex.close().wait().unwrap();
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("indexed", persistent()).unwrap();
    append(&file, 100..150);

    let index = index(&file, Cursor { epoch, seq: 130 });
    index.wait_for_seq(149).wait().unwrap();
    assert_eq!(content(&index), expected(100..150));
    index.wait_for_seq(110).wait().expect("the event that is there now");
    let errors = index.errors();
    assert_eq!(errors.count, 1);
    assert!(matches!(errors.newest[..], [IndexGap::Lost { from: 100, to: 130, .. }]), "{errors:?}");
    redex.close().wait().unwrap();
}

/// Damage on disk: the events behind it are indexed, and those that are missing are named.
#[test]
fn unreadable_events_are_named_and_passed() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    append(&redex.open_file("indexed", persistent()).unwrap(), 0..2000);
    redex.close().wait().unwrap();
    let dat = support::files(dir.path(), ".dat").pop().unwrap();
    support::flip(&dat, 20 * 40 + 5);

    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("indexed", persistent()).unwrap();
    let index = index(&file, IndexStart::BEGINNING);
    index.wait_for_seq(1999).wait().unwrap();
    let mut wanted = expected(0..2000);
    wanted.get_mut(&(40 % 7)).unwrap().remove(&40);
    assert_eq!(content(&index), wanted);
    let errors = index.errors();
    assert!(matches!(errors.newest[..], [IndexGap::Unreadable { from: 40, to: 41, .. }]), "{errors:?}");
    assert!(matches!(index.wait_for_seq(40).wait(), Err(IndexWaitError::Gap(IndexGap::Unreadable { .. }))));
    index.rebuild().wait().unwrap();
    assert_eq!((content(&index), index.errors().count), (wanted, 1));
    redex.close().wait().unwrap();
}

/// One that follows the durable mark never has more than that.
#[test]
fn durable_only_stays_below_the_durable_mark() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("indexed", persistent()).unwrap();
    let index = index(&file, IndexStart::BEGINNING.durable_only());
    for at in 0..50 {
        append(&file, at * 20..(at + 1) * 20);
        let applied = index.read(redex::index::IndexView::applied);
        assert!(applied <= file.durable());
        if at % 10 == 9 {
            file.sync().wait().unwrap();
            index.wait_for_seq((at + 1) * 20 - 1).wait().unwrap();
        }
    }
    assert_eq!(content(&index), expected(0..1000));
    redex.close().wait().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Random operations, some events without any and some that do not decode, in appends of any size, with rebuilds between:
    /// the index is what applying them in order gives.
    #[test]
    fn is_what_the_events_say(
        batches in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec((0u8..5, 0u16..12, 0u8..6), 0..4), 0..80), 0..12,
        ),
    ) {
        type Ops = Vec<(u8, u16, u8)>;
        let events = TypedRedexFile::<Ops>::new(memory());
        let ops = |ops: &Ops| -> Vec<IndexOp<u16, u8>> {
            let op = |(op, key, value): &(u8, u16, u8)| match op {
                0 | 1 => IndexOp::Insert(*key, *value),
                2 => IndexOp::Remove(*key, *value),
                3 => IndexOp::Replace(*key, *value),
                _ => IndexOp::RemoveKey(*key),
            };
            ops.iter().map(op).collect()
        };
        let index = RedexIndex::open_typed(&events, IndexStart::BEGINNING, move |event| ops(&event.value)).unwrap();
        let mut model: BTreeMap<u16, BTreeSet<u8>> = BTreeMap::new();
        let (mut undecodable, mut last_decodes) = (0, true);
        for (i, batch) in batches.iter().enumerate() {
            events.append_batch(batch).wait().unwrap();
            last_decodes |= !batch.is_empty();
            for op in batch.iter().flat_map(ops) {
                match op {
                    IndexOp::Insert(key, value) => drop(model.entry(key).or_default().insert(value)),
                    IndexOp::Replace(key, value) => drop(model.insert(key, [value].into())),
                    IndexOp::RemoveKey(key) => drop(model.remove(&key)),
                    IndexOp::Remove(key, value) => {
                        let empty = model.get_mut(&key).is_some_and(|values| {
                            values.remove(&value);
                            values.is_empty()
                        });
                        if empty {
                            model.remove(&key);
                        }
                    }
                }
            }
            if i % 3 == 1 {
                events.file().append(b"\xff\xff").wait().unwrap();
                undecodable += 1;
                last_decodes = false;
            }
            if i % 4 == 2 {
                index.rebuild().wait().unwrap();
            }
            let Some(last) = events.file().next_seq().checked_sub(1) else { continue };
            let waited = index.wait_for_seq(last).wait();
            prop_assert_eq!(waited.is_ok(), last_decodes);
            prop_assert_eq!(content(&index), model.clone());
        }
        prop_assert_eq!(index.errors().count, undecodable);
    }
}
