//! What is appended to a store on a file system that comes to harm: two channels, one with small events, one with such that go
//! straight to their segment, and whose payloads can be made again.

use std::path::Path;

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, Redex, RedexFile};

use crate::args::Backend;
use crate::load::{fill, mix, splitmix64};
use crate::store;

/// Channels: of small events, and of large ones.
pub(crate) const SMALL: usize = 0;
pub(crate) const LARGE: usize = 1;
pub(crate) const COUNT: usize = 2;

/// Payload bytes of a large event: more than what goes around the journal.
const LARGE_BYTES: usize = 300 << 10;

/// So small a journal that it rolls and is checkpointed while the disk is full.
const JOURNAL_BYTES: u64 = 4 << 20;

/// Opens the store, or makes it.
pub(crate) fn open(dir: &Path, backend: Option<Backend>) -> anyhow::Result<(Redex, [RedexFile; COUNT])> {
    let builder = Redex::builder().journal_segment_bytes(JOURNAL_BYTES).checkpoint_bytes(2 * JOURNAL_BYTES);
    let redex = store::open_with(builder, dir, backend)?;
    let open = |name| store::channel(&redex, name, FsyncPolicy::Never);
    let files = [open("disk/small")?, open("disk/large")?];
    Ok((redex, files))
}

/// The payload of an event.
pub(crate) fn payload(channel: usize, seq: u64) -> Vec<u8> {
    let mut state = mix(mix(channel as u64) ^ seq);
    let size = if channel == LARGE { LARGE_BYTES } else { (splitmix64(&mut state) % 2000) as usize };
    let mut bytes = vec![0; size];
    fill(&mut bytes, state);
    bytes
}

/// Reads everything and compares it; it has to reach `acknowledged` in each channel at the least.
pub(crate) fn check(files: &[RedexFile; COUNT], acknowledged: [u64; COUNT]) -> anyhow::Result<u64> {
    let mut compared = 0;
    for (channel, file) in files.iter().enumerate() {
        let mut seq = 0;
        let mut scan = file.read_from(0);
        while let Some(event) = scan.next_wait() {
            let event = event.with_context(|| format!("reading channel {channel}, event {seq}"))?;
            ensure!(event.seq == seq, "channel {channel}: event {} comes instead of {seq}", event.seq);
            ensure!(event.payload == payload(channel, seq), "channel {channel}, event {seq} is not what was appended");
            seq += 1;
        }
        let least = acknowledged[channel];
        ensure!(seq >= least, "channel {channel}: {least} were acknowledged, and {seq} are there");
        compared += seq;
    }
    Ok(compared)
}
