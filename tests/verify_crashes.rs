//! A check of a whole store finds nothing wrong with what a crash leaves: on a simulated disk, which forgets what was not flushed.

use std::sync::Arc;

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStore, verify};
use redex::{FindingKind, Redex, RedexFile, RedexFileConfig, Severity, SurveyError};
use redex_tests::drive;

/// Lives of one store.
const LIVES: u64 = 12;
const SEEDS: u64 = 12;

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn channel(redex: &Redex, index: u64) -> RedexFile {
    let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(16 << 10);
    redex.open_file(format!("c/{index}"), config).unwrap()
}

/// Appends, cuts, trims, deletions; the last ones are still under way when the life ends.
fn live(store: &mut SimStore, chance: &mut Chance) {
    for _ in 0..8 + chance.below(30) {
        let file = channel(store.redex(), chance.below(5));
        let payloads = |chance: &mut Chance, count| -> Vec<Vec<u8>> {
            (0..count).map(|i| vec![i as u8; [0, 7, 40, 900, 20_000][chance.below(5) as usize]]).collect()
        };
        match chance.below(12) {
            0 => _ = drive(store, file.truncate_suffix(file.head_seq() + chance.below(file.len() + 1))).unwrap(),
            1 => _ = drive(store, file.trim_head(file.head_seq() + chance.below(file.len() + 1))).unwrap(),
            2 if chance.below(4) == 0 => drive(store, store_delete(store, &file)).unwrap(),
            3..=5 => {
                let count = 100 + chance.below(300);
                drive(store, file.append_batch_durable(&vec![[1; 5]; count as usize])).map(drop).unwrap();
            }
            6..=9 => {
                let count = 1 + chance.below(12);
                let batch = payloads(chance, count);
                drive(store, file.append_batch_durable(&batch)).map(drop).unwrap();
            }
            _ => {
                // Nobody waits for these.
                payloads(chance, 3).iter().for_each(|payload| _ = file.try_append(payload));
                (0..chance.below(6)).for_each(|_| _ = store.turn(0));
            }
        }
    }
}

fn store_delete(store: &SimStore, file: &RedexFile) -> redex::Change<()> {
    store.redex().delete_channel(file.name().as_str())
}

/// After a power cut, a kill and a close, at any moment: the check is clean, and the store opens.
#[test]
fn what_a_crash_leaves_is_clean() {
    let (mut checked, mut events) = (0, 0);
    for seed in 0..SEEDS {
        let (disk, clock) = (SimDisk::new(seed, SimOptions::default()), Arc::new(ManualClock::default()));
        let mut chance = Chance(seed);
        for life in 0..LIVES {
            let mut store = SimStore::open(&disk, &SimSettings::default(), &clock, seed * 100 + life).unwrap();
            live(&mut store, &mut chance);
            match chance.below(4) {
                0 => store.close().unwrap(),
                1 => drop(store),
                _ => {
                    drop(store);
                    disk.power_cut();
                }
            }
            match verify(&disk) {
                Ok(report) => {
                    assert!(report.is_clean(), "seed {seed}, life {life}: {report}");
                    (checked, events) = (checked + 1, events + report.events);
                }
                Err(error) => {
                    assert!(matches!(error, SurveyError::NoStore { .. }), "seed {seed}, life {life}: {error}")
                }
            }
        }
    }
    assert!(checked > 100 && events > 10_000, "{checked} checks, {events} events");
}

/// Disks with the same history behind them: two lives of a store, one closed and one not, whose spare segments still have
/// headers of before.
fn with_history(settings: &SimSettings) -> SimDisk {
    let disk = SimDisk::new(1, SimOptions::default());
    for life in 0..2 {
        let mut store = SimStore::open(&disk, settings, &Arc::new(ManualClock::default()), life).unwrap();
        lives_on(&mut store, 28);
        if life == 0 {
            store.close().unwrap();
        }
    }
    disk.power_cut();
    disk
}

/// Appends through several rolls and checkpoints, with a channel that comes and goes, as far as the power lasts.
fn lives_on(store: &mut SimStore, rounds: u64) {
    let config = || RedexFileConfig::default().with_persistent(true).with_segment_bytes(64 << 10);
    for round in 0..rounds {
        let Ok(file) = store.redex().open_file("long", config()) else { return };
        // Little but records: what goes around the journal makes no roll.
        let (count, len) = if round % 8 == 3 { (5, 2_500) } else { (700, 5) };
        let batch = vec![vec![round as u8; len]; count];
        if drive(store, file.append_batch_durable(&batch)).is_err() {
            return;
        }
        if round % 8 == 5 {
            let Ok(file) = store.redex().open_file("short", config()) else { return };
            let delete = store.redex().delete_channel("short");
            if drive(store, file.append_durable(b"soon gone")).is_err() || drive(store, delete).is_err() {
                return;
            }
        }
    }
}

