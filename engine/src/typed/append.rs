//! Appending values: encoded by the call, into a buffer that each thread keeps.

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::codec::Codec;
use super::error::TypedAppendError;
use crate::append::{Append, AppendBatch};
use crate::channel_name::ChannelName;

/// What a thread keeps of its buffer's capacity between calls, bytes: one large value does not stay for good.
const KEPT_BYTES: usize = 1 << 20;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with the thread's buffer, empty. A codec that appends to another channel meanwhile gets a new one.
fn with_buffer<R>(f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = BUFFER.take();
    buffer.clear();
    let result = f(&mut buffer);
    if buffer.capacity() <= KEPT_BYTES {
        BUFFER.set(buffer);
    }
    result
}

fn refused<E>(channel: &ChannelName, index: usize, source: E) -> TypedAppendError<E> {
    TypedAppendError::Encode { channel: channel.clone(), index, source }
}

#[derive(Debug)]
enum State<A, E> {
    Appending(A),
    Refused(Option<TypedAppendError<E>>),
}

/// The future of one append. Resolves to the event's sequence; see [`TypedRedexFile::append`](crate::TypedRedexFile::append).
#[derive(Debug)]
#[must_use = "the append is made, but whether it was refused and when its policy is met only the future tells"]
pub struct TypedAppend<'f, E>(State<Append<'f>, E>);

/// The future of a batch. Resolves to the events' sequences; see
/// [`TypedRedexFile::append_batch`](crate::TypedRedexFile::append_batch).
#[derive(Debug)]
#[must_use = "the batch is appended, but whether it was refused and when its policy is met only the future tells"]
pub struct TypedAppendBatch<'f, E>(State<AppendBatch<'f>, E>);

impl<E> Unpin for TypedAppend<'_, E> {}
impl<E> Unpin for TypedAppendBatch<'_, E> {}

impl<'f, E: Error> TypedAppend<'f, E> {
    /// Encodes the value, and has its bytes appended by this call.
    pub(crate) fn new<T, C: Codec<T, Error = E>>(
        channel: &ChannelName,
        codec: &C,
        value: &T,
        append: impl FnOnce(&[u8]) -> Append<'f>,
    ) -> Self {
        with_buffer(|buffer| match codec.encode(value, buffer) {
            Ok(()) => Self(State::Appending(append(buffer))),
            Err(source) => Self(State::Refused(Some(refused(channel, 0, source)))),
        })
    }

    /// Waits on this thread, without a runtime. Must not be called from within an asynchronous task.
    pub fn wait(self) -> Result<u64, TypedAppendError<E>> {
        match self.0 {
            State::Appending(append) => Ok(append.wait()?),
            State::Refused(error) => Err(error.expect("not taken before")),
        }
    }
}

impl<E: Error> Future for TypedAppend<'_, E> {
    type Output = Result<u64, TypedAppendError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        poll(&mut self.get_mut().0, cx)
    }
}

impl<'f, E: Error> TypedAppendBatch<'f, E> {
    /// Encodes the values, and has their bytes appended by this call: all, or none if one cannot be encoded.
    pub(crate) fn new<T, C: Codec<T, Error = E>>(
        channel: &ChannelName,
        codec: &C,
        values: &[T],
        append: impl FnOnce(&[&[u8]]) -> AppendBatch<'f>,
    ) -> Self {
        with_buffer(|buffer| {
            let mut ends = Vec::with_capacity(values.len());
            for (index, value) in values.iter().enumerate() {
                if let Err(source) = codec.encode(value, buffer) {
                    return Self(State::Refused(Some(refused(channel, index, source))));
                }
                ends.push(buffer.len());
            }
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let payloads: Vec<&[u8]> = starts.zip(&ends).map(|(start, end)| &buffer[start..*end]).collect();
            Self(State::Appending(append(&payloads)))
        })
    }

    /// Waits on this thread, without a runtime. Must not be called from within an asynchronous task.
    pub fn wait(self) -> Result<Range<u64>, TypedAppendError<E>> {
        match self.0 {
            State::Appending(append) => Ok(append.wait()?),
            State::Refused(error) => Err(error.expect("not taken before")),
        }
    }
}

impl<E: Error> Future for TypedAppendBatch<'_, E> {
    type Output = Result<Range<u64>, TypedAppendError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        poll(&mut self.get_mut().0, cx)
    }
}

fn poll<R, A, E>(state: &mut State<A, E>, cx: &mut Context<'_>) -> Poll<Result<R, TypedAppendError<E>>>
where
    A: Future<Output = Result<R, crate::error::AppendError>> + Unpin,
{
    match state {
        State::Appending(append) => Pin::new(append).poll(cx).map_err(TypedAppendError::Append),
        State::Refused(error) => Poll::Ready(Err(error.take().expect("a future is not polled after it has resolved"))),
    }
}
