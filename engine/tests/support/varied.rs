//! A store with a bit of everything: sealed segments, extents, cuts, trims, batches, several epochs, deleted channels.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use redex::{Backend, Redex, RedexFile, RedexFileConfig};

use super::{copy_dir, payload, persistent, scratch};

/// What a channel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) head: u64,
    pub(crate) next: u64,
    /// Sequence, time, payload.
    pub(crate) events: Vec<(u64, u64, Vec<u8>)>,
}

/// What a store has, by name of channel.
pub(crate) type Contents = BTreeMap<String, Content>;

/// How the store is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It is closed.
    Closed,
    /// It is copied while it is open, as a crash leaves it; a checkpoint was taken before the last part.
    Open,
}

const SMALL: u64 = 256 << 10;

pub(crate) fn open(dir: &Path) -> Redex {
    let builder = Redex::builder().persistent_dir(dir).backend(Backend::Posix).shards(2);
    builder.journal_segment_bytes(4 << 20).checkpoint_bytes(3 << 20).extent_bytes(64 << 10).build().unwrap()
}

fn config() -> RedexFileConfig {
    persistent().with_segment_bytes(SMALL)
}

fn one_by_one(file: &RedexFile, events: std::ops::Range<u64>) {
    for start in events.clone().step_by(10) {
        let batch: Vec<_> = (start..(start + 10).min(events.end)).map(payload).collect();
        file.append_batch(&batch).wait().unwrap();
    }
    file.sync().wait().unwrap();
}

fn first_epoch(redex: &Redex) {
    let sealed = redex.open_file("sealed", config()).unwrap();
    one_by_one(&sealed, 0..1500);
    let inline = redex.open_file("inline", config().with_segment_bytes(1 << 20)).unwrap();
    let batch: Vec<_> = (0..5000_u64).map(|i| i.to_le_bytes()).collect();
    inline.append_batch_durable(&batch).wait().unwrap();
    let big = redex.open_file("big", config().with_segment_bytes(1 << 20)).unwrap();
    (0..6_u8).for_each(|i| _ = big.append_durable(vec![i; 200_000 + usize::from(i)]).wait().unwrap());
    let cut = redex.open_file("cut", config()).unwrap();
    one_by_one(&cut, 0..700);
    cut.truncate_suffix(400).wait().unwrap();
    one_by_one(&cut, 0..30);
    let trimmed = redex.open_file("trimmed", config()).unwrap();
    one_by_one(&trimmed, 0..900);
    trimmed.trim_head(555).wait().unwrap();
    redex.open_file("empty", config()).unwrap().append_durable(b"first").wait().unwrap();
    let gone = redex.open_file("gone", config()).unwrap();
    one_by_one(&gone, 0..400);
    redex.delete_channel("gone").wait().unwrap();
}

fn second_epoch(redex: &Redex) {
    let files = ["sealed", "cut", "trimmed"].map(|name| redex.open_file(name, config()).unwrap());
    files.iter().for_each(|file| one_by_one(file, 0..120));
    let together = ["t/1", "t/2"].map(|name| redex.open_file(name, config().with_affinity("t")).unwrap());
    together.iter().for_each(|file| _ = file.append_durable(b"made").wait().unwrap());
    for i in 0..40 {
        let mut batch = redex.batch();
        batch.append(&together[0], payload(i)).append(&together[1], payload(i + 1));
        batch.commit().wait().unwrap();
    }
    let big = redex.open_file("big", config().with_segment_bytes(1 << 20)).unwrap();
    big.append_durable(vec![9; 300_000]).wait().unwrap();
    // Both shards have something above their last checkpoint that nothing behind it needs.
    files.iter().for_each(|file| one_by_one(file, 0..30));
    big.append_durable(vec![7; 100_000]).wait().unwrap();
}

/// What there is, as the engine shows it.
pub(crate) fn contents(redex: &Redex) -> Contents {
    let mut contents = Contents::new();
    for info in redex.channels() {
        let config = match info.name.as_str() {
            "inline" | "big" => config().with_segment_bytes(1 << 20),
            name if name.starts_with("t/") => config().with_affinity("t"),
            _ => config(),
        };
        let file = redex.open_file(info.name.as_str(), config).unwrap();
        let events = file.read_from(file.head_seq()).blocking().map(|event| event.unwrap());
        let events = events.map(|event| (event.seq, event.time.as_micros(), event.payload.to_vec())).collect();
        let content = Content { head: file.head_seq(), next: file.next_seq(), events };
        contents.insert(info.name.as_str().to_owned(), content);
    }
    contents
}

/// Makes the store, and says what it has.
pub(crate) fn varied(left: Left) -> (tempfile::TempDir, Contents) {
    let dir = scratch();
    let redex = open(dir.path());
    first_epoch(&redex);
    redex.close().wait().unwrap();
    let redex = open(dir.path());
    second_epoch(&redex);
    // The witness of the last commit.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let contents = contents(&redex);
    match left {
        Left::Closed => {
            redex.close().wait().unwrap();
            (dir, contents)
        }
        Left::Open => {
            let copy = scratch();
            copy_dir(dir.path(), copy.path());
            redex.close().wait().unwrap();
            (copy, contents)
        }
    }
}

/// Every file with its bytes.
pub(crate) fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |path: std::path::PathBuf| {
        let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    };
    super::files(dir, "").into_iter().map(read).collect()
}

/// Where the commits of a journal segment begin, the first to the last: what lies behind is of an earlier life of the file.
pub(crate) fn commits(path: &Path) -> Vec<usize> {
    let bytes = fs::read(path).unwrap();
    let number = |at: usize, size: usize| {
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(&bytes[at..at + size]);
        u64::from_le_bytes(wide)
    };
    let (mut places, mut at, mut lsn) = (Vec::new(), 4096, number(64, 8));
    while at < bytes.len() && &bytes[at..at + 4] == b"RXC1" && number(at + 24, 8) == lsn {
        places.push(at);
        lsn += 1;
        at += (80 + number(at + 52, 4) + number(at + 56, 4)).next_multiple_of(4096) as usize;
    }
    places
}
