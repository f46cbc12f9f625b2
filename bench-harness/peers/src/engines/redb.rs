//! redb: a copy-on-write B-tree in one file. Keys are sequences.

use std::sync::Mutex;

use anyhow::Context;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::engine::{Engine, Log, Offers, Opening, Reader, Shared};

const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");

/// The engine.
pub(crate) struct Redb;

/// An open database.
struct Open {
    database: Database,
    next: Mutex<u64>,
}

impl Engine for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn package(&self) -> Option<&'static str> {
        Some("redb")
    }

    fn configuration(&self) -> &'static str {
        "defaults; u64 keys; one write transaction a commit, Durability::Immediate (threads: one transaction an event, redb \
         runs them one after the other); not durable: Durability::None, then an empty Immediate commit"
    }

    fn offers(&self) -> Offers {
        Offers { threads: true, nondurable: true, tasks: false, tail: false }
    }

    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Log>> {
        std::fs::create_dir_all(&opening.dir).context("making the directory")?;
        let database = Database::create(opening.dir.join("events.redb")).context("opening the database")?;
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let next = {
            let table = transaction.open_table(EVENTS)?;
            table.last()?.map_or(0, |(key, _)| key.value() + 1)
        };
        transaction.commit()?;
        Ok(Box::new(Open { database, next: next.into() }))
    }
}

impl Open {
    fn write(&self, events: &[&[u8]], durability: Durability) -> anyhow::Result<()> {
        let mut transaction = self.database.begin_write().context("beginning")?;
        transaction.set_durability(durability)?;
        let mut next = self.next.lock().expect("no thread panics");
        {
            let mut table = transaction.open_table(EVENTS)?;
            for (key, event) in (*next..).zip(events) {
                table.insert(key, *event).context("inserting")?;
            }
        }
        *next += events.len() as u64;
        drop(next);
        transaction.commit().context("committing")
    }
}

impl Log for Open {
    fn commit(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events, Durability::Immediate)
    }

    fn append_batch(&mut self, events: &[&[u8]]) -> anyhow::Result<()> {
        self.write(events, Durability::None)
    }

    fn sync(&mut self) -> anyhow::Result<()> {
        self.write(&[], Durability::Immediate)
    }

    fn scan(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        let transaction = self.database.begin_read().context("beginning")?;
        let table = transaction.open_table(EVENTS)?;
        for item in table.range::<u64>(..)? {
            reader.see(item.context("reading")?.1.value());
        }
        Ok(())
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
        self.write(&[event], Durability::Immediate)
    }
}
