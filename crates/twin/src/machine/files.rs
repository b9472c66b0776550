//! The files of one machine: directories, contents, owners and modes.

use std::collections::{BTreeMap, BTreeSet};

/// What a path leads to.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The bytes of a file; nothing for a directory.
    pub(super) content: Option<Vec<u8>>,
    /// Permission bits.
    pub(super) mode: u32,
    /// The user that owns it.
    pub(super) owner: String,
    /// The group that owns it.
    pub(super) group: String,
    /// Whether it is a symbolic link; its content is where it leads then.
    pub(super) is_link: bool,
}

impl Node {
    /// Whether this is a directory.
    pub(super) fn is_directory(&self) -> bool {
        self.content.is_none()
    }
}

/// Why a file operation fails, in the words of the C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileError {
    /// `ENOENT`.
    #[error("No such file or directory")]
    NotFound,
    /// `EACCES`.
    #[error("Permission denied")]
    Denied,
    /// `EISDIR`.
    #[error("Is a directory")]
    IsDirectory,
    /// `ENOTDIR`.
    #[error("Not a directory")]
    NotDirectory,
    /// `EEXIST`.
    #[error("File exists")]
    Exists,
    /// `EPERM`.
    #[error("Operation not permitted")]
    NotPermitted,
}

/// Who wants something from the file system.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// The user's name; `root` may do everything.
    pub(super) user: String,
    /// The groups, the user's own among them.
    pub(super) groups: BTreeSet<String>,
}

impl Who {
    /// The superuser.
    pub(super) fn root() -> Self {
        Self { user: "root".into(), groups: BTreeSet::from(["root".into()]) }
    }

    /// Whether nothing is forbidden.
    pub(super) fn is_root(&self) -> bool {
        self.user == "root"
    }

    fn may(&self, node: &Node, bits: u32) -> bool {
        let shift = if node.owner == self.user {
            6
        } else if self.groups.contains(&node.group) {
            3
        } else {
            0
        };
        // Root may do everything except to execute what nobody may.
        self.is_root() && (bits != EXECUTE || node.is_directory() || node.mode & 0o111 != 0)
            || node.mode >> shift & bits == bits
    }
}

/// Permission to read.
pub(super) const READ: u32 = 4;
/// Permission to change.
pub(super) const WRITE: u32 = 2;
/// Permission to run, or to pass through a directory.
pub(super) const EXECUTE: u32 = 1;

/// All files by absolute path.
#[derive(Debug)]
pub(super) struct Files(BTreeMap<String, Node>);

/// The path of the directory that holds `path`.
pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &path[..end],
    }
}

