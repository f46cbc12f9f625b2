//! Producers and readers against cuts of the end, and batches over channels beside them: what a cut takes is told to readers, what
//! comes behind it lies behind it, and a batch is there whole or not at all.

use futures_util::StreamExt;
use redex::{ChangeError, FsyncPolicy, ReadError, Redex, RedexFile, TailEnd};

use crate::world::{Left, World, author, drive, everything, explore, payload, small_segments, wait};

const EVENTS: u8 = 10;
const BATCHES: u8 = 4;

/// Appends; events that were acknowledged may be cut off afterwards.
fn produce(file: &RedexFile) {
    for number in 0..EVENTS {
        wait(file.append_durable(payload(0, number))).expect("nothing refuses it");
    }
    wait(file.close()).expect("it closes");
}

/// Reads to the end; what it was told was lost is taken back.
fn follow(file: &RedexFile) -> Vec<(u8, u8)> {
    let mut tail = file.tail(0);
    let mut events = Vec::new();
    while let Some(item) = wait(tail.next()) {
        match item {
            Ok(event) => {
                assert_eq!(event.seq, events.len() as u64, "each event once, in order");
                events.push(author(&event));
            }
            Err(TailEnd::Lost { from, to, .. }) => {
                assert!(from < to && to == events.len() as u64, "{from}..{to} at {}", events.len());
                events.truncate(from as usize);
            }
            Err(other) => panic!("{other}"),
        }
    }
    events
}

fn cut(file: &RedexFile) {
    for back in [1, 3, 0] {
        let end = file.next_seq().saturating_sub(back);
        match wait(file.truncate_suffix(end)) {
            Ok(found) => assert_eq!(found, end),
            // The producer has closed it.
            Err(ChangeError::Closed { .. }) => return,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn readers_know_what_a_cut_has_taken() {
    explore(51, |number| {
        let world = World::new(number);
        let mut store = world.open();
        let file = store.redex().open_file("orders", small_segments(FsyncPolicy::Never)).unwrap();
        let left = Left::default();
        let reader = left.with(&file, follow);
        let others = vec![left.with(&file, produce), left.with(&file, cut)];
        drive(&mut store, others, &left);
        let seen = drive(&mut store, vec![reader], &left).remove(0);
        let found: Vec<_> = everything(&file).iter().map(author).collect();
        assert_eq!(seen, found, "a reader has what is there");
        drop(file);
        store.close().expect("a clean close");

        let store = world.open();
        let file = store.redex().open_file("orders", small_segments(FsyncPolicy::Never)).unwrap();
        assert_eq!(everything(&file).iter().map(author).collect::<Vec<_>>(), found, "cuts are durable");
        drop(file);
        store.close().expect("a clean close");
    });
}

/// A read of what no cut takes has all of it, in memory and on disk, whatever it meets.
#[test]
fn a_cut_ends_no_read_of_what_it_leaves() {
    const KEPT: u8 = 4;
    explore(53, |number| {
        let world = World::new(number);
        let mut store = world.open();
        let config = small_segments(FsyncPolicy::Never).with_persistent(number % 2 == 0);
        let file = store.redex().open_file("orders", config).unwrap();
        let left = Left::default();
        let fill =
            left.with(&file, |file| (0..EVENTS).for_each(|number| _ = wait(file.append(payload(0, number))).unwrap()));
        drive(&mut store, vec![fill], &left);
        let cutter = left.with(&file, |file| {
            for end in (KEPT..EVENTS).rev() {
                assert_eq!(wait(file.truncate_suffix(end.into())).expect("nothing refuses it"), u64::from(end));
            }
        });
        let whole: Vec<_> = (0..KEPT).map(|number| (0, number)).collect();
        let of_range = whole.clone();
        let ranges = left.with(&file, move |file| {
            for _ in 0..4 {
                let events = wait(file.read_range(0, KEPT.into())).expect("it is there");
                assert_eq!(events.iter().map(author).collect::<Vec<_>>(), of_range);
            }
        });
        let chunks = left.with(&file, |file| {
            for _ in 0..4 {
                let mut scan = file.read_from(0);
                let mut count = 0;
                while let Some(chunk) = wait(scan.next_chunk()) {
                    match chunk {
                        Ok(chunk) => count += chunk.len(),
                        Err(ReadError::CutOff { from, .. }) if from >= KEPT.into() => break,
                        Err(other) => panic!("{other}"),
                    }
                }
                assert!(count >= KEPT.into(), "{count} events");
            }
        });
        drive(&mut store, vec![cutter, ranges, chunks], &left);
        assert_eq!(everything(&file).iter().map(author).collect::<Vec<_>>(), whole);
        drop(file);
        store.close().expect("a clean close");
    });
}

/// Batches over two channels; refused when the store closes.
fn commit(redex: &Redex, files: &[RedexFile; 2], producer: u8) -> Vec<Vec<u64>> {
    let commit = |number| {
        let mut batch = redex.batch();
        files.iter().for_each(|file| _ = batch.append(file, payload(producer, number)));
        match wait(batch.commit()) {
            Ok(seqs) => Some(seqs),
            Err(ChangeError::Append(_) | ChangeError::Closed { .. }) => None,
            Err(other) => panic!("{other}"),
        }
    };
    (0..BATCHES).map_while(commit).collect()
}

#[test]
fn batches_over_channels_are_whole_when_the_store_closes_under_them() {
    explore(52, |number| {
        let world = World::new(number);
        let mut store = world.open();
        let open = |store: &redex::sim::SimStore| {
            let config = small_segments(FsyncPolicy::Never).with_affinity("both");
            ["ones", "others"].map(|name| store.redex().open_file(name, config.clone()).unwrap())
        };
        let files = open(&store);
        let left = Left::default();
        let handles = (store.redex().clone(), files.clone());
        let producers = left.producers(2, &handles, |(redex, files), producer| commit(redex, files, producer));
        let closer = left.with(&handles.0, |redex| drop(redex.close()));
        drop(handles);
        let answers = drive(&mut store, producers, &left);
        drive(&mut store, vec![closer], &left);
        drop(files);
        store.begin_close();
        crate::world::drive_to_end(&mut store);
        store.finish_close().expect("a clean close");

        let store = world.open();
        let files = open(&store);
        let [ones, others] = files.each_ref().map(|file| everything(file).iter().map(author).collect::<Vec<_>>());
        assert_eq!(ones, others, "a batch is there whole or not at all");
        let acknowledged: usize = answers.iter().map(Vec::len).sum();
        assert_eq!(ones.len(), acknowledged, "what was acknowledged is there, and nothing else");
        drop(files);
        store.close().expect("a clean close");
    });
}
