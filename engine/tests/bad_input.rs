//! Bad input, wrong places and damaged files: each has its own clear error, and nothing is lost by it.

mod support;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use redex::{
    AppendError, Backend, FsyncPolicy, OpenError, OpenFileError, ReadError, Redex, RedexBuilder, RedexFileConfig,
    TailEnd,
};

use support::{
    ChildTest, check, child_dir, copy_dir, files, fill, flip, open, payload, persistent, scratch, tell, text,
};
use support::{try_open, wait_until};

/// Bytes of a block.
const BLOCK: usize = 4096;

/// Tries every kind of bad name through the door, in memory and on disk.
#[test]
fn bad_channel_names_are_refused() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let long = "x".repeat(256);
    let bad = [
        "", "/", "//", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "a/..", "a/../b", "../a", "a\0b", "a\nb", "\u{7f}",
        "a\u{85}b", &long,
    ];
    for name in bad {
        for config in [RedexFileConfig::default(), persistent()] {
            let error = redex.open_file(name, config).unwrap_err();
            assert!(matches!(error, OpenFileError::Name(_)), "{name:?}: {error}");
        }
    }
    assert_eq!(redex.channels(), []);
}

/// Names that are alike, or that a file system could not tell apart, are channels of their own.
#[test]
fn no_two_names_meet_on_disk() {
    let dir = scratch();
    let longest = "x".repeat(255);
    let names =
        ["a", "A", "a/b", "a\\b", "a b", "\u{e9}", "e\u{301}", "...", "a/...", "*", "%2e", "LOCK", "STORE", &longest];
    {
        let redex = open(dir.path(), Backend::Auto);
        for name in names {
            // More than a block, so that each gets files of its own.
            let file = redex.open_file(name, persistent()).unwrap();
            file.append(name.repeat(5000 / name.len() + 1)).wait().unwrap();
        }
        redex.close().wait().unwrap();
    }
    let redex = open(dir.path(), Backend::Auto);
    assert_eq!(redex.channels().len(), names.len());
    for name in names {
        let file = redex.open_file(name, persistent()).unwrap();
        assert_eq!(file.len(), 1, "{name}");
        assert_eq!(file.read_one(0).wait().unwrap().unwrap().payload, name.repeat(5000 / name.len() + 1));
    }
}

/// A persistent channel needs a place; the error names the channel, and the store in memory goes on.
#[test]
fn persistent_channel_without_base_directory_is_refused() {
    let redex = Redex::new();
    let error = redex.open_file("lost", persistent()).unwrap_err();
    assert!(matches!(&error, OpenFileError::NoBaseDirectory { channel } if channel.as_str() == "lost"), "{error}");
    redex.open_file("lost", RedexFileConfig::default()).unwrap().append(b"x").wait().unwrap();
}

