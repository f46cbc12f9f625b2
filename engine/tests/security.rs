//! What other users of the machine may have put into a store's directory, and what a store leaves open to them.
//!
//! Links, pipes, devices and directories are planted in the place of each file and directory of a store. Each is refused with
//! an error that names it, nothing waits for it, and what it leads to stays as it was. `SECURITY.md` has the threat model.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use redex::{Backend, Redex, RedexBuilder, RedexFile, RedexFileConfig};

use support::{
    check, child_dir, copy_dir, files, fill, payload, persistent, root_or_skip, scratch, text, uring_allowed,
};

/// Events of the channel of a [`store`]: several segments, and a tail.
const EVENTS: u64 = 400;

/// Longer than any of these tests takes for one step.
const STUCK: Duration = Duration::from_secs(60);

fn builder(base: &Path, backend: Backend) -> RedexBuilder {
    Redex::builder().persistent_dir(base).backend(backend).shards(1).journal_segment_bytes(256 << 10)
}

fn config() -> RedexFileConfig {
    persistent().with_segment_bytes(256 << 10)
}

/// A closed store with one channel, in `dir`.
fn store(dir: &Path) -> PathBuf {
    let base = dir.join("store");
    let redex = builder(&base, Backend::Posix).build().unwrap();
    fill(&redex.open_file("a", config()).unwrap(), 0..EVENTS);
    redex.close().wait().unwrap();
    base
}

/// The backends that there are here.
fn backends() -> Vec<Backend> {
    let mut backends = vec![Backend::Posix];
    backends.extend(uring_allowed().then_some(Backend::Uring));
    backends
}

/// Does something that should not wait for anybody.
fn in_time<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || _ = sender.send(act()));
    receiver.recv_timeout(STUCK).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// All that goes wrong when a store is opened, its channel read from one end to the other, appended to, and closed.
fn use_store(base: &Path, backend: Backend) -> Vec<String> {
    let base = base.to_owned();
    in_time("the store", move || {
        let mut wrong = Vec::new();
        match builder(&base, backend).build() {
            Ok(redex) => {
                match redex.open_file("a", config()) {
                    Ok(file) => {
                        wrong.extend(read_all(&file));
                        wrong.extend(file.append_durable(b"more").wait().err().map(|error| text(&error)));
                    }
                    Err(error) => wrong.push(text(&error)),
                }
                wrong.extend(redex.close().wait().err().map(|error| text(&error)));
            }
            Err(error) => wrong.push(text(&error)),
        }
        wrong
    })
}

/// The same of a reader beside a writer.
fn read_store(base: &Path) -> Vec<String> {
    let base = base.to_owned();
    in_time("the reader", move || {
        let redex = match Redex::open_read_only(&base) {
            Ok(redex) => redex,
            Err(error) => return vec![text(&error)],
        };
        match redex.open_file("a") {
            Ok(file) => {
                let events = file.read_from(0).blocking();
                events.filter_map(|event| event.err().map(|error| text(&error))).collect()
            }
            Err(error) => vec![text(&error)],
        }
    })
}

fn read_all(file: &RedexFile) -> Vec<String> {
    file.read_from(0).blocking().filter_map(|event| event.err().map(|error| text(&error))).collect()
}

/// A file of each kind that a store has, by a word for it, relative to the base.
fn kinds(base: &Path) -> Vec<(&'static str, PathBuf)> {
    let some = |dir: &str, suffix: &str| {
        let found = files(&base.join(dir), suffix).into_iter().next().unwrap_or_else(|| panic!("a {suffix} in {dir}"));
        found.strip_prefix(base).unwrap().to_owned()
    };
    let journal =
        files(&base.join("journal/000"), ".wal").into_iter().find(|path| !path.to_string_lossy().contains("spare"));
    vec![
        ("STORE", "STORE".into()),
        ("LOCK", "LOCK".into()),
        ("journal segment", journal.unwrap().strip_prefix(base).unwrap().to_owned()),
        ("spare", some("journal/000/spare", ".wal")),
        ("checkpoint file", some("checkpoint/000", ".ckp")),
        ("META", some("channels", "META")),
        ("idx", some("channels", ".idx")),
        ("dat", some("channels", ".dat")),
    ]
}

/// What is put into the place of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Planted {
    SymbolicLink,
    DanglingLink,
    HardLink,
    Pipe,
    Socket,
    Directory,
    Device,
}

