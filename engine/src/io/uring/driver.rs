//! Operations from submit to completion.
//!
//! An operation is a flight in the slab. Each of its steps is one entry in the ring: a write, the rest of a short write,
//! the flush after a write where durable writes are done so. Between the steps the driver pushes the next by
//! itself; the caller sees one completion.
//!
//! A durable write that has no other beside it may go around the ring ([`Driver::write_lone_by_blocking`]).
//!
//! The slab owns what the kernel uses. So `Drop` waits for the ring to end, and if it cannot, leaks the slab.

#![allow(unsafe_code)] // Entries name memory that the slab must keep.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::bell::{BELL_KEY, Bell};
use super::buffers::BufferTable;
use super::files::{FileTable, Target};
use super::flights::{Flight, Flights, Step};
use super::ring::{Completed, OUTSTANDING_MAX, Ring, Tables};
use crate::io::posix::{PosixDisk, assert_aligned, write_durable};
use crate::io::probe::DurableWrite;
use crate::io::{Completion, Doorbell, Driver, Durability, IoBuf, Operation, RingFacts};

/// The most that one entry writes, bytes; the rest follows as after a short write.
const WRITE_SIZE_MAX: usize = 1 << 30;

/// A queue on a ring of its own.
pub(super) struct UringDriver {
    flights: ManuallyDrop<Flights>,
    /// Flights whose next entry found no room in the ring.
    pending: VecDeque<u32>,
    done: Vec<Completion>,
    /// A durable write that is not in the ring: a blocking call makes it when the driver is kicked, unless another comes before.
    lone: Option<u32>,
    /// Durable writes and flushes that are not finished, the lone one among them.
    durable_count: usize,
    /// Whether there may be a lone one.
    blocks: bool,
    /// Entries pushed whose completion was not popped, the bell's among them.
    outstanding: u32,
    durable_write: DurableWrite,
    files: FileTable,
    buffers: BufferTable,
    /// Whether the ring had a table of buffers to begin with.
    buffers_at_hand: bool,
    bell: Bell,
    ring: Ring,
}

impl UringDriver {
    pub(super) fn new(disk: &PosixDisk) -> io::Result<Self> {
        let mut ring = Ring::new()?;
        let files = FileTable::new(&ring, disk.closed_files());
        let lock = disk.locked_file();
        if let Some(lock) = &lock {
            files.hold_lock(&ring, lock)?;
        }
        let buffers = BufferTable::new(&ring);
        ring.enable(Tables { files: files.is_there() || lock.is_some(), buffers: buffers.is_there() })?;
        Ok(Self {
            flights: ManuallyDrop::default(),
            pending: VecDeque::new(),
            done: Vec::new(),
            lone: None,
            durable_count: 0,
            blocks: false,
            outstanding: 0,
            durable_write: disk.durable_write(),
            files,
            buffers_at_hand: buffers.is_there(),
            buffers,
            bell: Bell::new()?,
            ring,
        })
    }

    /// Pushes pending entries for as long as there is room.
    fn pump(&mut self) {
        while let Some(&key) = self.pending.front() {
            if !self.push(key) {
                return;
            }
            self.pending.pop_front();
        }
    }

    /// Pushes a flight's next entry, or lines it up.
    fn push_or_line_up(&mut self, key: u32) {
        if !self.pending.is_empty() || !self.push(key) {
            self.pending.push_back(key);
        }
    }

    fn push(&mut self, key: u32) -> bool {
        if self.outstanding >= OUTSTANDING_MAX {
            return false;
        }
        let entry = match self.entry(key) {
            Ok(entry) => entry,
            Err(error) => {
                self.finish(key, Err(error));
                return true;
            }
        };
        // SAFETY: the flight owns the file and the memory that the entry names, and stays in the slab until the
        // completion is popped; `Drop` waits for that, or leaks the slab.
        let pushed = unsafe { self.ring.push(&entry) };
        self.outstanding += u32::from(pushed);
        pushed
    }

    fn entry(&mut self, key: u32) -> io::Result<Entry> {
        let flight = self.flights.get_mut(key);
        let (target, open) = self.files.target(&self.ring, &flight.file)?;
        flight.open = open;
        let entry = match &mut flight.step {
            Step::Flush { .. } => opcode::Fsync::new(target.fd()).flags(types::FsyncFlags::DATASYNC).build(),
            Step::Write { buf, offset, written, durability } => {
                let place = match buf {
                    IoBuf::Owned { buf, .. } => self.buffers.place(&self.ring, buf),
                    IoBuf::Stable(_) => None,
                };
                let dsync = *durability == Durability::Durable && self.durable_write == DurableWrite::Dsync;
                write_entry(target, &buf.as_slice()[*written..], *offset + *written as u64, place, dsync)
            }
        };
        Ok(entry.flags(target.flags()).user_data(key.into()))
    }

