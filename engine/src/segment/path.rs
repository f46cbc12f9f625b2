//! Where a channel's files lie. Directories are named by the channel's id, so no name can leave the base directory.

use crate::ids::{ChannelId, Seq};

/// Directory that holds the channels' directories.
pub const CHANNELS_DIR: &str = "channels";

/// Directory of the channels whose ids end in the same byte.
#[must_use]
pub fn fan_dir(channel: ChannelId) -> String {
    format!("{CHANNELS_DIR}/{:02x}", channel.0 & 0xff)
}

/// Directory of a channel.
#[must_use]
pub fn channel_dir(channel: ChannelId) -> String {
    format!("{}/{channel}", fan_dir(channel))
}

/// META of a channel.
#[must_use]
pub fn meta_path(channel: ChannelId) -> String {
    format!("{}/META", channel_dir(channel))
}

/// META of a channel while it is made.
#[must_use]
pub fn new_meta_path(channel: ChannelId) -> String {
    format!("{}/META.new", channel_dir(channel))
}

/// Index file of the segment that begins with `first`.
#[must_use]
pub fn idx_path(channel: ChannelId, first: Seq) -> String {
    format!("{}/{:020}.idx", channel_dir(channel), first.0)
}

/// Payload file of the segment that begins with `first`.
#[must_use]
pub fn dat_path(channel: ChannelId, first: Seq) -> String {
    format!("{}/{:020}.dat", channel_dir(channel), first.0)
}
