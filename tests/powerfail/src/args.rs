//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::rig::Kind;
use crate::rig::file_system::FileSystem;
use crate::workload::Break;

/// Cuts the power under RedEX on real file systems, and looks for a loss.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Records the engine at work, then cuts the power at many points of each recording. Needs root, /dev/fuse and loop
    /// devices; where they are missing it says so and ends well, unless REDEX_CI_NO_SKIP=1.
    Run(RunArgs),
    /// Cuts the power once more in a recording that a failed run has saved: exactly the same point.
    Replay(ReplayArgs),
    /// One job of a run: started by `run`, ends with its standard input.
    #[command(hide = true)]
    Job(JobArgs),
    /// The drive's process: started by a job, ends with its standard input.
    #[command(hide = true)]
    Serve {
        /// Where the file is to appear.
        mount_point: PathBuf,
        /// Its size, bytes.
        size: u64,
    },
}

/// Settings of `run`. It ends at the first limit that is reached; without one, after 1000 points.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Points to check. If the time is over before, that is a failure.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub points: Option<u64>,
    /// Minutes to run.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub minutes: Option<u64>,
    /// Jobs at a time, each with its own drives.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16))]
    pub jobs: u64,
    /// What the jobs do.
    #[command(flatten)]
    pub work: Work,
}

/// What the jobs do.
#[derive(Args, Clone, Debug)]
pub struct Work {
    /// Seed of the first case; the next ones count up.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// File system: ext4, xfs, both.
    #[arg(long, value_enum, default_value_t = FsArg::Both)]
    pub fs: FsArg,
    /// Bytes of a sector: 512, 4096, both.
    #[arg(long, value_enum, default_value_t = SectorArg::Both)]
    pub sector: SectorArg,
    /// Only this point of the case with the given seed. The case is recorded anew and comes out slightly differently each time,
    /// since a real kernel has a part in it; `replay` repeats a point exactly.
    #[arg(long)]
    pub point: Option<u64>,
    /// Where the recording of a failed point is saved; a new directory beside the system's temporary files unless set.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Make a mistake in the harness, to see that it is noticed.
    #[arg(long = "break", value_enum)]
    pub broken: Option<Break>,
}

/// Settings of a job.
#[derive(Args, Clone, Debug)]
pub struct JobArgs {
    /// Cases from one of this job's to the next.
    #[arg(long, default_value_t = 1)]
    pub stride: u64,
    /// What it does.
    #[command(flatten)]
    pub work: Work,
}

/// Settings of `replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// The file that the failed run named.
    pub recording: PathBuf,
    /// How often the point is made: what fails by a race does not fail each time.
    #[arg(long, default_value_t = 1, conflicts_with = "shell")]
    pub times: u64,
    /// Leave what the power cut left mounted at /mnt in a namespace of its own, and start this program in it.
    #[arg(long)]
    pub shell: Option<PathBuf>,
}

/// Which file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FsArg {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// Both.
    Both,
}

/// Which sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SectorArg {
    /// 512 bytes.
    #[value(name = "512")]
    Small,
    /// 4096 bytes.
    #[value(name = "4096")]
    Large,
    /// Both.
    Both,
}

impl Work {
    /// The same for this kind of drive only.
    #[must_use]
    pub fn only_on(&self, kind: Kind) -> Self {
        let fs = if kind.file_system == FileSystem::Ext4 { FsArg::Ext4 } else { FsArg::Xfs };
        let sector = if kind.sector_size == 512 { SectorArg::Small } else { SectorArg::Large };
        Self { fs, sector, ..self.clone() }
    }

    /// The kinds of drives, in the order in which cases take them.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        let file_systems = match self.fs {
            FsArg::Ext4 => vec![FileSystem::Ext4],
            FsArg::Xfs => vec![FileSystem::Xfs],
            FsArg::Both => vec![FileSystem::Ext4, FileSystem::Xfs],
        };
        let sector_sizes = match self.sector {
            SectorArg::Small => vec![512],
            SectorArg::Large => vec![4096],
            SectorArg::Both => vec![512, 4096],
        };
        let kinds = sector_sizes.iter().flat_map(|sector_size| {
            file_systems.iter().map(|file_system| Kind { file_system: *file_system, sector_size: *sector_size })
        });
        kinds.collect()
    }

    /// The same as a command line: of a job, or to see a point again.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let mut words = vec!["--seed".to_owned(), self.seed.to_string()];
        let mut push = |flag: &str, value: Option<String>| {
            words.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        };
        push("--fs", name(self.fs.to_possible_value()));
        push("--sector", name(self.sector.to_possible_value()));
        push("--point", self.point.map(|point| point.to_string()));
        push("--out", self.out.as_ref().map(|out| out.display().to_string()));
        push("--break", name(self.broken.and_then(|broken| broken.to_possible_value())));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line that a failure prints runs the same point: it is parsed as a command line is.
    #[test]
    fn settings_come_back_from_their_words() {
        let work = Work {
            seed: 4711,
            fs: FsArg::Xfs,
            sector: SectorArg::Small,
            point: Some(17),
            out: Some("/x/y".into()),
            broken: Some(Break::LyingDrive),
        };
        let line = ["redex-powerfail", "run"].into_iter().map(str::to_owned).chain(work.to_words());
        let Command::Run(args) = Cli::try_parse_from(line).unwrap().command else { panic!("another command") };
        assert_eq!(args.work.to_words(), work.to_words());
        assert_eq!(args.work.kinds(), [Kind { file_system: FileSystem::Xfs, sector_size: 512 }]);
    }
}
