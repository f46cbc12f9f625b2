//! Files in a store's directories that are not its own: reported, never touched, never in the way.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use redex::OpenError;
use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStep, SimStore};
use redex::{FsyncPolicy, RedexFileConfig};

/// Notes the paths that warnings name.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::field::Visit for Warnings {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "path" {
            self.0.lock().unwrap().push(value.to_owned());
        }
    }
    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn Debug) {}
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// One test at a time: whether anybody listens to a warning is remembered for all threads when it is first met.
static ALONE: Mutex<()> = Mutex::new(());

fn try_open(disk: &SimDisk, seed: u64) -> Result<SimStore, OpenError> {
    SimStore::open(disk, &SimSettings::default(), &Arc::new(ManualClock::default()), seed)
}

/// Appends so much that the journal rolls and checkpoints are taken.
fn work(store: &mut SimStore) {
    let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(1));
    let file = store.redex().open_file("a", config).unwrap();
    let first = file.next_seq();
    for seq in first.. {
        if seq >= first + 60 && store.redex().stats().checkpoints > 0 {
            break;
        }
        assert!(seq < first + 1000, "a checkpoint is taken");
        let _unwaited = file.try_append(vec![seq as u8; 3000]).unwrap();
        while file.durable() <= seq {
            assert!(!matches!(store.step(), SimStep::Failed), "the shard fails");
        }
    }
    for (event, seq) in file.read_range(0, file.next_seq()).wait().unwrap().iter().zip(0..) {
        assert_eq!(event.payload, vec![seq as u8; 3000]);
    }
}

/// A store that was closed, or died.
fn store(seed: u64, close: bool) -> SimDisk {
    let disk = SimDisk::new(seed, SimOptions::default());
    let mut store = try_open(&disk, seed).unwrap();
    // Once is not enough for a whole checkpoint.
    work(&mut store);
    work(&mut store);
    if close {
        store.close().unwrap();
    } else {
        drop(store);
        disk.power_cut();
    }
    disk
}

fn first(disk: &SimDisk, start: &str, end: &str) -> Vec<u8> {
    let path = disk.list_all().into_iter().find(|path| path.starts_with(start) && path.ends_with(end));
    disk.read_file(&path.expect("there is one")).unwrap()
}

/// The highest number in the names of these files.
fn number_max(disk: &SimDisk, start: &str) -> u64 {
    let names = disk.list_all().into_iter().filter_map(|path| path.strip_prefix(start).map(str::to_owned));
    names.filter_map(|name| name.split('.').next().unwrap().parse().ok()).max().expect("there is one")
}

/// Opens and uses the store beside these files, twice: the first opening reports each of them, and none is touched.
fn check_left_alone(disk: &SimDisk, files: Vec<(String, Vec<u8>)>, close: bool) {
    let warnings = Warnings::default();
    let opened = tracing::subscriber::with_default(warnings.clone(), || try_open(disk, 1));
    let mut store = opened.unwrap();
    work(&mut store);
    store.close().unwrap();
    work(&mut try_open(disk, 9).unwrap());
    for (path, bytes) in &files {
        assert!(disk.read_file(path).as_ref() == Some(bytes), "closed {close}: {path} was touched");
    }
    let mut paths: Vec<String> = files.into_iter().map(|(path, _)| path).collect();
    let mut reported = warnings.0.lock().unwrap().clone();
    paths.sort();
    reported.sort();
    assert_eq!(reported, paths, "closed {close}");
}

