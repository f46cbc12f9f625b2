//! What the child tells the parent, one line each: `S` and the next sequence of every channel once the store is open; `A`, the time and
//! the acknowledged sequences (exclusive upper bounds) from time to time. A line that the kill cut off counts as never written.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The store is open; the next sequence of every channel.
    Opened(Vec<u64>),
    /// Everything below these was acknowledged by that time.
    Acknowledged(Acknowledged),
}

/// How far every channel was acknowledged at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Since the Unix epoch, read after the last of them was acknowledged.
    pub(crate) at: Duration,
    /// Exclusive upper bound for each channel.
    pub(crate) ends: Vec<u64>,
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

fn line(head: &str, numbers: &[u64]) -> String {
    let mut line = head.to_owned();
    numbers.iter().for_each(|number| write!(line, " {number}").expect("a String takes everything"));
    line.push('\n');
    line
}

/// Reads a line; `None` if it is not whole.
pub(crate) fn parse(line: &str, channels: usize) -> Option<Message> {
    let mut fields = line.strip_suffix('\n')?.split(' ');
    let kind = fields.next()?;
    let mut numbers = fields.map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().ok()?;
    let at = if kind == "A" && !numbers.is_empty() { Some(Duration::from_nanos(numbers.remove(0))) } else { None };
    match (kind, at) {
        _ if numbers.len() != channels => None,
        ("S", None) => Some(Message::Opened(numbers)),
        ("A", Some(at)) => Some(Message::Acknowledged(Acknowledged { at, ends: numbers })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes lines and reads them, whole and cut off at every byte.
    #[test]
    fn whole_lines_read_back_and_cut_ones_do_not() {
        assert_eq!(parse(&opened(&[1, 2]), 2), Some(Message::Opened(vec![1, 2])));
        let line = acknowledged(&[7, 8, 9]);
        let Some(Message::Acknowledged(read)) = parse(&line, 3) else { panic!("{line}") };
        assert_eq!(read.ends, [7, 8, 9]);
        assert!(now() >= read.at && now() - read.at < Duration::from_secs(60));
        for end in 0..line.len() {
            assert_eq!(parse(&line[..end], 3), None);
        }
    }
}
