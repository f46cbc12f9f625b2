//! Subscriptions that are taken in chunks: the same events as one at a time, from disk, from memory, and as they come.

mod support;

use std::thread;

use redex::{Backend, EventChunk, Redex, RedexFile, RedexFileConfig, Tail, TailEnd};

use support::{open, persistent, scratch};

const COUNT: u64 = 40_000;

fn payload(seq: u64) -> Vec<u8> {
    let size = (seq * 37 % 300) as usize;
    (0..size).map(|i| (seq as usize + i) as u8).collect()
}

fn append(file: &RedexFile, from: u64, to: u64) {
    for seq in from..to {
        assert_eq!(file.append(payload(seq)).wait().unwrap(), seq);
    }
}

/// Compares a chunk's events with what was appended; `next` is where it has to begin.
fn compare(chunk: &EventChunk, next: u64) -> u64 {
    assert!(!chunk.is_empty());
    assert_eq!(chunk.first_seq(), next);
    for (event, seq) in chunk.iter().zip(next..) {
        assert_eq!(event.seq, seq);
        assert_eq!(event.payload, payload(seq), "event {seq}");
    }
    assert_eq!(chunk.end_seq(), next + chunk.len() as u64);
    chunk.end_seq()
}

fn follow(mut tail: Tail, to: u64) -> Tail {
    let mut next = 0;
    while next < to {
        let chunk = tail.next_chunk().wait().expect("the channel is open");
        next = compare(&chunk, next);
        tail.check(&chunk).unwrap();
        assert_eq!(tail.cursor().seq, next);
    }
    tail
}

/// What is in segments, what is in pages, and what is appended meanwhile come in one sequence, also to who follows the durable mark.
#[test]
fn chunks_lead_from_history_into_the_present() {
    let dir = scratch();
    let builder = || Redex::builder().persistent_dir(dir.path());
    for durable_only in [false, true] {
        let name = format!("channel {durable_only}");
        let redex = builder().build().unwrap();
        append(&redex.open_file(&name, persistent()).unwrap(), 0, COUNT / 2);
        redex.close().wait().unwrap();

        let redex = builder().build().unwrap();
        let file = redex.open_file(&name, persistent()).unwrap();
        let tail = file.subscribe_from(0).wait().unwrap();
        let tail = if durable_only { tail.durable_only() } else { tail };
        let follower = thread::spawn(move || follow(tail, COUNT));
        append(&file, COUNT / 2, COUNT);
        file.sync().wait().unwrap();
        let mut tail = follower.join().unwrap();
        assert!(tail.try_next_chunk().is_none(), "there is nothing more");
        redex.close().wait().unwrap();
        assert!(tail.next_chunk().wait().is_none());
        assert!(matches!(tail.ended(), Some(TailEnd::Closed)));
    }
}

/// What one way has given the other does not give again, however they alternate.
#[test]
fn chunks_and_single_events_share_a_cursor() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    for (name, config) in [("disk", persistent()), ("memory", RedexFileConfig::default())] {
        let file = redex.open_file(name, config).unwrap();
        append(&file, 0, COUNT);
        let mut tail = file.subscribe_from(0).wait().unwrap();
        let mut next = 0;
        for turn in 0.. {
            if next == COUNT {
                break;
            }
            if turn % 3 == 0 {
                next = compare(&tail.next_chunk().wait().unwrap(), next);
            } else if turn % 3 == 1 {
                let event = tail.next_wait().unwrap();
                assert_eq!((event.seq, &event.payload[..]), (next, &payload(next)[..]));
                next += 1;
            } else if let Some(chunk) = tail.try_next_chunk() {
                next = compare(&chunk, next);
            }
        }
        assert!(tail.ended().is_none());
    }
}

/// Under an executor the future waits for what comes next.
#[test]
fn the_future_of_a_chunk_waits() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let file = Redex::in_memory().open_file("memory", RedexFileConfig::default()).unwrap();
    let mut tail = file.subscribe_from(0).wait().unwrap();
    runtime.block_on(async {
        let writer = file.clone();
        let appending = thread::spawn(move || append(&writer, 0, COUNT));
        let mut next = 0;
        while next < COUNT {
            next = compare(&tail.next_chunk().await.unwrap(), next);
        }
        appending.join().unwrap();
    });
}
