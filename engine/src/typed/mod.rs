//! Channels of values instead of bytes: [`TypedRedexFile`], and the codecs that make one out of the other.
//!
//! A typed channel is a view of a [`RedexFile`]: the same events, policies and waiting. What does not decode is an error that
//! names its event and never a gap; what the bytes mean is the codec's business, [`Postcard`]'s unless another is given.

mod append;
mod codec;
mod error;
mod read;

use std::fmt;
use std::ops::Range;

use crate::file::RedexFile;
use crate::read::subscribe::From as Start;

pub use append::{TypedAppend, TypedAppendBatch};
pub use codec::{Codec, Postcard, PostcardError};
pub use error::{TypedAppendError, TypedReadError, TypedTailError, Undecodable};
pub(crate) use read::Decoder;
pub use read::{TypedEvent, TypedReadOne, TypedReadRange, TypedScan, TypedSubscribe, TypedTail};

/// A channel whose events are values of one type. A cheap clone; all clones are the same channel.
///
/// ```
/// # fn main() -> Result<(), redex::RedexError> {
/// use redex::{Redex, RedexFileConfig, TypedRedexFile};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Order {
///     article: String,
///     pieces: u32,
/// }
///
/// let file = Redex::in_memory().open_file("orders", RedexFileConfig::default())?;
/// let orders = TypedRedexFile::<Order>::new(file);
/// let order = Order { article: "bolt".into(), pieces: 12 };
/// let seq = orders.append(&order).wait()?;
/// let event = orders.read_one(seq).wait()?.expect("it was appended");
/// assert_eq!((event.seq, event.value), (seq, order));
/// # Ok(())
/// # }
/// ```
pub struct TypedRedexFile<T, C = Postcard> {
    file: RedexFile,
    decoder: Decoder<T, C>,
}

impl<T, C: Clone> Clone for TypedRedexFile<T, C> {
    fn clone(&self) -> Self {
        Self { file: self.file.clone(), decoder: self.decoder.clone() }
    }
}

impl<T, C> fmt::Debug for TypedRedexFile<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedRedexFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<T> TypedRedexFile<T>
where
    Postcard: Codec<T>,
{
    /// Values as [`Postcard`] encodes them.
    #[must_use]
    pub fn new(file: RedexFile) -> Self {
        Self::with_codec(file, Postcard)
    }
}

impl<T, C: Codec<T> + Clone> TypedRedexFile<T, C> {
    /// Values as this codec encodes them.
    #[must_use]
    pub fn with_codec(file: RedexFile, codec: C) -> Self {
        let decoder = Decoder::new(file.name().clone(), codec);
        Self { file, decoder }
    }

    /// The channel itself: its name, watermarks, `sync`, `close`, and its events as bytes.
    #[must_use]
    pub fn file(&self) -> &RedexFile {
        &self.file
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> &C {
        &self.decoder.codec
    }

    pub(crate) fn decoder(&self) -> &Decoder<T, C> {
        &self.decoder
    }

    /// Appends one value, as [`RedexFile::append`] does: encoded and made an event by the call, whatever becomes of the future.
    ///
    /// # Errors
    ///
    /// [`TypedAppendError`]; the channel is as it was, unless the shard failed while the future waited.
    pub fn append(&self, value: &T) -> TypedAppend<'_, C::Error> {
        TypedAppend::new(self.file.name(), self.codec(), value, |payload| self.file.append(payload))
    }

    /// Appends one value, and resolves when it is durable, under any policy.
    pub fn append_durable(&self, value: &T) -> TypedAppend<'_, C::Error> {
        TypedAppend::new(self.file.name(), self.codec(), value, |payload| self.file.append_durable(payload))
    }

    /// Appends several values, all or none, with consecutive sequences, visible together; see [`RedexFile::append_batch`].
    pub fn append_batch(&self, values: &[T]) -> TypedAppendBatch<'_, C::Error> {
        TypedAppendBatch::new(self.file.name(), self.codec(), values, |payloads| self.file.append_batch(payloads))
    }

    /// Appends several values as [`TypedRedexFile::append_batch`] does, and resolves when all are durable.
    pub fn append_batch_durable(&self, values: &[T]) -> TypedAppendBatch<'_, C::Error> {
        TypedAppendBatch::new(self.file.name(), self.codec(), values, |payloads| {
            self.file.append_batch_durable(payloads)
        })
    }

    /// Reads the values of `start..end` that are there: from the head, below the published mark.
    ///
    /// # Errors
    ///
    /// The first event that cannot be read or does not decode fails the whole; [`TypedRedexFile::scan`] gives the others.
    pub fn read_range(&self, start: u64, end: u64) -> TypedReadRange<T, C> {
        TypedReadRange::new(self.file.read_range(start, end), self.decoder.clone())
    }

    /// Reads one value; `None` if it is not there (yet, or any more).
    pub fn read_one(&self, seq: u64) -> TypedReadOne<T, C> {
        TypedReadOne::new(self.file.read_one(seq), self.decoder.clone())
    }

    /// Streams the values of a range, with bounded memory. An event that does not decode is an item.
    pub fn scan(&self, range: Range<u64>) -> TypedScan<T, C> {
        TypedScan::new(self.file.scan(range), self.decoder.clone())
    }

    /// Streams from `seq` to the present end, with bounded memory. An event that does not decode is an item.
    pub fn read_from(&self, seq: u64) -> TypedScan<T, C> {
        TypedScan::new(self.file.read_from(seq), self.decoder.clone())
    }

    /// Subscribes to what comes from now on.
    pub fn subscribe_tail(&self) -> TypedSubscribe<T, C> {
        TypedSubscribe::new(self.file.subscribe_tail(), self.decoder.clone())
    }

    /// Subscribes from a sequence (inclusive: so at least once), or from a [`Cursor`](crate::Cursor), which is refused if a
    /// crash took back what it has seen.
    pub fn subscribe_from(&self, from: impl Into<Start>) -> TypedSubscribe<T, C> {
        TypedSubscribe::new(self.file.subscribe_from(from), self.decoder.clone())
    }

    /// Subscribes to a stream that never fails to begin: what cannot be delivered comes as an item; see [`RedexFile::tail`].
    ///
    /// ```
    /// # fn main() -> Result<(), redex::RedexError> {
    /// use redex::{Redex, RedexFileConfig, TypedRedexFile};
    /// let file = Redex::in_memory().open_file("words", RedexFileConfig::default())?;
    /// let words = TypedRedexFile::<String>::new(file);
    /// words.append(&"first".into()).wait()?;
    /// words.file().append(b"\xffnot a word").wait()?;
    /// words.append(&"third".into()).wait()?;
    /// words.file().close().wait()?;
    ///
    /// let mut tail = words.tail(0);
    /// assert_eq!(tail.next_wait().unwrap()?.value, "first");
    /// let error = tail.next_wait().unwrap().unwrap_err();
    /// assert!(error.to_string().contains("event 1"));
    /// assert_eq!(tail.next_wait().unwrap()?.value, "third");
    /// assert!(tail.next_wait().is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn tail(&self, from: impl Into<Start>) -> TypedTail<T, C> {
        TypedTail::new(self.file.tail(from), self.decoder.clone())
    }
}
