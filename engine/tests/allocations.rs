//! No allocation per event on the append, commit and tail paths, once they are warm (design section 7).
//!
//! Unsafe code: an allocator that counts and hands everything on to the system's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use redex::{OrderedAppender, Redex, RedexFile, RedexFileConfig, TypedRedexFile};

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
/// Pages, journal segments and files are made now and then; an event is not.
const ALLOCATIONS_MAX: u64 = EVENTS / 50;

fn counted(what: &str, mut act: impl FnMut()) {
    // Once to warm up: pages, buffers and tables grow to their size.
    act();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    act();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert!(allocations <= ALLOCATIONS_MAX, "{what}: {allocations} allocations for {EVENTS} events");
}

fn append(file: &RedexFile) {
    let payload = [7; 100];
    (0..EVENTS).for_each(|_| _ = file.append(payload).wait().unwrap());
}

/// 100 in flight at a time.
fn append_durable(file: &RedexFile) {
    let payload = [7; 100];
    let mut appends = Vec::with_capacity(100);
    for _ in 0..EVENTS / 100 {
        appends.extend((0..100).map(|_| file.append_durable(payload)));
        appends.drain(..).for_each(|append| _ = append.wait().unwrap());
    }
}

#[test]
fn nothing_is_allocated_for_an_event() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(1).build().unwrap();
    let file = redex.open_file("a", RedexFileConfig::default().with_persistent(true)).unwrap();
    counted("append", || append(&file));
    file.sync().wait().unwrap();
    counted("append_durable", || append_durable(&file));
    let mut tail = file.subscribe_tail().wait().unwrap();
    counted("append and tail", || {
        for _ in 0..EVENTS {
            file.append([7; 100]).wait().unwrap();
            assert_eq!(tail.next_wait().unwrap().payload.len(), 100);
        }
    });
    let typed = TypedRedexFile::<(u64, [u64; 12])>::new(file.clone());
    counted("typed append", || {
        for seq in 0..EVENTS {
            typed.append(&(seq, [u64::MAX; 12])).wait().unwrap();
        }
    });
    let ordered = OrderedAppender::new(file);
    counted("ordered append, without turns", || {
        for _ in 0..EVENTS {
            ordered.append([7; 100]).wait().unwrap();
        }
    });
    redex.close().wait().unwrap();
}
