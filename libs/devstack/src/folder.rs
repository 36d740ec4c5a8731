//! Folders: where parts keep their data, who owns them, and temporary ones that always go away.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::geteuid;

use crate::digest::sha256;
use crate::private::{make_folder, own_folder, private_folder};

const ELSEWHERE: &str = "/var/lib/ordersaga";

/// Who a part runs as when root starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The unprivileged user for programs that refuse to run as root, when this process is root.
    pub(crate) fn unprivileged() -> Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").context("cannot read the list of users")?;
        let user = Self::find(&users, "postgres").or_else(|| Self::find(&users, "nobody"));
        user.context("there is neither a user postgres nor nobody").map(Some)
    }

    fn find(users: &str, name: &str) -> Option<Self> {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        Some(Self { uid: ids.next()?.ok()?, gid: ids.next()?.ok()? })
    }

    /// Arguments that make setpriv become this user.
    pub(crate) fn arguments(&self) -> [String; 5] {
        [
            "--reuid".to_owned(),
            self.uid.to_string(),
            "--regid".to_owned(),
            self.gid.to_string(),
            "--clear-groups".to_owned(),
        ]
    }

    /// Makes this user the owner of a file or folder.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to its user", path.display()))
    }

    fn can_enter(&self, folder: &Path) -> bool {
        let mut command = Command::new("setpriv");
        command.args(self.arguments()).args(["--", "test", "-x"]).arg(folder);
        command.status().is_ok_and(|status| status.success())
    }
}

/// Makes `folder` for programs that run as `user`. Where that user cannot go (below root's home,
/// say), the real folder lies in /var/lib and `folder` is a link to it.
pub(crate) fn create_for(user: Option<&User>, folder: &Path) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let context = || format!("cannot make the folder {}", folder.display());
    let Some(user) = user else {
        return private_folder(folder);
    };
    let above = folder.parent().context("the root folder cannot hold data")?;
    fs::create_dir_all(above).with_context(context)?;
    let real = if user.can_enter(above) {
        folder.to_owned()
    } else {
        let real = elsewhere(folder);
        // A link whose folder somebody removed.
        let _ = fs::remove_file(folder);
        std::os::unix::fs::symlink(&real, folder).with_context(context)?;
        real
    };
    make_folder(&real, 0o700)?;
    user.give(&real)
}

/// Where what belongs into `folder` lies if its user cannot go there.
pub(crate) fn elsewhere(folder: &Path) -> PathBuf {
    let mut name = sha256(folder.as_os_str().as_encoded_bytes());
    name.truncate(16);
    Path::new(ELSEWHERE).join(name)
}

/// Whether `folder` is a link that [`create_for`] has made.
pub(crate) fn is_elsewhere(folder: &Path) -> bool {
    fs::read_link(folder).is_ok_and(|real| real.parent() == Some(Path::new(ELSEWHERE)))
}

/// The folder for what is fetched or computed once: jars, class-data archives.
pub fn cache_folder() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => std::env::home_dir().context("no home folder to keep a cache in")?.join(".cache"),
    };
    // The broker runs in another folder and has to find it, too.
    let folder = std::path::absolute(base.join("ordersaga"))?;
    own_folder(&folder)?;
    Ok(folder)
}

/// A temporary folder that is removed when dropped, and also when this process ends in any way:
/// a shell waits for the end of its input, whose other end only this process holds.
#[derive(Debug)]
pub struct TemporaryFolder {
    path: PathBuf,
    janitor: Child,
}

/// What is mounted in the folder goes with it.
const JANITOR: &str = "cat
    while read -r _ place _; do
        case $place in \"$1\"/*) umount -l \"$place\" ;; esac
    done </proc/mounts
    n=0; until rm -rf \"$1\" || [ $n -ge 100 ]; do n=$((n+1)); sleep 0.1; done";

impl TemporaryFolder {
    /// A new folder; `purpose` becomes part of its name.
    pub fn new(purpose: &str) -> Result<Self> {
        Self::adopt(Self::create(purpose)?)
    }

    /// Only makes the folder, for another process to adopt.
    pub fn create(purpose: &str) -> Result<PathBuf> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("ordersaga-{purpose}-"))
            // Entering is open to all, for the unprivileged user; reading is not.
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir()
            .context("cannot make a temporary folder")?;
        Ok(folder.keep())
    }

    /// From now on the folder goes away with this process.
    pub fn adopt(path: PathBuf) -> Result<Self> {
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "ordersaga-janitor"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the shell that removes a temporary folder")?;
        Ok(Self { path, janitor })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // Closes the janitor's input, then waits until the folder is gone.
        if let Some(mut input) = self.janitor.stdin.take() {
            let _ = input.flush();
        }
        let _ = self.janitor.wait();
    }
}

/// Copies a folder with owners and modes, as `user`.
pub(crate) fn copy(user: Option<&User>, from: &Path, to: &Path) -> Result<()> {
    let arguments = ["-a".into(), "--reflink=auto".into(), "-T".into(), from.into(), to.into()];
    crate::process::run_as(user, Path::new("cp"), &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_user_by_name() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104::/var/lib/postgresql:/bin/sh\n";
        let found = User::find(users, "postgres");
        assert_eq!(found, Some(User { uid: 101, gid: 104 }));
        assert_eq!(User::find(users, "nobody"), None);
    }

    #[test]
    fn a_dropped_folder_is_gone() -> Result<()> {
        let folder = TemporaryFolder::new("test")?;
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "x")?;
        drop(folder);
        assert!(!path.exists());
        Ok(())
    }
}
