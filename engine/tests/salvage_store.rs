//! A rescue keeps every event that is whole, says exactly which are not, and leaves the old directory as it is.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use redex::{FindingKind, Redex, SalvageError, SalvageOptions, SalvageReport, SalvagedChannel, salvage};
use support::varied::{Content, Contents, Left, commits, contents, open, tree, varied};
use support::{copy_dir, files, flip, scratch};

/// Cases of each test over random damage.
const CASES: u64 = 16;

/// Salvages; the old directory is as it was.
fn rescue(from: &Path) -> (tempfile::TempDir, SalvageReport) {
    let before = tree(from);
    let to = scratch();
    let report =
        salvage(from, to.path(), &SalvageOptions::new()).unwrap_or_else(|error| panic!("{}", support::text(&error)));
    assert!(before == tree(from), "the old store is as it was");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<SalvageReport>(&json).unwrap(), report);
    (to, report)
}

/// What a store has, by name: every channel as it is stored.
fn all(dir: &Path) -> Contents {
    let redex = open(dir);
    let found = contents(&redex);
    redex.close().wait().unwrap();
    found
}

/// Of a whole store the copy has the same: channels, sequences, times, payloads; and so has the copy's copy.
#[test]
fn a_whole_store_is_copied_as_it_is() {
    for left in [Left::Closed, Left::Open] {
        let (dir, original) = varied(left);
        let (copy, report) = rescue(dir.path());
        assert!(report.is_complete() && report.events_lost() == 0, "{left:?}: {report}");
        assert!(
            report.channels.iter().all(|channel| channel.kept.iter().all(|range| range.from == range.to)),
            "{report}"
        );
        assert!(all(copy.path()) == original, "{left:?}: {report}");
        let (again, report) = rescue(copy.path());
        assert!(report.is_complete() && all(again.path()) == original, "{left:?}: {report}");
    }
}

/// Cursors of the old store go on in the copy of a channel that has lost nothing, and no new event comes under an old epoch.
#[test]
fn cursors_stay_good_and_epochs_go_up() {
    let (dir, _) = varied(Left::Closed);
    let redex = open(dir.path());
    let config = support::persistent().with_segment_bytes(256 << 10);
    let old = redex.open_file("sealed", config.clone()).unwrap().cursor();
    redex.close().wait().unwrap();
    let (copy, _) = rescue(dir.path());
    let redex = open(copy.path());
    let file = redex.open_file("sealed", config).unwrap();
    let cursor = redex::Cursor { epoch: old.epoch - 2, seq: 700 };
    let event = file.subscribe_from(cursor).wait().unwrap().next_wait().unwrap();
    assert_eq!((event.seq, event.payload.to_vec()), (700, support::payload(700)));
    assert!(file.cursor().epoch > old.epoch, "{} and {old}", file.cursor());
    // The epochs are durable: they are there after the next open, too.
    redex.close().wait().unwrap();
    let redex = open(copy.path());
    let file = redex.open_file("sealed", support::persistent().with_segment_bytes(256 << 10)).unwrap();
    assert_eq!(file.subscribe_from(cursor).wait().unwrap().next_wait().unwrap().seq, 700);
    redex.close().wait().unwrap();
}

/// Settings come along: policy, limits, affinity.
#[test]
fn settings_are_kept() {
    let dir = scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(3).build().unwrap();
    let config = support::persistent()
        .with_fsync_policy(redex::FsyncPolicy::EveryN(7))
        .with_retention_max_events(1000)
        .with_affinity("with others")
        .with_segment_bytes(64 << 10);
    let file = redex.open_file("settings", config.clone()).unwrap();
    support::fill(&file, 0..50);
    redex.close().wait().unwrap();
    let (copy, report) = rescue(dir.path());
    assert!(report.is_complete(), "{report}");
    let reader = Redex::open_read_only(copy.path()).unwrap();
    assert_eq!(reader.open_file("settings").unwrap().config(), config);
}

