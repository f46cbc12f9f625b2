//! What an index holds, and how operations change it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};

/// One change of an index; a projection gives those of one event. They are applied in order, and seen together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IndexOp<K, V> {
    /// The key has this value too.
    Insert(K, V),
    /// The key has this value and no other.
    Replace(K, V),
    /// The key does not have this value. A key without values is gone.
    Remove(K, V),
    /// The key has no value.
    RemoveKey(K),
}

/// An index at one moment: with all operations of each event below [`IndexView::applied`], and with none of the others.
///
/// To be had by [`RedexIndex::read`](super::RedexIndex::read).
#[derive(Clone, Debug)]
pub struct IndexView<K, V> {
    values: BTreeMap<K, BTreeSet<V>>,
    start: u64,
    applied: u64,
}

impl<K: Ord, V: Ord> IndexView<K, V> {
    /// An index of no event yet; the first will be `start`.
    pub(crate) fn empty(start: u64) -> Self {
        Self { values: BTreeMap::new(), start, applied: start }
    }

    /// Applies the operations of whole events, up to the one before `applied`.
    pub(crate) fn apply(&mut self, ops: impl Iterator<Item = IndexOp<K, V>>, applied: u64) {
        for op in ops {
            self.apply_one(op);
        }
        self.applied = applied;
    }

    fn apply_one(&mut self, op: IndexOp<K, V>) {
        match op {
            IndexOp::Insert(key, value) => {
                self.values.entry(key).or_default().insert(value);
            }
            IndexOp::Replace(key, value) => {
                self.values.insert(key, BTreeSet::from([value]));
            }
            IndexOp::RemoveKey(key) => {
                self.values.remove(&key);
            }
            IndexOp::Remove(key, value) => {
                let Some(values) = self.values.get_mut(&key) else { return };
                values.remove(&value);
                if values.is_empty() {
                    self.values.remove(&key);
                }
            }
        }
    }

    /// Sequence of the first event that is indexed.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Events below this are in it, from [`IndexView::start`] on.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The values of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&BTreeSet<V>>
    where
        K: Borrow<Q>,
    {
        self.values.get(key)
    }

    /// Whether the key has this value.
    pub fn contains<Q: Ord + ?Sized, W: Ord + ?Sized>(&self, key: &Q, value: &W) -> bool
    where
        K: Borrow<Q>,
        V: Borrow<W>,
    {
        self.values.get(key).is_some_and(|values| values.contains(value))
    }

    /// Keys of a range with their values, in the order of the keys. A range that ends before it begins is empty.
    pub fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &BTreeSet<V>)> {
        let values = (!ends_before_it_begins(&range)).then(|| self.values.range(range));
        values.into_iter().flatten()
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.values.keys()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// What [`BTreeMap::range`] would panic on.
fn ends_before_it_begins<K: Ord>(range: &impl RangeBounds<K>) -> bool {
    match (range.start_bound(), range.end_bound()) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Excluded(start), Bound::Excluded(end)) => start >= end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start > end,
    }
}
