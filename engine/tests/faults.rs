//! What the system does to a store: forbids io_uring, has no direct I/O, kills, is slow, is full.
//!
//! Unsafe code: a seccomp filter can only be set by `prctl`.
#![allow(unsafe_code)]

mod support;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use redex::{AppendError, Backend, FsyncPolicy, OpenError, Redex, RedexFile};

use support::{
    ChildTest, check, child_dir, fill, open, payload, persistent, scratch, tell, text, try_open, uring_allowed,
    wait_until,
};

/// Refuses `io_uring_setup` with EPERM to this thread and those that it starts, as the seccomp profiles of containers do.
fn forbid_io_uring() {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, 0, std::mem::offset_of!(libc::seccomp_data, nr) as u32),
        step(JUMP_IF_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: `program` and the steps that it points at live until the call returns; the kernel copies them.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
}

/// Counts warnings.
struct Warnings;

static WARNINGS: AtomicUsize = AtomicUsize::new(0);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        eprintln!("{event:?}");
        WARNINGS.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Bulk by extent, small events, reading, a tail, close and reopen.
fn work(dir: &Path) {
    for round in 0..2 {
        let redex = open(dir, Backend::Auto);
        let file = redex.open_file("small", persistent()).unwrap();
        let bulk = redex.open_file("bulk", persistent().with_fsync_policy(FsyncPolicy::EveryN(3))).unwrap();
        let mut tail = file.subscribe_tail().wait().unwrap().durable_only();
        check(&file, 0..round * 100);
        fill(&file, round * 100..round * 100 + 100);
        for i in 0..5 {
            assert_eq!(bulk.append(vec![i; 600_000]).wait().unwrap(), round * 5 + u64::from(i));
        }
        for seq in round * 100..round * 100 + 100 {
            assert_eq!(tail.next_wait().unwrap().payload, payload(seq));
        }
        for (i, event) in bulk.read_from(0).blocking().enumerate() {
            assert_eq!(event.unwrap().payload, vec![(i % 5) as u8; 600_000]);
        }
        redex.close().wait().unwrap();
    }
}

/// The store's work under the filter; then a backend that is told to use io_uring.
#[test]
#[ignore = "a child process of another test"]
fn child_without_io_uring() {
    let Some(dir) = child_dir() else { return };
    tracing::subscriber::set_global_default(Warnings).unwrap();
    forbid_io_uring();
    let redex = open(&dir, Backend::Auto);
    assert_eq!(WARNINGS.load(Ordering::Relaxed), 1);
    let file = redex.open_file("first", persistent()).unwrap();
    fill(&file, 0..1);
    assert_eq!(redex.stats().io.backend, "posix");
    redex.close().wait().unwrap();
    assert_eq!(WARNINGS.load(Ordering::Relaxed), 1);
    work(&dir);
    let error = try_open(&dir, Backend::Uring).unwrap_err();
    let OpenError::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.raw_os_error(), Some(libc::EPERM), "{}", text(&error));
    tell("done");
}

/// A child under a seccomp filter works by plain calls, with one warning; here the same store is read by io_uring.
#[test]
fn plain_calls_take_over_where_io_uring_is_forbidden() {
    let dir = scratch();
    let mut child = ChildTest::spawn("child_without_io_uring", dir.path());
    assert_eq!(child.hear().as_deref(), Some("done"));
    assert!(child.passed());
    let allowed = uring_allowed();
    let redex = open(dir.path(), Backend::Auto);
    assert_eq!(redex.stats().io.backend, if allowed { "uring" } else { "posix" });
    check(&redex.open_file("small", persistent()).unwrap(), 0..200);
}

/// Every backend that there may be.
fn real_backends() -> Vec<Backend> {
    if uring_allowed() { vec![Backend::Uring, Backend::Posix] } else { vec![Backend::Posix] }
}

