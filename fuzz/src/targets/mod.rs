//! The fuzz targets: functions over bytes that must come back, whatever the bytes are.
//!
//! A target reads its input as one of the engine's formats, or as instructions ([`recovery`], [`operations`]). It must not
//! panic, must not take more memory than [`Target::memory_max`] of the input's size, and holds what it reads against
//! properties of its own; its text names them. What breaks one is a *violation*, told in words.

pub mod checkpoint;
pub mod cold_manifest;
pub mod cold_object;
pub mod config;
pub mod idx;
pub mod journal;
pub mod meta;
pub mod operations;
pub mod recovery;
pub mod store;

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::dice::Dice;
use crate::meter::measure;

/// How a run ended: equal for inputs that were refused for the same reason, or accepted with the same shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outcome(pub u64);

impl Outcome {
    /// That of a text, whose numbers do not count.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        let is_number = |c: char| c.is_ascii_hexdigit() || c == 'x';
        text.split(is_number).filter(|part| !part.is_empty()).for_each(|part| part.hash(&mut hasher));
        Self(hasher.finish())
    }

    /// That of an error and its causes.
    #[must_use]
    pub fn of_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::of(&crate::failure::chain(error))
    }
}

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line, of its corpus and of its failures.
    pub name: &'static str,
    /// What the bytes are.
    pub about: &'static str,
    /// Reads the bytes; `Err` says which property they break.
    pub run: fn(&[u8]) -> Result<Outcome, String>,
    /// Changes an input, given another one of the corpus.
    pub mutate: fn(&mut Vec<u8>, &[u8], &mut Dice),
    /// Inputs to begin with, each with a name.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
    /// Most memory, bytes, for an input of this many bytes.
    pub memory_max: fn(usize) -> u64,
    /// Largest input that makes sense, bytes.
    pub input_max: usize,
    /// What inputs are made smaller by, bytes; what is left over lies in front.
    pub unit: usize,
    /// Its share of the time.
    pub weight: u32,
}

/// All targets.
pub const TARGETS: [Target; 10] = [
    journal::TARGET,
    idx::TARGET,
    store::TARGET,
    meta::TARGET,
    checkpoint::TARGET,
    cold_manifest::TARGET,
    cold_object::TARGET,
    config::TARGET,
    recovery::TARGET,
    operations::TARGET,
];

/// The target of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

impl Target {
    /// Runs the target on these bytes.
    ///
    /// # Errors
    ///
    /// What is violated: a property, the bound of memory, or it panicked.
    pub fn check(&self, input: &[u8]) -> Result<Outcome, String> {
        let (result, memory) = measure(|| catch_unwind(AssertUnwindSafe(|| (self.run)(input))));
        let outcome = result.unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_text(&*panic))))?;
        let most = (self.memory_max)(input.len());
        match memory.most() <= most {
            true => Ok(outcome),
            false => Err(format!("{memory:?} for an input of {} bytes, {most} is the most", input.len())),
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics of this process are told by whoever catches them, with their place, and not on standard error.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|panic| LAST_PANIC.set(Some(panic.to_string()))));
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a text");
    LAST_PANIC.take().unwrap_or_else(|| text.to_owned())
}

/// Fails with this text unless it holds.
pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Reads `input` as what is `called` so, which must survive being encoded and read again, and must not become another by a changed
/// bit; an input that is refused has the outcome of its error.
pub(crate) fn check_read_again<T: PartialEq, E: std::error::Error + 'static>(
    called: &str,
    input: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Result<Result<T, Outcome>, String> {
    let value = match decode(input) {
        Ok(value) => value,
        Err(error) => return Ok(Err(Outcome::of_error(&error))),
    };
    let is_same = |again: Result<T, E>| again.is_ok_and(|again| again == value);
    ensure(is_same(decode(&encode(&value))), || format!("{called} is another when it is read again"))?;
    let changed = decode(&flipped(input, place_in(input, 1, input.len()), place_in(input, 2, 8)));
    ensure(changed.is_err() || is_same(changed), || format!("a changed bit makes another {called}"))?;
    Ok(Ok(value))
}

/// A number below `end` that depends on the whole input, for properties that are tried at one place of it. 0 if there is no
/// such number.
pub(crate) fn place_in(input: &[u8], salt: u64, end: usize) -> usize {
    let seed = u64::from(crc32c::crc32c(input)) << 32 | salt;
    Dice::new(seed).within(0..end.max(1) as u64) as usize
}

/// The same bytes with one bit changed.
pub(crate) fn flipped(bytes: &[u8], at: usize, bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << (bit % 8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target whose input says what it does wrong.
    const WRONG: Target = Target {
        name: "wrong",
        about: "",
        run: |input| match input {
            b"panics" => panic!("as told"),
            b"takes memory" => Ok(Outcome(vec![1_u8; 10_000].iter().map(|byte| u64::from(*byte)).sum())),
            b"is wrong" => Err("it is wrong".to_owned()),
            _ => Ok(Outcome(0)),
        },
        mutate: |_, _, _| {},
        seeds: Vec::new,
        memory_max: |_| 5000,
        input_max: 100,
        unit: 1,
        weight: 1,
    };

    #[test]
    fn panics_memory_and_violations_are_all_found() {
        assert_eq!(WRONG.check(b"does well"), Ok(Outcome(0)));
        assert!(WRONG.check(b"panics").unwrap_err().contains("as told"));
        assert!(WRONG.check(b"takes memory").unwrap_err().contains("5000 is the most"));
        assert_eq!(WRONG.check(b"is wrong").unwrap_err(), "it is wrong");
    }

    #[test]
    fn numbers_of_a_text_do_not_count() {
        assert_eq!(Outcome::of("block 12 has 0x7f"), Outcome::of("block 9 has 0x01"));
        assert_ne!(Outcome::of("block 12 ends"), Outcome::of("block 12 begins"));
    }
}