/// One event in the middle is gone: the last events keep their sequences, those before it move up by one, and the report says so.
#[test]
fn what_lies_before_a_loss_moves_up() {
    let (dir, original) = varied(Left::Closed);
    let original = &original["sealed"];
    let redex = Redex::open_read_only(dir.path()).unwrap();
    assert_eq!(redex.open_file("sealed").unwrap().next_seq(), original.next);
    drop(redex);
    let dat = files(&dir.path().join("channels/00"), ".dat").swap_remove(1);
    flip(&dat, 5000);
    let (copy, report) = rescue(dir.path());
    let [channel] = &report.channels.iter().filter(|channel| !channel.lost.is_empty()).collect::<Vec<_>>()[..] else {
        panic!("{report}")
    };
    let [lost] = &channel.lost[..] else { panic!("{report}") };
    assert!(dat.ends_with(&lost.file) && lost.kind == FindingKind::Payload, "{report}");
    assert_eq!((lost.events.end - lost.events.start, channel.events_lost(), channel.next_seq), (1, 1, original.next));
    let [before, behind] = &channel.kept[..] else { panic!("{report}") };
    assert_eq!(
        (before.from.clone(), before.to.clone()),
        (original.head..lost.events.start, original.head + 1..lost.events.end)
    );
    assert_eq!((&behind.from, behind.from.clone()), (&behind.to, lost.events.end..original.next));
    let found = all(copy.path());
    compare(original, &found["sealed"], channel);
    assert_eq!(found["sealed"].events.len() + 1, original.events.len());
}

/// Every event of the old channel is in the new one, where the report says, or is said to be lost.
fn compare(original: &Content, found: &Content, report: &SalvagedChannel) {
    let by_seq: BTreeMap<u64, _> = found.events.iter().map(|(seq, time, payload)| (*seq, (time, payload))).collect();
    let kept: u64 = report.kept.iter().map(|range| range.to.end - range.to.start).sum();
    assert_eq!((kept, kept), (found.events.len() as u64, report.events_kept), "{report}");
    assert_eq!((found.head, found.next), (report.head_seq, report.next_seq), "{report}");
    let known_end =
        report.kept.iter().map(|range| range.from.end).chain(report.lost.iter().map(|lost| lost.events.end)).max();
    for (seq, time, payload) in &original.events {
        let place = report.kept.iter().find(|range| range.from.contains(seq));
        let Some(place) = place else {
            let is_told = report.lost.iter().any(|lost| lost.events.contains(seq));
            let is_behind = report.end_unknown && known_end.is_none_or(|end| *seq >= end);
            assert!(
                is_told || is_behind,
                "event {seq} of {} is neither kept nor said to be lost: {report}",
                report.name
            );
            continue;
        };
        assert!(!report.lost.iter().any(|lost| lost.events.contains(seq)), "{seq}: {report}");
        let new = seq - place.from.start + place.to.start;
        assert_eq!(by_seq.get(&new), Some(&(time, payload)), "event {seq}, now {new}: {report}");
    }
}

/// A small generator; the seed is the case.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

