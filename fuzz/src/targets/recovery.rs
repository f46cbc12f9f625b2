//! Arbitrary directory trees, handed to recovery.
//!
//! The input is instructions: a store of the corpus to begin with (or none), and what happens to its files. Then the tree is
//! opened, read, appended to, verified, killed and opened again.
//!
//! - It opens or gives an error, within a bounded number of operations on the disk and bounded memory.
//! - Unless checksums were made right on purpose: an event that is served is one that was written there, byte for byte (or at its
//!   place in the store whose segment files were put in); and
//!   what opened once goes on as a store does: appends resolve, and the durable ones are there after a kill. (With a directory
//!   where a file belongs, or the other way round, there may be errors later.)
//!
//! An instruction has 18 bytes: `kind u8, flags u8, file u16, other u16, at u32, value u64`; all of them mean something, whatever
//! they are. Bit 0 of the flags makes the file's checksums right afterwards, bit 1 those of payloads, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use redex::sim::{ManualClock, SimDisk, SimSettings, SimStore};
use redex::{OpenFileError, Redex, RedexFile, RedexFileConfig};

use super::{Outcome, Target, ensure};
use crate::dice::Dice;
use crate::drive::drive;
use crate::failure::chain;
use crate::mutate::interesting;
use crate::repair::{self, Repair};
use crate::tree::{SEGMENT_BYTES, STORES, Tree, Written, stores};

/// Bytes of an instruction.
const SIZE: usize = 18;
/// Most instructions.
const INSTRUCTIONS_MAX: usize = 24;
const BLOCK: usize = 4096;
/// Space of the disk, bytes.
const SPACE: u64 = 64 << 20;
/// Most bytes of a file after it was made longer.
const FILE_MAX: usize = 1 << 20;
/// Steps of the disk until everything must be over.
const STEPS_MAX: u64 = 100_000;
/// Events that are read of a channel at the most.
const EVENTS_MAX: usize = 20_000;

/// Names that mean something to the engine, or nearly.
const NAMES: [&str; 24] = [
    "LOCK",
    "STORE",
    "STORE.new",
    "journal",
    "journal/000/spare",
    "journal/000/00000000000000000000.wal",
    "journal/000/00000000000000000009.wal",
    "journal/000/18446744073709551615.wal",
    "journal/000/99999999999999999999.wal",
    "journal/000/9223372036854775806.wal",
    "journal/000/spare/0000000001-0000000000.wal",
    "journal/000/spare/0000000009-0000000003.new",
    "journal/001/00000000000000000001.wal",
    "checkpoint/000",
    "checkpoint/000/00000000000000000077.ckp",
    "checkpoint/000/18446744073709551615.ckp",
    "checkpoint/000/00000000000000000001.ckp.new",
    "channels",
    "channels/00/0000000100000000/META.new",
    "channels/00/0000000100000000/COLD",
    "channels/00/0000000100000000/COLD.new",
    "channels/00/0000000100000000/00000000000000009999.idx",
    "channels/01/0000000100000001",
    "channels/\u{1f980}/ \n",
];

/// See the module's text.
pub const TARGET: Target = Target {
    name: "recovery",
    about: "instructions that make a directory tree",
    run,
    mutate,
    seeds,
    // The trees, copies of their files, a budget of pages; nothing that grows with what a field says.
    memory_max: |_| 64 << 20,
    input_max: 1 + SIZE * INSTRUCTIONS_MAX,
    unit: SIZE,
    weight: 8,
};

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    kind: u8,
    flags: u8,
    file: u16,
    other: u16,
    at: u32,
    value: u64,
}

