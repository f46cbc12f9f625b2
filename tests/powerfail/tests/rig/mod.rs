//! Runs `redex-powerfail`, as a user would.

use std::process::{Command, Output};

/// The program.
pub fn powerfail(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redex-powerfail"));
    command.args(words);
    command
}

/// Runs it; `None`, said loudly, where a machine has not what it needs. Where `REDEX_CI_NO_SKIP` is 1 that is a failure.
///
/// # Panics
///
/// If it cannot run and must.
#[allow(dead_code)] // One of the tests starts it otherwise.
pub fn run(words: &[&str]) -> Option<(Output, String)> {
    let output = powerfail(words).output().expect("the program was built with this test");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if errors.contains("SKIPPED") {
        eprintln!("SKIPPED: {errors}");
        return None;
    }
    assert!(!errors.contains("it cannot run here"), "{errors}");
    Some((output, text + &errors))
}