/// A mounted file system; unmounted when dropped.
struct Mounted {
    point: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    /// `None`, told on stderr, where nothing can be mounted.
    fn new(dir: tempfile::TempDir, arguments: &[&str]) -> Option<Self> {
        let point = dir.path().join("mounted");
        fs::create_dir_all(&point).unwrap();
        if !run(Command::new("mount").args(arguments).arg(&point)) {
            eprintln!("SKIPPED: cannot mount {arguments:?}");
            return None;
        }
        Some(Self { point, _dir: dir })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.point));
    }
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// ramfs has no direct I/O at all: both backends do the same work through the page cache.
#[test]
fn file_system_without_direct_io_is_used_all_the_same() {
    let Some(mounted) = Mounted::new(scratch(), &["-t", "ramfs", "ramfs"]) else { return };
    let store = mounted.point.join("store");
    work(&store);
    for backend in real_backends() {
        let redex = open(&store, backend);
        let facts = redex.stats().io;
        assert_eq!((facts.file_system.as_str(), facts.direct), ("ramfs", false));
        assert!(!facts.buffered_reason.is_empty());
        check(&redex.open_file("small", persistent()).unwrap(), 0..200);
    }
}

/// tmpfs, with or without direct I/O as the kernel has it.
#[test]
fn memory_file_system_is_used_all_the_same() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: no /dev/shm");
        return;
    };
    work(dir.path());
    check(&open(dir.path(), Backend::Auto).open_file("small", persistent()).unwrap(), 0..200);
}

/// Appends durably, many in flight, small and by extent, and tells what was acknowledged, until it is killed.
#[test]
#[ignore = "a child process of another test"]
fn child_appends_until_killed() {
    let Some(dir) = child_dir() else { return };
    append_until_killed(&open(&dir, Backend::Auto));
}

/// The same, each durable write followed by a flush of its own.
#[test]
#[ignore = "a child process of another test"]
fn child_appends_by_write_and_flush_until_killed() {
    let Some(dir) = child_dir() else { return };
    let redex = Redex::builder().persistent_dir(dir).shards(1).journal_segment_bytes(1 << 20).write_then_flush();
    append_until_killed(&redex.build().unwrap());
}

fn append_until_killed(redex: &Redex) {
    let small = redex.open_file("small", persistent()).unwrap();
    let bulk = redex.open_file("bulk", persistent()).unwrap();
    loop {
        let first = small.next_seq();
        let appends: Vec<_> = (first..first + 16).map(|seq| small.append_durable(payload(seq))).collect();
        let mut append = bulk.append_durable(big(bulk.next_seq()));
        // Polled once, so that the shard begins; then the parent may know.
        let _ = std::pin::Pin::new(&mut append).poll(&mut Context::from_waker(Waker::noop()));
        tell("begun");
        let seq = append.wait().unwrap();
        for append in appends {
            append.wait().unwrap();
        }
        tell(format!("{} {}", first + 16, seq + 1));
    }
}

fn big(seq: u64) -> Vec<u8> {
    vec![seq as u8; 400_000]
}

/// Kills the child after some rounds, with the next one so long under way (nothing tells when a write is at the device),
/// and opens at once, without waiting for the child's end; gives how long the open took.
fn kill_and_open(dir: &Path, mut child: ChildTest, rounds: usize, under_way: Duration) -> Duration {
    let mut acknowledged = String::new();
    let mut round = 0;
    while round < rounds {
        let told = child.hear().expect("the child appends");
        if told != "begun" {
            acknowledged = told;
            round += 1;
        }
    }
    child.hear().expect("the next round begins");
    std::thread::sleep(under_way);
    child.kill();
    let killed = Instant::now();
    let redex = open(dir, Backend::Auto);
    let took = killed.elapsed();
    while let Some(told) = child.hear() {
        if told != "begun" {
            acknowledged = told;
        }
    }
    let (small_end, bulk_end) = acknowledged.split_once(' ').unwrap();
    let small = redex.open_file("small", persistent()).unwrap();
    let bulk = redex.open_file("bulk", persistent()).unwrap();
    assert!(small.next_seq() >= small_end.parse().unwrap(), "{} of {small_end} are left", small.next_seq());
    assert!(bulk.next_seq() >= bulk_end.parse().unwrap(), "{} of {bulk_end} are left", bulk.next_seq());
    check(&small, 0..small.next_seq());
    for event in bulk.read_from(0).blocking() {
        let event = event.unwrap();
        assert_eq!(event.payload, big(event.seq));
    }
    redex.close().wait().unwrap();
    took
}

