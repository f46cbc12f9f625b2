//! What each policy leaves unflushed when an append resolves, as the watermarks show it.

mod support;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use redex::{Backend, FsyncPolicy, Redex, RedexFile, RedexFileConfig};

use support::{check, open, payload, persistent, scratch};

/// A period that no test lives to see the end of.
const LONG: Duration = Duration::from_secs(3600);

fn open_with(redex: &Redex, policy: FsyncPolicy) -> RedexFile {
    redex.open_file("events", persistent().with_fsync_policy(policy)).unwrap()
}

/// Looks at the durable mark after each of 500 appends.
#[test]
fn every_n_leaves_less_than_n_events_unflushed() {
    for n in [2, 3, 10, 100] {
        let dir = scratch();
        let redex = open(dir.path(), Backend::Auto);
        let file = open_with(&redex, FsyncPolicy::EveryN(n));
        for seq in 0..500 {
            file.append(payload(seq)).wait().unwrap();
            let durable = file.durable();
            assert!(seq + 1 - durable < n, "event {seq} is acknowledged, {durable} are durable, n is {n}");
        }
        assert!(file.durable() > 0);
    }
}

/// The same from four threads at once: whatever was acknowledged lies within the bound.
#[test]
fn every_n_holds_over_many_producers() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = open_with(&redex, FsyncPolicy::EveryN(10));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..200 {
                    let seq = file.append(payload(i)).wait().unwrap();
                    let durable = file.durable();
                    assert!(seq + 1 < durable + 10, "event {seq} is acknowledged, {durable} are durable");
                }
            });
        }
    });
}

/// A batch counts by its events: one above the bound resolves when it is durable.
#[test]
fn every_n_counts_the_events_of_a_batch() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = open_with(&redex, FsyncPolicy::EveryN(10));
    for size in [3, 9, 10, 1, 50] {
        let seqs = file.append_batch(&vec![b"123456789"; size]).wait().unwrap();
        assert!(seqs.end < file.durable() + 10, "{seqs:?} acknowledged, {} durable", file.durable());
    }
}

/// Zero and one mean the same.
#[test]
fn every_append_is_durable_for_n_up_to_one() {
    for n in [0, 1] {
        let dir = scratch();
        let redex = open(dir.path(), Backend::Auto);
        let file = open_with(&redex, FsyncPolicy::EveryN(n));
        for seq in 0..50 {
            file.append(payload(seq)).wait().unwrap();
            assert!(file.durable() > seq, "event {seq}, n {n}");
        }
    }
}

/// Notes when each append had returned, and before each next one how old the oldest unflushed event is: the append
/// itself must not leave it older than the period. Two ticks of the kernel's coarse clock are let pass.
fn interval_bounds_the_age(policy: FsyncPolicy, period: Duration) {
    let slack = Duration::from_millis(25);
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = open_with(&redex, policy);
    let mut returned: Vec<Instant> = Vec::new();
    let until = Instant::now() + 12 * period;
    while Instant::now() < until {
        let called = Instant::now();
        let seq = file.append(b"longer than a record holds").wait().unwrap();
        let oldest = file.durable();
        if oldest < seq {
            let age = called - returned[oldest as usize];
            assert!(age <= period + slack, "event {oldest} was {age:?} old and unflushed when {seq} was acknowledged");
        }
        returned.push(Instant::now());
        std::thread::sleep(Duration::from_micros(300));
    }
    assert!(returned.len() > 100);
}

/// 300 ms under a period of 25 ms.
#[test]
fn interval_leaves_no_event_unflushed_for_longer() {
    let period = Duration::from_millis(25);
    interval_bounds_the_age(FsyncPolicy::Interval(period), period);
}

/// The same with a bound of bytes that is never reached.
#[test]
fn interval_or_bytes_leaves_no_event_unflushed_for_longer() {
    let period = Duration::from_millis(25);
    interval_bounds_the_age(FsyncPolicy::IntervalOrBytes { period, max_bytes: 1 << 40 }, period);
}

/// One append, and nobody who asks for its flush: a subscription to durable events asks for none.
#[test]
fn interval_flushes_by_itself() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = open_with(&redex, FsyncPolicy::Interval(Duration::from_millis(20)));
    let mut tail = file.subscribe_tail().wait().unwrap().durable_only();
    for seq in 0..3 {
        file.append(payload(seq)).wait().unwrap();
        assert_eq!(tail.next_wait().unwrap().seq, seq);
        assert!(file.durable() > seq);
    }
}

/// A period of nothing: every append finds its own event too old.
#[test]
fn interval_of_nothing_makes_every_append_durable() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = open_with(&redex, FsyncPolicy::Interval(Duration::ZERO));
    for seq in 0..20 {
        file.append(payload(seq)).wait().unwrap();
        assert!(file.durable() > seq);
    }
}

