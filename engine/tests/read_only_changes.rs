//! What the writer changes besides appending, as a reader beside it is told: trims, cuts, deletion, batches, a channel in memory
//! that becomes persistent.

use redex::{FsyncPolicy, OpenFileError, ReadOnlyFile, Redex, RedexFile, RedexFileConfig, TailEnd};

fn small(dir: &std::path::Path) -> Redex {
    let builder = Redex::builder().persistent_dir(dir).shards(1);
    builder.journal_segment_bytes(256 << 10).checkpoint_bytes(256 << 10).build().unwrap()
}

fn config() -> RedexFileConfig {
    let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(1));
    config.with_segment_bytes(64 << 10)
}

/// Payload of an event: of this life of its sequence.
fn payload(seq: u64, life: u64) -> Vec<u8> {
    let len = if seq % 50 == 7 { 9000 } else { 5 + seq * 13 % 900 };
    (0..len).map(|i| (life * 101 + seq * 7 + i) as u8).collect()
}

fn append(file: &RedexFile, to: u64, life: u64) {
    for seq in file.next_seq()..to {
        assert_eq!(file.append_durable(payload(seq, life)).wait().unwrap(), seq);
    }
}

/// Reads everything that is there, each way.
fn check(file: &ReadOnlyFile, life_of: impl Fn(u64) -> u64) {
    let events = file.read_range(0, u64::MAX).wait().unwrap();
    assert_eq!(events.len() as u64, file.len());
    assert!(events.first().is_none_or(|event| event.seq == file.head_seq()));
    for event in &events {
        assert!(event.payload == payload(event.seq, life_of(event.seq)), "{}", event.seq);
    }
    let (mut scan, mut seq) = (file.scan(0..u64::MAX), file.head_seq());
    while let Some(chunk) = scan.next_chunk_wait() {
        for event in &chunk.unwrap() {
            assert_eq!((event.seq, event.payload), (seq, &payload(seq, life_of(seq))[..]));
            seq += 1;
        }
    }
    assert_eq!(seq, file.next_seq());
    for event in events.iter().step_by(97) {
        let first = file.seek_time(event.time).wait().unwrap();
        let wanted = events.iter().find(|it| it.time >= event.time).unwrap().seq;
        assert_eq!(first, wanted, "time of {}", event.seq);
        let from_there = file.read_time_range(event.time..events.last().unwrap().time).wait().unwrap();
        assert!(from_there.first().is_none_or(|it| it.seq == wanted));
    }
    let report = file.verify().wait();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.events, file.len());
}