impl Instruction {
    fn of(bytes: &[u8]) -> Self {
        let number = |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        Self {
            kind: bytes[0],
            flags: bytes[1],
            file: number(2, 2) as u16,
            other: number(4, 2) as u16,
            at: number(6, 4) as u32,
            value: number(10, 8),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let Self { kind, flags, file, other, at, value } = self;
        let start = [*kind, *flags];
        [&start[..], &file.to_le_bytes(), &other.to_le_bytes(), &at.to_le_bytes(), &value.to_le_bytes()].concat()
    }
}

/// The tree that an input makes.
struct Made {
    tree: Tree,
    /// Whether checksums were made right after a change.
    is_forged: bool,
    /// Whether a directory lies where a file belongs, or a file where a directory does: then what needs it goes wrong later.
    is_blocked: bool,
    /// What was written to stores whose segment files were put in.
    foreign: Vec<&'static Written>,
}

fn make(input: &[u8]) -> Made {
    let store = usize::from(input.first().copied().unwrap_or(0)) % (STORES.len() + 1);
    let tree = stores().get(store).cloned().unwrap_or_default();
    let mut made = Made { tree, is_forged: false, is_blocked: false, foreign: Vec::new() };
    let rest = input.get(1..).unwrap_or(&[]);
    for bytes in rest.chunks_exact(SIZE).take(INSTRUCTIONS_MAX) {
        made.follow(&Instruction::of(bytes));
    }
    made
}

/// The path at this place of the list, counted round.
fn path_at(files: &BTreeMap<String, Vec<u8>>, index: u16) -> Option<String> {
    files.keys().nth(usize::from(index) % files.len().max(1)).cloned()
}

/// The `nth` byte that is not zero, counted round.
fn written_at(bytes: &[u8], nth: u32) -> Option<usize> {
    let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    (!written.is_empty()).then(|| written[nth as usize % written.len()])
}

impl Made {
    fn follow(&mut self, instruction: &Instruction) {
        let files = &mut self.tree.files;
        let Some(path) = path_at(files, instruction.file) else {
            return self.add_foreign(instruction, None);
        };
        self.is_blocked |= matches!(instruction.kind % 16, 10 | 12 | 15);
        match instruction.kind % 16 {
            0..=4 => change_field(files.get_mut(&path).expect("a path of the list"), instruction),
            5 => truncate(files.get_mut(&path).expect("a path of the list"), instruction),
            6 => extend(files.get_mut(&path).expect("a path of the list"), instruction),
            7 => _ = files.remove(&path),
            8 => swap(files, &path, instruction.other),
            9 => copy(files, &path, instruction.other),
            10 => {
                let bytes = files[&path].clone();
                files.insert(NAMES[instruction.value as usize % NAMES.len()].to_owned(), bytes);
            }
            11 => return self.add_foreign(instruction, Some(&path)),
            12 => {
                let bytes = files.remove(&path).expect("a path of the list");
                files.insert(format!("{path}/inside"), bytes);
            }
            13 => copy_block(files, &path, instruction),
            14 => {
                let bytes = files.get_mut(&path).expect("a path of the list");
                let from = instruction.at as usize % (bytes.len() / BLOCK + 1) * BLOCK;
                let end = (from + BLOCK).min(bytes.len());
                bytes[from..end].fill(0);
            }
            _ => {
                let name = NAMES[instruction.other as usize % NAMES.len()];
                let bytes = instruction.value.to_le_bytes().repeat(instruction.at as usize % 1024);
                files.insert(name.to_owned(), bytes);
            }
        }
        self.repair(&path, instruction.flags);
    }

    fn repair(&mut self, path: &str, flags: u8) {
        let how = match flags & 3 {
            0 => return,
            1 => Repair::Structure,
            _ => Repair::Payloads,
        };
        if let Some(bytes) = self.tree.files.get_mut(path) {
            let before = bytes.clone();
            repair::file(path, bytes, how);
            self.is_forged |= *bytes != before;
        }
    }

