//! The segments of all journals, by what their headers say, wherever they lie.
//!
//! A segment under another one's name, or among those of another shard, is still that segment. But a file that was taken for a new
//! one, whose header did not come before a crash, has that of an earlier life: such a one must not look like something that
//! has lost its neighbours ([`JournalFiles::of_shard`]).

use std::collections::BTreeMap;
use std::io;

use super::finding::{FindingKind, StoreFinding};
use crate::ids::{SegmentNo, ShardId, StoreUuid};
use crate::io::Disk;
use crate::journal::format::{HeaderError, SegmentContext, SegmentHeader};
use crate::journal::{journal_dir, segment_number};

/// A segment to be read.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its file.
    pub path: String,
    /// Its number: by its header, else by its name.
    pub number: SegmentNo,
    /// What its header says.
    pub first_lsn: Option<u64>,
    /// What its header says.
    pub predecessor: Option<SegmentNo>,
    /// What its header says; 0 without one.
    pub epoch: u32,
    /// What its commits are checked against; none without a header.
    pub context: Option<SegmentContext>,
    /// What is wrong with its header.
    pub fault: Option<String>,
    /// Whether it lies in another one's place.
    pub is_misplaced: bool,
}

/// What lies in the directories of the journals.
#[derive(Debug, Default)]
pub struct JournalFiles {
    /// Whole headers, each in its place.
    named: BTreeMap<(ShardId, SegmentNo), Segment>,
    /// Whole headers in other places.
    misplaced: Vec<(ShardId, Segment)>,
    /// Names under which nothing lies that belongs there.
    faulty: Vec<(ShardId, Segment)>,
    /// Highest epoch of any header.
    pub epoch_max: u32,
}

impl JournalFiles {
    /// Reads the headers of so many shards.
    ///
    /// # Errors
    ///
    /// If a directory cannot be listed.
    pub fn read(disk: &dyn Disk, uuid: StoreUuid, shards: usize, findings: &mut Vec<StoreFinding>) -> io::Result<Self> {
        let mut files = Self::default();
        for shard in (0..shards).map(|index| ShardId(index as u16)) {
            let dir = journal_dir(shard);
            let entries = match disk.list(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                entries => entries?,
            };
            for entry in entries {
                let path = format!("{dir}/{}", entry.name);
                match segment_number(&entry.name).filter(|_| !entry.is_dir) {
                    Some(number) => files.add(disk, uuid, (shard, number), path, findings),
                    None if entry.is_dir && entry.name == "spare" => {}
                    None => {
                        let cause = "it has the name of no file of a journal";
                        findings.push(StoreFinding::note(FindingKind::UnknownFile, &path, cause));
                    }
                }
            }
        }
        Ok(files)
    }

    fn add(
        &mut self,
        disk: &dyn Disk,
        uuid: StoreUuid,
        (shard, number): (ShardId, SegmentNo),
        path: String,
        findings: &mut Vec<StoreFinding>,
    ) {
        let fault = match header_of(disk, &path) {
            Ok(header) if header.uuid != uuid => {
                let cause = format!("it belongs to another store, {}", header.uuid);
                findings.push(StoreFinding::note(FindingKind::UnknownFile, &path, &cause));
                cause
            }
            Ok(header) => {
                self.epoch_max = self.epoch_max.max(header.epoch.0);
                let own = (header.shard, header.number);
                let segment = Segment::whole(path.clone(), &header, own != (shard, number));
                if !segment.is_misplaced {
                    self.named.insert(own, segment);
                    return;
                }
                self.misplaced.push((header.shard, segment));
                format!("its header says shard {}, number {}", header.shard, header.number)
            }
            Err(fault) => fault,
        };
        self.faulty.push((shard, Segment::faulty(path, number, fault)));
    }

    /// The segments of a shard, from which on `root` is what STORE names.
    ///
    /// One in another place counts if it lies between those in their own places, or goes on below them without a gap: the lowest
    /// go back to the spare ones first, so what a spare one still says of itself lies below all, and leaves no new gap.
    pub fn of_shard(&self, shard: ShardId, root: SegmentNo) -> BTreeMap<SegmentNo, Segment> {
        let named = self.named.iter().filter(|((of, _), _)| *of == shard);
        let mut segments: BTreeMap<_, _> = named.map(|((_, number), segment)| (*number, segment.clone())).collect();
        let mut lowest = segments.range(root..).next().map(|(number, _)| number.0);
        let misplaced = self.misplaced.iter().filter(|(of, segment)| *of == shard && segment.number >= root);
        let mut misplaced: Vec<_> = misplaced.map(|(_, segment)| segment).collect();
        misplaced.sort_by_key(|segment| std::cmp::Reverse(segment.number));
        for segment in misplaced {
            if lowest.is_none_or(|lowest| segment.number.0 + 1 >= lowest) {
                segments.entry(segment.number).or_insert_with(|| segment.clone());
                lowest = Some(lowest.unwrap_or(u64::MAX).min(segment.number.0));
            }
        }
        for (_, segment) in self.faulty.iter().filter(|(of, _)| *of == shard) {
            segments.entry(segment.number).or_insert_with(|| segment.clone());
        }
        segments
    }
}

fn header_of(disk: &dyn Disk, path: &str) -> Result<SegmentHeader, String> {
    match crate::journal::read_header(disk, path) {
        Ok(Ok(header)) => Ok(header),
        Ok(Err(error @ HeaderError::Version { .. })) => Err(format!("{error}; newer software wrote it")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

impl Segment {
    fn whole(path: String, header: &SegmentHeader, is_misplaced: bool) -> Self {
        Self {
            path,
            number: header.number,
            first_lsn: Some(header.first_lsn.0),
            predecessor: header.predecessor,
            epoch: header.epoch.0,
            context: Some(header.context()),
            fault: None,
            is_misplaced,
        }
    }

    fn faulty(path: String, number: SegmentNo, fault: String) -> Self {
        Self {
            path,
            number,
            first_lsn: None,
            predecessor: None,
            epoch: 0,
            context: None,
            fault: Some(fault),
            is_misplaced: false,
        }
    }
}
