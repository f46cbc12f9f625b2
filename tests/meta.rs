//! META of a channel: whenever the power goes off while a channel's files are made, its channel opens afterwards.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStep, SimStore};
use redex::{RedexFile, RedexFileConfig};

/// A machine on which a store is opened again and again.
struct Machine {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    seed: u64,
}

impl Machine {
    fn new(seed: u64) -> Self {
        Self { disk: SimDisk::new(seed, SimOptions::default()), clock: Arc::default(), seed }
    }

    /// Opens the store; `None` if the power goes off.
    fn open(&self) -> Option<SimStore> {
        match SimStore::open(&self.disk, &SimSettings::default(), &self.clock, self.seed) {
            Ok(store) => Some(store),
            Err(_) if self.disk.is_off() => None,
            Err(error) => panic!("seed {}: {error}: {:?}", self.seed, std::error::Error::source(&error)),
        }
    }

    /// Opens the store and the channel, and appends by journal and by extent; `None` if the power goes off.
    fn live(&self) -> Option<SimStore> {
        let mut store = self.open()?;
        let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(64 << 10);
        let opened = store.redex().open_file("a", config);
        let file = match opened {
            Ok(file) => file,
            Err(_) if self.disk.is_off() => return None,
            Err(error) => panic!("seed {}: {error}: {:?}", self.seed, std::error::Error::source(&error)),
        };
        for len in [5, 3000, 3000, 20_000, 9000] {
            append(&mut store, &file, len)?;
        }
        Some(store)
    }
}

/// Appends durably; `None` if the power goes off.
fn append(store: &mut SimStore, file: &RedexFile, len: usize) -> Option<()> {
    let mut append = pin!(file.append_durable(vec![7; len]));
    loop {
        match append.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => return result.ok().map(drop),
            Poll::Pending if store.step() == SimStep::Failed => return None,
            Poll::Pending => {}
        }
    }
}

/// The power goes off, or the process is killed, after every number of steps; then once more in the life after. The store
/// and the channel, which may have blocks by then, open all the same.
#[test]
fn an_interrupted_making_of_meta_is_no_damage() {
    for seed in 0..6 {
        for steps in 0..90 {
            let machine = Machine::new(seed * 1000 + steps);
            for (life, after) in [steps, (seed * 31 + steps) % 70].into_iter().enumerate() {
                drop(machine.open());
                machine.disk.power_off_after(Some(after));
                drop(machine.live());
                // Killed with power, all that was done stays, flushed or not; the cut after it takes what was not.
                if (seed + life as u64).is_multiple_of(2) {
                    machine.disk.kill();
                    // Soon, or when all has been appended.
                    machine.disk.power_off_after(Some(if seed.is_multiple_of(4) { 1000 } else { after / 2 }));
                    drop(machine.live());
                }
                machine.disk.power_cut();
            }
            machine.disk.power_off_after(None);
            machine.live().expect("the power is on").close().unwrap();
            machine.live().expect("the power is on").close().unwrap();
        }
    }
}

/// A flipped bit in META is found once there are blocks that it names, and none is made up for it.
#[test]
fn a_flipped_bit_in_meta_is_found_when_the_channel_is_opened() {
    let machine = Machine::new(1);
    machine.live().expect("the power is on").close().unwrap();
    let paths = machine.disk.list_all();
    let [path] = &paths.iter().filter(|path| path.ends_with("/META")).collect::<Vec<_>>()[..] else {
        panic!("{paths:?}")
    };
    let damaged = |flip: &dyn Fn()| {
        flip();
        let store = machine.open().expect("the power is on");
        let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(64 << 10);
        let error = store.redex().open_file("a", config).unwrap_err();
        let redex::OpenFileError::Meta { channel, path: found, offset, .. } = &error else { panic!("{error}") };
        assert_eq!((channel.as_str(), found.to_str(), *offset), ("a", Some(path.as_str()), 0));
        store.close().unwrap();
    };
    for byte in [0, 9, 13, 17, 20, 37] {
        let flip = || assert!(machine.disk.flip_bit(path, byte, 3).unwrap());
        damaged(&flip);
        flip();
    }
    machine.live().expect("the power is on").close().unwrap();
    // Another channel's, whole.
    let mut other = machine.disk.read_file(path).unwrap();
    let meta = redex::format::meta::Meta::decode(&other).unwrap();
    redex::format::meta::Meta { name: "b".to_owned(), ..meta }.encode(&mut other);
    damaged(&|| machine.disk.write_file(path, &other).unwrap());
}
