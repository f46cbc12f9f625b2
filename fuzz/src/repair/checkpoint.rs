//! Checkpoint files: the header, the states, the tails.

use super::{BLOCK, put_crc_around, put_u32, u32_at, u64_at};

/// Repairs a file.
pub fn repair(bytes: &mut [u8]) {
    if bytes.len() < BLOCK {
        return;
    }
    put_crc_around(&mut bytes[..BLOCK], 12);
    // uuid, shard and number, in this order.
    let seed = [&bytes[16..32], &bytes[10..12], &bytes[32..40]].concat();
    let seed = crc32c::crc32c(&seed);
    let (states_len, tails_offset) = (u64_at(bytes, 48).unwrap_or(0), u64_at(bytes, 56).unwrap_or(0));
    let end = (BLOCK as u64).saturating_add(states_len).min(bytes.len() as u64) as usize;
    let mut at = BLOCK;
    while let Some(len) = u32_at(&bytes[..end], at) {
        let Some(body) = bytes[..end].get(at + 8..).and_then(|rest| rest.get(..len as usize)) else { return };
        let (crc, tail) = (crc32c::crc32c_append(seed, body), Tail::of(body));
        put_u32(bytes, at + 4, crc);
        if let Some(tail) = tail {
            tail.repair(bytes, tails_offset);
        }
        at += 8 + len as usize;
    }
}

/// What a state says of its tail.
struct Tail {
    channel: u64,
    lsn: u64,
    offset: u64,
    record_count: u64,
    bytes_len: u64,
}

impl Tail {
    /// Reads a state as postcard has it.
    fn of(state: &[u8]) -> Option<Self> {
        let mut rest = Postcard(state);
        let channel = rest.number()?;
        rest.skip_bytes()?;
        rest.skip_bytes()?;
        let lsn = rest.number()?;
        // Head, end, time.
        (0..3).try_for_each(|_| rest.number().map(drop))?;
        rest.byte()?;
        for _ in 0..rest.number()? {
            (0..2).try_for_each(|_| rest.number().map(drop))?;
        }
        for _ in 0..rest.number()? {
            (0..3).try_for_each(|_| rest.number().map(drop))?;
            rest.byte()?;
        }
        rest.number()?;
        Some(Self { channel, lsn, offset: rest.number()?, record_count: rest.number()?, bytes_len: rest.number()? })
    }

    fn repair(&self, bytes: &mut [u8], tails_offset: u64) {
        let size = self.record_count.checked_mul(20).and_then(|size| size.checked_add(self.bytes_len));
        let (Some(at), Some(size)) = (tails_offset.checked_add(self.offset), size) else { return };
        let Some(end) = at.checked_add(12).and_then(|start| start.checked_add(size)) else { return };
        if self.record_count + self.bytes_len == 0 || end > bytes.len() as u64 {
            return;
        }
        let (at, end) = (at as usize, end as usize);
        put_u32(bytes, at + 4, self.record_count as u32);
        put_u32(bytes, at + 8, self.bytes_len as u32);
        let seed = crc32c::crc32c_append(crc32c::crc32c(&self.channel.to_le_bytes()), &self.lsn.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &bytes[at + 4..end]);
        put_u32(bytes, at, crc);
    }
}

/// Bytes of postcard that are read from the front.
struct Postcard<'a>(&'a [u8]);

impl Postcard<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn skip_bytes(&mut self) -> Option<()> {
        let len = usize::try_from(self.number()?).ok()?;
        self.0 = self.0.get(len..)?;
        Some(())
    }
}
