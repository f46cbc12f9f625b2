//! fjall: an LSM tree with a journal. Keys are sequences, big endian.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::engine::{Engine, Log, Offers, Opening, Reader, Shared};

/// The engine.
pub(crate) struct Fjall;

/// An open database with its only keyspace.
struct Open {
    database: Database,
    events: Keyspace,
    next: AtomicU64,
}

impl Engine for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn package(&self) -> Option<&'static str> {
        Some("fjall")
    }

    fn configuration(&self) -> &'static str {
        "defaults, built without compression; u64 keys; durable: one write batch a commit with PersistMode::SyncData (threads: \
         insert, then persist); not durable: insert or a batch, to the system's buffers (default)"
    }

    fn offers(&self) -> Offers {
        Offers { threads: true, nondurable: true, tasks: false, tail: false }
    }

    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>> {
        let builder = Database::builder(&opening.dir).journal_compression(CompressionType::None);
        let database = builder.open().context("opening the database")?;
        let events = database.keyspace("events", KeyspaceCreateOptions::default).context("opening the keyspace")?;
        let last = events.last_key_value().map(|guard| guard.key()).transpose().context("reading the last key")?;
        let next = match last {
            Some(key) => u64::from_be_bytes(key[..].try_into().context("a key is no u64")?) + 1,
            None => 0,
        };
        Ok(Box::new(Open { database, events, next: next.into() }))
    }
}

impl Open {
    fn write(&mut self, events: &[&[u8]], mode: Option<PersistMode>) -> anyhow::Result<()> {
        let mut batch = self.database.batch().durability(mode);
        for (key, event) in (*self.next.get_mut()..).zip(events) {
            batch.insert(&self.events, key.to_be_bytes(), *event);
        }
        batch.commit().context("committing")?;
        *self.next.get_mut() += events.len() as u64;
        Ok(())
    }
}

impl Log for Open {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events, Some(PersistMode::SyncData))
    }

    fn append(&mut self, event: &[u8]) -> anyhow::Result<()> {
        let key = self.next.get_mut();
        self.events.insert(key.to_be_bytes(), event).context("inserting")?;
        *key += 1;
        Ok(())
    }

    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events, None)
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.database.persist(PersistMode::SyncData).context("persisting")
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        for guard in self.events.iter() {
            reader.see(&guard.value().context("reading")?);
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> anyhow::Result<()> {
        self.database.persist(PersistMode::SyncAll).context("persisting")
    }

    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }
}

impl Shared for Open {
    fn commit_one(&self, event: &[u8]) -> anyhow::Result<()> {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.events.insert(key.to_be_bytes(), event).context("inserting")?;
        self.database.persist(PersistMode::SyncData).context("persisting")
    }
}
