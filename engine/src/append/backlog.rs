//! Appends that found no room: published later, in the order of their calls.
//!
//! ```text
//!  no room --> copy + ticket, at the end of the queue --> room (the shard says so) --> published, ticket resolved
//! ```
//!
//! As long as something waits, later appends to the channel line up behind it; so the events of one caller keep the order of
//! his calls, awaited or not, and a future that is dropped takes nothing back.
//!
//! Promises: order; a bound ([`BACKLOG_BYTES_MAX`]), above which an append is refused as `Full`; every ticket resolves: with
//! the event's place, or with why it was refused.
//! What it leaves to others: the shard publishes what waits whenever it may have made room (`Shard::relieve_backlogs`). In
//! memory, where no shard is, the next call or poll does.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use super::wait::Goal;
use super::{BATCH_SIZE_MAX, Published};
use crate::channel::Channel;
use crate::ids::Seq;
use crate::sync::scheduled::atomic::{AtomicUsize, Ordering};
use crate::sync::scheduled::{Mutex, MutexGuard};
use crate::tail::Refusal;

/// Payload bytes that may wait in one channel: as many as the largest batch has.
pub const BACKLOG_BYTES_MAX: usize = BATCH_SIZE_MAX;
/// What an entry counts beside its payload.
const ENTRY_BYTES: usize = 64;

/// What waits. A copy: the caller's bytes are gone by the time that there is room.
#[derive(Debug)]
pub enum Waiting {
    /// One event, which is to get this sequence.
    One(Vec<u8>, Option<Seq>),
    /// A batch, whose first event is to get this sequence.
    Batch(Vec<Vec<u8>>, Option<Seq>),
    /// Nothing: its turn says that everything before it is published.
    Mark,
    /// The place of a batch over several channels, which the shard appends.
    Grouped,
}

impl Waiting {
    fn size(&self) -> usize {
        let payload = match self {
            Self::One(payload, _) => payload.len(),
            Self::Batch(payloads, _) => payloads.iter().map(|payload| payload.len() + ENTRY_BYTES).sum(),
            Self::Mark | Self::Grouped => return 0,
        };
        payload + ENTRY_BYTES
    }
}

/// Why something that waited was refused after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The channel was closed, or its shard has failed.
    Closed,
    /// The disk is full.
    NoSpace,
    /// It would have got another sequence than expected: this one.
    OtherSeq(Seq),
}

/// Tells one caller what became of his append.
#[derive(Debug, Default)]
pub struct Ticket {
    outcome: OnceLock<Result<Published, Denied>>,
    /// Several where callers share a mark.
    wakers: Mutex<Vec<Waker>>,
}

impl Ticket {
    /// What became of it, if it is decided.
    pub fn outcome(&self) -> Option<Result<Published, Denied>> {
        self.outcome.get().copied()
    }

