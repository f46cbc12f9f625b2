//! Appends that find no room: they keep their order, awaited or not, and none is lost with its future.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use redex::{AppendError, Redex, RedexFile, RedexFileConfig};

const CHANNEL: &str = "a/backlog";
/// Far more than the page budget below has room for.
const EVENTS: u64 = 8_000;
const PAYLOAD_SIZE: usize = 4_000;

fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![number as u8; PAYLOAD_SIZE];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A store with so little memory for pages that a burst does not fit.
fn store(dir: &std::path::Path) -> Redex {
    Redex::builder().persistent_dir(dir).shards(1).page_budget_bytes(1 << 20).build().unwrap()
}

fn open(redex: &Redex) -> RedexFile {
    redex.open_file(CHANNEL, RedexFileConfig::default().with_persistent(true)).unwrap()
}

fn check(file: &RedexFile, count: u64) {
    let mut seq = 0;
    for event in file.read_from(0).blocking() {
        let event = event.unwrap();
        assert_eq!((event.seq, number(&event.payload), event.payload.len()), (seq, seq, PAYLOAD_SIZE));
        seq += 1;
    }
    assert_eq!(seq, count);
}

#[test]
fn a_burst_that_does_not_fit_keeps_the_order_of_its_calls() {
    let dir = scratch();
    let redex = store(dir.path());
    let file = open(&redex);
    let appends: Vec<_> = (0..EVENTS).map(|i| file.append(payload(i))).collect();
    assert!(file.published() < EVENTS, "the burst fits, and the test shows nothing");
    for (i, append) in appends.into_iter().enumerate() {
        assert_eq!(append.wait().unwrap(), i as u64);
    }
    check(&file, EVENTS);
    redex.close().wait().unwrap();
}

#[test]
fn durable_and_plain_appends_and_batches_share_one_order() {
    let dir = scratch();
    let redex = store(dir.path());
    let file = open(&redex);
    let mut next = 0;
    for i in 0..EVENTS / 4 {
        match i % 3 {
            0 => drop(file.append_durable(payload(next))),
            1 => drop(file.append(payload(next))),
            _ => drop(file.append_batch(&[payload(next), payload(next + 1)])),
        }
        next += if i % 3 == 2 { 2 } else { 1 };
    }
    assert!(file.published() < next);
    file.sync().wait().unwrap();
    assert_eq!((file.published(), file.durable()), (next, next), "sync covers what was called before it");
    check(&file, next);
    redex.close().wait().unwrap();
}

#[test]
fn a_dropped_future_cancels_nothing_and_a_close_comes_behind_it() {
    let dir = scratch();
    let redex = store(dir.path());
    let file = open(&redex);
    (0..EVENTS).for_each(|i| drop(file.append(payload(i))));
    assert!(file.published() < EVENTS);
    redex.close().wait().unwrap();
    assert!(matches!(file.append(b"late").wait(), Err(AppendError::Closed { .. })));
    drop((file, redex));
    let redex = store(dir.path());
    let file = open(&redex);
    assert_eq!(file.next_seq(), EVENTS);
    check(&file, EVENTS);
    redex.close().wait().unwrap();
}

#[test]
fn a_tail_ends_behind_what_waited_for_room_at_the_close() {
    let dir = scratch();
    let redex = store(dir.path());
    let file = open(&redex);
    let mut tail = file.tail(0);
    (0..EVENTS).for_each(|i| drop(file.append(payload(i))));
    assert!(file.published() < EVENTS, "the burst fits, and the test shows nothing");
    let close = file.close();
    for seq in 0..EVENTS {
        let event = tail.next_wait().expect("it was appended before the close").unwrap();
        assert_eq!((event.seq, number(&event.payload)), (seq, seq));
    }
    assert!(tail.next_wait().is_none());
    close.wait().unwrap();
    redex.close().wait().unwrap();
}

#[test]
fn what_waits_is_bounded() {
    let dir = scratch();
    let redex = store(dir.path());
    let file = open(&redex);
    let mut accepted = 0;
    let refused = (0..200_000).any(|i| {
        // Faster than the device: a refusal comes once 64 MiB wait.
        match file.try_append(payload(i)) {
            Ok(_) => accepted += 1,
            Err(AppendError::Full { .. }) => return true,
            Err(error) => panic!("{error}"),
        }
        false
    });
    assert!(refused && accepted > 0, "memory is bounded, and try_append says so");
    let payloads: Vec<Vec<u8>> = (0..4096).map(payload).collect();
    // 640 MiB, faster than any device takes them.
    let appends: Vec<_> = (0..40).map(|_| file.append_batch(&payloads)).collect();
    let results: Vec<_> = appends.into_iter().map(redex::AppendBatch::wait).collect();
    assert!(results[0].is_ok());
    assert!(results.iter().any(|result| matches!(result, Err(AppendError::Full { .. }))), "640 MiB do not wait");
    let made: Vec<_> = results.into_iter().flatten().collect();
    assert!(made.windows(2).all(|pair| pair[1].start == pair[0].end), "those that were made are in order: {made:?}");
    redex.close().wait().unwrap();
}

