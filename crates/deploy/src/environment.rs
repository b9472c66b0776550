//! The directory in which one environment lives: what files there are, and how they are written.
//!
//! Everything is written to a temporary file first, with its final mode from the first byte, made durable and then
//! renamed: a file is either as it was or as it should be.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use engine::{
    Context, Failure, Origin,
    journal::{create_private_directory, draft_of, drafted, rename_durably},
};
use sha2::{Digest as _, Sha256};

use crate::topology::ClusterId;

/// Where teardowns leave their evidence.
pub const ARCHIVE: &str = "old_deployments";

/// A moment in an archive's name.
const ARCHIVE_TIME: &[time::format_description::BorrowedFormatItem<'_>] =
    time::macros::format_description!("[year]-[month]-[day]_[hour]-[minute]-[second]");

/// What tells version control to keep out.
const GITIGNORE: &str = ".gitignore";
/// What tells people what this is.
const README: &str = "README";
const ABOUT: &str = "k0rdentctl keeps one cluster here: its records, keys and files. Do not share it and do not put it into version \
    control; `k0rdentctl reset` deletes the cluster and what is here but old_deployments.\n";
/// Files that live as long as one command does, such as the kubeconfig of `exec`.
pub const RUNNING: &str = "run";
/// The directories that are ours in an environment's directory.
const DIRECTORIES: [&str; 7] = [ARCHIVE, "cloud-init-yaml", "k0sctl-config", "kubeconfig", RUNNING, "ssh", "wireguard"];
/// The files that are ours there, beside the journal's.
const FILES: [&str; 6] =
    [GITIGNORE, README, "deployment-events.yaml", "deployment-state.yaml", "k0rdent.yaml", "keys.json"];
/// The journal, what SQLite keeps beside it, and the lock.
const JOURNAL: [&str; 4] = ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "journal.lock"];
/// What is added to the name of a file that somebody has changed, before it is made again.
const BACKUP: &str = ".bak";

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
    /// Make files again even if they are right: those whose path has this part; all if it is empty.
    pub force: Option<String>,
    /// The SHA-256 of each file as it was written last: whatever else is there, somebody else has put there.
    pub recorded: BTreeMap<String, String>,
}

/// A file or directory that others may read, and must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose {
    /// Its path in the environment's directory; empty for the directory itself.
    pub path: String,
    /// Its mode.
    pub mode: u32,
    /// The mode that it must have.
    pub wanted: u32,
}

impl Environment {
    /// The environment in `directory`, which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), force: None, recorded: BTreeMap::new() }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The full path of a file in it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// Makes the directory, kept out of version control before anything else is in it.
    pub fn settle_in(&self) -> io::Result<()> {
        create_private_directory(&self.directory)?;
        for entry in fs_err::read_dir(&self.directory)? {
            // Somebody else's directory is not ours to describe.
            if !is_ours(&entry?.file_name().to_string_lossy()) {
                return Ok(());
            }
        }
        for (file, content) in [(GITIGNORE, "*\n"), (README, ABOUT)] {
            if !self.path(file).exists() {
                self.write(file, content, Access::Public)?;
            }
        }
        Ok(())
    }

