//! What the engine counts: exact where it can be, and complete.

mod support;

use std::fs;
use std::time::Duration;

use hdrhistogram::Histogram;
use redex::{Backend, FsyncPolicy, Redex, RedexFile, Stats};

use support::{ChildTest, child_dir, payload, persistent, scratch, tell, wait_until};

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Bytes that a close writes to STORE: two copies.
const STORE_BYTES: u64 = 2 * BLOCK;

/// A store with one shard. What nobody waits for is written late: a thread that loses its core between publishing an event
/// and asking for its flush would otherwise find it written, in one commit, and cause the flush in another.
fn open(dir: &std::path::Path) -> Redex {
    Redex::builder().persistent_dir(dir).shards(1).write_behind(Duration::from_secs(1)).build().unwrap()
}

/// A new channel of which the journal has been told, by a commit of its own: else that may go with the first event or not.
/// How many commits that took comes with it.
fn channel(redex: &Redex) -> (RedexFile, u64) {
    let file = redex.open_file("a", persistent()).unwrap();
    wait_until("the commit of the channel", || redex.stats().commits > 0);
    let stats = settled(redex);
    assert_eq!((stats.events, stats.commit_events.len(), stats.flushes), (0, 0, 0));
    (file, stats.commits)
}

/// Waits until nothing moves any more, and returns what was counted.
fn settled(redex: &Redex) -> Stats {
    let mut before = redex.stats();
    wait_until("a quiet store", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = redex.stats();
        let quiet = now.commits == before.commits && now.idle_commits == before.idle_commits;
        before = now;
        quiet
    });
    before
}

/// All values of a histogram are this one, as exactly as the histogram keeps them.
fn all_are(histogram: &Histogram<u64>, value: u64) -> bool {
    histogram.min() == histogram.lowest_equivalent(value) && histogram.max() == histogram.highest_equivalent(value)
}

#[test]
fn hundred_durable_appends_are_hundred_commits_and_flushes() {
    let dir = scratch();
    let redex = open(dir.path());
    assert_eq!((redex.stats().commits, redex.stats().written_bytes()), (0, 0));
    assert_eq!(redex.stats().write_amplification(), 0.0);
    let (file, told) = channel(&redex);
    for seq in 0..100u8 {
        file.append_durable([seq; 256]).wait().unwrap();
    }
    let stats = settled(&redex);
    assert_eq!((stats.commits, stats.flushes, stats.events), (told + 100, 100, 100));
    assert_eq!(stats.payload_bytes, 100 * 256);
    assert_eq!(stats.journal_bytes, (told + 100 + stats.idle_commits) * BLOCK);
    assert!((1..=101).contains(&stats.idle_commits), "{} idle commits", stats.idle_commits);
    assert!(stats.commit_events.len() == 100 && all_are(&stats.commit_events, 1));
    assert!(stats.commit_bytes.len() == told + 100 && all_are(&stats.commit_bytes, BLOCK));
    assert!(stats.queue_depth.len() == told + 100 && all_are(&stats.queue_depth, 1));
    assert_eq!(stats.commit_latency_ns.len(), 100);
    assert!(stats.commit_latency_ns.min() > 1000, "no device answers in {} ns", stats.commit_latency_ns.min());
    // Too little to be worth a file: the journal has it all.
    let elsewhere = stats.destaged_bytes + stats.extent_bytes + stats.seal_bytes + stats.checkpoint_bytes;
    assert_eq!((elsewhere, stats.header_bytes, stats.prepared_bytes), (0, 0, 0));
    assert_eq!((stats.extents, stats.extent_flushes, stats.checkpoints, stats.rolls, stats.seals), (0, 0, 0, 0, 0));
    assert_eq!(stats.written_bytes(), stats.journal_bytes);
    assert_eq!(stats.write_amplification(), stats.journal_bytes as f64 / 25_600.0);

    redex.close().wait().unwrap();
    let closed = redex.stats();
    assert_eq!((closed.events, closed.payload_bytes, closed.checkpoints), (100, 25_600, 1));
    assert_eq!(closed.destaged_bytes, 25_600 / BLOCK * BLOCK, "whole blocks of dat; the records fill none");
    assert_eq!(closed.header_bytes, BLOCK, "META");
    assert!((BLOCK..=4 * BLOCK).contains(&closed.checkpoint_bytes), "{} bytes", closed.checkpoint_bytes);
    assert!(closed.checkpoint_flushes >= 3, "dat, the checkpoint file, its entry");
    assert_eq!(closed.commit_events.len(), 100, "an entry without events is none");
    assert_eq!(closed.commits, told + 101, "the checkpoint's entry");
    assert_eq!(closed.flushes, 100);
}

#[test]
fn payload_bytes_are_the_lengths_of_the_events_committed() {
    let dir = scratch();
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    for i in 0..100u64 {
        file.append_durable(i.to_le_bytes()).wait().unwrap();
    }
    let stats = settled(&redex);
    assert_eq!((stats.events, stats.payload_bytes), (100, 800));
    assert_eq!(stats.write_amplification(), stats.journal_bytes as f64 / 800.0, "8 bytes inside a record are payload");
    // Of every length, also none, over many pages; and by extent, beginning in the middle of a block.
    let mut expected = 800;
    for round in 0..40u64 {
        let batch: Vec<Vec<u8>> = (0..round * 12).map(payload).collect();
        expected += batch.iter().map(|payload| payload.len() as u64).sum::<u64>();
        file.append_batch_durable(&batch).wait().unwrap();
        assert_eq!(redex.stats().payload_bytes, expected, "round {round}");
    }
    let stats = redex.stats();
    assert!(stats.extents > 0, "the last rounds are big");
    assert_eq!(stats.commit_events.len(), stats.flushes, "each commit was durable and had events");
    redex.close().wait().unwrap();
}

