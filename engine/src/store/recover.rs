//! Opens one shard's journal and checkpoints: finds what survived, makes it durable, begins anew.
//!
//! ```text
//!  find:    STORE -> journal -> checkpoint files             (reads only)
//!  restore: replay into segments, flush -> checkpoint file -> new journal segment that names it
//!  (then STORE names the new segments of all shards, and only then are old files recycled)
//! ```
//!
//! A crash anywhere in between is a crash like any other: until STORE is written the old journal counts, and what was
//! written meanwhile is either the same bytes again or in files that nothing names.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::checkpoint::{ChannelState, CheckpointEncoder, Tail, is_of_other_store, load_states};
use super::fates::Fates;
use super::replay::Replay;
use super::superblock::{CleanEnd, ShardRoot};
use crate::error::OpenError;
use crate::ids::{ChannelId, CheckpointNo, Epoch, Lsn, SegmentNo, Seq, ShardId, StoreUuid};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, File, OpenMode};
use crate::journal::format::{
    COMMIT_HEADER_SIZE, CheckpointEntry, CommitFields, CommitHeader, Entry, EventsEntry, HeaderError, MetaWriter,
    SegmentHeader, commit_size_checkpoint, entries, finish_commit,
};
use crate::journal::pool::SegmentPool;
use crate::journal::scan::{CommitFault, HeaderFault, JournalError, NamedBy, Recovery, ScannedCommit, Witness, scan};
use crate::journal::writer::Journal;
use crate::journal::{
    SEGMENT_SIZE_MAX, journal_dir, read_header, report_unknown, report_unreadable, segment_number, segment_path,
};
use crate::options::CheckpointLimits;
use crate::random::Random;
use crate::segment::path::dat_path;
use crate::shard::checkpoint::{
    Known, Located, checkpoint_dir, checkpoint_name, checkpoint_number, checkpoint_path, load_located_tail,
};
use crate::shard::checkpoint_files::{CheckpointFile, CheckpointFiles};
use crate::shard::checkpoint_moves::move_along;
use crate::shard::handle::active_segment;

/// What was found of a shard. Nothing was changed yet.
#[derive(Debug)]
pub struct Found {
    shard: ShardId,
    commits: Vec<ScannedCommit>,
    next_lsn: Lsn,
    last_segment: Option<SegmentNo>,
    leftovers: Vec<String>,
    number_max: SegmentNo,
    /// Highest epoch seen.
    pub epoch_max: Epoch,
    known: Known,
    files: CheckpointFiles,
    unused_checkpoints: Vec<String>,
}

impl Found {
    /// End of a channel in its newest checkpoint entry; 0 without one.
    fn end_of(&self, channel: ChannelId) -> u64 {
        self.known.get(&channel).map_or(0, |located| located.state.end)
    }
}

/// A shard that is ready to begin.
#[derive(Debug)]
pub struct Restored {
    /// Where its journal goes on.
    pub journal: Journal,
    /// Ready segments.
    pub pool: SegmentPool,
    /// LSN of its next commit.
    pub next_lsn: Lsn,
    /// Its checkpoint files.
    pub checkpoint_files: CheckpointFiles,
    /// Its channels.
    pub known: Known,
    /// Journal files that nothing needs once STORE is written.
    pub leftovers: Vec<String>,
    /// Checkpoint files that nothing needs once STORE is written.
    pub unused_checkpoints: Vec<String>,
}

/// Highest number that a new file gets: leaves as many again to run through.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// A file (a foreign one, since numbers count up from 1) has so high a number that none is left above it.
fn no_number_left(dir: &str, number: u64) -> OpenError {
    let what = format!("a file has a number so high that none is left for the next one, {number}; move it away");
    OpenError::Io { what: "number a new file in", path: dir.into(), source: io::Error::other(what) }
}

fn io_error(what: &'static str, path: impl Into<std::path::PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.into();
    move |source| OpenError::Io { what, path, source }
}

