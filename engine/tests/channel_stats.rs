//! What `file.stats()` and the facts in `redex.stats()` say.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use redex::{ChannelStats, Redex, RedexFile, RedexFileConfig};

use support::{persistent, scratch, wait_until};

fn open(dir: &Path) -> Redex {
    Redex::builder().persistent_dir(dir).shards(1).build().unwrap()
}

/// Bytes of all files of channels, but META, as far as they are used: what was allocated ahead is behind the end of sealed
/// files only while they are active.
fn segment_bytes(dir: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.path() {
        path if path.is_dir() => segment_bytes(&path),
        path if path.ends_with("META") => 0,
        _ => entry.metadata().unwrap().size(),
    };
    fs::read_dir(dir).map_or(0, |entries| entries.map(|entry| size(entry.unwrap())).sum())
}

fn append(file: &RedexFile, count: u64, size: usize) {
    for _ in 0..count {
        file.append(vec![5; size]).wait().unwrap();
    }
}

#[test]
fn an_empty_channel_has_nothing() {
    let dir = scratch();
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    let mut expected = ChannelStats::default();
    expected.segments = 1;
    assert_eq!(file.stats(), expected);
}

#[test]
fn marks_bytes_and_lag_follow_the_events() {
    let dir = scratch();
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    let before = SystemTime::now() - Duration::from_millis(100);
    append(&file, 100, 300);
    append(&file, 10, 8);
    let stats = file.stats();
    assert_eq!((stats.head_seq, stats.next_seq, stats.durable_seq, stats.events), (0, 110, 0, 110));
    assert_eq!(stats.lag_events, 110);
    // At most a block is left over where a page ends.
    assert!((30_000..30_000 + stats.pages * 4096).contains(&stats.bytes), "{stats:?}");
    assert!(stats.pages >= 1 && stats.page_bytes >= 30_000, "{stats:?}");
    let time = stats.last_time.unwrap().to_system_time();
    assert!(time > before && time < SystemTime::now() + Duration::from_secs(1));
    wait_until("a lag", || file.stats().lag > Duration::from_millis(20));
    file.sync().wait().unwrap();
    let stats = file.stats();
    assert_eq!((stats.written_seq, stats.durable_seq, stats.lag_events, stats.lag), (110, 110, 0, Duration::ZERO));

    redex.close().wait().unwrap();
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    let reopened = file.stats();
    assert_eq!((reopened.next_seq, reopened.durable_seq, reopened.bytes), (110, 110, stats.bytes));
    assert_eq!((reopened.last_time, reopened.pages), (stats.last_time, 0));
    // No index block is full.
    assert_eq!((reopened.segments, reopened.disk_bytes), (1, stats.bytes / 4096 * 4096));
    append(&file, 3, 300);
    assert_eq!((file.stats().bytes, file.stats().next_seq), (stats.bytes + 900, 113));
}

/// Several segments: what the statistics say lies on disk is what the files have, once they are sealed.
#[test]
fn segments_are_counted_with_their_bytes() {
    let dir = scratch();
    let redex = open(dir.path());
    let config = persistent().with_segment_bytes(1 << 20);
    let file = redex.open_file("a", config.clone()).unwrap();
    append(&file, 1000, 5000);
    file.sync().wait().unwrap();
    redex.close().wait().unwrap();
    let redex = open(dir.path());
    let file = redex.open_file("a", config).unwrap();
    let stats = file.stats();
    assert!((4..=8).contains(&stats.segments), "{stats:?}");
    assert!(stats.bytes >= 5_000_000 && stats.bytes < 5_000_000 + stats.segments * 300 * 4096, "{stats:?}");
    let on_disk = segment_bytes(&dir.path().join("channels"));
    let ahead = on_disk.checked_sub(stats.disk_bytes).expect("the files have what is told");
    assert!(ahead <= 3 << 20, "only the active segment has space allocated ahead: {ahead} of {on_disk}, {stats:?}");
    assert!(stats.disk_bytes > 4_900_000);
}

#[test]
fn in_memory_everything_is_durable_at_once() {
    let redex = Redex::in_memory();
    let file = redex.open_file("a", RedexFileConfig::default()).unwrap();
    append(&file, 20, 100);
    let stats = file.stats();
    assert_eq!((stats.next_seq, stats.written_seq, stats.durable_seq, stats.lag_events), (20, 20, 20, 0));
    assert_eq!((stats.bytes, stats.disk_bytes, stats.segments), (2000, 0, 1));
    assert!(stats.last_time.is_some());
}

#[test]
fn the_store_tells_how_it_is_now() {
    let dir = scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(2).page_budget_bytes(8 << 20).build().unwrap();
    assert_eq!((redex.stats().channels, redex.stats().open_channels), (0, 0));
    let files: Vec<_> = (0..10).map(|i| redex.open_file(format!("c{i}"), persistent()).unwrap()).collect();
    files.iter().for_each(|file| append(file, 1, 100));
    let stats = redex.stats();
    assert_eq!((stats.channels, stats.open_channels, stats.page_budget_bytes), (10, 10, 8 << 20));
    assert!(stats.page_bytes >= 10 * 4096 && stats.page_bytes < 1 << 20, "{stats:?}");
    assert_eq!((stats.shards_behind, stats.shards_without_space, stats.shards_stopped), (0, 0, 0));
    files[0].append_durable(vec![1; 1 << 20]).wait().unwrap();
    assert!(redex.stats().open_segment_files >= 1);
    let shards = redex.shard_stats();
    assert_eq!(shards.len(), 2);
    assert_eq!(shards.iter().map(|stats| stats.channels).sum::<u64>(), 10);
    assert_eq!(shards.iter().map(|stats| stats.open_channels).sum::<u64>(), 10);
    files.iter().for_each(|file| file.sync().wait().unwrap());
    assert_eq!(redex.shard_stats().iter().map(|stats| stats.events).sum::<u64>(), redex.stats().events);
    wait_until("nothing unwritten", || redex.stats().unwritten_age.is_zero());
    redex.close().wait().unwrap();
    drop((files, redex));
    let redex = open(dir.path());
    assert_eq!((redex.stats().channels, redex.stats().open_channels), (10, 0));
}

#[test]
fn channels_are_listed_by_prefix() {
    let dir = scratch();
    let names = |redex: &Redex, prefix: &str| -> Vec<String> {
        redex.channels_with_prefix(prefix).iter().map(|info| info.name.as_str().to_owned()).collect()
    };
    let all = ["a/1", "a/2", "ab", "b/1"];
    let redex = open(dir.path());
    all.iter().for_each(|name| _ = redex.open_file(*name, persistent()).unwrap());
    redex.open_file("a/memory", RedexFileConfig::default()).unwrap();
    assert_eq!(names(&redex, "a/"), ["a/1", "a/2", "a/memory"]);
    redex.close().wait().unwrap();
    drop(redex);
    let redex = open(dir.path());
    redex.open_file("a/2", persistent()).unwrap();
    assert_eq!(names(&redex, "a/"), ["a/1", "a/2"]);
    assert_eq!(names(&redex, "a/2"), ["a/2"]);
    assert_eq!(names(&redex, "c"), Vec::<String>::new());
    assert_eq!(names(&redex, ""), all);
    let open: Vec<bool> = redex.channels_with_prefix("a/").iter().map(|info| info.open).collect();
    assert_eq!(open, [false, true]);
}
