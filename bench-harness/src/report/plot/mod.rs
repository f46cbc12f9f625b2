//! The charts: each drawn as SVG text for the page, and as a PNG that stands alone.
//!
//! Text is measured, and drawn in PNGs, with a font that is in the program: what a machine has installed changes nothing.

mod bars;
mod curves;
mod image;
mod lines;
mod log_axis;

use std::sync::Once;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::units;
use crate::row::Row;

pub(crate) use bars::{Bar, Bars};
pub(crate) use curves::{Curve, Curves};
pub(crate) use image::{Caption, png};
pub(crate) use lines::{Line, Lines};

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

/// Color of limits, which are nobody's bars and curves.
const LIMIT: RGBColor = RGBColor(0xb0, 0x20, 0x20);

const INK: RGBColor = RGBColor(0x1d, 0x21, 0x29);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);

/// Color of the `index`th group of curves or bars.
fn color(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

/// The same as CSS has it.
pub(crate) fn css_color(index: usize) -> String {
    css(color(index))
}

/// Color of limits as CSS has it.
pub(crate) fn css_limit() -> String {
    css(LIMIT)
}

fn css(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Lengths in pixels of the page; a PNG has more of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale(u32);

impl Scale {
    fn px(self, length: u32) -> u32 {
        length * self.0
    }

    fn font<'a>(self, size: u32) -> TextStyle<'a> {
        FontDesc::new(FontFamily::SansSerif, f64::from(self.px(size)), FontStyle::Normal).color(&INK)
    }
}

/// Something that is drawn.
pub(crate) trait Chart {
    /// Height on the page, pixels.
    fn height(&self) -> u32;

    /// Draws it into an area of `WIDTH` by its height, both scaled.
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, scale: Scale) -> anyhow::Result<()>
    where
        B::ErrorType: 'static;
}

/// The chart as SVG text.
pub(crate) fn svg(chart: &impl Chart) -> anyhow::Result<String> {
    register_font();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, chart.height())).into_drawing_area();
        area.fill(&WHITE)?;
        chart.draw(&area, Scale(1))?;
        area.present()?;
    }
    Ok(svg)
}

/// Makes the font in the program the one that is drawn with.
fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let registered = plotters::style::register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
        registered.map_err(|_| anyhow!("no font")).expect("the font in the program is a font");
    });
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
        let svg_text = svg(&Curves(vec![curve])).unwrap();
        assert!(svg_text.starts_with("<svg") && svg_text.contains("99.9 %") && svg_text.contains("50 %"));
        let bar = Bar { value: 50.0, label: "5 M".to_owned(), color: 0, limit: Some(100.0) };
        let bars = Bars { groups: vec![("group".to_owned(), vec![bar])], unit: " %", x_title: "", y_title: "share" };
        let svg_text = svg(&bars).unwrap();
        for text in ["group", "5 M", "share", "#B02020"] {
            assert!(svg_text.contains(text), "{text}");
        }
    }

    /// Nothing measured is no reason to fail.
    #[test]
    fn empty_plots_are_drawn() {
        svg(&Curves(Vec::new())).unwrap();
        svg(&Bars { groups: Vec::new(), unit: "", x_title: "", y_title: "" }).unwrap();
        svg(&Lines { lines: Vec::new(), mark: None, x_title: "", y_title: "", unit: units::count }).unwrap();
    }
}
