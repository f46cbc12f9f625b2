//! Copies what is intact of a store to a new one.
//!
//! ```text
//!  survey of the old store -> for each channel: what is whole, in order, from segments, checkpoint and journal (merge.rs)
//!    once to count it, once to append it to the new store, by the engine's own appends -> report -> check of the new store
//!    -> its name (target.rs)
//! ```
//!
//! Promises: the old directory is read and nothing else. Every event that is whole is in the new store, in its channel, in order,
//! with its payload and time; what is not is in the report, with its cause. The channel's last event keeps its sequence, and so does
//! what lies in front of it down to the first loss; what lies before a loss moves up by what is lost, since sequences are dense
//! ([`MovedRange`]). A channel without a loss keeps all of them, its head and its epochs.
//!
//! What it leaves to others: finding the damage (`survey`), and events in the cold store, which stay there.

mod causes;
mod merge;
mod report;
mod target;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use report::{LostRange, MovedRange, SalvageReport, SalvagedChannel};

use self::causes::KnownLosses;
use self::merge::{Merge, Visit};
use self::target::Target;
use crate::channel_name::ChannelName;
use crate::clock::Clock;
use crate::config::{FsyncPolicy, RedexFileConfig, Retention};
use crate::error::RedexError;
use crate::file::RedexFile;
use crate::ids::{SegmentNo, Seq};
use crate::io::posix::PosixDisk;
use crate::options::Options;
use crate::random::Random;
use crate::redex::Redex;
use crate::store::open::{make_dirs, make_superblock};
use crate::store::superblock::{SHARDS_MAX, ShardRoot, Superblock};
use crate::survey::finding::Severity;
use crate::survey::plan::Plan;
use crate::survey::readahead::Reader;
use crate::survey::{Ground, Survey, SurveyError};

/// How a rescue is done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SalvageOptions {}

impl SalvageOptions {
    /// As it is: there is nothing to set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Why nothing, or not all, was copied. The old store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SalvageError {
    /// The old store cannot be looked at.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// There is something in the new directory. Name an empty one, or one that is not there.
    #[error("{path} is not empty; name a directory that is empty or not there")]
    NotEmpty {
        /// The new directory.
        path: PathBuf,
    },
    /// The new directory lies in the old one. Name another one.
    #[error("{path} lies in the store that is to be salvaged; name a directory outside of it")]
    Inside {
        /// The new directory.
        path: PathBuf,
    },
    /// A salvage that was cut off has left this half of a store. Remove it, and begin again.
    #[error("{path} is the half of a store that a salvage has left which was cut off; remove it, and begin again")]
    CutOff {
        /// What it has left.
        path: PathBuf,
    },
    /// The new store is made beside its place and renamed, and a mount point cannot be renamed to. Name a directory in it that is
    /// not there.
    #[error("{path} is a mount point, and cannot be renamed to; name a directory in it that is not there")]
    MountPoint {
        /// The new directory.
        path: PathBuf,
    },
    /// The new directory cannot be written. Make room or choose another place, remove what is there, and begin again.
    #[error(
        "cannot write the new store in {path}; make room or choose another place, remove what is there, and begin again"
    )]
    Io {
        /// The new directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The new store refused something. Remove what is there, and begin again.
    #[error("cannot write channel {channel} of the new store; remove what is there, and begin again")]
    Write {
        /// The channel.
        channel: String,
        /// The cause.
        #[source]
        source: Box<RedexError>,
    },
    /// What was written reads back otherwise: the new device fails, too. Choose another place.
    #[error("the new store in {path} is damaged already: {first}; choose another place")]
    Damaged {
        /// The new directory.
        path: PathBuf,
        /// The first damage.
        first: String,
    },
}

