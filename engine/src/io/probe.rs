//! What the machine offers: direct I/O, its alignment, durable writes, the device and its cache, io_uring.
//!
//! Promises: asking changes nothing that stays. What cannot be found out is left empty or at the usual value; only a device
//! that fails a write is an error. A file that has no name is made to try things on.
//!
//! What it leaves to others: what to do about it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use io_uring::IoUring;
use io_uring::register::Restriction;

use super::posix::syscall;
use super::{AlignedBuf, BLOCK_SIZE, IoFacts};

/// How a driver makes a write durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableWrite {
    /// One call with `RWF_DSYNC`.
    Dsync,
    /// The write, then fdatasync.
    WriteThenFlush,
}

impl DurableWrite {
    /// As shown in [`IoFacts::durable_write`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dsync => "RWF_DSYNC",
            Self::WriteThenFlush => "write+fdatasync",
        }
    }
}

/// Alignment of memory and of offsets, bytes, where the kernel does not say.
const USUAL_ALIGNMENT: (usize, usize) = (512, 4096);

/// What [`probe`] found.
#[derive(Debug)]
pub(crate) struct Probe {
    /// All but the backend, the ring and the chosen durable write.
    pub(crate) facts: IoFacts,
    /// Whether a write with `RWF_DSYNC` works.
    pub(crate) dsync_works: bool,
}

/// Asks about the file system of a directory.
///
/// # Errors
///
/// What a durable write answers, other than that there is none here: a guess would choose how every write is made.
pub(crate) fn probe(dir: BorrowedFd<'_>) -> io::Result<Probe> {
    let (device, cache) = device_of(dir).map_or_else(Default::default, |d| (d.name(), d.cache()));
    let mut facts = IoFacts {
        file_system: file_system(dir),
        device,
        write_cache: cache.write_cache,
        fua: cache.fua,
        direct: true,
        ..IoFacts::default()
    };
    (facts.memory_align, facts.offset_align) = USUAL_ALIGNMENT;
    let mut dsync_works = true;
    // Where no file can be made nothing will be written either: the open fails soon, with its own error.
    if let Ok((file, opened)) = nameless_file(dir) {
        let alignment = syscall::direct_alignment(file.as_fd());
        (facts.memory_align, facts.offset_align) = alignment.filter(|a| a.0 > 0).unwrap_or(USUAL_ALIGNMENT);
        if let Err(reason) = direct_io(opened, alignment) {
            (facts.direct, facts.buffered_reason) = (false, reason);
        }
        dsync_works = can_dsync(&file)?;
    }
    Ok(Probe { facts, dsync_works })
}

/// Whether files are opened for direct I/O; why not, otherwise. `opened` is whether a file could be, `alignment` what the
/// kernel says of it, of memory and of offsets, bytes; zero if it has none.
fn direct_io(opened: bool, alignment: Option<(usize, usize)>) -> Result<(), &'static str> {
    match alignment {
        _ if !opened => Err("the file system refuses O_DIRECT"),
        None => Ok(()),
        Some((0, _) | (_, 0)) => Err("the file system says that it has no direct I/O"),
        Some((memory, offset)) if BLOCK_SIZE.is_multiple_of(memory) && BLOCK_SIZE.is_multiple_of(offset) => Ok(()),
        Some(_) => Err("direct I/O needs a greater alignment than 4096 bytes here"),
    }
}

/// How durable writes are done, and why: the facts are whether `RWF_DSYNC` works, and what sysfs says of the device.
///
/// `RWF_DSYNC` is never slower where it works: with FUA it is one write without a flush, with a write-through cache it costs
/// nothing, and else the kernel flushes the cache in the same call instead of in a second one.
pub(crate) fn choose(
    dsync_works: bool,
    write_cache: Option<bool>,
    fua: Option<bool>,
    forced: Option<DurableWrite>,
) -> (DurableWrite, &'static str) {
    if let Some(forced) = forced {
        return (forced, "it was asked for");
    }
    if !dsync_works {
        return (DurableWrite::WriteThenFlush, "the file system refuses RWF_DSYNC");
    }
    let reason = match (write_cache, fua) {
        (Some(false), _) => "the device's cache is write-through: what is written is durable, and no flush follows",
        (_, Some(true)) => "the device has FUA: one write goes past its cache, and no flush follows",
        (Some(true), Some(false)) => {
            "the device's cache is write-back and it has no FUA: one call writes and flushes the cache"
        }
        _ => "the device's cache is unknown: one call leaves it to the kernel whether to flush",
    };
    (DurableWrite::Dsync, reason)
}