/// Does one damage; says what.
fn damage(dir: &Path, chance: &mut Chance) -> String {
    let names: Vec<PathBuf> = files(dir, "")
        .into_iter()
        .filter(|path| !path.to_str().unwrap().contains("spare") && !path.ends_with("LOCK"))
        .filter(|path| path.metadata().unwrap().len() > 0)
        .collect();
    let path = &names[chance.below(names.len() as u64) as usize];
    let mut bytes = fs::read(path).unwrap();
    let at = chance.below(bytes.len() as u64) as usize;
    let what = match chance.below(7) {
        0 => {
            fs::remove_file(path).unwrap();
            return format!("{} removed", path.display());
        }
        1 => {
            let others: Vec<_> = names.iter().filter(|other| other.extension() == path.extension()).collect();
            let other = others[chance.below(others.len() as u64) as usize];
            let theirs = fs::read(other).unwrap();
            fs::write(other, &bytes).unwrap();
            fs::write(path, theirs).unwrap();
            return format!("{} and {} changed places", path.display(), other.display());
        }
        2 => {
            bytes.truncate(at);
            "cut"
        }
        3 => {
            let end = bytes.len().min(at / 4096 * 4096 + 4096);
            bytes[at / 4096 * 4096..end].fill(0);
            "a block zeroed"
        }
        // Most of a journal is room that nobody has used: this hits what is used.
        4 => {
            let used: Vec<usize> = (0..bytes.len()).step_by(4096).filter(|at| bytes[*at] != 0).collect();
            let at = used.get(chance.below(used.len() as u64) as usize).map_or(at, |block| block + 20);
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 0x40;
            "a bit of a used block flipped"
        }
        _ => {
            bytes[at] ^= 1 << chance.below(8);
            "a bit flipped"
        }
    };
    fs::write(path, bytes).unwrap();
    format!("{} at {at}: {what}", path.display())
}

/// Whatever is damaged, once or several times: the check names damage or the copy has everything; and the copy has every event
/// that the report does not call lost.
fn keeps_what_is_whole(left: Left) {
    let (dir, original) = varied(left);
    for case in 0..CASES {
        let mut chance = Chance(case * 2 + u64::from(left == Left::Open) + 77);
        let copy = scratch();
        copy_dir(dir.path(), copy.path());
        let times = 1 + chance.below(3);
        let done: Vec<_> = (0..times).map(|_| damage(copy.path(), &mut chance)).collect();
        let context = format!("case {case} of {left:?}: {done:?}");
        eprintln!("{context}");
        let checked = redex::verify(copy.path(), &redex::VerifyOptions::new()).unwrap();
        let (to, report) = rescue(copy.path());
        let found = all(to.path());
        if checked.is_clean() {
            assert!(report.is_complete() && found == original, "{context}: {report}");
        }
        let metadata = |kind: FindingKind| {
            use FindingKind as K;
            let journal = matches!(kind, K::JournalHeader | K::JournalMissing | K::JournalCommit | K::JournalPayload);
            journal || matches!(kind, K::Store | K::CheckpointMissing | K::CheckpointHeader | K::CheckpointState)
        };
        let lost_metadata = report.damages.iter().any(|damage| metadata(damage.kind));
        for (name, content) in &original {
            let Some(channel) = report.channels.iter().find(|channel| channel.name == *name) else {
                let renamed = report.channels.iter().any(|channel| channel.name_lost);
                assert!(renamed || lost_metadata, "{context}: {name} is gone: {report}");
                continue;
            };
            if channel.events_kept > 0 || !content.events.is_empty() {
                check_channel(content, &found[name], channel, lost_metadata, &context);
            }
        }
    }
}

fn check_channel(content: &Content, found: &Content, channel: &SalvagedChannel, lost_metadata: bool, context: &str) {
    let kept_beyond = channel.kept.iter().any(|range| range.from.start < content.head || range.from.end > content.next);
    assert!(!kept_beyond || lost_metadata, "{context}: {channel}");
    eprintln!("{context}: {channel}");
    // What was committed in a part of the journal that is gone, behind everything that is left, cannot be counted.
    let mut channel = channel.clone();
    channel.end_unknown |= lost_metadata;
    compare(content, found, &channel);
}

#[test]
fn any_damage_of_a_closed_store_leaves_the_rest() {
    keeps_what_is_whole(Left::Closed);
}

#[test]
fn any_damage_of_an_open_store_leaves_the_rest() {
    keeps_what_is_whole(Left::Open);
}

