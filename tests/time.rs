//! Reads by time, and the clock that they go by: over pages, unfinished blocks and segments, through closes and power cuts.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStore};
use redex::{EventTime, FsyncPolicy, ReadError, Redex, RedexFile, RedexFileConfig};
use redex_tests::drive;

fn config() -> RedexFileConfig {
    // Most events lie in their records, so that a segment of 256 KiB has more index blocks than a footer has samples.
    RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::Never).with_segment_bytes(256 << 10)
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 24
}

fn payload(seq: u64) -> Vec<u8> {
    vec![seq as u8; if seq.is_multiple_of(100) { 60 } else { 4 }]
}

/// Times of all events, which never decrease.
fn times(store: &mut SimStore, file: &RedexFile) -> Vec<u64> {
    let mut times = Vec::new();
    drive(
        store,
        file.read_from(0).for_each_ref(|event| {
            assert_eq!((event.seq, event.payload), (times.len() as u64, &payload(event.seq)[..]));
            times.push(event.time.as_micros());
        }),
    )
    .unwrap();
    assert!(times.is_sorted(), "times go back");
    times
}

/// Compares searches with a look at all times.
fn check(store: &mut SimStore, file: &RedexFile, times: &[u64], state: &mut u64) {
    let first_at = |time_us| times.partition_point(|time| *time < time_us) as u64;
    for i in 0..60 {
        let any = times[(random(state) % times.len() as u64) as usize];
        for time_us in [any, any + 1, any.saturating_sub(1)] {
            let found = drive(store, file.seek_time(EventTime::from_micros(time_us))).unwrap();
            assert_eq!(found, first_at(time_us), "time {time_us}");
        }
        if i % 10 == 0 {
            let to = any + random(state) % 3000;
            let (from, until) = (UNIX_EPOCH + Duration::from_micros(any), UNIX_EPOCH + Duration::from_micros(to));
            let events = drive(store, file.read_time_range(from..until)).unwrap();
            let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
            assert_eq!(seqs, (first_at(any)..first_at(to)).collect::<Vec<_>>());
        }
    }
    assert_eq!(drive(store, file.seek_time(EventTime::from_micros(0))).unwrap(), 0);
    assert_eq!(drive(store, file.seek_time(EventTime::from_micros(u64::MAX))).unwrap(), times.len() as u64);
}

/// The wall clock jumps back between lives and within them; some lives end with a power cut, others with a close.
#[test]
fn times_never_go_back_and_are_found_in_every_tier() {
    let disk = SimDisk::new(11, SimOptions::default());
    let clock = Arc::new(ManualClock::default());
    let (mut state, mut kept) = (3, 0);
    for life in 0..8 {
        clock.set_wall_us(1_000_000 + random(&mut state) % 1_000_000);
        let mut store = SimStore::open(&disk, &SimSettings::default(), &clock, life).unwrap();
        let file = store.redex().open_file("times", config()).unwrap();
        assert_eq!(file.next_seq(), kept);
        let report = drive(&mut store, file.verify());
        assert!(report.is_clean() && report.events == kept, "{report:?}");
        for batch in 0..100 {
            match random(&mut state) % 6 {
                0 => clock.set_wall_us(clock.wall_us() / 2),
                1 => {}
                n => clock.advance(Duration::from_micros(n * 300)),
            }
            let first = file.next_seq();
            let payloads: Vec<_> = (first..first + 400).map(payload).collect();
            // Among others, batches that lie in pages when they are looked for.
            let durable = batch % 4 != 3;
            match durable {
                true => drive(&mut store, file.append_batch_durable(&payloads)).unwrap(),
                false => drive(&mut store, file.append_batch(&payloads)).unwrap(),
            };
            if batch % 50 == 49 {
                let times = times(&mut store, &file);
                check(&mut store, &file, &times, &mut state);
            }
        }
        drive(&mut store, file.sync()).unwrap();
        kept = file.next_seq();
        if life % 2 == 0 {
            drop((file, store));
            disk.power_cut();
        } else {
            drop(file);
            store.close().unwrap();
        }
    }
    let sealed = disk.list_all().into_iter().filter(|path| path.ends_with(".idx")).count();
    assert!(sealed > 1, "{sealed} segments");
    let idx = disk.list_all().into_iter().filter(|path| path.ends_with(".idx"));
    let sizes: Vec<usize> = idx.map(|path| disk.read_file(&path).unwrap().len() / 4096).collect();
    assert!(sizes.iter().any(|blocks| *blocks > 193), "some segment has time blocks: {sizes:?}");
    let mut store = SimStore::open(&disk, &SimSettings::default(), &clock, 99).unwrap();
    let file = store.redex().open_file("times", config()).unwrap();
    let times = times(&mut store, &file);
    assert_eq!(times.len() as u64, kept);
    let report = drive(&mut store, file.verify());
    assert!(report.is_clean() && report.events == kept && report.segments > 1, "{report:?}");
    check(&mut store, &file, &times, &mut state);
}

/// In memory too, where all events lie in pages.
#[test]
fn times_are_found_in_memory() {
    let redex = Redex::in_memory();
    let file = redex.open_file("memory", RedexFileConfig::default()).unwrap();
    let now = EventTime::from_system_time(std::time::SystemTime::now());
    assert_eq!(file.seek_time(now).wait().unwrap(), 0);
    for i in 0..3000_u64 {
        file.append(i.to_le_bytes()).wait().unwrap();
    }
    let events = file.read_range(0, 3000).wait().unwrap();
    for event in &events {
        let right = events.partition_point(|other| other.time < event.time) as u64;
        assert_eq!(file.seek_time(event.time).wait().unwrap(), right);
    }
    let last = events.last().unwrap().time;
    assert_eq!(file.seek_time(EventTime::from_micros(last.as_micros() + 1)).wait().unwrap(), 3000);
    let all = file.read_time_range(EventTime::from_micros(0)..EventTime::from_micros(u64::MAX)).wait().unwrap();
    assert_eq!(all, events);
    let error = file.read_time_range(last..EventTime::from_micros(1)).wait().unwrap_err();
    assert!(matches!(error, ReadError::BadTimeRange { end_us: 1, .. }), "{error:?}");
}
