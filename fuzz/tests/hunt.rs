//! The hunt itself: a second of it over all targets, and that what it finds is found again.

use std::path::PathBuf;
use std::time::Duration;

use redex_fuzz::hunt::{Plan, hunt};
use redex_fuzz::targets::TARGETS;

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
