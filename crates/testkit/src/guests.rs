//! Files of somebody else, in and beside an environment's directory: whatever a command does, they stay as they are.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// What somebody puts into the directory once there is one: where we keep files of our own, and under names that are
/// almost those of ours.
const INSIDE: [&str; 8] = [
    "notes.txt",
    "journal.txt",
    "cloud-init-yaml/web-cloud-init.yaml",
    "k0sctl-config/k0sctl.yaml",
    "kubeconfig/production-kubeconfig",
    "old_deployments/notes.txt",
    "ssh/my-ssh-key",
    "wireguard/wgk0home.conf",
];
/// What is beside it: names that we use inside of it.
const BESIDE: [&str; 4] = ["k0rdent.yaml", "keys.json", "journal.sqlite", "ssh/config"];
/// Whoever may read them.
const MODE: u32 = 0o644;

/// The files, and whether those inside have come.
#[derive(Debug)]
pub struct Guests {
    home: PathBuf,
    are_inside: bool,
}

impl Guests {
    /// Puts the files beside an environment's directory, which need not exist.
    pub fn beside(home: &Path) -> io::Result<Self> {
        let guests = Self { home: home.to_owned(), are_inside: false };
        BESIDE.iter().try_for_each(|file| put(&guests.beside_it(file)))?;
        Ok(guests)
    }

    fn beside_it(&self, file: &str) -> PathBuf {
        self.home.with_file_name(file)
    }

    /// Puts the others inside, if there is an environment by now.
    pub fn come_in(&mut self) -> io::Result<()> {
        if self.are_inside || !self.home.join("journal.sqlite").exists() {
            return Ok(());
        }
        self.are_inside = true;
        INSIDE.iter().try_for_each(|file| put(&self.home.join(file)))
    }

    /// Takes away those inside; nothing else may be where they were.
    pub fn leave(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.are_inside) {
            return Ok(());
        }
        for path in INSIDE.map(|file| self.home.join(file)) {
            fs_err::remove_file(&path)?;
            if let Some(directory) = path.parent().filter(|directory| *directory != self.home) {
                match fs_err::remove_dir(directory) {
                    Err(error) if !directory.ends_with("old_deployments") => return Err(error),
                    _ => {}
                }
            }
        }
        // Beside somebody else's files a configuration may be theirs, too, and stays.
        match fs_err::remove_file(self.home.join("k0rdent.yaml")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Those inside are lost with everything else.
    pub fn are_lost(&mut self) {
        self.are_inside = false;
    }

    /// They are as they were.
    pub fn judge(&self) -> Result<(), String> {
        let inside = INSIDE.iter().filter(|_| self.are_inside).map(|file| self.home.join(file));
        for path in BESIDE.iter().map(|file| self.beside_it(file)).chain(inside) {
            let text = fs_err::read_to_string(&path).map_err(|error| error.to_string())?;
            let mode = fs_err::metadata(&path).map_err(|error| error.to_string())?.permissions().mode() & 0o777;
            if text != content(&path) || mode != MODE {
                return Err(format!("{} is not ours and was changed (mode {mode:04o})", path.display()));
            }
        }
        Ok(())
    }
}

fn put(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs_err::create_dir_all(directory)?;
    }
    fs_err::write(path, content(path))?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(MODE))
}

fn content(path: &Path) -> String {
    format!("{} of somebody else\n", path.file_name().unwrap_or_default().to_string_lossy())
}
