//! The paths that are counted.

use crate::{memory_paths, store_paths};

/// A path.
pub struct Path {
    /// Its name in the baseline.
    pub name: &'static str,
    /// What it is counted by.
    pub unit: &'static str,
    /// Lengths of the short and the long run, units.
    pub lengths: (u64, u64),
    /// Prepares, then goes this many units, counted.
    pub go: fn(u64),
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Path> {
    memory_paths::all().into_iter().chain(store_paths::all()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every path can be gone without callgrind, at its short length: the asserts in it hold.
    #[test]
    fn every_path_can_be_gone() {
        for path in all() {
            assert!(path.lengths.0 < path.lengths.1, "{}", path.name);
            (path.go)(path.lengths.0);
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<&str> = all().iter().map(|path| path.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
