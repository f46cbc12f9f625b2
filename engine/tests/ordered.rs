//! Several threads, one order: turns are kept whoever is late, and nobody waits for a turn that was dropped.

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use redex::ordered::OrderedAppend;
use redex::{AppendError, OrderedAppender, Redex, RedexFile, RedexFileConfig, Turn};

use support::{persistent, scratch};

fn memory() -> RedexFile {
    Redex::in_memory().open_file("ordered", RedexFileConfig::default()).unwrap()
}

fn texts(file: &RedexFile) -> Vec<String> {
    file.read_from(0).blocking().map(|event| String::from_utf8(event.unwrap().payload.to_vec()).unwrap()).collect()
}

/// What becomes of a turn, by its number.
enum Use {
    Dropped,
    One,
    OneUnawaited,
    Batch,
}

fn use_of(number: usize) -> Use {
    match number % 11 {
        3 | 7 => Use::Dropped,
        1 => Use::Batch,
        5 => Use::OneUnawaited,
        _ => Use::One,
    }
}

/// Threads take turns, under a lock that tells their order, and use them at their own pace, some without awaiting what comes of
/// it, some not at all. The log has the order of the turns.
fn threads_keep_the_order(file: &RedexFile, payload_size: usize) {
    const TURNS: usize = 3000;
    const THREADS: usize = 8;
    let appender = OrderedAppender::new(file.clone());
    let taken = Mutex::new(0);
    let early = AtomicUsize::new(0);
    let bytes = |number: usize, part: u8| {
        let mut bytes = vec![part; payload_size];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        bytes
    };
    let worker = || {
        loop {
            let (number, turn) = {
                let mut taken = taken.lock().unwrap();
                if *taken == TURNS {
                    return;
                }
                *taken += 1;
                (*taken - 1, appender.turn())
            };
            // The payloads are made side by side, some of them slowly.
            for _ in 0..number * 7 % 5 {
                thread::yield_now();
            }
            if appender.open_places() > 1 {
                early.fetch_add(1, Ordering::Relaxed);
            }
            match use_of(number) {
                Use::Dropped => drop(turn),
                Use::One => drop(turn.append(bytes(number, 0)).wait().unwrap()),
                Use::OneUnawaited => drop(turn.append(bytes(number, 0))),
                Use::Batch => {
                    let seqs = turn.append_batch(&[bytes(number, 0), bytes(number, 1)]).wait().unwrap();
                    assert_eq!(seqs.end - seqs.start, 2);
                }
            }
        }
    };
    thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(worker))));
    assert_eq!(appender.open_places(), 0);
    assert!(early.load(Ordering::Relaxed) > 0, "some turns were used while others were out");

    file.sync().wait().unwrap();
    let expected = (0..TURNS).flat_map(|number| match use_of(number) {
        Use::Dropped => vec![],
        Use::One | Use::OneUnawaited => vec![bytes(number, 0)],
        Use::Batch => vec![bytes(number, 0), bytes(number, 1)],
    });
    let mut events = file.read_from(0).blocking();
    for bytes in expected {
        assert!(events.next().unwrap().unwrap().payload == bytes, "event of turn {:?}", &bytes[..8]);
    }
    assert!(events.next().is_none());
}

#[test]
fn the_log_has_the_order_of_the_turns_in_memory() {
    threads_keep_the_order(&memory(), 64);
}

/// With pages for a tenth of what is appended: appends line up for room all the time.
#[test]
fn the_log_has_the_order_of_the_turns_under_backpressure() {
    let dir = scratch();
    let redex = Redex::builder()
        .persistent_dir(dir.path())
        .shards(1)
        .journal_segment_bytes(1 << 20)
        .page_budget_bytes(1 << 20)
        .build()
        .unwrap();
    threads_keep_the_order(&redex.open_file("ordered", persistent()).unwrap(), 4000);
    redex.close().wait().unwrap();
}

