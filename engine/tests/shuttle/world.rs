//! A store on a simulated disk, driven by one of shuttle's threads, and how many schedules are tried.

use std::future::Future;
use std::sync::Arc;

use redex::sim::{ManualClock, SimDisk, SimOptions, SimSettings, SimStep, SimStore};
use redex::{FsyncPolicy, RedexEvent, RedexFile, RedexFileConfig};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread::JoinHandle;
use shuttle::{Config, MaxSteps, Runner};

/// Schedules of each test and scheduler, unless `REDEX_SHUTTLE_SCHEDULES` says another number.
const SCHEDULES: usize = 100;

/// Switches of threads in one schedule: far more than any needs that comes to an end.
const STEPS_MAX: usize = 500_000;

/// Opening a store and taking its turns needs more than shuttle's threads have.
const STACK_BYTES: usize = 512 << 10;

/// Turns in a row in which a shard had nothing to do while somebody waited. The others get their turns in between.
const IDLE_MAX: usize = 20_000;

/// Preemptions of a schedule of the second kind: most bugs need few, in the right places.
const PREEMPTIONS: usize = 3;

/// Tries `body` under random schedules and under such with few preemptions. Its argument is another number in each schedule.
pub fn explore(seed: u64, body: impl Fn(u64) + Send + Sync + 'static) {
    let schedules = std::env::var("REDEX_SHUTTLE_SCHEDULES").ok().and_then(|number| number.parse().ok());
    let schedules = schedules.unwrap_or(SCHEDULES);
    let body = Arc::new(body);
    run(RandomScheduler::new_from_seed(seed, schedules), body.clone());
    run(PctScheduler::new_from_seed(seed, PREEMPTIONS, schedules), body);
}

fn run(scheduler: impl Scheduler + 'static, body: Arc<impl Fn(u64) + Send + Sync + 'static>) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    let number = std::sync::atomic::AtomicU64::new(0);
    Runner::new(scheduler, config).run(move || body(number.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
}

/// Waits for a future on this thread of shuttle.
pub fn wait<F: Future>(future: F) -> F::Output {
    shuttle::future::block_on(future)
}

/// A disk, and the stores that are opened on it one after the other.
pub struct World {
    pub disk: SimDisk,
    clock: Arc<ManualClock>,
    seed: u64,
}

impl World {
    /// An empty disk, on which some things take longer than others.
    pub fn new(seed: u64) -> Self {
        let options = SimOptions { slow: 0.2, ..SimOptions::default() };
        Self { disk: SimDisk::new(seed, options), clock: Arc::default(), seed }
    }

    /// Opens the store, or makes it.
    pub fn open(&self) -> SimStore {
        let settings = SimSettings { commit_depth: 2, extent_bytes: 8 << 10, ..SimSettings::default() };
        SimStore::open(&self.disk, &settings, &self.clock, self.seed).expect("the store opens")
    }
}

/// Segments that a few events fill.
pub fn small_segments(policy: FsyncPolicy) -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(true).with_fsync_policy(policy).with_segment_bytes(16 << 10)
}

/// Takes the shard's turns until all threads have ended; gives what they came to.
pub fn drive<T: 'static>(store: &mut SimStore, threads: Vec<JoinHandle<T>>, left: &Left) -> Vec<T> {
    let mut idle = 0;
    while left.count() > 0 {
        idle = if matches!(store.step(), SimStep::Worked | SimStep::Waited) { 0 } else { idle + 1 };
        assert!(idle < IDLE_MAX, "{} threads wait for what never comes", left.count());
        shuttle::thread::yield_now();
    }
    threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
}

/// Takes turns until the close that was begun has come to its end.
pub fn drive_to_end(store: &mut SimStore) -> SimStep {
    for _ in 0..IDLE_MAX {
        let step = store.step();
        if matches!(step, SimStep::Ended | SimStep::Failed) {
            return step;
        }
        shuttle::thread::yield_now();
    }
    panic!("the close comes to no end");
}

/// How many threads have not ended. Not one of shuttle's atomics: looking at it is no place to switch.
#[derive(Clone, Default)]
pub struct Left(Arc<std::sync::atomic::AtomicUsize>);

impl Left {
    /// Starts a thread that counts.
    pub fn spawn<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let left = self.clone();
        shuttle::thread::spawn(move || {
            let result = body();
            left.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            result
        })
    }

    /// The same, with a handle of its own.
    pub fn with<H, T>(&self, handle: &H, body: impl FnOnce(&H) -> T + Send + 'static) -> JoinHandle<T>
    where
        H: Clone + Send + 'static,
        T: Send + 'static,
    {
        let handle = handle.clone();
        self.spawn(move || body(&handle))
    }

    /// Starts so many producers, who know their numbers.
    pub fn producers<H, T>(
        &self,
        count: u8,
        handle: &H,
        produce: impl Fn(&H, u8) -> T + Copy + Send + 'static,
    ) -> Vec<JoinHandle<T>>
    where
        H: Clone + Send + 'static,
        T: Send + 'static,
    {
        (0..count).map(|producer| self.with(handle, move |handle| produce(handle, producer))).collect()
    }

    fn count(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Payload of a producer's event: who, the how manieth, and sizes from nothing to a third of a segment.
pub fn payload(producer: u8, number: u8) -> Vec<u8> {
    let size = match number % 4 {
        0 => 2,
        1 => 40,
        2 => 700,
        _ => 5000,
    };
    let mut bytes = vec![producer ^ number; size];
    (bytes[0], bytes[1]) = (producer, number);
    bytes
}

/// Who appended an event, and the how manieth of his it is; panics if its bytes are not what was appended.
pub fn author(event: &RedexEvent) -> (u8, u8) {
    let (producer, number) = (event.payload[0], event.payload[1]);
    assert_eq!(event.payload, payload(producer, number), "event {}", event.seq);
    (producer, number)
}

/// What a producer was told of each of its appends, in order: the sequence, or that it was refused.
pub type Answers = Vec<Option<u64>>;

/// Everything that is there, after the shard has stopped or idles: reads from memory or the inline disk at once.
pub fn everything(file: &RedexFile) -> Vec<RedexEvent> {
    wait(file.read_range(file.head_seq(), file.next_seq())).expect("everything that is there can be read")
}

/// Every acknowledged append lies where it was told to, below `end`; nobody was given another's place, and each producer's events
/// have the order of its calls.
pub fn check_answers(events: &[RedexEvent], answers: &[Answers], below: u64) {
    let first = events.first().map_or(0, |event| event.seq);
    let mut last = vec![None; answers.len()];
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.seq, first + index as u64, "sequences are dense");
        let (producer, number) = author(event);
        let before = last[usize::from(producer)].replace(number);
        assert!(before < Some(number), "producer {producer}: {number} comes behind {before:?}");
    }
    for (producer, answers) in answers.iter().enumerate() {
        let told = answers.iter().enumerate().filter_map(|(number, seq)| Some((number, (*seq)?)));
        for (number, seq) in told.filter(|(_, seq)| (first..below).contains(seq)) {
            let event = &events[(seq - first) as usize];
            assert_eq!(author(event), (producer as u8, number as u8), "the acknowledged event {seq}");
        }
    }
}
