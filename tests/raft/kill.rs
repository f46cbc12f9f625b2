//! A process that is killed on a real disk, again and again: its log is found as after some of its operations, and no
//! acknowledged one is missing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use openraft::type_config::TypeConfigExt;

use super::crash::{found, is_one_of, perform};
use super::log::RaftLog;
use super::model::{Model, Random};
use super::{Types, open, scratch};

/// Tell the child its directory and its seed.
const CHILD_DIR: &str = "REDEX_RAFT_CHILD_DIR";
const CHILD_SEED: &str = "REDEX_RAFT_CHILD_SEED";
/// Marks the child's lines: the test framework writes to the same pipe.
const MARK: &str = "@@";
/// Operations of a life at the most.
const OPERATIONS: usize = 120;
const LIVES: u64 = 8;
const MARKS_KEPT: u64 = 8;

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = scratch();
    let mut random = Random::new(1);
    let mut model = Model::default();
    for seed in 1..=LIVES {
        let acknowledged = live(dir.path(), seed, 1 + random.below(30) as usize);
        let states = states(model, seed);
        let redex = open(dir.path());
        model = Types::run(async {
            let log = RaftLog::open(&redex, "raft", MARKS_KEPT).await.unwrap();
            found(&log).await.unwrap()
        });
        assert!(is_one_of(&model, &states[acknowledged..]), "life {seed}, {acknowledged}: {model:?}\n{states:#?}");
        redex.close().wait().unwrap();
    }
}

/// What the log has after each operation of a life.
fn states(model: Model, seed: u64) -> Vec<Model> {
    let mut random = Random::new(seed);
    let mut states = vec![model];
    for _ in 0..OPERATIONS {
        let last = states.last().expect("there is a first");
        let operation = last.next(&mut random);
        states.push(last.after(&operation));
    }
    states
}

/// Runs a child until it has told so many times what is durable, kills it, and says which operation was the last it told of.
fn live(dir: &Path, seed: u64, tells: usize) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::a_process_that_is_killed", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_SEED, seed.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines.filter_map(|line| line.unwrap().split_once(MARK).map(|(_, told)| told.parse().unwrap()));
    let acknowledged = told.take(tells).last().expect("the child tells something");
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged
}

#[test]
#[ignore = "a child process of another test"]
fn a_process_that_is_killed() {
    let (Ok(dir), Ok(seed)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_SEED)) else { return };
    let redex = open(Path::new(&dir));
    let mut random = Random::new(seed.parse().unwrap());
    Types::run(async {
        let log = RaftLog::open(&redex, "raft", MARKS_KEPT).await.unwrap();
        let mut model = found(&log).await.unwrap();
        for number in 1..=OPERATIONS {
            let operation = model.next(&mut random);
            perform(&log, &operation).await.unwrap();
            model = model.after(&operation);
            if number % 3 == 0 {
                log.sync().await.unwrap();
                println!("{MARK}{number}");
            }
        }
    });
    // Until it is killed.
    let _ = std::io::stdin().read_line(&mut String::new());
}
