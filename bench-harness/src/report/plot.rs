//! The plots, as SVG text that goes into the page.

use plotters::coord::ranged1d::{NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::units;
use crate::row::Row;
use crate::sample::Latencies;

const WIDTH: u32 = 900;

const PALETTE: [RGBColor; 8] = [
    RGBColor(0x1f, 0x6f, 0xb4),
    RGBColor(0xd9, 0x5f, 0x0e),
    RGBColor(0x2a, 0x8f, 0x3c),
    RGBColor(0x8e, 0x44, 0xad),
    RGBColor(0xb8, 0x86, 0x0b),
    RGBColor(0x00, 0x8b, 0x8b),
    RGBColor(0xc0, 0x39, 0x5b),
    RGBColor(0x55, 0x5f, 0x6b),
];

/// Color of the `index`th group of curves or bars, as CSS has it.
pub(crate) fn css_color(index: usize) -> String {
    let RGBColor(red, green, blue) = PALETTE[index % PALETTE.len()];
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// One curve of a latency plot.
pub(crate) struct Curve<'a> {
    /// In the legend.
    pub(crate) name: String,
    /// What it shows.
    pub(crate) latencies: &'a Latencies,
    /// Curves of one color belong together.
    pub(crate) color: usize,
    /// Drawn thin: something to compare with.
    pub(crate) reference: bool,
}

/// Latency by percentile; both axes logarithmic, the percentiles by their distance to 100 %.
pub(crate) fn latency_curves(curves: &[Curve<'_>]) -> anyhow::Result<String> {
    let lowest = curves.iter().map(|curve| curve.latencies.at(0.0)).min().unwrap_or(1).max(1) as f64;
    let highest = curves.iter().map(|curve| curve.latencies.max()).max().unwrap_or(1) as f64;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 380)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .margin_right(48)
            .x_label_area_size(40)
            .y_label_area_size(78)
            .build_cartesian_2d(
                (1f64..10_000f64).log_scale(),
                (lowest * 0.8..highest.max(lowest * 2.0) * 1.3).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_labels(5)
            .y_labels(8)
            .x_label_formatter(&|rest| percentile_label(*rest))
            .y_label_formatter(&|ns| units::time(*ns))
            .x_desc("share of events that were at least this fast")
            .light_line_style(RGBColor(0xf0, 0xf0, 0xf0))
            .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .draw()?;
        for curve in curves {
            let color = PALETTE[curve.color % PALETTE.len()];
            let style = if curve.reference { color.mix(0.45).stroke_width(1) } else { color.stroke_width(2) };
            chart.draw_series(LineSeries::new(points(curve.latencies), style))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// Points of a curve: x is 1 / (1 - percentile), as far as there are events to tell.
fn points(latencies: &Latencies) -> Vec<(f64, f64)> {
    let count = latencies.histogram().len() as f64;
    let furthest = count.clamp(1.0, 10_000.0).log10();
    let steps = 160;
    let rests = (0..=steps).map(|step| 10f64.powf(furthest * f64::from(step) / f64::from(steps)));
    rests.map(|rest| (rest, latencies.at(1.0 - 1.0 / rest) as f64)).collect()
}

fn percentile_label(rest: f64) -> String {
    match rest {
        r if r < 1.5 => "0 %".to_owned(),
        r if (r - 10.0).abs() < 1.0 => "90 %".to_owned(),
        r if (r - 100.0).abs() < 10.0 => "99 %".to_owned(),
        r if (r - 1000.0).abs() < 100.0 => "99.9 %".to_owned(),
        r if (r - 10_000.0).abs() < 1000.0 => "99.99 %".to_owned(),
        _ => String::new(),
    }
}

/// One bar.
pub(crate) struct Bar {
    /// Its height.
    pub(crate) value: f64,
    /// Above it.
    pub(crate) label: String,
    /// Bars of one color belong together.
    pub(crate) color: usize,
}

/// Bars side by side; `limit`, if there is one, is a line across them with a text.
pub(crate) fn bars(groups: &[(String, Vec<Bar>)], unit: &str, limit: Option<(f64, &str)>) -> anyhow::Result<String> {
    let tallest = groups.iter().flat_map(|(_, bars)| bars).map(|bar| bar.value).fold(0.0, f64::max);
    let top = tallest.max(limit.map_or(0.0, |(value, _)| value)).max(1e-9) * 1.18;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 320)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(78)
            .build_cartesian_2d(Groups::new(groups), 0f64..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(groups.len())
            .y_labels(6)
            .y_label_formatter(&|value| format!("{}{unit}", units::count(*value)))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(0xe4, 0xe4, 0xe4))
            .label_style(("sans-serif", 13))
            .draw()?;
        for (group, (_, bars)) in groups.iter().enumerate() {
            let width = 0.8 / bars.len().max(1) as f64;
            for (index, bar) in bars.iter().enumerate() {
                let left = group as f64 + 0.1 + width * index as f64;
                let (from, to) = ((left, 0.0), (left + width * 0.94, bar.value));
                chart
                    .draw_series([Rectangle::new([from, to], PALETTE[bar.color % PALETTE.len()].mix(0.85).filled())])?;
                let anchor = plotters::style::text_anchor::Pos::new(
                    plotters::style::text_anchor::HPos::Center,
                    plotters::style::text_anchor::VPos::Bottom,
                );
                let style = ("sans-serif", 12).into_text_style(&root).pos(anchor);
                chart.draw_series([Text::new(
                    bar.label.clone(),
                    (left + width * 0.47, bar.value + top * 0.01),
                    style,
                )])?;
            }
        }
        if let Some((value, text)) = limit {
            let line = [(0.0, value), (groups.len() as f64, value)];
            chart.draw_series([PathElement::new(line, RGBColor(0xb0, 0x20, 0x20).stroke_width(2))])?;
            let style = ("sans-serif", 13).into_text_style(&root).color(&RGBColor(0xb0, 0x20, 0x20));
            chart.draw_series([Text::new(text.to_owned(), (0.02, value + top * 0.06), style)])?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// The x axis of the bars: a label in the middle of each group.
#[derive(Clone)]
struct Groups(Vec<String>);

impl Groups {
    fn new(groups: &[(String, Vec<Bar>)]) -> Self {
        Self(groups.iter().map(|(name, _)| name.clone()).collect())
    }
}

impl Ranged for Groups {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (value / self.0.len().max(1) as f64 * f64::from(limit.1 - limit.0)) as i32
    }

    fn key_points<Hint: plotters::coord::ranged1d::KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        (0..self.0.len()).map(|group| group as f64 + 0.5).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.0.len() as f64
    }
}

impl ValueFormatter<f64> for Groups {
    fn format_ext(&self, value: &f64) -> String {
        self.0.get(*value as usize).cloned().unwrap_or_default()
    }
}

/// Short name of a row among those of its workload.
pub(crate) fn row_name(row: &Row) -> String {
    let mut parts = Vec::new();
    if row.workload == "durable" {
        parts.push(format!("{} in flight", row.in_flight));
    }
    if matches!(row.workload, "durable" | "nondurable") {
        parts.push(units::size(row.payload_bytes as f64));
    }
    if row.workload == "nondurable" {
        parts.push(format!("{} a call", row.batch));
    }
    if row.workload == "channels" {
        parts.push(format!("{} channel{}", row.channels, if row.channels == 1 { "" } else { "s" }));
    }
    parts.extend(row.log_events.map(|events| format!("{} events", units::count(events as f64))));
    if !row.mode.is_empty() {
        parts.push(row.mode.replace('_', " "));
    }
    if parts.is_empty() {
        parts.push(row.engine.to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::example;

    #[test]
    fn plots_are_svg_with_their_names_in_them() {
        let row = example();
        let curve = Curve { name: row_name(&row), latencies: &row.latencies, color: 0, reference: false };
        assert_eq!(curve.name, "16 in flight, 256 B");
        let svg = latency_curves(&[curve]).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("99.9 %"));
        let bar = Bar { value: 50.0, label: "5 M".to_owned(), color: 0 };
        let svg = bars(&[("group".to_owned(), vec![bar])], " %", Some((100.0, "limit"))).unwrap();
        for text in ["group", "5 M", "limit"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    /// Nothing measured is no reason to fail.
    #[test]
    fn empty_plots_are_drawn() {
        latency_curves(&[]).unwrap();
        bars(&[], "", None).unwrap();
    }
}
