//! A journal segment, handed to the scan of a recovery.
//!
//! - What is accepted is a run of commits without a gap, one behind the other from the first block on.
//! - Each of them, encoded again from its entries, has the same bytes.
//! - A changed bit of a commit's header or entries ends the journal before it, or is an error.
//! - Of a segment that is cut off a prefix is accepted, and nothing else.

use redex::format::journal::{
    COMMIT_HEADER_SIZE, CommitFields, CommitHeader, Entry, MetaWriter, SegmentContext, SegmentHeader, entries,
    finish_commit,
};
use redex::fuzzing::{JournalCommit, JournalPrefix, scan_segment};

use super::{Outcome, Target, ensure, flipped, place_in};
use crate::dice::Dice;
use crate::repair::{Repair, journal};
use crate::seeds;

const BLOCK: usize = 4096;

/// See the module's text.
pub const TARGET: Target = Target {
    name: "journal",
    about: "one journal segment",
    run,
    mutate,
    seeds: || seeds::of_ending(".wal"),
    // The simulated disk has a copy or two, the scan one, and the commits are copied out of it; several scans in turn.
    memory_max: |len| (1 << 20) + 24 * len as u64,
    input_max: 256 << 10,
    unit: 4096,
    weight: 3,
};

fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    crate::mutate::bytes(input, other, dice);
    match dice.within(0..4) {
        0 => {}
        1 => journal::repair(input, Repair::Structure),
        _ => journal::repair(input, Repair::Payloads),
    }
}

fn run(input: &[u8]) -> Result<Outcome, String> {
    let prefix = match scan_segment(input) {
        Ok(prefix) => prefix,
        Err(error) => return Ok(Outcome::of_error(&error)),
    };
    let header = input.get(..BLOCK).ok_or("a segment without a header was accepted")?;
    let header = SegmentHeader::verify(header).map_err(|error| format!("accepted under a header of which: {error}"))?;
    check_run(&header, &prefix)?;
    // A file that ends within a block is read as if zeros followed.
    let mut whole = input.to_vec();
    whole.resize(input.len().next_multiple_of(BLOCK), 0);
    let input = &whole[..];
    for commit in &prefix.commits {
        check_bytes(&header, commit, input)?;
    }
    check_flip(&prefix, input)?;
    check_cut(&prefix, input)?;
    let kinds = prefix.commits.iter().flat_map(|commit| entries(&commit.meta));
    let kinds: Vec<String> = kinds.map(|entry| format!("{entry:?}").split(['(', ' ']).take(2).collect()).collect();
    Ok(Outcome::of(&format!("{:?} {kinds:?} {}", prefix.commits.len().min(12), prefix.is_torn)))
}

fn check_run(header: &SegmentHeader, prefix: &JournalPrefix) -> Result<(), String> {
    let first = prefix.commits.first().map_or(prefix.next_lsn, |commit| commit.lsn);
    ensure(first >= header.first_lsn, || format!("commit {first} is below the first, {}", header.first_lsn))?;
    for (commit, lsn) in prefix.commits.iter().zip(first.0..) {
        ensure(commit.lsn.0 == lsn, || format!("commit {} where {lsn} belongs", commit.lsn))?;
    }
    let next = first.0 + prefix.commits.len() as u64;
    ensure(prefix.next_lsn.0 == next, || format!("{} is next, not {next}", prefix.next_lsn))
}

/// Encodes a commit again.
fn check_bytes(header: &SegmentHeader, commit: &JournalCommit, input: &[u8]) -> Result<(), String> {
    let (at, context) = (commit.offset as usize, header.context());
    let here = input.get(at..).unwrap_or(&[]);
    let found =
        CommitHeader::verify(here, &context, commit.offset).map_err(|error| format!("accepted, but {error}"))?;
    let fields = *found.fields();
    let mut meta = vec![0; commit.meta.len()];
    let written = write_entries(&commit.meta, &mut meta)?;
    ensure(written == fields.entry_count && meta == commit.meta, || {
        format!("the {} entries of commit {} encode otherwise", fields.entry_count, commit.lsn)
    })?;
    check_header(&context, fields, commit, here)
}

