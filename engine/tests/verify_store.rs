//! A check of a whole store names exactly what is damaged, and nothing in a store that is whole.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use redex::{FindingKind, Severity, StoreFinding, StoreReport, VerifyOptions, verify};
use support::varied::{Left, commits, open, tree, varied};
use support::{copy_dir, files, flip, scratch};

fn check(dir: &Path) -> StoreReport {
    verify(dir, &VerifyOptions::new().with_threads(2)).unwrap()
}

/// Closed, and as a crash leaves it: nothing is wrong, every event is counted, no byte is changed.
#[test]
fn a_whole_store_is_clean() {
    for left in [Left::Closed, Left::Open] {
        let (dir, contents) = varied(left);
        let before = tree(dir.path());
        let report = check(dir.path());
        assert!(report.is_clean(), "{left:?}: {report}");
        let events: usize = contents.values().map(|content| content.events.len()).sum();
        // Below the head of a trimmed channel lie whole events that its segment still has.
        assert!(report.events >= events as u64 && report.events < events as u64 + 300, "{events}: {report}");
        assert_eq!((report.closed, report.channels), (left == Left::Closed, contents.len() as u64), "{report}");
        assert!(report.segments > 10 && report.bytes > 5 << 20, "{report}");
        assert!(before == tree(dir.path()), "a check changes nothing");
    }
}

fn journal(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("journal"), ".wal").into_iter().filter(|path| !path.to_str().unwrap().contains("spare")).collect()
}

/// The damages of a report as (kind, file), each once.
fn damages(report: &StoreReport) -> Vec<(FindingKind, String)> {
    // What went with a commit is told at its place, for each channel.
    let gap = |finding: &&StoreFinding| finding.kind == FindingKind::SequenceGap;
    for finding in report.damages().filter(gap) {
        let same = |other: &StoreFinding| (&other.file, other.offset) == (&finding.file, finding.offset);
        assert!(report.damages().any(|other| other.kind != finding.kind && same(other)), "{finding}");
        assert!(finding.events.is_some() && finding.channel.is_some(), "{finding}");
    }
    let others = report.damages().filter(|finding| !gap(finding));
    let mut found: Vec<_> = others.map(|finding| (finding.kind, finding.file.clone())).collect();
    found.sort();
    found.dedup();
    found
}

fn relative(dir: &Path, path: &Path) -> String {
    path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned()
}

/// Damages one thing in a copy of the store; the report has that and nothing else.
fn expect(name: &str, original: &Path, damage: impl Fn(&Path) -> Vec<(FindingKind, PathBuf)>) -> Vec<StoreFinding> {
    let dir = scratch();
    copy_dir(original, dir.path());
    let mut expected: Vec<_> =
        damage(dir.path()).into_iter().map(|(kind, path)| (kind, relative(dir.path(), &path))).collect();
    expected.sort();
    let report = check(dir.path());
    assert_eq!(damages(&report), expected, "{name}: {report}");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<StoreReport>(&json).unwrap(), report, "{name}");
    report.damages().cloned().collect()
}

