//! One process writes (design D13): a lock on the file LOCK, which also tells who has it.
//!
//! The shards' rings hold the file too; so the lock outlives a killed process, or a ring that was given up, until its last
//! write has landed, and an open that finds a dead holder waits for that. For the same reason nothing here unlocks: the
//! lock goes when the last who has the file open closes it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::error::OpenError;

/// How long an open waits for the writes of a dead holder.
const DEAD_HOLDER_WAIT: Duration = Duration::from_secs(30);
/// How long it waits for one that seems alive: a process that is being killed does for a moment, and one between fork and
/// exec holds what its parent has let go.
const LIVING_HOLDER_WAIT: Duration = Duration::from_millis(20);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A held lock. Let go when dropped: it is free then, unless a ring still has writes in flight.
#[derive(Debug)]
pub struct StoreLock {
    file: Arc<File>,
}

/// Who wrote LOCK.
#[derive(Debug, Default, PartialEq, Eq)]
struct Holder {
    pid: Option<i32>,
    text: String,
}

impl StoreLock {
    /// Takes the lock of the store in `base`, waiting for a holder that is dead.
    pub fn take(base: &Path, file: File) -> Result<Self, OpenError> {
        let file = Arc::new(file);
        let begun = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(source)) => {
                    return Err(OpenError::Io { what: "lock", path: base.join("LOCK"), source });
                }
            }
            let holder = read_holder(&file);
            let alive = holder.pid.is_none_or(is_alive);
            if begun.elapsed() >= if alive { LIVING_HOLDER_WAIT } else { DEAD_HOLDER_WAIT } {
                return Err(OpenError::InUse { path: base.to_owned(), holder: holder.text });
            }
            if !alive && !std::mem::replace(&mut told, true) {
                tracing::info!(store = %base.display(), holder = holder.text, "waits for the last writes of a dead process");
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        write_holder(&file).map_err(|source| OpenError::Io { what: "write", path: base.join("LOCK"), source })?;
        Ok(Self { file })
    }

    /// The locked file, for the rings to hold. Who keeps it otherwise keeps the lock.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }
}

fn read_holder(file: &File) -> Holder {
    let mut text = String::new();
    let mut file = file;
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(4096).read_to_string(&mut text));
    if read.is_err() || text.is_empty() {
        return Holder { pid: None, text: "an unknown process".to_owned() };
    }
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // Another host's process cannot be looked up here.
    let here = field("host:") == Some(&host());
    let pid = field("pid:").and_then(|pid| pid.parse().ok()).filter(|_| here);
    Holder { pid, text: text.trim_end().replace('\n', ", ") }
}

fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH) && !is_ending(pid) && !is_being_killed(pid)
}

/// A process that ends (PF_EXITING), or has ended and its parent has not asked about it yet.
fn is_ending(pid: i32) -> bool {
    const EXITING: u64 = 4;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some(rest) = stat.rsplit(')').next() else { return false };
    let flags: u64 = rest.split_whitespace().nth(6).and_then(|flags| flags.parse().ok()).unwrap_or(0);
    rest.trim_start().starts_with(['Z', 'X']) || flags & EXITING != 0
}

/// SIGKILL was sent and is still to arrive.
fn is_being_killed(pid: i32) -> bool {
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    pending.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask & KILL != 0)
}

fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn write_holder(file: &File) -> io::Result<()> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let text = format!("pid: {}\nhost: {}\nsince: {since} (seconds since 1970)\n", std::process::id(), host());
    file.set_len(0)?;
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;
    use crate::io::posix::tests::temp_dir;

    fn open(base: &Path) -> File {
        File::options().read(true).write(true).create(true).truncate(false).open(base.join("LOCK")).unwrap()
    }

    #[test]
    fn a_lock_that_is_let_go_can_be_taken_at_once() {
        let base = temp_dir();
        let lock = StoreLock::take(base.path(), open(base.path())).unwrap();
        let error = StoreLock::take(base.path(), open(base.path())).unwrap_err();
        let OpenError::InUse { holder, .. } = error else { panic!("{error}") };
        assert!(holder.contains(&format!("pid: {}", std::process::id())), "{holder}");
        drop(lock);
        assert!(open(base.path()).try_lock().is_ok());
    }

    #[test]
    fn the_lock_stays_as_long_as_a_ring_has_the_file() {
        let base = temp_dir();
        let lock = StoreLock::take(base.path(), open(base.path())).unwrap();
        // As a ring's table does: another descriptor of the same open file.
        let ring = lock.file().try_clone().unwrap();
        drop(lock);
        assert!(open(base.path()).try_lock().is_err(), "a write may still land");
        drop(ring);
        assert!(open(base.path()).try_lock().is_ok());
    }
}