/// A file to try things on, and whether it could be opened for direct I/O.
fn nameless_file(dir: BorrowedFd<'_>) -> io::Result<(OwnedFd, bool)> {
    match nameless_file_with(dir, libc::O_DIRECT) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok((nameless_file_with(dir, 0)?, false)),
        result => Ok((result?, true)),
    }
}

fn nameless_file_with(dir: BorrowedFd<'_>, flags: i32) -> io::Result<OwnedFd> {
    match syscall::open_at(dir, c".", libc::O_TMPFILE | libc::O_RDWR | flags, 0o600) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => unlinked_file(dir, flags),
        result => result,
    }
}

/// For file systems without `O_TMPFILE`: a file that loses its name at once.
fn unlinked_file(dir: BorrowedFd<'_>, flags: i32) -> io::Result<OwnedFd> {
    let name = CString::new(format!(".probe-{}", std::process::id()))?;
    let file = syscall::open_at(dir, &name, libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | flags, 0o600);
    let unlinked = syscall::unlink_at(dir, &name);
    let file = file?;
    unlinked?;
    Ok(file)
}

fn can_dsync(file: &OwnedFd) -> io::Result<bool> {
    let block = AlignedBuf::new(BLOCK_SIZE);
    dsync_works(syscall::write_durable(file.as_fd(), &block, 0))
}

/// What the answer to a write with `RWF_DSYNC` says of the flag.
fn dsync_works(answer: io::Result<usize>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS) => Ok(false),
            // The kernel looks at the flag before it looks for room (pwritev2(2)): the write was begun. A store whose disk is
            // full still opens, since it has a spare journal segment.
            Some(libc::ENOSPC | libc::EDQUOT) => Ok(true),
            _ => Err(error),
        },
    }
}

/// File systems by the number that statfs(2) gives.
const FILE_SYSTEMS: &[(u32, &str)] = &[
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlay"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x4d44, "vfat"),
    (0x2011_bab0, "exfat"),
];

fn file_system(dir: BorrowedFd<'_>) -> String {
    let Ok(magic) = syscall::file_system_magic(dir) else {
        return String::new();
    };
    match FILE_SYSTEMS.iter().find(|(number, _)| *number == magic) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{magic:#x}"),
    }
}

/// A whole block device, by its directory in sysfs.
struct Device(PathBuf);

#[derive(Default)]
struct DeviceCache {
    write_cache: Option<bool>,
    fua: Option<bool>,
}

/// The device under a directory; none for file systems without one of their own (tmpfs, btrfs, overlay).
fn device_of(dir: BorrowedFd<'_>) -> Option<Device> {
    let number = fs::File::from(dir.try_clone_to_owned().ok()?).metadata().ok()?.dev();
    let link = format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number));
    let path = fs::canonicalize(link).ok()?;
    let whole = if path.join("partition").exists() { path.parent()?.to_owned() } else { path };
    Some(Device(whole))
}

impl Device {
    fn name(&self) -> String {
        self.0.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn cache(&self) -> DeviceCache {
        let setting = |name: &str| fs::read_to_string(Path::new(&self.0).join("queue").join(name)).ok();
        DeviceCache {
            write_cache: setting("write_cache").map(|text| text.trim() == "write back"),
            fua: setting("fua").map(|text| text.trim() == "1"),
        }
    }
}

/// Whether io_uring may be used, by making a small ring.
///
/// # Errors
///
/// The kernel's refusal: `EPERM` where a seccomp profile or `kernel.io_uring_disabled` forbids it, `ENOSYS` where it is
/// missing; `Unsupported` where it is too old (before Linux 5.11).
pub fn uring_available() -> io::Result<()> {
    let ring = idle_ring()?;
    if ring.params().is_feature_ext_arg() && ring.params().is_feature_nodrop() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring here cannot wait with a timeout (Linux 5.11 can)"))
}

/// A ring that may do nothing, enabled as a shard's is; an ordinary one where none can begin disabled.
fn idle_ring() -> io::Result<IoUring> {
    let ring = match IoUring::builder().setup_r_disabled().build(4) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return IoUring::new(4),
        result => result?,
    };
    // Where there are no restrictions a shard's ring does without, too; but it has to be enabled.
    let _ = ring.submitter().register_restrictions(&mut [Restriction::sqe_flags_allowed(0)]);
    ring.submitter().register_enable_rings()?;
    Ok(ring)
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;

