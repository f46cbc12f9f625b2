//! Subscriptions over a crash that took events back, on a simulated disk: the loss is reported, and what survived follows.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStore};
use redex::{Cursor, FsyncPolicy, Redex, RedexFile, RedexFileConfig, SubscribeError, TailEnd, TailResults};
use redex_tests::drive;

/// Events that are durable before the crash, and published.
const DURABLE: u64 = 20;
const PUBLISHED: u64 = 30;

fn open(disk: &SimDisk, clock: &Arc<ManualClock>, seed: u64) -> SimStore {
    SimStore::open(disk, &SimSettings::default(), clock, seed).unwrap()
}

fn channel(redex: &Redex) -> RedexFile {
    let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::Never);
    redex.open_file("orders", config).unwrap()
}

/// Polls a future that has nothing to wait for.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing is to be waited for"),
    }
}

/// A store that has lost events 20..30 in a power cut, reopened, with the cursor that had seen them all.
fn lost_suffix(seed: u64) -> (SimStore, RedexFile, Cursor) {
    let disk = SimDisk::new(seed, SimOptions::default());
    let clock = Arc::new(ManualClock::default());
    let mut store = open(&disk, &clock, seed);
    let file = channel(store.redex());
    for i in 0..DURABLE {
        drive(&mut store, file.append_durable(format!("old {i}"))).unwrap();
    }
    // Published and seen by tails, but never written.
    for i in DURABLE..PUBLISHED {
        now(file.append(format!("old {i}"))).unwrap();
    }
    let cursor = file.cursor();
    assert_eq!(cursor.seq, PUBLISHED);
    disk.power_cut();
    drop((store, file));
    let store = open(&disk, &clock, seed + 1);
    let file = channel(store.redex());
    assert_eq!(file.next_seq(), DURABLE, "the power cut took the suffix");
    (store, file, cursor)
}

/// Every item that is there now.
fn items(tail: &mut TailResults) -> Vec<Result<(u64, String), String>> {
    use futures_util::{FutureExt, StreamExt};
    let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
    std::iter::from_fn(|| tail.next().now_or_never().flatten())
        .map(|item| item.map(|event| (event.seq, text(&event.payload))).map_err(|end| end.to_string()))
        .collect()
}

#[test]
fn tail_reports_a_lost_suffix_first_and_goes_on_with_what_survived() {
    let (mut store, file, cursor) = lost_suffix(7);
    match now(file.subscribe_from(cursor)) {
        Err(error @ SubscribeError::LostEvents { from, to, .. }) => {
            assert_eq!(from..to, DURABLE..PUBLISHED);
            // As an error of a tail it is the one that a tail reports.
            assert!(
                matches!(TailEnd::from(error), TailEnd::Lost { from, to, .. } if (from..to) == (DURABLE..PUBLISHED))
            );
        }
        other => panic!("{other:?}"),
    }
    let mut tail = file.tail(cursor);
    match tail.next_wait() {
        Some(Err(TailEnd::Lost { channel, from, to })) => {
            assert_eq!((channel.as_str(), from..to), ("orders", DURABLE..PUBLISHED));
        }
        other => panic!("{other:?}"),
    }
    assert!(tail.ended().is_none());
    assert_eq!(tail.cursor().seq, DURABLE, "the first position that survived");
    assert!(tail.cursor().epoch > cursor.epoch);
    // The same numbers are given again, to other events.
    for i in DURABLE..DURABLE + 3 {
        assert_eq!(now(file.append(format!("new {i}"))).unwrap(), i);
    }
    let new: Vec<_> = (DURABLE..DURABLE + 3).map(|i| Ok((i, format!("new {i}")))).collect();
    assert_eq!(items(&mut tail), new);
    // As a stream, the loss is an item too; and only what is durable follows, if that is asked for.
    let mut durable = file.tail(cursor).durable_only();
    let seen = items(&mut durable);
    assert_eq!(
        seen,
        [Err("channel orders: events 20..30 that the cursor has seen were lost in a crash or cut off; the tail goes on at 20"
            .to_owned())]
    );
    drive(&mut store, file.sync()).unwrap();
    assert_eq!(items(&mut durable), new);
    // The cursor of now has lost nothing.
    now(file.subscribe_from(tail.cursor())).unwrap();
    store.close().unwrap();
    assert!(tail.next_wait().is_none());
    assert!(matches!(tail.ended(), Some(TailEnd::Closed)), "{:?}", tail.ended());
}

#[test]
fn tail_of_a_cursor_that_lost_nothing_reports_nothing() {
    let (store, file, cursor) = lost_suffix(8);
    let kept = Cursor { seq: DURABLE, ..cursor };
    assert_eq!(items(&mut file.tail(kept)), []);
    let earlier = Cursor { seq: DURABLE - 2, ..cursor };
    let old: Vec<_> = (DURABLE - 2..DURABLE).map(|i| Ok((i, format!("old {i}")))).collect();
    assert_eq!(items(&mut file.tail(earlier)), old);
    assert_eq!(items(&mut file.tail(DURABLE - 2)), old, "a plain sequence is taken as it is");
    store.close().unwrap();
}

#[test]
fn tail_of_another_stores_cursor_is_refused_as_its_only_item() {
    let (store, file, cursor) = lost_suffix(9);
    let mut tail = file.tail(Cursor { epoch: cursor.epoch + 50, ..cursor });
    match tail.next_wait() {
        Some(Err(TailEnd::Refused(SubscribeError::UnknownEpoch { epoch, .. }))) => assert_eq!(epoch, cursor.epoch + 50),
        other => panic!("{other:?}"),
    }
    assert!(tail.next_wait().is_none());
    assert!(matches!(tail.ended(), Some(TailEnd::Refused(_))), "{:?}", tail.ended());
    store.close().unwrap();
}
