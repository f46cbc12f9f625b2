//! Reopens the store after a kill and compares every event that was not compared yet, and some that were.

use anyhow::Context;
use redex::RedexFile;

use super::ledger::Ledger;
use super::payload::{self, Author};
use super::{Place, channels};
use crate::args::CrashArgs;
use crate::load::splitmix64;
use crate::store;

/// Events compared again in each channel.
const SAMPLE_COUNT: u64 = 50;

/// Wrong events that are described; the rest is counted.
const DESCRIBED_MAX: u64 = 10;

/// What an opening found.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// Next sequence of each channel.
    pub(crate) next: Vec<u64>,
    /// Events compared.
    pub(crate) compared: u64,
    /// Payload bytes compared.
    pub(crate) bytes: u64,
    /// Events that should be there and are not.
    pub(crate) missing: u64,
    /// Events that are not what was appended.
    pub(crate) wrong: u64,
}

/// Opens the store in `place`, compares, and closes it. With `all`, every event is compared and everything on disk is checked by
/// the engine as well, else only new events and a sample.
pub(crate) fn reopen(
    args: &CrashArgs,
    place: &Place,
    ledger: &mut Ledger,
    all: bool,
    random: u64,
) -> anyhow::Result<Verified> {
    let redex =
        channels::open_store(&place.dir, place.number, args.place.backend).context("reopening after the kill")?;
    let files = channels::open(&redex, args.policy)?;
    let next: Vec<u64> = files.iter().map(RedexFile::next_seq).collect();
    let wrongs = ledger.opened(&next, None);
    let mut found = Verified { next, missing: wrongs.missing, ..Verified::default() };
    wrongs
        .broken
        .iter()
        .chain(&ledger.check_head(files[channels::BOUNDED].head_seq()))
        .for_each(|what| found.describe(what));
    let mut comparison = Comparison { seed: args.seed, ledger, expected: Vec::new(), found };
    for (channel, file) in files.iter().enumerate() {
        comparison.channel(channel, file, all, random)?;
        if all {
            let report = file.verify().wait();
            report
                .findings
                .iter()
                .for_each(|finding| comparison.found.describe(&format!("channel {channel}: {finding}")));
        }
    }
    let found = comparison.found;
    drop(files);
    store::close(redex)?;
    Ok(found)
}

impl Verified {
    /// Counts something that is wrong, and says what it is unless much has been said.
    pub(crate) fn describe(&mut self, what: &str) {
        self.wrong += 1;
        if self.wrong <= DESCRIBED_MAX {
            eprintln!("{what}");
        }
    }
}

struct Comparison<'a> {
    seed: u64,
    ledger: &'a mut Ledger,
    expected: Vec<u8>,
    found: Verified,
}

impl Comparison<'_> {
    fn channel(&mut self, channel: usize, file: &RedexFile, all: bool, mut random: u64) -> anyhow::Result<()> {
        let end = self.found.next[channel];
        let head = file.head_seq();
        let first = if all { head } else { self.ledger.compared(channel).max(head) };
        let mut seq = first;
        let mut scan = file.scan(first..end);
        while let Some(event) = scan.next_wait() {
            let event = event.with_context(|| format!("reading channel {channel}, event {seq}"))?;
            self.event(channel, seq, Some((event.seq, &event.payload)));
            seq += 1;
        }
        (seq..end).for_each(|seq| self.event(channel, seq, None));
        for _ in 0..if first == head { 0 } else { SAMPLE_COUNT } {
            let seq = head + splitmix64(&mut random) % (first - head);
            let event = file.read_one(seq).wait().with_context(|| format!("reading channel {channel}, event {seq}"))?;
            self.event(channel, seq, event.as_ref().map(|event| (event.seq, &event.payload[..])));
        }
        self.ledger.set_compared(channel, end);
        Ok(())
    }

    /// Compares one event with what its round appended.
    fn event(&mut self, channel: usize, seq: u64, found: Option<(u64, &[u8])>) {
        self.found.compared += 1;
        let author = self.ledger.author(channel, seq);
        payload::make(&mut self.expected, self.seed, author.unwrap_or(Author::of(0)), channel, seq);
        let why = match found {
            None => "cannot be found",
            Some((at, _)) if at != seq => "comes under another sequence",
            Some(_) if author.is_none() => "was never appended",
            Some((_, bytes)) if bytes.len() != self.expected.len() => "has another size than what was appended",
            Some((_, bytes)) if bytes != self.expected => "has other bytes than what was appended",
            Some((_, bytes)) => {
                self.found.bytes += bytes.len() as u64;
                return;
            }
        };
        self.found.describe(&format!("channel {channel}, event {seq} {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::Outcome;

    const SEED: u64 = 5;

    /// Ten events of round 3 in channel 0, of which the last is gone; what `change` makes of the others is compared.
    fn compared(change: impl Fn(u64, &mut u64, &mut Vec<u8>) -> bool) -> Verified {
        let mut ledger = Ledger::new();
        let ends = |first| {
            let mut ends = vec![0; channels::COUNT];
            ends[0] = first;
            ends
        };
        ledger.opened(&ends(0), Some(3));
        ledger.require(&ends(10));
        let missing = ledger.opened(&ends(9), None).missing;
        let found = Verified { next: ends(9), missing, ..Verified::default() };
        let mut comparison = Comparison { seed: SEED, ledger: &mut ledger, expected: Vec::new(), found };
        for seq in 0..9 {
            let (mut at, mut bytes) = (seq, Vec::new());
            payload::make(&mut bytes, SEED, Author::of(3), 0, seq);
            let is_there = change(seq, &mut at, &mut bytes);
            comparison.event(0, seq, is_there.then_some((at, &bytes[..])));
        }
        comparison.found
    }

    #[test]
    fn a_missing_event_is_a_loss() {
        let found = compared(|_, _, _| true);
        assert_eq!((found.compared, found.wrong, found.missing), (9, 0, 1));
        let outcome = Outcome { missing: found.missing, ..Outcome::default() };
        assert!(!outcome.intact());
        assert!(Outcome::default().intact());
    }

    #[test]
    fn a_wrong_event_is_counted_whatever_is_wrong_with_it() {
        let last_byte = |seq, _: &mut u64, bytes: &mut Vec<u8>| {
            if let (4, Some(last)) = (seq, bytes.last_mut()) {
                *last ^= 1;
            }
            true
        };
        assert_eq!(compared(last_byte).wrong, 1);
        assert_eq!(
            compared(|seq, _, bytes| {
                if seq == 5 {
                    bytes.push(0);
                }
                true
            })
            .wrong,
            1,
            "another size"
        );
        assert_eq!(
            compared(|seq, at, _| {
                *at += u64::from(seq == 6);
                true
            })
            .wrong,
            1,
            "another sequence"
        );
        assert_eq!(compared(|seq, _, _| seq != 7).wrong, 1, "cannot be found");
        let outcome = Outcome { wrong: 1, ..Outcome::default() };
        assert!(!outcome.intact());
    }

    /// The event of a round of which nothing survived is not what was appended there.
    #[test]
    fn an_event_of_another_round_is_wrong() {
        let other_round = |seq, _: &mut u64, bytes: &mut Vec<u8>| {
            if seq == 2 {
                payload::make(bytes, SEED, Author::of(2), 0, seq);
            }
            true
        };
        assert_eq!(compared(other_round).wrong, 1);
    }
}
