//! A store's files as one file of the corpus: `corpus/stores/<name>.tree`. Runs of zeros are left out.
//!
//! With them goes what was written to the store, so that whoever reads it can say whether an event is one of these. A payload
//! follows from its channel's name, its sequence, and how often the channel's end had been cut off before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use redex::sim::{SimDisk, SimOptions};
use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// Zeros of at least this length are left out, bytes.
const RUN_MIN: usize = 24;

/// Size of a segment of their channels, bytes.
pub const SEGMENT_BYTES: u64 = 16 << 10;

/// The stores that others are made from, in the order in which inputs name them.
pub const STORES: [&str; 5] = ["closed", "killed", "extents", "changes", "two_shards"];

/// What was written to a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// Oldest sequence that is left.
    pub head: u64,
    /// End, exclusive.
    pub next: u64,
    /// How often its end was cut off.
    pub cuts: u32,
}

/// The files of a store, and what was written to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Bytes by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Its channels.
    pub channels: Vec<Written>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    channels: Vec<Written>,
    files: Vec<StoredFile>,
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    path: String,
    size: u64,
    runs: Vec<(u64, Vec<u8>)>,
}

/// The bytes of an event: the first 24 and the last 8 tell it from any other, zeros lie between.
#[must_use]
pub fn payload(channel: &str, seq: u64, cuts: u32) -> Vec<u8> {
    let seed = u64::from(crc32c::crc32c(channel.as_bytes())) << 32 ^ u64::from(cuts) << 20 ^ seq;
    let mut dice = Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let range = match dice.within(0..100) {
        // Channels whose names say so have short or long events only.
        _ if channel.contains("inline") => 0..9,
        _ if channel.contains("long") => 20_000..40_000,
        0..30 => 0..9,
        30..80 => 9..300,
        80..95 => 300..3000,
        _ => 3000..9000,
    };
    let mut bytes = vec![0; dice.within(range) as usize];
    let len = bytes.len();
    let mut fill = |part: &mut [u8]| part.iter_mut().for_each(|byte| *byte = dice.bits() as u8);
    fill(&mut bytes[..len.min(24)]);
    fill(&mut bytes[len.saturating_sub(8).max(len.min(24))..]);
    bytes
}

impl Written {
    /// Whether this payload was ever written at this sequence.
    #[must_use]
    pub fn has(&self, seq: u64, bytes: &[u8]) -> bool {
        seq < self.next.max(1 << 20) && (0..=self.cuts).any(|cuts| payload(&self.name, seq, cuts) == bytes)
    }
}

impl Tree {
    /// All files of a disk.
    #[must_use]
    pub fn of(disk: &SimDisk, channels: Vec<Written>) -> Self {
        let file = |path: String| disk.read_file(&path).map(|bytes| (path, bytes));
        Self { files: disk.list_all().into_iter().filter_map(file).collect(), channels }
    }

    /// A disk with these files, all of them durable. One that is in the way of another is left out.
    #[must_use]
    pub fn disk(&self, space_bytes: u64) -> SimDisk {
        let disk = SimDisk::new(1, SimOptions::default());
        for (path, bytes) in &self.files {
            let _in_the_way = disk.write_file(path, bytes);
        }
        for dir in self.empty_dirs() {
            let placeholder = format!("{dir}/placeholder");
            let _in_the_way = disk.write_file(&placeholder, &[]).and_then(|()| disk.remove_file(&placeholder));
        }
        disk.set_space(Some(space_bytes));
        disk
    }

    /// Directories that a store of these files has also when nothing lies in them.
    fn empty_dirs(&self) -> Vec<String> {
        let has_journal = |shard: &u16| self.files.keys().any(|path| path.starts_with(&format!("journal/{shard:03}/")));
        let dirs = |shard| [format!("journal/{shard:03}/spare"), format!("checkpoint/{shard:03}")];
        let of_shards = (0..4).filter(has_journal).flat_map(dirs);
        of_shards.chain([String::from("channels")]).collect()
    }

    /// Size of all files, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// The tree as one file.
    ///
    /// # Panics
    ///
    /// Never: numbers and bytes always encode.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let file = |(path, bytes): (&String, &Vec<u8>)| StoredFile {
            path: path.clone(),
            size: bytes.len() as u64,
            runs: runs(bytes),
        };
        let stored = Stored { channels: self.channels.clone(), files: self.files.iter().map(file).collect() };
        postcard::to_stdvec(&stored).expect("numbers and bytes always encode")
    }

    /// The inverse of [`Tree::encode`]; `None` if it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = postcard::from_bytes(bytes).ok()?;
        let mut files = BTreeMap::new();
        for file in stored.files {
            let mut bytes = vec![0; usize::try_from(file.size).ok().filter(|size| *size <= 64 << 20)?];
            for (at, run) in file.runs {
                bytes.get_mut(at as usize..)?.get_mut(..run.len())?.copy_from_slice(&run);
            }
            files.insert(file.path, bytes);
        }
        Some(Self { files, channels: stored.channels })
    }
}

/// Splits bytes at runs of zeros.
fn runs(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    let (mut at, mut zeros) = (0, RUN_MIN);
    for byte in bytes {
        match (byte, runs.last_mut()) {
            (0, _) => zeros += 1,
            (byte, Some((_, run))) if zeros < RUN_MIN => {
                run.resize(run.len() + zeros, 0);
                run.push(*byte);
                zeros = 0;
            }
            (byte, _) => {
                runs.push((at, vec![*byte]));
                zeros = 0;
            }
        }
        at += 1;
    }
    runs
}

/// Where the corpus lies: beside this package's source.
#[must_use]
pub fn corpus_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

/// The stores of the corpus, in the order of [`STORES`].
///
/// # Panics
///
/// If the corpus is not there: `redex-fuzz corpus` makes it.
pub fn stores() -> &'static [Tree] {
    static TREES: OnceLock<Vec<Tree>> = OnceLock::new();
    TREES.get_or_init(|| STORES.iter().map(|name| load(name)).collect())
}

fn load(name: &str) -> Tree {
    let path = corpus_dir().join("stores").join(format!("{name}.tree"));
    let bytes = std::fs::read(&path);
    let tree = bytes.as_deref().map(Tree::decode);
    match tree {
        Ok(Some(tree)) => tree,
        other => panic!("{}: {other:?}; `redex-fuzz corpus` makes it", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_come_back() {
        for tree in stores() {
            assert!(tree.files.contains_key("STORE") && !tree.channels.is_empty());
            assert_eq!(Tree::decode(&tree.encode()).as_ref(), Some(tree));
        }
    }

    #[test]
    fn payloads_are_told_from_their_neighbours() {
        let written = Written { name: "a/long".to_owned(), head: 0, next: 10, cuts: 1 };
        assert!(written.has(3, &payload("a/long", 3, 0)) && written.has(3, &payload("a/long", 3, 1)));
        assert!(!written.has(3, &payload("a/long", 4, 0)) && !written.has(3, &payload("a/long", 3, 2)));
    }
}