/// Reads what there is of a shard.
pub fn find(
    disk: &dyn Disk,
    uuid: StoreUuid,
    shard: ShardId,
    root: &ShardRoot,
    epoch: Epoch,
    limits: CheckpointLimits,
) -> Result<Found, OpenError> {
    let mut found = Found {
        shard,
        commits: Vec::new(),
        next_lsn: Lsn(1),
        last_segment: None,
        leftovers: Vec::new(),
        number_max: SegmentNo(0),
        epoch_max: epoch,
        known: Known::default(),
        files: CheckpointFiles { files: Vec::new(), next: CheckpointNo(1), limits },
        unused_checkpoints: Vec::new(),
    };
    let checkpoint = if root.segment == SegmentNo(0) {
        list_journal(disk, uuid, &mut found)?;
        None
    } else if let Some(clean) = &root.clean {
        list_journal(disk, uuid, &mut found)?;
        let checkpoint = read_clean_end(disk, uuid, shard, clean)?;
        (found.next_lsn, found.last_segment) = (clean.next_lsn, Some(clean.segment));
        Some(checkpoint)
    } else {
        read_journal(disk, uuid, shard, root, epoch, &mut found)?
    };
    load_checkpoints(disk, uuid, checkpoint.as_ref(), &mut found)?;
    Ok(found)
}

/// Takes the names of all segments as leftovers, and the highest number and epoch. What is not this store's is reported and
/// left alone.
fn list_journal(disk: &dyn Disk, uuid: StoreUuid, found: &mut Found) -> Result<(), OpenError> {
    let dir = journal_dir(found.shard);
    for entry in disk.list(&dir).map_err(io_error("list", &*dir))? {
        if entry.is_dir && entry.name == "spare" {
            continue;
        }
        let path = format!("{dir}/{}", entry.name);
        let Some(number) = segment_number(&entry.name).filter(|_| !entry.is_dir) else {
            report_unknown(&path);
            continue;
        };
        found.number_max = found.number_max.max(number);
        match read_header(disk, &path) {
            Ok(Ok(header)) if header.uuid != uuid => {
                report_unknown(&path);
                continue;
            }
            Ok(Ok(header)) => found.epoch_max = found.epoch_max.max(header.epoch),
            Ok(Err(HeaderError::Version { version })) => {
                return Err(OpenError::Journal { shard: found.shard, error: JournalError::Newer { path, version } });
            }
            // Never written, or cut off in the making: nothing needs it, since the journal was closed or never begun.
            Ok(Err(_)) => {}
            Err(error) => {
                report_unreadable(&path, &error);
                continue;
            }
        }
        found.leftovers.push(entry.name);
    }
    Ok(())
}

/// Where the last commit of a clean journal begins, and its size: it is looked for from the end on, block by block, since
/// only its header tells how many it has. The last block, if there is none.
fn last_commit(file: &dyn File, header: &SegmentHeader, clean: &CleanEnd) -> io::Result<(u64, usize)> {
    let block = BLOCK_SIZE as u64;
    let last = clean.offset.saturating_sub(block);
    // What lies in front of it is searched block by block: no further than a segment can reach, however long the file is.
    if last >= file.size()?.min(SEGMENT_SIZE_MAX) {
        return Ok((last, BLOCK_SIZE));
    }
    let mut buf = AlignedBuf::new(BLOCK_SIZE);
    for offset in (1..=last / block).rev().map(|index| index * block) {
        let read = file.read_at(&mut buf[..BLOCK_SIZE], offset)?;
        if let Ok(commit) = CommitHeader::verify(&buf[..read], &header.context(), offset) {
            let size = commit.commit_size();
            let fits = offset + size as u64 == clean.offset;
            return Ok(if fits { (offset, size) } else { (last, BLOCK_SIZE) });
        }
    }
    Ok((last, BLOCK_SIZE))
}

