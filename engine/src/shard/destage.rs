//! From pages to idx and dat: whole blocks, in order, once, behind the journal.
//!
//! One write to a channel's dat and one to its idx at a time: their completions are then in order, and a single one of a
//! megabyte already runs at the device's speed. Nothing is flushed here; a checkpoint does that (design D5).
//!
//! A page leaves memory when its bytes are written and its records are in written index blocks or in the stub.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;

use super::active::{Active, DestageTurn, FilePair, Sealing, Space};
use super::handle::{ShardHandle, Slot};
use super::ops::Purpose;
use super::stats::add;
use super::{MEMORY_SHORT_PERCENT, Shard};
use crate::error::Poisoned;
use crate::ids::Seq;
use crate::io::located::located;
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, Durability, File, IoBuf, OpenMode, Operation};
use crate::segment::block::{BlockPlace, RECORDS_PER_BLOCK, encode_block};
use crate::segment::footer::idx_hash_append;
use crate::segment::path::{CHANNELS_DIR, channel_dir, dat_path, fan_dir, idx_path, meta_path, new_meta_path};
use crate::segment::record::IndexRecord;
use crate::store::meta::{META_SIZE, Meta, MetaError};
use crate::tail::RING_PAGES;

/// Bytes of dat that are worth a write, unless the page is complete.
const DAT_BYTES_MIN: usize = 256 << 10;
/// Index blocks that are worth a write.
const IDX_BLOCKS: usize = 16;
/// Index blocks in one write at the most. One write at a time is under way for a channel: with short events, of which a commit has tens
/// of thousands, small ones would not keep up with the device.
const IDX_BLOCKS_MAX: usize = 128;
/// Buffers for them that a shard keeps.
const IDX_BUFFERS_KEPT: usize = 4;
/// Index blocks that are worth a write when memory is short.
const IDX_BLOCKS_SHORT: usize = 4;
/// Segment writes in flight at the most: more would stand before the commits in the device's queue.
const WRITES_IN_FLIGHT: usize = 16;
/// Segment writes begun, and channels looked at, in one turn at the most: commits wait meanwhile.
const WRITES_A_TURN: usize = 8;
const CHANNELS_A_TURN: usize = 64;
/// Allocation ahead: at first (an idx grows with the events, not with their bytes, and there are many small ones), and the largest step.
const ALLOCATE_FIRST: u64 = 64 << 10;
const ALLOCATE_FIRST_IDX: u64 = 16 << 10;
const ALLOCATE_STEP_MAX: u64 = 64 << 20;

impl Shard {
    /// Puts a channel on the list of those that may have something to destage. One that soon has no room for appends comes
    /// before those that only go into a checkpoint.
    pub(super) fn queue_destage(&mut self, slot: Slot) {
        let active = self.active[slot as usize].as_ref().expect("the channel is open");
        let almost_full = active.written.page_no >= active.dat_page + RING_PAGES / 2;
        self.queue_destage_at(slot, if almost_full { DestageTurn::First } else { DestageTurn::InOrder });
    }

    /// Puts a channel on that list, or moves it to its front.
    pub(super) fn queue_destage_at(&mut self, slot: Slot, turn: DestageTurn) {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        if active.destage_turn >= Some(turn) {
            return;
        }
        let before = active.destage_turn.replace(turn);
        self.destage_queue.push(slot, before, turn);
    }

