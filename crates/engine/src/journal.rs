//! The journal: an append-only log of events in an SQLite database, written by one run at a time.
//!
//! Two things keep a second run out. An operating-system lock on `journal.lock` says whether a program is alive: the
//! kernel lets go of it when the program ends, however it ends. The *epoch* is the number of the current run; every
//! append compares it in the same transaction, so that a run that lost its place can write nothing more.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::{Event, Record};

/// The version of the journal's format that this program writes.
pub const FORMAT_VERSION: u32 = 1;

/// Who runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The user's name.
    pub user: String,
    /// The computer.
    pub host: String,
    /// The process id there.
    pub pid: u32,
    /// The command, `deploy`.
    pub command: String,
    /// Since when, in UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another run is active.
    #[error("another run is active: `{}` by {}@{} (process {}) since {}", holder.command, holder.user, holder.host, holder.pid, holder.since)]
    Held {
        /// Who.
        holder: Box<Holder>,
    },
    /// Another run has taken over since.
    #[error("{}: another run has taken over; this one stops", path.display())]
    LostLease {
        /// The journal.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error("{}: written in format {found}, and this program knows {FORMAT_VERSION} at most: use the newer k0rdentctl", path.display())]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It cannot be read as a journal.
    #[error("{}: record {sequence} is damaged: {reason}; nothing was changed. Restore the file from a backup, or move it away to start anew", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Where.
        sequence: u64,
        /// How.
        reason: String,
    },
    /// The database refuses.
    #[error("{}: {source}", path.display())]
    Database {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file system refuses.
    #[error(transparent)]
    File(#[from] std::io::Error),
}

impl JournalError {
    /// Whether the file itself is at fault, so that no later try will read it.
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::Damaged { .. } => true,
            Self::Database { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
            }
            _ => false,
        }
    }
}

/// How hard an append tries to survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Written through to the disk before the next effect.
    Disk,
    /// In the operating system's hands: enough where the directory is thrown away afterwards (rehearsals, tests).
    Process,
}

/// An open journal.
pub struct Journal {
    path: PathBuf,
    database: Mutex<Connection>,
    /// Held for as long as this run may write.
    lease: Option<File>,
    epoch: u64,
}

impl Journal {
    /// The journal's file in an environment's directory.
    pub fn file(directory: &Path) -> PathBuf {
        directory.join("journal.sqlite")
    }

    /// Says who is at work in the directory, if somebody is.
    pub fn check_free(directory: &Path, asking: &Holder) -> Result<(), JournalError> {
        if Self::is_held(directory) { Err(Self::held(Self::file(directory), asking)?) } else { Ok(()) }
    }

    /// Opens an existing journal for reading; `None` if there is none.
    pub fn open_to_read(directory: &Path) -> Result<Option<Self>, JournalError> {
        let path = Self::file(directory);
        if !path.exists() {
            return Ok(None);
        }
        // Read-write flags, because reading a write-ahead log may have to recover it first.
        let journal = Self::connect(path, Durability::Process)?;
        Ok(Some(journal))
    }

