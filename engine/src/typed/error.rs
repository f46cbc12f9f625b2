//! Errors of a typed channel: those of the channel, and those of its codec.

use std::error::Error;

use crate::channel_name::ChannelName;
use crate::error::{AppendError, ReadError, RedexError};
use crate::event::EventTime;
use crate::read::subscribe::TailEnd;

/// Why a value was not appended. The channel is as it was, but for what [`AppendError`] says.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedAppendError<E> {
    /// The codec refused the value; of a batch nothing was appended. The value has to be another, or the codec.
    #[error("channel {channel}: value {index} of the call cannot be encoded; nothing was appended")]
    Encode {
        /// Which channel.
        channel: ChannelName,
        /// Which value of the batch, from 0; 0 for a single one.
        index: usize,
        /// The codec's error.
        #[source]
        source: E,
    },
    /// The channel refused it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// An event whose bytes are whole (their checksum is right) and yet no value of the type. It stays readable as bytes,
/// [`RedexFile::read_one`](crate::RedexFile::read_one); the events behind it are not affected.
#[derive(Clone, Debug, thiserror::Error)]
#[error("channel {channel}, event {seq}: {size} bytes do not decode; read them as bytes, or go on behind it")]
pub struct Undecodable<E> {
    /// Which channel.
    pub channel: ChannelName,
    /// Which event.
    pub seq: u64,
    /// When it was appended.
    pub time: EventTime,
    /// Payload size, bytes.
    pub size: usize,
    /// The codec's error.
    #[source]
    pub source: E,
}

/// Why values could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedReadError<E> {
    /// An event does not decode. [`TypedRedexFile::scan`](crate::TypedRedexFile::scan) goes on behind it.
    #[error(transparent)]
    Undecodable(#[from] Undecodable<E>),
    /// The channel could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a typed subscription could not deliver.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedTailError<E> {
    /// An event does not decode. The stream goes on behind it.
    #[error(transparent)]
    Undecodable(#[from] Undecodable<E>),
    /// As [`TailResults`](crate::TailResults) reports it, which says whether the stream goes on.
    #[error(transparent)]
    Tail(#[from] TailEnd),
}

impl<E: Error + Send + Sync + 'static> From<Undecodable<E>> for RedexError {
    fn from(error: Undecodable<E>) -> Self {
        Self::Codec(Box::new(error))
    }
}

impl<E: Error + Send + Sync + 'static> From<TypedAppendError<E>> for RedexError {
    fn from(error: TypedAppendError<E>) -> Self {
        match error {
            TypedAppendError::Append(error) => error.into(),
            encode @ TypedAppendError::Encode { .. } => Self::Codec(Box::new(encode)),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<TypedReadError<E>> for RedexError {
    fn from(error: TypedReadError<E>) -> Self {
        match error {
            TypedReadError::Read(error) => error.into(),
            TypedReadError::Undecodable(error) => error.into(),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<TypedTailError<E>> for RedexError {
    fn from(error: TypedTailError<E>) -> Self {
        match error {
            TypedTailError::Tail(error) => error.into(),
            TypedTailError::Undecodable(error) => error.into(),
        }
    }
}
