//! How other threads wake a shard that sleeps in its driver.
//!
//! A shard says how deep it sleeps ([`Park`]); others ring only when that is deep enough to matter. So a ring while the
//! shard is awake costs a fence and a load, and of many who find it asleep one makes the system call.
//!
//! # Why no wake-up is lost
//!
//! A producer publishes its work, then runs a full fence, then loads `parked`. The shard stores `parked`, then runs a
//! full fence, then looks at its queues again, then sleeps. The two fences have one order. If the producer's comes
//! first, the shard's second look sees the work. If the shard's comes first, the producer sees that the shard is
//! parked and rings. The ring is a count in an eventfd that lasts until the shard reads it, so it may come before the
//! sleep.
//!
//! Whoever turns `parked` from asleep to awake rings, and nobody else. A producer that finds `AWAKE` while the shard
//! still sleeps relies on the one that turned it: that one's ring is on its way.
//!
//! `urgent` is set by read-modify-write, never by a plain store, so that the shard which takes it has synchronized with
//! everybody who set it since it was last taken, not just with the last.
//!
//! What it leaves to others: the queues, and when an append is worth a ring (design D16).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::posix::syscall;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

/// How a shard sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Park {
    /// With a short timer: it looks at what was published soon by itself, so only urgent rings wake it.
    Timed,
    /// Without a timer: whoever publishes anything must ring.
    Deep,
}

const AWAKE: u32 = 0;
const TIMED: u32 = 1;
const DEEP: u32 = 2;

/// A shard's doorbell. The module says why no wake-up is lost.
#[derive(Debug)]
pub struct Doorbell {
    parked: AtomicU32,
    urgent: AtomicBool,
    bell: Bell,
}

#[derive(Debug)]
enum Bell {
    EventFd(File),
    #[cfg_attr(not(any(test, feature = "sim")), allow(dead_code))]
    Silent,
    #[cfg(all(test, redex_loom))]
    Counted(loom::sync::atomic::AtomicU32),
}

impl Bell {
    fn ring(&self) {
        match self {
            // The count overflows only after 2^64 - 2 unread rings, so this fails for no reason that a caller can mend;
            // and a full count wakes all the same.
            Self::EventFd(file) => {
                let mut file: &File = file;
                while matches!(file.write(&1u64.to_ne_bytes()), Err(e) if e.kind() == io::ErrorKind::Interrupted) {}
            }
            Self::Silent => {}
            #[cfg(all(test, redex_loom))]
            Self::Counted(count) => {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

impl Doorbell {
    /// Makes a doorbell on an eventfd of its own.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self::with_bell(Bell::EventFd(syscall::eventfd()?))))
    }

    /// Makes a doorbell that wakes nobody: for a shard that is driven by hand.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn silent() -> Arc<Self> {
        Arc::new(Self::with_bell(Bell::Silent))
    }

    fn with_bell(bell: Bell) -> Self {
        Self { parked: AtomicU32::new(AWAKE), urgent: AtomicBool::new(false), bell }
    }

    /// Says that somebody starts to wait for durability: the shard takes notice at once. Comes after what it waits for
    /// was published.
    pub fn ring_urgent(&self) {
        self.urgent.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) != AWAKE && self.parked.swap(AWAKE, Ordering::AcqRel) != AWAKE {
            self.bell.ring();
        }
    }

    /// Says that something was published. Rings only when the shard sleeps without a timer.
    pub fn ring_if_deep(&self) {
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) == DEEP
            && self.parked.compare_exchange(DEEP, AWAKE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            self.bell.ring();
        }
    }

