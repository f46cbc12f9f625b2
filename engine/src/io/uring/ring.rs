//! The ring and its system calls.
//!
//! Unsafe is needed for `io_uring_enter`, which the crate offers only without the registered ring descriptor, and for pushing
//! entries, whose memory the pusher must keep.
//!
//! Promises: what was pushed is handed over in order; a wait ends with a completion, the timeout or a signal. Once it is
//! enabled a ring does what the engine asks of it and nothing else ([`Ring::enable`]), where the kernel can be told so.

#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Timespec;
use io_uring::{Builder, IoUring, opcode};

use crate::io::RingFacts;

/// Entries of the submission queue; the completion queue has twice as many.
const ENTRIES: u32 = 256;
/// How many entries may be with the kernel at once, so that the completion queue never overflows.
pub(super) const OUTSTANDING_MAX: u32 = 2 * ENTRIES - 8;

// From <linux/io_uring.h>; the crate does not show them.
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
const UNREGISTER_FILES: u32 = 3;
const REGISTER_FILES_UPDATE: u32 = 6;
const REGISTER_BUFFERS_UPDATE: u32 = 16;

/// What entries may ask for: writes, flushes, and the two ways to watch the doorbell.
const OPERATIONS: [u8; 5] =
    [opcode::Write::CODE, opcode::WriteFixed::CODE, opcode::Fsync::CODE, opcode::Read::CODE, opcode::PollAdd::CODE];

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_usec: u32,
    timespec: u64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// A completion: what it belongs to, and its result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completed {
    pub(super) key: u64,
    pub(super) result: i32,
}

/// A ring with one submitter: the thread that made it.
pub(super) struct Ring {
    uring: IoUring,
    /// What it was made with.
    flags: RingFacts,
    /// The ring's index among this thread's registered rings, which saves the kernel a look-up per call.
    registered: Option<u32>,
    one_thread: PhantomData<*mut ()>,
}

/// The tables of a ring that is about to be enabled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    /// Whether it has one of files, if only for the lock file.
    pub(super) files: bool,
    /// Whether it has one of buffers.
    pub(super) buffers: bool,
}

impl Ring {
    /// A ring that takes no entries yet, unless the kernel cannot make one so. Files and buffers may be registered.
    pub(super) fn new() -> io::Result<Self> {
        // Every kernel that is new enough can begin with the ring disabled (Linux 5.10); what stands in for one may not.
        let none = RingFacts { restricted: true, ..RingFacts::default() };
        let coop = RingFacts { coop_taskrun: true, ..none };
        let single = RingFacts { single_issuer: true, ..coop };
        let all = RingFacts { defer_taskrun: true, ..single };
        Self::with(&[all, single, coop, none, RingFacts::default()])
    }

    /// A ring with the first of these that the kernel grants.
    pub(super) fn with(wishes: &[RingFacts]) -> io::Result<Self> {
        let (uring, flags) = build(wishes)?;
        // Only flushes go to kernel workers; two of them beside the shard would take the cores from the program. Advice:
        // a kernel without the call does as it likes.
        let _ = uring.submitter().register_iowq_max_workers(&mut [1, 1]);
        let registered = register_ring(uring.as_raw_fd());
        Ok(Self { uring, flags, registered, one_thread: PhantomData })
    }

    /// Forbids everything that this engine does not use, for good, then lets the ring begin. So neither a mistake here nor
    /// whoever else gets hold of the descriptor makes the kernel open, connect, read or run anything through this ring.
    ///
    /// With `IORING_SETUP_SINGLE_ISSUER` the ring belongs to the thread that enables it, no longer to the one that made it
    /// (io_uring_enable_rings(3), Linux 6.0): called by the thread that submits. What is registered before is not
    /// restricted; registrations after are those that [`Tables`] need to change.
    ///
    /// A kernel that takes no restrictions, or a filter that lets none through, leaves the ring as able as any: the facts
    /// say so.
    pub(super) fn enable(&mut self, tables: Tables) -> io::Result<()> {
        if !self.flags.restricted {
            return Ok(());
        }
        let mut allowed = restrictions(tables, self.registered.is_some());
        if let Err(error) = self.uring.submitter().register_restrictions(&mut allowed) {
            tracing::debug!(%error, "the kernel takes no restrictions of a ring");
            self.flags.restricted = false;
        }
        self.uring.submitter().register_enable_rings()
    }

    /// What the kernel granted; of the tables nothing.
    pub(super) fn facts(&self) -> RingFacts {
        RingFacts { registered_ring: self.registered.is_some(), ..self.flags }
    }

