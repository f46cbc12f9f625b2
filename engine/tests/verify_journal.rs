//! What is wrong with a journal or with STORE is told as what it is: loss where something is lost or the store does not open,
//! less where everything exists a second time, and nothing where a crash left it so.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use redex::{
    Backend, FindingKind, Redex, SalvageOptions, SalvageReport, Severity, StoreReport, SurveyError, VerifyOptions,
    salvage, verify,
};
use support::varied::{Content, Contents, Left, commits, contents, open as open_varied, varied};
use support::{copy_dir, files, fill, flip, persistent, scratch};

fn check(dir: &Path) -> StoreReport {
    verify(dir, &VerifyOptions::new().with_threads(2)).unwrap()
}

fn rescue(from: &Path) -> (tempfile::TempDir, SalvageReport) {
    let to = scratch();
    let report =
        salvage(from, to.path(), &SalvageOptions::new()).unwrap_or_else(|error| panic!("{}", support::text(&error)));
    (to, report)
}

fn journal(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("journal"), ".wal").into_iter().filter(|path| !path.to_str().unwrap().contains("spare")).collect()
}

/// What every channel of a store has.
fn all(redex: &Redex) -> Contents {
    let channels = redex.channels().into_iter().map(|info| {
        let file = redex.open_file(info.name.as_str(), persistent()).unwrap();
        let events = file.read_from(file.head_seq()).blocking().map(|event| event.unwrap());
        let events = events.map(|event| (event.seq, event.time.as_micros(), event.payload.to_vec())).collect();
        (info.name.as_str().to_owned(), Content { head: file.head_seq(), next: file.next_seq(), events })
    });
    channels.collect()
}

/// A store of this many shards as a crash leaves it, with several segments in each journal and no checkpoint since the
/// opening; and what it has.
fn crashed(shards: usize) -> (tempfile::TempDir, Contents) {
    let dir = scratch();
    let builder = Redex::builder().persistent_dir(dir.path()).backend(Backend::Posix).shards(shards);
    let redex = builder.journal_segment_bytes(1 << 20).build().unwrap();
    for name in ["a", "b", "c", "d"] {
        let file = redex.open_file(name, persistent()).unwrap();
        (0..25).for_each(|i| fill(&file, i * 40..(i + 1) * 40));
    }
    // The witness of the last commit.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let copy = scratch();
    copy_dir(dir.path(), copy.path());
    let contents = all(&redex);
    redex.close().wait().unwrap();
    assert!(check(copy.path()).is_clean());
    (copy, contents)
}

/// The newest segment of a journal is gone, with acknowledged events: the roll to it says that it was there.
#[test]
fn a_newest_segment_that_is_gone_is_told() {
    let (dir, _) = crashed(1);
    let newest = journal(dir.path()).pop().unwrap();
    fs::remove_file(&newest).unwrap();
    let report = check(dir.path());
    let told = |found: &redex::StoreFinding| found.kind == FindingKind::JournalMissing && newest.ends_with(&found.file);
    assert!(report.losses > 0 && report.damages().any(told), "{report}");
    let (_to, report) = rescue(dir.path());
    assert!(!report.is_complete() && report.damages.iter().any(told), "{report}");
}

/// Nothing that a strict open refuses is called complete by a rescue.
#[test]
fn what_does_not_open_is_not_rescued_as_complete() {
    let (dir, _) = crashed(1);
    for at in 0..journal(dir.path()).len() {
        let copy = scratch();
        copy_dir(dir.path(), copy.path());
        fs::remove_file(journal(copy.path()).remove(at)).unwrap();
        let (_to, report) = rescue(copy.path());
        let opened = support::try_open(copy.path(), Backend::Posix);
        assert!(opened.is_ok() || !report.is_complete(), "{at}: {report}");
    }
}

