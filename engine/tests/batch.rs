//! Batches over several channels: all or nothing, in one commit, in the order of calls.

use redex::{AppendError, ChangeError, FsyncPolicy, Redex, RedexFile, RedexFileConfig};

mod support;

fn config(persistent: bool) -> RedexFileConfig {
    RedexFileConfig::default().with_persistent(persistent).with_affinity("together").with_segment_bytes(64 << 10)
}

fn open_many(redex: &Redex, count: usize, persistent: bool) -> Vec<RedexFile> {
    (0..count).map(|i| redex.open_file(format!("c/{i}"), config(persistent)).unwrap()).collect()
}

#[test]
fn a_batch_is_one_commit() {
    let dir = support::scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(4).build().unwrap();
    let files = open_many(&redex, 10, true);
    redex.batch().commit().wait().unwrap();
    // Channels are made with their first commit.
    files.iter().for_each(|file| assert_eq!(file.append_durable(b"0").wait().unwrap(), 0));
    let before = redex.stats();
    let mut batch = redex.batch();
    for i in 0..30_u64 {
        batch.append(&files[i as usize % 10], support::payload(i));
    }
    let seqs = batch.commit().wait().unwrap();
    assert_eq!(seqs, (0..30).map(|i| 1 + i / 10).collect::<Vec<u64>>());
    let after = redex.stats();
    assert_eq!((after.commits - before.commits, after.flushes - before.flushes), (1, 1));
    for i in 0..30 {
        assert_eq!(files[i as usize % 10].durable(), 4);
        assert_eq!(files[i as usize % 10].read_one(1 + i / 10).wait().unwrap().unwrap().payload, support::payload(i));
    }
}

#[test]
fn a_batch_in_memory() {
    let redex = Redex::in_memory();
    let files = open_many(&redex, 2, false);
    let mut batch = redex.batch();
    batch.append(&files[1], b"a").append(&files[0], b"b").append(&files[1], b"c");
    assert_eq!((batch.len(), batch.is_empty()), (3, false));
    assert_eq!(batch.commit().wait().unwrap(), [0, 0, 1]);
}

#[test]
fn what_cannot_be_atomic_is_refused() {
    let dir = support::scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).shards(8).build().unwrap();
    let files = open_many(&redex, 2, true);
    let apart: Vec<_> = (0..20)
        .map(|i| redex.open_file(format!("apart/{i}"), RedexFileConfig::default().with_persistent(true)).unwrap())
        .collect();
    let errors = apart.iter().filter_map(|other| {
        let mut batch = redex.batch();
        batch.append(&files[0], b"here").append(other, b"there");
        batch.commit().wait().err()
    });
    assert!(errors.filter(|error| matches!(error, ChangeError::Apart { .. })).count() > 0);
    let mut batch = redex.batch();
    batch.append(&files[0], vec![0; 600 << 10]).append(&files[1], vec![0; 600 << 10]);
    assert!(matches!(batch.commit().wait(), Err(ChangeError::BatchTooLarge { .. })));
    let before = (files[0].next_seq(), files[1].next_seq());
    let mut batch = redex.batch();
    batch.append(&files[0], b"x").append(&files[1], b"y");
    files[1].close().wait().unwrap();
    assert!(matches!(batch.commit().wait(), Err(ChangeError::Append(AppendError::Closed { .. }))));
    assert_eq!((files[0].next_seq(), files[1].next_seq()), before, "nothing of it");
    assert_eq!(files[0].append(b"goes on").wait().unwrap(), before.0);
}

/// Threads that append and make batches over the same channels, in any order of channels.
#[test]
fn batches_and_appends_from_many_threads() {
    const BATCHES: u64 = 100;
    let dir = support::scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).journal_segment_bytes(256 << 10).build().unwrap();
    let files: Vec<_> = open_many(&redex, 4, true);
    files[0].set_fsync_policy(FsyncPolicy::EveryN(10)).wait().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (redex, files) = (&redex, &files);
            scope.spawn(move || {
                for i in 0..BATCHES {
                    let mut batch = redex.batch();
                    for channel in 0..4 {
                        let file = &files[(channel + thread as usize) % 4];
                        let event = [[b'b', thread as u8].as_slice(), &i.to_le_bytes(), &[0; 200]].concat();
                        batch.append(file, event);
                    }
                    let file = &files[(i % 4) as usize];
                    // Not awaited: it stands in front of the batch all the same.
                    let single = file.append([[b's', thread as u8].as_slice(), &i.to_le_bytes(), &[0; 3000]].concat());
                    let commit = batch.commit();
                    drop(single);
                    assert_eq!(commit.wait().unwrap().len(), 4);
                }
            });
        }
    });
    for file in &files {
        // Of each thread: batches in order, each single one in front of its batch.
        let mut next = [0_u64; 4];
        for event in file.read_from(0).blocking() {
            let payload = event.unwrap().payload;
            let (thread, i) = (payload[1] as usize, u64::from_le_bytes(payload[2..10].try_into().unwrap()));
            assert_eq!(i, next[thread], "order of calls");
            next[thread] += u64::from(payload[0] == b'b');
        }
        assert_eq!(next, [BATCHES; 4]);
    }
    redex.close().wait().unwrap();
}

/// Copies of the files taken at any time have each batch whole, or not at all.
#[test]
fn a_crash_keeps_all_of_a_batch_or_nothing() {
    let dir = support::scratch();
    let redex = Redex::builder().persistent_dir(dir.path()).journal_segment_bytes(256 << 10).build().unwrap();
    let files = open_many(&redex, 3, true);
    for i in 0..300_u64 {
        let mut batch = redex.batch();
        for file in &files {
            batch.append(file, [i.to_le_bytes().as_slice(), &[i as u8; 700]].concat());
        }
        let commit = batch.commit();
        if i % 100 == 99 {
            let copy = support::scratch();
            commit.wait().unwrap();
            support::copy_dir(dir.path(), copy.path());
            let redex = Redex::open(copy.path()).unwrap();
            for file in open_many(&redex, 3, true) {
                assert_eq!(file.next_seq(), i + 1);
            }
        }
    }
    files[0].sync().wait().unwrap();
    drop(redex);
    let redex = Redex::open(dir.path()).unwrap();
    assert!(open_many(&redex, 3, true).iter().all(|file| file.next_seq() == 300));
}

/// A batch under way, and the store is closed: it is whole, or refused.
#[test]
fn a_close_waits_for_batches() {
    for _ in 0..20 {
        let dir = support::scratch();
        let redex = Redex::open(dir.path()).unwrap();
        let files = open_many(&redex, 3, true);
        let commits: Vec<_> = (0..20)
            .map(|i| {
                let mut batch = redex.batch();
                for file in &files {
                    batch.append(file, [i; 100]);
                }
                batch.commit()
            })
            .collect();
        redex.close().wait().unwrap();
        let made = commits.into_iter().map(|commit| commit.wait().is_ok()).filter(|ok| *ok).count() as u64;
        let redex = Redex::open(dir.path()).unwrap();
        for file in open_many(&redex, 3, true) {
            assert_eq!(file.next_seq(), made);
        }
    }
}
