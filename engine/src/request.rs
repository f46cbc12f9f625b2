//! What a caller asks of a shard and waits for: a trim, a change of settings, a cut, a batch over channels.
//!
//! The call itself hands it over; the future only waits, and dropping it cancels nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::append::wait::block_on;
use crate::channel_name::ChannelName;
use crate::error::ChangeError;
use crate::shard::handle::ShardHandle;
use crate::sync::scheduled::Mutex;
use crate::tail::waiters::Registration;

#[derive(Debug)]
struct State {
    outcome: Option<Result<u64, ChangeError>>,
    waker: Option<Waker>,
}

/// The shard's half: it answers with a position, or 0 where there is none.
#[derive(Clone, Debug)]
pub struct Request(Arc<Mutex<State>>);

impl Request {
    /// One that nobody has decided.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State { outcome: None, waker: None })))
    }

    /// Says what came of it. Only the first answer counts.
    pub fn decide(&self, outcome: Result<u64, ChangeError>) {
        let waker = {
            let mut state = self.0.lock().expect("no panic while the lock is held");
            if state.outcome.is_none() {
                state.outcome = Some(outcome);
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take(&self, waker: &Waker) -> Option<Result<u64, ChangeError>> {
        let mut state = self.0.lock().expect("no panic while the lock is held");
        let outcome = state.outcome.take();
        if outcome.is_none() {
            state.waker = Some(waker.clone());
        }
        outcome
    }
}

/// The future of a change to a channel. The change was asked for by the call; dropping this cancels nothing.
#[derive(Debug)]
#[must_use = "the change is asked for, but whether and when it is made only the future tells"]
pub struct Change<T> {
    request: Request,
    /// What the answer is to the caller.
    answer: fn(u64) -> T,
    /// Who decides it, and for which channel; nobody in memory, where it is decided at once.
    shard: Option<(Arc<ShardHandle>, ChannelName)>,
    registration: Registration,
}

impl<T> Change<T> {
    /// One that this shard decides.
    pub(crate) fn by_shard(
        request: Request,
        shard: Arc<ShardHandle>,
        channel: ChannelName,
        answer: fn(u64) -> T,
    ) -> Self {
        Self { request, answer, shard: Some((shard, channel)), registration: Registration::default() }
    }

    /// One that is decided.
    pub(crate) fn decided(outcome: Result<u64, ChangeError>, answer: fn(u64) -> T) -> Self {
        let request = Request::new();
        request.decide(outcome);
        Self { request, answer, shard: None, registration: Registration::default() }
    }

    /// Waits on this thread, without a runtime. Must not be called from within an asynchronous task.
    pub fn wait(mut self) -> Result<T, ChangeError> {
        block_on(Duration::MAX, |cx| self.poll_outcome(cx))
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, ChangeError>> {
        if let Some(outcome) = self.request.take(cx.waker()) {
            return Poll::Ready(outcome.map(self.answer));
        }
        let Some((shard, channel)) = &self.shard else { return Poll::Pending };
        self.registration.register(&shard.close_waiters, 0, cx.waker());
        let gone = match shard.poisoned() {
            Some(poisoned) => ChangeError::Poisoned(poisoned.clone()),
            None if shard.is_closed() => ChangeError::Closed { channel: channel.clone() },
            None => return Poll::Pending,
        };
        // It may have been decided before the shard ended.
        Poll::Ready(self.request.take(cx.waker()).unwrap_or(Err(gone)).map(self.answer))
    }
}

impl<T> Future for Change<T> {
    type Output = Result<T, ChangeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_outcome(cx)
    }
}