    /// Takes in all completions at hand, and hands over the steps that follow from them.
    fn collect(&mut self) -> io::Result<()> {
        self.ring.fetch()?;
        while let Some(completed) = self.ring.pop() {
            self.complete(completed);
        }
        self.pump();
        self.ring.submit()
    }

    fn complete(&mut self, Completed { key, result }: Completed) {
        self.outstanding -= 1;
        if key == BELL_KEY {
            self.bell.completed(result);
            return;
        }
        let key = key as u32;
        match advance(&mut self.flights.get_mut(key).step, result, self.durable_write) {
            Some(result) => self.finish(key, result),
            None => self.push_or_line_up(key),
        }
    }

    fn finish(&mut self, key: u32, result: io::Result<()>) {
        let Flight { token, step, durable, .. } = self.flights.remove(key);
        self.durable_count -= usize::from(durable);
        let buf = match step {
            Step::Write { buf, .. } | Step::Flush { buf: Some(buf) } => Some(buf),
            Step::Flush { buf: None } => None,
        };
        let buf = match buf {
            Some(IoBuf::Owned { buf, .. }) => Some(buf),
            _ => None,
        };
        self.done.push(Completion { token, result, buf });
    }

    /// Makes the durable write that has none beside it. So the thread itself issues the flush. In the ring a kernel worker does,
    /// bound to the core on which the write's completion arrived: it waits there for whoever spins on that core.
    fn write_lone(&mut self) {
        let Some(key) = self.lone.take() else { return };
        let Flight { file, step, .. } = self.flights.get_mut(key);
        let Step::Write { buf, offset, .. } = step else { unreachable!("a flush is never alone") };
        let written = write_durable(self.durable_write, &**file, buf.as_slice(), *offset);
        self.finish(key, written);
    }

    /// Lets go of closed files and dropped buffers.
    fn sweep(&mut self) {
        self.files.sweep(&self.ring);
        self.buffers.sweep(&self.ring);
    }

    /// Waits until the kernel has nothing of this driver's.
    fn end(&mut self) -> io::Result<()> {
        self.write_lone();
        self.pump();
        while self.flights.len() > 0 {
            self.ring.wait(None)?;
            self.collect()?;
        }
        if self.bell.is_armed() {
            self.bell.ring();
        }
        while self.bell.is_armed() {
            self.ring.wait(None)?;
            self.collect()?;
        }
        Ok(())
    }
}

/// Builds the entry of a write of `bytes`.
fn write_entry(target: Target, bytes: &[u8], offset: u64, place: Option<u16>, dsync: bool) -> Entry {
    let len = bytes.len().min(WRITE_SIZE_MAX) as u32;
    let rw_flags = if dsync { libc::RWF_DSYNC } else { 0 };
    match place {
        Some(place) => {
            opcode::WriteFixed::new(target.fd(), bytes.as_ptr(), len, place).offset(offset).rw_flags(rw_flags).build()
        }
        None => opcode::Write::new(target.fd(), bytes.as_ptr(), len).offset(offset).rw_flags(rw_flags).build(),
    }
}

/// Moves an operation on by the result of its step: to the next step, or to its end.
fn advance(step: &mut Step, result: i32, durable_write: DurableWrite) -> Option<io::Result<()>> {
    let Step::Write { buf, written, durability, .. } = step else {
        // A flush that failed is never tried again, not even an interrupted one (design D8).
        return Some(if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) });
    };
    match result {
        // Writing the same bytes to the same place again is safe.
        r if r == -libc::EINTR || r == -libc::EAGAIN => return None,
        r if r < 0 => return Some(Err(io::Error::from_raw_os_error(-r))),
        0 if !buf.as_slice().is_empty() => return Some(Err(io::ErrorKind::WriteZero.into())),
        r => *written += r.unsigned_abs() as usize,
    }
    if *written < buf.as_slice().len() {
        return None;
    }
    if *durability == Durability::Written || durable_write == DurableWrite::Dsync {
        return Some(Ok(()));
    }
    take_over(step);
    None
}

/// Turns a finished write into the flush that makes it durable, with its buffer.
fn take_over(step: &mut Step) {
    let Step::Write { buf, .. } = mem::replace(step, Step::Flush { buf: None }) else {
        return;
    };
    *step = Step::Flush { buf: Some(buf) };
}

