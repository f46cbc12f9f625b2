//! The power cut: what of everything not durable stays.

use super::{Flight, State, Work, WriteFault};
use crate::io::sim::chance::Style;

impl State {
    /// Takes the power away, picks what survives, and gives the power back.
    pub(in crate::io::sim) fn power_cut(&mut self) {
        self.land_flights();
        self.settle();
        self.handles.clear();
        self.sweep();
        self.boot += 1;
        self.is_off = false;
        (self.off_at, self.off_kind) = (None, None);
        self.phase = None;
        self.record("power cut", &[self.boot], true);
    }

    /// Lets the process die: the disk goes on, so every write in flight lands, and nothing is lost.
    pub(in crate::io::sim) fn kill(&mut self) {
        self.land_flights();
        self.handles.clear();
        for inode in self.inodes.values_mut() {
            inode.open = 0;
        }
        self.boot += 1;
        self.is_off = false;
        (self.off_at, self.off_kind) = (None, None);
        self.phase = None;
        self.record("kill", &[self.boot], true);
    }

    /// Makes every write in flight an effect like others that are not durable, in random order.
    fn land_flights(&mut self) {
        let mut flights: Vec<Flight> = std::mem::take(&mut self.flights).into_values().collect();
        while !flights.is_empty() {
            let flight = self.chance.take(&mut flights);
            let Work::Write { offset, data, fault, .. } = flight.work else { continue };
            let fault = fault.filter(|fault| *fault != WriteFault::Error);
            // A file without name or handle is gone already; one without room takes nothing.
            if self.inodes.contains_key(&flight.inode) {
                let _no_room = self.finish_write(flight.inode, offset, data, false, fault);
            }
        }
    }

    fn settle(&mut self) {
        let oldest = self.inodes.values().filter_map(|inode| inode.content.oldest()).chain(self.names.oldest()).min();
        let (oldest, newest) = (oldest.unwrap_or(self.order), self.order);
        let common = self.chance.happens(0.6).then(|| Style::draw(&mut self.chance, oldest, newest));
        let tear = self.options.tear_within_sector;
        for inode in self.inodes.values_mut().filter(|inode| !inode.content.is_durable()) {
            let style = common.unwrap_or_else(|| Style::draw(&mut self.chance, oldest, newest));
            inode.content.settle(style, tear, &mut self.chance);
        }
        let own = common.is_none() || self.chance.happens(0.5);
        let style = common.filter(|_| !own).unwrap_or_else(|| Style::draw(&mut self.chance, oldest, newest));
        self.names.settle(style, self.options.rename_may_leave_both, &mut self.chance);
    }

    /// Forgets what no name leads to.
    fn sweep(&mut self) {
        for inode in self.inodes.values_mut() {
            (inode.links, inode.open) = (0, 0);
        }
        for (path, file) in self.names.sweep() {
            let inode = self.inode(file);
            inode.links += 1;
            inode.path = path;
        }
        self.inodes.retain(|_, inode| inode.links > 0);
    }
}