    /// Has `waker` woken when it is decided. The caller looks at [`Ticket::outcome`] again afterwards.
    pub fn wake_when_decided(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock().expect("no panic while the lock is held");
        if !wakers.iter().any(|before| before.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn decide(&self, outcome: Result<Published, Denied>) {
        assert!(self.outcome.set(outcome).is_ok(), "a ticket is decided once");
        let wakers = std::mem::take(&mut *self.wakers.lock().expect("no panic while the lock is held"));
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct Entry {
    waiting: Waiting,
    durable: bool,
    ticket: Arc<Ticket>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Somebody is publishing the first one.
    taken: bool,
    /// The shard has the channel on its list of those with a backlog.
    listed: bool,
    /// The channel is being closed: what waits is still published, and nothing more comes.
    closed: bool,
}

/// Why something cannot line up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too much waits already.
    TooMuch,
    /// The channel is being closed.
    Closed,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Backlog {
    /// How many wait: what every append looks at.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
}

impl Backlog {
    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Appends that wait, and their bytes.
    pub fn size(&self) -> (u64, u64) {
        if self.is_empty() {
            return (0, 0);
        }
        (self.waiting.load(Ordering::Relaxed) as u64, self.queue().bytes as u64)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic while the lock is held")
    }

    /// Lines something up. Gives its ticket, and whether the shard has yet to be told.
    fn enter(&self, waiting: Waiting, durable: bool) -> Result<(Arc<Ticket>, bool), Refused> {
        let size = waiting.size();
        let mut queue = self.queue();
        if matches!(waiting, Waiting::Mark) {
            // Marks one behind the other are one: so they need no bound.
            if let Some(Entry { waiting: Waiting::Mark, ticket, .. }) = queue.entries.back() {
                return Ok((ticket.clone(), false));
            }
        } else if queue.closed {
            return Err(Refused::Closed);
        } else if queue.bytes > 0 && queue.bytes + size > BACKLOG_BYTES_MAX {
            // Whatever fits the limits of an append gets a place in an empty queue.
            return Err(Refused::TooMuch);
        }
        let ticket = Arc::new(Ticket::default());
        queue.bytes += size;
        queue.entries.push_back(Entry { waiting, durable, ticket: ticket.clone() });
        self.waiting.fetch_add(1, Ordering::Release);
        let newly_listed = !std::mem::replace(&mut queue.listed, true);
        Ok((ticket, newly_listed))
    }

    /// Lets nothing more in but marks. Says whether nothing waits.
    pub fn close(&self) -> bool {
        let mut queue = self.queue();
        queue.closed = true;
        queue.entries.is_empty() && !queue.taken
    }

    /// Takes the first one, unless somebody else has it.
    fn take_first(&self) -> Option<Entry> {
        let mut queue = self.queue();
        if queue.taken {
            return None;
        }
        let entry = queue.entries.pop_front()?;
        queue.taken = true;
        Some(entry)
    }

    fn put_back(&self, entry: Entry) {
        let mut queue = self.queue();
        queue.entries.push_front(entry);
        queue.taken = false;
    }

    fn finish(&self, entry: Entry, outcome: Result<Published, Denied>) {
        {
            let mut queue = self.queue();
            queue.taken = false;
            queue.bytes -= entry.waiting.size();
            self.waiting.fetch_sub(1, Ordering::Release);
        }
        entry.ticket.decide(outcome);
    }

    /// Whether this place is the first, and nobody has it.
    pub fn is_first(&self, ticket: &Arc<Ticket>) -> bool {
        let queue = self.queue();
        !queue.taken && queue.entries.front().is_some_and(|entry| Arc::ptr_eq(&entry.ticket, ticket))
    }

    /// Serves the place of a batch, if it is the first.
    pub fn serve(&self, ticket: &Arc<Ticket>, serve: impl FnOnce() -> Option<Result<Published, Denied>>) {
        let entry = {
            let mut queue = self.queue();
            let place = queue.entries.iter().position(|entry| Arc::ptr_eq(&entry.ticket, ticket));
            match place {
                Some(0) if !queue.taken => {
                    queue.taken = true;
                    queue.entries.pop_front()
                }
                _ => None,
            }
        };
        let Some(entry) = entry else { return };
        match serve() {
            Some(outcome) => self.finish(entry, outcome),
            None => self.put_back(entry),
        }
    }

    /// Gives up the place of a batch, wherever it is.
    pub fn give_up(&self, ticket: &Arc<Ticket>) {
        let entry = {
            let mut queue = self.queue();
            let place = queue.entries.iter().position(|entry| Arc::ptr_eq(&entry.ticket, ticket));
            let entry = place.and_then(|place| queue.entries.remove(place));
            if entry.is_some() {
                self.waiting.fetch_sub(1, Ordering::Release);
            }
            entry
        };
        if let Some(entry) = entry {
            entry.ticket.decide(Err(Denied::Closed));
        }
    }

    /// The shard's side: takes the channel off its list if nothing waits. Whoever comes later lists it again.
    pub fn unlist_if_empty(&self) -> bool {
        let mut queue = self.queue();
        let empty = queue.entries.is_empty() && !queue.taken;
        queue.listed = !empty;
        empty
    }
}

/// Lines something up behind what waits.
pub fn line_up(channel: &Channel, waiting: Waiting, durable: bool) -> Result<Arc<Ticket>, Refused> {
    let (ticket, newly_listed) = channel.backlog.enter(waiting, durable)?;
    if let Some(persistence) = channel.persistence().filter(|_| newly_listed) {
        persistence.shard.push_backlogged(persistence.slot);
    }
    channel.ring();
    // There may be room by now, or never again: if the channel was closed meanwhile nobody else would come.
    relieve(channel);
    Ok(ticket)
}

/// Publishes what waits, in order, as far as there is room, or refuses it. Says whether anything came of it.
pub fn relieve(channel: &Channel) -> bool {
    let mut any = false;
    while let Some(entry) = channel.backlog.take_first() {
        match publish(channel, &entry) {
            Some(outcome) => channel.backlog.finish(entry, outcome),
            None => {
                channel.backlog.put_back(entry);
                // Who closed the channel meanwhile found the entry taken, and went: then it is refused here.
                if channel.tail.is_closed() {
                    continue;
                }
                break;
            }
        }
        any = true;
    }
    if any {
        wake_who_waits_for_the_end(channel);
    }
    any
}

/// Tails of a closed channel end when nothing waits for room any more: also if what came last was refused, and woke nobody.
pub fn wake_who_waits_for_the_end(channel: &Channel) {
    if channel.backlog.is_empty() {
        channel.tail.wake_readers();
    }
}

fn publish(channel: &Channel, entry: &Entry) -> Option<Result<Published, Denied>> {
    let no_space = || channel.persistence().is_some_and(|persistence| persistence.shard.no_space());
    let appended = match &entry.waiting {
        Waiting::Mark => {
            let Goal { below: first, resets } = Goal::all(channel);
            // A sync or close covers what came before it even if nobody awaits it any more.
            channel.want_durable(first);
            channel.ring();
            return Some(Ok(Published { first, end: first, wait_below: None, resets: resets.unwrap_or_default() }));
        }
        _ if channel.tail.is_closed() => return Some(Err(Denied::Closed)),
        Waiting::Grouped => return None,
        _ if no_space() => return Some(Err(Denied::NoSpace)),
        _ if channel.holds_back(entry.durable, channel.clock.wall_us()) => return None,
        Waiting::One(payload, expected) => {
            channel.append(payload, channel.clock.wall_us(), *expected).map(|(reserved, policy)| (reserved, 1, policy))
        }
        Waiting::Batch(payloads, expected) => channel
            .append_batch(payloads, channel.clock.wall_us(), *expected)
            .map(|(reserved, policy)| (reserved, payloads.len() as u64, policy)),
    };
    match appended {
        Ok((reserved, count, policy)) => {
            let published = Published::new(channel, entry.durable, reserved, count, policy);
            if published.wait_below.is_some() {
                // Whoever waits for it has been waiting for a while.
                channel.ring();
            }
            Some(Ok(published))
        }
        Err(Refusal::Full) => None,
        Err(Refusal::Closed) => Some(Err(Denied::Closed)),
        Err(Refusal::OtherSeq(actual)) => Some(Err(Denied::OtherSeq(actual))),
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;

    fn one(size: usize) -> Waiting {
        Waiting::One(vec![0; size], None)
    }

    #[test]
    fn refuses_above_its_bound_but_takes_anything_when_empty() {
        let backlog = Backlog::default();
        assert!(backlog.enter(one(BACKLOG_BYTES_MAX), false).is_ok());
        assert_eq!(backlog.enter(one(1), false).unwrap_err(), Refused::TooMuch);
        let marks: Vec<_> = (0..3).map(|_| backlog.enter(Waiting::Mark, true).unwrap().0).collect();
        assert!(marks.iter().all(|mark| Arc::ptr_eq(mark, &marks[0])), "marks one behind the other are one");
        let first = backlog.take_first().unwrap();
        backlog.finish(first, Err(Denied::Closed));
        assert!(backlog.enter(one(1), false).is_ok());
        assert!(!backlog.close());
        assert_eq!(backlog.enter(one(1), false).unwrap_err(), Refused::Closed);
        assert!(backlog.enter(Waiting::Mark, true).is_ok(), "what waits is still published");
    }

    #[test]
    fn one_at_a_time_and_in_order() {
        let backlog = Backlog::default();
        let (first, listed) = backlog.enter(one(1), false).unwrap();
        let (second, listed_again) = backlog.enter(one(2), false).unwrap();
        assert!(listed && !listed_again);
        let entry = backlog.take_first().unwrap();
        assert!(backlog.take_first().is_none(), "somebody has the first one");
        backlog.put_back(entry);
        let entry = backlog.take_first().unwrap();
        assert!(Arc::ptr_eq(&entry.ticket, &first));
        assert!(!backlog.unlist_if_empty());
        backlog.finish(entry, Err(Denied::NoSpace));
        assert_eq!(first.outcome(), Some(Err(Denied::NoSpace)));
        let entry = backlog.take_first().unwrap();
        assert!(Arc::ptr_eq(&entry.ticket, &second));
        assert!(!backlog.is_empty());
        backlog.finish(entry, Err(Denied::Closed));
        assert!(backlog.is_empty() && backlog.unlist_if_empty());
        assert!(backlog.enter(one(1), false).unwrap().1, "listed anew");
    }
}
