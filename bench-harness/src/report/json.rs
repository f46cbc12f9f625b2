//! One JSON object a line, written as soon as the row is there.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::row::Row;

/// A file of JSON lines.
#[derive(Debug)]
pub(crate) struct JsonLines(File);

impl JsonLines {
    /// Makes an empty file.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        File::create(path).map(Self)
    }

    /// Writes one row.
    pub(crate) fn write(&mut self, row: &Row) -> io::Result<()> {
        let mut line = serde_json::to_vec(row)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}
