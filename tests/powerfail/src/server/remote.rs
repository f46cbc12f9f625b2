//! The drive's process as the rig sees it: each call asks, and waits for the answer.

use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};

use super::wire::{Answer, Request, receive, send};
use crate::drive::Tape;
use crate::drive::cut::{Cut, Left};
use crate::drive::log::Flush;

/// A running drive. Dropping it ends its process, and with it the FUSE mount.
#[derive(Debug)]
pub struct Remote {
    child: Child,
    to: Option<BufWriter<ChildStdin>>,
    from: BufReader<ChildStdout>,
}

/// What is known of the tape that is cut.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its length.
    pub end: usize,
    /// Its flushes.
    pub flushes: Vec<Flush>,
}

impl Remote {
    /// Starts a drive of `size` bytes, whose file then lies in `mount_point`.
    ///
    /// # Errors
    ///
    /// It does not come up; it has said why on standard error.
    pub fn start(mount_point: &Path, size: u64) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("this program's own path is unknown")?)
            .arg("serve")
            .arg(mount_point)
            .arg(size.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the drive's process does not start")?;
        let to = child.stdin.take().map(BufWriter::new);
        let from = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut remote = Self { child, to, from };
        remote.answer()?;
        Ok(remote)
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        receive(&mut self.from)?.context("the drive's process is gone")
    }

    fn ask(&mut self, request: &Request) -> anyhow::Result<Answer> {
        send(self.to.as_mut().expect("it is there until this is dropped"), request)?;
        self.answer()
    }

    fn tell(&mut self, request: &Request) -> anyhow::Result<()> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            other => bail!("the drive's process answers {request:?} by {other:?}"),
        }
    }

    /// Where the log ends now. Everything that was durable when this is called is so before the position.
    pub fn position(&mut self) -> anyhow::Result<usize> {
        match self.ask(&Request::Position)? {
            Answer::Position(position) => Ok(position),
            other => bail!("no position but {other:?}"),
        }
    }

    /// See [`Request::HoldPercent`].
    pub fn hold_percent(&mut self, percent: u8) -> anyhow::Result<()> {
        self.tell(&Request::HoldPercent(percent))
    }

    /// See [`Request::SaveBlank`].
    pub fn save_blank(&mut self) -> anyhow::Result<()> {
        self.tell(&Request::SaveBlank)
    }

    /// See [`Request::Blank`].
    pub fn blank(&mut self) -> anyhow::Result<()> {
        self.tell(&Request::Blank)
    }

    /// See [`Request::KeepTape`].
    pub fn keep_tape(&mut self) -> anyhow::Result<Kept> {
        match self.ask(&Request::KeepTape)? {
            Answer::Kept { end, flushes } => Ok(Kept { end, flushes }),
            other => bail!("no tape but {other:?}"),
        }
    }

    /// See [`Request::Cut`].
    pub fn cut(&mut self, cut: Cut) -> anyhow::Result<Left> {
        self.left(&Request::Cut(cut))
    }

    /// See [`Request::CutAgain`].
    pub fn cut_again(&mut self, cut: Cut) -> anyhow::Result<Left> {
        self.left(&Request::CutAgain(cut))
    }

    fn left(&mut self, request: &Request) -> anyhow::Result<Left> {
        match self.ask(request)? {
            Answer::Left(left) => Ok(left),
            other => bail!("no cut but {other:?}"),
        }
    }

    /// The kept tape.
    pub fn tape(&mut self) -> anyhow::Result<Tape> {
        self.asked_tape(&Request::Tape)
    }

    /// The tape that the last [`Remote::cut_again`] has cut.
    pub fn tape_again(&mut self) -> anyhow::Result<Tape> {
        self.asked_tape(&Request::TapeAgain)
    }

    fn asked_tape(&mut self, request: &Request) -> anyhow::Result<Tape> {
        match self.ask(request)? {
            Answer::Tape(tape) => Ok(*tape),
            other => bail!("no tape but {other:?}"),
        }
    }

    /// See [`Request::UseTape`].
    pub fn use_tape(&mut self, tape: Tape) -> anyhow::Result<()> {
        self.tell(&Request::UseTape(Box::new(tape)))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.wait();
    }
}
