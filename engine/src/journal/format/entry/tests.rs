//! Entries that come back, and what damage makes of them.

use super::*;

const FIELDS: EventsFields = EventsFields {
    channel: ChannelId(5),
    first: Seq(300),
    segment_first: Seq(204),
    dat_offset: 12288,
    inline_len: 30,
    extent_offset: 4096,
    extent_len: 8192,
};

fn payload(at: u64, len: u64) -> Vec<u8> {
    (at..at + len).map(|i| (i * 7 % 251) as u8).collect()
}

/// In the extent, across its end, behind it, in the record, empty.
fn records() -> Vec<IndexRecord> {
    let dat = |at: u32, len: u32| IndexRecord::in_dat(at, len, crc32c::crc32c(&payload(at.into(), len.into())), 1);
    let empty = IndexRecord::in_dat(0, 0, 0, 2);
    vec![dat(5000, 7000), dat(12_000, 300), dat(12_300, 18), IndexRecord::inline(b"short", 2), empty]
}

fn written() -> Vec<u8> {
    let mut buf = vec![0xee; 1024];
    let mut meta = MetaWriter::new(&mut buf);
    let place = meta.begin_events(&FIELDS, 5).unwrap();
    place.copy_from_slice(records().as_bytes());
    assert_eq!(meta.len(), entry_size_events(5));
    meta.channel_created(ChannelId(6), "a/b", b"config").unwrap();
    meta.channel_configured(ChannelId(6), b"other").unwrap();
    meta.channel_deleted(ChannelId(7)).unwrap();
    meta.head_trimmed(ChannelId(8), Seq(40)).unwrap();
    meta.suffix_truncated(ChannelId(9), Seq(50)).unwrap();
    meta.checkpoint(Lsn(77), SegmentNo(4), &[CheckpointNo(2), CheckpointNo(3)]).unwrap();
    meta.roll(SegmentNo(12)).unwrap();
    assert_eq!(meta.entry_count(), 8);
    let len = meta.len();
    buf.truncate(len);
    buf
}

#[test]
fn entries_of_every_kind_come_back() {
    let (buf, records) = (written(), records());
    let found: Vec<_> = entries(&buf).map(Result::unwrap).collect();
    let checkpoint = CheckpointEntry {
        replay_lsn: Lsn(77),
        replay_segment: SegmentNo(4),
        files: vec![CheckpointNo(2), CheckpointNo(3)],
    };
    let expected = [
        Entry::Events(EventsEntry { fields: FIELDS, records: &records }),
        Entry::ChannelCreated { channel: ChannelId(6), name: "a/b", config: b"config" },
        Entry::ChannelConfigured { channel: ChannelId(6), config: b"other" },
        Entry::ChannelDeleted { channel: ChannelId(7) },
        Entry::HeadTrimmed { channel: ChannelId(8), head: Seq(40) },
        Entry::SuffixTruncated { channel: ChannelId(9), end: Seq(50) },
        Entry::Checkpoint(checkpoint),
        Entry::Roll { next: SegmentNo(12) },
    ];
    assert_eq!(found, expected);
    assert_eq!(entries(&[]).count(), 0);
}

#[test]
fn full_buffer_is_left_as_it_was() {
    let mut buf = [0; 100];
    let mut meta = MetaWriter::new(&mut buf);
    meta.roll(SegmentNo(1)).unwrap();
    let full = MetaFull { needed: entry_size_events(3), left: 84 };
    assert_eq!(meta.begin_events(&FIELDS, 3).unwrap_err(), full);
    assert_eq!((meta.len(), meta.entry_count()), (16, 1));
    meta.begin_events(&FIELDS, 1).unwrap();
}

