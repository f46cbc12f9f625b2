//! STORE: where every opening begins.
//!
//! Two copies, one block each, at offsets 0 and 4096 of the file `STORE`. Both are written, with the same content, one
//! after the other, each made durable before the other is touched: so one of them is whole at any time, and the whole
//! one with the higher generation counts. STORE says who the store is, how often it was opened, and where each shard's
//! journal begins.

use serde::{Deserialize, Serialize};

use super::envelope::{self, ENVELOPE_SIZE, EnvelopeError};
use crate::ids::{Epoch, Lsn, SegmentNo, StoreUuid};

/// Path of the file, beneath the base directory.
pub const STORE_PATH: &str = "STORE";

/// Size of one copy, bytes.
pub const SUPERBLOCK_SIZE: usize = 4096;

/// Size of both copies, bytes.
pub const STORE_FILE_SIZE: usize = 2 * SUPERBLOCK_SIZE;

/// Most shards a store can have: so many fit into a copy, whatever the numbers.
pub const SHARDS_MAX: usize = 96;

/// Version of STORE's layout.
pub const STORE_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"REDEXSTO";

/// Longest encodings, bytes: uuid, epoch, generation, number of shards.
const FIXED_SIZE_MAX: usize = 16 + 5 + 10 + 1;

/// Longest encoding of a shard, bytes: four numbers and the tag of an option.
const SHARD_SIZE_MAX: usize = 4 * 10 + 1;

const _: () = assert!(ENVELOPE_SIZE + FIXED_SIZE_MAX + SHARDS_MAX * SHARD_SIZE_MAX <= SUPERBLOCK_SIZE);

/// Where a shard's journal ends after a clean close. What lies behind is no part of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanEnd {
    /// The last segment.
    pub segment: SegmentNo,
    /// End of the last commit in it (the closing checkpoint's), bytes.
    pub offset: u64,
    /// LSN behind the last commit.
    pub next_lsn: Lsn,
}

/// Where one shard's journal lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRoot {
    /// Where this run's journal begins. Segments with lower numbers are leftovers.
    pub segment: SegmentNo,
    /// Where it ends, if the store was closed.
    pub clean: Option<CleanEnd>,
}

/// What STORE says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Identity of the store.
    pub uuid: StoreUuid,
    /// Number of the latest opening.
    pub epoch: Epoch,
    /// Raised at every writing of STORE.
    pub generation: u64,
    /// One a shard, in order.
    pub shards: Vec<ShardRoot>,
}

/// More shards than fit into a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a store can have 1 to {SHARDS_MAX} shards, not {shards}")]
pub struct ShardCountError {
    /// How many there are.
    pub shards: usize,
}

/// Why STORE cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuperblockError {
    /// Both copies are bad. Restore from a copy of the store.
    #[error(
        "both copies of STORE are bad; at offset 0: {first}; at offset 4096: {second}; \
         keep the directory as it is, and restore the store from a copy"
    )]
    Damaged {
        /// What is wrong with the copy at offset 0.
        first: EnvelopeError,
        /// What is wrong with the copy at offset 4096.
        second: EnvelopeError,
    },
    /// Newer software wrote the store. Use it, or a later one.
    #[error(
        "STORE has format version {version}, this software knows up to {STORE_VERSION}; \
         use the software that wrote it, or a later one"
    )]
    Newer {
        /// Version found.
        version: u16,
    },
    /// Both copies are whole, but of different stores: a file was mixed up. Put the right one back.
    #[error(
        "the two copies of STORE belong to different stores, {first} at offset 0 and {second} at offset 4096; \
         put the right file back from a copy"
    )]
    TwoStores {
        /// Store of the copy at offset 0.
        first: StoreUuid,
        /// Store of the copy at offset 4096.
        second: StoreUuid,
    },
}

#[derive(Serialize, Deserialize)]
struct StoreBody {
    uuid: [u8; 16],
    epoch: u32,
    generation: u64,
    shards: Vec<ShardBody>,
}

#[derive(Serialize, Deserialize)]
struct ShardBody {
    segment: u64,
    clean: Option<(u64, u64, u64)>,
}

impl Superblock {
    /// Fills one copy, [`SUPERBLOCK_SIZE`] bytes.
    ///
    /// # Errors
    ///
    /// If there are no shards, or more than [`SHARDS_MAX`].
    ///
    /// # Panics
    ///
    /// If `out` has another size.
    pub fn encode(&self, out: &mut [u8]) -> Result<(), ShardCountError> {
        assert_eq!(out.len(), SUPERBLOCK_SIZE);
        let shards = self.shards.len();
        if shards == 0 || shards > SHARDS_MAX {
            return Err(ShardCountError { shards });
        }
        let body = postcard::to_stdvec(&self.body()).expect("plain numbers always encode");
        envelope::seal(out, MAGIC, STORE_VERSION, &body).expect("SHARDS_MAX shards fit");
        Ok(())
    }

