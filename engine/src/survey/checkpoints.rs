//! The checkpoint files of a shard: the newest whole state of each channel.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::Survey;
use super::finding::{FindingKind, FoundChannel, Severity, StoreFinding};
use super::plan::Plan;
use super::stored_tail::StoredTail;
use crate::ids::{ByChannel, ChannelId, CheckpointNo, ShardId};
use crate::io::Disk;
use crate::journal::format::CheckpointEntry;
use crate::shard::checkpoint::{checkpoint_dir, checkpoint_number, checkpoint_path};
use crate::store::checkpoint::survey::{CheckpointSurvey, survey};
use crate::store::superblock::ShardRoot;

/// What the files tell.
#[derive(Debug, Default)]
pub struct Known {
    /// The channels.
    pub plans: ByChannel<Plan>,
    /// Whether states are missing.
    pub lacks_states: bool,
}

/// Reads the files that the last checkpoint names; without one all that are there.
pub fn read(
    store: &mut Survey,
    disk: &Arc<dyn Disk>,
    shard: ShardId,
    checkpoint: Option<&CheckpointEntry>,
    root: Option<ShardRoot>,
) -> io::Result<Known> {
    let there = list(&**disk, shard, &mut store.findings)?;
    let was_opened = root.is_none_or(|root| root.segment.0 > 0);
    let named: Vec<CheckpointNo> = match checkpoint {
        Some(checkpoint) => checkpoint.files.clone(),
        // The journal has lost what names them.
        None if was_opened => there.keys().copied().collect(),
        None => Vec::new(),
    };
    let mut known = Known { lacks_states: checkpoint.is_none() && was_opened, ..Known::default() };
    for number in there.keys().filter(|number| !named.contains(number)) {
        let (path, cause) = (checkpoint_path(shard, *number), "no checkpoint names it");
        store.findings.push(StoreFinding::note(FindingKind::Leftover, &path, cause));
    }
    for number in named {
        let path = checkpoint_path(shard, number);
        if !there.contains_key(&number) {
            let (kind, cause) = (FindingKind::CheckpointMissing, "it is missing, and the last checkpoint names it");
            store.findings.push(StoreFinding::loss(kind, &path, 0, cause));
            known.lacks_states = true;
            continue;
        }
        match survey(&**disk, &path, store.uuid, shard, number) {
            Ok(found) => take(store, disk, &mut known, &path, found),
            Err(error) => {
                store.findings.push(StoreFinding::loss(FindingKind::Unreadable, &path, 0, error));
                known.lacks_states = true;
            }
        }
    }
    Ok(known)
}

fn list(disk: &dyn Disk, shard: ShardId, findings: &mut Vec<StoreFinding>) -> io::Result<BTreeMap<CheckpointNo, ()>> {
    let dir = checkpoint_dir(shard);
    let entries = match disk.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries?,
    };
    let mut there = BTreeMap::new();
    for entry in entries {
        match checkpoint_number(&entry.name).filter(|_| !entry.is_dir) {
            Some(number) => _ = there.insert(number, ()),
            None => {
                let (path, cause) = (format!("{dir}/{}", entry.name), "it has the name of no checkpoint file");
                findings.push(StoreFinding::note(FindingKind::UnknownFile, &path, cause));
            }
        }
    }
    Ok(there)
}

fn take(store: &mut Survey, disk: &Arc<dyn Disk>, known: &mut Known, path: &str, found: CheckpointSurvey) {
    store.bytes += found.bytes;
    store.checkpoint_files += 1;
    for (offset, error) in &found.unreadable {
        store.findings.push(StoreFinding::loss(FindingKind::Unreadable, path, *offset, error));
        known.lacks_states = true;
    }
    if let Some(cause) = &found.header {
        store.findings.push(StoreFinding::loss(FindingKind::CheckpointHeader, path, 0, cause));
        known.lacks_states = true;
    }
    for (offset, cause) in &found.bad_states {
        let cause = format!("{cause}; whose state it is cannot be told");
        store.findings.push(StoreFinding::loss(FindingKind::CheckpointState, path, *offset, cause));
        known.lacks_states = true;
    }
    if found.missing > found.bad_states.len() as u64 {
        let cause = format!("{} states fewer than its header says", found.missing);
        store.findings.push(StoreFinding::loss(FindingKind::CheckpointState, path, 0, cause));
        known.lacks_states = true;
    }
    let file: Arc<str> = path.into();
    for surveyed in found.states {
        let (state, id) = (&surveyed.state, ChannelId(surveyed.state.id));
        if known.plans.get(&id).is_some_and(|plan| plan.state_lsn() > state.lsn) {
            continue;
        }
        check_epochs(store, &surveyed.state, path, surveyed.offset);
        known.plans.insert(id, Plan::of_state(state, StoredTail::new(disk, &file, state), path));
    }
}

fn check_epochs(store: &mut Survey, state: &crate::store::checkpoint::ChannelState, path: &str, offset: u64) {
    let in_order = state.epochs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
    let known = store.store.as_ref().map_or(u32::MAX, |store| store.epoch.0);
    let above = state.epochs.iter().any(|(epoch, first)| *epoch > known || *first > state.end);
    if in_order && !above {
        return;
    }
    let cause = "the epochs of the channel are not in order, or above that of STORE";
    let finding = StoreFinding::new(FindingKind::Epochs, Severity::Redundant, path, offset, cause);
    store.findings.push(finding.of(&FoundChannel::new(ChannelId(state.id), Some(&state.name))));
}
