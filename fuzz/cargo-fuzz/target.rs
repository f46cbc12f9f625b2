//! One target of `redex-fuzz` under libFuzzer: the one that this binary is called after.
//!
//! What the target promises is in `fuzz/src/targets/`; nothing is checked here that is not checked there.

#![no_main]

use libfuzzer_sys::fuzz_target;
use redex_fuzz::targets::by_name;

fuzz_target!(|input: &[u8]| {
    let target = by_name(env!("CARGO_BIN_NAME")).expect("the binaries are called after targets");
    if let Err(what) = target.check(input) {
        panic!("{}: {what}", target.name);
    }
});
