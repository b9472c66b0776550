//! The directory in which one environment lives: what files there are, and how they are written.
//!
//! Everything is written to a temporary file first, with its final mode from the first byte, made durable and then
//! renamed: a file is either as it was or as it should be.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use engine::{Context, Failure, Origin, journal::create_private_directory};
use sha2::{Digest as _, Sha256};

use crate::topology::ClusterId;

/// Where teardowns leave their evidence.
pub const ARCHIVE: &str = "old_deployments";

/// A moment in an archive's name.
const ARCHIVE_TIME: &[time::format_description::BorrowedFormatItem<'_>] =
    time::macros::format_description!("[year]-[month]-[day]_[hour]-[minute]-[second]");

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its owner only (0600): it holds a secret.
    Secret,
    /// Anybody (0644).
    Public,
}

/// An environment's directory.
#[derive(Debug, Clone)]
pub struct Environment {
    directory: PathBuf,
    /// Make files again even if they are right.
    pub force: bool,
}

impl Environment {
    /// The environment in `directory`, which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), force: false }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The full path of a file in it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// Reads a file; `None` if there is none.
    pub fn read(&self, file: &str) -> io::Result<Option<String>> {
        match fs_err::read_to_string(self.path(file)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a file in one piece.
    pub fn write(&self, file: &str, content: &str, access: Access) -> io::Result<()> {
        let path = self.path(file);
        let parent = path.parent().unwrap_or(&self.directory);
        create_private_directory(parent)?;
        let temporary = parent.join(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
        match fs_err::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use fs_err::os::unix::fs::OpenOptionsExt as _;
            options.mode(if access == Access::Secret { 0o600 } else { 0o644 });
        }
        let mut opened = options.open(&temporary)?;
        opened.write_all(content.as_bytes())?;
        opened.sync_all()?;
        fs_err::rename(&temporary, &path)
    }

    /// Removes a directory with everything in it; fine if there is none.
    pub fn remove(&self, directory: &str) -> io::Result<()> {
        match fs_err::remove_dir_all(self.path(directory)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes sure that a file has this content, and records it: `==> Using existing file`, `Generating new file` or
    /// `Regenerating file`.
    pub fn artifact(
        &self,
        context: &Context<'_>,
        file: &str,
        content: &str,
        access: Access,
    ) -> Result<Origin, Failure> {
        let failed = |error: io::Error| Failure::refused(error.to_string());
        let existing = self.read(file).map_err(failed)?;
        let origin = match &existing {
            Some(_) if self.force => Origin::Regenerated,
            Some(text) if text == content => Origin::Existing,
            _ => Origin::Generated,
        };
        if origin != Origin::Existing {
            self.write(file, content, access).map_err(failed)?;
        }
        context.artifact(file, sha256(content), origin)?;
        Ok(origin)
    }

    /// Moves what a teardown leaves into `old_deployments/<cluster>_<time>/` and removes everything else that belonged
    /// to the cluster. Returns the archive's directory. Private keys are never archived. What an earlier try has archived
    /// is not archived again.
    pub fn archive(
        &self,
        cluster: &ClusterId,
        at: time::OffsetDateTime,
        files: &[(&str, &str)],
    ) -> io::Result<PathBuf> {
        let name = format!("{ARCHIVE}/{}", crate::archive::name(cluster, at));
        let (final_place, preparing) = (self.path(&name), self.path(&format!("{name}.new")));
        if !final_place.exists() {
            if preparing.exists() {
                fs_err::remove_dir_all(&preparing)?;
            }
            create_private_directory(&preparing)?;
            for (file, content) in files {
                self.write(&format!("{name}.new/{file}"), content, Access::Secret)?;
            }
            fs_err::rename(&preparing, &final_place)?;
        }
        self.remove_all()?;
        Ok(final_place)
    }

    /// Moves files that cannot be used out of the way, into the archive.
    pub fn set_aside(&self, files: &[&str], at: time::OffsetDateTime) -> io::Result<()> {
        let place = format!("{ARCHIVE}/damaged_{}", at.format(ARCHIVE_TIME).unwrap_or_default());
        for file in files.iter().filter(|file| self.path(file).exists()) {
            create_private_directory(&self.path(&place))?;
            fs_err::rename(self.path(file), self.path(&format!("{place}/{file}")))?;
        }
        Ok(())
    }

    /// Removes everything of a cluster but the archive; the journal last, so that an interruption is not forgotten, and
    /// of its files the database after its write-ahead log.
    fn remove_all(&self) -> io::Result<()> {
        let mut entries: Vec<_> = fs_err::read_dir(&self.directory)?.collect::<Result<_, _>>()?;
        entries.retain(|entry| entry.file_name() != ARCHIVE);
        entries.sort_by_key(fs_err::DirEntry::file_name);
        entries.reverse();
        entries.sort_by_key(|entry| entry.file_name().to_string_lossy().starts_with("journal"));
        for entry in entries {
            if entry.file_type()?.is_dir() {
                fs_err::remove_dir_all(entry.path())?;
            } else {
                fs_err::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The digest of a text, in hexadecimal.
pub fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// A short digest of several texts: equal inputs, equal fingerprint.
pub fn fingerprint(inputs: &[&str]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input.as_bytes());
    }
    hex::encode(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_secret_file_is_secret_and_stays_whole() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::new(directory.path());
        environment.write("a/b", "one", Access::Secret).unwrap();
        environment.write("a/b", "two", Access::Secret).unwrap();
        assert_eq!(environment.read("a/b").unwrap().as_deref(), Some("two"));
        let mode = fs_err::metadata(environment.path("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(environment.read("a/c").unwrap(), None);
    }

    #[test]
    fn an_archive_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::new(directory.path());
        environment.write("ssh/key", "secret", Access::Secret).unwrap();
        environment.write("journal.sqlite", "", Access::Secret).unwrap();
        let at = time::macros::datetime!(2026-01-02 03:04:05 UTC);
        let place = environment
            .archive(&ClusterId::parse("k0rdent-abcd1234").unwrap(), at, &[("deployment-state.yaml", "x")])
            .unwrap();
        assert!(place.ends_with("old_deployments/k0rdent-abcd1234_2026-01-02_03-04-05"));
        let left: Vec<_> =
            fs_err::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["old_deployments"]);
    }
}