/// Setting a directory, and looking, change nothing on disk: the first persistent channel makes the store.
#[test]
fn base_directory_is_untouched_until_a_persistent_channel_is_opened() {
    let dir = scratch();
    let base = dir.path().join("store");
    let redex = Redex::new().with_persistent_dir(dir.path().join("elsewhere")).with_persistent_dir(&base);
    let memory = redex.open_file("memory", RedexFileConfig::default()).unwrap();
    memory.append(b"x").wait().unwrap();
    let names = |redex: &Redex| redex.channels().iter().map(|info| info.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&redex), ["memory"]);
    assert_eq!(redex.stats().commits, 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is on disk");
    fill(&redex.open_file("disk", persistent()).unwrap(), 0..10);
    assert!(base.join("STORE").exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the directory that was set last");
    redex.close().wait().unwrap();
    drop((redex, memory));
    // What lies there is known once the store is open.
    let redex = Redex::new().with_persistent_dir(&base);
    assert_eq!(names(&redex), [""; 0]);
    redex.open_file("another", persistent()).unwrap();
    assert_eq!(names(&redex), ["another", "disk"]);
}

/// A store that is open stays where it is, and who wanted it elsewhere is told; nobody else.
#[test]
fn base_directory_of_an_open_store_stays() {
    let dir = scratch();
    let (base, other) = (dir.path().join("store"), dir.path().join("other"));
    for open_at_once in [false, true] {
        let redex = if open_at_once { Redex::open(&base).unwrap() } else { Redex::new().with_persistent_dir(&base) };
        let file = redex.open_file("a", persistent()).unwrap();
        let moved = redex.clone().with_persistent_dir(&other);
        for name in ["a", "b"] {
            let error = moved.open_file(name, persistent()).unwrap_err();
            match &error {
                OpenFileError::BaseDirectoryConflict { channel, present, wanted } => {
                    assert_eq!((channel.as_str(), present, wanted), (name, &base, &other));
                }
                _ => panic!("{error}"),
            }
            let text = error.to_string();
            assert!(text.contains(base.to_str().unwrap()) && text.contains(other.to_str().unwrap()), "{text}");
        }
        moved.open_file("memory", RedexFileConfig::default()).unwrap().append(b"x").wait().unwrap();
        redex.open_file("b", persistent()).unwrap().append_durable(b"x").wait().unwrap();
        moved.with_persistent_dir(&base).open_file("b", persistent()).unwrap();
        file.append_durable(b"x").wait().unwrap();
        assert!(!other.exists());
        redex.close().wait().unwrap();
    }
}

/// Opens the channel a second time, with each setting changed in turn.
#[test]
fn open_channel_refuses_another_configuration() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let config = persistent().with_fsync_policy(FsyncPolicy::EveryN(5)).with_segment_bytes(1 << 20);
    let file = redex.open_file("a", config.clone()).unwrap();
    let others = [
        ("persistent", config.clone().with_persistent(false)),
        ("fsync_policy", config.clone().with_fsync_policy(FsyncPolicy::EveryN(6))),
        ("segment_bytes", config.clone().with_segment_bytes(2 << 20)),
    ];
    for (expected, other) in others {
        match redex.open_file("a", other) {
            Err(OpenFileError::ConfigConflict { setting, channel, .. }) => {
                assert_eq!((setting, channel.as_str()), (expected, "a"));
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    fill(&file, 0..3);
    check(&redex.open_file("a", config).unwrap(), 0..3);
}

/// Reopens the store: what decides the form on disk stays, the policy may change.
#[test]
fn stored_channel_refuses_another_form() {
    let dir = scratch();
    let config = persistent().with_segment_bytes(1 << 20);
    let redex = open(dir.path(), Backend::Auto);
    fill(&redex.open_file("a", config.clone()).unwrap(), 0..3);
    redex.close().wait().unwrap();
    let redex = open(dir.path(), Backend::Auto);
    for (expected, other) in
        [("segment_bytes", config.clone().with_segment_bytes(2 << 20)), ("persistent", RedexFileConfig::default())]
    {
        match redex.open_file("a", other) {
            Err(OpenFileError::ConfigConflict { setting, .. }) => assert_eq!(setting, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    check(&redex.open_file("a", config.with_fsync_policy(FsyncPolicy::EveryN(1))).unwrap(), 0..3);
}

/// Each setting outside of its range, by the builder and by the channel's configuration; no file is made.
#[test]
fn settings_out_of_range_are_refused() {
    let dir = scratch();
    let base = dir.path().join("store");
    type Set = fn(RedexBuilder) -> RedexBuilder;
    let bad: [(&str, Set); 15] = [
        ("journal_segment_bytes", |b| b.journal_segment_bytes(4096)),
        ("journal_segment_bytes", |b| b.journal_segment_bytes((64 << 10) + 512)),
        ("journal_segment_bytes", |b| b.journal_segment_bytes(2 << 30)),
        ("shards", |b| b.shards(0)),
        ("shards", |b| b.shards(65)),
        ("commit_depth", |b| b.commit_depth(0)),
        ("commit_depth", |b| b.commit_depth(9)),
        ("page_budget_bytes", |b| b.page_budget_bytes(4096)),
        ("checkpoint_bytes", |b| b.checkpoint_bytes(1)),
        ("payload_size_max", |b| b.payload_size_max(0)),
        ("extent_bytes", |b| b.extent_bytes(1)),
        ("write_behind", |b| b.write_behind(Duration::ZERO)),
        ("write_behind", |b| b.write_behind(Duration::from_micros(99))),
        ("write_behind", |b| b.write_behind(Duration::from_millis(1001))),
        ("write_behind", |b| b.write_behind(Duration::MAX)),
    ];
    for (expected, set) in bad {
        match set(Redex::builder().persistent_dir(&base)).build() {
            Err(OpenError::Setting { setting, .. }) => assert_eq!(setting, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert!(!base.exists());
    let redex = Redex::in_memory();
    for bytes in [0, 4096, 4 << 30] {
        let error = redex.open_file("a", RedexFileConfig::default().with_segment_bytes(bytes)).unwrap_err();
        assert!(matches!(error, OpenFileError::Setting { setting: "segment_bytes", .. }), "{error}");
    }
}

/// One byte above each limit, by every call; then the limit itself.
#[test]
fn payloads_and_batches_above_their_limits_are_refused() {
    let dir = scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(1).payload_size_max(1 << 20).build().unwrap();
    let file = redex.open_file("a", persistent()).unwrap();
    let (most, above) = (vec![1; 1 << 20], vec![1; (1 << 20) + 1]);
    let refused = [
        file.append(&above).wait(),
        file.append_durable(&above).wait(),
        file.try_append(&above),
        file.append_batch(&[&most, &above]).wait().map(|seqs| seqs.start),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert!(matches!(error, AppendError::TooLarge { size: 1_048_577, limit: 1_048_576, .. }), "{error}");
    }
    let error = file.append_inline([0; 9]).wait().unwrap_err();
    assert!(matches!(error, AppendError::NotInline { size: 9, .. }), "{error}");
    let batch = vec![&most; 64];
    let mut too_big = batch.clone();
    let one = vec![1];
    too_big.push(&one);
    let error = file.append_batch(&too_big).wait().unwrap_err();
    assert!(matches!(error, AppendError::BatchTooLarge { size: 67_108_865, count: 65, .. }), "{error}");
    let error = file.append_batch(&vec![b""; (1 << 20) + 1]).wait().unwrap_err();
    assert!(matches!(error, AppendError::BatchTooLarge { size: 0, count: 1_048_577, .. }), "{error}");
    assert_eq!(file.next_seq(), 0);
    assert_eq!(file.append_batch_durable(&batch).wait().unwrap(), 0..64);
    assert_eq!(file.append_durable(&most).wait().unwrap(), 64);
    for event in file.read_from(0).blocking() {
        assert_eq!(event.unwrap().payload, most);
    }
}

/// Without a setting the limit is 16 MiB.
#[test]
fn payload_limit_is_sixteen_mebibytes_unless_set() {
    let redex = Redex::in_memory();
    let file = redex.open_file("a", RedexFileConfig::default()).unwrap();
    let error = file.append(vec![0; (16 << 20) + 1]).wait().unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { limit: 16_777_216, .. }), "{error}");
    assert_eq!(file.append(vec![7; 16 << 20]).wait().unwrap(), 0);
    assert_eq!(file.read_one(0).wait().unwrap().unwrap().payload, vec![7; 16 << 20]);
}

/// A file where the directory should be, and one on the way to it.
#[test]
fn base_directory_that_is_a_file_is_refused() {
    let dir = scratch();
    let file = dir.path().join("file");
    fs::write(&file, b"mine").unwrap();
    let error = Redex::open(&file).unwrap_err();
    assert!(matches!(&error, OpenError::NotADirectory { path } if *path == file), "{error}");
    let error = Redex::open(file.join("below")).unwrap_err();
    assert!(text(&error).contains("file/below"), "{}", text(&error));
    // The first persistent channel opens the store, and returns its error.
    let redex = Redex::new().with_persistent_dir(&file);
    let error = redex.open_file("a", persistent()).unwrap_err();
    let OpenFileError::Store(cause) = &error else { panic!("{error}") };
    assert!(matches!(**cause, OpenError::NotADirectory { .. }));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

/// Unmounts when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

/// A directory without write permission; for root, whom permissions do not stop, a file system mounted read-only.
#[test]
fn base_directory_that_is_not_writable_is_refused() {
    let dir = scratch();
    let base = dir.path().join("base");
    fs::create_dir(&base).unwrap();
    let mut mounted = None;
    if support::is_root() {
        let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "tmpfs"]).arg(&base).status();
        if !mount.is_ok_and(|status| status.success()) {
            support::skip("this is root, and nothing can be mounted: no directory is read-only for it");
            return;
        }
        mounted = Some(Mounted(base.clone()));
    } else {
        let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o555);
        fs::set_permissions(&base, read_only).unwrap();
    }
    let error = Redex::open(&base).unwrap_err();
    let OpenError::Io { path, source, .. } = &error else { panic!("{error}") };
    assert!(path.starts_with(&base), "{}", text(&error));
    assert!(matches!(source.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied), "{}", text(&error));
    drop(mounted);
}

/// Opens a store and holds it until it is killed.
#[test]
#[ignore = "a child process of another test"]
fn child_holds_the_store() {
    let Some(dir) = child_dir() else { return };
    let redex = open(&dir, Backend::Auto);
    let file = redex.open_file("a", persistent()).unwrap();
    fill(&file, file.next_seq()..file.next_seq() + 10);
    tell("open");
    loop {
        std::thread::park();
    }
}

/// A process that runs has the store: the error names it, and its death frees the store.
#[test]
fn second_process_is_refused_and_told_who_holds_the_store() {
    let dir = scratch();
    let mut child = ChildTest::spawn("child_holds_the_store", dir.path());
    assert_eq!(child.hear().as_deref(), Some("open"));
    match try_open(dir.path(), Backend::Auto) {
        Err(OpenError::InUse { path, holder }) => {
            assert_eq!(path, dir.path());
            assert!(holder.contains(&format!("pid: {}", child.id())), "{holder}");
        }
        other => panic!("{other:?}"),
    }
    child.kill();
    check(&open(dir.path(), Backend::Auto).open_file("a", persistent()).unwrap(), 0..10);
}

/// The same process cannot open it twice either; after a close it can.
#[test]
fn second_open_in_one_process_is_refused() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let error = try_open(dir.path(), Backend::Auto).unwrap_err();
    assert!(text(&error).contains(&format!("pid: {}", std::process::id())), "{}", text(&error));
    fill(&redex.open_file("a", persistent()).unwrap(), 0..3);
    redex.close().wait().unwrap();
    check(&open(dir.path(), Backend::Auto).open_file("a", persistent()).unwrap(), 0..3);
    let error = redex.open_file("b", persistent()).unwrap_err();
    assert!(matches!(error, OpenFileError::Closed), "{error}");
}

/// A store that was closed, with a channel of sealed segments and an end that fills no block.
fn closed_store() -> tempfile::TempDir {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("a", small_segments()).unwrap();
    for first in (0..400).step_by(8) {
        fill(&file, first..first + 8);
    }
    redex.close().wait().unwrap();
    dir
}

fn small_segments() -> RedexFileConfig {
    persistent().with_segment_bytes(64 << 10)
}

fn check_closed_store(dir: &Path) {
    check(&open(dir, Backend::Auto).open_file("a", small_segments()).unwrap(), 0..400);
}

/// Writes another version into both copies of STORE, with the right checksum.
#[test]
fn store_of_a_newer_format_is_refused() {
    let dir = closed_store();
    let path = dir.path().join("STORE");
    let mut bytes = fs::read(&path).unwrap();
    for copy in bytes.chunks_mut(BLOCK) {
        copy[8] = 2;
        let len = u32::from_le_bytes(copy[12..16].try_into().unwrap()) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&copy[..16]), &copy[20..20 + len]);
        copy[16..20].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&path, &bytes).unwrap();
    let error = text(&try_open(dir.path(), Backend::Auto).unwrap_err());
    assert!(error.contains("STORE") && error.contains("version 2"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "an error changes nothing");
}

/// Either copy of STORE is enough; without both the error names file and offsets.
#[test]
fn flipped_bit_in_store_leaves_the_other_copy() {
    for copy in 0..2 {
        let dir = closed_store();
        flip(&dir.path().join("STORE"), copy * BLOCK + 24);
        check_closed_store(dir.path());
    }
    let dir = closed_store();
    flip(&dir.path().join("STORE"), 24);
    flip(&dir.path().join("STORE"), BLOCK + 24);
    let error = try_open(dir.path(), Backend::Auto).unwrap_err();
    assert!(matches!(error, OpenError::Superblock { .. }), "{error}");
    let error = text(&error);
    assert!(error.contains("STORE") && error.contains("offset 0") && error.contains("offset 4096"), "{error}");
}

/// Takes STORE away from a store that has channels: no new one hides them.
#[test]
fn missing_store_file_is_told() {
    let dir = closed_store();
    fs::remove_file(dir.path().join("STORE")).unwrap();
    let error = text(&try_open(dir.path(), Backend::Auto).unwrap_err());
    assert!(error.contains("STORE"), "{error}");
    assert!(!dir.path().join("STORE").exists());
}

/// META of a channel with blocks on disk: a flipped bit, a file that is cut or gone, each is found when the channel is
/// opened; other channels do not mind.
#[test]
fn damaged_meta_is_found() {
    let dir = closed_store();
    let [path] = &files(dir.path(), "META")[..] else { panic!("one channel has files") };
    let intact = fs::read(path).unwrap();
    let damages: [&dyn Fn(); 4] =
        [&|| flip(path, 3), &|| flip(path, 30), &|| fs::write(path, &intact[..25]).unwrap(), &|| {
            fs::remove_file(path).unwrap()
        }];
    for (i, damage) in damages.into_iter().enumerate() {
        damage();
        let redex = open(dir.path(), Backend::Auto);
        let error = redex.open_file("a", small_segments()).unwrap_err();
        let OpenFileError::Meta { channel, path: found, offset: 0, .. } = &error else { panic!("{i}: {error}") };
        assert_eq!((channel.as_str(), found), ("a", path));
        let told = text(&error);
        assert!(told.contains(path.to_str().unwrap()) && told.contains("offset 0"), "{i}: {told}");
        redex.open_file(format!("other {i}"), small_segments()).unwrap();
        redex.close().wait().unwrap();
        fs::write(path, &intact).unwrap();
    }
    check_closed_store(dir.path());
}

/// The error of a damaged store names the file as the user knows it: beneath the base directory.
#[test]
fn errors_of_the_open_name_paths_in_the_base_directory() {
    let dir = closed_store();
    let path = |suffix| files(dir.path(), suffix).into_iter().find(|p| !p.to_str().unwrap().contains("spare")).unwrap();
    let intact = fs::read(path(".ckp")).unwrap();
    flip(&path(".ckp"), 40);
    let error = text(&try_open(dir.path(), Backend::Auto).unwrap_err());
    assert!(error.contains(path(".ckp").to_str().unwrap()), "{error}");
    fs::write(path(".ckp"), intact).unwrap();
    fs::write(dir.path().join("STORE"), b"").unwrap();
    let error = text(&try_open(dir.path(), Backend::Auto).unwrap_err());
    assert!(error.contains(dir.path().join("STORE").to_str().unwrap()), "{error}");
}

/// Flips a bit in each block of the checkpoint file in turn: its head and states are found at opening the store, a tail
/// at opening its channel.
#[test]
fn flipped_bit_in_a_checkpoint_file_is_found() {
    let dir = closed_store();
    let [path] = &files(dir.path(), ".ckp")[..] else { panic!("one checkpoint file is left") };
    let intact = fs::read(path).unwrap();
    let used = intact.len() - intact.iter().rev().take_while(|byte| **byte == 0).count();
    for offset in [0, 9, 40, used / 2, used - 1] {
        flip(path, offset);
        let opened = try_open(dir.path(), Backend::Auto).map_err(|error| {
            assert!(matches!(error, OpenError::Checkpoint { .. }), "{error}");
            text(&error)
        });
        let error = opened.and_then(|redex| {
            redex.open_file("a", small_segments()).map(|_| ()).map_err(|error| {
                assert!(matches!(error, OpenFileError::Damaged { .. }), "{error}");
                text(&error)
            })
        });
        let error = error.expect_err("a flipped bit is found");
        assert!(error.contains(".ckp") && error.contains("offset"), "byte {offset}: {error}");
        fs::write(path, &intact).unwrap();
    }
}

/// The files of a store whose process was killed: a copy taken while it is open and quiet, and what it acknowledged.
fn crash_image(events: u64) -> tempfile::TempDir {
    let (live, image) = (scratch(), scratch());
    let redex = open(live.path(), Backend::Auto);
    let file = redex.open_file("a", persistent()).unwrap();
    for seq in 0..events {
        fill(&file, seq..seq + 1);
    }
    wait_until("the witness of the last commit", || redex.stats().idle_commits > 0);
    let quiet = redex.stats();
    wait_until("a quiet store", || redex.stats().idle_commits > 0 && redex.stats().commits == quiet.commits);
    // A witness is counted when it is written, not when it has landed: the next commit waits for it.
    let before = redex.stats().idle_commits;
    file.append_durable(payload(events)).wait().unwrap();
    wait_until("the witness of the last commit", || redex.stats().idle_commits > before);
    copy_dir(live.path(), image.path());
    image
}

/// Offsets of the blocks of a journal segment that begin a commit: they have the magic number of the first one.
fn commits_in(journal: &[u8]) -> Vec<usize> {
    let magic = &journal[BLOCK..BLOCK + 4];
    (BLOCK..journal.len()).step_by(BLOCK).filter(|at| &journal[*at..*at + 4] == magic).collect()
}

/// Flips a bit in the header, a commit's header, its records and its payload: all were durable, as a later commit says.
#[test]
fn flipped_bit_in_the_journal_after_a_kill_is_found() {
    let image = crash_image(12);
    check(&copied(&image).1, 0..13);
    let [path] = &files(&image.path().join("journal"), ".wal")
        .into_iter()
        .filter(|p| !p.to_str().unwrap().contains("spare"))
        .collect::<Vec<_>>()[..]
    else {
        panic!("one segment is in use")
    };
    let intact = fs::read(path).unwrap();
    // Where the machine is slow there are witnesses among them, which end before their first records would.
    let has_records = |at: &usize| intact[at + 100..at + 200].iter().any(|byte| *byte != 0);
    let commit = commits_in(&intact).into_iter().filter(has_records).nth(5).unwrap();
    for (offset, at) in
        [(10, 0), (commit + 2, commit), (commit + 20, commit), (commit + 70, commit), (commit + 150, commit)]
    {
        flip(path, offset);
        let error = try_open(image.path(), Backend::Auto).unwrap_err();
        assert!(matches!(error, OpenError::Journal { .. }), "byte {offset}: {error}");
        let error = text(&error);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name) && error.contains(&format!("offset {at}")), "byte {offset}: {error}");
        fs::write(path, &intact).unwrap();
    }
    check(&copied(&image).1, 0..13);
}

/// Opens a copy of the image.
fn copied(image: &tempfile::TempDir) -> (tempfile::TempDir, redex::RedexFile, Redex) {
    let copy = scratch();
    copy_dir(image.path(), copy.path());
    let redex = open(copy.path(), Backend::Auto);
    let file = redex.open_file("a", persistent()).unwrap();
    (copy, file, redex)
}

/// Flips a bit in the last commit, of which nothing says that it was durable: it is a torn tail and cut, and all before
/// it is there. (It is a witness without events.)
#[test]
fn flipped_bit_in_the_last_commit_is_a_torn_tail() {
    let image = crash_image(12);
    let path = &files(&image.path().join("journal/000"), ".wal")
        .into_iter()
        .find(|path| !path.to_str().unwrap().contains("spare"))
        .unwrap();
    let last = *commits_in(&fs::read(path).unwrap()).last().unwrap();
    flip(path, last + 20);
    check(&copied(&image).1, 0..13);
}

/// After a clean close STORE names the journal's end: damage there is found too, and told with file and offset.
#[test]
fn flipped_bit_at_the_clean_end_of_the_journal_is_found() {
    let dir = closed_store();
    let path = files(&dir.path().join("journal/000"), ".wal")
        .into_iter()
        .filter(|path| !path.to_str().unwrap().contains("spare"))
        .max()
        .unwrap();
    let intact = fs::read(&path).unwrap();
    let last = *commits_in(&intact).last().unwrap();
    for (offset, at) in [(10, 0), (last + 20, last), (last + 70, last)] {
        flip(&path, offset);
        let error = try_open(dir.path(), Backend::Auto).unwrap_err();
        assert!(matches!(error, OpenError::Journal { .. }), "byte {offset}: {}", text(&error));
        let error = text(&error);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name) && error.contains(&format!("offset {at}")), "byte {offset}: {error}");
        fs::write(&path, &intact).unwrap();
    }
    check_closed_store(dir.path());
}

