//! What the engine was doing at a step, for counting power cuts by kind.
//!
//! The disk tells it from path and operation; what it cannot know (an extent, a checkpoint's entry, a seal, a
//! recovery) the test says by a label, see [`SimDisk::set_phase`](super::SimDisk::set_phase).

use std::fmt;

/// What the engine was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepKind {
    /// A write of a journal segment in use.
    JournalWrite,
    /// A flush of any file.
    Flush,
    /// A write of a big batch straight to a dat file; by label only.
    Extent,
    /// A write, or growing, of a channel's file.
    Destage,
    /// Making or writing a checkpoint file.
    CheckpointFile,
    /// The commit that names the checkpoint files; by label only.
    CheckpointEntry,
    /// Taking a journal segment into use.
    Roll,
    /// Sealing a segment: cutting a channel's file to its size.
    Seal,
    /// The commit that moves a head; by label only.
    Trim,
    /// The commit that cuts a suffix off; by label only.
    CutOff,
    /// The commit that deletes a channel; by label only.
    Delete,
    /// Removing a channel's file or directory.
    Remove,
    /// Giving up, or preparing, a journal segment; removing a checkpoint file.
    Recycle,
    /// A rename that is neither roll nor recycle.
    Rename,
    /// Making a directory's entries durable.
    DirSync,
    /// Anything done by a recovery; by label only.
    Recovery,
    /// An upload to the cold store.
    ColdUpload,
    /// Making a manifest of cold segments: write, and rename.
    ColdManifest,
    /// Removing a file of a segment.
    SegmentUnlink,
    /// Deleting an object of the cold store.
    ColdDelete,
    /// All else: `STORE`, `META`, making directories.
    Other,
}

impl StepKind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::JournalWrite,
        Self::Flush,
        Self::Extent,
        Self::Destage,
        Self::CheckpointFile,
        Self::CheckpointEntry,
        Self::Roll,
        Self::Seal,
        Self::Trim,
        Self::CutOff,
        Self::Delete,
        Self::Remove,
        Self::Recycle,
        Self::Rename,
        Self::DirSync,
        Self::Recovery,
        Self::ColdUpload,
        Self::ColdManifest,
        Self::SegmentUnlink,
        Self::ColdDelete,
        Self::Other,
    ];

    /// Name of the kind; also the label that stands for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JournalWrite => "journal write",
            Self::Flush => "flush",
            Self::Extent => "extent",
            Self::Destage => "destage",
            Self::CheckpointFile => "checkpoint file",
            Self::CheckpointEntry => "checkpoint entry",
            Self::Roll => "roll",
            Self::Seal => "seal",
            Self::Trim => "trim",
            Self::CutOff => "cut off",
            Self::Delete => "delete",
            Self::Remove => "remove",
            Self::Recycle => "recycle",
            Self::Rename => "rename",
            Self::DirSync => "dir sync",
            Self::Recovery => "recovery",
            Self::ColdUpload => "cold upload",
            Self::ColdManifest => "cold manifest",
            Self::SegmentUnlink => "segment unlink",
            Self::ColdDelete => "cold delete",
            Self::Other => "other",
        }
    }

    /// The kind of that name, if there is one.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == label)
    }

    /// What doing `action` to `path` looks like from here.
    pub(super) fn of(path: &str, action: Action<'_>) -> Self {
        let place = Place::of(path);
        match action {
            Action::Flush => Self::Flush,
            Action::SyncDir => Self::DirSync,
            Action::Rename(to) => match (place, Place::of(to)) {
                (Place::Spare, Place::Journal) => Self::Roll,
                (Place::Journal, Place::Spare) => Self::Recycle,
                (Place::ColdManifest, _) => Self::ColdManifest,
                _ => Self::Rename,
            },
            Action::Unlink if matches!(place, Place::Journal | Place::Spare | Place::Checkpoint) => Self::Recycle,
            Action::Unlink if place == Place::Channel => Self::SegmentUnlink,
            Action::Unlink if place == Place::ColdManifest => Self::ColdManifest,
            Action::Unlink if path.starts_with("channels/") => Self::Remove,
            Action::Unlink | Action::Dir => Self::Other,
            Action::Cut if place == Place::Channel => Self::Seal,
            Action::Create | Action::Write | Action::Cut => place.change(),
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    Create,
    Write,
    /// A smaller size.
    Cut,
    Flush,
    /// To this path.
    Rename(&'a str),
    Unlink,
    SyncDir,
    /// Making or removing a directory.
    Dir,
}

/// Which part of the store a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Journal,
    Spare,
    Checkpoint,
    Channel,
    ColdManifest,
    Other,
}

impl Place {
    fn of(path: &str) -> Self {
        if path.starts_with("journal/") {
            if path.contains("/spare/") { Self::Spare } else { Self::Journal }
        } else if path.starts_with("checkpoint/") {
            Self::Checkpoint
        } else if path.starts_with("channels/") && (path.ends_with(".idx") || path.ends_with(".dat")) {
            Self::Channel
        } else if path.starts_with("channels/") && (path.ends_with("/COLD") || path.ends_with("/COLD.new")) {
            Self::ColdManifest
        } else {
            Self::Other
        }
    }

    /// The kind of a write here.
    fn change(self) -> StepKind {
        match self {
            Self::Journal => StepKind::JournalWrite,
            Self::Spare => StepKind::Recycle,
            Self::Checkpoint => StepKind::CheckpointFile,
            Self::Channel => StepKind::Destage,
            Self::ColdManifest => StepKind::ColdManifest,
            Self::Other => StepKind::Other,
        }
    }
}
