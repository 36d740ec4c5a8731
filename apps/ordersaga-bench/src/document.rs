//! The document whose tables are written by the benchmark: text between markers is replaced, the
//! rest is kept.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

const BEGIN: &str = "<!-- bench:";
const END: &str = "<!-- /bench -->";

/// The text with the content of each block in place of what stood between its markers,
/// `<!-- bench:NAME -->` and `<!-- /bench -->`. A block without content is an error; content that
/// has no place is not.
pub(crate) fn replace(text: &str, blocks: &BTreeMap<&str, String>) -> Result<String> {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->").context("a marker without an end")?;
        let Some((old, after)) = after.split_once(END) else {
            bail!("the block {name} has no {END}");
        };
        if old.contains(BEGIN) {
            bail!("the block {name} has no {END} before the next block");
        }
        let content = blocks.get(name).with_context(|| format!("no block is called {name}"))?;
        let block = [before, BEGIN, name, " -->\n\n", content.trim(), "\n\n", END];
        replaced.extend(block);
        rest = after;
    }
    Ok(replaced + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks() -> BTreeMap<&'static str, String> {
        [("one", "first\n".to_owned()), ("two", "second".to_owned())].into()
    }

    #[test]
    fn only_what_stands_between_markers_is_replaced() -> Result<()> {
        let text = "a\n<!-- bench:two -->\nold\n<!-- /bench -->\nb\n\
                    <!-- bench:one --><!-- /bench --> c\n";
        let expected = "a\n<!-- bench:two -->\n\nsecond\n\n<!-- /bench -->\nb\n\
                        <!-- bench:one -->\n\nfirst\n\n<!-- /bench --> c\n";
        assert_eq!(replace(text, &blocks())?, expected);
        assert_eq!(replace(expected, &blocks())?, expected, "a second time changes nothing");
        assert_eq!(replace("no markers", &blocks())?, "no markers");
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
            assert!(replace(text, &blocks()).is_err(), "{text}");
        }
    }
}