/// Reads all events one by one; gives those that cannot be read with their errors.
fn unreadable(dir: &Path) -> Vec<(u64, ReadError)> {
    let redex = open(dir, Backend::Auto);
    let file = redex.open_file("a", small_segments()).unwrap();
    let mut bad = Vec::new();
    for seq in 0..400 {
        match file.read_one(seq).wait() {
            Ok(event) => assert_eq!(event.unwrap().payload, payload(seq), "event {seq}"),
            Err(error) => bad.push((seq, error)),
        }
    }
    bad
}

/// Damages the first block of the second segment's index: its events cannot be read, all others can.
#[test]
fn flipped_bit_in_an_index_block_is_found() {
    let dir = closed_store();
    let path = &files(dir.path(), ".idx")[1];
    flip(path, 100);
    let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let bad = unreadable(dir.path());
    assert!(!bad.is_empty() && bad.len() <= 204, "{}", bad.len());
    let name = path.file_name().unwrap().to_str().unwrap();
    for (i, (seq, error)) in bad.iter().enumerate() {
        assert_eq!(*seq, first + i as u64);
        match error {
            ReadError::Index { file, offset: 0, from, to, .. } => {
                assert!(file.ends_with(name) && (*from..*to).contains(seq), "{error}");
            }
            error => panic!("{error}"),
        }
    }
}