/// A commit in the middle of a journal is bad: what comes behind it is kept.
#[test]
fn what_lies_behind_a_bad_commit_is_kept() {
    let (dir, original) = varied(Left::Open);
    for shard in ["000", "001"] {
        let copy = scratch();
        copy_dir(dir.path(), copy.path());
        let wal = files(&copy.path().join("journal").join(shard), ".wal");
        let wal = wal.into_iter().rfind(|path| !path.to_str().unwrap().contains("spare")).unwrap();
        let commits = commits(&wal);
        let hit = commits[commits.len() / 2];
        flip(&wal, hit + 10);
        assert!(Redex::open(copy.path()).is_err(), "a strict open refuses it");
        let (to, report) = rescue(copy.path());
        let found = all(to.path());
        assert!(
            report.damages.iter().any(|damage| damage.offset == hit as u64 && wal.ends_with(&damage.file)),
            "{report}"
        );
        let total: usize = original.values().map(|content| content.events.len()).sum();
        assert!(report.events_kept() as usize + 60 > total && report.events_lost() <= 60, "{report}");
        for channel in &report.channels {
            compare(&original[&channel.name], &found[&channel.name], channel);
        }
    }
}

/// Nothing but the segments and META is left: names and events are, as far as they lie in blocks.
#[test]
fn segments_alone_give_their_events() {
    let (dir, original) = varied(Left::Closed);
    for gone in ["journal", "checkpoint"] {
        fs::remove_dir_all(dir.path().join(gone)).unwrap();
    }
    fs::remove_file(dir.path().join("STORE")).unwrap();
    let (to, report) = rescue(dir.path());
    let found = all_as_stored(to.path());
    for name in ["sealed", "inline", "big", "trimmed", "cut"] {
        let channel = report.channels.iter().find(|channel| channel.name == name).unwrap_or_else(|| panic!("{report}"));
        assert!(channel.settings_lost && channel.end_unknown && !channel.name_lost, "{report}");
        let events = found[name].len();
        assert!(events * 3 > original[name].events.len(), "{name}: {events}: {report}");
        for (seq, time, payload) in &original[name].events {
            let Some(place) = channel.kept.iter().find(|range| range.from.contains(seq)) else { continue };
            let new = seq - place.from.start + place.to.start;
            assert_eq!(found[name].get(&new), Some(&(*time, payload.clone())), "{name} {seq}");
        }
    }
}

/// The events of every channel, whatever its settings are.
fn all_as_stored(dir: &Path) -> BTreeMap<String, BTreeMap<u64, (u64, Vec<u8>)>> {
    let redex = Redex::open_read_only(dir).unwrap();
    let channels = redex.channels().into_iter().map(|info| {
        let file = redex.open_file(info.name.as_str()).unwrap();
        let events = file.read_from(file.head_seq()).blocking().map(|event| event.unwrap());
        let events = events.map(|event| (event.seq, (event.time.as_micros(), event.payload.to_vec()))).collect();
        (info.name.as_str().to_owned(), events)
    });
    channels.collect()
}

/// A target that is not empty, one within the old store, no store.
#[test]
fn wrong_directories_are_refused() {
    let (dir, _) = varied(Left::Closed);
    let options = SalvageOptions::new();
    let full = scratch();
    fs::write(full.path().join("mine"), b"mine").unwrap();
    assert!(matches!(salvage(dir.path(), full.path(), &options), Err(SalvageError::NotEmpty { .. })));
    let inside = dir.path().join("channels/new");
    assert!(matches!(salvage(dir.path(), &inside, &options), Err(SalvageError::Inside { .. })));
    assert!(!inside.exists());
    assert!(matches!(salvage(full.path(), scratch().path(), &options), Err(SalvageError::Survey(_))));
    let redex = open(dir.path());
    let error = salvage(dir.path(), scratch().path(), &options).unwrap_err();
    assert!(matches!(error, SalvageError::Survey(redex::SurveyError::InUse { .. })), "{error}");
    redex.close().wait().unwrap();
}
