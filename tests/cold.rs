//! Cold segments on the simulated disk: what goes, what stays, and what a power cut, a fault or a lost manifest leaves.

#[path = "cold/crash.rs"]
mod crash;
#[path = "cold/faults.rs"]
mod faults;
#[cfg(feature = "cold")]
#[path = "cold/real.rs"]
mod real;
#[path = "cold/verify.rs"]
mod verified;

use std::sync::Arc;
use std::time::Duration;

use redex::format::cold_manifest::ColdManifest;
use redex::format::cold_object::{ObjectHeader, decode_table, object_key, parse_key};
use redex::sim::{ManualClock, SimColdStore, SimDisk, SimOptions, SimSettings, SimStep, SimStore};
use redex::{ColdStats, FsyncPolicy, RedexFile, RedexFileConfig};
use redex_tests::drive;

/// Payload of an event: most lie in dat, some in their records; half of them compress well.
fn payload(seq: u64) -> Vec<u8> {
    let len = [2800, 5, 6000, 12_000, 0, 3600][(seq % 6) as usize];
    (0..len).map(|at| if seq.is_multiple_of(2) { seq as u8 } else { (seq * 31 + at * at * 7) as u8 }).collect()
}

/// A channel that keeps two sealed segments of 64 KiB.
fn config(compressed: bool) -> RedexFileConfig {
    let config = RedexFileConfig::default()
        .with_persistent(true)
        .with_fsync_policy(FsyncPolicy::Never)
        .with_segment_bytes(64 << 10)
        .with_cold_keep_segments(2);
    #[cfg(feature = "cold")]
    let config = if compressed { config.with_cold_zstd(3) } else { config };
    assert!(!compressed || cfg!(feature = "cold"));
    config
}

/// What is the same in all tests of a kind: with compression where this build has it.
fn kinds() -> &'static [bool] {
    if cfg!(feature = "cold") { &[false, true] } else { &[false] }
}

/// A store with one channel, on a simulated disk and a simulated cold store.
struct World {
    disk: SimDisk,
    cold: SimColdStore,
    clock: Arc<ManualClock>,
    config: RedexFileConfig,
    opened: u64,
}

impl World {
    fn new(seed: u64, compressed: bool) -> Self {
        let disk = SimDisk::new(seed, SimOptions::default());
        let clock = Arc::new(ManualClock::default());
        clock.set_wall_us(1_700_000_000_000_000);
        let cold = SimColdStore::on(&disk);
        Self { disk, cold, clock, config: config(compressed), opened: seed }
    }

    fn open(&mut self) -> (SimStore, RedexFile) {
        self.try_open().unwrap()
    }

    fn try_open(&mut self) -> Result<(SimStore, RedexFile), redex::RedexError> {
        self.opened += 1;
        let cold = Arc::new(self.cold.clone());
        let store = SimStore::open_with_cold(&self.disk, &SimSettings::default(), &self.clock, self.opened, cold)?;
        let file = store.redex().open_file("audit/größe", self.config.clone())?;
        Ok((store, file))
    }

    /// Files of the channel on the local disk that end so.
    fn local(&self, suffix: &str) -> Vec<String> {
        self.disk
            .list_all()
            .into_iter()
            .filter(|path| path.starts_with("channels/") && path.ends_with(suffix))
            .collect()
    }

    fn manifest(&self) -> Option<ColdManifest> {
        let path = self.local("/COLD").pop()?;
        Some(ColdManifest::decode(&self.disk.read_file(&path)?).expect("a manifest with a name is whole"))
    }

    /// The manifest points at nothing that is not there whole.
    fn check_manifest(&self) {
        for segment in self.manifest().iter().flat_map(|manifest| &manifest.segments) {
            let manifest = self.manifest().unwrap();
            let key = manifest.key(segment);
            let object = self.cold.object(&key).unwrap_or_else(|| panic!("the manifest points at {key}"));
            let (header, crc) = ObjectHeader::decode(&object[..4096]).unwrap();
            assert_eq!((header.first.0, header.end.0, crc), (segment.first, segment.end, segment.header_crc));
            let table = object.len() - header.table_size() as usize;
            decode_table(&object[table..], &header, crc, object.len() as u64).unwrap();
            assert_eq!(key, object_key(header.uuid, header.channel, header.first, header.hash));
        }
    }

    /// After a pass: the cold store has what the manifest names and nothing else, and no local pair is left of those.
    fn check_settled(&self) {
        self.check_manifest();
        let manifest = self.manifest().expect("a pass leaves a manifest");
        let mut named: Vec<String> = manifest.segments.iter().map(|segment| manifest.key(segment)).collect();
        named.sort();
        assert_eq!(self.cold.keys(), named);
        for segment in &manifest.segments {
            let first = format!("{:020}", segment.first);
            let pair = self.local(".idx").into_iter().chain(self.local(".dat"));
            let left = pair.filter(|path| path.contains(&first)).collect::<Vec<_>>();
            assert!(left.is_empty(), "{left:?}");
        }
        assert!(self.local("/COLD.new").is_empty());
    }
}

