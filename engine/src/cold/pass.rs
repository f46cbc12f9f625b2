//! A pass over a channel: brings local disk, manifest and cold store to what the channel's list of segments and its policy
//! say.
//!
//! ```text
//!  1. the manifest: in memory, else the file, else made from a listing (then it must have all that is not local)
//!  2. once after an opening: objects that the manifest does not name are orphans of a crash
//!  3. segments that left the list leave the manifest; durable; then their objects are deleted
//!  4. segments that the policy sends away: upload, verify, manifest, durable
//!  5. their local pairs: unlink, sync the directory
//! ```
//!
//! Promises: whatever step a crash interrupts, the next pass goes on from what is there. Nothing is deleted in the cold store
//! that a durable manifest names, and no local pair goes whose object a durable manifest does not name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::ColdObject;
use super::channel::{ColdChannel, OpenObject, PassState, fetch_header, fetch_table};
use super::codec::Compression;
use super::failure::ColdError;
use super::failure::damaged;
use super::manifest::{self, ColdManifest, ColdSegment};
use super::object::{channel_prefix, parse_key, store_prefix};
use super::stats::add;
use super::tier::ColdTier;
use super::upload::{LocalSegment, is_whole_copy, upload};
use crate::channel::Channel;
use crate::config::ColdPolicy;
use crate::ids::{ChannelId, Seq};
use crate::io::Disk;
use crate::segment::path::{channel_dir, dat_path, idx_path};
use crate::segment::read::OnDisk;
use crate::shard::handle::ShardHandle;
use crate::store::checkpoint::SegmentState;

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ColdPass {
    /// Segments uploaded and verified.
    pub uploaded: u64,
    /// Local pairs unlinked.
    pub unlinked: u64,
    /// Objects deleted.
    pub deleted: u64,
}

/// A pass under way.
struct Pass<'a> {
    cold: &'a Arc<ColdChannel>,
    on_disk: &'a OnDisk,
    state: &'a mut PassState,
    policy: ColdPolicy,
    /// Sealed segments of the channel: first sequence and end.
    list: BTreeMap<Seq, Seq>,
    /// Those whose seal a checkpoint covers, oldest first.
    covered: Vec<SegmentState>,
    /// First sequences of the segments with a file on the local disk.
    local: BTreeSet<Seq>,
    manifest: ColdManifest,
    done: ColdPass,
}

/// Makes a pass over a channel.
pub fn pass(channel: &Channel) -> io::Result<ColdPass> {
    let Some(persistence) = channel.persistence() else { return Ok(ColdPass::default()) };
    let on_disk = &persistence.on_disk;
    let Some(cold) = on_disk.cold() else { return Ok(ColdPass::default()) };
    let mut state = cold.pass_state();
    if cold.is_deleted() {
        return Ok(ColdPass::default());
    }
    cold.tier.check_over()?;
    // The entry first: a segment that leaves the list meanwhile is not taken for one that stays.
    let known = persistence.shard.known().get(&channel.id()).map(|located| located.state.clone());
    let list: BTreeMap<Seq, Seq> = on_disk.sealed().into_iter().collect();
    let covered = known.filter(|known| !known.deleted).map_or_else(Vec::new, |known| {
        let stays =
            |segment: &&SegmentState| segment.sealed && list.get(&Seq(segment.first)) == Some(&Seq(segment.end));
        known.segments.iter().filter(stays).copied().collect()
    });
    if list.is_empty() && cold.manifest().is_none() && !manifest::has_manifest(&*cold.tier.disk, cold.id) {
        // Nothing was ever sealed, so nothing is there, and no listing is needed to know it.
        return Ok(ColdPass::default());
    }
    let local = local_segments(&*cold.tier.disk, cold.id)?;
    let mut pass = Pass {
        cold,
        on_disk,
        state: &mut state,
        policy: channel.config.get().cold(),
        list,
        covered,
        local,
        manifest: ColdManifest::new(cold.tier.uuid, cold.id),
        done: ColdPass::default(),
    };
    pass.run()
}

/// First sequences of the segments that have a file in the channel's directory.
fn local_segments(disk: &dyn Disk, channel: ChannelId) -> io::Result<BTreeSet<Seq>> {
    let entries = match disk.list(&channel_dir(channel)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        result => result?,
    };
    let first = |name: &str| name.strip_suffix(".idx").or_else(|| name.strip_suffix(".dat"))?.parse().ok().map(Seq);
    Ok(entries.iter().filter_map(|entry| first(&entry.name)).collect())
}

