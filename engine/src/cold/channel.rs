//! The cold segments of one channel, as readers and passes share them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::failure::{ColdFailure, damaged};
use super::file::TieredFile;
use super::manifest::{self, ColdManifest, ColdSegment, check_header};
use super::object::{
    Chunk, OBJECT_HEADER_SIZE, ObjectHeader, Part, channel_prefix, chunk_crc, decode_table, parse_key,
};
use super::stats::add;
use super::tier::ColdTier;
use super::{ColdObject, ColdStore, codec};
use crate::ids::{ChannelId, Seq};
use crate::io::{Disk, File, OpenMode};

/// An object whose header and table were read and checked.
#[derive(Debug)]
pub struct OpenObject {
    /// Its number while the store is open.
    pub no: u64,
    /// Its key.
    pub key: String,
    /// Its header.
    pub header: ObjectHeader,
    /// The header's checksum.
    pub header_crc: u32,
    /// Its chunks.
    pub chunks: Vec<Chunk>,
}

/// What readers go by.
#[derive(Debug, Default)]
struct Index {
    /// `None` until somebody needs it.
    manifest: Option<Arc<ColdManifest>>,
    open: HashMap<Seq, Arc<OpenObject>>,
}

/// Objects of a channel whose tables are kept in memory: up to 100 KiB each.
const OPEN_OBJECTS_MAX: usize = 32;

impl Index {
    /// Keeps an object open; the one that was opened first goes for it.
    fn keep_open(&mut self, first: Seq, object: Arc<OpenObject>) {
        if self.open.len() >= OPEN_OBJECTS_MAX {
            let oldest = self.open.iter().min_by_key(|(_, object)| object.no).map(|(first, _)| *first);
            oldest.map(|first| self.open.remove(&first));
        }
        self.open.insert(first, object);
    }
}

/// What belongs to the pass that is under way.
#[derive(Debug, Default)]
pub struct PassState {
    /// Whether the manifest in memory is durable.
    pub durable: bool,
    /// Whether objects were compared with the manifest since the channel was opened.
    pub swept: bool,
    /// Objects that no manifest names any more.
    pub doomed: Vec<String>,
    /// Passes that failed in a row.
    pub failures: u32,
}

/// See the module's text.
#[derive(Debug)]
pub struct ColdChannel {
    /// What it shares with others.
    pub tier: Arc<ColdTier>,
    /// Its id.
    pub id: ChannelId,
    /// Its name.
    pub name: String,
    /// Whether a pass waits in the queue.
    pub queued: AtomicBool,
    /// Whether it has had cold segments.
    concerned: AtomicBool,
    deleted: AtomicBool,
    pass: Mutex<PassState>,
    index: Mutex<Index>,
}

impl ColdChannel {
    /// The cold half of a channel that was opened. Looks whether it has a manifest; reads nothing.
    pub fn new(tier: Arc<ColdTier>, id: ChannelId, name: &str) -> Arc<Self> {
        let concerned = manifest::has_manifest(&*tier.disk, id);
        Arc::new(Self {
            tier,
            id,
            name: name.to_owned(),
            queued: AtomicBool::new(false),
            concerned: AtomicBool::new(concerned),
            deleted: AtomicBool::new(false),
            pass: Mutex::default(),
            index: Mutex::default(),
        })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no panic while the lock is held")
    }

    /// The pass's own; one pass at a time.
    pub fn pass_state(&self) -> MutexGuard<'_, PassState> {
        self.pass.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether it has had cold segments: then passes go on also without a policy.
    pub fn is_concerned(&self) -> bool {
        self.concerned.load(Ordering::Relaxed)
    }

    /// The channel is deleted: nothing is uploaded any more.
    pub fn set_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    /// Whether the channel is deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// What all its objects' keys begin with.
    pub fn prefix(&self) -> String {
        channel_prefix(self.tier.uuid, self.id)
    }

    fn store(&self) -> &dyn ColdStore {
        &*self.tier.store
    }

    /// The manifest in memory.
    pub fn manifest(&self) -> Option<Arc<ColdManifest>> {
        self.index().manifest.clone()
    }

