//! Suffixes cut off, channels reset and deleted, compare and append: on disk and in memory, and after a crash.

use redex::{AppendError, ChangeError, Redex, RedexFile, RedexFileConfig, SubscribeError, TailEnd};

mod support;

fn config(persistent: bool) -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(persistent).with_segment_bytes(64 << 10)
}

/// Runs a test on disk and in memory.
fn on_both(test: impl Fn(&Redex, RedexFileConfig)) {
    let dir = support::scratch();
    let redex = Redex::open(dir.path()).unwrap();
    test(&redex, config(true));
    redex.close().wait().unwrap();
    test(&Redex::in_memory(), config(false));
}

fn append(file: &RedexFile, count: u64, len: usize) {
    let from = file.next_seq();
    let payloads: Vec<Vec<u8>> = (from..from + count).map(|seq| payload(seq, len)).collect();
    for payloads in payloads.chunks(100) {
        file.append_batch(payloads).wait().unwrap();
    }
}

fn payload(seq: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seq as usize * 7 + i) as u8).collect()
}

fn check(file: &RedexFile, range: std::ops::Range<u64>, len: usize) {
    let events = file.read_range(range.start, range.end).wait().unwrap();
    assert_eq!(events.len() as u64, range.end - range.start);
    for (event, seq) in events.iter().zip(range) {
        assert_eq!((event.seq, event.payload.to_vec()), (seq, payload(seq, len)));
    }
}

#[test]
fn a_cut_suffix_is_given_again() {
    on_both(|redex, config| {
        let file = redex.open_file("raft", config).unwrap();
        for (count, end) in [(3000, 2500), (10, 2505), (1, 2506), (2000, 7), (1, 0), (500, 500), (100, 599)] {
            append(&file, count, 100);
            let before = file.next_seq();
            let cursor = file.cursor();
            let mut tail = file.tail(before.saturating_sub(1));
            tail.next_wait().unwrap().unwrap();
            assert_eq!(file.truncate_suffix(end).wait().unwrap(), end);
            assert_eq!(file.next_seq(), end);
            check(&file, 0..end, 100);
            if end == before {
                continue;
            }
            // Somebody else's cursor leads nowhere; a subscription that had the events says so, and goes on.
            let lost = file.subscribe_from(cursor).wait().unwrap_err();
            assert!(
                matches!(lost, SubscribeError::LostEvents { from, to, .. } if (from, to) == (end, before)),
                "{lost}"
            );
            let lost = tail.next_wait().unwrap().unwrap_err();
            assert!(matches!(lost, TailEnd::Lost { from, .. } if from == end), "{lost}");
            assert_eq!(file.append(payload(end, 100)).wait().unwrap(), end);
            let event = tail.next_wait().unwrap().unwrap();
            assert_eq!((event.seq, event.payload.to_vec()), (end, payload(end, 100)));
            file.subscribe_from(tail.cursor()).wait().unwrap();
        }
        let error = file.truncate_suffix(10_000).wait().unwrap_err();
        assert!(matches!(error, ChangeError::OutOfRange { end: 10_000, head: 0, .. }), "{error}");
        file.trim_head(100).wait().unwrap();
        assert!(file.truncate_suffix(99).wait().is_err());
        file.truncate_suffix(100).wait().unwrap();
        assert!(file.is_empty());
    });
}

/// Appends that come meanwhile wait, and get the sequences behind the cut; those that came before it began are cut off.
#[test]
fn appends_wait_for_a_cut() {
    on_both(|redex, config| {
        let file = redex.open_file("raft", config).unwrap();
        append(&file, 1000, 50);
        let cut = file.truncate_suffix(400);
        let appends: Vec<_> = (0..10).map(|_| file.append(b"behind")).collect();
        cut.wait().unwrap();
        let seqs: Vec<u64> = appends.into_iter().map(|append| append.wait().unwrap()).collect();
        let before = seqs.iter().take_while(|seq| **seq >= 1000).count() as u64;
        let wanted: Vec<u64> = (1000..1000 + before).chain(400..410 - before).collect();
        assert_eq!(seqs, wanted);
        assert_eq!(file.next_seq(), 410 - before);
        check(&file, 0..400, 50);
    });
}

#[test]
fn a_cut_survives_a_crash() {
    let dir = support::scratch();
    let redex = Redex::open(dir.path()).unwrap();
    let (file, other) =
        (redex.open_file("raft", config(true)).unwrap(), redex.open_file("other", config(true)).unwrap());
    append(&file, 3000, 100);
    append(&other, 500, 100);
    let cursor = file.cursor();
    file.truncate_suffix(1234).wait().unwrap();
    append(&other, 500, 100);
    let theirs = other.cursor();
    append(&file, 100, 100);
    file.truncate_suffix(1300).wait().unwrap();
    append(&file, 5, 100);
    file.sync().wait().unwrap();
    other.sync().wait().unwrap();
    let copy = support::scratch();
    support::copy_dir(dir.path(), copy.path());
    drop(redex);
    for dir in [copy.path(), dir.path()] {
        let redex = Redex::open(dir).unwrap();
        let file = redex.open_file("raft", config(true)).unwrap();
        assert_eq!(file.next_seq(), 1305);
        check(&file, 0..1305, 100);
        assert!(file.subscribe_from(cursor).wait().is_err());
        let other = redex.open_file("other", config(true)).unwrap();
        check(&other, 0..1000, 100);
        other.subscribe_from(theirs).wait().unwrap();
        let report: Vec<_> = redex.channels().into_iter().map(|info| info.name.to_string()).collect();
        assert_eq!(report, ["other", "raft"]);
        redex.close().wait().unwrap();
    }
}

