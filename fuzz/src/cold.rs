//! Histories whose old segments go to a cold store: how much stays, and what must hold of the manifests.

use std::sync::Arc;

use redex::format::cold_manifest::ColdManifest;
use redex::format::cold_object::ObjectHeader;
use redex::sim::{ManualClock, SimColdStore, SimDisk, SimSettings, SimStore};
use redex::{OpenError, RedexFileConfig};

use crate::dice::Dice;

/// The cold store of a history. It draws by itself, so that the others are as they are without it.
#[derive(Debug)]
pub struct Cold {
    store: SimColdStore,
    dice: Dice,
}

impl Cold {
    /// An empty one, whose changes are steps of this disk.
    #[must_use]
    pub fn new(seed: u64, disk: &SimDisk) -> Self {
        Self { store: SimColdStore::on(disk), dice: Dice::new(seed.rotate_left(32) ^ 0xc01d) }
    }

    /// Another that holds the same, for a copy of the disk.
    #[must_use]
    pub fn fork(&self, disk: &SimDisk) -> Self {
        Self { store: self.store.fork(disk), dice: self.dice.clone() }
    }

    /// Draws from this seed from now on.
    pub fn turn_to(&mut self, seed: u64) {
        self.dice = Dice::new(seed);
    }

    /// What of a channel stays on the disk.
    pub fn policy(&mut self, config: RedexFileConfig) -> RedexFileConfig {
        match self.dice.within(0..6) {
            0 => config,
            1 => config.with_cold_keep_bytes(self.dice.pick(&[0, 40 << 10, 200 << 10])),
            _ => config.with_segment_bytes(16 << 10).with_cold_keep_segments(self.dice.within(0..3)),
        }
    }

    /// Opens the store with it.
    ///
    /// # Errors
    ///
    /// As [`SimStore::open_with_cold`].
    pub fn open(
        &self,
        disk: &SimDisk,
        settings: &SimSettings,
        clock: &Arc<ManualClock>,
        seed: u64,
    ) -> Result<SimStore, OpenError> {
        SimStore::open_with_cold(disk, settings, clock, seed, Arc::new(self.store.clone()))
    }

    /// No manifest is damaged, and none points at what is not there. A disk that loses writes may damage one, and says nothing.
    ///
    /// # Errors
    ///
    /// The manifest, and what is wrong with it.
    pub fn check(&self, disk: &SimDisk, faults: bool) -> Result<(), String> {
        for path in disk.list_all().into_iter().filter(|path| path.ends_with("/COLD")) {
            let bytes = disk.read_file(&path).unwrap_or_default();
            let manifest = match ColdManifest::decode(&bytes) {
                Err(_) if faults => continue,
                Err(error) => return Err(format!("{path}: {error}")),
                Ok(manifest) => manifest,
            };
            for segment in &manifest.segments {
                let key = manifest.key(segment);
                let object =
                    self.store.object(&key).ok_or_else(|| format!("{path} points at {key}, which is not there"))?;
                let header = object.get(..4096).map(ObjectHeader::decode);
                let is_whole = matches!(header, Some(Ok((_, crc))) if crc == segment.header_crc);
                if !is_whole || object.len() as u64 != segment.size {
                    return Err(format!("{path} points at {key}, which is another"));
                }
            }
        }
        Ok(())
    }
}
