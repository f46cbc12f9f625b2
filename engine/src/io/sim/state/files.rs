//! Bytes: reads, sizes, writes and flushes, and what goes wrong with them.

use super::{Flight, Handle, Power, State, Work, WriteFault};
use crate::io::sim::chance::Style;
use crate::io::sim::label::StepLabel;
use crate::io::sim::names::os_error;
use crate::io::sim::options::{FaultKind, power_off};
use crate::io::sim::steps::{Action, StepKind};
use crate::io::{BLOCK_SIZE, OpenMode};
use std::io;

impl State {
    /// The file of a handle; an error after a power cut.
    fn opened(&self, handle: u64) -> io::Result<u64> {
        self.check_power()?;
        self.handles.get(&handle).map(|handle| handle.inode).ok_or_else(power_off)
    }

    fn opened_for_writing(&self, handle: u64) -> io::Result<u64> {
        let inode = self.opened(handle)?;
        if self.handles[&handle].mode == OpenMode::Read { Err(os_error(libc::EBADF)) } else { Ok(inode) }
    }

    pub(in crate::io::sim) fn close(&mut self, handle: u64) {
        if let Some(Handle { inode, .. }) = self.handles.remove(&handle) {
            self.inode(inode).open -= 1;
            self.collect(inode);
        }
    }

    pub(in crate::io::sim) fn read(&mut self, handle: u64, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let id = self.opened(handle)?;
        let start = check_aligned(buf, offset)?;
        let failed = self.fails(FaultKind::Read, self.options.read_error);
        let inode = &self.inodes[&id];
        let (live, sector) = (inode.content.live(), self.options.sector_size);
        let mut end = (start + buf.len()).min(live.len()).max(start);
        if end > start && self.chance.happens(self.options.short_read) {
            let blocks = (end - start).div_ceil(BLOCK_SIZE) as u64;
            end = start + self.chance.below(blocks) as usize * BLOCK_SIZE;
        }
        let sectors = start / sector..end.div_ceil(sector);
        let failed =
            failed.and_then(|()| match inode.latent.range(sectors.start..sectors.end.max(sectors.start)).next() {
                Some(_) => Err(os_error(libc::EIO)),
                None => Ok(()),
            });
        if failed.is_ok() && end > start {
            buf[..end - start].copy_from_slice(&live[start..end]);
        }
        let words = [id, offset, (end - start) as u64];
        self.record("read", &words, failed.is_ok());
        failed.map(|()| end - start)
    }

    pub(in crate::io::sim) fn size(&self, handle: u64) -> io::Result<u64> {
        let inode = self.opened(handle)?;
        Ok(self.inodes[&inode].content.live().len() as u64)
    }

    pub(in crate::io::sim) fn set_size(&mut self, handle: u64, size: u64, may_cut: bool) -> io::Result<()> {
        let id = self.opened_for_writing(handle)?;
        let old = self.inodes[&id].content.live().len();
        let size = usize::try_from(size).map_err(|_| os_error(libc::EFBIG))?;
        let size = if may_cut { size } else { size.max(old) };
        let action = if size < old { Action::Cut } else { Action::Write };
        let power = self.step(StepKind::of(&self.inodes[&id].path, action), self.phase)?;
        let allowed = self.fails(FaultKind::Resize, 0.0).and_then(|()| self.check_growth(id, size));
        self.record("set size", &[id, size as u64], allowed.is_ok());
        allowed?;
        let order = self.next_order();
        self.inode(id).content.set_size(order, size);
        power.answer()
    }

    pub(in crate::io::sim) fn write(&mut self, handle: u64, buf: &[u8], offset: u64) -> io::Result<()> {
        let (power, mut flight) = self.begin_write(handle, buf, offset, false)?;
        if power == Power::Goes {
            let id = self.new_id();
            self.flights.insert(id, flight);
            return power.answer();
        }
        self.finish(&mut flight)
    }

    pub(in crate::io::sim) fn flush(&mut self, handle: u64) -> io::Result<()> {
        let (power, mut flight) = self.begin_flush(handle)?;
        // Without power nothing is flushed, so each effect may still survive or not.
        power.answer()?;
        self.finish(&mut flight)
    }

    /// Checks a write, draws its fault, and counts its step.
    pub(in crate::io::sim) fn begin_write(
        &mut self,
        handle: u64,
        buf: &[u8],
        offset: u64,
        durable: bool,
    ) -> io::Result<(Power, Flight)> {
        let inode = self.opened_for_writing(handle)?;
        let start = check_aligned(buf, offset)?;
        let fault = self.draw_write_fault(inode, buf.len());
        self.record(
            "write",
            &[inode, offset, buf.len() as u64, u64::from(crc32c::crc32c(buf)), u64::from(durable)],
            true,
        );
        let work = Work::Write { offset: start, data: buf.to_vec(), durable, fault };
        self.begin(inode, Action::Write, work)
    }

    /// Draws the fault of a flush, and counts its step.
    pub(in crate::io::sim) fn begin_flush(&mut self, handle: u64) -> io::Result<(Power, Flight)> {
        let inode = self.opened(handle)?;
        let fails = self.fails(FaultKind::Flush, self.options.flush_error).is_err();
        self.record("flush", &[inode], true);
        self.begin(inode, Action::Flush, Work::Flush { end_order: self.order + 1, fails })
    }

