//! Sealed segments are read from their mapping; whatever is done to their files, a reader gets the events or an error.

mod support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use redex::{Backend, EventChunk, ReadError, Redex, RedexFile, RedexFileConfig};
use support::{check, fill, payload, persistent, scratch};

const SEGMENT_BYTES: u64 = 64 << 10;
const EVENTS: u64 = 2000;

fn config() -> RedexFileConfig {
    persistent().with_segment_bytes(SEGMENT_BYTES)
}

fn open(dir: &Path, mapped_bytes_max: Option<u64>) -> (Redex, RedexFile) {
    let builder = Redex::builder().persistent_dir(dir).backend(Backend::Posix).shards(1).journal_segment_bytes(1 << 20);
    let redex = match mapped_bytes_max {
        None => builder,
        Some(bytes) => builder.mapped_bytes_max(bytes),
    };
    let redex = redex.build().unwrap();
    let file = redex.open_file("warm", config()).unwrap();
    (redex, file)
}

/// A closed store with many sealed segments.
fn filled() -> tempfile::TempDir {
    let dir = scratch();
    let (redex, file) = open(dir.path(), None);
    for start in (0..EVENTS).step_by(10) {
        fill(&file, start..start + 10);
    }
    redex.close().wait().unwrap();
    dir
}

/// Files of this kind, the oldest first.
fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.join("channels")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                dirs.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == kind) {
                found.push(entry);
            }
        }
    }
    found.sort();
    found
}

