//! The simulated disk against what it promises.

use super::*;
use crate::io::{AlignedBuf, Completion, Durability, IoBuf, Operation};
use std::collections::BTreeSet;

const SECTOR: usize = 512;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(seed, SimOptions::default())
}

fn block(fill: u8) -> AlignedBuf {
    blocks(fill, 1)
}

fn blocks(fill: u8, count: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::new(count * BLOCK_SIZE);
    buf.fill(fill);
    buf
}

/// A durable file of `count` zeroed blocks.
fn zeroed(disk: &SimDisk, path: &str, count: usize) -> Arc<dyn File> {
    disk.write_file(path, &vec![0; count * BLOCK_SIZE]).unwrap();
    disk.open(path, OpenMode::Write).unwrap()
}

fn write_op(file: &Arc<dyn File>, block_no: u64, fill: u8, durability: Durability) -> Operation {
    let buf = IoBuf::Owned { buf: block(fill), len: BLOCK_SIZE };
    Operation::Write { file: Arc::clone(file), offset: block_no * BLOCK_SIZE as u64, buf, durability }
}

/// Reaps until nothing is in flight; tokens in the order of completion.
fn drain(driver: &mut Box<dyn Driver>) -> Vec<Completion> {
    let mut out = Vec::new();
    while driver.in_flight() > 0 {
        driver.wait(None).unwrap();
        driver.reap(&mut out).unwrap();
    }
    out
}

/// The byte that fills each sector.
fn sectors(bytes: &[u8]) -> Vec<u8> {
    bytes
        .chunks(SECTOR)
        .map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "torn sector");
            sector[0]
        })
        .collect()
}

fn names(disk: &SimDisk) -> String {
    disk.list_all().join(" ")
}

/// What `life` leaves behind after a cut, over many seeds.
fn outcomes(life: impl Fn(&SimDisk) -> Vec<Arc<dyn File>>) -> BTreeSet<String> {
    (0..300)
        .map(|seed| {
            let disk = disk(seed);
            drop(life(&disk));
            disk.power_cut();
            names(&disk)
        })
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn os_code<T: fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().expect("an error of the kernel")
}

#[test]
fn unflushed_writes_may_vanish_in_any_subset_of_sectors() {
    let seen: BTreeSet<Vec<u8>> = (0..400)
        .map(|seed| {
            let disk = disk(seed);
            zeroed(&disk, "f", 1).write_at(&block(1), 0).unwrap();
            assert_eq!(disk.read_file("f").unwrap(), &block(1)[..], "a read sees what was written");
            disk.power_cut();
            sectors(&disk.read_file("f").unwrap())
        })
        .collect();
    assert!(seen.contains(&vec![0; 8]) && seen.contains(&vec![1; 8]));
    assert!(seen.len() > 60, "only {} outcomes", seen.len());
}

#[test]
fn flushed_writes_never_vanish() {
    for seed in 0..100 {
        let disk = disk(seed);
        let file = zeroed(&disk, "f", 1);
        file.write_at(&block(1), 0).unwrap();
        file.write_at(&block(2), BLOCK_SIZE as u64).unwrap();
        file.flush().unwrap();
        disk.power_cut();
        disk.power_cut();
        assert_eq!(sectors(&disk.read_file("f").unwrap()), [[1; 8], [2; 8]].concat());
    }
}

#[test]
fn a_durable_write_covers_its_own_range_only() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..200 {
        let disk = disk(seed);
        let file = zeroed(&disk, "f", 4);
        let mut driver = disk.driver().unwrap();
        file.write_at(&blocks(1, 4), 0).unwrap();
        driver.submit(0, write_op(&file, 1, 2, Durability::Durable));
        driver.submit(1, write_op(&file, 6, 3, Durability::Durable));
        assert!(drain(&mut driver).iter().all(|end| end.result.is_ok() && end.buf.is_some()));
        disk.power_cut();
        let left = sectors(&disk.read_file("f").unwrap());
        assert_eq!((&left[8..16], &left[48..]), (&[2; 8][..], &[3; 8][..]), "and the size that reaches it");
        let others = [&left[..8], &left[16..32]].concat();
        assert!(others.iter().all(|sector| *sector < 2));
        lost += usize::from(others.contains(&0));
        kept += usize::from(others.contains(&1));
    }
    assert!(lost > 20 && kept > 20);
}

