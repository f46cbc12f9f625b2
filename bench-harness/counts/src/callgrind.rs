//! Runs a path under callgrind and reads what it counted.
//!
//! The profile is text: for each function the instructions of its own, and for each of its calls those of the callee and below
//! (<https://valgrind.org/docs/manual/cl-format.html>). What engine functions spend in calls into the simulated disk is subtracted.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::path::Path;
use crate::region::PATTERN;

/// In the name of every function of the engine.
const ENGINE: &str = "redex::";

/// In the names of what real stores do not have: the simulated disk.
const SIMULATED: &str = "redex::io::sim";

/// Keeps glibc from `rep movsb` and `rep stosb`, of which callgrind counts every byte as an instruction.
const GLIBC_TUNABLES: &str = "glibc.cpu.hwcaps=-ERMS,-FSRM";

/// Instructions of a path for each of its units.
pub fn instructions(path: &Path) -> anyhow::Result<f64> {
    let (short, long) = path.lengths;
    let [few, many] = [run(path, short)?, run(path, long)?];
    Ok((many as f64 - few as f64) / (long - short) as f64)
}

fn run(path: &Path, length: u64) -> anyhow::Result<u64> {
    let profile = std::env::temp_dir().join(format!("redex-counts-{}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-line=no", "--compress-pos=no"])
        .arg(format!("--toggle-collect={PATTERN}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe()?)
        .args(["go", path.name, &length.to_string()])
        .env("GLIBC_TUNABLES", GLIBC_TUNABLES)
        .stdin(Stdio::null())
        .output()
        .context("running valgrind")?;
    ensure!(output.status.success(), "{} under valgrind: {}", path.name, String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&profile).with_context(|| format!("reading {}", profile.display()));
    fs::remove_file(&profile).with_context(|| format!("removing {}", profile.display()))?;
    let counted = counted(&text?).context("reading callgrind's profile")?;
    ensure!(counted > 0, "{}: callgrind counted nothing; does it know functions by name?", path.name);
    Ok(counted)
}

/// All instructions of a profile but those of the simulated disk.
fn counted(profile: &str) -> Option<u64> {
    let mut names = HashMap::new();
    let (mut caller, mut callee) = (String::new(), String::new());
    let (mut all, mut simulated) = (None, 0);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        match line.split_once(['=', ':']) {
            Some(("summary", sum)) => all = sum.trim().parse::<u64>().ok(),
            Some(("fn", name)) => caller = full_name(&mut names, name)?,
            Some(("cfn", name)) => callee = full_name(&mut names, name)?,
            Some(("calls", _)) => {
                let cost = lines.next()?.split_whitespace().nth(1)?.parse::<u64>().ok()?;
                // Calls from within the simulated disk are in those that led there.
                if caller.contains(ENGINE) && !caller.contains(SIMULATED) && callee.contains(SIMULATED) {
                    simulated += cost;
                }
            }
            _ => {}
        }
    }
    all?.checked_sub(simulated)
}

/// A name is written once, with a number that stands for it from then on.
fn full_name(names: &mut HashMap<String, String>, written: &str) -> Option<String> {
    let Some((number, name)) = written.split_once(')') else { return Some(written.to_owned()) };
    if name.is_empty() {
        return names.get(number).cloned();
    }
    names.insert(number.to_owned(), name.trim().to_owned());
    Some(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "# callgrind format
version: 1
positions: line
events: Ir
summary: 1000

fl=(1) a.rs
fn=(1) redex::shard::Shard::turn
0 300
cfn=(2) <redex::io::sim::driver::SimDriver as redex::io::Driver>::submit
calls=7 0
0 400
cfn=(3) alloc::vec::grow
calls=1 0
0 100

fn=(3)
0 50
cfn=(2)
calls=1 0
0 50

fn=(2)
0 150
cfn=(4) redex::io::sim::steps::end
calls=1 0
0 250
";

    #[test]
    fn the_simulated_disk_is_left_out_once() {
        assert_eq!(counted(PROFILE), Some(600));
    }

    #[test]
    fn a_profile_that_is_cut_short_is_none() {
        assert_eq!(counted("fn=(1) a\n0 3\n"), None);
        assert_eq!(counted("summary: 9\nfn=(7)\n"), None);
    }
}