/// After a clean close the journal's last commit is its last checkpoint, which covers everything.
pub fn read_clean_end(
    disk: &dyn Disk,
    uuid: StoreUuid,
    shard: ShardId,
    clean: &CleanEnd,
) -> Result<CheckpointEntry, OpenError> {
    let path = segment_path(shard, clean.segment);
    let fail = |error| OpenError::Journal { shard, error };
    let file = match disk.open(&path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(fail(JournalError::Lost { path, named_by: NamedBy::Store }));
        }
        result => result.map_err(io_error("open", &*path))?,
    };
    let bad_header = |fault| fail(JournalError::BadHeader { path: path.clone(), fault, named_by: NamedBy::Store });
    let mut buf = AlignedBuf::new(BLOCK_SIZE);
    let read = file.read_at(&mut buf[..BLOCK_SIZE], 0).map_err(io_error("read", &*path))?;
    let header = SegmentHeader::verify(&buf[..read]).map_err(|error| bad_header(HeaderFault::Damaged(error)))?;
    if header.uuid != uuid {
        return Err(bad_header(HeaderFault::OtherStore(header.uuid)));
    }
    if header.shard != shard {
        return Err(bad_header(HeaderFault::OtherShard(header.shard)));
    }
    if header.number != clean.segment {
        return Err(bad_header(HeaderFault::OtherNumber(header.number)));
    }
    if !clean.offset.is_multiple_of(BLOCK_SIZE as u64) {
        return Err(fail(JournalError::WrongEnd { path, offset: clean.offset, lsn: clean.next_lsn }));
    }
    let (offset, size) = last_commit(&*file, &header, clean).map_err(io_error("read", &*path))?;
    let lsn = Lsn(clean.next_lsn.0.saturating_sub(1));
    let corrupt = |fault| {
        let witness = Box::new(Witness::CleanEnd { next_lsn: clean.next_lsn });
        fail(JournalError::Corrupt { path: path.clone(), offset, lsn, fault, witness })
    };
    let mut buf = AlignedBuf::new(size);
    let read = file.read_at(&mut buf[..size], offset).map_err(io_error("read", &*path))?;
    let commit =
        CommitHeader::verify(&buf[..read], &header.context(), offset).map_err(|error| corrupt(error.into()))?;
    if commit.fields().lsn != lsn {
        return Err(corrupt(CommitFault::OtherLsn(commit.fields().lsn)));
    }
    let (meta, _) = commit.body(&buf[..read]).map_err(|error| corrupt(error.into()))?;
    let entry = match entries(meta).next() {
        Some(Ok(Entry::Checkpoint(entry))) => entry,
        Some(Err(error)) => return Err(corrupt(error.into())),
        _ => return Err(corrupt(CommitFault::NoCheckpoint)),
    };
    Ok(entry)
}

fn read_journal(
    disk: &dyn Disk,
    uuid: StoreUuid,
    shard: ShardId,
    root: &ShardRoot,
    epoch: Epoch,
    found: &mut Found,
) -> Result<Option<CheckpointEntry>, OpenError> {
    let recovery = Recovery { disk, uuid, shard, root, epoch };
    let mut verify = |entry: &EventsEntry<'_>, inline: &[u8]| verify_extent(disk, entry, inline);
    let scan = scan(&recovery, &mut verify).map_err(|error| OpenError::Journal { shard, error })?;
    if let Some(torn) = &scan.torn {
        tracing::info!(%shard, segment = %torn.segment, offset = torn.offset, lsn = %torn.lsn, "torn tail of the journal cut");
    }
    tracing::debug!(%shard, segment = %scan.last_segment, offset = scan.last_offset, witnessed = %scan.witnessed, "journal read");
    for name in &scan.unknown {
        report_unknown(&format!("{}/{name}", journal_dir(shard)));
    }
    found.commits = scan.commits;
    found.next_lsn = scan.next_lsn;
    found.last_segment = Some(scan.last_segment);
    found.leftovers = scan.leftovers;
    found.leftovers.extend(scan.chain.iter().map(|number| format!("{:020}.wal", number.0)));
    found.number_max = scan.number_max;
    found.epoch_max = found.epoch_max.max(scan.epoch_max);
    if scan.checkpoint.is_none() {
        // Every run begins with one: without it nothing tells which channels there are.
        let channel = format!("(journal of shard {shard})");
        return Err(OpenError::Inconsistent { channel, why: "it names no checkpoint" });
    }
    Ok(scan.checkpoint)
}

/// Reads an extent and checks the payloads in it.
fn verify_extent(disk: &dyn Disk, entry: &EventsEntry<'_>, inline: &[u8]) -> io::Result<bool> {
    let fields = &entry.fields;
    let file = match disk.open(&dat_path(fields.channel, fields.segment_first), OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        result => result?,
    };
    let there = file.size()?.saturating_sub(u64::from(fields.extent_offset)).next_multiple_of(BLOCK_SIZE as u64);
    let len = u64::from(fields.extent_len).min(there) as usize;
    let mut buf = AlignedBuf::new(len);
    let read = file.read_at(&mut buf[..len], u64::from(fields.extent_offset))?;
    Ok(entry.verify_extent(&buf[..read], inline).is_ok())
}

