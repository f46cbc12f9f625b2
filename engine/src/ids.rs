//! The numbers that name things: positions, channels, shards, epochs.
//!
//! Each is a newtype, so that a byte offset cannot stand where a sequence is meant. At the door (`Redex`,
//! `RedexFile`, `RedexEvent`) a sequence is a plain `u64`.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// Position of an event in its channel: dense, the first event is 0.
    Seq(u64)
}
id! {
    /// Log sequence number: position of a commit in its shard's journal. Dense, the first commit is 1.
    Lsn(u64)
}
id! {
    /// One shard of a store, from 0.
    ShardId(u16)
}
id! {
    /// Number of an opening of the store; every open raises it (design D11).
    Epoch(u32)
}
id! {
    /// Number of a journal segment within its shard, from 1. Never given twice.
    SegmentNo(u64)
}
id! {
    /// Number of a checkpoint file within its shard, from 1. Never given twice.
    CheckpointNo(u64)
}

/// Name of a channel on disk: the epoch that created it and a counter within that epoch.
///
/// No id comes twice in the life of a store, so files of a deleted channel can never be taken for a namesake's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u64);

impl ChannelId {
    /// Makes the id of the `counter`th channel that was created in `epoch`.
    #[must_use]
    pub fn new(epoch: Epoch, counter: u32) -> Self {
        Self((u64::from(epoch.0) << 32) | u64::from(counter))
    }

    /// The epoch that created the channel.
    #[must_use]
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }
}

/// Spreads the bits of an id for a table. Ids are the store's own numbers, so nobody can choose them to collide.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelIdHasher(u64);

impl Hasher for ChannelIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        // The table takes its place from the low bits and a tag from the high ones.
        let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }
}

/// A table by channel: of a million, looked up and filled when a store is opened.
pub type ByChannel<T> = HashMap<ChannelId, T, BuildHasherDefault<ChannelIdHasher>>;

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Identity of a store, drawn at random when it is made; in every header, so that files of two stores cannot mix.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct StoreUuid(pub [u8; 16]);

impl fmt::Display for StoreUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for StoreUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
