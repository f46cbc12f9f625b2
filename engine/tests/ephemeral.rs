//! A channel that begins in memory and becomes persistent in place: events, sequences, handles and subscriptions stay.

use std::sync::atomic::{AtomicBool, Ordering};

use redex::{OpenFileError, Redex, RedexFile, RedexFileConfig, TailEnd};

mod support;

fn config() -> RedexFileConfig {
    RedexFileConfig::default().with_segment_bytes(64 << 10)
}

fn check(file: &RedexFile, len: u64) {
    assert_eq!(file.next_seq(), len);
    let mut next = file.head_seq();
    for event in file.read_from(next).blocking() {
        let event = event.unwrap();
        assert_eq!(event.seq, next);
        assert_eq!(event.payload, support::payload(next), "event {next}");
        next += 1;
    }
    assert_eq!(next, len);
}

fn append(file: &RedexFile, count: u64) {
    for _ in 0..count {
        let seq = file.next_seq();
        assert_eq!(file.append(support::payload(seq)).wait().unwrap(), seq);
    }
}

#[test]
fn events_and_handles_stay() {
    for (before, cut, trim) in [(0, None, 0), (1, None, 0), (3000, None, 0), (3000, Some(2000), 0), (3000, None, 1234)]
    {
        let dir = support::scratch();
        let redex = Redex::new().with_persistent_dir(dir.path());
        let file = redex.open_file("a", config()).unwrap();
        append(&file, before);
        if let Some(end) = cut {
            file.truncate_suffix(end).wait().unwrap();
        }
        file.trim_head(trim).wait().unwrap();
        let cursor = file.cursor();
        let mut tail = file.subscribe_from(trim).wait().unwrap();
        let again = redex.open_file("a", config().with_persistent(true)).unwrap();
        assert!(file.config().persistent());
        append(&file, 10);
        let len = again.next_seq();
        again.sync().wait().unwrap();
        assert_eq!(file.durable(), len);
        check(&again, len);
        for seq in trim..len {
            assert_eq!(tail.next_wait().unwrap().seq, seq);
        }
        again.subscribe_from(cursor).wait().unwrap();
        append(&again, 500);
        let error = redex.open_file("a", config()).unwrap_err();
        assert!(matches!(error, OpenFileError::ConfigConflict { setting: "persistent", .. }), "{error}");
        again.sync().wait().unwrap();
        let copy = support::scratch();
        support::copy_dir(dir.path(), copy.path());
        redex.close().wait().unwrap();
        for dir in [copy.path(), dir.path()] {
            let redex = Redex::open(dir).unwrap();
            let file = redex.open_file("a", config().with_persistent(true)).unwrap();
            assert_eq!(file.head_seq(), trim);
            check(&file, len + 500);
            append(&file, 10);
        }
    }
}

/// While threads append and a subscription follows.
#[test]
fn nothing_is_lost_while_it_is_used() {
    for round in 0..5 {
        let dir = support::scratch();
        let redex = Redex::new().with_persistent_dir(dir.path());
        let file = redex.open_file("a", config()).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2_u64 {
                let (file, over) = (&file, &over);
                scope.spawn(move || {
                    let mut i = 0_u64;
                    while !over.load(Ordering::Relaxed) && i < 20_000 {
                        file.append([thread.to_le_bytes(), i.to_le_bytes()].concat()).wait().unwrap();
                        i += 1;
                    }
                });
            }
            support::wait_until("some events", || file.next_seq() > 1000 * round);
            redex.open_file("a", config().with_persistent(true)).unwrap();
            let from = file.next_seq();
            support::wait_until("more events", || file.next_seq() > from + 1000 || file.next_seq() == 40_000);
            over.store(true, Ordering::Relaxed);
        });
        let len = file.next_seq();
        redex.close().wait().unwrap();
        let redex = Redex::open(dir.path()).unwrap();
        let file = redex.open_file("a", config().with_persistent(true)).unwrap();
        assert_eq!(file.next_seq(), len);
        let mut next = [0; 2];
        for event in file.read_from(0).blocking() {
            let payload = event.unwrap().payload;
            let (thread, i) = payload.split_at(8);
            let thread = u64::from_le_bytes(thread.try_into().unwrap()) as usize;
            assert_eq!(u64::from_le_bytes(i.try_into().unwrap()), next[thread]);
            next[thread] += 1;
        }
        assert_eq!(next[0] + next[1], len);
    }
}

#[test]
fn a_name_that_lies_in_the_store_is_not_taken() {
    let dir = support::scratch();
    let redex = Redex::open(dir.path()).unwrap();
    append(&redex.open_file("a", config().with_persistent(true)).unwrap(), 3);
    redex.close().wait().unwrap();
    let redex = Redex::new().with_persistent_dir(dir.path());
    append(&redex.open_file("a", config()).unwrap(), 5);
    let error = redex.open_file("a", config().with_persistent(true)).unwrap_err();
    assert!(matches!(error, OpenFileError::ConfigConflict { .. }), "{error}");
    assert!(matches!(redex.open_file("b", config()).map(|file| file.next_seq()), Ok(0)));
}

/// A subscription that was there before stays where it is: its cursor is one of the channel as it is now, and a cut tells of no
/// more than it takes.
#[test]
fn a_subscription_outlives_the_change() {
    let dir = support::scratch();
    let redex = Redex::new().with_persistent_dir(dir.path());
    let file = redex.open_file("a", config()).unwrap();
    append(&file, 3);
    let mut tail = file.tail(0);
    for seq in 0..2 {
        assert_eq!(tail.next_wait().unwrap().unwrap().seq, seq);
    }
    let again = redex.open_file("a", config().with_persistent(true)).unwrap();
    append(&again, 5);
    for seq in 2..8 {
        assert_eq!(tail.next_wait().unwrap().unwrap().seq, seq);
    }
    again.subscribe_from(tail.cursor()).wait().expect("nothing was lost");
    let mut resumed = again.tail(tail.cursor());
    again.truncate_suffix(7).wait().unwrap();
    append(&again, 1);
    for tail in [&mut tail, &mut resumed] {
        match tail.next_wait() {
            Some(Err(TailEnd::Lost { from: 7, to: 8, .. })) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(tail.next_wait().unwrap().unwrap().seq, 7);
    }
}

/// The first append of an empty channel may come while it is made durable.
#[test]
fn the_first_append_meets_the_change() {
    let dir = support::scratch();
    let redex = Redex::new().with_persistent_dir(dir.path());
    for round in 0..200 {
        let name = format!("c{round}");
        let file = redex.open_file(&name, config()).unwrap();
        let both = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                for seq in 0..3 {
                    assert_eq!(file.append(b"event").wait().unwrap(), seq);
                }
            });
            both.wait();
            redex.open_file(&name, config().with_persistent(true)).unwrap();
        });
        assert_eq!(file.append_durable(b"last").wait().unwrap(), 3);
        assert_eq!(file.read_range(0, 4).wait().unwrap().len(), 4);
    }
}