    fn begin(&mut self, inode: u64, action: Action<'_>, work: Work) -> io::Result<(Power, Flight)> {
        let kind = StepKind::of(&self.inodes[&inode].path, action);
        let label = self.phase.or_else(StepLabel::current);
        let power = self.step(kind, label)?;
        Ok((power, Flight { driver: None, inode, kind, label, delay: 0, work }))
    }

    fn draw_write_fault(&mut self, inode: u64, len: usize) -> Option<WriteFault> {
        if self.fails(FaultKind::Write, self.options.write_error).is_err() {
            return Some(WriteFault::Error);
        }
        let is_extent = StepLabel::current() == Some(StepKind::Extent.name());
        if is_extent && self.options.extent_no_space > 0.0 && self.chance.happens(self.options.extent_no_space) {
            return Some(WriteFault::NoSpace);
        }
        if self.one_shot(FaultKind::LostWrite) | self.chance.happens(self.options.lost_write) {
            return Some(WriteFault::Lost);
        }
        if self.one_shot(FaultKind::MisdirectedWrite) | self.chance.happens(self.options.misdirected_write) {
            let room = self.inodes[&inode].content.live().len().saturating_sub(len) / BLOCK_SIZE;
            return Some(WriteFault::Misdirected(self.chance.below(room as u64 + 1) as usize * BLOCK_SIZE));
        }
        None
    }

    /// Counts the step of an asynchronous operation that is about to end.
    pub(in crate::io::sim) fn step_of(&mut self, flight: &Flight) -> io::Result<Power> {
        self.step(flight.kind, flight.label)
    }

    /// Ends an operation: its effect, and its result.
    pub(in crate::io::sim) fn finish(&mut self, flight: &mut Flight) -> io::Result<()> {
        let result = match &mut flight.work {
            Work::Write { offset, data, durable, fault } => {
                self.finish_write(flight.inode, *offset, std::mem::take(data), *durable, *fault)
            }
            Work::Flush { end_order, fails } => self.finish_flush(flight.inode, *end_order, *fails),
        };
        self.record("end", &[flight.inode], result.is_ok());
        result
    }

    pub(super) fn finish_write(
        &mut self,
        id: u64,
        offset: usize,
        mut data: Vec<u8>,
        durable: bool,
        fault: Option<WriteFault>,
    ) -> io::Result<()> {
        let offset = match fault {
            Some(WriteFault::Lost) => return Ok(()),
            Some(WriteFault::Misdirected(elsewhere)) => elsewhere,
            Some(WriteFault::Error | WriteFault::NoSpace) | None => offset,
        };
        let error = match fault {
            Some(WriteFault::Error) => Some(libc::EIO),
            Some(WriteFault::NoSpace) => Some(libc::ENOSPC),
            _ => None,
        };
        let (failed, end) = (error.is_some(), offset + data.len());
        self.check_growth(id, end)?;
        if failed {
            self.keep_some_sectors(id, offset, &mut data);
        }
        let (order, sector) = (self.next_order(), self.options.sector_size);
        let inode = self.inode(id);
        for sector in offset / sector..end / sector {
            inode.latent.remove(&sector);
        }
        if durable && !failed {
            inode.content.write_durable(order, offset, &data);
        } else {
            inode.content.write(order, offset, data);
        }
        self.damage(id, offset..end);
        error.map_or(Ok(()), |error| Err(os_error(error)))
    }

    /// What the medium does to bytes that it has taken, as often as the options say.
    fn damage(&mut self, id: u64, written: std::ops::Range<usize>) {
        if written.is_empty() {
            return;
        }
        if self.chance.happens(self.options.rot) {
            let at = written.start + self.chance.below(written.len() as u64) as usize;
            let bit = self.chance.below(8) as u8;
            self.inode(id).content.flip_bit(at, bit);
        }
        if self.chance.happens(self.options.latent_sector) {
            let sector = self.options.sector_size;
            let at = written.start + self.chance.below(written.len() as u64) as usize;
            self.inode(id).latent.insert(at / sector);
        }
    }

    /// Makes a write that fails one of which some sectors were written.
    fn keep_some_sectors(&mut self, id: u64, offset: usize, data: &mut Vec<u8>) {
        let sector = self.options.sector_size;
        let live = self.inodes[&id].content.live();
        data.truncate(live.len().saturating_sub(offset) / sector * sector);
        for (at, bytes) in data.chunks_mut(sector).enumerate() {
            if self.chance.happens(0.5) {
                let at = offset + at * sector;
                bytes.copy_from_slice(&live[at..at + sector]);
            }
        }
    }

    fn finish_flush(&mut self, id: u64, end_order: u64, fails: bool) -> io::Result<()> {
        let style = if fails && self.chance.happens(0.5) { Style::None } else { Style::Sectors(0.5) };
        let content = &mut self.inodes.get_mut(&id).expect("open").content;
        if fails {
            content.settle(style, false, &mut self.chance);
            return Err(os_error(libc::EIO));
        }
        content.flush(end_order);
        Ok(())
    }
}

/// Checks what direct I/O asks for, and turns the offset into an index.
fn check_aligned(buf: &[u8], offset: u64) -> io::Result<usize> {
    let offset = usize::try_from(offset).map_err(|_| os_error(libc::EFBIG))?;
    let aligned = [buf.as_ptr().addr(), buf.len(), offset].iter().all(|value| value.is_multiple_of(BLOCK_SIZE));
    if aligned { Ok(offset) } else { Err(os_error(libc::EINVAL)) }
}