impl Planted {
    const ALL: [Self; 7] = [
        Self::SymbolicLink,
        Self::DanglingLink,
        Self::HardLink,
        Self::Pipe,
        Self::Socket,
        Self::Directory,
        Self::Device,
    ];

    /// What the error calls it.
    fn word(self) -> &'static str {
        match self {
            Self::SymbolicLink | Self::DanglingLink => "is a symbolic link",
            Self::HardLink => "names (hard links)",
            Self::Pipe => "is a named pipe",
            Self::Socket => "is a socket",
            Self::Directory => "is a directory",
            Self::Device => "is a device",
        }
    }

    /// Puts it there; `outside` is where links lead to.
    fn plant(self, path: &Path, outside: &Path) {
        match self {
            Self::SymbolicLink => {
                fs::rename(path, outside).unwrap();
                symlink(outside, path).unwrap();
            }
            Self::HardLink => fs::hard_link(path, outside).unwrap(),
            _ => {
                fs::remove_file(path).unwrap();
                self.plant_new(path, outside);
            }
        }
    }

    /// Puts it where nothing is; hard links are of a new file outside.
    fn plant_new(self, path: &Path, outside: &Path) {
        match self {
            Self::SymbolicLink | Self::HardLink => {
                fs::write(outside, b"somebody else's").unwrap();
                if self == Self::HardLink { fs::hard_link(outside, path) } else { symlink(outside, path) }.unwrap();
            }
            Self::DanglingLink => symlink(outside, path).unwrap(),
            Self::Pipe => run("mkfifo", &[path.to_str().unwrap()]),
            Self::Socket => bind(path),
            Self::Directory => fs::create_dir(path).unwrap(),
            Self::Device => run("mknod", &[path.to_str().unwrap(), "c", "1", "3"]),
        }
    }
}

/// Makes a socket; a path to one may have some hundred bytes only, which that of its directory's descriptor has not.
fn bind(path: &Path) {
    let dir = fs::File::open(path.parent().unwrap()).unwrap();
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
    drop(UnixListener::bind(short.join(path.file_name().unwrap())).unwrap());
}

fn run(program: &str, args: &[&str]) {
    assert!(Command::new(program).args(args).status().unwrap().success(), "{program} {args:?}");
}

/// Everything about what lies outside that could have been changed.
fn state_of(outside: &Path) -> Option<(Vec<u8>, u32, i64, i64)> {
    let facts = fs::metadata(outside).ok()?;
    Some((fs::read(outside).unwrap(), facts.mode(), facts.mtime(), facts.mtime_nsec()))
}

/// Plants each thing in the place of each kind of file of a closed store, then uses and reads the store.
#[test]
fn what_is_no_plain_file_is_refused_wherever_it_lies() {
    let dir = scratch();
    let original = store(dir.path());
    let (backends, is_root) = (backends(), root_or_skip());
    for (kind, path) in kinds(&original) {
        for planted in Planted::ALL {
            if planted == Planted::Device && !is_root {
                continue;
            }
            let case = format!("{planted:?} as {kind}");
            let (base, outside) = (dir.path().join("case"), dir.path().join("outside"));
            copy_dir(&original, &base);
            planted.plant(&base.join(&path), &outside);
            let before = state_of(&outside);
            let refusal =
                format!("{} {}", path.display(), if planted == Planted::HardLink { "has" } else { planted.word() });
            // Readers take no lock, and nothing that is ready to be used.
            let read = read_store(&base);
            if ["LOCK", "spare"].contains(&kind) {
                assert_eq!(read, [""; 0], "{case}, reader");
            } else {
                assert!(read.iter().any(|error| error.contains(&refusal)), "{case}, reader: {read:#?}");
            }
            for backend in &backends {
                let used = use_store(&base, *backend);
                if kind == "spare" {
                    assert_eq!(used, [""; 0], "{case}: left alone");
                } else {
                    assert!(used.iter().any(|error| error.contains(&refusal)), "{case}: {used:#?}");
                    assert!(used.iter().any(|error| error.contains(planted.word())), "{case}: {used:#?}");
                }
            }
            assert!(before == state_of(&outside), "{case}: what lies outside was changed");
            assert!(fs::symlink_metadata(base.join(&path)).is_ok(), "{case}: it is left where it is");
            fs::remove_dir_all(&base).unwrap();
            let _ = fs::remove_file(&outside);
        }
    }
}

