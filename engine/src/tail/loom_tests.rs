//! The tail's orderings, tried in every interleaving that the memory model allows.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::segment::record::RecordPlace;

fn tail() -> Arc<Tail> {
    let pool = PagePool::new(64 << 20, 1 << 20);
    Arc::new(Tail::new(
        TailStart::default(),
        TailLimits { segment_bytes: 1 << 30, segment_records: 16 << 20, bounded: true },
        pool,
    ))
}

fn inline(tail: &Tail, seq: u64) -> u8 {
    let page = tail.page_of(Seq(seq)).expect("published events are found");
    let record = page.record((seq - page.start().first_seq.0) as usize);
    match record.place() {
        crate::segment::record::RecordPlace::Inline { bytes, .. } => bytes[0],
        crate::segment::record::RecordPlace::Dat { .. } => unreachable!("inline payloads only"),
    }
}

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(run);
}

/// Whoever readies the oldest publishes all that is ready: when both producers are done, both events are published,
/// and a reader that sees the mark sees the events.
#[test]
fn loom_two_producers_and_a_reader() {
    model(|| {
        let tail = tail();
        // The first page is there: growing is another model.
        tail.append(&[1], 0).unwrap();
        let producer = {
            let tail = tail.clone();
            thread::spawn(move || tail.append(&[2], 0).unwrap().newly_dirty)
        };
        let reader = {
            let tail = tail.clone();
            thread::spawn(move || {
                let published = tail.published();
                (0..published.0).for_each(|seq| assert!(inline(&tail, seq) >= 1));
            })
        };
        tail.append(&[3], 0).unwrap();
        producer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(tail.published(), Seq(3));
        assert_eq!(inline(&tail, 1) + inline(&tail, 2), 5);
    });
}

/// The shard takes the channel off its list and then looks: an event is either seen by that look, or its producer is told
/// to put the channel on the list again.
#[test]
fn loom_an_event_is_collected_or_makes_the_channel_dirty() {
    model(|| {
        let tail = tail();
        assert!(tail.append(&[1], 0).unwrap().newly_dirty);
        let producer = {
            let tail = tail.clone();
            thread::spawn(move || tail.append(&[2], 0).unwrap().newly_dirty)
        };
        tail.clear_dirty();
        let seen = tail.published();
        let pushed = producer.join().unwrap();
        assert!(seen == Seq(2) || pushed, "nobody would look at the second event");
    });
}