#[test]
fn operations_end_in_any_order_and_every_subset_survives_in_flight() {
    let (mut orders, mut survivors) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..400 {
        let disk = SimDisk::new(seed, SimOptions { slow: 0.2, reap_nothing: 0.2, ..SimOptions::default() });
        let file = zeroed(&disk, "f", 3);
        let mut driver = disk.driver().unwrap();
        for token in 0..3 {
            driver.submit(token, write_op(&file, token, 1, Durability::Durable));
        }
        if seed % 2 == 0 {
            orders.insert(drain(&mut driver).iter().map(|end| end.token).collect::<Vec<_>>());
            assert_eq!(sectors(&disk.read_file("f").unwrap()), [1; 24]);
        } else {
            assert_eq!(sectors(&disk.read_file("f").unwrap()), [0; 24], "not seen before its end");
            disk.power_cut();
            let left = sectors(&disk.read_file("f").unwrap());
            survivors.insert([0, 8, 16].map(|at| left[at]));
            assert!(is_power_off(&driver.reap(&mut Vec::new()).unwrap_err()));
        }
    }
    assert_eq!((orders.len(), survivors.len()), (6, 8));
}

#[test]
fn a_flush_covers_what_ended_before_it_was_submitted() {
    let mut lost = 0;
    for seed in 0..200 {
        let disk = disk(seed);
        let file = zeroed(&disk, "f", 2);
        let mut driver = disk.driver().unwrap();
        driver.submit(0, write_op(&file, 0, 1, Durability::Written));
        drain(&mut driver);
        driver.submit(1, Operation::Flush { file: Arc::clone(&file) });
        driver.submit(2, write_op(&file, 1, 1, Durability::Written));
        drain(&mut driver);
        disk.power_cut();
        let left = sectors(&disk.read_file("f").unwrap());
        assert_eq!(left[..8], [1; 8]);
        lost += usize::from(left.contains(&0));
    }
    assert!(lost > 20, "the flush covered a write that was in flight with it");
}

#[test]
fn names_need_a_sync_of_their_directory() {
    let create =
        |disk: &SimDisk| vec![disk.open("a", OpenMode::Create).unwrap(), disk.open("b", OpenMode::Create).unwrap()];
    assert_eq!(outcomes(create), set(&["", "a", "b", "a b"]));
    let synced = |disk: &SimDisk| {
        let files = create(disk);
        disk.sync_dir("").unwrap();
        files
    };
    assert_eq!(outcomes(synced), set(&["a b"]));
    let inner_only = |disk: &SimDisk| {
        disk.create_dir("d").unwrap();
        let file = disk.open("d/a", OpenMode::Create).unwrap();
        disk.sync_dir("d").unwrap();
        vec![file]
    };
    assert_eq!(outcomes(inner_only), set(&["", "d/a"]), "the directory's own name was not synced");
}

#[test]
fn a_rename_within_a_directory_is_atomic() {
    let rename = |disk: &SimDisk| {
        disk.write_file("d/new", b"new").unwrap();
        disk.write_file("d/name", b"old").unwrap();
        disk.rename("d/new", "d/name").unwrap();
        vec![]
    };
    assert_eq!(outcomes(rename), set(&["d/name d/new", "d/name"]));
    for seed in 0..50 {
        let disk = disk(seed);
        rename(&disk);
        disk.power_cut();
        let renamed = disk.read_file("d/new").is_none();
        assert_eq!(disk.read_file("d/name").unwrap(), if renamed { b"new" } else { b"old" });
    }
}

