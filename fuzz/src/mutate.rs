//! Changes to bytes that know nothing of what they mean, but that zeros are seldom worth changing.

use crate::dice::Dice;

/// Size of a block, bytes.
const BLOCK: usize = 4096;

/// Values at which fields are wrong in ways of their own.
const INTERESTING: [u64; 18] = [
    0,
    1,
    2,
    7,
    203,
    204,
    205,
    255,
    4095,
    4096,
    4097,
    65_535,
    0x7fff_ffff,
    0xffff_f000,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX / 2,
    u64::MAX,
];

/// Changes `bytes` in one to four places; `other` is another input, to take parts from.
pub fn bytes(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..dice.within(1..5) {
        once(bytes, other, dice);
    }
}

/// The same; mostly the checksums are made right afterwards, so that what lies behind them is read.
pub fn then_repair(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice, repair: fn(&mut [u8])) {
    bytes(input, other, dice);
    if !dice.one_in(4) {
        repair(input);
    }
}

/// One value that is likely to be at a limit.
pub fn interesting(dice: &mut Dice) -> u64 {
    match dice.within(0..4) {
        0 => dice.bits(),
        1 => dice.within(0..10_000),
        _ => dice.pick(&INTERESTING),
    }
}

fn once(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    if bytes.is_empty() {
        bytes.extend_from_slice(&other[..other.len().min(BLOCK)]);
        return;
    }
    match dice.within(0..20) {
        0..4 => {
            let at = position(bytes, dice);
            bytes[at] ^= 1 << dice.within(0..8);
        }
        4..9 => set_field(bytes, dice),
        9..13 => add_to_field(bytes, dice),
        13 => {
            let at = position(bytes, dice);
            let end = (at + dice.within(1..64) as usize).min(bytes.len());
            bytes[at..end].fill(dice.bits() as u8);
        }
        14 => copy_within(bytes, dice),
        15 => swap_blocks(bytes, dice),
        16 => truncate(bytes, dice),
        17 => {
            let zeros = dice.one_in(2);
            let count = dice.within(1..2 * BLOCK as u64) as usize;
            let end = bytes.len() + count;
            bytes.resize(end, if zeros { 0 } else { dice.bits() as u8 });
        }
        18 => insert_or_remove(bytes, dice),
        _ => splice(bytes, other, dice),
    }
}

/// A place in the bytes; seldom one of zeros.
fn position(bytes: &[u8], dice: &mut Dice) -> usize {
    let any = dice.within(0..bytes.len() as u64) as usize;
    if dice.one_in(8) {
        return any;
    }
    // Headers are where the structure is.
    let from = if dice.one_in(3) { any / BLOCK * BLOCK } else { any };
    let near = |at: &usize| bytes[*at] != 0;
    let found = (from..bytes.len()).find(near).or_else(|| (0..from).rev().find(near)).unwrap_or(any);
    if dice.one_in(3) { (found + dice.within(0..96) as usize).min(bytes.len() - 1) } else { found }
}

fn set_field(bytes: &mut [u8], dice: &mut Dice) {
    let width = dice.pick(&[1_usize, 2, 4, 4, 8, 8]);
    let at = position(bytes, dice) / width * width;
    let value = interesting(dice).to_le_bytes();
    let len = width.min(bytes.len() - at);
    bytes[at..at + len].copy_from_slice(&value[..len]);
}

fn add_to_field(bytes: &mut [u8], dice: &mut Dice) {
    let at = position(bytes, dice) / 4 * 4;
    let delta = dice.pick(&[1_i32, -1, 2, -2, 4, -4, 20, -20, 204, 4096, -4096]);
    if let Some(field) = bytes.get_mut(at..at + 4) {
        let value = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
        field.copy_from_slice(&value.wrapping_add_signed(delta).to_le_bytes());
    }
}

fn copy_within(bytes: &mut [u8], dice: &mut Dice) {
    let (from, to) = (position(bytes, dice), position(bytes, dice));
    let most = (bytes.len() - from.max(to)) as u64;
    let len = dice.within(1..most.min(256) + 1) as usize;
    bytes.copy_within(from..from + len, to);
}

fn swap_blocks(bytes: &mut [u8], dice: &mut Dice) {
    let blocks = (bytes.len() / BLOCK) as u64;
    if blocks < 2 {
        return;
    }
    let (a, b) = (dice.within(0..blocks) as usize * BLOCK, dice.within(0..blocks) as usize * BLOCK);
    let first = bytes[a..a + BLOCK].to_vec();
    bytes.copy_within(b..b + BLOCK, a);
    if dice.one_in(2) {
        bytes[b..b + BLOCK].copy_from_slice(&first);
    }
}

fn truncate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let len = dice.within(0..bytes.len() as u64) as usize;
    bytes.truncate(if dice.one_in(2) { len / BLOCK * BLOCK } else { len });
}

fn insert_or_remove(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = position(bytes, dice);
    let len = dice.within(1..32) as usize;
    if dice.one_in(2) {
        let end = (at + len).min(bytes.len());
        bytes.drain(at..end);
    } else {
        let value = dice.bits() as u8;
        bytes.splice(at..at, std::iter::repeat_n(value, len));
    }
}

fn splice(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    if other.is_empty() {
        return;
    }
    let from = position(other, dice) / BLOCK * BLOCK;
    let part = &other[from..(from + BLOCK).min(other.len())];
    let at = dice.within(0..bytes.len() as u64 + 1) as usize / BLOCK * BLOCK;
    let end = (at + part.len()).min(bytes.len());
    if dice.one_in(2) {
        bytes[at..end].copy_from_slice(&part[..end - at]);
    } else {
        bytes.splice(at..at, part.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_it_is_given_it_comes_back() {
        for seed in 0..3000 {
            let mut dice = Dice::new(seed);
            let mut changed: Vec<u8> = (0..dice.within(0..10_000)).map(|byte| byte as u8).collect();
            let other: Vec<u8> = (0..dice.within(0..10_000)).map(|byte| byte as u8).collect();
            (0..8).for_each(|_| bytes(&mut changed, &other, &mut dice));
        }
    }
}
