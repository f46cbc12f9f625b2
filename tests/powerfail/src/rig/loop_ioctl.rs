//! The ioctls of loop devices, and what the page cache has of them, as safe calls.
//!
//! Unsafe code is needed for the calls themselves: neither `nix` nor the standard library has them. It is confined to this
//! file; what it leaves to others is which device is meant.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const BLKFLSBUF: libc::c_ulong = 0x1261;
/// `cachestat(2)`, Linux 6.5; the same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = {
    assert!(size_of::<LoopInfo64>() == 232);
    assert!(size_of::<LoopConfig>() == 304);
};

/// Number of a loop device that nobody uses at this moment; `control` is `/dev/loop-control`.
pub fn free_number(control: &File) -> io::Result<u32> {
    // SAFETY: this request takes no argument and touches no memory of ours; the descriptor is open.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Puts `file` under a loop device, with direct I/O and this sector size. The device lets go of it when the last descriptor
/// and mount of the device are gone.
pub fn configure(device: &File, file: &File, sector_size: u32) -> io::Result<()> {
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?,
        block_size: sector_size,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: the request reads one `loop_config` from the pointer and keeps no pointer; the size of ours is asserted to be
    // the kernel's, and it lives until the call returns. Both descriptors are open.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Drops what the kernel remembers of the device's content, as far as nothing holds it at this moment.
pub fn forget_content(device: &File) -> io::Result<()> {
    // SAFETY: this request takes no argument and touches no memory of ours; the descriptor is open.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Pages of the device in the page cache.
pub fn cached_pages(device: &File) -> io::Result<u64> {
    // A length of 0 means to the end of the device.
    let range = [0_u64; 2];
    // nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted
    let mut counts = [0_u64; 5];
    // SAFETY: `range` and `counts` have the layout of `cachestat_range` and `cachestat`, and outlive the call.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, device.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) };
    if result == 0 { Ok(counts[0]) } else { Err(io::Error::last_os_error()) }
}
