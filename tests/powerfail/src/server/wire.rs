//! What the rig asks of the drive's process, and how the two talk: a length, then that many bytes of postcard, each way.

use std::io::{Read, Write};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::drive::Tape;
use crate::drive::cut::{Cut, Left};
use crate::drive::log::Flush;

/// Bytes of a message at the most.
const MESSAGE_SIZE_MAX: u32 = 1 << 30;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Where the log ends now.
    Position,
    /// From now on this many writes of a hundred are answered late.
    HoldPercent(u8),
    /// What the drive holds is what [`Request::Blank`] comes back to.
    SaveBlank,
    /// The drive holds what was saved, with an empty log.
    Blank,
    /// The tape since the drive got its power is the one to cut.
    KeepTape,
    /// The drive holds what a cut of the kept tape leaves, with an empty log.
    Cut(Cut),
    /// The drive holds what a cut of its own tape leaves, with an empty log.
    CutAgain(Cut),
    /// The kept tape.
    Tape,
    /// The tape that the last [`Request::CutAgain`] has cut.
    TapeAgain,
    /// This tape is the one to cut.
    UseTape(Box<Tape>),
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// A position in the log.
    Position(usize),
    /// What is known of the kept tape.
    Kept {
        /// Its length.
        end: usize,
        /// Its flushes.
        flushes: Vec<Flush>,
    },
    /// What a cut left of the writes that no flush covered.
    Left(Left),
    /// A tape.
    Tape(Box<Tape>),
}

/// Sends a message.
///
/// # Errors
///
/// The other end is gone.
pub fn send(to: &mut impl Write, message: &impl Serialize) -> anyhow::Result<()> {
    let bytes = postcard::to_stdvec(message).context("a message does not encode")?;
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= MESSAGE_SIZE_MAX);
    let Some(len) = len else { bail!("a message of {} bytes is too long", bytes.len()) };
    to.write_all(&len.to_le_bytes())?;
    to.write_all(&bytes)?;
    Ok(to.flush()?)
}

/// Receives a message; `None` at the end.
///
/// # Errors
///
/// The other end is gone in the midst of one, or talks otherwise.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> anyhow::Result<Option<T>> {
    let mut len = [0; 4];
    match from.read_exact(&mut len) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let len = u32::from_le_bytes(len);
    if len > MESSAGE_SIZE_MAX {
        bail!("a message of {len} bytes is too long");
    }
    let mut bytes = vec![0; len as usize];
    from.read_exact(&mut bytes).context("a message ends early")?;
    Ok(Some(postcard::from_bytes(&bytes).context("a message does not decode")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_through_in_order() {
        let mut pipe = Vec::new();
        send(&mut pipe, &Request::HoldPercent(30)).unwrap();
        send(&mut pipe, &Request::Position).unwrap();
        let mut from = pipe.as_slice();
        assert!(matches!(receive(&mut from).unwrap(), Some(Request::HoldPercent(30))));
        assert!(matches!(receive(&mut from).unwrap(), Some(Request::Position)));
        assert!(receive::<Request>(&mut from).unwrap().is_none());
        assert!(receive::<Request>(&mut &pipe[..2]).unwrap().is_none());
        assert!(receive::<Request>(&mut &pipe[..5]).is_err());
    }
}
