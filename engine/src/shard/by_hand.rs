//! What the simulator looks at beside a shard's turns.

use super::Shard;
use crate::channel_name::ChannelName;
use crate::ids::{Lsn, Seq};

impl Shard {
    /// Operations submitted and not yet reaped.
    pub fn in_flight(&self) -> usize {
        self.driver.in_flight()
    }

    /// See [`ShardHandle::give_up_waiting`](super::handle::ShardHandle::give_up_waiting).
    pub fn give_up_waiting(&self) {
        self.handle.give_up_waiting();
    }

    /// Every commit since the store was opened, in order, and where it left its channels.
    pub fn commit_log(&self) -> impl Iterator<Item = (Lsn, Vec<(ChannelName, Seq)>)> {
        let name = |slot: u32| {
            let active = self.active[slot as usize].as_ref().expect("committed channels are open");
            active.channel.name.clone()
        };
        self.commits
            .log
            .iter()
            .map(move |(lsn, marks)| (*lsn, marks.iter().map(|(slot, end)| (name(*slot), *end)).collect()))
    }
}
