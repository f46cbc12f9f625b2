//! A failure: an input that breaks a target, as a file that runs again.
//!
//! The file is the input as it is; its name begins with the target's. Beside it `<name>.txt` says what was broken.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::targets::{Outcome, TARGETS, Target, by_name};

/// How long an input is made smaller.
const SHRINK_TIME: Duration = Duration::from_secs(10);

/// An input that breaks a target.
#[derive(Clone, Debug)]
pub struct Finding {
    target: Target,
    input: Vec<u8>,
    what: String,
}

impl Finding {
    /// This input did this to this target.
    #[must_use]
    pub fn new(target: &Target, input: Vec<u8>, what: String) -> Self {
        Self { target: *target, input, what }
    }

    /// Whether another input fails in the same way.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.target.name == other.target.name && Outcome::of(&self.what) == Outcome::of(&other.what)
    }

    /// Name of its file.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{:08x}", self.target.name, crc32c::crc32c(&self.input))
    }

    /// Writes it into a directory. Gives the lines that tell about it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<String> {
        fs::create_dir_all(dir)?;
        let path = dir.join(self.name());
        fs::write(&path, &self.input)?;
        fs::write(path.with_extension("txt"), format!("{}\n", self.what))?;
        let path = path.display();
        Ok(format!("{self}\nrerun: cargo run --release -p redex-fuzz -- replay {path}"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} bytes: {}", self.target.name, self.input.len(), self.what)
    }
}

/// Takes parts of the input away, or makes them zero, as long as it fails in the same way.
#[must_use]
pub fn shrink(finding: Finding) -> Finding {
    let begun = Instant::now();
    let mut smallest = finding;
    let unit = smallest.target.unit;
    let mut step = smallest.input.len().next_power_of_two().max(unit) / unit * unit;
    while step >= unit && step > 0 {
        let mut at = smallest.input.len() % unit;
        while at < smallest.input.len() {
            if begun.elapsed() > SHRINK_TIME {
                return smallest;
            }
            at = match smaller(&smallest, at, step) {
                Some(found) => {
                    let was_removed = found.input.len() < smallest.input.len();
                    smallest = found;
                    if was_removed { at } else { at + step }
                }
                None => at + step,
            };
        }
        step = step / 2 / unit * unit;
    }
    smallest
}

fn smaller(finding: &Finding, at: usize, step: usize) -> Option<Finding> {
    let end = (at + step).min(finding.input.len());
    let mut without = finding.input.clone();
    without.drain(at..end);
    let mut with_zeros = finding.input.clone();
    with_zeros[at..end].fill(0);
    let differs = with_zeros != finding.input;
    let fails = |input: Vec<u8>| {
        let what = finding.target.check(&input).err()?;
        let found = Finding { input, what, ..finding.clone() };
        found.is_like(finding).then_some(found)
    };
    fails(without).or_else(|| if differs { fails(with_zeros) } else { None })
}

/// The target of a file: of this name, or by the name of the file, or of the directory that it lies in.
#[must_use]
pub fn target_of(path: &Path, name: Option<&str>) -> Option<Target> {
    if let Some(name) = name {
        return by_name(name);
    }
    let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let file = part(path.file_name())?;
    let of_file = TARGETS.into_iter().find(|target| file.starts_with(&format!("{}-", target.name)));
    of_file.or_else(|| by_name(&part(path.parent()?.file_name())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_a_file_that_names_its_target() {
        let dir = std::env::temp_dir().join(format!("redex-fuzz-finding-{}", std::process::id()));
        let target = by_name("meta").expect("a target");
        let finding = Finding::new(&target, vec![1, 2, 3], "it is wrong".to_owned());
        let text = finding.write(&dir).expect("a directory to write to");
        let path = dir.join(finding.name());
        assert!(text.ends_with(&format!("-- replay {}", path.display())), "{text}");
        assert_eq!(fs::read(&path).expect("it was written"), [1, 2, 3]);
        assert_eq!(target_of(&path, None).map(|target| target.name), Some("meta"));
        fs::remove_dir_all(dir).expect("it is there");
    }

    fn failing(unit: usize, run: fn(&[u8]) -> Result<Outcome, String>) -> Target {
        Target { unit, run, memory_max: |_| u64::MAX, ..by_name("meta").expect("a target") }
    }

    fn shrunk(target: &Target, input: &[u8]) -> Vec<u8> {
        let what = target.check(input).expect_err("it fails");
        shrink(Finding::new(target, input.to_vec(), what)).input
    }

    #[test]
    fn what_a_failure_does_not_need_is_removed_or_made_zero() {
        let a_nine = failing(1, |input| match input.iter().position(|byte| *byte == 9) {
            Some(at) => Err(format!("a nine at {at}")),
            None => Ok(Outcome(0)),
        });
        assert_eq!(shrunk(&a_nine, &[1, 2, 9, 9, 3, 9, 4]), [9]);
        let eight_bytes = failing(1, |input| match input {
            [_, _, _, _, _, 9, _, _] => Err("the sixth is a nine".to_owned()),
            _ => Ok(Outcome(0)),
        });
        assert_eq!(shrunk(&eight_bytes, &[1, 2, 3, 4, 5, 9, 7, 8]), [0, 0, 0, 0, 0, 9, 0, 0]);
    }

    /// What lies in front of the units stays, and so does the number of bytes in each.
    #[test]
    fn whole_units_are_removed() {
        let a_unit = failing(4, |input| match input[input.len() % 4..].chunks(4).any(|unit| unit == [9, 8, 7, 6]) {
            true => Err("it is there".to_owned()),
            false => Ok(Outcome(0)),
        });
        let input: Vec<u8> = [&[1, 2, 3], &[5; 12][..], &[9, 8, 7, 6], &[5; 20]].concat();
        assert_eq!(shrunk(&a_unit, &input), [1, 2, 3, 9, 8, 7, 6]);
    }

    /// A smaller input that fails in another way says nothing of this one.
    #[test]
    fn another_failure_is_not_taken_for_this_one() {
        let two_ways = failing(1, |input| match input.len() {
            0..5 => Err("too short".to_owned()),
            len => Err(format!("{len} bytes are wrong")),
        });
        assert_eq!(shrunk(&two_ways, &[7; 40]), [0; 5]);
    }

    #[test]
    fn targets_are_known_by_name_file_or_directory() {
        let name = |path: &str, name| target_of(Path::new(path), name).map(|target| target.name);
        assert_eq!(name("x/cold_manifest-0123", None), Some("cold_manifest"));
        assert_eq!(name("corpus/journal/seed-killed", None), Some("journal"));
        assert_eq!(name("journal-1", Some("meta")), Some("meta"));
        assert_eq!(name("somewhere/else", None), None);
    }
}
