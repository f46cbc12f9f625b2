//! The simulated queue: what is submitted ends later, in any order.

use super::SimDisk;
use super::options::power_off;
use super::state::{Flight, Power, State, Work};
use crate::io::{Completion, Doorbell, Driver, Durability, File, FileHandle, IoBuf, Operation};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

/// Longest delay of a slow operation, reaps.
const DELAY_MAX: u64 = 8;

/// One shard's queue on a [`SimDisk`].
///
/// A write is seen by reads once it has ended; while in flight, any of its sectors may be on the medium already. No
/// call sleeps: [`Driver::wait`] ends at least one operation if there is any, and returns.
pub(super) struct SimDriver {
    disk: SimDisk,
    id: u64,
    boot: u64,
    held: BTreeMap<u64, (u64, Operation)>,
    done: Vec<Completion>,
    doorbell: Arc<Doorbell>,
}

impl SimDriver {
    pub(super) fn new(disk: SimDisk) -> io::Result<Self> {
        let (id, boot) = {
            let mut state = disk.lock();
            state.check_power()?;
            (state.new_id(), state.boot)
        };
        Ok(Self { disk, id, boot, held: BTreeMap::new(), done: Vec::new(), doorbell: Doorbell::silent() })
    }

    /// The state, unless the power is or was off.
    fn powered<'a>(&self, disk: &'a SimDisk) -> io::Result<std::sync::MutexGuard<'a, State>> {
        let state = disk.lock();
        if state.is_off || state.boot != self.boot { Err(power_off()) } else { Ok(state) }
    }

    /// Puts an operation in flight and returns its number.
    fn begin(&self, operation: &Operation) -> io::Result<u64> {
        let mut state = self.powered(&self.disk)?;
        let (power, mut flight) = match operation {
            Operation::Write { file, offset, buf, durability } => {
                let durable = *durability == Durability::Durable;
                state.begin_write(sim_handle(&**file), buf.as_slice(), *offset, durable)?
            }
            Operation::Flush { file } => state.begin_flush(sim_handle(&**file))?,
        };
        flight.driver = Some(self.id);
        if power == Power::Stays {
            let slow = state.options.slow;
            flight.delay = if state.chance.happens(slow) { 1 + state.chance.below(DELAY_MAX) } else { 0 };
        }
        let id = state.new_id();
        state.flights.insert(id, flight);
        Ok(id)
    }

    /// Ends some operations. What ended before the power went off is done.
    fn end_some(&mut self, at_least_one: bool) -> io::Result<()> {
        let mut ended = Vec::new();
        let result = self.end_flights(at_least_one, &mut ended);
        // The lock is free here: dropping the last reference to a file takes it.
        for (id, result) in ended {
            let (token, operation) = self.held.remove(&id).expect("held while in flight");
            self.done.push(completion(token, operation, result));
        }
        result
    }

    fn end_flights(&self, at_least_one: bool, ended: &mut Vec<(u64, io::Result<()>)>) -> io::Result<()> {
        let mut state = self.powered(&self.disk)?;
        for id in pick_flights(&mut state, self.id, at_least_one) {
            let mut flight = state.flights.remove(&id).expect("picked from there");
            if state.step_of(&flight)? == Power::Goes {
                state.flights.insert(id, flight);
                return Err(power_off());
            }
            check_unchanged(&flight, &self.held[&id].1);
            ended.push((id, state.finish(&mut flight)));
        }
        Ok(())
    }
}

impl Driver for SimDriver {
    fn submit(&mut self, token: u64, operation: Operation) {
        match self.begin(&operation) {
            Ok(id) => {
                self.held.insert(id, (token, operation));
            }
            Err(err) => self.done.push(completion(token, operation, Err(err))),
        }
    }

    fn kick(&mut self) -> io::Result<()> {
        self.powered(&self.disk).map(drop)
    }

    fn reap(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        let result = self.end_some(false);
        out.append(&mut self.done);
        result
    }

    fn wait(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
        self.end_some(self.done.is_empty())
    }

    fn in_flight(&self) -> usize {
        self.held.len() + self.done.len()
    }

    fn doorbell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.doorbell)
    }
}

impl Drop for SimDriver {
    /// Ends all that is in flight, unless there is no power: then the power cut decides.
    fn drop(&mut self) {
        let held = mem::take(&mut self.held);
        if let Ok(mut state) = self.powered(&self.disk) {
            let mut ids: Vec<u64> = held.keys().copied().collect();
            while !ids.is_empty() {
                let id = state.chance.take(&mut ids);
                if let Some(mut flight) = state.flights.remove(&id) {
                    // Nobody is left to hear of it.
                    let _unheard = state.finish(&mut flight);
                }
            }
        }
    }
}

impl fmt::Debug for SimDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDriver").field("id", &self.id).field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

/// Which operations of a driver end now, and in which order.
fn pick_flights(state: &mut State, driver: u64, at_least_one: bool) -> Vec<u64> {
    let (mut ready, mut slow) = (Vec::new(), Vec::new());
    for (id, flight) in &mut state.flights {
        if flight.driver == Some(driver) {
            if flight.delay == 0 {
                ready.push(*id)
            } else {
                slow.push(*id)
            }
            flight.delay = flight.delay.saturating_sub(1);
        }
    }
    let nothing = state.options.reap_nothing;
    if !at_least_one && state.chance.happens(nothing) {
        return Vec::new();
    }
    if ready.is_empty() && at_least_one && !slow.is_empty() {
        ready = vec![state.chance.take(&mut slow)];
    }
    if ready.is_empty() {
        return ready;
    }
    let all = state.chance.happens(0.5);
    let count = if all { ready.len() } else { 1 + state.chance.below(ready.len() as u64) as usize };
    (0..count).map(|_| state.chance.take(&mut ready)).collect()
}

/// The memory of a write must not change while it is in flight.
fn check_unchanged(flight: &Flight, operation: &Operation) {
    if let (Work::Write { data, offset, .. }, Operation::Write { buf, .. }) = (&flight.work, operation) {
        assert!(data == buf.as_slice(), "memory of the write at {offset} changed while it was in flight");
    }
}

fn completion(token: u64, operation: Operation, result: io::Result<()>) -> Completion {
    let buf = match operation {
        Operation::Write { buf: IoBuf::Owned { buf, .. }, .. } => Some(buf),
        Operation::Write { .. } | Operation::Flush { .. } => None,
    };
    Completion { token, result, buf }
}

/// The number behind a file of this disk.
fn sim_handle(file: &dyn File) -> u64 {
    match file.handle() {
        Ok(FileHandle::Sim(number)) => number,
        other => panic!("{other:?} is no file of a simulated disk"),
    }
}
