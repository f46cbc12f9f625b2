//! Which file system and device a path lies on, from `/proc/self/mountinfo` and `/sys`.

use std::fs;
use std::path::{Path, PathBuf};

/// The mount that a path lies on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Type of the file system, e.g. `ext4`.
    pub(crate) file_system: String,
    /// Major and minor number of the device, e.g. `254:0`.
    pub(crate) device_number: String,
}

impl Mount {
    /// The mount of `path`, which exists and is absolute.
    pub(crate) fn of(path: &Path) -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        find(&table, path).unwrap_or_default()
    }

    /// Whether the file system keeps its files in memory: nothing on it is durable.
    pub(crate) fn in_memory(&self) -> bool {
        matches!(self.file_system.as_str(), "tmpfs" | "ramfs" | "devtmpfs" | "hugetlbfs")
    }

    /// Directory of the whole device under `/sys`; `None` for file systems without one.
    pub(crate) fn block_device(&self) -> Option<PathBuf> {
        let path = fs::canonicalize(format!("/sys/dev/block/{}", self.device_number)).ok()?;
        if path.join("partition").exists() { path.parent().map(Path::to_owned) } else { Some(path) }
    }
}

/// The last line with the longest mount point that `path` begins with; later mounts hide earlier ones.
fn find(table: &str, path: &Path) -> Option<Mount> {
    let lines = table.lines().filter_map(parse);
    let hits = lines.filter(|(point, _)| path.starts_with(point));
    hits.max_by_key(|(point, _)| point.components().count()).map(|(_, mount)| mount)
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`: fields 3 and 5, and the first after the dash.
fn parse(line: &str) -> Option<(PathBuf, Mount)> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ');
    let device_number = front.nth(2)?.to_owned();
    let point = front.nth(1)?.replace("\\040", " ");
    let file_system = back.split(' ').next()?.to_owned();
    Some((PathBuf::from(point), Mount { file_system, device_number }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
23 22 0:5 / /dev rw - devtmpfs devtmpfs rw
24 22 0:30 / /mnt/with\\040space rw shared:3 - tmpfs tmpfs rw
25 22 8:1 / /mnt rw - xfs /dev/sda1 rw";

    #[test]
    fn the_longest_mount_point_wins() {
        let of = |path: &str| find(TABLE, Path::new(path)).unwrap();
        assert_eq!(of("/home/a").file_system, "ext4");
        assert_eq!(of("/mnt/a").device_number, "8:1");
        assert_eq!(of("/mntx").file_system, "ext4");
        assert!(of("/mnt/with space/a").in_memory());
    }

    #[test]
    fn a_broken_line_is_passed_over() {
        assert_eq!(find("nonsense\n1 2 3", Path::new("/")), None);
    }
}
