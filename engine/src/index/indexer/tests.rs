//! What the tail reports and cannot deliver, given by hand: an indexer without its thread.

use std::sync::Mutex;

use super::*;
use crate::{Redex, RedexFileConfig, SubscribeError};

/// An indexer over five events that each stand under their own sequence, stepped to where nothing more is there.
fn indexer() -> (Indexer<u64, u32>, RedexFile, Arc<Mutex<u32>>) {
    let file = Redex::in_memory().open_file("indexed", RedexFileConfig::default()).unwrap();
    file.append_batch(&["0", "1", "2", "3", "4"]).wait().unwrap();
    let round = Arc::new(Mutex::new(0));
    let of_projection = round.clone();
    let project: Project<u64, u32> =
        Box::new(move |event| Ok(vec![IndexOp::Insert(event.seq, *of_projection.lock().unwrap())]));
    let tail = Follows::Published.tail(&file, 0);
    let shared = Arc::new(Shared::new(file.name().clone(), 0));
    let mut indexer = Indexer::new(shared, file.clone(), Follows::Published, tail, project);
    catch_up(&mut indexer);
    assert_eq!((indexer.shared.applied(), indexer.shared.view().len()), (5, 5));
    *round.lock().unwrap() = 1;
    (indexer, file, round)
}

/// Takes steps until nothing more is there.
fn catch_up(indexer: &mut Indexer<u64, u32>) {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    while let Poll::Ready(step) = indexer.poll_step(&mut cx) {
        assert!(matches!(step, Step::Apply));
        indexer.apply();
    }
}

fn rounds(indexer: &Indexer<u64, u32>) -> Vec<(u64, u32)> {
    let view = indexer.shared.view();
    view.range(..).flat_map(|(key, rounds)| rounds.iter().map(|round| (*key, *round))).collect()
}

/// Events that were in the index are lost: none of them is seen from then on, and what the log has is indexed anew.
#[test]
fn what_was_lost_does_not_stay() {
    let (mut indexer, file, _) = indexer();
    indexer.pass(TailEnd::Lost { channel: file.name().clone(), from: 3, to: 9 });
    assert_eq!((rounds(&indexer), indexer.shared.applied()), (vec![], 0));
    catch_up(&mut indexer);
    assert_eq!(rounds(&indexer), (0..5).map(|seq| (seq, 1)).collect::<Vec<_>>());
    let errors = indexer.shared.errors();
    assert!(errors.count == 1 && matches!(errors.newest[..], [IndexGap::Lost { from: 3, to: 9, .. }]), "{errors:?}");
    assert!(indexer.shared.gap_at(4).is_none(), "another event stands there now");
}

/// The loss begins before the index does: the new one begins where the loss did.
#[test]
fn a_loss_before_the_index_moves_its_start() {
    let (mut indexer, file, _) = indexer();
    indexer.origin = 4;
    indexer.pass(TailEnd::Lost { channel: file.name().clone(), from: 2, to: 5 });
    catch_up(&mut indexer);
    assert_eq!(rounds(&indexer), [(2, 1), (3, 1), (4, 1)]);
    assert_eq!(indexer.shared.view().start(), 2);
}

/// Operations are missing for another reason: the present index is read until the new one is as far.
#[test]
fn what_was_passed_is_made_up_for_by_a_rebuild() {
    let (mut indexer, file, _) = indexer();
    // Stands for whatever else a tail reports and goes on after.
    let end = SubscribeError::UnknownEpoch { channel: file.name().clone(), epoch: 9, present: 1 };
    file.append_batch(&["5", "6"]).wait().unwrap();
    // The head has come to event 6 before event 5 was read.
    indexer.tail = file.tail(6);
    indexer.pass(TailEnd::Refused(end));
    assert_eq!(rounds(&indexer), (0..5).map(|seq| (seq, 0)).collect::<Vec<_>>());
    catch_up(&mut indexer);
    assert_eq!(rounds(&indexer), [(6, 1)]);
    assert_eq!(indexer.shared.view().start(), 6);
    assert!(matches!(indexer.shared.errors().newest[..], [IndexGap::Passed { from: 5, to: 6, .. }]));
}

/// A channel of nothing but operations: a batch ends by their number, and no event is cut.
#[test]
fn batches_are_bounded_and_whole() {
    let file = Redex::in_memory().open_file("indexed", RedexFileConfig::default()).unwrap();
    let payloads = vec!["x"; 1000];
    file.append_batch(&payloads).wait().unwrap();
    for (ops_each, events) in [(1, BATCH_EVENTS_MAX), (100, 41), (10_000, 1)] {
        let project: Project<u64, u32> =
            Box::new(move |event| Ok((0..ops_each).map(|op| IndexOp::Insert(event.seq, op)).collect()));
        let tail = Follows::Published.tail(&file, 0);
        let shared = Arc::new(Shared::new(file.name().clone(), 0));
        let mut indexer = Indexer::new(shared, file.clone(), Follows::Published, tail, project);
        assert!(indexer.poll_step(&mut Context::from_waker(std::task::Waker::noop())).is_ready());
        indexer.apply();
        assert_eq!((indexer.shared.applied(), indexer.shared.view().len() as u64), (events, events));
    }
}