/// Moves each directory of a closed store outside, and puts a symbolic link in its place.
#[test]
fn a_directory_behind_a_link_is_refused() {
    let dir = scratch();
    let original = store(dir.path());
    let channel = files(&original, "META").remove(0).parent().unwrap().strip_prefix(&original).unwrap().to_owned();
    let fan = channel.parent().unwrap().to_owned();
    let fixed = ["journal", "journal/000", "journal/000/spare", "checkpoint", "checkpoint/000", "channels"];
    for path in fixed.map(PathBuf::from).into_iter().chain([fan, channel]) {
        let (base, outside) = (dir.path().join("case"), dir.path().join("outside"));
        copy_dir(&original, &base);
        fs::rename(base.join(&path), &outside).unwrap();
        symlink(&outside, base.join(&path)).unwrap();
        let before = tree(&outside);
        let refusal = format!("{} is a symbolic link", path.display());
        let read = read_store(&base);
        let is_read = !path.ends_with("spare");
        assert_eq!(read.iter().any(|error| error.contains(&refusal)), is_read, "{}, reader: {read:#?}", path.display());
        for backend in backends() {
            let used = use_store(&base, backend);
            assert!(used.iter().any(|error| error.contains(&refusal)), "{}: {used:#?}", path.display());
        }
        assert!(before == tree(&outside), "{}: what lies outside was changed", path.display());
        fs::remove_dir_all(&base).unwrap();
        fs::remove_dir_all(&outside).unwrap();
    }
}

/// Contents of all files below a directory.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(dir, "").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Puts links in the places of files that a store makes only when it has been open for a while: segments, journal segments.
///
/// Names are taken from a store that did the same before. What was acknowledged is there once the link is gone.
#[test]
fn what_is_planted_under_a_running_store_is_refused() {
    for backend in backends() {
        let model = scratch();
        let base = store(model.path());
        append_much(&base, backend, |_| ());
        let later: Vec<PathBuf> =
            ["idx", "dat", "wal"].into_iter().filter_map(|suffix| newest(&base, suffix)).collect();
        assert_eq!(later.len(), 3);
        for path in later {
            for planted in [Planted::SymbolicLink, Planted::DanglingLink, Planted::HardLink, Planted::Pipe] {
                let case = format!("{planted:?} at {}, {backend:?}", path.display());
                let dir = scratch();
                let (base, outside) = (store(dir.path()), dir.path().join("outside"));
                let mut before = None;
                let plant_at = base.join(&path);
                let (acknowledged, wrong) = append_much(&base, backend, |_| {
                    if !plant_at.exists() {
                        planted.plant_new(&plant_at, &outside);
                        before = Some(state_of(&outside));
                    }
                });
                let before = before.unwrap_or_else(|| panic!("{case}: the file was there"));
                assert!(before == state_of(&outside), "{case}: what lies outside was changed");
                assert!(wrong.iter().any(|error| error.contains(planted.word())), "{case}: {wrong:#?}");
                fs::remove_file(&plant_at).unwrap();
                let redex = builder(&base, backend).build().unwrap_or_else(|error| panic!("{case}: {}", text(&error)));
                let file = redex.open_file("a", config()).unwrap();
                assert!(file.next_seq() >= acknowledged, "{case}: {} of {acknowledged}", file.next_seq());
                check(&file, 0..file.next_seq());
            }
        }
    }
}

/// The newest file with this ending, relative to the base; of the journal's, the one in use.
fn newest(base: &Path, suffix: &str) -> Option<PathBuf> {
    let found = files(base, suffix).into_iter().filter(|path| !path.to_string_lossy().contains("spare"));
    found.max().map(|path| path.strip_prefix(base).unwrap().to_owned())
}

/// Opens a store, calls `then`, and appends more than several journal segments; says what was acknowledged, and what went wrong.
fn append_much(base: &Path, backend: Backend, then: impl FnOnce(&RedexFile)) -> (u64, Vec<String>) {
    let redex = builder(base, backend).checkpoint_bytes(256 << 10).build().unwrap();
    let file = redex.open_file("a", config()).unwrap();
    then(&file);
    let (mut acknowledged, mut wrong) = (file.next_seq(), Vec::new());
    while acknowledged < 3 * EVENTS {
        let batch: Vec<_> = (acknowledged..acknowledged + 16).map(payload).collect();
        match file.append_batch_durable(&batch).wait() {
            Ok(seqs) => acknowledged = seqs.end,
            Err(error) => {
                wrong.push(text(&error));
                break;
            }
        }
    }
    wrong.extend(redex.close().wait().err().map(|error| text(&error)));
    (acknowledged, wrong)
}

