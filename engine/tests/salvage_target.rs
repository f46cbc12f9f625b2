//! The new store of a rescue: half made it never looks whole, and it never comes to lie in the old one.

mod support;

use std::fs;
use std::path::Path;

use redex::{Redex, SalvageError, SalvageOptions, salvage};
use support::varied::tree;
use support::{ChildTest, child_dir, persistent, scratch, wait_until};

/// A store with many channels in `old` of this directory.
fn make_old(dir: &Path) {
    let redex =
        Redex::builder().persistent_dir(dir.join("old")).shards(1).journal_segment_bytes(1 << 20).build().unwrap();
    for i in 0..400 {
        let file = redex.open_file(format!("channel/{i}").as_str(), persistent()).unwrap();
        file.append(b"an event").wait().unwrap();
    }
    redex.close().wait().unwrap();
}

fn rescue(dir: &Path, to: &str) -> Result<redex::SalvageReport, SalvageError> {
    salvage(dir.join("old"), dir.join(to), &SalvageOptions::new())
}

/// Salvages `old` to `new`.
#[test]
#[ignore = "a child process of a_rescue_that_is_killed_leaves_nothing_that_looks_whole"]
fn child_salvages() {
    let Some(dir) = child_dir() else { return };
    rescue(&dir, "new").unwrap();
}

#[test]
fn a_rescue_that_is_killed_leaves_nothing_that_looks_whole() {
    let dir = scratch();
    make_old(dir.path());
    let partial = dir.path().join("new.partial");
    let mut child = ChildTest::spawn("child_salvages", dir.path());
    wait_until("the new store", || partial.join("STORE").exists());
    child.kill();
    assert!(!child.passed());
    assert!(partial.exists() && !dir.path().join("new").exists());
    // The next try says what is there, and does not go on with it.
    let before = tree(&partial);
    let error = rescue(dir.path(), "new").unwrap_err();
    assert!(matches!(&error, SalvageError::CutOff { path } if path.ends_with("new.partial")), "{error}");
    assert!(before == tree(&partial) && !dir.path().join("new").exists());
    fs::remove_dir_all(&partial).unwrap();
    let report = rescue(dir.path(), "new").unwrap();
    assert!(report.is_complete() && report.events_kept() == 400 && !partial.exists(), "{report}");
    assert_eq!(Redex::open_read_only(dir.path().join("new")).unwrap().channels().len(), 400);
}

/// A name that leads into the old store, by parts that are not there and by links.
#[test]
fn no_way_leads_into_the_old_store() {
    let dir = scratch();
    let redex = Redex::open(dir.path().join("old")).unwrap();
    redex.open_file("a", persistent()).unwrap().append_durable(b"an event").wait().unwrap();
    redex.close().wait().unwrap();
    std::os::unix::fs::symlink(dir.path().join("old"), dir.path().join("link")).unwrap();
    let before = tree(dir.path());
    for to in
        ["new/../old/rescued", "a/b/../../old", "new/../link/rescued", "link/rescued", "old/new/../rescued", "old"]
    {
        let error = rescue(dir.path(), to).unwrap_err();
        assert!(matches!(error, SalvageError::Inside { .. }), "{to}: {error}");
    }
    assert!(before == tree(dir.path()) && !dir.path().join("new").exists() && !dir.path().join("a").exists());
    // These lead out of it again.
    for to in ["new/../elsewhere", "old/../beside", "deep/er/../place"] {
        assert!(rescue(dir.path(), to).unwrap().is_complete());
    }
    for made in ["elsewhere", "beside", "deep/place"] {
        assert!(dir.path().join(made).join("STORE").exists(), "{made}");
    }
    assert!(!dir.path().join("new").exists() && !dir.path().join("deep/er").exists());
}

/// A link that leads nowhere gives its name to no directory: that is told at once, not when the copy is made.
#[test]
fn a_link_that_leads_nowhere_is_refused() {
    let dir = scratch();
    make_old(dir.path());
    std::os::unix::fs::symlink(dir.path().join("nothing"), dir.path().join("nowhere")).unwrap();
    let error = rescue(dir.path(), "nowhere").unwrap_err();
    assert!(matches!(error, SalvageError::Io { .. }), "{error}");
    assert!(!dir.path().join("nowhere.partial").exists() && !dir.path().join("nothing").exists());
}

/// A store that has the name under which the new one would be made.
#[test]
fn a_store_with_the_name_of_a_half_is_left_alone() {
    let dir = scratch();
    let old = dir.path().join("new.partial");
    let redex = Redex::open(&old).unwrap();
    redex.open_file("a", persistent()).unwrap().append_durable(b"an event").wait().unwrap();
    redex.close().wait().unwrap();
    let before = tree(&old);
    let report = salvage(&old, dir.path().join("new"), &SalvageOptions::new()).unwrap();
    assert!(report.is_complete() && before == tree(&old) && dir.path().join("new/STORE").exists());
}
