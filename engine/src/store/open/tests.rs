//! What a start that fails leaves behind, and settings that cannot be read.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::io::posix::tests::temp_dir;
use crate::io::{DirEntry, Driver, File, IoFacts};

/// A disk on which only so many shards get a queue.
#[derive(Debug)]
struct FewQueues {
    disk: PosixDisk,
    left: AtomicUsize,
}

impl Disk for FewQueues {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.disk.open(path, mode)
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn unlink(&self, path: &str) -> io::Result<()> {
        self.disk.unlink(path)
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn driver(&self) -> io::Result<Box<dyn Driver>> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.disk.driver()
    }
    fn facts(&self) -> IoFacts {
        self.disk.facts()
    }
}

#[test]
fn a_start_that_fails_ends_the_shards_that_run() {
    let base = temp_dir();
    let options = Options { shards: Some(3), journal_segment_bytes: 64 << 10, ..Options::default() };
    let disk = PosixDisk::open(base.path(), None).unwrap();
    let lock = take_lock(base.path(), &disk).unwrap();
    let disk = Arc::new(FewQueues { disk, left: AtomicUsize::new(2) });
    let environment = Environment {
        disk: disk.clone(),
        clock: Clock::system(),
        random: Random::system(),
        offload: Arc::new(Offload::new("redex-test", 1)),
        file_maker: Arc::new(Offload::new("redex-test", 1)),
        pages: PagePool::new(options.page_budget_bytes, options.page_budget_bytes / 2),
        base: base.path().to_owned(),
        cold: None,
    };
    let (store, seeds) = Store::recover(environment, &options).unwrap();
    *store.lock.lock().unwrap() = Some(lock);
    let error = store.start(seeds, &options).unwrap_err();
    let OpenError::Io { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::OutOfMemory);
    drop(store);
    // A shard keeps its disk as long as it runs.
    assert_eq!(Arc::strong_count(&disk), 1);
    let other = disk.disk.lock_file().unwrap();
    assert!(other.try_lock().is_ok());
}

/// A configuration of newer software is refused: one with another policy, one with a field more, an empty one.
#[test]
fn a_stored_configuration_that_does_not_decode_is_refused() {
    let name = ChannelName::new("a").unwrap();
    let config = RedexFileConfig::default();
    let mut state = new_state(ChannelId(1), &name, &config);
    check_stored(&name, &state, &config).unwrap();
    let encoded = config.encode();
    let (mut other_policy, mut longer) = (encoded.clone(), encoded);
    other_policy[1] = 4;
    longer.push(0);
    for bytes in [other_policy, longer, Vec::new()] {
        state.config = bytes;
        let error = check_stored(&name, &state, &config).unwrap_err();
        assert!(matches!(&error, OpenFileError::UnknownConfig { channel } if *channel == name), "{error}");
    }
}