/// Ten kills of one store, each at another moment.
#[test]
fn killed_process_loses_nothing_that_it_acknowledged() {
    let dir = scratch();
    for round in 0..10 {
        let child = ChildTest::spawn("child_appends_until_killed", dir.path());
        kill_and_open(dir.path(), child, 1 + round * 3, Duration::ZERO);
    }
}

/// Kills of a process that makes its writes durable by a flush behind each.
#[test]
fn killed_process_that_flushes_behind_its_writes_loses_nothing_either() {
    let dir = scratch();
    for round in 0..4 {
        let child = ChildTest::spawn("child_appends_by_write_and_flush_until_killed", dir.path());
        kill_and_open(dir.path(), child, 1 + round * 5, Duration::ZERO);
    }
}

/// A group of processes whose writes to one device are held down; removed when dropped.
struct SlowDevice(PathBuf);

impl SlowDevice {
    /// `None`, told on stderr, where the kernel offers no such group. The groups of the second version are tried where the
    /// first one's are not.
    fn new(dir: &Path, bytes_per_second: u64) -> Option<Self> {
        let device = whole_device(dir);
        let first = || {
            let limit = format!("{device} {bytes_per_second}");
            Self::limited("/sys/fs/cgroup/blkio", "blkio.throttle.write_bps_device", &limit)
        };
        let second = |_| {
            let root = Path::new("/sys/fs/cgroup");
            let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
            if !controllers.split_whitespace().any(|controller| controller == "io") {
                return Err(std::io::Error::other(format!("no io among the controllers: {controllers}")));
            }
            fs::write(root.join("cgroup.subtree_control"), "+io")?;
            Self::limited("/sys/fs/cgroup", "io.max", &format!("{device} wbps={bytes_per_second}"))
        };
        let slow = first().or_else(second);
        slow.inspect_err(|error| eprintln!("SKIPPED: no slow device: {error}")).ok()
    }

    fn limited(root: &str, setting: &str, limit: &str) -> std::io::Result<Self> {
        let group = Path::new(root).join(format!("redex-test-{}", std::process::id()));
        fs::create_dir(&group)?;
        let slow = Self(group);
        fs::write(slow.0.join(setting), limit)?;
        Ok(slow)
    }

    fn add(&self, child: &ChildTest) {
        fs::write(self.0.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
}

/// Numbers of the whole device that a directory lies on: partitions cannot be limited.
fn whole_device(dir: &Path) -> String {
    let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(dir).unwrap());
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let partition = PathBuf::from(format!("/sys/dev/block/{number}"));
    match fs::canonicalize(&partition).ok().filter(|path| path.join("partition").exists()) {
        Some(path) => fs::read_to_string(path.parent().unwrap().join("dev")).unwrap().trim().to_owned(),
        None => number,
    }
}

impl Drop for SlowDevice {
    fn drop(&mut self) {
        // A group can go only when its last process is gone.
        let until = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The device takes about two bulk events a second: the kill finds one under way, and the open waits for its landing.
#[test]
fn open_waits_until_the_writes_of_a_killed_process_have_landed() {
    let dir = scratch();
    let Some(slow) = SlowDevice::new(dir.path(), 1 << 20) else { return };
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        let mut child = ChildTest::spawn("child_appends_until_killed", dir.path());
        while child.hear().expect("the child appends") == "begun" {}
        slow.add(&child);
        let took = kill_and_open(dir.path(), child, 2, Duration::from_millis(50));
        longest = longest.max(took);
    }
    assert!(longest > Duration::from_millis(150), "no open found a write under way: the longest took {longest:?}");
    assert!(longest < Duration::from_secs(20), "{longest:?}");
}

/// A file system of 96 MiB, with a file to delete for room.
fn small_file_system() -> Option<(Mounted, PathBuf)> {
    let dir = scratch();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
    if !run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image)) {
        eprintln!("SKIPPED: no mkfs.ext4");
        return None;
    }
    let mounted = Mounted::new(dir, &["-o", "loop", image.to_str().unwrap()])?;
    let ballast = mounted.point.join("ballast");
    fs::write(&ballast, vec![1; 24 << 20]).unwrap();
    Some((mounted, ballast))
}

