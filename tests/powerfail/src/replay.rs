//! One point once more, exactly: from the recording that a failed run has saved.

use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::args::ReplayArgs;
use crate::case::{Saved, Tally, check_cut, describe};
use crate::rig::{Rig, namespace};

/// Repeats the point, and says what comes of it.
///
/// # Errors
///
/// The file is not a recording of this version, or the rig cannot be set up.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let path = args.recording.display();
    let bytes = std::fs::read(&args.recording).with_context(|| format!("{path} cannot be read"))?;
    let saved: Saved = postcard::from_bytes(&bytes)
        .with_context(|| format!("{path} is no recording of this version of redex-powerfail"))?;
    let room = namespace::enter()?;
    let mut rig = Rig::new(&room, saved.kind)?;
    rig.drive.use_tape(saved.tape)?;
    if let Some(shell) = &args.shell {
        rig.drive.cut(saved.point.cut)?;
        let mounted = rig.mount()?;
        println!("mounted at {}; gone when {} ends", mounted.at().display(), shell.display());
        Command::new(shell).current_dir(mounted.at()).status().context("it does not start")?;
        // Whoever worked there may have left something open: it goes with the namespace.
        return Ok(ExitCode::SUCCESS);
    }
    match check_cut(&mut rig, &saved.settings, &saved.history, saved.point, &mut Tally::default()) {
        Ok(_) => {
            println!("the point is as it must be");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("{}", describe(&saved.point, &error));
            Ok(ExitCode::FAILURE)
        }
    }
}
