//! A failed write or flush stops its shard, and the error says which file it was.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redex::sim::{FaultKind, ManualClock, SimDisk, SimOptions, SimSettings, SimStep, SimStore};
use redex::{AppendError, Poisoned, RedexFileConfig};

/// What has failed, and how the path of its file begins and ends.
const PLACES: &[(&str, &str, &str)] = &[
    ("journal write", "journal/000/", ".wal"),
    ("journal flush", "journal/000/", ".wal"),
    ("journal header write", "journal/000/", ".wal"),
    ("journal rename", "journal/000/", ".wal"),
    ("journal recycling", "journal/000/", ".wal"),
    ("commit flush", "journal/000/", ".wal"),
    ("making of a spare", "journal/000/spare", ""),
    ("rename of a spare", "journal/000/spare", ""),
    ("spare segment write", "journal/000/spare/", ".new"),
    ("spare segment flush", "journal/000/spare/", ".new"),
    ("extent write", "channels/", ".dat"),
    ("extent flush", "channels/", ".dat"),
    ("dat write", "channels/", ".dat"),
    ("index write", "channels/", ".idx"),
    ("seal write", "channels/", ".idx"),
    ("seal flush", "channels/", ""),
    ("segment cut", "channels/", ""),
    ("segment flush", "channels/", ""),
    ("use of a segment file", "channels", ""),
    ("making of a checkpoint file", "checkpoint/000/", ".ckp"),
    ("checkpoint write", "checkpoint/000/", ".ckp"),
    ("checkpoint flush", "checkpoint/000/", ".ckp"),
    ("checkpoint directory sync", "checkpoint/000", ""),
];

/// Appends to a store whose disk fails once, until that is noticed; `None` if it was not.
fn poison(kind: FaultKind, nth: u64) -> Option<Poisoned> {
    let clock = Arc::new(ManualClock::default());
    let disk = SimDisk::new(nth, SimOptions::default());
    let mut store = SimStore::open(&disk, &SimSettings::default(), &clock, nth).unwrap();
    disk.one_shot_fault(kind, nth);
    let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(64 << 10);
    let file = store.redex().open_file("a", config).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    for i in 0..400_usize {
        // By the journal, by extent, and within the record.
        let mut append = pin!(file.append_durable(vec![i as u8; [700, 5, 20_000, 3000][i % 4]]));
        loop {
            match append.as_mut().poll(&mut cx) {
                Poll::Ready(Ok(_)) => break,
                Poll::Ready(Err(AppendError::Poisoned(poisoned))) => return Some(poisoned),
                Poll::Ready(Err(error)) => panic!("{kind:?} {nth}: {error}"),
                Poll::Pending => assert_ne!(store.step(), SimStep::Idle, "{kind:?} {nth}: the append waits for ever"),
            }
        }
    }
    None
}

#[test]
fn poison_names_the_file_that_failed() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in [FaultKind::Write, FaultKind::Flush, FaultKind::Create, FaultKind::Resize, FaultKind::SyncDir] {
        for nth in (1..20).chain((20..120).step_by(9)) {
            let Some(Poisoned { what, file, .. }) = poison(kind, nth) else { continue };
            let place = PLACES.iter().find(|place| place.0 == what);
            let (_, begin, end) = place.unwrap_or_else(|| panic!("{kind:?} {nth}: {what} of {file} is not listed"));
            assert!(file.starts_with(begin) && file.ends_with(end), "{kind:?} {nth}: {what} of {file}");
            *seen.entry(what).or_default() += 1;
        }
    }
    assert!(seen.len() >= 12, "{seen:?}");
}