/// A commit that went to the place of another one bears witness that the other was acknowledged.
#[test]
fn a_misdirected_commit_is_a_witness() {
    let (dir, _) = crashed(1);
    let wals = journal(dir.path());
    let wal = &wals[0];
    let places = commits(wal);
    let mut bytes = fs::read(wal).unwrap();
    // It calls the one in front of it durable: that is none that was written while nothing was to be done.
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let index = (6..places.len()).find(|index| number(places[*index] + 32) == number(places[*index] + 24)).unwrap();
    let (hit, witness) = (places[index - 1], places[index]);
    bytes.copy_within(witness..witness + 4096, hit);
    bytes[witness..].fill(0);
    fs::write(wal, bytes).unwrap();
    wals[1..].iter().for_each(|wal| fs::remove_file(wal).unwrap());
    assert!(support::try_open(dir.path(), Backend::Posix).is_err(), "a strict open refuses it");
    let report = check(dir.path());
    let told = |found: &redex::StoreFinding| {
        found.kind == FindingKind::JournalCommit && found.offset == hit as u64 && wal.ends_with(&found.file)
    };
    assert!(report.damages().any(told), "{report}");
    let (_to, report) = rescue(dir.path());
    assert!(!report.is_complete(), "{report}");
}

fn swap(a: &Path, b: &Path) {
    let between = a.with_extension("between");
    fs::rename(a, &between).unwrap();
    fs::rename(b, a).unwrap();
    fs::rename(&between, b).unwrap();
}

/// Segments that changed places, or lie among those of another shard, are read as what they say they are.
#[test]
fn segments_in_wrong_places_lose_nothing() {
    let (dir, original) = crashed(2);
    let of_shard = |dir: &Path, shard: &str| -> Vec<PathBuf> { files(&dir.join("journal").join(shard), ".wal") };
    let of_shard = |dir: &Path, shard: &str| -> Vec<PathBuf> {
        of_shard(dir, shard).into_iter().filter(|path| !path.to_str().unwrap().contains("spare")).collect()
    };
    let count = of_shard(dir.path(), "000").len();
    assert!(count >= 3 && of_shard(dir.path(), "001").len() >= 3, "{count}");
    for case in 0..=count {
        let copy = scratch();
        copy_dir(dir.path(), copy.path());
        let (first, second) = (of_shard(copy.path(), "000"), of_shard(copy.path(), "001"));
        match case {
            0 => swap(&first[0], &second[1]),
            _ if case == count => fs::rename(&first[1], second[0].with_file_name(format!("{:020}.wal", 77))).unwrap(),
            _ => swap(&first[case - 1], &first[case]),
        }
        let report = check(copy.path());
        assert!(report.losses > 0, "{case}: {report}");
        let (to, report) = rescue(copy.path());
        assert_eq!(report.events_lost(), 0, "{case}: {report}");
        let redex = open_varied(to.path());
        assert!(all(&redex) == original, "{case}: {report}");
        redex.close().wait().unwrap();
    }
}

/// With STORE gone, the new store's epoch is above all that anything of the old one tells, those of cuts included.
#[test]
fn without_store_no_old_cursor_is_taken_for_a_new_one() {
    for journal_goes in [false, true] {
        let dir = scratch();
        let redex = support::open(dir.path(), Backend::Posix);
        let file = redex.open_file("cut", persistent()).unwrap();
        for round in 1..6 {
            let first = file.next_seq();
            fill(&file, first..first + 20 * round);
            file.truncate_suffix(file.next_seq() - 10).wait().unwrap();
        }
        let first = file.next_seq();
        fill(&file, first..first + 600);
        let old = file.cursor();
        let copy = scratch();
        copy_dir(dir.path(), copy.path());
        redex.close().wait().unwrap();
        let left = if journal_goes { dir.path() } else { copy.path() };
        fs::remove_file(left.join("STORE")).unwrap();
        if journal_goes {
            fs::remove_dir_all(left.join("journal")).unwrap();
        }
        let (to, report) = rescue(left);
        let redex = support::open(to.path(), Backend::Posix);
        let name = report.channels[0].name.clone();
        let file = redex.open_file(&*name, persistent()).unwrap();
        // An opening that STORE told of, and nothing else, may have had a higher one still.
        assert!(file.cursor().epoch > old.epoch + 1000, "{} and {old}: {report}", file.cursor());
        redex.close().wait().unwrap();
    }
}

