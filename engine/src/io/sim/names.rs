//! The directory tree: which names are there, and which of them a power cut may take or bring back.
//!
//! Each change of a directory survives on its own unless the directory was synced, which is more than journaling file
//! systems allow themselves and no more than they owe. A rename within a directory is one change. One across two is
//! two changes, of which the removal never survives without the new name; it waits for the new name even when its own
//! directory is synced first.

use super::chance::{Chance, Style};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// A directory of this number.
    Dir(u64),
    /// A file of this number.
    File(u64),
}

/// Number of the base directory.
const ROOT: u64 = 0;

type Entries = BTreeMap<String, Node>;

#[derive(Clone, Debug, Default)]
struct Dir {
    live: Entries,
    durable: Entries,
}

/// A change of directories that is not durable.
#[derive(Clone, Debug)]
struct Change {
    order: u64,
    dir: u64,
    kind: Kind,
    node: Node,
}

#[derive(Clone, Debug)]
enum Kind {
    /// A new name, replacing what had it.
    Link(String),
    /// A name goes.
    Unlink(String),
    /// A name goes because of the link of the same order; `synced` once its directory was.
    Moved { name: String, synced: bool },
    /// Within one directory.
    Rename { from: String, to: String },
}

/// All names of the disk.
#[derive(Clone, Debug)]
pub(super) struct Names {
    dirs: BTreeMap<u64, Dir>,
    changes: Vec<Change>,
    next_dir: u64,
}

impl Names {
    /// An empty base directory.
    pub(super) fn new() -> Self {
        Self { dirs: BTreeMap::from([(ROOT, Dir::default())]), changes: Vec::new(), next_dir: ROOT + 1 }
    }

    /// What a path stands for.
    pub(super) fn find(&self, path: &str) -> io::Result<Node> {
        let mut node = Node::Dir(ROOT);
        for part in path.split('/').filter(|_| !path.is_empty()) {
            let Node::Dir(dir) = node else { return Err(os_error(libc::ENOTDIR)) };
            check_name(part)?;
            node = *self.dirs[&dir].live.get(part).ok_or_else(|| os_error(libc::ENOENT))?;
        }
        Ok(node)
    }

    /// The file at a path.
    pub(super) fn find_file(&self, path: &str) -> io::Result<u64> {
        match self.find(path)? {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(os_error(libc::EISDIR)),
        }
    }

