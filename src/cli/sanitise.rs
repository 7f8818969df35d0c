//! The one door between remote text and a terminal.
//!
//! Names, reasons and outputs come from other machines. A control character can move the
//! cursor or retitle the window, a bidirectional mark can make a key look like another:
//! both are shown, never obeyed.

/// Whether a character may change how others are shown, or is none: XML has no U+FFFE and U+FFFF.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes what is deceptive, line breaks included: one line stays one line.
#[must_use]
pub fn line(text: &str) -> String {
    escape(text, |_| false)
}

/// As [`line()`], but line breaks and tabs stay.
#[must_use]
pub fn paragraph(text: &str) -> String {
    escape(text, |c| c == '\n' || c == '\t')
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) && !keep(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Escapes inside an encoded JSON text, where such characters can only stand in strings, so
/// that the value stays the same.
#[must_use]
pub fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                safe += &format!("\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "a\x1b[2J\u{9b}1m\u{202e}b\u{200b}\u{2066}\r\nc\td\u{7f}\u{e0041}\u{ffff}é漢";

    #[test]
    fn nothing_deceptive_passes_and_the_rest_stays() {
        assert_eq!(
            line(HOSTILE),
            "a\\u{1b}[2J\\u{9b}1m\\u{202e}b\\u{200b}\\u{2066}\\r\\nc\\td\\u{7f}\\u{e0041}\\u{ffff}é漢"
        );
        assert!(!line(HOSTILE).chars().any(is_deceptive));
        assert!(!json(&serde_json::to_string(HOSTILE).unwrap()).chars().any(is_deceptive));
        assert!(paragraph(HOSTILE).contains("\\r\nc\td"));
        assert_eq!(line("plain text, 20 sat/block"), "plain text, 20 sat/block");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let text = json(&serde_json::to_string_pretty(&[HOSTILE]).unwrap());
        let back: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, [HOSTILE]);
    }
}
