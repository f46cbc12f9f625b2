//! What a check says of a store whose older segments lie in the cold store.

use redex::sim::verify;

use super::{World, check_events, fill, settle};

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
