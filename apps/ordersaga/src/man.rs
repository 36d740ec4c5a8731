//! Man pages: one of the tool and one of each command.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::Man;

use crate::tree;

/// Writes all pages to a folder; their files.
pub(crate) fn write(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut tree = tree::tree();
    // From here on each command knows its full name.
    tree.build();
    let mut files = Vec::new();
    write_all(&tree, folder, &mut files)?;
    Ok(files)
}

fn write_all(command: &Command, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let page = Man::new(command.clone());
    let file = page.generate_to(folder);
    files.push(file.with_context(|| format!("cannot write to {}", folder.display()))?);
    let within = command.get_subcommands().filter(|one| !one.is_hide_set());
    // clap adds a `help` to each command that has others within.
    let mut within =
        within.filter(|one| command.get_name() == tree::NAME || one.get_name() != "help");
    within.try_for_each(|one| write_all(one, folder, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_its_page() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let files = write(folder.path())?;
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        for name in ["ordersaga.1", "ordersaga-load.1", "ordersaga-topics-describe.1"] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("supervise")), "{names:?}");
        let commands = tree::tree().get_subcommands().filter(|one| !one.is_hide_set()).count();
        assert!(names.len() > commands, "{names:?}");
        let page = fs::read_to_string(folder.path().join("ordersaga-up.1"))?;
        assert!(page.contains(".SH NAME\nordersaga\\-up \\- Starts everything"), "{page}");
        assert!(page.contains("ordersaga up \\-\\-detach"), "{page}");
        Ok(())
    }
}
