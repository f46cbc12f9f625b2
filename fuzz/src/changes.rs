//! What is done to channels beside appends: heads trimmed, suffixes cut off, channels reset, deleted and made again, settings
//! changed, and appends that expect a sequence.

use std::task::Poll;

use redex::{AppendError, Change, ChangeError, RedexFile};

use crate::faults;
use crate::model::{Channel, Pending, Wanted};
use crate::settings;
use crate::workload::{Run, STEPS_MAX, poll};

impl Run<'_> {
    /// Some change, drawn.
    pub(crate) fn change(&mut self, channel: usize) -> Result<(), String> {
        let is_changing = self.world.channels[channel].pending.is_some();
        match self.dice().within(0..100) {
            0..35 => self.trim(channel),
            35..50 => self.sweep(channel),
            50..55 => self.set_policy(channel),
            55..60 => self.set_retention(channel),
            _ if is_changing => self.wait_for_pending(channel),
            60..80 => self.cut_off(channel),
            80..88 => self.reset(channel),
            _ => self.delete(channel),
        }
    }

    fn trim(&mut self, channel: usize) -> Result<(), String> {
        let model = &self.world.channels[channel];
        let (head, next) = (model.head, model.next());
        let to = if self.dice().one_in(4) { next } else { head + self.dice().within(0..next - head + 1) };
        let model = &mut self.world.channels[channel];
        model.trim_wanted = model.trim_wanted.max(to);
        let cuts = model.cuts;
        let change = self.files[channel].trim_head(to);
        match self.drive_change("trim_head", change)? {
            Some(head) if self.world.channels[channel].cuts == cuts && head < to => {
                Err(format!("trim_head to {to} resolved to {head}"))
            }
            _ => self.observe(),
        }
    }

    fn sweep(&mut self, channel: usize) -> Result<(), String> {
        let model = &self.world.channels[channel];
        let (next, cuts, limits) = (model.next(), model.cuts, model.config.retention());
        let change = self.files[channel].sweep_retention();
        let Some(head) = self.drive_change("sweep_retention", change)? else { return Ok(()) };
        // Readers hold back as much again at the most.
        let most = limits.max_events.map(|limit| if self.tail.is_some() { 2 * limit } else { limit });
        let broken = most.is_some_and(|most| next.saturating_sub(head) > most);
        match broken && self.world.channels[channel].cuts == cuts {
            true => Err(format!("{head}..{next} is left by a sweep to {limits:?}")),
            false => Ok(()),
        }
    }

    fn set_policy(&mut self, channel: usize) -> Result<(), String> {
        let policy = settings::policy(self.dice());
        let model = &mut self.world.channels[channel];
        model.config = model.config.clone().with_fsync_policy(policy);
        model.bound_from = model.next();
        let change = self.files[channel].set_fsync_policy(policy);
        self.drive_change("set_fsync_policy", change).map(drop)
    }

    fn set_retention(&mut self, channel: usize) -> Result<(), String> {
        let retention = settings::retention(self.dice());
        let model = &mut self.world.channels[channel];
        model.config = model.config.clone().with_retention(retention);
        model.limits.push(retention);
        let change = self.files[channel].set_retention(retention);
        self.drive_change("set_retention", change).map(drop)
    }

    fn cut_off(&mut self, channel: usize) -> Result<(), String> {
        let model = &self.world.channels[channel];
        let (head, next) = (model.head, model.next());
        let end = match self.dice().within(0..4) {
            0 => head,
            1 => next.saturating_sub(1).max(head),
            _ => head + self.dice().within(0..next - head + 1),
        };
        let mut change = self.files[channel].truncate_suffix(end);
        match poll(&mut change) {
            Poll::Ready(Ok(_)) if end == next => return self.observe(),
            Poll::Ready(Ok(_)) => return Err(format!("a cut at {end} of {next} takes no time")),
            Poll::Ready(Err(error)) => return self.excuse("truncate_suffix", &error),
            Poll::Pending => {}
        }
        self.begin(channel, Pending::CutOff(end, Some(change)))
    }

    fn reset(&mut self, channel: usize) -> Result<(), String> {
        let change = self.store.redex().reset_channel(&*self.world.channels[channel].name);
        self.begin(channel, Pending::Reset(Some(change)))
    }

    fn delete(&mut self, channel: usize) -> Result<(), String> {
        let change = self.store.redex().delete_channel(&*self.world.channels[channel].name);
        self.begin(channel, Pending::Delete(Some(change)))
    }

    fn begin(&mut self, channel: usize, pending: Pending) -> Result<(), String> {
        self.world.channels[channel].pending = Some(pending);
        self.observe()?;
        if self.dice().percent(50) { self.wait_for_pending(channel) } else { Ok(()) }
    }

    /// Steps the store until the change of a channel has come to its end.
    fn wait_for_pending(&mut self, channel: usize) -> Result<(), String> {
        for step in 0..STEPS_MAX {
            faults::make_room(self.world, step);
            match &self.world.channels[channel].pending {
                None => return self.end_of_deleted(channel),
                Some(pending) if pending.is_over() || self.world.disk.is_off() => return Ok(()),
                Some(_) => self.step("a change")?,
            }
        }
        Err(format!("a change of {} waits for ever", self.world.channels[channel].name))
    }

    /// Subscriptions of a deleted channel end.
    fn end_of_deleted(&mut self, channel: usize) -> Result<(), String> {
        if self.world.channels[channel].is_there {
            return Ok(());
        }
        match self.tail.take_if(|follower| follower.channel == channel) {
            Some(mut follower) => follower.ends(),
            None => Ok(()),
        }
    }

    /// Opens a name again whose channel was deleted: it is a new one.
    pub(crate) fn open_again(&mut self, channel: usize) -> Result<(), String> {
        self.end_of_deleted(channel)?;
        let config = settings::channel(self.dice());
        let model = &self.world.channels[channel];
        match self.store.redex().open_file(&*model.name, config.clone()) {
            Ok(file) if file.next_seq() > 0 => Err(format!("{}: deleted, and it has events", model.name)),
            Ok(file) => {
                let model = &mut self.world.channels[channel];
                (model.limits, model.config) = (vec![config.retention()], config);
                model.opened(&file);
                self.files[channel] = file;
                self.observe()
            }
            Err(error) => self.excuse("open_file", &error),
        }
    }

    /// Appends if the next sequence is the expected one, which it is or is not.
    pub(crate) fn append_if(
        &mut self,
        channel: usize,
        file: &RedexFile,
        wanted: &Wanted,
        payload: &[u8],
    ) -> Result<(), String> {
        let next = self.world.channels[channel].next();
        let expected = if self.dice().one_in(3) { next + self.dice().within(1..4) } else { next };
        let settled = self.world.channels[channel].waiting.is_empty() && self.world.channels[channel].pending.is_none();
        if !settled {
            return Ok(());
        }
        let mut future = file.append_if(expected, payload);
        if file.published() > next {
            self.world.channels[channel].waiting.push_back(wanted.clone());
        }
        self.observe()?;
        for step in 0..STEPS_MAX {
            faults::make_room(self.world, step);
            let polled = poll(&mut future);
            if file.published() > self.world.channels[channel].next() {
                self.world.channels[channel].waiting.push_back(wanted.clone());
            }
            self.observe()?;
            match polled {
                Poll::Ready(Ok(seq)) if seq == expected && self.world.channels[channel].has(seq, wanted) => {
                    return Ok(());
                }
                Poll::Ready(Ok(seq)) => return Err(format!("append_if({expected}) got {seq}")),
                Poll::Ready(Err(AppendError::OtherSeq { actual, .. })) if expected != next && actual == next => {
                    return Ok(());
                }
                Poll::Ready(Err(AppendError::NoSpace { .. })) if self.world.faults => return Ok(()),
                Poll::Ready(Err(error)) => return self.excuse("append_if", &error),
                Poll::Pending => {}
            }
            // Where it waits for room, the store's step may publish it.
            if file.published() == next {
                self.world.channels[channel].waiting.push_back(wanted.clone());
                let stepped = self.step("append_if");
                let model = &mut self.world.channels[channel];
                if model.next() == next {
                    model.waiting.clear();
                }
                stepped?;
            } else {
                self.step("append_if")?;
            }
        }
        Err("append_if waits for ever".to_owned())
    }

    /// Polls a change until it resolves, or drops it: it is made all the same. Gives what it resolved to.
    fn drive_change<T>(&mut self, what: &'static str, mut change: Change<T>) -> Result<Option<T>, String> {
        let patient = self.dice().percent(60);
        for step in 0..STEPS_MAX {
            faults::make_room(self.world, step);
            let polled = poll(&mut change);
            self.observe()?;
            match polled {
                Poll::Ready(Ok(value)) => return Ok(Some(value)),
                Poll::Ready(Err(error)) => return self.excuse(what, &error).map(|()| None),
                Poll::Pending if !patient => return Ok(None),
                Poll::Pending => self.step(what)?,
            }
        }
        Err(format!("{what} waits for ever"))
    }
}

