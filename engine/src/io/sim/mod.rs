//! A deterministic disk that forgets: the third backend, for tests.
//!
//! At a [`SimDisk::power_cut`] any subset of the sectors that were not durable survives, and any subset of the names;
//! between cuts, operations end in any order and fail as asked for by [`SimOptions`]. It promises what
//! [`crate::io`] promises and nothing more, so an engine that works on it relies on nothing more: a flush covers what
//! ended before it was submitted; a durable write covers its own range; a file's name needs a sync of its directory,
//! and so does the name of that directory in the one above.
//!
//! The same seed and the same calls give the same results ([`SimDisk::trace_hash`] proves it). It is meant for one
//! thread: calls from several would race for the next random number.
//!
//! What it leaves to others: what real file systems do within the freedom that they have (journal order, unwritten
//! extents, delayed allocation); caches between the kernel and the medium, since reads see all that has ended.

mod chance;
mod content;
mod driver;
mod label;
mod names;
mod options;
mod state;
mod steps;
#[cfg(test)]
mod tests;

pub use label::StepLabel;
pub(crate) use options::power_off;
pub use options::{FaultKind, SimOptions, is_power_off};
pub use steps::StepKind;

use super::{DirEntry, Disk, Driver, File, FileHandle, IoFacts, OpenMode};
use crate::io::BLOCK_SIZE;
use driver::SimDriver;
use names::Node;
use state::State;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk, all of whose choices come from `seed`.
    ///
    /// # Panics
    /// If the sector size is neither 512 nor 4096.
    #[must_use]
    pub fn new(seed: u64, options: SimOptions) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(seed, options))) }
    }

    /// Another disk that holds the same, durable or not, and whose choices come from `seed`. Files that are open on this
    /// one are not open there.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(self.lock().fork(seed))) }
    }

    /// Cuts the power and gives it back: of what was not durable, including what is in flight, a random part stays,
    /// and is durable now. Every open file and driver is dead: its calls fail with an error that [`is_power_off`]
    /// knows. The phase and the count of [`SimDisk::power_off_after`] are reset.
    pub fn power_cut(&self) {
        self.lock().power_cut();
    }

    /// Lets the process die, also one that has lost its power at some step: what it had submitted lands, nothing is lost,
    /// and nothing becomes durable by it. Every open file and driver is dead, as after [`SimDisk::power_cut`].
    pub fn kill(&self) {
        self.lock().kill();
    }

    /// Switches the power off at the `steps`th step from now (0: at once, `None`: never). That call and all later
    /// ones fail with an error that [`is_power_off`] knows, until [`SimDisk::power_cut`]. The effect of the step at
    /// which it happens may survive or not.
    pub fn power_off_after(&self, steps: Option<u64>) {
        let mut state = self.lock();
        state.is_off |= steps == Some(0);
        state.off_at = steps.map(|steps| state.steps + steps);
        state.off_kind = None;
    }

    /// Switches the power off at the `nth` step of this kind from now (1: the next); otherwise as
    /// [`SimDisk::power_off_after`], which takes it back.
    ///
    /// # Panics
    /// If `nth` is 0.
    pub fn power_off_at(&self, kind: StepKind, nth: u64) {
        assert!(nth > 0, "the next step is the first");
        self.lock().off_kind = Some((kind, nth));
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// Whether a power cut could take something back: a write or a change of names that is not durable, or in flight.
    #[must_use]
    pub fn has_unflushed(&self) -> bool {
        self.lock().has_unflushed()
    }

    /// Steps so far: every call that changes something, every submission and every completion. Opening a file that
    /// exists and reading are none.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Counts a step of something else that depends on the same power, before its effect; says whether the power stays on. Fails
    /// if it is off.
    pub(crate) fn outside_step(&self, kind: StepKind) -> io::Result<bool> {
        let mut state = self.lock();
        let power = state.step(kind, None)?;
        state.record(kind.name(), &[], true);
        Ok(power == state::Power::Stays)
    }

    /// Fails if the power is off.
    pub(crate) fn check_power(&self) -> io::Result<()> {
        self.lock().check_power()
    }

    /// What the last step did, and the phase in which it was begun; after the power went off, the step at which it
    /// did.
    #[must_use]
    pub fn last_step(&self) -> Option<(StepKind, Option<&'static str>)> {
        self.lock().last_step
    }

    /// Says what the engine is doing. A phase that is the name of a [`StepKind`] stands above what the disk can tell.
    pub fn set_phase(&self, phase: Option<&'static str>) {
        self.lock().phase = phase;
    }

    /// Hash over every operation so far, its content and its outcome.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.lock().trace
    }

    /// How the disk behaves.
    #[must_use]
    pub fn options(&self) -> SimOptions {
        self.lock().options.clone()
    }

    /// Changes how the disk behaves from now on.
    ///
    /// # Panics
    /// If the sector size would change.
    pub fn set_options(&self, options: SimOptions) {
        let mut state = self.lock();
        assert_eq!(options.sector_size, state.options.sector_size, "the sector size is fixed");
        state.options = options;
    }

    /// Changes the space of the disk, bytes; `None` for no limit. It may be less than what is used.
    pub fn set_space(&self, space: Option<u64>) {
        self.lock().options.space = space;
    }

    /// Makes the `nth` operation of that kind from now (1: the next) fail with EIO, or as the kind says, once.
    ///
    /// # Panics
    /// If `nth` is 0.
    pub fn one_shot_fault(&self, kind: FaultKind, nth: u64) {
        self.lock().order_fault(kind, nth);
    }

    /// Takes back the faults that were ordered and are not due yet.
    pub fn forget_faults(&self) {
        self.lock().one_shots.clear();
    }

    /// Makes a sector of a file unreadable until it is written again. Sectors count from 0. Fails if there is no such
    /// file.
    pub fn add_latent_sector(&self, path: &str, sector: u64) -> io::Result<()> {
        self.lock().add_latent(path, sector as usize)
    }

    /// Flips a bit (0 to 7) of a byte, whatever version of it survives; false if the file does not reach that far.
    /// Fails if there is no such file.
    ///
    /// # Panics
    /// If `bit` is above 7.
    pub fn flip_bit(&self, path: &str, byte_offset: u64, bit: u8) -> io::Result<bool> {
        assert!(bit < 8, "bit {bit} of a byte");
        self.lock().flip_bit(path, byte_offset as usize, bit)
    }

    /// What a file holds, as a read would see it; `None` if there is none.
    #[must_use]
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().live(path).map(<[u8]>::to_vec)
    }

    /// Puts a file in place, durably, with the directories that it lies in; no step, no fault. Fails if the path is
    /// no path for a file.
    pub fn write_file(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.lock().replace_file(path, bytes)
    }

    /// Takes a file away, durably; no fault. Fails if there is none.
    pub fn remove_file(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.unlink(path)?;
        state.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))
    }

    /// Paths of all files, sorted.
    #[must_use]
    pub fn list_all(&self) -> Vec<String> {
        self.lock().names.files()
    }

    /// Space that files and directories take, as [`SimOptions::space`] counts it, bytes.
    #[must_use]
    pub fn space_used(&self) -> u64 {
        self.lock().space_used()
    }

    /// The state. A test that panicked within a call leaves it whole enough to look at.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("SimDisk").field("steps", &state.steps).field("power_cuts", &state.boot).finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let handle = self.lock().open(path, mode)?;
        Ok(Arc::new(SimFile { disk: self.clone(), handle, path: path.to_owned() }))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.lock().create_dir(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let state = self.lock();
        state.check_power()?;
        let entry =
            |(name, node): (&str, Node)| DirEntry { name: name.to_owned(), is_dir: matches!(node, Node::Dir(_)) };
        Ok(state.names.list(path)?.map(entry).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.lock().rename(from, to)
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        self.lock().unlink(path)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.lock().remove_dir(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.lock().sync_dir(path)
    }

    fn driver(&self) -> io::Result<Box<dyn Driver>> {
        Ok(Box::new(SimDriver::new(self.clone())?))
    }

    fn facts(&self) -> IoFacts {
        IoFacts {
            backend: "sim",
            durable_write: "simulated",
            durable_write_reason: "simulated",
            file_system: "sim".to_owned(),
            device: String::new(),
            write_cache: Some(true),
            fua: Some(true),
            memory_align: BLOCK_SIZE,
            offset_align: BLOCK_SIZE,
            direct: true,
            ..IoFacts::default()
        }
    }
}

/// An open file of a [`SimDisk`].
struct SimFile {
    disk: SimDisk,
    handle: u64,
    path: String,
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.lock().read(self.handle, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.disk.lock().write(self.handle, buf, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.lock().flush(self.handle)
    }

    fn size(&self) -> io::Result<u64> {
        self.disk.lock().size(self.handle)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.disk.lock().set_size(self.handle, size, true)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.disk.lock().set_size(self.handle, size, false)
    }

    fn handle(&self) -> io::Result<FileHandle> {
        Ok(FileHandle::Sim(self.handle))
    }

    fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.lock().close(self.handle);
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("handle", &self.handle).finish_non_exhaustive()
    }
}
