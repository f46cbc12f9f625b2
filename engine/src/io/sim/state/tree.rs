//! Names: opening, making, renaming, removing, and making that durable.

use super::{Handle, Inode, State, hash};
use crate::io::sim::content::Content;
use crate::io::sim::names::{Node, os_error};
use crate::io::sim::options::FaultKind;
use crate::io::sim::steps::Action;
use crate::io::{BLOCK_SIZE, OpenMode};
use std::collections::BTreeSet;
use std::io;

impl State {
    pub(in crate::io::sim) fn open(&mut self, path: &str, mode: OpenMode) -> io::Result<u64> {
        self.check_power()?;
        let inode = if mode == OpenMode::Create { self.create(path)? } else { self.names.find_file(path)? };
        let handle = self.new_id();
        self.handles.insert(handle, Handle { inode, mode });
        self.inode(inode).open += 1;
        Ok(handle)
    }

    fn create(&mut self, path: &str) -> io::Result<u64> {
        self.names.check_free(path)?;
        let power = self.step_at(path, Action::Create)?;
        self.fails(FaultKind::Create, 0.0)?;
        self.check_space(BLOCK_SIZE)?;
        let (inode, order) = (self.new_inode(path), self.next_order());
        self.names.add_file(order, path, inode)?;
        self.record("create", &[hash(path)], true);
        power.answer().map(|()| inode)
    }

    pub(super) fn new_inode(&mut self, path: &str) -> u64 {
        let id = self.new_id();
        let content = Content::new(self.options.sector_size);
        let inode = Inode { content, path: path.to_owned(), links: 1, open: 0, latent: BTreeSet::new() };
        self.inodes.insert(id, inode);
        id
    }

    pub(in crate::io::sim) fn create_dir(&mut self, path: &str) -> io::Result<()> {
        self.check_power()?;
        if path.is_empty() {
            return Err(os_error(libc::EEXIST));
        }
        self.names.check_free(path)?;
        let power = self.step_at(path, Action::Dir)?;
        self.fails(FaultKind::Create, 0.0)?;
        self.check_space(BLOCK_SIZE)?;
        let order = self.next_order();
        self.names.add_dir(order, path)?;
        self.record("create dir", &[hash(path)], true);
        power.answer()
    }

    pub(in crate::io::sim) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.check_power()?;
        let (file, replaced) = self.names.check_rename(from, to)?;
        let power = self.step_at(from, Action::Rename(to))?;
        self.record("rename", &[hash(from), hash(to)], true);
        // As in POSIX: two names of one file stay.
        if replaced != Some(file) {
            let order = self.next_order();
            self.names.rename(order, from, to)?;
            to.clone_into(&mut self.inode(file).path);
            if let Some(old) = replaced {
                self.unlinked(old);
            }
        }
        power.answer()
    }

    pub(in crate::io::sim) fn unlink(&mut self, path: &str) -> io::Result<()> {
        self.check_power()?;
        self.names.find_file(path)?;
        let power = self.step_at(path, Action::Unlink)?;
        let order = self.next_order();
        let file = self.names.unlink(order, path)?;
        self.unlinked(file);
        self.record("unlink", &[hash(path)], true);
        power.answer()
    }

    pub(in crate::io::sim) fn remove_dir(&mut self, path: &str) -> io::Result<()> {
        self.check_power()?;
        self.names.check_removable(path)?;
        let power = self.step_at(path, Action::Unlink)?;
        let order = self.next_order();
        self.names.remove_dir(order, path)?;
        self.record("remove dir", &[hash(path)], true);
        power.answer()
    }

    fn unlinked(&mut self, file: u64) {
        self.inode(file).links -= 1;
    }

    pub(in crate::io::sim) fn sync_dir(&mut self, path: &str) -> io::Result<()> {
        self.check_power()?;
        self.names.find_dir(path)?;
        // Without power nothing is synced, so each change may still survive or not.
        self.step_at(path, Action::SyncDir)?.answer()?;
        let failed = self.fails(FaultKind::SyncDir, self.options.flush_error);
        self.record("sync dir", &[hash(path)], failed.is_ok());
        failed?;
        for node in self.names.sync(path)? {
            if let Node::File(file) = node {
                self.collect(file);
            }
        }
        // A replaced file has no change of its own.
        self.collect_unnamed();
        Ok(())
    }

    /// Forgets a file that nothing can show again.
    pub(super) fn collect(&mut self, file: u64) {
        let unused = self.inodes.get(&file).is_some_and(|inode| inode.links == 0 && inode.open == 0);
        if unused && !self.is_off && !self.names.may_return(file) {
            self.inodes.remove(&file);
        }
    }

    fn collect_unnamed(&mut self) {
        let unnamed = self.inodes.iter().filter(|(_, inode)| inode.links == 0 && inode.open == 0);
        for file in unnamed.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.collect(file);
        }
    }
}
