//! The drive: what it holds, the log of what was done to it, and what a power cut leaves of it.
//!
//! Knows nothing of FUSE, of file systems or of the engine.

pub mod cut;
pub mod image;
pub mod log;
pub mod whole;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::cut::{Cut, Left};
use self::image::Image;
use self::log::{Entry, Log};

/// What happened to a drive from some image on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tape {
    /// What the drive held before the log's first entry.
    pub begin: Image,
    /// What was done since.
    pub log: Log,
}

/// A drive with power.
#[derive(Debug, Default)]
pub struct Drive {
    /// What a read returns: everything written, flushed or not.
    image: Image,
    tape: Tape,
}

impl Drive {
    /// A drive that holds this, durably, with an empty log.
    #[must_use]
    pub fn holding(image: Image) -> Self {
        Self { tape: Tape { begin: image.clone(), log: Log::default() }, image }
    }

    /// Everything written.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The log since the drive got its power.
    #[must_use]
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// Gives up the log.
    #[must_use]
    pub fn into_tape(self) -> Tape {
        self.tape
    }

    /// Fills `buf` from `offset` on.
    pub fn read(&self, offset: u64, buf: &mut [u8]) {
        self.image.read(offset, buf);
    }

    /// Takes a write into the volatile cache; returns its place in the log. A held one is not covered by a flush before
    /// [`Drive::answered`].
    pub fn write(&mut self, offset: u64, data: &[u8], is_held: bool) -> usize {
        self.image.write(offset, data);
        self.tape.log.push(Entry::Write { offset, data: Arc::from(data), is_held })
    }

    /// A held write is answered now.
    pub fn answered(&mut self, write: usize) {
        self.tape.log.push(Entry::Answered { write });
    }

    /// Makes durable what was answered before.
    pub fn flush(&mut self) {
        self.tape.log.push(Entry::Flush);
    }
}

impl Tape {
    /// What the drive holds after a power cut.
    #[must_use]
    pub fn cut(&self, cut: &Cut) -> (Image, Left) {
        cut::cut(self, cut)
    }
}
