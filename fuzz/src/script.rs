//! Which actions of a history are done: all of them, or those that are left when a failure was shrunk.
//!
//! Each action draws from its own seed, so what is left of a history stays what it was.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Lives, and the actions of each, by their numbers in the whole history. Written `0:1-5+9,3:2`: of life 0 the actions 1 to 5
/// and 9, of life 3 action 2, no other lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The actions of each life, in order.
    pub lives: BTreeMap<u32, Vec<u64>>,
}

impl Script {
    /// How many actions there are in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lives.values().map(Vec::len).sum()
    }

    /// Whether no life is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lives.is_empty()
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (life, actions) in &self.lives {
            write!(f, "{between}{life}:")?;
            between = ",";
            let runs = actions.chunk_by(|a, b| a + 1 == *b);
            let runs = runs.map(|run| match run {
                [one] => one.to_string(),
                run => format!("{}-{}", run[0], run[run.len() - 1]),
            });
            f.write_str(&runs.collect::<Vec<_>>().join("+"))?;
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no number; write 0:1-5+9,3:2"));
        let mut lives = BTreeMap::new();
        for part in text.split(',') {
            let (life, runs) = part.split_once(':').ok_or_else(|| format!("{part:?} lacks a colon behind its life"))?;
            let mut actions = Vec::new();
            for run in runs.split('+').filter(|run| !run.is_empty()) {
                let (first, last) = run.split_once('-').unwrap_or((run, run));
                let (first, last) = (number(first)?, number(last)?);
                if last - first.min(last) > 1_000_000 {
                    return Err(format!("{run} is too long"));
                }
                actions.extend(first..=last);
            }
            lives.insert(number(life)? as u32, actions);
        }
        Ok(Self { lives })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let lives = BTreeMap::from([(0, vec![1, 2, 3, 9]), (3, vec![2]), (4, vec![])]);
        let script = Script { lives };
        assert_eq!(script.to_string(), "0:1-3+9,3:2,4:");
        assert_eq!(script.to_string().parse(), Ok(script));
        for wrong in ["", "3", "a:1", "1:x", "1:0-99999999999"] {
            assert!(wrong.parse::<Script>().is_err(), "{wrong}");
        }
    }
}
