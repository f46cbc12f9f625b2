//! Title and text of a workload on the page, for those that run only when asked for.

use super::Workload;

impl Workload {
    /// Title and text, in HTML.
    pub(crate) fn about(self) -> (&'static str, &'static str) {
        match self {
            Self::Readers => (
                "One writer, many readers",
                "One thread appends as fast as it can, 0 to 64 others follow the channel and take every event. <b>slowest</b> is the reader that \
                 was last; its latency is that of 1000 events.",
            ),
            Self::Producers => (
                "Many threads that append",
                "1 to 64 threads, all to one channel or each to its own: <b>never</b> without waiting for the disk, <b>durable</b> with 16 \
                 events in flight in each thread.",
            ),
            Self::Payloads => (
                "Small and large events",
                "Events of 8 B to 4 MiB: <b>durable</b> with about 1 MiB in flight, <b>never</b> without waiting for the disk. The note says how \
                 many bytes a second that is, and what the raw device did.",
            ),
            Self::Mixed => (
                "Writing and reading at once",
                "One thread appends durable events at full speed or at half of it, another reads old ones: single events (<b>points</b>) or \
                 1000 in a row (<b>ranges</b>). The note compares each with the same load alone.",
            ),
            Self::Openloop => (
                "Events that come at their own times",
                "The most durable events a second that one thread gets through, then loads of 50, 80 and 95 % of that, whose events are due \
                 at fixed times. Latency is from when an event was due to its acknowledgement.",
            ),
            Self::Shards => (
                "More shards",
                "One channel and one thread for each shard, 256 durable events in flight in each; <b>one-shard</b> has as many channels and \
                 threads on a single shard.",
            ),
            Self::Backends => (
                "io_uring or plain system calls",
                "The same durable appends through io_uring and through plain system calls, in turns.",
            ),
            Self::Pauses => (
                "While the store tidies up",
                "The same appends in a store whose journal rolls, checkpoints run, segments seal and old ones go all the time (<b>small</b>), and \
                 in one where none of it happens (<b>large</b>). The note counts what happened.",
            ),
            Self::Memory => (
                "Memory",
                "What an idle channel takes, opened or not; and the memory of a process that appends without end, in three parts of the \
                 time.",
            ),
            Self::Spread => (
                "One channel or ten thousand",
                "4096 durable appends in flight from one thread, round robin over 1 to 10,000 channels.",
            ),
            other => (other.name(), ""),
        }
    }
}