    /// Every device and file system that there may be, and the choice.
    #[test]
    fn durable_writes_are_chosen_by_device_and_file_system() {
        use DurableWrite::{Dsync, WriteThenFlush};
        let (yes, no) = (Some(true), Some(false));
        let table = [
            (true, yes, yes, None, Dsync, "FUA: one write"),
            (true, yes, no, None, Dsync, "no FUA"),
            (true, yes, None, None, Dsync, "unknown"),
            (true, no, yes, None, Dsync, "write-through"),
            (true, no, no, None, Dsync, "write-through"),
            (true, no, None, None, Dsync, "write-through"),
            (true, None, yes, None, Dsync, "FUA: one write"),
            (true, None, no, None, Dsync, "unknown"),
            (true, None, None, None, Dsync, "unknown"),
            (false, yes, yes, None, WriteThenFlush, "refuses"),
            (false, no, no, None, WriteThenFlush, "refuses"),
            (false, None, None, None, WriteThenFlush, "refuses"),
            (true, yes, yes, Some(WriteThenFlush), WriteThenFlush, "asked for"),
            (true, yes, no, Some(Dsync), Dsync, "asked for"),
        ];
        for (dsync, write_cache, fua, forced, expected, why) in table {
            let (chosen, reason) = choose(dsync, write_cache, fua, forced);
            let case = format!("{dsync} {write_cache:?} {fua:?} {forced:?}: {chosen:?}, {reason}");
            assert!(chosen == expected && reason.contains(why), "{case}");
        }
    }

    /// A refusal is what says that there is no such write; a full disk has taken the flag; a failure is neither.
    #[test]
    fn only_a_refusal_says_that_durable_writes_do_not_work() {
        let answer = |errno| dsync_works(Err(io::Error::from_raw_os_error(errno)));
        for refusal in [libc::EOPNOTSUPP, libc::EINVAL, libc::ENOSYS] {
            assert!(!answer(refusal).unwrap(), "{refusal}");
        }
        for full in [libc::ENOSPC, libc::EDQUOT] {
            assert!(answer(full).unwrap(), "{full}");
        }
        for failure in [libc::EIO, libc::EROFS, libc::EPERM, libc::EBADF, libc::ENOMEM] {
            assert_eq!(answer(failure).unwrap_err().raw_os_error(), Some(failure));
        }
        assert!(dsync_works(Ok(BLOCK_SIZE)).unwrap());
        assert!(dsync_works(Ok(512)).unwrap(), "a short write took the flag");
    }

    /// Blocks of 4096 bytes fit every smaller alignment, and none that is greater.
    #[test]
    fn direct_io_needs_an_alignment_that_blocks_have() {
        for fits in [None, Some((1, 512)), Some((4, 4096)), Some((512, 512)), Some((4096, 4096))] {
            assert_eq!(direct_io(true, fits), Ok(()), "{fits:?}");
            assert!(direct_io(false, fits).is_err_and(|why| why.contains("refuses")), "{fits:?}");
        }
        for too_much in [(512, 8192), (8192, 512), (65536, 65536)] {
            assert!(direct_io(true, Some(too_much)).is_err_and(|why| why.contains("4096")), "{too_much:?}");
        }
        for none in [(0, 0), (0, 512), (512, 0)] {
            assert!(direct_io(true, Some(none)).is_err_and(|why| why.contains("no direct I/O")), "{none:?}");
        }
    }

    /// A directory's probe leaves nothing behind and finds plausible facts.
    #[test]
    fn probe_leaves_nothing_behind() {
        let dir = crate::io::posix::tests::temp_dir();
        let found = probe(fs::File::open(dir.path()).unwrap().as_fd()).unwrap();
        assert!(!found.facts.file_system.is_empty());
        assert!(found.facts.memory_align.is_power_of_two() && found.facts.offset_align.is_power_of_two());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A file without a name can be made the other way too.
    #[test]
    fn unlinked_file_has_no_name() {
        let dir = crate::io::posix::tests::temp_dir();
        let base = fs::File::open(dir.path()).unwrap();
        let file = fs::File::from(unlinked_file(base.as_fd(), 0).unwrap());
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A memory file system is named, and has no device.
    #[test]
    fn a_memory_file_system_has_no_device() {
        if let Ok(dir) = fs::File::open("/dev/shm") {
            let found = probe(dir.as_fd()).unwrap();
            if found.facts.file_system == "tmpfs" {
                assert_eq!(found.facts.device, "");
            }
        }
    }
}