#[test]
fn a_rename_across_directories_leaves_at_least_one_name() {
    let rename = |disk: &SimDisk| {
        disk.write_file("a/x", b"x").unwrap();
        disk.write_file("b/y", b"y").unwrap();
        disk.rename("a/x", "b/x").unwrap();
        vec![]
    };
    let then_sync = |dirs: &'static [&'static str]| {
        move |disk: &SimDisk| {
            rename(disk);
            dirs.iter().for_each(|dir| disk.sync_dir(dir).unwrap());
            vec![]
        }
    };
    assert_eq!(outcomes(rename), set(&["a/x b/y", "a/x b/x b/y", "b/x b/y"]));
    assert_eq!(outcomes(then_sync(&["a"])), set(&["a/x b/y", "b/x b/y"]));
    assert_eq!(outcomes(then_sync(&["b"])), set(&["a/x b/x b/y", "b/x b/y"]));
    assert_eq!(outcomes(then_sync(&["a", "b"])), set(&["b/x b/y"]));
    assert_eq!(outcomes(then_sync(&["b", "a"])), set(&["b/x b/y"]));
}

#[test]
fn there_and_back_again_never_loses_a_file() {
    const SYNCS: [&[&str]; 5] = [&[], &["a"], &["b"], &["a", "b"], &["b", "a"]];
    for first in SYNCS {
        for second in SYNCS {
            let life = |disk: &SimDisk| {
                disk.write_file("a/x", b"x").unwrap();
                disk.write_file("b/y", b"y").unwrap();
                disk.rename("a/x", "b/x").unwrap();
                first.iter().for_each(|dir| disk.sync_dir(dir).unwrap());
                disk.rename("b/x", "a/x").unwrap();
                second.iter().for_each(|dir| disk.sync_dir(dir).unwrap());
                vec![]
            };
            let seen = outcomes(life);
            assert!(seen.iter().all(|names| names.contains("/x")), "{first:?} {second:?}: {seen:?}");
            assert!(second.len() < 2 || seen == set(&["a/x b/y"]), "{first:?} {second:?}: {seen:?}");
        }
    }
}

#[test]
fn an_unlinked_file_may_come_back_until_the_sync() {
    let unlink = |disk: &SimDisk| {
        disk.write_file("a", b"a").unwrap();
        disk.unlink("a").unwrap();
        vec![]
    };
    assert_eq!(outcomes(unlink), set(&["", "a"]));
    let synced = |disk: &SimDisk| {
        unlink(disk);
        disk.sync_dir("").unwrap();
        assert_eq!(disk.space_used(), 0);
        vec![]
    };
    assert_eq!(outcomes(synced), set(&[""]));
}