/// Plain appends of some threads: the events of each keep the order of its calls, beside turns that come and go.
fn calls_keep_each_threads_order<const THREADS: usize>(each: usize) {
    let appender = OrderedAppender::new(memory());
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for name in 0..THREADS {
            let (appender, done) = (&appender, &done);
            scope.spawn(move || {
                for i in 0..each {
                    // Awaited or not.
                    let append = appender.append(format!("{name} {i}"));
                    if i % 16 == 0 {
                        append.wait().unwrap();
                    }
                }
                done.fetch_add(1, Ordering::Release);
            });
        }
        scope.spawn(|| {
            while done.load(Ordering::Acquire) < THREADS {
                let turn = appender.turn();
                thread::yield_now();
                drop(turn);
            }
        });
    });
    assert_eq!(appender.open_places(), 0);
    let mut next = [0; THREADS];
    for text in texts(appender.file()) {
        let (name, i) = text.split_once(' ').unwrap();
        let name: usize = name.parse().unwrap();
        assert_eq!(i.parse(), Ok(next[name]), "thread {name}");
        next[name] += 1;
    }
    assert_eq!(next, [each; THREADS]);
}

#[test]
fn calls_without_turns_keep_their_order() {
    calls_keep_each_threads_order::<4>(5_000);
}

/// With one caller the line is empty again and again: the call that finds it so goes to the channel at once, behind the one that
/// was taken from the line just before.
#[test]
fn the_way_past_the_empty_line_keeps_the_order() {
    calls_keep_each_threads_order::<1>(50_000);
}

/// What one does with an appender.
#[derive(Clone, Debug)]
enum Step {
    Take,
    /// Of the turns that are out, this one.
    UseTurn(usize),
    DropTurn(usize),
    UseTurnForBatch(usize),
    Append,
    AppendBatch,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Take),
        3 => any::<usize>().prop_map(Step::UseTurn),
        1 => any::<usize>().prop_map(Step::UseTurnForBatch),
        2 => any::<usize>().prop_map(Step::DropTurn),
        2 => Just(Step::Append),
        1 => Just(Step::AppendBatch),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Any order of taking, using and dropping turns, beside plain appends: the log is the list of the places in the order in
    /// which they were taken, and a future is resolved as soon as no turn before it is out.
    #[test]
    fn the_log_is_the_list_of_places(steps in steps()) {
        let appender = OrderedAppender::new(memory());
        let mut model: Vec<Option<Vec<String>>> = Vec::new(); // None: the turn is out
        let mut turns: Vec<(usize, Turn)> = Vec::new();
        let mut appends: Vec<(usize, OrderedAppend<'_>)> = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let (one, two) = (format!("{i}"), [format!("{i} a"), format!("{i} b")]);
            match step {
                Step::UseTurn(_) | Step::UseTurnForBatch(_) | Step::DropTurn(_) if turns.is_empty() => {}
                Step::Take => {
                    turns.push((model.len(), appender.turn()));
                    model.push(None);
                }
                Step::UseTurn(which) => {
                    let (place, turn) = turns.swap_remove(which % turns.len());
                    appends.push((place, turn.append(&one)));
                    model[place] = Some(vec![one]);
                }
                Step::UseTurnForBatch(which) => {
                    let (place, turn) = turns.swap_remove(which % turns.len());
                    drop(turn.append_batch(&two));
                    model[place] = Some(two.to_vec());
                }
                Step::DropTurn(which) => {
                    let (place, turn) = turns.swap_remove(which % turns.len());
                    drop(turn);
                    model[place] = Some(vec![]);
                }
                Step::Append => {
                    appends.push((model.len(), appender.append(&one)));
                    model.push(Some(vec![one]));
                }
                Step::AppendBatch => {
                    drop(appender.append_batch(&two));
                    model.push(Some(two.to_vec()));
                }
            }
            let first_out = model.iter().position(Option::is_none).unwrap_or(model.len());
            let there: Vec<String> = model[..first_out].iter().flatten().flatten().cloned().collect();
            prop_assert_eq!(texts(appender.file()), there);
            for (place, append) in std::mem::take(&mut appends) {
                let mut append = append;
                let polled = std::pin::Pin::new(&mut append).poll(&mut Context::from_waker(Waker::noop()));
                match polled {
                    Poll::Ready(seq) => {
                        prop_assert!(place < first_out);
                        let before = model[..place].iter().flatten().flatten().count() as u64;
                        prop_assert_eq!(seq.unwrap(), before);
                    }
                    Poll::Pending => {
                        prop_assert!(place > first_out);
                        appends.push((place, append));
                    }
                }
            }
        }
        drop(turns);
        let all: Vec<String> = model.iter().flatten().flatten().cloned().collect();
        prop_assert_eq!(texts(appender.file()), all);
        prop_assert_eq!(appender.open_places(), 0);
    }
}