    /// Reads the file's bytes: picks the whole copy with the higher generation. A file cut off in its second copy is
    /// read by its first.
    ///
    /// # Errors
    ///
    /// If no copy is whole, one is of a newer version, or they are of two stores.
    pub fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let (first, second) = bytes.split_at(bytes.len().min(SUPERBLOCK_SIZE));
        let copies = (Self::decode_copy(first), Self::decode_copy(second));
        match copies {
            (Err(EnvelopeError::Newer { version, .. }), _) | (_, Err(EnvelopeError::Newer { version, .. })) => {
                Err(SuperblockError::Newer { version })
            }
            (Err(first), Err(second)) => Err(SuperblockError::Damaged { first, second }),
            (Ok(copy), Err(_)) | (Err(_), Ok(copy)) => Ok(copy),
            (Ok(first), Ok(second)) if first.uuid != second.uuid => {
                Err(SuperblockError::TwoStores { first: first.uuid, second: second.uuid })
            }
            (Ok(first), Ok(second)) if second.generation > first.generation => Ok(second),
            (Ok(first), Ok(_)) => Ok(first),
        }
    }

    /// Reads one copy.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn decode_copy(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let (_, body) = envelope::unseal(bytes, MAGIC, STORE_VERSION)?;
        let (body, rest) = postcard::take_from_bytes::<StoreBody>(body).map_err(|_| EnvelopeError::Body)?;
        let shards = 1..=SHARDS_MAX;
        if !rest.is_empty() || !shards.contains(&body.shards.len()) {
            return Err(EnvelopeError::Body);
        }
        Ok(body.into())
    }

    fn body(&self) -> StoreBody {
        let shard = |root: &ShardRoot| ShardBody {
            segment: root.segment.0,
            clean: root.clean.map(|end| (end.segment.0, end.offset, end.next_lsn.0)),
        };
        StoreBody {
            uuid: self.uuid.0,
            epoch: self.epoch.0,
            generation: self.generation,
            shards: self.shards.iter().map(shard).collect(),
        }
    }
}

impl From<StoreBody> for Superblock {
    fn from(body: StoreBody) -> Self {
        let end = |(segment, offset, lsn)| CleanEnd { segment: SegmentNo(segment), offset, next_lsn: Lsn(lsn) };
        let shard = |shard: ShardBody| ShardRoot { segment: SegmentNo(shard.segment), clean: shard.clean.map(end) };
        Self {
            uuid: StoreUuid(body.uuid),
            epoch: Epoch(body.epoch),
            generation: body.generation,
            shards: body.shards.into_iter().map(shard).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(generation: u64, shards: usize, number: u64) -> Superblock {
        let clean = Some(CleanEnd { segment: SegmentNo(number), offset: number, next_lsn: Lsn(number) });
        let root = ShardRoot { segment: SegmentNo(number), clean };
        Superblock { uuid: StoreUuid([7; 16]), epoch: Epoch(u32::MAX), generation, shards: vec![root; shards] }
    }

    fn file(first: &Superblock, second: &Superblock) -> Vec<u8> {
        let mut bytes = vec![0xff; STORE_FILE_SIZE];
        first.encode(&mut bytes[..SUPERBLOCK_SIZE]).unwrap();
        second.encode(&mut bytes[SUPERBLOCK_SIZE..]).unwrap();
        bytes
    }

    #[test]
    fn stores_with_most_shards_and_largest_numbers_come_back() {
        for (shards, number) in [(1, 1), (2, 100), (SHARDS_MAX, u64::MAX)] {
            let store = store(u64::MAX, shards, number);
            assert_eq!(Superblock::decode(&file(&store, &store)), Ok(store));
        }
        let mut open = store(1, 1, 5);
        open.shards[0].clean = None;
        assert_eq!(Superblock::decode(&file(&open, &open)), Ok(open));
    }

    #[test]
    fn too_many_shards_are_refused() {
        for shards in [0, SHARDS_MAX + 1] {
            let error = store(1, shards, 1).encode(&mut [0; SUPERBLOCK_SIZE]).unwrap_err();
            assert_eq!(error, ShardCountError { shards });
        }
    }

    #[test]
    fn higher_generation_counts() {
        let (old, new) = (store(4, 2, 10), store(5, 2, 20));
        assert_eq!(Superblock::decode(&file(&old, &new)), Ok(new.clone()));
        assert_eq!(Superblock::decode(&file(&new, &old)), Ok(new));
    }

    #[test]
    fn every_flipped_bit_leaves_the_other_copy() {
        let (old, new) = (store(4, 3, 10), store(5, 3, 20));
        let mut bytes = file(&new, &old);
        for bit in 0..SUPERBLOCK_SIZE * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = Superblock::decode(&bytes).unwrap();
            assert!(found == old || found == new, "{bit}");
            assert!(found == old || bit / 8 >= 50, "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_gives_an_error_or_the_first_copy() {
        let (old, new) = (store(4, 3, 10), store(5, 3, 20));
        let bytes = file(&old, &new);
        for size in 0..bytes.len() {
            match Superblock::decode(&bytes[..size]) {
                Ok(found) => assert!(found == old || (found == new && size > SUPERBLOCK_SIZE)),
                Err(error) => assert!(size < 200, "{size}: {error}"),
            }
        }
    }

    #[test]
    fn both_bad_newer_and_mixed_copies_have_their_own_errors() {
        let good = store(4, 1, 10);
        let mut bytes = file(&good, &good);
        (bytes[0], bytes[SUPERBLOCK_SIZE + 30]) = (0, 0xff);
        let error = Superblock::decode(&bytes).unwrap_err();
        assert!(matches!(
            error,
            SuperblockError::Damaged { first: EnvelopeError::Magic, second: EnvelopeError::Checksum { .. } }
        ));
        let mut bytes = file(&good, &good);
        envelope::seal(&mut bytes[SUPERBLOCK_SIZE..], MAGIC, 2, b"later").unwrap();
        assert_eq!(Superblock::decode(&bytes), Err(SuperblockError::Newer { version: 2 }));
        let other = Superblock { uuid: StoreUuid([8; 16]), ..good.clone() };
        let error = Superblock::decode(&file(&good, &other)).unwrap_err();
        assert!(matches!(error, SuperblockError::TwoStores { .. }));
    }
}