#[test]
fn unknown_files_are_reported_and_left_alone() {
    let _alone = ALONE.lock();
    let other = store(2, true);
    let segment = first(&other, "journal/000/0", ".wal");
    let checkpoint = first(&other, "checkpoint/000/", ".ckp");
    for close in [true, false] {
        let disk = store(1, close);
        // Under the very names that come next.
        let (wal, ckp) = (number_max(&disk, "journal/000/") + 1, number_max(&disk, "checkpoint/000/") + 1);
        let unknown: Vec<(String, Vec<u8>)> = vec![
            (format!("checkpoint/000/{ckp:020}.ckp"), checkpoint.clone()),
            (format!("checkpoint/000/{ckp}.ckp"), b"no name of a checkpoint".to_vec()),
            ("checkpoint/000/notes".to_owned(), b"notes".to_vec()),
            (format!("journal/000/{wal:020}.wal"), segment.clone()),
            (format!("journal/000/{:020}.wal", wal + 3), segment.clone()),
            ("journal/000/notes".to_owned(), b"notes".to_vec()),
            ("journal/000/spare/0000000002-0000000000.wal".to_owned(), segment.clone()),
            ("journal/000/spare/0000000002-0000000001.wal".to_owned(), segment[..8192].to_vec()),
            ("journal/000/spare/mine.wal".to_owned(), vec![0; 64 << 10]),
        ];
        for (path, bytes) in &unknown {
            disk.write_file(path, bytes).unwrap();
        }
        // What the store itself may have left half made goes.
        let torn = format!("checkpoint/000/{:020}.ckp", ckp + 1);
        disk.write_file(&torn, &[0; 8192]).unwrap();
        check_left_alone(&disk, unknown, close);
        assert_eq!(disk.read_file(&torn), None);
    }
}

#[test]
fn a_file_whose_number_leaves_none_is_an_error() {
    let _alone = ALONE.lock();
    let other = store(2, true);
    for (path, bytes) in [
        (format!("journal/000/{:020}.wal", u64::MAX), first(&other, "journal/000/0", ".wal")),
        (format!("checkpoint/000/{:020}.ckp", u64::MAX), first(&other, "checkpoint/000/", ".ckp")),
    ] {
        for close in [true, false] {
            let disk = store(1, close);
            disk.write_file(&path, &bytes).unwrap();
            let error = try_open(&disk, 1).unwrap_err();
            let OpenError::Io { source, .. } = &error else { panic!("{error}") };
            assert!(source.to_string().contains("move it away"), "{source}");
            assert!(disk.read_file(&path) == Some(bytes.clone()));
        }
    }
}

/// What cannot be read does not tell whose it is. Nothing needs these: they are no reason to refuse.
#[test]
fn unreadable_files_that_nothing_needs_are_reported_and_left_alone() {
    let _alone = ALONE.lock();
    for close in [true, false] {
        let disk = store(1, close);
        let (wal, ckp) = (number_max(&disk, "journal/000/"), number_max(&disk, "checkpoint/000/"));
        let spare = disk.list_all().into_iter().find(|path| path.starts_with("journal/000/spare/")).unwrap();
        let unreadable = vec![
            format!("checkpoint/000/{:020}.ckp", ckp + 70),
            format!("journal/000/{:020}.wal", wal + 1),
            format!("journal/000/{:020}.wal", wal + 70),
            spare,
        ];
        let unreadable: Vec<_> = unreadable.into_iter().map(|path| (path, vec![1; 64 << 10])).collect();
        for (path, bytes) in &unreadable {
            disk.write_file(path, bytes).unwrap();
            disk.add_latent_sector(path, 0).unwrap();
        }
        check_left_alone(&disk, unreadable, close);
    }
}

/// An old segment whose header goes bad while the store runs is not used again, and the shard goes on.
#[test]
fn an_old_segment_that_cannot_be_read_is_not_recycled() {
    let _alone = ALONE.lock();
    let disk = SimDisk::new(1, SimOptions::default());
    let mut store = try_open(&disk, 1).unwrap();
    for _ in 0..6 {
        let newest = format!("journal/000/{:020}.wal", number_max(&disk, "journal/000/"));
        disk.add_latent_sector(&newest, 0).unwrap();
        let gone = (0..20).any(|_| {
            work(&mut store);
            disk.read_file(&newest).is_none()
        });
        assert!(gone, "{newest} is still there");
    }
    store.close().unwrap();
    work(&mut try_open(&disk, 9).unwrap());
}
