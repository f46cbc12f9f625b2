//! The drive's process: serves the file through FUSE, and the rig's requests through its standard input and output.
//!
//! It is a process of its own since it must never wait for the file systems that stand on it: when the rig is killed, this one
//! ends with its input, the kernel fails what is in flight, and nothing hangs.

pub mod file;
pub mod remote;
pub mod wire;

use std::io::{BufReader, BufWriter, stdin, stdout};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use fuser::{Config, MountOption};

use self::file::{OneFile, Shared, lock};
use self::wire::{Answer, Request, receive, send};
use crate::drive::image::Image;
use crate::drive::{Drive, Tape};

/// Serves until the input ends.
///
/// # Errors
///
/// FUSE cannot be mounted, or the rig talks nonsense.
pub fn serve(mount_point: &Path, size: u64) -> anyhow::Result<()> {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("redex-powerfail".to_owned()), MountOption::NoAtime];
    let session = fuser::spawn_mount(OneFile::new(shared.clone(), size), mount_point, &config)
        .with_context(|| format!("FUSE cannot be mounted at {}", mount_point.display()))?;
    let (mut from, mut to) = (BufReader::new(stdin().lock()), BufWriter::new(stdout().lock()));
    let mut desk = Desk { shared, blank: Image::default(), tape: Tape::default(), again: Tape::default() };
    // The rig waits for this before it opens the file.
    send(&mut to, &Answer::Done)?;
    while let Some(request) = receive(&mut from)? {
        send(&mut to, &desk.answer(request))?;
    }
    drop(session);
    Ok(())
}

/// What requests are about.
struct Desk {
    shared: Arc<Mutex<Shared>>,
    blank: Image,
    tape: Tape,
    again: Tape,
}

impl Desk {
    fn answer(&mut self, request: Request) -> Answer {
        let mut shared = lock(&self.shared);
        match request {
            Request::Position => return Answer::Position(shared.drive.tape().log.position()),
            Request::HoldPercent(percent) => shared.hold_percent = percent,
            Request::SaveBlank => self.blank = shared.drive.image().clone(),
            Request::Blank => shared.drive = Drive::holding(self.blank.clone()),
            Request::KeepTape => {
                self.tape = shared.drive.tape().clone();
                let log = &self.tape.log;
                return Answer::Kept { end: log.position(), flushes: log.flushes() };
            }
            Request::Cut(cut) => {
                let (image, left) = self.tape.cut(&cut);
                shared.drive = Drive::holding(image);
                return Answer::Left(left);
            }
            Request::CutAgain(cut) => {
                self.again = std::mem::take(&mut shared.drive).into_tape();
                let (image, left) = self.again.cut(&cut);
                shared.drive = Drive::holding(image);
                return Answer::Left(left);
            }
            Request::Tape => return Answer::Tape(Box::new(self.tape.clone())),
            Request::TapeAgain => return Answer::Tape(Box::new(self.again.clone())),
            Request::UseTape(tape) => self.tape = *tape,
        }
        Answer::Done
    }
}
