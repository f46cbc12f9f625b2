//! Calls that need no disk: what a producer and a reader pay on one thread.
//!
//! `cargo bench -p redex --bench redex`. Criterion takes many samples of each and says how sure it is. What the disk does with events is
//! measured by `redex-bench`, and instructions are counted by `bench-harness/counts/run`.

use std::hint::black_box;

use criterion::{BatchSize, Bencher, Criterion, Throughput, criterion_group, criterion_main};
use redex::{Redex, RedexFile, RedexFileConfig};

/// Events that are there to be read: several pages of them.
const RESIDENT: u64 = 100_000;

const BATCH: usize = 1000;

/// Events of a channel that is appended to; it drops older ones, so that a long measurement fills no memory.
const KEPT: u64 = 1_000_000;

fn channel(config: RedexFileConfig) -> RedexFile {
    Redex::in_memory().open_file("bench", config).expect("a channel in memory opens")
}

fn bounded() -> RedexFile {
    channel(RedexFileConfig::default().with_retention_max_events(KEPT))
}

fn resident() -> RedexFile {
    let file = channel(RedexFileConfig::default());
    for _ in 0..RESIDENT {
        file.append([7; 256]).wait().expect("there is room");
    }
    file
}

fn append<const SIZE: usize>(b: &mut Bencher<'_>) {
    let (file, payload) = (bounded(), black_box([7; SIZE]));
    b.iter(|| file.append(payload).wait().expect("there is room"));
}

fn try_append(b: &mut Bencher<'_>) {
    let (file, payload) = (bounded(), black_box([7; 256]));
    b.iter(|| file.try_append(payload).expect("there is room"));
}

fn append_batch(b: &mut Bencher<'_>) {
    let (file, payloads) = (bounded(), vec![black_box([7; 256]); BATCH]);
    b.iter(|| file.append_batch(&payloads).wait().expect("there is room"));
}

/// A single event by its sequence, from memory.
fn read_one(b: &mut Bencher<'_>) {
    let (file, mut seq) = (resident(), 0);
    b.iter(|| {
        seq = (seq + 7919) % RESIDENT;
        file.read_one(seq).wait().expect("memory is intact").expect("the event is there")
    });
}

fn subscribe(b: &mut Bencher<'_>) {
    let file = resident();
    b.iter(|| file.subscribe_tail().wait().expect("a subscription begins"));
}

/// An event that is there, by a subscription.
fn next(b: &mut Bencher<'_>) {
    let file = resident();
    let from_start = || file.subscribe_from(0).wait().expect("the first event is there");
    let mut tail = from_start();
    b.iter(|| match tail.try_next() {
        Some(event) => event,
        None => {
            tail = from_start();
            tail.try_next().expect("there are events")
        }
    });
}

/// An append, and the subscription that gets it, on one thread.
fn append_and_next(b: &mut Bencher<'_>) {
    let (file, payload) = (bounded(), black_box([7; 256]));
    let mut tail = file.subscribe_tail().wait().expect("a subscription begins");
    b.iter(|| {
        file.append(payload).wait().expect("there is room");
        tail.try_next().expect("the event is there")
    });
}

/// All events, shown where they lie.
fn chunks(b: &mut Bencher<'_>) {
    let file = resident();
    let sum = |mut scan: redex::Scan| {
        let mut bytes = 0;
        while let Some(chunk) = scan.next_chunk_wait() {
            bytes += chunk.expect("memory is intact").iter().map(|event| event.payload.len()).sum::<usize>();
        }
        bytes
    };
    b.iter_batched(|| file.read_from(0), sum, BatchSize::SmallInput);
}

/// Waiting for what has happened: one load.
fn wait_passed(b: &mut Bencher<'_>) {
    let file = resident();
    b.iter(|| file.wait_published(black_box(RESIDENT / 2)).wait().expect("it is published"));
}

fn all(criterion: &mut Criterion) {
    let mut one = criterion.benchmark_group("one");
    one.throughput(Throughput::Elements(1));
    one.bench_function("append 32 B", append::<32>);
    one.bench_function("append 256 B", append::<256>);
    one.bench_function("try_append 256 B", try_append);
    one.bench_function("read_one", read_one);
    one.bench_function("subscribe_tail", subscribe);
    one.bench_function("next", next);
    one.bench_function("append and next", append_and_next);
    one.bench_function("wait_published, passed", wait_passed);
    one.finish();
    let mut many = criterion.benchmark_group("many");
    many.throughput(Throughput::Elements(BATCH as u64));
    many.bench_function("append_batch 1000 x 256 B", append_batch);
    many.throughput(Throughput::Elements(RESIDENT));
    many.bench_function("next_chunk, 100000 events", chunks);
    many.finish();
}

criterion_group!(redex, all);
criterion_main!(redex);
