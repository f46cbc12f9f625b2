//! What of a channel fills no block, read from the checkpoint file when it is wanted: the tails of all channels of a store need not
//! lie in memory together.

use std::fmt;
use std::sync::Arc;

use crate::io::{Disk, OpenMode};
use crate::store::checkpoint::{ChannelState, CheckpointError, Tail, TailRef, load_tail};

/// Where a tail lies; nowhere if everything fills blocks.
#[derive(Clone, Default)]
pub struct StoredTail {
    file: Option<(Arc<dyn Disk>, Arc<str>)>,
    id: u64,
    lsn: u64,
    tail: TailRef,
}

impl StoredTail {
    /// That of a state in this checkpoint file.
    pub fn new(disk: &Arc<dyn Disk>, path: &Arc<str>, state: &ChannelState) -> Self {
        Self { file: Some((disk.clone(), path.clone())), id: state.id, lsn: state.lsn, tail: state.tail }
    }

    /// Reads it; or says what is wrong with it.
    pub fn load(&self) -> Result<Tail, &'static str> {
        let Some((disk, path)) = self.file.as_ref().filter(|_| !self.tail.is_empty()) else {
            return Ok(Tail::default());
        };
        let file = disk.open(path, OpenMode::Read).map_err(|_| "a tail cannot be read")?;
        let state = ChannelState { id: self.id, lsn: self.lsn, tail: self.tail, ..ChannelState::default() };
        load_tail(&*file, path, &state).map_err(|error| match error {
            CheckpointError::Damaged { what, .. } => what,
            _ => "a tail cannot be read",
        })
    }
}

impl fmt::Debug for StoredTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.file.as_ref().map(|(_, path)| path);
        f.debug_struct("StoredTail").field("path", &path).field("tail", &self.tail).finish_non_exhaustive()
    }
}
