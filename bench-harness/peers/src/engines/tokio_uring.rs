//! The plain file again, through tokio-uring: what that runtime gives for a log without anything of ours.

use std::fs::{self, OpenOptions};

use anyhow::Context;
use tokio_uring::Runtime;
use tokio_uring::fs::File;

use crate::engine::{Engine, Log, Offers, Opening, Reader};
use crate::frame;

/// The engine.
pub(crate) struct TokioUring;

/// An open file, and the runtime of its thread.
struct Open {
    runtime: Runtime,
    file: File,
    plain: fs::File,
    batch: Vec<u8>,
    end: u64,
}

impl Engine for TokioUring {
    fn name(&self) -> &'static str {
        "tokio-uring"
    }

    fn package(&self) -> Option<&'static str> {
        Some("tokio-uring")
    }

    fn configuration(&self) -> &'static str {
        "a log made of it: growing file, page cache; length and CRC-32C before each event; write_all_at, then sync_data; it has no \
         linked or flagged writes; not shared by threads"
    }

    fn offers(&self) -> Offers {
        Offers { threads: false, nondurable: true, tasks: false, tail: false }
    }

    fn is_plain_file(&self) -> bool {
        true
    }

    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>> {
        fs::create_dir_all(&opening.dir).context("making the directory")?;
        let path = opening.dir.join("log");
        let plain = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        fs::File::open(&opening.dir)?.sync_all()?;
        let runtime = Runtime::new(&tokio_uring::builder()).context("starting the runtime")?;
        let end = plain.metadata()?.len();
        let file = plain.try_clone()?;
        let file = runtime.block_on(async { File::from_std(file) });
        Ok(Box::new(Open { runtime, file, plain, batch: Vec::new(), end }))
    }
}

impl Open {
    fn write(&mut self, events: &[&[u8]], durable: bool) -> anyhow::Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        events.iter().for_each(|event| frame::push(&mut batch, event));
        let (file, end) = (&self.file, self.end);
        let (written, batch) = self.runtime.block_on(async {
            let (written, batch) = file.write_all_at(batch, end).await;
            match written {
                Ok(()) if durable => (file.sync_data().await, batch),
                written => (written, batch),
            }
        });
        written.context("writing")?;
        self.end += batch.len() as u64;
        self.batch = batch;
        Ok(())
    }
}

impl Log for Open {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events, true)
    }

    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events, false)
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.runtime.block_on(self.file.sync_data()).context("fdatasync")
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        frame::read_file(&self.plain, reader).context("reading").map(drop)
    }

    fn close(mut self: Box<Self>) -> anyhow::Result<()> {
        self.sync()?;
        let Self { runtime, file, .. } = *self;
        runtime.block_on(file.close()).context("closing")
    }
}
