//! All that is intact of a checkpoint file, damaged or not: state by state.
//!
//! Behind a state that is bad the next one is looked for, first where its length says, then byte by byte: a state proves itself by its
//! checksum. A file whose header is bad is read by what is known of it otherwise. How much is read and looked at is bounded by what
//! states can be, not by what a file's size or a length in it says.

use super::{
    BLOCK_SIZE, ChannelState, CheckpointError, Disk, File, OpenMode, READ_SIZE, STATE_HEAD_SIZE, STATE_SIZE_MAX,
    StateReader, file_seed, load_header, read_full, split_state,
};
use crate::ids::{CheckpointNo, ShardId, StoreUuid};
use crate::io::AlignedBuf;

/// Longest state that is looked for behind a bad one, bytes: a channel with half a million segments.
const SOUGHT_SIZE_MAX: usize = 16 << 20;
/// How far behind a bad state the next one is looked for, bytes: behind so much that is bad, the rest is given up.
const SOUGHT_WITHIN: u64 = 16 << 20;

/// A state that is whole.
#[derive(Debug)]
pub struct SurveyedState {
    /// The state.
    pub state: ChannelState,
    /// Where it lies in the file, bytes.
    pub offset: u64,
}

/// What is whole of a checkpoint file.
#[derive(Debug, Default)]
pub struct CheckpointSurvey {
    /// The states that are whole.
    pub states: Vec<SurveyedState>,
    /// What is wrong with the header.
    pub header: Option<String>,
    /// States that are bad: where, and why.
    pub bad_states: Vec<(u64, &'static str)>,
    /// How many states are missing by the header's count.
    pub missing: u64,
    /// Blocks that the device does not give.
    pub unreadable: Vec<(u64, String)>,
    /// Bytes read.
    pub bytes: u64,
}

/// The store of a checkpoint file, if its header is whole.
pub fn uuid_of(disk: &dyn Disk, path: &str) -> Option<StoreUuid> {
    let file = disk.open(path, OpenMode::Read).ok()?;
    load_header(&*file, path).ok().map(|header| StoreUuid(header.store_uuid))
}

/// Reads a checkpoint file around its damage. Its header may name another shard or number than its path: then it is a fault, and the
/// states are read as those of the header.
///
/// # Errors
///
/// If it cannot be opened.
pub fn survey(
    disk: &dyn Disk,
    path: &str,
    uuid: StoreUuid,
    shard: ShardId,
    number: CheckpointNo,
) -> std::io::Result<CheckpointSurvey> {
    let file = disk.open(path, OpenMode::Read)?;
    let size = file.size()?;
    let mut survey = CheckpointSurvey::default();
    let mut identity = (shard, number);
    let (mut states_end, mut count, mut tails_offset) = (size, None, None);
    match load_header(&*file, path) {
        Ok(header) => {
            if let Err(what) = header.check_identity(uuid, shard, number) {
                survey.header = Some(what.to_owned());
                identity = (ShardId(header.shard.get()), CheckpointNo(header.number.get()));
            }
            states_end = size.min((BLOCK_SIZE as u64).saturating_add(header.states_len.get()));
            count = Some(header.state_count.get());
            tails_offset = Some(header.tails_offset.get());
        }
        Err(CheckpointError::Damaged { what, .. }) => survey.header = Some(what.to_owned()),
        Err(CheckpointError::Newer { version, .. }) => {
            survey.header = Some(format!("it has format version {version}, which newer software wrote"));
            return Ok(survey);
        }
        Err(CheckpointError::Io { error, .. }) => survey.header = Some(format!("it cannot be read: {error}")),
    }
    let seed = file_seed(uuid, identity.0, identity.1);
    let reader = StateReader { path: "", seed, tails_offset: 0, tails_len: size, offset: 0 };
    let mut window = Window::new(&*file, states_end);
    let found = survey_states(&mut window, &reader, count.is_some(), &mut survey);
    (survey.bytes, survey.unreadable) = (window.read_to, window.unreadable);
    let base = tails_offset.unwrap_or(found.next_multiple_of(4));
    survey.missing = count.map_or(0, |count| count.saturating_sub(survey.states.len() as u64));
    for surveyed in &mut survey.states {
        surveyed.state.tail.offset = surveyed.state.tail.offset.saturating_add(base).min(size);
    }
    Ok(survey)
}

/// The part of the file that is looked at: it moves along, so that a file takes no more memory than its longest state.
struct Window<'a> {
    file: &'a dyn File,
    /// Where the states end.
    end: u64,
    /// Where the bytes begin in the file.
    start: u64,
    bytes: Vec<u8>,
    chunk: AlignedBuf,
    read_to: u64,
    unreadable: Vec<(u64, String)>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn File, end: u64) -> Self {
        let (bytes, chunk) = (Vec::new(), AlignedBuf::new(READ_SIZE));
        let start = (BLOCK_SIZE as u64).min(end);
        Self { file, end, start, bytes, chunk, read_to: start, unreadable: Vec::new() }
    }

    /// So many bytes from `at` on, fewer where the states end. Nothing in front of `at` was forgotten that is asked for.
    fn bytes(&mut self, at: u64, len: usize) -> &[u8] {
        let stop = at.saturating_add(len as u64).min(self.end);
        while self.start + (self.bytes.len() as u64) < stop {
            self.read_on();
        }
        &self.bytes[(at.min(stop) - self.start) as usize..(stop - self.start) as usize]
    }

    /// Nothing in front of `at` is asked for any more.
    fn forget_before(&mut self, at: u64) {
        let done = (at - self.start) as usize;
        if done >= READ_SIZE {
            self.bytes.drain(..done);
            self.start = at;
        }
    }

    /// Reads the next part; what the device does not give of it is zeros.
    fn read_on(&mut self) {
        let wanted = (self.end - self.read_to).min(READ_SIZE as u64) as usize;
        let part = &mut self.chunk[..wanted.next_multiple_of(BLOCK_SIZE)];
        if read_full(self.file, part, self.read_to).is_err() {
            for (block, at) in part.chunks_exact_mut(BLOCK_SIZE).zip((self.read_to..).step_by(BLOCK_SIZE)) {
                if let Err(error) = read_full(self.file, block, at) {
                    block.fill(0);
                    self.unreadable.push((at, error.to_string()));
                }
            }
        }
        self.bytes.extend_from_slice(&self.chunk[..wanted]);
        self.read_to += wanted as u64;
    }

    /// What lies at `at` if it is a state: checksum and body.
    fn state_at(&mut self, at: u64, size_max: usize) -> Option<(u32, &[u8])> {
        let len = u32::from_le_bytes(*self.bytes(at, STATE_HEAD_SIZE).first_chunk::<4>()?) as usize;
        let fits = len <= size_max && at + (STATE_HEAD_SIZE + len) as u64 <= self.end;
        if fits { split_state(self.bytes(at, STATE_HEAD_SIZE + len)) } else { None }
    }
}

