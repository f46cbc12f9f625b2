//! A rescue shows the channel's last timeline and no other: what a crash took back, what was cut off and what was trimmed stays
//! away, however whole its blocks are; and what belongs to the last timeline is taken from wherever it lies.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use redex::{Backend, Redex, RedexFile, SalvageOptions, SalvageReport, SalvagedChannel, salvage};
use support::varied::commits;
use support::{copy_dir, files, flip, persistent, scratch};

const BLOCK: usize = 4096;

fn open(dir: &Path) -> Redex {
    Redex::builder()
        .persistent_dir(dir)
        .backend(Backend::Posix)
        .shards(1)
        .journal_segment_bytes(4 << 20)
        .build()
        .unwrap()
}

fn close(redex: &Redex) {
    redex.close().wait().unwrap();
}

/// Eight bytes for the event `i` of this timeline: they lie in the record itself.
fn small(timeline: u8, i: u64) -> [u8; 8] {
    ((u64::from(timeline) << 56) | i).to_le_bytes()
}

fn append(file: &RedexFile, timeline: u8, events: std::ops::Range<u64>) {
    let batch: Vec<_> = events.map(|i| small(timeline, i)).collect();
    file.append_batch_durable(&batch).wait().unwrap();
}

/// Salvages, and gives the payloads of a channel with its report.
fn rescued(from: &Path, name: &str) -> (Vec<Vec<u8>>, SalvagedChannel, SalvageReport) {
    let to = scratch();
    let report =
        salvage(from, to.path(), &SalvageOptions::new()).unwrap_or_else(|error| panic!("{}", support::text(&error)));
    let channel = report.channels.iter().find(|channel| channel.name == name).unwrap_or_else(|| panic!("{report}"));
    let redex = Redex::open_read_only(to.path()).unwrap();
    let file = redex.open_file(name).unwrap();
    let events = file.read_from(file.head_seq()).blocking().map(|event| event.unwrap().payload.to_vec()).collect();
    (events, channel.clone(), report)
}

/// The files of the only channel that has any, ascending.
fn of_channel(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    files(&dir.join("channels"), suffix)
}

/// Reopens, commits to another channel, copies the store meanwhile, and damages one of those commits.
fn with_a_bad_commit_of_another(dir: &Path) -> tempfile::TempDir {
    let redex = open(dir);
    let other = redex.open_file("other", persistent()).unwrap();
    (0..9_u64).for_each(|i| append(&other, 9, i..i + 1));
    let copy = scratch();
    copy_dir(dir, copy.path());
    close(&redex);
    let wal = journal(copy.path());
    let places = commits(&wal);
    flip(&wal, places[places.len() - 4] + 30);
    copy
}

fn journal(dir: &Path) -> PathBuf {
    files(&dir.join("journal"), ".wal").into_iter().rfind(|path| !path.to_str().unwrap().contains("spare")).unwrap()
}

/// The idx block `block` of a store whose channel went on in another way.
fn block_of_another_way(dir: &Path, block: usize) -> Vec<u8> {
    let copy = scratch();
    copy_dir(dir, copy.path());
    let redex = open(copy.path());
    append(&redex.open_file("a", persistent()).unwrap(), 1, 210..510);
    close(&redex);
    fs::read(&of_channel(copy.path(), ".idx")[0]).unwrap()[block * BLOCK..][..BLOCK].to_vec()
}