    /// A file of another store, in the place of this one or where it was.
    fn add_foreign(&mut self, instruction: &Instruction, path: Option<&str>) {
        let store = &stores()[instruction.value as usize % STORES.len()];
        let Some(foreign) = path_at(&store.files, instruction.other) else { return };
        let place = path.map_or_else(|| foreign.clone(), str::to_owned);
        if foreign.ends_with(".idx") || foreign.ends_with(".dat") {
            // Nothing in them names their store: a whole one in the place of one with its channel id and first sequence, which
            // stores have in common, shows the other store's events.
            self.foreign.extend(&store.channels);
        }
        self.tree.files.insert(place, store.files[&foreign].clone());
    }
}

fn change_field(bytes: &mut [u8], instruction: &Instruction) {
    let Some(at) = written_at(bytes, instruction.at) else { return };
    let value = instruction.value;
    if instruction.kind.is_multiple_of(16) {
        bytes[at] ^= 1 << (value % 8);
        return;
    }
    let width = [0, 2, 4, 8, 4][usize::from(instruction.kind % 16)];
    // Fields lie at multiples of their size.
    let at = at / width * width;
    let Some(field) = bytes.get_mut(at..at + width) else { return };
    if instruction.kind % 16 == 4 {
        let number = u32::from_le_bytes(*field.first_chunk().expect("4 bytes"));
        let delta = (value % 17) as i32 - 8;
        field.copy_from_slice(&number.wrapping_add_signed(delta).to_le_bytes());
    } else {
        field.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

fn truncate(bytes: &mut Vec<u8>, instruction: &Instruction) {
    let len = instruction.at as usize % (bytes.len() + 1);
    bytes.truncate(if instruction.flags & 4 == 0 { len / BLOCK * BLOCK } else { len });
}

fn extend(bytes: &mut Vec<u8>, instruction: &Instruction) {
    let len = (bytes.len() + instruction.at as usize % (64 << 10)).min(FILE_MAX.max(bytes.len()));
    bytes.resize(len, instruction.value as u8);
}

fn swap(files: &mut BTreeMap<String, Vec<u8>>, path: &str, other: u16) {
    let Some(other) = path_at(files, other).filter(|other| other != path) else { return };
    let first = files.remove(path).expect("a path of the list");
    let second = files.insert(other, first).expect("another path of the list");
    files.insert(path.to_owned(), second);
}

fn copy(files: &mut BTreeMap<String, Vec<u8>>, path: &str, other: u16) {
    let Some(other) = path_at(files, other) else { return };
    let bytes = files[path].clone();
    files.insert(other, bytes);
}

fn copy_block(files: &mut BTreeMap<String, Vec<u8>>, path: &str, instruction: &Instruction) {
    let Some(other) = path_at(files, instruction.other) else { return };
    let source = &files[&other];
    let from = instruction.value as usize % (source.len() / BLOCK + 1) * BLOCK;
    let block = source[from..(from + BLOCK).min(source.len())].to_vec();
    let bytes = files.get_mut(path).expect("a path of the list");
    let to = instruction.at as usize % (bytes.len() / BLOCK + 1) * BLOCK;
    let end = (to + block.len()).min(bytes.len());
    bytes[to..end].copy_from_slice(&block[..end - to]);
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> =
        STORES.iter().enumerate().map(|(i, name)| (format!("whole-{name}"), vec![i as u8])).collect();
    found.push(("nothing".to_owned(), vec![STORES.len() as u8]));
    for kind in 0..16 {
        for flags in 0..3 {
            let store = (kind + flags) % STORES.len() as u8;
            let file = u16::from(kind) * 3 + u16::from(flags);
            let instruction = Instruction { kind, flags, file, other: file + 1, at: 100, value: u64::from(kind) + 5 };
            found.push((format!("kind-{kind:02}-{flags}"), [vec![store], instruction.encode()].concat()));
        }
    }
    found
}

fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    if input.is_empty() || dice.one_in(10) {
        input.clear();
        input.push(dice.within(0..STORES.len() as u64 + 1) as u8);
    }
    let count = (input.len() - 1) / SIZE;
    match dice.within(0..10) {
        // Few changes that go far beat many of which the first is found.
        0..5 if count < 4 || dice.one_in(8) => input.extend(draw(dice).encode()),
        0..5 => input.truncate(1 + SIZE * dice.within(0..2) as usize),
        5 if other.len() > 1 => input.extend_from_slice(&other[1..]),
        _ if count > 0 => change_one(input, count, dice),
        _ => input.extend(draw(dice).encode()),
    }
    input.truncate(1 + SIZE * INSTRUCTIONS_MAX);
}

fn draw(dice: &mut Dice) -> Instruction {
    // Fields whose checksums are right again lead deepest.
    let kind = if dice.percent(70) { dice.pick(&[0, 1, 2, 2, 3, 3, 4, 4, 13]) } else { dice.within(0..16) as u8 };
    Instruction {
        kind,
        flags: dice.pick(&[0, 1, 1, 2, 2, 2, 4]),
        file: dice.bits() as u16,
        other: dice.bits() as u16,
        at: if dice.one_in(3) { dice.within(0..200) as u32 } else { dice.bits() as u32 },
        value: interesting(dice),
    }
}

fn change_one(input: &mut [u8], count: usize, dice: &mut Dice) {
    let at = 1 + SIZE * dice.within(0..count as u64) as usize;
    let mut instruction = Instruction::of(&input[at..at + SIZE]);
    let drawn = draw(dice);
    match dice.within(0..6) {
        0 => instruction.kind = drawn.kind,
        1 => instruction.flags = drawn.flags,
        2 => instruction.file = drawn.file,
        3 => instruction.at = instruction.at.wrapping_add_signed(dice.within(0..17) as i32 - 8),
        4 => instruction.at = drawn.at,
        _ => instruction.value = drawn.value,
    }
    input[at..at + SIZE].copy_from_slice(&instruction.encode());
}

fn run(input: &[u8]) -> Result<Outcome, String> {
    let made = make(input);
    let disk = made.tree.disk(SPACE);
    disk.power_off_after(Some(STEPS_MAX));
    let examined = examine(&made, &disk);
    ensure(!disk.is_off(), || format!("it is not over after {STEPS_MAX} operations on the disk"))?;
    examined
}

fn open(disk: &SimDisk) -> Result<SimStore, redex::OpenError> {
    SimStore::open(disk, &SimSettings::default(), &Arc::new(ManualClock::default()), 7)
}

fn examine(made: &Made, disk: &SimDisk) -> Result<Outcome, String> {
    let mut store = match open(disk) {
        Ok(store) => store,
        Err(error) => return Ok(Outcome::of_error(&error)),
    };
    let mut seen = String::from("opened");
    let mut appended = Vec::new();
    for info in store.redex().channels().into_iter().take(8) {
        match open_channel(store.redex(), info.name.as_str()) {
            Ok(file) => {
                seen += &read(made, &file)?;
                seen += &append(made, &mut store, &file, &mut appended)?;
                seen += &verify(&file);
            }
            Err(error) => seen += &chain(&error),
        }
    }
    drop(store);
    disk.kill();
    disk.power_off_after(Some(STEPS_MAX));
    match open(disk) {
        Ok(store) => seen += &read_again(made, &store, &appended)?,
        Err(error) if made.is_forged || made.is_blocked => seen += &chain(&error),
        Err(error) => return Err(format!("it opened, and after a kill it does not: {}", chain(&error))),
    }
    Ok(Outcome::of(&seen))
}

/// Opens a channel as it was made, or as its stored settings say that it was.
fn open_channel(redex: &Redex, name: &str) -> Result<RedexFile, OpenFileError> {
    let config = RedexFileConfig::default().with_persistent(true).with_segment_bytes(SEGMENT_BYTES);
    match redex.open_file(name, config.clone()) {
        Err(OpenFileError::ConfigConflict { present, .. }) if present.parse::<u64>().is_ok() => {
            redex.open_file(name, config.with_segment_bytes(present.parse().unwrap_or(SEGMENT_BYTES)))
        }
        opened => opened,
    }
}

/// Reads all that there is.
fn read(made: &Made, file: &RedexFile) -> Result<String, String> {
    let name = file.name().as_str().to_owned();
    let written = stores().iter().flat_map(|tree| &tree.channels).find(|channel| channel.name == name);
    let mut last = String::new();
    let mut seq = None;
    for event in file.read_from(0).blocking().take(EVENTS_MAX) {
        match event {
            Ok(event) => {
                let in_order = seq.is_none_or(|seq| event.seq == seq + 1);
                ensure(in_order, || format!("{name}: event {} follows {seq:?}", event.seq))?;
                seq = Some(event.seq);
                check_event(made, &name, written, event.seq, &event.payload)?;
            }
            Err(error) => {
                last = chain(&error);
                break;
            }
        }
    }
    if !last.is_empty() {
        let end = file.next_seq();
        for seq in [file.head_seq(), end / 2, end.saturating_sub(1)] {
            if let Ok(Some(event)) = file.read_one(seq).wait() {
                check_event(made, &name, written, event.seq, &event.payload)?;
            }
        }
    }
    Ok(last)
}

fn check_event(made: &Made, name: &str, written: Option<&Written>, seq: u64, payload: &[u8]) -> Result<(), String> {
    let is_written = written.into_iter().chain(made.foreign.iter().copied()).any(|written| written.has(seq, payload));
    ensure(made.is_forged || is_written, || {
        format!("{name}: event {seq} of {} bytes was never written, and no checksum was made right", payload.len())
    })
}

/// Appends durably; notes what was acknowledged.
fn append(
    made: &Made,
    store: &mut SimStore,
    file: &RedexFile,
    appended: &mut Vec<(String, u64)>,
) -> Result<String, String> {
    let name = file.name().as_str().to_owned();
    for len in [5, 300, 20_000] {
        let next = file.next_seq();
        match drive(store, file.append_durable(mark(&name, next, len))) {
            Some(Ok(seq)) => appended.push((name.clone(), seq)),
            Some(Err(error)) => return Ok(chain(&error)),
            None if made.is_forged || made.is_blocked => return Ok("waits".to_owned()),
            None => return Err(format!("{name}: an append waits for ever")),
        }
    }
    Ok("appended".to_owned())
}

/// What is appended at a sequence.
fn mark(name: &str, seq: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![seq as u8 ^ name.len() as u8; len];
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes
}

fn verify(file: &RedexFile) -> String {
    let report = file.verify().wait();
    report.findings.first().map_or_else(String::new, |finding| finding.damage.to_string())
}

/// What was acknowledged is there, or reading it says why not.
fn read_again(made: &Made, store: &SimStore, appended: &[(String, u64)]) -> Result<String, String> {
    let mut seen = String::from("again");
    for (name, seq) in appended {
        let file = match open_channel(store.redex(), name) {
            Ok(file) => file,
            Err(error) if made.is_forged || made.is_blocked => {
                seen += &chain(&error);
                continue;
            }
            Err(error) => return Err(format!("{name} opened, and after a kill it does not: {}", chain(&error))),
        };
        match file.read_one(*seq).wait() {
            Ok(Some(event)) => {
                let len = event.payload.len().saturating_sub(8);
                ensure(made.is_forged || event.payload == mark(name, *seq, len), || {
                    format!("{name}: event {seq} was appended and acknowledged, and is another one now")
                })?;
            }
            Ok(None) if !made.is_forged => {
                return Err(format!("{name}: event {seq} was acknowledged as durable and is gone"));
            }
            Err(error) if !made.is_forged && !made.is_blocked => {
                return Err(format!("{name}: event {seq} was acknowledged as durable: {}", chain(&error)));
            }
            Ok(None) => seen += "gone",
            Err(error) => seen += &chain(&error),
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_come_back() {
        let instruction = Instruction { kind: 3, flags: 2, file: 1000, other: 7, at: 1 << 20, value: u64::MAX - 5 };
        let bytes = instruction.encode();
        assert_eq!(bytes.len(), SIZE);
        assert_eq!(Instruction::of(&bytes).encode(), bytes);
    }

    /// What was not changed is read as it was written, and all of it.
    #[test]
    fn stores_of_the_corpus_are_whole() {
        for (index, tree) in stores().iter().enumerate() {
            let store = open(&tree.disk(SPACE)).expect("it was not changed");
            for written in &tree.channels {
                let file = open_channel(store.redex(), &written.name).expect("it was not changed");
                let made = make(&[index as u8]);
                assert_eq!(read(&made, &file), Ok(String::new()));
                assert_eq!(file.head_seq(), written.head, "{}", written.name);
                assert!(STORES[index] == "two_shards" || file.next_seq() == written.next, "{}", written.name);
            }
        }
    }

    /// The oracle finds what it is there for: a payload whose checksums were made right, had nobody told it.
    #[test]
    fn an_event_that_was_never_written_is_a_violation() {
        let index = STORES.iter().position(|name| *name == "killed").expect("it is there");
        let mut made = make(&[index as u8]);
        for (path, bytes) in made.tree.files.iter_mut().filter(|(path, _)| path.ends_with(".wal")) {
            // The first payload byte of each commit that has some.
            for at in (BLOCK..bytes.len()).step_by(BLOCK) {
                let meta = bytes[at..].starts_with(b"RXC1").then(|| crate::repair::u32_at(bytes, at + 52)).flatten();
                let payload = meta.map_or(0, |meta| at + 80 + meta as usize);
                if payload > 0 && crate::repair::u32_at(bytes, at + 56) > Some(0) {
                    bytes[payload] ^= 1;
                }
            }
            repair::file(path, bytes, Repair::Payloads);
        }
        let error = examine(&made, &made.tree.disk(SPACE)).expect_err("it serves what was never written");
        assert!(error.contains("was never written"), "{error}");
    }
}