    /// Opens the journal, making it if need be, and becomes its only writer: the next run.
    pub fn open_to_write(directory: &Path, holder: &Holder, durability: Durability) -> Result<Self, JournalError> {
        create_private_directory(directory)?;
        let path = Self::file(directory);
        let lease = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join("journal.lock"))?
            .into_parts()
            .0;
        if let Err(held) = lease.try_lock() {
            return Err(match held {
                std::fs::TryLockError::WouldBlock => Self::held(path, holder)?,
                std::fs::TryLockError::Error(error) => error.into(),
            });
        }
        let mut journal = Self::connect(path, durability)?;
        journal.lease = Some(lease);
        journal.epoch = journal.begin_epoch(holder)?;
        Ok(journal)
    }

    fn held(path: PathBuf, asking: &Holder) -> Result<JournalError, JournalError> {
        let journal = Self::connect(path, Durability::Process)?;
        let holder = journal.holder()?.unwrap_or_else(|| Holder { command: "unknown".into(), ..asking.clone() });
        Ok(JournalError::Held { holder: Box::new(holder) })
    }

    fn connect(path: PathBuf, durability: Durability) -> Result<Self, JournalError> {
        let failed = |source| JournalError::Database { path: path.clone(), source };
        create_private(&path)?;
        let database = Connection::open(&path).map_err(failed)?;
        database.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
        database.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        let synchronous = if durability == Durability::Disk { "FULL" } else { "OFF" };
        database.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
        let found: u32 = database.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if found > FORMAT_VERSION {
            return Err(JournalError::Newer { path, found });
        }
        if found == 0 {
            database
                .execute_batch(
                    "BEGIN;
                     CREATE TABLE IF NOT EXISTS event (
                        sequence INTEGER PRIMARY KEY, run INTEGER NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL);
                     CREATE TABLE IF NOT EXISTS run (epoch INTEGER PRIMARY KEY, holder TEXT NOT NULL);
                     PRAGMA user_version = 1;
                     COMMIT;",
                )
                .map_err(failed)?;
        }
        Ok(Self { path, database: Mutex::new(database), lease: None, epoch: 0 })
    }

    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_epoch(&self, holder: &Holder) -> Result<u64, JournalError> {
        let holder = serde_json::to_string(holder).map_err(|error| self.damaged(0, error))?;
        self.database()
            .query_row(
                "INSERT INTO run (epoch, holder) SELECT coalesce(max(epoch), 0) + 1, ?1 FROM run RETURNING epoch",
                params![holder],
                |row| row.get(0),
            )
            .map_err(|source| self.failed(source))
    }

    /// The number of the current run.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Who runs now, or ran last.
    pub fn holder(&self) -> Result<Option<Holder>, JournalError> {
        let text: Option<String> = self
            .database()
            .query_row("SELECT holder FROM run ORDER BY epoch DESC LIMIT 1", [], |row| row.get(0))
            .optional()
            .map_err(|source| self.failed(source))?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| self.damaged(0, error))).transpose()
    }

    /// Whether a run is active in this directory right now.
    pub fn is_held(directory: &Path) -> bool {
        fs_err::File::open(directory.join("journal.lock"))
            .is_ok_and(|file| matches!(file.file().try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
    }

    /// Begins a new run without the lock, so that the run that holds it can append nothing any more; and puts a new
    /// lock file in the place of the one it holds.
    pub fn fence(directory: &Path, holder: &Holder) -> Result<(), JournalError> {
        let journal = Self::connect(Self::file(directory), Durability::Disk)?;
        journal.begin_epoch(holder)?;
        match fs_err::remove_file(directory.join("journal.lock")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Has the database check itself.
    pub fn check(&self) -> Result<(), JournalError> {
        let verdict: String = self
            .database()
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(|source| self.failed(source))?;
        if verdict == "ok" { Ok(()) } else { Err(self.damaged(0, verdict)) }
    }

    /// Appends one event; when this returns, it is as durable as was asked for.
    pub fn append(&self, at: OffsetDateTime, event: Event) -> Result<Record, JournalError> {
        let body = serde_json::to_string(&event).map_err(|error| self.damaged(0, error))?;
        let when = at.format(&time::format_description::well_known::Rfc3339).map_err(|error| self.damaged(0, error))?;
        let sequence: Option<u64> = self
            .database()
            .prepare_cached(
                "INSERT INTO event (run, at, body) SELECT ?1, ?2, ?3 WHERE (SELECT max(epoch) FROM run) = ?1 RETURNING sequence",
            )
            .and_then(|mut statement| statement.query_row(params![self.epoch, when, body], |row| row.get(0)).optional())
            .map_err(|source| self.failed(source))?;
        let sequence = sequence.ok_or_else(|| JournalError::LostLease { path: self.path.clone() })?;
        Ok(Record { sequence, run: self.epoch, at, event })
    }

    /// The events after `sequence`, in order.
    pub fn after(&self, sequence: u64) -> Result<Vec<Record>, JournalError> {
        let database = self.database();
        let mut statement = database
            .prepare_cached("SELECT sequence, run, at, body FROM event WHERE sequence > ?1 ORDER BY sequence")
            .map_err(|source| self.failed(source))?;
        let rows = statement
            .query_map(params![sequence], |row| {
                Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
            })
            .map_err(|source| self.failed(source))?;
        let mut records = Vec::new();
        for row in rows {
            let (sequence, run, at, body) = row.map_err(|source| self.failed(source))?;
            let at = OffsetDateTime::parse(&at, &time::format_description::well_known::Rfc3339)
                .map_err(|error| self.damaged(sequence, error))?;
            let event = serde_json::from_str(&body).map_err(|error| self.damaged(sequence, error))?;
            records.push(Record { sequence, run, at, event });
        }
        Ok(records)
    }

    fn failed(&self, source: rusqlite::Error) -> JournalError {
        JournalError::Database { path: self.path.clone(), source }
    }

    fn damaged(&self, sequence: u64, reason: impl ToString) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), sequence, reason: reason.to_string() }
    }
}

