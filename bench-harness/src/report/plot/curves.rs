//! Latency by percentile: 50 to 99.99, by the distance to 100 %.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::log_axis::LogAxis;
use super::{Chart, GRID, Scale, color, units};
use crate::sample::Latencies;

/// 1 / (1 - percentile) at both ends of the axis.
const REST_MIN: f64 = 2.0;
const REST_MAX: f64 = 10_000.0;

/// What the axis says, and where.
const TICKS: [(f64, &str); 6] =
    [(2.0, "50 %"), (4.0, "75 %"), (10.0, "90 %"), (100.0, "99 %"), (1000.0, "99.9 %"), (10_000.0, "99.99 %")];

/// Points of a curve.
const STEPS: u32 = 160;

/// One curve of a latency plot.
#[derive(Debug)]
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

impl Curve<'_> {
    /// x is 1 / (1 - percentile), as far as there are events to tell.
    fn points(&self) -> Vec<(f64, f64)> {
        let count = self.latencies.histogram().len() as f64;
        let (first, last) = (REST_MIN.log10(), count.clamp(REST_MIN, REST_MAX).log10());
        let rests = (0..=STEPS).map(|step| 10f64.powf(first + (last - first) * f64::from(step) / f64::from(STEPS)));
        rests.map(|rest| (rest, self.latencies.at(1.0 - 1.0 / rest).max(1) as f64)).collect()
    }
}

/// All curves of a plot.
#[derive(Debug)]
pub(crate) struct Curves<'a>(pub(crate) Vec<Curve<'a>>);

impl Chart for Curves<'_> {
    fn height(&self) -> u32 {
        380
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, scale: Scale) -> anyhow::Result<()>
    where
        B::ErrorType: 'static,
    {
        let points: Vec<_> = self.0.iter().map(Curve::points).collect();
        let latencies = || points.iter().flatten().map(|(_, ns)| *ns);
        let lowest = latencies().fold(f64::INFINITY, f64::min).min(1e12);
        let highest = latencies().fold(1.0, f64::max);
        let range = lowest.min(highest) * 0.8..highest.max(lowest.min(highest) * 2.0) * 1.3;
        let mut chart = ChartBuilder::on(area)
            .margin(scale.px(12))
            .margin_right(scale.px(48))
            .x_label_area_size(scale.px(46))
            .y_label_area_size(scale.px(84))
            .build_cartesian_2d(Percentiles, LogAxis(range))?;
        chart
            .configure_mesh()
            .x_labels(TICKS.len())
            .y_labels(12)
            .y_label_formatter(&|ns| units::time(*ns))
            .x_desc("share of events that were at least this fast")
            .y_desc("latency (log scale)")
            .light_line_style(RGBColor(0xf4, 0xf4, 0xf4))
            .bold_line_style(GRID)
            .label_style(scale.font(13))
            .axis_desc_style(scale.font(14))
            .draw()?;
        for (curve, points) in self.0.iter().zip(points) {
            let color = color(curve.color);
            let (strength, width) = if curve.reference { (0.5, 1) } else { (1.0, 2) };
            chart.draw_series(LineSeries::new(points, color.mix(strength).stroke_width(scale.px(width))))?;
        }
        Ok(())
    }
}

/// The x axis: percentiles by the logarithm of their distance to 100 %.
#[derive(Clone)]
struct Percentiles;

impl Ranged for Percentiles {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, rest: &f64, limit: (i32, i32)) -> i32 {
        let share = (rest / REST_MIN).ln() / (REST_MAX / REST_MIN).ln();
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: plotters::coord::ranged1d::KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        TICKS.iter().map(|(rest, _)| *rest).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        REST_MIN..REST_MAX
    }
}

impl ValueFormatter<f64> for Percentiles {
    fn format_ext(&self, rest: &f64) -> String {
        TICKS.iter().find(|(tick, _)| (tick - rest).abs() < 1e-6).map_or(String::new(), |(_, text)| (*text).to_owned())
    }
}
