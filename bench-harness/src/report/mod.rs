//! What a run leaves behind: a table on the terminal, JSON lines, HDR logs, and one HTML page.

mod commits;
pub(crate) mod figures;
mod hdr;
mod html;
mod json;
pub(crate) mod plot;
mod table;
pub mod units;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::args::UsageError;
use crate::machine::Machine;
use crate::row::Row;
use crate::sweep::Sweep;
use html::Page;
use json::JsonLines;

/// File names in the output directory.
pub(crate) const RESULTS: &str = "results.jsonl";
const PAGE: &str = "report.html";
const HDR_DIR: &str = "hdr";
const CHARTS_DIR: &str = "charts";
const SWEEP: &str = "sweep.json";
const SWEEP_PAGE: &str = "sweep.html";

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
        let dir = create_dir(dir)?;
        fs::create_dir_all(dir.join(HDR_DIR)).map_err(|error| usage("--out", &dir, &error))?;
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
        row.reported_id = row.id();
        let log = format!("{HDR_DIR}/{}.hgrm", row.reported_id);
        fs::write(self.dir.join(&log), hdr::percentiles(row.latencies.histogram()))
            .with_context(|| format!("writing {log}"))?;
        row.hdr_log = Some(log);
        self.lines.iter_mut().try_for_each(|lines| lines.write(&row))?;
        let printed = table::lines(&row, self.rows.last());
        self.rows.push(row);
        Ok(printed)
    }

    /// Writes the page and its charts; says where everything is. A sweep whose figures lie there is on the page, too.
    pub(crate) fn finish(&self, machine: &Machine, warnings: &[String]) -> anyhow::Result<PathBuf> {
        let sweep = Sweep::read(&self.dir.join(SWEEP));
        write_page(&self.dir, PAGE, &html::page(&self.rows, machine, warnings, sweep.as_ref())?)
    }
}

/// Writes the figures of a sweep, its page and its charts; says where the page is.
pub(crate) fn write_sweep(dir: &Path, sweep: &Sweep) -> anyhow::Result<PathBuf> {
    let json = dir.join(SWEEP);
    fs::write(&json, serde_json::to_vec_pretty(sweep)?).with_context(|| format!("writing {}", json.display()))?;
    write_page(dir, SWEEP_PAGE, &html::sweep_page(sweep)?)
}

/// Makes the output directory. A place that cannot be written is a wrong argument.
pub(crate) fn create_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir).map_err(|error| usage("--out", dir, &error))?;
    Ok(fs::canonicalize(dir).map_err(|error| usage("--out", dir, &error))?)
}

fn write_page(dir: &Path, name: &str, page: &Page) -> anyhow::Result<PathBuf> {
    let charts = dir.join(CHARTS_DIR);
    fs::create_dir_all(&charts).with_context(|| format!("making {}", charts.display()))?;
    let texts = std::iter::once((dir.join(name), page.text.as_bytes()));
    let images = page.images.iter().map(|(name, bytes)| (charts.join(name), bytes.as_slice()));
    for (path, bytes) in texts.chain(images) {
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(dir.join(name))
}

fn usage(option: &str, path: &Path, error: &std::io::Error) -> UsageError {
    UsageError(format!("{option}: {} cannot be written: {error}", path.display()))
}
