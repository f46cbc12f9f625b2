//! How values become payloads and payloads values.

use std::error::Error;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encodes values of one type as payloads, and decodes them.
///
/// What `encode` writes, `decode` must read; nothing else is asked of the bytes. The codec is cloned into each stream and
/// future that decodes: make it cheap to clone.
///
/// ```
/// use redex::{Codec, Redex, RedexFileConfig, TypedRedexFile};
///
/// /// Text as it is.
/// #[derive(Clone)]
/// struct Utf8;
///
/// impl Codec<String> for Utf8 {
///     type Error = std::str::Utf8Error;
///
///     fn encode(&self, value: &String, buffer: &mut Vec<u8>) -> Result<(), Self::Error> {
///         buffer.extend_from_slice(value.as_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<String, Self::Error> {
///         std::str::from_utf8(bytes).map(str::to_owned)
///     }
/// }
///
/// # fn main() -> Result<(), redex::RedexError> {
/// let file = Redex::in_memory().open_file("lines", RedexFileConfig::default())?;
/// let lines = TypedRedexFile::with_codec(file, Utf8);
/// lines.append(&"a line".to_owned()).wait()?;
/// assert_eq!(lines.file().read_one(0).wait()?.unwrap().payload, b"a line");
/// # Ok(())
/// # }
/// ```
pub trait Codec<T> {
    /// Why a value could not be encoded, or bytes not be decoded.
    type Error: Error + Send + Sync + 'static;

    /// Appends the value's bytes to `buffer`, which may hold other values' bytes already: leave those as they are. After an
    /// error, what was appended is cut off again.
    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), Self::Error>;

    /// The value of one payload, all of it.
    fn decode(&self, bytes: &[u8]) -> Result<T, Self::Error>;
}

/// The default codec: [postcard](https://postcard.jamesmunns.com/wire-format), for whatever serde can serialise.
///
/// Compact and without field names: a field may be added, removed or moved only together with a new type (an enum with a
/// variant per version does).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Postcard;

/// Why [`Postcard`] could not encode or decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostcardError {
    /// The value has no postcard form, or the bytes are none of this type.
    #[error("not a postcard value of this type")]
    Malformed(#[source] postcard::Error),
    /// The bytes begin with a value of this type, and go on: they are of another type, or of a newer version of it.
    #[error("the value ends after {used} of {size} bytes: it is of another type, or of a newer version of this one")]
    TrailingBytes {
        /// Bytes of the value.
        used: usize,
        /// Bytes of the payload.
        size: usize,
    },
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    type Error = PostcardError;

    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), PostcardError> {
        postcard::to_io(value, buffer).map(|_| ()).map_err(PostcardError::Malformed)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, PostcardError> {
        let (value, rest) = postcard::take_from_bytes(bytes).map_err(PostcardError::Malformed)?;
        if rest.is_empty() {
            return Ok(value);
        }
        Err(PostcardError::TrailingBytes { used: bytes.len() - rest.len(), size: bytes.len() })
    }
}
