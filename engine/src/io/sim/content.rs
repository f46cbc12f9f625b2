//! The bytes of one file: what a read sees, and what a power cut may take back.
//!
//! Only the live bytes are held whole. Each effect that is not durable yet keeps what it overwrote, so the versions of
//! a sector are: what its oldest effect overwrote (the durable one), what each later effect overwrote, and the live
//! bytes. A flush forgets the oldest effects; a power cut picks one version of each touched sector. Neither copies the
//! file.

use std::sync::Arc;

use super::chance::{Chance, Style};

/// A change of bytes that is not durable.
#[derive(Clone, Debug)]
struct Effect {
    /// When it was done: orders rise over the whole disk.
    order: u64,
    /// Where it begins, a multiple of the sector size.
    offset: usize,
    /// What was there before, whole sectors; zeros beyond the end of the file.
    before: Vec<u8>,
    /// Whether it cut the file (then the new content is zeros), rather than wrote.
    is_cut: bool,
}

/// A file's bytes.
#[derive(Clone, Debug)]
pub(super) struct Content {
    sector: usize,
    /// What a read sees. A copy of the disk shares it until one of the two is written.
    live: Arc<Vec<u8>>,
    /// In order of `order`.
    effects: Vec<Effect>,
    durable_size: usize,
    /// Sizes that are not durable, each with its order; the last is the live one.
    sizes: Vec<(u64, usize)>,
}

impl Content {
    /// An empty file.
    pub(super) fn new(sector: usize) -> Self {
        Self { sector, live: Arc::default(), effects: Vec::new(), durable_size: 0, sizes: Vec::new() }
    }

    /// What a read sees.
    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    fn live_mut(&mut self) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.live)
    }

    /// Whether a power cut changes nothing.
    pub(super) fn is_durable(&self) -> bool {
        self.effects.is_empty() && self.sizes.is_empty()
    }

    /// Order of the oldest effect that is not durable.
    pub(super) fn oldest(&self) -> Option<u64> {
        let effect = self.effects.first().map(|effect| effect.order);
        let size = self.sizes.first().map(|size| size.0);
        effect.into_iter().chain(size).min()
    }

    /// Replaces everything, durably.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.effects.clear();
        self.sizes.clear();
        self.durable_size = bytes.len();
        self.live = Arc::new(bytes);
    }

    /// Writes `data` (whole sectors), not durably.
    pub(super) fn write(&mut self, order: u64, offset: usize, mut data: Vec<u8>) {
        let end = offset + data.len();
        if end > self.live.len() {
            self.live_mut().resize(end, 0);
            self.sizes.push((order, end));
        }
        self.live_mut()[offset..end].swap_with_slice(&mut data);
        self.effects.push(Effect { order, offset, before: data, is_cut: false });
    }

    /// Writes `data` (whole sectors): these bytes are durable and so is a size that reaches them, nothing else.
    pub(super) fn write_durable(&mut self, order: u64, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if end > self.live.len() {
            self.live_mut().resize(end, 0);
            self.sizes.push((order, end));
        }
        self.live_mut()[offset..end].copy_from_slice(data);
        self.durable_size = self.durable_size.max(end);
        for size in &mut self.sizes {
            size.1 = size.1.max(end);
        }
        self.forget_range(offset, end);
        self.forget_equal_sizes();
    }

    /// Cuts or extends the file, not durably.
    pub(super) fn set_size(&mut self, order: u64, size: usize) {
        let old = self.live.len();
        if size == old {
            return;
        }
        if size < old {
            let start = size / self.sector * self.sector;
            let mut before = self.live[start..].to_vec();
            before.resize(before.len().next_multiple_of(self.sector), 0);
            self.effects.push(Effect { order, offset: start, before, is_cut: true });
        }
        self.live_mut().resize(size, 0);
        self.sizes.push((order, size));
    }

    /// Makes durable what was done before `end_order`.
    pub(super) fn flush(&mut self, end_order: u64) {
        let done = self.effects.partition_point(|effect| effect.order < end_order);
        self.effects.drain(..done);
        let done = self.sizes.partition_point(|size| size.0 < end_order);
        if let Some((_, size)) = self.sizes.drain(..done).next_back() {
            self.durable_size = size;
        }
    }

    /// Flips a bit of every version of a byte; false if the file does not reach it.
    pub(super) fn flip_bit(&mut self, offset: usize, bit: u8) -> bool {
        let Some(byte) = self.live_mut().get_mut(offset) else { return false };
        *byte ^= 1 << bit;
        for effect in &mut self.effects {
            let at = offset.checked_sub(effect.offset);
            if let Some(byte) = at.and_then(|at| effect.before.get_mut(at)) {
                *byte ^= 1 << bit;
            }
        }
        true
    }

    /// Picks what survives of everything not durable, and makes it durable.
    pub(super) fn settle(&mut self, style: Style, tear: bool, chance: &mut Chance) {
        let newest = self.effects.last().map_or(0, |effect| effect.order);
        let (size_order, size) = self.pick_size(style, chance);
        let effects = std::mem::take(&mut self.effects);
        let whole: Vec<bool> = effects.iter().map(|effect| style.keeps(chance, effect.order, newest)).collect();
        let reach = effects.iter().map(|effect| effect.offset + effect.before.len()).max().unwrap_or(0);
        let live = self.live_mut();
        live.resize(reach.max(live.len()), 0);

        let touched = touched_sectors(&effects, self.sector);
        for versions in touched.chunk_by(|a, b| a.0 == b.0) {
            let keeps = |chance: &mut Chance, at: usize| match style {
                Style::Sectors(p) => chance.happens(p),
                Style::Prefix(last) if effects[at].order == last => chance.happens(0.5),
                _ => whole[at],
            };
            let (base, picked) = pick_version(versions, &effects, size_order, |at| keeps(chance, at));
            self.take_version(versions, &effects, picked, base, tear && picked != base && chance.below(8) == 0, chance);
        }
        self.live_mut().resize(size, 0);
        self.live_mut().shrink_to(size * 2);
        self.durable_size = size;
        self.sizes.clear();
    }

    /// Order and value of the size that survives. Changes of size are metadata: a file system keeps their order.
    fn pick_size(&self, style: Style, chance: &mut Chance) -> (u64, usize) {
        let kept = match style {
            Style::All => self.sizes.len(),
            Style::None => 0,
            Style::Prefix(last) => self.sizes.partition_point(|size| size.0 <= last),
            Style::Sectors(_) | Style::Whole(_) | Style::Newest => chance.below(self.sizes.len() as u64 + 1) as usize,
        };
        kept.checked_sub(1).map_or((0, self.durable_size), |last| self.sizes[last])
    }

    /// Puts version `picked` of a sector in place: 0 is the oldest; a torn one goes over to version `base` midway.
    fn take_version(
        &mut self,
        versions: &[(usize, usize)],
        effects: &[Effect],
        picked: usize,
        base: usize,
        torn: bool,
        chance: &mut Chance,
    ) {
        let sector = self.sector;
        let start = versions[0].0 * sector;
        let range = start..start + sector;
        let version = |at: usize| {
            let effect = &effects[versions.get(at)?.1];
            Some(&effect.before[start - effect.offset..start - effect.offset + sector])
        };
        let live = &mut self.live_mut()[range];
        if let Some(bytes) = version(picked) {
            live.copy_from_slice(bytes);
        } // else it is the last one, which is the live one
        if torn {
            tear_sector(live, version(base), chance);
        }
    }

    /// Takes a range out of the effects: no version of it is left but the live one.
    fn forget_range(&mut self, start: usize, end: usize) {
        if !self.effects.iter().any(|effect| effect.offset < end && start < effect.offset + effect.before.len()) {
            return;
        }
        let mut left = Vec::with_capacity(self.effects.len() + 1);
        for mut effect in std::mem::take(&mut self.effects) {
            let effect_end = effect.offset + effect.before.len();
            if effect_end <= start || end <= effect.offset {
                left.push(effect);
                continue;
            }
            if end < effect_end {
                let before = effect.before.split_off(end - effect.offset);
                let tail = Effect { order: effect.order, offset: end, before, is_cut: effect.is_cut };
                effect.before.truncate(start.saturating_sub(effect.offset));
                push_unless_empty(&mut left, effect);
                left.push(tail);
            } else {
                effect.before.truncate(start.saturating_sub(effect.offset));
                push_unless_empty(&mut left, effect);
            }
        }
        self.effects = left;
    }

    /// Drops the sizes if none of them differs from the durable one.
    fn forget_equal_sizes(&mut self) {
        let has_cut = self.effects.iter().any(|effect| effect.is_cut);
        if !has_cut && self.sizes.iter().all(|size| size.1 == self.durable_size) {
            self.sizes.clear();
        }
    }
}

