//! Waiting for a watermark, by a task or on a thread.
//!
//! A thread that waits alone spins before it sleeps, and gives way all the while: the hand-off through the kernel costs as
//! much as the device (design D16). It sleeps at once where another one waits, too, and where commits take long, as
//! on a slow device or with large batches.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::channel::{Channel, Life};
use crate::ids::Seq;
use crate::tail::waiters::Registration;

/// A lone waiter spins where a durable commit takes less at the mean, hand-offs not counted.
const SPIN_WHERE_BELOW: Duration = Duration::from_micros(400);

/// Longest spin: it outlasts the few commits that take some times the mean.
const SPIN_MAX: Duration = Duration::from_millis(1);

/// The mark will not come to what was waited for: the channel was closed or its shard has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// A position of a channel that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Events below are meant.
    pub below: Seq,
    /// [`Tail::resets`](crate::tail::Tail::resets) when they were reserved; `None` if they have yet to come.
    pub resets: Option<u32>,
}

impl Goal {
    /// Everything that is reserved now.
    pub fn all(channel: &Channel) -> Self {
        loop {
            let resets = channel.tail.resets();
            let below = channel.tail.reserved_end();
            if resets == channel.tail.resets() {
                return Self { below, resets: Some(resets) };
            }
        }
    }

    /// The event before `below`, whether it is there or has yet to come.
    pub fn to(channel: &Channel, below: Seq) -> Self {
        let all = Self::all(channel);
        Self { below, resets: all.resets.filter(|_| below <= all.below) }
    }

    /// Whether the channel was cut off since: all of it was durable before, and the mark may lie below for good.
    #[inline]
    pub fn was_before_a_cut(&self, channel: &Channel) -> bool {
        self.resets.is_some_and(|resets| resets != channel.tail.resets())
    }
}

/// Whether the durable mark has reached the goal, or never will.
#[inline]
fn durable_now(channel: &Channel, goal: Goal) -> Option<Result<(), Gone>> {
    let below = goal.below;
    if channel.durable() >= below || goal.was_before_a_cut(channel) {
        return Some(Ok(()));
    }
    let shard = &channel.persistence()?.shard;
    // The mark moves before the shard says that it has ended: so the mark is looked at again.
    (shard.poisoned().is_some() || shard.is_closed() || channel.life() == Life::Over)
        .then(|| if channel.durable() >= below { Ok(()) } else { Err(Gone) })
}

/// Polls until the goal's events are durable.
pub fn poll_durable(
    channel: &Channel,
    goal: Goal,
    registration: &mut Registration,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Gone>> {
    if let Some(result) = durable_now(channel, goal) {
        return Poll::Ready(result);
    }
    let below = goal.below;
    registration.register(&channel.durable_waiters, below.0 - 1, cx.waker());
    channel.want_durable(below);
    channel.ring();
    match durable_now(channel, goal) {
        Some(result) => Poll::Ready(result),
        None => Poll::Pending,
    }
}

/// Waits on this thread until the goal's events are durable.
pub fn wait_durable(channel: &Channel, goal: Goal) -> Result<(), Gone> {
    if let Some(result) = durable_now(channel, goal) {
        return result;
    }
    channel.want_durable(goal.below);
    channel.ring();
    let waiting = Waiting::begin();
    // A spin that ends before the commit does costs a core and gains nothing.
    let is_short = channel.persistence().is_some_and(|persistence| persistence.shard.commit_time() < SPIN_WHERE_BELOW);
    if is_short && let Some(result) = spin_alone(&waiting, || durable_now(channel, goal)) {
        return result;
    }
    // Again: what it waits for may have been published since, by another thread.
    channel.ring();
    channel.durable_waiters.sleep_until(goal.below.0 - 1, || {
        let result = durable_now(channel, goal);
        // A cut takes the wish back with the events that it was for; what is waited for may have yet to come.
        if result.is_none() && channel.want_durable(goal.below) {
            channel.ring();
        }
        result
    })
}

/// Spins for a while, if no other thread of the process waits: one that could run would have to wait for the end of the spinner's
/// slice.
fn spin_alone<T>(waiting: &Waiting, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + SPIN_MAX;
    while waiting.is_alone() {
        for _ in 0..64 {
            if let Some(result) = ready() {
                return Some(result);
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= until {
            return None;
        }
        // The kernel may have put the shard, which the ring has woken, in line on this very processor, though another one is idle: where a
        // hypervisor has taken that one away it counts as busy. The shard would wait for the end of the spin.
        std::thread::yield_now();
    }
    None
}

/// Threads of this process that wait for a durable mark, asleep or not: who sleeps now may run any moment.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct Waiting;

impl Waiting {
    fn begin() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self
    }

    fn is_alone(&self) -> bool {
        WAITING.load(Ordering::Relaxed) == 1
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Unpark {
    thread: Thread,
    notified: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.notified.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

thread_local! {
    /// One waker per thread, so that waiting allocates nothing.
    static THREAD_WAKER: RefCell<Option<(Arc<Unpark>, Waker)>> = const { RefCell::new(None) };
}

/// Polls on this thread until ready. Looks again at least every `look_again`.
pub fn block_on<T>(look_again: Duration, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let (unpark, waker) = THREAD_WAKER.with_borrow_mut(|cached| {
        let (unpark, waker) = cached.get_or_insert_with(|| {
            let unpark = Arc::new(Unpark { thread: std::thread::current(), notified: AtomicBool::new(false) });
            let waker = Waker::from(unpark.clone());
            (unpark, waker)
        });
        (unpark.clone(), waker.clone())
    });
    let mut cx = Context::from_waker(&waker);
    loop {
        unpark.notified.store(false, Ordering::Relaxed);
        if let Poll::Ready(result) = poll(&mut cx) {
            return result;
        }
        while !unpark.notified.swap(false, Ordering::Acquire) {
            if look_again == Duration::MAX {
                std::thread::park();
            } else {
                std::thread::park_timeout(look_again);
                break;
            }
        }
    }
}
