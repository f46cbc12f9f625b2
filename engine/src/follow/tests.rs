//! A journal made by hand, on a disk in memory: what the writer says of a channel besides events, and what it damages.

use std::sync::Arc;

use super::load::Trouble;
use super::{Follower, ground, judge};
use crate::clock::Clock;
use crate::config::RedexFileConfig;
use crate::error::{OpenError, OpenFileError};
use crate::ids::{ChannelId, Epoch, Lsn, SegmentNo, Seq, ShardId, StoreUuid};
use crate::io::BLOCK_SIZE;
use crate::journal::format::{
    COMMIT_HEADER_SIZE, CommitFields, EventsFields, MetaWriter, SegmentHeader, commit_size, finish_commit,
};
use crate::journal::segment_path;
use crate::read::offload::Offload;
use crate::read::subscribe::{Cursor, TailEnd};
use crate::read_only::ReadOnlyFile;
use crate::segment::record::IndexRecord;
use crate::store::memory_disk::MemoryDisk;
use crate::store::superblock::{STORE_FILE_SIZE, SUPERBLOCK_SIZE, ShardRoot, Superblock};

const UUID: StoreUuid = StoreUuid([7; 16]);
const SHARD: ShardId = ShardId(0);
const CHANNEL: ChannelId = ChannelId(1 << 32);

/// A writer of one segment.
struct Writer {
    disk: Arc<MemoryDisk>,
    header: SegmentHeader,
    offset: u64,
    next: Lsn,
    epoch: Epoch,
}

impl Writer {
    /// A store with a journal that names no checkpoint file.
    fn new() -> Self {
        let disk = Arc::new(MemoryDisk::default());
        let (number, epoch) = (SegmentNo(1), Epoch(1));
        let root = ShardRoot { segment: number, clean: None };
        let store = Superblock { uuid: UUID, epoch, generation: 1, shards: vec![root] };
        let mut bytes = vec![0; STORE_FILE_SIZE];
        store.encode(&mut bytes[..SUPERBLOCK_SIZE]).unwrap();
        store.encode(&mut bytes[SUPERBLOCK_SIZE..]).unwrap();
        disk.put("STORE", bytes);
        let header = SegmentHeader {
            uuid: UUID,
            shard: SHARD,
            number,
            epoch,
            salt: 11,
            key_id: 0,
            predecessor: None,
            first_lsn: Lsn(1),
        };
        let mut bytes = vec![0; 256 << 10];
        header.encode(&mut bytes[..BLOCK_SIZE]);
        disk.put(&segment_path(SHARD, number), bytes);
        let mut writer = Self { disk, header, offset: BLOCK_SIZE as u64, next: Lsn(1), epoch };
        writer.commit(&[], |meta| meta.checkpoint(Lsn(1), number, &[]).unwrap());
        writer
    }

