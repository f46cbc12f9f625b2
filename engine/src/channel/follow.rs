//! What a follower does to a channel that another process writes: there, what is published and what is durable is one.

use super::{Channel, Life};
use crate::follow::overlay::{News, Overlay};
use crate::ids::{Epoch, Seq};
use crate::sync::scheduled::atomic::{Ordering, fence};

impl Channel {
    /// What the journal says of it, if another process writes it.
    #[inline]
    pub fn overlay(&self) -> Option<&Overlay> {
        self.persistence()?.overlay.as_deref()
    }

    /// Shows what the journal says of the channel: head, epochs and end, none of which has gone back. Only the follower does
    /// this, and then has those woken who wait, [`Channel::wake_followers`].
    pub fn follow(&self, news: &News) {
        self.move_head(news.head.min(news.end));
        self.follow_epochs(&news.epochs);
        self.tail.follow_to(news.end);
        self.durable.store(news.end.0, Ordering::Release);
    }

    /// Before any event of a new epoch can be seen, readers are told to go over to it: their cursors name it from then on.
    fn follow_epochs(&self, news: &[(Epoch, Seq)]) {
        let mut epochs = self.epochs.lock().expect("no panic while the lock is held");
        if *epochs == news {
            return;
        }
        epochs.clear();
        epochs.extend_from_slice(news);
        let last = epochs.last().map_or(Epoch(0), |(epoch, _)| *epoch);
        self.epoch.fetch_max(last.0, Ordering::AcqRel);
        drop(epochs);
        self.tail.follow_epochs();
    }

    /// Events from `end` on are gone. Before anything else shows it: nobody looks for them any more, or finds others there.
    pub fn follow_cut(&self, end: Seq, epoch: Epoch) {
        self.cut_off(end, epoch);
        self.tail.follow_to(end);
        self.tail.follow_epochs();
    }

    /// Wakes those who wait for either mark.
    pub fn wake_followers(&self) {
        fence(Ordering::SeqCst);
        match self.life() {
            Life::There => {
                self.tail.wake_readers();
                self.wake_durable(self.durable());
            }
            Life::Ending | Life::Over => self.wake_after_cut(),
        }
    }
}
