//! What both real disks promise, tested by one body for each: files, directories, durable writes, waking.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::PosixDisk;
use crate::io::doorbell::Park;
use crate::io::probe::{DurableWrite, uring_available};
use crate::io::uring::UringDisk;
use crate::io::{
    AlignedBuf, BLOCK_SIZE, Completion, Disk, Driver, Durability, File, FileHandle, IoBuf, OpenMode, Operation,
};

/// A directory beside the test's binary: on the disk that holds the build, not in memory.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    let binary = std::env::current_exe().unwrap();
    tempfile::tempdir_in(binary.parent().unwrap()).unwrap()
}

/// Runs a body on every real disk that the machine allows, with either kind of durable write.
pub(crate) fn on_each_disk(base: &Path, body: impl Fn(&dyn Disk)) {
    for (i, durable) in [None, Some(DurableWrite::WriteThenFlush)].into_iter().enumerate() {
        body(&PosixDisk::open(&base.join(format!("posix-{i}")), durable).unwrap());
        if uring_available().is_ok() {
            body(&UringDisk::open(&base.join(format!("uring-{i}")), durable).unwrap());
        }
    }
}

fn filled(blocks: usize, byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::new(blocks * BLOCK_SIZE);
    buf.fill(byte);
    buf
}

pub(crate) fn write(file: &Arc<dyn File>, block: u64, buf: AlignedBuf, durability: Durability) -> Operation {
    let len = buf.len();
    Operation::Write {
        file: file.clone(),
        offset: block * BLOCK_SIZE as u64,
        buf: IoBuf::Owned { buf, len },
        durability,
    }
}

/// Waits until all is reaped.
pub(crate) fn finish(driver: &mut dyn Driver) -> Vec<Completion> {
    let mut out = Vec::new();
    driver.kick().unwrap();
    driver.reap(&mut out).unwrap();
    while driver.in_flight() > 0 {
        driver.wait(Some(Duration::from_secs(10))).unwrap();
        driver.reap(&mut out).unwrap();
    }
    out
}

/// Bytes written by the driver, with either durability, and flushed, are read back; the buffers come back.
#[test]
fn what_is_written_is_read() {
    let dir = temp_dir();
    on_each_disk(dir.path(), |disk| {
        let file = disk.open("a", OpenMode::Create).unwrap();
        let mut driver = disk.driver().unwrap();
        driver.submit(1, write(&file, 0, filled(1, 1), Durability::Durable));
        driver.submit(2, write(&file, 1, filled(2, 2), Durability::Written));
        let mut done = finish(&mut *driver);
        driver.submit(3, Operation::Flush { file: file.clone() });
        done.append(&mut finish(&mut *driver));
        done.sort_unstable_by_key(|c| c.token);
        let shape: Vec<_> = done.iter().map(|c| (c.token, c.result.is_ok(), c.buf.as_ref().map(|b| b.len()))).collect();
        assert_eq!(shape, [(1, true, Some(4096)), (2, true, Some(8192)), (3, true, None)]);
        let mut buf = AlignedBuf::new(4 * BLOCK_SIZE);
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 3 * BLOCK_SIZE);
        assert!(buf[..4096].iter().all(|&b| b == 1) && buf[4096..12288].iter().all(|&b| b == 2));
        assert_eq!(file.size().unwrap(), 12288);
    });
}

/// More operations than a ring has room for, over more files than it has places for, all complete once.
#[test]
fn many_operations_in_flight() {
    const FILES: u64 = 300;
    const COUNT: u64 = 1500;
    let dir = temp_dir();
    on_each_disk(dir.path(), |disk| {
        let files: Vec<_> = (0..FILES).map(|i| disk.open(&i.to_string(), OpenMode::Create).unwrap()).collect();
        let mut driver = disk.driver().unwrap();
        for i in 0..COUNT {
            let file = &files[(i % FILES) as usize];
            driver.submit(i, write(file, i / FILES, filled(1, i as u8), Durability::Written));
        }
        assert_eq!(driver.in_flight(), COUNT as usize);
        let mut tokens: Vec<_> =
            finish(&mut *driver).iter().map(|c| c.result.as_ref().map(|()| c.token).unwrap()).collect();
        tokens.sort_unstable();
        assert!(tokens.into_iter().eq(0..COUNT));
        let mut buf = AlignedBuf::new(BLOCK_SIZE);
        for i in 0..COUNT {
            files[(i % FILES) as usize].read_at(&mut buf, i / FILES * BLOCK_SIZE as u64).unwrap();
            assert!(buf.iter().all(|&b| b == i as u8));
        }
    });
}

