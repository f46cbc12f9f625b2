//! How a check is done, and how it tells how far it is.

use std::fmt;
use std::sync::Arc;

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Segments that were looked at.
    pub segments: u64,
    /// Segments that there are to look at.
    pub segments_total: u64,
    /// Bytes read so far, all files.
    pub bytes: u64,
    /// Findings so far that are damage.
    pub damages: u64,
}

type OnProgress = Arc<dyn Fn(VerifyProgress) + Send + Sync>;

/// How a check is done.
#[derive(Clone, Default)]
pub struct VerifyOptions {
    pub(crate) threads: Option<usize>,
    pub(crate) on_progress: Option<OnProgress>,
}

impl VerifyOptions {
    /// One thread a core, nobody told of the progress.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// So many threads that compute checksums; each has another one that waits for the device. At least one; one a core unless set.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.max(1));
        self
    }

    /// Called after each segment, by the thread that looked at it.
    #[must_use]
    pub fn with_progress(mut self, on_progress: impl Fn(VerifyProgress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(on_progress));
        self
    }

    pub(crate) fn thread_count(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }
}

impl fmt::Debug for VerifyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyOptions").field("threads", &self.threads).finish_non_exhaustive()
    }
}