/// An absolute path without `.`, `..` and double slashes.
pub(super) fn absolute(path: &str, directory: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

impl Files {
    /// The directories of a fresh Debian.
    pub(super) fn new() -> Self {
        let mut files = Self(BTreeMap::new());
        for (path, mode) in [
            ("/", 0o755),
            ("/root", 0o700),
            ("/home", 0o755),
            ("/tmp", 0o1777),
            ("/opt", 0o755),
            ("/etc/systemd/system", 0o755),
            ("/run", 0o755),
            ("/usr/local/bin", 0o755),
            ("/var/tmp", 0o1777),
            ("/var/lib", 0o755),
            // Where systemd runs (systemd documentation, sd_booted).
            ("/run/systemd/system", 0o755),
        ] {
            files.put_directory(path, mode, "root");
        }
        files
    }

    /// Makes a directory and its parents as root would, without asking.
    pub(super) fn put_directory(&mut self, path: &str, mode: u32, owner: &str) {
        if path != "/" && !self.0.contains_key(parent(path)) {
            self.put_directory(parent(path), 0o755, "root");
        }
        let node = Node { content: None, mode, owner: owner.into(), group: owner.into(), is_link: false };
        self.0.insert(path.into(), node);
    }

    /// Writes a file and makes its parents, without asking.
    pub(super) fn put(&mut self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32, owner: &str) {
        if !self.0.contains_key(parent(path)) {
            self.put_directory(parent(path), 0o755, "root");
        }
        let node = Node { content: Some(bytes.into()), mode, owner: owner.into(), group: owner.into(), is_link: false };
        self.0.insert(path.into(), node);
    }

    /// What is at `path`, without asking.
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    /// The text of a file, without asking.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        self.0.get(path)?.content.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Whether `who` may do `bits` to what is at `path`.
    pub(super) fn allows(&self, path: &str, who: &Who, bits: u32) -> bool {
        self.look(path, who).is_ok_and(|node| who.may(node, bits))
    }

    /// What is at `path`, if `who` may pass through the directories above it.
    pub(super) fn look(&self, path: &str, who: &Who) -> Result<&Node, FileError> {
        self.pass(path, who)?;
        self.0.get(path).ok_or(FileError::NotFound)
    }

    fn pass(&self, path: &str, who: &Who) -> Result<(), FileError> {
        if path == "/" {
            return Ok(());
        }
        let above = parent(path);
        self.pass(above, who)?;
        let directory = self.0.get(above).ok_or(FileError::NotFound)?;
        match (directory.is_directory(), who.may(directory, EXECUTE)) {
            (false, _) => Err(FileError::NotDirectory),
            (_, false) => Err(FileError::Denied),
            _ => Ok(()),
        }
    }

    /// Makes a symbolic link.
    pub(super) fn link(&mut self, target: &str, path: &str, who: &Who) -> Result<(), FileError> {
        self.pass(path, who)?;
        if self.0.contains_key(path) {
            return Err(FileError::Exists);
        }
        self.write(path, target.as_bytes(), false, 0o777, who)?;
        if let Some(node) = self.0.get_mut(path) {
            node.is_link = true;
        }
        Ok(())
    }

    /// Where a symbolic link leads; nothing if there is none.
    pub(super) fn target(&self, path: &str, who: &Who) -> Option<String> {
        let node = self.look(path, who).ok().filter(|node| node.is_link)?;
        Some(String::from_utf8_lossy(node.content.as_deref()?).into_owned())
    }

    /// The contents of a file.
    pub(super) fn read(&self, path: &str, who: &Who) -> Result<&[u8], FileError> {
        let node = self.look(path, who)?;
        if let Some(target) = self.target(path, who) {
            return self.read(&absolute(&target, parent(path)), who);
        }
        if !who.may(node, READ) {
            return Err(FileError::Denied);
        }
        node.content.as_deref().ok_or(FileError::IsDirectory)
    }

    /// Writes a file; a new one gets `mode` and belongs to `who`.
    pub(super) fn write(
        &mut self,
        path: &str,
        bytes: &[u8],
        append: bool,
        mode: u32,
        who: &Who,
    ) -> Result<(), FileError> {
        self.pass(path, who)?;
        if let Some(node) = self.0.get_mut(path) {
            let allowed = who.may(node, WRITE);
            let content = node.content.as_mut().ok_or(FileError::IsDirectory)?;
            if !allowed {
                return Err(FileError::Denied);
            }
            if !append {
                content.clear();
            }
            content.extend_from_slice(bytes);
            return Ok(());
        }
        self.may_change_directory(path, who)?;
        let node = Node {
            content: Some(bytes.to_vec()),
            mode,
            owner: who.user.clone(),
            group: who.user.clone(),
            is_link: false,
        };
        self.0.insert(path.into(), node);
        Ok(())
    }

    fn may_change_directory(&self, path: &str, who: &Who) -> Result<(), FileError> {
        let directory = self.0.get(parent(path)).ok_or(FileError::NotFound)?;
        if who.may(directory, WRITE) { Ok(()) } else { Err(FileError::Denied) }
    }

    /// Makes a directory; with `parents` also those above it, and none is an error if it exists.
    pub(super) fn make_directory(&mut self, path: &str, parents: bool, mode: u32, who: &Who) -> Result<(), FileError> {
        match self.0.get(path) {
            Some(node) if node.is_directory() && parents => return Ok(()),
            Some(_) => return Err(FileError::Exists),
            None if parents => self.make_directory(parent(path), true, 0o755, who)?,
            None => {}
        }
        self.pass(path, who)?;
        self.may_change_directory(path, who)?;
        let node = Node { content: None, mode, owner: who.user.clone(), group: who.user.clone(), is_link: false };
        self.0.insert(path.into(), node);
        Ok(())
    }

    /// Removes what is at `path`; a directory only with all that is in it, if `recursive`.
    pub(super) fn remove(&mut self, path: &str, recursive: bool, who: &Who) -> Result<(), FileError> {
        let is_directory = self.look(path, who)?.is_directory();
        if is_directory && !recursive {
            return Err(FileError::IsDirectory);
        }
        self.may_change_directory(path, who)?;
        self.0.remove(path);
        let below = format!("{path}/");
        self.0.retain(|other, _| !other.starts_with(&below));
        Ok(())
    }

    /// Moves a file or a directory with all that is in it.
    pub(super) fn rename(&mut self, from: &str, to: &str, who: &Who) -> Result<(), FileError> {
        self.look(from, who)?;
        self.pass(to, who)?;
        self.may_change_directory(from, who)?;
        self.may_change_directory(to, who)?;
        let below = format!("{from}/");
        let moved: Vec<String> =
            self.0.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
        for path in moved {
            if let Some(node) = self.0.remove(&path) {
                self.0.insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
        Ok(())
    }

    /// Changes permission bits: the owner's and root's right.
    pub(super) fn set_mode(&mut self, path: &str, mode: u32, who: &Who) -> Result<(), FileError> {
        self.look(path, who)?;
        let node = self.0.get_mut(path).ok_or(FileError::NotFound)?;
        if !who.is_root() && node.owner != who.user {
            return Err(FileError::NotPermitted);
        }
        node.mode = mode;
        Ok(())
    }

    /// Changes owner or group: root's right.
    pub(super) fn set_owner(
        &mut self,
        path: &str,
        owner: Option<&str>,
        group: Option<&str>,
        who: &Who,
    ) -> Result<(), FileError> {
        self.look(path, who)?;
        let node = self.0.get_mut(path).ok_or(FileError::NotFound)?;
        let same = owner.is_none_or(|owner| owner == node.owner) && group.is_none_or(|group| group == node.group);
        if !who.is_root() && !same {
            return Err(FileError::NotPermitted);
        }
        if let Some(owner) = owner {
            node.owner = owner.into();
        }
        if let Some(group) = group {
            node.group = group.into();
        }
        Ok(())
    }

    /// Everything there is, a line each.
    pub(super) fn listing(&self) -> Vec<String> {
        let line = |(path, node): (&String, &Node)| {
            let content = node.content.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            format!("{path} {:o} {}:{} {content:?}", node.mode, node.owner, node.group)
        };
        self.0.iter().map(line).collect()
    }

    /// The names in a directory, in order.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let below = if directory == "/" { "/".to_owned() } else { format!("{directory}/") };
        self.0
            .range(below.clone()..)
            .take_while(|(path, _)| path.starts_with(&below))
            .map(|(path, _)| &path[below.len()..])
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> Who {
        Who { user: "ada".into(), groups: BTreeSet::from(["ada".into()]) }
    }

    #[test]
    fn what_belongs_to_root_and_is_private_stays_so() {
        let mut files = Files::new();
        files.put("/etc/wireguard/wg0.conf", "secret", 0o600, "root");
        assert_eq!(files.read("/etc/wireguard/wg0.conf", &ada()), Err(FileError::Denied));
        assert_eq!(files.read("/etc/wireguard/wg0.conf", &Who::root()), Ok(&b"secret"[..]));
        assert_eq!(files.write("/etc/motd", b"x", false, 0o644, &ada()), Err(FileError::Denied));
        assert_eq!(files.read("/root/x", &ada()), Err(FileError::Denied));
        assert!(files.write("/tmp/x", b"x", false, 0o644, &ada()).is_ok());
    }

    #[test]
    fn paths_are_made_absolute() {
        assert_eq!(absolute("a/../b//c/.", "/home/ada"), "/home/ada/b/c");
        assert_eq!(absolute("/..", "/"), "/");
    }

    #[test]
    fn a_directory_moves_and_goes_with_its_contents() {
        let mut files = Files::new();
        files.put("/opt/a/b/c", "1", 0o644, "root");
        files.rename("/opt/a", "/opt/z", &Who::root()).unwrap();
        assert_eq!(files.names("/opt/z/b"), ["c"]);
        files.remove("/opt/z", true, &Who::root()).unwrap();
        assert!(files.names("/opt").is_empty());
    }
}
