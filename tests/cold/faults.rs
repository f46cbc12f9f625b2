//! The cold store fails, lies or forgets: nothing is lost, and nothing false is shown.

use std::time::Duration;

use redex::ReadError;
use redex::sim::{ColdFault, FaultKind};
use redex_tests::drive;

use super::{World, check_events, fill, payload, settle, stats};

/// Each fault at each of the first calls; then the store goes on until everything has settled.
#[test]
fn faults_while_segments_go_lose_nothing() {
    use ColdFault::{DeleteFails, GetFails, GetRot, GetShort, ListFails, ListIncomplete, PutFails, PutShort, PutTorn};
    let mut failed = 0;
    for fault in [PutFails, PutTorn, PutShort, GetFails, GetRot, GetShort, ListFails, ListIncomplete, DeleteFails] {
        for nth in 1..8 {
            let mut world = World::new(nth, false);
            let (mut store, file) = world.open();
            world.cold.one_shot_fault(fault, nth);
            fill(&mut store, &file, 100);
            settle(&mut store);
            world.check_manifest();
            check_events(&mut store, &file, 100);
            failed += stats(&store).failed_passes;
            world.clock.advance(Duration::from_secs(1));
            drive(&mut store, file.sweep_cold()).unwrap();
            world.check_settled();
            check_events(&mut store, &file, 100);
        }
    }
    assert!(failed > 20, "{failed}");
}

/// The local disk fails while a manifest is made: the pass is tried again, and the shard goes on.
#[test]
fn a_manifest_that_cannot_be_written_is_written_later() {
    for kind in [FaultKind::Create, FaultKind::Write, FaultKind::SyncDir, FaultKind::Flush, FaultKind::Resize] {
        let mut world = World::new(20, false);
        let (mut store, file) = world.open();
        world.cold.set_unreachable(true);
        fill(&mut store, &file, 100);
        settle(&mut store);
        world.cold.set_unreachable(false);
        for nth in 1..4 {
            world.disk.one_shot_fault(kind, nth);
            // What of it the pass does not meet is not for the shard.
            let swept = drive(&mut store, file.sweep_cold());
            world.disk.forget_faults();
            world.check_manifest();
            assert!(swept.is_ok() || kind != FaultKind::Resize, "a pass resizes nothing");
        }
        drive(&mut store, file.sweep_cold()).unwrap();
        world.check_settled();
        check_events(&mut store, &file, 100);
        fill(&mut store, &file, 150);
        settle(&mut store);
        check_events(&mut store, &file, 150);
    }
}

#[test]
fn an_object_that_is_gone_or_rotten_is_an_error_that_says_which() {
    let mut world = World::new(30, false);
    let (mut store, file) = world.open();
    fill(&mut store, &file, 200);
    settle(&mut store);
    store.close().unwrap();
    drop(file);
    let (mut store, file) = world.open();
    let key = world.cold.keys()[1].clone();
    let segment = world.manifest().unwrap().segments[1];
    let object = world.cold.object(&key).unwrap();
    // Every part of the object, from its header to its table.
    for at in (0..object.len()).step_by(997).chain([object.len() - 1]) {
        let mut rotten = object.to_vec();
        rotten[at] ^= 0x10;
        world.cold.set_object(&key, Some(rotten.into()));
        let fresh =
            World { disk: world.disk.fork(at as u64), cold: world.cold.fork(&world.disk), ..World::new(1, false) };
        let mut fresh = World { cold: fresh.cold.fork(&fresh.disk), opened: at as u64, ..fresh };
        let (mut store, file) = fresh.open();
        match drive(&mut store, file.read_range(segment.first, segment.end)) {
            // The padding of a header is covered too; so only what is not read here may pass.
            Ok(events) => {
                assert!(events.iter().all(|event| event.payload == payload(event.seq)));
                panic!("byte {at} of {} is not noticed", object.len());
            }
            Err(ReadError::Cold { object, .. }) => assert_eq!(object, key),
            Err(other) => panic!("{other}"),
        }
    }
    world.cold.set_object(&key, None);
    let error = drive(&mut store, file.read_range(0, 200)).unwrap_err();
    let ReadError::Cold { object: named, file: path, source, .. } = &error else { panic!("{error}") };
    assert_eq!((named, source.kind()), (&key, std::io::ErrorKind::NotFound));
    assert!(path.contains(&format!("{:020}.idx", segment.first)), "{path}");
    // In front and behind it everything is there.
    drive(&mut store, file.read_range(0, segment.first)).unwrap();
    drive(&mut store, file.read_range(segment.end, 200)).unwrap();
    world.cold.set_object(&key, Some(object));
    check_events(&mut store, &file, 200);
}

/// One answer that is wrong: it is asked for once more, and nobody notices.
#[test]
fn an_answer_that_rots_on_its_way_is_fetched_again() {
    for fault in [ColdFault::GetRot, ColdFault::GetShort] {
        let mut world = World::new(31, false);
        let (mut store, file) = world.open();
        fill(&mut store, &file, 100);
        settle(&mut store);
        drive(&mut store, file.read_range(0, 1)).unwrap();
        let mut noticed = 0;
        for nth in 1..20 {
            world.cold.one_shot_fault(fault, nth);
            match drive(&mut store, file.read_range(0, 100)) {
                Ok(events) => assert!(events.iter().all(|event| event.payload == payload(event.seq))),
                // Headers and tables are not asked for twice.
                Err(ReadError::Cold { .. }) => noticed += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(noticed < 10, "{noticed}");
    }
}

/// A listing that lacks objects: a manifest made of it would forget segments, so none is.
#[test]
fn an_incomplete_listing_makes_no_manifest() {
    let mut world = World::new(32, false);
    let (mut store, file) = world.open();
    fill(&mut store, &file, 200);
    settle(&mut store);
    store.close().unwrap();
    drop(file);
    let before = world.manifest().unwrap();
    let path = world.local("/COLD").pop().unwrap();
    world.disk.write_file(&path, b"").unwrap();
    world.cold.one_shot_fault(ColdFault::ListIncomplete, 1);
    let (mut store, file) = world.open();
    settle(&mut store);
    assert_eq!((stats(&store).failed_passes, stats(&store).deleted), (1, 0));
    assert_eq!(world.disk.read_file(&path).unwrap(), b"");
    check_events(&mut store, &file, 200);
    drive(&mut store, file.sweep_cold()).unwrap();
    assert_eq!(world.manifest().unwrap(), before);
}