/// Makes a directory, and those above it, that only its owner may enter.
pub fn create_private_directory(path: &Path) -> Result<(), std::io::Error> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path).map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Makes the file with mode 0600 before the database opens it.
fn create_private(path: &Path) -> Result<(), std::io::Error> {
    let mut options = fs_err::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use fs_err::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(command: &str) -> Holder {
        Holder {
            user: "ada".into(),
            host: "desk".into(),
            pid: 7,
            command: command.into(),
            since: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn note(text: &str) -> Event {
        Event::Noted { step: crate::StepId::new("a"), text: text.into() }
    }

    #[test]
    fn what_is_appended_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Process).unwrap();
        let first = journal.append(OffsetDateTime::UNIX_EPOCH, note("one")).unwrap();
        let second = journal.append(OffsetDateTime::UNIX_EPOCH, note("two")).unwrap();
        drop(journal);
        let journal = Journal::open_to_read(directory.path()).unwrap().unwrap();
        assert_eq!(journal.after(0).unwrap(), [first.clone(), second.clone()]);
        assert_eq!(journal.after(first.sequence).unwrap(), [second]);
    }

    #[test]
    fn a_second_run_is_told_who_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Process).unwrap();
        assert!(Journal::is_held(directory.path()));
        let Err(refused) = Journal::open_to_write(directory.path(), &holder("reset"), Durability::Process) else {
            panic!("two runs at once")
        };
        insta::assert_snapshot!(refused, @"another run is active: `deploy` by ada@desk (process 7) since 1970-01-01 0:00:00.0 +00:00:00");
        drop(first);
        assert!(!Journal::is_held(directory.path()));
        let second = Journal::open_to_write(directory.path(), &holder("reset"), Durability::Process).unwrap();
        assert_eq!(second.epoch(), 2);
    }

    #[test]
    fn a_run_that_was_overtaken_can_append_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Process).unwrap();
        first.lease = None;
        let _second = Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Process).unwrap();
        assert!(matches!(first.append(OffsetDateTime::UNIX_EPOCH, note("late")), Err(JournalError::LostLease { .. })));
    }

    #[test]
    fn a_run_can_be_fenced_off_while_it_holds_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let first = Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Process).unwrap();
        Journal::fence(directory.path(), &holder("unlock")).unwrap();
        assert!(matches!(first.append(OffsetDateTime::UNIX_EPOCH, note("late")), Err(JournalError::LostLease { .. })));
        let next = Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Process).unwrap();
        next.append(OffsetDateTime::UNIX_EPOCH, note("on time")).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Process).unwrap());
        let database = Connection::open(Journal::file(directory.path())).unwrap();
        database.pragma_update(None, "user_version", 99).unwrap();
        drop(database);
        assert!(matches!(Journal::open_to_read(directory.path()), Err(JournalError::Newer { found: 99, .. })));
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        drop(Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Process).unwrap());
        let mode = fs_err::metadata(Journal::file(directory.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