/// A block was written before a power cut took its events back; other events have their sequences now, and lie in the tail of a
/// checkpoint. Damage elsewhere does not bring the old ones back, in place of the new ones or behind them.
#[test]
fn blocks_of_a_timeline_that_a_crash_took_back_stay_away() {
    for newer in [5, 0] {
        let dir = scratch();
        let redex = open(dir.path());
        append(&redex.open_file("a", persistent()).unwrap(), 1, 0..210);
        close(&redex);
        let stale = block_of_another_way(dir.path(), 1);
        let idx = of_channel(dir.path(), ".idx").remove(0);
        let mut bytes = fs::read(&idx).unwrap();
        bytes.resize(BLOCK, 0);
        bytes.extend_from_slice(&stale);
        fs::write(&idx, bytes).unwrap();
        if newer > 0 {
            let redex = open(dir.path());
            append(&redex.open_file("a", persistent()).unwrap(), 2, 210..210 + newer);
            close(&redex);
        }
        let copy = with_a_bad_commit_of_another(dir.path());
        let (events, channel, report) = rescued(copy.path(), "a");
        let wanted: Vec<_> = (0..210).map(|i| small(1, i)).chain((210..210 + newer).map(|i| small(2, i))).collect();
        assert!(events == wanted, "{} events: {report}", events.len());
        assert!(channel.lost.is_empty() && !report.is_complete(), "{report}");
    }
}

/// Of the same run, above the checkpoint: stale blocks lie where the journal has other events.
#[test]
fn the_journal_goes_before_blocks_that_say_otherwise() {
    let dir = scratch();
    let redex = open(dir.path());
    append(&redex.open_file("a", persistent()).unwrap(), 1, 0..210);
    close(&redex);
    let stale = block_of_another_way(dir.path(), 1);
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    (0..20).for_each(|i| append(&file, 2, 210 + i..211 + i));
    let copy = scratch();
    copy_dir(dir.path(), copy.path());
    close(&redex);
    let idx = of_channel(copy.path(), ".idx").remove(0);
    let mut bytes = fs::read(&idx).unwrap();
    bytes.resize(BLOCK, 0);
    bytes.extend_from_slice(&stale);
    fs::write(&idx, bytes).unwrap();
    let wal = journal(copy.path());
    flip(&wal, commit_with(&wal, &small(2, 222)) + 30);
    let (events, channel, report) = rescued(copy.path(), "a");
    assert_eq!((channel.events_lost(), channel.next_seq), (1, 230), "{report}");
    let of_second = events.iter().filter(|event| event[7] == 2).count();
    assert_eq!((events.len(), of_second), (229, 19), "{report}");
}

/// A store whose channel has several segments, of which a truncation takes the last; their files are put back, as a crash before
/// their removal leaves them. It is cut so many events before a segment begins; gives where.
fn cut_with_files_left(dir: &Path, segment: usize, before: u64, newer: u64) -> u64 {
    let redex = open(dir);
    let config = persistent().with_segment_bytes(64 << 10);
    append(&redex.open_file("other", persistent()).unwrap(), 9, 0..10);
    let file = redex.open_file("a", config.clone()).unwrap();
    (0..900_u64).step_by(10).for_each(|first| {
        let batch: Vec<_> = (first..first + 10).map(|i| [i as u8; 256]).collect();
        file.append_batch_durable(&batch).wait().unwrap();
    });
    close(&redex);
    let saved = scratch();
    copy_dir(dir, saved.path());
    let first_of = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let firsts: Vec<u64> = of_channel(dir, ".idx").iter().map(first_of).collect();
    assert!(firsts.len() > 3, "{firsts:?}");
    let cut = firsts[segment] - before;
    let redex = open(dir);
    let file = redex.open_file("a", config).unwrap();
    file.truncate_suffix(cut).wait().unwrap();
    (cut..cut + newer).for_each(|_| _ = file.append_durable([77; 256]).wait().unwrap());
    close(&redex);
    put_back(saved.path(), dir, cut);
    cut
}

fn put_back(saved: &Path, dir: &Path, from: u64) {
    for suffix in [".idx", ".dat"] {
        for path in of_channel(saved, suffix) {
            let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            if first >= from {
                fs::copy(&path, dir.join(path.strip_prefix(saved).unwrap())).unwrap();
            }
        }
    }
}