#[test]
fn a_batch_is_one_commit_of_as_many_events() {
    let dir = scratch();
    let redex = open(dir.path());
    let (file, told) = channel(&redex);
    for _ in 0..10 {
        file.append_batch_durable(&[[7u8; 100]; 50]).wait().unwrap();
    }
    let stats = settled(&redex);
    assert_eq!((stats.commits, stats.flushes), (told + 10, 10));
    assert_eq!((stats.events, stats.payload_bytes), (500, 50_000));
    assert!(stats.commit_events.len() == 10 && all_are(&stats.commit_events, 50));
    // 50 records of 20 bytes and 5,000 bytes of payload.
    assert_eq!((stats.commit_bytes.len(), stats.commit_bytes.count_at(2 * BLOCK)), (told + 10, 10));
    assert_eq!(stats.journal_bytes, (told + 20 + stats.idle_commits) * BLOCK);
    redex.close().wait().unwrap();
}

#[test]
fn events_that_nobody_waits_for_are_committed_without_a_flush() {
    let dir = scratch();
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent().with_fsync_policy(FsyncPolicy::Never)).unwrap();
    for _ in 0..50 {
        file.append([1u8; 64]).wait().unwrap();
    }
    wait_until("the write behind", || redex.stats().events == 50);
    let written = settled(&redex);
    assert_eq!((written.flushes, written.commit_latency_ns.len()), (0, 0));
    assert_eq!(written.commit_bytes.len(), written.commits);
    file.sync().wait().unwrap();
    let synced = settled(&redex);
    assert_eq!((synced.flushes, synced.events, synced.commits), (1, 50, written.commits + 1));
    assert_eq!(synced.commit_events.len(), written.commit_events.len(), "a flush has no events");
    redex.close().wait().unwrap();
}

#[test]
fn bulk_is_written_once() {
    let dir = scratch();
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    let batch = vec![vec![5u8; 4096]; 256];
    for _ in 0..16 {
        file.append_batch_durable(&batch).wait().unwrap();
    }
    redex.close().wait().unwrap();
    let stats = redex.stats();
    assert_eq!((stats.events, stats.payload_bytes), (16 * 256, 16 << 20));
    assert!(stats.extents >= 16 && stats.extents <= stats.commits, "{} extents", stats.extents);
    assert_eq!(stats.extent_flushes, stats.extents, "each was durable by itself");
    assert!(stats.extent_bytes + stats.destaged_bytes >= 16 << 20, "all of it is in dat");
    assert!((14 << 20..=16 << 20).contains(&stats.extent_bytes), "{} bytes by extent", stats.extent_bytes);
    let amplification = stats.write_amplification();
    assert!((1.0..1.3).contains(&amplification), "{amplification}");
}

/// Bytes that this process gave to write calls.
fn write_calls_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

/// Does all that writes, by plain calls, and compares what the engine counted with what the kernel did.
#[test]
#[ignore = "a child process of another test"]
fn child_counts_its_writes() {
    let Some(dir) = child_dir() else { return };
    let builder = Redex::builder().persistent_dir(dir).shards(1).backend(Backend::Posix);
    let redex = builder.journal_segment_bytes(256 << 10).checkpoint_bytes(1 << 20).build().unwrap();
    let before = write_calls_bytes();
    let file = redex.open_file("a", persistent().with_segment_bytes(2 << 20)).unwrap();
    let small = redex.open_file("b", persistent().with_segment_bytes(64 << 10)).unwrap();
    for round in 0..60u64 {
        let batch: Vec<Vec<u8>> = (0..round * 8).map(payload).collect();
        file.append_batch_durable(&batch).wait().unwrap();
        small.append(payload(round)).wait().unwrap();
    }
    redex.close().wait().unwrap();
    let by_calls = write_calls_bytes() - before;
    let stats = redex.stats();
    let parts = [
        ("journal", stats.journal_bytes),
        ("extents", stats.extent_bytes),
        ("destaged", stats.destaged_bytes),
        ("seals", stats.seal_bytes),
        ("headers", stats.header_bytes),
        ("checkpoints", stats.checkpoint_bytes),
        ("prepared", stats.prepared_bytes),
    ];
    for (part, bytes) in parts {
        assert!(bytes > 0 && bytes % BLOCK == 0, "{part}: {bytes}");
    }
    assert_eq!(stats.header_bytes, (stats.rolls + 2) * BLOCK, "a header each, and two META");
    assert!((1..=3).contains(&(stats.seal_bytes / BLOCK / stats.seals)), "one to three blocks each");
    assert_eq!(stats.prepared_bytes % (256 << 10), 0);
    let counted = stats.written_bytes() + stats.prepared_bytes + STORE_BYTES;
    // A ring of the bell is a write of 8 bytes.
    let bells = by_calls.checked_sub(counted).unwrap_or_else(|| panic!("{counted} counted, {by_calls} written"));
    assert!(bells.is_multiple_of(8) && bells < BLOCK * 4, "{counted} counted, {by_calls} written");
    tell("same");
}

#[test]
fn nothing_that_is_written_goes_uncounted() {
    if !std::path::Path::new("/proc/self/io").exists() {
        eprintln!("the kernel does not count the bytes of write calls: nothing to compare with");
        return;
    }
    let dir = scratch();
    let mut child = ChildTest::spawn("child_counts_its_writes", dir.path());
    assert_eq!(child.hear().as_deref(), Some("same"));
    assert!(child.passed());
}
