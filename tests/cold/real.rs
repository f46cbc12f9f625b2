//! A real directory as the store, `object_store` as the cold store, threads and all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use redex::{ColdStore, ObjectStoreCold, ReadError, Redex, RedexFile, RedexFileConfig};

use super::payload;

fn open(dir: &Path, bucket: &Arc<dyn ObjectStore>) -> Redex {
    open_with(dir, ObjectStoreCold::new(bucket.clone(), "archive/of this").unwrap())
}

fn open_with(dir: &Path, cold: ObjectStoreCold) -> Redex {
    let builder =
        Redex::builder().persistent_dir(dir).shards(1).journal_segment_bytes(1 << 20).checkpoint_bytes(64 << 10);
    builder.cold_store(Arc::new(cold)).cold_cache_bytes(1 << 20).build().unwrap()
}

fn config() -> RedexFileConfig {
    let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(64 << 10);
    config.with_cold_keep_bytes(128 << 10)
}

fn fill(file: &RedexFile, end: u64) {
    for seq in file.next_seq()..end {
        assert_eq!(file.append(payload(seq)).wait().unwrap(), seq);
    }
    file.sync().wait().unwrap();
}

fn check(file: &RedexFile, end: u64) {
    let events = file.read_range(0, end).wait().unwrap();
    assert_eq!(events.len() as u64, end);
    assert!(events.iter().all(|event| event.payload == payload(event.seq)));
}

fn local_pairs(dir: &Path) -> usize {
    let mut count = 0;
    for fan in fs::read_dir(dir.join("channels")).unwrap() {
        for channel in fs::read_dir(fan.unwrap().path()).unwrap() {
            let files = fs::read_dir(channel.unwrap().path()).unwrap();
            count +=
                files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "idx")).count();
        }
    }
    count
}

/// Looks until the passes of the store's own thread have sent so many segments away.
fn wait_for_uploads(redex: &Redex, uploads: u64) {
    let until = Instant::now() + Duration::from_secs(30);
    while redex.stats().cold.unlinked < uploads {
        assert!(Instant::now() < until, "{:?}", redex.stats().cold);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn segments_go_to_a_bucket_by_themselves_and_come_back_through_every_read() {
    let archive = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let buckets: [Arc<dyn ObjectStore>; 2] =
        [Arc::new(InMemory::new()), Arc::new(LocalFileSystem::new_with_prefix(archive.path()).unwrap())];
    for (bucket, zstd) in buckets.iter().zip([None, Some(3)]) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let redex = open(dir.path(), bucket);
        let file = redex.open_file("audit", config().with_cold_zstd(zstd)).unwrap();
        fill(&file, 300);
        wait_for_uploads(&redex, 8);
        check(&file, 300);
        redex.close().wait().unwrap();
        drop((redex, file));
        let redex = open(dir.path(), bucket);
        let file = redex.open_file("audit", config().with_cold_zstd(zstd)).unwrap();
        file.sweep_cold().wait().unwrap();
        assert!(local_pairs(dir.path()) <= 4, "{}", local_pairs(dir.path()));
        check(&file, 300);
        let cold = file.read_cold(0, 300).wait().unwrap();
        assert!(cold.len() > 200 && cold.iter().all(|event| event.payload == payload(event.seq)));
        let count = file.rebuild_cold_manifest().wait().unwrap();
        assert!(count >= 15, "{count}");
        check(&file, 300);
        assert_eq!(redex.stats().cold.failed_passes, 0);
        redex.close().wait().unwrap();
    }
}

#[test]
fn a_directory_is_an_archive_that_is_flushed() {
    let archive = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cold = || ObjectStoreCold::directory(archive.path().join("made/by it")).unwrap();
    let redex = open_with(dir.path(), cold());
    let file = redex.open_file("audit", config()).unwrap();
    fill(&file, 200);
    wait_for_uploads(&redex, 5);
    redex.close().wait().unwrap();
    drop((redex, file));
    let redex = open_with(dir.path(), cold());
    let file = redex.open_file("audit", config()).unwrap();
    check(&file, 200);
    assert!(!file.read_cold(0, 200).wait().unwrap().is_empty());
    redex.close().wait().unwrap();
    let made = archive.path().join("made");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&made), mode(&made.join("by it"))), (0o700, 0o700));
    let objects = objects(&made);
    assert!(objects.len() >= 5 && objects.iter().all(|path| mode(path) == 0o600), "{objects:?}");
}

/// Every file below a directory.
fn objects(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { objects(&path) } else { vec![path] }).collect()
}