    /// The directory at a path.
    pub(super) fn find_dir(&self, path: &str) -> io::Result<u64> {
        match self.find(path)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(os_error(libc::ENOTDIR)),
        }
    }

    /// The directory that holds (or would hold) a path, and the name in it.
    fn place<'a>(&self, path: &'a str) -> io::Result<(u64, &'a str)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        check_name(name)?;
        Ok((self.find_dir(dir)?, name))
    }

    /// Checks that a new name may be made.
    pub(super) fn check_free(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        if self.dirs[&dir].live.contains_key(name) { Err(os_error(libc::EEXIST)) } else { Ok(()) }
    }

    /// Names a new file.
    pub(super) fn add_file(&mut self, order: u64, path: &str, file: u64) -> io::Result<()> {
        self.add(order, path, Node::File(file))
    }

    /// Makes a directory.
    pub(super) fn add_dir(&mut self, order: u64, path: &str) -> io::Result<()> {
        let dir = self.next_dir;
        self.add(order, path, Node::Dir(dir))?;
        self.next_dir += 1;
        self.dirs.insert(dir, Dir::default());
        Ok(())
    }

    fn add(&mut self, order: u64, path: &str, node: Node) -> io::Result<()> {
        self.check_free(path)?;
        let (dir, name) = self.place(path)?;
        self.entries(dir).insert(name.to_owned(), node);
        self.changes.push(Change { order, dir, kind: Kind::Link(name.to_owned()), node });
        Ok(())
    }

    /// Names a new file durably, making the directories it lies in.
    pub(super) fn add_durable_file(&mut self, path: &str, file: u64) -> io::Result<()> {
        let (mut dir, parts): (u64, Vec<&str>) = (ROOT, path.split('/').collect());
        let (name, folders) = parts.split_last().expect("split gives a part");
        for part in folders {
            let next = match self.dirs[&dir].live.get(*part) {
                Some(Node::Dir(next)) => *next,
                Some(Node::File(_)) => return Err(os_error(libc::ENOTDIR)),
                None => self.next_dir,
            };
            if next == self.next_dir {
                self.next_dir += 1;
                self.dirs.insert(next, Dir::default());
            }
            self.put_durably(dir, part, Node::Dir(next))?;
            dir = next;
        }
        self.put_durably(dir, name, Node::File(file))
    }

    fn put_durably(&mut self, dir: u64, name: &str, node: Node) -> io::Result<()> {
        check_name(name)?;
        let dir = self.dirs.get_mut(&dir).expect("directory exists");
        dir.live.insert(name.to_owned(), node);
        dir.durable.insert(name.to_owned(), node);
        Ok(())
    }

    /// Removes the name of a file and returns the file.
    pub(super) fn unlink(&mut self, order: u64, path: &str) -> io::Result<u64> {
        let file = self.find_file(path)?;
        let (dir, name) = self.place(path)?;
        self.entries(dir).remove(name);
        self.changes.push(Change { order, dir, kind: Kind::Unlink(name.to_owned()), node: Node::File(file) });
        Ok(file)
    }

    /// Checks that a directory may be removed.
    pub(super) fn check_removable(&self, path: &str) -> io::Result<u64> {
        let dir = self.find_dir(path)?;
        if dir == ROOT || !self.dirs[&dir].live.is_empty() { Err(os_error(libc::ENOTEMPTY)) } else { Ok(dir) }
    }

    /// Removes the name of an empty directory.
    pub(super) fn remove_dir(&mut self, order: u64, path: &str) -> io::Result<()> {
        let node = Node::Dir(self.check_removable(path)?);
        let (dir, name) = self.place(path)?;
        self.entries(dir).remove(name);
        self.changes.push(Change { order, dir, kind: Kind::Unlink(name.to_owned()), node });
        Ok(())
    }

    /// Checks that a file may be renamed; the file that will be replaced, if any.
    pub(super) fn check_rename(&self, from: &str, to: &str) -> io::Result<(u64, Option<u64>)> {
        let file = self.find_file(from)?;
        let (dir, name) = self.place(to)?;
        match self.dirs[&dir].live.get(name) {
            Some(Node::Dir(_)) => Err(os_error(libc::EISDIR)),
            Some(&Node::File(old)) => Ok((file, Some(old))),
            None => Ok((file, None)),
        }
    }

    /// Renames a file that [`Names::check_rename`] found; the two paths differ.
    pub(super) fn rename(&mut self, order: u64, from: &str, to: &str) -> io::Result<()> {
        let node = self.find(from)?;
        let ((from_dir, from), (dir, to)) = (self.place(from)?, self.place(to)?);
        self.entries(from_dir).remove(from);
        self.entries(dir).insert(to.to_owned(), node);
        let (from, to) = (from.to_owned(), to.to_owned());
        if from_dir == dir {
            self.changes.push(Change { order, dir, kind: Kind::Rename { from, to }, node });
        } else {
            self.changes.push(Change { order, dir, kind: Kind::Link(to), node });
            let kind = Kind::Moved { name: from, synced: false };
            self.changes.push(Change { order, dir: from_dir, kind, node });
        }
        Ok(())
    }

    /// Names in a directory.
    pub(super) fn list(&self, path: &str) -> io::Result<impl Iterator<Item = (&str, Node)>> {
        let dir = self.find_dir(path)?;
        Ok(self.dirs[&dir].live.iter().map(|(name, node)| (name.as_str(), *node)))
    }

    /// Makes a directory's entries durable. Returns the nodes whose changes became so.
    pub(super) fn sync(&mut self, path: &str) -> io::Result<Vec<Node>> {
        let dir = self.find_dir(path)?;
        let linked: BTreeSet<u64> = self.changes.iter().filter(|change| change.dir == dir).map(|c| c.order).collect();
        let mut settled = Vec::new();
        let mut left: Vec<Change> = Vec::new();
        for mut change in std::mem::take(&mut self.changes) {
            let waits = left.iter().any(|earlier| earlier.order == change.order);
            match &mut change.kind {
                // Its own link is synced now; so its removal, synced before, takes place.
                Kind::Moved { synced, .. } if change.dir != dir && !(*synced && linked.contains(&change.order)) => {
                    left.push(change);
                }
                Kind::Moved { synced, .. } if waits => {
                    *synced = true;
                    left.push(change);
                }
                Kind::Moved { .. } => settled.push(change),
                _ if change.dir == dir => {
                    forget_removal(&mut left, &change);
                    settled.push(change);
                }
                _ => left.push(change),
            }
        }
        self.changes = left;
        for change in &settled {
            self.apply(change);
        }
        Ok(settled.iter().map(|change| change.node).collect())
    }

    /// Applies a change to the durable entries.
    fn apply(&mut self, change: &Change) {
        let Some(dir) = self.dirs.get_mut(&change.dir) else { return };
        let entries = &mut dir.durable;
        match &change.kind {
            Kind::Link(name) => {
                entries.insert(name.clone(), change.node);
            }
            Kind::Unlink(name) => {
                if entries.get(name) == Some(&change.node) {
                    entries.remove(name);
                }
            }
            Kind::Moved { name, .. } => remove_node(entries, name, change.node),
            Kind::Rename { from, to } => {
                remove_node(entries, from, change.node);
                entries.insert(to.clone(), change.node);
            }
        }
    }

    /// Whether a power cut could bring a file back.
    pub(super) fn may_return(&self, file: u64) -> bool {
        let node = Node::File(file);
        self.changes.iter().any(|change| change.node == node)
            || self.dirs.values().any(|dir| dir.durable.values().any(|entry| *entry == node))
    }

    /// Order of the oldest change that is not durable.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.changes.first().map(|change| change.order)
    }

    /// Picks which changes survive; what does not is forgotten. `both` says whether a rename across directories may
    /// leave both names.
    pub(super) fn settle(&mut self, style: Style, both: bool, chance: &mut Chance) {
        let newest = self.changes.last().map_or(0, |change| change.order);
        let pending: BTreeSet<u64> =
            self.changes.iter().filter(|c| matches!(c.kind, Kind::Link(_))).map(|c| c.order).collect();
        let mut kept = BTreeSet::new();
        for change in std::mem::take(&mut self.changes) {
            let survives = match change.kind {
                Kind::Moved { .. } if pending.contains(&change.order) && !kept.contains(&change.order) => false,
                Kind::Moved { synced, .. } if synced || !both => true,
                _ => style.keeps(chance, change.order, newest),
            };
            if survives {
                kept.insert(change.order);
                self.apply(&change);
            }
        }
        for dir in self.dirs.values_mut() {
            if dir.live != dir.durable {
                dir.live.clone_from(&dir.durable);
            }
        }
    }

    /// Forgets directories that no path leads to; the files that one does lead to, each path of each.
    pub(super) fn sweep(&mut self) -> Vec<(String, u64)> {
        let (mut files, mut reached) = (Vec::new(), BTreeSet::from([ROOT]));
        let mut open = vec![(String::new(), ROOT)];
        while let Some((prefix, dir)) = open.pop() {
            for (name, node) in &self.dirs[&dir].live {
                let path = format!("{prefix}{name}");
                match *node {
                    Node::File(file) => files.push((path, file)),
                    Node::Dir(next) => {
                        reached.insert(next);
                        open.push((path + "/", next));
                    }
                }
            }
        }
        self.dirs.retain(|dir, _| reached.contains(dir));
        files.sort_unstable();
        files
    }

    /// Every path of every file, sorted.
    pub(super) fn files(&self) -> Vec<String> {
        let (mut files, mut open) = (Vec::new(), vec![(String::new(), ROOT)]);
        while let Some((prefix, dir)) = open.pop() {
            for (name, node) in &self.dirs[&dir].live {
                match *node {
                    Node::File(_) => files.push(format!("{prefix}{name}")),
                    Node::Dir(next) => open.push((format!("{prefix}{name}/"), next)),
                }
            }
        }
        files.sort_unstable();
        files
    }

    /// Directories, the base included.
    pub(super) fn dir_count(&self) -> usize {
        self.dirs.len()
    }

    fn entries(&mut self, dir: u64) -> &mut Entries {
        &mut self.dirs.get_mut(&dir).expect("directory exists").live
    }
}

/// A name that is durable again needs no removal of long ago.
fn forget_removal(waiting: &mut Vec<Change>, change: &Change) {
    let (Kind::Link(name) | Kind::Rename { to: name, .. }) = &change.kind else { return };
    waiting.retain(|earlier| {
        let removes = matches!(&earlier.kind, Kind::Moved { name: old, .. } if old == name);
        !(removes && earlier.dir == change.dir && earlier.node == change.node)
    });
}

/// Removes the name that a rename gave up, or the one that the node still has if an earlier rename was lost.
fn remove_node(entries: &mut Entries, name: &str, node: Node) {
    if entries.get(name) == Some(&node) {
        entries.remove(name);
    } else if let Some(other) = entries.iter().find(|entry| *entry.1 == node).map(|entry| entry.0.clone()) {
        entries.remove(&other);
    }
}

fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." { Err(os_error(libc::EINVAL)) } else { Ok(()) }
}

/// The error a kernel would give.
pub(super) fn os_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}