/// Appends durably until the disk is full; gives the end of what was acknowledged.
///
/// The append that meets the end of the disk was published before that was known: it is not refused, it waits for room.
/// (A dropped future cancels nothing.) Those that follow are refused.
fn fill_the_disk(file: &RedexFile) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let seq = file.next_seq();
        let mut append = pin!(file.append_durable(filler(seq)));
        let until = Instant::now() + Duration::from_secs(2);
        let result = loop {
            match append.as_mut().poll(&mut cx) {
                Poll::Ready(result) => break result,
                Poll::Pending if Instant::now() < until => std::thread::sleep(Duration::from_micros(200)),
                Poll::Pending => {
                    wait_until("refusal", || is_refused(file));
                    return seq;
                }
            }
        };
        match result {
            Ok(appended) => assert_eq!(appended, seq),
            Err(AppendError::NoSpace { channel }) => {
                assert_eq!(&channel, file.name());
                return seq;
            }
            Err(error) => panic!("event {seq}: {}", text(&error)),
        }
    }
}

/// Tries one more event. While the end of the disk is looked for again one may get in: then it waits with the others.
fn is_refused(file: &RedexFile) -> bool {
    match file.try_append(filler(file.next_seq())) {
        Ok(_) => false,
        Err(AppendError::NoSpace { .. }) => true,
        // Held back, since what was appended before waits: why is not known yet.
        Err(AppendError::Full { .. }) => false,
        Err(error) => panic!("{}", text(&error)),
    }
}

fn filler(seq: u64) -> Vec<u8> {
    // Small and bulk in turn, so that journal, extents and destaging all meet the end of the disk.
    let len = [3000, 20_000, 300_000][(seq % 3) as usize];
    (0..len).map(|at| (seq as usize * 7 + at) as u8).collect()
}

/// Everything is there that was acknowledged below `end`, and all that is there is as it was appended.
fn check_filler(file: &RedexFile, end: u64) {
    assert!(file.next_seq() >= end, "{} of {end} events are left", file.next_seq());
    for event in file.read_from(0).blocking() {
        let event = event.unwrap();
        assert!(event.payload == filler(event.seq), "event {}", event.seq);
    }
}

/// Fills a small ext4, reads on the full disk, makes room, appends, and reopens.
#[test]
fn full_disk_refuses_appends_until_there_is_room() {
    for backend in real_backends() {
        let Some((mounted, ballast)) = small_file_system() else { return };
        let store = mounted.point.join("store");
        let redex = open(&store, backend);
        let file = redex.open_file("a", persistent()).unwrap();
        let end = fill_the_disk(&file);
        assert!(end > 30, "{end} events fit");
        assert!(file.durable() >= end);
        check_filler(&file, end);
        fs::remove_file(&ballast).unwrap();
        wait_until("room", || !is_refused(&file));
        file.sync().wait().unwrap();
        let seq = file.next_seq();
        assert_eq!(file.append_durable(filler(seq)).wait().unwrap(), seq);
        check_filler(&file, seq + 1);
        let all = file.next_seq();
        redex.close().wait().unwrap();
        drop(redex);
        let redex = open(&store, backend);
        check_filler(&redex.open_file("a", persistent()).unwrap(), all);
        redex.close().wait().unwrap();
    }
}

