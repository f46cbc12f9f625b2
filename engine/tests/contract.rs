//! The code that users write against the published calls, as it is published: only `use` lines may differ.

mod support;

use std::ops::Range;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use redex::{ChannelName, Cursor, FsyncPolicy, Redex, RedexError, RedexEvent, RedexFile, RedexFileConfig, Tail};

use support::scratch;

/// What the published code calls for each event: sequence and bytes.
#[derive(Default)]
struct Seen(std::sync::Mutex<Vec<(u64, Vec<u8>)>>);

impl Seen {
    fn note(&self, seq: u64, payload: &[u8]) {
        self.0.lock().unwrap().push((seq, payload.to_vec()));
    }

    fn take(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Appends three events and closes the channel, once somebody follows it: a tail ends only then.
fn append_and_close_from_elsewhere(redex: &Redex) {
    let config = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(100));
    let file = redex.open_file("sensors/lidar/front", config).unwrap();
    tokio::spawn(async move {
        for i in 0..3u8 {
            file.append([i]).await.unwrap();
        }
        file.close().await.unwrap();
    });
}

/// The published code, line for line; the blocks between check its types and results.
#[rustfmt::skip]
async fn published_code(payload: &[u8], payloads: Vec<Vec<u8>>) -> Result<(), RedexError> {
    let seen = Seen::default();
    let process = |seq: u64, payload: &[u8]| seen.note(seq, payload);
    let last_processed_seq = 250;

    let redex = Arc::new(Redex::new().with_persistent_dir("data"));
    let cfg = RedexFileConfig::default().with_persistent(true).with_fsync_policy(FsyncPolicy::EveryN(100));
    let file = redex.open_file("sensors/lidar/front", cfg)?;
    let seq = file.append(payload).await?;
    let seqs = file.append_batch(&payloads).await?;
    {
        let (seq, seqs): (u64, &Range<u64>) = (seq, &seqs);
        assert_eq!((seq, seqs), (0, &(1..301)));
    }
    for event in file.read_range(100, 200).await? { process(event.seq, &event.payload); }
    {
        let read: Vec<_> = (100..200u64).map(|seq| (seq, payloads[seq as usize - 1].clone())).collect();
        assert_eq!(seen.take(), read);
    }
    let mut tail = file.subscribe_tail().await?;
    append_and_close_from_elsewhere(&redex);
    while let Some(event) = tail.next().await { process(event.seq, &event.payload); }
    assert_eq!(seen.take(), [(301, vec![0]), (302, vec![1]), (303, vec![2])]);
    let mut tail = file.subscribe_from(last_processed_seq).await?;
    while let Some(event) = tail.next().await { process(event.seq, &event.payload); }
    assert_eq!(seen.take().iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (250..304).collect::<Vec<_>>());
    assert!(matches!(tail.ended(), Some(redex::TailEnd::Closed)), "{:?}", tail.ended());
    Ok(())
}

/// Runs the published code on a multi-threaded runtime, in a directory of its own, since it names `data`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_code_compiles_and_does_what_it_says() {
    let dir = scratch();
    std::env::set_current_dir(dir.path()).unwrap();
    let payloads: Vec<Vec<u8>> = (0..300).map(|i| vec![i as u8; i]).collect();
    published_code(b"the first", payloads).await.unwrap();
    assert!(dir.path().join("data/STORE").exists());
}

/// Passes every kind of name, payload and batch that callers have at hand.
#[tokio::test]
async fn names_and_payloads_of_every_kind_are_taken() -> Result<(), RedexError> {
    let redex = Arc::new(Redex::in_memory());
    let config = RedexFileConfig::default;
    let (text, owned) = ("a/b", String::from("a/b"));
    let name = ChannelName::new(text)?;
    let file = redex.open_file(text, config())?;
    for again in [
        redex.open_file(owned.clone(), config())?,
        redex.open_file(&owned, config())?,
        redex.open_file(&name, config())?,
        redex.open_file(name, config())?,
    ] {
        again.append("one each").await?;
    }
    assert_eq!(file.len(), 4);
    let (vec, slice, array) = (vec![1u8, 2], &[1u8, 2][..], [1u8, 2]);
    file.append(vec.clone()).await?;
    file.append(&vec).await?;
    file.append(slice).await?;
    file.append(array).await?;
    file.append(array).await?;
    file.append("text").await?;
    file.append(String::from("text")).await?;
    file.append(b"bytes").await?;
    file.append_inline([7u8; 8]).await?;
    let batches = [
        file.append_batch(&[slice, slice]).await?,
        file.append_batch(&vec![vec.clone(); 3]).await?,
        file.append_batch(&["a"]).await?,
    ];
    assert_eq!(batches, [13..15, 15..18, 18..19]);
    let none: [&[u8]; 0] = [];
    assert_eq!(file.append_batch(&none).await?, 19..19);
    assert_eq!(file.read_one(9).await?.unwrap().payload, b"text");
    Ok(())
}

