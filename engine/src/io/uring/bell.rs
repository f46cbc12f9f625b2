//! The ring's read of the doorbell, which lets a driver wait for completions and rings in one place.

#![allow(unsafe_code)] // The kernel writes the count that it reads.

use std::io;
use std::sync::Arc;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::ring::Ring;
use crate::io::Doorbell;

/// Marks the bell's completion among those of flights.
pub(super) const BELL_KEY: u64 = u64::MAX;

/// The doorbell as the ring sees it.
#[derive(Debug)]
pub(super) struct Bell {
    doorbell: Arc<Doorbell>,
    /// Where the kernel puts the count; nobody reads it. Leaked if the ring cannot be brought to an end.
    count: *mut u64,
    armed: bool,
    rung: bool,
    /// Older kernels answer a read of an empty non-blocking eventfd at once; there the ring polls it.
    by_poll: bool,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let doorbell = Doorbell::new()?;
        Ok(Self { doorbell, count: Box::into_raw(Box::new(0)), armed: false, rung: false, by_poll: false })
    }

    pub(super) fn doorbell(&self) -> Arc<Doorbell> {
        self.doorbell.clone()
    }

    /// Whether the ring has an entry of the bell's.
    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// Makes sure that the ring reads the doorbell; says whether an entry was pushed.
    pub(super) fn arm(&mut self, ring: &mut Ring) -> bool {
        if self.armed {
            return false;
        }
        // SAFETY: the descriptor is the doorbell's, the memory `count`; both outlive the entry, since the driver's drop ends
        // it first.
        self.armed = unsafe { ring.push(&self.entry()) };
        self.armed
    }

    fn entry(&self) -> Entry {
        let fd = types::Fd(self.doorbell.fd().expect("this driver's doorbell has a descriptor"));
        let entry = if self.by_poll {
            opcode::PollAdd::new(fd, libc::POLLIN as u32).build()
        } else {
            opcode::Read::new(fd, self.count.cast(), 8).build()
        };
        entry.user_data(BELL_KEY)
    }

    /// Takes the bell's completion.
    pub(super) fn completed(&mut self, result: i32) {
        self.armed = false;
        if self.by_poll {
            self.doorbell.drain();
        }
        self.by_poll |= result == -libc::EAGAIN;
        self.rung = true;
    }

    /// Whether the bell rang since the last call. A ring that came before a wait must end that wait.
    pub(super) fn take_rung(&mut self) -> bool {
        std::mem::take(&mut self.rung)
    }

    /// Ends the entry in the ring, by ringing.
    pub(super) fn ring(&self) {
        self.doorbell.ring_always();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if !self.armed {
            // SAFETY: made by `Box::into_raw` in `new`, freed here alone; with no entry armed the kernel does not know it.
            drop(unsafe { Box::from_raw(self.count) });
        }
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;
    use crate::io::doorbell::Park;
    use crate::io::uring::ring::Tables;

    /// Both ways to watch the doorbell, the read and the poll of older kernels, see each ring once.
    #[test]
    fn read_and_poll_both_see_a_ring() {
        let Ok(mut ring) = Ring::new() else { return };
        ring.enable(Tables { files: false, buffers: false }).unwrap();
        for by_poll in [false, true] {
            let mut bell = Bell::new().unwrap();
            bell.by_poll = by_poll;
            for _ in 0..2 {
                assert!(bell.arm(&mut ring));
                assert!(!bell.arm(&mut ring));
                ring.wait(Some(std::time::Duration::from_millis(1))).unwrap();
                assert!(ring.pop().is_none(), "nobody rang");
                bell.doorbell().announce_park(Park::Deep);
                bell.doorbell().ring_if_deep();
                ring.wait(None).unwrap();
                let completed = ring.pop().unwrap();
                assert_eq!(completed.key, BELL_KEY);
                bell.completed(completed.result);
                assert!(bell.take_rung() && !bell.take_rung() && !bell.is_armed());
                assert_eq!(bell.by_poll, by_poll);
            }
        }
    }
}
