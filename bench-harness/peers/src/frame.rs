//! The least that a log in a plain file needs to recover: a length and a checksum before each event.

use crate::engine::Reader;

/// Length and CRC-32C, four bytes each.
const HEADER_SIZE: usize = 8;

/// Appends `event` with its header to `bytes`.
pub(crate) fn push(bytes: &mut Vec<u8>, event: &[u8]) {
    bytes.extend_from_slice(&(event.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(event).to_le_bytes());
    bytes.extend_from_slice(event);
}

/// Hands the whole events at the front of `bytes` to `reader`; says how many bytes they take, and whether what follows them
/// cannot be an event whatever comes after it.
pub(crate) fn read(bytes: &[u8], reader: &mut Reader) -> (usize, bool) {
    let mut at = 0;
    while let Some((header, rest)) = bytes[at..].split_at_checked(HEADER_SIZE) {
        let word = |i: usize| u32::from_le_bytes(header[i..i + 4].try_into().expect("four bytes were sliced"));
        let (size, checksum) = (word(0) as usize, word(4));
        if size == 0 {
            return (at, true);
        }
        let Some(event) = rest.get(..size) else { return (at, false) };
        if crc32c::crc32c(event) != checksum {
            return (at, true);
        }
        reader.see(event);
        at += HEADER_SIZE + size;
    }
    (at, false)
}

/// Reads a file's events; gives the bytes that they take.
pub(crate) fn read_file(mut file: &std::fs::File, reader: &mut Reader) -> std::io::Result<u64> {
    use std::io::{Read, Seek};
    const READ_SIZE: usize = 1 << 20;
    file.rewind()?;
    let (mut buffer, mut filled, mut total) = (vec![0; 2 * READ_SIZE], 0, 0);
    loop {
        let size = file.read(&mut buffer[filled..])?;
        filled += size;
        let (used, over) = read(&buffer[..filled], reader);
        total += used as u64;
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if over || size == 0 {
            return Ok(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redex_bench::load::Payloads;
    use std::sync::Arc;

    #[test]
    fn a_cut_event_and_zeros_end_the_log() {
        let payloads = Arc::new(Payloads::new(1, 40));
        let mut bytes = Vec::new();
        (0..3).for_each(|number| push(&mut bytes, payloads.get(number)));
        let whole = bytes.len();
        let reader = || Reader::in_order(payloads.clone());
        for (cut, count, over) in [(whole, 3, false), (whole - 1, 2, false), (whole - 49, 1, false)] {
            let mut reader = reader();
            assert_eq!(read(&bytes[..cut], &mut reader), (count * 48, over), "cut at {cut}");
            reader.check(count as u64).unwrap();
        }
        bytes.extend_from_slice(&[0; 16]);
        assert_eq!(read(&bytes, &mut reader()), (whole, true));
        bytes[60] ^= 1;
        assert_eq!(read(&bytes, &mut reader()), (48, true));
    }
}