#[test]
fn directories_are_made_and_listed() {
    let disk = disk(0);
    disk.create_dir("d").unwrap();
    assert_eq!(disk.create_dir("d").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(disk.create_dir("x/y").unwrap_err().kind(), io::ErrorKind::NotFound);
    drop(disk.open("d/f", OpenMode::Create).unwrap());
    assert_eq!(disk.open("d/f", OpenMode::Create).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(disk.open("d/g", OpenMode::Write).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.list("").unwrap(), [DirEntry { name: "d".to_owned(), is_dir: true }]);
    assert_eq!(disk.list("d").unwrap(), [DirEntry { name: "f".to_owned(), is_dir: false }]);
    disk.unlink("d/f").unwrap();
    disk.sync_dir("").unwrap();
    disk.sync_dir("d").unwrap();
    disk.power_cut();
    assert!(disk.list("d").unwrap().is_empty());
}

#[test]
fn a_failing_flush_drops_and_the_next_succeeds() {
    let mut dropped = 0;
    for seed in 0..50 {
        let disk = disk(seed);
        let file = zeroed(&disk, "f", 2);
        disk.one_shot_fault(FaultKind::Flush, 2);
        file.write_at(&block(1), 0).unwrap();
        file.flush().unwrap();
        file.write_at(&block(1), BLOCK_SIZE as u64).unwrap();
        assert_eq!(os_code(file.flush()), libc::EIO);
        file.flush().unwrap();
        disk.power_cut();
        let left = sectors(&disk.read_file("f").unwrap());
        assert_eq!(left[..8], [1; 8]);
        dropped += usize::from(left[8..].contains(&0));
    }
    assert!(dropped > 40);
}

#[test]
fn space_runs_out_and_comes_back() {
    let disk = SimDisk::new(1, SimOptions { space: Some(4 * BLOCK_SIZE as u64), ..SimOptions::default() });
    let file = disk.open("f", OpenMode::Create).unwrap();
    file.allocate(2 * BLOCK_SIZE as u64).unwrap();
    file.allocate(10).unwrap();
    assert_eq!((file.size().unwrap(), disk.space_used()), (2 * BLOCK_SIZE as u64, 3 * BLOCK_SIZE as u64));
    assert_eq!(file.write_at(&blocks(1, 4), 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(os_code(file.allocate(4 * BLOCK_SIZE as u64)), libc::ENOSPC);
    file.write_at(&blocks(1, 3), 0).unwrap();
    assert_eq!(os_code(disk.open("g", OpenMode::Create)), libc::ENOSPC);
    assert_eq!(os_code(disk.create_dir("d")), libc::ENOSPC);
    file.set_size(BLOCK_SIZE as u64).unwrap();
    drop(disk.open("g", OpenMode::Create).unwrap());
    disk.unlink("f").unwrap();
    assert_eq!(disk.space_used(), 3 * BLOCK_SIZE as u64, "an open file keeps its space");
    drop(file);
    assert_eq!(disk.space_used(), BLOCK_SIZE as u64);
    disk.set_space(Some(0));
    assert!(disk.open("h", OpenMode::Create).is_err());
    disk.set_space(None);
    disk.open("h", OpenMode::Create).unwrap();
}

#[test]
fn handles_and_drivers_are_dead_after_a_cut() {
    let disk = disk(3);
    let file = zeroed(&disk, "f", 1);
    let mut driver = disk.driver().unwrap();
    driver.submit(7, write_op(&file, 0, 1, Durability::Durable));
    disk.power_cut();
    assert!(is_power_off(&file.size().unwrap_err()));
    assert!(is_power_off(&file.write_at(&block(1), 0).unwrap_err()));
    assert!(is_power_off(&file.read_at(&mut block(0), 0).unwrap_err()));
    assert!(is_power_off(&driver.kick().unwrap_err()));
    driver.submit(8, write_op(&file, 0, 1, Durability::Durable));
    let mut out = Vec::new();
    assert!(is_power_off(&driver.reap(&mut out).unwrap_err()));
    assert!(out.len() == 1 && out[0].token == 8 && is_power_off(out[0].result.as_ref().unwrap_err()));
    drop((driver, file));
    let again = disk.open("f", OpenMode::Write).unwrap();
    again.write_at(&block(9), 0).unwrap();
    assert!(!is_power_off(&disk.open("none", OpenMode::Read).unwrap_err()));
    let wrapped = io::Error::other(again.size().map_or_else(|err| err, |_| super::options::power_off()));
    assert!(is_power_off(&wrapped));
}

#[test]
fn the_power_goes_off_at_the_step_asked_for() {
    let disk = disk(5);
    let file = zeroed(&disk, "journal/000/1.wal", 1);
    disk.power_off_after(Some(3));
    file.write_at(&block(1), 0).unwrap();
    file.flush().unwrap();
    assert!(!disk.is_off());
    assert!(is_power_off(&file.write_at(&block(2), 0).unwrap_err()));
    assert!(disk.is_off() && disk.steps() == 3);
    assert_eq!(disk.last_step(), Some((StepKind::JournalWrite, None)));
    assert!(is_power_off(&disk.open("journal/000/1.wal", OpenMode::Read).unwrap_err()));
    assert!(is_power_off(&disk.sync_dir("").unwrap_err()));
    assert_eq!(disk.steps(), 3);
    disk.power_cut();
    let left = sectors(&disk.read_file("journal/000/1.wal").unwrap());
    assert!(left.iter().all(|sector| [1, 2].contains(sector)));
    disk.power_off_after(Some(0));
    assert!(disk.open("journal/000/1.wal", OpenMode::Read).is_err());
}

#[test]
fn the_step_at_which_the_power_goes_may_have_happened() {
    let cut_at_first = |life: &dyn Fn(&SimDisk)| {
        outcomes(|disk| {
            disk.write_file("a", &[7; BLOCK_SIZE]).unwrap();
            disk.power_off_after(Some(1));
            life(disk);
            vec![]
        })
    };
    assert_eq!(cut_at_first(&|disk| drop(disk.open("b", OpenMode::Create).unwrap_err())), set(&["a", "a b"]));
    assert_eq!(cut_at_first(&|disk| drop(disk.rename("a", "b").unwrap_err())), set(&["a", "b"]));
    assert_eq!(cut_at_first(&|disk| drop(disk.unlink("a").unwrap_err())), set(&["", "a"]));
    let kept: BTreeSet<bool> = (0..60)
        .map(|seed| {
            let disk = disk(seed);
            let file = zeroed(&disk, "f", 1);
            let mut driver = disk.driver().unwrap();
            driver.submit(0, write_op(&file, 0, 1, Durability::Durable));
            disk.power_off_after(Some(1));
            assert!(is_power_off(&driver.wait(None).unwrap_err()));
            drop(driver);
            disk.power_cut();
            sectors(&disk.read_file("f").unwrap()) == [1; 8]
        })
        .collect();
    assert_eq!(kept.len(), 2);
}

#[test]
fn a_dropped_driver_ends_what_is_in_flight() {
    let disk = disk(0);
    let file = zeroed(&disk, "f", 1);
    let mut driver = disk.driver().unwrap();
    driver.submit(0, write_op(&file, 0, 1, Durability::Written));
    drop(driver);
    assert_eq!(sectors(&disk.read_file("f").unwrap()), [1; 8]);
}

#[test]
fn writes_fail_get_lost_and_go_astray() {
    let with = |change: fn(&mut SimOptions)| {
        let mut options = SimOptions::default();
        change(&mut options);
        let disk = SimDisk::new(11, options);
        let file = zeroed(&disk, "f", 8);
        (file.write_at(&block(1), 0), sectors(&disk.read_file("f").unwrap()))
    };
    let (result, left) = with(|options| options.write_error = 1.0);
    assert_eq!(os_code(result), libc::EIO);
    assert_eq!(left[8..], [0; 56]);
    let (result, left) = with(|options| options.lost_write = 1.0);
    assert!(result.is_ok() && left == [0; 64]);
    let (result, left) = with(|options| options.misdirected_write = 1.0);
    assert!(result.is_ok() && left.iter().filter(|sector| **sector == 1).count() == 8);
}

#[test]
fn one_shot_faults_hit_the_nth_operation() {
    let disk = disk(0);
    disk.one_shot_fault(FaultKind::Create, 2);
    disk.one_shot_fault(FaultKind::Write, 2);
    disk.one_shot_fault(FaultKind::SyncDir, 1);
    let file = disk.open("a", OpenMode::Create).unwrap();
    assert_eq!(os_code(disk.open("b", OpenMode::Create)), libc::EIO);
    disk.open("b", OpenMode::Create).unwrap();
    assert_eq!(os_code(disk.sync_dir("")), libc::EIO);
    disk.sync_dir("").unwrap();
    let mut driver = disk.driver().unwrap();
    for token in 0..3 {
        driver.submit(token, write_op(&file, token, 1, Durability::Written));
    }
    let failed: Vec<u64> = drain(&mut driver).iter().filter(|end| end.result.is_err()).map(|end| end.token).collect();
    assert_eq!(failed, [1]);
}

#[test]
fn latent_sectors_and_flipped_bits_show_in_reads() {
    let disk = disk(0);
    let file = zeroed(&disk, "f", 2);
    let mut buf = block(9);
    disk.add_latent_sector("f", 3).unwrap();
    assert_eq!(os_code(file.read_at(&mut buf, 0)), libc::EIO);
    assert_eq!(file.read_at(&mut buf, BLOCK_SIZE as u64).unwrap(), BLOCK_SIZE);
    file.write_at(&block(1), 0).unwrap();
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), BLOCK_SIZE);
    assert!(disk.flip_bit("f", 100, 7).unwrap());
    assert!(!disk.flip_bit("f", 2 * BLOCK_SIZE as u64, 0).unwrap());
    file.read_at(&mut buf, 0).unwrap();
    assert_eq!((buf[99], buf[100]), (1, 0x81));
    disk.power_cut();
    assert_eq!(disk.read_file("f").unwrap()[100] & 0x80, 0x80, "in the old version too");
}

#[test]
fn reads_end_at_the_end_and_ask_for_alignment() {
    let disk = disk(0);
    disk.write_file("f", &[5; 5000]).unwrap();
    let file = disk.open("f", OpenMode::Read).unwrap();
    let mut buf = blocks(0, 2);
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 5000);
    assert_eq!(file.read_at(&mut buf, 3 * BLOCK_SIZE as u64).unwrap(), 0);
    assert_eq!(os_code(file.read_at(&mut buf[..100], 0)), libc::EINVAL);
    assert_eq!(os_code(file.read_at(&mut buf, 100)), libc::EINVAL);
    assert_eq!(os_code(file.write_at(&buf, 0)), libc::EBADF);
    assert_eq!(disk.facts().backend, "sim");
}

#[test]
fn sectors_tear_only_if_asked_to() {
    let torn = |tear_within_sector: bool, sector_size: usize| {
        (0..100).any(|seed| {
            let disk = SimDisk::new(seed, SimOptions { tear_within_sector, sector_size, ..SimOptions::default() });
            zeroed(&disk, "f", 4).write_at(&blocks(1, 4), 0).unwrap();
            disk.power_cut();
            let left = disk.read_file("f").unwrap();
            left.chunks(sector_size).any(|sector| sector.iter().any(|byte| *byte != sector[0]))
        })
    };
    assert!(!torn(false, 512) && torn(true, 512) && !torn(false, 4096) && torn(true, 4096));
}

#[test]
fn kinds_are_told_by_path_phase_and_name() {
    let disk = disk(0);
    for path in ["journal/000/1.wal", "journal/000/spare/1", "checkpoint/000/1.ckp", "channels/00/0/0.dat", "STORE"] {
        disk.write_file(path, &[0; 2 * BLOCK_SIZE]).unwrap();
    }
    let kind_of = |call: &dyn Fn() -> io::Result<()>| {
        call().unwrap();
        disk.last_step().unwrap().0
    };
    let write = |path: &str| disk.open(path, OpenMode::Write)?.write_at(&block(1), 0);
    assert_eq!(kind_of(&|| write("journal/000/1.wal")), StepKind::JournalWrite);
    assert_eq!(kind_of(&|| write("journal/000/spare/1")), StepKind::Recycle);
    assert_eq!(kind_of(&|| write("checkpoint/000/1.ckp")), StepKind::CheckpointFile);
    assert_eq!(kind_of(&|| write("channels/00/0/0.dat")), StepKind::Destage);
    assert_eq!(kind_of(&|| write("STORE")), StepKind::Other);
    assert_eq!(kind_of(&|| disk.open("channels/00/0/0.dat", OpenMode::Write)?.set_size(9)), StepKind::Seal);
    assert_eq!(kind_of(&|| disk.rename("journal/000/spare/1", "journal/000/2.wal")), StepKind::Roll);
    assert_eq!(kind_of(&|| disk.rename("journal/000/1.wal", "journal/000/spare/3")), StepKind::Recycle);
    assert_eq!(kind_of(&|| disk.sync_dir("journal/000")), StepKind::DirSync);
    assert_eq!(kind_of(&|| disk.unlink("checkpoint/000/1.ckp")), StepKind::Recycle);
    disk.set_phase(Some("extent"));
    assert_eq!(kind_of(&|| write("channels/00/0/0.dat")), StepKind::Extent);
    disk.set_phase(Some("my own"));
    assert_eq!(kind_of(&|| write("STORE")), StepKind::Other);
    assert_eq!(disk.last_step(), Some((StepKind::Other, Some("my own"))));
    assert!(StepKind::ALL.into_iter().all(|kind| StepKind::from_label(&kind.to_string()) == Some(kind)));
}

/// A random life of a few files; the number of steps and the trace.
fn random_life(seed: u64) -> (u64, u64) {
    let options = SimOptions {
        slow: 0.1,
        write_error: 0.02,
        flush_error: 0.02,
        misdirected_write: 0.02,
        ..SimOptions::default()
    };
    let (disk, mut chance) = (SimDisk::new(seed, options), chance::Chance::new(seed));
    for _ in 0..4 {
        let mut driver = disk.driver().unwrap();
        let file = zeroed(&disk, "f", 4);
        for token in 0..40 {
            match chance.below(6) {
                0 => driver.submit(token, Operation::Flush { file: Arc::clone(&file) }),
                1 => driver.submit(token, write_op(&file, chance.below(6), token as u8, Durability::Durable)),
                2 => drop(disk.open(&format!("n{token}"), OpenMode::Create)),
                3 => drop(driver.reap(&mut Vec::new())),
                4 => drop(file.set_size(chance.below(6) * 1000)),
                _ => driver.submit(token, write_op(&file, chance.below(6), token as u8, Durability::Written)),
            }
        }
        disk.power_cut();
    }
    (disk.steps(), disk.trace_hash())
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let traces: BTreeSet<_> = (0..50).map(random_life).collect();
    assert_eq!(traces.len(), 50);
    assert!((0..50).all(|seed| traces.contains(&random_life(seed))));
}

/// A slow, plain copy of the promise: which bytes may fill each sector after a cut.
#[derive(Default)]
struct Model {
    live: Vec<u8>,
    allowed: Vec<BTreeSet<u8>>,
    sizes: BTreeSet<usize>,
}

impl Model {
    fn write(&mut self, start: usize, count: usize, fill: u8, durable: bool) {
        if start + count > self.live.len() {
            self.live.resize(start + count, 0);
            self.sizes.insert(start + count);
        }
        for at in start..start + count {
            self.live[at] = fill;
            if durable {
                self.allowed[at].clear();
            }
            self.allowed[at].insert(fill);
        }
        if durable {
            self.sizes = self.sizes.iter().map(|size| (*size).max(start + count)).collect();
        }
    }

    fn set_size(&mut self, size: usize) {
        for at in size..self.live.len() {
            self.allowed[at].insert(0);
        }
        self.live.resize(size, 0);
        self.sizes.insert(size);
    }

    fn flush(&mut self) {
        for (at, allowed) in self.allowed.iter_mut().enumerate() {
            *allowed = BTreeSet::from([self.live.get(at).copied().unwrap_or(0)]);
        }
        self.sizes = BTreeSet::from([self.live.len()]);
    }

    fn cut(&mut self, left: Vec<u8>) {
        assert!(self.sizes.contains(&left.len()), "size {} of {:?}", left.len(), self.sizes);
        for (at, fill) in left.iter().enumerate() {
            assert!(self.allowed[at].contains(fill), "sector {at}: {fill} of {:?}", self.allowed[at]);
        }
        self.live = left;
        self.flush();
    }
}

#[test]
fn what_survives_is_what_a_plain_model_allows() {
    for seed in 0..300 {
        let (disk, mut chance) = (disk(seed), chance::Chance::new(seed ^ 0xabcd));
        let mut model =
            Model { allowed: vec![BTreeSet::from([0]); 16 * 8], sizes: BTreeSet::from([0]), ..Model::default() };
        disk.write_file("f", &[]).unwrap();
        for _ in 0..6 {
            let (file, mut driver) = (disk.open("f", OpenMode::Write).unwrap(), disk.driver().unwrap());
            for _ in 0..chance.below(12) {
                let (at, fill) = (chance.below(8), 1 + chance.below(250) as u8);
                match chance.below(8) {
                    0 => {
                        file.flush().unwrap();
                        model.flush();
                    }
                    1 => {
                        file.set_size(at * SECTOR as u64).unwrap();
                        model.set_size(at as usize);
                    }
                    2 => {
                        driver.submit(0, write_op(&file, at, fill, Durability::Durable));
                        drain(&mut driver);
                        model.write(at as usize * 8, 8, fill, true);
                    }
                    _ => {
                        let count = 1 + chance.below(3) as usize;
                        file.write_at(&blocks(fill, count), at * BLOCK_SIZE as u64).unwrap();
                        model.write(at as usize * 8, count * 8, fill, false);
                    }
                }
                assert_eq!(sectors(&disk.read_file("f").unwrap()), model.live);
            }
            disk.power_cut();
            model.cut(sectors(&disk.read_file("f").unwrap()));
        }
    }
}
