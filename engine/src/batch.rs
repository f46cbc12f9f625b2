//! A batch over several channels: all of it or nothing, in one commit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::append::admit_batch;
use crate::append::backlog::{Refused, Waiting, line_up};
use crate::channel::Channel;
use crate::error::{AppendError, ChangeError};
use crate::file::RedexFile;
use crate::journal::format::entry_size_events;
use crate::request::{Change, Request};
use crate::segment::record::INLINE_SIZE_MAX;
use crate::shard::groups::{GroupRequest, Member};
use crate::shard::handle::Control;
use crate::sync::scheduled::Mutex;
use crate::tail::Refusal;

/// Bytes of a commit that a batch may take: a commit has room for two of this size.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// Events for several channels, which become durable together: by [`Redex::batch`](crate::Redex::batch).
///
/// All channels lie on one shard ([`RedexFileConfig::with_affinity`](crate::RedexFileConfig::with_affinity)), or all in
/// memory. At most 1 MiB of payloads and index records, and a quarter of a journal segment. Nothing is appended before
/// [`Batch::commit`]; dropping the batch forgets it.
///
/// ```
/// # fn main() -> Result<(), redex::RedexError> {
/// # let dir = tempfile::tempdir().unwrap();
/// use redex::{Redex, RedexFileConfig};
/// let redex = Redex::open(dir.path())?;
/// let config = RedexFileConfig::default().with_persistent(true).with_affinity("bank");
/// let (from, to) = (redex.open_file("accounts/1", config.clone())?, redex.open_file("accounts/2", config)?);
/// let mut batch = redex.batch();
/// batch.append(&from, b"-100 to accounts/2");
/// batch.append(&to, b"+100 from accounts/1");
/// let seqs = batch.commit().wait()?;
/// assert_eq!(seqs, [0, 0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is appended before `commit`"]
pub struct Batch {
    members: Vec<(RedexFile, Vec<Vec<u8>>)>,
    /// Of each event, in the order of the calls: which member, and which of its events.
    order: Vec<(usize, usize)>,
}

impl Batch {
    /// Adds an event to a channel.
    pub fn append(&mut self, file: &RedexFile, payload: impl AsRef<[u8]>) -> &mut Self {
        let same = |(member, _): &(RedexFile, _)| Arc::ptr_eq(member.channel(), file.channel());
        let member = self.members.iter().position(same).unwrap_or_else(|| {
            self.members.push((file.clone(), Vec::new()));
            self.members.len() - 1
        });
        let payloads = &mut self.members[member].1;
        payloads.push(payload.as_ref().to_vec());
        self.order.push((member, payloads.len() - 1));
        self
    }

    /// How many events it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Appends all of it, or nothing, and resolves to the events' sequences, in the order in which they were added, when
    /// they are durable. A crash keeps all or nothing. Readers of two of the channels may see one's events a moment before
    /// the other's.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Apart`], [`ChangeError::BatchTooLarge`], [`ChangeError::Append`]: nothing was appended.
    /// [`ChangeError::Poisoned`] if the shard failed meanwhile: whether it survives is known after the next open.
    pub fn commit(self) -> CommitBatch {
        let firsts = Arc::new(Mutex::new(Vec::new()));
        let change = match self.check() {
            Err(error) => Change::decided(Err(error), drop),
            Ok(()) if self.members.is_empty() => Change::decided(Ok(0), drop),
            Ok(()) => self.begin(&firsts),
        };
        CommitBatch { change, firsts, order: self.order }
    }

    fn check(&self) -> Result<(), ChangeError> {
        let mut size = 0;
        let mut limit = GROUP_BYTES_MAX;
        for (file, payloads) in &self.members {
            let channel = file.channel();
            if file.is_closed() {
                return Err(AppendError::Closed { channel: channel.name.clone() }.into());
            }
            admit_batch(channel, payloads)?;
            let in_dat = payloads.iter().map(Vec::len).filter(|len| *len > INLINE_SIZE_MAX).sum::<usize>();
            size += entry_size_events(payloads.len()) + in_dat;
            let first = self.members[0].0.channel();
            let shard = |channel: &Channel| channel.persistence().map(|persistence| persistence.shard.id);
            if shard(channel) != shard(first) {
                let (channel, other) = (first.name.clone(), channel.name.clone());
                return Err(ChangeError::Apart { channel, other });
            }
            if let Some(persistence) = channel.persistence() {
                limit = limit.min(persistence.shard.journal_segment_bytes() / 4);
            }
        }
        if size > limit { Err(ChangeError::BatchTooLarge { size, limit }) } else { Ok(()) }
    }

