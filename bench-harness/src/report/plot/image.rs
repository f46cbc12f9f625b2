//! A chart as a PNG that stands alone: its caption above it, its legend below that.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::bars::wrapped;
use super::{Chart, LIMIT, Scale, WIDTH, color, register_font};

/// Pixels of a PNG for one of the page.
const PNG_SCALE: Scale = Scale(2);

const MARGIN: u32 = 14;
const TITLE_HEIGHT: u32 = 20;
const LEGEND_HEIGHT: u32 = 20;
/// Width of a legend's color, and what is left free around it.
const SWATCH: u32 = 20;
const GAP: u32 = 8;
/// Characters of a line of the caption: as many as have room, whatever letters they are.
const TITLE_CHARACTERS: usize = 126;

/// What is said around a chart.
#[derive(Clone, Debug)]
pub(crate) struct Caption {
    /// What it shows; plain text.
    pub(crate) text: String,
    /// Color and name of what is in it.
    pub(crate) legend: Vec<(usize, String)>,
    /// What the lines in the color of limits are, if there are any.
    pub(crate) limit: Option<&'static str>,
}

/// A text of the legend, its color and place.
struct Entry<'a> {
    name: &'a str,
    color: RGBColor,
    left: u32,
    line: u32,
}

impl Caption {
    /// The legend in lines that fit, from left to right, and how many lines it has.
    fn entries(&self, scale: Scale) -> anyhow::Result<(Vec<Entry<'_>>, u32)> {
        let colors = self.legend.iter().map(|(index, name)| (color(*index), name.as_str()));
        let all = colors.chain(self.limit.map(|name| (LIMIT, name)));
        let (mut entries, mut left, mut line) = (Vec::new(), MARGIN, 0);
        for (color, name) in all {
            let (text, _) = scale.font(13).font.box_size(name)?;
            let width = SWATCH + 2 * GAP + text / scale.px(1) + GAP;
            if left > MARGIN && left + width > WIDTH - MARGIN {
                (left, line) = (MARGIN, line + 1);
            }
            entries.push(Entry { name, color, left, line });
            left += width;
        }
        let lines = if entries.is_empty() { 0 } else { line + 1 };
        Ok((entries, lines))
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        entries: &[Entry<'_>],
        scale: Scale,
    ) -> anyhow::Result<()>
    where
        B::ErrorType: 'static,
    {
        let at = |x: u32, y: u32| (scale.px(x) as i32, scale.px(y) as i32);
        let title = scale.font(15).pos(Pos::new(HPos::Left, VPos::Top));
        let titles = wrapped(&self.text, TITLE_CHARACTERS);
        for (index, line) in titles.iter().enumerate() {
            area.draw_text(line, &title, at(MARGIN, MARGIN + TITLE_HEIGHT * index as u32))?;
        }
        let top = MARGIN + TITLE_HEIGHT * titles.len() as u32 + GAP / 2;
        let text = scale.font(13).pos(Pos::new(HPos::Left, VPos::Top));
        for entry in entries {
            let y = top + LEGEND_HEIGHT * entry.line;
            let corners = [at(entry.left, y - 1), at(entry.left + SWATCH, y + 9)];
            area.draw(&Rectangle::new(corners, entry.color.filled()))?;
            area.draw_text(entry.name, &text, at(entry.left + SWATCH + GAP, y))?;
        }
        Ok(())
    }
}

/// The chart with its caption, as the bytes of a PNG file.
pub(crate) fn png(chart: &impl Chart, caption: &Caption) -> anyhow::Result<Vec<u8>> {
    register_font();
    let scale = PNG_SCALE;
    let (entries, lines) = caption.entries(scale)?;
    let titles = wrapped(&caption.text, TITLE_CHARACTERS).len() as u32;
    let above = MARGIN + TITLE_HEIGHT * titles + GAP + LEGEND_HEIGHT * lines;
    let (width, height) = (scale.px(WIDTH), scale.px(above + chart.height()));
    let mut pixels = vec![0; (width * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let (top, rest) = area.split_vertically(scale.px(above));
        caption.draw(&top, &entries, scale)?;
        chart.draw(&rest, scale)?;
        area.present()?;
    }
    encoded(&pixels, width, height)
}

fn encoded(pixels: &[u8], width: u32, height: u32) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{Bar, Bars};
    use super::*;

    fn caption(names: usize) -> Caption {
        let legend = (0..names).map(|index| (index, format!("a rather long name, number {index}"))).collect();
        Caption { text: "What it shows.".to_owned(), legend, limit: Some("raw device") }
    }

    /// Whether text is drawn depends on no font of the machine: some pixels of the caption are not white.
    #[test]
    fn text_is_in_the_picture() {
        let bar = Bar { value: 1.0, label: "1".to_owned(), color: 0, limit: None };
        let bars = Bars { groups: vec![("one".to_owned(), vec![bar])], unit: "", x_title: "x", y_title: "y" };
        let bytes = png(&bars, &caption(2)).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.width, 2 * WIDTH);
        let caption_rows = (2 * (MARGIN + TITLE_HEIGHT) * info.width * 3) as usize;
        assert!(pixels[..caption_rows].iter().filter(|value| **value < 100).count() > 200);
    }

    /// The names of the groups lie below the bars, also where the chart begins further down: the last rows are not empty.
    #[test]
    fn names_of_groups_are_in_the_picture() {
        let bar = Bar { value: 1.0, label: String::new(), color: 0, limit: None };
        let bars = Bars { groups: vec![("one".to_owned(), vec![bar])], unit: "", x_title: "", y_title: "" };
        let bytes = png(&bars, &caption(2)).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let names = (2 * (16 + 14 + 8) * 2 * WIDTH * 3) as usize;
        assert!(pixels[pixels.len() - names..].iter().filter(|value| **value < 100).count() > 60);
    }

    #[test]
    fn a_long_legend_takes_several_lines() {
        register_font();
        let caption = caption(9);
        let (entries, lines) = caption.entries(PNG_SCALE).unwrap();
        assert!(lines > 1);
        for pair in entries.windows(2) {
            assert!(pair[1].line > pair[0].line || pair[1].left > pair[0].left);
        }
    }
}
