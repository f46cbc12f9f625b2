//! net-mesh: the log whose calls ours has. One channel, on disk; every payload is in memory as well.

use anyhow::Context;
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use net::adapter::net::ChannelName;
use net::adapter::net::redex::{FsyncPolicy, Redex, RedexError, RedexEvent, RedexFile, RedexFileConfig};
use tokio::runtime::Runtime;

use crate::engine::{Engine, Log, Offers, Opening, Reader, Shared, Subscriber, Tailed};

const CHANNEL: &str = "peers/log";

/// Events that a subscriber may be behind before it is cut off. By default 1024, which a fast writer passes at once.
const TAIL_BUFFER_SIZE: usize = 1 << 20;

/// Events read at once.
const READ_COUNT: u64 = 10_000;

/// The engine.
pub(crate) struct NetMesh;

/// An open store with its only channel.
struct Open {
    _redex: Redex,
    file: RedexFile,
}

impl Engine for NetMesh {
    fn name(&self) -> &'static str {
        super::REFERENCE
    }

    fn package(&self) -> Option<&'static str> {
        Some("net-mesh")
    }

    fn configuration(&self) -> &'static str {
        "persistent, FsyncPolicy::Never; durable: append_batch (threads: append), then sync, which flushes three files; it has no \
         durable append of its own; tail_buffer_size 2^20 instead of 1024, so that no subscriber is cut off"
    }

    fn offers(&self) -> Offers {
        Offers { threads: true, nondurable: true, tasks: false, tail: true }
    }

    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>> {
        let redex = Redex::new().with_persistent_dir(&opening.dir);
        let config = RedexFileConfig {
            persistent: true,
            fsync_policy: FsyncPolicy::Never,
            tail_buffer_size: TAIL_BUFFER_SIZE,
            ..RedexFileConfig::default()
        };
        let name = ChannelName::new(CHANNEL).context("naming the channel")?;
        let file = redex.open_file(&name, config).context("opening the channel")?;
        Ok(Box::new(Open { _redex: redex, file }))
    }
}

impl Log for Open {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        match events {
            [event] => self.append(event)?,
            events => self.append_batch(events)?,
        }
        self.sync()
    }

    fn append(&mut self, event: &[u8]) -> anyhow::Result<()> {
        self.file.append(event).context("appending").map(drop)
    }

    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        let events: Vec<Bytes> = events.iter().map(|event| Bytes::copy_from_slice(event)).collect();
        self.file.append_batch(&events).context("appending").map(drop)
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.file.sync().context("syncing")
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        let end = self.file.next_seq();
        for first in (0..end).step_by(READ_COUNT as usize) {
            let events = self.file.read_range(first, end.min(first + READ_COUNT));
            events.iter().for_each(|event| reader.see(&event.payload));
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> anyhow::Result<()> {
        self.file.close().context("closing")
    }

    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }

    fn tailed(&self) -> Option<&dyn Tailed> {
        Some(self)
    }
}

impl Shared for Open {
    fn commit_one(&self, event: &[u8]) -> anyhow::Result<()> {
        self.file.append(event).context("appending")?;
        self.file.sync().context("syncing")
    }
}

impl Tailed for Open {
    fn append_one(&self, event: &[u8]) -> anyhow::Result<()> {
        self.file.append(event).context("appending").map(drop)
    }

    fn subscribe(&self) -> anyhow::Result<Box<dyn Subscriber>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let tail = Box::new(self.file.tail(self.file.next_seq()));
        Ok(Box::new(Tail { runtime, tail }))
    }
}

type Item = Result<RedexEvent, RedexError>;

/// A subscription, and the runtime that waits for it.
struct Tail {
    runtime: Runtime,
    tail: Box<dyn Stream<Item = Item> + Unpin>,
}

fn seen(item: Option<Item>, see: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
    let event = item.context("the subscription ended")?.context("following")?;
    see(&event.payload);
    Ok(())
}

impl Subscriber for Tail {
    fn poll(&mut self, see: &mut dyn FnMut(&[u8])) -> anyhow::Result<bool> {
        match self.tail.next().now_or_never() {
            Some(item) => seen(item, see).map(|()| true),
            None => Ok(false),
        }
    }

    fn wait(&mut self, see: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        seen(self.runtime.block_on(self.tail.next()), see)
    }
}