    fn begin(&self, firsts: &Arc<Mutex<Vec<u64>>>) -> Change<()> {
        let first = self.members[0].0.channel();
        let Some(persistence) = first.persistence() else { return self.begin_in_memory(firsts) };
        let shard = persistence.shard.clone();
        let request = Request::new();
        {
            // Batches line up everywhere in the same order, and come to the shard in it: so no two wait for each other.
            let _order = shard.order_of_groups();
            let members: Result<Vec<Member>, ChangeError> = self.members.iter().map(line_up_member).collect();
            let members = match members {
                Ok(members) => members,
                // Those that are lined up give up their places.
                Err(error) => return Change::decided(Err(error), drop),
            };
            let group = GroupRequest::new(members, request.clone(), firsts.clone());
            shard.send(Control::Group(Box::new(group)));
        }
        Change::by_shard(request, shard, first.name.clone(), drop)
    }

    fn begin_in_memory(&self, firsts: &Arc<Mutex<Vec<u64>>>) -> Change<()> {
        let mut firsts = firsts.lock().expect("no panic while the lock is held");
        for (file, payloads) in &self.members {
            let channel = file.channel();
            loop {
                match channel.append_batch(payloads, channel.clock.wall_us(), None) {
                    Ok((reserved, _)) => break firsts.push(reserved.first.0),
                    // Another producer is making its copy.
                    Err(Refusal::Full | Refusal::OtherSeq(_)) => crate::sync::scheduled::yield_now(),
                    Err(Refusal::Closed) => {
                        let closed = AppendError::Closed { channel: channel.name.clone() };
                        return Change::decided(Err(closed.into()), drop);
                    }
                }
            }
        }
        Change::decided(Ok(0), drop)
    }
}

fn line_up_member((file, payloads): &(RedexFile, Vec<Vec<u8>>)) -> Result<Member, ChangeError> {
    let channel = file.channel();
    let name = || channel.name.clone();
    let slot = channel.persistence().expect("looked at before").slot;
    match line_up(channel, Waiting::Grouped, true) {
        Ok(ticket) => Ok(Member::new(channel.clone(), slot, payloads.clone(), ticket)),
        Err(Refused::TooMuch) => Err(AppendError::Full { channel: name() }.into()),
        Err(Refused::Closed) => Err(AppendError::Closed { channel: name() }.into()),
    }
}

/// The future of [`Batch::commit`]. The batch is appended by the call; dropping this cancels nothing.
#[derive(Debug)]
#[must_use = "the batch is appended, but whether it was refused and when it is durable only the future tells"]
pub struct CommitBatch {
    change: Change<()>,
    /// Sequence of each channel's first event.
    firsts: Arc<Mutex<Vec<u64>>>,
    order: Vec<(usize, usize)>,
}

impl CommitBatch {
    /// Waits on this thread, without a runtime. Must not be called from within an asynchronous task.
    pub fn wait(self) -> Result<Vec<u64>, ChangeError> {
        self.change.wait().map(|()| seqs(&self.firsts, &self.order))
    }
}

impl Future for CommitBatch {
    type Output = Result<Vec<u64>, ChangeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        Pin::new(&mut this.change).poll(cx).map_ok(|()| seqs(&this.firsts, &this.order))
    }
}

fn seqs(firsts: &Mutex<Vec<u64>>, order: &[(usize, usize)]) -> Vec<u64> {
    let firsts = firsts.lock().expect("no panic while the lock is held");
    order.iter().map(|(member, index)| firsts[*member] + *index as u64).collect()
}
