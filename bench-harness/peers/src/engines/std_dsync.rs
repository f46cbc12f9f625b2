//! A plain file that is written with zeros first, and then overwritten through a descriptor with `O_DSYNC`: what the standard
//! library gives to whoever knows that a file which does not grow is flushed twice as fast.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use redex_bench::load::Payloads;

use crate::engine::{Engine, Log, Offers, Opening, Reader, Shared};
use crate::frame;

/// The engine.
pub(crate) struct StdDsync;

/// An open file: durable writes go to one descriptor, others to the other.
struct Open {
    durable: File,
    plain: File,
    batch: Vec<u8>,
    end: AtomicU64,
    /// Held from taking a place in the file until it is written, so that no hole is left in front of an acknowledged event.
    by_threads: Mutex<Vec<u8>>,
}

impl Engine for StdDsync {
    fn name(&self) -> &'static str {
        "std-dsync"
    }

    fn package(&self) -> Option<&'static str> {
        None
    }

    fn configuration(&self) -> &'static str {
        "file written with zeros before the row, page cache; length and CRC-32C before each event; one pwrite(2) a call through \
         O_DSYNC, one thread after the other"
    }

    fn offers(&self) -> Offers {
        Offers { threads: true, nondurable: true, tasks: false, tail: false }
    }

    fn is_plain_file(&self) -> bool {
        true
    }

    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>> {
        fs::create_dir_all(&opening.dir).context("making the directory")?;
        let path = opening.dir.join("log");
        if !path.exists() {
            prewrite(&path, opening.room_bytes).context("writing the file with zeros")?;
            File::open(&opening.dir)?.sync_all()?;
        }
        let plain = OpenOptions::new().read(true).write(true).open(&path)?;
        let durable = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(&path)?;
        // Where a log ends is found by reading it.
        let end = frame::read_file(&plain, &mut Reader::in_any_order(Payloads::new(0, 1).into()))?;
        Ok(Box::new(Open { durable, plain, batch: Vec::new(), end: end.into(), by_threads: Mutex::default() }))
    }
}

fn prewrite(path: &Path, size: u64) -> std::io::Result<()> {
    let file = File::create(path)?;
    let zeros = vec![0; 1 << 20];
    for offset in (0..size).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()
}

impl Open {
    fn write(&mut self, events: &[&[u8]], durable: bool) -> anyhow::Result<()> {
        self.batch.clear();
        events.iter().for_each(|event| frame::push(&mut self.batch, event));
        let file = if durable { &self.durable } else { &self.plain };
        file.write_all_at(&self.batch, *self.end.get_mut()).context("writing")?;
        *self.end.get_mut() += self.batch.len() as u64;
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
        self.plain.sync_data().context("fdatasync")
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        frame::read_file(&self.plain, reader).context("reading").map(drop)
    }

    fn close(mut self: Box<Self>) -> anyhow::Result<()> {
        self.sync()
    }

    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }
}

impl Shared for Open {
    fn commit_one(&self, event: &[u8]) -> anyhow::Result<()> {
        let mut bytes = self.by_threads.lock().expect("no thread panics");
        bytes.clear();
        frame::push(&mut bytes, event);
        let offset = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.durable.write_all_at(&bytes, offset).context("writing")
    }
}
