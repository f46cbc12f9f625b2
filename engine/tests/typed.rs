//! Typed channels: values come back with sequence and time, and what is no value is an error that names its event.

mod support;

use std::error::Error;
use std::time::SystemTime;

use futures_util::StreamExt;
use redex::typed::{PostcardError, TypedAppendError, TypedReadError, TypedTailError};
use redex::{AppendError, Backend, Codec, Redex, RedexError, RedexFileConfig, TypedRedexFile};
use serde::{Deserialize, Serialize};

use support::{open, persistent, scratch};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Entry {
    Opened { account: u64, owner: String },
    Moved { from: u64, to: u64, cents: i64 },
    Closed(u64),
}

fn entry(i: u64) -> Entry {
    match i % 3 {
        0 => Entry::Opened { account: i, owner: "o".repeat((i % 50) as usize) },
        1 => Entry::Moved { from: i, to: i / 2, cents: -(i as i64) },
        _ => Entry::Closed(i),
    }
}

/// A codec that refuses odd numbers, both ways: it cannot encode them, and decodes nothing else than four bytes of an even one.
#[derive(Clone)]
struct Even;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0:?} is not even")]
struct NotEven(Vec<u8>);

impl Codec<u32> for Even {
    type Error = NotEven;

    fn encode(&self, value: &u32, buffer: &mut Vec<u8>) -> Result<(), NotEven> {
        let bytes = value.to_le_bytes();
        // What a codec leaves in the buffer before it refuses must not come into the next payload.
        buffer.extend_from_slice(&bytes);
        if value.is_multiple_of(2) { Ok(()) } else { Err(NotEven(bytes.to_vec())) }
    }

    fn decode(&self, bytes: &[u8]) -> Result<u32, NotEven> {
        let value = <[u8; 4]>::try_from(bytes).map(u32::from_le_bytes);
        value.ok().filter(|value| value.is_multiple_of(2)).ok_or_else(|| NotEven(bytes.to_vec()))
    }
}

fn evens() -> TypedRedexFile<u32, Even> {
    let file = Redex::in_memory().open_file("evens", RedexFileConfig::default()).unwrap();
    TypedRedexFile::with_codec(file, Even)
}

/// Appends one by one, in a batch, durable and not; reads by range, one, scan and tail; before and after a reopen.
#[test]
fn values_come_back_after_a_reopen() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let ledger = TypedRedexFile::<Entry>::new(redex.open_file("ledger", persistent()).unwrap());
    let begun = SystemTime::now();
    for i in 0..100 {
        assert_eq!(ledger.append(&entry(i)).wait().unwrap(), i);
    }
    let batch: Vec<Entry> = (100..200).map(entry).collect();
    assert_eq!(ledger.append_batch(&batch).wait().unwrap(), 100..200);
    assert_eq!(ledger.append_durable(&entry(200)).wait().unwrap(), 200);
    assert!(ledger.file().durable() > 200);
    assert_eq!(ledger.append_batch_durable(&[entry(201), entry(202)]).wait().unwrap(), 201..203);
    assert_eq!(ledger.append_batch(&[]).wait().unwrap(), 203..203);
    redex.close().wait().unwrap();

    let redex = open(dir.path(), Backend::Auto);
    let ledger = TypedRedexFile::<Entry>::new(redex.open_file("ledger", persistent()).unwrap());
    let read = ledger.read_range(0, u64::MAX).wait().unwrap();
    assert_eq!(read.len(), 203);
    for (i, event) in read.iter().enumerate() {
        assert_eq!((event.seq, &event.value), (i as u64, &entry(i as u64)));
    }
    assert!(read.windows(2).all(|pair| pair[0].time <= pair[1].time));
    // The kernel's tick is the resolution of both.
    let first = read[0].time.to_system_time();
    assert!(first + std::time::Duration::from_millis(20) >= begun && first <= SystemTime::now());
    let one = ledger.read_one(7).wait().unwrap().unwrap();
    assert_eq!(<(u64, Entry)>::from(one), (7, entry(7)));
    assert_eq!(ledger.read_one(203).wait().unwrap(), None);
    let scanned: Result<Vec<_>, _> = ledger.read_from(190).blocking().collect();
    assert_eq!(scanned.unwrap(), read[190..]);
    let mut tail = ledger.subscribe_from(200).wait().unwrap().durable_only();
    let followed: Vec<_> = (0..3).map(|_| tail.next_wait().unwrap().unwrap()).collect();
    assert_eq!(followed, read[200..]);
    assert_eq!(tail.cursor(), ledger.file().cursor());
    redex.close().wait().unwrap();
    assert!(tail.next_wait().is_none() && tail.ended().is_some());
}

