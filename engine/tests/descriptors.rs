//! Far more channels than the process may have descriptors: an idle channel costs none, a busy one only while it is written.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use redex::{Redex, RedexFile, RedexFileConfig};

const DESCRIPTORS: u64 = 128;
const CHANNELS: u64 = 300;
/// Enough for every channel to have blocks of both files on disk.
const EVENTS: u64 = 300;

fn open(redex: &Redex) -> Vec<RedexFile> {
    let config = RedexFileConfig::default().with_persistent(true);
    (0..CHANNELS).map(|i| redex.open_file(format!("c/{i}"), config.clone()).unwrap()).collect()
}

fn payload(channel: u64, seq: u64) -> Vec<u8> {
    let mut payload = vec![seq as u8; 100];
    payload[..8].copy_from_slice(&(channel << 32 | seq).to_le_bytes());
    payload
}

fn check(files: &[RedexFile], events: u64) {
    for (channel, file) in files.iter().enumerate() {
        let read = file.read_range(0, u64::MAX).wait().unwrap();
        assert_eq!(read.len() as u64, events);
        assert!(read.iter().enumerate().all(|(seq, event)| event.payload == payload(channel as u64, seq as u64)));
    }
}

/// The only test of this file, since it changes a limit of the process.
#[test]
fn channels_beyond_the_limit_of_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, hard).unwrap();
    let dir = tempfile::tempdir_in(".").unwrap();
    // Small journal and pages: everything is destaged, by checkpoints too.
    let store = || {
        let builder = Redex::builder().persistent_dir(dir.path()).shards(1).page_budget_bytes(4 << 20);
        builder.journal_segment_bytes(1 << 20).checkpoint_bytes(2 << 20).build().unwrap()
    };
    let redex = store();
    let files = open(&redex);
    for seq in 0..EVENTS {
        for (channel, file) in files.iter().enumerate() {
            file.append(payload(channel as u64, seq)).wait().unwrap();
        }
    }
    files.iter().for_each(|file| file.sync().wait().unwrap());
    let begun = std::time::Instant::now();
    while redex.stats().checkpoints == 0 {
        assert!(begun.elapsed().as_secs() < 60, "the journal is worth a checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    check(&files, EVENTS);
    redex.close().wait().unwrap();
    drop((files, redex));
    let redex = store();
    check(&open(&redex), EVENTS);
    redex.close().wait().unwrap();
}
