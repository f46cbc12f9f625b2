//! Damage in what belongs to a channel that nobody opens: the others go on, through closes, kills and merges.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStore};
use redex::{FsyncPolicy, OpenFileError, RedexFile, RedexFileConfig};

const PAYLOAD: [u8; 20] = [0xab; 20];

fn open(disk: &SimDisk, seed: u64) -> SimStore {
    SimStore::open(disk, &SimSettings::default(), &Arc::new(ManualClock::default()), seed).expect("the store opens")
}

fn config() -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(1))
}

fn append(store: &mut SimStore, file: &RedexFile, payload: &[u8]) -> u64 {
    let mut future = pin!(file.append_durable(payload));
    for _ in 0..10_000 {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(appended) => return appended.expect("it is appended"),
            Poll::Pending => _ = store.step(),
        }
    }
    panic!("an append waits for ever");
}

/// A closed store with a channel whose tail the checkpoint file has at this place.
fn store_with_tail() -> (SimDisk, String, u64) {
    let disk = SimDisk::new(1, SimOptions::default());
    let mut store = open(&disk, 5);
    let file = store.redex().open_file("cold", config()).unwrap();
    append(&mut store, &file, &PAYLOAD);
    drop(file);
    store.close().unwrap();
    let path = disk.list_all().into_iter().find(|path| path.ends_with(".ckp")).unwrap();
    let bytes = disk.read_file(&path).unwrap();
    let at = bytes.windows(PAYLOAD.len()).position(|window| window == PAYLOAD).unwrap();
    (disk, path, at as u64)
}

/// More lives than there may be checkpoint files, so that entries move along.
fn live_on(disk: &SimDisk, kill: bool) {
    for life in 0..24 {
        let mut store = open(disk, 6 + life);
        let name = format!("w{life}");
        let file = store.redex().open_file(&*name, config()).unwrap();
        assert_eq!(append(&mut store, &file, &[1; 20]), 0);
        drop(file);
        if kill {
            drop(store);
            disk.power_cut();
        } else {
            store.close().unwrap();
        }
    }
    let store = open(disk, 40);
    let error = store.redex().open_file("cold", config()).unwrap_err();
    assert!(matches!(error, OpenFileError::Damaged { .. }), "{error}");
    for life in 0..24 {
        let name = format!("w{life}");
        assert_eq!(store.redex().open_file(&*name, config()).unwrap().next_seq(), 1);
    }
    let left = disk.list_all().into_iter().filter(|path| path.ends_with(".ckp")).count();
    // One more, for the file that stays.
    assert!(left <= SimSettings::default().checkpoint_limits.files_max + 2, "{left} checkpoint files");
}

#[test]
fn a_damaged_tail_stays_its_channels_own() {
    for kill in [false, true] {
        let (disk, path, at) = store_with_tail();
        assert!(disk.flip_bit(&path, at + 3, 1).unwrap());
        live_on(&disk, kill);
    }
}

#[test]
fn an_unreadable_tail_stays_its_channels_own() {
    for kill in [false, true] {
        // So much that it reaches into a block in which no state lies.
        let disk = SimDisk::new(1, SimOptions::default());
        let mut store = open(&disk, 5);
        let file = store.redex().open_file("cold", config()).unwrap();
        for byte in 0..203 {
            append(&mut store, &file, &[byte; 20]);
        }
        drop(file);
        store.close().unwrap();
        let size = |path: &String| disk.read_file(path).unwrap().len();
        let path = disk.list_all().into_iter().filter(|path| path.ends_with(".ckp")).max_by_key(size).unwrap();
        assert_eq!(size(&path), 3 * 4096);
        disk.add_latent_sector(&path, 2 * 4096 / 512).unwrap();
        live_on(&disk, kill);
    }
}
