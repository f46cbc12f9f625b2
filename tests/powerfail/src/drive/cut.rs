//! What a power cut leaves: everything that a flush covered, and of the rest any part.
//!
//! A flush covers the writes that were answered before it came. Of the others each is kept, lost or torn: of a torn one any of
//! its sectors may be there, and a sector is there wholly or not at all.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::Tape;
use super::image::Image;
use super::log::Entry;
use super::whole::Whole;

/// A power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Where in the log.
    pub position: usize,
    /// Decides what of the unflushed writes is left.
    pub seed: u64,
    /// Bytes that the drive writes wholly or not at all.
    pub sector_size: usize,
    /// What is not torn all the same.
    pub whole: Whole,
    /// Whether flushes count: a drive that lies loses what it called durable.
    pub flushes_count: bool,
}

/// What became of the writes that no flush covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// There wholly.
    pub kept: usize,
    /// There in part.
    pub torn: usize,
    /// Not there.
    pub lost: usize,
}

/// How the fates of a cut are drawn. Each kind finds something that the others find only rarely.
#[derive(Clone, Copy, Debug)]
enum Mood {
    NoneKept,
    AllKept,
    /// The first so many, the next one perhaps torn.
    Prefix(usize),
    /// Each by itself, with this chance of a hundred to be kept whole, and half of the others torn.
    Each(u8),
    OneLost(usize),
    OneKept(usize),
    OneTorn(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Torn,
    Lost,
}

/// See [`Tape::cut`].
pub fn cut(tape: &Tape, cut: &Cut) -> (Image, Left) {
    let entries = tape.log.before(cut.position);
    let covered = covered(entries, cut.flushes_count);
    let pending = covered.iter().filter(|covered| **covered == Some(false)).count();
    let mut rng = Rng::with_seed(cut.seed);
    let mood = Mood::draw(&mut rng, pending);
    let (mut image, mut left, mut nth) = (tape.begin.clone(), Left::default(), 0);
    for (entry, covered) in entries.iter().zip(covered) {
        let Entry::Write { offset, data, .. } = entry else { continue };
        if covered == Some(true) {
            image.write(*offset, data);
            continue;
        }
        match mood.fate(&mut rng, nth) {
            Fate::Kept => {
                image.write(*offset, data);
                left.kept += 1;
            }
            Fate::Torn => {
                tear(&mut image, *offset, data, cut, &mut rng);
                left.torn += 1;
            }
            Fate::Lost => left.lost += 1,
        }
        nth += 1;
    }
    (image, left)
}

/// Of each entry, if it is a write: whether a flush covers it.
fn covered(entries: &[Entry], flushes_count: bool) -> Vec<Option<bool>> {
    let mut covered = vec![None; entries.len()];
    let mut answered = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        match entry {
            Entry::Write { is_held, .. } => {
                covered[place] = Some(false);
                if !is_held {
                    answered.push(place);
                }
            }
            Entry::Answered { write } => answered.push(*write),
            Entry::Flush if flushes_count => answered.drain(..).for_each(|write| covered[write] = Some(true)),
            Entry::Flush => {}
        }
    }
    covered
}

fn tear(image: &mut Image, offset: u64, data: &[u8], cut: &Cut, rng: &mut Rng) {
    let parts = cut.whole.parts(offset, data, cut.sector_size);
    let begin = rng.usize(0..=parts.len());
    let shape = rng.u8(0..3);
    for (nth, part) in parts.into_iter().enumerate() {
        let is_there = match shape {
            0 => nth < begin,
            1 => nth >= begin,
            _ => rng.bool(),
        };
        if is_there {
            image.write(offset + part.start as u64, &data[part]);
        }
    }
}

impl Mood {
    fn draw(rng: &mut Rng, pending: usize) -> Self {
        let one = rng.usize(0..pending.max(1));
        match rng.u8(0..12) {
            0 => Self::NoneKept,
            1 => Self::AllKept,
            2..=4 => Self::Prefix(one),
            5..=6 => Self::Each(50),
            7 => Self::Each(10),
            8 => Self::Each(90),
            9 => Self::OneLost(one),
            10 => Self::OneKept(one),
            _ => Self::OneTorn(one),
        }
    }

