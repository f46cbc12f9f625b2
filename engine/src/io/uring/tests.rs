//! What only the ring promises: an orderly end, tables that let go, the lock held by the ring.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::UringDisk;
use super::ring::{Ring, Tables};
use crate::io::posix::tests::{finish, temp_dir, write};
use crate::io::probe::uring_available;
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, Durability, File, FileHandle, OpenMode, Operation, RingFacts};

/// Whether io_uring can be used. If not, says so; with `REDEX_CI_NO_SKIP=1` that is an error.
fn allowed() -> bool {
    let Err(error) = uring_available() else { return true };
    eprintln!("SKIPPED: io_uring cannot be used: {error}");
    assert!(std::env::var_os("REDEX_CI_NO_SKIP").is_none_or(|value| value != "1"), "nothing may be skipped: {error}");
    false
}

/// A disk in a directory of its own; `None` where io_uring is forbidden.
fn disk() -> Option<(tempfile::TempDir, UringDisk)> {
    if !allowed() {
        return None;
    }
    let dir = temp_dir();
    let disk = UringDisk::open(dir.path(), None).unwrap();
    Some((dir, disk))
}

/// A driver dropped with everything in flight, handed over or not, has ended it all: the bytes are there.
#[test]
fn a_drop_waits_for_what_is_in_flight() {
    let Some((_dir, disk)) = disk() else { return };
    let file = disk.open("a", OpenMode::Create).unwrap();
    let mut driver = disk.driver().unwrap();
    for i in 0..600 {
        let mut buf = AlignedBuf::new(BLOCK_SIZE);
        buf.fill(i as u8);
        driver.submit(i, write(&file, i, buf, Durability::Written));
        if i == 100 {
            driver.kick().unwrap();
        }
    }
    driver.submit(600, Operation::Flush { file: file.clone() });
    drop(driver);
    assert_eq!(Arc::strong_count(&file), 1);
    let mut buf = AlignedBuf::new(600 * BLOCK_SIZE);
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), buf.len());
    assert!(buf.chunks(BLOCK_SIZE).enumerate().all(|(i, block)| block.iter().all(|&b| b == i as u8)));
}

/// A driver that sleeps on an armed doorbell can be dropped.
#[test]
fn a_drop_ends_the_read_of_the_doorbell() {
    let Some((_dir, disk)) = disk() else { return };
    let mut driver = disk.driver().unwrap();
    driver.wait(Some(Duration::from_millis(1))).unwrap();
    let doorbell = driver.doorbell();
    drop(driver);
    assert_eq!(Arc::strong_count(&doorbell), 1);
}

/// A buffer that comes back is registered at its second write, and is written right from then on.
#[test]
fn a_buffer_that_comes_back_is_registered() {
    let Some((_dir, disk)) = disk() else { return };
    let file = disk.open("a", OpenMode::Create).unwrap();
    let mut driver = disk.driver().unwrap();
    let mut buf = AlignedBuf::new(2 * BLOCK_SIZE);
    for round in 0..4u8 {
        buf.fill(round);
        driver.submit(1, write(&file, 2 * u64::from(round), buf, Durability::Durable));
        let done = finish(&mut *driver).pop().unwrap();
        done.result.unwrap();
        buf = done.buf.unwrap();
        assert_eq!(buf.registration().is_some(), round > 0, "round {round}");
    }
    let mut read = AlignedBuf::new(8 * BLOCK_SIZE);
    file.read_at(&mut read, 0).unwrap();
    assert!(read.chunks(2 * BLOCK_SIZE).enumerate().all(|(i, part)| part.iter().all(|&b| b == i as u8)));
    // A buffer of one ring is a plain one to another.
    let mut other = disk.driver().unwrap();
    other.submit(1, write(&file, 0, buf, Durability::Written));
    finish(&mut *other).pop().unwrap().result.unwrap();
}