/// An event that is no value: reading it fails with its sequence, a scan and a tail report it and go on.
#[test]
fn what_does_not_decode_is_reported_and_passed() {
    let file = Redex::in_memory().open_file("words", RedexFileConfig::default()).unwrap();
    let words = TypedRedexFile::<String>::new(file);
    let mut tail = words.subscribe_tail().wait().unwrap();
    words.append(&"zero".to_owned()).wait().unwrap();
    words.file().append(b"\x05short").wait().unwrap();
    words.file().append(b"\x01xy").wait().unwrap();
    words.file().append(b"\x7f").wait().unwrap();
    words.append(&"four".to_owned()).wait().unwrap();
    words.file().close().wait().unwrap();

    let items: Vec<_> = std::iter::from_fn(|| tail.next_wait()).collect();
    let seqs: Vec<_> = items
        .iter()
        .map(|item| match item {
            Ok(event) => (event.seq, Some(event.value.as_str())),
            Err(TypedTailError::Undecodable(error)) => (error.seq, None),
            Err(other) => panic!("{other}"),
        })
        .collect();
    assert_eq!(seqs, [(0, Some("zero")), (1, Some("short")), (2, None), (3, None), (4, Some("four"))]);
    let scanned: Vec<bool> = words.scan(0..5).blocking().map(|item| item.is_ok()).collect();
    assert_eq!(scanned, [true, true, false, false, true]);

    let trailing = words.read_range(0, 5).wait().unwrap_err();
    let TypedReadError::Undecodable(undecodable) = &trailing else { panic!("{trailing}") };
    assert_eq!((undecodable.seq, undecodable.size, undecodable.channel.as_str()), (2, 3, "words"));
    assert_eq!(undecodable.source, PostcardError::TrailingBytes { used: 2, size: 3 });
    assert!(undecodable.time >= words.read_one(0).wait().unwrap().unwrap().time);
    let short = words.read_one(3).wait().unwrap_err();
    assert!(
        matches!(&short, TypedReadError::Undecodable(error) if matches!(error.source, PostcardError::Malformed(_)))
    );

    // All convert into the crate's error, with the cause.
    let error: RedexError = short.into();
    assert!(matches!(error, RedexError::Codec(_)));
    assert!(support::text(&error).contains("event 3") && error.source().is_some(), "{}", support::text(&error));
    let bad_range = words.read_range(4, 2).wait().unwrap_err();
    assert!(matches!(bad_range, TypedReadError::Read(_)) && matches!(RedexError::from(bad_range), RedexError::Read(_)));
}

/// Nothing is appended of what cannot be encoded, and its bytes come into no other payload.
#[test]
fn what_does_not_encode_is_not_appended() {
    let evens = evens();
    let refused = evens.append(&3).wait().unwrap_err();
    let TypedAppendError::Encode { index: 0, source, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*source, NotEven(vec![3, 0, 0, 0]));
    let refused = evens.append_batch(&[2, 4, 5, 6]).wait().unwrap_err();
    assert!(matches!(refused, TypedAppendError::Encode { index: 2, .. }), "{refused}");
    assert!(matches!(RedexError::from(refused), RedexError::Codec(_)));
    assert_eq!(evens.file().next_seq(), 0);

    evens.append(&8).wait().unwrap();
    evens.append_batch(&[10, 12]).wait().unwrap();
    let read: Vec<_> = evens.read_range(0, 9).wait().unwrap().into_iter().map(<(u64, u32)>::from).collect();
    assert_eq!(read, [(0, 8), (1, 10), (2, 12)]);
}

#[test]
fn the_channels_own_refusals_stay_what_they_are() {
    let redex = Redex::builder().payload_size_max(100).build().unwrap();
    let words = TypedRedexFile::<String>::new(redex.open_file("words", RedexFileConfig::default()).unwrap());
    let refused = words.append(&"x".repeat(100)).wait().unwrap_err();
    assert!(
        matches!(refused, TypedAppendError::Append(AppendError::TooLarge { size: 101, limit: 100, .. })),
        "{refused}"
    );
    assert!(matches!(RedexError::from(refused), RedexError::Append(_)));
    words.file().close().wait().unwrap();
    let refused = words.append(&"x".to_owned()).wait().unwrap_err();
    assert!(matches!(refused, TypedAppendError::Append(AppendError::Closed { .. })), "{refused}");
}

/// The futures and streams, under a runtime.
#[test]
fn the_same_by_futures() {
    let dir = scratch();
    let redex = open(dir.path(), Backend::Auto);
    let ledger = TypedRedexFile::<Entry>::new(redex.open_file("ledger", persistent()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let work = async {
        let mut tail = ledger.subscribe_tail().await?;
        assert_eq!(ledger.append(&entry(0)).await?, 0);
        assert_eq!(ledger.append_batch(&[entry(1), entry(2)]).await?, 1..3);
        assert_eq!(ledger.append_durable(&entry(3)).await?, 3);
        assert_eq!(ledger.read_one(2).await?.unwrap().value, entry(2));
        assert_eq!(ledger.read_range(1, 3).await?.len(), 2);
        assert_eq!(ledger.scan(0..4).filter(|item| std::future::ready(item.is_ok())).count().await, 4);
        ledger.file().close().await?;
        let mut followed = 0;
        while let Some(event) = tail.next().await {
            let event = event?;
            assert_eq!((event.seq, event.value), (followed, entry(followed)));
            followed += 1;
        }
        assert_eq!(followed, 4);
        redex.close().await?;
        Ok::<(), RedexError>(())
    };
    runtime.block_on(work).unwrap();
}
