//! Binding shards to cores. Alone in its file: it looks at the threads of its whole process.

mod support;

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use redex::Redex;

use support::{check, fill, persistent, scratch};

/// Cores that the threads of this name may run on, as the kernel lists them; sorted.
fn cores_of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned();
        if field("Name:") == name {
            found.push(field("Cpus_allowed_list:"));
        }
    }
    found.sort();
    found
}

fn open(pin: bool) -> (tempfile::TempDir, Redex) {
    let dir = scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(3).pin_cores(pin).build().unwrap();
    for name in ["a", "b", "c", "d"] {
        let file = redex.open_file(name, persistent()).unwrap();
        fill(&file, 0..50);
        check(&file, 0..50);
    }
    (dir, redex)
}

#[test]
fn each_shard_is_bound_to_one_of_the_allowed_cores() {
    let me = Pid::from_raw(0);
    let allowed = sched_getaffinity(me).unwrap();
    let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap()).collect();

    let (_dir, redex) = open(true);
    for shard in 0..3 {
        assert_eq!(cores_of(&format!("redex-{shard}")), [cores[shard % cores.len()].to_string()]);
    }
    redex.close().wait().unwrap();

    // Who may use the last core only gets no other.
    let last = *cores.last().unwrap();
    let mut only_last = CpuSet::new();
    only_last.set(last).unwrap();
    sched_setaffinity(me, &only_last).unwrap();
    let (_dir, redex) = open(true);
    for shard in 0..3 {
        assert_eq!(cores_of(&format!("redex-{shard}")), [last.to_string()]);
    }
    redex.close().wait().unwrap();
    sched_setaffinity(me, &allowed).unwrap();

    let all = cores_of("redex-0");
    assert_eq!(all, [""; 0], "the threads of a closed store have ended");
    let (_dir, redex) = open(false);
    let main = fs::read_to_string("/proc/thread-self/status").unwrap();
    let list = main.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    assert_eq!(cores_of("redex-0"), [list], "unbound unless set");
    redex.close().wait().unwrap();
}