/// Takes into the model what a change has come to; says whether the channel was deleted.
///
/// # Errors
///
/// What is not as it must be.
pub fn look(model: &mut Channel, file: &RedexFile) -> Result<bool, String> {
    if !model.is_there {
        return Ok(false);
    }
    let epoch = file.cursor().epoch;
    let (end, answered): (u64, Option<Result<(), ChangeError>>) = match &mut model.pending {
        None if epoch != model.epoch => return Err(format!("{}: another epoch, and nothing was cut off", model.name)),
        None => return Ok(false),
        Some(Pending::CutOff(end, change)) => {
            (*end, change.as_mut().and_then(|change| ready(poll(change).map_ok(drop))))
        }
        Some(Pending::Reset(change) | Pending::Delete(change)) => {
            (0, change.as_mut().and_then(|change| ready(poll(change))))
        }
    };
    let deletes = matches!(model.pending, Some(Pending::Delete(_)));
    match answered {
        Some(Ok(())) if deletes => {
            model.deleted();
            return Ok(true);
        }
        Some(Ok(())) if epoch == model.epoch => return Err(format!("{}: a cut that has not come", model.name)),
        // Refused, or the shard has failed: then it may have come or not.
        Some(Err(_)) if epoch == model.epoch => {
            forget_answer(model);
            return Ok(false);
        }
        _ => {}
    }
    if !deletes && epoch != model.epoch {
        model.cut_off(end, epoch);
    }
    Ok(false)
}

fn ready<T>(polled: Poll<T>) -> Option<T> {
    match polled {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// The change has its answer, an error; it stays pending in the model until the next life, where either is right.
fn forget_answer(model: &mut Channel) {
    match model.pending.as_mut().expect("it was answered") {
        Pending::CutOff(_, change) => *change = None,
        Pending::Reset(change) | Pending::Delete(change) => *change = None,
    }
}