/// One producer copies big events, and another appends a small one and syncs: the small one may have to wait for the copy, but
/// when its append has resolved it is published, and when the sync has it is durable.
#[test]
fn a_sync_covers_an_append_that_stands_behind_another_copy() {
    let dir = scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(1).build().unwrap();
    let file = open(&redex);
    let (stop, big) = (AtomicBool::new(false), vec![7; 8 << 20]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                file.append(&big).wait().unwrap();
                file.sync().wait().unwrap();
            }
        });
        for _ in 0..1000 {
            let seq = file.append(b"more than eight bytes").wait().unwrap();
            assert!(file.published() > seq, "an append resolves when it is published");
            file.sync().wait().unwrap();
            assert!(file.durable() > seq, "a sync covers what was appended before it");
        }
        stop.store(true, Ordering::Relaxed);
    });
    redex.close().wait().unwrap();
}

#[test]
fn a_close_ends_while_producers_go_on() {
    let dir = scratch();
    let redex = store(dir.path());
    let file = open(&redex);
    let closing = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for number in 0.. {
                    let was_closing = closing.load(Ordering::SeqCst);
                    let mut append = file.append(payload(number));
                    match Pin::new(&mut append).poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(Err(AppendError::Full { .. })) => std::thread::sleep(Duration::from_micros(100)),
                        Poll::Ready(Err(AppendError::Closed { .. })) => break,
                        Poll::Ready(Err(error)) => panic!("{error}"),
                        _ => assert!(!was_closing, "an append was taken after the close"),
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        let close = redex.close();
        closing.store(true, Ordering::SeqCst);
        close.wait().unwrap();
    });
}

/// More channels wait for room than the shard looks at in a turn: all go on, and so do checkpoints.
#[test]
fn many_channels_that_wait_share_what_room_there_is() {
    const CHANNELS: usize = 150;
    const TOTAL: u64 = 30_000;
    let dir = scratch();
    let builder = Redex::builder().persistent_dir(dir.path()).shards(1).page_budget_bytes(2 << 20);
    let redex = builder.journal_segment_bytes(1 << 20).checkpoint_bytes(1 << 20).build().unwrap();
    let config = RedexFileConfig::default().with_persistent(true);
    let files: Vec<_> = (0..CHANNELS).map(|i| redex.open_file(format!("c/{i}"), config.clone()).unwrap()).collect();
    let mut waiting: Vec<Option<redex::Append<'_>>> = files.iter().map(|_| None).collect();
    let mut done = vec![0_u64; CHANNELS];
    let mut cx = Context::from_waker(Waker::noop());
    while done.iter().sum::<u64>() < TOTAL {
        for (i, file) in files.iter().enumerate() {
            for _ in 0..4 {
                let mut append = waiting[i].take().unwrap_or_else(|| file.append(payload(done[i])));
                match Pin::new(&mut append).poll(&mut cx) {
                    Poll::Ready(seq) => {
                        assert_eq!(seq.unwrap(), done[i]);
                        done[i] += 1;
                    }
                    Poll::Pending => {
                        waiting[i] = Some(append);
                        break;
                    }
                }
            }
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
    assert!(least * 4 >= *most, "{least} to {most} events a channel");
    assert!(redex.stats().checkpoints > 0);
    drop(waiting);
    redex.close().wait().unwrap();
}

/// Durable appends are never held back. What they do to a shard must not keep the others out: as long as the load goes on, other
/// appends do, too.
#[test]
fn a_durable_load_does_not_keep_other_channels_out() {
    const LOAD_APPENDS: usize = 250;
    let dir = scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(1).build().unwrap();
    let config = RedexFileConfig::default().with_persistent(true);
    let small = redex.open_file("small", config.clone()).unwrap();
    let (over, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for i in 0..4 {
            let file = redex.open_file(format!("load/{i}"), config.clone()).unwrap();
            let (over, stop) = (&over, &stop);
            scope.spawn(move || {
                let payload = vec![7; 1 << 20];
                let mut appends = std::collections::VecDeque::new();
                for _ in 0..LOAD_APPENDS {
                    appends.push_back(file.append_durable(&payload));
                    if appends.len() == 4 {
                        appends.pop_front().unwrap().wait().unwrap();
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
                over.store(true, Ordering::Relaxed);
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        for seq in 0..10 {
            assert_eq!(small.append(b"more than eight bytes").wait().unwrap(), seq);
        }
        let over = over.load(Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        assert!(!over, "the others came only after the load");
    });
    redex.close().wait().unwrap();
}
