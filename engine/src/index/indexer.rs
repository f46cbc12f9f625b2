//! The thread of an index: reads its channel's tail, projects events outside of any lock, and applies them in batches.
//!
//! A batch is whole events, [`BATCH_EVENTS_MAX`] at the most; of each only the operations are kept. So memory is bounded
//! however far the index is behind, and a reader waits for one batch at the most.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use super::error::{IndexEnd, IndexGap};
use super::shared::Shared;
use super::state::{IndexOp, IndexView};
use crate::append::wait::block_on;
use crate::event::RedexEvent;
use crate::file::RedexFile;
use crate::read::subscribe::{From as Start, TailEnd, TailResults};

/// Events of a batch at the most.
const BATCH_EVENTS_MAX: u64 = 256;
/// Operations above which a batch ends; those of one event stay together.
const BATCH_OPS_MAX: usize = 4096;

/// What an event does to the index, or why it does not decode.
pub(crate) type Projected<K, V> = Result<Vec<IndexOp<K, V>>, Arc<dyn Error + Send + Sync>>;
pub(crate) type Project<K, V> = Box<dyn FnMut(&RedexEvent) -> Projected<K, V> + Send>;

/// The mark that an index follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    Published,
    Durable,
}

impl Follows {
    pub fn mark(self, file: &RedexFile) -> u64 {
        match self {
            Self::Published => file.published(),
            Self::Durable => file.durable(),
        }
    }

    pub fn tail(self, file: &RedexFile, from: impl Into<Start>) -> TailResults {
        let tail = file.tail(from);
        match self {
            Self::Published => tail,
            Self::Durable => tail.durable_only(),
        }
    }
}

/// A new index beside the one that is read, until it has come as far.
struct Rebuilding<K, V> {
    view: IndexView<K, V>,
    /// Where it takes the other's place.
    until: u64,
    /// Those who asked for rebuilds up to this number are served by it.
    number: u64,
}

/// See the module's text.
pub(crate) struct Indexer<K, V> {
    shared: Arc<Shared<K, V>>,
    file: RedexFile,
    follows: Follows,
    tail: TailResults,
    project: Project<K, V>,
    /// First event of a rebuild.
    origin: u64,
    /// Sequence behind the last event that was projected.
    next: u64,
    batch: Vec<IndexOp<K, V>>,
    batch_events: u64,
    rebuilding: Option<Rebuilding<K, V>>,
    /// Number of the last rebuild that was begun.
    rebuild_begun: u64,
}

/// Why a batch ends.
enum Step {
    /// It is full, or nothing more is there.
    Apply,
    Gap(TailEnd),
    Rebuild,
    Stop(IndexEnd),
}

impl<K: Ord, V: Ord> Indexer<K, V> {
    pub fn new(
        shared: Arc<Shared<K, V>>,
        file: RedexFile,
        follows: Follows,
        tail: TailResults,
        project: Project<K, V>,
    ) -> Self {
        let next = tail.cursor().seq;
        Self {
            shared,
            file,
            follows,
            tail,
            project,
            origin: next,
            next,
            batch: Vec::new(),
            batch_events: 0,
            rebuilding: None,
            rebuild_begun: 0,
        }
    }

