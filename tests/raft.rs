//! Consensus can stand on it: openraft's own suite over a log storage in two channels of one shard, what that costs in
//! flushes, and what a power cut leaves of it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use redex::Redex;

use log::{MARKS_KEPT, RaftLog};
use machine::Machine;
use storage::Storage;

#[path = "raft/crash.rs"]
mod crash;
#[path = "raft/flushes.rs"]
mod flushes;
#[path = "raft/kill.rs"]
mod kill;
#[path = "raft/log.rs"]
mod log;
#[path = "raft/machine.rs"]
mod machine;
#[path = "raft/model.rs"]
mod model;
#[path = "raft/node.rs"]
mod node;
#[path = "raft/storage.rs"]
mod storage;

openraft::declare_raft_types!(pub(crate) Types: Node = openraft::EmptyNode);

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(dir: &Path) -> Redex {
    Redex::builder().persistent_dir(dir).shards(1).journal_segment_bytes(1 << 20).build().unwrap()
}

/// Groups of one store, one after the other.
struct Groups {
    redex: Redex,
    made: AtomicU64,
}

impl StoreBuilder<Types, Storage, Machine> for Groups {
    async fn build(&self) -> Result<((), Storage, Machine), StorageError<Types>> {
        let group = format!("raft-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let log = RaftLog::open(&self.redex, &group, MARKS_KEPT)
            .await
            .map_err(|e| StorageError::read(Types::err_from_error(&e)))?;
        Ok(((), Storage::new(log), Machine::default()))
    }
}

#[test]
fn the_suite_of_openraft_passes() {
    let dir = scratch();
    let groups = Groups { redex: open(dir.path()), made: AtomicU64::new(0) };
    let redex = groups.redex.clone();
    Types::run(Suite::test_all(groups)).unwrap();
    redex.close().wait().unwrap();
}