    /// Submits what is ready, a share each turn. Says whether there is more.
    pub(super) fn destage(&mut self) -> Result<bool, Poisoned> {
        if self.timers.space_retry_at.is_some() {
            return Ok(false);
        }
        let writes_max = (self.segment_writes + WRITES_A_TURN).min(WRITES_IN_FLIGHT);
        for _ in 0..self.destage_queue.len().min(CHANNELS_A_TURN) {
            if self.segment_writes >= writes_max {
                // Their completions bring the next turn.
                return Ok(false);
            }
            let slot = self.destage_queue.pop().expect("as many as counted");
            self.active[slot as usize].as_mut().expect("the channel is open").destage_turn = None;
            let mut active = self.active[slot as usize].take().expect("the channel is open");
            let id = active.channel.id();
            let result = self.destage_channel(&mut active);
            self.active[slot as usize] = Some(active);
            match result {
                Ok(()) => self.undefer(slot),
                // Its files are being made: they put it on the list again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.no_space_found();
                    self.queue_destage(slot);
                    return Ok(false);
                }
                Err(error) => return Err(self.failure("use of a segment file", &channel_dir(id), error)),
            }
        }
        Ok(!self.destage_queue.is_empty())
    }

    /// Submits a write to a segment's file.
    pub(super) fn submit_segment_write(&mut self, purpose: Purpose, operation: Operation) {
        self.segment_writes += 1;
        self.ops.submit(&mut *self.driver, purpose, operation);
    }

    fn destage_channel(&mut self, active: &mut Active) -> io::Result<()> {
        self.destage_dat(active)?;
        self.destage_idx(active)?;
        self.retire_pages(active);
        self.seal_if_complete(active)
    }

    fn destage_dat(&mut self, active: &mut Active) -> io::Result<()> {
        while !active.dat_busy && matches!(active.sealing, Sealing::No) {
            let Some(page) = active.channel.tail.page(active.dat_page) else { return Ok(()) };
            if page.start().segment_first != active.segment.first {
                return Ok(());
            }
            let page_end = page.end().map(|end| end.bytes as usize);
            let (from, to, mut complete) = active.dat_ready(page_end);
            // A segment that ended ahead of time begun it, and nothing came that fits: no commit will ever name it, and an
            // extent of the next page waits for its turn.
            complete |= page.start().prefix == 0 && page_end == Some(0) && active.at.page_no > active.dat_page;
            let prefix = page.start().prefix as usize;
            active.destaged_total = page.start().byte_base + active.dat_byte.saturating_sub(prefix) as u64;
            if active.deferred {
                let end = page.start().dat_start as usize + page.size().bytes();
                self.open_dat(active, end as u64)?;
            }
            if to == from {
                if !complete {
                    return Ok(());
                }
                active.segment.dat_size = page_end.map(|end| page.start().dat_start + end as u32);
                active.dat_page += 1;
                active.dat_byte = 0;
                continue;
            }
            // A deferred channel waits for all of it, whatever a checkpoint has got meanwhile.
            let forced = active.force_destage || active.deferred;
            if !forced && to - from < DAT_BYTES_MIN && !self.is_worth_destaging(active) {
                return Ok(());
            }
            let start = u64::from(page.start().dat_start);
            let offset = start + from as u64;
            let end = active.segment.dat_space.cut(offset, start + to as u64);
            if complete && end == start + to as u64 {
                page.pad();
            }
            let file = self.open_dat(active, end)?;
            let to = (end - start) as usize;
            let buf = IoBuf::Stable(page.blocks(from..to));
            active.dat_busy = true;
            active.segment.dat_dirty = true;
            add(&self.handle.stats.destaged_bytes, (to - from) as u64);
            let purpose = Purpose::Dat { slot: active.slot, byte: to };
            let operation = Operation::Write { file, offset, buf, durability: Durability::Written };
            self.submit_segment_write(purpose, operation);
        }
        Ok(())
    }

    /// Whether a channel has so much to destage, or memory is so short, that small writes are worth it. A channel with
    /// little waits for the checkpoint: so many small channels cost one file, not two each (design D5).
    fn is_worth_destaging(&self, active: &Active) -> bool {
        let pages = active.written.page_no.saturating_sub(active.dat_page);
        let behind = active.written.bytes_total.saturating_sub(active.destaged_total) as usize;
        if pages >= RING_PAGES / 2 || behind >= DAT_BYTES_MIN {
            return true;
        }
        // Those who wait for room get it from whoever has some; else those with more than their share give.
        let small = (self.pages.share_bytes() / 2).clamp(BLOCK_SIZE, DAT_BYTES_MIN);
        let enough = behind >= small || !self.backlogged.is_empty();
        enough && self.pages.used_percent() >= MEMORY_SHORT_PERCENT
    }

    /// Whether a look at what a channel has to destage may find something: by what is at hand, without a look at its pages.
    pub(super) fn has_to_destage(&self, active: &Active) -> bool {
        let records = active.written.seq.0.saturating_sub(active.idx_next.0) as usize;
        active.force_destage
            || active.deferred
            || active.written.segment_first != active.segment.first
            || records >= IDX_BLOCKS * RECORDS_PER_BLOCK
            || self.is_worth_destaging(active)
    }

    /// Blocks of dat were written.
    pub(super) fn dat_written(&mut self, slot: Slot, byte: usize) {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        self.retries_in_vain = 0;
        active.dat_busy = false;
        active.dat_byte = byte;
        active.segment.dat_dirty = true;
        active.tell_dat_done();
        if !active.recovered_tail.is_empty() {
            // The block that was unfinished at the reopen is whole on disk now.
            active.recovered_tail = Bytes::new();
            let persistence = active.channel.persistence().expect("a shard's channels are persistent");
            persistence.on_disk.drop_dat_tail();
        }
        self.queue_destage(slot);
        self.undefer(slot);
    }

    /// An extent was written: the same, by a commit.
    pub(super) fn extent_written(&mut self, slot: Slot, byte: usize, completes_page: bool) {
        self.dat_written(slot, byte);
        if completes_page {
            let active = self.active[slot as usize].as_mut().expect("the channel is open");
            let page = active.channel.tail.page(active.dat_page).expect("pages stay until destaged");
            let end = page.end().expect("complete pages are closed");
            active.segment.dat_size = Some(page.start().dat_start + end.bytes);
            active.dat_page += 1;
            active.dat_byte = 0;
        }
    }

    /// A write found no room: it is tried again.
    pub(super) fn dat_found_no_space(&mut self, slot: Slot) {
        self.active[slot as usize].as_mut().expect("the channel is open").dat_busy = false;
        self.queue_destage(slot);
    }

    /// A write found no room: the blocks are composed again.
    pub(super) fn idx_found_no_space(&mut self, slot: Slot) {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        active.idx_busy = false;
        self.queue_destage(slot);
    }

    /// A channel that waited for its dat file can be committed now.
    pub(super) fn undefer(&mut self, slot: Slot) {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        let Some(page) = active.channel.tail.page(active.at.page_no) else { return };
        let free = !active.dat_busy && active.dat_page == active.at.page_no && active.dat_is_ready_for(&page);
        if active.deferred && free && matches!(active.sealing, Sealing::No) {
            active.deferred = false;
            self.deferred -= 1;
            if !active.queued {
                active.queued = true;
                self.queue.push_back(slot);
            }
            self.commit_now = true;
        }
    }

    fn destage_idx(&mut self, active: &mut Active) -> io::Result<()> {
        if active.idx_busy || !matches!(active.sealing, Sealing::No) {
            return Ok(());
        }
        let end = Self::segment_end(active).map_or(active.written.seq, |end| end.min(active.written.seq));
        let blocks = (end.0.saturating_sub(active.idx_next.0) as usize / RECORDS_PER_BLOCK).min(IDX_BLOCKS_MAX);
        let over = Self::segment_end(active).is_some();
        let enough = blocks >= IDX_BLOCKS || active.force_destage || over;
        if blocks == 0 || !(enough || (blocks >= IDX_BLOCKS_SHORT && self.is_worth_destaging(active))) {
            return Ok(());
        }
        let first = active.segment.first;
        let offset = (active.idx_next.0 - first.0) / RECORDS_PER_BLOCK as u64 * BLOCK_SIZE as u64;
        let end = active.segment.idx_space.cut(offset, offset + (blocks * BLOCK_SIZE) as u64);
        let file = self.open_idx(active, end)?;
        let blocks = (end - offset) as usize / BLOCK_SIZE;
        let count = blocks * RECORDS_PER_BLOCK;
        let records = self.records(active, active.idx_next, count);
        let place = BlockPlace { channel: active.channel.id(), segment_first: first };
        let mut buf = self.idx_buffers.pop().unwrap_or_else(|| AlignedBuf::new(IDX_BLOCKS_MAX * BLOCK_SIZE));
        for (i, records) in records.chunks_exact(RECORDS_PER_BLOCK).enumerate() {
            let base = Seq(active.idx_next.0 + (i * RECORDS_PER_BLOCK) as u64);
            encode_block(&mut buf[i * BLOCK_SIZE..(i + 1) * BLOCK_SIZE], records, base, place);
        }
        self.record_scratch = records;
        let len = blocks * BLOCK_SIZE;
        active.idx_busy = true;
        active.segment.idx_dirty = true;
        add(&self.handle.stats.destaged_bytes, len as u64);
        let purpose = Purpose::Idx { slot: active.slot, end: Seq(active.idx_next.0 + count as u64) };
        let buf = IoBuf::Owned { buf, len };
        let operation = Operation::Write { file, offset, buf, durability: Durability::Written };
        self.submit_segment_write(purpose, operation);
        Ok(())
    }

    /// Index blocks were written.
    pub(super) fn idx_written(&mut self, slot: Slot, end: Seq, buf: Option<AlignedBuf>) {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        if let Some(buf) = buf {
            let blocks = (end.0 - active.idx_next.0) as usize / RECORDS_PER_BLOCK;
            let first_block = (active.idx_next.0 - active.segment.first.0) as usize / RECORDS_PER_BLOCK;
            for (i, block) in buf[..blocks * BLOCK_SIZE].chunks_exact(BLOCK_SIZE).enumerate() {
                active.segment.idx_hash = idx_hash_append(active.segment.idx_hash, block);
                if active.segment.times_complete {
                    active.segment.times.push((first_block + i) as u32, record_time_us(block, 0));
                }
            }
            active.last_time_us = record_time_us(&buf[(blocks - 1) * BLOCK_SIZE..], RECORDS_PER_BLOCK - 1);
            if self.idx_buffers.len() < IDX_BUFFERS_KEPT {
                self.idx_buffers.push(buf);
            }
        }
        self.retries_in_vain = 0;
        active.idx_busy = false;
        active.segment.idx_dirty = true;
        active.idx_next = end;
        active.idx_done = end;
        let persistence = active.channel.persistence().expect("a shard's channels are persistent");
        persistence.on_disk.trim_stub(end);
        self.queue_destage(slot);
    }

    /// First sequence of the next segment, if what is written has come to one.
    pub(super) fn segment_end(active: &Active) -> Option<Seq> {
        // The last page written may be destaged already, and the next one begin the segment.
        (active.dat_page..=active.written.page_no.max(active.dat_page))
            .filter_map(|page_no| active.channel.tail.page(page_no))
            .map(|page| page.start())
            .find(|start| start.segment_first != active.segment.first)
            .map(|start| start.first_seq)
    }

    /// Records of events that are not in whole index blocks yet: from the stub and the pages.
    pub(super) fn records(&mut self, active: &Active, from: Seq, count: usize) -> Vec<IndexRecord> {
        let mut records = std::mem::take(&mut self.record_scratch);
        records.clear();
        let persistence = active.channel.persistence().expect("a shard's channels are persistent");
        let mut seq = from;
        let end = Seq(from.0 + count as u64);
        if seq < active.stubbed {
            seq = persistence.on_disk.copy_stub(seq, end.min(active.stubbed), &mut records);
            assert!(seq == end || seq == active.stubbed, "records below `stubbed` are in the stub");
        }
        while seq < end {
            let page = active.channel.tail.page_of(seq).expect("pages stay until stubbed");
            let first = page.start().first_seq.0;
            let in_page = page.end().map_or(end.0, |page_end| end.0.min(first + u64::from(page_end.slots)));
            assert!(first <= seq.0 && seq.0 < in_page, "the page holds the event");
            let slots = (seq.0 - first) as usize..(in_page - first) as usize;
            page.with_records(slots, |from| records.extend_from_slice(from));
            seq = Seq(in_page);
        }
        records
    }

    fn retire_pages(&mut self, active: &mut Active) {
        loop {
            let (dat_page, written) = (active.dat_page, active.written);
            let (stubbed, idx_done) = (active.stubbed, active.idx_done);
            let on_disk = &active.channel.persistence().expect("a shard's channels are persistent").on_disk;
            let mut page_end = stubbed;
            let gone = active.channel.tail.unchain_front(|page| {
                let start = page.start();
                let Some(end) = page.end() else { return false };
                // What is committed next may still look for its page: that one stays.
                if start.page_no >= dat_page || start.page_no >= written.page_no {
                    return false;
                }
                page_end = Seq(start.first_seq.0 + u64::from(end.slots));
                let from = start.first_seq.max(stubbed).max(idx_done);
                if from < page_end {
                    let slots = (from.0 - start.first_seq.0) as usize..end.slots as usize;
                    on_disk.push_stub(from, slots.map(|slot| page.record(slot)));
                }
                true
            });
            if !gone {
                break;
            }
            active.stubbed = active.stubbed.max(page_end);
            self.room_made = true;
        }
    }

    /// The dat file, open and with room for `end` bytes.
    pub(super) fn open_dat(&mut self, active: &mut Active, end: u64) -> io::Result<Arc<dyn File>> {
        self.open_files(active)?;
        let file = active.segment.dat.clone().expect("just opened");
        let (dat_bytes, _) = active.channel.tail.segment_sizes();
        allocate_ahead(&*file, &mut active.segment.dat_space, end, dat_bytes)?;
        Ok(file)
    }

    /// The idx file, open and with room for `end` bytes.
    pub(super) fn open_idx(&mut self, active: &mut Active, end: u64) -> io::Result<Arc<dyn File>> {
        self.open_files(active)?;
        let file = active.segment.idx.clone().expect("just opened");
        let (_, records) = active.channel.tail.segment_sizes();
        let idx_bytes = (records.div_ceil(RECORDS_PER_BLOCK as u64) + 2) * BLOCK_SIZE as u64;
        allocate_ahead(&*file, &mut active.segment.idx_space, end, idx_bytes)?;
        Ok(file)
    }

    /// The files of a channel's segment are there. They are taken at once, though there may be nothing to write to them any
    /// more: who brings the channel to rest waits for that.
    pub(super) fn files_ready(&mut self, slot: Slot) -> Result<(), Poisoned> {
        // Deleted meanwhile.
        let Some(mut active) = self.active[slot as usize].take() else { return Ok(()) };
        let opened = if active.segment.opening.is_some() { self.open_files(&mut active) } else { Ok(()) };
        let (id, deferred) = (active.channel.id(), active.deferred);
        self.active[slot as usize] = Some(active);
        match opened {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => self.no_space_found(),
            Err(error) => return Err(self.failure("use of a segment file", &channel_dir(id), error)),
        }
        match deferred {
            true => self.queue_destage_at(slot, DestageTurn::First),
            false => self.queue_destage(slot),
        }
        Ok(())
    }

    /// Opens the segment's pair, and makes it if there is none: a matter of several flushes, so another thread does it.
    /// `WouldBlock` until that is done.
    fn open_files(&mut self, active: &mut Active) -> io::Result<()> {
        if active.segment.dat.is_some() {
            return Ok(());
        }
        let is_begun = active.segment.opening.is_some();
        if !is_begun
            && (self.reclaim.waits_for(active.channel.id(), active.segment.first) || self.holds_to_limit(active))
        {
            // An older pair of this name, or what the limit has dropped, goes first.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut opening = active.segment.opening.take().unwrap_or_else(|| {
            let meta = Meta {
                uuid: self.journal.header().uuid,
                id: active.channel.id(),
                name: active.channel.name.as_str().to_owned(),
                created: active.channel.id().epoch(),
                created_us: self.clock.wall_us(),
            };
            let (disk, first, has_meta) = (self.disk.clone(), active.segment.first, active.has_meta);
            self.file_maker.run(move || open_segment_files(&*disk, &meta, first, has_meta))
        });
        let waker = Waker::from(Arc::new(FilesReady { handle: self.handle.clone(), slot: active.slot }));
        match Pin::new(&mut opening).poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                active.segment.opening = Some(opening);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Poll::Ready(files) => {
                let FilePair { idx, dat, meta_bytes } = files?;
                add(&self.handle.stats.header_bytes, meta_bytes);
                active.has_meta = true;
                active.segment.idx = Some(idx);
                active.segment.dat = Some(dat);
                active.segment.idx_space.grow(ALLOCATE_FIRST_IDX, Vec::new());
                active.segment.dat_space.grow(ALLOCATE_FIRST, Vec::new());
                Ok(())
            }
        }
    }
}

