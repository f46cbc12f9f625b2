//! Bars side by side, each with its limit across it if it has one.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Chart, GRID, LIMIT, Scale, color, units};

/// One bar.
#[derive(Debug)]
pub(crate) struct Bar {
    /// Its height.
    pub(crate) value: f64,
    /// Above it.
    pub(crate) label: String,
    /// Bars of one color belong together.
    pub(crate) color: usize,
    /// A line across it: what it could be at the most.
    pub(crate) limit: Option<f64>,
}

/// Groups of bars.
#[derive(Debug)]
pub(crate) struct Bars {
    /// Each with its name.
    pub(crate) groups: Vec<(String, Vec<Bar>)>,
    /// Behind the numbers of the y axis.
    pub(crate) unit: &'static str,
    /// What the groups are; may be empty.
    pub(crate) x_title: &'static str,
    /// What the heights are.
    pub(crate) y_title: &'static str,
}

impl Bars {
    fn top(&self) -> f64 {
        let bars = self.groups.iter().flat_map(|(_, bars)| bars);
        bars.map(|bar| bar.value.max(bar.limit.unwrap_or(0.0))).fold(1e-9, f64::max) * 1.15
    }

    /// Most characters that a group's name has room for, at about seven pixels each.
    fn name_room(&self) -> usize {
        (800 / self.groups.len().max(1) / 7).max(4)
    }

    /// Lines that the longest name takes.
    fn name_lines(&self) -> u32 {
        let room = self.name_room();
        self.groups.iter().map(|(name, _)| wrapped(name, room).len() as u32).max().unwrap_or(1)
    }

    fn draw_bar<B: DrawingBackend>(
        &self,
        chart: &mut Plane<'_, B>,
        (left, width): (f64, f64),
        bar: &Bar,
        scale: Scale,
    ) -> anyhow::Result<()>
    where
        B::ErrorType: 'static,
    {
        let right = left + width * 0.94;
        chart.draw_series([Rectangle::new([(left, 0.0), (right, bar.value)], color(bar.color).filled())])?;
        if let Some(limit) = bar.limit {
            let line = [(left - width * 0.03, limit), (right + width * 0.03, limit)];
            chart.draw_series([PathElement::new(line, LIMIT.stroke_width(scale.px(2)))])?;
        }
        if !bar.label.is_empty() {
            let style = scale.font(12).pos(Pos::new(HPos::Center, VPos::Bottom));
            // Above the limit where the limit would cross it.
            let top = self.top();
            let height = bar
                .value
                .max(bar.limit.filter(|limit| (bar.value..bar.value + top * 0.09).contains(limit)).unwrap_or(0.0));
            chart.draw_series([Text::new(bar.label.clone(), ((left + right) / 2.0, height + top * 0.012), style)])?;
        }
        Ok(())
    }

    /// Names below the axis; a long one in several lines.
    fn draw_names<B: DrawingBackend>(
        &self,
        chart: &Plane<'_, B>,
        area: &DrawingArea<B, Shift>,
        scale: Scale,
    ) -> anyhow::Result<()>
    where
        B::ErrorType: 'static,
    {
        let style = scale.font(13).pos(Pos::new(HPos::Center, VPos::Top));
        // The chart knows places of the whole picture, the area its own.
        let (area_x, area_y) = area.get_base_pixel();
        for (group, (name, _)) in self.groups.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
            let (x, y) = (x - area_x, y - area_y);
            for (index, line) in wrapped(name, self.name_room()).iter().enumerate() {
                let below = scale.px(7 + 16 * index as u32) as i32;
                area.draw_text(line, &style, (x, y + below))?;
            }
        }
        Ok(())
    }
}

type Plane<'a, B> = ChartContext<'a, B, Cartesian2d<Groups, plotters::coord::types::RangedCoordf64>>;

impl Chart for Bars {
    fn height(&self) -> u32 {
        290 + 16 * self.name_lines() + if self.x_title.is_empty() { 0 } else { 20 }
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, scale: Scale) -> anyhow::Result<()>
    where
        B::ErrorType: 'static,
    {
        let names = 14 + 16 * self.name_lines() + if self.x_title.is_empty() { 0 } else { 20 };
        let mut chart = ChartBuilder::on(area)
            .margin(scale.px(12))
            .x_label_area_size(scale.px(names))
            .y_label_area_size(scale.px(84))
            .build_cartesian_2d(Groups(self.groups.len()), 0f64..self.top())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_labels(6)
            .y_label_formatter(&|value| format!("{}{}", units::count(*value), self.unit))
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .label_style(scale.font(13))
            .axis_desc_style(scale.font(14))
            .x_desc(self.x_title)
            .y_desc(self.y_title)
            .draw()?;
        for (group, (_, bars)) in self.groups.iter().enumerate() {
            let width = 0.8 / bars.len().max(1) as f64;
            for (index, bar) in bars.iter().enumerate() {
                let left = group as f64 + 0.1 + width * index as f64;
                self.draw_bar(&mut chart, (left, width), bar, scale)?;
            }
        }
        self.draw_names(&chart, area, scale)
    }
}

/// A text in lines of at most `room` characters, if its words allow.
pub(super) fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The x axis of the bars: one unit for each group. Their names are drawn by themselves.
#[derive(Clone)]
struct Groups(usize);

impl Ranged for Groups {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (value / self.0.max(1) as f64 * f64::from(limit.1 - limit.0)) as i32
    }

    fn key_points<Hint: plotters::coord::ranged1d::KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        Vec::new()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.0.max(1) as f64
    }
}

impl ValueFormatter<f64> for Groups {
    fn format_ext(&self, _value: &f64) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_broken_between_words() {
        assert_eq!(wrapped("4096 in flight, open", 10), ["4096 in", "flight,", "open"]);
        assert_eq!(wrapped("indivisible", 4), ["indivisible"]);
    }
}
