//! The command line: what may be said, and what is refused with exit code 2.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::workload::Workload;

/// Arguments of the program.
#[derive(Debug, Parser)]
#[command(
    name = "redex-bench",
    version,
    about = "Measures RedEX on this machine, and checks that a crash loses nothing",
    long_about = "Measures RedEX on this machine beside the bare device and a plain file (`run`, the default), and \
                  checks that a killed process loses nothing it acknowledged (`crash`).",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Cli {
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Arguments of the default subcommand.
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure throughput and latency (the default); at most 60 s
    Run(RunArgs),
    /// Compare two runs, row by row: what is faster or slower, and what is noise
    Compare(CompareArgs),
    /// Durable appends with more and more in flight: where more of them brings nothing but latency
    Sweep(SweepArgs),
    /// Kill a writing process again and again; compare what was acknowledged with what is recovered
    Crash(CrashArgs),
    /// Mixed load for many minutes; judges that memory, descriptors and disk use are flat
    Soak(SoakArgs),
    /// Fill a small file system to the last byte under a store, kill and reopen it, free space; needs root
    FullDisk(DiskArgs),
    /// Let a file system turn read-only under a store; needs root
    ReadOnlyRemount(DiskArgs),
    /// The process that `crash` kills.
    #[command(hide = true)]
    CrashChild(CrashChildArgs),
    /// `full-disk` or `read-only-remount`, once in a mount namespace of its own.
    #[command(hide = true)]
    DiskChild(DiskChildArgs),
    /// The process that `full-disk` kills.
    #[command(hide = true)]
    DiskWriter(DiskWriterArgs),
    /// The process that fills a store for `reopen`, and is killed.
    #[command(hide = true)]
    FillChild(FillChildArgs),
    /// The process that follows a store for `second-process`.
    #[command(hide = true)]
    FollowChild(FollowChildArgs),
    /// A process that makes or opens channels for `million`.
    #[command(hide = true)]
    MillionChild(MillionChildArgs),
}

/// Where data is made, and how the engine gets it to the disk.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Where the data is made; a fresh directory within it is used, removed unless something was lost [default: the current directory]
    #[arg(long, value_name = "DIR", value_parser = existing_dir)]
    pub(crate) dir: Option<PathBuf>,
    /// The engine's way to the kernel [default: the engine's own choice]
    #[arg(long, value_enum)]
    pub(crate) backend: Option<Backend>,
}

/// The same for a process of ours: the directory is there.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChildPlace {
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[arg(long, value_enum)]
    pub(crate) backend: Option<Backend>,
}

impl ChildPlace {
    /// This directory, by this way.
    pub(crate) fn new(dir: &Path, backend: Option<Backend>) -> Self {
        Self { dir: dir.to_owned(), backend }
    }

    /// Says it to the process.
    pub(crate) fn add_to(&self, command: &mut process::Command) {
        command.arg("--dir").arg(&self.dir);
        if let Some(backend) = &self.backend {
            command.args(["--backend", &word(backend)]);
        }
    }
}

/// A value as it is written on a command line.
pub(crate) fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is hidden").get_name().to_owned()
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Workloads to run, separated by commas; all if not given
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Workload>,
    /// Measured seconds of each row, shared with what it is compared to
    #[arg(long, value_name = "S", value_parser = seconds, conflicts_with = "quick")]
    pub(crate) seconds: Option<f64>,
    /// Each row in under 2 s; smaller logs, one payload size for `durable`
    #[arg(long)]
    pub(crate) quick: bool,
    /// Adds an open loop of R events a second to `durable`, and paces `tail` by it
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Writes one JSON object a row to this file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where results.jsonl, the HDR logs and report.html go
    #[arg(long, value_name = "DIR", default_value = "bench-out")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Every workload's data comes from this number
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Arguments of `compare`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// results.jsonl of the first run, or the directory that has it
    #[arg(value_name = "A")]
    pub(crate) before: PathBuf,
    /// The same of the second run; ratios are B/A
    #[arg(value_name = "B")]
    pub(crate) after: PathBuf,
    /// Ends with code 3 if a row is slower beyond its interval and by more than PERCENT
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) fail_on_slower: Option<f64>,
    /// Shows the results of different machines too, without verdicts
    #[arg(long)]
    pub(crate) force: bool,
}