    /// What others may read of what is ours and must not.
    #[cfg(unix)]
    pub fn loose(&self) -> io::Result<Vec<Loose>> {
        use std::os::unix::fs::PermissionsExt as _;
        let (mut found, mut open) = (Vec::new(), vec![String::new()]);
        while let Some(directory) = open.pop() {
            let entries = match fs_err::read_dir(self.path(&directory)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_others = match directory.split_once('/') {
                    None if directory.is_empty() => !is_ours(&name),
                    None if directory == ARCHIVE => !is_archive(&name),
                    None => !is_ours_in(&directory, &name, None),
                    Some(_) => false,
                };
                if is_others {
                    continue;
                }
                let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                let (kind, mode) = (entry.file_type()?, entry.metadata()?.permissions().mode() & 0o777);
                let wanted = if kind.is_dir() { 0o700 } else { 0o600 };
                if kind.is_dir() {
                    open.push(path.clone());
                }
                if (kind.is_dir() || kind.is_file()) && mode & 0o077 != 0 && !is_public(&path) {
                    found.push(Loose { path, mode, wanted });
                }
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// What others may read of what is ours: nobody knows here.
    #[cfg(not(unix))]
    pub fn loose(&self) -> io::Result<Vec<Loose>> {
        Ok(Vec::new())
    }

    /// Whether a secret file is one, or what to do about it.
    pub fn is_private(&self, file: &str) -> io::Result<Result<(), String>> {
        let loose = self.loose()?.into_iter().find(|loose| loose.path == file);
        Ok(loose.map_or(Ok(()), |Loose { mode, .. }| {
            Err(format!(
                "others may read this secret (mode {mode:04o}); `chmod 600` it, or run `k0rdentctl deploy`, which does"
            ))
        }))
    }

    /// Makes private what others may read of what is ours, and says what that was.
    pub fn make_private(&self) -> io::Result<Vec<Loose>> {
        let loose = self.loose()?;
        #[cfg(unix)]
        for Loose { path, wanted, .. } in &loose {
            use std::os::unix::fs::PermissionsExt as _;
            fs_err::set_permissions(self.path(path), std::fs::Permissions::from_mode(*wanted))?;
        }
        Ok(loose)
    }

    /// Reads a file; `None` if there is none.
    pub fn read(&self, file: &str) -> io::Result<Option<String>> {
        match fs_err::read_to_string(self.path(file)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a file that somebody may have filled with anything; `None` if there is none.
    fn read_bytes(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        match fs_err::read(self.path(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a file in one piece.
    pub fn write(&self, file: &str, content: &str, access: Access) -> io::Result<()> {
        self.write_bytes(file, content.as_bytes(), access)
    }

    fn write_bytes(&self, file: &str, content: &[u8], access: Access) -> io::Result<()> {
        let path = self.path(file);
        create_private_directory(path.parent().unwrap_or(&self.directory))?;
        let temporary = draft_of(&path);
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
        opened.write_all(content)?;
        opened.sync_all()?;
        rename_durably(&temporary, &path)
    }

    /// Removes a directory with everything in it; fine if there is none.
    pub fn remove(&self, directory: &str) -> io::Result<()> {
        match fs_err::remove_dir_all(self.path(directory)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes sure that a file has this content, and records it: `==> Using existing file`, `Generating new file` or
    /// `Regenerating file`. What somebody else has written is kept beside it.
    pub fn artifact(
        &self,
        context: &Context<'_>,
        file: &str,
        content: &str,
        access: Access,
    ) -> Result<Origin, Failure> {
        let failed = |error: io::Error| Failure::refused(error.to_string());
        let existing = self.read_bytes(file).map_err(failed)?;
        let is_forced = self.force.as_ref().is_some_and(|part| file.contains(part.as_str()));
        let origin = match &existing {
            None => Origin::Generated,
            Some(bytes) if bytes == content.as_bytes() => {
                if is_forced {
                    Origin::Regenerated
                } else {
                    Origin::Existing
                }
            }
            Some(bytes) if self.recorded.get(file).is_some_and(|written| *written == sha256_of(bytes)) => {
                Origin::Updated
            }
            Some(bytes) => {
                self.write_bytes(&format!("{file}{BACKUP}"), bytes, access).map_err(failed)?;
                Origin::Edited
            }
        };
        if origin != Origin::Existing {
            self.write(file, content, access).map_err(failed)?;
        }
        context.artifact(file, sha256(content), origin)?;
        Ok(origin)
    }

    /// Removes what is ours in one of our directories and is not wanted any more, what was kept of it with it, and records
    /// that it is gone.
    pub fn discard(
        &self,
        context: &Context<'_>,
        directory: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::refused(error.to_string());
        let mut unwanted: BTreeSet<String> =
            self.recorded.keys().filter(|file| file.starts_with(&format!("{directory}/"))).cloned().collect();
        for entry in fs_err::read_dir(self.path(directory)).into_iter().flatten() {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if is_ours_in(directory, &name, None) {
                unwanted.insert(format!("{directory}/{}", final_name(&name)));
            }
        }
        for file in unwanted.iter().filter(|file| !is_wanted(file)) {
            for path in [self.path(file), self.path(&format!("{file}{BACKUP}"))] {
                match fs_err::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
            }
            context.discarded(file)?;
        }
        // Not if anything is in it, and not if it was never made.
        let _still_there = fs_err::remove_dir(self.path(directory));
        Ok(())
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
        self.remove_all(cluster)?;
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

    /// What keeps a new environment from beginning in the directory: what is there and nobody of ours has put there. A
    /// reset removes what is ours by its name, so nothing else may have such a name.
    pub fn strangers(&self) -> io::Result<Vec<String>> {
        let entries = match fs_err::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names: Vec<String> =
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<_>>()?;
        let is_left =
            |name: &str| JOURNAL.contains(&name) || [ARCHIVE, GITIGNORE, RUNNING].contains(&name) || is_begun(name);
        let is_readme = |name: &str| name == README && self.read(README).ok().flatten().as_deref() == Some(ABOUT);
        let mut strangers: Vec<String> = names.into_iter().filter(|name| !is_left(name) && !is_readme(name)).collect();
        strangers.sort();
        Ok(strangers)
    }

    /// Removes everything of a cluster but the archive, and nothing that is not ours; the journal last, so that an
    /// interruption is not forgotten, of its files the database after its write-ahead log, and the lock last of all.
    fn remove_all(&self, cluster: &ClusterId) -> io::Result<()> {
        let mut entries: Vec<_> = fs_err::read_dir(&self.directory)?.collect::<Result<_, _>>()?;
        // What is left has to be kept out of version control as well.
        entries.retain(|entry| ![ARCHIVE, GITIGNORE, README].iter().any(|kept| entry.file_name() == *kept));
        let name = |entry: &fs_err::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let is_shared = entries.iter().any(|entry| !is_ours(&name(entry)));
        entries.retain(|entry| is_ours(&name(entry)));
        // Beside other people's files it may be theirs: a configuration that was used where it lies.
        entries.retain(|entry| !is_shared || name(entry) != "k0rdent.yaml");
        entries.sort_by_key(|entry| {
            let name = name(entry);
            (name == "journal.lock", name.starts_with("journal"), Reverse(name))
        });
        for entry in entries {
            if entry.file_type()?.is_dir() {
                remove_ours(&name(&entry), &entry.path(), cluster)?;
            } else {
                fs_err::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Removes what commands have left that were killed: files of [`RUNNING`] that nobody holds a lock on.
pub fn sweep(home: &Path) {
    let Ok(entries) = fs_err::read_dir(home.join(RUNNING)) else { return };
    for entry in entries.flatten() {
        let file = fs_err::File::open(entry.path());
        if file.is_ok_and(|file| file.file().try_lock().is_ok()) {
            // The next command tries again.
            let _still_there = fs_err::remove_file(entry.path());
        }
    }
}

/// Whether something in an environment's directory can be ours, by its name.
fn is_ours(name: &str) -> bool {
    let name = final_name(name);
    DIRECTORIES.contains(&name) || FILES.contains(&name) || JOURNAL.contains(&name)
}

/// Whether something is what a run that was killed at once had only begun to write.
fn is_begun(name: &str) -> bool {
    drafted(name).is_some_and(|whole| [GITIGNORE, README].contains(&whole) || JOURNAL.contains(&whole))
}

/// The name that a file has when it is whole: not one that was only begun, nor what was kept of one that somebody changed.
fn final_name(name: &str) -> &str {
    let name = drafted(name).unwrap_or(name);
    name.strip_suffix(BACKUP).unwrap_or(name)
}

/// Whether something in the archive is ours, by its name.
fn is_archive(name: &str) -> bool {
    name.split_once('_').is_some_and(|(whose, _)| whose == "damaged" || ClusterId::parse(whose).is_ok())
}

/// Whether a file holds nothing that others must not read.
fn is_public(path: &str) -> bool {
    let path = path.strip_suffix(BACKUP).unwrap_or(path);
    path.ends_with(".pub")
        || [GITIGNORE, README, "ssh/config", "ssh/known_hosts", "kubeconfig/kubeconfig-env.sh"].contains(&path)
        // Where SQLite makes files, their mode is the user's own; there is no secret in records.
        || ["k0sctl-config/", "journal.", "deployment-"].iter().any(|public| path.starts_with(public))
}

/// Removes what is ours in a directory of ours, and the directory if nothing else is in it.
fn remove_ours(directory: &str, path: &Path, cluster: &ClusterId) -> io::Result<()> {
    for entry in fs_err::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && is_ours_in(directory, &name, Some(cluster)) {
            fs_err::remove_file(entry.path())?;
        }
    }
    match fs_err::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

/// Whether a file in a directory of ours is ours, by its name: that of the cluster, or of any where nobody knows which.
fn is_ours_in(directory: &str, name: &str, cluster: Option<&ClusterId>) -> bool {
    let name = final_name(name);
    let is_id = |id: &str| ClusterId::parse(id).is_ok_and(|id| cluster.is_none_or(|cluster| id == *cluster));
    let is_clusters = |end: &str| name.strip_suffix(end).is_some_and(is_id);
    let is_node = |node: &str| {
        let number = node.strip_prefix("k0s-controller-").or(node.strip_prefix("k0s-worker-"));
        number.is_some_and(|number| number.parse::<u16>().is_ok())
    };
    match directory {
        "cloud-init-yaml" => name.strip_suffix("-cloud-init.yaml").is_some_and(is_node),
        "k0sctl-config" => is_clusters("-k0sctl.yaml"),
        "kubeconfig" => is_clusters("-kubeconfig") || name.starts_with("kubeconfig-env."),
        "ssh" => ["config", "known_hosts"].contains(&name) || is_clusters("-ssh-key") || is_clusters("-ssh-key.pub"),
        "wireguard" => {
            let short = name.strip_prefix("wgk0").and_then(|name| name.strip_suffix(".conf"));
            short.is_some_and(|short| is_id(&format!("k0rdent-{short}")))
        }
        RUNNING => true,
        _ => false,
    }
}

/// The digest of a text, in hexadecimal.
pub fn sha256(text: &str) -> String {
    sha256_of(text.as_bytes())
}

fn sha256_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
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
        environment.write("ssh/k0rdent-abcd1234-ssh-key", "secret", Access::Secret).unwrap();
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

    #[cfg(unix)]
    #[test]
    fn what_others_may_read_is_found_and_made_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::new(directory.path());
        environment.settle_in().unwrap();
        environment.write("keys.json", "secret", Access::Secret).unwrap();
        environment.write("ssh/key.pub", "public", Access::Public).unwrap();
        environment.write("wireguard/wg.conf", "secret", Access::Secret).unwrap();
        fs_err::write(environment.path("notes.txt"), "theirs").unwrap();
        assert_eq!(environment.loose().unwrap(), []);
        let mode = |path: &str, mode| {
            fs_err::set_permissions(environment.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("keys.json", 0o644);
        mode("wireguard", 0o755);
        let found: Vec<_> = environment.make_private().unwrap().into_iter().map(|loose| loose.path).collect();
        assert_eq!(found, ["keys.json", "wireguard"]);
        assert_eq!(environment.loose().unwrap(), []);
        assert_eq!(fs_err::read_to_string(environment.path(".gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn what_a_first_run_had_begun_when_it_was_killed_is_nobody_elses() {
        for begun in ["..gitignore.new", ".README.new", ".journal.sqlite.new"] {
            let directory = tempfile::tempdir().unwrap();
            let environment = Environment::new(directory.path());
            fs_err::write(environment.path(begun), "beg").unwrap();
            assert_eq!(environment.strangers().unwrap(), Vec::<String>::new());
            environment.settle_in().unwrap();
            let (since, command) = (time::OffsetDateTime::UNIX_EPOCH, "deploy".into());
            let holder = engine::Holder { user: "ada".into(), host: "desk".into(), pid: 7, command, since };
            engine::Journal::open_to_write(directory.path(), &holder, engine::journal::Durability::Process).unwrap();
            assert!(!environment.path(begun).exists(), "{begun}");
            assert_eq!(environment.read(GITIGNORE).unwrap().as_deref(), Some("*\n"));
        }
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join(".notes.new"), "theirs").unwrap();
        assert_eq!(Environment::new(directory.path()).strangers().unwrap(), [".notes.new"]);
    }

    #[test]
    fn what_a_killed_command_left_is_swept_and_what_a_living_one_holds_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::new(directory.path());
        for file in ["run/kubeconfig-1", "run/kubeconfig-2"] {
            environment.write(file, "secret", Access::Secret).unwrap();
        }
        let held = fs_err::File::open(environment.path("run/kubeconfig-2")).unwrap();
        held.file().lock().unwrap();
        sweep(directory.path());
        assert!(!environment.path("run/kubeconfig-1").exists());
        assert!(environment.path("run/kubeconfig-2").exists());
    }
}
