//! The tail against what a `Vec` would say, on one thread and on several.

use std::sync::Arc;

use super::*;

fn tail(bounded: bool, segment_bytes: u32) -> Tail {
    let budget = if bounded { 64 << 20 } else { usize::MAX / 2 };
    let pool = PagePool::new(budget, 1 << 20);
    Tail::new(TailStart::default(), TailLimits { segment_bytes, segment_records: 16 << 20, bounded }, pool)
}

fn read(tail: &Tail, seq: u64) -> (Vec<u8>, u64) {
    let page = tail.page_of(Seq(seq)).expect("in memory");
    let record = page.record((seq - page.start().first_seq.0) as usize);
    let payload = match record.place() {
        crate::segment::record::RecordPlace::Inline { bytes, len } => bytes[..len].to_vec(),
        crate::segment::record::RecordPlace::Dat { .. } => {
            page.published_bytes(page.payload_range(&record).unwrap()).to_vec()
        }
    };
    assert!(record.verify_payload(&payload));
    (payload, record.time_us())
}

/// Sizes around every limit: inline, first page, growth, a page of its own.
#[test]
fn events_of_all_sizes_are_read_back_in_order() {
    let tail = tail(false, 1 << 30);
    let sizes = [0, 1, 8, 9, 100, 4000, 4096, 5000, 70_000, 1 << 20, (1 << 20) + 1, 3];
    for (i, size) in sizes.into_iter().cycle().take(300).enumerate() {
        let payload = vec![i as u8; size];
        let reserved = tail.append(&payload, i as u64).unwrap();
        assert_eq!(reserved.first, Seq(i as u64));
        assert_eq!(tail.published(), Seq(i as u64 + 1));
    }
    for (i, size) in sizes.into_iter().cycle().take(300).enumerate() {
        assert_eq!(read(&tail, i as u64), (vec![i as u8; size], i as u64));
    }
}

/// The wall clock of a later append lies before that of an earlier one.
#[test]
fn times_never_go_backwards() {
    let tail = tail(false, 1 << 30);
    for time in [50, 40, 60, 10] {
        tail.append(b"x", time).unwrap();
    }
    let times: Vec<u64> = (0..4).map(|seq| read(&tail, seq).1).collect();
    assert_eq!(times, [50, 50, 60, 60]);
}

/// Pages of a bounded tail that nobody takes out fill its ring.
#[test]
fn a_bounded_tail_refuses_when_its_ring_is_full_and_goes_on_when_pages_leave() {
    let tail = tail(true, 1 << 30);
    let payload = vec![7; 1 << 20];
    let mut appended = 0;
    while tail.append(&payload, 0).is_ok() {
        appended += 1;
    }
    assert!(appended >= RING_PAGES - 1, "{appended} pages of a megabyte");
    assert_eq!(tail.append(&payload, 0).unwrap_err().refusal, Refusal::Full);
    assert!(tail.unchain_front(|_| true));
    assert_eq!(tail.append(&payload, 0).unwrap().first, Seq(appended));
}

/// Segments of 64 KiB: each begins at dat offset 0 with the sequence of its first event.
#[test]
fn a_full_segment_ends_at_a_page() {
    let tail = tail(false, 64 << 10);
    for _ in 0..200 {
        tail.append(&[1; 3000], 0).unwrap();
    }
    let mut page_no = 0;
    let mut segments = 1;
    let mut before: Option<PageStart> = None;
    while let Some(page) = tail.page(page_no) {
        let start = page.start();
        assert!(start.dat_start as usize + page.size().bytes() <= 64 << 10);
        if let Some(before) = before.filter(|before| before.segment_first != start.segment_first) {
            assert_eq!((start.segment_first, start.dat_start), (start.first_seq, 0));
            assert!(before.first_seq < start.first_seq);
            segments += 1;
        }
        before = Some(start);
        page_no += 1;
    }
    assert!(segments > 5, "{segments} segments");
}

/// A tail that goes on in the middle of a block keeps the bytes that were there.
#[test]
fn a_reopened_tail_begins_with_the_unfinished_block() {
    let start = TailStart {
        next: Seq(10),
        segment_first: Seq(0),
        dat_size: 5000,
        dat_tail: vec![9; 904].into(),
        last_time_us: 70,
    };
    let pool = PagePool::new(1 << 20, 0);
    let tail = Tail::new(start, TailLimits { segment_bytes: 1 << 30, segment_records: 16 << 20, bounded: true }, pool);
    assert_eq!(tail.append(&[1; 100], 5).unwrap().first, Seq(10));
    let page = tail.page(0).unwrap();
    assert_eq!((page.start().dat_start, page.start().prefix), (4096, 904));
    assert_eq!(page.published_bytes(0..904), [9; 904]);
    assert_eq!(read(&tail, 10), (vec![1; 100], 70));
}

#[test]
fn a_closed_tail_refuses_and_keeps_what_it_has() {
    let tail = tail(true, 1 << 30);
    tail.append(b"before", 0).unwrap();
    tail.close();
    assert_eq!(tail.append(b"after", 0).unwrap_err().refusal, Refusal::Closed);
    assert_eq!(tail.append(&[0; 9000], 0).unwrap_err().refusal, Refusal::Closed);
    assert_eq!(read(&tail, 0).0, b"before");
}

/// Four threads append singly and in batches; each batch is in one piece, each thread's own order is kept.
#[test]
fn several_producers_leave_a_dense_sequence_with_whole_batches() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 3000;
    let tail = Arc::new(tail(false, 1 << 30));
    let producers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let tail = tail.clone();
            std::thread::spawn(move || {
                for round in 0..ROUNDS {
                    let payload = |part: u32| [thread, round, part, !round].map(u32::to_le_bytes).concat();
                    let batch: Vec<_> = (0..round % 3 + 1).map(payload).collect();
                    while tail.append_batch(&batch, 0).is_err() {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    let events = tail.published().0;
    let mut next = [(0, 0); THREADS as usize];
    let mut open: Option<u32> = None;
    for seq in 0..events {
        let payload = read(&tail, seq).0;
        let word = |i: usize| u32::from_le_bytes(payload[i * 4..i * 4 + 4].try_into().unwrap());
        let (thread, round, part) = (word(0), word(1), word(2));
        assert_eq!(word(3), !round);
        assert!(open.is_none_or(|open| open == thread), "a batch is in one piece");
        assert_eq!(next[thread as usize], (round, part));
        let last = part == round % 3;
        next[thread as usize] = if last { (round + 1, 0) } else { (round, part + 1) };
        open = (!last).then_some(thread);
    }
    assert!(next.iter().all(|next| *next == (ROUNDS, 0)));
}
