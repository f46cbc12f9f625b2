//! Subscriptions under way: in order and without a gap, and where there is one, it is told, once.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use redex::{Cursor, RedexEvent, SubscribeError, Tail, TailEnd, TailResults};

use crate::failure::chain;
use crate::faults;
use crate::workload::{Run, STEPS_MAX};

/// A subscription, and where it must stand.
pub struct Follower {
    /// Of which channel.
    pub channel: usize,
    /// The sequence that comes next.
    pub next: u64,
    /// Whether it shows only what is durable.
    durable_only: bool,
    /// The lowest end that its channel was cut off at behind its back, and how many cuts it knows of.
    cut: Option<u64>,
    cuts: u64,
    stream: Stream,
}

enum Stream {
    Plain(Tail),
    Results(TailResults),
}

type Item = Option<Result<RedexEvent, TailEnd>>;

impl Stream {
    fn poll(&mut self) -> Poll<Item> {
        let cx = &mut Context::from_waker(Waker::noop());
        match self {
            Self::Results(tail) => futures_core::Stream::poll_next(Pin::new(tail), cx),
            Self::Plain(tail) => futures_core::Stream::poll_next(Pin::new(&mut *tail), cx).map(|event| match event {
                Some(event) => Some(Ok(event)),
                None => match tail.ended().expect("a tail that ended says why") {
                    TailEnd::Closed => None,
                    end => Some(Err(end.clone())),
                },
            }),
        }
    }

    fn cursor(&self) -> Cursor {
        match self {
            Self::Plain(tail) => tail.cursor(),
            Self::Results(tail) => tail.cursor(),
        }
    }

    /// Whether it goes on after an error.
    fn goes_on(&self) -> bool {
        matches!(self, Self::Results(_))
    }
}

impl Follower {
    /// Reads on until the end, which comes since the channel is gone, whatever it is.
    pub fn ends(&mut self) -> Result<(), String> {
        for _ in 0..1_000_000 {
            match self.stream.poll() {
                Poll::Ready(None) => return Ok(()),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_))) if self.stream.goes_on() => {}
                Poll::Ready(Some(Err(_))) => return Ok(()),
                Poll::Pending => return Err("a tail of a deleted channel waits".to_owned()),
            }
        }
        Err("a tail of a deleted channel finds no end".to_owned())
    }
}