/// Takes the states that are whole; gives where the last one ends. `is_bounded` says that the window ends where the states do.
fn survey_states(
    window: &mut Window<'_>,
    reader: &StateReader<'_>,
    is_bounded: bool,
    survey: &mut CheckpointSurvey,
) -> u64 {
    let (mut at, mut end) = (window.start, window.start);
    while at < window.end {
        window.forget_before(at);
        let fault = match window.state_at(at, STATE_SIZE_MAX) {
            Some((crc, body)) => match reader.decode(crc, body) {
                Ok(state) => {
                    let size = STATE_HEAD_SIZE + body.len();
                    survey.states.push(SurveyedState { state, offset: at });
                    at += size as u64;
                    end = at;
                    continue;
                }
                Err(what) => what,
            },
            None => "a state's length leads behind the end of the states",
        };
        let next = find_state(window, at, reader);
        if is_bounded || next.is_some() {
            survey.bad_states.push((at, fault));
        }
        let Some(next) = next else { break };
        at = next;
    }
    end
}

/// Where the next whole state begins behind a bad one.
fn find_state(window: &mut Window<'_>, bad: u64, reader: &StateReader<'_>) -> Option<u64> {
    let len = window.state_at(bad, STATE_SIZE_MAX).map(|(_, body)| bad + (STATE_HEAD_SIZE + body.len()) as u64);
    if let Some(next) = len.filter(|next| *next < window.end && is_state(window, *next, reader)) {
        return Some(next);
    }
    let (mut at, limit) = (bad + 1, window.end.min(bad.saturating_add(SOUGHT_WITHIN)));
    while at < limit {
        window.forget_before(at);
        let heads = window.bytes(at, READ_SIZE).windows(4).zip(at..);
        let lens = heads.map(|(len, at)| (u32::from_le_bytes(len.try_into().expect("four bytes")) as usize, at));
        let likely: Vec<u64> = lens.filter(|(len, _)| (1..=SOUGHT_SIZE_MAX).contains(len)).map(|(_, at)| at).collect();
        if let Some(found) = likely.into_iter().find(|at| is_state(window, *at, reader)) {
            return Some(found);
        }
        // The last bytes are too few for a length.
        at += READ_SIZE as u64 - 3;
    }
    None
}

/// Whether a whole state begins here. What does not decode is not worth a checksum.
fn is_state(window: &mut Window<'_>, at: u64, reader: &StateReader<'_>) -> bool {
    let Some((crc, body)) = window.state_at(at, SOUGHT_SIZE_MAX) else { return false };
    let decodes = postcard::take_from_bytes::<ChannelState>(body).is_ok_and(|(_, rest)| rest.is_empty());
    decodes && reader.decode(crc, body).is_ok()
}
