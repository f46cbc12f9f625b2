//! Segments of a channel: an idx file of fixed-size records and a dat file of packed payloads.
//!
//! The bytes on disk are [`record`] (20 bytes that describe an event), [`block`] (204 of them in 4096 bytes that
//! prove themselves and their place) [`time_block`] (when many of them begin) and [`footer`] (the last block of a sealed idx file). Nothing in these three
//! opens a file or knows the journal.

pub mod block;
pub mod check;
pub mod chunk;
pub mod footer;
pub mod path;
pub mod read;
pub mod record;
pub mod seek;
pub mod time_block;
pub mod warm;
