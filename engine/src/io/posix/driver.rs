//! The driver without a ring: each operation is a blocking call, made at submit.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::{file::assert_aligned, syscall};
use crate::io::probe::DurableWrite;
use crate::io::{Completion, Doorbell, Driver, Durability, File, FileHandle, IoBuf, Operation};

/// A queue that is always worked off: what is in flight is only not yet reaped.
#[derive(Debug)]
pub(super) struct PosixDriver {
    durable_write: DurableWrite,
    doorbell: Arc<Doorbell>,
    done: Vec<Completion>,
}

impl PosixDriver {
    pub(super) fn new(durable_write: DurableWrite) -> io::Result<Self> {
        Ok(Self { durable_write, doorbell: Doorbell::new()?, done: Vec::new() })
    }

    fn write(&self, file: &dyn File, buf: &[u8], offset: u64, durability: Durability) -> io::Result<()> {
        match durability {
            Durability::Written => file.write_at(buf, offset),
            Durability::Durable => write_durable(self.durable_write, file, buf, offset),
        }
    }
}

/// Writes all of `buf` by blocking calls; durable when it returns.
pub(in crate::io) fn write_durable(how: DurableWrite, file: &dyn File, buf: &[u8], offset: u64) -> io::Result<()> {
    match how {
        DurableWrite::Dsync => write_dsync(file, buf, offset),
        DurableWrite::WriteThenFlush => {
            file.write_at(buf, offset)?;
            file.flush()
        }
    }
}

fn write_dsync(file: &dyn File, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    assert_aligned(buf, offset);
    let FileHandle::Open(file) = file.handle()? else { panic!("a file of another disk") };
    while !buf.is_empty() {
        match syscall::write_durable(file.as_fd(), buf, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                buf = &buf[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

impl Driver for PosixDriver {
    fn submit(&mut self, token: u64, operation: Operation) {
        let completion = match operation {
            Operation::Write { file, offset, buf, durability } => {
                let result = self.write(&*file, buf.as_slice(), offset, durability);
                Completion { token, result, buf: owned(buf) }
            }
            Operation::Flush { file } => Completion { token, result: file.flush(), buf: None },
        };
        self.done.push(completion);
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        out.append(&mut self.done);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.done.is_empty() {
            return Ok(());
        }
        let fd = self.doorbell.fd().expect("this driver's doorbell has a descriptor");
        syscall::wait_readable(fd, timeout)?;
        self.doorbell.drain();
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn doorbell(&self) -> Arc<Doorbell> {
        self.doorbell.clone()
    }
}

/// The buffer that goes back to the caller.
fn owned(buf: IoBuf) -> Option<crate::io::AlignedBuf> {
    match buf {
        IoBuf::Owned { buf, .. } => Some(buf),
        IoBuf::Stable(_) => None,
    }
}
