//! A [`ColdStore`] over any store of the crate `object_store`: a directory, memory, S3, GCS, Azure.
//!
//! The crate is asynchronous; the engine has no runtime. So this has a small one of its own, on one thread, and each call waits
//! for its answer there: calls come from several threads (the one that uploads, those that read), and what the network
//! needs between two calls goes on.

use std::fs;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::oneshot;

use super::{ColdObject, ColdStore};

/// Bytes of one part of an upload: S3 wants 5 MiB at the least, and takes 10,000 at the most. What is smaller goes at once.
const PART_BYTES: usize = 8 << 20;
/// Modes of directories and files that are made here.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A [`ColdStore`] over a store of the crate `object_store`, below a prefix.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use std::sync::Arc;
/// use redex::{ObjectStoreCold, Redex, RedexFileConfig};
///
/// let bucket = Arc::new(object_store::memory::InMemory::new());
/// let redex = Redex::builder()
///     .persistent_dir(dir.path())
///     .cold_store(Arc::new(ObjectStoreCold::new(bucket, "archive")?))
///     .build()?;
/// let config = RedexFileConfig::default().with_persistent(true).with_cold_keep_segments(2).with_cold_zstd(3);
/// let file = redex.open_file("audit", config)?;
/// file.append_durable(b"goes to the bucket when its segment is old").wait()?;
/// # redex.close().wait()?;
/// # Ok(())
/// # }
/// ```
pub struct ObjectStoreCold {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Where the objects are files that have to be flushed, and the directory above them all.
    directory: Option<(Arc<LocalFileSystem>, PathBuf)>,
    runtime: tokio::runtime::Handle,
    /// Ends the runtime's thread.
    end: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for ObjectStoreCold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectStoreCold").field("store", &self.store).field("prefix", &self.prefix.as_ref()).finish()
    }
}

impl ObjectStoreCold {
    /// Objects lie in `store`, their keys below `prefix` (may be empty). Starts one thread, which ends when this goes.
    ///
    /// How often the store tries again, and how long a call may take, is what `store` was made with. For a directory use
    /// [`ObjectStoreCold::directory`]: `LocalFileSystem` alone does not flush what it writes.
    ///
    /// # Errors
    ///
    /// If the prefix breaks the rules of `object_store`, or no thread can be had.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> io::Result<Self> {
        let prefix = Path::parse(prefix).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let run = move || {
            // An error is the sender's drop: the end as well.
            let _ = runtime.block_on(ended);
        };
        let thread = std::thread::Builder::new().name("redex-objects".into()).spawn(run)?;
        let (end, thread) = (Mutex::new(Some(end)), Mutex::new(Some(thread)));
        Ok(Self { store, prefix, directory: None, runtime: handle, end, thread })
    }

    /// Objects are files in this directory, which is made if it is not there: on another disk, or mounted from elsewhere. A file is
    /// flushed, and so are the directories that it lies in, before its upload counts.
    ///
    /// A directory that is made here is for the owner alone (0700), and so are files once they are whole (0600). One that was there
    /// keeps its mode: while a file is uploaded there, others see what the umask lets them.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made, or no thread can be had.
    pub fn directory(dir: impl AsRef<std::path::Path>) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(&dir)?;
        let root = dir.as_ref().canonicalize()?;
        let files = Arc::new(LocalFileSystem::new_with_prefix(&root).map_err(io_error)?);
        let mut this = Self::new(files.clone(), "")?;
        this.directory = Some((files, root));
        Ok(this)
    }

    /// What was put there survives a power cut.
    fn make_durable(&self, path: &Path) -> io::Result<()> {
        let Some((files, root)) = &self.directory else { return Ok(()) };
        let path = files.path_to_filesystem(path).map_err(io_error)?;
        let file = fs::File::open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        file.sync_all()?;
        for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(root)) {
            fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    fn path(&self, key: &str) -> io::Result<Path> {
        let key = Path::parse(key).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(self.prefix.parts().chain(key.parts()).collect())
    }

    /// Waits for what runs on the runtime's thread.
    fn wait<T: Send + 'static>(&self, call: impl Future<Output = Result<T, Error>> + Send + 'static) -> io::Result<T> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move { _ = sender.send(call.await) });
        let result = receiver.recv().map_err(|_| io::Error::other("the thread of the object store has ended"))?;
        result.map_err(io_error)
    }

    /// Uploads an object in parts; an error leaves none behind that costs anything, if the store answers.
    fn put_parts(
        &self,
        path: Path,
        first: Bytes,
        parts: &mut dyn Iterator<Item = io::Result<Bytes>>,
    ) -> io::Result<()> {
        let store = self.store.clone();
        let mut upload = self.wait(async move { store.put_multipart(&path).await })?;
        let mut part = Some(first);
        loop {
            let bytes = match part.take() {
                Some(bytes) => bytes,
                None => match gather(parts) {
                    Ok(bytes) if bytes.is_empty() => break,
                    Ok(bytes) => bytes,
                    Err(error) => {
                        let _ = self.wait(async move { upload.abort().await });
                        return Err(error);
                    }
                },
            };
            let put = upload.put_part(PutPayload::from_bytes(bytes));
            if let Err(error) = self.wait(put) {
                let _ = self.wait(async move { upload.abort().await });
                return Err(error);
            }
        }
        self.wait(async move { upload.complete().await }).map(|_| ())
    }
}

impl Drop for ObjectStoreCold {
    fn drop(&mut self) {
        if let Some(end) = self.end.get_mut().ok().and_then(Option::take) {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.get_mut().ok().and_then(Option::take) {
            let _ = thread.join();
        }
    }
}

/// The next parts as one of [`PART_BYTES`], or what is left; empty at the end.
fn gather(parts: &mut dyn Iterator<Item = io::Result<Bytes>>) -> io::Result<Bytes> {
    let mut gathered = BytesMut::new();
    while gathered.len() < PART_BYTES {
        match parts.next() {
            None => break,
            Some(part) => gathered.extend_from_slice(&part?),
        }
    }
    Ok(gathered.freeze())
}

fn io_error(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        Error::NotSupported { .. } | Error::NotImplemented { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl ColdStore for ObjectStoreCold {
    fn put(&self, key: &str, parts: &mut dyn Iterator<Item = io::Result<Bytes>>) -> io::Result<()> {
        let path = self.path(key)?;
        let first = gather(parts)?;
        if first.len() >= PART_BYTES {
            self.put_parts(path.clone(), first, parts)?;
        } else {
            let (store, path) = (self.store.clone(), path.clone());
            self.wait(async move { store.put(&path, PutPayload::from_bytes(first)).await })?;
        }
        self.make_durable(&path)
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> io::Result<Bytes> {
        let (store, path) = (self.store.clone(), self.path(key)?);
        self.wait(async move { store.get_range(&path, range).await })
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<ColdObject>> {
        let (store, path) = (self.store.clone(), self.path(prefix.trim_end_matches('/'))?);
        let skip = if self.prefix.as_ref().is_empty() { 0 } else { self.prefix.as_ref().len() + 1 };
        self.wait(async move {
            let mut stream = store.list(Some(&path));
            let mut objects = Vec::new();
            while let Some(meta) = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
                let meta = meta?;
                objects.push(ColdObject { key: meta.location.as_ref()[skip..].to_owned(), size: meta.size });
            }
            Ok(objects)
        })
    }

    fn delete(&self, key: &str) -> io::Result<()> {
        let (store, path) = (self.store.clone(), self.path(key)?);
        match self.wait(async move { store.delete(&path).await }) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}