/// Damages one byte of payload: one event cannot be read, and a stream of results goes on behind it.
#[test]
fn flipped_bit_in_a_payload_is_found() {
    let dir = closed_store();
    let path = &files(dir.path(), ".dat")[0];
    // Events 0 and 1 are inline, 2 and 3 are too short or 9 bytes: byte 60 lies in event 4.
    flip(path, 60);
    let bad = unreadable(dir.path());
    let [(4, ReadError::Payload { seq: 4, file, offset, len: 100, .. })] = &bad[..] else { panic!("{bad:?}") };
    assert!(file.ends_with(path.file_name().unwrap().to_str().unwrap()) && (*offset..*offset + 100).contains(&60));
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("a", small_segments()).unwrap();
    let mut tail = file.subscribe_from(0).wait().unwrap();
    assert_eq!(std::iter::from_fn(|| tail.next_wait()).count(), 4);
    assert!(matches!(tail.ended(), Some(TailEnd::Unreadable(ReadError::Payload { seq: 4, .. }))), "{:?}", tail.ended());
    let mut tail = file.subscribe_from(0).wait().unwrap().results();
    file.close().wait().unwrap();
    let items: Vec<_> = std::iter::from_fn(|| tail.next_wait()).collect();
    assert_eq!(items.len(), 400);
    assert_eq!(items.iter().filter(|item| item.is_err()).count(), 1);
}