fn large(dir: &Path, suffix: &str) -> PathBuf {
    let found = files(&dir.join("channels"), suffix);
    found.into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

/// One damage in each kind of place of a closed store.
#[test]
fn each_damage_is_named_and_nothing_else() {
    let (dir, _) = varied(Left::Closed);
    let dir = dir.path();
    expect("nothing", dir, |_| Vec::new());
    for (offset, severity) in [(30, Severity::Redundant), (4096 + 30, Severity::Redundant)] {
        let found = expect("a copy of STORE", dir, |dir| {
            flip(&dir.join("STORE"), offset);
            vec![(FindingKind::StoreCopy, dir.join("STORE"))]
        });
        assert_eq!(found[0].severity, severity);
    }
    let found = expect("an index block", dir, |dir| {
        let idx = large(dir, ".idx");
        flip(&idx, 100);
        vec![(FindingKind::IndexBlock, idx)]
    });
    let events = found[0].events.clone().unwrap();
    assert_eq!((events.end - events.start, found[0].offset), (204, 0), "{found:?}");
    let found = expect("a payload", dir, |dir| {
        let dat = large(dir, ".dat");
        flip(&dat, 100);
        vec![(FindingKind::Payload, dat)]
    });
    let events = found[0].events.clone().unwrap();
    assert_eq!((events.end - events.start, found[0].offset), (1, 0), "{found:?}");
    expect("a footer", dir, |dir| {
        let idx = files(&dir.join("channels"), ".idx").remove(0);
        let size = idx.metadata().unwrap().len() as usize;
        flip(&idx, size - 4000);
        vec![(FindingKind::Footer, idx)]
    });
    expect("META", dir, |dir| {
        let meta = files(&dir.join("channels"), "META").remove(0);
        flip(&meta, 30);
        vec![(FindingKind::Meta, meta)]
    });
    expect("a state", dir, |dir| {
        let ckp = files(&dir.join("checkpoint"), ".ckp").pop().unwrap();
        flip(&ckp, 4096 + 10);
        vec![(FindingKind::CheckpointState, ckp)]
    })
    .iter()
    .for_each(|found| assert_eq!(found.offset, 4096));
    expect("the header of a checkpoint file", dir, |dir| {
        let ckp = files(&dir.join("checkpoint"), ".ckp").pop().unwrap();
        flip(&ckp, 20);
        vec![(FindingKind::CheckpointHeader, ckp)]
    });
    expect("the last commit of a journal", dir, |dir| {
        let wal = journal(dir).pop().unwrap();
        let last = *commits(&wal).last().unwrap();
        flip(&wal, last + 30);
        vec![(FindingKind::JournalCommit, wal)]
    });
}

/// Files that are gone, cut, or under another one's name.
#[test]
fn files_that_are_gone_cut_or_mixed_up_are_named() {
    let (dir, _) = varied(Left::Closed);
    let dir = dir.path();
    for suffix in [".idx", ".dat"] {
        expect("a segment file that is gone", dir, |dir| {
            let path = large(dir, suffix);
            fs::remove_file(&path).unwrap();
            vec![(FindingKind::SegmentMissing, path)]
        });
    }
    expect("a dat that is cut", dir, |dir| {
        let dat = large(dir, ".dat");
        fs::OpenOptions::new().write(true).open(&dat).unwrap().set_len(8192).unwrap();
        vec![(FindingKind::SegmentShort, dat)]
    });
    expect("two dat files that changed places", dir, |dir| {
        let sealed = files(&dir.join("channels"), ".dat");
        let pair = sealed.windows(2).find(|pair| {
            let size = |path: &PathBuf| path.metadata().unwrap().len();
            pair[0].parent() == pair[1].parent() && size(&pair[0]) == size(&pair[1]) && size(&pair[0]) > 65536
        });
        let pair = pair.expect("sealed segments of one size");
        let (a, b) = (fs::read(&pair[0]).unwrap(), fs::read(&pair[1]).unwrap());
        fs::write(&pair[0], b).unwrap();
        fs::write(&pair[1], a).unwrap();
        vec![(FindingKind::Payload, pair[0].clone()), (FindingKind::Payload, pair[1].clone())]
    });
    expect("a checkpoint file that is gone", dir, |dir| {
        let ckp = files(&dir.join("checkpoint/000"), ".ckp").pop().unwrap();
        fs::remove_file(&ckp).unwrap();
        vec![(FindingKind::CheckpointMissing, ckp)]
    });
    expect("STORE that is gone", dir, |dir| {
        fs::remove_file(dir.join("STORE")).unwrap();
        vec![(FindingKind::Store, dir.join("STORE"))]
    });
    expect("a file that nobody knows", dir, |dir| {
        fs::write(dir.join("journal/000/notes.txt"), b"mine").unwrap();
        Vec::new()
    });
}

/// In a journal that recovery still needs: the header of its segment, a commit, a payload, an extent, all before others that call
/// them durable.
#[test]
fn damage_in_a_journal_that_is_needed_is_named() {
    let (dir, _) = varied(Left::Open);
    let dir = dir.path();
    let last_of_shard = |dir: &Path, shard: &str| {
        journal(dir).into_iter().rfind(|path| path.to_str().unwrap().contains(shard)).unwrap()
    };
    let mut seen = 0;
    for shard in ["/000/", "/001/"] {
        let places = commits(&last_of_shard(dir, shard));
        for index in [0, 1, places.len() / 2] {
            let found = expect("a commit", dir, |dir| {
                let wal = last_of_shard(dir, shard);
                flip(&wal, places[index] + 20);
                vec![(FindingKind::JournalCommit, wal)]
            });
            seen += found.len();
            assert!(found.iter().any(|found| found.offset == places[index] as u64), "{found:?}");
        }
        expect("the header of a segment", dir, |dir| {
            let wal = last_of_shard(dir, shard);
            flip(&wal, 40);
            vec![(FindingKind::JournalHeader, wal)]
        });
    }
    assert!(seen >= 6);
}

/// What an open says of each damaged store is what the check says, too: it finds damage wherever an open does.
#[test]
fn what_does_not_open_is_not_clean() {
    let (dir, _) = varied(Left::Open);
    let names = tree(dir.path());
    let mut refused = 0;
    for (name, bytes) in names.iter().filter(|(name, _)| !name.starts_with("channels") && !name.contains("spare")) {
        for at in [20, 4096 + 20, 3 * 4096 + 30] {
            if at >= bytes.len() {
                continue;
            }
            let copy = scratch();
            copy_dir(dir.path(), copy.path());
            flip(&copy.path().join(name), at);
            let report = check(copy.path());
            let opened = redex::Redex::builder().persistent_dir(copy.path()).build();
            refused += u32::from(opened.is_err());
            if let Err(error) = opened {
                assert!(report.losses > 0, "{name} at {at}: {error}, and {report}");
            }
        }
    }
    assert!(refused >= 4, "{refused}");
}

/// A store that somebody writes is refused; a directory without a store, too.
#[test]
fn a_store_in_use_and_no_store_are_refused() {
    let dir = scratch();
    let options = VerifyOptions::default();
    assert!(matches!(verify(dir.path(), &options).unwrap_err(), redex::SurveyError::NoStore { .. }));
    let redex = open(dir.path());
    assert!(matches!(verify(dir.path(), &options).unwrap_err(), redex::SurveyError::InUse { .. }));
    redex.close().wait().unwrap();
    assert!(verify(dir.path(), &options).unwrap().is_clean());
}

/// What was trimmed, or cut off, may be damaged in a segment that lives on: no event is lost, and the copy is complete.
#[test]
fn damage_to_what_was_trimmed_or_cut_off_is_no_loss() {
    let dir = scratch();
    let redex = open(dir.path());
    for name in ["trimmed", "cut"] {
        let file = redex.open_file(name, support::persistent()).unwrap();
        let batch: Vec<_> = (0..1000_u64).map(|i| [i as u8; 100]).collect();
        file.append_batch_durable(&batch).wait().unwrap();
    }
    redex.open_file("trimmed", support::persistent()).unwrap().trim_head(500).wait().unwrap();
    redex.open_file("cut", support::persistent()).unwrap().truncate_suffix(500).wait().unwrap();
    redex.close().wait().unwrap();
    // The journal of the first run has the events once more.
    open(dir.path()).close().wait().unwrap();
    let of = |dir: &Path, name: &str, suffix: &str| {
        let is_its = |meta: &PathBuf| fs::read(meta).unwrap().windows(name.len()).any(|part| part == name.as_bytes());
        let meta = files(&dir.join("channels"), "META").into_iter().find(is_its).unwrap();
        files(meta.parent().unwrap(), suffix).remove(0)
    };
    // Bytes of dat and an index block, first of those that are gone, then of those that are there.
    let cases = [
        ("trimmed", ".dat", 20_000, None),
        ("trimmed", ".idx", 4096 + 20, None),
        ("trimmed", ".idx", 2 * 4096 + 20, Some(500..612)),
        ("trimmed", ".dat", 70_000, Some(700..701)),
        ("cut", ".dat", 70_000, None),
        ("cut", ".idx", 3 * 4096 + 20, None),
        ("cut", ".idx", 2 * 4096 + 20, Some(408..500)),
        ("cut", ".dat", 20_000, Some(200..201)),
    ];
    for (name, suffix, at, lost) in cases {
        let copy = scratch();
        copy_dir(dir.path(), copy.path());
        flip(&of(copy.path(), name, suffix), at);
        let report = check(copy.path());
        let severity = report.damages().map(|found| found.severity).max();
        let events: Vec<_> = report.damages().filter_map(|found| found.events.clone()).collect();
        assert_eq!(events, lost.clone().into_iter().collect::<Vec<_>>(), "{name}{suffix} at {at}: {report}");
        assert!(severity <= Some(if lost.is_some() { Severity::Loss } else { Severity::Redundant }), "{report}");
        let to = scratch();
        let salvaged = redex::salvage(copy.path(), to.path(), &redex::SalvageOptions::new()).unwrap();
        assert_eq!(
            (salvaged.is_complete(), salvaged.events_lost()),
            (lost.is_none(), report.events_lost),
            "{salvaged}"
        );
        assert_eq!(report.losses > 0, lost.is_some(), "{report}");
    }
}
