//! Hands a hunt over to `cargo fuzz`, where that is installed: the same functions, guided by coverage.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::hunt::Plan;
use crate::targets::Target;
use crate::tree::corpus_dir;

/// Whether `cargo fuzz` can be called.
#[must_use]
pub fn is_installed() -> bool {
    let mut command = Command::new("cargo");
    command.args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Where the crate of its targets lies.
fn crate_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/cargo-fuzz"))
}

/// Runs the targets one after the other. Gives the names of those that failed.
///
/// # Errors
///
/// If it cannot be called.
pub fn hunt(plan: &Plan) -> anyhow::Result<Vec<&'static str>> {
    std::fs::create_dir_all(&plan.out)?;
    let weights: u32 = plan.targets.iter().map(|target| target.weight).sum();
    let mut failed = Vec::new();
    for target in &plan.targets {
        let time = plan.time * target.weight / weights.max(1);
        if !run(plan, target, time).with_context(|| format!("cargo fuzz run {}", target.name))? {
            failed.push(target.name);
        }
    }
    Ok(failed)
}

fn run(plan: &Plan, target: &Target, time: Duration) -> anyhow::Result<bool> {
    // What it finds joins neither the committed corpus nor the failures.
    let grown = crate_dir().join("corpus").join(target.name);
    std::fs::create_dir_all(&grown)?;
    let out = std::path::absolute(&plan.out)?;
    let mut command = Command::new("cargo");
    // The sanitizers' flags are unstable ones; a stable toolchain takes them when it is told to.
    command.env("RUSTC_BOOTSTRAP", "1").args(["fuzz", "run", "--fuzz-dir"]).arg(crate_dir());
    command.arg(target.name).arg(grown).arg(corpus_dir().join(target.name)).arg("--");
    command.args(flags(plan, target, time, &out));
    Ok(command.status()?.success())
}

fn flags(plan: &Plan, target: &Target, time: Duration, out: &Path) -> Vec<String> {
    vec![
        format!("-max_total_time={}", time.as_secs().max(1)),
        format!("-max_len={}", target.input_max),
        format!("-seed={}", plan.seed as u32),
        format!("-timeout={}", crate::hunt::HANG.as_secs()),
        format!("-artifact_prefix={}/{}-", out.display(), target.name),
        "-rss_limit_mb=2048".to_owned(),
    ]
}