/// Adds up payload and eight bytes for each event that is acknowledged and not durable.
#[test]
fn interval_or_bytes_leaves_no_more_bytes_unflushed() {
    let max_bytes = 30_000;
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = open_with(&redex, FsyncPolicy::IntervalOrBytes { period: LONG, max_bytes });
    let mut flushed_late = false;
    for seq in 0..600 {
        file.append(payload(seq)).wait().unwrap();
        let durable = file.durable();
        let unflushed: u64 = (durable..=seq).map(|seq| payload(seq).len() as u64 + 8).sum();
        assert!(unflushed <= max_bytes, "{unflushed} bytes unflushed after {seq}");
        flushed_late |= unflushed > max_bytes / 4;
    }
    assert!(flushed_late, "every append was flushed at once");
}

/// Nobody asks for a flush but these three.
#[test]
fn never_flushes_at_sync_close_and_durable_appends() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = open_with(&redex, FsyncPolicy::Never);
    for seq in 0..100 {
        file.append(payload(seq)).wait().unwrap();
    }
    file.sync().wait().unwrap();
    assert_eq!(file.durable(), 100);
    file.append(payload(100)).wait().unwrap();
    assert_eq!(file.append_durable(payload(101)).wait().unwrap(), 101);
    assert_eq!(file.durable(), 102);
    file.append(payload(102)).wait().unwrap();
    file.wait_durable(102).wait().unwrap();
    assert_eq!(file.durable(), 103);
    file.append(payload(103)).wait().unwrap();
    file.close().wait().unwrap();
    assert_eq!(file.durable(), 104);
}

/// Closes the store under each policy with events that nobody flushed, by `close` and by dropping the last handle.
#[test]
fn closing_the_store_flushes_under_every_policy() {
    let policies = [
        FsyncPolicy::Never,
        FsyncPolicy::EveryN(1000),
        FsyncPolicy::Interval(LONG),
        FsyncPolicy::IntervalOrBytes { period: LONG, max_bytes: 1 << 40 },
    ];
    for policy in policies {
        let dir = scratch();
        for round in 0..2 {
            let redex = open(dir.path(), Backend::Auto);
            let file = open_with(&redex, policy);
            check(&file, 0..round * 20);
            for seq in round * 20..round * 20 + 20 {
                file.append(payload(seq)).wait().unwrap();
            }
            if round == 0 {
                redex.close().wait().unwrap();
                assert_eq!(file.durable(), 20);
            }
        }
        check(&open_with(&open(dir.path(), Backend::Auto), policy), 0..40);
    }
}

/// Polls each future once: in memory there is nothing to wait for.
#[test]
fn in_memory_every_append_resolves_at_once() {
    fn at_once<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }
    let policies = [
        FsyncPolicy::Never,
        FsyncPolicy::EveryN(1),
        FsyncPolicy::EveryN(3),
        FsyncPolicy::Interval(Duration::ZERO),
        FsyncPolicy::IntervalOrBytes { period: Duration::ZERO, max_bytes: 0 },
    ];
    let redex = Redex::in_memory();
    for (i, policy) in policies.into_iter().enumerate() {
        let config = RedexFileConfig::default().with_fsync_policy(policy);
        let file = redex.open_file(format!("memory/{i}"), config).unwrap();
        for seq in 0..20 {
            assert_eq!(at_once(file.append(payload(seq))).unwrap(), seq);
            assert_eq!(file.durable(), seq + 1);
        }
        assert_eq!(at_once(file.append_durable(b"x")).unwrap(), 20);
        assert_eq!(at_once(file.append_batch_durable(&[b"x", b"y"])).unwrap(), 21..23);
        at_once(file.sync()).unwrap();
        at_once(file.close()).unwrap();
    }
}

/// A tail of durable events gets what `close` made durable before it ends.
#[test]
fn durable_tail_ends_after_what_close_flushed() {
    for _ in 0..20 {
        let dir = scratch();
        let redex = open(dir.path(), Backend::Auto);
        let file = open_with(&redex, FsyncPolicy::Never);
        let mut tail = file.subscribe_tail().wait().unwrap().durable_only();
        let reader = std::thread::spawn(move || std::iter::from_fn(|| tail.next_wait()).count());
        for seq in 0..50 {
            file.append(payload(seq)).wait().unwrap();
        }
        file.close().wait().unwrap();
        assert_eq!(reader.join().unwrap(), 50);
    }
}

/// One thread closes the handle while others wait for their durable appends: each gets its answer.
#[test]
fn closing_a_handle_leaves_nobody_waiting() {
    for _ in 0..20 {
        let dir = scratch();
        let redex = open(dir.path(), Backend::Auto);
        let file = open_with(&redex, FsyncPolicy::Never);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        match file.append_durable([7; 100]).wait() {
                            Ok(seq) => assert!(file.durable() > seq),
                            Err(redex::AppendError::Closed { .. }) => return,
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            file.wait_durable(20).wait().unwrap();
            file.close().wait().unwrap();
        });
    }
}
