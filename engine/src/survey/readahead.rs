//! Reads files from front to back, a megabyte at a time, ahead of who looks at the bytes.
//!
//! Each reader has a thread of its own that waits for the device, so that checksums are computed while the next bytes come.
//! Buffers go round: reading a file of any size takes a few megabytes. Small files are read where they are needed.
//!
//! A part that the device does not give is read again block by block: what is unreadable is told exactly ([`Gap`]), and its bytes
//! are zero.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, File, OpenMode, read_full};

/// Bytes read at once.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Chunks of a file that are asked for ahead.
const AHEAD: usize = 4;

/// A block that cannot be read.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Where it begins.
    pub offset: u64,
    /// Why.
    pub error: String,
}

#[derive(Debug)]
struct Chunk {
    offset: u64,
    buf: AlignedBuf,
    len: usize,
    gaps: Vec<Gap>,
}

#[derive(Debug)]
struct Request {
    file: Arc<dyn File>,
    offset: u64,
    len: usize,
    buf: AlignedBuf,
    reply: Sender<Chunk>,
}

/// A thread that reads, and the buffers that go round.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    spare: Vec<AlignedBuf>,
    bytes: u64,
}

impl Reader {
    /// Starts the thread.
    pub fn start(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let (requests, inbox) = channel();
        let thread = std::thread::Builder::new().name("redex-ahead".to_owned()).spawn(move || serve(&inbox))?;
        Ok(Self { disk, requests: Some(requests), thread: Some(thread), spare: Vec::new(), bytes: 0 })
    }

    /// Opens a file to be read from `0` to `end` at the most; `None` if it is not there.
    pub fn open(&mut self, path: &str, end: Option<u64>) -> io::Result<Option<Stream>> {
        let file = match self.disk.open(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let size = file.size()?;
        let end = end.unwrap_or(size).min(size);
        let replies = channel();
        let mut stream =
            Stream { file, size, end, asked: 0, waiting: 0, current: None, past: VecDeque::new(), replies };
        stream.ask(self);
        Ok(Some(stream))
    }

    /// Bytes that were read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn take_buf(&mut self) -> AlignedBuf {
        self.spare.pop().unwrap_or_else(|| AlignedBuf::new(CHUNK_BYTES))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It ends with its inbox, and cannot fail but by a panic, which it has told.
            let _ = thread.join();
        }
    }
}

fn serve(inbox: &Receiver<Request>) {
    while let Ok(Request { file, offset, len, buf, reply }) = inbox.recv() {
        // Who asked may have stopped listening.
        let _ = reply.send(read_chunk(&*file, offset, len, buf));
    }
}

fn read_chunk(file: &dyn File, offset: u64, len: usize, mut buf: AlignedBuf) -> Chunk {
    let whole = len.next_multiple_of(BLOCK_SIZE);
    let mut gaps = Vec::new();
    let found = match read_full(file, &mut buf[..whole], offset) {
        Ok(found) => found,
        Err(_) => {
            read_by_blocks(file, &mut buf[..whole], offset, &mut gaps);
            whole
        }
    };
    buf[found..whole].fill(0);
    Chunk { offset, buf, len, gaps }
}

fn read_by_blocks(file: &dyn File, buf: &mut [u8], offset: u64, gaps: &mut Vec<Gap>) {
    for (offset, block) in (offset..).step_by(BLOCK_SIZE).zip(buf.chunks_exact_mut(BLOCK_SIZE)) {
        match read_full(file, block, offset) {
            Ok(found) => block[found..].fill(0),
            Err(error) => {
                block.fill(0);
                gaps.push(Gap { offset, error: error.to_string() });
            }
        }
    }
}

/// A file that is read from front to back.
#[derive(Debug)]
pub struct Stream {
    file: Arc<dyn File>,
    size: u64,
    end: u64,
    /// Up to where it was asked for.
    asked: u64,
    waiting: usize,
    current: Option<Chunk>,
    /// Gaps of what was read, the newest last.
    past: VecDeque<Gap>,
    replies: (Sender<Chunk>, Receiver<Chunk>),
}

impl Stream {
    /// Size of the file, bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Up to where it can be read: the end that was asked for, or that of the file.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes from `offset` on, as many as are at hand, at least one; none behind the end. Only forward: an `offset` in front of
    /// what was given before is read by itself.
    pub fn bytes(&mut self, reader: &mut Reader, offset: u64) -> &[u8] {
        if offset >= self.end {
            return &[];
        }
        if self.current.as_ref().is_some_and(|chunk| offset < chunk.offset) {
            self.go_back(reader, offset);
        }
        while self.current.as_ref().is_none_or(|chunk| offset >= chunk.offset + chunk.len as u64) {
            self.advance(reader);
        }
        let chunk = self.current.as_ref().expect("just made sure of");
        &chunk.buf[(offset - chunk.offset) as usize..chunk.len]
    }

    /// Reads at any place, whole blocks, beside the stream.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(&*self.file, buf, offset)
    }

    /// Why bytes of this range could not be read, if some could not.
    pub fn gap_in(&self, range: &std::ops::Range<u64>) -> Option<&Gap> {
        let touches = |gap: &&Gap| gap.offset < range.end && range.start < gap.offset + BLOCK_SIZE as u64;
        self.past.iter().find(touches)
    }

    fn ask(&mut self, reader: &mut Reader) {
        while self.waiting < AHEAD && self.asked < self.end {
            let (offset, len) = (self.asked, (self.end - self.asked).min(CHUNK_BYTES as u64) as usize);
            let buf = reader.take_buf();
            let (file, reply) = (self.file.clone(), self.replies.0.clone());
            reader.bytes += len as u64;
            self.asked += len as u64;
            self.waiting += 1;
            if self.end <= CHUNK_BYTES as u64 {
                // Not worth a hand-over.
                let _ = reply.send(read_chunk(&*file, offset, len, buf));
                return;
            }
            let requests = reader.requests.as_ref().expect("it ends with the reader");
            requests.send(Request { file, offset, len, buf, reply }).expect("the thread ends with the reader");
        }
    }

    fn advance(&mut self, reader: &mut Reader) {
        if let Some(chunk) = self.current.take() {
            reader.spare.push(chunk.buf);
        }
        self.ask(reader);
        let mut chunk = self.replies.1.recv().expect("this end keeps a sender");
        self.waiting -= 1;
        self.past.extend(chunk.gaps.drain(..));
        self.current = Some(chunk);
        self.ask(reader);
    }

    /// Nothing that the engine wrote asks for it; a file that was tampered with may.
    fn go_back(&mut self, reader: &mut Reader, offset: u64) {
        while self.waiting > 0 {
            let chunk = self.replies.1.recv().expect("this end keeps a sender");
            self.waiting -= 1;
            reader.spare.push(chunk.buf);
        }
        if let Some(chunk) = self.current.take() {
            reader.spare.push(chunk.buf);
        }
        self.asked = offset - offset % BLOCK_SIZE as u64;
    }

    /// Gives its buffers back.
    pub fn finish(mut self, reader: &mut Reader) {
        self.end = self.asked;
        self.go_back(reader, 0);
    }
}
