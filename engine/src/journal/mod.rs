//! The journal of a shard: the files into which every new event of the shard goes first.
//!
//! [`format`](mod@format) is the bytes: segment headers, commits and their entries. [`scan`] reads one shard's
//! journal at recovery, tells a torn tail from corruption, and gives the commits that hold. [`pool`] keeps files ready,
//! [`writer`] knows where the next commit goes.

pub mod format;
pub mod pool;
pub mod scan;
pub mod writer;

use crate::ids::{SegmentNo, ShardId};

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

/// The number in a segment's file name; `None` if no segment has such a name.
#[must_use]
pub fn segment_number(name: &str) -> Option<SegmentNo> {
    let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 20)?;
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|&number| all_digits && number > 0)?;
    Some(SegmentNo(number))
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
