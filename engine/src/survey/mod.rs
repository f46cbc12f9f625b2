//! What there is of a store that nobody has open, damaged or not: the ground on which a check and a rescue stand.
//!
//! ```text
//!  STORE (both copies) -> journal of each shard, around its damage -> checkpoint files, state by state
//!    -> directories of channels -> one plan a channel: name, settings, head and end, segments, what the journal has
//! ```
//!
//! Promises: nothing is written, damage anywhere does not stop it, and everything that is wrong is in the findings once, with file
//! and offset. What is torn by a crash and not acknowledged is told apart from damage by the same rules as at an open.
//!
//! What it leaves to others: reading the segments' blocks and payloads ([`segment`] does one, for whoever wants it).

mod adopt;
mod channels;
mod checkpoints;
pub mod finding;
pub mod journal;
mod journal_files;
pub mod piece;
pub mod plan;
pub mod readahead;
pub mod segment;
pub mod stored_tail;
mod stores;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use finding::{FindingKind, FoundChannel, Severity, StoreFinding};
use journal::{Hole, JournalPlace};
use journal_files::JournalFiles;
use plan::Plan;

use crate::ids::{ByChannel, ChannelId, Epoch, Lsn, ShardId, StoreUuid};
use crate::io::Disk;
use crate::io::posix::PosixDisk;
use crate::journal::format::Entry;
use crate::options::CheckpointLimits;
use crate::store::superblock::{ShardRoot, Superblock};

/// How far the epoch of a lost STORE may lie above those that other files tell: openings and cuts of which nothing else is left.
const EPOCHS_UNKNOWN: u32 = 1 << 16;

/// Why a store cannot be looked at. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// There is no store in this directory: neither STORE nor a journal, a checkpoint or a channel, or one whose making was cut
    /// off. Name another one.
    #[error("there is no store in {path}; name another directory")]
    NoStore {
        /// Base directory.
        path: PathBuf,
    },
    /// Somebody has the store open. Close it there, and try again.
    #[error("store {path} is open for writing; close it there, and try again")]
    InUse {
        /// Base directory.
        path: PathBuf,
    },
    /// Nothing that is whole says which store it is: every header is damaged. Restore the store from a copy.
    #[error("nothing in {path} says which store it is: every header is damaged; restore the store from a copy")]
    NoIdentity {
        /// Base directory.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A store that is looked at: no writer comes in meanwhile.
#[derive(Debug)]
pub struct Ground {
    /// Its files, for reading.
    pub disk: Arc<dyn Disk>,
    /// A shared lock; none if the directory has no file for it, as a copy may.
    _lock: Option<File>,
}

impl Ground {
    /// A disk of which the caller knows that nobody writes there.
    #[cfg(feature = "sim")]
    pub fn of_disk(disk: Arc<dyn Disk>) -> Self {
        Self { disk, _lock: None }
    }

    /// Opens a directory for reading, and keeps writers out.
    pub fn open(base: &Path) -> Result<Self, SurveyError> {
        let fail = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SurveyError::Io { what, path, source }
        };
        if !base.is_dir() {
            return Err(SurveyError::NoStore { path: base.to_owned() });
        }
        let lock_path = base.join("LOCK");
        let lock = match File::open(&lock_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(file.map_err(fail("open", &lock_path))?),
        };
        if let Some(lock) = &lock {
            match lock.try_lock_shared() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Err(SurveyError::InUse { path: base.to_owned() }),
                Err(std::fs::TryLockError::Error(source)) => return Err(fail("lock", &lock_path)(source)),
            }
        }
        let disk = PosixDisk::open_read_only(base).map_err(fail("open", base))?;
        Ok(Self { disk: Arc::new(disk), _lock: lock })
    }
}

