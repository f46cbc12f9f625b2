//! Several commits in flight at once, and many appends from several threads.

mod support;

use std::sync::Barrier;
use std::thread;

use redex::{FsyncPolicy, Redex, RedexFile};

use support::{payload, persistent, scratch};

const THREADS: u64 = 4;
/// Appends that each thread makes, and how many of them it has in flight.
const EACH: u64 = 2_000;
const IN_FLIGHT: u64 = 50;

/// Who appended an event, and as which of its own.
fn event(thread: u64, number: u64) -> Vec<u8> {
    [&thread.to_le_bytes()[..], &number.to_le_bytes(), &payload(number)].concat()
}

/// Appends from several threads; gives the sequences of each, in the order of its calls.
fn append(file: &RedexFile) -> Vec<Vec<u64>> {
    let barrier = Barrier::new(THREADS as usize);
    let appender = |thread: u64| {
        barrier.wait();
        let mut seqs = Vec::new();
        for first in (0..EACH).step_by(IN_FLIGHT as usize) {
            let appends: Vec<_> =
                (first..first + IN_FLIGHT).map(|number| file.append_durable(event(thread, number))).collect();
            for append in appends {
                let seq = append.wait().unwrap();
                assert!(file.durable() > seq);
                seqs.push(seq);
            }
        }
        seqs
    };
    thread::scope(|scope| {
        let appender = &appender;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || appender(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn check(file: &RedexFile, seqs: &[Vec<u64>]) {
    let mut expected: Vec<(u64, Vec<u8>)> = Vec::new();
    for (thread, seqs) in (0..).zip(seqs) {
        assert!(seqs.is_sorted(), "a thread's events have the order of its calls");
        expected.extend((0..).zip(seqs).map(|(number, seq)| (*seq, event(thread, number))));
    }
    expected.sort_unstable();
    let read: Vec<_> = file.read_from(0).blocking().map(|event| event.unwrap()).collect();
    assert_eq!(read.len(), expected.len());
    for (event, (seq, payload)) in read.iter().zip(&expected) {
        assert!(event.seq == *seq && event.payload == *payload, "event {seq}");
    }
}

#[test]
fn four_commits_in_flight_keep_every_event_and_its_order() {
    let dir = scratch();
    let open = || {
        let builder = Redex::builder().persistent_dir(dir.path()).shards(1).commit_depth(4);
        builder.journal_segment_bytes(1 << 20).build().unwrap()
    };
    let config = persistent().with_fsync_policy(FsyncPolicy::EveryN(100));
    let redex = open();
    let file = redex.open_file("a", config.clone()).unwrap();
    let seqs = append(&file);
    let stats = redex.stats();
    assert!(stats.rolls > 0, "the journal goes on in other segments meanwhile");
    assert!(stats.queue_depth.max() <= 4, "{} commits in flight", stats.queue_depth.max());
    // Plain calls have ended when they return.
    if stats.io.backend == "uring" {
        assert!(stats.queue_depth.max() > 1, "never more than one commit in flight");
    }
    check(&file, &seqs);
    redex.close().wait().unwrap();
    drop((file, redex));
    let redex = open();
    check(&redex.open_file("a", config).unwrap(), &seqs);
}
