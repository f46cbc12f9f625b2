//! A disk that loses, garbles or misplaces what it was given, without a word: whatever is read must be right, or opening
//! or reading must end in an error that names the place. Never other bytes, never a panic, and nothing that was
//! acknowledged may be gone in silence.
//!
//! The last life of such a history is brought to rest and closed or killed. Then copies of its disk are struck, one blow
//! each; or the disk itself has lost or misdirected one write of that life; or a storm went over it: writes were lost, misdirected,
//! rotten or unreadable, and reads short, up to one in ten. What a storm leaves may lack what was acknowledged, since both the
//! record and its witness may be hit: but what is shown is right.
//!
//! At rest means: every channel was synced, and the shard has left its witness (design D6). Without one, the last commit
//! damaged cannot be told from the last commit torn.

use redex::RedexFile;
use redex::sim::{FaultKind, SimDisk, SimOptions, SimStep, SimStore};

use crate::check::same;
use crate::dice::Dice;
use crate::failure::chain;
use crate::history::{End, World};
use crate::life;
use crate::model::Channel;
use crate::workload::{Run, observe, poll};

/// Bytes that a misplaced or lost write has.
const BLOCK: usize = 4096;
/// Blows, each to a copy of the disk.
const BLOWS: u64 = 8;
/// Steps after which a store must be at rest.
const STEPS_MAX: usize = 100_000;

/// Damages of each kind in a storm, in a thousand.
const STORM_RATES: [u64; 4] = [2, 10, 30, 100];

/// Steps after which one that only looks at ages now and then is.
const STEPS_AT_REST: usize = 3000;

/// What a damaged disk must hold, unless there is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Everything that was published.
    All,
    /// What was acknowledged as durable.
    Acknowledged,
    /// Whatever is shown is what was appended.
    WhatIsShown,
}

/// What came of a blow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything was there.
    Unharmed,
    /// The store did not open, and said why.
    Refused,
    /// The store opened; some events could not be read, and each said why.
    Unreadable,
}

/// Lives the last life, and strikes.
///
/// # Errors
///
/// What is not as it must be.
pub fn finish(world: &mut World) -> Result<(), String> {
    world.disk.power_off_after(None);
    let Some((store, files)) = life::open(world)? else { return Err("the power went off by itself".to_owned()) };
    let mut ordered = None;
    let is_storm = world.dice.one_in(4);
    if is_storm {
        let (dice, calm) = (&mut world.dice, world.disk.options());
        let mut rate = || if dice.one_in(2) { dice.pick(&STORM_RATES) as f64 / 1000.0 } else { 0.0 };
        let options = SimOptions {
            misdirected_write: rate(),
            lost_write: rate(),
            rot: rate(),
            latent_sector: rate(),
            short_read: rate(),
            ..calm
        };
        world.disk.set_options(options);
        world.is_struck = true;
    } else if world.dice.one_in(3) {
        let kind = world.dice.pick(&[FaultKind::LostWrite, FaultKind::MisdirectedWrite]);
        let nth = world.dice.within(1..120);
        world.disk.one_shot_fault(kind, nth);
        ordered = Some((kind, nth));
        world.is_struck = true;
    }
    let actions = world.dice.within(5..70);
    let (store, files) = Run::new(world, store, files).run(actions)?;
    end_at_rest(world, store, files)?;
    world.disk.forget_faults();
    if is_storm {
        let (verdict, _) = examine(&world.channels, Expected::WhatIsShown, world, &world.disk)
            .map_err(|what| format!("{:?} in the last life, {:?}: {what}", world.disk.options(), world.end))?;
        world.tally.storms += 1;
        *world.tally.blows.entry(verdict).or_default() += 1;
        return Ok(());
    }
    let all = if world.end == End::Closed { Expected::All } else { Expected::Acknowledged };
    if let Some((kind, nth)) = ordered {
        let (verdict, _) = examine(&world.channels, all, world, &world.disk)
            .map_err(|what| format!("{kind:?} at write {nth} of the last life, {:?}: {what}", world.end))?;
        *world.tally.blows.entry(verdict).or_default() += 1;
        return Ok(());
    }
    for _ in 0..BLOWS {
        let disk = world.disk.fork(world.dice.bits());
        let Some(blow) = Blow::draw(&mut world.dice, &disk) else { continue };
        let struck = blow.strike(&disk);
        let told = |what: String| format!("{blow}, {:?}: {what}", world.end);
        let (verdict, why) = examine(&world.channels, all, world, &disk).map_err(told)?;
        if verdict == Verdict::Refused && struck.undo(&disk) {
            // What refused to open has changed nothing that matters.
            let again = examine(&world.channels, all, world, &disk);
            let again = again.map_err(|what| told(format!("refused ({why}); mended: {what}")))?;
            if again.0 != Verdict::Unharmed {
                return Err(told(format!("refused ({why}); mended, it is {again:?}")));
            }
        }
        *world.tally.blows.entry(verdict).or_default() += 1;
    }
    Ok(())
}

