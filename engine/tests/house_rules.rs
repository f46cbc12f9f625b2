//! Rules of the house, as ordinary tests. Each failure names the file and the remedy.

use std::fs;
use std::path::{Path, PathBuf};

/// The files that may hold unsafe code, relative to the workspace. Each says at its top why it needs it.
const UNSAFE_FILES: &[&str] = &[
    "bench-harness/src/raw.rs",
    "engine/src/checksum.rs",
    "engine/src/io/aligned.rs",
    "engine/src/io/futex.rs",
    "engine/src/io/mapping.rs",
    "engine/src/io/mapping/guard.rs",
    "engine/src/io/posix/syscall.rs",
    "engine/src/io/uring/bell.rs",
    "engine/src/io/uring/buffers.rs",
    "engine/src/io/uring/driver.rs",
    "engine/src/io/uring/ring.rs",
    "engine/src/tail/mod.rs",
    "engine/src/tail/page.rs",
    "engine/src/tail/suffix.rs",
    "engine/tests/allocations.rs",
    "engine/tests/faults.rs",
    "tests/powerfail/src/rig/loop_ioctl.rs",
];

/// Names that say nothing about what is in a file.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "misc", "helper", "helpers", "manager"];

/// Most lines of a file.
const LINES_MAX: usize = 900;

struct Source {
    /// Relative to the workspace, parts between `/`.
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, without what follows `//`.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line.split_once("//").map_or(line, |(code, _)| code)))
    }

    fn has_word(&self, word: &str) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        self.code().any(|(_, line)| line.split(|c| !is_part(c)).any(|part| part == word))
    }
}

/// Every Rust file of the workspace.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a workspace");
    let mut files = Vec::new();
    collect(root, &mut files);
    assert!(files.len() > 50, "the workspace has more files than {}", files.len());
    files.sort();
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(&path).unwrap(),
    };
    files.into_iter().map(read).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            collect(&path, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

fn assert_none(broken: &[String], remedy: &str) {
    assert!(broken.is_empty(), "{remedy}:\n  {}", broken.join("\n  "));
}

#[test]
fn unsafe_code_lies_in_the_listed_files_only() {
    let sources = sources();
    let with_unsafe: Vec<&str> = sources
        .iter()
        .filter(|source| source.has_word(concat!("un", "safe")))
        .map(|source| source.path.as_str())
        .collect();
    let unlisted: Vec<String> =
        with_unsafe.iter().filter(|path| !UNSAFE_FILES.contains(path)).map(|path| (*path).to_owned()).collect();
    assert_none(&unlisted, "use a safe call of a file in UNSAFE_FILES instead of opening another file to it");
    let unused: Vec<String> =
        UNSAFE_FILES.iter().filter(|path| !with_unsafe.contains(path)).map(|path| (*path).to_owned()).collect();
    assert_none(&unused, "take these, which do without by now, off UNSAFE_FILES");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.trim_start().starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert_none(&silent, "begin the file with `//!`: what it is for, what it promises, what it leaves to others");
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    let mut broken = Vec::new();
    for source in sources() {
        for (line, code) in source.code() {
            broken.extend(
                marks.iter().filter(|mark| code.contains(*mark)).map(|mark| format!("{}:{line}: {mark}", source.path)),
            );
        }
    }
    assert_none(&broken, "finish it, or return an error that says what cannot be done");
}

#[test]
fn names_of_files_say_what_is_in_them() {
    let broken: Vec<String> = sources()
        .into_iter()
        .map(|source| source.path)
        .filter(|path| path.trim_end_matches(".rs").split(['/', '_']).any(|part| EMPTY_NAMES.contains(&part)))
        .collect();
    assert_none(&broken, "name the file for the one thing that it does");
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let broken: Vec<String> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_none(&broken, &format!("split what is longer than {LINES_MAX} lines; move tests to `x/tests.rs`"));
}