/// A reader that lags behind retention is told what it missed, once, and goes on at the head; so on disk, whose files go, as in
/// what the journal says.
#[test]
fn a_reader_behind_a_trim_lags() {
    let dir = tempfile::tempdir().unwrap();
    let redex = small(dir.path());
    let file = redex.open_file("log", config()).unwrap();
    append(&file, 600, 0);
    let reader = Redex::open_read_only(dir.path()).unwrap();
    let followed = reader.open_file("log").unwrap();
    followed.wait_published(599).wait().unwrap();
    let mut tail = followed.tail(0);
    assert_eq!(tail.next_wait().unwrap().unwrap().seq, 0);
    let mut next = 1;
    for head in [100, 450, 590] {
        assert_eq!(file.trim_head(head).wait().unwrap(), head);
        append(&file, file.next_seq() + 60, 0);
        followed.wait_published(file.next_seq() - 1).wait().unwrap();
        assert_eq!(followed.head_seq(), file.head_seq());
        check(&followed, |_| 0);
        let mut lags = 0;
        while next < file.next_seq() {
            match tail.next_wait().unwrap() {
                Ok(event) => {
                    assert_eq!(event.seq, next);
                    next += 1;
                }
                Err(TailEnd::Lagged { from, to, .. }) => {
                    assert_eq!((from, to, lags), (next, file.head_seq(), 0));
                    (next, lags) = (to, 1);
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(lags, u64::from(head == 100), "only the first time is it behind");
    }
    redex.close().wait().unwrap();
}

/// Cuts, one after the other, within what the journal says and deep into sealed segments: a tail that had the events is told
/// which; all reads show what is there now.
#[test]
fn a_reader_is_told_what_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let redex = small(dir.path());
    let other = redex.open_file("other", config()).unwrap();
    append(&other, 20, 0);
    let file = redex.open_file("log", config()).unwrap();
    append(&file, 500, 0);
    let reader = Redex::open_read_only(dir.path()).unwrap();
    let (followed, beside) = (reader.open_file("log").unwrap(), reader.open_file("other").unwrap());
    let (mut tail, mut next) = (followed.tail(0), 0);
    let mut lives = vec![0; 500];
    for (life, end) in [(1, 480), (2, 120), (3, 119), (4, 0), (5, 3)] {
        while next < file.next_seq() {
            assert_eq!(tail.next_wait().unwrap().unwrap().seq, next);
            next += 1;
        }
        let (had, there) = (tail.cursor(), file.next_seq());
        file.truncate_suffix(end).wait().unwrap();
        match tail.next_wait().unwrap() {
            Err(TailEnd::Lost { from, to, .. }) => assert_eq!((from, to), (end, there)),
            other => panic!("life {life}: {other:?}"),
        }
        next = end;
        lives.truncate(end as usize);
        append(&file, end + 200, life);
        lives.resize(end as usize + 200, life);
        followed.wait_published(end + 199).wait().unwrap();
        check(&followed, |seq| lives[seq as usize]);
        // A cursor of before is told the same; those of writer and reader are the same.
        assert!(matches!(followed.tail(had).next_wait(), Some(Err(TailEnd::Lost { from, .. })) if from == end));
        assert_eq!(followed.cursor(), file.cursor());
        // Another channel's epoch stays that of the run.
        append(&other, other.next_seq() + 5, 0);
        beside.wait_published(other.next_seq() - 1).wait().unwrap();
        assert_eq!(beside.cursor(), other.cursor());
        assert_eq!(beside.subscribe_from(other.cursor()).wait().unwrap().cursor(), other.cursor());
    }
    let cursor = followed.cursor();
    redex.close().wait().unwrap();
    let redex = small(dir.path());
    let file = redex.open_file("log", config()).unwrap();
    assert_eq!(file.tail(cursor).cursor().seq, cursor.seq);
    append(&file, 300, 5);
    lives.resize(300, 5);
    followed.wait_published(299).wait().unwrap();
    check(&followed, |seq| lives[seq as usize]);
    // The tail goes over to the new run without a loss.
    while next < 300 {
        assert_eq!(tail.next_wait().unwrap().unwrap().seq, next);
        next += 1;
    }
    assert_eq!(tail.cursor(), file.cursor());
    redex.close().wait().unwrap();
}

/// A deleted channel ends its readers; a namesake is another channel.
#[test]
fn a_reader_of_a_deleted_channel_comes_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let redex = small(dir.path());
    append(&redex.open_file("log", config()).unwrap(), 300, 0);
    let reader = Redex::open_read_only(dir.path()).unwrap();
    let followed = reader.open_file("log").unwrap();
    followed.wait_published(299).wait().unwrap();
    let mut tail = followed.subscribe_from(300).wait().unwrap();
    redex.delete_channel("log").wait().unwrap();
    assert!(tail.next_wait().is_none());
    assert!(matches!(tail.ended(), Some(TailEnd::Closed)), "{:?}", tail.ended());
    assert!(matches!(reader.open_file("log"), Err(OpenFileError::NoSuchChannel { .. })));
    append(&redex.open_file("log", config()).unwrap(), 10, 1);
    let mark = redex.open_file("mark", config()).unwrap();
    append(&mark, 1, 0);
    let again = loop {
        if let Ok(file) = reader.open_file("log") {
            break file;
        }
        std::thread::yield_now();
    };
    again.wait_published(9).wait().unwrap();
    check(&again, |_| 1);
    redex.close().wait().unwrap();
}

/// A batch over two channels: who sees the one part can see the other.
#[test]
fn a_batch_is_shown_whole() {
    let dir = tempfile::tempdir().unwrap();
    let redex = small(dir.path());
    let files = ["a", "b"].map(|name| redex.open_file(name, config()).unwrap());
    files.iter().for_each(|file| append(file, 1, 0));
    let reader = Redex::open_read_only(dir.path()).unwrap();
    let followed = ["a", "b"].map(|name| {
        loop {
            if let Ok(file) = reader.open_file(name) {
                break file;
            }
            std::thread::yield_now();
        }
    });
    for round in 1..100 {
        let mut batch = redex.batch();
        for file in &files {
            batch.append(file, payload(round, 0));
        }
        batch.commit().wait().unwrap();
        // Channels are shown one after the other, in one poll: the second has it once a later event of it is there.
        followed[1].wait_published(round).wait().unwrap();
        followed[0].wait_published(round).wait().unwrap();
    }
    followed.iter().for_each(|file| check(file, |_| 0));
    redex.close().wait().unwrap();
}

/// A channel that was in memory, and had dropped events there, begins at its first event in the store.
#[test]
fn a_channel_that_was_in_memory_is_followed_from_its_first_event() {
    let dir = tempfile::tempdir().unwrap();
    let redex = small(dir.path());
    let volatile = RedexFileConfig::default().with_retention_max_events(100);
    let file = redex.open_file("log", volatile).unwrap();
    for seq in 0..5000 {
        file.append(payload(seq, 0)).wait().unwrap();
    }
    append(&redex.open_file("other", config()).unwrap(), 1, 0);
    let reader = Redex::open_read_only(dir.path()).unwrap();
    let file = redex.open_file("log", config()).unwrap();
    append(&file, 5100, 0);
    let followed = loop {
        if let Ok(file) = reader.open_file("log") {
            break file;
        }
        std::thread::yield_now();
    };
    followed.wait_published(5099).wait().unwrap();
    assert!(followed.head_seq() > 0, "what was dropped in memory is not in the store");
    check(&followed, |_| 0);
    let first = followed.tail(0).next_wait();
    assert!(matches!(first, Some(Err(TailEnd::Lagged { from: 0, to, .. })) if to == followed.head_seq()), "{first:?}");
    redex.close().wait().unwrap();
}
