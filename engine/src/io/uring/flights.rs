//! The slab of operations that the ring works on.
//!
//! A flight owns whatever its entry names (file and memory), from before it is pushed until its completion was popped.

use std::fs;
use std::sync::Arc;

use crate::io::{Durability, File, IoBuf};

/// Where an operation stands.
#[derive(Debug)]
pub(super) enum Step {
    /// A write, of which `written` bytes are done.
    Write { buf: IoBuf, offset: u64, written: usize, durability: Durability },
    /// A flush: asked for, or the second half of a durable write, whose buffer waits for it.
    Flush { buf: Option<IoBuf> },
}

/// An operation in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) token: u64,
    pub(super) file: Arc<dyn File>,
    /// Keeps the descriptor that the present entry names.
    pub(super) open: Option<Arc<fs::File>>,
    pub(super) step: Step,
    /// Whether its completion promises that something survives a power cut.
    pub(super) durable: bool,
}

/// Flights by key; keys are used again, so the slab is as large as the most that ever flew.
#[derive(Debug, Default)]
pub(super) struct Flights {
    slots: Vec<Option<Flight>>,
    free: Vec<u32>,
}

impl Flights {
    pub(super) fn insert(&mut self, flight: Flight) -> u32 {
        match self.free.pop() {
            Some(key) => {
                self.slots[key as usize] = Some(flight);
                key
            }
            None => {
                self.slots.push(Some(flight));
                // So that giving back never allocates.
                self.free.reserve(self.slots.len());
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// # Panics
    ///
    /// When nothing flies under this key: a key is given to the ring once, and comes back once.
    pub(super) fn get_mut(&mut self, key: u32) -> &mut Flight {
        self.slots[key as usize].as_mut().expect("a flight under a key in use")
    }

    pub(super) fn remove(&mut self, key: u32) -> Flight {
        let flight = self.slots[key as usize].take().expect("a flight under a key in use");
        self.free.push(key);
        flight
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
