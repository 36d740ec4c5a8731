//! The order desk: the page that shows orders to people. Its files lie in `desk/` as they are
//! served; nothing is generated.

macro_rules! files {
    ($($path:literal,)*) => {
        &[$(($path, include_bytes!(concat!("../desk/", $path)))),*]
    };
}

/// Each file by its path.
pub(crate) static FILES: &[(&str, &[u8])] = files![
    "api.js",
    "auth.js",
    "budget.js",
    "chart.js",
    "desk.css",
    "icon.svg",
    "index.html",
    "main.js",
    "page.js",
    "partition.js",
    "stream.js",
    "vendor/lit-html/directive-helpers.js",
    "vendor/lit-html/directive.js",
    "vendor/lit-html/directives/repeat.js",
    "vendor/lit-html/lit-html.js",
    "views/break.js",
    "views/evidence.js",
    "views/find.js",
    "views/items.js",
    "views/latency.js",
    "views/letters.js",
    "views/now.js",
    "views/order.js",
    "views/parts.js",
    "views/proof.js",
    "views/shards.js",
    "views/shuffle.js",
    "views/stuck.js",
    "views/witnesses.js",
    "witness.js",
    "words.js",
    "words/budget.js",
    "words/shuffle.js",
    "words/witness.js",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use ordersaga_runtime::http::gzip;

    use super::*;

    /// What a phone on a slow network loads at once, as it is sent: compressed.
    const MOST: usize = 100_000;

    fn files_below(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .flat_map(|path| {
                let file = path.to_str().unwrap().to_owned();
                if path.is_dir() { files_below(&path) } else { vec![file] }
            })
            .collect()
    }

    #[test]
    fn all_files_are_served_and_they_are_small() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/desk/");
        let found: BTreeSet<_> = files_below(Path::new(folder))
            .iter()
            .map(|path| path.strip_prefix(folder).unwrap().to_owned())
            .filter(|path| !path.ends_with("VENDOR.toml") && !path.ends_with("LICENSE"))
            .collect();
        let served = FILES.iter().map(|(path, _)| (*path).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(found, served);
        let bytes: usize = FILES.iter().map(|(_, content)| gzip(content).len()).sum();
        assert!(bytes <= MOST, "{bytes}");
    }
}
