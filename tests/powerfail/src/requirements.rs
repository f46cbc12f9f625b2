//! What a machine must have.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;

use crate::args::Work;

/// The first kernel with `cachestat(2)`, which tells whether anything of a device is cached.
const KERNEL_LEAST: (u32, u32) = (6, 5);

/// What is missing here, each with its remedy; nothing if it runs.
#[must_use]
pub fn missing(work: &Work) -> Vec<String> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root: it mounts file systems; run it with sudo".to_owned());
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        missing.push(format!("/dev/fuse ({error}): load the kernel module `fuse`, or give the container the device"));
    }
    if let Err(error) = File::open("/dev/loop-control") {
        missing.push(format!("/dev/loop-control ({error}): load the module `loop`, or give the container the device"));
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if version(&kernel).is_none_or(|version| version < KERNEL_LEAST) {
        missing.push(format!("Linux {}.{}: this is `{}`", KERNEL_LEAST.0, KERNEL_LEAST.1, kernel.trim()));
    }
    let mut makers: Vec<&str> = work.kinds().iter().map(|kind| kind.file_system.maker()).collect();
    makers.sort_unstable();
    makers.dedup();
    for maker in makers.into_iter().filter(|maker| program(maker).is_none()) {
        missing.push(format!("{maker}: install the package {}", package(maker)));
    }
    missing
}

fn package(maker: &str) -> &'static str {
    if maker == "mkfs.xfs" { "xfsprogs" } else { "e2fsprogs" }
}

/// Where a program of the system lies: root's may be beside the path of whoever became root.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).map(|dir| dir.join(name));
    places.find(|place| place.is_file())
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..end].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_its_release() {
        let releases = ["6.18.3-generic\n", "6.5.0", "6.5-rc1", "5.15.0-91-generic", "7.0", "unknown", ""];
        let is_enough = releases.map(|release| version(release).is_some_and(|version| version >= KERNEL_LEAST));
        assert_eq!(is_enough, [true, true, true, false, true, false, false]);
    }

    #[test]
    fn a_program_is_found_where_it_lies() {
        assert!(program("sh").is_some_and(|path| path.is_absolute() && path.ends_with("sh")));
        assert_eq!(program("no-such-program"), None);
    }
}
