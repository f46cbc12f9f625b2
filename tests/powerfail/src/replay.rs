//! One point once more, exactly: from the recording that a failed run has saved.

use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::args::ReplayArgs;
use crate::case::{Saved, Tally, check_cut, check_second, describe};
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
    rig.drive.use_tape(saved.tape.clone())?;
    if let Some(shell) = &args.shell {
        rig.drive.cut(saved.point.cut)?;
        let mounted = rig.mount()?;
        println!("mounted at {}; gone when {} ends", mounted.at().display(), shell.display());
        Command::new(shell).current_dir(mounted.at()).status().context("it does not start")?;
        // Whoever worked there may have left something open: it goes with the namespace.
        return Ok(ExitCode::SUCCESS);
    }
    println!("saved when it failed: {}", saved.what);
    let mut failed = 0;
    for _ in 0..args.times {
        if let Err(error) = once(&mut rig, &saved) {
            println!("{}", describe(&saved.point, &error));
            failed += 1;
        }
    }
    match failed {
        0 => println!("the point is as it must be, {} times", args.times),
        _ => println!("{failed} of {} times it is not as it must be", args.times),
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The point from its first cut on, and the second cut in the log that was saved.
fn once(rig: &mut Rig, saved: &Saved) -> anyhow::Result<()> {
    if let Some(second) = &saved.second {
        check_second(rig, &saved.settings, second)?;
    }
    rig.drive.use_tape(saved.tape.clone())?;
    let result = check_cut(rig, &saved.settings, &saved.history, saved.point, &mut Tally::default());
    result.map(drop).map_err(|failed| failed.error)
}
