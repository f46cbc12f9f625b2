//! Batches over several channels: their events go into one commit.
//!
//! ```text
//!  each channel's backlog:  .. earlier appends .. | the group's place | later appends ..
//!    -> all places are first: the shard appends the group's events, channel by channel
//!    -> commits stop in front of them in each channel, until one has room for all at once
//! ```
//!
//! A place in the backlog keeps the order of calls, and keeps a channel from being closed before its turn. Only the shard
//! appends a group's events; so it knows where they lie before it plans the commit that they go into.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shard;
use super::active::Position;
use super::handle::Slot;
use super::plan::Plan;
use crate::append::Published;
use crate::append::backlog::{Denied, Ticket, relieve, wake_who_waits_for_the_end};
use crate::channel::Channel;
use crate::error::{AppendError, ChangeError};
use crate::ids::{Lsn, Seq};
use crate::request::Request;
use crate::sync::scheduled::Mutex;
use crate::tail::Refusal;

/// What a batch has for one channel.
#[derive(Debug)]
pub struct Member {
    channel: Arc<Channel>,
    slot: Slot,
    payloads: Vec<Vec<u8>>,
    /// Its place in the backlog.
    ticket: Arc<Ticket>,
    /// Where its events lie, once they are appended.
    range: Option<(Seq, Seq)>,
}

impl Member {
    /// Events of a channel, with their place in its backlog.
    pub fn new(channel: Arc<Channel>, slot: Slot, payloads: Vec<Vec<u8>>, ticket: Arc<Ticket>) -> Self {
        Self { channel, slot, payloads, ticket, range: None }
    }
}

impl Drop for Member {
    /// A place that nobody needs is given up.
    fn drop(&mut self) {
        if self.range.is_none() {
            self.channel.backlog.give_up(&self.ticket);
            relieve(&self.channel);
            wake_who_waits_for_the_end(&self.channel);
        }
    }
}

/// A batch that is to be appended.
#[derive(Debug)]
pub struct GroupRequest {
    members: Vec<Member>,
    request: Request,
    /// Sequence of each member's first event.
    firsts: Arc<Mutex<Vec<u64>>>,
    /// Whether its events stand in front of commits.
    appended: bool,
}

impl GroupRequest {
    /// A batch whose members are lined up.
    pub fn new(members: Vec<Member>, request: Request, firsts: Arc<Mutex<Vec<u64>>>) -> Self {
        Self { members, request, firsts, appended: false }
    }

    /// Whether some of its events are appended: then it is not refused any more.
    fn has_begun(&self) -> bool {
        self.members.iter().any(|member| member.range.is_some())
    }
}

/// Batches, the first under way.
#[derive(Debug, Default)]
pub struct Groups {
    waiting: VecDeque<GroupRequest>,
    /// Those whose commit is not durable yet.
    committed: VecDeque<(Lsn, Request)>,
}

impl Groups {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.committed.is_empty()
    }

    /// Whether one waits for a commit.
    pub fn wants_commit(&self) -> bool {
        self.waiting.front().is_some_and(|group| group.appended)
    }

    /// Whether a batch is half appended, and has yet to append to this channel.
    pub fn has_yet_to_append(&self, slot: Slot) -> bool {
        let front = self.waiting.front().filter(|group| group.has_begun() && !group.appended);
        front.is_some_and(|group| group.members.iter().any(|member| member.slot == slot && member.range.is_none()))
    }

    /// Lines one up.
    pub fn push(&mut self, group: GroupRequest) {
        self.waiting.push_back(group);
    }

    /// Refuses one that comes too late.
    pub fn refuse(group: &GroupRequest) {
        let channel = group.members[0].channel.name.clone();
        group.request.decide(Err(ChangeError::Closed { channel }));
    }

    /// Commits below are durable.
    pub fn durable(&mut self, lsn: Lsn) {
        while self.committed.front().is_some_and(|(committed, _)| *committed < lsn) {
            let (_, request) = self.committed.pop_front().expect("there is a front");
            request.decide(Ok(0));
        }
    }
}

