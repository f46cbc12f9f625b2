//! How the simulated disk behaves, and the errors it makes.

use std::error::Error;
use std::fmt;
use std::io;

/// How a [`SimDisk`](super::SimDisk) behaves. By default it is honest and forgets what was not made durable, nothing
/// worse. Probabilities are from 0 to 1, and 0 by default.
#[derive(Clone, Debug, PartialEq)]
pub struct SimOptions {
    /// What survives a power cut whole or not at all, bytes: 512 (default) or 4096.
    pub sector_size: usize,
    /// Whether a power cut may also tear a sector.
    pub tear_within_sector: bool,
    /// Whether a rename across directories may leave both names (of one file) at a power cut. True by default.
    pub rename_may_leave_both: bool,
    /// A write fails; any of its sectors may have been written.
    pub write_error: f64,
    /// A write that a commit makes beside the journal finds no space, as on a file system that copies on write: ENOSPC, and
    /// any of its sectors may have been written.
    pub extent_no_space: f64,
    /// A flush fails, and drops what was not durable of its file: each sector goes back or becomes durable, and later
    /// flushes succeed. A failed sync of a directory drops nothing.
    pub flush_error: f64,
    /// A read fails.
    pub read_error: f64,
    /// A write lands at another block of its file.
    pub misdirected_write: f64,
    /// A write succeeds without any effect.
    pub lost_write: f64,
    /// A bit of what was written is another one, from the end of the write on.
    pub rot: f64,
    /// A sector of what was written cannot be read until it is written again.
    pub latent_sector: f64,
    /// A read gives fewer blocks than the file has, and says so.
    pub short_read: f64,
    /// An asynchronous operation takes up to eight reaps longer.
    pub slow: f64,
    /// A reap finds nothing finished.
    pub reap_nothing: f64,
    /// Space of the disk, bytes: a file takes one block and its size, a directory one block. `None`: no limit.
    pub space: Option<u64>,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            sector_size: 512,
            tear_within_sector: false,
            rename_may_leave_both: true,
            write_error: 0.0,
            extent_no_space: 0.0,
            flush_error: 0.0,
            read_error: 0.0,
            misdirected_write: 0.0,
            lost_write: 0.0,
            rot: 0.0,
            latent_sector: 0.0,
            short_read: 0.0,
            slow: 0.0,
            reap_nothing: 0.0,
            space: None,
        }
    }
}

/// An operation that [`SimDisk::one_shot_fault`](super::SimDisk::one_shot_fault) makes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A write; counted as it is submitted.
    Write,
    /// A flush of a file; counted as it is submitted.
    Flush,
    /// Making a file.
    Create,
    /// A read.
    Read,
    /// Growing a file by `allocate`, or changing its size.
    Resize,
    /// A sync of a directory.
    SyncDir,
    /// A write that succeeds without any effect, as [`SimOptions::lost_write`]; counted as it is submitted.
    LostWrite,
    /// A write that lands elsewhere, as [`SimOptions::misdirected_write`]; counted as it is submitted.
    MisdirectedWrite,
}

/// Why a call failed: there is no power, or there was a power cut since the file or driver was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PowerOff;

impl fmt::Display for PowerOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("power is off")
    }
}

impl Error for PowerOff {}

/// The error of every call without power.
pub(crate) fn power_off() -> io::Error {
    io::Error::other(PowerOff)
}

/// Whether an error says that the power is off (or was, since the file or driver was made).
#[must_use]
pub fn is_power_off(err: &io::Error) -> bool {
    let mut cause = err.get_ref().map(|err| err as &(dyn Error + 'static));
    while let Some(err) = cause {
        if err.is::<PowerOff>() {
            return true;
        }
        let inner = err.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = inner.map(|err| err as &(dyn Error + 'static)).or_else(|| err.source());
    }
    false
}