/// Arguments of `sweep`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SweepArgs {
    /// Size of an event, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) payload: u32,
    /// In flight at the most: 1, 2, 4 and so on up to here
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) max_in_flight: u32,
    /// Measured seconds at each number in flight
    #[arg(long, value_name = "S", default_value_t = 1.5, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Where sweep.json, sweep.html and the charts go; a later `run` with the same directory shows it in its report
    #[arg(long, value_name = "DIR", default_value = "bench-out")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Payloads come from this number
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Arguments of `crash`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CrashArgs {
    /// How often to kill
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// never, every=N, interval=MS, interval-or-bytes=MS,BYTES or durable
    #[arg(long, value_name = "P", default_value = "durable")]
    pub(crate) policy: Policy,
    /// Payloads and the moments of the kills come from this number
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Arguments of `soak`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SoakArgs {
    /// How long; 3 at the least for a judgement
    #[arg(long, value_name = "M", default_value_t = 30.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// Events appended a second
    #[arg(long, value_name = "R", default_value_t = 20_000.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Payloads and reads come from this number
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Arguments of `full-disk` and `read-only-remount`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DiskArgs {
    /// The file system that is made
    #[arg(long, value_enum, default_value_t = FileSystem::Ext4)]
    pub(crate) fs: FileSystem,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// A file system on a loop device, named as mkfs and mount name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileSystem {
    /// ext4
    Ext4,
    /// XFS
    Xfs,
}

/// What happens to the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiskFault {
    /// It is filled.
    Full,
    /// It turns read-only.
    ReadOnly,
}

/// Arguments of the process in a mount namespace of its own.
#[derive(Args, Clone, Debug)]
pub(crate) struct DiskChildArgs {
    #[arg(long, value_enum)]
    pub(crate) fault: DiskFault,
    #[arg(long)]
    pub(crate) image: PathBuf,
    #[arg(long, value_enum)]
    pub(crate) fs: FileSystem,
    #[command(flatten)]
    pub(crate) place: ChildPlace,
}

/// Arguments of the process that `full-disk` kills.
#[derive(Args, Clone, Debug)]
pub(crate) struct DiskWriterArgs {
    #[command(flatten)]
    pub(crate) place: ChildPlace,
}

/// Arguments of the process that `crash` kills.
#[derive(Args, Clone, Debug)]
pub(crate) struct CrashChildArgs {
    /// Number of the store, which decides its sizes.
    #[arg(long)]
    pub(crate) store: u32,
    #[arg(long)]
    pub(crate) policy: Policy,
    #[arg(long)]
    pub(crate) seed: u64,
    #[arg(long)]
    pub(crate) round: u32,
    #[command(flatten)]
    pub(crate) place: ChildPlace,
}

/// Arguments of the process that follows a store.
#[derive(Args, Clone, Debug)]
pub(crate) struct FollowChildArgs {
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Tell when each event was seen.
    #[arg(long)]
    pub(crate) tells: bool,
}

/// Arguments of the process that fills a store and is killed.
#[derive(Args, Clone, Debug)]
pub(crate) struct FillChildArgs {
    #[arg(long)]
    pub(crate) seed: u64,
    /// Events to append and sync before the process says that it is ready.
    #[arg(long)]
    pub(crate) events: u64,
    #[command(flatten)]
    pub(crate) place: ChildPlace,
}

/// Arguments of a process that works for `million`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MillionChildArgs {
    #[arg(long)]
    pub(crate) seed: u64,
    /// First channel to make or to open.
    #[arg(long)]
    pub(crate) first: u64,
    /// How many.
    #[arg(long)]
    pub(crate) count: u64,
    /// Channels are made, and get an event each; otherwise they are opened, and what that takes is printed.
    #[arg(long)]
    pub(crate) make: bool,
    /// For `memory`: channels without an event are made, or opened and looked at.
    #[arg(long)]
    pub(crate) idle: bool,
    #[command(flatten)]
    pub(crate) place: ChildPlace,
}

/// The engine's way to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// io_uring
    Uring,
    /// plain system calls
    Posix,
}

/// When an append of the crash test counts as acknowledged, and what a kill may take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// `append` under `FsyncPolicy::Never`; a kill may take the last 10 ms.
    Never,
    /// `append` under `FsyncPolicy::EveryN`; a kill may take n - 1 events of each channel.
    Every(u64),
    /// `append` under `FsyncPolicy::Interval`; a kill may take the last period.
    Interval(Duration),
    /// `append` under `FsyncPolicy::IntervalOrBytes`; a kill may take the last period, or as many bytes of each channel.
    IntervalOrBytes { period: Duration, max_bytes: u64 },
    /// `append_durable`; nothing may be lost.
    Durable,
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| match digits.parse::<u64>() {
            Ok(n) if n >= 1 => Ok(n),
            _ => Err(format!("`{digits}` is not a number of at least 1")),
        };
        match text.split_once('=') {
            None if text == "never" => Ok(Self::Never),
            None if text == "durable" => Ok(Self::Durable),
            Some(("every", n)) => Ok(Self::Every(number(n)?)),
            Some(("interval-or-bytes", both)) => {
                let (ms, bytes) = both.split_once(',').ok_or("expected interval-or-bytes=MS,BYTES")?;
                let period = Duration::from_millis(number(ms)?);
                Ok(Self::IntervalOrBytes { period, max_bytes: number(bytes)? })
            }
            Some(("interval", ms)) => Ok(Self::Interval(Duration::from_millis(number(ms)?))),
            _ => Err("expected never, every=N, interval=MS, interval-or-bytes=MS,BYTES or durable".to_owned()),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::Every(n) => write!(f, "every={n}"),
            Self::Interval(period) => write!(f, "interval={}", period.as_millis()),
            Self::IntervalOrBytes { period, max_bytes } => {
                write!(f, "interval-or-bytes={},{max_bytes}", period.as_millis())
            }
            Self::Durable => f.write_str("durable"),
        }
    }
}

