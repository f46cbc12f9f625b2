//! `redex-bench compare` as its users and scripts call it: exit codes, and what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

fn compare(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_redex-bench")).arg("compare").args(args).output().unwrap()
}

/// A run with one row of each rate, on a machine with this kernel.
fn results(dir: &Path, name: &str, rates: &[f64], kernel: &str) -> PathBuf {
    let machine =
        json!({"cpu": "a", "cpus": 2, "memory_bytes": 8, "kernel": kernel, "file_system": "ext4", "device": "vda"});
    let line = |(number, rate): (usize, &f64)| {
        let turns = [0.99, 1.0, 1.01].map(|part| part * rate);
        let p50s = turns.map(|rate| (1e9 / rate) as u64);
        let row =
            json!({"id": format!("row{number}"), "turn_events_per_s": turns, "turn_p50_ns": p50s, "machine": machine});
        format!("{row}\n")
    };
    let out = dir.join(name);
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("results.jsonl"), rates.iter().enumerate().map(line).collect::<String>()).unwrap();
    out
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn verdicts_are_given_for_directories_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let a = results(dir.path(), "a", &[1000.0, 1000.0, 1000.0], "6.1");
    let b = results(dir.path(), "b", &[1000.0, 1500.0, 600.0, 5.0], "6.1");
    let file = b.join("results.jsonl");
    let output = compare(&[a.to_str().unwrap(), file.to_str().unwrap()]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let line = |id: &str| text.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(line("row0").ends_with("within noise"), "{text}");
    assert!(line("row1").contains("1.500 [") && line("row1").ends_with("faster"), "{text}");
    assert!(line("row2").contains("0.600 [") && line("row2").ends_with("slower"), "{text}");
    assert!(text.contains("only in B: row3"), "{text}");
}

#[test]
fn slower_rows_end_with_code_3_if_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let a = results(dir.path(), "a", &[1000.0], "6.1");
    let b = results(dir.path(), "b", &[600.0], "6.1");
    let [a, b] = [&a, &b].map(|path| path.to_str().unwrap());
    for (args, code) in [
        (&[a, b, "--fail-on-slower", "30"][..], 3),
        (&[a, b, "--fail-on-slower", "50"], 0),
        (&[b, a, "--fail-on-slower", "0"], 0),
        (&[a, a, "--fail-on-slower", "0"], 0),
    ] {
        let output = compare(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
        assert_eq!(said(&output).contains("slower by more than"), code == 3, "{}", said(&output));
    }
}

#[test]
fn results_of_different_machines_are_refused_and_what_differs_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let a = results(dir.path(), "a", &[1000.0], "6.1");
    let b = results(dir.path(), "b", &[600.0], "6.18");
    let [a, b] = [&a, &b].map(|path| path.to_str().unwrap());
    let output = compare(&[a, b]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("kernel: A has 6.1, B has 6.18"), "{}", said(&output));
    assert!(!said(&output).contains("row0"), "{}", said(&output));

    let output = compare(&[a, b, "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("warning: ") && said(&output).contains("0.600 ["), "{}", said(&output));
    assert!(!said(&output).contains("slower"), "{}", said(&output));
    assert_eq!(compare(&[a, b, "--force", "--fail-on-slower", "5"]).status.code(), Some(2));
}

#[test]
fn what_is_no_result_is_a_wrong_argument() {
    let dir = tempfile::tempdir().unwrap();
    let a = results(dir.path(), "a", &[1000.0], "6.1");
    let broken = dir.path().join("broken.jsonl");
    std::fs::write(&broken, "{}\n").unwrap();
    for other in [dir.path(), broken.as_path()] {
        let output = compare(&[a.to_str().unwrap(), other.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(other.to_str().unwrap()), "{}", said(&output));
    }
}