/// One shard as it was found.
#[derive(Debug)]
pub struct ShardSurvey {
    /// Which.
    pub shard: ShardId,
    /// Commits that were durable and are missing.
    pub holes: Vec<Hole>,
    /// Whether states of channels are missing, so that older ones or none stand for them.
    pub lacks_states: bool,
    /// Commits below are contained in the last checkpoint, if one is known.
    pub replay_lsn: Option<u64>,
    /// Epoch that the last open gave; the highest there is if nothing tells it.
    pub run_epoch: u32,
}

/// What the last open's first commits bear; a cut bears one of its own, which is higher.
fn run_epoch(journal: &journal::JournalSurvey, root: Option<ShardRoot>) -> u32 {
    let Some(root) = root else { return u32::MAX };
    let of_run = journal.commits.iter().filter(|commit| commit.segment() >= root.segment);
    of_run.map(|commit| commit.fields.epoch.0).min().unwrap_or(u32::MAX)
}

/// See the module's text.
#[derive(Debug)]
pub struct Survey {
    /// The store.
    pub uuid: StoreUuid,
    /// Highest epoch that anything says.
    pub epoch: Epoch,
    /// STORE, if a copy is good.
    pub store: Option<Superblock>,
    /// Its shards.
    pub shards: Vec<ShardSurvey>,
    /// Its channels, with the shard of each where it is known.
    pub channels: Vec<(Option<ShardId>, Plan)>,
    /// Files that were read, bytes.
    pub bytes: u64,
    /// Journal segments that were read.
    pub journal_segments: u64,
    /// Checkpoint files that were read.
    pub checkpoint_files: u64,
    /// What is wrong.
    pub findings: Vec<StoreFinding>,
}

impl Survey {
    /// Reads everything but the segments.
    ///
    /// # Errors
    ///
    /// If there is no store, or a directory cannot be listed.
    pub fn read(disk: &Arc<dyn Disk>, base: &Path) -> Result<Self, SurveyError> {
        let fail = |source| SurveyError::Io { what: "look at", path: base.to_owned(), source };
        let mut findings = Vec::new();
        let store = stores::read(&**disk, &mut findings);
        let shard_dirs = stores::shard_count(&**disk).map_err(fail)?;
        if store.is_none() && !stores::is_made(&**disk).map_err(fail)? {
            return Err(SurveyError::NoStore { path: base.to_owned() });
        }
        let uuid = store.as_ref().map(|store| store.uuid);
        let uuid = match uuid {
            Some(uuid) => uuid,
            None => stores::find_identity(&**disk, shard_dirs)
                .map_err(fail)?
                .ok_or_else(|| SurveyError::NoIdentity { path: base.to_owned() })?,
        };
        let count = store.as_ref().map_or(shard_dirs, |store| store.shards.len());
        let mut survey = Self {
            uuid,
            epoch: store.as_ref().map_or(Epoch(0), |store| store.epoch),
            store,
            shards: Vec::new(),
            channels: Vec::new(),
            bytes: 0,
            journal_segments: 0,
            checkpoint_files: 0,
            findings,
        };
        let files = JournalFiles::read(&**disk, uuid, count, &mut survey.findings).map_err(fail)?;
        survey.epoch = survey.epoch.max(Epoch(files.epoch_max));
        let mut plans = BTreeMap::new();
        for index in 0..count {
            survey.read_shard(disk, ShardId(index as u16), &files, &mut plans).map_err(fail)?;
        }
        survey.channels = plans.into_values().map(|(shard, plan)| (Some(shard), plan)).collect();
        channels::complete(&**disk, &mut survey).map_err(fail)?;
        survey.epoch = survey.epoch.max(survey.epoch_of_channels());
        Ok(survey)
    }

    /// Highest epoch that channels tell of: in which they were made, grew or were cut.
    fn epoch_of_channels(&self) -> Epoch {
        // A directory alone proves nothing: anybody may have made it.
        let proven = self.channels.iter().filter(|(shard, plan)| shard.is_some() || plan.name.is_some());
        let epochs =
            proven.flat_map(|(_, plan)| plan.epochs.iter().map(|(epoch, _)| Epoch(*epoch)).chain([plan.id.epoch()]));
        epochs.max().unwrap_or(Epoch(0))
    }

