//! What a channel's limits drop, and what they leave: on disk and in memory, while it runs and after a reopen.

use std::path::Path;
use std::time::Duration;

use redex::{ReadError, Redex, RedexFile, RedexFileConfig, Retention, TailEnd};

mod support;

const KIB: u64 = 1 << 10;

fn config() -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(true)
}

/// Both kinds of store, with the settings that each takes.
fn stores() -> [(Redex, Option<tempfile::TempDir>); 2] {
    let dir = support::scratch();
    [(Redex::in_memory(), None), (Redex::open(dir.path()).unwrap(), Some(dir))]
}

fn open(redex: &Redex, config: RedexFileConfig) -> RedexFile {
    let persistent = !redex.stats().io.backend.is_empty();
    redex.open_file("limited", config.with_persistent(persistent)).unwrap()
}

fn append(file: &RedexFile, count: u64, len: usize) {
    let from = file.next_seq();
    let payloads: Vec<Vec<u8>> = (from..from + count).map(|seq| payload(seq, len)).collect();
    for payloads in payloads.chunks(100) {
        file.append_batch(payloads).wait().unwrap();
    }
    file.sync().wait().unwrap();
}

fn payload(seq: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seq as usize * 7 + i) as u8).collect()
}

/// All events are there from the head on.
fn check(file: &RedexFile, len: usize) {
    let head = file.head_seq();
    let events = file.read_range(0, u64::MAX).wait().unwrap();
    // A head may still have been on its way.
    let first = events.first().map_or(file.next_seq(), |event| event.seq);
    assert!(head <= first);
    assert_eq!(events.len() as u64, file.next_seq() - first);
    for (event, seq) in events.iter().zip(first..) {
        assert_eq!((event.seq, event.payload.to_vec()), (seq, payload(seq, len)));
    }
}

/// Bytes of all segment files of the only channel.
fn bytes_on_disk(dir: &Path) -> u64 {
    let mut bytes = 0;
    for fan in std::fs::read_dir(dir.join("channels")).unwrap() {
        for channel in std::fs::read_dir(fan.unwrap().path()).unwrap() {
            for file in std::fs::read_dir(channel.unwrap().path()).unwrap() {
                use std::os::unix::fs::MetadataExt;
                // A file may go meanwhile.
                bytes += file.unwrap().metadata().map_or(0, |metadata| metadata.blocks() * 512);
            }
        }
    }
    bytes
}

#[test]
fn events_above_the_limit_go() {
    for (redex, _dir) in stores() {
        let file = open(&redex, config().with_retention_max_events(1000));
        append(&file, 10_000, 50);
        // A head moves with the commit behind the one that has the events.
        support::wait_until("the limit", || file.len() <= 1125);
        assert!(file.len() >= 1000, "{} events", file.len());
        check(&file, 50);
        assert_eq!(file.sweep_retention().wait().unwrap(), 9000);
        assert_eq!((file.head_seq(), file.len()), (9000, 1000));
        check(&file, 50);
    }
}

#[test]
fn a_small_limit_is_exact() {
    for (redex, _dir) in stores() {
        let file = open(&redex, config().with_retention_max_events(3));
        for count in 1..20 {
            append(&file, 1, 20);
            file.sweep_retention().wait().unwrap();
            assert_eq!(file.len(), count.min(3));
            check(&file, 20);
        }
    }
}

