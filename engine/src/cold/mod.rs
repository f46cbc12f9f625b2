//! The cold tier: sealed segments in a store of objects, and only there.
//!
//! ```text
//!  sealed, and covered by a checkpoint
//!    -> upload -> read back and compare -> manifest, durable -> unlink the local pair -> sync the directory
//!  no longer in the channel's list (trimmed, truncated, reset)
//!    -> manifest, durable -> delete the object
//! ```
//!
//! Promises: a manifest never names an object that was not read back whole; a local pair goes only when the manifest that
//! names its object is durable. Whatever a crash interrupts, the next pass ([`pass`]) finds it by a listing and ends it. An
//! object tells by itself what it is ([`object`]), so a lost manifest is made again from a listing. Nothing here runs on a
//! shard's thread, and no error of the cold store reaches an append.
//!
//! What it leaves to others: the channel's list of segments, which `segment::read` keeps; what the bytes mean.

pub mod cache;
pub mod channel;
pub mod codec;
pub mod failure;
pub mod file;
pub mod manifest;
pub mod object;
#[cfg(feature = "cold")]
pub mod object_store;
pub mod pass;
pub mod read;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod stats;
pub mod tier;
pub mod upload;
pub mod worker;

use std::fmt;
use std::io;
use std::ops::Range;

/// An object of a [`ColdStore`], as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdObject {
    /// Its whole key, parts between `/`.
    pub key: String,
    /// Its size, bytes.
    pub size: u64,
}

/// A store of objects, for sealed segments: a bucket, a directory, memory.
///
/// Calls block; they are made by a thread of the engine's own and by threads that read, never by a shard. An object is
/// written once, whole, and never changed. A key has only lower case letters, digits, `-`, `.` and `/`.
///
/// With the cargo feature `cold`, `ObjectStoreCold` is one over any store of the crate `object_store`.
pub trait ColdStore: Send + Sync + fmt::Debug {
    /// Puts an object there, replacing one that is; its bytes are those of all parts, each of 1 byte to 16 MiB. An error of a
    /// part ends it with that error, and no object need be left.
    ///
    /// # Errors
    ///
    /// If the object may not be there whole; a part of it may be. It is put again later.
    fn put(&self, key: &str, parts: &mut dyn Iterator<Item = io::Result<bytes::Bytes>>) -> io::Result<()>;

    /// Bytes of an object; fewer than asked for only at its end.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such object; others if the store does not answer.
    fn get_range(&self, key: &str, range: Range<u64>) -> io::Result<bytes::Bytes>;

    /// All objects whose keys begin with `prefix`, which ends with `/`; in any order.
    ///
    /// # Errors
    ///
    /// If the store does not answer, or not completely.
    fn list(&self, prefix: &str) -> io::Result<Vec<ColdObject>>;

    /// Deletes an object. That there is none is no error.
    ///
    /// # Errors
    ///
    /// If it may still be there; it is deleted again later.
    fn delete(&self, key: &str) -> io::Result<()>;
}
