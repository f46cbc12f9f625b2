//! A directory for the stores of one run, removed when the run ends.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::args::UsageError;

/// A fresh directory; removed with all it holds when dropped, unless kept.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes one within `parent`, or within the current directory.
    pub fn new(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent =
            fs::canonicalize(parent.unwrap_or(Path::new("."))).context("finding the directory for the stores")?;
        let path = parent.join(format!(".redex-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| {
            UsageError(format!("--dir: a directory cannot be made in {}: {error}", parent.display()))
        })?;
        Ok(Self { path, keep: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of a fresh place in it: nothing is there.
    pub fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        if path.is_dir() {
            fs::remove_dir_all(&path).with_context(|| format!("clearing {}", path.display()))?;
        } else if path.exists() {
            fs::remove_file(&path).with_context(|| format!("clearing {}", path.display()))?;
        }
        Ok(path)
    }

    /// Leaves everything where it is.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("warning: {} could not be removed: {error}", self.path.display());
        }
    }
}
