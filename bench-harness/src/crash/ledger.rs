//! What the parent knows of each channel: who appended which events, and what must be there.

use super::channels::{self, BOUNDED, CUT, GROUPED};
use super::payload::Author;
use super::pipe::Beside;

/// The books of one store.
#[derive(Debug)]
pub(crate) struct Ledger {
    channels: Vec<Channel>,
    /// The bounded channel's head lay there, durably.
    head: u64,
    /// A cut was asked for, and nobody has said that it is done.
    asked_cut: Option<u64>,
    /// What children said that cannot be.
    broken: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Channel {
    /// First sequence of each author, ascending; those of which nothing survived are dropped.
    authors: Vec<(u64, Author)>,
    /// Events below this must be there at the next opening.
    required: u64,
    /// Events below this were compared.
    compared: u64,
}

impl Channel {
    /// Ends at `end`: whoever appended from there on is forgotten.
    fn ends(&mut self, end: u64) {
        self.authors.retain(|(first, _)| *first < end);
        self.required = end;
        self.compared = self.compared.min(end);
    }
}

/// What an opening shows that cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrongs {
    /// Events that should be there and are not.
    pub(crate) missing: u64,
    /// A sentence for each other thing.
    pub(crate) broken: Vec<String>,
}

impl Ledger {
    /// Books for a store that is made now.
    pub(crate) fn new() -> Self {
        Self { channels: vec![Channel::default(); channels::COUNT], head: 0, asked_cut: None, broken: Vec::new() }
    }

    /// The store was opened and the channels end at `next`; `round` is about to write, if a child opened it. What an opening
    /// found is durable, so the next one must find it too.
    pub(crate) fn opened(&mut self, next: &[u64], round: Option<u32>) -> Wrongs {
        let mut wrongs = Wrongs { missing: 0, broken: std::mem::take(&mut self.broken) };
        let asked_cut = self.asked_cut.take();
        for (number, (channel, &next)) in self.channels.iter_mut().zip(next).enumerate() {
            // A cut that was in flight has been made, or nothing of it.
            if number != CUT || asked_cut != Some(next) {
                wrongs.missing += channel.required.saturating_sub(next);
            }
            channel.ends(next);
            channel.authors.extend(round.map(|round| (next, Author::of(round))));
        }
        let [ones, twos] = GROUPED.map(|channel| next[channel]);
        if twos != 2 * ones {
            wrongs.broken.push(format!("a batch was torn: {ones} events in one channel, {twos} in the other"));
        }
        wrongs
    }

    /// Events below `ends` must be there from now on.
    pub(crate) fn require(&mut self, ends: &[u64]) {
        for (channel, &end) in self.channels.iter_mut().zip(ends) {
            channel.required = channel.required.max(end);
        }
    }

    /// `round` did this.
    pub(crate) fn beside(&mut self, round: u32, what: Beside) {
        let cut = &mut self.channels[CUT];
        match what {
            Beside::Head(head) => {
                if head < self.head {
                    self.broken.push(format!("the head went back from {} to {head}", self.head));
                }
                self.head = head;
            }
            Beside::Batches(count) => {
                self.channels[GROUPED[0]].required = count;
                self.channels[GROUPED[1]].required = 2 * count;
            }
            Beside::CutDurable(end) => cut.required = cut.required.max(end),
            Beside::CutBegins(end) => self.asked_cut = Some(end),
            Beside::CutEnded(end) => {
                let last = cut.authors.last().map(|(_, author)| *author).filter(|author| author.round == round);
                let author = Author { round, cuts: last.map_or(0, |author| author.cuts) + 1 };
                cut.ends(end);
                cut.authors.push((end, author));
                self.asked_cut = None;
            }
        }
    }

    /// Says what is wrong with a head that is found there, if anything is.
    pub(crate) fn check_head(&mut self, head: u64) -> Option<String> {
        let next = self.channels[BOUNDED].required;
        let broken = (head < self.head || head > next)
            .then(|| format!("the head was {} and is {head}, with the end at {next}", self.head));
        self.head = head;
        broken
    }

