//! The hunt itself: a second of it over all targets, and that what it finds is found again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redex::RedexFileConfig;
use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStore};
use redex_fuzz::finding::target_of;
use redex_fuzz::fuzz_args::{ReplayArgs, replay};
use redex_fuzz::history::{self, Mode};
use redex_fuzz::hunt::{Plan, hunt};
use redex_fuzz::targets::{Outcome, TARGETS, Target, by_name};

fn plan(name: &str) -> Plan {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    Plan { targets: TARGETS.to_vec(), time: Duration::from_secs(5), seed: 1, threads: 2, out }
}

/// Every target gets its time, and none of what is drawn breaks one.
#[test]
fn a_few_seconds_of_all_targets_find_nothing() {
    let plan = plan("few-seconds");
    let tally = hunt(&plan).expect("the corpus is committed");
    assert!(tally.findings.is_empty(), "{:?}", tally.findings);
    for (target, runs) in plan.targets.iter().zip(&tally.runs) {
        assert!(*runs > 0, "{} never ran", target.name);
    }
}

/// It fails on every input but zeros, each time at another place.
fn failing() -> Target {
    let run = |input: &[u8]| match input.iter().position(|byte| *byte != 0) {
        Some(at) => Err(format!("byte {at} is not zero")),
        None => Ok(Outcome(0)),
    };
    Target { run, memory_max: |_| u64::MAX, ..by_name("meta").expect("a target") }
}

/// Many inputs fail in one way: the smallest is written, once, as a file that says what it belongs to and fails again.
#[test]
fn what_is_found_is_written_small_and_found_again() {
    let plan = Plan { targets: vec![failing()], time: Duration::from_millis(500), ..plan("found") };
    let _was_never_there = std::fs::remove_dir_all(&plan.out);
    let tally = hunt(&plan).expect("the corpus is committed");
    let [found] = &tally.findings[..] else { panic!("{:?}", tally.findings) };
    let path = plan.out.join(found.name());
    let text = std::fs::read_to_string(path.with_extension("txt")).expect("it was written");
    assert_eq!(text, "byte 0 is not zero\n");
    let input = std::fs::read(&path).expect("it was written");
    assert_eq!(input.len(), 1, "one byte is enough: {input:?}");
    assert_eq!(plan.targets[0].check(&input).expect_err("it fails again"), "byte 0 is not zero");
    assert_eq!(std::fs::read_dir(&plan.out).expect("it is there").count(), 2, "nothing else is left");
    assert_eq!(target_of(&path, None).map(|target| target.name), Some("meta"));
    // The target of this name finds nothing in it.
    let code = replay(&ReplayArgs { files: vec![path], target: None }).expect("it knows its target");
    assert_eq!(code, std::process::ExitCode::SUCCESS);
}

/// A hunt opens millions of stores and closes few: whatever state they are dropped in, nothing of them stays in memory.
#[test]
fn a_store_that_is_dropped_leaves_nothing_behind() {
    let open_and_drop = |steps: u64| {
        let (disk, clock) = (SimDisk::new(1, SimOptions::default()), Arc::new(ManualClock::default()));
        let mut store = SimStore::open(&disk, &SimSettings::default(), &clock, 1).expect("it opens");
        let config = RedexFileConfig::default().with_persistent(true);
        let file = store.redex().open_file("a", config).expect("a new channel");
        let _pending = file.append([7; 5000]);
        (0..steps).for_each(|_| _ = store.step());
    };
    // What is made once for the process.
    open_and_drop(200);
    for steps in [0, 1, 5, 200] {
        let left = allocation_counter::measure(|| (0..8).for_each(|_| open_and_drop(steps))).bytes_current;
        assert!(left < 10_000, "{left} bytes of eight stores after {steps} steps each");
    }
}

/// The same over whole lives, which end wherever the power is cut: also with a batch that its shard has yet to receive.
#[test]
fn a_history_leaves_nothing_behind() {
    let run = |seed| _ = history::run(seed, Mode::Honest).unwrap_or_else(|failure| panic!("{failure}"));
    // What is made once for the process.
    run(7000);
    for seed in [7004, 7018] {
        assert_eq!(allocation_counter::measure(|| run(seed)).bytes_current, 0, "seed {seed}");
    }
}
