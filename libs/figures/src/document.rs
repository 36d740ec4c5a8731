//! Documents with parts that a program writes: text between markers is replaced, the rest is kept.

/// The text with the content of each block of a kind in place of what stood between its markers,
/// `<!-- KIND:NAME -->` and `<!-- /KIND -->`. The error says which block has no end or no content.
pub fn replace(
    text: &str,
    kind: &str,
    content: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let (begin, end) = (format!("<!-- {kind}:"), format!("<!-- /{kind} -->"));
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(&begin) {
        let (name, after) = after.split_once(" -->").ok_or("a marker without an end")?;
        let (old, after) =
            after.split_once(&end).ok_or_else(|| format!("the block {name} has no {end}"))?;
        if old.contains(&begin) {
            return Err(format!("the block {name} has no {end} before the next block"));
        }
        let content = content(name).ok_or_else(|| format!("no block is called {name}"))?;
        replaced.extend([before, &begin, name, " -->\n\n", content.trim(), "\n\n", &end]);
        rest = after;
    }
    Ok(replaced + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> Result<String, String> {
        replace(text, "bench", |name| match name {
            "one" => Some("first\n".to_owned()),
            "two" => Some("second".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn only_what_stands_between_markers_is_replaced() -> Result<(), String> {
        let text = "a\n<!-- bench:two -->\nold\n<!-- /bench -->\nb\n\
                    <!-- bench:one --><!-- /bench --> c\n";
        let expected = "a\n<!-- bench:two -->\n\nsecond\n\n<!-- /bench -->\nb\n\
                        <!-- bench:one -->\n\nfirst\n\n<!-- /bench --> c\n";
        assert_eq!(replaced(text)?, expected);
        assert_eq!(replaced(expected)?, expected, "a second time changes nothing");
        assert_eq!(replaced("no markers")?, "no markers");
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for text in [
            "<!-- bench:three -->\n<!-- /bench -->",
            "<!-- bench:one -->\n",
            "<!-- bench:one -->\n<!-- bench:two --><!-- /bench -->",
            "<!-- bench:one",
        ] {
            assert!(replaced(text).is_err(), "{text}");
        }
    }
}
