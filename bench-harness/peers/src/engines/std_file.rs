//! The log that a program writes for itself: a growing file through the page cache, one `write` a call, `fdatasync`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::sync::Mutex;

use anyhow::Context;

use crate::engine::{Engine, Log, Offers, Opening, Reader, Shared};
use crate::frame;

/// The engine.
pub(crate) struct StdFile;

/// An open file.
struct Open {
    file: File,
    batch: Vec<u8>,
    /// Where threads put a frame together; one at a time writes.
    by_threads: Mutex<Vec<u8>>,
}

impl Engine for StdFile {
    fn name(&self) -> &'static str {
        "std"
    }

    fn package(&self) -> Option<&'static str> {
        None
    }

    fn configuration(&self) -> &'static str {
        "growing file, page cache; length and CRC-32C before each event; one write(2) a call, then fdatasync; threads write \
         one after the other and each calls fdatasync for itself"
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
        let file = OpenOptions::new().create(true).read(true).append(true).open(path).context("opening the file")?;
        File::open(&opening.dir)?.sync_all()?;
        Ok(Box::new(Open { file, batch: Vec::new(), by_threads: Mutex::default() }))
    }
}

impl Log for Open {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.append_batch(events)?;
        self.sync()
    }

    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.batch.clear();
        events.iter().for_each(|event| frame::push(&mut self.batch, event));
        self.file.write_all(&self.batch).context("writing")
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.file.sync_data().context("fdatasync")
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        frame::read_file(&self.file, reader).context("reading").map(drop)
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
        (&self.file).write_all(&bytes).context("writing")?;
        drop(bytes);
        self.file.sync_data().context("fdatasync")
    }
}
