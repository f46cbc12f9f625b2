//! The files of a shard's journal: which are there, and what their headers say.

use std::collections::BTreeMap;
use std::io;

use super::error::{HeaderFault, JournalError};

use super::{Recovery, io_error};
use crate::ids::{Epoch, SegmentNo};
use crate::journal::format::{HeaderError, SegmentHeader};
use crate::journal::{journal_dir, report_unreadable, segment_number, segment_path};

/// What lies in a shard's journal directory.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Headers of the run that STORE names.
    pub(super) run: BTreeMap<SegmentNo, SegmentHeader>,
    /// Files with a segment's name that are none of this run, and why.
    pub(super) others: BTreeMap<SegmentNo, HeaderFault>,
    /// Names that are no segment's, and segments of other stores.
    pub(super) unknown: Vec<String>,
    /// Highest epoch in STORE or a header of this shard.
    pub(super) epoch_max: Epoch,
    /// Highest number in STORE, or in the name or header of a file.
    pub(super) number_max: SegmentNo,
}

impl Files {
    /// Lists the directory and reads every header.
    pub(super) fn read(recovery: &Recovery<'_>) -> Result<Self, JournalError> {
        let dir = journal_dir(recovery.shard);
        let entries = match recovery.disk.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error(&dir, 0, error)),
        };
        let (epoch_max, number_max) = (recovery.epoch, recovery.root.segment);
        let mut files = Self { epoch_max, number_max, ..Self::default() };
        for entry in entries {
            match segment_number(&entry.name) {
                Some(number) if !entry.is_dir => files.add(recovery, number, entry.name)?,
                _ if entry.is_dir && entry.name == "spare" => {}
                _ => files.unknown.push(entry.name),
            }
        }
        Ok(files)
    }

    fn add(&mut self, recovery: &Recovery<'_>, number: SegmentNo, name: String) -> Result<(), JournalError> {
        self.number_max = self.number_max.max(number);
        match read_header(recovery, number)? {
            Ok(header) if header.uuid != recovery.uuid => {
                self.unknown.push(name);
                self.others.insert(number, HeaderFault::OtherStore(header.uuid));
            }
            Ok(header) if header.shard != recovery.shard => {
                self.others.insert(number, HeaderFault::OtherShard(header.shard));
            }
            Ok(header) => self.add_own(recovery, number, header),
            Err(fault) => {
                if let HeaderFault::Unreadable(error) = &fault {
                    report_unreadable(&segment_path(recovery.shard, number), error);
                }
                self.others.insert(number, fault);
            }
        }
        Ok(())
    }

    fn add_own(&mut self, recovery: &Recovery<'_>, number: SegmentNo, header: SegmentHeader) {
        self.epoch_max = self.epoch_max.max(header.epoch);
        self.number_max = self.number_max.max(header.number);
        if header.number != number {
            self.others.insert(number, HeaderFault::OtherNumber(header.number));
        } else if number < recovery.root.segment || header.epoch > recovery.epoch {
            self.others.insert(number, HeaderFault::OtherRun(header.epoch));
        } else {
            self.run.insert(number, header);
        }
    }
}

/// Reads one header. What makes the file unusable is no error here: it may be a file that nobody needs.
fn read_header(recovery: &Recovery<'_>, number: SegmentNo) -> Result<Result<SegmentHeader, HeaderFault>, JournalError> {
    let path = segment_path(recovery.shard, number);
    let header = crate::journal::read_header(recovery.disk, &path)
        .map_err(HeaderFault::Unreadable)
        .and_then(|header| header.map_err(HeaderFault::Damaged));
    match header {
        Err(HeaderFault::Damaged(HeaderError::Version { version })) => Err(JournalError::Newer { path, version }),
        header => Ok(header),
    }
}
