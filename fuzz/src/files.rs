//! What lies on the disk: space that was given up has come back.

use redex::RedexFile;
use redex::sim::SimStore;

use crate::history::World;

/// Whether no channel has files of segments below its head or behind its end, and no deleted one has files at all.
/// True after a close, and once a channel was opened, whatever had happened before.
///
/// # Errors
///
/// Which file is too much.
pub fn check(world: &World, files: &[RedexFile]) -> Result<(), String> {
    if world.faults || world.is_struck {
        // What cannot be removed is reported and left.
        return Ok(());
    }
    let paths = world.disk.list_all();
    for (channel, file) in world.channels.iter().zip(files) {
        if channel.is_there {
            check_segments(&paths, &SimStore::dir_of(file), channel.head, channel.next())?;
        }
    }
    let left = |dir: &&String| paths.iter().any(|path| path.starts_with(&format!("{dir}/")));
    match world.deleted.iter().find(left) {
        Some(dir) => Err(format!("{dir} belongs to a channel that was deleted: {paths:?}")),
        None => Ok(()),
    }
}

/// Segments follow one another, so one is needed if the next begins above the head.
fn check_segments(paths: &[String], dir: &str, head: u64, end: u64) -> Result<(), String> {
    let prefix = format!("{dir}/");
    let number = |path: &String| path.strip_prefix(&prefix)?.split('.').next()?.parse::<u64>().ok();
    let firsts: Vec<u64> = paths.iter().filter_map(number).collect();
    if let Some(first) = firsts.iter().find(|first| **first > end) {
        return Err(format!("{dir} has a segment from {first} on, the channel ends at {end}"));
    }
    let needless = firsts.iter().find(|first| firsts.iter().any(|next| next > first && *next <= head));
    match needless {
        Some(first) => Err(format!("{dir} has a segment from {first} on, the head is {head}: {firsts:?}")),
        None => Ok(()),
    }
}