/// Puts a channel on the list again when its files are there.
struct FilesReady {
    handle: Arc<ShardHandle>,
    slot: Slot,
}

impl Wake for FilesReady {
    fn wake(self: Arc<Self>) {
        self.handle.push_files_ready(self.slot);
    }
}

/// Opens the pair of a segment, and makes it if there is none.
fn open_segment_files(disk: &dyn Disk, meta: &Meta, first: Seq, has_meta: bool) -> io::Result<FilePair> {
    let meta_bytes = make_segment_files(disk, meta, first, has_meta)?;
    let open = |path: String, space: u64| {
        let file = disk.open_segment(&path, OpenMode::Write).map_err(located(&path))?;
        file.allocate(space).map_err(located(&path))?;
        io::Result::Ok(file)
    };
    let idx = open(idx_path(meta.id, first), ALLOCATE_FIRST_IDX)?;
    let dat = open(dat_path(meta.id, first), ALLOCATE_FIRST)?;
    Ok(FilePair { idx, dat, meta_bytes })
}

/// Makes the pair of a segment in its channel's directory, META, and the directories above, each unless it is there. All
/// names are durable when it returns, also those that a killed process made: blocks are written only then, so a channel
/// with blocks has its META, which is left alone then (`has_meta`). One flush of the directory, however much was made in
/// it. Returns the bytes of META that it wrote.
pub fn make_segment_files(disk: &dyn Disk, meta: &Meta, first: Seq, has_meta: bool) -> io::Result<u64> {
    let meta_bytes = if has_meta { 0 } else { make_channel_dir(disk, meta)? };
    for path in [idx_path(meta.id, first), dat_path(meta.id, first)] {
        match disk.open(&path, OpenMode::Create) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => _ = result.map_err(located(&path))?,
        }
    }
    let dir = channel_dir(meta.id);
    disk.sync_dir(&dir).map_err(located(&dir))?;
    Ok(meta_bytes)
}

