//! The door to a store that another process writes, or that nobody has open: reading only.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::channel::Channel;
use crate::channel_name::{ChannelName, IntoChannelName};
use crate::clock::Clock;
use crate::config::RedexFileConfig;
use crate::error::{OpenError, OpenFileError};
use crate::event::EventTime;
use crate::file::{PublishedWait, RedexFile};
use crate::follow::load::Trouble;
use crate::follow::run::Following;
use crate::follow::{Follower, ground, judge};
use crate::io::Disk;
use crate::io::posix::PosixDisk;
use crate::read::offload::Offload;
use crate::read::range::{ReadOne, ReadRange, Scan};
use crate::read::subscribe::{Cursor, From, Subscribe, TailResults};
use crate::read::time::{ReadTimeRange, SeekTime};
use crate::read::verify::Verify;
use crate::redex::{ChannelInfo, Redex};

/// Attempts to find a store while its writer changes it, before an error is one.
const ATTEMPTS: u32 = 12;
/// Between two of them: long enough for the writer to go on.
const PAUSE: Duration = Duration::from_millis(4);
/// Attempts to open a channel whose checkpoint the writer has just replaced: it tells within milliseconds.
const CHANNEL_ATTEMPTS: u32 = 250;
/// Attempts to open a channel that is not there: what its writer has just made is seen within milliseconds.
const NEW_CHANNEL_ATTEMPTS: u32 = 25;

/// A store, open for reading beside the process that writes it. A cheap clone.
///
/// It takes no lock and writes nothing; there may be any number, before, while and after the store is open for writing. What it
/// shows is durable: an event is seen within 10 ms of becoming so, and what was seen is never taken back, but by
/// a truncation that the writer asked for. When the writer closes the store, is killed, or opens it again, this one goes on.
///
/// A thread looks at the store: every half millisecond while events come, every 2 ms when none do. It keeps in memory what lies in the
/// journals above the last checkpoint: 64 MiB a shard as a rule, 256 MiB at most, by the writer's settings.
///
/// ```
/// # fn main() -> Result<(), redex::RedexError> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// use redex::{Redex, RedexFileConfig};
/// let writer = Redex::open(dir)?;
/// let orders = writer.open_file("orders", RedexFileConfig::default().with_persistent(true))?;
/// orders.append_durable(b"an order").wait()?;
///
/// // In another process:
/// let reader = Redex::open_read_only(dir)?;
/// let orders = reader.open_file("orders")?;
/// let mut tail = orders.subscribe_from(0).wait()?;
/// assert_eq!(tail.next_wait().unwrap().payload, b"an order");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ReadOnlyRedex {
    base: Arc<PathBuf>,
    following: Arc<Following>,
}

impl Redex {
    /// Opens the store in this directory for reading only, beside the process that writes it if there is one.
    ///
    /// # Errors
    ///
    /// [`OpenError::NoStore`] if there is none. Of a damaged store, that nobody is writing, what [`Redex::open`] would say.
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<ReadOnlyRedex, OpenError> {
        ReadOnlyRedex::open(dir.as_ref())
    }
}

impl ReadOnlyRedex {
    fn open(base: &Path) -> Result<Self, OpenError> {
        let disk = open_disk(base)?;
        let follower = find(&disk).map_err(|error| error.beneath(base))?;
        let start = |source| OpenError::Io { what: "start the thread that follows", path: base.to_owned(), source };
        let following = Arc::new(Following::start(follower).map_err(start)?);
        Ok(Self { base: Arc::new(base.to_owned()), following })
    }