/// Polls a future or stream to its end, and counts how often it had to wait.
fn polled<T>(waits: &mut usize, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(std::future::poll_fn(|cx| {
        let polled = poll(cx);
        *waits += usize::from(polled.is_pending());
        polled
    }))
}

/// The same damage, found by futures and streams: they read beside the executor, on the store's reading thread.
#[test]
fn flipped_bit_in_a_payload_is_found_by_futures() {
    let dir = closed_store();
    flip(&files(dir.path(), ".dat")[0], 60);
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("a", small_segments()).unwrap();
    let is_damage = |error: &ReadError| matches!(error, ReadError::Payload { seq: 4, len: 100, .. });
    let mut waits = 0;

    let mut range = file.read_range(0, 10);
    let error = polled(&mut waits, |cx| Pin::new(&mut range).poll(cx)).unwrap_err();
    assert!(is_damage(&error), "{error}");
    for seq in 0..10 {
        let mut one = file.read_one(seq);
        match polled(&mut waits, |cx| Pin::new(&mut one).poll(cx)) {
            Ok(event) => assert_eq!(event.unwrap().payload, payload(seq), "event {seq}"),
            Err(error) => assert!(seq == 4 && is_damage(&error), "event {seq}: {error}"),
        }
    }
    assert!(waits > 0, "nothing is read on the thread that polls");

    let mut scan = file.scan(0..400);
    for seq in 0..4 {
        assert_eq!(polled(&mut waits, |cx| Pin::new(&mut scan).poll_next(cx)).unwrap().unwrap().seq, seq);
    }
    let error = polled(&mut waits, |cx| Pin::new(&mut scan).poll_next(cx)).unwrap().unwrap_err();
    assert!(is_damage(&error), "{error}");
    assert!(polled(&mut waits, |cx| Pin::new(&mut scan).poll_next(cx)).is_none(), "a scan ends at damage");

    let mut tail = file.subscribe_from(0).wait().unwrap();
    for seq in 0..4 {
        assert_eq!(polled(&mut waits, |cx| Pin::new(&mut tail).poll_next(cx)).unwrap().seq, seq);
    }
    assert!(polled(&mut waits, |cx| Pin::new(&mut tail).poll_next(cx)).is_none());
    assert!(matches!(tail.ended(), Some(TailEnd::Unreadable(error)) if is_damage(error)), "{:?}", tail.ended());

    let mut results = file.tail(0);
    for seq in 0..400 {
        match polled(&mut waits, |cx| Pin::new(&mut results).poll_next(cx)).unwrap() {
            Ok(event) => assert_eq!((event.seq, event.payload.to_vec()), (seq, payload(seq))),
            Err(TailEnd::Unreadable(error)) => assert!(seq == 4 && is_damage(&error), "event {seq}: {error}"),
            Err(other) => panic!("{other}"),
        }
    }
    file.close().wait().unwrap();
    assert!(polled(&mut waits, |cx| Pin::new(&mut results).poll_next(cx)).is_none());
    assert!(matches!(results.ended(), Some(TailEnd::Closed)), "{:?}", results.ended());
}

