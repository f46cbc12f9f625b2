//! Round trips, flipped bits, cuts and contradictions of what an object is made of.

use super::*;

fn header(codec: Codec) -> ObjectHeader {
    let (first, end) = (Seq(7), Seq(7 + 1000));
    ObjectHeader {
        uuid: StoreUuid([3; 16]),
        channel: ChannelId(0x0000_0002_0000_0005),
        name: "sensors/größe".to_owned(),
        first,
        end,
        idx_size: idx_size(first, end),
        dat_size: 40_960,
        hash: 0x1234_5678_9abc_def0,
        chunk_size: 8192,
        codec,
        epoch: Epoch(9),
    }
}

/// Chunks of half the size, one behind the other, and the object's size.
fn chunks(header: &ObjectHeader) -> (Vec<Chunk>, u64) {
    let mut offset = OBJECT_HEADER_SIZE as u64;
    let chunks: Vec<Chunk> = (0..header.chunk_count())
        .map(|index| {
            let stored_len = (header.len_of(index) / 2) as u32;
            let chunk = Chunk { offset, stored_len, crc32c: index as u32 * 77 };
            offset += u64::from(stored_len);
            chunk
        })
        .collect();
    (chunks, offset + header.table_size())
}

#[test]
fn headers_come_back() {
    for codec in [Codec::None, Codec::Zstd] {
        let (bytes, crc) = header(codec).encode();
        assert_eq!(ObjectHeader::decode(&bytes), Ok((header(codec), crc)));
    }
    let long = ObjectHeader { name: "n".repeat(255), dat_size: 0, ..header(Codec::None) };
    assert_eq!(ObjectHeader::decode(&long.encode().0).unwrap().0, long);
}

#[test]
fn every_flipped_bit_of_a_header_is_found() {
    let (mut bytes, _) = header(Codec::Zstd).encode();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(ObjectHeader::decode(&bytes).is_err(), "{bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_cut_of_a_header_is_found() {
    let (bytes, _) = header(Codec::None).encode();
    for size in 0..bytes.len() {
        let cut = ObjectError::Size { needed: OBJECT_HEADER_SIZE as u64, size: size as u64 };
        assert_eq!(ObjectHeader::decode(&bytes[..size]), Err(cut));
    }
}

#[test]
fn contradicting_headers_are_refused() {
    let cases = [
        (8, 2),
        (10, 2),
        (48, 0),
        (56, 1),
        (64, 1),
        (80, 1),
        (84, 1),
        (92, 0),
        (94, 1),
        (96, 0xff),
        (350, 1),
        (4095, 1),
    ];
    for (at, value) in cases {
        let (mut bytes, _) = header(Codec::None).encode();
        bytes[at] = value;
        let crc = header_crc(&bytes);
        bytes[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
        assert!(ObjectHeader::decode(&bytes).is_err(), "{at}");
    }
}

#[test]
fn tables_come_back_and_every_flipped_bit_and_cut_is_found() {
    let header = header(Codec::Zstd);
    let (chunks, size) = chunks(&header);
    let mut bytes = encode_table(5, &chunks);
    assert_eq!(decode_table(&bytes, &header, 5, size), Ok(chunks));
    assert!(decode_table(&bytes, &header, 6, size).is_err(), "it is another header's");
    assert!(decode_table(&bytes, &header, 5, size + 1).is_err() && decode_table(&bytes, &header, 5, size - 1).is_err());
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_table(&bytes, &header, 5, size).is_err(), "{bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for cut in 0..bytes.len() {
        assert!(decode_table(&bytes[..cut], &header, 5, size).is_err(), "{cut}");
    }
}

#[test]
fn a_table_that_no_upload_makes_is_refused() {
    let (compressed, plain) = (header(Codec::Zstd), header(Codec::None));
    let (mut chunks, size) = chunks(&compressed);
    let table = encode_table(5, &chunks);
    assert_eq!(decode_table(&table, &plain, 5, size), Err(ObjectError::Field { field: "stored_len" }));
    for stored_len in [0, 8193] {
        chunks[0].stored_len = stored_len;
        let table = encode_table(5, &chunks);
        assert_eq!(decode_table(&table, &compressed, 5, size), Err(ObjectError::Field { field: "stored_len" }));
    }
}

#[test]
fn chunks_cover_both_files_without_a_gap() {
    let header = header(Codec::None);
    for part in [Part::Idx, Part::Dat] {
        let mut next = 0;
        for index in 0..header.chunk_count() {
            let (of, range) = header.range_of(index);
            if of == part {
                assert_eq!((range.start, header.chunk_at(part, range.end - 1)), (next, index));
                next = range.end;
            }
        }
        assert_eq!(next, header.size_of(part));
    }
}

#[test]
fn keys_come_back_and_others_are_told_apart() {
    let (uuid, channel) = (StoreUuid([0xab; 16]), ChannelId(0x0000_0002_0000_0005));
    let key = object_key(uuid, channel, Seq(99), 0xfe);
    assert_eq!(parse_key(uuid, &key), Some((channel, Seq(99), 0xfe)));
    assert!(key.starts_with(&channel_prefix(uuid, channel)));
    assert_eq!(parse_key(StoreUuid([1; 16]), &key), None);
    for other in ["", "x", &key[1..], &format!("{key}x"), &key.replace("0099", "99"), &key.to_uppercase()] {
        assert_eq!(parse_key(uuid, other), None, "{other}");
    }
}

/// A table has an entry for each chunk; so the number of events, which decides on the size of idx, is limited before it is read.
#[test]
fn a_segment_with_more_events_than_there_can_be_is_refused() {
    let with = |count| {
        let (first, end) = (Seq(7), Seq(7 + count));
        ObjectHeader { first, end, idx_size: idx_size(first, end), chunk_size: 4096, ..header(Codec::None) }
    };
    let (bytes, _) = with(SEGMENT_RECORDS_MAX).encode();
    assert_eq!(ObjectHeader::decode(&bytes).unwrap().0, with(SEGMENT_RECORDS_MAX));
    let mut raw = RawHeader::read_from_bytes(&bytes).unwrap();
    raw.end_seq = U64::new(7 + SEGMENT_RECORDS_MAX + 1);
    raw.crc32c = U32::new(header_crc(raw.as_bytes()));
    assert_eq!(ObjectHeader::decode(raw.as_bytes()), Err(ObjectError::Field { field: "end_seq" }));
}