fn check_header(
    context: &SegmentContext,
    fields: CommitFields,
    commit: &JournalCommit,
    here: &[u8],
) -> Result<(), String> {
    let mut out = vec![0; COMMIT_HEADER_SIZE + commit.meta.len() + commit.payload.len() + BLOCK];
    out[COMMIT_HEADER_SIZE..][..commit.meta.len()].copy_from_slice(&commit.meta);
    out[COMMIT_HEADER_SIZE + commit.meta.len()..][..commit.payload.len()].copy_from_slice(&commit.payload);
    finish_commit(&mut out, context, &fields);
    let end = COMMIT_HEADER_SIZE + commit.meta.len() + commit.payload.len();
    ensure(here.get(..end) == Some(&out[..end]), || format!("commit {} encodes otherwise", commit.lsn))
}

fn write_entries(meta: &[u8], out: &mut [u8]) -> Result<u32, String> {
    let mut writer = MetaWriter::new(out);
    for entry in entries(meta) {
        let entry = entry.map_err(|error| format!("an accepted commit has an entry of which: {error}"))?;
        write_entry(&mut writer, &entry).map_err(|error| format!("an accepted entry does not encode: {error}"))?;
    }
    Ok(writer.entry_count())
}

fn write_entry(writer: &mut MetaWriter<'_>, entry: &Entry<'_>) -> Result<(), redex::format::journal::MetaFull> {
    match entry {
        Entry::Events(events) => {
            let place = writer.begin_events(&events.fields, events.records.len())?;
            for (place, record) in place.chunks_exact_mut(20).zip(events.records) {
                place.copy_from_slice(record.as_bytes());
            }
            Ok(())
        }
        Entry::ChannelCreated { channel, name, config } => writer.channel_created(*channel, name, config),
        Entry::ChannelConfigured { channel, config } => writer.channel_configured(*channel, config),
        Entry::ChannelDeleted { channel } => writer.channel_deleted(*channel),
        Entry::HeadTrimmed { channel, head } => writer.head_trimmed(*channel, *head),
        Entry::SuffixTruncated { channel, end } => writer.suffix_truncated(*channel, *end),
        Entry::Checkpoint(entry) => writer.checkpoint(entry.replay_lsn, entry.replay_segment, &entry.files),
        Entry::Roll { next } => writer.roll(*next),
    }
}

fn check_flip(prefix: &JournalPrefix, input: &[u8]) -> Result<(), String> {
    let Some(commit) = prefix.commits.get(place_in(input, 1, prefix.commits.len())) else { return Ok(()) };
    let at = commit.offset as usize + place_in(input, 2, COMMIT_HEADER_SIZE + commit.meta.len());
    let Ok(changed) = scan_segment(&flipped(input, at, place_in(input, 3, 8))) else { return Ok(()) };
    ensure(changed.next_lsn <= commit.lsn, || {
        format!("commit {} counts although its byte at {at} of the segment was changed", commit.lsn)
    })
}

fn check_cut(prefix: &JournalPrefix, input: &[u8]) -> Result<(), String> {
    let len = place_in(input, 4, input.len() / BLOCK + 1) * BLOCK;
    let Ok(cut) = scan_segment(&input[..len]) else { return Ok(()) };
    ensure(cut.next_lsn <= prefix.next_lsn, || {
        format!("{} commits of {len} bytes, {} of all", cut.next_lsn, prefix.next_lsn)
    })?;
    let of_both = cut.commits.iter().filter_map(|commit| {
        let whole = prefix.commits.iter().find(|whole| whole.lsn == commit.lsn)?;
        Some((commit, whole))
    });
    for (commit, whole) in of_both {
        ensure(commit == whole, || format!("commit {} is another one when the segment is cut off", commit.lsn))?;
    }
    Ok(())
}
