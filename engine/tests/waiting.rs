//! Waiting for the published mark: until somebody appends elsewhere, or nobody will any more.

mod support;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use redex::{Backend, FsyncPolicy, Redex, RedexFile, RedexFileConfig, SyncError};

use support::{open, persistent, scratch};

/// How long a waiter is watched before something happens.
const WATCHED: Duration = Duration::from_millis(100);

/// Runs a test on a channel on disk, and on one in memory.
fn on_disk_and_in_memory(test: impl Fn(&Redex, &RedexFile)) {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    for config in [persistent(), RedexFileConfig::default()] {
        let name = if config.persistent() { "disk" } else { "memory" };
        test(&redex, &redex.open_file(name, config).unwrap());
    }
}

/// What a waiting thread came to, and when.
type Waiter = thread::JoinHandle<(Result<(), SyncError>, u64, Instant)>;

/// Waits for an event on a thread of its own; tells what was published when it came back.
fn wait_elsewhere(file: &RedexFile, seq: u64) -> Waiter {
    let file = file.clone();
    let waiter = thread::spawn(move || {
        let result = file.wait_published(seq).wait();
        (result, file.published(), Instant::now())
    });
    thread::sleep(WATCHED);
    assert!(!waiter.is_finished(), "event {seq} is not there yet");
    waiter
}

#[test]
fn wait_published_blocks_until_somebody_appends() {
    on_disk_and_in_memory(|redex, file| {
        file.append(b"the first").wait().unwrap();
        file.wait_published(0).wait().unwrap();
        let waiter = wait_elsewhere(file, 2);
        // Another handle of the same channel.
        let writer = redex.open_file(file.name(), file.config().clone()).unwrap();
        writer.append(b"the second").wait().unwrap();
        thread::sleep(WATCHED);
        assert!(!waiter.is_finished(), "event 1 is not event 2");
        let appended = Instant::now();
        writer.append(b"the third").wait().unwrap();
        let (result, published, woken) = waiter.join().unwrap();
        result.unwrap();
        assert_eq!(published, 3);
        assert!(woken >= appended && woken < appended + Duration::from_secs(10));
    });
}

#[test]
fn wait_published_wakes_a_task() {
    on_disk_and_in_memory(|_, file| {
        let mut waiting = pin!(file.wait_published(0));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let writer = file.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let appender = thread::spawn(move || {
            thread::sleep(WATCHED);
            writer.append(b"x").wait().unwrap()
        });
        runtime.block_on(waiting).unwrap();
        assert_eq!((file.published(), appender.join().unwrap()), (1, 0));
        // What is there already needs no waiting.
        let there = pin!(file.wait_published(0)).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(there, Poll::Ready(Ok(()))));
    });
}

#[test]
fn wait_published_fails_when_nobody_will_append_any_more() {
    on_disk_and_in_memory(|_, file| {
        file.append(b"x").wait().unwrap();
        let waiter = wait_elsewhere(file, 1);
        file.close().wait().unwrap();
        let (result, published, _) = waiter.join().unwrap();
        match result {
            Err(SyncError::Closed { channel, seq: 1 }) => assert_eq!(channel, *file.name()),
            other => panic!("{other:?}"),
        }
        assert_eq!(published, 1);
        file.wait_published(0).wait().expect("what is there was published");
        assert!(matches!(file.wait_published(1).wait(), Err(SyncError::Closed { seq: 1, .. })));
    });
}

/// A cut takes back what was asked to be flushed. Who waits for an event that is yet to come, under a policy that flushes nothing,
/// asks for it again.
#[test]
fn a_cut_forgets_nobody_who_waits_for_an_event_to_come() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("a", persistent().with_fsync_policy(FsyncPolicy::Never)).unwrap();
    (0..100).for_each(|_| _ = file.append_durable(b"before").wait().unwrap());
    let waiters = [150, 199].map(|seq| {
        let file = file.clone();
        thread::spawn(move || file.wait_durable(seq).wait())
    });
    thread::sleep(WATCHED);
    file.truncate_suffix(40).wait().unwrap();
    thread::sleep(WATCHED);
    while file.append(b"behind").wait().unwrap() < 199 {}
    let deadline = Instant::now() + Duration::from_secs(10);
    for waiter in waiters {
        while !waiter.is_finished() {
            assert!(Instant::now() < deadline, "a waiter is forgotten");
            thread::sleep(Duration::from_millis(10));
        }
        waiter.join().unwrap().unwrap();
    }
    assert_eq!(file.durable(), 200);
}

#[test]
fn wait_published_fails_when_the_store_is_closed() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let files = [persistent(), RedexFileConfig::default()].map(|config| {
        let name = if config.persistent() { "disk" } else { "memory" };
        redex.open_file(name, config).unwrap()
    });
    let waiters: Vec<_> = files.iter().map(|file| wait_elsewhere(file, 0)).collect();
    redex.close().wait().unwrap();
    for waiter in waiters {
        assert!(matches!(waiter.join().unwrap().0, Err(SyncError::Closed { seq: 0, .. })));
    }
}