/// A channel's files are opened with the channel: a link that comes before that is refused, and other channels go on.
#[test]
fn what_is_planted_before_a_channel_is_opened_is_refused() {
    for backend in backends() {
        for planted in [Planted::SymbolicLink, Planted::HardLink, Planted::Pipe] {
            for suffix in ["META", ".idx", ".dat"] {
                let dir = scratch();
                let (base, outside) = (store(dir.path()), dir.path().join("outside"));
                let redex = builder(&base, backend).build().unwrap();
                let other = redex.open_file("b", config()).unwrap();
                fill(&other, 0..10);
                let path = files(&base.join("channels"), suffix).remove(0);
                planted.plant(&path, &outside);
                let before = state_of(&outside);
                let wrong = in_time("the channel", {
                    let redex = redex.clone();
                    move || match redex.open_file("a", config()) {
                        Ok(file) => read_all(&file),
                        Err(error) => vec![text(&error)],
                    }
                });
                assert!(wrong.iter().any(|error| error.contains(planted.word())), "{planted:?} {suffix}: {wrong:#?}");
                assert!(before == state_of(&outside), "{planted:?} {suffix}: what lies outside was changed");
                fill(&other, 10..20);
                check(&other, 0..20);
            }
        }
    }
}

/// A copy by hard links shares every byte with the store: both are refused, by the writer and by readers.
#[test]
fn a_copy_by_hard_links_is_refused() {
    let dir = scratch();
    let base = store(dir.path());
    let copy = dir.path().join("copy");
    run("cp", &["-al", base.to_str().unwrap(), copy.to_str().unwrap()]);
    for base in [&base, &copy] {
        for wrong in [use_store(base, Backend::Auto), read_store(base)] {
            assert!(wrong[0].contains("names (hard links)") && wrong[0].contains("cp, not cp -l"), "{wrong:#?}");
        }
    }
    fs::remove_dir_all(&copy).unwrap();
    assert_eq!(use_store(&base, Backend::Auto), [""; 0], "with one name each it is a store again");
}

/// The user's own path may lead to the base by links, and the store stays where it was opened: it may be moved, and something
/// else be put in its place.
#[test]
fn an_open_store_stays_in_its_directory() {
    for backend in backends() {
        let dir = scratch();
        let (base, link, moved) = (store(dir.path()), dir.path().join("link"), dir.path().join("moved"));
        symlink(&base, &link).unwrap();
        let redex = builder(&link, backend).checkpoint_bytes(256 << 10).build().unwrap();
        let file = redex.open_file("a", config()).unwrap();
        fs::rename(&base, &moved).unwrap();
        fs::create_dir(&base).unwrap();
        fs::write(base.join("STORE"), b"another").unwrap();
        fill(&file, EVENTS..3 * EVENTS);
        fill(&redex.open_file("made later", config()).unwrap(), 0..100);
        check(&file, 0..3 * EVENTS);
        redex.close().wait().unwrap();
        drop((redex, file));
        assert_eq!(fs::read_dir(&base).unwrap().count(), 1, "nothing was made in the new directory");
        assert_eq!(fs::read(base.join("STORE")).unwrap(), b"another");
        let redex = builder(&moved, backend).build().unwrap();
        check(&redex.open_file("a", config()).unwrap(), 0..3 * EVENTS);
        check(&redex.open_file("made later", config()).unwrap(), 0..100);
    }
}

/// What [`everything_is_for_the_owner_alone`] runs under another umask.
#[test]
#[ignore = "a child process of another test"]
fn child_makes_a_store() {
    let Some(dir) = child_dir() else { return };
    for backend in backends() {
        let base = dir.join(format!("{backend:?}/above/store"));
        let redex = builder(&base, backend).checkpoint_bytes(256 << 10).build().unwrap();
        fill(&redex.open_file("a", config()).unwrap(), 0..3 * EVENTS);
        redex.close().wait().unwrap();
    }
}