/// A ring wakes a driver that waits without a limit, also one rung before the wait; a timeout ends a wait.
#[test]
fn the_doorbell_wakes_a_wait() {
    let dir = temp_dir();
    on_each_disk(dir.path(), |disk| {
        let mut driver = disk.driver().unwrap();
        let doorbell = driver.doorbell();
        for _ in 0..3 {
            doorbell.announce_park(Park::Deep);
            let ringer = doorbell.clone();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                ringer.ring_urgent();
            });
            while !doorbell.take_urgent() {
                driver.wait(None).unwrap();
            }
            thread.join().unwrap();
            doorbell.announce_park(Park::Deep);
            doorbell.ring_if_deep();
            let mut none = Vec::new();
            driver.reap(&mut none).unwrap();
            driver.wait(None).unwrap();
        }
        doorbell.announce_awake();
        driver.wait(Some(Duration::ZERO)).unwrap(); // Takes what an earlier ring may have left.
        let start = Instant::now();
        driver.wait(Some(Duration::from_millis(30))).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(25), "{:?}", start.elapsed());
    });
}

/// A failed operation says why, and hands its buffer back: here a write to a file that is open for reading.
#[test]
fn a_failed_write_hands_its_buffer_back() {
    let dir = temp_dir();
    on_each_disk(dir.path(), |disk| {
        disk.open("a", OpenMode::Create).unwrap();
        let file = disk.open("a", OpenMode::Read).unwrap();
        let mut driver = disk.driver().unwrap();
        for durability in [Durability::Written, Durability::Durable] {
            driver.submit(1, write(&file, 0, filled(1, 1), durability));
            let done = finish(&mut *driver).pop().unwrap();
            assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EBADF));
            assert!(done.buf.is_some());
        }
    });
}