    /// Opens a channel for reading. One that is not there yet may have been made a moment ago: it is waited for, 100 ms at most.
    ///
    /// # Errors
    ///
    /// [`OpenFileError::NoSuchChannel`] if no durable commit has made one of this name; or what a writer would say of it.
    pub fn open_file(&self, name: impl IntoChannelName) -> Result<ReadOnlyFile, OpenFileError> {
        let name = name.into_channel_name()?;
        let mut attempts = 0;
        loop {
            let opened = self.following.follower().open_channel(&name);
            match opened {
                Ok(channel) => return Ok(ReadOnlyFile::over(channel, Some(self.following.clone()))),
                Err((_, true)) if attempts < CHANNEL_ATTEMPTS => attempts += 1,
                Err((OpenFileError::NoSuchChannel { .. }, _)) if attempts < NEW_CHANNEL_ATTEMPTS => attempts += 1,
                Err((error, _)) => return Err(error.beneath(&self.base)),
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The channels that are there, sorted by name.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.following.follower().channels(|_| true)
    }

    /// The channels whose names begin so, sorted by name.
    #[must_use]
    pub fn channels_with_prefix(&self, prefix: &str) -> Vec<ChannelInfo> {
        self.following.follower().channels(|name| name.starts_with(prefix))
    }
}

/// Opens the files of a store as they are: nothing is made or tried.
fn open_disk(base: &Path) -> Result<Arc<dyn Disk>, OpenError> {
    match PosixDisk::open_read_only(base) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OpenError::NoStore { path: base.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            Err(OpenError::NotADirectory { path: base.to_owned() })
        }
        Err(source) => Err(OpenError::Io { what: "open", path: base.to_owned(), source }),
    }
}

/// Finds the store, whatever its writer does meanwhile.
fn find(disk: &Arc<dyn Disk>) -> Result<Follower, OpenError> {
    let mut failed = None;
    let ground = ground(disk.clone(), Clock::system(), Arc::new(Offload::new("redex-read", 1)));
    for _ in 0..ATTEMPTS {
        match Follower::open(ground.clone()) {
            Ok(mut follower) => match follower.judge() {
                Ok(()) | Err(Trouble::Moved) => return Ok(follower),
                Err(Trouble::Failed(error)) => failed = Some(error),
            },
            Err(Trouble::Failed(error @ OpenError::NoStore { .. })) => return Err(error),
            Err(Trouble::Failed(error)) => failed = Some(error),
            Err(Trouble::Moved) => {}
        }
        std::thread::sleep(PAUSE);
    }
    match failed {
        Some(error) => Err(error),
        None => Err(judge(&ground).err().unwrap_or(OpenError::Busy { path: PathBuf::new() })),
    }
}

/// A channel, open for reading: the reading half of [`RedexFile`]. A cheap clone.
///
/// `published` and `durable` are the same here: what is shown is durable.
#[derive(Clone, Debug)]
pub struct ReadOnlyFile {
    file: RedexFile,
    /// Keeps the thread.
    _following: Option<Arc<Following>>,
}

impl ReadOnlyFile {
    pub(crate) fn over(channel: Arc<Channel>, following: Option<Arc<Following>>) -> Self {
        Self { file: RedexFile::new(channel), _following: following }
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &ChannelName {
        self.file.name()
    }

    /// The configuration that its writer gave it.
    #[must_use]
    pub fn config(&self) -> RedexFileConfig {
        self.file.config()
    }

    /// Reads the events of `start..end` that are there; see [`RedexFile::read_range`].
    pub fn read_range(&self, start: u64, end: u64) -> ReadRange {
        self.file.read_range(start, end)
    }

    /// Reads one event; `None` if it is not there (yet, or any more).
    pub fn read_one(&self, seq: u64) -> ReadOne {
        self.file.read_one(seq)
    }

    /// Streams the events of a range, with bounded memory.
    pub fn scan(&self, range: Range<u64>) -> Scan {
        self.file.scan(range)
    }

    /// Streams from `seq` to the present end, with bounded memory.
    pub fn read_from(&self, seq: u64) -> Scan {
        self.file.read_from(seq)
    }

    /// Sequence of the first event at or after a time; see [`RedexFile::seek_time`].
    pub fn seek_time(&self, time: impl Into<EventTime>) -> SeekTime {
        self.file.seek_time(time)
    }

    /// Reads the events from one time up to another, which is not included.
    pub fn read_time_range<T: Into<EventTime>>(&self, range: Range<T>) -> ReadTimeRange {
        self.file.read_time_range(range)
    }

    /// Checks everything that is there; see [`RedexFile::verify`]. What lies above the writer's last checkpoint was checked when it
    /// was taken from the journal.
    pub fn verify(&self) -> Verify {
        self.file.verify()
    }

    /// Subscribes to what comes from now on.
    pub fn subscribe_tail(&self) -> Subscribe {
        self.file.subscribe_tail()
    }

    /// Subscribes from a sequence, or from a [`Cursor`]; see [`RedexFile::subscribe_from`].
    ///
    /// If the writer truncates events that the tail has delivered, it ends with [`TailEnd::Lost`](crate::TailEnd::Lost).
    pub fn subscribe_from(&self, from: impl Into<From>) -> Subscribe {
        self.file.subscribe_from(from)
    }

    /// Subscribes to a stream of `Result` that never fails to begin, and goes on where it can; see [`RedexFile::tail`].
    #[must_use = "a subscription does nothing unless it is read"]
    pub fn tail(&self, from: impl Into<From>) -> TailResults {
        self.file.tail(from)
    }

    /// Resolves when the event `seq` is there.
    pub fn wait_published(&self, seq: u64) -> PublishedWait<'_> {
        self.file.wait_published(seq)
    }

    /// Sequence of the first event that is there.
    #[must_use]
    pub fn head_seq(&self) -> u64 {
        self.file.head_seq()
    }

    /// Sequence behind the last event that is there.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.file.next_seq()
    }

    /// Events below this can be read. One load.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.file.published()
    }

    /// Events below this survive a power cut. One load.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.file.durable()
    }

    /// How many events are there.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.file.len()
    }

    /// Whether no event is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.file.is_empty()
    }

    /// The present end as a [`Cursor`].
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.file.cursor()
    }
}
