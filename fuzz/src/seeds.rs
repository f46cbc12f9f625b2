//! What the corpus begins with: stores made by the engine, and their files.

use std::path::Path;
use std::sync::Arc;

use redex::format::cold_manifest::{ColdManifest, ColdSegment};
use redex::format::{ChannelId, StoreUuid};
use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStore};
use redex::{FsyncPolicy, RedexFile, RedexFileConfig};

use crate::drive::{drive, rest};
use crate::tree::{SEGMENT_BYTES, STORES, Tree, Written, payload, stores};

const BLOCK: usize = 4096;
/// Largest input that the corpus takes, bytes.
const SEED_MAX: usize = 40 << 10;
/// Most inputs of a kind of file.
const SEEDS_OF_A_KIND: usize = 6;

/// Makes the store of this name, as [`STORES`] has them.
///
/// # Panics
///
/// If the engine does not do what it must, or there is no such name.
#[must_use]
pub fn make_store(name: &str) -> Tree {
    let number = STORES.iter().position(|store| *store == name).expect("a store of the corpus");
    let shards = if name == "two_shards" { 2 } else { 1 };
    let mut maker = Maker::new(name, number as u64 + 1, shards);
    match name {
        "closed" => {
            maker.append("a", 120);
            maker.append("inline", 450);
            maker.append("empty", 0);
            maker.trim("a", 40);
            maker.close()
        }
        "killed" => {
            maker.append("a", 150);
            maker.append("inline", 300);
            maker.append("b", 20);
            maker.kill()
        }
        "extents" => {
            maker.append("long", 12);
            maker.append("a", 30);
            maker.append("long", 6);
            maker.kill()
        }
        "changes" => {
            maker.append("a", 60);
            maker.append("gone", 30);
            maker.cut("a", 45);
            maker.append("a", 40);
            maker.trim("a", 20);
            maker.delete("gone");
            maker.append("gone", 5);
            maker.cut("a", 80);
            maker.append("a", 3);
            maker.kill()
        }
        _ => {
            for name in ["a", "b", "c", "inline"] {
                maker.append(name, 50);
            }
            maker.reopen();
            maker.append("b", 60);
            maker.power_off_in_the_midst("c", 30)
        }
    }
}

struct Maker {
    prefix: String,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    settings: SimSettings,
    store: Option<SimStore>,
    channels: Vec<Written>,
}

impl Maker {
    fn new(prefix: &str, seed: u64, shards: usize) -> Self {
        let disk = SimDisk::new(seed, SimOptions::default());
        let clock = Arc::new(ManualClock::default());
        let settings = SimSettings { shards, ..SimSettings::default() };
        let store = Some(SimStore::open(&disk, &settings, &clock, seed).expect("an empty disk"));
        Self { prefix: prefix.to_owned(), disk, clock, settings, store, channels: Vec::new() }
    }

    fn store(&mut self) -> &mut SimStore {
        self.store.as_mut().expect("it is open")
    }

    /// The channel, and its place in what was written.
    fn channel(&mut self, name: &str) -> (RedexFile, usize) {
        let name = format!("{}/{name}", self.prefix);
        let config = RedexFileConfig::default()
            .with_persistent(true)
            .with_fsync_policy(FsyncPolicy::EveryN(20))
            .with_segment_bytes(SEGMENT_BYTES);
        let file = self.store().redex().open_file(&*name, config).expect("it opens");
        let index = self.channels.iter().position(|channel| channel.name == name).unwrap_or(self.channels.len());
        if index == self.channels.len() {
            self.channels.push(Written { name, head: 0, next: 0, cuts: 0 });
        }
        (file, index)
    }

    fn append(&mut self, name: &str, count: u64) {
        let (file, index) = self.channel(name);
        for _ in 0..count {
            let written = &mut self.channels[index];
            let (bytes, seq) = (payload(&written.name, written.next, written.cuts), written.next);
            written.next += 1;
            let store = self.store.as_mut().expect("it is open");
            let appended = drive(store, file.append(&bytes)).expect("an append resolves").expect("it is accepted");
            assert_eq!(appended, seq);
        }
        drive(self.store(), file.sync()).expect("a sync resolves").expect("it is durable");
    }

    fn trim(&mut self, name: &str, head: u64) {
        let (file, index) = self.channel(name);
        let head = drive(self.store(), file.trim_head(head)).expect("a trim resolves").expect("it is trimmed");
        self.channels[index].head = head;
    }

    fn cut(&mut self, name: &str, end: u64) {
        let (file, index) = self.channel(name);
        drive(self.store(), file.truncate_suffix(end)).expect("a cut resolves").expect("it is cut off");
        self.channels[index].next = end;
        self.channels[index].cuts += 1;
    }

    /// Deletes the channel; a namesake's events are told from its own as those behind a cut are.
    fn delete(&mut self, name: &str) {
        let (_, index) = self.channel(name);
        let name = self.channels[index].name.clone();
        let change = self.store().redex().delete_channel(&*name);
        drive(self.store(), change).expect("a deletion resolves").expect("it is deleted");
        self.channels[index].next = 0;
        self.channels[index].cuts += 1;
    }

    fn reopen(&mut self) {
        self.store.take().expect("it is open").close().expect("it closes");
        self.store = Some(SimStore::open(&self.disk, &self.settings, &self.clock, 77).expect("it opens again"));
    }

