//! A secondary index: keys and values that a projection makes of a channel's events, kept in memory and in step with the tail.
//!
//! ```text
//!  channel's tail --> redex-index: project (no lock) --> batch of whole events --> view <-- get, range, read
//!                                                                                   '-- applied: those who wait
//! ```
//!
//! The index is a subscription: it reads history from disk, is never cut off, and is behind by [`RedexIndex::lag`]. Nothing goes
//! missing in silence: events that do not decode or cannot be read are counted and listed, and a projection that panics ends the
//! index with a reason, for those who wait as for those who ask.
//!
//! It lives in memory and is made anew by each open. What it leaves to others: persistence, which is the channel's.

mod error;
mod indexer;
mod shared;
mod state;
mod wait;

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::thread;

use crate::error::SubscribeError;
use crate::event::RedexEvent;
use crate::file::RedexFile;
use crate::read::subscribe::{Cursor, From as Start};
use crate::typed::{Codec, TypedEvent, TypedRedexFile};

use self::indexer::{Follows, Indexer, Project};
use self::shared::{Handles, Shared};

pub use error::{IndexEnd, IndexErrors, IndexGap, IndexOpenError, IndexWaitError};
pub use state::{IndexOp, IndexView};
pub use wait::IndexWait;

/// Where an index begins, and which mark it follows. From a sequence or a [`Cursor`], by `into()`.
///
/// ```
/// use redex::{Cursor, IndexStart};
/// let from_the_beginning = IndexStart::BEGINNING;
/// let of_durable_events = IndexStart::from(1000).durable_only();
/// let from_a_cursor = IndexStart::from(Cursor { epoch: 2, seq: 1000 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexStart {
    start: Start,
    follows: Follows,
}

impl IndexStart {
    /// With the first event that is there.
    pub const BEGINNING: Self = Self { start: Start::Seq(0), follows: Follows::Published };

    /// Indexes events only once they are durable: then a crash takes nothing back that was ever read from the index.
    #[must_use]
    pub fn durable_only(mut self) -> Self {
        self.follows = Follows::Durable;
        self
    }
}

impl From<u64> for IndexStart {
    fn from(seq: u64) -> Self {
        Self { start: Start::Seq(seq), follows: Follows::Published }
    }
}

impl From<Cursor> for IndexStart {
    fn from(cursor: Cursor) -> Self {
        Self { start: Start::Cursor(cursor), follows: Follows::Published }
    }
}

/// A secondary index over a channel. A cheap clone; all clones are the same index.
///
/// A thread named `redex-index` follows the channel until the last clone is dropped or the channel is closed; afterwards the
/// index can still be read. The projection is called once per event, in order, and again for all events by a rebuild: make it
/// depend on the event alone.
///
/// ```
/// # fn main() -> Result<(), redex::RedexError> {
/// use redex::{IndexOp, IndexStart, Redex, RedexFileConfig, RedexIndex, TypedRedexFile};
/// let file = Redex::in_memory().open_file("members", RedexFileConfig::default())?;
/// let members = TypedRedexFile::<(String, u32)>::new(file); // name, age
///
/// let by_age = RedexIndex::open_typed(&members, IndexStart::BEGINNING, |event| {
///     let (name, age) = &event.value;
///     vec![IndexOp::Insert(*age, name.clone())]
/// })?;
/// members.append(&("Ada".into(), 36)).wait()?;
/// members.append(&("Alan".into(), 41)).wait()?;
/// let seq = members.append(&("Grace".into(), 36)).wait()?;
///
/// by_age.wait_for_seq(seq).wait()?;
/// assert_eq!(by_age.get(&36).unwrap().into_iter().collect::<Vec<_>>(), ["Ada", "Grace"]);
/// assert_eq!(by_age.keys(40.., 10), [41]);
/// assert_eq!(by_age.lag(), 0);
/// # Ok(())
/// # }
/// ```
pub struct RedexIndex<K: Ord, V: Ord> {
    handles: Arc<Handles<K, V>>,
    file: RedexFile,
    follows: Follows,
}

impl<K: Ord, V: Ord> Clone for RedexIndex<K, V> {
    fn clone(&self) -> Self {
        Self { handles: self.handles.clone(), file: self.file.clone(), follows: self.follows }
    }
}

impl<K: Ord, V: Ord> fmt::Debug for RedexIndex<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedexIndex")
            .field("channel", self.file.name())
            .field("applied", &self.applied())
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}

impl<K: Ord + Send + Sync + 'static, V: Ord + Send + Sync + 'static> RedexIndex<K, V> {
    /// An index of what `project` makes of the events' bytes. Returns at once; [`RedexIndex::wait_for_seq`] waits for an event.
    ///
    /// If a crash took back events that the cursor has seen, the index begins with the first one behind what survived, and
    /// [`RedexIndex::errors`] tells of the loss.
    ///
    /// # Errors
    ///
    /// [`IndexOpenError`]; nothing was begun.
    pub fn open(
        file: &RedexFile,
        start: impl Into<IndexStart>,
        mut project: impl FnMut(&RedexEvent) -> Vec<IndexOp<K, V>> + Send + 'static,
    ) -> Result<Self, IndexOpenError> {
        Self::begin(file, start.into(), Box::new(move |event| Ok(project(event))))
    }

    /// An index of what `project` makes of the events' values. An event that does not decode is passed over, and told by
    /// [`RedexIndex::errors`].
    ///
    /// # Errors
    ///
    /// [`IndexOpenError`]; nothing was begun.
    pub fn open_typed<T: 'static, C: Codec<T> + Clone + Send + 'static>(
        file: &TypedRedexFile<T, C>,
        start: impl Into<IndexStart>,
        mut project: impl FnMut(&TypedEvent<T>) -> Vec<IndexOp<K, V>> + Send + 'static,
    ) -> Result<Self, IndexOpenError> {
        let decoder = file.decoder().clone();
        let project: Project<K, V> = Box::new(move |event| match decoder.decode(event) {
            Ok(event) => Ok(project(&event)),
            Err(error) => Err(Arc::new(error.source)),
        });
        Self::begin(file.file(), start.into(), project)
    }

