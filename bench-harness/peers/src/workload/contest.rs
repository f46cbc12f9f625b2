//! Several engines under one load: opened together, measured in turns, and read back one after the other.

use std::sync::Arc;

use anyhow::Context;
use redex_bench::load::Payloads;
use redex_bench::process_cpu_ns;
use redex_bench::sample::{Turn, Turns};

use crate::engine::{By, Engine, Feed, Log, Opening, Reader};
use crate::run::Session;

/// A turn of the engine with a name.
pub(crate) trait NamedTurn: FnMut(&'static str, &mut dyn Log, &mut Feed) -> anyhow::Result<Turn> {}

impl<T: FnMut(&'static str, &mut dyn Log, &mut Feed) -> anyhow::Result<Turn>> NamedTurn for T {}

/// One engine under one load.
pub(crate) struct Contestant {
    /// The engine.
    pub(crate) engine: &'static dyn Engine,
    /// What it did so far.
    pub(crate) turns: Turns,
    /// What it gets.
    pub(crate) feed: Feed,
    /// CPU time of the process during its turns, ns.
    pub(crate) cpu_ns: u64,
    /// Why it is out, or what a reader has to know.
    pub(crate) note: Option<String>,
    opening: Opening,
    log: Option<Box<dyn Log>>,
}

/// All engines of a load.
pub(crate) struct Contest {
    /// In the order of the table.
    pub(crate) contestants: Vec<Contestant>,
    in_order: bool,
    round: usize,
}

impl Contest {
    /// Opens a fresh log of each engine that `takes_part`. Contests at the same time are told apart by a `suffix`.
    pub(crate) fn open(
        session: &Session,
        suffix: &str,
        payloads: &Arc<Payloads>,
        room_bytes: u64,
        by: By,
        takes_part: impl Fn(&dyn Engine) -> bool,
    ) -> anyhow::Result<Self> {
        let mut contestants = Vec::new();
        for engine in session.engines.iter().copied().filter(|engine| takes_part(*engine)) {
            let dir = session.place(&format!("{}{suffix}", engine.name()))?;
            let feed = Feed::new(payloads.clone(), session.log_bytes_max());
            let opening = Opening { by, ..Opening::new(&dir, room_bytes) };
            let (log, note) = match engine.open(&opening) {
                Ok(log) => (Some(log), None),
                Err(error) => (None, Some(failure("opening", &error))),
            };
            let (turns, cpu_ns) = (Turns::default(), 0);
            contestants.push(Contestant { engine, turns, feed, cpu_ns, note, opening, log });
        }
        Ok(Self { contestants, in_order: by == By::OneWriter, round: 0 })
    }

    /// Lets each engine take one turn; another one begins each time. One that fails is out.
    pub(crate) fn round(&mut self, mut turn: impl FnMut(&mut dyn Log, &mut Feed) -> anyhow::Result<Turn>) {
        self.round_named(|_, log, feed| turn(log, feed));
    }

    /// A round of one writer that does not count.
    pub(crate) fn uncounted_round(&mut self, mut turn: impl FnMut(&mut dyn Log, &mut Feed) -> anyhow::Result<Turn>) {
        assert!(self.in_order, "what several writers have appended is known by the turns only");
        self.contestants.iter_mut().for_each(|contestant| {
            contestant.try_turn(&mut |_, log, feed| turn(log, feed));
        });
    }

    /// The same for who has to know which engine it is.
    pub(crate) fn round_named(&mut self, mut turn: impl NamedTurn) {
        let count = self.contestants.len();
        for place in 0..count {
            self.contestants[(place + self.round) % count].turn(&mut turn);
        }
        self.round += 1;
    }

    /// Closes every log, opens it again, and counts and compares what is there; then it is removed.
    pub(crate) fn read_back(&mut self, session: &Session) -> anyhow::Result<()> {
        for contestant in &mut self.contestants {
            if let Err(error) = contestant.read_back(self.in_order) {
                contestant.note = Some(failure("reading back", &error));
            }
        }
        self.remove(session)
    }

    /// Closes and removes every log.
    pub(crate) fn remove(&mut self, session: &Session) -> anyhow::Result<()> {
        for contestant in &mut self.contestants {
            if let Some(Err(error)) = contestant.log.take().map(Log::close) {
                contestant.note = Some(failure("closing", &error));
            }
            session.clear(&contestant.opening.dir)?;
        }
        Ok(())
    }
}

impl Contestant {
    fn turn(&mut self, turn: &mut impl NamedTurn) {
        let cpu = process_cpu_ns();
        // A log that is full sits out: its earlier turns count.
        if let Some(turn) = self.try_turn(turn).filter(|turn| turn.events > 0) {
            self.cpu_ns += process_cpu_ns() - cpu;
            self.turns.push(turn);
        }
    }

    /// A turn; who fails is out.
    fn try_turn(&mut self, turn: &mut impl NamedTurn) -> Option<Turn> {
        let log = self.log.as_mut()?;
        match turn(self.engine.name(), log.as_mut(), &mut self.feed) {
            Ok(turn) => Some(turn),
            Err(error) => {
                self.note = Some(failure("appending", &error));
                self.log = None;
                None
            }
        }
    }

    fn read_back(&mut self, in_order: bool) -> anyhow::Result<()> {
        let Some(log) = self.log.take() else { return Ok(()) };
        log.close().context("closing")?;
        let payloads = self.feed.payloads.clone();
        let (reader, count) = match in_order {
            true => (Reader::in_order(payloads), self.feed.next),
            false => (Reader::in_any_order(payloads), self.turns.events()),
        };
        self.engine.reopen(&self.opening, reader).context("reopening")?.reader.check(count)
    }
}

/// What went wrong, in a row's note.
pub(crate) fn failure(doing: &str, error: &anyhow::Error) -> String {
    format!("FAILED {doing}: {error:#}")
}
