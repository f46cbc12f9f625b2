//! A checkpoint of so many channels that their files are flushed beside the shard.

mod support;

use redex::{Backend, Redex};

use support::{check, fill, persistent, scratch};

const CHANNELS: usize = 150;
/// Events of each channel: several blocks.
const EVENTS: u64 = 12;

fn open(dir: &std::path::Path, backend: Backend) -> Redex {
    Redex::builder().persistent_dir(dir).backend(backend).shards(1).build().unwrap()
}

/// Every file that got blocks is flushed by itself before the checkpoint counts, and everything is there again.
#[test]
fn every_file_of_a_checkpoint_is_flushed() {
    for backend in [Backend::Auto, Backend::Posix] {
        let dir = scratch();
        let redex = open(dir.path(), backend);
        let files: Vec<_> = (0..CHANNELS).map(|i| redex.open_file(format!("c{i}"), persistent()).unwrap()).collect();
        for (i, file) in files.iter().enumerate() {
            fill(file, 0..EVENTS + i as u64 % 3);
        }
        let before = redex.stats();
        assert_eq!((before.checkpoints, before.destaged_bytes), (0, 0), "the journal holds it all");
        redex.close().wait().unwrap();
        let stats = redex.stats();
        // The blocks of each dat, the checkpoint file, and its entry.
        assert!(stats.checkpoint_flushes - before.checkpoint_flushes >= CHANNELS as u64 + 2, "{stats:?}");
        assert!(stats.destaged_bytes >= CHANNELS as u64 * 4096, "{stats:?}");
        drop((files, redex));
        let redex = open(dir.path(), backend);
        for i in 0..CHANNELS {
            let file = redex.open_file(format!("c{i}"), persistent()).unwrap();
            check(&file, 0..EVENTS + i as u64 % 3);
        }
        redex.close().wait().unwrap();
    }
}
