//! What the figures were measured on: machine, kernel, device, file system, commit.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::mounts::Mount;

/// Facts about the machine and the code; in every row and on the report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Block device of the stores; empty if unknown.
    pub device: String,
    /// `write back` or `write through`; empty if unknown.
    pub device_write_cache: String,
    /// Whether the device has FUA; `None` if unknown.
    pub device_fua: Option<bool>,
    /// Type of the file system of the stores.
    pub file_system: String,
    /// Commit of the source, with `-dirty` if it was changed; `unknown` outside a checkout.
    pub commit: String,
}

impl Machine {
    /// Looks around, for stores in `dir`.
    pub fn of(dir: &Path) -> Self {
        let mount = Mount::of(dir);
        let block = mount.block_device();
        let queue =
            |name: &str| block.as_ref().map(|device| read(&device.join("queue").join(name))).unwrap_or_default();
        let device = block.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        Self {
            cpu: after_colon(&read(Path::new("/proc/cpuinfo")), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: meminfo_bytes("MemTotal").unwrap_or(0),
            kernel: read(Path::new("/proc/sys/kernel/osrelease")),
            device: device.unwrap_or_default(),
            device_write_cache: queue("write_cache"),
            device_fua: match queue("fua").as_str() {
                "1" => Some(true),
                "0" => Some(false),
                _ => None,
            },
            file_system: mount.file_system,
            commit: commit(),
        }
    }
}

/// One number of `/proc/meminfo`, bytes.
pub fn meminfo_bytes(name: &str) -> Option<u64> {
    let line = after_colon(&read(Path::new("/proc/meminfo")), name)?;
    line.split(' ').next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Text of a small file without its last line break; empty if it cannot be read.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// What follows the colon in the first line that begins with `name`.
fn after_colon(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn commit() -> String {
    let args = ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "CachedX:  9 kB\nCached:   7 kB\nmodel name\t: A processor @ 3 GHz";
        assert_eq!(after_colon(text, "Cached").unwrap(), "7 kB");
        assert_eq!(after_colon(text, "model name").unwrap(), "A processor @ 3 GHz");
        assert_eq!(after_colon(text, "Swap"), None);
    }

    #[test]
    fn this_machine_has_memory_and_a_kernel() {
        let machine = Machine::of(Path::new("/"));
        assert!(machine.memory_bytes > 1 << 20);
        assert!(!machine.kernel.is_empty() && !machine.file_system.is_empty());
    }
}
