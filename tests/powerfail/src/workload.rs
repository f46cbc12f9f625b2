//! What is recorded: the engine at work on the real file system, and beside it the history of what it acknowledged.
//!
//! One thread appends to several channels, waits at times, trims, cuts off, resets, deletes, closes and opens again. After each
//! step it looks at every channel's durable mark and head, and reads the drive's position behind them.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use fastrand::Rng;
use redex::{Backend, ChangeError, Redex, RedexFile};

use crate::check;
use crate::history::{Change, Event, Group, History, Position};
use crate::server::remote::Remote;
use crate::settings::{Settings, pick};

/// Largest payload.
const PAYLOAD_SIZE_MAX: usize = 40 << 10;
/// Payload bytes of a batch at the most: its commit fits the smallest journal segment several times.
const BATCH_SIZE_MAX: usize = 8 << 10;

/// A mistake of the harness's own, to see whether it notices what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
pub enum Break {
    /// What is published counts as acknowledged, before any flush.
    AckBeforeFlush,
    /// The drive forgets what it called durable.
    LyingDrive,
}

/// A recording under way.
struct Recording<'a> {
    drive: &'a mut Remote,
    settings: Settings,
    dir: PathBuf,
    history: History,
    store: Redex,
    files: Vec<RedexFile>,
    /// What was noted of each channel's newest version: durable mark, head.
    noted: Vec<(u64, u64)>,
    /// The drive's, as it was last read.
    position: Position,
    rng: Rng,
    broken: Option<Break>,
}

/// Works on a store in `dir`, which holds what `history` begins with, and returns how it went on.
///
/// # Errors
///
/// The store is not as it must be, refuses something, or the drive's process is gone.
pub fn record(
    drive: &mut Remote,
    dir: &Path,
    settings: Settings,
    history: History,
    seed: u64,
    broken: Option<Break>,
) -> anyhow::Result<History> {
    let store = open(&settings, dir)?;
    let mut recording = Recording {
        drive,
        settings,
        dir: dir.to_owned(),
        history,
        store,
        files: Vec::new(),
        noted: Vec::new(),
        position: 0,
        rng: Rng::with_seed(seed),
        broken,
    };
    recording.open_files(0)?;
    for _ in 0..recording.rng.usize(40..160) {
        recording.step()?;
    }
    if recording.rng.bool() {
        recording.close()?;
    }
    Ok(recording.history)
}

fn open(settings: &Settings, dir: &Path) -> anyhow::Result<Redex> {
    let backend = if settings.plain_calls { Backend::Posix } else { Backend::Uring };
    settings.open(dir, backend).context("the store does not open")
}

