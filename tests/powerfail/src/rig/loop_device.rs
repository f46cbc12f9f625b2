//! A loop device over the drive's file: what makes a block device of it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};

use super::loop_ioctl;

/// Another process may take the free device first.
const TRIES: u32 = 50;
/// What holds a page does so for microseconds.
const FORGET_TRIES: u32 = 1000;
const FORGET_RETRY: Duration = Duration::from_millis(1);

/// A loop device. The kernel frees it when this is dropped and nothing is mounted from it; so it does if the process is killed.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    /// Read-only: some kernels mount no device that somebody can write to.
    device: File,
}

impl LoopDevice {
    /// Puts the file under a free device, with direct I/O.
    ///
    /// # Errors
    ///
    /// There is none, or this kernel's cannot do it.
    pub fn attach(file: &Path, sector_size: u32) -> anyhow::Result<Self> {
        let backing = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(file)
            .with_context(|| format!("the drive's file {} does not open", file.display()))?;
        let control = File::open("/dev/loop-control").context("/dev/loop-control does not open")?;
        for _ in 0..TRIES {
            let number = loop_ioctl::free_number(&control).context("there is no free loop device")?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let writable = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .with_context(|| format!("{} does not open", path.display()))?;
            match loop_ioctl::configure(&writable, &backing, sector_size) {
                Ok(()) => {
                    let device = File::open(&path).with_context(|| format!("{} does not open", path.display()))?;
                    return Ok(Self { path, device });
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error).with_context(|| format!("{} cannot be set up", path.display())),
            }
        }
        bail!("every free loop device was taken by somebody else, {TRIES} times")
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Drops what the kernel remembers of its content: the drive has another now. The kernel passes over a page that something holds
    /// for a moment, and a file system mounted on it would be made of two drives; so this looks whether all went.
    ///
    /// # Errors
    ///
    /// Something stays, or the kernel is older than Linux 6.5 and does not tell.
    pub fn forget_content(&self) -> anyhow::Result<()> {
        let mut cached = 0;
        for _ in 0..FORGET_TRIES {
            loop_ioctl::forget_content(&self.device).context("the block device's cache cannot be dropped")?;
            cached = loop_ioctl::cached_pages(&self.device)
                .context("cachestat fails: what is cached of a block device is not known (needs Linux 6.5)")?;
            if cached == 0 {
                return Ok(());
            }
            sleep(FORGET_RETRY);
        }
        bail!("{cached} pages of {} stay in the page cache", self.path.display())
    }
}
