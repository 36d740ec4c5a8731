//! A disk of its own for one part, which can be filled to the last byte: a tmpfs. It is mounted
//! where only this process and its children see it, so that the machine is as before when they are
//! gone, however they end.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;
use rustix::process::geteuid;

/// The mount namespace this program was started in, for its second start in one of its own.
const BEFORE: &str = "ORDERSAGA_MOUNTS_BEFORE";
const UNSHARE: [&str; 3] = ["--mount", "--propagation", "private"];

/// Moves this process to mounts of its own, by starting the program again as the same process; to
/// be called before anything else is done. False where that is not possible: it takes root.
pub(crate) fn enter_private_mounts() -> Result<bool> {
    if Disk::possible() {
        return Ok(true);
    }
    if !geteuid().is_root() || !can_unshare() {
        return Ok(false);
    }
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let error = Command::new("unshare")
        .args(UNSHARE)
        .arg("--")
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(BEFORE, namespace()?)
        .exec();
    Err(error).context("cannot start again with mounts of its own")
}

/// In a container root may lack the right.
fn can_unshare() -> bool {
    let script = "mount -t tmpfs -o size=4k ordersaga /mnt || mount -t tmpfs ordersaga /tmp";
    let mut command = Command::new("unshare");
    command.args(UNSHARE).args(["--", "sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn namespace() -> Result<PathBuf> {
    std::fs::read_link("/proc/self/ns/mnt").context("this system has no mount namespaces")
}

/// A small disk; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Whether this process has mounts of its own.
    pub(crate) fn possible() -> bool {
        let before = std::env::var_os(BEFORE);
        before.is_some_and(|before| namespace().is_ok_and(|now| now.as_os_str() != before))
    }

    /// Mounts a new empty disk on `folder`, which is made.
    pub(crate) fn mount(folder: &Path, bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let options = format!("size={bytes},mode=1777");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "ordersaga"]).arg(folder);
        ordersaga_devstack::run(&mut mount)?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Takes all the space that is left.
    pub(crate) fn fill(&self) -> Result<()> {
        let path = self.ballast();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        while grow(&file)? {}
        Ok(())
    }

    /// Gives the space back.
    pub(crate) fn free(&self) -> Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove the ballast")
            }
            _ => Ok(()),
        }
    }
}

/// Takes the space that is left now; false when there is none.
fn grow(file: &File) -> Result<bool> {
    let disk = fstatvfs(file)?;
    let mut left = disk.f_bavail;
    // Others write meanwhile: what is left may be less than it was.
    while left > 0 {
        let end = file.metadata()?.len();
        match fallocate(file, FallocateFlags::empty(), end, left * disk.f_frsize) {
            Ok(()) => return Ok(true),
            Err(Errno::NOSPC) => left /= 2,
            Err(error) => return Err(error).context("cannot take space"),
        }
    }
    Ok(false)
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there keeps it until it ends.
        let mut umount = Command::new("umount");
        let _ = ordersaga_devstack::run(umount.arg("--lazy").arg(&self.folder));
    }
}

/// Runs one ignored test of this program with mounts of its own, where that is possible.
#[cfg(test)]
pub(crate) fn again(test: &str) -> Result<Option<Command>> {
    if !geteuid().is_root() || !can_unshare() {
        return Ok(None);
    }
    let mut again = Command::new("unshare");
    again.args(UNSHARE).arg("--").arg(std::env::current_exe()?);
    again.args(["--exact", test, "--ignored", "--nocapture"]).env(BEFORE, namespace()?);
    Ok(Some(again))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use anyhow::ensure;
    use ordersaga_devstack::TemporaryFolder;

    use super::*;

    /// Started by the test below, with mounts of its own.
    #[test]
    #[ignore = "needs mounts of its own"]
    fn in_private_mounts() -> Result<()> {
        ensure!(Disk::possible());
        let temporary = TemporaryFolder::new("disk")?;
        let disk = Disk::mount(&temporary.path().join("small"), 1 << 20)?;
        let mut file = File::create(disk.folder.join("file"))?;
        file.write_all(&[7; 10_000])?;
        disk.fill()?;
        let full = file.write_all(&[7; 10_000]).err().context("there was space left")?;
        ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
        // A second time changes nothing.
        disk.fill()?;
        disk.free()?;
        file.write_all(&[7; 10_000])?;
        Ok(())
    }

    #[test]
    fn a_disk_fills_up_and_is_freed_and_leaves_nothing_behind() -> Result<()> {
        let before = std::fs::read_to_string("/proc/mounts")?;
        let Some(mut again) = again("disk::tests::in_private_mounts")? else {
            return Ok(());
        };
        let output = ordersaga_devstack::run(&mut again)?;
        ensure!(output.contains("1 passed"), "{output}");
        ensure!(std::fs::read_to_string("/proc/mounts")? == before, "a mount was left");
        Ok(())
    }
}