    /// The shard's side: whether somebody was urgent since the last call. Comes before the look at the queues.
    #[must_use]
    pub fn take_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed) && self.urgent.swap(false, Ordering::AcqRel)
    }

    /// The shard's side: whether somebody is urgent; does not take it.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    /// The shard's side: says that it is about to sleep. It then must look at its queues and at
    /// [`Doorbell::take_urgent`] once more before it does.
    pub fn announce_park(&self, depth: Park) {
        let depth = match depth {
            Park::Timed => TIMED,
            Park::Deep => DEEP,
        };
        self.parked.store(depth, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard's side: says that it is awake again. It looks at its queues after this.
    pub fn announce_awake(&self) {
        // A swap, not a store: a shard that was woken by a timer synchronizes with a producer that has just rung.
        self.parked.swap(AWAKE, Ordering::AcqRel);
    }

    /// The descriptor that becomes readable when it rings; none for a silent one.
    #[must_use]
    pub fn fd(&self) -> Option<RawFd> {
        match &self.bell {
            Bell::EventFd(file) => Some(file.as_raw_fd()),
            _ => None,
        }
    }

    /// The shard's side: forgets the rings so far. Never blocks.
    pub fn drain(&self) {
        if let Bell::EventFd(file) = &self.bell {
            let mut file: &File = file;
            let mut count = [0; 8];
            while matches!(file.read(&mut count), Err(e) if e.kind() == io::ErrorKind::Interrupted) {}
        }
    }

    /// Wakes the driver's own wait, whatever the state: for a driver that ends its read of the eventfd.
    pub(super) fn ring_always(&self) {
        self.bell.ring();
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;

    fn rings(doorbell: &Doorbell) -> u64 {
        let Bell::EventFd(file) = &doorbell.bell else {
            return 0;
        };
        let mut file: &File = file;
        let mut count = [0; 8];
        match file.read(&mut count) {
            Ok(size) => {
                assert_eq!(size, 8);
                u64::from_ne_bytes(count)
            }
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                0
            }
        }
    }

    /// Rings by state and kind: only those that must wake make the system call, and once.
    #[test]
    fn rings_only_a_sleeper() {
        let doorbell = Doorbell::new().unwrap();
        for (park, deep_rings, urgent_rings) in [(None, 0, 0), (Some(Park::Timed), 0, 1), (Some(Park::Deep), 1, 1)] {
            let announce = || park.map_or_else(|| doorbell.announce_awake(), |p| doorbell.announce_park(p));
            announce();
            doorbell.ring_if_deep();
            doorbell.ring_if_deep();
            assert_eq!(rings(&doorbell), deep_rings, "{park:?}");
            announce();
            assert!(!doorbell.take_urgent());
            doorbell.ring_urgent();
            doorbell.ring_urgent();
            assert_eq!(rings(&doorbell), urgent_rings, "{park:?}");
            assert!(doorbell.take_urgent());
            assert!(!doorbell.take_urgent());
        }
    }

    /// A silent doorbell has no descriptor and still counts urgency.
    #[test]
    fn silent_rings_nobody() {
        let doorbell = Doorbell::silent();
        assert_eq!(doorbell.fd(), None);
        doorbell.announce_park(Park::Deep);
        doorbell.ring_urgent();
        doorbell.drain();
        assert!(doorbell.take_urgent());
    }

    /// `drain` empties the count and does not block on an empty one.
    #[test]
    fn drain_never_blocks() {
        let doorbell = Doorbell::new().unwrap();
        doorbell.drain();
        doorbell.announce_park(Park::Deep);
        doorbell.ring_if_deep();
        doorbell.drain();
        assert_eq!(rings(&doorbell), 0);
    }
}

#[cfg(all(test, redex_loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn counted() -> Doorbell {
        Doorbell::with_bell(Bell::Counted(loom::sync::atomic::AtomicU32::new(0)))
    }

    fn rings(doorbell: &Doorbell) -> u32 {
        match &doorbell.bell {
            Bell::Counted(count) => count.load(Ordering::SeqCst),
            _ => 0,
        }
    }

    /// One sleep against `producers` threads that each publish one item and ring. If the shard's second look found less than
    /// all and it slept, a ring must have been written.
    fn one_sleep(producers: u32, park: Park, ring: fn(&Doorbell)) {
        loom::model(move || {
            let doorbell = Arc::new(counted());
            let queue = Arc::new(AtomicU32::new(0));
            let threads: Vec<_> = (0..producers)
                .map(|_| {
                    let (doorbell, queue) = (doorbell.clone(), queue.clone());
                    thread::spawn(move || {
                        queue.fetch_add(1, Ordering::Release);
                        ring(&doorbell);
                    })
                })
                .collect();
            doorbell.announce_park(park);
            let seen = queue.load(Ordering::Acquire);
            for thread in threads {
                thread.join().unwrap();
            }
            // Here the shard sleeps in its driver, if it saw nothing; all producers are done.
            assert!(seen == producers || rings(&doorbell) > 0, "a wake-up was lost");
            assert!(rings(&doorbell) <= 1, "one ring wakes once");
        });
    }

    #[test]
    fn a_push_wakes_a_deep_sleeper() {
        one_sleep(2, Park::Deep, Doorbell::ring_if_deep);
    }

    #[test]
    fn an_urgent_push_wakes_a_timed_sleeper() {
        one_sleep(2, Park::Timed, Doorbell::ring_urgent);
    }

    /// Two urgent producers, a shard that takes the flag as it comes: after the last take nothing is left unseen.
    #[test]
    fn taking_urgency_shows_all_that_was_published() {
        loom::model(|| {
            let doorbell = Arc::new(counted());
            let queues = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
            let threads: Vec<_> = (0..2)
                .map(|i| {
                    let (doorbell, queues) = (doorbell.clone(), queues.clone());
                    thread::spawn(move || {
                        queues[i].store(1, Ordering::Release);
                        doorbell.ring_urgent();
                    })
                })
                .collect();
            let mut seen = 0;
            if doorbell.take_urgent() {
                seen = queues[0].load(Ordering::Relaxed) + queues[1].load(Ordering::Relaxed);
                assert!(seen > 0);
            }
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(seen == 2 || doorbell.take_urgent(), "an urgent producer was overlooked");
        });
    }
}
