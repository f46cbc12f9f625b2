//! A reader of a simulated store, polled by hand: no thread, no clock.

use std::sync::Arc;

use super::load::Trouble;
use super::{Follower, Polled, ground};
use crate::channel_name::IntoChannelName;
use crate::clock::{Clock, ManualClock};
use crate::error::{OpenError, OpenFileError, Poisoned};
use crate::io::sim::SimDisk;
use crate::read::offload::Offload;
use crate::read_only::ReadOnlyFile;
use crate::redex::ChannelInfo;

/// Reads a store on a simulated disk beside a [`crate::sim::SimStore`]: `Redex::open_read_only`, without its thread.
#[derive(Debug)]
pub struct SimFollower(Follower);

impl SimFollower {
    /// Finds the store. `None` if that comes at a moment when the writer changes it: try again after a step.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: there is none, or it is damaged; or a file has been taken away between two reads, which another attempt
    /// tells apart.
    pub fn open(disk: &SimDisk, clock: &Arc<ManualClock>) -> Result<Option<Self>, OpenError> {
        let offload = Arc::new(Offload::inline());
        match Follower::open(ground(Arc::new(disk.clone()), Clock::manual(clock.clone()), offload)) {
            Ok(follower) => Ok(Some(Self(follower))),
            Err(Trouble::Moved) => Ok(None),
            Err(Trouble::Failed(error)) => Err(error),
        }
    }

    /// What a writer would say of the journals; nothing while one writes.
    ///
    /// # Errors
    ///
    /// What is damaged.
    pub fn judge(&mut self) -> Result<(), OpenError> {
        match self.0.judge() {
            Ok(()) | Err(Trouble::Moved) => Ok(()),
            Err(Trouble::Failed(error)) => Err(error),
        }
    }

    /// Looks for what has come; says whether something did.
    pub fn poll(&mut self) -> bool {
        let polled = self.0.poll();
        self.0.views().iter().for_each(|view| view.wake());
        polled == Polled::News
    }

    /// The failure that ended it, if there was one.
    #[must_use]
    pub fn poisoned(&self) -> Option<Poisoned> {
        self.0.views().iter().find_map(|view| view.handle.poisoned().cloned())
    }

    /// Opens a channel for reading. `None` while its checkpoint is being replaced: poll, and try again.
    ///
    /// # Errors
    ///
    /// As [`crate::ReadOnlyRedex::open_file`].
    pub fn open_file(&self, name: impl IntoChannelName) -> Result<Option<ReadOnlyFile>, OpenFileError> {
        match self.0.open_channel(&name.into_channel_name()?) {
            Ok(channel) => Ok(Some(ReadOnlyFile::over(channel, None))),
            Err((_, true)) => Ok(None),
            Err((error, false)) => Err(error),
        }
    }

    /// The channels that are there, sorted by name.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.0.channels(|_| true)
    }
}

impl Drop for SimFollower {
    fn drop(&mut self) {
        self.0.views().iter().for_each(|view| view.end());
    }
}
