//! The store: what is opened and closed as a whole, and the files that belong to no channel.
//!
//! [`superblock`] is STORE, where every opening begins; [`meta`] a channel's META; [`checkpoint`] the
//! states of a shard's channels. The small ones stand in an [`envelope`]: version, length and checksum around a body.
//! [`open`] takes the lock, [`recover`]s each shard ([`replay`] does a channel), and starts the shards.

pub mod checkpoint;
pub mod envelope;
pub mod fates;
pub mod lock;
#[cfg(test)]
pub mod memory_disk;
pub mod meta;
pub mod open;
pub mod recover;
pub mod replay;
pub mod roots;
pub mod superblock;

pub use open::Store;
