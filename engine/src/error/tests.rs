//! Every error that a user can get: it says where, it says what to do, and no cause twice.

use std::collections::BTreeSet;
use std::error::Error;

use super::*;
use crate::ids::{ChannelId, Epoch, Lsn, SegmentNo, Seq, StoreUuid};
use crate::journal::format::{CommitError, HeaderError};
use crate::journal::scan::{CommitFault, HeaderFault, NamedBy, Witness};
use crate::segment::block::{BlockPlace, decode_block};
use crate::segment::record::IndexRecord;
use crate::store::envelope::EnvelopeError;

/// An error, and what its text has to have: the place, and what to do.
struct Sample {
    variant: &'static str,
    error: Box<dyn Error>,
    place: &'static str,
    remedy: &'static str,
}

/// Names of all variants, and the name of one: what is added to an error does not compile before it is added here.
macro_rules! variants {
    ($names:ident, $name:ident, $error:ident: $($variant:ident)*) => {
        const $names: &[&str] = &[$(concat!(stringify!($error), "::", stringify!($variant))),*];

        fn $name(error: &$error) -> &'static str {
            match error {
                $($error::$variant { .. } => concat!(stringify!($error), "::", stringify!($variant)),)*
            }
        }
    };
}

variants!(OPEN, open_name, OpenError: InUse NoStore Busy NotADirectory Io Superblock Journal Checkpoint Inconsistent Setting);
variants!(
    OPEN_FILE, open_file_name, OpenFileError:
    Name NoBaseDirectory BaseDirectoryConflict ConfigConflict Setting Store Poisoned Damaged Meta UnknownConfig
    NoSuchChannel BeingDeleted Closed
);
variants!(
    APPEND, append_name, AppendError:
    TooLarge BatchTooLarge OtherSeq NotInline Full NoSpace Closed Poisoned
);
variants!(READ, read_name, ReadError: BadRange BadTimeRange Index Record Payload Io Cold Trimmed CutOff Missing);
variants!(
    CHANGE, change_name, ChangeError:
    NotFound OutOfRange Apart BatchTooLarge Append Read OpenFile Closed Poisoned
);
variants!(COLD, cold_name, ColdError: Failed NoColdStore InMemory);
variants!(SUBSCRIBE, subscribe_name, SubscribeError: LostEvents UnknownEpoch);
variants!(SYNC, sync_name, SyncError: Poisoned Closed);
variants!(CLOSE, close_name, CloseError: Poisoned NoSpace Store);
variants!(NAME, name_name, ChannelNameError: Empty TooLong EmptyPart DotPart ControlCharacter);
variants!(SUPERBLOCK, superblock_name, SuperblockError: Damaged Newer TwoStores);
variants!(
    JOURNAL, journal_name, JournalError:
    Io Newer NewerEntry BadHeader Lost Corrupt Contradiction BrokenChain WrongEnd
);
variants!(CHECKPOINT, checkpoint_name, CheckpointError: Io Newer Damaged);
variants!(META, meta_name, MetaError: Unreadable Damaged OtherChannel);

fn sample<E: Error + 'static>(
    name: fn(&E) -> &'static str,
    error: E,
    place: &'static str,
    remedy: &'static str,
) -> Sample {
    Sample { variant: name(&error), error: Box::new(error), place, remedy }
}

