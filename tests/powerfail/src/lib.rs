//! Power cuts on real file systems.
//!
//! ```text
//! engine (io_uring, O_DIRECT) -> ext4 or XFS -> loop device, direct I/O -> FUSE -> a drive in memory that logs
//!                                                                                  every write and flush
//! ```
//!
//! A recording is the engine at work on such a drive, with what it acknowledged and where in the drive's log. Then the drive is
//! made as a power cut at any point would leave it, mounted, opened by the engine, and compared: `docs/powerfail.md`.
//!
//! `drive` is the drive; `server` its process; `rig` what stands on it; `workload`, `history` and `check` a recording, what it
//! promises, and whether that holds; `case`, `job` and `run` do it many times.

pub mod args;
pub mod case;
pub mod check;
pub mod drive;
pub mod history;
pub mod job;
pub mod replay;
pub mod requirements;
pub mod rig;
pub mod run;
pub mod server;
pub mod settings;
pub mod workload;