impl Pass<'_> {
    fn tier(&self) -> &Arc<ColdTier> {
        &self.cold.tier
    }

    fn run(&mut self) -> io::Result<ColdPass> {
        self.take_manifest()?;
        // First: a manifest that has become too large gets smaller by nothing else.
        self.drop_what_left_the_list()?;
        if !self.state.swept {
            self.find_orphans()?;
            self.state.swept = true;
        }
        // Before an upload: so there are never two objects of one segment for longer than a crash takes.
        self.delete_doomed()?;
        self.send_away()?;
        self.delete_doomed()?;
        Ok(self.done)
    }

    fn local_segment(&self, first: Seq, end: Seq) -> io::Result<Option<LocalSegment>> {
        LocalSegment::open(&*self.tier().disk, self.cold.id, first, end)
    }

    /// The manifest; made from a listing if it is lost.
    fn take_manifest(&mut self) -> io::Result<()> {
        if self.state.durable
            && let Some(manifest) = self.cold.manifest()
        {
            self.manifest = (*manifest).clone();
            return Ok(());
        }
        if let Some(manifest) = self.cold.load()? {
            self.manifest = manifest;
            // Its name may not be durable: a killed process may have renamed it.
            self.tier().disk.sync_dir(&channel_dir(self.cold.id))?;
        } else {
            self.rebuild()?;
        }
        self.state.durable = true;
        self.cold.set_manifest(self.manifest.clone());
        Ok(())
    }

    /// Makes the manifest from what the cold store holds, and makes it durable. What is local too is left out: nobody has
    /// compared the two.
    fn rebuild(&mut self) -> io::Result<()> {
        let mut manifest = self.cold.rebuild()?;
        let is_only_cold = |segment: &&ColdSegment| !self.local.contains(&Seq(segment.first));
        manifest.segments =
            manifest.segments.iter().filter(is_only_cold).filter_map(|segment| of_list(&self.list, segment)).collect();
        let is_missing = |first: &&Seq| !self.local.contains(first) && manifest.segment(**first).is_none();
        if let Some(first) = self.list.keys().find(is_missing) {
            let what = format!(
                "the listing of the cold store does not have the segment that begins with event {first}, nor has the local disk"
            );
            return Err(damaged(what));
        }
        if manifest.segments.is_empty() && self.local.is_empty() {
            // A channel without files has no directory yet.
            self.manifest = manifest;
            return Ok(());
        }
        manifest::write(&*self.tier().disk, &manifest)?;
        self.manifest = manifest;
        Ok(())
    }

    /// Objects that no manifest names: of an upload or a deletion that a crash has cut off.
    fn find_orphans(&mut self) -> io::Result<()> {
        let named = self.manifest.segments.iter().map(|segment| self.manifest.key(segment));
        let known: BTreeSet<String> = named.chain(self.state.doomed.iter().cloned()).collect();
        for object in self.tier().store.list(&self.cold.prefix())? {
            if known.contains(&object.key) {
                continue;
            }
            let Some((_, first, hash)) = parse_key(self.tier().uuid, &object.key) else {
                tracing::warn!(key = object.key, "unknown object in the cold store");
                continue;
            };
            let is_only_copy = self.manifest.segment(first).is_none()
                && self.list.contains_key(&first)
                && !self.local.contains(&first);
            if is_only_copy {
                self.take_back(&object)?;
            } else if !self.adopt(&object.key, object.size, first, hash)? {
                self.state.doomed.push(object.key);
            }
        }
        Ok(())
    }

    /// The manifest has forgotten a segment that is not local either: an old copy of it was put back, say. The object is what
    /// there is; one that is not whole stays for whoever may mend it.
    fn take_back(&mut self, object: &ColdObject) -> io::Result<()> {
        let described = self.cold.describe(object)?;
        let Some((segment, _)) = described else { return Ok(()) };
        if let Some(segment) = of_list(&self.list, &segment) {
            self.manifest.insert(segment);
            self.write_manifest()?;
            add(&self.tier().counters.adopted, 1);
        }
        Ok(())
    }

    /// Takes an orphan into the manifest if it is the whole copy of a segment that is to go.
    fn adopt(&mut self, key: &str, size: u64, first: Seq, hash: u64) -> io::Result<bool> {
        let wanted = self.to_send().into_iter().find(|segment| segment.first == first.0);
        let Some(end) = wanted.map(|segment| Seq(segment.end)).filter(|_| self.manifest.segment(first).is_none())
        else {
            return Ok(false);
        };
        let Some(local) = self.local_segment(first, end)?.filter(|local| local.hash == hash) else { return Ok(false) };
        let opened = fetch_header(&*self.tier().store, key).and_then(|(header, header_crc)| {
            let chunks = fetch_table(&*self.tier().store, key, &header, header_crc, size)?;
            Ok(OpenObject { no: self.tier().object_no(), key: key.to_owned(), header, header_crc, chunks })
        });
        let object = match opened {
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) => {
                return Ok(false);
            }
            result => result?,
        };
        if !is_whole_copy(self.tier(), &object, size, &local)? {
            return Ok(false);
        }
        let segment = ColdSegment::of(&object.header, object.header_crc, &object.chunks);
        self.manifest.insert(ColdSegment { end: end.0, ..segment });
        self.write_manifest()?;
        add(&self.tier().counters.adopted, 1);
        Ok(true)
    }

    /// Makes the manifest durable, and readers go by it.
    fn write_manifest(&mut self) -> io::Result<()> {
        self.state.durable = false;
        manifest::write(&*self.tier().disk, &self.manifest)?;
        self.state.durable = true;
        self.cold.set_manifest(self.manifest.clone());
        Ok(())
    }

    /// Segments that were trimmed, truncated or reset leave the manifest, and one that was cut off ends where the channel's
    /// list has it. One that began anew at the same place has another hash.
    fn drop_what_left_the_list(&mut self) -> io::Result<()> {
        let mut stay = Vec::new();
        let mut left = Vec::new();
        for segment in &self.manifest.segments {
            match of_list(&self.list, segment) {
                Some(present) if !self.is_other_than_local(segment)? => stay.push(present),
                _ => left.push(self.manifest.key(segment)),
            }
        }
        if stay == self.manifest.segments {
            return Ok(());
        }
        self.manifest.segments = stay;
        self.write_manifest()?;
        self.state.doomed.append(&mut left);
        Ok(())
    }

    /// Whether the local disk has another segment that begins at the same place.
    fn is_other_than_local(&self, segment: &ColdSegment) -> io::Result<bool> {
        let first = Seq(segment.first);
        if !self.local.contains(&first) {
            return Ok(false);
        }
        Ok(self.local_segment(first, first)?.is_some_and(|local| local.hash != segment.hash))
    }

    fn delete_doomed(&mut self) -> io::Result<()> {
        while let Some(key) = self.state.doomed.last() {
            self.cold.tier.check_over()?;
            self.cold.tier.store.delete(key)?;
            tracing::debug!(channel = %self.cold.id, key, "cold object deleted");
            self.state.doomed.pop();
            add(&self.cold.tier.counters.deleted, 1);
            self.done.deleted += 1;
        }
        Ok(())
    }

    /// Covered segments that the policy keeps no more on the local disk, oldest first.
    fn to_send(&self) -> Vec<SegmentState> {
        let keep = self.policy.keeps(self.covered.iter().map(local_bytes));
        self.covered[..self.covered.len() - keep].to_vec()
    }

    /// Sends segments away. One that is damaged on the local disk stays, and is reported at the end.
    fn send_away(&mut self) -> io::Result<()> {
        let mut failed = None;
        for segment in self.to_send() {
            match self.send(Seq(segment.first), Seq(segment.end)) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => failed = failed.or(Some(error)),
                result => result?,
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn send(&mut self, first: Seq, end: Seq) -> io::Result<()> {
        self.tier().check_over()?;
        if !self.local.contains(&first) || self.cold.is_deleted() {
            return Ok(());
        }
        if self.manifest.segment(first).is_none() {
            manifest::check_room_for_another(&self.manifest)?;
            let Some(local) = self.local_segment(first, end)? else { return Ok(()) };
            let segment = upload(self.tier(), &self.cold.name, &local, Compression::of(self.policy.zstd_level))?;
            let segment = ColdSegment { end: end.0, ..segment };
            self.manifest.insert(segment);
            let key = self.manifest.key(&segment);
            self.state.doomed.retain(|doomed| *doomed != key);
            if let Err(error) = self.write_manifest() {
                self.manifest.segments.retain(|other| *other != segment);
                // What is named on disk is unknown now: it is looked at again.
                self.state.swept = false;
                return Err(error);
            }
            self.done.uploaded += 1;
            tracing::debug!(channel = %self.cold.id, segment = %first, end = %end, bytes = segment.size, "segment uploaded");
        }
        self.unlink(first)
    }

    /// The manifest is durable: the local pair goes.
    fn unlink(&mut self, first: Seq) -> io::Result<()> {
        self.on_disk.forget_files(first);
        let disk = &self.tier().disk;
        for path in [idx_path(self.cold.id, first), dat_path(self.cold.id, first)] {
            match disk.unlink(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        disk.sync_dir(&channel_dir(self.cold.id))?;
        // Who has opened one meanwhile would keep its space.
        self.on_disk.forget_files(first);
        self.local.remove(&first);
        add(&self.tier().counters.unlinked, 1);
        self.done.unlinked += 1;
        Ok(())
    }
}

/// A cold segment as the channel's list has it, if it is one of the channel's: one that was cut off ends earlier.
pub fn of_list(list: &BTreeMap<Seq, Seq>, segment: &ColdSegment) -> Option<ColdSegment> {
    let end = list.get(&Seq(segment.first))?.0;
    (end <= segment.end).then_some(ColdSegment { end, ..*segment })
}

/// Bytes that a sealed segment takes on the local disk.
fn local_bytes(segment: &SegmentState) -> u64 {
    let idx = super::object::idx_size(Seq(segment.first), Seq(segment.end));
    idx + u64::from(segment.dat_size).next_multiple_of(crate::io::BLOCK_SIZE as u64)
}

/// Makes the manifest of a channel anew from a listing, whatever the local one says; gives the number of its segments.
pub fn rebuild(channel: &Channel) -> io::Result<u64> {
    let Some(persistence) = channel.persistence() else { return Ok(0) };
    let on_disk = &persistence.on_disk;
    let Some(cold) = on_disk.cold() else { return Ok(0) };
    let mut state = cold.pass_state();
    let mut pass = Pass {
        cold,
        on_disk,
        state: &mut state,
        policy: channel.config.get().cold(),
        list: on_disk.sealed().into_iter().collect(),
        covered: Vec::new(),
        local: local_segments(&*cold.tier.disk, cold.id)?,
        manifest: ColdManifest::new(cold.tier.uuid, cold.id),
        done: ColdPass::default(),
    };
    pass.rebuild()?;
    let count = pass.manifest.segments.len() as u64;
    let manifest = std::mem::replace(&mut pass.manifest, ColdManifest::new(cold.tier.uuid, cold.id));
    cold.set_manifest(manifest);
    state.durable = true;
    // What it had and has no more is looked for by the next pass.
    state.swept = false;
    Ok(count)
}

/// Deletes all objects of a channel; gives their number.
pub fn delete_all(tier: &ColdTier, channel: ChannelId) -> io::Result<u64> {
    let objects = tier.store.list(&channel_prefix(tier.uuid, channel))?;
    let mut deleted = 0;
    for object in objects.iter().filter(|object| parse_key(tier.uuid, &object.key).is_some()) {
        tier.check_over()?;
        tier.store.delete(&object.key)?;
        add(&tier.counters.deleted, 1);
        deleted += 1;
    }
    Ok(deleted)
}

/// Deletes all objects of channels that the store does not have any more; gives their number. A channel that has objects was in
/// a checkpoint before, so that each of those that exist is known.
pub fn sweep_store(tier: &ColdTier, shards: &[Arc<ShardHandle>]) -> Result<u64, ColdError> {
    let failed = |channel: String, what| move |source| ColdError::Failed { channel, what, source: Arc::new(source) };
    let objects = tier.store.list(&store_prefix(tier.uuid));
    let objects = objects.map_err(failed("(all)".to_owned(), "list the cold store"))?;
    let channels: BTreeSet<ChannelId> =
        objects.iter().filter_map(|object| parse_key(tier.uuid, &object.key)).map(|(channel, ..)| channel).collect();
    let exists = |channel: &ChannelId| {
        shards.iter().any(|shard| shard.known().get(channel).is_some_and(|located| !located.state.deleted))
    };
    let mut deleted = 0;
    for channel in channels.into_iter().filter(|channel| !exists(channel)) {
        let gone = delete_all(tier, channel);
        deleted += gone.map_err(failed(channel.to_string(), "delete the objects of a deleted channel"))?;
    }
    Ok(deleted)
}