    /// For registering files and buffers.
    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.uring.submitter()
    }

    /// Puts an entry into the queue; `false` if that is full.
    ///
    /// # Safety
    ///
    /// The descriptor and the memory that the entry names stay valid until its completion is popped.
    pub(super) unsafe fn push(&mut self, entry: &Entry) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.uring.submission().push(entry).is_ok() }
    }

    /// Puts an entry into the queue that names no memory and, if any, a descriptor that stays open.
    #[cfg(all(test, not(redex_loom)))]
    pub(super) fn push_alone(&mut self, entry: &Entry) {
        // SAFETY: the caller names no memory; only tests call this, with entries that they make themselves.
        assert!(unsafe { self.push(entry) }, "the queue is empty");
    }

    /// Entries pushed and not yet taken by the kernel.
    pub(super) fn queued(&mut self) -> u32 {
        self.uring.submission().len() as u32
    }

    /// Takes the oldest completion that the kernel has handed over.
    pub(super) fn pop(&mut self) -> Option<Completed> {
        let entry = self.uring.completion().next()?;
        Some(Completed { key: entry.user_data(), result: entry.result() })
    }

    /// Hands over all that is queued.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        loop {
            let queued = self.queued();
            if queued == 0 {
                return Ok(());
            }
            match self.enter(queued, 0, 0, None) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => result?,
            }
        }
    }

    /// Has the kernel hand over completions that it holds back until it is asked, without waiting.
    pub(super) fn fetch(&mut self) -> io::Result<()> {
        let queue = self.uring.submission();
        if !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        match self.enter(0, 0, ENTER_GETEVENTS, None) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    /// Hands over all that is queued, then sleeps until there is a completion, a signal comes, or `timeout` has passed.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timespec = timeout.map(|t| Timespec::new().sec(t.as_secs().min(i64::MAX as u64)).nsec(t.subsec_nanos()));
        let arg = GetEventsArg {
            sigmask: 0,
            sigmask_size: 0,
            min_wait_usec: 0,
            timespec: timespec.as_ref().map_or(0, |t| ptr::from_ref(t).addr() as u64),
        };
        // The kernel does not wait when it took fewer entries than it was offered; the loop then offers the rest.
        loop {
            let queued = self.queued();
            match self.enter(queued, 1, ENTER_GETEVENTS | ENTER_EXT_ARG, Some(&arg)) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::ETIME)) => {
                    return Ok(());
                }
                Err(e) => return Err(e),
                Ok(()) if self.queued() == 0 => return Ok(()),
                Ok(()) => {}
            }
        }
    }

    fn enter(&mut self, submit: u32, want: u32, flags: u32, arg: Option<&GetEventsArg>) -> io::Result<()> {
        let (fd, flags) = match self.registered {
            Some(index) => (i64::from(index), flags | ENTER_REGISTERED_RING),
            None => (i64::from(self.uring.as_raw_fd()), flags),
        };
        let size = arg.map_or(0, size_of_val);
        let arg = arg.map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `arg` is null or the struct of the size given, with a time that outlives the call; what the entries
        // name is valid by the contract of `push`.
        let result = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, submit, want, flags, arg, size) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            unregister_ring(self.uring.as_raw_fd(), index);
        }
    }
}

/// Makes the ring with all that helps one submitter, leaving out what an older kernel refuses.
///
/// With each of these the queue shows when the kernel holds completions back; with the last it never does.
fn build(wishes: &[RingFacts]) -> io::Result<(IoUring, RingFacts)> {
    let mut refusal = io::Error::from_raw_os_error(libc::EINVAL);
    for &flags in wishes {
        let mut builder = IoUring::builder();
        builder.dontfork();
        set(&mut builder, flags);
        match builder.build(ENTRIES) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refusal = e,
            result => return result.map(|uring| (uring, flags)),
        }
    }
    Err(refusal)
}

/// All that a ring may do once it is enabled. A registration that the kernel does not know may not be named, so those are
/// left out that belong to what it did not grant.
fn restrictions(tables: Tables, registered_ring: bool) -> Vec<Restriction> {
    let registrations = [
        (REGISTER_FILES_UPDATE, tables.files),
        (UNREGISTER_FILES, tables.files),
        (REGISTER_BUFFERS_UPDATE, tables.buffers),
        (UNREGISTER_RING_FDS, registered_ring),
    ];
    let registrations = registrations.into_iter().filter(|(_, used)| *used);
    let registrations = registrations.map(|(operation, _)| Restriction::register_op(operation as u8));
    let flags = Restriction::sqe_flags_allowed(Flags::FIXED_FILE.bits());
    OPERATIONS.into_iter().map(Restriction::sqe_op).chain(registrations).chain([flags]).collect()
}

fn set(builder: &mut Builder, flags: RingFacts) {
    if flags.restricted {
        builder.setup_r_disabled();
    }
    if flags.single_issuer {
        builder.setup_single_issuer().setup_submit_all();
    }
    if flags.defer_taskrun {
        builder.setup_defer_taskrun();
    }
    if flags.coop_taskrun {
        builder.setup_coop_taskrun().setup_taskrun_flag();
    }
}

/// Registers a ring with this thread; `None` where the kernel is too old or the thread has too many.
fn register_ring(fd: RawFd) -> Option<u32> {
    let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data: u64::from(fd.cast_unsigned()) };
    // SAFETY: one struct, as the count says, that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1) };
    (result == 1).then_some(update.offset)
}

fn unregister_ring(fd: RawFd, index: u32) {
    let update = ResourceUpdate { offset: index, reserved: 0, data: 0 };
    // SAFETY: as in `register_ring`. A refusal leaves an entry in this thread's table, which ends with the thread.
    unsafe { libc::syscall(libc::SYS_io_uring_register, fd, UNREGISTER_RING_FDS, &raw const update, 1) };
}
