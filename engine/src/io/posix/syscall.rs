//! The system calls that `std` does not offer, each behind a safe function.
//!
//! Unsafe is needed for the calls themselves. Descriptors come in borrowed and go out owned, names as C strings, so
//! nothing here outlives or outruns what it is given. Interrupted calls are made again.
//!
//! What it leaves to others: which calls make sense. Errors are the kernel's, untouched.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use crate::io::DirEntry;

/// Turns -1 into the error it stands for.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes a call again for as long as a signal interrupts it.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Takes ownership of a descriptor that a call has just made.
fn own(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for the caller, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A new eventfd that does not block.
pub(crate) fn eventfd() -> io::Result<File> {
    // SAFETY: takes no memory.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
    Ok(File::from(own(fd)))
}

/// Takes (`F_WRLCK`) or gives back (`F_UNLCK`) a lease on a file; who breaks it is told by a signal that does nothing.
#[cfg(all(test, not(redex_loom)))]
pub(crate) fn set_lease(file: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<()> {
    // Of linux/fcntl.h.
    const F_SETSIG: libc::c_int = 10;
    // SAFETY: takes no memory.
    check(unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) })?;
    // SAFETY: takes no memory.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) }).map(drop)
}

/// openat2 beneath `dir`: no symbolic link anywhere on the way, no way out.
pub(crate) fn open_beneath(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: `open_how` is plain integers, for which zero is valid.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.mode = u64::from(mode);
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    again(|| {
        // SAFETY: `path` is a C string and `how` a struct of the size given; both outlive the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        check(fd as libc::c_int).map(own)
    })
}

/// openat; `mode` counts only where `flags` create.
pub(crate) fn open_at(dir: BorrowedFd<'_>, name: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    again(|| {
        // SAFETY: `name` is a C string that outlives the call.
        check(unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC, mode) }).map(own)
    })
}

/// mkdirat.
pub(crate) fn make_dir_at(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    again(|| check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }).map(drop))
}

/// The mode of what a directory has by this name, which is not followed if it is a link.
pub(crate) fn mode_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<u32> {
    let mut facts = MaybeUninit::<libc::stat64>::zeroed();
    // SAFETY: a C string and room for the struct outlive the call.
    check(unsafe { libc::fstatat64(dir.as_raw_fd(), name.as_ptr(), facts.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW) })?;
    // SAFETY: zeroed, then filled in by the kernel; all its fields are integers.
    Ok(unsafe { facts.assume_init() }.st_mode)
}

/// Sets the permissions of what a directory has by this name, which is not followed if it is a link.
pub(crate) fn set_mode_at(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    check(unsafe { libc::fchmodat(dir.as_raw_fd(), name.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW) }).map(drop)
}

/// Sets those of an open file's flags that can be set: of the ones that are used here `O_DIRECT`, and `O_NONBLOCK`.
pub(crate) fn set_status_flags(fd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: takes no memory.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// renameat.
pub(crate) fn rename_at(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, new_name: &CStr) -> io::Result<()> {
    again(|| {
        // SAFETY: both names are C strings that outlive the call.
        check(unsafe { libc::renameat(from.as_raw_fd(), name.as_ptr(), to.as_raw_fd(), new_name.as_ptr()) }).map(drop)
    })
}

/// unlinkat, of a file.
pub(crate) fn unlink_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    again(|| check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }).map(drop))
}

/// unlinkat, of an empty directory.
pub(crate) fn remove_dir_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    again(|| check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) }).map(drop))
}

/// Makes sure that the first `size` bytes have space, and the file that size.
pub(crate) fn allocate(fd: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    let size = libc::off64_t::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: takes no memory.
    again(|| check(unsafe { libc::fallocate64(fd.as_raw_fd(), 0, 0, size) }).map(drop))
}

/// Extents that are asked for at once.
const EXTENTS_MAX: usize = 64;

/// See linux/fiemap.h.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [FiemapExtent; EXTENTS_MAX],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `FS_IOC_FIEMAP`: _IOWR('f', 11, struct fiemap), whose 32 bytes do not count the extents.
const FS_IOC_FIEMAP: libc::Ioctl = 0xc020_660b_u32 as libc::Ioctl;

/// Where the extents of `range` begin, but for the first; as many as one call tells.
pub(crate) fn extent_starts(fd: BorrowedFd<'_>, range: Range<u64>) -> io::Result<Vec<u64>> {
    let mut map = Fiemap {
        start: range.start,
        length: range.end.saturating_sub(range.start),
        flags: 0,
        mapped_extents: 0,
        extent_count: EXTENTS_MAX as u32,
        reserved: 0,
        extents: [FiemapExtent { logical: 0, physical: 0, length: 0, reserved64: [0; 2], flags: 0, reserved: [0; 3] };
            EXTENTS_MAX],
    };
    // SAFETY: `map` is laid out as the kernel's structure, has room for as many extents as it says, and outlives the call.
    again(|| check(unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP, &raw mut map) }).map(drop))?;
    let count = (map.mapped_extents as usize).min(EXTENTS_MAX);
    let starts = map.extents[..count].iter().map(|extent| extent.logical);
    Ok(starts.filter(|start| range.contains(start) && *start > range.start).collect())
}

