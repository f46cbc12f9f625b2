//! The program as its users call it: what it prints, what it leaves behind, and how it ends.

use std::path::Path;
use std::process::{Command, Output};

/// No directory can be made there, by nobody.
const UNWRITABLE: &str = "/proc";

fn bench(args: &[&str], cwd: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_redex-bench")).args(args).current_dir(cwd).output().unwrap()
}

/// A directory on the disk that the build is on, gone at the end.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn a_run_leaves_json_lines_and_a_page_that_needs_nothing_else() {
    let scratch = scratch();
    let (json, out) = (scratch.path().join("rows.jsonl"), scratch.path().join("report"));
    let [json_text, out_text] = [&json, &out].map(|path| path.to_str().unwrap());
    let args = ["run", "--only", "durable", "--seconds", "0.2", "--json", json_text, "--out", out_text];
    let output = bench(&args, scratch.path());
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));

    let lines = std::fs::read_to_string(&json).unwrap();
    let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().filter(|row| row["engine"] == "redex").count(), 8, "two sizes, four depths");
    for row in &rows {
        assert_eq!(row["workload"], "durable");
        for name in ["payload_bytes", "in_flight", "channels", "events", "seconds", "events_per_s", "p50_ns", "p99_ns"]
        {
            assert!(row[name].is_number(), "{name} of {row}");
        }
        for name in ["p999_ns", "max_ns", "raw_p50_ns", "ratio_p50", "raw_events_per_s", "ratio_events_per_s"] {
            assert!(row[name].is_number(), "{name} of {row}");
        }
        assert!(row["machine"].is_object() && row["hdr_log"].is_string(), "{row}");
        assert!(out.join(row["hdr_log"].as_str().unwrap()).is_file(), "{row}");
    }
    for row in rows.iter().filter(|row| row["engine"] == "redex") {
        for name in ["commits", "flushes", "idle_commits", "page_cache_delta_bytes", "cpu_ns_per_event"] {
            assert!(row[name].is_number(), "{name} of {row}");
        }
    }
    assert_eq!(std::fs::read_to_string(out.join("results.jsonl")).unwrap(), lines);

    let place = stdout.lines().last().unwrap().strip_prefix("report: ").unwrap();
    assert_eq!(Path::new(place), out.canonicalize().unwrap().join("report.html"));
    let page = std::fs::read_to_string(place).unwrap();
    assert!(page.contains("<svg") && page.contains("<style"), "charts and style are in the page");
    for outside in ["src=\"", "<link", "@import", "url(http"] {
        assert!(!page.contains(outside), "the page loads something: {outside}");
    }
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the stores are removed: {left:?}");
}

#[test]
fn wrong_arguments_end_with_code_2_and_say_which() {
    let scratch = scratch();
    for (args, named) in [
        (&["run", "--seconds", "0"][..], "--seconds"),
        (&["run", "--only", "nothing"], "--only"),
        (&["run", "--quick", "--seconds", "1"], "--quick"),
        (&["crash", "--policy", "sometimes"], "--policy"),
        (&["crash", "--rounds", "0"], "--rounds"),
        (&["--no-such"], "--no-such"),
        (&["run", "--only", "tail", "--seconds", "0.1", "--dir", "/nonexistent"], "--dir"),
        (&["run", "--only", "tail", "--seconds", "0.1", "--dir", UNWRITABLE], "--dir"),
        (&["crash", "--rounds", "1", "--dir", UNWRITABLE], "--dir"),
        (&["run", "--only", "tail", "--seconds", "0.1", "--out", "/proc/report"], "--out"),
        (&["run", "--only", "tail", "--seconds", "0.1", "--json", "/proc/rows"], "--json"),
    ] {
        let output = bench(args, scratch.path());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(named), "{args:?}: {stderr}");
    }
}

#[test]
fn a_crash_test_under_each_policy_ends_well() {
    let scratch = scratch();
    for policy in ["durable", "every=100", "interval=20", "interval-or-bytes=20,65536", "never"] {
        let output = bench(&["crash", "--rounds", "2", "--policy", policy], scratch.path());
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
        let last = stdout.lines().last().unwrap();
        assert!(last.starts_with(&format!("crash: 2 rounds, policy {policy}")), "{last}");
        assert!(last.contains(" 0 missing, 0 wrong"), "{last}");
    }
}