/// Makes each operation fail where it can, and lets `?` convert.
#[test]
fn every_error_converts_into_the_one_of_the_crate() {
    fn name() -> Result<(), RedexError> {
        ChannelName::new("")?;
        Ok(())
    }
    fn open() -> Result<(), RedexError> {
        Redex::open("/dev/null")?;
        Ok(())
    }
    fn open_file(redex: &Redex) -> Result<(), RedexError> {
        redex.open_file("a", RedexFileConfig::default().with_persistent(true))?;
        Ok(())
    }
    fn append(file: &RedexFile) -> Result<(), RedexError> {
        file.append_inline([0; 9]).wait()?;
        Ok(())
    }
    fn try_append(file: &RedexFile) -> Result<(), RedexError> {
        file.try_append(vec![0; (16 << 20) + 1])?;
        Ok(())
    }
    fn read(file: &RedexFile) -> Result<(), RedexError> {
        file.read_range(2, 1).wait()?;
        Ok(())
    }
    fn subscribe(file: &RedexFile) -> Result<(), RedexError> {
        file.subscribe_from(Cursor { epoch: 99, seq: 0 }).wait()?;
        Ok(())
    }
    fn tail(file: &RedexFile) -> Result<(), RedexError> {
        for item in std::iter::from_fn(|| file.tail(Cursor { epoch: 99, seq: 0 }).next_wait()) {
            item?;
        }
        Ok(())
    }
    let redex = Redex::in_memory();
    let file = redex.open_file("a", RedexFileConfig::default()).unwrap();
    assert!(matches!(name(), Err(RedexError::Name(_))));
    assert!(matches!(open(), Err(RedexError::Open(_))));
    assert!(matches!(open_file(&redex), Err(RedexError::OpenFile(_))));
    assert!(matches!(append(&file), Err(RedexError::Append(_))));
    assert!(matches!(try_append(&file), Err(RedexError::Append(_))));
    assert!(matches!(read(&file), Err(RedexError::Read(_))));
    assert!(matches!(subscribe(&file), Err(RedexError::Subscribe(_))));
    assert!(matches!(tail(&file), Err(RedexError::Tail(redex::TailEnd::Refused(_)))));
    // These two need a device that fails: that they convert is all that is held here.
    let _: fn(redex::SyncError) -> RedexError = RedexError::from;
    let _: fn(redex::CloseError) -> RedexError = RedexError::from;
}

/// Asks the compiler.
#[test]
fn futures_and_handles_can_cross_threads() {
    fn crosses<T: Send>(_: T) {}
    fn is_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn streams<S: Stream<Item = RedexEvent> + Unpin + Send + 'static>(_: &S) {}
    fn streams_results<S: Stream + Unpin + Send + 'static>(_: S) {}
    let redex = Redex::in_memory();
    let file = redex.open_file("a", RedexFileConfig::default()).unwrap();
    is_shared(&redex);
    is_shared(&file);
    crosses(file.append(b"x"));
    crosses(file.append_batch(&[b"x"]));
    crosses(file.append_durable(b"x"));
    crosses(file.read_range(0, 1));
    crosses(file.read_one(0));
    crosses(file.subscribe_tail());
    crosses(file.sync());
    crosses(file.wait_durable(0));
    crosses(file.wait_published(0));
    crosses(file.close());
    crosses(redex.close());
    let tail: Tail = file.subscribe_from(0).wait().unwrap();
    streams(&tail);
    streams_results(tail.results());
    streams_results(file.tail(0));
    streams_results(file.read_from(0));
    streams_results(file.scan(0..1));
}

/// Appends from tasks of a runtime that moves them between its threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spawned_tasks_append() {
    let dir = scratch();
    let redex = Redex::open(dir.path()).unwrap();
    let file = redex.open_file("tasks", RedexFileConfig::default().with_persistent(true)).unwrap();
    let tasks: Vec<_> = (0..64u8)
        .map(|i| {
            let file = file.clone();
            tokio::spawn(async move { file.append_durable([i; 100]).await.unwrap() })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.push(task.await.unwrap());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (0..64).collect::<Vec<u64>>());
    assert_eq!(file.durable(), 64);
    redex.close().await.unwrap();
}
