//! The memory that payloads are read into.
//!
//! Promises: the large buffers, of which a scan takes one after the other, come back when nobody looks at their events any more. A fresh
//! one costs as much as the device: its pages have to be mapped, zeroed and unmapped again.
//!
//! What a kept buffer holds is old; who reads into it shows only what was read.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::io::{AlignedBuf, BLOCK_SIZE};

/// Buffers from here on are kept, and have one size.
const KEPT_FROM: usize = 512 << 10;
const KEPT_SIZE: usize = (1 << 20) + 2 * BLOCK_SIZE;

/// How many the process keeps.
const KEPT_MAX: usize = 8;

static KEPT: Mutex<Vec<AlignedBuf>> = Mutex::new(Vec::new());

fn kept() -> std::sync::MutexGuard<'static, Vec<AlignedBuf>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer for reads, of at least as many bytes as were asked for.
#[derive(Debug)]
pub struct ReadBuf(Option<AlignedBuf>);

impl ReadBuf {
    /// A buffer of `len` bytes at the least; its content is anything.
    pub fn new(len: usize) -> Self {
        if !(KEPT_FROM..=KEPT_SIZE).contains(&len) {
            return Self(Some(AlignedBuf::new(len)));
        }
        let buf = kept().pop();
        Self(Some(buf.unwrap_or_else(|| AlignedBuf::new(KEPT_SIZE))))
    }
}

impl Deref for ReadBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().expect("it is there until this is dropped")
    }
}

impl DerefMut for ReadBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().expect("it is there until this is dropped")
    }
}

impl AsRef<[u8]> for ReadBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for ReadBuf {
    fn drop(&mut self) {
        let Some(buf) = self.0.take() else { return };
        if buf.len() != KEPT_SIZE {
            return;
        }
        let mut kept = kept();
        if kept.len() < KEPT_MAX {
            kept.push(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_room_and_large_ones_come_back() {
        for len in [0, 1, KEPT_FROM - 1, KEPT_FROM, KEPT_SIZE, KEPT_SIZE + 1, 4 << 20] {
            let buf = ReadBuf::new(len);
            assert!(buf.len() >= len, "{} of {len}", buf.len());
        }
        let buffers: Vec<_> = (0..KEPT_MAX + 3).map(|_| ReadBuf::new(KEPT_FROM)).collect();
        drop(buffers);
        assert!((1..=KEPT_MAX).contains(&kept().len()));
    }
}