    fn begin(file: &RedexFile, start: IndexStart, project: Project<K, V>) -> Result<Self, IndexOpenError> {
        if let Start::Cursor(cursor) = start.start
            && let Err(error) = file.subscribe_from(cursor).wait()
            && !matches!(error, SubscribeError::LostEvents { .. })
        {
            return Err(IndexOpenError::Subscribe(error));
        }
        let from = match start.start {
            // What is gone already is not missing.
            Start::Seq(seq) => Start::Seq(seq.max(file.head_seq())),
            cursor @ Start::Cursor(_) => cursor,
        };
        let tail = start.follows.tail(file, from);
        let shared = Arc::new(Shared::new(file.name().clone(), tail.cursor().seq));
        let indexer = Indexer::new(shared.clone(), file.clone(), start.follows, tail, project);
        thread::Builder::new()
            .name("redex-index".to_owned())
            .spawn(move || indexer.run())
            .map_err(|error| IndexOpenError::Thread { channel: file.name().clone(), source: Arc::new(error) })?;
        Ok(Self { handles: Arc::new(Handles(shared)), file: file.clone(), follows: start.follows })
    }
}

impl<K: Ord, V: Ord> RedexIndex<K, V> {
    fn shared(&self) -> &Arc<Shared<K, V>> {
        &self.handles.0
    }

    /// Looks at the index at one moment: several reads that belong together, or one without a copy.
    ///
    /// The index does not move while `look` runs, and whoever else reads may wait for it too: keep it short, and read this index
    /// in it by the view only.
    ///
    /// ```
    /// # fn main() -> Result<(), redex::RedexError> {
    /// # use redex::{IndexOp, IndexStart, Redex, RedexFileConfig, RedexIndex};
    /// # let file = Redex::in_memory().open_file("words", RedexFileConfig::default())?;
    /// let lengths = RedexIndex::open(&file, IndexStart::BEGINNING, |event| {
    ///     vec![IndexOp::Insert(event.payload.len(), event.seq)]
    /// })?;
    /// file.append_batch(&["a", "be", "of"]).wait()?;
    /// lengths.wait_for_seq(2).wait()?;
    /// let most = lengths.read(|view| view.range(..).map(|(_, seqs)| seqs.len()).max());
    /// assert_eq!(most, Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn read<R>(&self, look: impl FnOnce(&IndexView<K, V>) -> R) -> R {
        look(&self.shared().view())
    }

    /// The values of a key, copied; `None` if it has none.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<BTreeSet<V>>
    where
        K: Borrow<Q>,
        V: Clone,
    {
        self.read(|view| view.get(key).cloned())
    }

    /// Whether the key has this value.
    #[must_use]
    pub fn contains<Q: Ord + ?Sized, W: Ord + ?Sized>(&self, key: &Q, value: &W) -> bool
    where
        K: Borrow<Q>,
        V: Borrow<W>,
    {
        self.read(|view| view.contains(key, value))
    }

    /// The first `limit` keys of a range with their values, in the order of the keys, as they are at one moment. Go on behind
    /// the last key for more: so no reader stops the index for long. A range that ends before it begins is empty.
    #[must_use]
    pub fn range(&self, range: impl RangeBounds<K>, limit: usize) -> Vec<(K, BTreeSet<V>)>
    where
        K: Clone,
        V: Clone,
    {
        self.read(|view| view.range(range).take(limit).map(|(key, values)| (key.clone(), values.clone())).collect())
    }

    /// The first `limit` keys of a range, in order; else as [`RedexIndex::range`].
    #[must_use]
    pub fn keys(&self, range: impl RangeBounds<K>, limit: usize) -> Vec<K>
    where
        K: Clone,
    {
        self.read(|view| view.range(range).take(limit).map(|(key, _)| key.clone()).collect())
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(IndexView::len)
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read(IndexView::is_empty)
    }

    /// Events below this are in the index, but for those that [`RedexIndex::errors`] lists. Never above the mark that the index
    /// follows. It goes back only if a crash took back events that were in the index.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.shared().applied().min(self.follows.mark(&self.file))
    }

    /// How many events the index is behind the mark that it follows.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.follows.mark(&self.file).saturating_sub(self.shared().applied())
    }

    /// What is not in the index, and why.
    #[must_use]
    pub fn errors(&self) -> IndexErrors {
        self.shared().errors()
    }

    /// Why the index follows its channel no longer; `None` while it does.
    #[must_use]
    pub fn ended(&self) -> Option<&IndexEnd> {
        self.shared().end()
    }

    /// Resolves when the event `seq` itself is in the index.
    ///
    /// # Errors
    ///
    /// [`IndexWaitError`], at once, if the index has stopped before it, has passed it over, or begins behind it.
    pub fn wait_for_seq(&self, seq: u64) -> IndexWait<K, V> {
        IndexWait::for_event(self.shared(), seq)
    }

    /// Makes the index anew from all events that are there; resolves when the new one has taken the place of the present one,
    /// which is read until then. Both are in memory meanwhile. Dropping the future cancels nothing.
    ///
    /// What the present one has of events that retention has removed since goes with it.
    ///
    /// # Errors
    ///
    /// [`IndexWaitError::Stopped`]; the present index stays as it is.
    pub fn rebuild(&self) -> IndexWait<K, V> {
        IndexWait::for_rebuild(self.shared(), self.shared().want_rebuild())
    }
}
