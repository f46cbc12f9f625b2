//! Which of the commits of a life have survived it: over the channels of one shard, a prefix.

use std::collections::BTreeMap;

use redex::sim::{SimChange, SimCommit, SimStore};

use crate::history::{End, World};
use crate::model::Channel;

/// What there is of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Whether it is there at all.
    pub is_there: bool,
    /// First event.
    pub head: u64,
    /// Next event.
    pub end: u64,
}

/// A channel after some commits.
#[derive(Clone, Copy, Debug)]
struct Stand {
    extent: Extent,
    /// How often it was cut off or deleted in this life.
    cuts: u64,
    /// Its first event, if it was made in this life.
    begin: u64,
}

/// What the store says that it has of each channel of the model.
///
/// # Errors
///
/// A channel that was never made.
pub fn survived(world: &World, store: &SimStore) -> Result<Vec<Extent>, String> {
    let infos = store.redex().channels();
    if let Some(stranger) = infos.iter().find(|info| world.channels.iter().all(|c| c.name != info.name.as_str())) {
        return Err(format!("a channel {:?} that was never made", stranger.name.as_str()));
    }
    let of = |channel: &Channel| {
        let info = infos.iter().find(|info| info.name.as_str() == channel.name);
        info.map_or(Extent::default(), |info| Extent { is_there: true, head: info.head_seq, end: info.next_seq })
    };
    Ok(world.channels.iter().map(of).collect())
}

/// For each shard a prefix of its commits survived that has everything that was acknowledged; all of them, if only the
/// process died.
///
/// # Errors
///
/// What was lost, or came back.
pub fn check(world: &World, survived: &[Extent]) -> Result<(), String> {
    let models: BTreeMap<&str, (&Channel, Extent)> = world
        .channels
        .iter()
        .zip(survived)
        .map(|(channel, extent)| (channel.name.as_str(), (channel, *extent)))
        .collect();
    let mut untouched = models.clone();
    for (shard, commits) in world.commits.iter().enumerate() {
        let mut stands = BTreeMap::new();
        for (name, _) in commits.iter().flat_map(|commit| &commit.changes) {
            untouched.remove(name.as_str());
            stands.insert(name.as_str(), Stand { extent: models[name.as_str()].0.base, cuts: 0, begin: 0 });
        }
        check_shard(commits, stands, &models, world.end).map_err(|what| format!("shard {shard}: {what}"))?;
    }
    for (name, (model, extent)) in untouched {
        let stand = Stand { extent: model.base, cuts: 0, begin: 0 };
        misses(&stand, model, extent).map_err(|what| format!("{name}: {what}; nothing was committed"))?;
    }
    Ok(())
}

fn check_shard<'c>(
    commits: &'c [SimCommit],
    mut stands: BTreeMap<&'c str, Stand>,
    models: &BTreeMap<&str, (&Channel, Extent)>,
    end: End,
) -> Result<(), String> {
    let check = |stands: &BTreeMap<&str, Stand>| {
        stands.iter().try_for_each(|(name, stand)| {
            let (model, extent) = models[name];
            misses(stand, model, extent).map_err(|what| format!("{name}: {what}"))
        })
    };
    let mut found = end == End::PowerCut && check(&stands).is_ok();
    for commit in commits {
        for (name, change) in &commit.changes {
            stands.get_mut(name.as_str()).expect("collected before").take(*change);
        }
        found |= end == End::PowerCut && check(&stands).is_ok();
    }
    match check(&stands) {
        Err(what) if !found => {
            let last: Vec<_> = commits.iter().rev().take(12).rev().collect();
            Err(format!(
                "no prefix of its commits survived {end:?}: {what}; {} commits, the last {last:?}",
                commits.len()
            ))
        }
        _ => Ok(()),
    }
}

/// Whether a channel that stands so is not what survived, or lacks what was acknowledged.
fn misses(stand: &Stand, model: &Channel, extent: Extent) -> Result<(), String> {
    if stand.extent != extent {
        return Err(format!("{extent:?} survived, {:?} was committed", stand.extent));
    }
    if stand.cuts < model.cuts {
        return Err(format!("a cut or deletion that counted was taken back: {extent:?}"));
    }
    if stand.cuts > model.cuts {
        // One was on its way, and what it took is gone.
        return Ok(());
    }
    let (floor, next) = (model.floor, model.next());
    if extent.end < floor || extent.end > next {
        return Err(format!("{} events survived of {next}, {floor} were acknowledged as durable", extent.end));
    }
    // A head in memory is durable when it was noted, a commit behind the channel's first.
    if extent.head < model.head && model.began_in_memory.is_none() {
        return Err(format!("the head is {}, it was {} before", extent.head, model.head));
    }
    if !model.may_end_at(extent.end) {
        return Err(format!("{} events survived of {next}: the last is in the midst of a batch", extent.end));
    }
    Ok(())
}

impl Stand {
    fn take(&mut self, change: SimChange) {
        let extent = &mut self.extent;
        match change {
            SimChange::Created { begin } => {
                *extent = Extent { is_there: true, ..Extent::default() };
                self.begin = begin;
            }
            SimChange::Configured => {}
            SimChange::Trimmed(head) => extent.head = extent.head.max(head),
            SimChange::CutOff(end) => {
                (extent.head, extent.end) = (extent.head.min(end), end);
                self.begin = end;
                self.cuts += 1;
            }
            SimChange::Deleted => {
                *extent = Extent::default();
                self.cuts += 1;
            }
            SimChange::Events(end) => {
                if extent.end == 0 {
                    extent.head = extent.head.max(self.begin);
                }
                extent.end = end;
            }
        }
    }
}
