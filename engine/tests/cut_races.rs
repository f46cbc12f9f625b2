//! What waits, reads and appends while a channel is trimmed and cut.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redex::{ChangeError, Redex, RedexFile, RedexFileConfig, TailEnd};

mod support;

fn config(persistent: bool) -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(persistent).with_segment_bytes(16 << 10)
}

fn on_both(test: impl Fn(&RedexFile)) {
    let dir = support::scratch();
    let redex = Redex::open(dir.path()).unwrap();
    test(&redex.open_file("cut", config(true)).unwrap());
    redex.close().wait().unwrap();
    test(&Redex::in_memory().open_file("cut", config(false)).unwrap());
}

/// What is waited for was durable before it was cut off: so it resolves, though the mark lies below for good.
#[test]
fn waits_end_when_their_events_are_cut_off() {
    on_both(|file| {
        for seq in 0..10 {
            assert_eq!(file.append(b"event").wait().unwrap(), seq);
        }
        let (durable, sync, wait) = (file.append_durable(b"last"), file.sync(), file.wait_durable(7));
        file.truncate_suffix(3).wait().unwrap();
        assert_eq!(durable.wait().unwrap(), 10);
        sync.wait().unwrap();
        wait.wait().unwrap();
        assert_eq!(file.append_durable(b"again").wait().unwrap(), 3);
    });
}

/// Also what has no commit yet.
#[test]
fn a_trim_reaches_as_far_as_it_was_asked_to() {
    on_both(|file| {
        for count in 1..50 {
            file.append(vec![7; 200]).wait().unwrap();
            assert_eq!(file.trim_head(count).wait().unwrap(), count);
            assert_eq!((file.head_seq(), file.len()), (count, 0));
        }
    });
}

/// A channel that went on in an unfinished block refuses an append that expects another sequence, and goes on there all the
/// same.
#[test]
fn a_refused_append_leaves_an_unfinished_block_alone() {
    let dir = support::scratch();
    for round in 0..5 {
        let redex = Redex::open(dir.path()).unwrap();
        let file = redex.open_file("cas", config(true)).unwrap();
        assert!(file.append_if(99, vec![1; 6000]).wait().is_err());
        assert_eq!(file.append_if(2 * round, vec![round as u8; 700]).wait().unwrap(), 2 * round);
        assert!(file.append_if(0, vec![1; 6000]).wait().is_err());
        assert_eq!(file.append_if(2 * round + 1, vec![round as u8; 5000]).wait().unwrap(), 2 * round + 1);
        for seq in 0..2 * round + 2 {
            let event = file.read_one(seq).wait().unwrap().unwrap();
            assert!(event.payload.iter().all(|byte| u64::from(*byte) == seq / 2), "event {seq}");
        }
        redex.close().wait().unwrap();
    }
}

/// Events of one producer: who made it, which one it is, and bytes that follow from that.
fn payload(producer: u64, count: u64) -> Vec<u8> {
    let len = 16 + (count * 7 % 300) as usize;
    let mut bytes = [producer.to_le_bytes(), count.to_le_bytes()].concat();
    bytes.resize(len, (producer + count) as u8);
    bytes
}

fn check(event: &redex::RedexEvent) {
    let number = |at: usize| u64::from_le_bytes(event.payload[at..at + 8].try_into().unwrap());
    assert_eq!(event.payload, payload(number(0), number(8)));
}

/// Producers, readers, somebody who trims and somebody who cuts: bounded by counts. Events are whole, in order, and what is
/// missing is told.
#[test]
fn threads_meet_trims_and_cuts() {
    const PRODUCERS: u64 = 3;
    const EVENTS: u64 = 4000;
    on_both(|file| {
        let (left, changes) = (AtomicU64::new(PRODUCERS), AtomicU64::new(0));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let (left, changes) = (&left, &changes);
                scope.spawn(move || {
                    // On a slow disk a change takes longer than all of that.
                    let enough = |count| count >= EVENTS && changes.load(Ordering::Relaxed) > 4;
                    for count in (0..100 * EVENTS).take_while(|count| !enough(*count)) {
                        file.append(payload(producer, count)).wait().unwrap();
                    }
                    left.fetch_sub(1, Ordering::AcqRel);
                });
            }
            scope.spawn(|| {
                while left.load(Ordering::Acquire) > 0 {
                    let (head, next) = (file.head_seq(), file.next_seq());
                    // Refused if the other has moved an end meanwhile.
                    let changed = match changes.load(Ordering::Relaxed) % 2 {
                        0 => file.trim_head(head + next.saturating_sub(head) / 2).wait().is_ok(),
                        _ => file.truncate_suffix(next - next.saturating_sub(head) / 4).wait().is_ok(),
                    };
                    changes.fetch_add(u64::from(changed), Ordering::Relaxed);
                }
                is_over.store(true, Ordering::Release);
                file.close().wait().unwrap();
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut tail = file.tail(0);
                    let mut next = 0;
                    while let Some(item) = tail.next_wait() {
                        match item {
                            Ok(event) => {
                                assert_eq!(event.seq, next);
                                check(&event);
                                next += 1;
                            }
                            Err(TailEnd::Lagged { from, to, .. }) => {
                                assert!(from == next && to > from, "{from}..{to} at {next}");
                                next = to;
                            }
                            Err(TailEnd::Lost { from, to, .. }) => {
                                assert!(to == next && from < to, "{from}..{to} at {next}");
                                next = from;
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                    assert!(is_over.load(Ordering::Acquire));
                });
            }
        });
        assert!(changes.load(Ordering::Relaxed) > 4, "trims and cuts took place");
        let (head, next) = (file.head_seq(), file.next_seq());
        let events = file.read_range(head, next).wait().unwrap();
        assert_eq!(events.len() as u64, next - head);
        events.iter().for_each(check);
    });
}

/// In memory whoever cuts does it on its own thread: the second one finds another end than it has seen.
#[test]
fn two_cuts_in_memory_meet() {
    let file = Redex::in_memory().open_file("cut", config(false)).unwrap();
    for round in 0..2000 {
        file.append_batch(&vec![vec![round as u8; 40]; 10]).wait().unwrap();
        let next = file.next_seq();
        let both = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for back in [1, 6] {
                let (file, both) = (&file, &both);
                scope.spawn(move || {
                    both.wait();
                    match file.truncate_suffix(next - back).wait() {
                        Ok(end) => assert_eq!(end, next - back),
                        Err(ChangeError::OutOfRange { end, next: present, .. }) => {
                            assert_eq!((end, present), (next - 1, next - 6));
                        }
                        Err(other) => panic!("{other}"),
                    }
                });
            }
        });
        assert_eq!(file.next_seq(), next - 6);
        file.sync().wait().unwrap();
        if round % 50 == 0 {
            file.trim_head(next - 6).wait().unwrap();
        }
    }
}

/// Appends that come the moment they are let in again are published like all others.
#[test]
fn appends_meet_the_end_of_a_cut_in_memory() {
    let file = Redex::in_memory().open_file("cut", config(false)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for producer in 0..2 {
            let (file, over) = (&file, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    file.append([producer; 24]).wait().unwrap();
                    file.sync().wait().unwrap();
                }
            });
        }
        for _ in 0..3000 {
            let next = file.next_seq();
            let end = next.saturating_sub(3).max(file.head_seq());
            file.truncate_suffix(end).wait().unwrap();
            if next > 5000 {
                file.trim_head(end).wait().unwrap();
            }
        }
        over.store(true, Ordering::Release);
    });
}
