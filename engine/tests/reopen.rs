//! What was acknowledged is there after a reopen, clean or not, on real files, however durable writes are done.

mod support;

use redex::{Backend, FsyncPolicy, Redex, RedexBuilder, RedexFileConfig};

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn payload(i: u64) -> Vec<u8> {
    let len = [0, 3, 8, 9, 100, 256, 5000, 40_000][(i % 8) as usize];
    (0..len).map(|at| (i as usize * 31 + at * 7) as u8).collect()
}

fn persistent() -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(true)
}

fn open(dir: &std::path::Path, backend: Backend) -> Redex {
    Redex::builder().persistent_dir(dir).backend(backend).journal_segment_bytes(1 << 20).build().unwrap()
}

/// How a store makes a write durable.
#[derive(Clone, Copy, Debug)]
enum Writes {
    /// As the machine has it.
    Chosen,
    /// By a flush behind each.
    Flushed,
}

impl Writes {
    fn set(self, builder: RedexBuilder) -> RedexBuilder {
        match self {
            Self::Chosen => builder,
            Self::Flushed => builder.write_then_flush(),
        }
    }

    fn open(self, dir: &std::path::Path, backend: Backend) -> Redex {
        let builder = Redex::builder().persistent_dir(dir).backend(backend).journal_segment_bytes(1 << 20);
        let redex = self.set(builder).build().unwrap();
        let facts = redex.stats().io;
        assert!(!facts.durable_write_reason.is_empty(), "{facts:?}");
        if matches!(self, Self::Flushed) {
            assert_eq!((facts.durable_write, facts.durable_write_reason), ("write+fdatasync", "it was asked for"));
        }
        redex
    }
}

/// Appends, waits, closes, reopens, compares; three times over.
fn clean_close_keeps_everything(backend: Backend, writes: Writes) {
    let dir = scratch();
    let mut expected = 0;
    for _ in 0..3 {
        let redex = writes.open(dir.path(), backend);
        let file = redex.open_file("a/b", persistent()).unwrap();
        assert_eq!(file.next_seq(), expected);
        for event in file.read_from(0).blocking() {
            let event = event.unwrap();
            assert_eq!(event.payload, payload(event.seq), "event {}", event.seq);
        }
        for _ in 0..700 {
            assert_eq!(file.append(payload(expected)).wait().unwrap(), expected);
            expected += 1;
        }
        redex.close().wait().unwrap();
    }
    let redex = open(dir.path(), backend);
    let file = redex.open_file("a/b", persistent()).unwrap();
    let events = file.read_range(0, u64::MAX).wait().unwrap();
    assert_eq!(events.len() as u64, expected);
    for event in events {
        assert_eq!(event.payload, payload(event.seq));
    }
}

#[test]
fn clean_close_keeps_everything_on_uring() {
    if support::uring_allowed() {
        clean_close_keeps_everything(Backend::Uring, Writes::Chosen);
    }
}

#[test]
fn clean_close_keeps_everything_on_uring_with_flushed_writes() {
    if support::uring_allowed() {
        clean_close_keeps_everything(Backend::Uring, Writes::Flushed);
    }
}

#[test]
fn clean_close_keeps_everything_on_plain_calls() {
    clean_close_keeps_everything(Backend::Posix, Writes::Chosen);
}

#[test]
fn clean_close_keeps_everything_on_plain_calls_with_flushed_writes() {
    clean_close_keeps_everything(Backend::Posix, Writes::Flushed);
}

/// Durable appends in every policy, and a subscription beside them.
#[test]
fn tail_sees_every_event_once_under_every_policy() {
    for writes in [Writes::Chosen, Writes::Flushed] {
        tail_sees_every_event_once(writes);
    }
}

