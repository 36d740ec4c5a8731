//! `install --tool`: the tool where the shell finds it, with completion and man pages.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use crate::{install, man, tree};

/// Arguments of `install`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Put the tool itself on PATH, with completion for bash, zsh and fish, and man pages: a
    /// symbolic link to the program as it is built here
    #[arg(long)]
    tool: bool,
    /// The folder of the link [default: ~/.local/bin]
    #[arg(long, value_name = "DIR", requires = "tool")]
    bin_dir: Option<PathBuf>,
    /// Replace a file of that name, whatever it is
    #[arg(long, requires = "tool")]
    force: bool,
}

/// Where the files of a user go.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    bin: PathBuf,
    data: PathBuf,
    config: PathBuf,
}

impl Places {
    /// By the XDG Base Directory Specification, whose paths count only if they are absolute.
    fn of(home: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str, usual: &str| {
            let named = variable(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
            named.unwrap_or_else(|| home.join(usual))
        };
        Self {
            bin: home.join(".local/bin"),
            data: folder("XDG_DATA_HOME", ".local/share"),
            config: folder("XDG_CONFIG_HOME", ".config"),
        }
    }

    /// What makes each shell ask the tool, which says how by itself: it goes with every version.
    fn completions(&self) -> [(PathBuf, String); 3] {
        let name = tree::NAME;
        let functions = self.data.join("zsh/site-functions");
        [
            (
                self.data.join("bash-completion/completions").join(name),
                format!("source <(COMPLETE=bash {name})\n"),
            ),
            (
                functions.join(format!("_{name}")),
                format!(
                    "#compdef {name}\nsource <(COMPLETE=zsh {name})\n\
                     _clap_dynamic_completer_{name} \"$@\"\n"
                ),
            ),
            (
                self.config.join(format!("fish/completions/{name}.fish")),
                format!("COMPLETE=fish {name} | source\n"),
            ),
        ]
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !arguments.tool {
        return install::ensure(false).map(|()| ExitCode::SUCCESS);
    }
    let home = std::env::home_dir().context("no home folder to install to; HOME names it")?;
    let mut places = Places::of(&home, |name| std::env::var_os(name));
    if let Some(folder) = &arguments.bin_dir {
        places.bin = std::path::absolute(folder)?;
    }
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let link = places.bin.join(tree::NAME);
    put_link(&program, &link, arguments.force)?;
    say!("Tool: {} -> {}", link.display(), program.display());
    for (file, text) in places.completions() {
        write(&file, &text)?;
        say!("Completion: {}", file.display());
    }
    let pages = places.data.join("man/man1");
    say!("Man pages: {} in {}", man::write(&pages)?.len(), pages.display());
    let path = std::env::var_os("PATH").unwrap_or_default();
    for line in hints(&places, &path) {
        say!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the link, at once and in place of an older one.
fn put_link(program: &Path, link: &Path, force: bool) -> Result<()> {
    ensure!(program != link, "this program is at {} itself: nothing to link", link.display());
    if !force && !is_free_or_ours(link)? {
        bail!("{} is something else: remove it, or say --force", link.display());
    }
    let folder = link.parent().context("a link without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let new = folder.join(format!(".{}.{}", tree::NAME, std::process::id()));
    let placed = symlink(program, &new).and_then(|()| fs::rename(&new, link));
    if placed.is_err() {
        // The error that counts is the first.
        let _ = fs::remove_file(&new);
    }
    placed.with_context(|| format!("cannot write {}", link.display()))
}

/// Whether nothing is there, or a link to a program of this name, as only this tool makes it.
fn is_free_or_ours(link: &Path) -> Result<bool> {
    match fs::read_link(link) {
        Ok(leads_to) => Ok(leads_to.file_name().is_some_and(|name| name == tree::NAME)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        // A file or a folder.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", link.display())),
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().context("a file without a folder")?;
    let context = || format!("cannot write {}", file.display());
    fs::create_dir_all(folder).with_context(context)?;
    fs::write(file, text).with_context(context)
}

/// What is left for the user to do.
fn hints(places: &Places, path: &std::ffi::OsStr) -> Vec<String> {
    let bin = &places.bin;
    let on_path = std::env::split_paths(path).any(|folder| folder == *bin);
    let add = format!(
        "{} is not on PATH; to add it: echo 'export PATH=\"{}:$PATH\"' >> ~/.profile, and log in \
         again",
        bin.display(),
        bin.display()
    );
    let functions = places.data.join("zsh/site-functions");
    let zsh = format!(
        "zsh finds its completion with this in ~/.zshrc before compinit: fpath+=('{}')",
        functions.display()
    );
    (!on_path).then_some(add).into_iter().chain([zsh]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_where_the_user_has_them() {
        let home = Path::new("/home/u");
        let usual = Places::of(home, |_| None);
        assert_eq!(usual.bin, home.join(".local/bin"));
        assert_eq!(usual.data, home.join(".local/share"));
        assert_eq!(usual.config, home.join(".config"));
        let named = |name: &str| {
            let value = if name == "XDG_DATA_HOME" { "/data" } else { "relative" };
            Some(OsString::from(value))
        };
        let places = Places::of(home, named);
        assert_eq!((places.data, places.config), ("/data".into(), usual.config));
    }

    #[test]
    fn only_its_own_link_is_replaced() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (bin, link) = (folder.path().join("new"), folder.path().join("new/ordersaga"));
        put_link(Path::new("/a/target/debug/ordersaga"), &link, false)?;
        put_link(Path::new("/b/target/release/ordersaga"), &link, false)?;
        assert_eq!(fs::read_link(&link)?, Path::new("/b/target/release/ordersaga"));
        assert_eq!(fs::read_dir(&bin)?.count(), 1, "something is left behind");

        let foreign = bin.join("foreign");
        symlink("/bin/true", &foreign)?;
        let file = bin.join("file");
        fs::write(&file, "precious")?;
        let program = Path::new("/a/target/debug/ordersaga");
        for other in [&foreign, &file] {
            let error = put_link(program, other, false).unwrap_err().to_string();
            assert!(error.contains("say --force"), "{error}");
        }
        assert_eq!(fs::read(&file)?, b"precious");
        put_link(program, &file, true)?;
        assert_eq!(fs::read_link(&file)?, program);
        Ok(())
    }

    #[test]
    fn says_what_is_left_to_do() {
        let places = Places::of(Path::new("/home/u"), |_| None);
        let said = hints(&places, "/usr/bin:/bin".as_ref());
        assert!(said[0].contains("/home/u/.local/bin is not on PATH"), "{said:?}");
        assert_eq!(hints(&places, "/usr/bin:/home/u/.local/bin".as_ref()).len(), 1);
    }
}
