//! The inputs that every run begins with: `corpus/<target>/*`, and the stores that trees are made from.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::seeds::make_store;
use crate::targets::{TARGETS, Target};
use crate::tree::{STORES, corpus_dir};

/// An input and the name of its file.
pub type Named = (String, Vec<u8>);

/// Writes the stores, then each target's seeds, over those that are there. Other files are left alone: they are failures of the
/// past, made small, and named for what they found.
///
/// # Errors
///
/// A file that cannot be written.
pub fn make() -> anyhow::Result<()> {
    for name in STORES {
        write(&corpus_dir().join("stores"), &format!("{name}.tree"), &make_store(name).encode())?;
    }
    for target in TARGETS {
        for (name, bytes) in (target.seeds)() {
            write(&corpus_dir().join(target.name), &format!("seed-{name}"), &bytes)?;
        }
    }
    Ok(())
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let path = dir.join(name);
    fs::write(&path, bytes).with_context(|| path.display().to_string())
}

/// The corpus of a target, sorted by name.
///
/// # Errors
///
/// A file that cannot be read, or there is none.
pub fn of(target: &Target) -> anyhow::Result<Vec<Named>> {
    let dir = corpus_dir().join(target.name);
    let context = || format!("{}: `redex-fuzz corpus` makes it", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        found.push((name, fs::read(&path).with_context(|| path.display().to_string())?));
    }
    anyhow::ensure!(!found.is_empty(), "{} is empty: `redex-fuzz corpus` makes it", dir.display());
    found.sort();
    Ok(found)
}