/// Damages the state of this channel wherever a checkpoint file has it.
fn flip_states_of(dir: &Path, name: &str) {
    let mut hits = 0;
    for path in files(&dir.join("checkpoint"), ".ckp") {
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(name.len()).position(|window| window == name.as_bytes());
        at.into_iter().for_each(|at| {
            flip(&path, at);
            hits += 1;
        });
    }
    assert!(hits > 0);
}

/// What a truncation cut off does not come back with damage to something else, be the cut in the midst of a segment, where one
/// begins, or in front of all, and with or without events behind it.
#[test]
fn what_was_cut_off_stays_away() {
    for (segment, before, newer) in [(2, 50, 0), (2, 0, 0), (0, 0, 0), (2, 50, 3), (2, 0, 3), (0, 0, 3)] {
        let dir = scratch();
        let cut = cut_with_files_left(dir.path(), segment, before, newer);
        let by_state = scratch();
        copy_dir(dir.path(), by_state.path());
        flip_states_of(by_state.path(), "other");
        let saved = scratch();
        copy_dir(dir.path(), saved.path());
        let by_commit = with_a_bad_commit_of_another(dir.path());
        put_back(saved.path(), by_commit.path(), cut);
        for copy in [by_state, by_commit] {
            let (events, channel, report) = rescued(copy.path(), "a");
            let context = format!("cut at {cut}, {before} before a segment, {newer} behind: {report}");
            assert_eq!((channel.head_seq, channel.next_seq), (0, cut + newer), "{context}");
            let wanted = (0..cut).map(|i| [i as u8; 256]).chain((0..newer).map(|_| [77; 256]));
            assert!(
                events.iter().map(Vec::as_slice).eq(wanted.map(|event| event.to_vec()).collect::<Vec<_>>()),
                "{context}"
            );
            assert!(channel.lost.is_empty() && !report.is_complete(), "{context}");
        }
    }
}

/// Neither does it where all states are gone: a file that begins within another one's events, or behind a gap, is told apart by
/// its times.
#[test]
fn without_states_older_files_stay_away() {
    let dir = scratch();
    // Behind the cut in front of a border come events up to and over that border.
    let cut = cut_with_files_left(dir.path(), 2, 50, 250);
    for gone in ["journal", "checkpoint"] {
        fs::remove_dir_all(dir.path().join(gone)).unwrap();
    }
    let (events, channel, report) = rescued(dir.path(), "a");
    assert!(channel.end_unknown && channel.next_seq <= cut + 250, "{report}");
    assert!(
        events.len() > cut as usize && events[cut as usize..].iter().all(|event| event[..] == [77; 256]),
        "{report}"
    );
}

/// What a trim took stays away, though the state is lost and the files are there.
#[test]
fn what_was_trimmed_stays_away() {
    let dir = scratch();
    let redex = open(dir.path());
    append(&redex.open_file("a", persistent()).unwrap(), 1, 0..2000);
    close(&redex);
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    append(&file, 1, 2000..2010);
    file.trim_head(1500).wait().unwrap();
    append(&file, 1, 2010..2020);
    let copy = scratch();
    copy_dir(dir.path(), copy.path());
    close(&redex);
    flip_states_of(copy.path(), "a");
    let (_, channel, report) = rescued(copy.path(), "a");
    assert!(channel.kept.iter().all(|kept| kept.from.start >= 1500), "{report}");
    assert_eq!(channel.next_seq, 2020, "{report}");
}

