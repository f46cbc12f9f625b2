//! Runs targets on changed inputs of their corpora until the time is over, on several threads.
//!
//! There is no coverage to go by; instead an input whose outcome is new (refused for another reason, accepted with another
//! shape) joins the inputs that are changed further. Each thread draws from its own seed. The next target is the one that has had
//! the least time for its weight.
//!
//! An input that takes longer than [`HANG`] is a failure, which ends the process, since nothing can end its thread. What a thread
//! is running lies in `<target>-running-<thread>`, which is left there if the process dies of it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::corpus;
use crate::dice::Dice;
use crate::finding::{self, Finding};
use crate::targets::{Outcome, Target};

/// How long an input may take.
pub const HANG: Duration = Duration::from_secs(30);
/// Inputs that one thread keeps for a target.
const POOL_MAX: usize = 4000;
/// How often the progress is told.
const PROGRESS: Duration = Duration::from_secs(30);

/// What to hunt in, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The targets.
    pub targets: Vec<Target>,
    /// When it is over.
    pub time: Duration,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Threads.
    pub threads: u64,
    /// Where failures are written.
    pub out: PathBuf,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Runs of each target, in the order of the plan.
    pub runs: Vec<u64>,
    /// Outcomes of each target.
    pub outcomes: Vec<usize>,
    /// What was found, one for each way to fail.
    pub findings: Vec<Finding>,
}

/// Since when a target runs on an input.
type Running = (Instant, Target, Vec<u8>);

/// What the threads share.
struct Shared<'p> {
    plan: &'p Plan,
    over: AtomicBool,
    runs: Vec<AtomicU64>,
    outcomes: Vec<Mutex<HashSet<Outcome>>>,
    findings: Mutex<Vec<Finding>>,
    /// What each thread runs, since when.
    running: Vec<Mutex<Option<Running>>>,
}

