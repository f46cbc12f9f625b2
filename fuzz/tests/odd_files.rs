//! What the simulated disk cannot hold, in the directory of a store on a real one: pipes, sockets, links, devices, names that are
//! no text. In the place of a file of the store, or beside it. It opens or gives an error, and never waits.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use redex::{FsyncPolicy, OpenError, Redex, RedexFileConfig};

const EVENTS: u64 = 300;

fn config() -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(50))
}

fn payload(seq: u64) -> Vec<u8> {
    seq.to_le_bytes().repeat(40)
}

/// With a small journal, since the store is copied often.
fn open(dir: &Path) -> Result<Redex, OpenError> {
    Redex::builder().persistent_dir(dir).shards(1).journal_segment_bytes(64 << 10).checkpoint_bytes(64 << 10).build()
}

/// A store of a few blocks, closed.
fn store(dir: &Path) {
    let redex = open(dir).expect("a new store");
    let file = redex.open_file("a", config()).expect("a new channel");
    (0..EVENTS).for_each(|seq| assert_eq!(file.append(payload(seq)).wait().expect("appended"), seq));
    redex.close().wait().expect("closed");
}

/// Opens the store, reads and appends; says how far it came. Every event that is read is right; only one with all of them is whole.
fn use_store(dir: &Path) -> &'static str {
    let Ok(redex) = open(dir) else { return "refused" };
    let Ok(file) = redex.open_file("a", config()) else { return "channel refused" };
    let mut next = 0;
    // What an earlier use has appended comes behind them.
    for event in file.read_from(0).blocking().take(EVENTS as usize) {
        let Ok(event) = event else { return "unreadable" };
        assert_eq!((event.seq, &event.payload[..]), (next, &payload(next)[..]));
        next += 1;
    }
    let appended = file.append_durable(b"more").wait();
    let _said = redex.close().wait();
    match appended {
        Err(_) => "append refused",
        Ok(_) if next < EVENTS => "short",
        Ok(_) => "whole",
    }
}

/// The same, on a thread that is not waited for in vain.
fn use_store_in_time(dir: &Path, what: &str) -> &'static str {
    let (done, is_done) = channel();
    let base = dir.to_owned();
    std::thread::spawn(move || done.send(use_store(&base)));
    is_done.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{what}: it waits, or has panicked"))
}

fn put(kind: &str, path: &Path) {
    match kind {
        "pipe" => assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success()),
        "socket" => drop(UnixListener::bind(path).expect("a socket")),
        "link to itself" => symlink(path.file_name().expect("a name"), path).expect("a link"),
        "link to nothing" => symlink("nothing", path).expect("a link"),
        "link to a device" => symlink("/dev/zero", path).expect("a link"),
        "link to the directory above" => symlink("..", path).expect("a link"),
        _ => fs::create_dir(path).expect("a directory"),
    }
}

const KINDS: [&str; 7] = [
    "pipe",
    "socket",
    "link to itself",
    "link to nothing",
    "link to a device",
    "link to the directory above",
    "directory",
];

fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _was_never_there = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a scratch directory");
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &to),
            false => _ = fs::copy(&path, &to).expect("a copy"),
        }
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Each file of a store in turn gives way to each kind of what is no file.
#[test]
fn in_place_of_a_file_it_opens_or_gives_an_error() {
    let dir = scratch("odd-in-place");
    let whole = dir.join("whole");
    store(&whole);
    let mut paths = Vec::new();
    files(&whole, &mut paths);
    let mut refused = 0;
    for path in &paths {
        let path = path.strip_prefix(&whole).expect("beneath it");
        for kind in KINDS {
            let struck = dir.join("struck");
            let _was_never_there = fs::remove_dir_all(&struck);
            copy(&whole, &struck);
            fs::remove_file(struck.join(path)).expect("a file of the store");
            put(kind, &struck.join(path));
            let came = use_store_in_time(&struck, &format!("{kind} at {}", path.display()));
            assert_ne!(came, "short", "{kind} at {}: events are gone, and nobody says so", path.display());
            refused += usize::from(came != "whole");
        }
    }
    assert!(refused > KINDS.len(), "a store that misses STORE or its journal is refused");
    fs::remove_dir_all(dir).expect("it is there");
}

/// Names that look like the store's, and names that are no text, beside its files: the store is whole.
#[test]
fn beside_the_files_it_changes_nothing() {
    let dir = scratch("odd-beside");
    let whole = dir.join("whole");
    store(&whole);
    let names: [&[u8]; 4] =
        [b"00000000000000000077.wal", b"00000000000000000077.ckp", b"\xff\xfe", b"0000000009-0000000003.wal"];
    for kind in KINDS {
        for place in ["", "journal", "journal/000", "journal/000/spare", "checkpoint/000", "channels", "channels/00"] {
            let parent = whole.join(place);
            if !parent.is_dir() {
                continue;
            }
            for name in names {
                let path = parent.join(OsStr::from_bytes(name));
                put(kind, &path);
            }
        }
        assert_eq!(use_store_in_time(&whole, kind), "whole", "{kind}");
        let mut left = 0;
        for place in ["", "journal", "journal/000", "journal/000/spare", "checkpoint/000", "channels", "channels/00"] {
            for name in names {
                let path = whole.join(place).join(OsStr::from_bytes(name));
                let Ok(found) = fs::symlink_metadata(&path) else { continue };
                left += 1;
                if found.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.expect("it is there");
            }
        }
        assert!(left >= names.len() * 5, "{kind}: what is not the store's is left alone, {left} are there");
    }
    fs::remove_dir_all(dir).expect("it is there");
}
