//! What the tests of this crate share: places on disk, payloads, child processes, errors as text.
//!
//! A child process is one test of the same binary, marked `#[ignore]`, that does nothing unless it is told a directory.

#![allow(dead_code, reason = "each test file uses its part")]

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) mod varied;

use redex::{Backend, Redex, RedexFile, RedexFileConfig};

/// Tells a child process its directory.
const CHILD_DIR: &str = "REDEX_TEST_CHILD_DIR";

/// Marks the lines of a child that are meant for its parent: the test framework writes to the same pipe.
const MARK: &str = "@@";

/// A directory on the disk that the build is on, gone at the end. The owner's alone, as a store's should be: one that others
/// have access to is warned of.
pub(crate) fn scratch() -> tempfile::TempDir {
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Bytes of the event `i`: of lengths that lie inline, in a block, and over several.
pub(crate) fn payload(i: u64) -> Vec<u8> {
    let len = [0, 3, 8, 9, 100, 256, 5000, 12_000][(i % 8) as usize];
    (0..len).map(|at| (i as usize * 31 + at * 7) as u8).collect()
}

/// A persistent channel.
pub(crate) fn persistent() -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(true)
}

/// A store with one shard and small journal segments.
pub(crate) fn open(dir: &Path, backend: Backend) -> Redex {
    try_open(dir, backend).unwrap()
}

/// As [`open`], with the error.
pub(crate) fn try_open(dir: &Path, backend: Backend) -> Result<Redex, redex::OpenError> {
    Redex::builder().persistent_dir(dir).backend(backend).shards(1).journal_segment_bytes(1 << 20).build()
}

/// Appends the payloads of these events, durable.
pub(crate) fn fill(file: &RedexFile, events: std::ops::Range<u64>) {
    let batch: Vec<_> = events.clone().map(payload).collect();
    assert_eq!(file.append_batch_durable(&batch).wait().unwrap(), events);
}

/// Checks that a channel has these events and no others.
pub(crate) fn check(file: &RedexFile, events: std::ops::Range<u64>) {
    assert_eq!(file.head_seq()..file.next_seq(), events);
    let mut next = events.start;
    for event in file.read_from(events.start).blocking() {
        let event = event.unwrap();
        assert_eq!(event.seq, next);
        assert_eq!(event.payload, payload(next), "event {next}");
        next += 1;
    }
    assert_eq!(next, events.end);
}

/// Looks until it is so; fails after half a minute.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < until, "{what} has not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An error with all its causes.
pub(crate) fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += ": ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

/// Files below `dir` whose names end so, sorted.
pub(crate) fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_str().unwrap().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Copies a store as it lies on disk.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Says that something is not tested here; with `REDEX_CI_NO_SKIP=1` that is an error.
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
    assert!(std::env::var_os("REDEX_CI_NO_SKIP").is_none_or(|value| value != "1"), "nothing may be skipped: {why}");
}

/// Whether io_uring can be used here; if not, what needs it is skipped.
pub(crate) fn uring_allowed() -> bool {
    let dir = scratch();
    let Err(error) = try_open(dir.path(), Backend::Uring) else { return true };
    skip(&format!("io_uring cannot be used: {}", text(&error)));
    false
}

/// Whether permissions do not stop this process, and it may mount.
pub(crate) fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

/// Whether this process is root's; if not, what needs that is skipped.
pub(crate) fn root_or_skip() -> bool {
    if !is_root() {
        skip("only root makes devices, and files of other users");
    }
    is_root()
}

/// Flips one bit of the byte at `offset`.
pub(crate) fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// A child process; killed when dropped.
pub(crate) struct ChildTest {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl ChildTest {
    /// Runs the ignored test `name` of this binary on a directory.
    pub(crate) fn spawn(name: &str, dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the child tells next; `None` at its end.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // A killed child may leave half a line.
            if let (Some((_, told)), true) = (line.split_once(MARK), line.ends_with('\n')) {
                return Some(told.trim_end().to_owned());
            }
        }
    }

    /// Kills it by SIGKILL; it stays a zombie, as with a parent that is busy.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Waits for its end, and says whether the test passed.
    pub(crate) fn passed(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for ChildTest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory of a child process; `None` in a run that is none.
pub(crate) fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// Tells the parent a line.
pub(crate) fn tell(line: impl std::fmt::Display) {
    println!("{MARK}{line}");
}
