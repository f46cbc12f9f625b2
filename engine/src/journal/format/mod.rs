//! Bytes of the journal, version 1: segment [`header`], [`commit`]s and their [`entry`]s.
//!
//! A segment is a header block and then commits, each at a block boundary, each with a header, its entries ("meta")
//! and the payload bytes of its events. Pure functions over bytes: nothing here opens a file or knows idx files.

pub mod commit;
pub mod entry;
pub mod header;

pub use commit::{
    COMMIT_HEADER_SIZE, COMMIT_SIZE_MAX, CommitError, CommitFields, CommitHeader, SegmentContext, commit_size,
    finish_commit,
};
pub use entry::{
    CheckpointEntry, Entries, Entry, EntryError, EventsEntry, EventsFields, MetaFull, MetaWriter, NOTE_ENTRY_SIZE_MAX,
    PayloadError, commit_size_checkpoint, entries, entry_size_events,
};
pub use header::{HeaderError, JOURNAL_VERSION, SegmentHeader};

/// Unit of the journal, bytes: the header is one block, and commits begin and end at multiples of it.
pub const BLOCK_SIZE: usize = 4096;