impl Driver for UringDriver {
    fn submit(&mut self, token: u64, operation: Operation) {
        let (file, durable, step) = match operation {
            Operation::Write { file, offset, buf, durability } => {
                assert_aligned(buf.as_slice(), offset);
                (file, durability == Durability::Durable, Step::Write { buf, offset, written: 0, durability })
            }
            Operation::Flush { file } => (file, true, Step::Flush { buf: None }),
        };
        let is_lone = self.blocks && durable && self.durable_count == 0 && matches!(step, Step::Write { .. });
        self.durable_count += usize::from(durable);
        let key = self.flights.insert(Flight { token, file, open: None, step, durable });
        if is_lone {
            self.lone = Some(key);
            return;
        }
        if durable && let Some(before) = self.lone.take() {
            self.push_or_line_up(before);
        }
        self.push_or_line_up(key);
    }

    fn kick(&mut self) -> io::Result<()> {
        self.ring.submit()?;
        self.write_lone();
        while !self.pending.is_empty() && self.outstanding < OUTSTANDING_MAX {
            self.pump();
            self.ring.submit()?;
        }
        Ok(())
    }

    fn reap(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        if self.outstanding > 0 {
            self.collect()?;
        }
        out.append(&mut self.done);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.sweep();
        self.write_lone();
        self.collect()?;
        if self.bell.take_rung() || !self.done.is_empty() {
            return Ok(());
        }
        self.outstanding += u32::from(self.bell.arm(&mut self.ring));
        self.ring.wait(timeout)?;
        self.collect()?;
        self.bell.take_rung();
        Ok(())
    }

    fn write_lone_by_blocking(&mut self, yes: bool) {
        self.blocks = yes;
    }

    fn in_flight(&self) -> usize {
        self.flights.len() + self.done.len()
    }

    fn doorbell(&self) -> Arc<Doorbell> {
        self.bell.doorbell()
    }

    fn ring(&self) -> RingFacts {
        RingFacts {
            registered_files: self.files.is_there(),
            registered_buffers: self.buffers_at_hand,
            ..self.ring.facts()
        }
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        match self.end() {
            Ok(()) => {
                self.files.clear(&self.ring);
                // SAFETY: taken once, here; the kernel has no entry that names what is in it.
                drop(unsafe { ManuallyDrop::take(&mut self.flights) });
            }
            Err(error) => {
                tracing::error!(%error, in_flight = self.flights.len(), "ring cannot be ended, its memory is leaked");
            }
        }
    }
}

impl fmt::Debug for UringDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDriver")
            .field("in_flight", &self.flights.len())
            .field("pending", &self.pending.len())
            .field("outstanding", &self.outstanding)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{AlignedBuf, BLOCK_SIZE};

    fn write(durability: Durability) -> Step {
        let buf = IoBuf::Owned { buf: AlignedBuf::new(2 * BLOCK_SIZE), len: 2 * BLOCK_SIZE };
        Step::Write { buf, offset: 0, written: 0, durability }
    }

    fn written(step: &Step) -> Option<usize> {
        match step {
            Step::Write { written, .. } => Some(*written),
            Step::Flush { .. } => None,
        }
    }

    /// A short write goes on with the rest; an interrupted one goes on from where it was.
    #[test]
    fn short_writes_go_on() {
        let mut step = write(Durability::Durable);
        assert!(advance(&mut step, -libc::EINTR, DurableWrite::Dsync).is_none());
        assert!(advance(&mut step, 4096, DurableWrite::Dsync).is_none());
        assert!(advance(&mut step, -libc::EAGAIN, DurableWrite::Dsync).is_none());
        assert_eq!(written(&step), Some(4096));
        assert!(advance(&mut step, 4096, DurableWrite::Dsync).unwrap().is_ok());
    }

    /// In write+fdatasync mode a durable write, and no other, is followed by a flush that keeps its buffer.
    #[test]
    fn a_durable_write_is_followed_by_a_flush() {
        let mut step = write(Durability::Written);
        assert!(advance(&mut step, 8192, DurableWrite::WriteThenFlush).unwrap().is_ok());
        let mut step = write(Durability::Durable);
        assert!(advance(&mut step, 8192, DurableWrite::WriteThenFlush).is_none());
        assert!(matches!(step, Step::Flush { buf: Some(_) }));
        assert!(advance(&mut step, 0, DurableWrite::WriteThenFlush).unwrap().is_ok());
    }

    /// Errors end an operation with the kernel's cause: a full disk, a write of nothing, any failed flush.
    #[test]
    fn errors_keep_their_cause() {
        let end = |step: &mut Step, result| advance(step, result, DurableWrite::WriteThenFlush).unwrap().unwrap_err();
        assert_eq!(end(&mut write(Durability::Durable), -libc::ENOSPC).kind(), io::ErrorKind::StorageFull);
        assert_eq!(end(&mut write(Durability::Durable), 0).kind(), io::ErrorKind::WriteZero);
        for code in [libc::EINTR, libc::EAGAIN, libc::EIO] {
            assert_eq!(end(&mut Step::Flush { buf: None }, -code).raw_os_error(), Some(code));
        }
    }
}
