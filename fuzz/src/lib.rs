//! The whole engine on a simulated disk, from one seed, beside a plain model of what it must hold.
//!
//! A *history* is what one seed decides: several *lives* of a store on one disk, each ended by a power cut at a random
//! step, by the death of the process, or by a clean close. After each the store is opened again and compared with the
//! [`model`] by the rules of [`check`]. A failing history is run again by its seed alone.

pub mod args;
pub mod branch;
pub mod changes;
pub mod check;
pub mod cold;
pub mod damage;
pub mod dice;
pub mod failure;
pub mod faults;
pub mod files;
pub mod follow;
pub mod groups;
pub mod history;
pub mod life;
pub mod model;
pub mod report;
pub mod runner;
pub mod script;
pub mod settings;
pub mod shrink;
pub mod survivors;
pub mod workload;
