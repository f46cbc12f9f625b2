//! The channels that may have something to destage, in two lines: those that somebody waits for, and the others.
//!
//! Promises: a channel stands in one line at the most, and each line is worked off in order. The first one is served three
//! times of four: so the other one, for which checkpoints wait, goes on however long the first is.

use std::collections::VecDeque;

use super::active::DestageTurn;
use super::handle::Slot;

/// Of so many channels one comes from the line of the others.
const SHARE: u32 = 4;

/// See the module's text. Who stands in it, and where, is known by the channels ([`super::active::Active::destage_turn`]).
#[derive(Debug, Default)]
pub struct DestageQueue {
    first: VecDeque<Slot>,
    in_order: VecDeque<Slot>,
    taken: u32,
}

impl DestageQueue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.first.len() + self.in_order.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lines a channel up; `before` is where it stands already.
    pub fn push(&mut self, slot: Slot, before: Option<DestageTurn>, turn: DestageTurn) {
        match (before, turn) {
            (None, DestageTurn::InOrder) => self.in_order.push_back(slot),
            (None, DestageTurn::First) => self.first.push_back(slot),
            (Some(DestageTurn::InOrder), DestageTurn::First) => {
                self.in_order.retain(|other| *other != slot);
                self.first.push_back(slot);
            }
            (Some(_), _) => {}
        }
    }

    /// Takes a channel out, which is gone.
    pub fn remove(&mut self, slot: Slot) {
        self.first.retain(|other| *other != slot);
        self.in_order.retain(|other| *other != slot);
    }

    /// Takes the next one.
    pub fn pop(&mut self) -> Option<Slot> {
        self.taken = self.taken.wrapping_add(1);
        match self.taken.is_multiple_of(SHARE) {
            true => self.in_order.pop_front().or_else(|| self.first.pop_front()),
            false => self.first.pop_front().or_else(|| self.in_order.pop_front()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_line_starves() {
        let mut queue = DestageQueue::default();
        (0..10).for_each(|slot| queue.push(slot, None, DestageTurn::InOrder));
        (100..200).for_each(|slot| queue.push(slot, None, DestageTurn::First));
        queue.push(5, Some(DestageTurn::InOrder), DestageTurn::First);
        queue.push(6, Some(DestageTurn::InOrder), DestageTurn::InOrder);
        assert_eq!(queue.len(), 110);
        let mut taken = Vec::new();
        for _ in 0..40 {
            // The first line never gets shorter.
            let slot = queue.pop().unwrap();
            taken.push(slot);
            if slot >= 100 {
                queue.push(slot, None, DestageTurn::First);
            }
        }
        let in_order: Vec<_> = taken.iter().copied().filter(|slot| *slot < 10).collect();
        assert_eq!(in_order, [0, 1, 2, 3, 4, 6, 7, 8, 9]);
    }
}