fn channel() -> ChannelName {
    ChannelName::new("orders/eu").unwrap()
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn poisoned() -> Poisoned {
    let file = "journal/000/7.wal".to_owned();
    Poisoned { shard: ShardId(3), what: "journal write", file, cause: Arc::new(eio()) }
}

fn superblock_errors() -> Vec<SuperblockError> {
    let magic = EnvelopeError::Magic;
    let two = [StoreUuid([1; 16]), StoreUuid([2; 16])];
    vec![
        SuperblockError::Damaged { first: magic, second: EnvelopeError::Cut { needed: 20, size: 0 } },
        SuperblockError::Newer { version: 9 },
        SuperblockError::TwoStores { first: two[0], second: two[1] },
    ]
}

fn journal_errors() -> Vec<JournalError> {
    let path = || "journal/000/7.wal".to_owned();
    let (offset, lsn) = (8192, Lsn(5));
    let fault = CommitFault::Commit(CommitError::Magic);
    let roll = NamedBy::Roll { path: path(), offset };
    let witness = Witness::Commit { path: path(), offset, lsn: Lsn(6), durable_lsn: Lsn(6) };
    vec![
        JournalError::Io { path: path(), offset, error: eio() },
        JournalError::Newer { path: path(), version: 9 },
        JournalError::NewerEntry { path: path(), offset, lsn, kind: 99 },
        JournalError::BadHeader { path: path(), fault: HeaderFault::Unreadable(eio()), named_by: NamedBy::Store },
        JournalError::BadHeader {
            path: path(),
            fault: HeaderFault::Damaged(HeaderError::Magic),
            named_by: NamedBy::Successor { path: path() },
        },
        JournalError::Lost { path: path(), named_by: roll },
        JournalError::Corrupt { path: path(), offset, lsn, fault, witness: Box::new(witness) },
        JournalError::Contradiction { path: path(), offset, lsn, fault },
        JournalError::BrokenChain { path: path(), offset, lsn, next: SegmentNo(8) },
        JournalError::WrongEnd { path: path(), offset, lsn },
    ]
}

fn checkpoint_errors() -> Vec<CheckpointError> {
    let (path, offset) = (|| "checkpoint/000/7.ckp".to_owned(), 8192);
    vec![
        CheckpointError::Io { path: path(), offset, error: eio() },
        CheckpointError::Newer { path: path(), version: 9 },
        CheckpointError::Damaged { path: path(), offset, what: "the checksum of a tail is wrong" },
    ]
}

fn open_samples() -> Vec<Sample> {
    let path = || PathBuf::from("data");
    let at = |error: OpenError, place, remedy| sample(open_name, error.beneath(Path::new("data")), place, remedy);
    let mut samples = vec![
        at(
            OpenError::InUse { path: path(), holder: "pid: 7".to_owned() },
            "data is in use by pid: 7",
            "close it there",
        ),
        at(OpenError::NotADirectory { path: path() }, "directory data ", "name another"),
        at(OpenError::Io { what: "open", path: "STORE".into(), source: eio() }, "data/STORE", "open the store again"),
        at(OpenError::Io { what: "sync", path: "".into(), source: eio() }, "cannot sync data;", "open the store again"),
        at(
            OpenError::Inconsistent { channel: "orders/eu".to_owned(), why: "its events do not follow" },
            "orders/eu",
            "from a copy",
        ),
        at(OpenError::NoStore { path: "".into() }, "data", "open it for writing first"),
        at(OpenError::Busy { path: "".into() }, "data", "try again"),
        at(OpenError::Setting { setting: "shards", value: 0, allowed: "1 to 64" }, "shards", "must be 1 to 64"),
    ];
    for source in superblock_errors() {
        let remedy = if matches!(source, SuperblockError::Newer { .. }) { "use the software" } else { "from a copy" };
        samples.push(sample(superblock_name, source, "STORE", remedy));
        samples.push(at(OpenError::Superblock { path: "STORE".into(), error: source }, "data/STORE", remedy));
    }
    for source in journal_errors() {
        let newer = matches!(source, JournalError::Newer { .. } | JournalError::NewerEntry { .. });
        let remedy = if newer { "use the software" } else { "from a copy" };
        let name = journal_name(&source);
        samples.push(at(OpenError::Journal { shard: ShardId(0), error: source }, "data/journal/000/7.wal", remedy));
        samples.last_mut().unwrap().variant = name;
    }
    for source in checkpoint_errors() {
        let remedy = if matches!(source, CheckpointError::Newer { .. }) { "use the software" } else { "from a copy" };
        let name = checkpoint_name(&source);
        samples.push(at(
            OpenError::Checkpoint { shard: ShardId(0), error: source },
            "data/checkpoint/000/7.ckp",
            remedy,
        ));
        samples.last_mut().unwrap().variant = name;
    }
    let [journal, checkpoint] = [journal_errors().remove(0), journal_errors().remove(1)];
    samples.push(at(OpenError::Journal { shard: ShardId(0), error: journal }, "data/journal", "from a copy"));
    samples.push(at(OpenError::Journal { shard: ShardId(0), error: checkpoint }, "data/journal", "use the software"));
    let source = checkpoint_errors().remove(2);
    samples.push(at(OpenError::Checkpoint { shard: ShardId(0), error: source }, "data/checkpoint", "from a copy"));
    samples
}

fn open_file_samples() -> Vec<Sample> {
    let at = |error, place, remedy| sample(open_file_name, error, place, remedy);
    let (setting, value, allowed) = ("segment_bytes", 1, "16 KiB to 3.75 GiB");
    let (present, wanted) = ("65536".to_owned(), "131072".to_owned());
    let store = OpenError::Io { what: "open", path: "data/STORE".into(), source: eio() };
    let source = checkpoint_errors().remove(2);
    let mut samples = vec![
        at(OpenFileError::Name(ChannelNameError::Empty), "channel name", "1 to 255 bytes"),
        at(OpenFileError::NoBaseDirectory { channel: channel() }, "orders/eu", "`with_persistent_dir`"),
        at(
            OpenFileError::BaseDirectoryConflict {
                channel: channel(),
                present: PathBuf::from("data"),
                wanted: PathBuf::from("other"),
            },
            "open in data,",
            "`Redex::open`",
        ),
        at(
            OpenFileError::ConfigConflict { channel: channel(), setting, present, wanted },
            "orders/eu",
            "open it with segment_bytes 65536",
        ),
        at(OpenFileError::Setting { channel: channel(), setting, value, allowed }, "orders/eu", "must be 16 KiB"),
        at(OpenFileError::Store(Arc::new(store)), "data/STORE", "open the store again"),
        at(OpenFileError::Poisoned(poisoned()), "journal/000/7.wal", "open it again"),
        at(OpenFileError::Damaged { channel: channel(), error: source }, "checkpoint/000/7.ckp", "from a copy"),
        at(OpenFileError::UnknownConfig { channel: channel() }, "orders/eu", "use the software"),
        at(OpenFileError::NoSuchChannel { channel: channel() }, "orders/eu", "wait until"),
        at(OpenFileError::BeingDeleted { channel: channel() }, "orders/eu", "open it again"),
        at(OpenFileError::Closed, "store", "open it again"),
    ];
    let (id, uuid) = (ChannelId::new(Epoch(1), 7), StoreUuid([1; 16]));
    let metas = [
        MetaError::Unreadable(eio()),
        MetaError::Damaged(EnvelopeError::Magic),
        MetaError::OtherChannel { name: "orders/us".to_owned(), id, uuid },
    ];
    for source in metas {
        let name = meta_name(&source);
        let error = OpenFileError::Meta { channel: channel(), path: "data/channels/META".into(), offset: 0, source };
        samples.push(at(error, "data/channels/META is damaged at offset 0", "from a copy"));
        let again = samples.last().unwrap();
        let again = Sample { variant: name, error: again.error.to_string().into(), ..*again };
        samples.push(again);
    }
    samples
}

fn append_samples() -> Vec<Sample> {
    let at = |error, remedy| sample(append_name, error, "orders/eu", remedy);
    let (size, limit, count, count_limit) = (9, 8, 2, 1);
    vec![
        at(AppendError::TooLarge { channel: channel(), size, limit }, "split it"),
        at(AppendError::BatchTooLarge { channel: channel(), size, count, limit, count_limit }, "split it"),
        at(AppendError::OtherSeq { channel: channel(), expected: 3, actual: 5 }, "decide anew"),
        at(AppendError::NotInline { channel: channel(), size }, "use `append`"),
        at(AppendError::Full { channel: channel() }, "try again"),
        at(AppendError::NoSpace { channel: channel() }, "make room"),
        at(AppendError::Closed { channel: channel() }, "open the store again"),
        sample(append_name, AppendError::Poisoned(poisoned()), "journal/000/7.wal", "open it again"),
    ]
}

fn read_samples() -> Vec<Sample> {
    let at = |error, place, remedy| sample(read_name, error, place, remedy);
    let (file, offset) = (|| "channels/07/0.idx".to_owned(), 4096);
    let place = BlockPlace { channel: ChannelId(7), segment_first: Seq(0) };
    let block = decode_block(&[0xff; crate::io::BLOCK_SIZE], place, Seq(0)).unwrap_err();
    let record = IndexRecord::in_dat(u32::MAX, 100, 0, 0).check().unwrap_err();
    let (from, to) = (10, 20);
    vec![
        at(ReadError::BadRange { channel: channel(), start: 2, end: 1 }, "orders/eu", "lower sequence first"),
        at(ReadError::BadTimeRange { channel: channel(), start_us: 2, end_us: 1 }, "orders/eu", "earlier one first"),
        at(
            ReadError::Index { channel: channel(), from, to, file: file(), offset, source: block },
            "orders/eu, events 10..20: channels/07/0.idx at byte 4096",
            "from a copy",
        ),
        at(ReadError::Record { channel: channel(), seq: 5, source: record }, "orders/eu, event 5", "from a copy"),
        at(
            ReadError::Payload { channel: channel(), seq: 5, file: file(), offset, len: 7 },
            "channels/07/0.idx at byte 4096",
            "from a copy",
        ),
        at(
            ReadError::Io { channel: channel(), file: file(), offset, source: Arc::new(eio()) },
            "channels/07/0.idx at byte 4096",
            "read again",
        ),
        at(ReadError::Trimmed { channel: channel(), from, to }, "orders/eu", "read on from 20"),
        at(ReadError::CutOff { channel: channel(), from, to }, "orders/eu", "read on from 10"),
        at(
            ReadError::Cold {
                channel: channel(),
                file: file(),
                object: "uuid/7/0-1.seg".to_owned(),
                offset,
                source: Arc::new(eio()),
            },
            "channels/07/0.idx is in the cold store, and object uuid/7/0-1.seg there cannot be read at byte 4096",
            "read again",
        ),
        at(ReadError::Missing { channel: channel(), file: file(), offset, from, to }, "0.idx ends at", "from a copy"),
    ]
}

fn change_samples() -> Vec<Sample> {
    let at = |error, place, remedy| sample(change_name, error, place, remedy);
    let (other, size, limit) = (ChannelName::new("orders/us").unwrap(), 9, 8);
    let range = ChangeError::OutOfRange { channel: channel(), end: 9, head: 2, next: 5 };
    vec![
        at(ChangeError::NotFound { channel: channel() }, "orders/eu", "`Redex::channels` lists"),
        at(range, "orders/eu", "from 2 to 5"),
        at(ChangeError::Apart { channel: channel(), other }, "orders/us", "the same affinity"),
        at(ChangeError::BatchTooLarge { size, limit }, "9 bytes", "split it"),
        at(ChangeError::Append(AppendError::Full { channel: channel() }), "orders/eu", "try again"),
        at(ChangeError::Read(ReadError::BadRange { channel: channel(), start: 2, end: 1 }), "orders/eu", "first"),
        at(ChangeError::OpenFile(Arc::new(OpenFileError::Closed)), "store", "open it again"),
        at(ChangeError::Closed { channel: channel() }, "orders/eu", "open it again"),
        at(ChangeError::Poisoned(poisoned()), "journal/000/7.wal", "open it again"),
    ]
}

fn other_samples() -> Vec<Sample> {
    let name = |error, place, remedy| sample(name_name, error, place, remedy);
    let text = || "a//b".to_owned();
    let lost = SubscribeError::LostEvents { channel: channel(), from: 3, to: 5 };
    let unknown = SubscribeError::UnknownEpoch { channel: channel(), epoch: 9, present: 2 };
    let store = CloseError::Store { path: "data/STORE".into(), source: Arc::new(eio()) };
    let failed = ColdError::Failed {
        channel: "orders/eu".to_owned(),
        what: "bring old segments to the cold store",
        source: Arc::new(eio()),
    };
    vec![
        sample(cold_name, failed, "orders/eu", "tried again"),
        sample(cold_name, ColdError::NoColdStore, "cold store", "open it with one"),
        sample(cold_name, ColdError::InMemory { channel: channel() }, "orders/eu", "with_persistent"),
        sample(subscribe_name, lost, "orders/eu", "go on at 3"),
        sample(subscribe_name, unknown, "orders/eu", "subscribe from a sequence"),
        sample(sync_name, SyncError::Poisoned(poisoned()), "journal/000/7.wal", "open it again"),
        sample(sync_name, SyncError::Closed { channel: channel(), seq: 3 }, "orders/eu", "open the store again"),
        sample(close_name, CloseError::Poisoned(poisoned()), "journal/000/7.wal", "open it again"),
        sample(close_name, CloseError::NoSpace, "checkpoint", "make room"),
        sample(close_name, store, "data/STORE", "the next open recovers"),
        name(ChannelNameError::Empty, "channel name", "give it"),
        name(ChannelName::new(&"ab".repeat(200)).unwrap_err(), "abab", "shorten it"),
        name(ChannelNameError::EmptyPart { name: text(), at: 2 }, "a//b", "between the slashes"),
        name(ChannelNameError::DotPart { name: text(), part: ".".to_owned() }, "a//b", "use another"),
        name(ChannelNameError::ControlCharacter { name: text(), character: '\n', at: 1 }, "a//b", "leave it out"),
    ]
}

/// The text of an error and of each of its causes.
fn chain(error: &dyn Error) -> Vec<String> {
    let (mut texts, mut cause) = (Vec::new(), Some(error));
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts
}

/// Every variant of every error: where, what now, and no cause that is told twice.
#[test]
fn every_error_says_where_and_what_to_do_and_nothing_twice() {
    let samples: Vec<Sample> =
        [open_samples(), open_file_samples(), append_samples(), read_samples(), change_samples(), other_samples()]
            .into_iter()
            .flatten()
            .collect();
    for Sample { variant, error, place, remedy } in &samples {
        let chain = chain(&**error);
        let text = chain.join(": ");
        assert!(text.contains(place), "{variant} does not say where ({place}): {text}");
        assert!(text.contains(remedy), "{variant} does not say what to do ({remedy}): {text}");
        for (i, outer) in chain.iter().enumerate() {
            for inner in &chain[i + 1..] {
                assert!(!outer.contains(inner), "{variant} tells a cause twice: {text}");
            }
        }
        for gone in ["salvage", "read-only"] {
            assert!(!text.contains(gone), "{variant} names what there is not, {gone}: {text}");
        }
    }
    let all = [
        OPEN, OPEN_FILE, APPEND, READ, COLD, CHANGE, SUBSCRIBE, SYNC, CLOSE, NAME, SUPERBLOCK, JOURNAL, CHECKPOINT,
        META,
    ]
    .concat();
    let sampled: BTreeSet<&str> = samples.iter().map(|sample| sample.variant).collect();
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), sampled);
}
