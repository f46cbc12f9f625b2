//! Waiting for an index.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::IndexWaitError;
use super::shared::Shared;
use crate::append::wait::block_on;
use crate::tail::waiters::Registration;

#[derive(Clone, Copy, Debug)]
enum For {
    /// This event.
    Event(u64),
    /// The rebuild of this number.
    Rebuild(u64),
}

/// The future of [`RedexIndex::wait_for_seq`](super::RedexIndex::wait_for_seq) and
/// [`RedexIndex::rebuild`](super::RedexIndex::rebuild). It keeps neither the index nor its thread alive.
#[derive(Debug)]
#[must_use = "nothing is waited for before the future is polled or waited for"]
pub struct IndexWait<K, V> {
    shared: Arc<Shared<K, V>>,
    target: For,
    registration: Registration,
}

impl<K, V> Unpin for IndexWait<K, V> {}

impl<K: Ord, V: Ord> IndexWait<K, V> {
    pub(crate) fn for_event(shared: &Arc<Shared<K, V>>, seq: u64) -> Self {
        Self { shared: shared.clone(), target: For::Event(seq), registration: Registration::default() }
    }

    pub(crate) fn for_rebuild(shared: &Arc<Shared<K, V>>, number: u64) -> Self {
        Self { shared: shared.clone(), target: For::Rebuild(number), registration: Registration::default() }
    }

    /// Waits on this thread, without a runtime.
    pub fn wait(mut self) -> Result<(), IndexWaitError> {
        block_on(Duration::MAX, |cx| self.poll_reached(cx))
    }

    fn poll_reached(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), IndexWaitError>> {
        if let Some(result) = self.reached() {
            return Poll::Ready(result);
        }
        let shared = &self.shared;
        match self.target {
            // Whoever stops the index wakes all below the last position.
            For::Event(seq) => {
                self.registration.register(&shared.applied_waiters, seq.min(u64::MAX - 1), cx.waker());
            }
            For::Rebuild(number) => self.registration.register(&shared.rebuild_waiters, number, cx.waker()),
        }
        self.reached().map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether it has come, or never will.
    fn reached(&self) -> Option<Result<(), IndexWaitError>> {
        // Before the marks: they do not move any more once this is there.
        let end = self.shared.end();
        let come = match self.target {
            For::Rebuild(number) => (self.shared.rebuild_done() >= number).then_some(Ok(())),
            For::Event(seq) => self.event(seq),
        };
        come.or_else(|| {
            let (channel, applied) = (self.shared.channel.clone(), self.shared.applied());
            end.map(|end| Err(IndexWaitError::Stopped { channel, applied, end: end.clone() }))
        })
    }

    fn event(&self, seq: u64) -> Option<Result<(), IndexWaitError>> {
        if self.shared.applied() <= seq {
            return None;
        }
        // The mark may have gone back since, for events that were lost.
        let (from, applied) = {
            let view = self.shared.view();
            (view.start(), view.applied())
        };
        if seq < from {
            return Some(Err(IndexWaitError::Before { channel: self.shared.channel.clone(), seq, from }));
        }
        let gap = self.shared.gap_at(seq).map(|gap| Err(IndexWaitError::Gap(gap)));
        (seq < applied).then(|| gap.unwrap_or(Ok(())))
    }
}

impl<K: Ord, V: Ord> Future for IndexWait<K, V> {
    type Output = Result<(), IndexWaitError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_reached(cx)
    }
}
