//! One drive with everything that stands on it: its process, the loop device, the file system.

pub mod file_system;
pub mod loop_device;
pub mod loop_ioctl;
pub mod namespace;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use self::file_system::{FileSystem, Mounted};
use self::loop_device::LoopDevice;
use crate::server::file::FILE_NAME;
use crate::server::remote::Remote;

/// What a rig is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Kind {
    /// The file system.
    pub file_system: FileSystem,
    /// Bytes of a sector: of the block device, and what the drive writes wholly or not at all.
    pub sector_size: u32,
}

/// A drive with a file system. Dropping it takes everything down; if the process is killed, the kernel does.
#[derive(Debug)]
pub struct Rig {
    /// What it is made of.
    pub kind: Kind,
    // Dropped in this order: the device lets go of the file before its server ends.
    device: LoopDevice,
    /// The drive.
    pub drive: Remote,
    mount_point: PathBuf,
}

impl Rig {
    /// Sets one up in a directory of the namespace, and makes the file system.
    ///
    /// # Errors
    ///
    /// Something is missing on this machine.
    pub fn new(room: &Path, kind: Kind) -> anyhow::Result<Self> {
        let name = format!("{}-{}", kind.file_system, kind.sector_size);
        let fuse = room.join(format!("{name}-drive"));
        let mount_point = room.join(name);
        for dir in [&fuse, &mount_point] {
            fs::create_dir(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        }
        let mut drive = Remote::start(&fuse, kind.file_system.drive_size())?;
        let device = LoopDevice::attach(&fuse.join(FILE_NAME), kind.sector_size)?;
        kind.file_system.make(device.path())?;
        device.forget_content()?;
        drive.save_blank()?;
        Ok(Self { kind, device, drive, mount_point })
    }

    /// Mounts what the drive holds now.
    ///
    /// # Errors
    ///
    /// The file system does not recover.
    pub fn mount(&self) -> anyhow::Result<Mounted> {
        self.device.forget_content()?;
        self.kind.file_system.mount(self.device.path(), &self.mount_point)
    }
}
