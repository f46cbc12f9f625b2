//! The channels' names, over all shards.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::channel_name::ChannelName;
use crate::error::OpenError;
use crate::ids::{ChannelId, ShardId};
use crate::shard::checkpoint::Known;
use crate::store::checkpoint::ChannelState;

type Map = HashMap<ChannelName, (ShardId, ChannelId)>;

/// Which channel has which name.
#[derive(Debug, Default)]
pub struct Names(Mutex<Map>);

impl Names {
    fn lock(&self) -> MutexGuard<'_, Map> {
        self.0.lock().expect("no panic while the lock is held")
    }

    /// The channel of this name.
    pub fn get(&self, name: &ChannelName) -> Option<(ShardId, ChannelId)> {
        self.lock().get(name).copied()
    }

    /// A name from the disk.
    pub fn check(name: &str) -> Result<ChannelName, OpenError> {
        let why = "the name breaks the rules";
        ChannelName::new(name).map_err(|_| OpenError::Inconsistent { channel: name.to_owned(), why })
    }

    /// A channel is there. Ids go up: a namesake that is shown already and is newer stays.
    pub fn insert(&self, state: &ChannelState, shard: ShardId) -> Result<(), OpenError> {
        let name = Self::check(&state.name)?;
        let id = ChannelId(state.id);
        let mut names = self.lock();
        let entry = names.entry(name).or_insert((shard, id));
        if entry.1 < id {
            *entry = (shard, id);
        }
        Ok(())
    }

    /// A channel is gone; a namesake of it stays.
    pub fn remove(&self, name: &str, channel: ChannelId) {
        let Ok(name) = ChannelName::new(name) else { return };
        let mut names = self.lock();
        if names.get(&name).is_some_and(|(_, id)| *id == channel) {
            names.remove(&name);
        }
    }

    /// The channels of a shard were found anew.
    pub fn replace(&self, shard: ShardId, known: &Known) -> Result<(), OpenError> {
        self.lock().retain(|_, (of, id)| *of != shard || known.contains_key(id));
        known.values().try_for_each(|located| self.insert(&located.state, shard))
    }
}
