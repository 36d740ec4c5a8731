//! The documents against what they point at: files, headings, and the sources of the diagrams.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use percent_encoding::percent_decode_str;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use sha2::{Digest, Sha256};
use url::Url;

const DIAGRAMS: &str = "docs/diagrams";
/// Imported by every diagram, so that a change of it is a change of all of them.
const STYLE: &str = "docs/diagrams/style/style.d2";
/// The labels of the diagrams in Russian.
const WORDS: &str = "docs/diagrams/style/ru.tsv";

/// What GitHub would show of this working tree.
struct Repository {
    root: PathBuf,
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Repository {
    fn open() -> Result<Self> {
        let root = crate::cargo::root();
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let output = git.current_dir(&root).output().context("cannot start git")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listed = String::from_utf8(output.stdout)?;
        let files = listed.split_terminator('\0').filter(|file| root.join(file).is_file());
        let files: BTreeSet<_> = files.map(str::to_owned).collect();
        let folders = files.iter().flat_map(|file| Path::new(file).ancestors().skip(1));
        let folders = folders.filter_map(Path::to_str).map(str::to_owned).collect();
        Ok(Self { root, files, folders })
    }

    fn text(&self, file: &str) -> Result<String> {
        std::fs::read_to_string(self.root.join(file)).with_context(|| file.to_owned())
    }

    fn pages(&self) -> Result<BTreeMap<&str, Page>> {
        let pages = self.files.iter().filter(|file| is(file, "md"));
        pages.map(|file| Ok((file.as_str(), Page::read(&self.text(file)?)))).collect()
    }
}

/// What a Markdown file offers to links, and where its own lead.
#[derive(Default)]
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<String>,
    /// Its text without code and addresses: what looks like a link here is a broken one.
    prose: String,
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        let mut repeated = HashMap::new();
        let mut code = false;
        let options = Options::ENABLE_TABLES | Options::ENABLE_GFM | Options::ENABLE_STRIKETHROUGH;
        for event in Parser::new_ext(text, options) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Html(html) | Event::InlineHtml(html) => page.read_html(&html),
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(part) | Event::Code(part) if heading.is_some() => {
                    heading.get_or_insert_default().push_str(&part);
                }
                Event::Text(part) if !code => page.prose.push_str(&part),
                Event::Start(Tag::CodeBlock(_)) => code = true,
                Event::End(TagEnd::CodeBlock) => code = false,
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    let before = repeated.entry(slug.clone()).or_insert(0);
                    let anchor = if *before == 0 { slug } else { format!("{slug}-{before}") };
                    *before += 1;
                    page.anchors.insert(anchor);
                }
                Event::SoftBreak | Event::End(_) => page.prose.push('\n'),
                _ => {}
            }
        }
        page
    }

    fn read_html(&mut self, html: &str) {
        let values = |name: &str| -> Vec<String> {
            let before = format!(" {name}=\"");
            let parts = html.split(&before).skip(1);
            parts
                .filter_map(|part| part.split_once('"'))
                .map(|(value, _)| value.to_owned())
                .collect()
        };
        self.anchors.extend(["id", "name"].iter().flat_map(|name| values(name)));
        self.links.extend(["href", "src"].iter().flat_map(|name| values(name)));
    }
}

/// The anchor GitHub gives to a heading.
fn slug(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || "_- ".contains(*letter);
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

fn is(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|found| found == extension)
}

/// A relative path from the folder of `page`, without `.` and `..`; none if it leaves the repository.
fn resolve(page: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn follow(
    repository: &Repository,
    pages: &BTreeMap<&str, Page>,
    from: &str,
    link: &str,
) -> Result<()> {
    if link.contains("://") || link.starts_with("mailto:") {
        let url = Url::parse(link)?;
        let known = matches!(url.scheme(), "https" | "http" | "mailto");
        ensure!(known && (url.has_host() || url.scheme() == "mailto"), "no address of a page");
        return Ok(());
    }
    let link = percent_decode_str(link).decode_utf8()?;
    let (path, anchor) = link.split_once('#').map_or((&*link, None), |(path, at)| (path, Some(at)));
    ensure!(!path.starts_with('/'), "is absolute");
    let to = if path.is_empty() { Some(from.to_owned()) } else { resolve(from, path) };
    let to = to.context("leaves the repository")?;
    let there = repository.files.contains(&to) || repository.folders.contains(&to);
    ensure!(there, "there is no {to}");
    let Some(anchor) = anchor else { return Ok(()) };
    if let Some(page) = pages.get(to.as_str()) {
        ensure!(page.anchors.contains(anchor), "{to} has no #{anchor}");
        return Ok(());
    }
    let number: usize = anchor.strip_prefix('L').context("neither page nor line")?.parse()?;
    ensure!(number <= repository.text(&to)?.lines().count(), "{to} has no line {number}");
    Ok(())
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() -> Result<()> {
    let repository = Repository::open()?;
    let pages = repository.pages()?;
    let mut broken = Vec::new();
    for (from, page) in &pages {
        let none = page.prose.lines().filter(|line| line.contains("]("));
        broken.extend(none.map(|line| format!("{from}: no link: {line}")));
        for link in &page.links {
            if let Err(error) = follow(&repository, &pages, from, link) {
                broken.push(format!("{from}: {link}: {error:#}"));
            }
        }
    }
    let links: usize = pages.values().map(|page| page.links.len()).sum();
    ensure!(links > 100, "{links} links are not all of them");
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

/// `docs/diagrams/render` writes the digest of what it drew into each picture.
#[test]
fn pictures_are_drawn_from_the_committed_sources() -> Result<()> {
    let repository = Repository::open()?;
    let of = |extension: &str| -> BTreeSet<String> {
        let files = repository.files.iter().filter(|file| is(file, extension));
        let names = files.filter_map(|file| file.strip_prefix(DIAGRAMS)?.strip_prefix('/'));
        let names = names.filter(|name| !name.contains('/'));
        names.filter_map(|name| name.rsplit_once('.')).map(|(name, _)| name.to_owned()).collect()
    };
    let sources = of("d2");
    let pictures = sources.iter().flat_map(|name| [name.clone(), format!("{name}.ru")]).collect();
    ensure!(!sources.is_empty() && of("svg") == pictures, "a source or a picture is missing");
    let style = repository.text(STYLE)?;
    let words = repository.text(WORDS)?;
    for name in sources {
        let source = repository.text(&format!("{DIAGRAMS}/{name}.d2"))?;
        for (picture, words) in [(name.clone(), ""), (format!("{name}.ru"), &words)] {
            let stamp = format!("<!-- source sha256:{} -->", sha256(&[&style, &source, words]));
            let drawn = repository.text(&format!("{DIAGRAMS}/{picture}.svg"))?;
            ensure!(drawn.contains(&stamp), "{picture}.svg is outdated: run {DIAGRAMS}/render");
        }
    }
    Ok(())
}

fn sha256(parts: &[&str]) -> String {
    Sha256::digest(parts.concat()).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[test]
fn anchors_are_those_of_github() {
    let text =
        "# A `b` & c/d, e_f\n## Données?\n## Тест — слова\n### Same\n### Same\n<a id=\"own\"></a>";
    let anchors = Page::read(text).anchors;
    let expected = ["a-b--cd-e_f", "données", "тест--слова", "same", "same-1", "own"];
    assert_eq!(anchors, expected.map(str::to_owned).into());
}
