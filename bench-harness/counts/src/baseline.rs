//! The checked-in numbers, and what they were made with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What a path may differ, percent: more than another patch version of a tool brings, less than a change worth a look.
const TOLERANCE_PERCENT: f64 = 3.0;

/// `baseline.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What a path may differ, percent.
    pub tolerance_percent: f64,
    /// Versions of what decides about instructions.
    pub made_with: BTreeMap<String, String>,
    /// By path: instructions of one unit.
    pub instructions: BTreeMap<String, f64>,
}

impl Baseline {
    /// An empty one, with the tools that are here.
    pub fn of_this_machine() -> anyhow::Result<Self> {
        let tools = [("rustc", "rustc"), ("valgrind", "valgrind"), ("libc", "ldd")];
        let made_with = tools.into_iter().map(|(name, tool)| Ok((name.to_owned(), version(tool)?)));
        Ok(Self {
            tolerance_percent: TOLERANCE_PERCENT,
            made_with: made_with.collect::<anyhow::Result<_>>()?,
            instructions: BTreeMap::new(),
        })
    }

    /// Reads the file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("reading {}; --write makes it", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = format!("{}\n", serde_json::to_string_pretty(self)?);
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// In which tools another one differs.
    pub fn tools_differ(&self, other: &Self) -> Option<String> {
        let differs = self.made_with.iter().filter(|(name, version)| other.made_with.get(*name) != Some(version));
        let said: Vec<String> = differs
            .map(|(name, version)| format!("{version} (here: {})", other.made_with.get(name).map_or("none", |v| v)))
            .collect();
        if said.is_empty() { None } else { Some(said.join("; ")) }
    }
}

/// First line of what a tool says of itself.
fn version(tool: &str) -> anyhow::Result<String> {
    let output = Command::new(tool).arg("--version").output().with_context(|| format!("running {tool}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::all;

    /// The checked-in baseline has every path and no other, so that none goes uncounted.
    #[test]
    fn the_baseline_has_every_path() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.json");
        let baseline = Baseline::read(&path).unwrap();
        let mut names: Vec<&str> = all().iter().map(|path| path.name).collect();
        names.sort_unstable();
        assert_eq!(baseline.instructions.keys().collect::<Vec<_>>(), names);
        assert!(baseline.instructions.values().all(|count| *count > 0.0));
    }

    #[test]
    fn what_is_written_is_read_and_other_tools_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baseline.json");
        let tools = |rustc: &str| BTreeMap::from([("rustc".to_owned(), rustc.to_owned())]);
        let instructions = BTreeMap::from([("a".to_owned(), 1.5)]);
        let written = Baseline { tolerance_percent: 3.0, made_with: tools("one"), instructions };
        written.write(&path).unwrap();
        let read = Baseline::read(&path).unwrap();
        assert_eq!((&read, read.tools_differ(&written)), (&written, None));
        let other = Baseline { made_with: tools("two"), ..written };
        assert_eq!(read.tools_differ(&other).unwrap(), "one (here: two)");
    }
}
