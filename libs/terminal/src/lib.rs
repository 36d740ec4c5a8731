//! What the tool prints. Keys, payloads, headers, errors, names and logs were written by anybody: no
//! character of theirs moves the cursor, changes colours, turns the direction of the text or stays
//! invisible.
//!
//! [`line`], [`lines`] and [`brief`] are for what stands within other text. They also tell an escape
//! from text that looks like one, so that what is shown can be read back. [`say!`] and
//! [`say_error!`] let nothing else through, wherever it comes from.

use std::fmt::{self, Write};
use std::io;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_width::UnicodeWidthChar;

/// Prints a line. Nothing is wrong when nobody reads it, as after `| head`.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::print(&mut ::std::io::stdout(), ::std::format_args!($($text)*))
    };
}

/// Prints a line about an error. There is no other place to say that this fails.
#[macro_export]
macro_rules! say_error {
    ($($text:tt)*) => {
        $crate::print(&mut ::std::io::stderr(), ::std::format_args!($($text)*))
    };
}

#[doc(hidden)]
pub fn print(to: &mut impl io::Write, text: fmt::Arguments<'_>) {
    let _ = writeln!(to, "{}", plain(&text.to_string()));
}

/// Text of several lines, for output that is not otherwise checked: whatever is not shown as it is
/// becomes `\u{…}`, line feeds and tabs excepted.
pub fn plain(text: &str) -> String {
    escaped(text.chars().map(|c| (c, !is_plain(c) && !is_break(c))), unicode)
}

/// Text of several lines, to be read back: a `\u{…}` of its own is told from an escape.
pub fn lines(text: &str) -> String {
    escaped(marked(text).map(|(c, mark)| (c, mark || !is_plain(c) && !is_break(c))), unicode)
}

/// Text within a line, to be read back: line feeds and tabs are escaped, too.
pub fn line(text: &str) -> String {
    escaped(in_a_line(text), unicode)
}

/// The beginning of a text within a line that takes at most `width` columns, with `…` at its end if
/// something is left out.
pub fn brief(text: &str, width: usize) -> String {
    let (mut kept, mut columns, mut end) = (String::new(), 0, 0);
    for one in in_a_line(text) {
        let part = escaped([one].into_iter(), unicode);
        columns += part.chars().map(columns_of).sum::<usize>();
        if columns > width {
            kept.truncate(end);
            kept.extend((width > 0).then_some('…'));
            break;
        }
        kept.push_str(&part);
        // Up to here there is room for the `…`.
        if columns < width {
            end = kept.len();
        }
    }
    kept
}

/// JSON that says the same, with what is not plain as `\uXXXX`.
pub fn json(json: &str) -> String {
    escaped(json.chars().map(|c| (c, !is_plain(c) && !is_break(c))), |text, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    })
}

fn in_a_line(text: &str) -> impl Iterator<Item = (char, bool)> {
    marked(text).map(|(c, mark)| (c, mark || !is_plain(c)))
}

/// The characters, and whether each is a backslash that begins what looks like an escape.
fn marked(text: &str) -> impl Iterator<Item = (char, bool)> {
    text.char_indices().map(|(at, c)| (c, c == '\\' && text[at..].starts_with("\\u{")))
}

/// Writes characters, those that are to be escaped by `escape`.
fn escaped(
    characters: impl Iterator<Item = (char, bool)>,
    escape: impl Fn(&mut String, char),
) -> String {
    let mut text = String::new();
    for (c, is_escaped) in characters {
        if is_escaped { escape(&mut text, c) } else { text.push(c) }
    }
    text
}

fn unicode(text: &mut String, c: char) {
    // Writing to a string does not fail.
    let _ = write!(text, "{}", c.escape_unicode());
}