/// No single flipped bit makes a decoder panic, and none in an entry's head passes. (In a commit the checksum
/// covers all of them.)
#[test]
fn flipped_bits_never_panic_and_heads_are_strict() {
    let good = written();
    let mut bytes = good.clone();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let whole = entries(&bytes).all(|entry| entry.is_ok());
        assert!(!whole || bit / 8 >= 8, "{bit}");
        for entry in entries(&bytes).flatten() {
            if let Entry::Events(events) = entry {
                let _ = events.verify_inline(&payload(12_288, 30));
                let _ = events.verify_extent(&payload(4096, 8192), &payload(12_288, 30));
            }
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_truncation_is_found_or_ends_between_entries() {
    let bytes = written();
    let mut borders = vec![0];
    let mut all = entries(&bytes);
    while all.next().is_some() {
        borders.push(all.at);
    }
    for size in 0..bytes.len() {
        let whole = entries(&bytes[..size]).all(|entry| entry.is_ok());
        assert_eq!(whole, borders.contains(&size), "{size}");
    }
}

#[test]
fn unknown_kinds_are_told_from_damage() {
    let mut bytes = written();
    bytes[0] = 9;
    let error = entries(&bytes).next().unwrap().unwrap_err();
    assert_eq!(error, EntryError::UnknownKind { at: 0, kind: 9 });
    assert_eq!(entries(&bytes).count(), 1);
}

#[test]
fn payloads_are_verified_where_they_lie() {
    let records = records();
    let events = EventsEntry { fields: FIELDS, records: &records };
    let (extent, inline) = (payload(4096, 8192), payload(12_288, 30));
    events.verify_inline(&inline).unwrap();
    events.verify_extent(&extent, &inline).unwrap();
    for at in 0..extent.len() {
        let mut bad = extent.clone();
        bad[at] ^= 1;
        let covered = at >= 5000 - 4096;
        assert_eq!(events.verify_extent(&bad, &inline).is_err(), covered, "{at}");
        if at % 512 == 0 {
            assert!(events.verify_extent(&extent[..at], &inline).is_err());
        }
    }
    for at in 0..inline.len() {
        let mut bad = inline.clone();
        bad[at] ^= 1;
        let (alone, shared) = (events.verify_inline(&bad), events.verify_extent(&extent, &bad));
        assert_eq!((alone.is_err(), shared.is_err()), (at >= 12, at < 12), "{at}");
        assert!(events.verify_inline(&inline[..at]).is_err());
    }
}

#[test]
fn payloads_outside_of_the_entry_are_refused() {
    for (at, len) in [(4000, 200), (12_300, 19), (0, 1)] {
        let records = [IndexRecord::in_dat(at, len, 0, 0)];
        let events = EventsEntry { fields: FIELDS, records: &records };
        assert_eq!(events.verify_inline(&[0; 30]), Err(PayloadError::Range { seq: Seq(300) }));
    }
}

#[test]
fn impossible_events_are_refused() {
    let check = |fields: EventsFields, count| fields.impossible(count);
    assert_eq!(check(FIELDS, 1), None);
    assert_eq!(check(FIELDS, 0), Some("count"));
    assert_eq!(check(EventsFields { segment_first: Seq(301), ..FIELDS }, 1), Some("segment_first"));
    assert_eq!(check(EventsFields { first: Seq(u64::MAX), ..FIELDS }, 1), Some("first_seq"));
    assert_eq!(check(EventsFields { inline_len: u32::MAX, ..FIELDS }, 1), Some("inline_len"));
    assert_eq!(check(EventsFields { extent_len: 100, ..FIELDS }, 1), Some("extent_len"));
    let with_extent = |extent_len| check(EventsFields { extent_offset: 0, extent_len, inline_len: 0, ..FIELDS }, 1);
    assert_eq!(with_extent(EXTENT_SIZE_MAX), None);
    assert_eq!(with_extent(EXTENT_SIZE_MAX + BLOCK_SIZE as u32), Some("extent_len"));
    assert_eq!(check(EventsFields { extent_offset: 1, ..FIELDS }, 1), Some("extent_offset"));
    assert_eq!(check(EventsFields { extent_len: 0, ..FIELDS }, 1), Some("extent_offset"));
    assert_eq!(check(EventsFields { dat_offset: 12_289, ..FIELDS }, 1), Some("dat_offset"));
}