    /// Follows the channel to its end. Whatever ends it, those who wait are told.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        let end = catch_unwind(AssertUnwindSafe(|| self.follow()));
        // An order of keys or values that panics; the projection's panics are caught where it is called.
        shared.stop(end.unwrap_or_else(|panic| panicked(self.next, panic.as_ref())));
    }

    fn follow(&mut self) -> IndexEnd {
        loop {
            let step = block_on(Duration::MAX, |cx| self.poll_step(cx));
            self.apply();
            match step {
                Step::Apply => {}
                Step::Gap(end) => self.pass(end),
                Step::Rebuild => self.rebuild(),
                Step::Stop(end) => return end,
            }
        }
    }

    /// Fills the batch.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.shared.register_thread(cx.waker());
        if self.shared.is_dropped() {
            return Poll::Ready(Step::Stop(IndexEnd::Dropped));
        }
        if self.shared.rebuild_wanted() > self.rebuild_begun {
            return Poll::Ready(Step::Rebuild);
        }
        while self.batch_events < BATCH_EVENTS_MAX && self.batch.len() < BATCH_OPS_MAX {
            match Pin::new(&mut self.tail).poll_next(cx) {
                Poll::Pending if self.batch_events == 0 => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(None) => return Poll::Ready(Step::Stop(self.end_of_tail())),
                Poll::Ready(Some(Err(end))) => return Poll::Ready(Step::Gap(end)),
                Poll::Ready(Some(Ok(event))) => {
                    if let Err(end) = self.take(&event) {
                        return Poll::Ready(Step::Stop(end));
                    }
                }
            }
        }
        Poll::Ready(Step::Apply)
    }

    fn end_of_tail(&self) -> IndexEnd {
        match self.tail.ended() {
            None | Some(TailEnd::Closed) => IndexEnd::Closed,
            Some(end) => IndexEnd::Tail(Arc::new(end.clone())),
        }
    }

    fn take(&mut self, event: &RedexEvent) -> Result<(), IndexEnd> {
        let projected = catch_unwind(AssertUnwindSafe(|| (self.project)(event)));
        match projected.map_err(|panic| panicked(event.seq, panic.as_ref()))? {
            Ok(ops) => self.batch.extend(ops),
            Err(source) => {
                let channel = self.shared.channel.clone();
                self.shared.note(IndexGap::Undecodable { channel, seq: event.seq, source });
            }
        }
        self.batch_events += 1;
        self.next = event.seq + 1;
        Ok(())
    }

    fn apply(&mut self) {
        self.batch_events = 0;
        let (ops, next) = (&mut self.batch, self.next);
        match &mut self.rebuilding {
            Some(rebuilding) => rebuilding.view.apply(ops.drain(..), next),
            None if next > self.shared.applied() => self.shared.change(|view| view.apply(ops.drain(..), next)),
            None => {}
        }
        self.end_rebuild();
    }

    /// What the tail could not deliver: goes on behind it, or with a new index where what this one has is wrong.
    fn pass(&mut self, end: TailEnd) {
        if self.tail.ended().is_some() {
            // The tail's next item says so.
            return;
        }
        let (from, to) = (self.next, self.tail.cursor().seq);
        let channel = self.shared.channel.clone();
        match end {
            TailEnd::Lost { from, to, .. } => {
                self.shared.note(IndexGap::Lost { channel, from, to });
                self.origin = self.origin.min(from);
                // Lost events must not be seen a moment longer.
                self.shared.replace(IndexView::empty(self.origin));
                self.rebuild();
            }
            source @ TailEnd::Unreadable(_) => {
                self.shared.note(IndexGap::Unreadable { channel, from, to, source: Arc::new(source) });
                self.next = to;
                self.apply();
            }
            source => {
                self.shared.note(IndexGap::Passed { channel, from, to, source: Arc::new(source) });
                // What is there begins no earlier: so that the new one does not meet the same gap again.
                self.origin = self.origin.max(to);
                self.rebuild();
            }
        }
    }

    /// Begins an index anew, beside the present one.
    fn rebuild(&mut self) {
        self.rebuild_begun = self.shared.rebuild_wanted();
        self.tail = self.follows.tail(&self.file, self.origin.max(self.file.head_seq()));
        self.next = self.tail.cursor().seq;
        self.rebuilding = Some(Rebuilding {
            view: IndexView::empty(self.next),
            until: self.follows.mark(&self.file),
            number: self.rebuild_begun,
        });
        self.end_rebuild();
    }

    fn end_rebuild(&mut self) {
        if let Some(done) = self.rebuilding.take_if(|rebuilding| rebuilding.view.applied() >= rebuilding.until) {
            self.shared.replace(done.view);
            self.shared.set_rebuild_done(done.number);
        }
    }
}

fn panicked(seq: u64, panic: &(dyn std::any::Any + Send)) -> IndexEnd {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it gave no reason");
    IndexEnd::Panicked { seq, message: message.into() }
}

#[cfg(all(test, not(redex_loom)))]
mod tests;
