//! The directories of channels: what lies there besides what the plans expect, and what only they tell.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::adopt::{Doubt, Files, adopt};
use super::finding::{FindingKind, FoundChannel, Severity, StoreFinding};
use super::plan::Plan;
use super::{ShardSurvey, Survey};
use crate::cold::manifest::{COLD_MANIFEST_SIZE_MAX, ColdManifest, manifest_path};
use crate::ids::{ChannelId, ShardId, StoreUuid};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, OpenMode, read_full};
use crate::segment::path::{CHANNELS_DIR, channel_dir, meta_path};
use crate::shard::checkpoint::checkpoint_dir;
use crate::store::meta::{META_SIZE, Meta};

/// What a channel's directory holds.
#[derive(Debug, Default)]
struct Directory {
    /// First sequences of idx files, and of dat files.
    idx: BTreeSet<u64>,
    dat: BTreeSet<u64>,
    has_meta: bool,
    has_manifest: bool,
}

/// Looks into every channel's directory; completes the plans.
pub fn complete(disk: &dyn Disk, survey: &mut Survey) -> io::Result<()> {
    let mut directories = list(disk, &mut survey.findings)?;
    let lacks_commits = |shard: &ShardSurvey| hole_ends(shard).any(|end| end > shard.replay_lsn.unwrap_or(0));
    let is_damaged =
        survey.store.is_none() || survey.shards.iter().any(|shard| shard.lacks_states || lacks_commits(shard));
    let uuid = survey.uuid;
    let bad_states: BTreeMap<ShardId, String> = survey
        .shards
        .iter()
        .filter_map(|shard| Some((shard.shard, newest_bad_states(shard, &survey.findings)?)))
        .collect();
    let mut channels = std::mem::take(&mut survey.channels);
    for (shard, plan) in &mut channels {
        let directory = directories.remove(&plan.id).unwrap_or_default();
        if plan.deleted {
            leave(survey, plan.id, &directory, "it was deleted");
            continue;
        }
        let shard = shard.and_then(|shard| survey.shards.iter().find(|survey| survey.shard == shard));
        let doubt = shard.map_or(Doubt::ALL, |shard| doubt_of(plan, shard, bad_states.get(&shard.shard)));
        complete_one(disk, survey.uuid, plan, &directory, doubt, &mut survey.findings);
    }
    for (id, directory) in directories {
        if !is_damaged {
            leave(survey, id, &directory, "nothing tells of this channel: a deletion or the making of it was cut off");
            continue;
        }
        let mut plan = Plan::new(id);
        complete_one(disk, uuid, &mut plan, &directory, Doubt::ALL, &mut survey.findings);
        let cause = "nothing but its files tells of this channel: where it ends is what its blocks say";
        let finding = StoreFinding::loss(FindingKind::CheckpointState, &channel_dir(id), 0, cause);
        survey.findings.push(finding.of(&Survey::found(&plan)));
        channels.push((None, plan));
    }
    survey.channels = channels;
    Ok(())
}

/// Files that an open removes.
fn leave(survey: &mut Survey, id: ChannelId, directory: &Directory, why: &str) {
    if directory.has_meta || !directory.idx.is_empty() || !directory.dat.is_empty() {
        survey.findings.push(StoreFinding::note(FindingKind::Leftover, &channel_dir(id), why));
    }
}

fn complete_one(
    disk: &dyn Disk,
    uuid: StoreUuid,
    plan: &mut Plan,
    directory: &Directory,
    doubt: Doubt,
    findings: &mut Vec<StoreFinding>,
) {
    check_meta(disk, uuid, plan, directory, findings);
    plan.cold = if directory.has_manifest { cold_ranges(disk, uuid, plan, directory, findings) } else { Vec::new() };
    adopt(disk, plan, Files { idx: &directory.idx, dat: &directory.dat }, doubt, findings);
    if plan.is_of_files() {
        plan.begin_by_files();
    }
    let planned: BTreeSet<u64> = plan.segments.iter().map(|segment| segment.first).collect();
    for first in directory.idx.difference(&planned) {
        let path = crate::segment::path::idx_path(plan.id, crate::ids::Seq(*first));
        let cause = "no segment of the channel begins there: a crash came before it went";
        findings.push(StoreFinding::note(FindingKind::Leftover, &path, cause).of(&Survey::found(plan)));
    }
    for first in directory.dat.difference(&directory.idx).filter(|first| !planned.contains(first)) {
        let path = crate::segment::path::dat_path(plan.id, crate::ids::Seq(*first));
        let cause = "no segment of the channel begins there";
        findings.push(StoreFinding::note(FindingKind::Leftover, &path, cause).of(&Survey::found(plan)));
    }
}