/// One opening and one life, with the power going off at the step `off_after`; says how many steps there were.
fn until_the_power_goes(disk: &SimDisk, settings: &SimSettings, rounds: u64, off_after: Option<u64>) -> u64 {
    let before = disk.steps();
    disk.power_off_after(off_after);
    if let Ok(mut store) = SimStore::open(disk, settings, &Arc::new(ManualClock::default()), 7) {
        lives_on(&mut store, rounds);
        if !disk.is_off() {
            _ = store.close();
        }
    }
    disk.steps() - before
}

fn expect_clean(disk: &SimDisk, context: &str) {
    match verify(disk) {
        Ok(report) => assert!(report.is_clean(), "{context}: {report}"),
        Err(error) => assert!(matches!(error, SurveyError::NoStore { .. }), "{context}: {error}"),
    }
}

/// The power goes off at every `stride`th step of an opening and of a life with so many rounds: the check is clean.
fn every_step_leaves_a_clean_store(begun: &SimDisk, rounds: u64, stride: usize) {
    let settings = SimSettings::default();
    let steps = until_the_power_goes(&begun.fork(0), &settings, rounds, None);
    for off_after in (0..steps).step_by(stride) {
        let disk = begun.fork(off_after);
        until_the_power_goes(&disk, &settings, rounds, Some(off_after));
        disk.power_cut();
        expect_clean(&disk, &format!("power off after {off_after} of {steps} steps"));
    }
}

#[test]
fn a_power_cut_at_any_step_of_the_making_leaves_no_damage() {
    every_step_leaves_a_clean_store(&SimDisk::new(3, SimOptions::default()), 3, 1);
}

/// With rolls and checkpoints; each takes several steps, so every other one is enough.
#[test]
fn a_power_cut_at_any_step_of_a_later_life_leaves_no_damage() {
    every_step_leaves_a_clean_store(&with_history(&SimSettings::default()), 28, 2);
}

/// A copy of STORE that the device does not give is no more than one that is bad: the other one does.
#[test]
fn one_unreadable_copy_of_store_does_not_stop_an_open() {
    for copy in 0..2 {
        let (disk, clock) = (SimDisk::new(5, SimOptions::default()), Arc::new(ManualClock::default()));
        let mut store = SimStore::open(&disk, &SimSettings::default(), &clock, 1).unwrap();
        lives_on(&mut store, 3);
        store.close().unwrap();
        disk.add_latent_sector("STORE", copy * 4096 / disk.options().sector_size as u64).unwrap();
        let report = verify(&disk).unwrap();
        let kinds: Vec<_> = report.damages().map(|found| (found.kind, found.severity)).collect();
        assert_eq!(kinds, [(FindingKind::StoreCopy, Severity::Redundant)], "{report}");
        SimStore::open(&disk, &SimSettings::default(), &clock, 2).unwrap();
    }
}

/// A block of a journal that the device does not give may be an acknowledged commit, or a part of one: it is told, whatever
/// lies in it, as an open refuses it; and so is an extent.
#[test]
fn what_the_device_does_not_give_is_told() {
    let (disk, clock) = (SimDisk::new(5, SimOptions::default()), Arc::new(ManualClock::default()));
    let mut store = SimStore::open(&disk, &SimSettings::default(), &clock, 1).unwrap();
    let file = channel(store.redex(), 1);
    drive(&mut store, file.append_batch_durable(&vec![vec![1; 900]; 10])).unwrap();
    drive(&mut store, file.append_durable(vec![2; 40_000])).unwrap();
    drop((file, store));
    disk.kill();
    let files = disk.list_all();
    let wanted = |name: &&String| !name.contains("spare") && (name.ends_with(".wal") || name.ends_with(".dat"));
    let mut told = 0;
    for name in files.iter().filter(wanted) {
        for block in 0..disk.read_file(name).unwrap().len() as u64 / 4096 {
            let disk = disk.fork(block);
            disk.add_latent_sector(name, block * 4096 / disk.options().sector_size as u64).unwrap();
            let report = verify(&disk).unwrap();
            let opened = SimStore::open(&disk, &SimSettings::default(), &clock, 2);
            assert!(opened.is_ok() || report.losses > 0, "{name}, block {block}: {report}");
            let unreadable = |found: &redex::StoreFinding| {
                let kinds = [FindingKind::Unreadable, FindingKind::JournalExtent];
                found.file == *name && kinds.contains(&found.kind) && found.cause.contains("cannot be read")
            };
            told += u32::from(report.damages().any(unreadable));
        }
    }
    assert!(told > 12, "{told}");
}
