//! The whole of the everyday API on one page: append, batch, read, follow.
//!
//! `cargo run -p redex --example quickstart` works in a directory of its own below the current one, and removes it.
//! The futures need no runtime: `block_on` below is all there is. Under tokio or smol the same code is awaited.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use futures_core::Stream;
use redex::{FsyncPolicy, Redex, RedexEvent, RedexFileConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    block_on(work(dir.path()))
}

async fn work(dir: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let redex = Arc::new(Redex::new().with_persistent_dir(dir));
    let cfg = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(100));
    let file = redex.open_file("sensors/lidar/front", cfg)?;
    let mut tail = file.subscribe_tail().await?;

    let seq = file.append(b"the first scan").await?;
    let payloads: Vec<String> = (1..300).map(|i| format!("scan {i}")).collect();
    let seqs = file.append_batch(&payloads).await?;
    println!("appended event {seq}, then {}..{}", seqs.start, seqs.end);

    for event in file.read_range(100, 103).await? {
        show("read", &event);
    }

    // Inclusive: what was processed last comes again.
    let mut again = file.subscribe_from(298).await?;
    while let Some(event) = next(&mut again).await {
        show("again", &event);
        if event.seq + 1 == file.next_seq() {
            break;
        }
    }

    // Closing makes everything durable, and ends the tail once it has delivered everything.
    file.close().await?;
    let mut followed = 0;
    while let Some(event) = next(&mut tail).await {
        assert_eq!(event.seq, followed);
        followed += 1;
    }
    println!("followed {followed} events; the tail ended: {}", tail.ended().ok_or("it has ended")?);
    assert_eq!(followed, 300);

    redex.close().await?;
    Ok(())
}

fn show(what: &str, event: &RedexEvent) {
    println!("{what} {}: {}", event.seq, String::from_utf8_lossy(&event.payload));
}

/// What `StreamExt::next` of the futures crate does.
async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
