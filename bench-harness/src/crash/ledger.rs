//! What the parent knows of each channel: which round wrote which events, and how many there must be.

/// The books of one store.
#[derive(Debug)]
pub(crate) struct Ledger {
    channels: Vec<Channel>,
}

#[derive(Clone, Debug, Default)]
struct Channel {
    /// First sequence of each round that wrote, ascending; rounds of which nothing survived are dropped.
    rounds: Vec<(u64, u32)>,
    /// Events below this must be there at the next opening.
    required: u64,
    /// Events below this were compared.
    compared: u64,
}

impl Ledger {
    /// Books for `channels` empty channels.
    pub(crate) fn new(channels: usize) -> Self {
        Self { channels: vec![Channel::default(); channels] }
    }

    /// The store was opened and the channels end at `next`; `round` is about to write, if a child opened it. Gives the number of events
    /// that should be there and are not. What an opening found is durable, so the next one must find it too.
    pub(crate) fn opened(&mut self, next: &[u64], round: Option<u32>) -> u64 {
        let mut missing = 0;
        for (channel, &next) in self.channels.iter_mut().zip(next) {
            missing += channel.required.saturating_sub(next);
            channel.rounds.retain(|(first, _)| *first < next);
            channel.rounds.extend(round.map(|round| (next, round)));
            channel.required = next;
            channel.compared = channel.compared.min(next);
        }
        missing
    }

    /// Events below `ends` must be there from now on.
    pub(crate) fn require(&mut self, ends: &[u64]) {
        for (channel, &end) in self.channels.iter_mut().zip(ends) {
            channel.required = channel.required.max(end);
        }
    }

    /// Which round wrote event `seq`.
    pub(crate) fn round(&self, channel: usize, seq: u64) -> Option<u32> {
        let rounds = &self.channels[channel].rounds;
        let after = rounds.partition_point(|(first, _)| *first <= seq);
        rounds[..after].last().map(|(_, round)| *round)
    }

    /// First event that was not compared yet.
    pub(crate) fn compared(&self, channel: usize) -> u64 {
        self.channels[channel].compared
    }

    /// Events below `end` are compared.
    pub(crate) fn set_compared(&mut self, channel: usize, end: u64) {
        self.channels[channel].compared = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_event_that_is_gone_is_missing() {
        let mut ledger = Ledger::new(2);
        assert_eq!(ledger.opened(&[0, 0], Some(0)), 0);
        ledger.require(&[10, 5]);
        assert_eq!(ledger.opened(&[9, 7], None), 1);
        assert_eq!(ledger.opened(&[9, 6], None), 1, "what an opening found must stay");
    }

    /// Round 1 loses all that it wrote, round 2 writes the same sequences again.
    #[test]
    fn an_event_belongs_to_the_round_that_survived() {
        let mut ledger = Ledger::new(1);
        ledger.opened(&[0], Some(0));
        ledger.opened(&[10], Some(1));
        ledger.opened(&[10], Some(2));
        ledger.opened(&[20], Some(3));
        let rounds = [0, 9, 10, 19, 20].map(|seq| ledger.round(0, seq).unwrap());
        assert_eq!(rounds, [0, 0, 2, 2, 3]);
        assert_eq!(Ledger::new(1).round(0, 0), None);
    }
}
