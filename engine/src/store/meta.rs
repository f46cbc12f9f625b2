//! META: a channel's name, id and creation, in the channel's directory.
//!
//! Written once, before the channel's first segment file has a name. It names files whose journal and checkpoints are
//! lost; nothing else needs it, so opening a channel that has such files only checks it.

use std::io;

use serde::{Deserialize, Serialize};

use super::envelope::{self, EnvelopeError};
use crate::ids::{ChannelId, Epoch, StoreUuid};
use crate::io::{AlignedBuf, Disk, OpenMode, read_full};

/// Size of the file, bytes.
pub const META_SIZE: usize = 4096;

/// Version of META's layout.
pub const META_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"REDEXCHM";
const NAME_SIZE_MAX: usize = 255;

/// What META says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Store of the channel.
    pub uuid: StoreUuid,
    /// Id of the channel.
    pub id: ChannelId,
    /// Name of the channel, 1 to 255 bytes.
    pub name: String,
    /// Epoch in which it was created.
    pub created: Epoch,
    /// When this file was made, which is when the channel's first block was written, microseconds since the Unix epoch; 0
    /// if recovery made it.
    pub created_us: u64,
}

/// Why a channel's META is not what it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// It cannot be read, or is missing.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is damaged.
    #[error(transparent)]
    Damaged(EnvelopeError),
    /// It is whole, and another channel's.
    #[error("it belongs to channel {name:?} with the id {id} in store {uuid}")]
    OtherChannel {
        /// Name of that channel.
        name: String,
        /// Its id.
        id: ChannelId,
        /// Its store.
        uuid: StoreUuid,
    },
}

#[derive(Serialize, Deserialize)]
struct MetaBody {
    uuid: [u8; 16],
    id: u64,
    name: String,
    created: u32,
    created_us: u64,
}

impl Meta {
    /// Fills the file's [`META_SIZE`] bytes.
    ///
    /// # Panics
    ///
    /// If `out` has another size, or the name has not 1 to 255 bytes.
    pub fn encode(&self, out: &mut [u8]) {
        assert_eq!(out.len(), META_SIZE);
        assert!((1..=NAME_SIZE_MAX).contains(&self.name.len()));
        let body = MetaBody {
            uuid: self.uuid.0,
            id: self.id.0,
            name: self.name.clone(),
            created: self.created.0,
            created_us: self.created_us,
        };
        let body = postcard::to_stdvec(&body).expect("numbers and a name always encode");
        envelope::seal(out, MAGIC, META_VERSION, &body).expect("a name fits into a block");
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let (_, body) = envelope::unseal(bytes, MAGIC, META_VERSION)?;
        let (body, rest) = postcard::take_from_bytes::<MetaBody>(body).map_err(|_| EnvelopeError::Body)?;
        if !rest.is_empty() || !(1..=NAME_SIZE_MAX).contains(&body.name.len()) {
            return Err(EnvelopeError::Body);
        }
        Ok(Self {
            uuid: StoreUuid(body.uuid),
            id: ChannelId(body.id),
            name: body.name,
            created: Epoch(body.created),
            created_us: body.created_us,
        })
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is damaged.
    pub(crate) fn read(disk: &dyn Disk, path: &str) -> Result<Self, MetaError> {
        let mut buf = AlignedBuf::new(META_SIZE);
        let read = disk.open(path, OpenMode::Read).and_then(|file| read_full(&*file, &mut buf[..META_SIZE], 0));
        Self::decode(&buf[..read.map_err(MetaError::Unreadable)?]).map_err(MetaError::Damaged)
    }

    /// Checks that the file at `path` is this channel's.
    ///
    /// # Errors
    ///
    /// As [`Meta::read`]; and if it is another's.
    pub(crate) fn check(
        disk: &dyn Disk,
        path: &str,
        uuid: StoreUuid,
        id: ChannelId,
        name: &str,
    ) -> Result<(), MetaError> {
        let found = Self::read(disk, path)?;
        if (found.uuid, found.id, &*found.name) == (uuid, id, name) {
            return Ok(());
        }
        Err(MetaError::OtherChannel { name: found.name, id: found.id, uuid: found.uuid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &str) -> Meta {
        Meta {
            uuid: StoreUuid([1; 16]),
            id: ChannelId(u64::MAX),
            name: name.to_owned(),
            created: Epoch(3),
            created_us: 1 << 50,
        }
    }

    fn encoded(name: &str) -> Vec<u8> {
        let mut out = vec![0xff; META_SIZE];
        meta(name).encode(&mut out);
        out
    }

    #[test]
    fn names_of_every_length_come_back() {
        for len in 1..=255 {
            let name = "n".repeat(len);
            assert_eq!(Meta::decode(&encoded(&name)), Ok(meta(&name)));
        }
    }

    #[test]
    fn every_flipped_bit_is_found_or_is_padding() {
        let mut bytes = encoded("sensors/lidar");
        for bit in 0..META_SIZE * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = Meta::decode(&bytes);
            assert!(found.is_err() || (bit / 8 > 60 && found == Ok(meta("sensors/lidar"))), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_is_found_or_is_padding() {
        let bytes = encoded("x");
        for size in 0..META_SIZE {
            let found = Meta::decode(&bytes[..size]);
            assert!(found.is_err() || (size > 50 && found == Ok(meta("x"))), "{size}");
        }
    }
}