    fn fate(self, rng: &mut Rng, nth: usize) -> Fate {
        let kept = |is_kept| if is_kept { Fate::Kept } else { Fate::Lost };
        match self {
            Self::NoneKept => Fate::Lost,
            Self::AllKept => Fate::Kept,
            Self::Prefix(end) if nth == end && rng.bool() => Fate::Torn,
            Self::Prefix(end) => kept(nth < end),
            Self::Each(percent) if rng.u8(0..100) < percent => Fate::Kept,
            Self::Each(_) => {
                if rng.bool() {
                    Fate::Torn
                } else {
                    Fate::Lost
                }
            }
            Self::OneLost(one) => kept(nth != one),
            Self::OneKept(one) => kept(nth == one),
            Self::OneTorn(one) => {
                if nth == one {
                    Fate::Torn
                } else {
                    Fate::Kept
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Drive;
    use super::*;

    const SECTOR: usize = 512;

    fn at(position: usize, seed: u64) -> Cut {
        Cut { position, seed, sector_size: SECTOR, whole: Whole::Nothing, flushes_count: true }
    }

    fn first_byte(image: &Image, offset: u64) -> u8 {
        let mut byte = [0];
        image.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn what_a_flush_covered_is_always_there_and_the_rest_at_times() {
        let mut drive = Drive::default();
        drive.write(0, &[1; 4096], false);
        drive.flush();
        drive.write(4096, &[2; 4096], false);
        let end = drive.tape().log.position();
        let images: Vec<Image> = (0..200).map(|seed| drive.tape().cut(&at(end, seed)).0).collect();
        assert!(images.iter().all(|image| first_byte(image, 0) == 1));
        assert!(images.iter().any(|image| first_byte(image, 4096) == 2));
        assert!(images.iter().any(|image| first_byte(image, 4096) == 0));
    }

    #[test]
    fn a_flush_does_not_cover_a_write_that_is_answered_after_it() {
        let mut drive = Drive::default();
        let held = drive.write(0, &[1; 512], true);
        drive.flush();
        drive.answered(held);
        let lost = |position| (0..200).any(|seed| first_byte(&drive.tape().cut(&at(position, seed)).0, 0) == 0);
        assert!(lost(3));
        drive.flush();
        let position = drive.tape().log.position();
        assert!((0..200).all(|seed| first_byte(&drive.tape().cut(&at(position, seed)).0, 0) == 1));
    }

    #[test]
    fn a_torn_write_leaves_whole_sectors() {
        let mut drive = Drive::default();
        drive.write(0, &[3; 8192], false);
        let mut torn = 0;
        for seed in 0..500 {
            let (image, left) = drive.tape().cut(&at(1, seed));
            torn += left.torn;
            let mut bytes = [0; 8192];
            image.read(0, &mut bytes);
            for sector in bytes.chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}");
            }
        }
        assert!(torn > 20, "{torn}");
    }

    #[test]
    fn what_must_be_whole_is_there_or_not() {
        let mut drive = Drive::default();
        drive.write(0, &[3; 4096], false);
        for seed in 0..300 {
            let (image, _) = drive.tape().cut(&Cut { whole: Whole::FirstBlock, ..at(1, seed) });
            assert_eq!(first_byte(&image, 0), first_byte(&image, 4095), "seed {seed}");
        }
    }

    #[test]
    fn a_later_write_to_the_same_place_wins_over_a_kept_older_one() {
        let mut drive = Drive::default();
        let held = drive.write(0, &[1; 512], true);
        drive.write(0, &[2; 512], false);
        drive.flush();
        drive.answered(held);
        let end = drive.tape().log.position();
        assert!((0..200).all(|seed| first_byte(&drive.tape().cut(&at(end, seed)).0, 0) == 2));
    }

    #[test]
    fn a_cut_is_decided_by_its_seed() {
        let mut drive = Drive::default();
        (0..50).for_each(|nth| {
            drive.write(nth * 4096, &[nth as u8 + 1; 4096], false);
        });
        let left = |seed| drive.tape().cut(&at(50, seed)).1;
        assert_eq!(left(7), left(7));
        assert!((0..20).any(|seed| left(seed) != left(7)));
    }
}
