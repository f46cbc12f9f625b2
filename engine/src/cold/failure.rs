//! Errors of the cold store: what, where, why.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::channel_name::ChannelName;

/// Why a pass over a channel's cold segments did not come to its end, or what was asked of the cold store could not be had.
/// Nothing is lost: what was not uploaded and verified is on the local disk, and passes are tried again by themselves.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ColdError {
    /// The cold store, or the local disk, has refused something. Passes are tried again; a call may be made again.
    #[error("channel {channel}: cannot {what}; nothing is lost, and it is tried again with the next pass")]
    Failed {
        /// Which channel, or the id of one that was deleted.
        channel: String,
        /// What was tried.
        what: &'static str,
        /// The answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The store was opened without a cold store: set one by `RedexBuilder::cold_store`.
    #[error("the store was opened without a cold store; open it with one")]
    NoColdStore,
    /// The channel is in memory: it has no segments.
    #[error("channel {channel} is in memory and has no segments; open it with `with_persistent(true)`")]
    InMemory {
        /// Which channel.
        channel: ChannelName,
    },
}

/// An answer of the cold store to a read, and the object and byte that it is about: it goes through an I/O error, whose kind
/// stays, up to where that becomes a [`ReadError`](crate::ReadError).
#[derive(Clone, Debug)]
pub struct ColdFailure {
    /// Key of the object, or what stands for it.
    pub object: String,
    /// Byte offset in the object.
    pub offset: u64,
    /// The answer.
    pub source: Arc<io::Error>,
}

impl fmt::Display for ColdFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {} of the cold store at byte {}", self.object, self.offset)
    }
}

impl Error for ColdFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

impl ColdFailure {
    /// Says of which object an answer is, unless it says so itself.
    pub fn io(object: &str, offset: u64) -> impl FnOnce(io::Error) -> io::Error {
        move |answer| {
            if Self::of(&answer).is_some() {
                return answer;
            }
            io::Error::new(answer.kind(), Self { object: object.to_owned(), offset, source: Arc::new(answer) })
        }
    }

    /// What an error says of the cold store, if it is one of it.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// Bytes of the cold store that are not what they should be.
pub fn damaged(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
