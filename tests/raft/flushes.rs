//! What an append or a vote costs: one flush of the journal.

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log_id;
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};
use redex::Redex;

use super::log::{Entry, MARKS_KEPT, RaftLog, Vote};
use super::storage::Storage;
use super::{Types, open, scratch};

fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    let entry = |index| Entry {
        log_id: log_id::<Types>(term, 0, index),
        payload: EntryPayload::Normal(format!("{index:0>200}")),
    };
    indexes.map(entry).collect()
}

/// Appends, and gives what resolves when openraft is called back.
async fn append(storage: &mut Storage, entries: Vec<Entry>) -> impl Future<Output = ()> + use<> {
    let (called, call) = Types::oneshot();
    let last = entries.last().unwrap().log_id.index;
    storage.append(entries, IOFlushed::signal(called)).await.unwrap();
    let read = storage.log().clone().try_get_log_entries(last..=last).await.unwrap();
    assert_eq!(read.len(), 1, "what was appended can be read at once");
    async { call.await.unwrap().unwrap() }
}

async fn group(redex: &Redex) -> Storage {
    let log = RaftLog::open(redex, "raft", MARKS_KEPT).await.unwrap();
    let mut storage = Storage::new(log);
    storage.save_vote(&Vote::new(1, 0)).await.unwrap();
    append(&mut storage, entries(1, 0..1)).await.await;
    storage
}

#[test]
fn an_append_or_a_vote_is_one_flush() {
    let dir = scratch();
    let redex = open(dir.path());
    let flushes = || redex.stats().flushes;
    Types::run(async {
        let mut storage = group(&redex).await;
        for round in 0..100 {
            let before = flushes();
            append(&mut storage, entries(1, 1 + round * 3..4 + round * 3)).await.await;
            assert_eq!(flushes(), before + 1, "append {round}");
            storage.save_committed(Some(log_id::<Types>(1, 0, round * 3))).await.unwrap();
            assert_eq!(flushes(), before + 1, "commit mark {round}");
            storage.save_vote(&Vote::new(2 + round, 0)).await.unwrap();
            assert_eq!(flushes(), before + 2, "vote {round}");
        }
    });
    redex.close().wait().unwrap();
}

/// Appends in flight share flushes; a vote waits for them, and adds its own.
#[test]
fn appends_in_flight_share_flushes() {
    let dir = scratch();
    let redex = open(dir.path());
    Types::run(async {
        let mut storage = group(&redex).await;
        let before = redex.stats().flushes;
        let mut calls = Vec::new();
        for round in 0..200 {
            calls.push(append(&mut storage, entries(1, 1 + round * 3..4 + round * 3)).await);
        }
        storage.save_vote(&Vote::new(2, 0)).await.unwrap();
        for call in calls {
            call.await;
        }
        let flushes = redex.stats().flushes - before;
        assert!((2..=201).contains(&flushes), "{flushes}");
    });
    redex.close().wait().unwrap();
}
