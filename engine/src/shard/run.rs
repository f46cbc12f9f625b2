//! The thread around a shard: turns, a short spin after work, sleep in the kernel.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::ShardHandle;
use super::{QUEUE, Shard, ShardSeed, Turn};
use crate::error::Poisoned;
use crate::io::doorbell::Park;

/// How long a shard that has just worked looks for more before it sleeps. Only with nothing in flight: a spin in user space
/// would starve the kernel worker that issues the device's flush (design D16).
const SPIN: Duration = Duration::from_micros(50);

/// Runs a shard until it is closed or fails. Reports once whether it could begin.
pub fn run(seed: ShardSeed, core: Option<usize>, begun: impl FnOnce(io::Result<()>)) {
    let handle = seed.handle.clone();
    if let Some(core) = core {
        pin(&handle, core);
    }
    match Shard::new(seed) {
        Err(error) => begun(Err(error)),
        Ok(mut shard) => {
            begun(Ok(()));
            let ran = catch_unwind(AssertUnwindSafe(|| while step(&mut shard) {}));
            if let Err(panic) = ran {
                // A broken invariant: nobody may wait for this shard, and nothing more is written.
                let cause = Arc::new(io::Error::other("the shard's thread panicked"));
                handle.poison(Poisoned {
                    shard: handle.id,
                    what: "turn",
                    file: "a panic of its thread".to_owned(),
                    cause,
                });
                resume_unwind(panic);
            }
        }
    }
}

fn pin(handle: &Arc<ShardHandle>, core: usize) {
    let mut set = nix::sched::CpuSet::new();
    let bound = set.set(core).and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    if let Err(error) = bound {
        tracing::warn!(shard = %handle.id, core, %error, "the shard's thread is not bound to a core");
    }
}

/// Takes turns while there is work, spins, and sleeps once. `false` when the shard has ended.
fn step(shard: &mut Shard) -> bool {
    let mut spin_until: Option<Instant> = None;
    loop {
        let until_us = match shard.turn() {
            Err(_) | Ok(Turn::Ended) => return false,
            Ok(Turn::Worked) => {
                spin_until = None;
                shard.worked_lately = true;
                continue;
            }
            Ok(Turn::Idle { until_us }) => until_us,
        };
        if let Some(held_until_us) = shard.held_until_us {
            // Shorter than a sleep. Who is waited for rings soon. By the clock of now: the turn may have taken a flush.
            let left = Duration::from_micros(held_until_us.saturating_sub(shard.clock.steady_us()));
            shard.handle_is_rung(Instant::now() + left);
            continue;
        }
        if shard.driver.in_flight() == 0 && shard.worked_lately {
            let until = *spin_until.get_or_insert_with(|| Instant::now() + SPIN);
            if shard.handle_is_rung(until) {
                continue;
            }
        }
        shard.worked_lately = shard.driver.in_flight() > 0;
        return sleep(shard, until_us);
    }
}

fn sleep(shard: &mut Shard, until_us: Option<u64>) -> bool {
    let now_us = shard.clock.steady_us();
    // Who publishes something relies on being looked at within the write-behind time.
    let soon = until_us.is_some_and(|at| at <= now_us + shard.write_behind_us());
    let park = if soon { Park::Timed } else { Park::Deep };
    shard.doorbell.announce_park(park);
    // What came before the announcement rang no bell.
    if !shard.has_mail(park) {
        let timeout = until_us.map(|at| Duration::from_micros(at.saturating_sub(now_us)));
        if let Err(error) = shard.driver.wait(timeout) {
            shard.doorbell.announce_awake();
            shard.handle.poison(shard.failure("wait", QUEUE, error));
            return false;
        }
    }
    shard.doorbell.announce_awake();
    true
}

impl Shard {
    /// Spins until the bell rings (`true`) or the time is over.
    fn handle_is_rung(&self, until: Instant) -> bool {
        loop {
            for _ in 0..32 {
                if self.doorbell.is_urgent() || self.handle.has_control() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if Instant::now() >= until {
                return false;
            }
            // Those who were woken may stand in line for this very processor.
            std::thread::yield_now();
        }
    }

    /// Whether something came that nobody will ring for again.
    fn has_mail(&self, park: Park) -> bool {
        let urgent = self.doorbell.is_urgent() || self.handle.has_control();
        // Once a timer or a completion will bring the look at the list, what is on it needs no other.
        urgent || (park == Park::Deep && self.timers.write_behind_at.is_none() && self.handle.has_dirty())
    }
}