/// Readers read all the while that segments go: each event is there, wherever it is at that moment.
#[test]
fn readers_do_not_notice_when_a_segment_goes() {
    let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let redex = open(dir.path(), &bucket);
    let file = redex.open_file("audit", config()).unwrap();
    let mut tail = file.subscribe_from(0).wait().unwrap();
    let follower = std::thread::spawn(move || {
        let mut next = 0;
        while let Some(event) = tail.next_wait() {
            assert_eq!((event.seq, &*event.payload), (next, &*payload(next)));
            next += 1;
        }
        (next, tail.ended().map(ToString::to_string))
    });
    for end in (50..=600).step_by(50) {
        fill(&file, end);
        check(&file, end);
    }
    assert!(redex.stats().cold.unlinked > 10, "{:?}", redex.stats().cold);
    redex.close().wait().unwrap();
    let (followed, why) = follower.join().unwrap();
    assert_eq!(followed, 600, "{why:?}");
}

#[test]
fn a_bucket_that_is_gone_is_named_and_does_not_stop_appends() {
    let archive = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bucket: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(archive.path()).unwrap());
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let redex = open(dir.path(), &bucket);
    let file = redex.open_file("audit", config()).unwrap();
    fill(&file, 200);
    wait_for_uploads(&redex, 5);
    redex.close().wait().unwrap();
    drop((redex, file));
    fs::rename(archive.path().join("archive"), archive.path().join("elsewhere")).unwrap();
    fs::write(archive.path().join("archive"), b"in the way").unwrap();
    let redex = open(dir.path(), &bucket);
    let file = redex.open_file("audit", config()).unwrap();
    let error = file.read_range(0, 10).wait().unwrap_err();
    assert!(matches!(error, ReadError::Cold { .. }), "{error}");
    fill(&file, 260);
    assert_eq!(file.read_range(259, 260).wait().unwrap()[0].payload, payload(259));
    // What went meanwhile is nowhere else: nothing did.
    assert_eq!(redex.stats().cold.uploads, 0);
    fs::remove_file(archive.path().join("archive")).unwrap();
    fs::rename(archive.path().join("elsewhere"), archive.path().join("archive")).unwrap();
    check(&file, 260);
    redex.close().wait().unwrap();
}

/// More than one part of an upload, and what the adapter says at the edges.
#[test]
fn the_adapter_keeps_what_the_trait_promises() {
    let archive = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let buckets: [Arc<dyn ObjectStore>; 2] =
        [Arc::new(InMemory::new()), Arc::new(LocalFileSystem::new_with_prefix(archive.path()).unwrap())];
    for bucket in buckets {
        for prefix in ["", "a/b"] {
            let cold = ObjectStoreCold::new(bucket.clone(), prefix).unwrap();
            let part = |i: u8| bytes::Bytes::from(vec![i; 3 << 20]);
            cold.put("x/1/big.seg", &mut (0..7).map(|i| Ok(part(i)))).unwrap();
            cold.put("x/1/small.seg", &mut [Ok(bytes::Bytes::from_static(b"abc"))].into_iter()).unwrap();
            let size = 21 << 20;
            let range = cold.get_range("x/1/big.seg", (3 << 20) - 2..(3 << 20) + 2).unwrap();
            assert_eq!(&range[..], [0, 0, 1, 1]);
            assert_eq!(cold.get_range("x/1/big.seg", size - 1..size + 1).unwrap().len(), 1);
            let mut listed = cold.list("x/1/").unwrap();
            listed.sort_by(|a, b| a.key.cmp(&b.key));
            let listed: Vec<_> = listed.iter().map(|object| (object.key.as_str(), object.size)).collect();
            assert_eq!(listed, [("x/1/big.seg", size), ("x/1/small.seg", 3)]);
            assert_eq!(cold.list("x/2/").unwrap(), []);
            // A source that fails leaves no object.
            let failing =
                &mut (0..5).map(|i| if i < 4 { Ok(part(i)) } else { Err(std::io::Error::other("on purpose")) });
            assert_eq!(cold.put("x/1/torn.seg", failing).unwrap_err().to_string(), "on purpose");
            let gone = cold.get_range("x/1/torn.seg", 0..1).unwrap_err();
            assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
            for key in ["x/1/big.seg", "x/1/small.seg", "x/1/small.seg"] {
                cold.delete(key).unwrap();
            }
            assert_eq!(cold.list("x/").unwrap(), []);
        }
    }
}