fn load_checkpoints(
    disk: &dyn Disk,
    uuid: StoreUuid,
    entry: Option<&CheckpointEntry>,
    found: &mut Found,
) -> Result<(), OpenError> {
    let shard = found.shard;
    let dir = checkpoint_dir(shard);
    let files = entry.map_or(&[][..], |entry| &entry.files);
    for entry in disk.list(&dir).map_err(io_error("list", &*dir))? {
        let path = format!("{dir}/{}", entry.name);
        let Some(number) = checkpoint_number(&entry.name).filter(|_| !entry.is_dir) else {
            report_unknown(&path);
            continue;
        };
        found.files.next = found.files.next.max(CheckpointNo(number.0.saturating_add(1)));
        if files.contains(&number) {
            continue;
        }
        match is_of_other_store(disk, &path, uuid) {
            Ok(false) => found.unused_checkpoints.push(entry.name),
            Ok(true) => report_unknown(&path),
            Err(error) => report_unreadable(&path, &error),
        }
    }
    if found.files.next.0 > NUMBER_MAX {
        return Err(no_number_left(&dir, found.files.next.0));
    }
    for number in files {
        let path = checkpoint_path(shard, *number);
        let states =
            load_states(disk, &path, uuid, shard, *number).map_err(|error| OpenError::Checkpoint { shard, error })?;
        let channels = states.iter().map(|state| ChannelId(state.id)).collect();
        found.known.reserve(states.len());
        for state in states {
            found.known.insert(ChannelId(state.id), Located { state: Arc::new(state), file: *number });
        }
        found.files.files.push(CheckpointFile { number: *number, channels, live: 0, stays: false });
    }
    count_live(&found.known, &mut found.files.files);
    Ok(())
}

fn count_live(known: &Known, files: &mut [CheckpointFile]) {
    let mut live: HashMap<CheckpointNo, usize> = HashMap::new();
    for located in known.values() {
        *live.entry(located.file).or_default() += 1;
    }
    for file in files {
        file.live = live.get(&file.number).copied().unwrap_or(0);
    }
}

/// Makes what was found durable, and prepares a new journal segment in the new epoch.
pub fn restore(
    disk: &Arc<dyn Disk>,
    uuid: StoreUuid,
    mut found: Found,
    epoch: Epoch,
    segment_bytes: u64,
    random: &Random,
) -> Result<Restored, OpenError> {
    let shard = found.shard;
    let commits = found.commits.len();
    let mut entries = replay(&**disk, uuid, &mut found)?;
    if !entries.is_empty() {
        // A program that never comes as far as a checkpoint leaves a file with every open: they must not pile up.
        let fresh = entries.iter().map(|(state, _)| ChannelId(state.id)).collect();
        let events: u64 =
            entries.iter().map(|(state, _)| state.end.saturating_sub(found.end_of(ChannelId(state.id)))).sum();
        tracing::info!(%shard, commits, events, channels = entries.len(), next_lsn = %found.next_lsn, "journal replayed");
        entries.extend(move_along(&**disk, shard, &mut found.files, &found.known, &fresh));
        write_checkpoint(&**disk, uuid, entries, &mut found)?;
    }
    let dropped = found.files.files.extract_if(.., |file| file.live == 0).map(|file| checkpoint_name(file.number));
    found.unused_checkpoints.extend(dropped);
    let dir = journal_dir(shard);
    if found.number_max.0 >= NUMBER_MAX {
        return Err(no_number_left(&dir, found.number_max.0));
    }
    let mut pool = SegmentPool::new(disk.clone(), shard, epoch, segment_bytes);
    pool.find(uuid).map_err(io_error("prepare", &*dir))?;
    let (journal, next_lsn) =
        begin_journal(&mut pool, uuid, &found, epoch, random).map_err(io_error("write", &*dir))?;
    if pool.ready() == 0 {
        // The one that is kept back; a full disk does without until there is room.
        match pool.make() {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(io_error("write", &*dir)(error)),
            _ => {}
        }
    }
    Ok(Restored {
        journal,
        pool,
        next_lsn,
        checkpoint_files: found.files,
        known: found.known,
        leftovers: found.leftovers,
        unused_checkpoints: found.unused_checkpoints,
    })
}