    /// The epoch of a copy: none of the old store lies above it, so that no old cursor points at what comes in the copy.
    pub fn epoch_of_copy(&self) -> Epoch {
        match self.store {
            Some(_) => self.epoch,
            None => self.epoch.0.checked_add(EPOCHS_UNKNOWN).map_or(self.epoch, Epoch),
        }
    }

    fn read_shard(
        &mut self,
        shared: &Arc<dyn Disk>,
        shard: ShardId,
        files: &JournalFiles,
        plans: &mut BTreeMap<ChannelId, (ShardId, Plan)>,
    ) -> io::Result<()> {
        let disk = &**shared;
        let root = self.store.as_ref().map(|store| store.shards[usize::from(shard.0)]);
        let epoch = self.store.as_ref().map(|store| store.epoch);
        let place = JournalPlace { disk, uuid: self.uuid, shard, root, epoch };
        let before = self.findings.len();
        let mut journal = journal::survey(&place, files, &mut self.findings);
        cut_at_bad_extent(disk, &mut journal, &mut self.findings);
        let epochs = journal.commits.iter().map(|commit| commit.fields.epoch);
        self.epoch = epochs.fold(self.epoch, Epoch::max);
        self.bytes += journal.bytes;
        self.journal_segments += journal.segments;
        let known = checkpoints::read(self, shared, shard, journal.checkpoint.as_ref(), root)?;
        let is_needless =
            !known.lacks_states && root.and_then(|root| root.clean).is_some_and(|end| journal.has_end(&end));
        let severity = if is_needless { Severity::Redundant } else { Severity::Loss };
        let mut channels: ByChannel<Plan> = known.plans;
        for commit in &journal.commits {
            for (entry, inline) in commit.entries() {
                let Some(channel) = entry.channel() else { continue };
                channels.entry(channel).or_insert_with(|| Plan::new(channel)).take(commit, &entry, inline);
            }
        }
        let names: BTreeMap<ChannelId, Option<String>> =
            channels.iter().map(|(id, plan)| (*id, plan.name.clone())).collect();
        for commit in &journal.commits {
            for (channel, seq, cause) in commit.bad_payloads() {
                // What a checkpoint contains is not needed from here.
                let needed = channels.get(&channel).is_some_and(|plan| {
                    !plan.deleted
                        && seq.0 >= plan.head
                        && plan.piece_of(seq.0).is_some_and(|piece| piece.lsn == commit.fields.lsn.0)
                        && !plan.is_stored(seq.0)
                });
                let found = FoundChannel::new(channel, names.get(&channel).and_then(Option::as_deref));
                let (kind, path, offset) = (commit.payload_fault(), &commit.path, commit.offset());
                let finding = StoreFinding::new(kind, severity, path, offset, cause).of(&found);
                self.findings.push(match needed {
                    true => finding.losing(seq.0..seq.0 + 1),
                    false => finding,
                });
            }
        }
        for hole in &journal.holes {
            self.findings.push(hole_finding(hole, shard, severity));
        }
        if is_needless {
            // What is missing says nothing of any channel.
            journal.holes.clear();
        }
        for (id, mut plan) in channels {
            plan.finish();
            plans.insert(id, (shard, plan));
        }
        let replay_lsn = journal.checkpoint.as_ref().map(|checkpoint| checkpoint.replay_lsn.0);
        let (run_epoch, lacks_states) = (run_epoch(&journal, root), known.lacks_states);
        self.shards.push(ShardSurvey { shard, holes: journal.holes, lacks_states, replay_lsn, run_epoch });
        if self.findings[before..].iter().all(|finding| finding.severity != Severity::Loss) {
            self.ask_strict_open(disk, shard);
        }
        Ok(())
    }