/// Appends events up to `end`, durable at the end.
fn fill(store: &mut SimStore, file: &RedexFile, end: u64) {
    while file.next_seq() < end {
        let batch: Vec<Vec<u8>> = (file.next_seq()..(file.next_seq() + 2).min(end)).map(payload).collect();
        drive(store, file.append_batch(&batch)).unwrap();
    }
    drive(store, file.sync()).unwrap();
}

/// Steps until nothing is to be done.
fn settle(store: &mut SimStore) {
    for _ in 0..100_000 {
        if matches!(store.step(), SimStep::Idle) {
            return;
        }
    }
    panic!("the store finds no rest");
}

/// Reads everything, in all tiers, and compares.
fn check_events(store: &mut SimStore, file: &RedexFile, end: u64) {
    assert_eq!(file.head_seq()..file.next_seq(), 0..end);
    let events = drive(store, file.read_range(0, end)).unwrap();
    assert_eq!(events.len() as u64, end);
    for (seq, event) in events.iter().enumerate() {
        assert_eq!(event.seq, seq as u64);
        assert_eq!(event.payload, payload(event.seq), "event {seq}");
    }
}

fn stats(store: &SimStore) -> ColdStats {
    store.redex().stats().cold
}

#[test]
fn old_segments_go_and_every_event_is_read_across_the_tiers() {
    for &compressed in kinds() {
        let mut world = World::new(1, compressed);
        let (mut store, file) = world.open();
        fill(&mut store, &file, 300);
        settle(&mut store);
        let uploads = stats(&store).uploads;
        assert!(uploads > 5, "{:?}", stats(&store));
        assert_eq!((stats(&store).unlinked, stats(&store).failed_passes), (uploads, 0));
        let (stored, segments) = (stats(&store).uploaded_bytes, stats(&store).segment_bytes);
        assert!(if compressed { stored < segments * 3 / 4 } else { stored > segments }, "{stored} of {segments}");
        world.check_settled();
        check_events(&mut store, &file, 300);
        // The next time they come from memory.
        assert!(stats(&store).fetches > 0);
        drive(&mut store, file.read_range(0, 3)).unwrap();
        let before = stats(&store);
        drive(&mut store, file.read_range(0, 3)).unwrap();
        let after = stats(&store);
        assert!(after.cache_hits > before.cache_hits && after.fetches == before.fetches, "{after:?}");
        // Closed and opened again; the close has sealed nothing.
        store.close().unwrap();
        drop(file);
        world.disk.power_cut();
        let (mut store, file) = world.open();
        check_events(&mut store, &file, 300);
        // The newest stay.
        let sealed_and_local = world.local(".idx").len() - 1;
        assert_eq!(sealed_and_local, 2);
        fill(&mut store, &file, 400);
        settle(&mut store);
        assert!(stats(&store).uploads > 0);
        world.check_settled();
        check_events(&mut store, &file, 400);
    }
}

#[test]
fn an_audit_reads_from_the_cold_store_and_from_nowhere_else() {
    let mut world = World::new(2, false);
    let (mut store, file) = world.open();
    fill(&mut store, &file, 200);
    settle(&mut store);
    let cold_end = world.manifest().unwrap().segments.last().unwrap().end;
    assert!((50..200).contains(&cold_end));
    let events = drive(&mut store, file.read_cold(0, u64::MAX)).unwrap();
    assert_eq!(events.len() as u64, cold_end);
    assert!(events.iter().all(|event| event.payload == payload(event.seq)));
    let few = file.read_cold(7, 9).wait().unwrap();
    assert_eq!(few.iter().map(|event| event.seq).collect::<Vec<_>>(), [7, 8]);
    assert!(file.read_cold(cold_end, 200).wait().unwrap().is_empty());
    assert!(matches!(file.read_cold(2, 1).wait(), Err(redex::ReadError::BadRange { .. })));
    // A store that is opened anew has no chunks in memory.
    store.close().unwrap();
    drop(file);
    let (mut store, file) = world.open();
    world.cold.set_unreachable(true);
    let error = drive(&mut store, file.read_cold(0, 10)).unwrap_err();
    assert!(matches!(error, redex::ReadError::Cold { .. }), "{error}");
}