    /// The manifest as the local disk has it, if it is whole there.
    pub fn load(&self) -> io::Result<Option<ColdManifest>> {
        manifest::read(&*self.tier.disk, self.tier.uuid, self.id)
    }

    /// From now on readers go by this manifest.
    pub fn set_manifest(&self, manifest: ColdManifest) {
        self.concerned.store(true, Ordering::Relaxed);
        let mut index = self.index();
        let Index { manifest: present, open } = &mut *index;
        open.retain(|first, object| {
            manifest.segment(*first).is_some_and(|segment| segment.header_crc == object.header_crc)
        });
        *present = Some(Arc::new(manifest));
    }

    /// For a reader: from memory, from the local disk, or from a listing.
    pub fn manifest_for_reader(&self) -> io::Result<Arc<ColdManifest>> {
        if let Some(manifest) = self.manifest() {
            return Ok(manifest);
        }
        let manifest = match self.load()? {
            Some(manifest) => manifest,
            None => self.rebuild()?,
        };
        let mut index = self.index();
        // A pass may have been quicker, and knows better.
        Ok(index.manifest.get_or_insert_with(|| Arc::new(manifest)).clone())
    }

    /// The object of a segment.
    ///
    /// # Errors
    ///
    /// [`ColdFailure`]s: `NotFound` if the cold store has none.
    pub fn object(&self, first: Seq) -> io::Result<Arc<OpenObject>> {
        if let Some(object) = self.index().open.get(&first) {
            return Ok(object.clone());
        }
        let prefix = self.prefix();
        let mut manifest = self.manifest_for_reader().map_err(ColdFailure::io(&prefix, 0))?;
        if manifest.segment(first).is_none() {
            // One that was made of an incomplete listing, or an old copy: the listing of now decides.
            let rebuilt = self.rebuild().map_err(ColdFailure::io(&prefix, 0))?;
            manifest = Arc::new(rebuilt);
        }
        let Some(segment) = manifest.segment(first) else {
            let what = format!("the cold store has no object of the segment that begins with event {first}");
            return Err(ColdFailure::io(&prefix, 0)(io::Error::new(io::ErrorKind::NotFound, what)));
        };
        let key = manifest.key(segment);
        let object = Arc::new(self.open_object(segment, &key).map_err(ColdFailure::io(&key, 0))?);
        self.index().keep_open(first, object.clone());
        Ok(object)
    }

    fn open_object(&self, segment: &ColdSegment, key: &str) -> io::Result<OpenObject> {
        let (header, header_crc) = fetch_header(self.store(), key)?;
        let header = check_header(segment, (header, header_crc)).map_err(damaged)?;
        let chunks = fetch_table(self.store(), key, &header, header_crc, segment.size)?;
        Ok(OpenObject { no: self.tier.object_no(), key: key.to_owned(), header, header_crc, chunks })
    }

    /// A chunk of an object, from memory or from the cold store. What comes damaged is fetched once more: the object may be
    /// whole, and only the answer was not.
    pub fn chunk(&self, object: &OpenObject, index: u64) -> io::Result<Bytes> {
        let counters = &self.tier.counters;
        if let Some(chunk) = self.tier.cache.get((object.no, index)) {
            add(&counters.cache_hits, 1);
            return Ok(chunk);
        }
        let fetch = || {
            add(&counters.fetches, 1);
            add(&counters.fetched_bytes, u64::from(object.chunks[index as usize].stored_len));
            fetch_chunk(self.store(), object, index)
        };
        let chunk = match fetch() {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => fetch(),
            result => result,
        };
        let chunk = chunk.map_err(ColdFailure::io(&object.key, object.chunks[index as usize].offset))?;
        self.tier.cache.put((object.no, index), chunk.clone());
        Ok(chunk)
    }

