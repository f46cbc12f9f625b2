//! A mount namespace of this process's own.
//!
//! What is mounted in it nobody else sees, and it goes with the last process in it, however that ends: nothing is left to
//! clean up, also after a SIGKILL.

use std::path::PathBuf;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Hidden in the namespace by a file system in memory; every Linux system has it.
const ROOM: &str = "/mnt";

/// Enters a new namespace and returns an empty directory in it. Before the process starts a thread: those would stay
/// outside.
///
/// # Errors
///
/// The kernel forbids it.
pub fn enter() -> anyhow::Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace can be made (needs root)")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("mounts cannot be made private")?;
    mount(Some("redex-powerfail"), ROOM, Some("tmpfs"), MsFlags::empty(), Some("mode=700"))
        .with_context(|| format!("a file system in memory cannot be mounted at {ROOM}"))?;
    Ok(PathBuf::from(ROOM))
}