/// Manifest missing, cut, or with a flipped bit: made again from a listing, by a reader or by a pass.
#[test]
fn a_lost_manifest_is_made_again_from_the_cold_store_alone() {
    for damage in 0..3 {
        let mut world = World::new(3 + damage, false);
        let (mut store, file) = world.open();
        fill(&mut store, &file, 250);
        settle(&mut store);
        store.close().unwrap();
        drop(file);
        let (before, path) = (world.manifest().unwrap(), world.local("/COLD").pop().unwrap());
        assert!(before.segments.len() > 3);
        match damage {
            0 => world.disk.remove_file(&path).unwrap(),
            1 => world.disk.write_file(&path, b"REDEXCLD").unwrap(),
            _ => assert!(world.disk.flip_bit(&path, 30, 3).unwrap()),
        }
        let (mut store, file) = world.open();
        check_events(&mut store, &file, 250);
        settle(&mut store);
        drive(&mut store, file.sweep_cold()).unwrap();
        assert_eq!(world.manifest().unwrap(), before, "damage {damage}");
        assert_eq!(drive(&mut store, file.rebuild_cold_manifest()).unwrap(), before.segments.len() as u64);
        assert_eq!(world.manifest().unwrap(), before);
        assert!(stats(&store).rebuilds >= 1);
        world.check_settled();
    }
}

/// The end of a channel's log falls in a cold segment: the object stays for the events before, the manifest has no more of it
/// than the channel has, and what is appended then follows there. So also if the manifest is lost.
#[test]
fn a_cut_within_a_cold_segment_leaves_its_beginning() {
    let mut world = World::new(4, false);
    let (mut store, file) = world.open();
    fill(&mut store, &file, 250);
    settle(&mut store);
    let whole = world.manifest().unwrap();
    let cut = whole.segments[2].first + 3;
    assert!(cut < whole.segments[2].end);
    assert_eq!(drive(&mut store, file.truncate_suffix(cut)).unwrap(), cut);
    drive(&mut store, file.sweep_cold()).unwrap();
    let ends: Vec<u64> = world.manifest().unwrap().segments.iter().map(|segment| segment.end).collect();
    assert_eq!(ends, [whole.segments[0].end, whole.segments[1].end, cut]);
    assert_eq!(drive(&mut store, file.read_cold(0, 1000)).unwrap().len() as u64, cut);
    fill(&mut store, &file, 250);
    settle(&mut store);
    store.close().unwrap();
    drop(file);
    let (before, path) = (world.manifest().unwrap(), world.local("/COLD").pop().unwrap());
    assert_eq!((before.segments[2].hash, before.segments[3].first), (whole.segments[2].hash, cut));
    for lost in [false, true] {
        if lost {
            world.disk.remove_file(&path).unwrap();
        }
        let (mut store, file) = world.open();
        check_events(&mut store, &file, 250);
        drive(&mut store, file.sweep_cold()).unwrap();
        assert_eq!(world.manifest().unwrap(), before);
        check_events(&mut store, &file, 250);
        store.close().unwrap();
    }
}

/// An old copy of the manifest was put back: it does not know segments that are nowhere else.
#[test]
fn an_old_manifest_does_not_make_orphans_of_the_only_copies() {
    let mut world = World::new(5, false);
    let (mut store, file) = world.open();
    fill(&mut store, &file, 200);
    settle(&mut store);
    store.close().unwrap();
    drop(file);
    let (before, path) = (world.manifest().unwrap(), world.local("/COLD").pop().unwrap());
    let old = ColdManifest { segments: before.segments[..2].to_vec(), ..before.clone() };
    world.disk.write_file(&path, &old.encode()).unwrap();
    let (mut store, file) = world.open();
    check_events(&mut store, &file, 200);
    settle(&mut store);
    drive(&mut store, file.sweep_cold()).unwrap();
    assert_eq!(world.manifest().unwrap(), before);
    assert_eq!((stats(&store).deleted, stats(&store).uploads), (0, 0));
    check_events(&mut store, &file, 200);
}

#[test]
fn orphans_of_the_channel_and_of_deleted_channels_go_and_unknown_objects_stay() {
    let mut world = World::new(7, false);
    let (mut store, file) = world.open();
    fill(&mut store, &file, 200);
    settle(&mut store);
    store.close().unwrap();
    drop(file);
    let manifest = world.manifest().unwrap();
    let (uuid, channel) = (manifest.uuid, manifest.channel);
    let some = world.cold.object(&world.cold.keys()[0]).unwrap();
    let orphan = object_key(uuid, channel, redex::format::Seq(77_777), 1);
    let deleted = object_key(uuid, redex::format::ChannelId(99), redex::format::Seq(0), 1);
    let unknown = format!("{uuid}/{channel}/notes.txt");
    for key in [&orphan, &deleted, &unknown] {
        world.cold.set_object(key, Some(some.clone()));
    }
    let (mut store, file) = world.open();
    settle(&mut store);
    drive(&mut store, file.sweep_cold()).unwrap();
    let left = |key: &String| world.cold.object(key).is_some();
    assert_eq!([&orphan, &deleted, &unknown].map(left), [false, true, true]);
    let swept = store.redex().sweep_cold();
    assert_eq!(drive(&mut store, swept).unwrap(), 1);
    assert_eq!([&orphan, &deleted, &unknown].map(left), [false, false, true]);
    world.check_manifest();
    check_events(&mut store, &file, 200);
    assert!(world.cold.keys().iter().filter(|key| parse_key(uuid, key).is_some()).count() == manifest.segments.len());
}