struct Woken(loom::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A subscriber registers and looks again: it sees the event, or is woken by it.
#[test]
fn loom_a_waiting_reader_sees_the_event_or_is_woken() {
    model(|| {
        let tail = tail();
        tail.append(&[1], 0).unwrap();
        let producer = {
            let tail = tail.clone();
            thread::spawn(move || tail.append(&[2], 0).unwrap())
        };
        let woken = Arc::new(Woken(loom::sync::atomic::AtomicBool::new(false)));
        tail.wait_published(&mut Registration::default(), &std::task::Waker::from(woken.clone()));
        let seen = tail.published();
        producer.join().unwrap();
        assert!(seen == Seq(2) || woken.0.load(Ordering::SeqCst), "the wake-up is lost");
    });
}

/// A waiter for the durable mark registers and looks again: it sees the mark, or is woken.
#[test]
fn loom_a_waiter_sees_the_mark_or_is_woken() {
    model(|| {
        let waiters = Arc::new(Waiters::default());
        let mark = Arc::new(loom::sync::atomic::AtomicU64::new(0));
        let mover = {
            let (waiters, mark) = (waiters.clone(), mark.clone());
            thread::spawn(move || {
                mark.store(5, Ordering::Release);
                waiters.wake(5);
            })
        };
        let woken = Arc::new(Woken(loom::sync::atomic::AtomicBool::new(false)));
        waiters.register(4, &std::task::Waker::from(woken.clone()));
        let seen = mark.load(Ordering::Acquire);
        mover.join().unwrap();
        assert!(seen == 5 || woken.0.load(Ordering::SeqCst), "the wake-up is lost");
    });
}

/// A pause meets an append: what was reserved before it is published, and what comes later is refused until the reset.
#[test]
fn loom_a_pause_loses_no_append() {
    model(|| {
        let tail = tail();
        tail.append(&[1], 0).unwrap();
        let producer = {
            let tail = tail.clone();
            thread::spawn(move || tail.append(&[2], 0).is_ok())
        };
        tail.pause().unwrap();
        let end = tail.reserved_end();
        let appended = producer.join().unwrap();
        assert_eq!(end, Seq(1 + u64::from(appended)), "nothing is reserved behind a pause");
        assert!(tail.is_settled(), "what was reserved is published");
        assert!(tail.append(&[3], 0).is_err());
        tail.reset(TailStart { next: Seq(1), segment_first: Seq(1), ..TailStart::default() });
        assert_eq!((tail.published(), tail.resets()), (Seq(1), 1));
        assert_eq!(tail.append(&[4], 0).unwrap().first, Seq(1));
    });
}

/// A reset meets an append that was refused before and one that comes behind it: it lies at the new end, and knows that it
/// came behind the cut.
#[test]
fn loom_an_append_lies_before_or_behind_a_reset() {
    model(|| {
        let tail = tail();
        tail.append(&[1], 0).unwrap();
        tail.pause().unwrap();
        let producer = {
            let tail = tail.clone();
            thread::spawn(move || tail.append(&[2], 0).ok().map(|reserved| (reserved.first, reserved.resets)))
        };
        tail.reset(TailStart::default());
        let appended = producer.join().unwrap();
        assert!(appended.is_none_or(|at| at == (Seq(0), 1)), "{appended:?}");
        assert_eq!(tail.published(), Seq(u64::from(appended.is_some())));
    });
}

/// A payload that fills a page of the first class: the next append needs another page.
const PAGEFUL: [u8; 4096] = [7; 4096];

/// Payload bytes of an event, by its record.
fn len(tail: &Tail, seq: u64) -> u32 {
    let page = tail.page_of(Seq(seq)).expect("published events are found");
    match page.record((seq - page.start().first_seq.0) as usize).place() {
        RecordPlace::Dat { len, .. } => len,
        RecordPlace::Inline { .. } => unreachable!("none of these is inline"),
    }
}

/// Two producers find the page full: one makes the next, both events lie in it, and a reader that sees the mark finds the page
/// of each event below it.
#[test]
fn loom_a_full_page_is_handed_over_once() {
    model(|| {
        let tail = tail();
        tail.append(&PAGEFUL, 0).unwrap();
        let producer = {
            let tail = tail.clone();
            thread::spawn(move || tail.append(&[2; 20], 0).unwrap().first)
        };
        let reader = {
            let tail = tail.clone();
            thread::spawn(move || {
                let published = tail.published();
                (1..published.0).for_each(|seq| assert!(matches!(len(&tail, seq), 20 | 30)));
            })
        };
        let first = tail.append(&[3; 30], 0).unwrap().first;
        let other = producer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(first.0 + other.0, 3, "sequences are dense: {first} and {other}");
        assert_eq!((tail.published(), len(&tail, first.0), len(&tail, other.0)), (Seq(3), 30, 20));
        let pages = [1, 2].map(|seq| tail.page_of(Seq(seq)).unwrap().start().page_no);
        assert_eq!(pages, [1, 1], "one page was made");
    });
}

/// The shard takes a written page out of the chain, and a producer goes on in the next, while a reader looks for an event of the old
/// one: it finds no page, or one whose record stays as it was.
#[test]
fn loom_a_reader_finds_a_reclaimed_page_whole_or_not_at_all() {
    model(|| {
        let tail = tail();
        tail.append(&PAGEFUL, 0).unwrap();
        tail.append(&PAGEFUL, 0).unwrap();
        let reader = {
            let tail = tail.clone();
            thread::spawn(move || {
                let page = tail.page_of(Seq(0))?;
                let first = page.record(0).place();
                // Meanwhile the page may have left the chain.
                assert_eq!(tail.page_of(Seq(1)).unwrap().start().page_no, 1);
                assert_eq!(page.record(0).place(), first);
                Some(first)
            })
        };
        assert!(tail.unchain_front(|_| true), "it is full and published");
        tail.append(&[3; 30], 0).unwrap();
        let found = reader.join().unwrap();
        assert!(matches!(found, None | Some(RecordPlace::Dat { len: 4096, .. })), "{found:?}");
        assert!(tail.page_of(Seq(0)).is_none());
        assert_eq!((len(&tail, 1), len(&tail, 2)), (4096, 30));
    });
}