impl Run<'_> {
    /// The cuts of the model that a subscription has not been told of.
    fn note_cuts(&self, follower: &mut Follower) {
        let model = &self.world.channels[follower.channel];
        let missed = (model.cuts - follower.cuts) as usize;
        let ends = model.cut_ends.iter().rev().take(missed);
        follower.cut = ends.copied().chain(follower.cut).min();
        follower.cuts = model.cuts;
    }

    /// Reads what a subscription has, or begins one.
    pub(crate) fn follow(&mut self, channel: usize) -> Result<(), String> {
        let Some(mut follower) = self.tail.take() else { return self.subscribe(channel) };
        if !self.world.channels[follower.channel].is_there {
            return follower.ends();
        }
        if self.dice().one_in(3) {
            // It falls behind.
            self.tail = Some(follower);
            return Ok(());
        }
        for _ in 0..self.dice().within(1..100) {
            self.note_cuts(&mut follower);
            match follower.stream.poll() {
                Poll::Ready(Some(Ok(event))) => self.delivered(&mut follower, &event)?,
                Poll::Ready(Some(Err(end))) => {
                    if !self.explained(&mut follower, &end)? {
                        return Ok(());
                    }
                }
                Poll::Ready(None) => return self.excuse("tail", &TailEnd::Closed),
                Poll::Pending if follower.next >= self.mark_of(&follower) && !is_owed(&follower) => break,
                Poll::Pending => {
                    return Err(format!("a tail waits at {} below the mark that it follows", follower.next));
                }
            }
        }
        let cursor = follower.stream.cursor();
        self.note_cuts(&mut follower);
        if is_owed(&follower) {
            self.tail = Some(follower);
            return Ok(());
        }
        if cursor.seq != follower.next {
            return Err(format!("a tail stands at {}, its cursor says {}", follower.next, cursor.seq));
        }
        let model = &mut self.world.channels[follower.channel];
        if cursor.seq <= model.next() && cursor.epoch == model.epoch {
            model.note_cursor(cursor);
        }
        if self.dice().one_in(4) { Ok(()) } else { self.keep(follower) }
    }

    fn keep(&mut self, follower: Follower) -> Result<(), String> {
        self.tail = Some(follower);
        Ok(())
    }

    /// What a subscription says instead of an event is so. Says whether it goes on.
    fn explained(&mut self, follower: &mut Follower, end: &TailEnd) -> Result<bool, String> {
        let model = &self.world.channels[follower.channel];
        let (name, next, head) = (&model.name, follower.next, model.head);
        match end {
            TailEnd::Lost { from, to, .. } => {
                let cut = follower.cut.take();
                if !cut.is_some_and(|cut| *from == cut && cut < next) || *to != next {
                    return Err(format!("{name}: a tail at {next} lost {from}..{to}; cut off at {cut:?}"));
                }
                follower.next = *from;
            }
            TailEnd::Lagged { from, to, .. } => {
                if is_owed(follower) || *from != next || *to != head || head <= next {
                    return Err(format!("{name}: a tail at {next} lagged {from}..{to}; the head is {head}"));
                }
                // What was cut off lies all behind where it was.
                (follower.next, follower.cut) = (*to, None);
            }
            other => return self.excuse("tail", other).map(|()| false),
        }
        Ok(follower.stream.goes_on())
    }

    fn subscribe(&mut self, channel: usize) -> Result<(), String> {
        let (durable_only, results) = (self.dice().one_in(3), self.dice().one_in(2));
        let model = &self.world.channels[channel];
        let count = model.cursors.len() as u64;
        let cursor = (count > 0).then(|| model.cursors[self.world.dice.within(0..count) as usize]);
        let limit = model.next() + 1;
        let (subscribe, next) = match cursor.filter(|_| self.world.dice.one_in(2)) {
            Some((cursor, next)) => (self.files[channel].subscribe_from(cursor), next),
            None => {
                let next = self.world.dice.within(0..limit);
                (self.files[channel].subscribe_from(next), Some(next))
            }
        };
        match (subscribe.wait(), next) {
            (Ok(tail), Some(next)) => {
                let tail = if durable_only { tail.durable_only() } else { tail };
                let stream = if results { Stream::Results(tail.results()) } else { Stream::Plain(tail) };
                let cuts = self.world.channels[channel].cuts;
                self.keep(Follower { channel, next, durable_only, cut: None, cuts, stream })
            }
            (Err(SubscribeError::LostEvents { .. }), None) => Ok(()),
            (Ok(_), None) => Err(format!("a cursor behind what a crash or a cut took back is taken: {cursor:?}")),
            (Err(error), _) => Err(format!("subscribe_from {cursor:?}: {}", chain(&error))),
        }
    }

    fn mark_of(&self, follower: &Follower) -> u64 {
        let file = &self.files[follower.channel];
        if follower.durable_only { file.durable() } else { file.published() }
    }

    /// An event was delivered: it is the right one, and if only durable ones may be, no crash takes it back.
    fn delivered(&mut self, follower: &mut Follower, event: &RedexEvent) -> Result<(), String> {
        let model = &mut self.world.channels[follower.channel];
        if is_owed(follower) || follower.next < model.head {
            return Err(format!("a tail went on at {} without a word", event.seq));
        }
        // What was cut off lies all behind it.
        follower.cut = None;
        crate::check::same(model, follower.next, event)?;
        follower.next += 1;
        if follower.durable_only {
            // Whatever the channel says of its mark: the next opening looks for it.
            model.acknowledged(follower.next);
        }
        Ok(())
    }

    /// What is left in the subscription of a handle that was closed: everything that was published, then the end.
    pub(crate) fn end_of(&mut self, follower: &mut Follower) -> Result<(), String> {
        for step in 0..STEPS_MAX {
            faults::make_room(self.world, step);
            self.note_cuts(follower);
            match follower.stream.poll() {
                Poll::Ready(Some(Ok(event))) => self.delivered(follower, &event)?,
                Poll::Ready(Some(Err(end))) => {
                    if !self.explained(follower, &end)? {
                        return Ok(());
                    }
                }
                Poll::Ready(None) => {
                    return match follower.next == self.world.channels[follower.channel].next() {
                        true => Ok(()),
                        false => Err(format!("a tail ended at {}, below what was published", follower.next)),
                    };
                }
                Poll::Pending => self.step("a tail of a closed handle")?,
            }
        }
        Err("the tail of a closed handle finds no end".to_owned())
    }
}

/// Whether a subscription has to say that it lost something, before anything else.
fn is_owed(follower: &Follower) -> bool {
    follower.cut.is_some_and(|cut| cut < follower.next)
}
