//! The whole engine under random schedules: producers, readers and those who change or end a channel, each a thread of shuttle,
//! while one takes the shard's turns by hand on a simulated disk. Built with `--cfg redex_shuttle` and the feature `sim`; see
//! `docs/concurrency.md`.
//!
//! Shuttle runs one thread at a time and may switch at every atomic and lock of the path of an event. It finds lost wake-ups (a
//! thread that waits for ever), and the tests look at what came of each call: acknowledged and readable, or refused; dense
//! sequences; each event once. Memory orderings are loom's to check: here every access is sequentially consistent.
//!
//! Seeds are fixed, so that a run can be repeated; a failure prints its schedule as well. `REDEX_SHUTTLE_SCHEDULES` sets how many
//! schedules each test tries with each scheduler.
#![cfg(all(redex_shuttle, feature = "sim"))]

mod closing;
mod cutting;
mod following;
mod poisoning;
mod trimming;
mod world;
