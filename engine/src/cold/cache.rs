//! Chunks that were read from the cold store: a bounded memory of those used last, shared by all channels.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

/// A chunk: number of its object while the store is open, and its index there.
pub type ChunkId = (u64, u64);

#[derive(Debug, Default)]
struct Inner {
    chunks: HashMap<ChunkId, (Bytes, u64)>,
    /// By the time of the last use.
    used: BTreeMap<u64, ChunkId>,
    clock: u64,
    bytes: usize,
}

/// See the module's text.
#[derive(Debug)]
pub struct ChunkCache {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

impl ChunkCache {
    /// One that holds so many bytes at the most.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while the lock is held")
    }

    /// A chunk, if it is there.
    pub fn get(&self, id: ChunkId) -> Option<Bytes> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let (bytes, used) = inner.chunks.get_mut(&id)?;
        inner.used.remove(used);
        inner.clock += 1;
        *used = inner.clock;
        inner.used.insert(inner.clock, id);
        Some(bytes.clone())
    }

    /// Keeps a chunk; those that were not used for longest go. One that is larger than all is not kept.
    pub fn put(&self, id: ChunkId, chunk: Bytes) {
        if chunk.len() > self.bytes_max {
            return;
        }
        let mut inner = self.lock();
        inner.remove(id);
        inner.bytes += chunk.len();
        inner.clock += 1;
        let now = inner.clock;
        inner.chunks.insert(id, (chunk, now));
        inner.used.insert(now, id);
        while inner.bytes > self.bytes_max {
            let (_, &oldest) = inner.used.first_key_value().expect("what takes memory is there");
            inner.remove(oldest);
        }
    }

    /// Bytes held.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

impl Inner {
    fn remove(&mut self, id: ChunkId) {
        if let Some((chunk, used)) = self.chunks.remove(&id) {
            self.used.remove(&used);
            self.bytes -= chunk.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let cache = ChunkCache::new(30);
        for i in 0..3 {
            cache.put((1, i), vec![i as u8; 10].into());
        }
        assert_eq!(cache.get((1, 0)).unwrap(), vec![0; 10]);
        cache.put((2, 0), vec![9; 15].into());
        assert_eq!((cache.get((1, 1)), cache.get((1, 2))), (None, None));
        assert!(cache.get((1, 0)).is_some() && cache.get((2, 0)).is_some());
        assert_eq!(cache.bytes(), 25);
        cache.put((2, 0), vec![8; 5].into());
        assert_eq!((cache.bytes(), cache.get((2, 0)).unwrap()), (15, Bytes::from(vec![8; 5])));
        cache.put((3, 0), vec![0; 31].into());
        assert_eq!((cache.bytes(), cache.get((3, 0))), (15, None), "it would not fit");
    }
}
