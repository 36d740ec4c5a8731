//! Files and folders that are the own user's alone: what is made is closed to others, and what others
//! may have put in its place is refused, symbolic links first, by which root would write anywhere.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

const LINK: &str = "is a symbolic link, and those are not followed: name the folder that it leads \
                    to, or put that in its place";

/// Makes a folder, or takes one that is there if it is the own user's. Its mode is then left as it
/// is: it may hold other things as well.
pub fn own_folder(folder: &Path) -> Result<()> {
    // Root's may be entered by all, for the user that Postgres runs as; read it may not.
    let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
    // Without a slash at its end, behind which a link would be followed.
    let folder: PathBuf = folder.components().collect();
    make_folder(&folder, mode)?;
    refuse_link(&folder)?;
    let name = folder.display();
    let found = fs::symlink_metadata(&folder).with_context(|| format!("cannot look at {name}"))?;
    ensure!(found.is_dir(), "{name} is not a folder");
    let owner = found.uid();
    ensure!(
        owner == geteuid().as_raw(),
        "{name} belongs to another user (uid {owner}): choose a folder of your own"
    );
    ensure!(
        found.mode() & 0o002 == 0,
        "everybody may write into {name}: choose a folder of your own"
    );
    Ok(())
}

/// The same, for a folder that holds nothing else: nobody else may go into it.
pub fn private_folder(folder: &Path) -> Result<()> {
    own_folder(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others", folder.display()))
}

pub(crate) fn make_folder(folder: &Path, mode: u32) -> Result<()> {
    let context = || format!("cannot make the folder {}", folder.display());
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above).with_context(context)?;
    }
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).with_context(context),
        _ => Ok(()),
    }
}

/// An error if this is a symbolic link.
pub(crate) fn refuse_link(path: &Path) -> Result<()> {
    ensure!(!path.is_symlink(), "{} {LINK}", path.display());
    Ok(())
}

/// Opens a file that is no symbolic link; a new one is for the own user only.
pub(crate) fn open(path: &Path, flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(Errno::LOOP) => bail!("{} {LINK}", path.display()),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
    }
}

/// Opens a file to write at its end, and makes it if it is not there. A symbolic link is an error.
pub fn open_to_append(path: &Path) -> Result<File> {
    open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)
}

/// Writes a file that only the own user may read, as a whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    write_whole(path, content, 0o600)
}

/// The same with another mode.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let folder = path.parent().with_context(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    file.write_all(content).with_context(failed)?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).with_context(failed)?;
    file.persist(path).with_context(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn said(result: Result<()>) -> String {
        result.err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn what_is_made_is_closed_to_others() -> Result<()> {
        let temporary = tempfile::tempdir()?;
        let folder = temporary.path().join("a/b");
        own_folder(&folder)?;
        assert_eq!(fs::metadata(&folder)?.mode() & 0o066, 0);
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        own_folder(&folder)?;
        assert_eq!(fs::metadata(&folder)?.mode() & 0o777, 0o755, "its user's business");
        private_folder(&folder)?;
        assert_eq!(fs::metadata(&folder)?.mode() & 0o777, 0o700);
        let file = folder.join("file");
        open_to_append(&file)?.write_all(b"1")?;
        open_to_append(&file)?.write_all(b"2")?;
        assert_eq!(fs::read(&file)?, b"12");
        assert_eq!(fs::metadata(&file)?.mode() & 0o777, 0o600);
        write_whole(&file, b"3", 0o644)?;
        assert_eq!(fs::metadata(&file)?.mode() & 0o777, 0o644);
        Ok(())
    }

    #[test]
    fn links_are_refused_and_what_they_lead_to_stays() -> Result<()> {
        let temporary = tempfile::tempdir()?;
        let [folder, link] = ["folder", "link"].map(|name| temporary.path().join(name));
        own_folder(&folder)?;
        symlink(&folder, &link)?;
        for path in [link.clone(), link.join("")] {
            assert!(said(own_folder(&path)).contains("is a symbolic link"), "{}", path.display());
        }
        let [file, link] = ["file", "link"].map(|name| folder.join(name));
        fs::write(&file, "precious")?;
        symlink(&file, &link)?;
        assert!(said(open_to_append(&link).map(drop)).contains("is a symbolic link"));
        assert!(said(open(&link, OFlags::WRONLY | OFlags::TRUNC).map(drop)).contains("symbolic"));
        write_private(&link, b"new")?;
        assert_eq!(fs::read(&file)?, b"precious");
        assert_eq!(fs::read(&link)?, b"new", "a file in its place");
        Ok(())
    }

    #[test]
    fn folders_of_others_are_refused() -> Result<()> {
        let temporary = tempfile::tempdir()?;
        let folder = temporary.path();
        fs::set_permissions(folder, Permissions::from_mode(0o1777))?;
        assert!(said(own_folder(folder)).starts_with("everybody may write into"));
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        own_folder(folder)?;
        // Only root can give something away.
        if geteuid().is_root() {
            std::os::unix::fs::chown(folder, Some(1), None)?;
            assert!(said(own_folder(folder)).contains("belongs to another user (uid 1)"));
        }
        Ok(())
    }
}
