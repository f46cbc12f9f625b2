//! What a follower does to a channel that another process writes: there, what is published and what is durable is one.

use std::sync::atomic::{Ordering, fence};

use super::Channel;
use crate::follow::overlay::{News, Overlay};
use crate::ids::{Epoch, Seq};

impl Channel {
    /// What the journal says of it, if another process writes it.
    #[inline]
    pub fn overlay(&self) -> Option<&Overlay> {
        self.persistence.as_ref()?.overlay.as_deref()
    }

    /// The store's epoch: of a channel that another process writes, as far as is known.
    pub fn epoch_now(&self) -> Epoch {
        self.overlay().map_or(self.epoch, Overlay::epoch)
    }

    /// Shows what the journal says of the channel: head, epochs and end, which may have gone back. Only the follower does this,
    /// and then has those woken who wait, [`Channel::wake_followers`].
    pub fn follow(&self, news: &News) {
        self.head.store(news.head.0.min(news.end.0), Ordering::Release);
        {
            let mut epochs = self.epochs.lock().expect("no panic while the lock is held");
            if *epochs != news.epochs {
                epochs.clone_from(&news.epochs);
            }
        }
        self.follow_to(news.end);
    }

    /// Moves both marks. A truncation moves them back, before the events go.
    pub fn follow_to(&self, end: Seq) {
        self.tail.follow_to(end);
        self.durable.store(end.0, Ordering::Release);
    }

    /// Wakes those who wait for either mark.
    pub fn wake_followers(&self) {
        fence(Ordering::SeqCst);
        self.tail.wake_readers();
        self.wake_durable(self.durable());
    }
}
