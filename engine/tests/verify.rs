//! A check of a channel finds every damage, names it, and goes on behind it.

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use redex::{Backend, Damage, ReadError, Redex, RedexFile, RedexFileConfig, VerifyReport};
use support::{fill, payload, persistent, scratch};

const EVENTS: u64 = 2000;

fn open(dir: &Path) -> (Redex, RedexFile) {
    let builder = Redex::builder().persistent_dir(dir).backend(Backend::Posix).shards(1).journal_segment_bytes(1 << 20);
    let redex = builder.build().unwrap();
    let file = redex.open_file("checked", persistent().with_segment_bytes(256 << 10)).unwrap();
    (redex, file)
}

/// A closed store with sealed segments and an active one.
fn filled() -> tempfile::TempDir {
    let dir = scratch();
    let (redex, file) = open(dir.path());
    for start in (0..EVENTS).step_by(10) {
        fill(&file, start..start + 10);
    }
    redex.close().wait().unwrap();
    dir
}

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

/// Changes one byte.
fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn verify(dir: &Path) -> VerifyReport {
    let (_redex, file) = open(dir);
    // What readers have checked before is checked again.
    file.read_from(0).blocking().for_each(drop);
    file.verify().wait()
}

/// Nothing is wrong: on disk, in memory, both at once.
#[test]
fn a_whole_channel_is_clean() {
    let dir = filled();
    let bytes: u64 = (0..EVENTS).map(|seq| payload(seq).len() as u64).sum();
    let (_redex, file) = open(dir.path());
    let report = file.verify().wait();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.events, EVENTS);
    assert_eq!(report.segments, files(dir.path(), "idx").len() as u64 - 1, "all but the active one");
    assert!(report.segments > 5 && report.bytes > bytes);
    fill(&file, EVENTS..EVENTS + 50);
    let report = file.verify().wait();
    assert!(report.is_clean() && report.events == EVENTS + 50, "{report:?}");

    let memory = Redex::in_memory().open_file("memory", RedexFileConfig::default()).unwrap();
    (0..EVENTS).for_each(|seq| assert_eq!(memory.append(payload(seq)).wait().unwrap(), seq));
    let report = memory.verify().wait();
    assert!(report.is_clean() && report.events == EVENTS && report.segments == 0, "{report:?}");
}

/// One damage in each kind of place: found, named, and nothing else.
#[test]
fn each_damage_is_named_and_the_rest_is_checked() {
    type Expected = fn(&Damage) -> bool;
    // In the idx of a sealed segment: an index block, the footer. In dat: a payload.
    let cases: [(&str, i64, Expected); 3] = [
        ("idx", 100, |damage| matches!(damage, Damage::Read(ReadError::Index { .. }))),
        ("idx", -4000, |damage| matches!(damage, Damage::Footer(_))),
        ("dat", 7000, |damage| matches!(damage, Damage::Read(ReadError::Payload { .. }))),
    ];
    for (kind, at, expected) in cases {
        let dir = filled();
        let path = &files(dir.path(), kind)[2];
        let at = if at < 0 { path.metadata().unwrap().len() - at.unsigned_abs() } else { at.unsigned_abs() };
        flip(path, at);
        let report = verify(dir.path());
        let [finding] = &report.findings[..] else { panic!("{kind} at {at}: {report:?}") };
        assert!(expected(&finding.damage), "{finding}");
        assert!(path.ends_with(&finding.file) && finding.offset <= at && at < finding.offset + 16_384, "{finding}");
        assert!(finding.from < finding.to && finding.to < EVENTS, "{finding}");
        let affected = if kind == "idx" && at > 4096 * 2 { 0 } else { finding.to - finding.from };
        assert!(report.events == EVENTS - affected || matches!(finding.damage, Damage::Footer(_)), "{report:?}");
    }
}

/// Many at once, files that are cut and files that are gone: each is found, and what is whole is counted.
#[test]
fn it_goes_on_behind_damage() {
    let dir = filled();
    let (idx, dat) = (files(dir.path(), "idx"), files(dir.path(), "dat"));
    flip(&idx[0], 0);
    flip(&dat[1], 5000);
    flip(&dat[1], 60_000);
    OpenOptions::new().write(true).open(&dat[3]).unwrap().set_len(8192).unwrap();
    std::fs::remove_file(&idx[4]).unwrap();
    std::fs::remove_file(&dat[5]).unwrap();
    let report = verify(dir.path());
    for path in [&idx[0], &dat[1], &dat[3], &idx[4], &dat[5]] {
        assert!(report.findings.iter().any(|finding| path.ends_with(&finding.file)), "{}: {report:#?}", path.display());
    }
    assert_eq!(report.findings.iter().filter(|finding| dat[1].ends_with(&finding.file)).count(), 2);
    assert!(report.events > EVENTS / 3 && report.events < EVENTS, "{report:?}");
    let (_redex, file) = open(dir.path());
    let readable = (0..EVENTS).filter(|seq| file.read_one(*seq).wait().is_ok()).count();
    assert_eq!(report.events, readable as u64);
}

/// Under a runtime the steps run on the store's reading thread, while appends go on.
#[tokio::test]
async fn a_future_checks_beside_appends() {
    let dir = filled();
    let (_redex, file) = open(dir.path());
    let verify = file.verify();
    let appended = file.append_durable(b"meanwhile").await.unwrap();
    let report = verify.await;
    assert_eq!((report.is_clean(), report.events), (true, appended), "what comes after the call is not checked");
}
