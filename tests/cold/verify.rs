//! What a check says of a store whose older segments lie in the cold store.

use redex::sim::verify;
use redex::{FindingKind, Severity};

use super::{World, check_events, fill, settle};

/// A closed store of which some segments are cold.
fn closed(seed: u64) -> World {
    let mut world = World::new(seed, false);
    let (mut store, file) = world.open();
    fill(&mut store, &file, 250);
    settle(&mut store);
    store.close().unwrap();
    drop(file);
    assert!(world.manifest().unwrap().segments.len() > 3);
    world
}

/// The manifest is damaged: an open makes it again, so nothing is lost; nor is a file of any size read whole.
#[test]
fn a_bad_manifest_is_no_loss() {
    for damage in 0..3 {
        let mut world = closed(40 + damage);
        assert!(verify(&world.disk).unwrap().is_clean());
        let path = world.local("/COLD").pop().unwrap();
        match damage {
            0 => assert!(world.disk.flip_bit(&path, 30, 3).unwrap()),
            1 => world.disk.write_file(&path, b"REDEXCLD").unwrap(),
            _ => world.disk.write_file(&path, &vec![1; (64 << 20) + 1]).unwrap(),
        }
        let report = verify(&world.disk).unwrap();
        assert_eq!((report.losses, report.redundant, report.events_lost), (0, 1, 0), "{damage}: {report}");
        let [found] = &report.damages().collect::<Vec<_>>()[..] else { panic!("{report}") };
        assert_eq!((found.kind, found.severity), (FindingKind::ColdManifest, Severity::Redundant), "{report}");
        assert!(damage < 2 || found.cause.contains("67108865"), "{report}");
        let (mut store, file) = world.open();
        check_events(&mut store, &file, 250);
    }
}

/// A power cut in the midst of an eviction keeps one file of the pair, whichever: the cold store has the segment.
#[test]
fn half_of_an_evicted_segment_is_no_loss() {
    for suffix in [".idx", ".dat"] {
        let mut world = World::new(50, false);
        let (mut store, file) = world.open();
        fill(&mut store, &file, 250);
        // Of the segments that go, what they were.
        let before: Vec<_> = world.local(suffix).into_iter().map(|path| (world.disk.read_file(&path), path)).collect();
        settle(&mut store);
        store.close().unwrap();
        drop(file);
        let gone: Vec<_> = before.into_iter().filter(|(_, path)| world.disk.read_file(path).is_none()).collect();
        assert!(!gone.is_empty());
        gone.iter().for_each(|(bytes, path)| world.disk.write_file(path, bytes.as_ref().unwrap()).unwrap());
        let report = verify(&world.disk).unwrap();
        assert!(report.is_clean(), "{suffix}: {report}");
        let (mut store, file) = world.open();
        check_events(&mut store, &file, 250);
    }
}
