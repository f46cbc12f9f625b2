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

/// A damaged store is refused with the words that a writer would use.
#[test]
fn damage_is_told_as_a_writer_would_tell_it() {
    for (place, offset) in [("STORE", 40), ("checkpoint/000", 4100), ("journal/000", 4096 + 20)] {
        let dir = tempfile::tempdir().unwrap();
        let redex = small(dir.path()).shards(1).build().unwrap();
        append(&redex.open_file("log", config()).unwrap(), 1, 30);
        redex.close().wait().unwrap();
        let path = dir.path().join(place);
        let in_use = |path: &std::path::PathBuf| !path.to_string_lossy().contains("spare");
        let named = match path.is_dir() {
            true => files(&path).into_iter().map(|file| file.0).rfind(in_use).unwrap(),
            false => path,
        };
        let mut bytes = std::fs::read(&named).unwrap();
        for at in (offset..bytes.len()).step_by(4096) {
            bytes[at] ^= 1;
        }
        std::fs::write(&named, bytes).unwrap();
        let reader = Redex::open_read_only(dir.path()).unwrap_err().to_string();
        let writer = small(dir.path()).build().unwrap_err().to_string();
        assert_eq!(reader, writer, "{place}");
    }
}

/// The same streams on a runtime: history, payloads that went around the journal, and what comes.
#[tokio::test]
async fn a_reader_works_on_a_runtime() {
    use futures_util::StreamExt;
    let dir = tempfile::tempdir().unwrap();
    let redex = Redex::open(dir.path()).unwrap();
    let file = redex.open_file("log", RedexFileConfig::default().with_persistent(true)).unwrap();
    let big: Vec<u8> = (0..700_000_u32).map(|i| (i * 7 + i / 256) as u8).collect();
    for payload in [&b"first"[..], &big, b"between two of the large", &big[1..], b"last"] {
        file.append_durable(payload).await.unwrap();
    }
    let reader = Redex::open_read_only(dir.path()).unwrap();
    let followed = reader.open_file("log").unwrap();
    let mut tail = followed.subscribe_from(0).await.unwrap();
    for wanted in [&b"first"[..], &big, b"between two of the large", &big[1..], b"last"] {
        assert!(tail.next().await.unwrap().payload == wanted);
    }
    let (next, _) = tokio::join!(tail.next(), async { file.append_durable(&big[2..]).await.unwrap() });
    assert!(next.unwrap().payload == &big[2..]);
    assert_eq!(followed.read_range(1, 4).await.unwrap().len(), 3);
    drop((reader, followed));
    assert!(tail.next().await.is_none());
    redex.close().await.unwrap();
}