/// What the commits say becomes of the channels' segments.
fn find_fates(commits: &[ScannedCommit], known: &Known) -> Fates {
    let mut fates = Fates::default();
    for commit in commits {
        for entry in commit.entries() {
            let (entry, _) = entry.expect("a scanned commit's entries all decode");
            let Some(channel) = entry.channel() else { continue };
            let state = known.get(&channel).map(|located| &located.state);
            if !fates.knows(channel) {
                let stands = state.map_or((Seq(0), Seq(0)), |state| (active_segment(state).0, Seq(state.head)));
                fates.begin(channel, stands.0, stands.1);
            }
            if state.is_none_or(|state| commit.lsn.0 >= state.lsn) {
                fates.take(channel, &entry);
            }
        }
    }
    fates
}

/// Replays the commits into the channels' segments. All of it is flushed when this returns.
fn replay(disk: &dyn Disk, uuid: StoreUuid, found: &mut Found) -> Result<Vec<(ChannelState, Tail)>, OpenError> {
    let mut replays: HashMap<ChannelId, Replay<'_>> = HashMap::new();
    let mut order = Vec::new();
    let commits = std::mem::take(&mut found.commits);
    let fates = find_fates(&commits, &found.known);
    for commit in &commits {
        for entry in commit.entries() {
            let (entry, inline) = entry.expect("a scanned commit's entries all decode");
            let Some(channel) = entry.channel() else { continue };
            if let std::collections::hash_map::Entry::Vacant(vacant) = replays.entry(channel) {
                let (state, tail) = match (&entry, found.known.get(&channel)) {
                    (_, Some(located)) => {
                        (ChannelState::clone(&located.state), tail_of(disk, found.shard, located, &fates)?)
                    }
                    (Entry::ChannelCreated { name, config, .. }, None) => {
                        (created(channel, name, config), Tail::default())
                    }
                    (_, None) => {
                        let why = "the journal has events of it, but nothing says that it was created";
                        let place = segment_path(found.shard, commit.segment);
                        let channel = format!("{channel} (commit {} in {place} at byte {})", commit.lsn, commit.offset);
                        return Err(OpenError::Inconsistent { channel, why });
                    }
                };
                vacant.insert(Replay::new(disk, uuid, state, tail, fates.of(channel)));
                order.push(channel);
            }
            let replay = replays.get_mut(&channel).expect("just inserted");
            if commit.lsn >= replay.lsn() {
                replay_entry(replay, &entry, inline, commit.epoch)?;
            }
        }
    }
    let mut done = Vec::with_capacity(order.len());
    for channel in order {
        done.push(replays.remove(&channel).expect("in the order once").finish()?);
    }
    Ok(done)
}

/// What fills no block of a channel, unless it belongs to a segment that is gone.
fn tail_of(disk: &dyn Disk, shard: ShardId, located: &Located, fates: &Fates) -> Result<Tail, OpenError> {
    if fates.of(ChannelId(located.state.id)).front() == Some(&true) {
        return Ok(Tail::default());
    }
    load_located_tail(disk, shard, located).map_err(|error| OpenError::Checkpoint { shard, error })
}

fn created(channel: ChannelId, name: &str, config: &[u8]) -> ChannelState {
    ChannelState { id: channel.0, name: name.to_owned(), config: config.to_vec(), ..ChannelState::default() }
}

fn replay_entry(replay: &mut Replay<'_>, entry: &Entry<'_>, inline: &[u8], epoch: Epoch) -> Result<(), OpenError> {
    match entry {
        Entry::Events(events) => return replay.events(events, inline, epoch),
        Entry::ChannelConfigured { config, .. } => replay.configure(config),
        Entry::ChannelDeleted { .. } => replay.delete(),
        Entry::HeadTrimmed { head, .. } => replay.trim(*head),
        Entry::SuffixTruncated { end, .. } => return replay.cut_off(*end, epoch),
        Entry::ChannelCreated { .. } | Entry::Checkpoint(_) | Entry::Roll { .. } => {}
    }
    Ok(())
}

