//! What an index lacks, why it has stopped, and why one waits in vain.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::channel_name::ChannelName;
use crate::error::SubscribeError;
use crate::read::subscribe::TailEnd;

/// Events that are not in an index. It has gone on behind them; [`RedexIndex::errors`](super::RedexIndex::errors) lists them.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexGap {
    /// The event does not decode; it stays readable as bytes.
    #[error("event {seq} of channel {channel} is not in the index: it does not decode")]
    Undecodable {
        /// Which channel.
        channel: ChannelName,
        /// Which event.
        seq: u64,
        /// The codec's error.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The events could not be read.
    #[error("events {from}..{to} of channel {channel} are not in the index: they could not be read")]
    Unreadable {
        /// Which channel.
        channel: ChannelName,
        /// First event.
        from: u64,
        /// End, exclusive.
        to: u64,
        /// What the channel said.
        #[source]
        source: Arc<TailEnd>,
    },
    /// The events went away before they were indexed. The index was made anew from the head, since operations are missing: it
    /// holds what the channel does.
    #[error("events {from}..{to} of channel {channel} are not in the index: they went away before they were read")]
    Passed {
        /// Which channel.
        channel: ChannelName,
        /// First event.
        from: u64,
        /// End, exclusive.
        to: u64,
        /// What the channel said.
        #[source]
        source: Arc<TailEnd>,
    },
    /// A crash took the events back; their sequences are given again to others, which are in the index. What it had of the lost
    /// ones is gone.
    #[error("events {from}..{to} of channel {channel} were lost in a crash: the index has forgotten them")]
    Lost {
        /// Which channel.
        channel: ChannelName,
        /// First event.
        from: u64,
        /// End, exclusive, as far as it is known.
        to: u64,
    },
}

impl IndexGap {
    /// The events.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        match self {
            Self::Undecodable { seq, .. } => *seq..seq.saturating_add(1),
            Self::Unreadable { from, to, .. } | Self::Passed { from, to, .. } | Self::Lost { from, to, .. } => {
                *from..*to
            }
        }
    }

    /// Whether `seq`, as it is in the log now, is missing in the index.
    pub(crate) fn lacks(&self, seq: u64) -> bool {
        !matches!(self, Self::Lost { .. }) && self.range().contains(&seq)
    }
}

/// What [`RedexIndex::errors`](super::RedexIndex::errors) tells.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct IndexErrors {
    /// How many gaps there were since the index was opened. One that is met again by a rebuild counts once.
    pub count: u64,
    /// The newest of them, 1024 at the most, oldest first.
    pub newest: Vec<IndexGap>,
}

/// Why an index follows its channel no longer. It can still be read: it holds all events below
/// [`RedexIndex::applied`](super::RedexIndex::applied).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexEnd {
    /// The channel or the store was closed, and everything is indexed. Open the channel again, and an index over it.
    #[error("the channel was closed")]
    Closed,
    /// The last handle of the index was dropped.
    #[error("the index was dropped")]
    Dropped,
    /// The projection panicked. Nothing of its event is in the index. Mend it, and open the index anew.
    #[error("the projection of event {seq} panicked: {message}")]
    Panicked {
        /// Which event.
        seq: u64,
        /// What it said.
        message: Arc<str>,
    },
    /// The channel ended the subscription: its shard failed, or the device does not answer.
    #[error(transparent)]
    Tail(Arc<TailEnd>),
}

/// Why an index could not be opened. Nothing was begun.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexOpenError {
    /// The cursor is of another store. Open the index from a sequence.
    #[error(transparent)]
    Subscribe(SubscribeError),
    /// The system gave no thread. Try again when it has one.
    #[error("cannot start the index's thread over channel {channel}; open it again when the system has one")]
    Thread {
        /// Which channel.
        channel: ChannelName,
        /// Its answer.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Why what was waited for will not come.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexWaitError {
    /// The index has stopped before. What it holds can be read; open it anew to go on.
    #[error(
        "the index over channel {channel} has stopped at event {applied}: {end}; read what it has, or open it anew"
    )]
    Stopped {
        /// Which channel.
        channel: ChannelName,
        /// Events below are in the index.
        applied: u64,
        /// Why.
        #[source]
        end: IndexEnd,
    },
    /// The event was passed over, and is not in the index.
    #[error(transparent)]
    Gap(IndexGap),
    /// The index begins behind the event, so it will never have it. Open one from an earlier event.
    #[error(
        "the index over channel {channel} begins at event {from}, behind event {seq}; open one that begins earlier"
    )]
    Before {
        /// Which channel.
        channel: ChannelName,
        /// Which event was waited for.
        seq: u64,
        /// First event that is indexed.
        from: u64,
    },
}
