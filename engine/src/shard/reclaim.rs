//! Files of segments that nobody needs any more: below the head, behind a cut, of a deleted channel.
//!
//! They go when no recovery can ask for them: once the commit that says so is durable, and a later one that was durable
//! too has told of it (its witness, design D6). Before, a recovery checks the extents of that commit's neighbours, and a missing
//! file would look like a torn one. A checkpoint waits until what was dead at its beginning is gone: afterwards nothing
//! knows of it any more.
//!
//! Another thread does it. A file that cannot be removed is reported, and left.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Shard;
use super::commit::{ControlEntry, Kind};
use super::handle::Slot;
use super::stats::add;
use crate::error::Poisoned;
use crate::ids::{ChannelId, Lsn, Seq};
use crate::io::located::located;
use crate::io::{BLOCK_SIZE, Disk};
use crate::read::offload::Offloaded;
use crate::segment::path::{channel_dir, dat_path, fan_dir, idx_path};

/// What is to be removed.
#[derive(Debug)]
pub enum Dead {
    /// A pair of files.
    Segment(Seq),
    /// A channel's directory with all that is ours in it.
    Channel,
}

#[derive(Debug)]
struct Waiting {
    slot: Slot,
    channel: ChannelId,
    dead: Dead,
    /// The commit that says so.
    lsn: Lsn,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Reclaim {
    waiting: std::collections::VecDeque<Waiting>,
    running: Option<(Waiting, Offloaded<io::Result<()>>)>,
    /// How many were ever handed over, and how many are done, in order.
    handed_over: u64,
    done: u64,
}

impl Reclaim {
    /// Whether nothing is left to remove.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_none()
    }

    /// What [`Reclaim::is_done`] is asked for later.
    pub fn handed_over(&self) -> u64 {
        self.handed_over
    }

    /// Whether everything is gone that had been handed over then.
    pub fn is_done(&self, handed_over: u64) -> bool {
        self.done >= handed_over
    }

    /// Whether something of a channel has yet to be removed.
    pub fn has_some_of(&self, channel: ChannelId) -> bool {
        let running = self.running.iter().map(|(waiting, _)| waiting);
        self.waiting.iter().chain(running).any(|waiting| waiting.channel == channel)
    }

    /// Whether a pair of files of this name has yet to be removed.
    pub fn waits_for(&self, channel: ChannelId, first: Seq) -> bool {
        let running = self.running.iter().map(|(waiting, _)| waiting);
        let is_it =
            |waiting: &Waiting| waiting.channel == channel && matches!(waiting.dead, Dead::Segment(f) if f == first);
        self.waiting.iter().chain(running).any(is_it)
    }
}

impl Shard {
    /// Something is to be removed, as the commit says.
    pub(super) fn bury(&mut self, slot: Slot, channel: ChannelId, dead: Dead, lsn: Lsn) {
        self.reclaim.handed_over += 1;
        self.reclaim.waiting.push_back(Waiting { slot, channel, dead, lsn });
    }

    /// Removes what may go, one after the other, beside the shard.
    pub(super) fn reclaim(&mut self) -> Result<bool, Poisoned> {
        if self.reclaim.running.is_none() {
            let Some(front) = self.reclaim.waiting.front() else { return Ok(false) };
            if front.lsn >= self.commits.witnessed_durably {
                return self.leave_durable_witness(front.lsn);
            }
            let waiting = self.reclaim.waiting.pop_front().expect("there is a front");
            let (disk, channel) = (self.disk.clone(), waiting.channel);
            let job: Box<dyn FnOnce() -> io::Result<()> + Send> = match waiting.dead {
                Dead::Segment(first) => Box::new(move || remove_segment(&*disk, channel, first)),
                Dead::Channel => Box::new(move || remove_channel(&*disk, channel)),
            };
            let running = self.file_maker.run(job);
            self.reclaim.running = Some((waiting, running));
        }
        let (waiting, mut running) = self.reclaim.running.take().expect("one is under way");
        match Pin::new(&mut running).poll(&mut Context::from_waker(&self.errand_waker)) {
            Poll::Pending => {
                self.reclaim.running = Some((waiting, running));
                Ok(false)
            }
            Poll::Ready(result) => {
                if let Err(error) = result {
                    let dir = channel_dir(waiting.channel);
                    tracing::warn!(shard = %self.handle.id, dir, %error, "files that nobody needs any more stay");
                }
                self.reclaim.done += 1;
                add(&self.handle.stats.removed, 1);
                if self.active.get(waiting.slot as usize).is_some_and(Option::is_some) {
                    // A new segment of the same name may wait for this.
                    self.queue_destage(waiting.slot);
                }
                Ok(true)
            }
        }
    }