/// More pooled buffers than the table has places, dropped and made again: places come back, and none is mistaken.
#[test]
fn places_of_buffers_come_back() {
    let Some((_dir, disk)) = disk() else { return };
    let file = disk.open("a", OpenMode::Create).unwrap();
    let mut driver = disk.driver().unwrap();
    for round in 0..3u64 {
        let mut bufs: Vec<_> = (0..80).map(|_| AlignedBuf::new(BLOCK_SIZE)).collect();
        for pass in 0..2u64 {
            for (i, mut buf) in bufs.drain(..).enumerate() {
                buf.fill((round * 100 + pass * 7 + i as u64) as u8);
                driver.submit(i as u64, write(&file, i as u64, buf, Durability::Written));
            }
            let mut done = finish(&mut *driver);
            done.sort_unstable_by_key(|c| c.token);
            assert!(done.iter().all(|c| c.result.is_ok()));
            bufs = done.into_iter().filter_map(|c| c.buf).collect();
        }
        assert_eq!(bufs.iter().filter(|b| b.registration().is_some()).count(), 64);
        let mut read = AlignedBuf::new(80 * BLOCK_SIZE);
        file.read_at(&mut read, 0).unwrap();
        let byte = |i: usize| (round * 100 + 7 + i as u64) as u8;
        assert!(read.chunks(BLOCK_SIZE).enumerate().all(|(i, block)| block.iter().all(|&b| b == byte(i))));
        drop(bufs);
        driver.wait(Some(Duration::ZERO)).unwrap();
    }
}

/// A file that was closed is let go by the ring too, at the next wait: a lock on it ends. Files that follow, under the same
/// descriptor, are told apart.
#[test]
fn closed_files_are_let_go() {
    let Some((dir, disk)) = disk() else { return };
    let mut driver = disk.driver().unwrap();
    for round in 0..20u8 {
        let name = format!("{round}");
        let file = disk.open(&name, OpenMode::Create).unwrap();
        lock(&file);
        let mut buf = AlignedBuf::new(BLOCK_SIZE);
        buf.fill(round);
        driver.submit(1, write(&file, 0, buf, Durability::Written));
        finish(&mut *driver).pop().unwrap().result.unwrap();
        drop(file);
        let written = fs::read(dir.path().join(&name)).unwrap();
        assert!(written.len() == BLOCK_SIZE && written.iter().all(|&b| b == round));
        let again = fs::File::open(dir.path().join(&name)).unwrap();
        assert!(matches!(again.try_lock(), Err(fs::TryLockError::WouldBlock)));
        // Only now and then, so that some files meet the stale place of the one before.
        if round % 2 == 0 {
            driver.wait(Some(Duration::ZERO)).unwrap();
            again.try_lock().unwrap();
        }
    }
}

/// Locks an open file for as long as anybody, the ring included, has it open.
fn lock(file: &Arc<dyn File>) {
    let FileHandle::Open(file) = file.handle().unwrap() else { panic!("a real file") };
    file.lock().unwrap();
}

/// The ring holds the lock after the store's descriptor is closed, and lets it go when the driver is dropped.
#[test]
fn the_ring_holds_the_lock() {
    let Some((dir, disk)) = disk() else { return };
    let lock = Arc::new(disk.posix().lock_file().unwrap());
    lock.lock().unwrap();
    disk.posix().set_lock_file(&lock);
    let driver = disk.driver().unwrap();
    drop(lock);
    let other = fs::File::options().read(true).write(true).open(dir.path().join("LOCK")).unwrap();
    assert!(matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock)));
    drop(driver);
    other.try_lock().unwrap();
}

/// A thread makes more rings, one after the other, than it may have registered at once.
#[test]
fn rings_are_unregistered() {
    if !allowed() {
        return;
    }
    for _ in 0..40 {
        assert!(Ring::new().unwrap().facts().registered_ring);
    }
}

/// From Linux 6.1 on a ring has everything that it asks for; an older kernel has less, and what it has is told.
#[test]
fn a_ring_gets_what_its_kernel_has() {
    let Some((_dir, disk)) = disk() else { return };
    let ring = disk.driver().unwrap().ring();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let kernel = (numbers.next().unwrap(), numbers.next().unwrap());
    let expected = RingFacts {
        single_issuer: kernel >= (6, 1),
        defer_taskrun: kernel >= (6, 1),
        coop_taskrun: kernel >= (5, 19),
        registered_ring: kernel >= (5, 18),
        registered_files: kernel >= (5, 19),
        registered_buffers: kernel >= (5, 19),
        restricted: kernel >= (5, 10),
    };
    assert_eq!(ring, expected, "{release}");
}

