//! Histograms of the engine's commits: how many events each had, and how many were on their way at once.

use super::figures::Figures;
use super::plot::{Bar, Bars, row_name};
use super::units;
use crate::row::{Cost, Row};

/// Fewer commits than this are no distribution.
const COMMITS_MIN: u64 = 20;

/// Both histograms of these rows as HTML; nothing if they have no commits worth telling.
pub(super) fn histograms(size: &str, rows: &[&Row], figures: &mut Figures) -> anyhow::Result<String> {
    let rows: Vec<(&Row, &Cost)> = rows.iter().filter_map(|row| Some((*row, row.cost.as_ref()?))).collect();
    let rows: Vec<_> = rows.into_iter().filter(|(_, cost)| cost.commits >= COMMITS_MIN).collect();
    if rows.is_empty() {
        return Ok(String::new());
    }
    let legend: Vec<_> = rows.iter().enumerate().map(|(color, (row, _))| (color, row_name(row))).collect();
    let events: Vec<&[u64]> = rows.iter().map(|(_, cost)| cost.commit_events_log2.as_slice()).collect();
    let name = |bin: usize| units::whole((1_u64 << bin) as f64);
    let batches = bars(&events, name, "events in a commit: from this number to below the next");
    let caption = format!(
        "What one write and one flush made durable, events of {size}: share of the commits by their number of events."
    );
    let batches = figures.add(&batches, legend.clone(), None, &caption)?;

    let depths: Vec<&[u64]> = rows.iter().map(|(_, cost)| cost.queue_depth.as_slice()).collect();
    let depths = bars(&depths, |bin| (bin + 1).to_string(), "commits in flight when one is submitted, itself included");
    let caption = format!("How many commits were on their way to the disk at once, events of {size}.");
    Ok(batches + &figures.add(&depths, legend, None, &caption)?)
}

/// A group for each bin, a bar for each row, from the first bin that any row has something in to the last.
fn bars(rows: &[&[u64]], name: impl Fn(usize) -> String, x_title: &'static str) -> Bars {
    let first = rows.iter().filter_map(|bins| bins.iter().position(|count| *count > 0)).min().unwrap_or(0);
    let end = rows.iter().map(|bins| bins.len()).max().unwrap_or(0);
    let share = |bins: &[u64], bin: usize| {
        let all = bins.iter().sum::<u64>().max(1);
        100.0 * bins.get(bin).copied().unwrap_or(0) as f64 / all as f64
    };
    let bar =
        |bin: usize, color: usize| Bar { value: share(rows[color], bin), label: String::new(), color, limit: None };
    let group = |bin: usize| (name(bin), (0..rows.len()).map(|color| bar(bin, color)).collect());
    Bars { groups: (first..end).map(group).collect(), unit: " %", x_title, y_title: "share of the commits" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_shares_of_each_row_and_empty_ends_are_left_out() {
        let bars = bars(&[&[0, 1, 3], &[0, 0, 0, 5]], |bin| bin.to_string(), "");
        let names: Vec<&str> = bars.groups.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["1", "2", "3"]);
        let values: Vec<Vec<f64>> =
            bars.groups.iter().map(|(_, bars)| bars.iter().map(|bar| bar.value).collect()).collect();
        assert_eq!(values, [[25.0, 0.0], [75.0, 0.0], [0.0, 100.0]]);
    }
}
