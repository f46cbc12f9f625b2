//! The disk behind the handles: files, names, operations in flight, power.
//!
//! Here is what all of them share, and what a test does from outside; `tree` changes names, `files` bytes, and `cut`
//! takes the power away.

mod cut;
mod files;
mod tree;

use crate::io::sim::chance::{Chance, mix};
use crate::io::sim::content::Content;
use crate::io::sim::names::{Names, os_error};
use crate::io::sim::options::{FaultKind, SimOptions, power_off};
use crate::io::sim::steps::{Action, StepKind};
use crate::io::{BLOCK_SIZE, OpenMode};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A file, named or not.
#[derive(Clone, Debug)]
pub(in crate::io::sim) struct Inode {
    pub(in crate::io::sim) content: Content,
    /// The last name it was given.
    path: String,
    /// Live names.
    links: u32,
    /// Open handles.
    open: u32,
    /// Sectors that cannot be read until they are written again.
    latent: BTreeSet<usize>,
}

/// What an open file refers to. Gone after a power cut.
#[derive(Clone, Copy, Debug)]
struct Handle {
    inode: u64,
    mode: OpenMode,
}

/// What goes wrong with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io::sim) enum WriteFault {
    Error,
    NoSpace,
    Lost,
    /// Lands at this offset.
    Misdirected(usize),
}

/// An operation that has not ended.
#[derive(Clone, Debug)]
pub(in crate::io::sim) struct Flight {
    /// The driver that will reap it; none for a blocking call that the power left.
    pub(in crate::io::sim) driver: Option<u64>,
    inode: u64,
    kind: StepKind,
    label: Option<&'static str>,
    /// Reaps that it sits out.
    pub(in crate::io::sim) delay: u64,
    pub(in crate::io::sim) work: Work,
}

#[derive(Clone, Debug)]
pub(in crate::io::sim) enum Work {
    Write {
        offset: usize,
        data: Vec<u8>,
        durable: bool,
        fault: Option<WriteFault>,
    },
    /// Covers what was done before this order.
    Flush {
        end_order: u64,
        fails: bool,
    },
}

/// Whether the power goes off at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(in crate::io::sim) enum Power {
    Stays,
    Goes,
}

impl Power {
    /// The answer of a call whose effect is done, for all that the caller knows.
    fn answer(self) -> io::Result<()> {
        match self {
            Self::Stays => Ok(()),
            Self::Goes => Err(power_off()),
        }
    }
}

/// The whole disk.
#[derive(Clone, Debug)]
pub(in crate::io::sim) struct State {
    pub(in crate::io::sim) options: SimOptions,
    pub(in crate::io::sim) chance: Chance,
    pub(in crate::io::sim) names: Names,
    inodes: BTreeMap<u64, Inode>,
    handles: BTreeMap<u64, Handle>,
    pub(in crate::io::sim) flights: BTreeMap<u64, Flight>,
    pub(in crate::io::sim) one_shots: Vec<(FaultKind, u64)>,
    next_id: u64,
    order: u64,
    /// Power cuts so far.
    pub(in crate::io::sim) boot: u64,
    pub(in crate::io::sim) is_off: bool,
    pub(in crate::io::sim) off_at: Option<u64>,
    pub(in crate::io::sim) off_kind: Option<(StepKind, u64)>,
    pub(in crate::io::sim) steps: u64,
    pub(in crate::io::sim) last_step: Option<(StepKind, Option<&'static str>)>,
    pub(in crate::io::sim) phase: Option<&'static str>,
    pub(in crate::io::sim) trace: u64,
}

impl State {
    pub(in crate::io::sim) fn new(seed: u64, options: SimOptions) -> Self {
        assert!(options.sector_size == 512 || options.sector_size == BLOCK_SIZE, "sector size {}", options.sector_size);
        Self {
            options,
            chance: Chance::new(seed),
            names: Names::new(),
            inodes: BTreeMap::new(),
            handles: BTreeMap::new(),
            flights: BTreeMap::new(),
            one_shots: Vec::new(),
            next_id: 1,
            order: 0,
            boot: 0,
            is_off: false,
            off_at: None,
            off_kind: None,
            steps: 0,
            last_step: None,
            phase: None,
            trace: mix(seed),
        }
    }

    /// A number never given before, for whatever needs one.
    pub(in crate::io::sim) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    // --- Steps, trace and chance ---

    pub(in crate::io::sim) fn check_power(&self) -> io::Result<()> {
        if self.is_off { Err(power_off()) } else { Ok(()) }
    }