/// An argument that only turned out to be wrong when it was used; exit code 2.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

fn minutes(text: &str) -> Result<f64, String> {
    in_range(text, 0.05, 10_000.0)
}

fn seconds(text: &str) -> Result<f64, String> {
    in_range(text, 0.01, 3600.0)
}

fn percent(text: &str) -> Result<f64, String> {
    in_range(text, 0.0, 100.0)
}

fn rate(text: &str) -> Result<f64, String> {
    in_range(text, 1.0, 1e9)
}

fn in_range(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= least && value <= most => Ok(value),
        _ => Err(format!("expected a number from {least} to {most}")),
    }
}

fn existing_dir(text: &str) -> Result<PathBuf, String> {
    match std::fs::metadata(text) {
        Ok(metadata) if metadata.is_dir() => Ok(PathBuf::from(text)),
        Ok(_) => Err("not a directory".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// The definition of the command line holds together; clap checks it.
    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_and_takes_its_arguments_without_being_named() {
        let cli = Cli::try_parse_from(["redex-bench", "--quick", "--only", "durable,tail"]).unwrap();
        assert!(cli.command.is_none());
        assert!(cli.run.quick);
        assert_eq!(cli.run.only, [Workload::Durable, Workload::Tail]);
    }

    /// Every set of options that `.ci/run` gives, but for its directories.
    #[test]
    fn what_ci_says_is_understood() {
        for said in [
            "crash --rounds 40 --policy durable --seed 1 --dir . --backend posix",
            "crash --rounds 40 --policy every=100 --seed 1 --dir .",
            "crash --rounds 40 --policy interval=20 --seed 1 --dir .",
            "crash --rounds 40 --policy interval-or-bytes=20,65536 --seed 1 --dir .",
            "crash --rounds 40 --policy never --seed 1 --dir .",
            "full-disk --fs ext4 --dir .",
            "full-disk --fs xfs --dir .",
            "read-only-remount --fs ext4 --dir .",
            "read-only-remount --fs xfs --dir .",
            "run --quick --dir . --out bench-out",
        ] {
            let words = std::iter::once("redex-bench").chain(said.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{said}: {error}"));
        }
    }

    /// What a process of ours is told is what it understands.
    #[test]
    fn a_child_is_told_its_place() {
        for backend in [None, Some(Backend::Uring), Some(Backend::Posix)] {
            let mut command = process::Command::new("redex-bench");
            command.arg("disk-writer");
            ChildPlace::new(Path::new("/some/place"), backend).add_to(&mut command);
            let words = std::iter::once(command.get_program()).chain(command.get_args());
            let Some(Command::DiskWriter(args)) = Cli::try_parse_from(words).unwrap().command else { panic!() };
            assert_eq!((args.place.dir.as_path(), args.place.backend), (Path::new("/some/place"), backend));
        }
    }

    /// Tries one wrong value for each argument; each is a usage error, which clap ends with exit code 2.
    #[test]
    fn wrong_values_are_refused_with_exit_code_2() {
        for wrong in [
            &["--only", "nothing"][..],
            &["--seconds", "0"],
            &["--seconds", "NaN"],
            &["--seconds", "1", "--quick"],
            &["--rate", "-1"],
            &["--dir", "/nonexistent/place"],
            &["--dir", "/proc/self/stat"],
            &["--backend", "magic"],
            &["--seed", "x"],
            &["crash", "--rounds", "0"],
            &["soak", "--minutes", "0"],
            &["full-disk", "--fs", "vfat"],
            &["crash", "--policy", "every=0"],
            &["crash", "--policy", "sometimes"],
            &["crash", "--policy", "interval-or-bytes=25"],
            &["crash", "--policy", "interval-or-bytes=25,0"],
        ] {
            let args = std::iter::once("redex-bench").chain(wrong.iter().copied());
            let error = Cli::try_parse_from(args).expect_err(&format!("{wrong:?} is wrong"));
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn a_policy_reads_back_as_it_is_written() {
        for text in ["never", "every=100", "interval=25", "interval-or-bytes=25,4096", "durable"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
    }
}
