//! A run that is killed leaves nothing behind: no process, no mount, no loop device.

mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use redex_powerfail::args::{Cli, Command, Work};
use redex_powerfail::requirements;

const PATIENCE: Duration = Duration::from_secs(30);

fn work(words: &[&str]) -> Work {
    match Cli::parse_from([&["redex-powerfail"], words].concat()).command {
        Command::Run(args) => args.work,
        other => panic!("{other:?}"),
    }
}

/// Loop devices over a drive of ours, by what the kernel says lies under them.
fn loop_devices() -> BTreeSet<String> {
    let devices = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |device: &std::path::PathBuf| {
        let file = fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
        file.contains("-drive/drive")
    };
    devices.filter(is_ours).map(|device| device.display().to_string()).collect()
}

/// All descendants of a process.
fn descendants(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.flat_map(|task| {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()
    });
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what} within {} s", PATIENCE.as_secs());
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_killed_run_leaves_nothing() {
    let words = ["run", "--minutes", "5", "--jobs", "1", "--out", env!("CARGO_TARGET_TMPDIR")];
    let missing = requirements::missing(&work(&words));
    if !missing.is_empty() {
        assert!(std::env::var_os("REDEX_CI_NO_SKIP").is_none_or(|value| value != "1"), "cannot run here: {missing:?}");
        eprintln!("SKIPPED: no run was killed; missing: {missing:?}");
        return;
    }
    let before = loop_devices();
    let mut run = rig::powerfail(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the run sets up a drive", || !loop_devices().is_subset(&before));
    // Into its recording or its points.
    sleep(Duration::from_millis(700));
    let processes = descendants(run.id());
    assert!(processes.len() >= 2, "a job and a drive: {processes:?}");
    run.kill().unwrap();
    run.wait().unwrap();
    let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
    until("its processes end", || !processes.iter().any(is_there));
    until("the kernel frees its loop devices", || loop_devices().is_subset(&before));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains("redex-powerfail"), "{mounts}");
}
