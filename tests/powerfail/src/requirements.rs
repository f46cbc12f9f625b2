//! What a machine must have.

use std::fs::{File, OpenOptions};
use std::path::Path;

use crate::args::Work;

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
    let mut makers: Vec<&str> = work.kinds().iter().map(|kind| kind.file_system.maker()).collect();
    makers.sort_unstable();
    makers.dedup();
    for maker in makers.into_iter().filter(|maker| !is_on_path(maker)) {
        missing.push(format!("{maker}: install the package {}", package(maker)));
    }
    missing
}

fn package(maker: &str) -> &'static str {
    if maker == "mkfs.xfs" { "xfsprogs" } else { "e2fsprogs" }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .any(|dir| dir.join(program).is_file() || Path::new("/usr/sbin").join(program).is_file())
}
