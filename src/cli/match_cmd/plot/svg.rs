//! The few SVG elements that a picture needs. Coordinates are whole pixels, so the same book
//! gives the same bytes everywhere; every text is escaped here and nowhere else.

use std::fmt::{Display, Write};

use crate::cli::sanitise;

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) x: i64,
    pub(super) y: i64,
    pub(super) width: i64,
    pub(super) height: i64,
}

/// A picture under construction.
#[derive(Debug, Default)]
pub(super) struct Svg {
    body: String,
}

impl Svg {
    fn push(&mut self, element: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// A rectangle; `attributes` are of this program, never of a book.
    pub(super) fn rect(&mut self, area: Area, attributes: &str) {
        let Area { x, y, width, height } = area;
        self.push(format_args!(
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" {attributes}/>"#
        ));
    }

    pub(super) fn line(&mut self, from: (i64, i64), to: (i64, i64), class: &str) {
        self.push(format_args!(
            r#"<line x1="{}" y1="{}" x2="{}" y2="{}" class="{class}"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    /// Points joined by straight lines.
    pub(super) fn path(&mut self, points: &[(i64, i64)], class: &str) {
        if points.is_empty() {
            return;
        }
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
        self.push(format_args!(r#"<polyline points="{}" class="{class}"/>"#, points.join(" ")));
    }

    pub(super) fn text(&mut self, at: (i64, i64), anchor: Anchor, class: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            r#"<text x="{}" y="{}" text-anchor="{anchor}" class="{class}">{}</text>"#,
            at.0,
            at.1,
            escape(text)
        ));
    }

    /// What `draw` adds, with a text that shows under the pointer.
    pub(super) fn titled(&mut self, title: &str, draw: impl FnOnce(&mut Self)) {
        self.push(format_args!("<g><title>{}</title>", escape(title)));
        draw(self);
        self.push("</g>");
    }

    /// The whole document.
    pub(super) fn finish(self, width: i64, height: i64, title: &str, style: &str) -> String {
        let title = escape(title);
        format!(
            r##"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">
<title>{title}</title>
<style>{style}</style>
<rect width="{width}" height="{height}" fill="#ffffff"/>
{body}</svg>
"##,
            body = self.body
        )
    }
}

/// Text between tags: what is deceptive or no character of XML is shown as its code.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in sanitise::line(text).chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_strangers_are_no_markup() {
        let table = [
            ("plain é漢", "plain é漢"),
            (
                "</text><script>alert('1')</script>",
                "&lt;/text&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;",
            ),
            ("a&b\"c", "a&amp;b&quot;c"),
            ("\0\x1b\n\u{202e}\u{ffff}", "\\u{0}\\u{1b}\\n\\u{202e}\\u{ffff}"),
        ];
        for (text, safe) in table {
            assert_eq!(escape(text), safe);
        }
    }
}
