//! One switch between `std` and `loom`, so that a model checker can stand in for the machine's memory.
//!
//! Code whose correctness rests on memory orderings takes its atomics, locks and cells from here. Built with
//! `--cfg loom` they are loom's, whose models try every order that the memory model allows; else they are the
//! standard library's, at no cost.
//!
//! What it leaves to others: what the orderings are for. Each user says that where it uses them.

#[cfg(loom)]
pub use loom::{
    cell::UnsafeCell,
    hint,
    sync::{Arc, Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(not(loom))]
pub use std::sync::{Arc, Mutex, MutexGuard};

/// Atomics and fences.
#[cfg(not(loom))]
pub mod atomic {
    pub use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        fence,
    };
}

/// Hints to the processor.
#[cfg(not(loom))]
pub mod hint {
    pub use std::hint::spin_loop;
}

/// Giving the processor away.
#[cfg(not(loom))]
pub mod thread {
    pub use std::thread::yield_now;
}

/// A [`std::cell::UnsafeCell`] with loom's closures, which let loom see each access begin and end.
#[cfg(not(loom))]
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct UnsafeCell<T: ?Sized>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

#[cfg(not(loom))]
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
