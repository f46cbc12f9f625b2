//! A cold store in memory, for the simulator: it fails as asked for, and its changes are steps of the simulated disk, at which
//! the power may go.
//!
//! What it holds survives power cuts: it is elsewhere. The power is that of the process which calls it, so a put that it goes off
//! in may leave the whole object, a part of it, or nothing.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::{ColdObject, ColdStore};
use crate::io::sim::{SimDisk, StepKind};

/// A call that [`SimColdStore::one_shot_fault`] makes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColdFault {
    /// A put fails, and leaves nothing.
    PutFails,
    /// A put fails, and leaves a part.
    PutTorn,
    /// A put says that it succeeded, and leaves a part.
    PutShort,
    /// A read fails.
    GetFails,
    /// A read gives one bit that is another.
    GetRot,
    /// A read gives fewer bytes.
    GetShort,
    /// A listing fails.
    ListFails,
    /// A listing lacks every second object.
    ListIncomplete,
    /// A delete fails, and the object stays.
    DeleteFails,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<String, Bytes>,
    faults: Vec<(ColdFault, u64)>,
    unreachable: bool,
    gets: u64,
}

/// See the module's text. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct SimColdStore {
    disk: Option<SimDisk>,
    inner: Arc<Mutex<Inner>>,
}

impl SimColdStore {
    /// An empty one, whose changes are steps of this disk.
    #[must_use]
    pub fn on(disk: &SimDisk) -> Self {
        Self { disk: Some(disk.clone()), inner: Arc::default() }
    }

    /// Another that holds the same, whose changes are steps of this disk.
    #[must_use]
    pub fn fork(&self, disk: &SimDisk) -> Self {
        let objects = self.lock().objects.clone();
        Self { disk: Some(disk.clone()), inner: Arc::new(Mutex::new(Inner { objects, ..Inner::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while the lock is held")
    }

    /// Makes the `nth` call of that kind from now (1: the next) fail, once.
    pub fn one_shot_fault(&self, fault: ColdFault, nth: u64) {
        self.lock().faults.push((fault, nth));
    }

    /// From now on no call is answered, or each is.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.lock().unreachable = unreachable;
    }

    /// Reads so far.
    #[must_use]
    pub fn gets(&self) -> u64 {
        self.lock().gets
    }

    /// Keys of all objects, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// An object's bytes.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.lock().objects.get(key).cloned()
    }

    /// Puts bytes there, without a step or a fault; `None` takes them away.
    pub fn set_object(&self, key: &str, bytes: Option<Bytes>) {
        let mut inner = self.lock();
        match bytes {
            Some(bytes) => _ = inner.objects.insert(key.to_owned(), bytes),
            None => _ = inner.objects.remove(key),
        }
    }

    fn step(&self, kind: StepKind) -> io::Result<bool> {
        self.disk.as_ref().map_or(Ok(true), |disk| disk.outside_step(kind))
    }

    fn steps(&self) -> u64 {
        self.disk.as_ref().map_or(0, SimDisk::steps)
    }

    fn begin(&self) -> io::Result<MutexGuard<'_, Inner>> {
        if let Some(disk) = &self.disk {
            disk.check_power()?;
        }
        let inner = self.lock();
        if inner.unreachable {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the cold store is out of reach"))
        } else {
            Ok(inner)
        }
    }
}

impl Inner {
    /// Whether a fault ordered for this call is due.
    fn fault(&mut self, of: ColdFault) -> bool {
        let mut due = false;
        self.faults.retain_mut(|(fault, left)| {
            if *fault == of {
                *left -= 1;
                due |= *left == 0;
            }
            *left > 0
        });
        due
    }

    fn check(&mut self, of: ColdFault) -> io::Result<()> {
        if self.fault(of) { Err(io::Error::other(format!("{of:?}, as asked for"))) } else { Ok(()) }
    }
}

impl ColdStore for SimColdStore {
    fn put(&self, key: &str, parts: &mut dyn Iterator<Item = io::Result<Bytes>>) -> io::Result<()> {
        drop(self.begin()?);
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&part?);
        }
        let stays = self.step(StepKind::ColdUpload)?;
        let part = Bytes::copy_from_slice(&bytes[..bytes.len() * 2 / 3]);
        let whole = Bytes::from(bytes);
        if !stays {
            let left = [None, Some(part), Some(whole)][(self.steps() % 3) as usize].clone();
            if let Some(left) = left {
                self.set_object(key, Some(left));
            }
            return Err(crate::io::sim::power_off());
        }
        let mut inner = self.begin()?;
        inner.check(ColdFault::PutFails)?;
        if inner.fault(ColdFault::PutShort) {
            inner.objects.insert(key.to_owned(), part);
            return Ok(());
        }
        let torn = inner.check(ColdFault::PutTorn);
        inner.objects.insert(key.to_owned(), if torn.is_ok() { whole } else { part });
        torn
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> io::Result<Bytes> {
        let mut inner = self.begin()?;
        inner.gets += 1;
        inner.check(ColdFault::GetFails)?;
        let object = inner.objects.get(key).cloned().ok_or(io::ErrorKind::NotFound)?;
        let size = object.len() as u64;
        let bytes = object.slice(range.start.min(size) as usize..range.end.min(size) as usize);
        if inner.fault(ColdFault::GetShort) {
            return Ok(bytes.slice(..bytes.len() / 2));
        }
        if inner.fault(ColdFault::GetRot) && !bytes.is_empty() {
            let mut rotten = bytes.to_vec();
            let at = inner.gets as usize * 97 % rotten.len();
            rotten[at] ^= 4;
            return Ok(rotten.into());
        }
        Ok(bytes)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<ColdObject>> {
        let mut inner = self.begin()?;
        inner.check(ColdFault::ListFails)?;
        let step = if inner.fault(ColdFault::ListIncomplete) { 2 } else { 1 };
        let found = inner.objects.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.step_by(step).map(|(key, bytes)| ColdObject { key: key.clone(), size: bytes.len() as u64 }).collect())
    }

    fn delete(&self, key: &str) -> io::Result<()> {
        let stays = self.step(StepKind::ColdDelete)?;
        if stays || self.steps().is_multiple_of(2) {
            let mut inner = self.lock();
            if inner.unreachable {
                return Err(io::ErrorKind::TimedOut.into());
            }
            inner.check(ColdFault::DeleteFails)?;
            inner.objects.remove(key);
        }
        if stays { Ok(()) } else { Err(crate::io::sim::power_off()) }
    }
}
