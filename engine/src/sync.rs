//! One switch between `std`, `loom` and `shuttle`, so that a model checker can stand in for the machine's memory and its
//! scheduler.
//!
//! Code whose correctness rests on memory orderings takes its atomics, locks and cells from here. Built with
//! `--cfg redex_loom` they are loom's, whose models try every order that the memory model allows. What else the path of an event
//! shares between threads comes from [`scheduled`]. Built with `--cfg redex_shuttle` both are shuttle's, whose tests run the
//! whole engine under random schedules; there a lock of the standard library must not be held where shuttle may switch threads.
//! Else they are the standard library's, at no cost. `docs/concurrency.md` lists what is checked by which.
//!
//! What it leaves to others: what the orderings are for. Each user says that where it uses them.

#[cfg(redex_loom)]
pub use loom::{
    cell::UnsafeCell,
    sync::{Mutex, atomic},
};

#[cfg(not(redex_loom))]
pub use scheduled::{Mutex, atomic};

/// What no loom model reaches: shuttle's, or the standard library's.
pub mod scheduled {
    #[cfg(redex_shuttle)]
    pub use shuttle::sync::{Mutex, MutexGuard, atomic};

    #[cfg(not(redex_shuttle))]
    pub use std::sync::{Mutex, MutexGuard};

    /// Atomics and fences.
    #[cfg(not(redex_shuttle))]
    pub mod atomic {
        pub use std::sync::atomic::{
            AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
        };
    }

    /// Lets others go on: for a wait that may be longer.
    pub fn yield_now() {
        #[cfg(redex_shuttle)]
        shuttle::thread::yield_now();
        #[cfg(not(redex_shuttle))]
        std::thread::yield_now();
    }
}

/// Lets others go on: for a wait of a few instructions.
pub fn spin() {
    #[cfg(redex_loom)]
    loom::thread::yield_now();
    #[cfg(redex_shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(any(redex_loom, redex_shuttle)))]
    std::hint::spin_loop();
}

/// A [`std::cell::UnsafeCell`] with loom's closures, which let loom see each access begin and end.
#[cfg(not(redex_loom))]
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct UnsafeCell<T: ?Sized>(std::cell::UnsafeCell<T>);

#[cfg(not(redex_loom))]
impl<T> UnsafeCell<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }
}

#[cfg(not(redex_loom))]
impl<T: ?Sized> UnsafeCell<T> {
    /// Calls `f` with a pointer for reading.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Calls `f` with a pointer for writing.
    #[inline(always)]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
