//! Disks that can be cut off or full: an ext4 image on a loop device, and a small tmpfs. Both need root.
//!
//! A power cut is the ioctl `FS_IOC_SHUTDOWN` without a flush of the journal (`EXT4_GOING_FLAGS_NOLOGFLUSH`): what was not
//! synced is gone after the next mount, which replays the journal. Perl makes the call, because the workspace forbids
//! `unsafe` and every Debian system has it.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::Outcome;

/// Stops processes and cuts, within microseconds: `_IOR('X', 125, __u32)` with flag 2.
const SHUTDOWN: &str = "open(my $f, '<', shift) or die $!; kill('STOP', @ARGV) == @ARGV or die 'somebody is gone'; \
     my $flag = pack('L', 2); ioctl($f, 0x8004587d, $flag) or die $!;";
const IMAGE_BYTES: u64 = 192 * 1024 * 1024;
/// A process that was just killed may hold a file for a moment.
const UNMOUNT_TRIES: u32 = 100;

/// What this machine lacks for these rounds, if anything.
pub(crate) fn missing(tools: &[&str]) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if !root {
        return Some("it needs root, to mount".to_owned());
    }
    match tools.iter().find(|tool| !installed(tool)) {
        Some(tool) => Some(format!("{tool} is not installed")),
        None if !Path::new("/dev/loop-control").exists() => Some("there are no loop devices".to_owned()),
        None => None,
    }
}

/// Whether a program is there.
pub(crate) fn installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

fn run(program: &str, arguments: &[&OsStr]) -> Outcome<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {arguments:?}: {}", said.trim()).into())
}

/// A mounted file system; unmounted when this is dropped.
pub(crate) struct Disk {
    at: PathBuf,
    image: Option<PathBuf>,
}

impl Disk {
    /// An ext4 image in a folder.
    pub(crate) fn image(dir: &Path) -> Outcome<Self> {
        let image = dir.join("disk.img");
        fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_os_str()])?;
        let disk = Self { at: dir.join("disk"), image: Some(image) };
        fs::create_dir_all(&disk.at)?;
        disk.mount()?;
        Ok(disk)
    }

    /// A tmpfs of so many KiB.
    pub(crate) fn small(dir: &Path, kib: u64) -> Outcome<Self> {
        let disk = Self { at: dir.join("disk"), image: None };
        fs::create_dir_all(&disk.at)?;
        let size = format!("size={kib}k");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs"]
                .map(OsStr::new)
                .into_iter()
                .chain([disk.at.as_os_str()])
                .collect::<Vec<_>>(),
        )?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    fn mount(&self) -> Outcome<()> {
        let image = self.image.as_ref().ok_or("not an image")?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), self.at.as_os_str()])
    }

    /// Gives a tmpfs more room.
    pub(crate) fn grow(&self, kib: u64) -> Outcome<()> {
        let options = format!("remount,size={kib}k");
        run("mount", &["-o".as_ref(), options.as_ref(), self.at.as_os_str()])
    }

    /// Everything so far is safe.
    pub(crate) fn sync(&self) -> Outcome<()> {
        run("sync", &["-f".as_ref(), self.at.as_os_str()])
    }

    /// The power fails, for the disk and for these processes: no write reaches the disk from here on, what was not synced
    /// is lost, and a process whose call is under way learns nothing of how it ended.
    pub(crate) fn cut(&self, processes: &[u32]) -> Outcome<()> {
        let processes: Vec<String> = processes.iter().map(u32::to_string).collect();
        let mut arguments: Vec<&OsStr> = vec!["-e".as_ref(), SHUTDOWN.as_ref(), self.at.as_os_str()];
        arguments.extend(processes.iter().map(OsStr::new));
        run("perl", &arguments)
    }

    /// The power is back. Nothing may use the disk when this is called.
    pub(crate) fn power_on(&self) -> Outcome<()> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&self) -> Outcome<()> {
        let mut tries = 0;
        loop {
            match run("umount", &[self.at.as_os_str()]) {
                Err(_) if tries < UNMOUNT_TRIES => std::thread::sleep(Duration::from_millis(50)),
                outcome => return outcome,
            }
            tries += 1;
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The mounts are of this process's own namespace, so what fails here ends with it.
        let _ = run("umount", &["-l".as_ref(), self.at.as_os_str()]);
    }
}
