//! RedEX: durable, append-only, named logs for programs that link it. Linux, io_uring, O_DIRECT.
//!
//! A [`Redex`] is a store of channels; a [`RedexFile`] is one channel: append events, read ranges, follow its tail. An event
//! that was acknowledged as durable survives a power cut. Reading the folders in the order of an event's path is reading the
//! system: `append`, `tail`, `shard`, `journal`, `segment`; `docs/architecture.md` shows the whole on one page.
//!
//! On top of a [`RedexFile`]: [`TypedRedexFile`] for values instead of bytes, [`OrderedAppender`] for threads whose events need
//! one order, [`RedexIndex`] to find events by what is in them.
//!
//! ```
//! # fn main() -> Result<(), redex::RedexError> {
//! # let dir = tempfile::tempdir().unwrap();
//! use redex::{Redex, RedexFileConfig};
//!
//! let redex = Redex::open(dir.path())?;
//! let file = redex.open_file("sensors/lidar/front", RedexFileConfig::default().with_persistent(true))?;
//! let seq = file.append_durable(b"survives a power cut").wait()?;
//! for event in file.read_range(seq, seq + 1).wait()? {
//!     assert_eq!(event.payload, b"survives a power cut");
//! }
//! redex.close().wait()?;
//! # Ok(())
//! # }
//! ```

mod append;
mod batch;
mod channel;
mod channel_name;
mod channel_stats;
mod checksum;
mod clock;
mod cold;
mod config;
mod error;
mod event;
#[cfg(feature = "metrics")]
mod export;
mod file;
mod file_changes;
mod follow;
#[cfg(any(test, feature = "sim"))]
pub mod fuzzing;
mod ids;
pub mod index;
mod io;
mod journal;
mod live_config;
mod memory;
mod options;
pub mod ordered;
mod random;
mod read;
mod read_only;
mod redex;
mod request;
mod retention;
mod salvage;
mod segment;
mod shard;
#[cfg(feature = "sim")]
pub mod sim;
mod store;
mod store_verify;
mod survey;
mod sync;
mod tail;
pub mod typed;

/// The bytes on disk, for tools that look into a store: what `docs/format.md` describes, and nothing that opens a file.
pub mod format {
    pub use crate::cold::{manifest as cold_manifest, object as cold_object};
    pub use crate::ids::{ChannelId, CheckpointNo, Epoch, Lsn, SegmentNo, Seq, ShardId, StoreUuid};
    pub use crate::journal::format as journal;
    pub use crate::segment::{block, footer, record, time_block};
    pub use crate::store::{envelope, meta, superblock};
}

pub use append::{Append, AppendBatch};
pub use batch::{Batch, CommitBatch};
pub use channel_name::{CHANNEL_NAME_SIZE_MAX, ChannelName, ChannelNameError, IntoChannelName};
pub use channel_stats::ChannelStats;
pub use cold::failure::ColdError;
#[cfg(feature = "cold")]
pub use cold::object_store::ObjectStoreCold;
pub use cold::pass::ColdPass;
pub use cold::read::{ColdWork, ReadCold};
pub use cold::stats::ColdStats;
pub use cold::{ColdObject, ColdStore};
pub use config::{ColdPolicy, FsyncPolicy, RedexFileConfig, Retention};
pub use error::{
    AppendError, ChangeError, CloseError, Damage, OpenError, OpenFileError, Poisoned, ReadError, RedexError,
    SubscribeError, SyncError,
};
pub use event::{EventRef, EventTime, Payload, RedexEvent};
pub use file::{Durable, PublishedWait, RedexFile};
pub use ids::ShardId;
#[doc(inline)]
pub use index::{IndexOp, IndexStart, RedexIndex};
pub use io::{IoFacts, RingFacts};
pub use options::Backend;
#[doc(inline)]
pub use ordered::{OrderedAppender, Turn};
pub use read::cursor::CursorParseError;
pub use read::range::{ForEachRef, NextChunk, ReadOne, ReadRange, Scan};
pub use read::subscribe::{Cursor, From, NextTailChunk, Subscribe, Tail, TailEnd, TailResults};
pub use read::time::{ReadTimeRange, SeekTime};
pub use read::verify::{Finding, Verify, VerifyReport};
pub use read_only::{ReadOnlyFile, ReadOnlyRedex};
pub use redex::{ChannelInfo, Close, Redex, RedexBuilder};
pub use request::Change;
pub use salvage::{LostRange, MovedRange, SalvageError, SalvageOptions, SalvageReport, SalvagedChannel, salvage};
pub use segment::chunk::{EventChunk, EventRefs};
pub use shard::stats::Stats;
pub use store_verify::{StoreReport, VerifyOptions, VerifyProgress, verify};
pub use survey::SurveyError;
pub use survey::finding::{FindingKind, FoundChannel, Severity, StoreFinding};
#[doc(inline)]
pub use typed::{Codec, Postcard, TypedEvent, TypedRedexFile};