fn write(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

/// Bytes of the store's files that this process has mapped.
fn mapped(dir: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let size = |line: &str| {
        let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        u64::from_str_radix(to, 16).unwrap() - u64::from_str_radix(from, 16).unwrap()
    };
    maps.lines().filter(|line| line.contains(dir.to_str().unwrap())).map(size).sum()
}

/// Reads all events as chunks: those that are whole are as appended. Gives their number and the first error.
fn visit(file: &RedexFile) -> (u64, Option<ReadError>) {
    let mut next = 0;
    let result = file
        .read_from(0)
        .for_each_ref(|event| {
            assert_eq!((event.seq, event.payload), (next, &payload(next)[..]));
            next += 1;
        })
        .wait();
    if let Ok(count) = result {
        assert_eq!(count, next);
    }
    (next, result.err())
}

fn names_file(error: &ReadError, path: &Path) -> bool {
    let (ReadError::Missing { file, .. }
    | ReadError::Index { file, .. }
    | ReadError::Payload { file, .. }
    | ReadError::Io { file, .. }) = error
    else {
        return false;
    };
    path.ends_with(file)
}

/// Every way to read gives what was appended, from mappings and without any.
#[test]
fn every_event_is_read_with_and_without_mappings() {
    let dir = filled();
    for bytes in [None, Some(0), Some(200 << 10)] {
        let (redex, file) = open(dir.path(), bytes);
        for _ in 0..2 {
            check(&file, 0..EVENTS);
            assert!(matches!(visit(&file), (EVENTS, None)));
        }
        for seq in (0..EVENTS).rev().step_by(7) {
            assert_eq!(file.read_one(seq).wait().unwrap().unwrap().payload, payload(seq));
        }
        let events = file.read_range(100, 1900).wait().unwrap();
        assert!(events.iter().zip(100..1900).all(|(event, seq)| event.seq == seq && event.payload == payload(seq)));
        match bytes {
            None => assert!(mapped(dir.path()) > 3 << 20, "{} bytes are mapped", mapped(dir.path())),
            Some(max) => assert!(mapped(dir.path()) <= max, "{} bytes are mapped", mapped(dir.path())),
        }
        drop((file, redex));
    }
}

/// Chunks are where they should be, and give their events borrowed and shared.
#[test]
fn chunks_follow_each_other() {
    let dir = filled();
    let (_redex, file) = open(dir.path(), None);
    let mut scan = file.scan(5..EVENTS - 3);
    let first = scan.next_wait().unwrap().unwrap();
    assert_eq!(first.seq, 5);
    let mut next = 6;
    let mut kept: Vec<EventChunk> = Vec::new();
    while let Some(chunk) = scan.next_chunk().wait() {
        let chunk = chunk.unwrap();
        assert_eq!(chunk.first_seq(), next);
        assert_eq!(chunk.iter().len(), chunk.len());
        for (i, event) in chunk.iter().enumerate() {
            assert_eq!(event.to_event(), chunk.event(i));
            assert_eq!(event.payload, payload(event.seq));
        }
        next = chunk.end_seq();
        scan.check(&chunk).unwrap();
        kept.push(chunk);
    }
    assert_eq!(next, EVENTS - 3);
    assert!(kept.len() > 10, "{} chunks", kept.len());
}

/// What payloads hold stays mapped and counts; readers go on without mappings, and map again when it is let go.
#[test]
fn held_payloads_count_until_they_are_dropped() {
    let dir = filled();
    let bytes = 200 << 10;
    let (_redex, file) = open(dir.path(), Some(bytes));
    let held: Vec<_> = file.read_range(0, EVENTS).wait().unwrap();
    let while_held = mapped(dir.path());
    assert!((SEGMENT_BYTES..=bytes).contains(&while_held), "{while_held} bytes are mapped");
    check(&file, 0..EVENTS);
    assert!(mapped(dir.path()) <= bytes, "{} bytes are mapped", mapped(dir.path()));
    assert!(held.iter().all(|event| event.payload == payload(event.seq) && event.payload.is_intact()));
    let owned = held[3].payload.clone().into_bytes();
    drop(held);
    assert_eq!(owned, payload(3));
    assert!(matches!(visit(&file), (EVENTS, None)));
}

/// A sealed file is cut before anything of it was mapped: at a block, within one, and to nothing.
#[test]
fn a_file_cut_before_it_is_mapped_is_an_error() {
    for (kind, size) in [("dat", 0), ("dat", 4096), ("dat", 9000), ("idx", 0), ("idx", 4096), ("idx", 5000)] {
        let dir = filled();
        let path = &files(dir.path(), kind)[3];
        write(path).set_len(size).unwrap();
        let (_redex, file) = open(dir.path(), None);
        for _ in 0..2 {
            match visit(&file) {
                (shown, Some(error)) => {
                    assert!((1..EVENTS).contains(&shown));
                    assert!(names_file(&error, path), "{kind} cut to {size}: {error:?}");
                }
                // What was cut off the idx was its footer alone.
                (shown, None) => assert_eq!((kind, shown, size > 0), ("idx", EVENTS, true)),
            }
        }
    }
}

/// A sealed file is cut, or scribbled on, after all of it was mapped, read and checked: readers find it all the same.
#[test]
fn a_file_changed_after_it_was_read_is_an_error() {
    type Change = fn(&File);
    let changes: [(&str, Change); 6] = [
        ("dat", |file| file.set_len(0).unwrap()),
        ("dat", |file| file.set_len(4096).unwrap()),
        // Within a page: nothing raises a signal.
        ("dat", |file| file.set_len(5000).unwrap()),
        // The size is what it was.
        ("dat", |file| {
            let size = file.metadata().unwrap().len();
            file.set_len(100).unwrap();
            file.set_len(size).unwrap();
        }),
        ("dat", |file| file.write_all_at(b"something else that another program has written", 6000).unwrap()),
        ("idx", |file| file.set_len(0).unwrap()),
    ];
    for (i, (kind, change)) in changes.into_iter().enumerate() {
        let dir = filled();
        let (_redex, file) = open(dir.path(), None);
        assert!(matches!(visit(&file), (EVENTS, None)));
        let path = &files(dir.path(), kind)[3];
        change(&write(path));
        for _ in 0..2 {
            let (shown, error) = visit(&file);
            assert!((1..EVENTS).contains(&shown), "change {i}");
            assert!(error.as_ref().is_some_and(|error| names_file(error, path)), "change {i}: {error:?}");
        }
        // The others are as before.
        let last = file.read_one(EVENTS - 1).wait().unwrap().unwrap();
        assert_eq!(last.payload, payload(EVENTS - 1));
    }
}

/// The file is cut while a chunk and payloads of it are held: they read as zeros, and say so.
#[test]
fn a_file_cut_while_it_is_looked_at_ends_nothing_but_the_scan() {
    let dir = filled();
    let (_redex, file) = open(dir.path(), None);
    let held = file.read_range(0, 40).wait().unwrap();
    assert!(mapped(dir.path()) > 0);
    let mut scan = file.scan(0..40);
    let chunk = scan.next_chunk().wait().unwrap().unwrap();
    scan.check(&chunk).unwrap();
    write(&files(dir.path(), "dat")[0]).set_len(0).unwrap();
    let event = held.iter().find(|event| event.payload.len() == 5000).unwrap();
    assert!(event.payload.iter().all(|byte| *byte == 0));
    assert!(!event.payload.is_intact());
    assert!(chunk.iter().all(|event| event.payload.len() <= 8 || event.payload.iter().all(|byte| *byte == 0)));
    let error = scan.check(&chunk).unwrap_err();
    assert!(matches!(error, ReadError::Io { .. }), "{error:?}");
}

/// Within a page nothing raises a signal: a held payload says so all the same. And a file that is removed stays what it was.
#[test]
fn a_held_payload_tells_any_cut_and_outlives_its_file() {
    let dir = filled();
    let (_redex, file) = open(dir.path(), None);
    let held = file.read_range(0, 200).wait().unwrap();
    let dats = files(dir.path(), "dat");
    std::fs::remove_file(&dats[0]).unwrap();
    assert!(held.iter().all(|event| event.payload == payload(event.seq) && event.payload.is_intact()));
    write(&dats[1]).set_len(5000).unwrap();
    let cut = held.iter().filter(|event| !event.payload.is_intact()).count();
    assert!(cut > 10 && cut < 200, "those of the second segment: {cut}");
}

/// A file that was cut is put back while the store is open: everything is read again, and checked again.
#[test]
fn a_file_put_back_is_read_again() {
    let dir = filled();
    let (_redex, file) = open(dir.path(), None);
    assert!(matches!(visit(&file), (EVENTS, None)));
    let path = &files(dir.path(), "dat")[2];
    let bytes = std::fs::read(path).unwrap();
    write(path).set_len(4096).unwrap();
    assert!(visit(&file).1.is_some());
    write(path).write_all_at(&bytes, 0).unwrap();
    assert!(matches!(visit(&file), (EVENTS, None)));
}

/// The same under a runtime: chunks come from the store's reading thread.
#[tokio::test]
async fn futures_read_chunks() {
    let dir = filled();
    let (_redex, file) = open(dir.path(), None);
    let mut bytes = 0;
    let count = file.read_from(0).for_each_ref(|event| bytes += event.payload.len()).await.unwrap();
    assert_eq!((count, bytes), (EVENTS, (0..EVENTS).map(|i| payload(i).len()).sum()));
    let mut scan = file.scan(10..20);
    assert_eq!(scan.next_chunk().await.unwrap().unwrap().first_seq(), 10);
}