/// Hunts. Tells progress on standard output.
///
/// # Errors
///
/// A corpus that cannot be read, or a failure that cannot be written.
pub fn hunt(plan: &Plan) -> anyhow::Result<Tally> {
    fs::create_dir_all(&plan.out)?;
    let corpora: Vec<Vec<Vec<u8>>> = plan
        .targets
        .iter()
        .map(|target| Ok(corpus::of(target)?.into_iter().map(|(_, bytes)| bytes).collect()))
        .collect::<anyhow::Result<_>>()?;
    let count = plan.targets.len();
    let shared = Shared {
        plan,
        over: AtomicBool::new(false),
        runs: (0..count).map(|_| AtomicU64::new(0)).collect(),
        outcomes: (0..count).map(|_| Mutex::default()).collect(),
        findings: Mutex::default(),
        running: (0..plan.threads).map(|_| Mutex::new(None)).collect(),
    };
    std::thread::scope(|scope| {
        for thread in 0..plan.threads {
            let (shared, corpora) = (&shared, corpora.clone());
            scope.spawn(move || Worker::new(shared, thread, corpora).run());
        }
        watch(&shared);
    });
    Ok(Tally {
        runs: shared.runs.iter().map(|runs| runs.load(Ordering::Relaxed)).collect(),
        outcomes: shared.outcomes.iter().map(|outcomes| lock(outcomes).len()).collect(),
        findings: shared.findings.into_inner().expect("no panic while the lock is held"),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic while the lock is held")
}

/// Ends the hunt when its time is over, and the process if an input hangs.
fn watch(shared: &Shared<'_>) {
    let begun = Instant::now();
    let mut told = begun;
    while begun.elapsed() < shared.plan.time {
        std::thread::sleep(Duration::from_millis(200).min(shared.plan.time));
        for running in &shared.running {
            let hung = lock(running).as_ref().filter(|(since, ..)| since.elapsed() > HANG).cloned();
            if let Some((_, target, input)) = hung {
                let what = format!("it takes longer than {} seconds", HANG.as_secs());
                let written = Finding::new(&target, input, what).write(&shared.plan.out);
                println!("{}", written.unwrap_or_else(|error| format!("a hang, which cannot be written: {error}")));
                std::process::exit(1);
            }
        }
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            println!("{}", progress(shared, begun.elapsed()));
        }
    }
    shared.over.store(true, Ordering::Relaxed);
}

fn progress(shared: &Shared<'_>, elapsed: Duration) -> String {
    let total: u64 = shared.runs.iter().map(|runs| runs.load(Ordering::Relaxed)).sum();
    let outcomes: usize = shared.outcomes.iter().map(|outcomes| lock(outcomes).len()).sum();
    let (seconds, failures) = (elapsed.as_secs().max(1), lock(&shared.findings).len());
    format!("{seconds:>6} s  {total:>10} runs  {:>7}/s  {outcomes:>6} outcomes  {failures} failures", total / seconds)
}

struct Worker<'s, 'p> {
    shared: &'s Shared<'p>,
    thread: u64,
    dice: Dice,
    pools: Vec<Vec<Vec<u8>>>,
    /// Inputs of the corpus that were not run yet as they are.
    fresh: Vec<usize>,
    /// Time that each target had, divided by its weight.
    spent: Vec<Duration>,
    /// Files for what is running, with their lengths.
    notes: Vec<Option<(File, usize)>>,
}

impl<'s, 'p> Worker<'s, 'p> {
    fn new(shared: &'s Shared<'p>, thread: u64, pools: Vec<Vec<Vec<u8>>>) -> Self {
        // Each thread begins with a part of the corpus.
        let threads = shared.plan.threads as usize;
        let part = |pool: &Vec<Vec<u8>>| pool.len() / threads * thread as usize;
        let fresh = pools.iter().map(part).collect();
        let spent = vec![Duration::ZERO; pools.len()];
        let dice = Dice::new(shared.plan.seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(thread));
        let note = |target: &Target| Some((File::create(running_path(shared.plan, target, thread)).ok()?, 0));
        let notes = shared.plan.targets.iter().map(note).collect();
        Self { shared, thread, dice, pools, fresh, spent, notes }
    }

    fn run(&mut self) {
        while !self.shared.over.load(Ordering::Relaxed) {
            let next = (0..self.spent.len()).min_by_key(|index| self.spent[*index]).unwrap_or(0);
            let begun = Instant::now();
            // A few of them, so that neither the caches nor the clock cost much.
            for _ in 0..8 {
                self.try_one(next);
            }
            self.spent[next] += begun.elapsed() / self.shared.plan.targets[next].weight;
        }
        for target in &self.shared.plan.targets {
            let _was_never_there = fs::remove_file(running_path(self.shared.plan, target, self.thread));
        }
    }

    fn try_one(&mut self, index: usize) {
        let target = self.shared.plan.targets[index];
        let input = self.next_input(index, &target);
        let running = &self.shared.running[self.thread as usize];
        *lock(running) = Some((Instant::now(), target, input.clone()));
        self.note(index, &input);
        let result = target.check(&input);
        *lock(running) = None;
        self.shared.runs[index].fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(outcome) => {
                let is_new = lock(&self.shared.outcomes[index]).insert(outcome);
                if is_new && self.pools[index].len() < POOL_MAX {
                    self.pools[index].push(input);
                }
            }
            Err(what) => report(self.shared, Finding::new(&target, input, what)),
        }
    }

    /// Writes down what is about to run, only for the case that the process dies of it. The file is not made anew each time: that
    /// costs more than most targets do.
    fn note(&mut self, index: usize, input: &[u8]) {
        let Some((file, len)) = &mut self.notes[index] else { return };
        let written = file.write_all_at(input, 0);
        if *len > input.len() {
            let _what_is_left_over_stays = file.set_len(input.len() as u64);
        }
        *len = input.len();
        if written.is_err() {
            self.notes[index] = None;
        }
    }

    fn next_input(&mut self, index: usize, target: &Target) -> Vec<u8> {
        let pool = &self.pools[index];
        if let Some(input) = pool.get(self.fresh[index]) {
            self.fresh[index] += 1;
            return input.clone();
        }
        // Newer ones are farther from the corpus.
        let dice = &mut self.dice;
        let oldest = if dice.one_in(2) { 0 } else { pool.len() / 2 };
        let mut input = pool[dice.within(oldest as u64..pool.len() as u64) as usize].clone();
        let other = dice.within(0..pool.len() as u64) as usize;
        (target.mutate)(&mut input, &pool[other], dice);
        input.truncate(target.input_max);
        input
    }
}

fn running_path(plan: &Plan, target: &Target, thread: u64) -> PathBuf {
    plan.out.join(format!("{}-running-{thread}", target.name))
}

/// Writes a failure, once for each way to fail, made as small as it gets.
fn report(shared: &Shared<'_>, finding: Finding) {
    let is_known = |found: &Finding| found.is_like(&finding);
    if lock(&shared.findings).iter().any(is_known) {
        return;
    }
    let small = finding::shrink(finding);
    let mut findings = lock(&shared.findings);
    if !findings.iter().any(|found| found.is_like(&small)) {
        let text = small.write(&shared.plan.out);
        println!("{}", text.unwrap_or_else(|error| format!("{small}\nand it cannot be written: {error}")));
        findings.push(small);
    }
}

/// The runs of each target, as lines.
#[must_use]
pub fn table(plan: &Plan, tally: &Tally) -> String {
    let seconds = plan.time.as_secs_f64().max(0.001);
    let mut out = format!("{:<14} {:>12} {:>9} {:>9}\n", "target", "runs", "runs/s", "outcomes");
    for (index, target) in plan.targets.iter().enumerate() {
        let (runs, outcomes) = (tally.runs[index], tally.outcomes[index]);
        out += &format!("{:<14} {runs:>12} {:>9.0} {outcomes:>9}\n", target.name, runs as f64 / seconds);
    }
    let total: u64 = tally.runs.iter().sum();
    out + &format!("{:<14} {total:>12} {:>9.0}\n", "all", total as f64 / seconds)
}

/// Where failures are written unless told otherwise.
#[must_use]
pub fn default_out() -> PathBuf {
    Path::new("redex-fuzz-failures").to_owned()
}
