//! Appends that find no room: they keep their order, awaited or not, and none is lost with its future.

use redex::{AppendError, Redex, RedexFile, RedexFileConfig};

const CHANNEL: &str = "a/backlog";
/// Far more than the page budget below has room for.
const EVENTS: u64 = 8_000;
const PAYLOAD_SIZE: usize = 4_000;

fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![number as u8; PAYLOAD_SIZE];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

/// A store with so little memory for pages that a burst does not fit.
fn store(dir: &std::path::Path) -> Redex {
    Redex::builder().persistent_dir(dir).shards(1).page_budget_bytes(1 << 20).build().unwrap()
}

fn open(redex: &Redex) -> RedexFile {
    redex.open_file(CHANNEL, RedexFileConfig::default().with_persistent(true)).unwrap()
}

fn check(file: &RedexFile, count: u64) {
    let mut seq = 0;
    for event in file.read_from(0).blocking() {
        let event = event.unwrap();
        assert_eq!((event.seq, number(&event.payload), event.payload.len()), (seq, seq, PAYLOAD_SIZE));
        seq += 1;
    }
    assert_eq!(seq, count);
}

#[test]
fn a_burst_that_does_not_fit_keeps_the_order_of_its_calls() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let redex = store(dir.path());
    let file = open(&redex);
    let appends: Vec<_> = (0..EVENTS).map(|i| file.append(payload(i))).collect();
    assert!(file.published() < EVENTS, "the burst fits, and the test shows nothing");
    for (i, append) in appends.into_iter().enumerate() {
        assert_eq!(append.wait().unwrap(), i as u64);
    }
    check(&file, EVENTS);
    redex.close().wait().unwrap();
}

#[test]
fn durable_and_plain_appends_and_batches_share_one_order() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let redex = store(dir.path());
    let file = open(&redex);
    let mut next = 0;
    for i in 0..EVENTS / 4 {
        match i % 3 {
            0 => drop(file.append_durable(payload(next))),
            1 => drop(file.append(payload(next))),
            _ => drop(file.append_batch(&[payload(next), payload(next + 1)])),
        }
        next += if i % 3 == 2 { 2 } else { 1 };
    }
    assert!(file.published() < next);
    file.sync().wait().unwrap();
    assert_eq!((file.published(), file.durable()), (next, next), "sync covers what was called before it");
    check(&file, next);
    redex.close().wait().unwrap();
}

#[test]
fn a_dropped_future_cancels_nothing_and_a_close_comes_behind_it() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let redex = store(dir.path());
    let file = open(&redex);
    (0..EVENTS).for_each(|i| drop(file.append(payload(i))));
    assert!(file.published() < EVENTS);
    redex.close().wait().unwrap();
    assert!(matches!(file.append(b"late").wait(), Err(AppendError::Closed { .. })));
    drop((file, redex));
    let redex = store(dir.path());
    let file = open(&redex);
    assert_eq!(file.next_seq(), EVENTS);
    check(&file, EVENTS);
    redex.close().wait().unwrap();
}

#[test]
fn what_waits_is_bounded() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let redex = store(dir.path());
    let file = open(&redex);
    let mut accepted = 0;
    let refused = (0..200_000).any(|i| {
        // Faster than the device: a refusal comes once 64 MiB wait.
        match file.try_append(payload(i)) {
            Ok(_) => accepted += 1,
            Err(AppendError::Full { .. }) => return true,
            Err(error) => panic!("{error}"),
        }
        false
    });
    assert!(refused && accepted > 0, "memory is bounded, and try_append says so");
    let payloads: Vec<Vec<u8>> = (0..4096).map(payload).collect();
    // 640 MiB, faster than any device takes them.
    let appends: Vec<_> = (0..40).map(|_| file.append_batch(&payloads)).collect();
    let results: Vec<_> = appends.into_iter().map(redex::AppendBatch::wait).collect();
    assert!(results[0].is_ok());
    assert!(results.iter().any(|result| matches!(result, Err(AppendError::Full { .. }))), "640 MiB do not wait");
    let made: Vec<_> = results.into_iter().flatten().collect();
    assert!(made.windows(2).all(|pair| pair[1].start == pair[0].end), "those that were made are in order: {made:?}");
    redex.close().wait().unwrap();
}
