//! All that is intact of a checkpoint file, damaged or not: state by state, tail by tail.
//!
//! Behind a state that is bad the next one is looked for, first where its length says, then byte by byte: a state proves itself by its
//! checksum. A file whose header is bad is read by what is known of it otherwise.

use super::{
    BLOCK_SIZE, ChannelState, CheckpointError, Disk, OpenMode, READ_SIZE, STATE_HEAD_SIZE, StateReader, Tail,
    file_seed, load_header, read_full, split_state, tail_in,
};
use crate::ids::{CheckpointNo, ShardId, StoreUuid};
use crate::io::AlignedBuf;

/// A state that is whole.
#[derive(Debug)]
pub struct SurveyedState {
    /// The state.
    pub state: ChannelState,
    /// Where it lies in the file, bytes.
    pub offset: u64,
    /// What fills no block, or what is wrong with that.
    pub tail: Result<Tail, &'static str>,
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
    let mut survey = CheckpointSurvey::default();
    let mut bytes = AlignedBuf::new(usize::try_from(file.size()?).unwrap_or(0));
    let size = bytes.len();
    for start in (0..size).step_by(READ_SIZE) {
        let stop = (start + READ_SIZE).min(size);
        if read_full(&*file, &mut bytes[start..stop], start as u64).is_ok() {
            continue;
        }
        for start in (start..stop).step_by(BLOCK_SIZE) {
            if let Err(error) = read_full(&*file, &mut bytes[start..start + BLOCK_SIZE], start as u64) {
                bytes[start..start + BLOCK_SIZE].fill(0);
                survey.unreadable.push((start as u64, error.to_string()));
            }
        }
    }
    survey.bytes = size as u64;
    let mut identity = (shard, number);
    let (mut states_end, mut count, mut tails_offset) = (size, None, None);
    match load_header(&*file, path) {
        Ok(header) => {
            if let Err(what) = header.check_identity(uuid, shard, number) {
                survey.header = Some(what.to_owned());
                identity = (ShardId(header.shard.get()), CheckpointNo(header.number.get()));
            }
            states_end = size.min(BLOCK_SIZE + header.states_len.get() as usize);
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
    let found = survey_states(&bytes[..states_end], seed, size as u64, count.is_some(), &mut survey);
    let base = tails_offset.unwrap_or((found as u64).next_multiple_of(4));
    survey.missing = count.map_or(0, |count| count.saturating_sub(survey.states.len() as u64));
    for surveyed in &mut survey.states {
        surveyed.state.tail.offset = surveyed.state.tail.offset.saturating_add(base).min(size as u64);
        surveyed.tail = match tail_in(&bytes, 0, path, &surveyed.state) {
            Ok(tail) => Ok(tail),
            Err(CheckpointError::Damaged { what, .. }) => Err(what),
            Err(_) => Err("a tail cannot be read"),
        };
    }
    Ok(survey)
}

/// Takes the states that are whole; gives where the last one ends. `is_bounded` says that `bytes` end where the states do.
fn survey_states(bytes: &[u8], seed: u32, file_size: u64, is_bounded: bool, survey: &mut CheckpointSurvey) -> usize {
    let reader = StateReader { path: "", seed, tails_offset: 0, tails_len: file_size, offset: 0 };
    let (mut at, mut end) = (BLOCK_SIZE.min(bytes.len()), BLOCK_SIZE.min(bytes.len()));
    while at < bytes.len() {
        let fault = match split_state(&bytes[at..]) {
            Some((crc, body)) => match reader.decode(crc, body) {
                Ok(state) => {
                    survey.states.push(SurveyedState { state, offset: at as u64, tail: Ok(Tail::default()) });
                    at += STATE_HEAD_SIZE + body.len();
                    end = at;
                    continue;
                }
                Err(what) => what,
            },
            None => "a state's length leads behind the end of the states",
        };
        let next = find_state(bytes, at, &reader);
        if is_bounded || next.is_some() {
            survey.bad_states.push((at as u64, fault));
        }
        let Some(next) = next else { break };
        at = next;
    }
    end
}

/// Where the next whole state begins behind a bad one.
fn find_state(bytes: &[u8], bad: usize, reader: &StateReader<'_>) -> Option<usize> {
    let whole = |at: usize| {
        let Some((crc, body)) = bytes.get(at..).and_then(split_state) else { return false };
        !body.is_empty() && reader.decode(crc, body).is_ok()
    };
    let len = split_state(&bytes[bad..]).map(|(_, body)| bad + STATE_HEAD_SIZE + body.len());
    len.filter(|at| whole(*at)).or_else(|| (bad + 1..bytes.len().saturating_sub(STATE_HEAD_SIZE)).find(|at| whole(*at)))
}