    /// Counts a step. Called before its effect.
    pub(in crate::io::sim) fn step(&mut self, kind: StepKind, label: Option<&'static str>) -> io::Result<Power> {
        self.check_power()?;
        self.steps += 1;
        let kind = label.and_then(StepKind::from_label).unwrap_or(kind);
        self.last_step = Some((kind, label));
        if let Some((_, left)) = self.off_kind.as_mut().filter(|(wanted, _)| *wanted == kind) {
            *left -= 1;
        }
        let is_due = self.off_kind.is_some_and(|(_, left)| left == 0);
        if is_due || self.off_at.is_some_and(|at| self.steps >= at) {
            self.is_off = true;
            return Ok(Power::Goes);
        }
        Ok(Power::Stays)
    }

    fn step_at(&mut self, path: &str, action: Action<'_>) -> io::Result<Power> {
        self.step(StepKind::of(path, action), self.phase)
    }

    /// Adds an operation to the trace.
    pub(in crate::io::sim) fn record(&mut self, what: &str, words: &[u64], ok: bool) {
        let what = u64::from(crc32c::crc32c(what.as_bytes()));
        for word in [what, u64::from(ok)].iter().chain(words) {
            self.trace = mix(self.trace.rotate_left(5) ^ word);
        }
    }

    /// Whether a fault ordered for this operation is due now.
    fn one_shot(&mut self, kind: FaultKind) -> bool {
        let mut due = false;
        self.one_shots.retain_mut(|(of, left)| {
            if *of == kind {
                *left -= 1;
                due |= *left == 0;
            }
            *left > 0
        });
        due
    }

    pub(in crate::io::sim) fn order_fault(&mut self, kind: FaultKind, nth: u64) {
        assert!(nth > 0, "the next operation is the first");
        self.one_shots.push((kind, nth));
    }

    fn fails(&mut self, kind: FaultKind, p: f64) -> io::Result<()> {
        let (ordered, drawn) = (self.one_shot(kind), self.chance.happens(p));
        if ordered || drawn { Err(os_error(libc::EIO)) } else { Ok(()) }
    }

    // --- Space ---

    pub(in crate::io::sim) fn space_used(&self) -> u64 {
        let held = |inode: &&Inode| inode.links > 0 || inode.open > 0;
        let files = self.inodes.values().filter(held).map(|inode| BLOCK_SIZE + in_blocks(inode.content.live().len()));
        (files.sum::<usize>() + (self.names.dir_count() - 1) * BLOCK_SIZE) as u64
    }

    fn check_space(&self, more: usize) -> io::Result<()> {
        match self.options.space {
            Some(space) if more > 0 && self.space_used() + more as u64 > space => Err(os_error(libc::ENOSPC)),
            _ => Ok(()),
        }
    }

    /// Checks that a file may grow to `size`.
    fn check_growth(&self, inode: u64, size: usize) -> io::Result<()> {
        let old = in_blocks(self.inodes[&inode].content.live().len());
        self.check_space(in_blocks(size).saturating_sub(old))
    }

    pub(in crate::io::sim) fn inode(&mut self, id: u64) -> &mut Inode {
        self.inodes.get_mut(&id).expect("a name or handle keeps its file")
    }

    // --- From outside ---

    /// Whether a power cut could take something back.
    pub(in crate::io::sim) fn has_unflushed(&self) -> bool {
        !self.flights.is_empty()
            || self.names.oldest().is_some()
            || self.inodes.values().any(|inode| !inode.content.is_durable())
    }

    pub(in crate::io::sim) fn fork(&self, seed: u64) -> Self {
        let mut fork = Self { chance: Chance::new(seed), trace: mix(seed), ..self.clone() };
        fork.kill();
        fork
    }

    pub(in crate::io::sim) fn replace_file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let file = match self.names.find_file(path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let file = self.new_inode(path);
                self.names.add_durable_file(path, file)?;
                file
            }
            Err(err) => return Err(err),
        };
        self.record("replace", &[hash(path), u64::from(crc32c::crc32c(bytes))], true);
        let inode = self.inode(file);
        inode.latent.clear();
        inode.content.replace(bytes.to_vec());
        Ok(())
    }

    pub(in crate::io::sim) fn live(&self, path: &str) -> Option<&[u8]> {
        let file = self.names.find_file(path).ok()?;
        Some(self.inodes[&file].content.live())
    }

    pub(in crate::io::sim) fn add_latent(&mut self, path: &str, sector: usize) -> io::Result<()> {
        let file = self.names.find_file(path)?;
        self.inode(file).latent.insert(sector);
        self.record("latent", &[file, sector as u64], true);
        Ok(())
    }

    pub(in crate::io::sim) fn flip_bit(&mut self, path: &str, offset: usize, bit: u8) -> io::Result<bool> {
        let file = self.names.find_file(path)?;
        self.record("flip", &[file, offset as u64, u64::from(bit)], true);
        Ok(self.inode(file).content.flip_bit(offset, bit))
    }
}

fn in_blocks(size: usize) -> usize {
    size.next_multiple_of(BLOCK_SIZE)
}

fn hash(path: &str) -> u64 {
    u64::from(crc32c::crc32c(path.as_bytes()))
}