/// Makes a channel's directory with its META, unless it is there. The caller makes the names in the directory durable.
///
/// META gets its name when it is whole and flushed. So a crash leaves none, or a right one; and the directories above one
/// that is there are durable. Returns the bytes of META that it wrote.
fn make_channel_dir(disk: &dyn Disk, meta: &Meta) -> io::Result<u64> {
    let path = meta_path(meta.id);
    match Meta::read(disk, &path) {
        Ok(_) => return Ok(0),
        Err(MetaError::Unreadable(error)) if error.kind() != io::ErrorKind::NotFound => {
            return Err(located(&path)(error));
        }
        // None, or a damaged one of a channel without blocks: with blocks it was checked when the channel was opened.
        Err(_) => {}
    }
    let (fan, dir) = (fan_dir(meta.id), channel_dir(meta.id));
    for (parent, dir) in [("", CHANNELS_DIR), (CHANNELS_DIR, &fan), (&fan, &dir)] {
        match disk.create_dir(dir) {
            // Made with the store.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir == CHANNELS_DIR => continue,
            // Another shard may have made it and not made its name durable yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(located(dir))?,
        }
        disk.sync_dir(parent).map_err(located(parent))?;
    }
    let new_path = new_meta_path(meta.id);
    write_meta(disk, meta, &new_path).map_err(located(&new_path))?;
    disk.rename(&new_path, &path).map_err(located(&path))?;
    Ok(META_SIZE as u64)
}

