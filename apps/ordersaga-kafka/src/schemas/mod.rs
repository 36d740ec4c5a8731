//! `schemas`: what is published of the events, made of the code: JSON Schemas, the `AsyncAPI`
//! document, and the schemas' registration.

mod asyncapi;
#[cfg(test)]
mod compatibility;
mod registry;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use ordersaga_contract::schema;
use ordersaga_runtime::topics::TopicsFile;
use serde_json::Value;

pub(crate) use registry::{Registry, register};

/// What to do with the published documents.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Writes asyncapi.json and schemas/EVENT.json
    Export(Folder),
    /// Fails when a committed document is not what the code says
    Check(Folder),
}

#[derive(clap::Args)]
pub(crate) struct Folder {
    /// Where the documents are
    #[arg(long, default_value = "redpanda")]
    folder: PathBuf,
}

/// A document made of the code.
struct Document {
    /// Its path below the folder.
    path: String,
    text: String,
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    let mut all_same = true;
    for document in documents()? {
        match command {
            Command::Export(Folder { folder }) => document.write(folder)?,
            Command::Check(Folder { folder }) => all_same &= document.compare(folder),
        }
    }
    Ok(if all_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn documents() -> Result<Vec<Document>> {
    let schemas = schema::all();
    let mut asyncapi = asyncapi::document(&schemas, &TopicsFile::embedded()?);
    asyncapi.sort_all_objects();
    let mut documents = vec![Document::new("asyncapi.json".to_owned(), &asyncapi)?];
    for event in &schemas {
        documents.push(Document::new(format!("schemas/{}.json", event.name), &event.schema)?);
    }
    Ok(documents)
}

impl Document {
    fn new(path: String, value: &Value) -> Result<Self> {
        Ok(Self { path, text: serde_json::to_string_pretty(value)? + "\n" })
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join(&self.path);
        let parent = file.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&file, &self.text))
            .with_context(|| format!("cannot write {}", file.display()))?;
        say!("{} written", file.display());
        Ok(())
    }

    fn compare(&self, folder: &Path) -> bool {
        let file = folder.join(&self.path);
        let same = std::fs::read_to_string(&file).is_ok_and(|committed| committed == self.text);
        if same {
            say!("{}: as it should be", file.display());
        } else {
            say!("{}: differs; run `cargo ordersaga openapi export`", file.display());
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_documents_are_what_the_code_says() -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../redpanda");
        for document in documents()? {
            assert!(document.compare(&folder), "{}: cargo ordersaga openapi export", document.path);
        }
        Ok(())
    }
}
