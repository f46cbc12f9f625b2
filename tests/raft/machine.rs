//! A state machine in memory, as small as the suite allows: it is not what is tested.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership};

use super::Types;
use super::log::LogId;

#[derive(Clone, Debug, Default)]
struct State {
    applied: Option<LogId>,
    membership: StoredMembershipOf<Types>,
    commands: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    now: State,
    snapshot: Option<State>,
}

/// Remembers every command. Clones are the same machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine(Arc<Mutex<Shared>>);

impl Machine {
    /// The commands so far.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.shared().now.commands.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

fn snapshot(state: State) -> SnapshotOf<Types, Vec<String>> {
    let meta = SnapshotMetaOf::<Types> { last_log_id: state.applied, last_membership: state.membership };
    openraft::Snapshot { meta, snapshot: state.commands }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Vec<String>;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, Vec<String>>> {
        let mut shared = self.shared();
        let now = shared.now.clone();
        shared.snapshot = Some(now.clone());
        Ok(snapshot(now))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<String>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembershipOf<Types>)> {
        let shared = self.shared();
        Ok((shared.now.applied, shared.now.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let mut answer = String::new();
            {
                let now = &mut self.shared().now;
                now.applied = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(command) => {
                        answer.clone_from(&command);
                        now.commands.push(command);
                    }
                    EntryPayload::Membership(membership) => {
                        now.membership = StoredMembership::new(Some(entry.log_id), membership);
                    }
                }
            }
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, data: Vec<String>) -> io::Result<()> {
        let state = State { applied: meta.last_log_id, membership: meta.last_membership.clone(), commands: data };
        *self.shared() = Shared { now: state.clone(), snapshot: Some(state) };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, Vec<String>>>> {
        Ok(self.shared().snapshot.clone().map(snapshot))
    }
}
