//! A second opening for reading only, beside the writer: in this process, as `Redex::open_read_only` knows no difference.
//! `tests/second_process.rs` has the processes.

use redex::{FsyncPolicy, OpenError, OpenFileError, Redex, RedexBuilder, RedexFile, RedexFileConfig};

fn small(dir: &std::path::Path) -> RedexBuilder {
    Redex::builder().persistent_dir(dir).journal_segment_bytes(256 << 10).checkpoint_bytes(256 << 10).shards(2)
}

fn config() -> RedexFileConfig {
    RedexFileConfig::default()
        .with_persistent(true)
        .with_fsync_policy(FsyncPolicy::EveryN(1))
        .with_segment_bytes(64 << 10)
}

/// Payload of an event: its length and bytes follow from channel and sequence.
fn payload(channel: u64, seq: u64) -> Vec<u8> {
    let len = match seq % 7 {
        0 => seq % 9,
        1 => 5000,
        _ => 20 + seq * 13 % 700,
    };
    (0..len).map(|i| (channel * 31 + seq * 7 + i) as u8).collect()
}

fn append(file: &RedexFile, channel: u64, count: u64) {
    for seq in file.next_seq()..file.next_seq() + count {
        assert_eq!(file.append_durable(payload(channel, seq)).wait().unwrap(), seq);
    }
}

#[test]
fn a_store_that_is_not_there_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    for path in [dir.path(), &none] {
        let error = Redex::open_read_only(path).unwrap_err();
        assert!(matches!(&error, OpenError::NoStore { path: named } if named == path), "{error}");
    }
    assert!(!none.exists(), "nothing was made");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_closed_store_is_read_whole_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let redex = small(dir.path()).build().unwrap();
    for channel in 0..3 {
        append(&redex.open_file(format!("c/{channel}"), config()).unwrap(), channel, 300);
    }
    redex.close().wait().unwrap();
    let before = files(dir.path());
    let reader = Redex::open_read_only(dir.path()).unwrap();
    assert_eq!(reader.channels().len(), 3);
    assert_eq!(reader.channels_with_prefix("c/1").len(), 1);
    let error = reader.open_file("no/such").unwrap_err();
    assert!(matches!(error, OpenFileError::NoSuchChannel { .. }), "{error}");
    for channel in 0..3 {
        let file = reader.open_file(format!("c/{channel}")).unwrap();
        let events = file.read_range(0, u64::MAX).wait().unwrap();
        assert_eq!(events.len(), 300);
        for event in &events {
            assert_eq!(event.payload, payload(channel, event.seq), "{}", event.seq);
        }
        assert_eq!(file.read_one(299).wait().unwrap().unwrap(), events[299]);
        assert_eq!(file.durable(), 300);
    }
    drop(reader);
    assert_eq!(files(dir.path()), before);
}

/// Names and times of all files.
fn files(dir: &std::path::Path) -> Vec<(std::path::PathBuf, std::time::SystemTime, u64)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            all.extend(files(&entry.path()))
        } else {
            all.push((entry.path(), meta.modified().unwrap(), meta.len()))
        }
    }
    all.sort();
    all
}

/// A tail goes from history into what comes, over rolls, checkpoints, seals, a close and an open of the writer.
#[test]
fn a_tail_follows_the_writer_over_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut redex = small(dir.path()).build().unwrap();
    let mut file = redex.open_file("log", config()).unwrap();
    append(&file, 1, 50);
    let reader = Redex::open_read_only(dir.path()).unwrap();
    let followed = reader.open_file("log").unwrap();
    let mut tail = followed.tail(0);
    let (mut next, mut checkpoints) = (0, 0);
    for round in 0..12 {
        append(&file, 1, 100);
        if round % 4 == 3 {
            checkpoints += redex.stats().checkpoints;
            redex.close().wait().unwrap();
            redex = small(dir.path()).build().unwrap();
            file = redex.open_file("log", config()).unwrap();
        }
        while next < file.next_seq() {
            let event = tail.next_wait().unwrap().unwrap();
            assert_eq!((event.seq, &event.payload[..]), (next, &payload(1, next)[..]));
            next += 1;
        }
    }
    assert!(checkpoints > 3, "{checkpoints}");
    let again = followed.read_range(0, u64::MAX).wait().unwrap();
    assert_eq!(again.len() as u64, next);
    assert!(again.iter().all(|event| event.payload == payload(1, event.seq)));
}