/// Twenty times the limit, and never more on disk than a quarter above it and a segment.
#[test]
fn bytes_on_disk_stay_near_the_limit() {
    let dir = support::scratch();
    let redex = Redex::open(dir.path()).unwrap();
    let limit = 2048 * KIB;
    let file = redex.open_file("limited", config().with_retention_max_bytes(limit)).unwrap();
    let mut most = 0;
    for _ in 0..200 {
        append(&file, 200, 1000);
        most = most.max(bytes_on_disk(dir.path()));
    }
    // What is on its way to the files lies in memory; a segment is an eighth, with its index.
    assert!(most <= limit * 5 / 4 + limit / 8 + 64 * KIB, "{most} bytes for a limit of {limit}");
    assert!(file.len() * 1020 >= limit, "{} events are too few", file.len());
    check(&file, 1000);
    file.sweep_retention().wait().unwrap();
    assert!(file.len() <= limit / 1020 && file.len() > limit / 1200, "{} events", file.len());
    check(&file, 1000);
    let (head, next) = (file.head_seq(), file.next_seq());
    redex.close().wait().unwrap();
    let redex = Redex::open(dir.path()).unwrap();
    let file = redex.open_file("limited", config().with_retention_max_bytes(limit)).unwrap();
    assert_eq!((file.head_seq(), file.next_seq()), (head, next));
    check(&file, 1000);
}

#[test]
fn bytes_in_memory_stay_near_the_limit() {
    let redex = Redex::in_memory();
    let limit = 256 * KIB;
    let file = redex.open_file("limited", RedexFileConfig::default().with_retention_max_bytes(limit)).unwrap();
    for _ in 0..200 {
        append(&file, 100, 100);
        assert!(file.len() * 120 <= limit * 5 / 4, "{} events", file.len());
    }
    check(&file, 100);
    file.sweep_retention().wait().unwrap();
    // What pages leave empty counts too.
    assert!(file.len() <= limit / 120 && file.len() > limit / 150, "{} events", file.len());
}

/// Age counts from the event's own time, so a reopen does not make it young again.
#[test]
fn age_survives_a_reopen() {
    let dir = support::scratch();
    let config = config().with_retention_max_age(Duration::from_secs(3600));
    let redex = Redex::open(dir.path()).unwrap();
    let file = redex.open_file("limited", config.clone()).unwrap();
    append(&file, 500, 10);
    assert_eq!(file.sweep_retention().wait().unwrap(), 0, "all are young");
    redex.close().wait().unwrap();
    let redex = Redex::open(dir.path()).unwrap();
    let file = redex.open_file("limited", config).unwrap();
    assert_eq!(file.sweep_retention().wait().unwrap(), 0, "all are young");
    // Older than nothing at all.
    let none = Retention { max_age: Some(Duration::ZERO), ..Retention::default() };
    let last = file.read_one(499).wait().unwrap().unwrap().time;
    while std::time::SystemTime::now() <= last.to_system_time() + Duration::from_millis(10) {
        std::thread::yield_now();
    }
    file.set_retention(none).wait().unwrap();
    assert_eq!(file.sweep_retention().wait().unwrap(), 500);
    assert!(file.is_empty());
    assert_eq!(file.append(b"next").wait().unwrap(), 500, "sequences go on");
}

/// A reader that is behind holds back as much again, then it lags: once, and it goes on at the head.
#[test]
fn a_reader_holds_back_and_then_lags() {
    for (redex, _dir) in stores() {
        let file = open(&redex, config().with_retention_max_events(100));
        append(&file, 10, 20);
        let mut results = file.tail(5);
        let mut plain = file.subscribe_from(5).wait().unwrap();
        assert_eq!(results.next_wait().unwrap().unwrap().seq, 5);
        append(&file, 150, 20);
        file.sweep_retention().wait().unwrap();
        assert_eq!(file.head_seq(), 5, "the slower one holds back");
        drop(plain.next_wait());
        append(&file, 200, 20);
        file.sweep_retention().wait().unwrap();
        assert_eq!(file.head_seq(), 160, "as much again and not more");
        let lagged = results.next_wait().unwrap().unwrap_err();
        let TailEnd::Lagged { from, to, .. } = lagged else { panic!("{lagged}") };
        assert_eq!((from, to), (6, 160));
        for seq in 160..360 {
            assert_eq!(results.next_wait().unwrap().unwrap().seq, seq);
        }
        assert!(plain.next_wait().is_none());
        assert!(matches!(plain.ended(), Some(TailEnd::Lagged { from: 6, to: 160, .. })), "{:?}", plain.ended());
        drop((results, plain));
        file.sweep_retention().wait().unwrap();
        assert_eq!(file.head_seq(), 260);
        check(&file, 20);
    }
}