/// Copies every intact event of the store in `from` to a new store in `to`; see `docs/verify-and-salvage.md`.
///
/// Takes a shared lock on the old store, and never writes there. `to` must be empty or not there. The new store has the old one's
/// channels, their settings, and an epoch above all of the old one. It is made in `<to>.partial`, and gets its name when it is
/// whole.
///
/// # Errors
///
/// [`SalvageError`]. Damage of the old store is no error; it is in the report.
pub fn salvage(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    options: &SalvageOptions,
) -> Result<SalvageReport, SalvageError> {
    let SalvageOptions {} = options;
    let (from, to) = (from.as_ref(), to.as_ref());
    let ground = Ground::open(from)?;
    let survey = Survey::read(&ground.disk, from)?;
    let target = Target::find(from, to)?;
    let partial = target.partial();
    let io = |source| SalvageError::Io { path: partial.to_owned(), source };
    let mut reader = Reader::start(ground.disk.clone()).map_err(io)?;
    make_store(partial, &survey).map_err(io)?;
    let wall_us = Arc::new(AtomicU64::new(0));
    let options =
        Options { payload_size_max: 64 << 20, shards: Some(survey.shards.len().clamp(1, 64)), ..Options::default() };
    let redex = Redex::on_clock(partial.to_owned(), options, Clock::with_wall(wall_us.clone()));
    let mut report = SalvageReport::new(from, to, &survey);
    let known = KnownLosses::of(&survey);
    let mut settings = Vec::new();
    for (plan, name, name_lost) in named(&survey) {
        let mut channel = Rescue { ground: &ground, known: &known, reader: &mut reader, plan, wall_us: &wall_us };
        let (salvaged, file, wanted) = channel.run(&redex, &name, name_lost)?;
        settings.push((file, wanted));
        report.add(salvaged);
    }
    finish(settings)?;
    redex.close().wait().map_err(|error| write_error("(all)", error))?;
    drop(reader);
    check(partial)?;
    let io = |source| SalvageError::Io { path: to.to_owned(), source };
    target.publish().map_err(io)?;
    Ok(report)
}

fn write_error(channel: &str, error: impl Into<RedexError>) -> SalvageError {
    SalvageError::Write { channel: channel.to_owned(), source: Box::new(error.into()) }
}

/// Makes the new store, with an epoch of its own above the old ones: no cursor of the old store points at what comes in the new one.
fn make_store(to: &Path, survey: &Survey) -> io::Result<()> {
    let disk = PosixDisk::open(to, None)?;
    let shards = survey.shards.len().clamp(1, SHARDS_MAX);
    make_dirs(&disk, shards)?;
    let random = Random::system();
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&random.next_u64().to_le_bytes());
    uuid[8..].copy_from_slice(&random.next_u64().to_le_bytes());
    let root = ShardRoot { segment: SegmentNo(0), clean: None };
    let uuid = crate::ids::StoreUuid(uuid);
    make_superblock(
        &disk,
        &Superblock { uuid, epoch: survey.epoch_of_copy(), generation: 1, shards: vec![root; shards] },
    )
}

/// The channels, each with the name that it gets, and whether its own is lost. Of namesakes the newest has the name.
fn named(survey: &Survey) -> Vec<(&Plan, ChannelName, bool)> {
    let living = survey.channels.iter().map(|(_, plan)| plan).filter(|plan| !plan.deleted);
    let mut plans: Vec<&Plan> = living.collect();
    plans.sort_by_key(|plan| std::cmp::Reverse(plan.id));
    let mut taken = std::collections::HashSet::new();
    let mut named: Vec<_> = plans
        .into_iter()
        .map(|plan| {
            let own = plan.name.as_deref().and_then(|name| ChannelName::new(name).ok());
            match own.filter(|name| taken.insert(name.clone())) {
                Some(name) => (plan, name, false),
                None => (plan, ChannelName::new(&format!("salvaged/{}", plan.id)).expect("a name by the rules"), true),
            }
        })
        .collect();
    named.reverse();
    named
}

/// One channel on its way.
struct Rescue<'a> {
    ground: &'a Ground,
    known: &'a KnownLosses,
    reader: &'a mut Reader,
    plan: &'a Plan,
    wall_us: &'a Arc<AtomicU64>,
}

/// Counts.
#[derive(Default)]
struct Count {
    events: u64,
    bounds: Option<(u64, u64)>,
}