/// Of a dat that is gone, the events are one loss; with events in between that lie in the index, as many as there are.
#[test]
fn a_payload_file_that_is_gone_costs_no_more_than_its_events() {
    let dir = scratch();
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    for first in (0..300_000_u64).step_by(3000) {
        let batch: Vec<_> = (first..first + 3000).map(|i| [i as u8; 20]).collect();
        file.append_batch_durable(&batch).wait().unwrap();
    }
    let file = redex.open_file("b", persistent()).unwrap();
    for first in (0..100_000_u64).step_by(2000) {
        let batch: Vec<_> = (first..first + 2000).map(|i| vec![i as u8; if i % 2 == 0 { 20 } else { 5 }]).collect();
        file.append_batch_durable(&batch).wait().unwrap();
    }
    close(&redex);
    // The next run's journal has none of them.
    close(&open(dir.path()));
    of_channel(dir.path(), ".dat").iter().for_each(|dat| fs::remove_file(dat).unwrap());
    let report = redex::verify(dir.path(), &redex::VerifyOptions::new()).unwrap();
    assert!(report.events >= 50_000 && report.events_lost >= 340_000 && report.findings.len() <= 10_000);
    let (_, channel, _) = rescued(dir.path(), "a");
    assert!(channel.lost.len() <= 2 && channel.events_lost() > 290_000, "{channel}");
    let (_, channel, _) = rescued(dir.path(), "b");
    assert!(channel.lost.len() > 49_000 && channel.events_lost() < 50_001, "{}", channel.lost.len());
}

/// A store in its first run, left by a crash: the blocks of a channel are on disk, and no checkpoint tells of them.
fn crashed_in_its_first_run(count: u64) -> tempfile::TempDir {
    let dir = scratch();
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    for first in (0..count).step_by(20) {
        let batch: Vec<_> = (first..first + 20).map(thousand).collect();
        file.append_batch_durable(&batch).wait().unwrap();
    }
    let idx_end = (3264 / 204 * BLOCK) as u64;
    support::wait_until("the first blocks", || {
        of_channel(dir.path(), ".idx")
            .first()
            .is_some_and(|idx| fs::read(idx).unwrap().get(idx_end as usize - 1) > Some(&0))
    });
    let copy = scratch();
    copy_dir(dir.path(), copy.path());
    close(&redex);
    copy
}

/// Where the commit begins that has these bytes.
fn commit_with(wal: &Path, bytes: &[u8]) -> usize {
    let at = fs::read(wal).unwrap().windows(bytes.len()).position(|window| window == bytes).unwrap();
    commits(wal).into_iter().rfind(|place| *place <= at).unwrap()
}

/// A thousand bytes.
fn thousand(i: u64) -> Vec<u8> {
    (0..1000).map(|at| ((i * 7919 + at * 31) >> (at % 9)) as u8).collect()
}

/// A payload, or the whole commit, is bad in the journal: the blocks have it, and nothing is lost. Where they do not, it is told.
#[test]
fn what_the_journal_has_lost_comes_from_blocks() {
    let count = 5000;
    let crashed = crashed_in_its_first_run(count);
    let first_wal = |dir: &Path| {
        let all = files(&dir.join("journal"), ".wal");
        all.into_iter().find(|path| !path.to_str().unwrap().contains("spare") && commits(path).len() > 20).unwrap()
    };
    for at in [2000, 100, 20] {
        let copy = scratch();
        copy_dir(crashed.path(), copy.path());
        let wal = first_wal(copy.path());
        flip(&wal, commit_with(&wal, &thousand(200)) + at);
        let (events, channel, report) = rescued(copy.path(), "a");
        assert_eq!((channel.events_lost(), channel.next_seq), (0, count), "{at}: {report}");
        assert!(events.iter().enumerate().all(|(i, event)| *event == thousand(i as u64)), "{at}: {report}");
        assert!(!report.is_complete(), "{report}");
    }
    // Some that follow each other, one block of those that have them.
    let copy = scratch();
    copy_dir(crashed.path(), copy.path());
    let wal = first_wal(copy.path());
    let range = commit_with(&wal, &thousand(200))..=commit_with(&wal, &thousand(900));
    commits(&wal).into_iter().filter(|place| range.contains(place)).for_each(|place| flip(&wal, place + 40));
    flip(&of_channel(copy.path(), ".idx")[0], 2 * BLOCK + 100);
    let (events, channel, report) = rescued(copy.path(), "a");
    assert_eq!((channel.events_lost(), channel.next_seq), (204, count), "{report}");
    assert!(channel.lost.iter().all(|lost| lost.file.ends_with(".idx") && lost.offset == 2 * BLOCK as u64), "{report}");
    assert_eq!(events.len() as u64, count - 204);
}