#[test]
fn a_hard_limit_waits_for_nobody() {
    for (redex, _dir) in stores() {
        let file = open(&redex, config().with_retention_max_events(100).with_retention_hold(0));
        append(&file, 10, 20);
        let mut scan = file.scan(0..u64::MAX);
        append(&file, 200, 20);
        file.sweep_retention().wait().unwrap();
        assert_eq!(file.head_seq(), 110);
        // What it has in its hands it delivers.
        let error = std::iter::from_fn(|| scan.next_wait()).find_map(Result::err);
        assert!(matches!(error, None | Some(ReadError::Trimmed { to: 110, .. })), "{error:?}");
    }
}

#[test]
fn a_trimmed_head_stays_trimmed() {
    let dir = support::scratch();
    let redex = Redex::open(dir.path()).unwrap();
    let file = redex.open_file("limited", config().with_segment_bytes(64 * KIB)).unwrap();
    append(&file, 2000, 100);
    assert_eq!(file.trim_head(1500).wait().unwrap(), 1500);
    assert_eq!(file.trim_head(700).wait().unwrap(), 1500, "a head only moves forward");
    assert!(file.trim_head(2001).wait().is_err());
    check(&file, 100);
    // As after a crash: the journal is replayed.
    let copy = support::scratch();
    support::copy_dir(dir.path(), copy.path());
    drop(redex);
    for dir in [copy.path(), dir.path()] {
        let redex = Redex::open(dir).unwrap();
        let file = redex.open_file("limited", config().with_segment_bytes(64 * KIB)).unwrap();
        assert_eq!((file.head_seq(), file.next_seq()), (1500, 2000));
        check(&file, 100);
        append(&file, 500, 100);
        assert_eq!(file.trim_head(2500).wait().unwrap(), 2500);
        assert!(file.is_empty());
    }
}

#[test]
fn settings_are_changed_while_it_is_open_and_stay() {
    let dir = support::scratch();
    let redex = Redex::open(dir.path()).unwrap();
    let file = redex.open_file("limited", config()).unwrap();
    append(&file, 1000, 100);
    file.set_retention(Retention { max_events: Some(10), ..Retention::default() }).wait().unwrap();
    file.set_fsync_policy(redex::FsyncPolicy::EveryN(1)).wait().unwrap();
    append(&file, 1, 100);
    file.sweep_retention().wait().unwrap();
    assert_eq!(file.len(), 10);
    let seq = file.append(b"durable at once").wait().unwrap();
    assert!(file.durable() > seq);
    let settings = file.config();
    assert_eq!((settings.retention().max_events, settings.fsync_policy()), (Some(10), redex::FsyncPolicy::EveryN(1)));
    assert!(redex.open_file("limited", config()).is_err(), "it has other settings now");
    redex.open_file("limited", settings).unwrap();
}

/// Under `Never`, with nobody who asks for a flush, dropped segments go all the same: the one after them waits for that.
#[test]
fn space_comes_back_though_nobody_flushes() {
    let dir = support::scratch();
    let redex = Redex::open(dir.path()).unwrap();
    let limit = 1024 * KIB;
    let file = redex.open_file("limited", config().with_retention_max_bytes(limit)).unwrap();
    for _ in 0..100 {
        let from = file.next_seq();
        let payloads: Vec<Vec<u8>> = (from..from + 1000).map(|seq| payload(seq, 200)).collect();
        file.append_batch(&payloads).wait().unwrap();
    }
    support::wait_until("the limit", || bytes_on_disk(dir.path()) <= limit * 3 / 2);
    check(&file, 200);
}
