//! A cluster of one: openraft itself runs on the storage, and finds everything again.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::SnapshotOf;
use openraft::{AnyError, Config, EmptyNode, OptionalSend, Raft, ServerState};

use super::log::{MARKS_KEPT, RaftLog, Vote};
use super::machine::Machine;
use super::storage::Storage;
use super::{Types, open, scratch};

/// There is nobody else.
struct Nobody;

fn unreachable() -> Unreachable<Types> {
    Unreachable::new(&AnyError::error("there is nobody else"))
}

impl RaftNetworkFactory<Types> for Nobody {
    type Network = Self;

    async fn new_client(&mut self, _: u64, _: &EmptyNode) -> Self {
        Self
    }
}

impl RaftNetworkV2<Types> for Nobody {
    type SnapshotData = Vec<String>;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    async fn vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: SnapshotOf<Types, Vec<String>>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(StreamingError::Unreachable(unreachable()))
    }
}

#[test]
fn a_node_finds_its_log_again() {
    const WRITES: u64 = 50;
    let dir = scratch();
    for life in 0..3 {
        let redex = open(dir.path());
        Types::run(async {
            let log = RaftLog::open(&redex, "raft", MARKS_KEPT).await.unwrap();
            let machine = Machine::default();
            let config = Arc::new(Config::default().validate().unwrap());
            let raft = Raft::new(0, config, Nobody, Storage::new(log), machine.clone()).await.unwrap();
            if life == 0 {
                raft.initialize(std::collections::BTreeSet::from([0])).await.unwrap();
            }
            let wait = raft.wait(Some(Duration::from_secs(30)));
            wait.state(ServerState::Leader, "it leads").await.unwrap();
            for write in 0..WRITES {
                let command = format!("{life}.{write}");
                assert_eq!(raft.client_write(command.clone()).await.unwrap().data, command);
            }
            let wanted = (0..=life).flat_map(|life| (0..WRITES).map(move |write| format!("{life}.{write}")));
            assert_eq!(machine.commands(), wanted.collect::<Vec<_>>());
            raft.shutdown().await.map_err(io::Error::other).unwrap();
        });
        redex.close().wait().unwrap();
    }
}