fn tail_sees_every_event_once(writes: Writes) {
    let dir = scratch();
    let redex = writes.open(dir.path(), Backend::Auto);
    let policies = [
        FsyncPolicy::Never,
        FsyncPolicy::EveryN(1),
        FsyncPolicy::EveryN(10),
        FsyncPolicy::Interval(std::time::Duration::from_millis(5)),
        FsyncPolicy::IntervalOrBytes { period: std::time::Duration::from_millis(5), max_bytes: 10_000 },
    ];
    for (i, policy) in policies.into_iter().enumerate() {
        let file = redex.open_file(format!("policy/{i}"), persistent().with_fsync_policy(policy)).unwrap();
        let mut tail = file.subscribe_from(0).wait().unwrap();
        let reader = std::thread::spawn(move || {
            let mut next = 0;
            while let Some(event) = tail.next_wait() {
                assert_eq!(event.seq, next);
                assert_eq!(event.payload, payload(next));
                next += 1;
            }
            (next, tail.ended().map(ToString::to_string))
        });
        for seq in 0..300 {
            assert_eq!(file.append(payload(seq)).wait().unwrap(), seq);
        }
        file.close().wait().unwrap();
        assert_eq!(file.durable(), 300);
        let (seen, end) = reader.join().unwrap();
        assert_eq!(seen, 300, "{end:?}");
    }
}

/// A megabyte at a time goes by extent and comes back.
#[test]
fn bulk_goes_by_extent_and_comes_back() {
    for writes in [Writes::Chosen, Writes::Flushed] {
        bulk_comes_back(writes);
    }
}

fn bulk_comes_back(writes: Writes) {
    let dir = scratch();
    let batch: Vec<Vec<u8>> = (0..2000).map(|i| vec![i as u8; 600]).collect();
    for _ in 0..2 {
        let redex = writes.open(dir.path(), Backend::Auto);
        let file = redex.open_file("bulk", persistent()).unwrap();
        for _ in 0..20 {
            let seqs = file.append_batch_durable(&batch).wait().unwrap();
            assert_eq!(seqs.end - seqs.start, 2000);
        }
        assert!(redex.stats().extents > 0);
        redex.close().wait().unwrap();
    }
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("bulk", persistent()).unwrap();
    assert_eq!(file.len(), 80_000);
    for event in file.scan(0..80_000).blocking() {
        let event = event.unwrap();
        assert_eq!(event.payload, batch[(event.seq % 2000) as usize], "event {}", event.seq);
    }
}

/// Batches as large as a commit takes, with a journal so small that each one stands before a roll.
#[test]
fn batches_pass_rolls_in_one_piece() {
    for writes in [Writes::Chosen, Writes::Flushed] {
        batches_pass_rolls(writes);
    }
}

fn batches_pass_rolls(writes: Writes) {
    let dir = scratch();
    let builder = Redex::builder().persistent_dir(dir.path()).journal_segment_bytes(64 << 10);
    let redex = writes.set(builder).build().unwrap();
    let file = redex.open_file("batches", persistent()).unwrap();
    let mut expected = Vec::new();
    for round in 0..60_u64 {
        let batch: Vec<Vec<u8>> = (0..=round * 40).map(|i| payload(i % 6)).collect();
        let seqs = file.append_batch(&batch).wait().unwrap();
        assert_eq!(seqs, expected.len() as u64..(expected.len() + batch.len()) as u64);
        expected.extend(batch);
        if round % 7 == 0 {
            file.sync().wait().unwrap();
        }
    }
    redex.close().wait().unwrap();
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("batches", persistent()).unwrap();
    let events = file.read_range(0, u64::MAX).wait().unwrap();
    assert_eq!(events.len(), expected.len());
    assert!(events.iter().zip(&expected).all(|(event, expected)| event.payload == *expected));
}

/// The stats show what a shard's ring was set up with, and nothing of a ring where there is none.
#[test]
fn stats_show_the_ring() {
    let dir = scratch();
    assert_eq!(open(dir.path(), Backend::Posix).stats().io.ring, redex::RingFacts::default());
    if support::uring_allowed() {
        assert_ne!(open(dir.path(), Backend::Uring).stats().io.ring, redex::RingFacts::default());
    }
}