    /// Writes a commit, which says that all before were durable.
    fn commit(&mut self, payload: &[u8], fill: impl FnOnce(&mut MetaWriter<'_>)) {
        let mut buf = vec![0; 64 << 10];
        let mut meta = MetaWriter::new(&mut buf[COMMIT_HEADER_SIZE..]);
        fill(&mut meta);
        let (meta_len, entry_count) = (meta.len(), meta.entry_count());
        buf[COMMIT_HEADER_SIZE + meta_len..][..payload.len()].copy_from_slice(payload);
        let fields = CommitFields {
            lsn: self.next,
            durable_lsn: self.next,
            epoch: self.epoch,
            offset: self.offset as u32,
            meta_len: meta_len as u32,
            payload_len: payload.len() as u32,
            entry_count,
        };
        let size = finish_commit(&mut buf, &self.header.context(), &fields);
        assert_eq!(size, commit_size(meta_len, payload.len()));
        let at = self.offset as usize;
        self.disk.change(&segment_path(SHARD, self.header.number), |bytes| {
            bytes[at..at + size].copy_from_slice(&buf[..size]);
        });
        self.offset += size as u64;
        self.next.0 += 1;
    }

    fn witness(&mut self) {
        self.commit(&[], |_| {});
    }

    fn create(&mut self, channel: ChannelId) {
        let config = RedexFileConfig::default().with_persistent(true).encode();
        self.commit(&[], |meta| meta.channel_created(channel, "log", &config).unwrap());
    }

    /// Commits one event, whose payload lies in the journal.
    fn append(&mut self, seq: u64, dat_offset: u32, payload: &str) {
        let bytes = payload.as_bytes();
        let fields = EventsFields {
            channel: CHANNEL,
            first: Seq(seq),
            segment_first: Seq(0),
            dat_offset,
            inline_len: bytes.len() as u32,
            extent_offset: 0,
            extent_len: 0,
        };
        let record = IndexRecord::in_dat(dat_offset, bytes.len() as u32, crc32c::crc32c(bytes), 5);
        self.commit(bytes, |meta| {
            meta.begin_events(&fields, 1).unwrap().copy_from_slice(record.as_bytes());
        });
    }

    fn follow(&self) -> Result<Follower, Trouble> {
        Follower::open(ground(self.disk.clone(), Clock::system(), Arc::new(Offload::inline())))
    }
}

fn open(follower: &Follower) -> ReadOnlyFile {
    ReadOnlyFile::over(follower.open_channel(&"log".parse_name()).unwrap(), None)
}

trait ParseName {
    fn parse_name(&self) -> crate::channel_name::ChannelName;
}

impl ParseName for str {
    fn parse_name(&self) -> crate::channel_name::ChannelName {
        crate::channel_name::ChannelName::new(self).unwrap()
    }
}

fn texts(file: &ReadOnlyFile) -> Vec<String> {
    let events = file.read_range(0, u64::MAX).wait().unwrap();
    events.iter().map(|event| String::from_utf8(event.payload.to_vec()).unwrap()).collect()
}

/// A store with three events, its reader, and the channel.
fn three() -> (Writer, Follower, ReadOnlyFile) {
    let mut writer = Writer::new();
    writer.create(CHANNEL);
    for (seq, text) in ["event zero", "event one.", "event two."].into_iter().enumerate() {
        writer.append(seq as u64, seq as u32 * 10, text);
    }
    writer.witness();
    let follower = writer.follow().unwrap();
    let file = open(&follower);
    assert_eq!(texts(&file), ["event zero", "event one.", "event two."]);
    (writer, follower, file)
}

#[test]
fn an_event_is_shown_when_a_later_commit_says_that_it_is_durable() {
    let (mut writer, mut follower, file) = three();
    writer.append(3, 30, "event three");
    follower.poll();
    assert_eq!(file.published(), 3);
    writer.witness();
    follower.poll();
    assert_eq!((file.published(), file.durable()), (4, 4));
    assert_eq!(texts(&file)[3], "event three");
}

/// A truncated suffix: a tail that had it is told so once and goes on; one behind it notices nothing; events that were fetched
/// before are not delivered after.
#[test]
fn a_truncated_suffix_is_a_loss_to_those_who_had_it() {
    let (mut writer, mut follower, file) = three();
    let (mut ahead, mut behind) = (file.tail(0), file.tail(0));
    let mut plain = file.subscribe_from(3).wait().unwrap();
    for seq in 0..3 {
        assert_eq!(ahead.next_wait().unwrap().unwrap().seq, seq);
    }
    assert_eq!(behind.next_wait().unwrap().unwrap().seq, 0);
    let had = ahead.cursor();
    assert_eq!(had, Cursor { epoch: 1, seq: 3 });
    writer.epoch = Epoch(2);
    writer.commit(&[], |meta| meta.suffix_truncated(CHANNEL, Seq(1)).unwrap());
    writer.append(1, 10, "another one");
    writer.witness();
    follower.poll();
    assert_eq!(texts(&file), ["event zero", "another one"]);
    assert!(matches!(ahead.next_wait(), Some(Err(TailEnd::Lost { from: 1, to: 3, .. }))));
    assert_eq!(ahead.next_wait().unwrap().unwrap().payload, b"another one");
    assert_eq!(behind.next_wait().unwrap().unwrap().payload, b"another one");
    assert!(plain.next_wait().is_none());
    assert!(matches!(plain.ended(), Some(TailEnd::Lost { from: 1, to: 3, .. })));
    // A cursor of before, kept elsewhere, is told the same.
    assert!(matches!(file.tail(had).next_wait(), Some(Err(TailEnd::Lost { from: 1, to: 3, .. }))));
    assert_eq!(file.cursor(), Cursor { epoch: 2, seq: 2 });
    drop(follower);
}

#[test]
fn a_trimmed_head_moves_forward() {
    let (mut writer, mut follower, file) = three();
    writer.commit(&[], |meta| meta.head_trimmed(CHANNEL, Seq(2)).unwrap());
    writer.witness();
    follower.poll();
    assert_eq!((file.head_seq(), file.len()), (2, 1));
    assert_eq!(texts(&file), ["event two."]);
    assert_eq!(follower.channels(|_| true)[0].head_seq, 2);
}

/// A deleted channel ends its tails; a namesake is another channel.
#[test]
fn a_deleted_channel_ends_and_a_namesake_is_another() {
    let (mut writer, mut follower, file) = three();
    let mut tail = file.subscribe_from(3).wait().unwrap();
    writer.commit(&[], |meta| meta.channel_deleted(CHANNEL).unwrap());
    writer.witness();
    follower.poll();
    assert!(tail.next_wait().is_none());
    assert!(matches!(tail.ended(), Some(TailEnd::Closed)));
    let error = follower.open_channel(&"log".parse_name()).unwrap_err();
    assert!(matches!(error, (OpenFileError::NoSuchChannel { .. }, false)), "{error:?}");
    writer.create(ChannelId(CHANNEL.0 + 1));
    writer.witness();
    follower.poll();
    assert_eq!(open(&follower).next_seq(), 0);
}

/// Every block of the journal before the last is damaged in turn: the reader says it, as a writer would.
#[test]
fn damage_in_the_journal_is_told_and_not_taken_for_its_end() {
    let (writer, ..) = three();
    let path = segment_path(SHARD, writer.header.number);
    for block in 1..writer.offset / BLOCK_SIZE as u64 - 1 {
        let at = block as usize * BLOCK_SIZE + 30;
        writer.disk.change(&path, |bytes| bytes[at] ^= 1);
        let told = writer.follow().and_then(|mut follower| follower.judge());
        let ground = ground(writer.disk.clone(), Clock::system(), Arc::new(Offload::inline()));
        let told = match told {
            Err(Trouble::Failed(error)) => Err(error),
            _ => judge(&ground),
        };
        assert!(matches!(told, Err(OpenError::Journal { .. })), "block {block}: {told:?}");
        writer.disk.change(&path, |bytes| bytes[at] ^= 1);
    }
    writer.follow().unwrap().judge().unwrap();
}