    fn close(mut self) -> Tree {
        self.store.take().expect("it is open").close().expect("it closes");
        self.tree()
    }

    fn kill(mut self) -> Tree {
        rest(self.store());
        drop(self.store.take());
        self.disk.kill();
        self.tree()
    }

    fn power_off_in_the_midst(mut self, name: &str, count: u64) -> Tree {
        let (file, index) = self.channel(name);
        for i in 0..count {
            if i == count / 2 {
                self.disk.power_off_after(Some(9));
            }
            let written = &mut self.channels[index];
            let bytes = payload(&written.name, written.next, written.cuts);
            written.next += 1;
            let _cut_short = drive(self.store.as_mut().expect("it is open"), file.append(&bytes));
        }
        drop((file, self.store.take()));
        self.disk.power_cut();
        self.tree()
    }

    fn tree(self) -> Tree {
        Tree::of(&self.disk, self.channels)
    }
}

/// Files of the corpus' stores whose paths end like this, without the zeros behind them; the smaller ones.
#[must_use]
pub fn of_ending(ending: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (name, tree) in STORES.iter().zip(stores()) {
        let files = tree.files.iter().filter(|(path, _)| path.ends_with(ending) && !path.contains("spare"));
        for (path, bytes) in files {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let used = &bytes[..used.next_multiple_of(BLOCK).min(bytes.len())];
            if !used.is_empty() && used.len() <= SEED_MAX {
                found.push((format!("{name}-{}", path.replace('/', "-")), used.to_vec()));
            }
        }
    }
    pick(found)
}

/// Some of these, from all parts of the list.
fn pick(found: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let step = found.len().div_ceil(SEEDS_OF_A_KIND).max(1);
    found.into_iter().step_by(step).collect()
}

/// idx files, each behind its channel's id and its first sequence; those of the golden files, too, which have time blocks.
#[must_use]
pub fn idx_files() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (name, tree) in STORES.iter().zip(stores()) {
        for (path, bytes) in tree.files.iter().filter(|(path, _)| path.ends_with(".idx")) {
            let parts: Vec<&str> = path.split('/').collect();
            let channel = u64::from_str_radix(parts[parts.len() - 2], 16).unwrap_or(0);
            let first: u64 = parts[parts.len() - 1].trim_end_matches(".idx").parse().unwrap_or(0);
            let file = &bytes[..bytes.len().min(3 * BLOCK)];
            if file.iter().any(|byte| *byte != 0) {
                let input = [&channel.to_le_bytes(), &first.to_le_bytes(), file].concat();
                found.push((format!("{name}-{}", path.replace('/', "-")), input));
            }
        }
    }
    let mut found = pick(found);
    // Index, time blocks and footer of a large segment: its ends.
    if let Some(times) = golden("times.idx") {
        let tail = &times[times.len().saturating_sub(3 * BLOCK)..];
        let place = tail.get(2 * BLOCK + 16..2 * BLOCK + 32).unwrap_or(&[0; 16]);
        found.push(("golden-times.idx".to_owned(), [place, tail].concat()));
    }
    found
}

/// Manifests of no, one and several segments.
#[must_use]
pub fn cold_manifests() -> Vec<(String, Vec<u8>)> {
    let segment = |i: u64| ColdSegment {
        first: i * 500,
        end: i * 500 + 480,
        idx_size: 3 * BLOCK as u64,
        dat_size: (i + 1) * 8192,
        hash: i.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        size: 30_000 + i,
        header_crc: 77 * i as u32,
    };
    let manifest = |count: u64| ColdManifest {
        segments: (0..count).map(segment).collect(),
        ..ColdManifest::new(StoreUuid([7; 16]), ChannelId(1 << 32))
    };
    let mut found: Vec<_> = [0, 1, 5, 90].map(|count| (format!("{count}-segments"), manifest(count).encode())).into();
    found.extend(golden("COLD").map(|bytes| ("golden-COLD".to_owned(), bytes)));
    found
}

/// The golden object.
#[must_use]
pub fn cold_objects() -> Vec<(String, Vec<u8>)> {
    golden("cold.seg").map(|bytes| ("golden-cold.seg".to_owned(), bytes)).into_iter().collect()
}

/// Stored configurations, taken from the checkpoint files' bytes and made by hand from `docs/format.md`.
#[must_use]
pub fn configs() -> Vec<(String, Vec<u8>)> {
    let limits = [&[1, 1, 20, 0x80, 0x80, 1][..], &[1, 1, 100, 0, 1, 60, 0, 50, 1, 1, b'a', 0, 0, 0]].concat();
    vec![
        ("plain".to_owned(), vec![1, 0, 0x80, 0x80, 0x80, 0x80, 4]),
        ("every-n".to_owned(), vec![1, 1, 20, 0x80, 0x80, 1]),
        ("interval".to_owned(), vec![1, 2, 1, 0, 0x80, 0x80, 1]),
        ("interval-or-bytes".to_owned(), vec![1, 3, 0, 0x80, 0xca, 0xb5, 0xee, 1, 99, 0x80, 0x80, 1]),
        ("limits".to_owned(), limits),
    ]
}

fn golden(name: &str) -> Option<Vec<u8>> {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/v1"));
    std::fs::read(dir.join(name)).ok().filter(|bytes| bytes.len() <= 512 << 10)
}