fn write_meta(disk: &dyn Disk, meta: &Meta, path: &str) -> io::Result<()> {
    let file = match disk.open(path, OpenMode::Create) {
        // Left by a crash.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(path, OpenMode::Write)?,
        result => result?,
    };
    let mut buf = AlignedBuf::new(META_SIZE);
    meta.encode(&mut buf[..META_SIZE]);
    file.write_at(&buf[..META_SIZE], 0)?;
    file.flush()
}

/// Sees to it that the space reaches `end`, in steps that grow with the file, but not beyond what a segment has.
fn allocate_ahead(file: &dyn File, space: &mut Space, end: u64, most: u64) -> io::Result<()> {
    if end <= space.end {
        return Ok(());
    }
    let step = space.end.clamp(ALLOCATE_FIRST_IDX, ALLOCATE_STEP_MAX);
    let wanted = (space.end + step).min(most).max(end).next_multiple_of(BLOCK_SIZE as u64);
    file.allocate(wanted).map_err(located(file.path()))?;
    space.grow(wanted, file.seams(space.end..wanted));
    Ok(())
}

/// Time of a record of an encoded block.
fn record_time_us(block: &[u8], slot: usize) -> u64 {
    let record = &block[slot * size_of::<IndexRecord>()..][..size_of::<IndexRecord>()];
    let record: &IndexRecord = zerocopy::FromBytes::ref_from_bytes(record).expect("a block begins with its records");
    record.time_us()
}
