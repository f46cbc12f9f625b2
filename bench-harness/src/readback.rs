//! Reopens a store after a row and compares a sample of what was acknowledged with what is there.

use std::path::Path;

use anyhow::{Context, ensure};
use redex::{FsyncPolicy, RedexFile};

use crate::args::Backend;
use crate::load::splitmix64;
use crate::store;

/// Events read back beside the first and the last.
pub(crate) const SAMPLE_COUNT: u64 = 1000;

/// Reopens the store in `dir` and compares the first, the last and [`SAMPLE_COUNT`] random ones of the first
/// `acknowledged` events of channel `name`.
pub(crate) fn sample<'a>(
    dir: &Path,
    backend: Option<Backend>,
    name: &str,
    acknowledged: u64,
    seed: u64,
    expected: impl Fn(u64) -> &'a [u8],
) -> anyhow::Result<()> {
    let redex = store::open(dir, backend).context("reopening to read back")?;
    let file = store::channel(&redex, name, FsyncPolicy::Never)?;
    holds(&file, acknowledged)?;
    let mut state = seed;
    let random = (0..SAMPLE_COUNT).map(|_| splitmix64(&mut state) % acknowledged.max(1));
    let ends = [0, acknowledged.saturating_sub(1)];
    for seq in ends.into_iter().chain(random).filter(|seq| *seq < acknowledged) {
        compare(&file, seq, expected(seq))?;
    }
    store::close(redex)
}

/// Fails if the channel has fewer than `acknowledged` events.
pub(crate) fn holds(file: &RedexFile, acknowledged: u64) -> anyhow::Result<()> {
    let next = file.next_seq();
    ensure!(next >= acknowledged, "{acknowledged} events were acknowledged, {next} are there after reopening");
    Ok(())
}

/// Fails if event `seq` is missing or not `expected`.
pub(crate) fn compare(file: &RedexFile, seq: u64, expected: &[u8]) -> anyhow::Result<()> {
    let event = file.read_one(seq).wait().with_context(|| format!("reading event {seq} back"))?;
    let event = event.with_context(|| format!("event {seq} was acknowledged and is missing"))?;
    ensure!(event.seq == seq && event.payload[..] == *expected, "event {seq} reads back wrong");
    Ok(())
}