/// Syncs every channel, lets the shards leave their witnesses, and closes the store or lets the process die.
fn end_at_rest(world: &mut World, mut store: SimStore, files: Vec<RedexFile>) -> Result<(), String> {
    let mut syncs: Vec<_> = files.iter().map(RedexFile::sync).collect();
    let mut resolved = vec![false; syncs.len()];
    let mut poll_all = || {
        for (sync, resolved) in syncs.iter_mut().zip(&mut resolved) {
            *resolved = *resolved || poll(sync).is_ready();
        }
        resolved.iter().all(|resolved| *resolved)
    };
    poll_all();
    let mut rest = Err("a store with nothing to do finds no rest".to_owned());
    let mut since_resolved = 0;
    for _ in 0..STEPS_MAX {
        let resolved = poll_all();
        since_resolved += usize::from(resolved);
        if since_resolved > STEPS_AT_REST {
            rest = Ok(());
            break;
        }
        let wall_us = world.clock.wall_us();
        let step = store.step();
        observe(world, &files, wall_us)?;
        match step {
            SimStep::Worked | SimStep::Waited => continue,
            // What the last step brought may let a sync ask for its flush.
            SimStep::Idle if !resolved && poll_all() => continue,
            SimStep::Idle if !resolved && !world.is_struck => rest = Err("a sync waits for ever".to_owned()),
            SimStep::Idle | SimStep::Failed | SimStep::Ended => rest = Ok(()),
        }
        break;
    }
    rest?;
    drop(syncs);
    drop(files);
    world.end = End::Killed;
    if world.dice.one_in(2) {
        match store.close() {
            Ok(()) => {
                world.end = End::Closed;
                for channel in &mut world.channels {
                    channel.acknowledged(channel.next());
                }
            }
            Err(error) if !world.is_struck => return Err(format!("close: {}", chain(&error))),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Opens the store on this disk and reads everything, compared with the model. Tells why a refused store was.
fn examine(
    channels: &[Channel],
    expected: Expected,
    world: &World,
    disk: &SimDisk,
) -> Result<(Verdict, String), String> {
    let is_lenient = expected == Expected::WhatIsShown;
    let store = match SimStore::open(disk, &world.settings, &world.clock, 7) {
        Ok(store) => store,
        Err(error) => {
            let text = chain(&error);
            return named(&text).map(|()| (Verdict::Refused, text));
        }
    };
    let infos = store.redex().channels();
    let mut verdict = Verdict::Unharmed;
    for channel in channels {
        let info = infos.iter().find(|info| info.name.as_str() == channel.name);
        let survived = info.map_or(0, |info| info.next_seq);
        let (name, floor, next) = (&channel.name, channel.floor, channel.next());
        if !channel.is_there && info.is_some() && !is_lenient {
            return Err(format!("{name} was deleted, and is there"));
        }
        // One that had no answer when the shard failed has counted or not.
        let in_doubt = channel.pending.is_some() || is_lenient;
        if !in_doubt && info.is_some_and(|info| info.head_seq < channel.head) {
            return Err(format!("{name}: the head was {} and has gone back; and no error", channel.head));
        }
        let is_short = survived < floor || (expected == Expected::All && survived < next);
        if !in_doubt && (is_short || survived > next) {
            return Err(format!("{name}: {survived} events of {next}, {floor} were acknowledged; and no error"));
        }
        if info.is_some() && !is_whole(channel, &store, survived)? {
            verdict = Verdict::Unreadable;
        }
    }
    // What a damaged store says to a close is its own affair, as long as it says something.
    let _said = store.close();
    Ok((verdict, String::new()))
}

/// Whether all events were read; those that were not have errors.
fn is_whole(channel: &Channel, store: &SimStore, survived: u64) -> Result<bool, String> {
    let file = match store.redex().open_file(&*channel.name, channel.config.clone()) {
        Ok(file) => file,
        Err(error) => return named(&chain(&error)).map(|()| false),
    };
    let mut seq = file.head_seq();
    for event in file.read_from(0).blocking() {
        match event {
            Ok(event) => same(channel, seq, &event)?,
            Err(error) => {
                named(&chain(&error))?;
                return each(channel, &file, survived).map(|()| false);
            }
        }
        seq += 1;
    }
    match seq == survived {
        true => Ok(true),
        false => Err(format!("{}: {seq} events were read of {survived}", channel.name)),
    }
}

/// Reads event by event: each is right, or has an error.
fn each(channel: &Channel, file: &RedexFile, survived: u64) -> Result<(), String> {
    for seq in file.head_seq()..survived {
        match file.read_one(seq).wait() {
            Ok(Some(event)) => same(channel, seq, &event)?,
            Ok(None) => return Err(format!("{}: event {seq} of {survived} is gone, and no error", channel.name)),
            Err(error) => named(&chain(&error))?,
        }
    }
    Ok(())
}

/// An error must say where: a file of the store.
fn named(text: &str) -> Result<(), String> {
    let names = ["STORE", ".wal", ".ckp", ".idx", ".dat", "channel ", "journal/", "checkpoint/", "channels/"];
    match names.iter().any(|name| text.contains(name)) {
        true => Ok(()),
        false => Err(format!("an error that names no place: {text}")),
    }
}

/// One damage.
#[derive(Clone, Debug)]
struct Blow {
    path: String,
    /// Block of the file.
    block: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// This bit of this byte of the block is the other.
    Flip(usize, u8),
    /// This sector of the block cannot be read.
    Latent(usize),
    /// The block was never written.
    Lost,
    /// A write of this block of this file came here.
    Misdirected(String, usize),
}

/// What was there before a blow, and what after it.
struct Struck {
    path: String,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Blow {
    /// Draws one: each kind of file is as likely as the others, and zeros are seldom hit. `None` if there is nothing.
    fn draw(dice: &mut Dice, disk: &SimDisk) -> Option<Self> {
        let (path, block) = place(dice, disk)?;
        let kind = match dice.within(0..4) {
            0 => Kind::Flip(dice.within(0..BLOCK as u64) as usize, dice.within(0..8) as u8),
            1 => Kind::Latent(dice.within(0..(BLOCK / disk.options().sector_size) as u64) as usize),
            2 => Kind::Lost,
            _ => {
                let (from, from_block) = place(dice, disk)?;
                Kind::Misdirected(from, from_block)
            }
        };
        Some(Self { path, block, kind })
    }

    fn strike(&self, disk: &SimDisk) -> Struck {
        let before = disk.read_file(&self.path).expect("drawn from what is there");
        let at = self.block * BLOCK;
        let end = (at + BLOCK).min(before.len());
        let mut after = before.clone();
        match &self.kind {
            Kind::Flip(byte, bit) => after[(at + byte).min(end - 1)] ^= 1 << bit,
            Kind::Latent(sector) => {
                let sector = at / disk.options().sector_size + sector;
                disk.add_latent_sector(&self.path, sector as u64).expect("the file is there");
            }
            Kind::Lost => after[at..end].fill(0),
            Kind::Misdirected(path, block) => {
                let source = disk.read_file(path).expect("drawn from what is there");
                let bytes = &source[block * BLOCK..((block + 1) * BLOCK).min(source.len())];
                let len = bytes.len().min(end - at);
                after[at..at + len].copy_from_slice(&bytes[..len]);
            }
        }
        if !matches!(self.kind, Kind::Latent(_)) {
            disk.write_file(&self.path, &after).expect("the file is there");
        }
        Struck { path: self.path.clone(), before, after }
    }
}

impl Struck {
    /// Takes the blow back, unless the file has changed since.
    fn undo(&self, disk: &SimDisk) -> bool {
        let unchanged = disk.read_file(&self.path).as_deref() == Some(&*self.after);
        unchanged && disk.write_file(&self.path, &self.before).is_ok()
    }
}

impl std::fmt::Display for Blow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, block, kind } = self;
        write!(f, "{path}, block {block}: ")?;
        match kind {
            Kind::Flip(byte, bit) => write!(f, "bit {bit} of byte {byte} is flipped"),
            Kind::Latent(sector) => write!(f, "sector {sector} is unreadable"),
            Kind::Lost => write!(f, "the write was lost"),
            Kind::Misdirected(path, block) => write!(f, "block {block} of {path} was written here"),
        }
    }
}

/// A block of some file.
fn place(dice: &mut Dice, disk: &SimDisk) -> Option<(String, usize)> {
    let paths = disk.list_all();
    let ending = dice.pick(&["STORE", ".wal", ".ckp", ".idx", ".dat", ""]);
    let of_kind: Vec<&String> = paths.iter().filter(|path| path.ends_with(ending)).collect();
    let path = if of_kind.is_empty() { dice.pick(&paths) } else { dice.pick(&of_kind).clone() };
    let bytes = disk.read_file(&path)?;
    let written: Vec<usize> = bytes
        .chunks(BLOCK)
        .enumerate()
        .filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
        .map(|(block, _)| block)
        .collect();
    let blocks = bytes.len().div_ceil(BLOCK);
    let anywhere = blocks > 0 && (written.is_empty() || dice.one_in(10));
    match anywhere {
        true => Some((path, dice.within(0..blocks as u64) as usize)),
        false => (!written.is_empty()).then(|| (path, dice.pick(&written))),
    }
}