/// Cuts the files of a segment, and takes them away: the error tells which events are gone.
#[test]
fn cut_and_missing_segment_files_are_told() {
    for suffix in [".idx", ".dat"] {
        for cut in [true, false] {
            let dir = closed_store();
            let path = &files(dir.path(), suffix)[1];
            if cut {
                fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
            let bad = unreadable(dir.path());
            assert!(!bad.is_empty(), "{suffix}, cut: {cut}");
            for (_, error) in bad {
                let told = text(&error);
                assert!(told.contains(path.file_name().unwrap().to_str().unwrap()), "{suffix}, cut {cut}: {told}");
            }
        }
    }
}

/// Cuts a dat file in the middle: a stream of results delivers or names every event once, and names only those whose payloads
/// are behind the cut.
#[test]
fn a_shortened_dat_file_hides_no_other_event() {
    let dir = closed_store();
    let path = &files(dir.path(), ".dat")[1];
    let half = fs::metadata(path).unwrap().len() / 2;
    fs::File::options().write(true).open(path).unwrap().set_len(half).unwrap();
    let redex = open(dir.path(), Backend::Auto);
    let file = redex.open_file("a", small_segments()).unwrap();
    let mut results = file.tail(0);
    file.close().wait().unwrap();
    let (mut next, mut missing) = (0, 0);
    while let Some(item) = results.next_wait() {
        match item {
            Ok(event) => {
                assert_eq!((event.seq, event.payload.to_vec()), (next, payload(next)));
                next += 1;
            }
            Err(TailEnd::Unreadable(ReadError::Missing { file, from, to, .. })) => {
                assert!(path.ends_with(&file), "{file}");
                assert_eq!(from, next);
                assert!((from..to).all(|seq| payload(seq).len() > 8), "those in their records are readable");
                missing += to - from;
                next = to;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(next, 400);
    drop((file, redex));
    let one_by_one = unreadable(dir.path()).len() as u64;
    assert!(missing == one_by_one && missing > 1, "{missing} are named, {one_by_one} cannot be read one by one");
}
