//! One file for each engine: how it is opened, and how its calls are made.

mod fjall;
mod net_mesh;
mod nodedb_wal;
mod okaywal;
mod raft_engine;
mod redb;
mod redex;
mod std_dsync;
mod std_file;
mod tokio_uring;

use crate::engine::Engine;

/// All of them: ours first, then the reference log, peers, and the baselines.
pub(crate) const ALL: &[&dyn Engine] = &[
    &redex::RedexLog,
    &net_mesh::NetMesh,
    &nodedb_wal::NodedbWal,
    &raft_engine::RaftLog,
    &okaywal::Okaywal,
    &fjall::Fjall,
    &redb::Redb,
    &tokio_uring::TokioUring,
    &std_file::StdFile,
    &std_dsync::StdDsync,
];

/// The name of ours.
pub(crate) const OURS: &str = "redex";

/// The name of the log that ours has the calls of.
pub(crate) const REFERENCE: &str = "net-mesh";

/// Version of a crate, as `Cargo.lock` has it.
pub(crate) fn version(package: &str) -> &'static str {
    const LOCK: &str = include_str!("../../Cargo.lock");
    let mut lines = LOCK.lines();
    let named = |line: &str| line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"')) == Some(package);
    while let Some(line) = lines.next() {
        if named(line) {
            let version = lines.next().and_then(|line| line.strip_prefix("version = \""));
            return version.and_then(|rest| rest.strip_suffix('"')).unwrap_or("unknown");
        }
    }
    "unknown"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{By, Opening, Reader};
    use redex_bench::load::Payloads;
    use std::sync::Arc;

    const COUNT: u64 = 1000;

    /// Commits in batches of several sizes, appends, syncs, closes, opens again and reads everything back; then once more.
    fn appends_and_reads_back(name: &str) {
        let engine = ALL.iter().find(|engine| engine.name() == name).expect("the engine is listed");
        let scratch = tempfile::tempdir().unwrap();
        let opening = Opening::new(&scratch.path().join("log"), 1 << 20);
        let payloads = Arc::new(Payloads::new(7, 100));
        let mut next = 0;
        for round in 1..=2 {
            let mut log = engine.open(&opening).unwrap();
            for batch in [1_u64, 16, 283] {
                let events: Vec<&[u8]> = (next..next + batch).map(|number| payloads.get(number)).collect();
                log.commit(&events).unwrap();
                next += batch;
            }
            if engine.offers().nondurable {
                let events: Vec<&[u8]> = (next..next + 199).map(|number| payloads.get(number)).collect();
                log.append_batch(&events).unwrap();
                log.append(payloads.get(next + 199)).unwrap();
                next += 200;
                log.sync().unwrap();
            }
            let rest: Vec<&[u8]> = (next..round * COUNT).map(|number| payloads.get(number)).collect();
            log.commit(&rest).unwrap();
            next = round * COUNT;
            log.close().unwrap();
            let reopened = engine.reopen(&opening, Reader::in_order(payloads.clone())).unwrap();
            reopened.reader.check(round * COUNT).unwrap();
        }
    }

    /// What threads append is there after reopening.
    fn threads_append_and_read_back(name: &str) {
        let engine = ALL.iter().find(|engine| engine.name() == name).expect("the engine is listed");
        let scratch = tempfile::tempdir().unwrap();
        let mut opening = Opening::new(&scratch.path().join("log"), 1 << 20);
        opening.by = By::Threads;
        let payloads = Arc::new(Payloads::new(7, 100));
        let log = engine.open(&opening).unwrap();
        let shared = log.shared().expect("an engine that offers threads is shared");
        std::thread::scope(|scope| {
            for first in 0..4 {
                let payloads = &payloads;
                scope.spawn(move || (0..25).for_each(|i| shared.commit_one(payloads.get(first * 25 + i)).unwrap()));
            }
        });
        log.close().unwrap();
        let reopened = engine.reopen(&opening, Reader::in_any_order(payloads)).unwrap();
        reopened.reader.check(100).unwrap();
    }

    macro_rules! engines {
        ($($test:ident: $name:literal),* $(,)?) => {
            mod reads_back {
                $(#[test] fn $test() { super::appends_and_reads_back($name); })*
            }
            mod threads {
                $(#[test] fn $test() {
                    let offers = super::ALL.iter().find(|engine| engine.name() == $name).unwrap().offers();
                    if offers.threads { super::threads_append_and_read_back($name); }
                })*
            }
            #[test]
            fn every_engine_is_tested() {
                assert_eq!([$($name),*].len(), ALL.len());
            }
        };
    }

    engines!(
        redex: "redex",
        net_mesh: "net-mesh",
        nodedb_wal: "nodedb-wal",
        raft_engine: "raft-engine",
        okaywal: "okaywal",
        fjall: "fjall",
        redb: "redb",
        tokio_uring: "tokio-uring",
        std_file: "std",
        std_dsync: "std-dsync",
    );

    #[test]
    fn versions_come_from_the_lock_file() {
        for package in ALL.iter().filter_map(|engine| engine.package()) {
            assert_ne!(version(package), "unknown", "{package}");
        }
    }
}