/// Directories and names: made, listed in order, renamed, removed, synced; errors have their kinds.
#[test]
fn directories_and_names() {
    let dir = temp_dir();
    on_each_disk(dir.path(), |disk| {
        assert_eq!(disk.create_dir("").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.open("d/b", OpenMode::Create).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.create_dir("d").unwrap();
        assert_eq!(disk.create_dir("d").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.open("d/b", OpenMode::Create).unwrap();
        assert_eq!(disk.open("d/b", OpenMode::Create).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.create_dir("d/a").unwrap();
        let names = |path| disk.list(path).unwrap().into_iter().map(|e| (e.name, e.is_dir)).collect::<Vec<_>>();
        assert_eq!(names("d"), [("a".to_owned(), true), ("b".to_owned(), false)]);
        assert_eq!(names(""), [("d".to_owned(), true)]);
        disk.rename("d/b", "c").unwrap();
        disk.sync_dir("d").unwrap();
        disk.sync_dir("").unwrap();
        assert_eq!(disk.open("d/b", OpenMode::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.open("c", OpenMode::Write).unwrap();
        disk.unlink("c").unwrap();
        assert_eq!(names("d"), [("a".to_owned(), true)]);
        disk.rename("d", "gone").unwrap();
        assert_eq!(names(""), [("gone".to_owned(), true)]);
    });
}

/// No path leaves the base directory.
#[test]
fn a_path_upwards_is_refused() {
    let dir = temp_dir();
    on_each_disk(dir.path(), |disk| {
        for path in ["../x", "a/../../x", "/etc/passwd"] {
            assert_eq!(disk.open(path, OpenMode::Read).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert!(disk.create_dir(path).is_err() && disk.rename(path, "x").is_err() && disk.unlink(path).is_err());
        }
    });
}

/// Sizes: space ahead raises the size, never lowers it; a cut is a cut; a read ends with the file.
#[test]
fn sizes_and_space() {
    let dir = temp_dir();
    on_each_disk(dir.path(), |disk| {
        let file = disk.open("a", OpenMode::Create).unwrap();
        file.allocate(0).unwrap();
        file.allocate(10 * 4096).unwrap();
        file.allocate(4096).unwrap();
        assert_eq!(file.size().unwrap(), 10 * 4096);
        file.write_at(&filled(2, 7), 4096).unwrap();
        file.set_size(5000).unwrap();
        file.flush().unwrap();
        let mut buf = filled(2, 9);
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 5000);
        assert!(buf[..4096].iter().all(|&b| b == 0) && buf[4096..5000].iter().all(|&b| b == 7));
        assert_eq!(file.read_at(&mut buf, 8 * 4096).unwrap(), 0);
        let huge = file.allocate(1 << 62).unwrap_err();
        assert!(matches!(huge.raw_os_error(), Some(libc::ENOSPC | libc::EFBIG)), "{huge}");
    });
}

/// Everything works on a memory file system too, direct or not, and files are for the owner alone.
#[test]
fn memory_file_systems_work() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    on_each_disk(dir.path(), |disk| {
        let file = disk.open("a", OpenMode::Create).unwrap();
        let mut driver = disk.driver().unwrap();
        driver.submit(1, write(&file, 0, filled(1, 3), Durability::Durable));
        driver.submit(2, Operation::Flush { file: file.clone() });
        assert!(finish(&mut *driver).iter().all(|c| c.result.is_ok()));
        let mut buf = AlignedBuf::new(BLOCK_SIZE);
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), BLOCK_SIZE);
        assert_eq!(buf[17], 3);
    });
}

/// New files and directories are for the owner alone, whatever the umask; the lock file can be opened again.
#[test]
fn modes_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp_dir();
    let base = dir.path().join("base");
    let disk = PosixDisk::open(&base, None).unwrap();
    disk.create_dir("d").unwrap();
    disk.open("d/f", OpenMode::Create).unwrap();
    disk.lock_file().unwrap();
    disk.lock_file().unwrap();
    for (path, mode) in [("", 0o700), ("d", 0o700), ("d/f", 0o600), (super::LOCK_FILE, 0o600)] {
        let found = std::fs::metadata(base.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
}

/// A handle is the descriptor of the open file.
#[test]
fn a_handle_is_a_descriptor() {
    let dir = temp_dir();
    on_each_disk(dir.path(), |disk| {
        let file = disk.open("a", OpenMode::Create).unwrap();
        assert!(matches!(file.handle(), Ok(FileHandle::Open(file)) if std::os::fd::AsRawFd::as_raw_fd(&*file) > 2));
    });
}

/// Where the file system tells its extents, they begin at whole blocks within what was asked for.
#[test]
fn seams_lie_within_the_range() {
    let dir = temp_dir();
    on_each_disk(dir.path(), |disk| {
        let file = disk.open("a", OpenMode::Create).unwrap();
        file.allocate(1 << 20).unwrap();
        // A written block in the middle of allocated ones makes three extents, where there are any.
        file.write_at(&AlignedBuf::new(BLOCK_SIZE)[..BLOCK_SIZE], 512 << 10).unwrap();
        file.flush().unwrap();
        let seams = file.seams(0..1 << 20);
        let block = BLOCK_SIZE as u64;
        assert!(seams.is_empty() || seams == [512 << 10, (512 << 10) + block], "{seams:?}");
        assert!(file.seams(600 << 10..1 << 20).is_empty());
        disk.unlink("a").unwrap();
    });
}

/// What somebody has put where a file belongs is an error: a pipe nobody writes to is not waited for, and a directory, of which
/// there is no direct read, takes direct I/O from no file.
#[test]
fn what_is_no_file_is_an_error_and_changes_nothing() {
    let base = temp_dir();
    on_each_disk(base.path(), |disk| {
        let direct = disk.facts().direct;
        for entry in std::fs::read_dir(base.path()).unwrap() {
            let dir = entry.unwrap().path();
            let made = std::process::Command::new("mkfifo").arg(dir.join("pipe")).output().unwrap();
            assert!(made.status.success() || dir.join("pipe").exists());
            let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket"));
            let _there_already = std::fs::create_dir(dir.join("directory"));
            let _link = std::os::unix::fs::symlink("/dev/zero", dir.join("link"));
        }
        for name in ["pipe", "socket", "directory", "link"] {
            for mode in [OpenMode::Read, OpenMode::Write, OpenMode::Create] {
                assert!(disk.open(name, mode).is_err(), "{name}");
                assert!(disk.open_segment(name, mode).is_err(), "{name}");
            }
        }
        let _file = disk.open("a", OpenMode::Create).unwrap();
        let file = disk.open("a", OpenMode::Read).unwrap();
        let FileHandle::Open(handle) = file.handle().unwrap() else { panic!("a real file") };
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd())).unwrap();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let flags = i32::from_str_radix(flags, 8).unwrap();
        assert_eq!((flags & libc::O_DIRECT != 0, flags & libc::O_NONBLOCK), (direct, 0));
        assert_eq!(disk.facts().direct, direct);
    });
}