/// Where the commits end that are missing.
fn hole_ends(shard: &ShardSurvey) -> impl Iterator<Item = u64> {
    shard.holes.iter().map(|hole| if hole.lsns.is_empty() { u64::MAX } else { hole.lsns.end })
}

/// The newest checkpoint file of a shard that lacks states.
fn newest_bad_states(shard: &ShardSurvey, findings: &[StoreFinding]) -> Option<String> {
    let dir = format!("{}/", checkpoint_dir(shard.shard));
    let bad = findings.iter().filter(|found| found.severity == Severity::Loss && found.file.starts_with(&dir));
    bad.map(|found| &found.file).max().cloned()
}

/// What of a shard's damage may have been about a channel.
fn doubt_of(plan: &Plan, shard: &ShardSurvey, bad_states: Option<&String>) -> Doubt {
    // What a checkpoint contains needs no commit.
    let contained = shard.replay_lsn.map_or(0, |replay_lsn| replay_lsn.max(plan.state_lsn()));
    let last = plan.last_lsn().max(contained);
    // A file has one state of each channel at the most: only one in a newer file may have been newer.
    let is_newest = match (bad_states, &plan.state_path, shard.replay_lsn) {
        (Some(bad), Some(path), Some(_)) => bad <= path,
        _ => false,
    };
    Doubt {
        states: shard.lacks_states && !plan.created && !is_newest,
        commits: hole_ends(shard).any(|end| end > contained),
        end: hole_ends(shard).any(|end| end > last),
        run_epoch: shard.run_epoch,
    }
}

fn check_meta(
    disk: &dyn Disk,
    uuid: StoreUuid,
    plan: &mut Plan,
    directory: &Directory,
    findings: &mut Vec<StoreFinding>,
) {
    let path = meta_path(plan.id);
    let found = match directory.has_meta {
        true => load_meta(disk, &path),
        false => Err("it is missing".to_owned()),
    };
    let fault = match found {
        Ok(meta) if (meta.uuid, meta.id) != (uuid, plan.id) => {
            Some(format!("it belongs to channel {:?} with the id {} in store {}", meta.name, meta.id, meta.uuid))
        }
        Ok(meta) => match &plan.name {
            Some(name) if *name != meta.name => Some(format!("it says that the channel's name is {:?}", meta.name)),
            Some(_) => None,
            None => {
                plan.name = Some(meta.name);
                None
            }
        },
        Err(cause) => Some(cause),
    };
    // A channel without blocks has none; recovery makes one where it writes the first.
    let wanted = plan.has_blocks || directory.has_meta;
    if let Some(cause) = fault.filter(|_| wanted) {
        findings.push(
            StoreFinding::loss(FindingKind::Meta, &path, 0, cause)
                .of(&FoundChannel::new(plan.id, plan.name.as_deref())),
        );
    }
}

fn load_meta(disk: &dyn Disk, path: &str) -> Result<Meta, String> {
    let file = disk.open(path, OpenMode::Read).map_err(|error| format!("it cannot be read: {error}"))?;
    let mut buf = AlignedBuf::new(META_SIZE);
    let size = read_full(&*file, &mut buf, 0).map_err(|error| format!("it cannot be read: {error}"))?;
    Meta::decode(&buf[..size]).map_err(|error| error.to_string())
}

