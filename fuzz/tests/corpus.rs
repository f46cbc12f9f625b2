//! Every input of the corpus through its target: what the fuzzer begins with, and what it has found before.

use redex_fuzz::corpus;
use redex_fuzz::targets::{TARGETS, by_name};

fn holds(name: &str) {
    let target = by_name(name).expect("a target of this name");
    for (file, input) in corpus::of(&target).expect("the corpus is committed") {
        target.check(&input).unwrap_or_else(|what| panic!("corpus/{name}/{file}: {what}"));
    }
}

#[test]
fn journal_segments() {
    holds("journal");
}

#[test]
fn index_blocks_and_footers() {
    holds("idx");
}

#[test]
fn superblocks() {
    holds("store");
}

#[test]
fn channels_meta() {
    holds("meta");
}

#[test]
fn checkpoint_files() {
    holds("checkpoint");
}

#[test]
fn cold_manifests() {
    holds("cold_manifest");
}

#[test]
fn cold_objects() {
    holds("cold_object");
}

#[test]
fn stored_configurations() {
    holds("config");
}

#[test]
fn directory_trees_handed_to_recovery() {
    holds("recovery");
}

#[test]
fn operations_beside_the_model() {
    holds("operations");
}

/// A target whose corpus no test above runs is forgotten.
#[test]
fn every_target_has_a_corpus() {
    let source = include_str!("corpus.rs");
    for target in TARGETS {
        assert!(source.contains(&format!("holds(\"{}\")", target.name)), "{} has no test", target.name);
        assert!(!corpus::of(&target).expect("the corpus is committed").is_empty());
    }
}
