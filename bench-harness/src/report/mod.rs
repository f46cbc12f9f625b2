//! What a run leaves behind: a table on the terminal, JSON lines, HDR logs, and one HTML page.

mod hdr;
mod html;
mod json;
mod plot;
mod table;
pub mod units;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::args::UsageError;
use crate::machine::Machine;
use crate::row::Row;
use json::JsonLines;

/// File names in the output directory.
const RESULTS: &str = "results.jsonl";
const PAGE: &str = "report.html";
const HDR_DIR: &str = "hdr";

/// The outputs of one run, written as rows finish.
#[derive(Debug)]
pub(crate) struct Report {
    dir: PathBuf,
    lines: Vec<JsonLines>,
    rows: Vec<Row>,
}

impl Report {
    /// Makes the output directory and files. A place that cannot be written is a wrong argument.
    pub(crate) fn create(dir: &Path, json: Option<&Path>) -> anyhow::Result<Self> {
        fs::create_dir_all(dir.join(HDR_DIR)).map_err(|error| usage("--out", dir, &error))?;
        let dir = fs::canonicalize(dir).map_err(|error| usage("--out", dir, &error))?;
        let results = dir.join(RESULTS);
        let mut lines = vec![JsonLines::create(&results).map_err(|error| usage("--out", &results, &error))?];
        if let Some(json) = json {
            lines.push(JsonLines::create(json).map_err(|error| usage("--json", json, &error))?);
        }
        Ok(Self { dir, lines, rows: Vec::new() })
    }

    /// Lines that go before the first row.
    pub(crate) fn begin(&self, machine: &Machine) -> Vec<String> {
        table::header(machine)
    }

    /// Writes a finished row; gives the lines to print.
    pub(crate) fn add(&mut self, mut row: Row) -> anyhow::Result<Vec<String>> {
        let log = format!("{HDR_DIR}/{}.hgrm", row.id());
        fs::write(self.dir.join(&log), hdr::percentiles(row.latencies.histogram()))
            .with_context(|| format!("writing {log}"))?;
        row.hdr_log = Some(log);
        self.lines.iter_mut().try_for_each(|lines| lines.write(&row))?;
        let printed = table::lines(&row, self.rows.last());
        self.rows.push(row);
        Ok(printed)
    }

    /// Writes the page; says where everything is.
    pub(crate) fn finish(&self, machine: &Machine, warnings: &[String]) -> anyhow::Result<PathBuf> {
        let page = self.dir.join(PAGE);
        let text = html::page(&self.rows, machine, warnings)?;
        fs::write(&page, text).with_context(|| format!("writing {}", page.display()))?;
        Ok(page)
    }
}

fn usage(option: &str, path: &Path, error: &std::io::Error) -> UsageError {
    UsageError(format!("{option}: {} cannot be written: {error}", path.display()))
}