/// A task that waits behind a turn is woken by the thread that drops it, under an executor that only a waker can move.
#[test]
fn a_dropped_turn_wakes_a_task() {
    let appender = OrderedAppender::new(memory());
    let turn = appender.turn();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let behind = appender.append_durable("behind");
    let dropper = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        drop(turn);
    });
    assert_eq!(runtime.block_on(behind).unwrap(), 0);
    dropper.join().unwrap();
}

/// Durability is waited for behind the turn too.
#[test]
fn a_durable_append_at_a_turn_is_durable() {
    let dir = scratch();
    let redex = support::open(dir.path(), redex::Backend::Auto);
    let appender = OrderedAppender::new(redex.open_file("ordered", persistent()).unwrap());
    let (first, second) = (appender.turn(), appender.turn());
    let second = second.append_durable("second");
    first.append_batch(&["a", "b"]).wait().unwrap();
    assert_eq!(second.wait().unwrap(), 2);
    assert_eq!(appender.file().durable(), 3);
    redex.close().wait().unwrap();
}

/// The channel's refusal comes to whoever holds the turn, and those behind get theirs.
#[test]
fn a_refused_turn_blocks_nobody() {
    let redex = Redex::builder().payload_size_max(100).build().unwrap();
    let appender = OrderedAppender::new(redex.open_file("ordered", RedexFileConfig::default()).unwrap());
    let (first, second, third) = (appender.turn(), appender.turn(), appender.turn());
    let second = second.append(vec![0; 101]);
    let third = third.append("third");
    first.append("first").wait().unwrap();
    assert!(matches!(second.wait(), Err(AppendError::TooLarge { size: 101, .. })));
    assert_eq!(third.wait().unwrap(), 1);

    let (first, second) = (appender.turn(), appender.turn());
    let second = second.append("too late");
    appender.file().close().wait().unwrap();
    drop(first);
    assert!(matches!(second.wait(), Err(AppendError::Closed { .. })));
    assert!(matches!(appender.append("x").wait(), Err(AppendError::Closed { .. })));
}

/// Plain appends behind a turn that stays out have a bound; what is within it comes in order.
#[test]
fn appends_behind_a_turn_have_a_bound() {
    let appender = OrderedAppender::new(memory());
    let turn = appender.turn();
    let payload = vec![7; 16 << 20];
    let behind: Vec<_> = (0..3).map(|_| appender.append(&payload)).collect();
    assert!(matches!(appender.append(&payload).wait(), Err(AppendError::Full { .. })));
    let small = appender.append("small");
    assert_eq!(turn.append("first").wait().unwrap(), 0);
    let seqs: Vec<u64> = behind.into_iter().map(|append| append.wait().unwrap()).collect();
    assert_eq!((seqs, small.wait().unwrap()), (vec![1, 2, 3], 4));
    assert_eq!(appender.append(&payload).wait().unwrap(), 5, "nothing waits any more");
}