/// Pushes an entry that touches no memory, and gives its result.
fn result_of(ring: &mut Ring, entry: io_uring::squeue::Entry) -> i32 {
    ring.push_alone(&entry.user_data(7));
    ring.wait(Some(Duration::from_secs(10))).unwrap();
    let completed = ring.pop().unwrap();
    assert_eq!(completed.key, 7);
    completed.result
}

/// An enabled ring does what the engine asks of it; another operation, another flag and another registration are refused by the
/// kernel, in every table's state that a kernel may leave.
#[test]
fn a_ring_does_nothing_but_the_engines_work() {
    if !allowed() {
        return;
    }
    let dir = temp_dir();
    let file = fs::File::create(dir.path().join("file")).unwrap();
    for (files, buffers) in [(false, false), (true, false), (true, true)] {
        let mut ring = Ring::new().unwrap();
        if files {
            ring.submitter().register_files_sparse(4).unwrap();
        }
        if buffers {
            ring.submitter().register_buffers_sparse(4).unwrap();
        }
        ring.enable(Tables { files, buffers }).unwrap();
        assert!(ring.facts().restricted);
        let fd = types::Fd(file.as_raw_fd());
        assert_eq!(result_of(&mut ring, opcode::Fsync::new(fd).build()), 0);
        for forbidden in [
            opcode::Nop::new().build(),
            opcode::Close::new(fd).build(),
            opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build(),
            opcode::Fallocate::new(fd, 4096).build(),
        ] {
            assert_eq!(result_of(&mut ring, forbidden), -libc::EACCES);
        }
        for flags in [Flags::ASYNC, Flags::IO_DRAIN, Flags::SKIP_SUCCESS] {
            assert_eq!(result_of(&mut ring, opcode::Fsync::new(fd).build().flags(flags)), -libc::EACCES, "{flags:?}");
        }
        assert_eq!(ring.submitter().register_files_update(0, &[file.as_raw_fd()]).is_ok(), files);
        for refused in [
            ring.submitter().register_eventfd(file.as_raw_fd()),
            ring.submitter().register_personality().map(drop),
            ring.submitter().register_files(&[file.as_raw_fd()]),
        ] {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EACCES));
        }
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}

/// Where a kernel cannot restrict a ring the engine goes on without, and says so.
#[test]
fn a_ring_without_restrictions_says_so() {
    if !allowed() {
        return;
    }
    let mut ring = Ring::with(&[RingFacts::default()]).unwrap();
    ring.enable(Tables { files: false, buffers: false }).unwrap();
    assert!(!ring.facts().restricted);
    assert_eq!(result_of(&mut ring, opcode::Nop::new().build()), 0);
}

/// A refusal of the restrictions alone, here since there are some already, leaves a ring that works, and says so.
#[test]
fn a_ring_whose_restrictions_are_refused_goes_on() {
    if !allowed() {
        return;
    }
    let mut ring = Ring::new().unwrap();
    ring.submitter().register_restrictions(&mut [Restriction::sqe_op(opcode::Nop::CODE)]).unwrap();
    ring.enable(Tables { files: false, buffers: false }).unwrap();
    assert!(!ring.facts().restricted);
    assert_eq!(result_of(&mut ring, opcode::Nop::new().build()), 0);
}

/// A ring belongs to the thread that enables it: before that nobody's entries are taken.
#[test]
fn a_ring_takes_nothing_before_it_is_enabled() {
    if !allowed() {
        return;
    }
    let mut ring = Ring::new().unwrap();
    ring.push_alone(&opcode::PollAdd::new(types::Fd(0), libc::POLLIN as u32).build());
    assert_eq!(ring.submit().unwrap_err().raw_os_error(), Some(libc::EBADFD));
    ring.enable(Tables { files: false, buffers: false }).unwrap();
    ring.submit().unwrap();
}