/// pwritev2 with `RWF_DSYNC`: what it wrote, perhaps not all, is durable when it returns.
pub(crate) fn write_durable(fd: BorrowedFd<'_>, buf: &[u8], offset: u64) -> io::Result<usize> {
    let part = libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
    let offset = libc::off64_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    again(|| {
        // SAFETY: `part` describes `buf`, which outlives the call and which a write only reads.
        let written = unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const part, 1, offset, libc::RWF_DSYNC) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    })
}

/// Sleeps until `fd` is readable or `timeout` has passed. A signal ends it early.
pub(crate) fn wait_readable(fd: RawFd, timeout: Option<Duration>) -> io::Result<()> {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let timeout = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: one entry, as the count says; it and the time outlive the call; no signal mask.
    match check(unsafe { libc::ppoll(&raw mut entry, 1, timeout, ptr::null()) }) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        _ => Ok(()),
    }
}

/// The type number of a file system, see statfs(2).
pub(crate) fn file_system_magic(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut facts = MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: `facts` has room for the struct and outlives the call.
    again(|| check(unsafe { libc::fstatfs64(fd.as_raw_fd(), facts.as_mut_ptr()) }))?;
    // SAFETY: zeroed, then filled in by the kernel; all its fields are integers.
    let facts = unsafe { facts.assume_init() };
    Ok(facts.f_type as u32) // The numbers are 32 bits wide; on some machines the field is wider, and signed.
}

/// Alignment of memory, and of offsets, for direct I/O on this file, bytes; `None` if the kernel does not say.
pub(crate) fn direct_alignment(fd: BorrowedFd<'_>) -> Option<(usize, usize)> {
    let mut facts = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an empty C string, and room for the struct, both outliving the call.
    let result = unsafe {
        libc::statx(fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, facts.as_mut_ptr())
    };
    check(result).ok()?;
    // SAFETY: zeroed, then filled in by the kernel; all its fields are integers.
    let facts = unsafe { facts.assume_init() };
    (facts.stx_mask & libc::STATX_DIOALIGN != 0)
        .then_some((facts.stx_dio_mem_align as usize, facts.stx_dio_offset_align as usize))
}

/// The entries of a directory, in no order, without `.` and `..`. Names that are not UTF-8 are shown with replacement characters.
pub(crate) fn list(dir: OwnedFd) -> io::Result<Vec<DirEntry>> {
    let stream = Stream::new(dir)?;
    let mut entries = Vec::new();
    while let Some((name, kind)) = stream.next()? {
        if name.as_bytes() == b"." || name.as_bytes() == b".." {
            continue;
        }
        let is_dir = match kind {
            libc::DT_UNKNOWN => stream.is_dir(&name)?,
            kind => kind == libc::DT_DIR,
        };
        entries.push(DirEntry { name: name.to_string_lossy().into_owned(), is_dir });
    }
    Ok(entries)
}

/// An open directory stream.
struct Stream(ptr::NonNull<libc::DIR>);

impl Stream {
    fn new(dir: OwnedFd) -> io::Result<Self> {
        // SAFETY: an open descriptor; the stream owns it from here on if this succeeds.
        let stream = unsafe { libc::fdopendir(dir.as_raw_fd()) };
        let stream = ptr::NonNull::new(stream).ok_or_else(io::Error::last_os_error)?;
        let _ = dir.into_raw_fd();
        Ok(Self(stream))
    }

    fn next(&self) -> io::Result<Option<(CString, u8)>> {
        // The end and an error differ in errno alone.
        // SAFETY: errno is this thread's own.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: the stream is open, and only this thread uses it, since it is not `Sync`.
        let entry = unsafe { libc::readdir64(self.0.as_ptr()) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(None) } else { Err(error) };
        }
        // SAFETY: the entry is valid until the next call on the stream; `d_name` ends with a zero. No reference to the
        // whole struct is made, since the record may be shorter than it.
        let (name, kind) = unsafe { (CStr::from_ptr((&raw const (*entry).d_name).cast()), (*entry).d_type) };
        Ok(Some((name.to_owned(), kind)))
    }

    /// Asks for the type of an entry whose file system does not tell it in the listing.
    fn is_dir(&self, name: &CStr) -> io::Result<bool> {
        // SAFETY: the stream is open, and its descriptor with it, for as long as it is borrowed.
        let dir = unsafe { BorrowedFd::borrow_raw(libc::dirfd(self.0.as_ptr())) };
        Ok(mode_at(dir, name)? & libc::S_IFMT == libc::S_IFDIR)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is open and not used after this.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}
