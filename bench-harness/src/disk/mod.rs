//! Harm done to a real file system under a store: `full-disk` and `read-only-remount`.
//!
//! The file system lies in an image on a loop device. It is mounted by a process in a mount namespace of its own, which `unshare`
//! makes: nobody else sees the mount, and when that process ends, however it ends, the kernel unmounts it and lets go of the loop
//! device, which `mount` has made to clear itself. That process ends when its standard input does, so also when its parent is
//! killed.
//!
//! All of it needs root and a loop device. Without, the test is skipped, loudly; with `REDEX_CI_NO_SKIP=1` that is an error.

pub(crate) mod full;
mod load;
mod read_only;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};

use crate::args::{ChildPlace, DiskArgs, DiskChildArgs, DiskFault, FileSystem, word};
use crate::scratch::Scratch;

/// Size of the image: the least that XFS takes. Sparse, so it takes what is written.
const IMAGE_BYTES: u64 = 320 << 20;

/// Makes an image, and a process in a namespace of its own that mounts it and does `fault` to it.
pub(crate) fn run(args: &DiskArgs, fault: DiskFault) -> anyhow::Result<ExitCode> {
    if let Err(cause) = can_mount() {
        ensure!(std::env::var_os("REDEX_CI_NO_SKIP").is_none(), "this test cannot be run here: {cause}");
        eprintln!("SKIPPED, nothing was tested: {cause}");
        return Ok(ExitCode::SUCCESS);
    }
    let scratch = Scratch::new(args.place.dir.as_deref())?;
    let (image, mount_point) = (scratch.place("image")?, scratch.place("mount")?);
    std::fs::create_dir(&mount_point)?;
    std::fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
    make_file_system(args.fs, &image)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command.arg(std::env::current_exe().context("finding this program")?).arg("disk-child");
    command.args(["--fault", &word(&fault), "--fs", &word(&args.fs)]).arg("--image").arg(&image);
    ChildPlace::new(&mount_point, args.place.backend).add_to(&mut command);
    let mut child = command.stdin(Stdio::piped()).spawn().context("starting `unshare`")?;
    // `wait` would close the pipe, and with it end the child.
    let stdin = child.stdin.take();
    let status = child.wait()?;
    drop(stdin);
    Ok(ExitCode::from(u8::from(!status.success())))
}

/// The process in the namespace.
pub(crate) fn child(args: &DiskChildArgs) -> anyhow::Result<ExitCode> {
    end_with_parent();
    mount(args)?;
    match args.fault {
        DiskFault::Full => full::run(args)?,
        DiskFault::ReadOnly => read_only::run(args)?,
    }
    // What is left open would keep the mount busy; the end of the process ends it as well.
    Ok(ExitCode::SUCCESS)
}

/// A parent that died without killing this process must not leave it running: its standard input ends then.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
}

/// Whether this process may mount a loop device, or why not.
fn can_mount() -> Result<(), String> {
    let uid = std::fs::metadata("/proc/self").map_err(|error| error.to_string())?.uid();
    if uid != 0 {
        return Err(format!("mounting a file system needs root, this is user {uid}"));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there are no loop devices (/dev/loop-control)".to_owned());
    }
    Ok(())
}

fn make_file_system(fs: FileSystem, image: &Path) -> anyhow::Result<()> {
    match fs {
        // Root has nothing of its own: the last byte is everybody's. Nothing is written later by itself.
        FileSystem::Ext4 => {
            let lazy = "lazy_itable_init=0,lazy_journal_init=0";
            tool(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", lazy]).arg(image))
        }
        FileSystem::Xfs => tool(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(image)),
    }
}

/// Mounts the image; its loop device goes with the mount.
fn mount(args: &DiskChildArgs) -> anyhow::Result<()> {
    tool(Command::new("mount").args(["-t", &word(&args.fs), "-o", "loop"]).arg(&args.image).arg(&args.place.dir))
}

fn unmount(args: &DiskChildArgs) -> anyhow::Result<()> {
    tool(Command::new("umount").arg(&args.place.dir))
}

/// Runs a tool of the system to its end.
fn tool(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{name}`"))?;
    if !output.status.success() {
        bail!("`{name}` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
