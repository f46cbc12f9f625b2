//! A store that is gone gives its memory back, whatever it was doing, and whatever it had yet to be told.

use redex_fuzz::history::{self, Mode};

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Channels that a shard was never told of know their shard, and it has the message that tells of them.
#[test]
fn a_store_that_is_dropped_leaves_nothing_behind() {
    let run = |seeds: std::ops::Range<u64>| {
        for seed in seeds {
            history::run(seed, Mode::Honest).unwrap_or_else(|failure| panic!("{failure}"));
        }
    };
    run(7000..7010);
    let before = resident_bytes();
    run(7010..7040);
    let grown = resident_bytes().saturating_sub(before) >> 20;
    // Some 3000 stores were opened; half a megabyte was lost with each.
    assert!(grown < 64, "{grown} MiB more than before");
}
