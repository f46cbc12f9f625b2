//! Reading values: what the channel's futures and streams give, decoded.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::codec::Codec;
use super::error::{TypedReadError, TypedTailError, Undecodable};
use crate::channel_name::ChannelName;
use crate::error::{ReadError, SubscribeError};
use crate::event::{EventTime, RedexEvent};
use crate::read::range::{ReadOne, ReadRange, Scan};
use crate::read::subscribe::{Cursor, Subscribe, TailEnd, TailResults};

/// One event of a typed channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedEvent<T> {
    /// Position in the channel: dense, the first event is 0.
    pub seq: u64,
    /// When it was appended.
    pub time: EventTime,
    /// What was appended.
    pub value: T,
}

impl<T> From<TypedEvent<T>> for (u64, T) {
    fn from(event: TypedEvent<T>) -> Self {
        (event.seq, event.value)
    }
}

/// Decodes the events of one channel.
pub(crate) struct Decoder<T, C> {
    pub(crate) channel: ChannelName,
    pub(crate) codec: C,
    value: PhantomData<fn() -> T>,
}

impl<T, C> Decoder<T, C> {
    pub(crate) fn new(channel: ChannelName, codec: C) -> Self {
        Self { channel, codec, value: PhantomData }
    }
}

impl<T, C: Clone> Clone for Decoder<T, C> {
    fn clone(&self) -> Self {
        Self::new(self.channel.clone(), self.codec.clone())
    }
}

impl<T, C: Codec<T>> Decoder<T, C> {
    pub(crate) fn decode(&self, event: &RedexEvent) -> Result<TypedEvent<T>, Undecodable<C::Error>> {
        let (seq, time, size) = (event.seq, event.time, event.payload.len());
        match self.codec.decode(&event.payload) {
            Ok(value) => Ok(TypedEvent { seq, time, value }),
            Err(source) => Err(Undecodable { channel: self.channel.clone(), seq, time, size, source }),
        }
    }

    fn read(&self, event: Result<RedexEvent, ReadError>) -> Result<TypedEvent<T>, TypedReadError<C::Error>> {
        Ok(self.decode(&event?)?)
    }

    fn delivered(&self, item: Result<RedexEvent, TailEnd>) -> Result<TypedEvent<T>, TypedTailError<C::Error>> {
        Ok(self.decode(&item?)?)
    }
}

/// What all of these are: something of the channel, and how its events are decoded. Nothing in them is pinned.
macro_rules! decoded {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        pub struct $name<T, C> {
            inner: $inner,
            decoder: Decoder<T, C>,
        }

        impl<T, C> $name<T, C> {
            pub(crate) fn new(inner: $inner, decoder: Decoder<T, C>) -> Self {
                Self { inner, decoder }
            }
        }

        impl<T, C> Unpin for $name<T, C> {}

        impl<T, C> fmt::Debug for $name<T, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("inner", &self.inner).finish_non_exhaustive()
            }
        }
    };
}

decoded! {
    /// The future of [`TypedRedexFile::read_range`](crate::TypedRedexFile::read_range).
    #[must_use = "nothing is read before the future is polled or waited for"]
    TypedReadRange, ReadRange
}

impl<T, C: Codec<T>> TypedReadRange<T, C> {
    /// Reads on this thread, without a runtime.
    pub fn wait(self) -> Result<Vec<TypedEvent<T>>, TypedReadError<C::Error>> {
        decode_all(&self.decoder, self.inner.wait())
    }
}

impl<T, C: Codec<T>> Future for TypedReadRange<T, C> {
    type Output = Result<Vec<TypedEvent<T>>, TypedReadError<C::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let events = ready!(Pin::new(&mut this.inner).poll(cx));
        Poll::Ready(decode_all(&this.decoder, events))
    }
}

fn decode_all<T, C: Codec<T>>(
    decoder: &Decoder<T, C>,
    events: Result<Vec<RedexEvent>, ReadError>,
) -> Result<Vec<TypedEvent<T>>, TypedReadError<C::Error>> {
    events?.iter().map(|event| Ok(decoder.decode(event)?)).collect()
}

decoded! {
    /// The future of [`TypedRedexFile::read_one`](crate::TypedRedexFile::read_one).
    #[must_use = "nothing is read before the future is polled or waited for"]
    TypedReadOne, ReadOne
}

