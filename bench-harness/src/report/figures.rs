//! The charts of a page: as SVG in its text, and each once more as a PNG.

use super::plot::{Caption, Chart, css_color, css_limit, png, svg};

/// Collects the pictures while a page is written.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    section: (String, String),
    count: usize,
    images: Vec<(String, Vec<u8>)>,
}

impl Figures {
    /// The next charts belong to this section: a word for file names, and its title.
    pub(crate) fn begin(&mut self, word: &str, title: &str) {
        self.section = (word.to_owned(), title.to_owned());
        self.count = 0;
    }

    /// A chart with its legend and caption, as HTML.
    pub(crate) fn add(
        &mut self,
        chart: &impl Chart,
        legend: Vec<(usize, String)>,
        limit: Option<&'static str>,
        caption: &str,
    ) -> anyhow::Result<String> {
        let colors = legend.iter().map(|(color, name)| (css_color(*color), name.as_str()));
        let entries: String = colors.chain(limit.map(|name| (css_limit(), name))).map(legend_entry).collect();
        self.count += 1;
        let (word, title) = &self.section;
        let text = format!("{title}. {caption}");
        self.images.push((format!("{word}-{}.png", self.count), png(chart, &Caption { text, legend, limit })?));
        let (svg, caption) = (svg(chart)?, escape(caption));
        Ok(format!("<figure>{svg}<div class=\"legend\">{entries}</div><figcaption>{caption}</figcaption></figure>"))
    }

    /// File name and bytes of each picture.
    pub(crate) fn into_images(self) -> Vec<(String, Vec<u8>)> {
        self.images
    }
}

fn legend_entry((color, name): (String, &str)) -> String {
    format!("<span><i style=\"background:{color}\"></i>{}</span>", escape(name))
}

/// Text as HTML has it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
