//! The engine needs no runtime: the same work gives the same results under tokio, tokio-uring, a bare executor, and none.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use futures_util::StreamExt;
use redex::{FsyncPolicy, Redex, RedexError, RedexEvent, RedexFileConfig};

use support::{payload, persistent, scratch};

/// Events of the workload.
const COUNT: u64 = 200;

/// What the workload saw: by reading, and by following the tail.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    read: Vec<(u64, Vec<u8>)>,
    followed: Vec<(u64, Vec<u8>)>,
}

impl Outcome {
    fn expected() -> Self {
        let all: Vec<_> = (0..COUNT).map(|seq| (seq, payload(seq))).collect();
        Self { read: all[10..].to_vec(), followed: all }
    }
}

fn pair(event: RedexEvent) -> (u64, Vec<u8>) {
    (event.seq, event.payload.to_vec())
}

fn config() -> RedexFileConfig {
    persistent().with_fsync_policy(FsyncPolicy::EveryN(16))
}

/// Append, batch, durable append, subscription, reading, sync and close, by futures.
async fn workload(redex: Redex) -> Result<Outcome, RedexError> {
    let file = redex.open_file("work", config())?;
    let mut tail = file.subscribe_from(0).await?;
    for seq in 0..50 {
        assert_eq!(file.append(payload(seq)).await?, seq);
    }
    let batch: Vec<_> = (50..100).map(payload).collect();
    assert_eq!(file.append_batch(&batch).await?, 50..100);
    for seq in 100..150 {
        assert_eq!(file.append_durable(payload(seq)).await?, seq);
        assert!(file.durable() > seq);
    }
    // Many in flight from one task: published in the order of the calls.
    let in_flight: Vec<_> = (150..COUNT).map(|seq| file.append_durable(payload(seq))).collect();
    for (append, seq) in in_flight.into_iter().zip(150..) {
        assert_eq!(append.await?, seq);
    }
    file.sync().await?;
    assert_eq!(file.durable(), COUNT);
    let read = file.read_range(10, u64::MAX).await?.into_iter().map(pair).collect();
    let mut scanned = file.scan(0..COUNT);
    let mut next = 0;
    while let Some(event) = scanned.next().await {
        assert_eq!(pair(event?), (next, payload(next)));
        next += 1;
    }
    file.close().await?;
    let mut followed = Vec::new();
    while let Some(event) = tail.next().await {
        followed.push(pair(event));
    }
    redex.close().await?;
    Ok(Outcome { read, followed })
}

/// The same on a plain thread.
fn workload_on_a_thread(redex: &Redex) -> Result<Outcome, RedexError> {
    let file = redex.open_file("work", config())?;
    let mut tail = file.subscribe_from(0).wait()?;
    for seq in 0..50 {
        assert_eq!(file.append(payload(seq)).wait()?, seq);
    }
    let batch: Vec<_> = (50..100).map(payload).collect();
    assert_eq!(file.append_batch(&batch).wait()?, 50..100);
    for seq in 100..COUNT {
        assert_eq!(file.append_durable(payload(seq)).wait()?, seq);
    }
    file.sync().wait()?;
    let read = file.read_range(10, u64::MAX).wait()?.into_iter().map(pair).collect();
    file.close().wait()?;
    let followed = std::iter::from_fn(|| tail.next_wait()).map(pair).collect();
    redex.close().wait()?;
    Ok(Outcome { read, followed })
}

/// Runs it on a new store, and compares with what a reopened store reads.
fn run(executor: impl FnOnce(Redex) -> Result<Outcome, RedexError>) {
    let dir = scratch();
    let outcome = executor(Redex::open(dir.path()).unwrap()).unwrap();
    assert_eq!(outcome, Outcome::expected());
    let redex = Redex::open(dir.path()).unwrap();
    support::check(&redex.open_file("work", config()).unwrap(), 0..COUNT);
}

/// One thread that runs tasks and the runtime.
#[test]
fn same_results_under_tokio_on_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    run(|redex| runtime.block_on(workload(redex)));
}

/// The task is spawned, so it may move between threads at each await.
#[test]
fn same_results_under_tokio_on_several_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    run(|redex| runtime.block_on(async { tokio::spawn(workload(redex)).await.unwrap() }));
}

/// The host runtime has a ring of its own beside ours.
#[test]
fn same_results_under_tokio_uring() {
    if support::uring_allowed() {
        run(|redex| tokio_uring::start(workload(redex)));
    }
}

/// An executor of twenty lines: what a waker promises is all that the futures need.
#[test]
fn same_results_under_a_bare_executor() {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    fn block_on<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    }
    run(|redex| block_on(workload(redex)));
}

/// `.wait()` everywhere.
#[test]
fn same_results_without_a_runtime() {
    run(|redex| workload_on_a_thread(&redex));
}