/// Writes these channels' entries to a checkpoint file, durably. All that was committed is in them.
fn write_checkpoint(
    disk: &dyn Disk,
    uuid: StoreUuid,
    replayed: Vec<(ChannelState, Tail)>,
    found: &mut Found,
) -> Result<(), OpenError> {
    let (shard, number) = (found.shard, found.files.next);
    found.files.next = CheckpointNo(number.0 + 1);
    let path = checkpoint_path(shard, number);
    let mut encoder = CheckpointEncoder::new(uuid, shard, number);
    let offsets: Vec<u64> = replayed
        .iter()
        .map(|(state, _)| encoder.push_state(&ChannelState { lsn: found.next_lsn.0, ..state.clone() }))
        .collect();
    encoder.end_states();
    let base = encoder.tails_offset().expect("the states have ended");
    for (state, tail) in replayed.iter().filter(|(state, _)| !state.tail.is_empty()) {
        encoder.push_tail(state.id, &tail.records, &tail.bytes);
    }
    encoder.finish();
    let written = write_file(disk, &path, &mut encoder).and_then(|()| disk.sync_dir(&checkpoint_dir(shard)));
    if let Err(error) = written {
        // Nothing names it; left there, attempts on a full disk would take what room there is.
        if let Err(error) = disk.unlink(&path) {
            tracing::warn!(path, %error, "a checkpoint file that was cut off stays");
        }
        return Err(io_error("write", &*path)(error));
    }
    let channels = replayed.iter().map(|(state, _)| ChannelId(state.id)).collect();
    for ((mut state, _), offset) in replayed.into_iter().zip(offsets) {
        state.lsn = found.next_lsn.0;
        state.tail.offset = base + offset;
        found.known.insert(ChannelId(state.id), Located { state: Arc::new(state), file: number });
    }
    found.files.files.push(CheckpointFile { number, channels, live: 0, stays: false });
    count_live(&found.known, &mut found.files.files);
    Ok(())
}

fn write_file(disk: &dyn Disk, path: &str, encoder: &mut CheckpointEncoder) -> io::Result<()> {
    let file: Arc<dyn File> = disk.open(path, OpenMode::Create)?;
    let mut buf = AlignedBuf::new(1 << 20);
    let mut offset = 0;
    loop {
        let len = encoder.drain(&mut buf[..1 << 20]);
        if len == 0 {
            return file.flush();
        }
        file.write_at(&buf[..len], offset)?;
        offset += len as u64;
    }
}

/// Takes a segment, and writes its header and a first commit that names the checkpoint files, durably.
fn begin_journal(
    pool: &mut SegmentPool,
    uuid: StoreUuid,
    found: &Found,
    epoch: Epoch,
    random: &Random,
) -> io::Result<(Journal, Lsn)> {
    if pool.ready() == 0 {
        pool.make()?;
    }
    let number = SegmentNo(found.number_max.0 + 1);
    let file = pool.take(number)?.expect("one is ready");
    let header = SegmentHeader {
        uuid,
        shard: found.shard,
        number,
        epoch,
        salt: random.next_u64(),
        key_id: 0,
        predecessor: found.last_segment,
        first_lsn: found.next_lsn,
    };
    let files: Vec<CheckpointNo> = found.files.files.iter().map(|file| file.number).collect();
    let size = commit_size_checkpoint(files.len());
    if (BLOCK_SIZE + size) as u64 > pool.segment_bytes() / 2 {
        let what = format!("{} checkpoint files are too many for a journal segment of this size", files.len());
        return Err(io::Error::other(what));
    }
    let mut buf = AlignedBuf::new(BLOCK_SIZE + size);
    header.encode(&mut buf[..BLOCK_SIZE]);
    let commit = &mut buf[BLOCK_SIZE..BLOCK_SIZE + size];
    let mut meta = MetaWriter::new(&mut commit[COMMIT_HEADER_SIZE..]);
    meta.checkpoint(found.next_lsn, number, &files).map_err(io::Error::other)?;
    let (meta_len, entry_count) = (meta.len() as u32, meta.entry_count());
    let fields = CommitFields {
        lsn: found.next_lsn,
        durable_lsn: found.next_lsn,
        epoch,
        offset: BLOCK_SIZE as u32,
        meta_len,
        payload_len: 0,
        entry_count,
    };
    assert_eq!(finish_commit(commit, &header.context(), &fields), size, "the size was known");
    file.write_at(&buf[..BLOCK_SIZE + size], 0)?;
    file.flush()?;
    let next_lsn = Lsn(found.next_lsn.0 + 1);
    Ok((Journal::new(header, file, (BLOCK_SIZE + size) as u64, pool.segment_bytes()), next_lsn))
}

#[cfg(all(test, not(redex_loom)))]
mod tests;