/// Makes stores under umasks that would let everybody in, and that would lock the owner out.
#[test]
fn everything_is_for_the_owner_alone() {
    for umask in ["0000", "0022", "0277"] {
        let dir = scratch();
        let exe = std::env::current_exe().unwrap();
        let made = Command::new("sh")
            .args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")])
            .arg(exe)
            .args(["--exact", "child_makes_a_store", "--ignored"])
            .env("REDEX_TEST_CHILD_DIR", dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let mut count = 0;
        for path in everything(dir.path()) {
            let facts = fs::symlink_metadata(&path).unwrap();
            let expected = if facts.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(facts.permissions().mode() & 0o777, expected, "umask {umask}: {}", path.display());
            count += 1;
        }
        assert!(count > 20, "{count}");
    }
}

fn everything(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        }
        found.push(path);
    }
    found
}

/// LOCK that others may read could be locked by them: it becomes the owner's alone.
#[test]
fn a_lock_file_that_others_could_take_is_closed_to_them() {
    let dir = scratch();
    let base = store(dir.path());
    fs::set_permissions(base.join("LOCK"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(use_store(&base, Backend::Auto), [""; 0]);
    assert_eq!(fs::metadata(base.join("LOCK")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// A file of another user's is refused: only root can put one there, or whoever may write to the directory.
#[test]
fn another_users_file_is_refused() {
    if !root_or_skip() {
        return;
    }
    let dir = scratch();
    let base = store(dir.path());
    for (kind, path) in kinds(&base).into_iter().filter(|(kind, _)| *kind != "spare") {
        std::os::unix::fs::chown(base.join(&path), Some(12_345), None).unwrap();
        let used = use_store(&base, Backend::Auto);
        assert!(used.iter().any(|error| error.contains("belongs to user 12345")), "{kind}: {used:#?}");
        std::os::unix::fs::chown(base.join(&path), Some(0), None).unwrap();
    }
    // A store that is another user's altogether is its owner's matter.
    for path in everything(&base).iter().chain([&base]) {
        std::os::unix::fs::chown(path, Some(12_345), None).unwrap();
    }
    assert_eq!(read_store(&base), [""; 0]);
}

/// A sparse file costs nothing, however long it is: none makes an opening or a reader take memory or time by its length.
#[test]
fn files_of_any_length_are_read_in_bounds() {
    const LENGTH: u64 = 8 << 40;
    let dir = scratch();
    let original = store(dir.path());
    for (kind, path) in kinds(&original) {
        let base = dir.path().join("case");
        copy_dir(&original, &base);
        let file = fs::File::options().write(true).open(base.join(&path)).unwrap();
        if file.set_len(LENGTH).is_err() {
            // XFS and ext4 hold such a file; where none can be, the rest of this test still runs.
            file.set_len(1 << 40).unwrap();
        }
        drop(file);
        // Whether it is refused or read in part, both come back.
        let read = read_store(&base);
        let used = use_store(&base, Backend::Auto);
        let harmless = ["STORE", "LOCK", "spare", "META", "checkpoint file", "journal segment"].contains(&kind);
        assert!(!harmless || (read.is_empty() && used.is_empty()), "{kind}: {read:#?} {used:#?}");
        fs::remove_dir_all(&base).unwrap();
    }
    let peak = fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    let peak_kib: u64 = peak.trim().parse().unwrap();
    assert!(peak_kib < 1 << 20, "{peak_kib} KiB of memory were used");
}

/// A copy by hard links that is made of a running store gets its files refused, and stops nothing: the journal goes on with new files.
#[test]
fn a_copy_by_hard_links_does_not_stop_a_running_store() {
    for backend in backends() {
        let dir = scratch();
        let base = dir.path().join("store");
        let redex = builder(&base, backend).build().unwrap();
        let file = redex.open_file("a", config()).unwrap();
        fill(&file, 0..EVENTS);
        let linked = files(&base, "");
        for path in &linked {
            let copy = dir.path().join("copy").join(path.strip_prefix(&base).unwrap());
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::hard_link(path, copy).unwrap();
        }
        for round in 1..8 {
            fill(&file, round * EVENTS..(round + 1) * EVENTS);
        }
        // A close writes STORE.
        fs::remove_dir_all(dir.path().join("copy")).unwrap();
        redex.close().wait().unwrap();
        let redex = builder(&base, backend).build().unwrap();
        check(&redex.open_file("a", config()).unwrap(), 0..8 * EVENTS);
    }
}