impl<T, C: Codec<T>> TypedReadOne<T, C> {
    /// Reads on this thread, without a runtime.
    pub fn wait(self) -> Result<Option<TypedEvent<T>>, TypedReadError<C::Error>> {
        let event = self.inner.wait().transpose();
        event.map(|event| self.decoder.read(event)).transpose()
    }
}

impl<T, C: Codec<T>> Future for TypedReadOne<T, C> {
    type Output = Result<Option<TypedEvent<T>>, TypedReadError<C::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let event = ready!(Pin::new(&mut this.inner).poll(cx)).transpose();
        Poll::Ready(event.map(|event| this.decoder.read(event)).transpose())
    }
}

decoded! {
    /// Values of a range, one after the other: a stream, and on a plain thread by [`TypedScan::next_wait`].
    ///
    /// An event that does not decode is an item, and the scan goes on behind it. It ends after a [`ReadError`].
    #[must_use = "a scan does nothing unless it is read"]
    TypedScan, Scan
}

impl<T, C: Codec<T>> TypedScan<T, C> {
    /// The next value, read on this thread; `None` at the end.
    pub fn next_wait(&mut self) -> Option<Result<TypedEvent<T>, TypedReadError<C::Error>>> {
        self.inner.next_wait().map(|event| self.decoder.read(event))
    }

    /// An iterator that reads on this thread.
    pub fn blocking(mut self) -> impl Iterator<Item = Result<TypedEvent<T>, TypedReadError<C::Error>>> {
        std::iter::from_fn(move || self.next_wait())
    }
}

impl<T, C: Codec<T>> Stream for TypedScan<T, C> {
    type Item = Result<TypedEvent<T>, TypedReadError<C::Error>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = ready!(Pin::new(&mut this.inner).poll_next(cx));
        Poll::Ready(next.map(|event| this.decoder.read(event)))
    }
}

decoded! {
    /// A typed subscription: a stream of values, in order, without a gap, from history into the present.
    ///
    /// What cannot be delivered is an item, and the stream goes on where it can, as [`TailResults`] says; so does an event that
    /// does not decode. It ends without an item when the channel is closed.
    #[must_use = "a subscription does nothing unless it is read"]
    TypedTail, TailResults
}

impl<T, C> TypedTail<T, C> {
    /// Delivers events only once they are durable; see [`Tail::durable_only`](crate::Tail::durable_only).
    pub fn durable_only(self) -> Self {
        Self { inner: self.inner.durable_only(), decoder: self.decoder }
    }

    /// Where the subscription stands: behind what was delivered last, whether or not that has decoded.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.inner.cursor()
    }

    /// Why the stream has ended; `None` while it has not.
    #[must_use]
    pub fn ended(&self) -> Option<&TailEnd> {
        self.inner.ended()
    }
}

impl<T, C: Codec<T>> TypedTail<T, C> {
    /// The next item, waited for on this thread; `None` when the stream has ended.
    pub fn next_wait(&mut self) -> Option<Result<TypedEvent<T>, TypedTailError<C::Error>>> {
        self.inner.next_wait().map(|item| self.decoder.delivered(item))
    }
}

impl<T, C: Codec<T>> Stream for TypedTail<T, C> {
    type Item = Result<TypedEvent<T>, TypedTailError<C::Error>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = ready!(Pin::new(&mut this.inner).poll_next(cx));
        Poll::Ready(next.map(|item| this.decoder.delivered(item)))
    }
}

decoded! {
    /// The future of a typed subscription; resolves at once.
    #[must_use = "a subscription begins when this is awaited or waited for"]
    TypedSubscribe, Subscribe
}

impl<T, C: Clone> TypedSubscribe<T, C> {
    /// The subscription.
    pub fn wait(self) -> Result<TypedTail<T, C>, SubscribeError> {
        Ok(TypedTail::new(self.inner.wait()?.results(), self.decoder))
    }
}

impl<T, C: Clone> Future for TypedSubscribe<T, C> {
    type Output = Result<TypedTail<T, C>, SubscribeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let tail = ready!(Pin::new(&mut this.inner).poll(cx));
        Poll::Ready(tail.map(|tail| TypedTail::new(tail.results(), this.decoder.clone())))
    }
}
