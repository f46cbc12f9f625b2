//! Lines over powers of two: both axes logarithmic, with a mark at one x.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::log_axis::LogAxis;
use super::{Chart, GRID, LIMIT, Scale, color, units};

/// One line.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its points, from left to right.
    pub(crate) points: Vec<(f64, f64)>,
    /// Its color.
    pub(crate) color: usize,
}

/// All lines of a plot.
#[derive(Debug)]
pub(crate) struct Lines {
    /// They share both axes.
    pub(crate) lines: Vec<Line>,
    /// A place on the x axis, and what it is.
    pub(crate) mark: Option<(f64, String)>,
    /// What x is.
    pub(crate) x_title: &'static str,
    /// What y is.
    pub(crate) y_title: &'static str,
    /// How y is written.
    pub(crate) unit: fn(f64) -> String,
}

impl Chart for Lines {
    fn height(&self) -> u32 {
        330
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, scale: Scale) -> anyhow::Result<()>
    where
        B::ErrorType: 'static,
    {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let lowest = points().map(|(_, y)| *y).fold(1e12, f64::min).max(1e-9);
        let highest = points().map(|(_, y)| *y).fold(lowest * 2.0, f64::max);
        let right = points().map(|(x, _)| *x).fold(2.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin(scale.px(12))
            .margin_right(scale.px(48))
            .x_label_area_size(scale.px(46))
            .y_label_area_size(scale.px(84))
            .build_cartesian_2d((1f64..right).log_scale().base(2.0), LogAxis(lowest * 0.7..highest * 1.8))?;
        chart
            .configure_mesh()
            .x_labels(20)
            .y_labels(12)
            .x_label_formatter(&|x| units::whole(*x))
            .y_label_formatter(&|y| (self.unit)(*y))
            .x_desc(self.x_title)
            .y_desc(self.y_title)
            .light_line_style(RGBColor(0xf4, 0xf4, 0xf4))
            .bold_line_style(GRID)
            .label_style(scale.font(13))
            .axis_desc_style(scale.font(14))
            .draw()?;
        if let Some((x, text)) = &self.mark {
            let line = [(*x, lowest * 0.7), (*x, highest * 1.8)];
            chart.draw_series([PathElement::new(line, LIMIT.stroke_width(scale.px(1)))])?;
            // On the side that has room for the text.
            let (side, gap) = if x * x > right { (HPos::Right, 1.0 / 1.06) } else { (HPos::Left, 1.06) };
            let style = scale.font(13).color(&LIMIT).pos(Pos::new(side, VPos::Top));
            chart.draw_series([Text::new(text.clone(), (x * gap, highest * 1.7), style)])?;
        }
        for line in &self.lines {
            let style = color(line.color).stroke_width(scale.px(2));
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            let dots = line.points.iter().map(|point| Circle::new(*point, scale.px(3), color(line.color).filled()));
            chart.draw_series(dots)?;
        }
        Ok(())
    }
}
