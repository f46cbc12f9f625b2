//! Opens stores and channels the same way for every workload.

use std::path::Path;

use anyhow::Context;
use redex::{FsyncPolicy, Redex, RedexBuilder, RedexFile, RedexFileConfig};

use crate::args::Backend;

/// Opens the store in `dir`, makes it if there is none.
pub(crate) fn open(dir: &Path, backend: Option<Backend>) -> anyhow::Result<Redex> {
    open_with(Redex::builder(), dir, backend)
}

/// The same, with settings.
pub(crate) fn open_with(builder: RedexBuilder, dir: &Path, backend: Option<Backend>) -> anyhow::Result<Redex> {
    let backend = match backend {
        None => redex::Backend::Auto,
        Some(Backend::Uring) => redex::Backend::Uring,
        Some(Backend::Posix) => redex::Backend::Posix,
    };
    let opened = builder.persistent_dir(dir).backend(backend).build();
    opened.with_context(|| format!("opening the store in {}", dir.display()))
}

/// Opens a persistent channel under `policy`.
pub(crate) fn channel(redex: &Redex, name: &str, policy: FsyncPolicy) -> anyhow::Result<RedexFile> {
    channel_with(redex, name, RedexFileConfig::default().with_persistent(true).with_fsync_policy(policy))
}

/// Opens a channel.
pub(crate) fn channel_with(redex: &Redex, name: &str, config: RedexFileConfig) -> anyhow::Result<RedexFile> {
    redex.open_file(name, config).with_context(|| format!("opening channel {name}"))
}

/// Closes the store; everything appended is durable afterwards.
pub(crate) fn close(redex: Redex) -> anyhow::Result<()> {
    redex.close().wait().context("closing the store")
}
