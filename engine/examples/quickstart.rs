//! The whole of the everyday API on one page: append, batch, read, follow.
//!
//! `cargo run -p redex --example quickstart` works in a directory of its own below the current one, and removes it.
//! The futures run under any executor, here tokio's; `follow.rs` shows the same on plain threads, without one.

use std::error::Error;
use std::sync::Arc;

use futures_util::StreamExt;
use redex::{FsyncPolicy, Redex, RedexFileConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let redex = Arc::new(Redex::new().with_persistent_dir(dir.path()));
    let cfg = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(100));
    let file = redex.open_file("sensors/lidar/front", cfg)?;
    let mut tail = file.subscribe_tail().await?;

    let seq = file.append(b"the first scan").await?;
    let payloads: Vec<String> = (1..300).map(|i| format!("scan {i}")).collect();
    let seqs = file.append_batch(&payloads).await?;
    println!("appended event {seq}, then {}..{}", seqs.start, seqs.end);

    for event in file.read_range(100, 103).await? {
        process(event.seq, &event.payload);
    }

    // Inclusive: what was processed last comes again.
    let last_processed_seq = 297;
    let mut again = file.subscribe_from(last_processed_seq).await?.take(3);
    while let Some(event) = again.next().await {
        process(event.seq, &event.payload);
    }

    // Closing makes everything durable, and ends the tail once it has delivered everything.
    file.close().await?;
    let mut followed = 0;
    while let Some(event) = tail.next().await {
        assert_eq!(event.seq, followed);
        followed += 1;
    }
    println!("followed {followed} events; the tail ended: {}", tail.ended().ok_or("it has ended")?);
    assert_eq!(followed, 300);

    redex.close().await?;
    Ok(())
}

fn process(seq: u64, payload: &[u8]) {
    println!("event {seq}: {}", String::from_utf8_lossy(payload));
}
