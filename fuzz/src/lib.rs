//! Looks for a loss: the whole engine on a simulated disk, from one seed, beside a plain model of what it must hold; and fuzz
//! targets for everything that it reads.
//!
//! A *history* is what one seed decides: several *lives* of a store on one disk, each ended by a power cut at a random
//! step, by the death of the process, or by a clean close. After each the store is opened again and compared with the
//! [`model`] by the rules of [`check`]. A failing history is run again by its seed alone.
//!
//! A *target* of [`targets`] is a function over bytes. [`hunt`] changes the inputs of the [`corpus`] and runs targets on them; a
//! failing input is a file that runs again ([`finding`]).

pub mod args;
pub mod branch;
pub mod cargo_fuzz;
pub mod changes;
pub mod check;
pub mod cold;
pub mod corpus;
pub mod damage;
pub mod dice;
pub mod drive;
pub mod failure;
pub mod faults;
pub mod files;
pub mod finding;
pub mod follow;
pub mod fuzz_args;
pub mod groups;
pub mod history;
pub mod hunt;
pub mod life;
pub mod meter;
pub mod model;
pub mod mutate;
pub mod repair;
pub mod report;
pub mod runner;
pub mod script;
pub mod seeds;
pub mod settings;
pub mod shrink;
pub mod survivors;
pub mod targets;
pub mod tree;
pub mod workload;
