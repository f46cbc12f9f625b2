//! Golden files: bytes that this format version wrote once, and that every later version must read.
//!
//! `golden/v1/` holds one file of each kind, made from the values in `golden/pieces.rs` and `golden/cold.rs`, and two whole stores that the
//! engine made, see `golden/store.rs`. They are never changed: a difference is a mistake in the code, or a new format
//! version, which gets a directory of its own while these tests go on reading the old one.

#[path = "golden/cold.rs"]
mod cold;
#[path = "golden/pieces.rs"]
mod pieces;
#[path = "golden/store.rs"]
mod store;
#[path = "golden/time_blocks.rs"]
mod time_blocks;

use std::fs;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1")
}

fn golden_file(name: &str) -> Vec<u8> {
    let path = golden().join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Bytes that look random and depend on `seed` alone.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed.wrapping_mul(2_654_435_761).wrapping_add(at * 97) >> 3) as u8).collect()
}

/// With one bit of byte `at` flipped.
fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

/// Writes the golden files anew.
///
/// Only for a **new** format version, into a directory of its own: raise the number in `golden()`, keep the old
/// directory and the tests that read it. Files of a version that stores in the world may have are never written again,
/// so this refuses to touch a directory that is there. The engine's clock and random numbers are real: the two stores
/// come out differently each time.
#[test]
#[ignore = "writes golden files; only for a new format version"]
fn regenerate() {
    let dir = golden();
    assert!(!dir.exists(), "{} is there: golden files are never written again", dir.display());
    fs::create_dir_all(&dir).unwrap();
    cold::write(&dir);
    pieces::write(&dir);
    time_blocks::write(&dir);
    store::write(&dir);
}
