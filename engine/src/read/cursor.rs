//! The text of a [`Cursor`]: `epoch:seq`, for files, headers and command lines.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use super::subscribe::Cursor;

/// Why a text is no [`Cursor`]. Do not guess: subscribe from a sequence that is known to be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CursorParseError {
    /// There is no colon.
    #[error("a cursor is `epoch:seq`, and this text has no colon")]
    MissingSeparator,
    /// What stands before the colon is no 32-bit number.
    #[error("the epoch of a cursor is a number of up to 32 bits")]
    Epoch(#[source] ParseIntError),
    /// What stands behind the colon is no 64-bit number.
    #[error("the sequence of a cursor is a number of up to 64 bits")]
    Seq(#[source] ParseIntError),
    /// A number has a sign or leading zeros: nothing that a cursor was written as.
    #[error("a number of this cursor has a sign or leading zeros")]
    NotCanonical,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = CursorParseError;

    /// Reads what `Display` writes, and nothing else: no spaces, signs or leading zeros.
    fn from_str(text: &str) -> Result<Self, CursorParseError> {
        let (epoch, seq) = text.split_once(':').ok_or(CursorParseError::MissingSeparator)?;
        let cursor = Self {
            epoch: epoch.parse().map_err(CursorParseError::Epoch)?,
            seq: seq.parse().map_err(CursorParseError::Seq)?,
        };
        if is_canonical(epoch) && is_canonical(seq) { Ok(cursor) } else { Err(CursorParseError::NotCanonical) }
    }
}

/// Of what parses as a number: whether it is written as one would write it.
fn is_canonical(digits: &str) -> bool {
    digits == "0" || digits.as_bytes().first().is_some_and(|first| (b'1'..=b'9').contains(first))
}