/// Whether a terminal shows a character as it is. The group "other" are control and format
/// characters (bidi, zero width), private ones and those not assigned; of separators only the blank
/// looks like what it is.
fn is_plain(c: char) -> bool {
    match c.general_category_group() {
        GeneralCategoryGroup::Other => false,
        GeneralCategoryGroup::Separator => c == ' ',
        _ => true,
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\t')
}

/// Columns a character may take. One that joins the last counts, or any number of them would be
/// nothing.
fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    /// Text as somebody would write it to mislead: ordinary letters, all sorts of others, and what
    /// looks like an escape.
    fn foreign() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-z\\\\{}]{0,4}",
            ".{0,4}",
            any::<char>().prop_map(String::from),
            prop::sample::select(vec![
                "\\u{",
                "\\u{202e}",
                "\u{202e}",
                "\u{2066}",
                "\u{200f}",
                "\u{feff}",
                "\u{61c}",
                "\u{ad}",
                "\u{1b}[2J",
                "\u{9b}2J",
                "\u{7f}",
                "\r",
                "\n",
                "\t",
                "\u{2028}",
                "\u{301}",
                "\u{e0041}",
                "\u{e000}",
                "\u{378}",
                "漢",
                "👩\u{200d}👩",
                "\u{a0}",
                "\"",
                "…",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    /// Named one by one, whatever the table of categories says.
    fn misleads(c: char) -> bool {
        matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
    }

    /// What an escaped text says.
    fn read(mut text: &str) -> String {
        let mut read = String::new();
        while let Some((before, rest)) = text.split_once("\\u{") {
            let (digits, rest) = rest.split_once('}').unwrap();
            read.push_str(before);
            read.push(u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).unwrap());
            text = rest;
        }
        read + text
    }

    proptest! {
        #[test]
        fn nothing_that_misleads_is_printed(text in foreign(), width in 0..40_usize) {
            for shown in [line(&text), brief(&text, width)] {
                prop_assert!(!shown.chars().any(misleads), "{shown:?}");
            }
            for shown in [plain(&text), lines(&text), json(&text)] {
                let mut others = shown.chars().filter(|c| !is_break(*c));
                prop_assert!(!others.any(misleads), "{shown:?}");
            }
        }

        #[test]
        fn what_is_shown_can_be_read_back(text in foreign()) {
            prop_assert_eq!(read(&line(&text)), text.as_str());
            prop_assert_eq!(read(&lines(&text)), text.as_str());
        }

        #[test]
        fn printing_changes_nothing_that_is_escaped(text in foreign()) {
            for shown in [line(&text), lines(&text), json(&text), plain(&text)] {
                prop_assert_eq!(plain(&shown), shown.as_str());
            }
        }

        #[test]
        fn the_beginning_has_its_width_and_no_more(text in foreign(), width in 0..40_usize) {
            let (whole, shown) = (line(&text), brief(&text, width));
            prop_assert!(shown.width() <= width, "{shown:?}");
            prop_assert!(shown.chars().count() <= width, "{shown:?}");
            match shown.strip_suffix('…') {
                Some(begin) if shown != whole => prop_assert!(whole.starts_with(begin)),
                _ => prop_assert!(shown == whole || width == 0),
            }
        }

        #[test]
        fn json_says_the_same(text in foreign()) {
            let written = serde_json::to_string_pretty(&[&text]).unwrap();
            let back: Vec<String> = serde_json::from_str(&json(&written)).unwrap();
            prop_assert_eq!(back, [text]);
        }
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in ["{\"a\": \"ü\\n\"}", "漢字 Банан e\u{301}", "reset/8/12", "C:\\users", "👍"]
        {
            assert_eq!(line(text), text);
            assert_eq!(brief(text, 40), text);
        }
        assert_eq!(lines("{\n\t\"a\": 1\n}"), "{\n\t\"a\": 1\n}");
        assert_eq!(line("a\nb"), "a\\u{a}b");
        assert_eq!(line("\u{202e}\\u{202e}"), "\\u{202e}\\u{5c}u{202e}");
        assert_eq!(brief("abcdef", 4), "abc…");
        assert_eq!(brief("ab\u{202e}", 8), "ab…");
    }
}
