//! A few power cuts on each kind of drive: the engine loses nothing, and a harness with a planted mistake notices.

mod rig;

use redex_powerfail::case;

use self::rig::run;

const OUT: &str = env!("CARGO_TARGET_TMPDIR");

fn nothing_is_lost_on(fs: &str, sector: &str) {
    let words = ["run", "--points", "60", "--jobs", "1", "--seed", "1", "--fs", fs, "--sector", sector, "--out", OUT];
    let Some((output, text)) = run(&words) else { return };
    assert!(output.status.success(), "{text}");
    assert!(text.contains(" passed, 0 failed"), "{text}");
}

#[test]
fn nothing_is_lost_on_ext4_with_small_sectors() {
    nothing_is_lost_on("ext4", "512");
}

#[test]
fn nothing_is_lost_on_ext4_with_large_sectors() {
    nothing_is_lost_on("ext4", "4096");
}

#[test]
fn nothing_is_lost_on_xfs_with_small_sectors() {
    nothing_is_lost_on("xfs", "512");
}

#[test]
fn nothing_is_lost_on_xfs_with_large_sectors() {
    nothing_is_lost_on("xfs", "4096");
}

/// A rig that finds nothing shows nothing: with this mistake it has to find a loss, and within few points. Only a drive that lies
/// may also leave what does not mount.
fn is_noticed(mistake: &str, fs: &str) {
    let words = ["run", "--points", "400", "--jobs", "1", "--seed", "1", "--fs", fs, "--break", mistake, "--out", OUT];
    let Some((output, text)) = run(&words) else { return };
    assert!(!output.status.success(), "{text}");
    let is_unmountable = mistake == "lying-drive" && text.contains("does not mount");
    assert!(text.contains(" were acknowledged as durable") || is_unmountable, "{text}");
    assert!(text.contains(" passed, 1 failed"), "{text}");
}

#[test]
fn an_acknowledgement_before_the_flush_is_noticed_on_ext4() {
    is_noticed("ack-before-flush", "ext4");
}

#[test]
fn an_acknowledgement_before_the_flush_is_noticed_on_xfs() {
    is_noticed("ack-before-flush", "xfs");
}

#[test]
fn a_drive_that_lies_is_noticed_on_ext4() {
    is_noticed("lying-drive", "ext4");
}

#[test]
fn a_drive_that_lies_is_noticed_on_xfs() {
    is_noticed("lying-drive", "xfs");
}

/// The point that the next recording goes on from has a number of its own: nothing else is made to repeat it.
#[test]
fn the_point_that_a_recording_goes_on_from_can_be_repeated() {
    let number = case::POINTS.to_string();
    let words = ["run", "--seed", "1", "--point", &number, "--fs", "ext4", "--sector", "512", "--out", OUT];
    let Some((output, text)) = run(&words) else { return };
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 points in 1 recordings") && text.contains("\n1 passed, 0 failed"), "{text}");
}

/// What a failure says about the point of a saved recording comes out the same, however often it is repeated.
#[test]
fn a_saved_recording_fails_again_in_the_same_way() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().to_str().unwrap();
    let words = ["run", "--points", "400", "--jobs", "1", "--fs", "ext4", "--break", "ack-before-flush", "--out", dir];
    let Some((_, text)) = run(&words) else { return };
    let failure = text.lines().find(|line| line.starts_with("seed ")).unwrap_or_else(|| panic!("{text}"));
    let (_, what) = failure.split_once(" bytes: ").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("exactly the same: redex-powerfail "));
    let words: Vec<&str> = line.unwrap_or_else(|| panic!("{text}")).split(' ').collect();
    for _ in 0..2 {
        let (output, text) = run(&words).expect("it ran before");
        assert!(!output.status.success(), "{text}");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(format!("saved when it failed: {what}").as_str()));
        assert_eq!(lines.next(), what.split(';').next());
    }
}
