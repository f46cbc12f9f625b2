//! Paths of channels in memory: what producers and readers do, without a shard.

use std::hint::black_box;

use redex::{Redex, RedexFile, RedexFileConfig};

use crate::path::Path;
use crate::region::counted;

/// Events appended before anything is counted: pages have their full size then.
const WARM_UP: u64 = 20_000;

const BATCH: u64 = 1000;

/// Events of one call of `read_range`.
const RANGE: u64 = 100;

/// Lengths for paths of a few hundred instructions.
const LENGTHS: (u64, u64) = (20_000, 60_000);

/// All of them.
pub fn all() -> Vec<Path> {
    let path = |name, go| Path { name, unit: "event", lengths: LENGTHS, go };
    vec![
        path("append-32", append::<32>),
        path("append-256", append::<256>),
        path("try-append-256", try_append),
        path("batch-1000x32", append_batch::<32>),
        path("batch-1000x256", append_batch::<256>),
        path("tail-next", tail_next),
        path("read-chunk", read_chunk),
        path("read-range-100", read_range),
    ]
}

/// A channel in memory with events of 256 B in it.
fn channel(events: u64) -> RedexFile {
    let file = Redex::in_memory().open_file("counted", RedexFileConfig::default()).expect("a channel in memory opens");
    for _ in 0..events {
        file.append([7; 256]).wait().expect("there is room");
    }
    file
}

fn append<const SIZE: usize>(events: u64) {
    let file = channel(WARM_UP);
    let payload = black_box([7; SIZE]);
    counted(|| {
        for _ in 0..events {
            file.append(payload).wait().expect("there is room");
        }
    });
    assert_eq!(file.published(), WARM_UP + events);
}

fn try_append(events: u64) {
    let file = channel(WARM_UP);
    let payload = black_box([7; 256]);
    counted(|| {
        for _ in 0..events {
            file.try_append(payload).expect("there is room");
        }
    });
    assert_eq!(file.published(), WARM_UP + events);
}

fn append_batch<const SIZE: usize>(events: u64) {
    let file = channel(WARM_UP);
    let payloads = vec![black_box([7; SIZE]); BATCH as usize];
    counted(|| {
        for _ in 0..events / BATCH {
            file.append_batch(&payloads).wait().expect("there is room");
        }
    });
    assert_eq!(file.published(), WARM_UP + events);
}

fn tail_next(events: u64) {
    let file = channel(events);
    let mut tail = file.subscribe_from(0).wait().expect("the first event is there");
    let bytes = counted(|| {
        let sizes = (0..events).map(|_| tail.try_next().expect("the event is there").payload.len());
        sizes.sum::<usize>()
    });
    assert_eq!(bytes as u64, 256 * events);
}

fn read_chunk(events: u64) {
    let file = channel(events);
    let mut scan = file.read_from(0);
    let bytes = counted(|| {
        let mut bytes = 0;
        while let Some(chunk) = scan.next_chunk_wait() {
            bytes += chunk.expect("memory is intact").iter().map(|event| event.payload.len()).sum::<usize>();
        }
        bytes
    });
    assert_eq!(bytes as u64, 256 * events);
}

fn read_range(events: u64) {
    let file = channel(events);
    let read = counted(|| {
        let starts = (0..events).step_by(RANGE as usize);
        starts.map(|start| file.read_range(start, start + RANGE).wait().expect("memory is intact").len()).sum::<usize>()
    });
    assert_eq!(read as u64, events);
}