    /// Who appended event `seq`.
    pub(crate) fn author(&self, channel: usize, seq: u64) -> Option<Author> {
        let authors = &self.channels[channel].authors;
        let after = authors.partition_point(|(first, _)| *first <= seq);
        authors[..after].last().map(|(_, author)| *author)
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

    /// Ends of all channels: the first one's, and what the others have in common.
    fn ends(first: u64) -> Vec<u64> {
        let mut ends = vec![0; channels::COUNT];
        ends[0] = first;
        ends
    }

    fn cut_ends(end: u64) -> Vec<u64> {
        let mut ends = ends(0);
        ends[CUT] = end;
        ends
    }

    #[test]
    fn a_required_event_that_is_gone_is_missing() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.opened(&ends(0), Some(0)), Wrongs::default());
        ledger.require(&ends(10));
        assert_eq!(ledger.opened(&ends(9), None).missing, 1);
        assert_eq!(ledger.opened(&ends(8), None).missing, 1, "what an opening found must stay");
    }

    /// Round 1 loses all that it wrote, round 2 writes the same sequences again.
    #[test]
    fn an_event_belongs_to_the_round_that_survived() {
        let mut ledger = Ledger::new();
        for (next, round) in [(0, 0), (10, 1), (10, 2), (20, 3)] {
            ledger.opened(&ends(next), Some(round));
        }
        let rounds = [0, 9, 10, 19, 20].map(|seq| ledger.author(0, seq).unwrap().round);
        assert_eq!(rounds, [0, 0, 2, 2, 3]);
        assert_eq!(Ledger::new().author(0, 0), None);
    }

    #[test]
    fn a_batch_is_there_whole_or_not_at_all() {
        let mut ledger = Ledger::new();
        ledger.opened(&ends(0), Some(0));
        ledger.beside(0, Beside::Batches(3));
        let with = |ones, twos| {
            let mut ends = ends(0);
            (ends[GROUPED[0]], ends[GROUPED[1]]) = (ones, twos);
            ends
        };
        assert_eq!(ledger.opened(&with(4, 8), None), Wrongs::default(), "one more was in flight");
        assert_eq!(ledger.opened(&with(3, 6), None).missing, 3);
        assert_eq!(ledger.opened(&with(3, 7), None).broken.len(), 1);
    }

    /// A cut that nobody has said is done has been made, or nothing of it.
    #[test]
    fn a_cut_in_flight_takes_all_or_nothing() {
        for (found, missing) in [(20, 0), (5, 0), (12, 8), (4, 16)] {
            let mut ledger = Ledger::new();
            ledger.opened(&ends(0), Some(0));
            ledger.beside(0, Beside::CutDurable(20));
            ledger.beside(0, Beside::CutBegins(5));
            assert_eq!(ledger.opened(&cut_ends(found), None).missing, missing, "{found}");
            assert_eq!(ledger.opened(&cut_ends(found), None).missing, 0, "what was found is what is there");
        }
    }

    #[test]
    fn what_comes_behind_a_cut_has_another_author() {
        let mut ledger = Ledger::new();
        ledger.opened(&ends(0), Some(7));
        for end in [10, 5] {
            ledger.beside(7, Beside::CutDurable(20));
            ledger.beside(7, Beside::CutBegins(end));
            ledger.beside(7, Beside::CutEnded(end));
        }
        let cuts = [4, 5, 6].map(|seq| ledger.author(CUT, seq).unwrap().cuts);
        assert_eq!(cuts, [0, 2, 2]);
        assert_eq!(ledger.opened(&cut_ends(4), Some(8)).missing, 1);
        assert_eq!(ledger.author(CUT, 4), Some(Author::of(8)));
    }

    #[test]
    fn a_head_never_goes_back_or_beyond_the_end() {
        let mut ledger = Ledger::new();
        let mut next = ends(0);
        next[BOUNDED] = 100;
        ledger.opened(&next, None);
        ledger.beside(0, Beside::Head(50));
        assert_eq!(ledger.opened(&next, None), Wrongs::default());
        ledger.beside(0, Beside::Head(49));
        assert_eq!(ledger.opened(&next, None).broken.len(), 1);
        ledger.beside(0, Beside::Head(50));
        assert_eq!(ledger.check_head(50), None);
        assert!(ledger.check_head(49).is_some());
        assert!(ledger.check_head(101).is_some());
    }
}