    /// What an open would read of the shard is whole by all that was looked at. The open's own reading has the last word:
    /// nothing that it refuses is called whole.
    fn ask_strict_open(&mut self, disk: &dyn Disk, shard: ShardId) {
        let Some(store) = &self.store else { return };
        let (root, limits) = (&store.shards[usize::from(shard.0)], CheckpointLimits::default());
        if let Err(error) = crate::store::recover::find(disk, store.uuid, shard, root, store.epoch, limits) {
            let path = crate::journal::journal_dir(shard);
            self.findings.push(StoreFinding::loss(FindingKind::WouldNotOpen, &path, 0, &error));
        }
    }

    /// The sequences that nothing tells of, each with what of the journal is missing before them.
    pub fn gap_findings(&self) -> Vec<StoreFinding> {
        let mut findings = Vec::new();
        for (shard, plan) in self.channels.iter().filter(|(_, plan)| !plan.deleted) {
            for gap in &plan.gaps {
                let holes =
                    self.shards.iter().filter(|survey| Some(survey.shard) == *shard).flat_map(|survey| &survey.holes);
                let hole = holes.filter(|hole| hole.lsns.start < gap.before_lsn).max_by_key(|hole| hole.lsns.start);
                let dir = crate::segment::path::channel_dir(plan.id);
                let (path, offset) = hole.map_or((&*dir, 0), |hole| (&*hole.path, hole.offset));
                let cause = format!("they went with the commits that are missing before commit {}", gap.before_lsn);
                for seqs in plan.not_adopted(&gap.seqs) {
                    let finding = StoreFinding::loss(FindingKind::SequenceGap, path, offset, &cause);
                    findings.push(finding.of(&Self::found(plan)).losing(seqs));
                }
            }
        }
        findings
    }

    /// A channel as findings name it.
    pub fn found(plan: &Plan) -> FoundChannel {
        FoundChannel::new(plan.id, plan.name.as_deref())
    }
}

fn hole_finding(hole: &Hole, shard: ShardId, severity: Severity) -> StoreFinding {
    let commits = match hole.lsns.end.saturating_sub(hole.lsns.start) {
        0 => format!("of shard {shard}"),
        _ if hole.is_unreadable() => format!("of shard {shard}, perhaps from commit {} on", hole.lsns.start),
        1 => format!("commit {} of shard {shard}, which was durable", hole.lsns.start),
        _ => format!("commits {}..{} of shard {shard}, which were durable", hole.lsns.start, hole.lsns.end),
    };
    StoreFinding::new(hole.kind, severity, &hole.path, hole.offset, format!("{commits}: {}", hole.cause))
}

/// A commit that nobody calls durable counts only if the extents that went with it are there.
fn cut_at_bad_extent(disk: &dyn Disk, journal: &mut journal::JournalSurvey, findings: &mut Vec<StoreFinding>) {
    let from = journal.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.replay_lsn.0).max(journal.witnessed);
    let bad = journal.commits.iter().filter(|commit| commit.fields.lsn.0 >= from).find(|commit| {
        // One that the device does not give may be whole, and was perhaps acknowledged.
        let is_torn = |payload: Result<_, piece::BadPayload>| payload.is_err_and(|bad| !bad.is_unreadable);
        commit.entries().any(|(entry, inline)| {
            let Entry::Events(events) = entry else { return false };
            let piece = piece::Piece::new(commit, &events, inline);
            let channel = events.fields.channel;
            piece.has_extent() && (piece.first()..piece.end()).any(|seq| is_torn(piece.payload(disk, channel, seq)))
        })
    });
    if let Some(end) = bad.map(|commit| commit.fields.lsn) {
        journal.cut(end, findings);
        let checkpoint = |commit: &journal::SurveyedCommit| {
            commit.entries().find_map(|(entry, _)| match entry {
                Entry::Checkpoint(checkpoint) => Some(checkpoint),
                _ => None,
            })
        };
        journal.checkpoint = journal.commits.iter().rev().find_map(checkpoint);
    }
    debug_assert!(journal.commits.iter().all(|commit| commit.fields.lsn > Lsn(0)));
}