fn push_unless_empty(effects: &mut Vec<Effect>, effect: Effect) {
    if !effect.before.is_empty() {
        effects.push(effect);
    }
}

/// Every (sector, effect), by sector, oldest effect first.
fn touched_sectors(effects: &[Effect], sector: usize) -> Vec<(usize, usize)> {
    let mut touched = Vec::new();
    for (at, effect) in effects.iter().enumerate() {
        let first = effect.offset / sector;
        touched.extend((first..first + effect.before.len() / sector).map(|sector| (sector, at)));
    }
    touched.sort_unstable();
    touched
}

/// The version that survives if nothing does, and the one that survives: version `n` is what the first `n` effects
/// left. A cut that survives (`size_order`) takes the older versions with it; one that does not is no version.
fn pick_version(
    versions: &[(usize, usize)],
    effects: &[Effect],
    size_order: u64,
    mut keeps: impl FnMut(usize) -> bool,
) -> (usize, usize) {
    let survives = |&(_, at): &(usize, usize)| effects[at].is_cut && effects[at].order <= size_order;
    let base = versions.iter().rposition(survives).map_or(0, |at| at + 1);
    let kept = (base..versions.len()).rev().find(|&at| !effects[versions[at].1].is_cut && keeps(versions[at].1));
    (base, kept.map_or(base, |at| at + 1))
}

/// Tears a sector: its end keeps the older bytes, or zeros, or garbage.
fn tear_sector(sector: &mut [u8], older: Option<&[u8]>, chance: &mut Chance) {
    let from = 1 + chance.below(sector.len() as u64 - 1) as usize;
    match (chance.below(3), older) {
        (0, _) | (1, None) => sector[from..].fill(0),
        (1, Some(older)) => sector[from..].copy_from_slice(&older[from..]),
        _ => sector[from..].fill_with(|| chance.bits() as u8),
    }
}