impl Shard {
    /// Appends the first batch once it is its turn in every channel. Says whether it did something.
    pub(super) fn step_groups(&mut self) -> bool {
        let Some(mut group) = self.groups.waiting.pop_front() else { return false };
        if group.appended {
            self.groups.waiting.push_front(group);
            return false;
        }
        let begun = group.has_begun();
        if let Some(error) = group.members.iter().find_map(refusal).filter(|_| !begun) {
            group.request.decide(Err(error.into()));
            return true;
        }
        let first_everywhere = begun
            || group.members.iter().all(|member| {
                relieve(&member.channel);
                member.channel.backlog.is_first(&member.ticket)
            });
        if first_everywhere {
            group.appended = group.members.iter_mut().all(|member| self.append_member(member));
        }
        if group.appended {
            let firsts = group.members.iter().map(|member| member.range.expect("appended").0.0).collect();
            *group.firsts.lock().expect("no panic while the lock is held") = firsts;
            self.commit_now = true;
        }
        let appended = group.appended;
        self.groups.waiting.push_front(group);
        appended
    }

    /// Appends what a batch has for one channel. `false` while there is no room.
    fn append_member(&mut self, member: &mut Member) -> bool {
        if member.range.is_some() {
            return true;
        }
        // The message that opens it came before.
        let Some(active) = self.active.get_mut(member.slot as usize).and_then(Option::as_mut) else { return false };
        let (channel, payloads) = (&member.channel, &member.payloads);
        let mut range = None;
        channel.backlog.serve(&member.ticket, || {
            let appended = channel.append_batch(payloads, channel.clock.wall_us(), None);
            let (reserved, _) = match appended {
                Ok(reserved) => reserved,
                Err(Refusal::Closed) => return Some(Err(Denied::Closed)),
                Err(Refusal::Full | Refusal::OtherSeq(_)) => return None,
            };
            let end = Seq(reserved.first.0 + payloads.len() as u64);
            range = Some((reserved.first, end));
            Some(Ok(Published { first: reserved.first, end, wait_below: None, resets: reserved.resets }))
        });
        member.range = range;
        active.group = range;
        if range.is_some() {
            relieve(channel);
            wake_who_waits_for_the_end(channel);
        }
        range.is_some()
    }

    /// Puts the first batch into the plan, if it is next in each of its channels and there is room for all of it.
    pub(super) fn plan_group(&mut self, plan: &mut Plan, marks: &mut Vec<(Slot, Position)>) -> Option<GroupRequest> {
        let group = self.groups.waiting.front().filter(|group| group.appended)?;
        let mut size = 0;
        for member in &group.members {
            let (first, end) = member.range.expect("appended");
            let active = self.active[member.slot as usize].as_mut().expect("its channels are open");
            let there = active.channel.tail.published() >= end && active.at.seq == first && !active.untold;
            if !there {
                return None;
            }
            size += Plan::size_of_group(active, end)?;
        }
        plan.group_lacks_room = size > plan.room;
        if plan.group_lacks_room {
            return None;
        }
        let group = self.groups.waiting.pop_front().expect("there is a front");
        for member in &group.members {
            let active = self.active[member.slot as usize].as_mut().expect("its channels are open");
            let (_, end) = active.group.take().expect("it stands in front of the commit");
            plan.add_group(active, end);
            marks.push((member.slot, active.at));
            if !active.queued && !active.deferred {
                // What stands behind it can go on.
                active.queued = true;
                self.queue.push_back(member.slot);
            }
        }
        Some(group)
    }

    /// The batch is in this commit.
    pub(super) fn group_committed(&mut self, group: &GroupRequest, lsn: Lsn) {
        self.groups.committed.push_back((lsn, group.request.clone()));
    }
}

/// Why a batch cannot be appended any more.
fn refusal(member: &Member) -> Option<AppendError> {
    let channel = &member.channel;
    let name = || channel.name.clone();
    let shard = &channel.persistence()?.shard;
    if shard.no_space() {
        return Some(AppendError::NoSpace { channel: name() });
    }
    let given_up = channel.tail.is_closed() || member.ticket.outcome().is_some();
    given_up.then(|| AppendError::Closed { channel: name() })
}