/// A store whose making was cut off is none; one that is in its checkpoint files alone is one.
#[test]
fn a_store_in_the_making_is_none_and_checkpoint_files_are_one() {
    let dir = scratch();
    for part in ["journal", "checkpoint", "channels", "journal/000", "journal/000/spare", "checkpoint/000"] {
        fs::create_dir(dir.path().join(part)).unwrap();
        let found = verify(dir.path(), &VerifyOptions::new());
        assert!(matches!(found, Err(SurveyError::NoStore { .. })), "{part}: {found:?}");
    }
    fs::write(dir.path().join("STORE.new"), [0; 4096]).unwrap();
    let found = verify(dir.path(), &VerifyOptions::new());
    assert!(matches!(found, Err(SurveyError::NoStore { .. })), "{found:?}");
    let redex = support::open(dir.path(), Backend::Posix);
    fill(&redex.open_file("small", persistent()).unwrap(), 0..10);
    let original = all(&redex);
    redex.close().wait().unwrap();
    fs::remove_file(dir.path().join("STORE")).unwrap();
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let error = support::try_open(dir.path(), Backend::Posix).expect_err("a new store would hide it");
    assert!(support::text(&error).contains("put it back from a copy"), "{}", support::text(&error));
    let (to, report) = rescue(dir.path());
    let redex = support::open(to.path(), Backend::Posix);
    assert!(all(&redex) == original, "{report}");
    redex.close().wait().unwrap();
}

/// Where the payload of a commit begins, if it has one.
fn payload_of(wal: &Path, commit: usize) -> Option<usize> {
    let bytes = fs::read(wal).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    (number(commit + 56) > 0).then(|| commit + 80 + number(commit + 52))
}

/// After a clean close a checkpoint has everything: what is bad in the journal in front of it is no loss.
#[test]
fn a_closed_journal_is_needed_at_its_end_only() {
    let (dir, original) = varied(Left::Closed);
    for shard in ["000", "001"] {
        for is_payload in [false, true] {
            let copy = scratch();
            copy_dir(dir.path(), copy.path());
            let wals = files(&copy.path().join("journal").join(shard), ".wal");
            let wal = wals.into_iter().rfind(|path| !path.to_str().unwrap().contains("spare")).unwrap();
            let places = commits(&wal);
            let (last, others) = places.split_last().unwrap();
            let hit = match is_payload {
                false => others[others.len() / 2] + 30,
                true => others.iter().find_map(|commit| payload_of(&wal, *commit)).unwrap(),
            };
            assert!(hit < *last);
            flip(&wal, hit);
            let report = check(copy.path());
            assert!(report.losses == 0 && report.redundant == 1, "{shard}: {report}");
            let kind = if is_payload { FindingKind::JournalPayload } else { FindingKind::JournalCommit };
            let found: Vec<_> = report.damages().collect();
            assert_eq!((found[0].kind, found[0].severity), (kind, Severity::Redundant), "{report}");
            let (to, report) = rescue(copy.path());
            assert!(report.is_complete(), "{report}");
            for dir in [copy.path(), to.path()] {
                let redex = open_varied(dir);
                assert!(contents(&redex) == original, "{report}");
                redex.close().wait().unwrap();
            }
        }
    }
}

/// A file that is said to be huge takes no more memory than what is in it.
#[test]
fn huge_files_take_no_memory() {
    let (dir, original) = varied(Left::Closed);
    for (suffix, at) in [(".ckp", None), (".ckp", Some(20)), (".wal", None)] {
        let copy = scratch();
        copy_dir(dir.path(), copy.path());
        for path in files(copy.path(), suffix).into_iter().filter(|path| !path.to_str().unwrap().contains("spare")) {
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
            if let Some(at) = at {
                use std::os::unix::fs::FileExt;
                fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0xff], at).unwrap();
            }
        }
        let report = check(copy.path());
        assert_eq!(report.losses > 0, at.is_some(), "{suffix}: {report}");
        let (to, report) = rescue(copy.path());
        let redex = open_varied(to.path());
        assert!(contents(&redex) == original, "{suffix}: {report}");
        redex.close().wait().unwrap();
    }
}