/// As after a trim or a truncation: the manifest names a segment that the channel's list does not have. The power may go off
/// meanwhile.
#[test]
fn what_left_the_list_leaves_the_manifest_then_the_cold_store() {
    use redex::sim::StepKind;
    let mut world = World::new(6, false);
    let (mut store, file) = world.open();
    fill(&mut store, &file, 200);
    settle(&mut store);
    store.close().unwrap();
    drop(file);
    let mut manifest = world.manifest().unwrap();
    let path = world.local("/COLD").pop().unwrap();
    let last = *manifest.segments.last().unwrap();
    let object = world.cold.object(&manifest.key(&last)).unwrap();
    let (header, _) = ObjectHeader::decode(&object[..4096]).unwrap();
    let (first, end) = (redex::format::Seq(9000), redex::format::Seq(9000 + header.end.0 - header.first.0));
    let (bytes, header_crc) = ObjectHeader { first, end, ..header.clone() }.encode();
    let gone = redex::format::cold_manifest::ColdSegment { first: first.0, end: end.0, header_crc, ..last };
    manifest.insert(gone);
    let table = redex::format::cold_object::encode_table(header_crc, &[]);
    let forged = [&bytes, &object[4096..], &table].concat();
    world.cold.set_object(&manifest.key(&gone), Some(forged.into()));
    world.disk.write_file(&path, &manifest.encode()).unwrap();
    for cut in [
        None,
        Some(StepKind::ColdManifest),
        Some(StepKind::Rename),
        Some(StepKind::DirSync),
        Some(StepKind::ColdDelete),
    ] {
        for nth in 1..4 {
            let disk = world.disk.fork(nth);
            let (cold, clock) = (world.cold.fork(&disk), world.clock.clone());
            let mut world = World { disk, cold, clock, config: world.config.clone(), opened: 50 + nth };
            if let Some(kind) = cut {
                world.disk.power_off_at(kind, nth);
                if let Ok((mut store, file)) = world.try_open() {
                    for _ in 0..200 {
                        store.step();
                    }
                    drop(file);
                }
                world.disk.power_cut();
                world.disk.power_off_after(None);
                let named = world.manifest().unwrap().segments.contains(&gone);
                assert!(!named || world.cold.object(&manifest.key(&gone)).is_some(), "{cut:?} {nth}");
            }
            let (mut store, file) = world.open();
            drive(&mut store, file.sweep_cold()).unwrap();
            world.check_settled();
            assert!(!world.manifest().unwrap().segments.contains(&gone));
            check_events(&mut store, &file, 200);
        }
    }
}

#[test]
fn without_its_cold_store_a_store_says_where_the_events_are() {
    let mut world = World::new(8, false);
    let (mut store, file) = world.open();
    fill(&mut store, &file, 200);
    settle(&mut store);
    store.close().unwrap();
    drop(file);
    let store = SimStore::open(&world.disk, &SimSettings::default(), &world.clock, 99).unwrap();
    let file = store.redex().open_file("audit/größe", world.config.clone()).unwrap();
    let error = file.read_range(0, 10).wait().unwrap_err();
    let redex::ReadError::Cold { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("opened without its cold store"), "{source}");
    assert!(matches!(file.sweep_cold().wait(), Err(redex::ColdError::NoColdStore)));
    let memory = store.redex().open_file("memory", RedexFileConfig::default()).unwrap();
    assert!(matches!(memory.sweep_cold().wait(), Err(redex::ColdError::InMemory { .. })));
    // What is local can be read.
    assert_eq!(file.read_range(199, 200).wait().unwrap()[0].payload, payload(199));
}

#[test]
fn a_pass_that_fails_is_tried_again_later_and_appends_go_on() {
    let mut world = World::new(9, false);
    let (mut store, file) = world.open();
    world.cold.set_unreachable(true);
    fill(&mut store, &file, 200);
    settle(&mut store);
    let failed = stats(&store).failed_passes;
    assert!(failed >= 1);
    check_events(&mut store, &file, 200);
    assert!(world.manifest().is_none() && world.cold.keys().is_empty());
    world.cold.set_unreachable(false);
    // Before its time nothing is tried, whatever asks for it.
    world.clock.advance(Duration::from_secs(120));
    fill(&mut store, &file, 320);
    settle(&mut store);
    assert!(stats(&store).uploads > 5, "{:?}", stats(&store));
    world.check_settled();
    check_events(&mut store, &file, 320);
}