impl Visit for Count {
    fn event(&mut self, seq: u64, _time_us: u64, _payload: &[u8]) -> Result<(), SalvageError> {
        self.events += 1;
        self.bounds = Some((self.bounds.map_or(seq, |(first, _)| first), seq + 1));
        Ok(())
    }
}

/// Appends.
struct Copy<'a> {
    file: &'a RedexFile,
    wall_us: &'a AtomicU64,
    moved: Vec<MovedRange>,
    bytes: u64,
}

impl Visit for Copy<'_> {
    fn event(&mut self, seq: u64, time_us: u64, payload: &[u8]) -> Result<(), SalvageError> {
        self.wall_us.store(time_us, Ordering::Relaxed);
        let new = self.file.append(payload).wait();
        let new = new.map_err(|error| write_error(self.file.name().as_str(), error))?;
        self.bytes += payload.len() as u64;
        match self.moved.last_mut().filter(|last| (last.from.end, last.to.end) == (seq, new)) {
            Some(last) => (last.from.end, last.to.end) = (seq + 1, new + 1),
            None => self.moved.push(MovedRange { from: seq..seq + 1, to: new..new + 1 }),
        }
        Ok(())
    }
}

impl Rescue<'_> {
    fn run(
        &mut self,
        redex: &Redex,
        name: &ChannelName,
        name_lost: bool,
    ) -> Result<(SalvagedChannel, RedexFile, RedexFileConfig), SalvageError> {
        let stored = self.plan.config.as_deref().and_then(RedexFileConfig::decode);
        let settings_lost = stored.is_none();
        let wanted = stored.unwrap_or_default().with_persistent(true);
        let mut count = Count::default();
        let end = Merge::new(self.ground, self.known, self.reader, self.plan).run(&mut count)?.end;
        let first = Seq(end - count.events);
        // Written at once, and dropped by nobody meanwhile.
        let config = wanted.clone().with_fsync_policy(FsyncPolicy::Never).with_retention(Retention::default());
        let file = redex.make_file_from(name, config, first).map_err(|error| write_error(name.as_str(), error))?;
        let mut copy = Copy { file: &file, wall_us: self.wall_us, moved: Vec::new(), bytes: 0 };
        let merged = Merge::new(self.ground, self.known, self.reader, self.plan).run(&mut copy)?;
        file.sync().wait().map_err(|error| write_error(name.as_str(), error))?;
        let (moved, bytes) = (copy.moved, copy.bytes);
        let is_same = merged.lost.is_empty() && moved.iter().all(|range| range.from == range.to);
        if is_same {
            file.channel().carry_epochs(&self.plan.epochs);
        }
        let salvaged = SalvagedChannel {
            name: name.as_str().to_owned(),
            id: self.plan.id.to_string(),
            name_lost,
            settings_lost,
            end_unknown: merged.end_unknown,
            head_seq: first.0,
            next_seq: file.next_seq(),
            events_kept: moved.iter().map(|range| range.from.end - range.from.start).sum(),
            bytes,
            kept: moved,
            lost: merged.lost,
            in_cold_store: merged.cold,
        };
        Ok((salvaged, file, wanted))
    }
}

/// Gives the channels their settings, the limits of what is kept last: they count from now on.
fn finish(settings: Vec<(RedexFile, RedexFileConfig)>) -> Result<(), SalvageError> {
    for (file, wanted) in &settings {
        let name = file.name().as_str();
        file.set_fsync_policy(wanted.fsync_policy()).wait().map_err(|error| write_error(name, error))?;
    }
    for (file, wanted) in settings.iter().filter(|(_, wanted)| wanted.retention() != Retention::default()) {
        let changed = file.set_retention(wanted.retention()).wait();
        changed.map_err(|error| write_error(file.name().as_str(), error))?;
    }
    Ok(())
}

fn check(to: &Path) -> Result<(), SalvageError> {
    let report = crate::store_verify::verify(to, &crate::VerifyOptions::default())?;
    match report.findings.iter().find(|finding| finding.severity > Severity::Note) {
        None => Ok(()),
        Some(first) => Err(SalvageError::Damaged { path: to.to_owned(), first: first.to_string() }),
    }
}
