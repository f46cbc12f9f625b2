//! No allocation per event on the append, commit and tail paths, once they are warm (design section 7).
//!
//! Unsafe code: an allocator that counts and hands everything on to the system's.
// With the simulator's feature each commit is written down for it.
#![cfg(not(feature = "sim"))]
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use redex::{AppendError, OrderedAppender, Redex, RedexFile, RedexFileConfig, Tail, TypedRedexFile};

struct Counting;

/// Of all threads of the process: this file has one test.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const EVENTS: u64 = 200_000;
const PAYLOAD: [u8; 100] = [7; 100];
const BATCH: usize = 1000;
const ROUNDS: u32 = 12;

/// Events between two syncs: two megabytes. Appends that are ahead of a slow disk wait in a backlog, as copies; that is memory by design.
const GROUP: u64 = 20_000;

/// Pages, journal segments and files are made now and then; an event is not.
const ALLOCATIONS_MAX: u64 = EVENTS / 1000;

/// Events that have left memory are read in steps of 16 index blocks, 3,264 events, each with buffers of its own.
const ALLOCATIONS_MAX_FROM_DISK: u64 = EVENTS / 100;

fn counted(what: &str, act: impl FnMut()) {
    counted_within(ALLOCATIONS_MAX, what, act);
}

/// The least of a few rounds counts: a checkpoint or a new journal segment falls into one of them, an event's allocation into all.
fn counted_within(most: u64, what: &str, mut act: impl FnMut()) {
    // Once to warm up: pages, buffers and tables grow to their size.
    act();
    let mut round = || {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        act();
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    let mut allocations = round();
    for _ in 1..ROUNDS {
        if allocations > most {
            allocations = allocations.min(round());
        }
    }
    println!("{what}: {allocations} allocations for {EVENTS} events");
    assert!(allocations <= most, "{what}: {allocations} allocations for {EVENTS} events");
}

/// Appends all events by `append`, which is told how many; a sync ends each group.
fn in_groups(file: &RedexFile, mut append: impl FnMut(u64)) {
    for _ in 0..EVENTS / GROUP {
        append(GROUP);
        file.sync().wait().unwrap();
    }
}

fn append(file: &RedexFile) {
    in_groups(file, |events| (0..events).for_each(|_| _ = file.append(PAYLOAD).wait().unwrap()));
}

/// What finds no room, because the disk is behind, is tried again when it has caught up.
fn try_append(file: &RedexFile) {
    in_groups(file, |events| {
        for _ in 0..events {
            while let Err(error) = file.try_append(PAYLOAD) {
                assert!(matches!(error, AppendError::Full { .. }), "{error}");
                file.sync().wait().unwrap();
            }
        }
    });
}

fn append_batches(file: &RedexFile) {
    let payloads = [PAYLOAD; BATCH];
    in_groups(file, |events| {
        (0..events / BATCH as u64).for_each(|_| _ = file.append_batch(&payloads).wait().unwrap());
    });
}

/// 100 in flight at a time.
fn append_durable(file: &RedexFile) {
    let mut appends = Vec::with_capacity(100);
    for _ in 0..EVENTS / 100 {
        appends.extend((0..100).map(|_| file.append_durable(PAYLOAD)));
        appends.drain(..).for_each(|append| _ = append.wait().unwrap());
    }
}

fn append_batches_durable(file: &RedexFile) {
    let payloads = [PAYLOAD; BATCH];
    (0..EVENTS / BATCH as u64).for_each(|_| _ = file.append_batch_durable(&payloads).wait().unwrap());
}

fn append_and_next(file: &RedexFile, tail: &mut Tail) {
    in_groups(file, |events| {
        for _ in 0..events {
            file.append(PAYLOAD).wait().unwrap();
            assert_eq!(tail.next_wait().unwrap().payload.len(), PAYLOAD.len());
        }
    });
}

fn append_and_try_next(file: &RedexFile, tail: &mut Tail) {
    in_groups(file, |events| {
        for _ in 0..events {
            file.append(PAYLOAD).wait().unwrap();
            assert_eq!(tail.try_next().unwrap().payload.len(), PAYLOAD.len());
        }
    });
}

/// The newest events, in chunks.
fn chunks(file: &RedexFile) {
    let mut scan = file.read_from(file.next_seq() - EVENTS);
    let mut events = 0;
    while let Some(chunk) = scan.next_chunk_wait() {
        events += chunk.unwrap().iter().filter(|event| event.payload.len() == PAYLOAD.len()).count() as u64;
    }
    assert_eq!(events, EVENTS);
}

/// What a producer and a reader do, whether a shard is behind it or not.
fn producers_and_readers(place: &str, file: &RedexFile) {
    let counted = |what: &str, act: &mut dyn FnMut()| counted(&format!("{place}, {what}"), act);
    counted("append", &mut || append(file));
    counted("try_append", &mut || try_append(file));
    counted("append_batch", &mut || append_batches(file));
    let mut tail = file.subscribe_tail().wait().unwrap();
    counted("append and next_wait", &mut || append_and_next(file, &mut tail));
    counted("append and try_next", &mut || append_and_try_next(file, &mut tail));
    let typed = TypedRedexFile::<(u64, [u64; 12])>::new(file.clone());
    counted("typed append", &mut || {
        in_groups(file, |events| (0..events).for_each(|seq| _ = typed.append(&(seq, [u64::MAX; 12])).wait().unwrap()));
    });
    let ordered = OrderedAppender::new(file.clone());
    counted("ordered append, without turns", &mut || {
        in_groups(file, |events| (0..events).for_each(|_| _ = ordered.append(PAYLOAD).wait().unwrap()));
    });
    append(file);
}

/// Commits: producer and shard together, on real files.
fn commits(file: &RedexFile) {
    counted("append_durable", || append_durable(file));
    counted("append_batch_durable", || append_batches_durable(file));
}

/// One test: the count is of all threads, so nothing else may run beside it.
#[test]
fn nothing_is_allocated_for_an_event() {
    let memory = Redex::in_memory();
    let file = memory.open_file("a", RedexFileConfig::default()).unwrap();
    producers_and_readers("in memory", &file);
    counted("in memory, chunks", || chunks(&file));
    drop((file, memory));

    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Appends that are far ahead of the shard wait as copies; on a busy machine that is a matter of time.
    let write_behind = std::time::Duration::from_secs(1);
    let redex = Redex::builder().persistent_dir(dir.path()).shards(1).write_behind(write_behind).build().unwrap();
    let file = redex.open_file("a", RedexFileConfig::default().with_persistent(true)).unwrap();
    producers_and_readers("on files", &file);
    counted_within(ALLOCATIONS_MAX_FROM_DISK, "on files, chunks", || chunks(&file));
    commits(&file);
    redex.close().wait().unwrap();
}