impl Recording<'_> {
    /// Opens every channel of a store that was just opened, and checks that it holds what it must after a cut there.
    fn open_files(&mut self, cut: Position) -> anyhow::Result<()> {
        check::check(&self.store, &self.history, cut)?;
        self.files.clear();
        self.noted.clear();
        for channel in &self.history.channels {
            let file = check::open(&self.store, channel)?;
            self.noted.push((file.durable(), file.head_seq()));
            self.files.push(file);
        }
        Ok(())
    }

    fn step(&mut self) -> anyhow::Result<()> {
        self.position = self.drive.position()?;
        let number = self.rng.usize(0..self.files.len());
        match self.rng.u8(0..100) {
            0..=29 => self.append(number, false)?,
            30..=49 => self.append(number, true)?,
            50..=61 => self.append_batch(number)?,
            62..=69 => self.append_group()?,
            70..=77 => self.files[number].sync().wait().context("sync fails")?,
            78..=82 => self.burst()?,
            83..=87 => self.trim(number)?,
            88..=90 => self.cut_off(number)?,
            91 => self.reset(number)?,
            92 => self.delete(number)?,
            93 => self.sweep(number)?,
            94 => self.close_and_open()?,
            _ => sleep(Duration::from_micros(self.rng.u64(0..4000))),
        }
        self.note()
    }

    /// Takes down what is acknowledged by now.
    fn note(&mut self) -> anyhow::Result<()> {
        let published = self.broken == Some(Break::AckBeforeFlush);
        let marks = |file: &RedexFile| (if published { file.published() } else { file.durable() }, file.head_seq());
        let marks: Vec<(u64, u64)> = self.files.iter().map(marks).collect();
        if marks == self.noted {
            return Ok(());
        }
        self.position = self.drive.position()?;
        self.history.acknowledgements.push(self.position);
        for ((channel, mark), noted) in self.history.channels.iter_mut().zip(marks).zip(&mut self.noted) {
            let version = channel.now_mut();
            if mark.0 > noted.0 {
                version.durable.push((mark.0, self.position));
            }
            if mark.1 > noted.1 {
                version.heads.push((mark.1, self.position));
            }
            *noted = mark;
        }
        Ok(())
    }

    fn event(&mut self) -> Event {
        let len = match self.rng.u8(0..20) {
            0..=3 => self.rng.usize(0..=8),
            4..=14 => self.rng.usize(9..400),
            15..=18 => self.rng.usize(400..6000),
            _ => self.rng.usize(6000..PAYLOAD_SIZE_MAX),
        };
        Event { seed: self.rng.u64(..), len, begun: self.position, continues: false }
    }

    fn appended(&mut self, number: usize, event: Event, seq: u64) -> anyhow::Result<()> {
        let channel = &mut self.history.channels[number];
        if seq != channel.next() {
            bail!("{}: an append got sequence {seq}, not {}", channel.name, channel.next());
        }
        channel.now_mut().events.push(event);
        Ok(())
    }

    fn append(&mut self, number: usize, durable: bool) -> anyhow::Result<()> {
        let event = self.event();
        let file = &self.files[number];
        let append = if durable { file.append_durable(event.payload()) } else { file.append(event.payload()) };
        let seq = append.wait().context("append fails")?;
        if durable && file.durable() <= seq {
            bail!("append_durable of {seq} resolved, durable is {}", file.durable());
        }
        self.appended(number, event, seq)
    }

    /// Many appends that nobody waits for, then one flush: a large commit.
    fn burst(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.rng.usize(4..20) {
            let number = self.rng.usize(0..self.files.len());
            self.append(number, false)?;
        }
        let number = self.rng.usize(0..self.files.len());
        self.files[number].sync().wait().context("sync fails")
    }

    /// Events of a batch: no crash may part them.
    fn batch(&mut self, count: usize) -> Vec<Event> {
        let mut events: Vec<Event> = (0..count).map(|_| self.event()).collect();
        let size_max = BATCH_SIZE_MAX / count;
        events.iter_mut().for_each(|event| event.len = event.len.min(size_max));
        events
    }

    fn append_batch(&mut self, number: usize) -> anyhow::Result<()> {
        let count = pick(&mut self.rng, &[1, 2, 3, 8, 40]);
        let mut events = self.batch(count);
        events[..count - 1].iter_mut().for_each(|event| event.continues = true);
        let payloads: Vec<Vec<u8>> = events.iter().map(Event::payload).collect();
        let file = &self.files[number];
        let durable = self.rng.bool();
        let append = if durable { file.append_batch_durable(&payloads) } else { file.append_batch(&payloads) };
        let seqs = append.wait().context("append_batch fails")?;
        seqs.zip(events).try_for_each(|(seq, event)| self.appended(number, event, seq))
    }

    /// A batch over the channels of a group, which lie on one shard.
    fn append_group(&mut self) -> anyhow::Result<()> {
        let affinity = pick(&mut self.rng, &["group/0", "group/1"]);
        let channels = self.history.channels.iter().enumerate();
        let members: Vec<usize> =
            channels.filter(|(_, channel)| channel.affinity == affinity).map(|(number, _)| number).collect();
        if members.is_empty() {
            return Ok(());
        }
        let events = self.batch(2 * members.len());
        let mut batch = self.store.batch();
        for (nth, event) in events.iter().enumerate() {
            batch.append(&self.files[members[nth % members.len()]], event.payload());
        }
        let seqs = batch.commit().wait().context("a batch's commit fails")?;
        for (nth, (mut event, seq)) in events.into_iter().zip(seqs).enumerate() {
            event.continues = nth < members.len();
            self.appended(members[nth % members.len()], event, seq)?;
        }
        let end = |number: usize| {
            let channel = &self.history.channels[number];
            (number, channel.versions.len() - 1, channel.next())
        };
        let group = Group { members: members.into_iter().map(end).collect() };
        self.history.groups.push(group);
        Ok(())
    }

    fn trim(&mut self, number: usize) -> anyhow::Result<()> {
        let (file, begun) = (self.files[number].clone(), self.position);
        let head = self.rng.u64(file.head_seq()..=file.next_seq());
        file.trim_head(head).wait().context("trim_head fails")?;
        let acknowledged = Some(self.drive.position()?);
        self.history.channels[number].now_mut().trims.push((head, Change { begun, acknowledged }));
        Ok(())
    }

    fn sweep(&mut self, number: usize) -> anyhow::Result<()> {
        // Where it may move the head to is known from the limits.
        self.files[number].sweep_retention().wait().context("sweep_retention fails")?;
        Ok(())
    }

    fn cut_off(&mut self, number: usize) -> anyhow::Result<()> {
        self.note()?;
        let file = self.files[number].clone();
        let (head, next) = (file.head_seq(), file.next_seq());
        let end = self.rng.u64(head.max(next.saturating_sub(30))..=next);
        if end == next {
            // Nothing to cut: no change is made.
            return Ok(());
        }
        let begun = self.position;
        match file.truncate_suffix(end).wait() {
            // A limit has moved the head there since it was looked at: nothing is cut.
            Err(ChangeError::OutOfRange { .. }) if end < file.head_seq() => return Ok(()),
            result => result.context("truncate_suffix fails")?,
        };
        self.changed(number, end, head, begun)
    }

    fn reset(&mut self, number: usize) -> anyhow::Result<()> {
        self.note()?;
        let begun = self.position;
        self.store.reset_channel(self.files[number].name().as_str()).wait().context("reset_channel fails")?;
        self.changed(number, 0, 0, begun)
    }

    fn delete(&mut self, number: usize) -> anyhow::Result<()> {
        self.note()?;
        let begun = self.position;
        self.store.delete_channel(self.files[number].name().as_str()).wait().context("delete_channel fails")?;
        self.files[number] = check::open(&self.store, &self.history.channels[number])?;
        self.changed(number, 0, 0, begun)
    }

    /// A change that took events away is acknowledged.
    fn changed(&mut self, number: usize, end: u64, head: u64, begun: Position) -> anyhow::Result<()> {
        self.position = self.drive.position()?;
        let (channel, file) = (&mut self.history.channels[number], &self.files[number]);
        channel.cut_off(end, head, begun);
        channel.now_mut().change.acknowledged = Some(self.position);
        self.noted[number] = (file.durable(), file.head_seq());
        channel.now_mut().heads.push((file.head_seq(), self.position));
        Ok(())
    }

    /// Closes the store: everything is durable then.
    fn close(&mut self) -> anyhow::Result<()> {
        self.store.close().wait().context("close fails")?;
        let position = self.drive.position()?;
        for channel in &mut self.history.channels {
            let next = channel.next();
            channel.now_mut().durable.push((next, position));
        }
        self.history.acknowledgements.push(position);
        Ok(())
    }

    fn close_and_open(&mut self) -> anyhow::Result<()> {
        self.close()?;
        self.files.clear();
        self.store = Redex::in_memory();
        self.store = open(&self.settings, &self.dir)?;
        self.open_files(Position::MAX)
    }
}