/// The disk is full before there is a store: the error names what could not be made, and with room the store opens.
#[test]
fn first_open_on_a_full_disk_is_refused_until_there_is_room() {
    for backend in real_backends() {
        let Some((mounted, ballast)) = small_file_system() else { return };
        let store = mounted.point.join("store");
        let mut filler = fs::File::create(mounted.point.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![1; size];
            while std::io::Write::write_all(&mut filler, &bytes).and_then(|()| filler.sync_data()).is_ok() {}
        }
        // What the directories need may be there, what the journal needs is not.
        for attempt in 0..2 {
            let error = try_open(&store, backend).unwrap_err();
            let OpenError::Io { path, source, .. } = &error else { panic!("{}", text(&error)) };
            assert!(path.starts_with(&store), "attempt {attempt}: {}", text(&error));
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "attempt {attempt}: {}", text(&error));
            assert!(text(&error).contains(store.to_str().unwrap()), "{}", text(&error));
        }
        fs::remove_file(&ballast).unwrap();
        let redex = open(&store, backend);
        fill(&redex.open_file("a", persistent()).unwrap(), 0..20);
        redex.close().wait().unwrap();
        check(&open(&store, backend).open_file("a", persistent()).unwrap(), 0..20);
    }
}

/// Fills the disk, tells how far it came, and waits to be killed.
#[test]
#[ignore = "a child process of another test"]
fn child_fills_the_disk() {
    let Some(dir) = child_dir() else { return };
    let redex = Redex::builder().persistent_dir(&dir).shards(1).journal_segment_bytes(1 << 20).build().unwrap();
    let file = redex.open_file("a", persistent()).unwrap();
    tell(fill_the_disk(&file));
    loop {
        std::thread::park();
    }
}

/// A process is killed on a full disk: the next one opens, or says that there is no room; with room it opens in any case,
/// and has what was acknowledged.
#[test]
fn killed_on_a_full_disk_loses_nothing_that_it_acknowledged() {
    let Some((mounted, ballast)) = small_file_system() else { return };
    let store = mounted.point.join("store");
    let mut child = ChildTest::spawn("child_fills_the_disk", &store);
    let end: u64 = child.hear().expect("the disk is filled").parse().unwrap();
    child.kill();
    match try_open(&store, Backend::Auto) {
        Ok(redex) => check_filler(&redex.open_file("a", persistent()).unwrap(), end),
        Err(OpenError::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::StorageFull),
        Err(error) => panic!("{}", text(&error)),
    }
    fs::remove_file(&ballast).unwrap();
    let redex = open(&store, Backend::Auto);
    let file = redex.open_file("a", persistent()).unwrap();
    check_filler(&file, end);
    let seq = file.next_seq();
    assert_eq!(file.append_durable(filler(seq)).wait().unwrap(), seq);
    redex.close().wait().unwrap();
}

/// Closes a store on a full disk while an append waits for room: the close flushes, so it waits too, and ends when there is
/// room.
#[test]
fn closing_on_a_full_disk_ends_when_there_is_room() {
    let Some((mounted, ballast)) = small_file_system() else { return };
    let store = mounted.point.join("store");
    let redex = open(&store, Backend::Auto);
    let file = redex.open_file("a", persistent()).unwrap();
    let end = fill_the_disk(&file);
    let close = redex.close();
    fs::remove_file(&ballast).unwrap();
    close.wait().unwrap();
    assert_eq!(file.durable(), file.next_seq());
    let redex = open(&store, Backend::Auto);
    check_filler(&redex.open_file("a", persistent()).unwrap(), end.max(file.next_seq()));
}

/// Drops a store on a full disk while an append waits for room that nobody makes: it ends, the append is told, and what was
/// acknowledged is there when there is room.
#[test]
fn dropping_a_store_on_a_full_disk_ends() {
    let Some((mounted, ballast)) = small_file_system() else { return };
    let store = mounted.point.join("store");
    let redex = open(&store, Backend::Auto);
    let file = redex.open_file("a", persistent()).unwrap();
    let end = fill_the_disk(&file);
    let begun = Instant::now();
    let dropping = std::thread::spawn(move || drop(redex));
    wait_until("the end of the store", || dropping.is_finished());
    dropping.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(file.sync().wait().is_err() || file.durable() == file.next_seq());
    drop(file);
    fs::remove_file(&ballast).unwrap();
    let redex = open(&store, Backend::Auto);
    check_filler(&redex.open_file("a", persistent()).unwrap(), end);
    redex.close().wait().unwrap();
}
