//! The journal of a shard: the files into which every new event of the shard goes first.
//!
//! [`format`](mod@format) is the bytes: segment headers, commits and their entries. [`scan`] reads one shard's
//! journal at recovery, tells a torn tail from corruption, and gives the commits that hold. [`pool`] keeps files ready,
//! [`writer`] knows where the next commit goes.

pub mod format;
pub mod pool;
pub mod scan;
pub mod writer;

use std::io;

use crate::ids::{SegmentNo, ShardId};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, OpenMode, read_full};
use format::{HeaderError, SegmentHeader};

/// Where a shard's segments lie.
#[must_use]
pub fn journal_dir(shard: ShardId) -> String {
    format!("journal/{:03}", shard.0)
}

/// Where a shard's ready, unused files lie.
#[must_use]
pub fn spare_dir(shard: ShardId) -> String {
    format!("journal/{:03}/spare", shard.0)
}

/// Path of a segment.
#[must_use]
pub fn segment_path(shard: ShardId, number: SegmentNo) -> String {
    format!("journal/{:03}/{:020}.wal", shard.0, number.0)
}

/// Largest segment of a journal, bytes.
pub const SEGMENT_SIZE_MAX: u64 = 1 << 30;

/// The number in a segment's file name; `None` if no segment has such a name.
#[must_use]
pub fn segment_number(name: &str) -> Option<SegmentNo> {
    let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 20)?;
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|&number| all_digits && number > 0)?;
    Some(SegmentNo(number))
}

/// Reads the header of a segment, wherever it lies.
///
/// # Errors
///
/// If the file cannot be read; within, if its first block is no header.
pub fn read_header(disk: &dyn Disk, path: &str) -> io::Result<Result<SegmentHeader, HeaderError>> {
    let mut block = AlignedBuf::new(BLOCK_SIZE);
    let size = read_full(&*disk.open(path, OpenMode::Read)?, &mut block, 0)?;
    Ok(SegmentHeader::verify(&block[..size]))
}

/// Says that a file is not of this store, or not known. It is never deleted (design, part 3).
pub fn report_unknown(path: &str) {
    tracing::warn!(path, "unknown file in the store's directory; it is left alone");
}

/// Says that a file does not tell whose it is. It is left alone like one of another store.
pub fn report_unreadable(path: &str, error: &io::Error) {
    tracing::warn!(path, %error, "a file in the store's directory cannot be read; it is left alone");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_come_back_and_others_do_not() {
        for number in [1, 42, u64::MAX].map(SegmentNo) {
            let path = segment_path(ShardId(7), number);
            let name = path.strip_prefix("journal/007/").unwrap();
            assert_eq!(segment_number(name), Some(number));
        }
        let zero = format!("{:020}.wal", 0);
        for name in ["spare", "1.wal", "+0000000000000000001.wal", "99999999999999999999.wal", &zero] {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
