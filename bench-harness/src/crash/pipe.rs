//! What the child tells the parent, a line each. A line that the kill cut off counts as never written.
//!
//! | line | says |
//! |---|---|
//! | `S next..` | the store is open; the next sequence of every channel |
//! | `A time end..` | everything below these ends is acknowledged in the channels of the policy |
//! | `H head` | the bounded channel's head was seen there |
//! | `B count` | so many batches over channels are durable since the store was made |
//! | `D end` | everything below is durable in the channel that is cut |
//! | `C end` | its events from `end` on are about to be cut off |
//! | `E end` | they are |

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::channels::{COUNT, POLICY_COUNT};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The store is open; the next sequence of every channel.
    Opened(Vec<u64>),
    /// Everything below these was acknowledged by that time.
    Acknowledged(Acknowledged),
    /// Something beside the appends of the policy.
    Beside(Beside),
}

/// How far every channel of the policy was acknowledged at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Since the Unix epoch, read after the last of them was acknowledged.
    pub(crate) at: Duration,
    /// Exclusive upper bound for each channel.
    pub(crate) ends: Vec<u64>,
}

/// What happens beside the appends of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// The bounded channel's head was seen there: it never goes back.
    Head(u64),
    /// So many batches over channels are durable since the store was made.
    Batches(u64),
    /// Everything below is durable in the channel that is cut.
    CutDurable(u64),
    /// Its events from here on are about to be cut off.
    CutBegins(u64),
    /// They are cut off.
    CutEnded(u64),
}

/// Now, by the clock that both processes read.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The line that says that the store is open.
pub(crate) fn opened(next: &[u64]) -> String {
    line("S", next)
}

/// The line that says that everything below `ends` is acknowledged by now.
pub(crate) fn acknowledged(ends: &[u64]) -> String {
    line(&format!("A {}", now().as_nanos()), ends)
}

/// The line that says what happened beside.
pub(crate) fn beside(what: Beside) -> String {
    let (head, number) = match what {
        Beside::Head(head) => ("H", head),
        Beside::Batches(count) => ("B", count),
        Beside::CutDurable(end) => ("D", end),
        Beside::CutBegins(end) => ("C", end),
        Beside::CutEnded(end) => ("E", end),
    };
    line(head, &[number])
}

fn line(head: &str, numbers: &[u64]) -> String {
    let mut line = head.to_owned();
    numbers.iter().for_each(|number| write!(line, " {number}").expect("a String takes everything"));
    line.push('\n');
    line
}

/// Reads a line; `None` if it is not whole.
pub(crate) fn parse(line: &str) -> Option<Message> {
    let mut fields = line.strip_suffix('\n')?.split(' ');
    let kind = fields.next()?;
    let numbers = fields.map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().ok()?;
    match (kind, numbers.as_slice()) {
        ("S", next) if next.len() == COUNT => Some(Message::Opened(numbers)),
        ("A", [at, ends @ ..]) if ends.len() == POLICY_COUNT => {
            Some(Message::Acknowledged(Acknowledged { at: Duration::from_nanos(*at), ends: ends.to_vec() }))
        }
        ("H", [head]) => Some(Message::Beside(Beside::Head(*head))),
        ("B", [count]) => Some(Message::Beside(Beside::Batches(*count))),
        ("D", [end]) => Some(Message::Beside(Beside::CutDurable(*end))),
        ("C", [end]) => Some(Message::Beside(Beside::CutBegins(*end))),
        ("E", [end]) => Some(Message::Beside(Beside::CutEnded(*end))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes lines and reads them, whole and cut off at every byte.
    #[test]
    fn whole_lines_read_back_and_cut_ones_do_not() {
        let next: Vec<u64> = (1..).take(COUNT).collect();
        assert_eq!(parse(&opened(&next)), Some(Message::Opened(next.clone())));
        assert_eq!(parse(&opened(&next[1..])), None);
        let line = acknowledged(&next[..POLICY_COUNT]);
        let Some(Message::Acknowledged(read)) = parse(&line) else { panic!("{line}") };
        assert_eq!(read.ends, next[..POLICY_COUNT]);
        assert!(now() >= read.at && now() - read.at < Duration::from_secs(60));
        for end in 0..line.len() {
            assert_eq!(parse(&line[..end]), None);
        }
        for what in [
            Beside::Head(1),
            Beside::Batches(2),
            Beside::CutDurable(3),
            Beside::CutBegins(40),
            Beside::CutEnded(u64::MAX),
        ] {
            let line = beside(what);
            assert_eq!(parse(&line), Some(Message::Beside(what)));
            assert!((0..line.len()).all(|end| parse(&line[..end]).is_none()));
        }
    }
}
