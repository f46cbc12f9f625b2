//! `redex-bench`; see the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    redex_bench::main()
}