    /// Whether the next commit should be durable, since it is the witness that something waits for.
    pub(super) fn wants_durable_witness(&self) -> bool {
        let front = self.reclaim.waiting.front().filter(|_| self.reclaim.running.is_none());
        front.is_some_and(|front| front.lsn >= self.commits.witnessed_durably && front.lsn < self.commits.durable)
    }

    /// While nothing else is committed, an empty commit tells of the one that something waits for. Those before it may be
    /// written and not flushed.
    fn leave_durable_witness(&mut self, lsn: Lsn) -> Result<bool, Poisoned> {
        let quiet = self.can_commit() && self.commits.are_written() && self.queue.is_empty() && self.notes.is_empty();
        if !quiet {
            return Ok(false);
        }
        if lsn >= self.commits.durable {
            // A channel that is never flushed may be the only one, and waits for the removal.
            self.flush_backlog = self.commits.needs_flush();
            return Ok(self.flush_backlog);
        }
        if self.journal.bytes_left() < BLOCK_SIZE as u64 + self.journal_reserve() {
            self.begin_roll()?;
        } else {
            self.commit_entry(Kind::Idle, &ControlEntry::Witness, true);
        }
        Ok(true)
    }
}

/// Removes what is there of a segment.
pub fn remove_segment(disk: &dyn Disk, channel: ChannelId, first: Seq) -> io::Result<()> {
    let mut any = false;
    for path in [idx_path(channel, first), dat_path(channel, first)] {
        any |= remove(disk, &path)?;
    }
    let dir = channel_dir(channel);
    if any { disk.sync_dir(&dir).map_err(located(&dir)) } else { Ok(()) }
}

/// Removes what is there of a channel. Files that are not ours stay, and their directory with them.
pub fn remove_channel(disk: &dyn Disk, channel: ChannelId) -> io::Result<()> {
    let dir = channel_dir(channel);
    let entries = match disk.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(located(&dir))?,
    };
    let mut foreign = false;
    for entry in entries {
        if entry.is_dir || !is_ours(&entry.name) {
            foreign = true;
            continue;
        }
        remove(disk, &format!("{dir}/{}", entry.name))?;
    }
    disk.sync_dir(&dir).map_err(located(&dir))?;
    if foreign {
        tracing::warn!(dir, "directory of a deleted channel has files of others: it stays");
        return Ok(());
    }
    let fan = fan_dir(channel);
    disk.remove_dir(&dir).map_err(located(&dir))?;
    disk.sync_dir(&fan).map_err(located(&fan))
}

/// Removes the files of segments that do not begin with one of these.
pub fn remove_other_segments(disk: &dyn Disk, channel: ChannelId, known: &[u64]) -> io::Result<()> {
    let dir = channel_dir(channel);
    let mut any = false;
    let entries = match disk.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(located(&dir))?,
    };
    for entry in entries {
        if segment_first(&entry.name).is_some_and(|first| !entry.is_dir && !known.contains(&first)) {
            any |= remove(disk, &format!("{dir}/{}", entry.name))?;
        }
    }
    if any { disk.sync_dir(&dir).map_err(located(&dir)) } else { Ok(()) }
}

/// The first sequence in the name of a segment's file.
fn segment_first(name: &str) -> Option<u64> {
    let name = name.strip_suffix(".idx").or_else(|| name.strip_suffix(".dat"))?;
    let is_number = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| name.parse().ok())?
}

/// Whether a name in a channel's directory is one that the store gives.
fn is_ours(name: &str) -> bool {
    matches!(name, "META" | "META.new" | "COLD" | "COLD.new") || segment_first(name).is_some()
}

/// Whether the file was there.
fn remove(disk: &dyn Disk, path: &str) -> io::Result<bool> {
    match disk.unlink(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true).map_err(located(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn only_names_that_the_store_gives_are_removed() {
        for name in ["META", "META.new", "COLD", "00000000000000000012.idx", "00000000000000000012.dat"] {
            assert!(is_ours(name), "{name}");
        }
        for name in
            ["meta", "12.idx", "0000000000000000001x.idx", "00000000000000000012.bak", "00000000000000000012", ""]
        {
            assert!(!is_ours(name), "{name}");
        }
    }
}