    /// Makes a manifest of what the cold store holds of this channel. Damaged objects are left out; of two that begin at one
    /// place the one uploaded later counts. Segments that the channel no longer has may be among them, and overlap others:
    /// its list decides.
    pub fn rebuild(&self) -> io::Result<ColdManifest> {
        let objects = self.store().list(&self.prefix())?;
        let mut found: BTreeMap<u64, (ColdSegment, u32)> = BTreeMap::new();
        for object in &objects {
            self.tier.check_over()?;
            let Some((segment, epoch)) = self.describe(object)? else { continue };
            if found.get(&segment.first).is_none_or(|(_, other)| *other <= epoch) {
                found.insert(segment.first, (segment, epoch));
            }
        }
        add(&self.tier.counters.rebuilds, 1);
        let segments: Vec<ColdSegment> = found.into_values().map(|(segment, _)| segment).collect();
        tracing::info!(channel = %self.id, objects = objects.len(), segments = segments.len(), "manifest of cold segments made from a listing");
        Ok(ColdManifest { segments, ..ColdManifest::new(self.tier.uuid, self.id) })
    }

    /// What an object says of itself, and the epoch of its upload; `None` if it is damaged or something else.
    pub fn describe(&self, object: &ColdObject) -> io::Result<Option<(ColdSegment, u32)>> {
        let key = &object.key;
        let Some((_, first, hash)) = parse_key(self.tier.uuid, key).filter(|(channel, ..)| *channel == self.id) else {
            tracing::warn!(key, "unknown object in the cold store");
            return Ok(None);
        };
        let described = fetch_header(self.store(), key).and_then(|(header, crc)| {
            let chunks = fetch_table(self.store(), key, &header, crc, object.size)?;
            Ok((header, crc, chunks))
        });
        match described {
            Ok((header, crc, chunks)) => {
                let place = (header.uuid, header.channel, header.first, header.hash);
                if place != (self.tier.uuid, self.id, first, hash) {
                    tracing::warn!(key, "an object of the cold store belongs elsewhere");
                    return Ok(None);
                }
                Ok(Some((ColdSegment::of(&header, crc, &chunks), header.epoch.0)))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) => {
                tracing::warn!(key, %error, "an object of the cold store is not whole");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a file of a sealed segment where it is: on the local disk, else in the cold store, which is not asked before
    /// something is read.
    pub fn open_file(
        self: &Arc<Self>,
        disk: &dyn Disk,
        path: &str,
        first: Seq,
        part: Part,
    ) -> io::Result<Arc<dyn File>> {
        let local = match disk.open_segment(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            result => Some(result?),
        };
        Ok(Arc::new(TieredFile::new(local, self.clone(), first, part, path)))
    }
}

/// Exactly these bytes of an object.
fn fetch(store: &dyn ColdStore, key: &str, offset: u64, len: u64) -> io::Result<Bytes> {
    let bytes = store.get_range(key, offset..offset + len)?;
    if bytes.len() as u64 == len {
        return Ok(bytes);
    }
    Err(damaged(format!("{} bytes came where {len} should be", bytes.len())))
}

/// Reads and checks the header of an object.
pub fn fetch_header(store: &dyn ColdStore, key: &str) -> io::Result<(ObjectHeader, u32)> {
    let bytes = fetch(store, key, 0, OBJECT_HEADER_SIZE as u64)?;
    ObjectHeader::decode(&bytes).map_err(damaged)
}

/// Reads and checks the table of an object of this size.
pub fn fetch_table(
    store: &dyn ColdStore,
    key: &str,
    header: &ObjectHeader,
    header_crc: u32,
    size: u64,
) -> io::Result<Vec<Chunk>> {
    let len = header.table_size();
    let offset = size.checked_sub(len).ok_or_else(|| damaged("the object is shorter than its table"))?;
    let bytes = fetch(store, key, offset, len)?;
    decode_table(&bytes, header, header_crc, size).map_err(damaged)
}

/// Reads a chunk, and checks it.
pub fn fetch_chunk(store: &dyn ColdStore, object: &OpenObject, index: u64) -> io::Result<Bytes> {
    let chunk = &object.chunks[index as usize];
    let stored = fetch(store, &object.key, chunk.offset, u64::from(chunk.stored_len))?;
    let found = chunk_crc(object.header_crc, index, &stored);
    if found != chunk.crc32c {
        let what = format!("checksum of chunk {index} is {found:#010x}, the table says {:#010x}", chunk.crc32c);
        return Err(damaged(what));
    }
    codec::decode(object.header.codec, stored, object.header.len_of(index))
}