/// The sequences that lie in the cold store. If the manifest is bad, it is made again from a listing at an open: until then, the
/// sealed segments that are not here may be there.
fn cold_ranges(
    disk: &dyn Disk,
    uuid: StoreUuid,
    plan: &Plan,
    directory: &Directory,
    findings: &mut Vec<StoreFinding>,
) -> Vec<std::ops::Range<u64>> {
    let path = manifest_path(plan.id);
    let manifest =
        load_manifest(disk, &path).and_then(|manifest| match (manifest.uuid, manifest.channel) == (uuid, plan.id) {
            true => Ok(manifest),
            false => Err(format!("it is that of channel {} in store {}", manifest.channel, manifest.uuid)),
        });
    let cause = match manifest {
        Ok(manifest) => return manifest.segments.iter().map(|segment| segment.first..segment.end).collect(),
        Err(cause) => cause,
    };
    let is_here = |first: &u64| directory.idx.contains(first);
    let away: Vec<_> = plan.segments.iter().filter(|segment| segment.sealed && !is_here(&segment.first)).collect();
    let cause = match away.len() {
        0 => cause,
        count => format!("{cause}; {count} segments that are not here are taken to be in the cold store, unchecked"),
    };
    let finding = StoreFinding::new(FindingKind::ColdManifest, Severity::Redundant, &path, 0, cause);
    findings.push(finding.of(&Survey::found(plan)));
    away.into_iter().map(|segment| segment.first..segment.end).collect()
}

fn load_manifest(disk: &dyn Disk, path: &str) -> Result<ColdManifest, String> {
    let file = disk.open(path, OpenMode::Read).map_err(|error| error.to_string())?;
    let size = file.size().map_err(|error| error.to_string())?;
    if size > COLD_MANIFEST_SIZE_MAX {
        return Err(format!("it has {size} bytes, the limit is {COLD_MANIFEST_SIZE_MAX}"));
    }
    let mut buf = AlignedBuf::new((size as usize).next_multiple_of(BLOCK_SIZE).max(BLOCK_SIZE));
    let size = read_full(&*file, &mut buf, 0).map_err(|error| error.to_string())?;
    ColdManifest::decode(&buf[..size]).map_err(|error| error.to_string())
}

fn list(disk: &dyn Disk, findings: &mut Vec<StoreFinding>) -> io::Result<BTreeMap<ChannelId, Directory>> {
    let mut directories = BTreeMap::new();
    for fan in entries(disk, CHANNELS_DIR)? {
        for channel in entries(disk, &format!("{CHANNELS_DIR}/{}", fan.name))? {
            let path = format!("{CHANNELS_DIR}/{}/{}", fan.name, channel.name);
            let id = u64::from_str_radix(&channel.name, 16).ok().map(ChannelId);
            let Some(id) = id.filter(|id| channel.is_dir && channel_dir(*id) == path) else {
                findings.push(StoreFinding::note(FindingKind::UnknownFile, &path, "no channel has such a directory"));
                continue;
            };
            directories.insert(id, look(disk, &path, findings)?);
        }
    }
    Ok(directories)
}

fn look(disk: &dyn Disk, dir: &str, findings: &mut Vec<StoreFinding>) -> io::Result<Directory> {
    let mut directory = Directory::default();
    for entry in entries(disk, dir)? {
        let number = |suffix| {
            let digits = entry.name.strip_suffix(suffix).filter(|digits| digits.len() == 20)?;
            digits.parse::<u64>().ok()
        };
        match (entry.name.as_str(), number(".idx"), number(".dat")) {
            ("META", ..) => directory.has_meta = true,
            ("COLD", ..) => directory.has_manifest = true,
            ("META.new" | "COLD.new", ..) => {}
            (_, Some(first), _) => _ = directory.idx.insert(first),
            (_, _, Some(first)) => _ = directory.dat.insert(first),
            (name, ..) => {
                let path = format!("{dir}/{name}");
                findings.push(StoreFinding::note(FindingKind::UnknownFile, &path, "a channel has no such file"));
            }
        }
    }
    Ok(directory)
}

fn entries(disk: &dyn Disk, dir: &str) -> io::Result<Vec<crate::io::DirEntry>> {
    match disk.list(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        entries => entries,
    }
}