#[test]
fn a_reset_channel_begins_anew() {
    on_both(|redex, config| {
        let file = redex.open_file("logs", config).unwrap();
        append(&file, 2000, 100);
        file.trim_head(500).wait().unwrap();
        let cursor = file.cursor();
        redex.reset_channel("logs").wait().unwrap();
        assert_eq!((file.head_seq(), file.next_seq()), (0, 0));
        assert!(file.subscribe_from(cursor).wait().is_err());
        append(&file, 300, 100);
        check(&file, 0..300, 100);
        assert!(matches!(redex.reset_channel("none").wait(), Err(ChangeError::NotFound { .. })));
    });
}

#[test]
fn a_deleted_channel_is_gone_and_its_name_is_free() {
    on_both(|redex, config| {
        let file = redex.open_file("logs", config.clone()).unwrap();
        append(&file, 2000, 100);
        let mut tail = file.subscribe_from(1999).wait().unwrap();
        assert_eq!(tail.next_wait().unwrap().seq, 1999);
        redex.delete_channel("logs").wait().unwrap();
        assert!(redex.channels().is_empty());
        assert!(matches!(file.append(b"x").wait(), Err(AppendError::Closed { .. })));
        assert!(matches!(redex.delete_channel("logs").wait(), Err(ChangeError::NotFound { .. })));
        assert!(tail.next_wait().is_none());
        let file = redex.open_file("logs", config).unwrap();
        assert_eq!(file.next_seq(), 0);
        append(&file, 10, 100);
        check(&file, 0..10, 100);
        redex.delete_channel("logs").wait().unwrap();
    });
}

/// Also after a crash, and also one that is not open: its files go, those of others stay.
#[test]
fn a_deleted_channel_does_not_come_back() {
    let dir = support::scratch();
    let redex = Redex::open(dir.path()).unwrap();
    for name in ["a", "b", "c"] {
        append(&redex.open_file(name, config(true)).unwrap(), 1000, 200);
    }
    redex.close().wait().unwrap();
    let redex = Redex::open(dir.path()).unwrap();
    redex.delete_channel("b").wait().unwrap();
    let again = redex.open_file("b", config(true)).unwrap();
    append(&again, 7, 200);
    redex.delete_channel("c").wait().unwrap();
    again.sync().wait().unwrap();
    let copy = support::scratch();
    support::copy_dir(dir.path(), copy.path());
    drop(redex);
    for dir in [copy.path(), dir.path()] {
        for _ in 0..3 {
            let redex = Redex::open(dir).unwrap();
            let names: Vec<_> = redex.channels().into_iter().map(|info| info.name.to_string()).collect();
            assert_eq!(names, ["a", "b"]);
            check(&redex.open_file("a", config(true)).unwrap(), 0..1000, 200);
            check(&redex.open_file("b", config(true)).unwrap(), 0..7, 200);
            redex.close().wait().unwrap();
        }
        let dirs = std::fs::read_dir(dir.join("channels")).unwrap();
        let count: usize = dirs.map(|fan| std::fs::read_dir(fan.unwrap().path()).unwrap().count()).sum();
        assert_eq!(count, 1, "only one has blocks");
    }
}

#[test]
fn compare_and_append() {
    on_both(|redex, config| {
        let file = redex.open_file("cas", config).unwrap();
        assert_eq!(file.append_if(0, b"first").wait().unwrap(), 0);
        let error = file.append_if(0, b"again").wait().unwrap_err();
        assert!(matches!(error, AppendError::OtherSeq { expected: 0, actual: 1, .. }), "{error}");
        assert!(file.append_if(2, b"too early").wait().is_err());
        assert_eq!(file.append_batch_if(1, &[b"second", b"third "]).wait().unwrap(), 1..3);
        // One that makes a page of its own.
        let large = vec![7; 2 << 20];
        assert!(file.append_if(2, &large).wait().is_err());
        assert_eq!(file.append_if(3, &large).wait().unwrap(), 3);
        assert_eq!(file.next_seq(), 4);
        // Threads that compare get each sequence once.
        let won: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let file = file.clone();
                    scope.spawn(move || {
                        (4..2004).filter(|seq| file.append_if(*seq, seq.to_le_bytes()).wait().is_ok()).collect()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| -> Vec<u64> { thread.join().unwrap() }).collect()
        });
        assert_eq!(won.len() as u64, file.next_seq() - 4, "who won has appended");
        for seq in 4..file.next_seq() {
            assert_eq!(file.read_one(seq).wait().unwrap().unwrap().payload, seq.to_le_bytes());
        }
    });
}