/// The commits behind a checkpoint are bad, over the end of a segment that was sealed meanwhile: its blocks are the channel's, since
/// those of the next one go on into what the journal has.
#[test]
fn a_gap_over_the_end_of_a_segment_comes_from_blocks() {
    let dir = scratch();
    let config = persistent().with_segment_bytes(64 << 10);
    let event = |i: u64| vec![(i % 251) as u8; 256];
    let redex = open(dir.path());
    let file = redex.open_file("a", config.clone()).unwrap();
    (0..100).for_each(|i| _ = file.append(event(i)).wait().unwrap());
    close(&redex);
    let redex = open(dir.path());
    let file = redex.open_file("a", config).unwrap();
    for first in (100..4000_u64).step_by(10) {
        let batch: Vec<_> = (first..first + 10).map(event).collect();
        file.append_batch_durable(&batch).wait().unwrap();
    }
    support::wait_until("sealed segments", || {
        let has_footer = |bytes: Vec<u8>| bytes.len() > BLOCK && bytes[bytes.len() - BLOCK..].starts_with(b"REDEXSEG");
        let sealed = of_channel(dir.path(), ".idx").into_iter().filter(|idx| has_footer(fs::read(idx).unwrap()));
        sealed.count() >= 2
    });
    let copy = scratch();
    copy_dir(dir.path(), copy.path());
    close(&redex);
    let wal = journal(copy.path());
    let range = commit_with(&wal, &event(100))..=commit_with(&wal, &event(300));
    commits(&wal).into_iter().filter(|place| range.contains(place)).for_each(|place| flip(&wal, place + 40));
    let (events, channel, report) = rescued(copy.path(), "a");
    assert_eq!((channel.events_lost(), channel.head_seq, channel.next_seq), (0, 0, 4000), "{report}");
    assert!(events.into_iter().eq((0..4000).map(event)) && !report.is_complete(), "{report}");
}

/// The commit that cut a channel is bad, and so are some in front of the cut: what came behind says where it was.
#[test]
fn a_cut_in_a_bad_commit_holds_by_what_comes_behind() {
    let dir = scratch();
    let redex = open(dir.path());
    let file = redex.open_file("a", persistent()).unwrap();
    (0..50).for_each(|i| append(&file, 1, i * 10..(i + 1) * 10));
    file.truncate_suffix(400).wait().unwrap();
    let next = journal(dir.path());
    let cut = commits(&next).into_iter().rfind(|place| *place > commit_with(&next, &small(1, 499))).unwrap();
    append(&file, 2, 400..430);
    append(&file, 2, 430..440);
    let copy = scratch();
    copy_dir(dir.path(), copy.path());
    close(&redex);
    let wal = journal(copy.path());
    let bad = commit_with(&wal, &small(1, 395))..=commit_with(&wal, &small(1, 415));
    let behind = commit_with(&wal, &small(1, 499)) + 1..commit_with(&wal, &small(2, 400));
    assert!(behind.contains(&cut));
    let hit = |place: &usize| bad.contains(place) || behind.contains(place);
    commits(&wal).into_iter().filter(hit).for_each(|place| flip(&wal, place + 40));
    let (events, channel, report) = rescued(copy.path(), "a");
    let wanted = (0..400).map(|i| small(1, i)).chain((400..440).map(|i| small(2, i)));
    assert_eq!((channel.events_lost(), channel.next_seq), (0, 440), "{report}");
    assert!(events.into_iter().eq(wanted.map(|event| event.to_vec())) && !report.is_complete(), "{report}");
}
