//! The file systems: how each is made and mounted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::drive::whole::Whole;
use crate::requirements;

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileSystem {
    /// ext4, as a distribution makes it, with a small journal.
    Ext4,
    /// XFS, as a distribution makes it.
    Xfs,
}

impl FileSystem {
    /// Bytes of the drive.
    #[must_use]
    pub fn drive_size(self) -> u64 {
        match self {
            Self::Ext4 => 64 << 20,
            // mkfs.xfs makes none below 300 MB. Almost all of it is zeros, which take no memory.
            Self::Xfs => 320 << 20,
        }
    }

    /// The program that makes it.
    #[must_use]
    pub fn maker(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        }
    }

    fn maker_options(self) -> &'static [&'static str] {
        match self {
            // The inode tables are made at once: nothing but the engine writes later.
            Self::Ext4 => &["-q", "-F", "-b", "4096", "-J", "size=4", "-E", "nodiscard,lazy_itable_init=0"],
            Self::Xfs => &["-q", "-f", "-K"],
        }
    }

    fn mount_options(self) -> &'static str {
        match self {
            Self::Ext4 => "",
            // Every job's drive was made by itself, but images of one drive all have its uuid.
            Self::Xfs => "nouuid",
        }
    }

    /// What it takes for granted.
    #[must_use]
    pub fn whole(self) -> Whole {
        match self {
            Self::Ext4 => Whole::FirstBlock,
            Self::Xfs => Whole::XfsMetadata,
        }
    }

    /// Makes one on the device.
    ///
    /// # Errors
    ///
    /// The program is missing or fails.
    pub fn make(self, device: &Path) -> anyhow::Result<()> {
        let maker = requirements::program(self.maker()).with_context(|| format!("{} is not there", self.maker()))?;
        let output = Command::new(maker).args(self.maker_options()).arg(device).output();
        let output = output.with_context(|| format!("{} does not start", self.maker()))?;
        if !output.status.success() {
            bail!("{} fails: {}", self.maker(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Mounts it: the file system recovers by itself.
    ///
    /// # Errors
    ///
    /// The kernel refuses what a power cut left.
    pub fn mount(self, device: &Path, at: &Path) -> anyhow::Result<Mounted> {
        let options = Some(self.mount_options()).filter(|options| !options.is_empty());
        mount(Some(device), at, Some(self.to_string().as_str()), MsFlags::MS_NOATIME, options)
            .with_context(|| format!("{self} does not mount"))?;
        Ok(Mounted { at: at.to_owned(), is_mounted: true })
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        })
    }
}

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// Where.
    #[must_use]
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Unmounts it.
    ///
    /// # Errors
    ///
    /// Somebody still has a file of it open: the engine should have closed all.
    pub fn unmount(mut self) -> anyhow::Result<()> {
        self.is_mounted = false;
        umount2(&self.at, MntFlags::empty()).with_context(|| format!("{} does not unmount", self.at.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted {
            // A failed point: the files may still be open, and the namespace takes what is left.
            let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        }
    }
}
