//! Maps real files, and cuts them.

use std::fs::OpenOptions;

use super::budget::Budget;
use super::*;
use crate::io::posix::tests::temp_dir;

const LEN: usize = 64 << 10;

fn mapped() -> (tempfile::TempDir, fs::File, Mapping) {
    let dir = temp_dir();
    let path = dir.path().join("file");
    fs::write(&path, [7; LEN]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mapping = Mapping::new(&file, LEN, Budget::new(1 << 20).take(LEN as u64).unwrap()).unwrap();
    (dir, file, mapping)
}

#[test]
fn bytes_of_a_file_are_there() {
    let (_dir, _file, mapping) = mapped();
    mapping.populate(100..LEN).unwrap();
    mapping.prefetch(0..LEN);
    assert_eq!(mapping.bytes(), [7; LEN]);
    assert!(!mapping.is_broken());
}

#[test]
fn a_file_that_is_too_short_is_not_mapped() {
    let (_dir, file, _mapping) = mapped();
    file.set_len(LEN as u64 - 1).unwrap();
    let error = Mapping::new(&file, LEN, Budget::new(1 << 20).take(LEN as u64).unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// Cut before anything was touched, and after everything was: an error, zeros and a mark, and no signal.
#[test]
fn a_cut_file_is_an_error_and_no_signal() {
    for touched in [false, true] {
        let (_dir, file, mapping) = mapped();
        let before = FileStamp::of(&file).unwrap();
        if touched {
            assert!(mapping.bytes().iter().all(|byte| *byte == 7));
        }
        file.set_len(8192).unwrap();
        assert_ne!(FileStamp::of(&file).unwrap(), before);
        let error = mapping.populate(0..LEN).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert!(!mapping.is_broken());
        assert_eq!(mapping.bytes()[..8192], [7; 8192]);
        assert_eq!(mapping.bytes()[8192..], [0; LEN - 8192]);
        assert!(mapping.is_broken());
    }
}

/// Places are used again, and a broken one is whole for the next mapping.
#[test]
fn a_new_mapping_is_not_broken() {
    for _ in 0..600 {
        let (_dir, file, mapping) = mapped();
        assert!(!mapping.is_broken());
        file.set_len(0).unwrap();
        assert_eq!(mapping.bytes()[LEN - 1], 0);
        assert!(mapping.is_broken());
    }
}

/// A signal that is not ours goes to the handler that was there, which is the standard library's: at the first it takes itself
/// off and waits for the fault to come again, so the second ends the program. Tried in a child.
#[test]
fn a_foreign_signal_still_ends_the_program() {
    const CHILD: &str = "REDEX_TEST_BUS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let (_dir, _file, _mapping) = mapped();
        for _ in 0..2 {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).unwrap();
        }
        return;
    }
    let name = "io::mapping::tests::a_foreign_signal_still_ends_the_program";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(libc::SIGBUS));
}
