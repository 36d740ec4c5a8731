//! Which texts say to a reader what they say to a program: names without invisible characters.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// What of [`is_legible`] a pattern can say: these characters are refused. Others cannot be named in
/// a way that both `JavaScript` and RE2 (Go) know, and would stand in generated programs as they are.
pub(super) const REFUSED: &str = r"\x00-\x1f\x7f-\x9f\xad";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Visible,
    /// Changes what stands before it: an accent, a vowel sign, a variation selector.
    Mark,
    Blank,
    /// Says whether its neighbours join: needed in words of many scripts and in emoji.
    Joiner,
    /// Never legible.
    Refused,
}

/// Whether a text shows what it is: it has a visible character, joiners stand only between two
/// others, and there are no control characters, line separators or format characters (those that
/// turn the direction of the text, tags, soft hyphens), and none for private use or not assigned,
/// which everybody shows differently.
pub(super) fn is_legible(text: &str) -> bool {
    let kinds: Vec<_> = text.chars().map(kind).collect();
    let is_joined = |at: usize| matches!(kinds.get(at), Some(Kind::Visible | Kind::Mark));
    let fits = |(at, kind): (usize, &Kind)| match kind {
        Kind::Refused => false,
        Kind::Joiner => at > 0 && is_joined(at - 1) && is_joined(at + 1),
        Kind::Visible | Kind::Mark | Kind::Blank => true,
    };
    kinds.contains(&Kind::Visible) && kinds.iter().enumerate().all(fits)
}

fn kind(c: char) -> Kind {
    match c {
        '\u{200c}' | '\u{200d}' => return Kind::Joiner,
        // Fillers of Hangul and the empty pattern of Braille: letters and a symbol that show nothing.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => return Kind::Blank,
        _ => {}
    }
    match c.general_category_group() {
        GeneralCategoryGroup::Letter
        | GeneralCategoryGroup::Number
        | GeneralCategoryGroup::Punctuation
        | GeneralCategoryGroup::Symbol => Kind::Visible,
        GeneralCategoryGroup::Mark => Kind::Mark,
        GeneralCategoryGroup::Separator if is_blank(c) => Kind::Blank,
        GeneralCategoryGroup::Separator | GeneralCategoryGroup::Other => Kind::Refused,
    }
}

/// Of the separators, those that do not end a line.
fn is_blank(c: char) -> bool {
    c.general_category() == GeneralCategory::SpaceSeparator
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_of_all_scripts_and_emoji_are_legible() {
        for text in [
            "IPHONE 13",
            "Сок «Добрый», 1 л",
            "漢字\u{3000}かな",
            "e\u{301}",
            "نان\u{200c}ها",
            "ක්\u{200d}ර",
            "র\u{200d}্য",
            "👩\u{200d}👩\u{200d}👧",
            "❤\u{fe0f}\u{200d}🔥",
            "a\u{a0}b",
        ] {
            assert!(is_legible(text), "{text:?}");
        }
    }

    #[test]
    fn what_hides_or_turns_text_is_not() {
        for text in [
            "",
            " ",
            "\u{a0}\u{3000}",
            "\u{301}",
            "\u{fe0f}",
            "\u{3164}",
            "\u{2800}",
            "\u{200b}",
            "\u{feff}",
            "\u{202e}",
            "\u{200d}",
            "a\u{200b}b",
            "\u{feff}a",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{61c}b",
            "a\u{ad}b",
            "a\u{2028}b",
            "a\nb",
            "a\u{0}b",
            "a\u{85}b",
            "\u{200d}a",
            "a\u{200d}",
            "a\u{200c}\u{200d}b",
            "a \u{200d}b",
            "🏴\u{e0067}\u{e0062}\u{e007f}",
            "a\u{e000}b",
            "a\u{10fffd}b",
            "a\u{378}b",
            "a\u{fffe}b",
        ] {
            assert!(!is_legible(text), "{text:?}");
        }
    }

    #[test]
    fn the_pattern_refuses_what_is_refused_up_to_two_digits() {
        let in_pattern = ['\0'..='\x1f', '\x7f'..='\u{9f}', '\u{ad}'..='\u{ad}'];
        for c in '\0'..='\u{ff}' {
            let in_pattern = in_pattern.iter().any(|range| range.contains(&c));
            assert_eq!(kind(c) == Kind::Refused, in_pattern, "{c:?}");
        }
    }

    /// Named one by one, whatever the table of categories says.
    fn is_known_to_hide(c: char) -> bool {
        matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'
            | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' | '\u{e000}'..='\u{f8ff}')
    }

    fn any_text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-z ]{0,4}",
            any::<char>().prop_map(String::from),
            prop::sample::select(vec!["\u{200b}", "\u{200d}", "\u{202e}", "\u{e0041}", "\u{301}"])
                .prop_map(str::to_owned),
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn a_legible_text_shows_something_and_hides_nothing(text in any_text()) {
            if is_legible(&text) {
                prop_assert!(!text.chars().any(is_known_to_hide), "{text:?}");
                prop_assert!(text.chars().any(|c| !c.is_whitespace()), "{text:?}");
            }
        }

        #[test]
        fn a_joiner_is_legible_within_a_word_only(before in "[a-zа-я]{0,3}", after in "[a-zа-я]{0,3}") {
            let within = !before.is_empty() && !after.is_empty();
            prop_assert_eq!(is_legible(&format!("{before}\u{200d}{after}")), within);
        }
    }
}
