//! The journal: an append-only log of events in an SQLite database, written by one run at a time.
//!
//! Two things keep a second run out. An operating-system lock on `journal.lock` says whether a program is alive: the
//! kernel lets go of it when the program ends, however it ends. The *epoch* is the number of the current run; every
//! append compares it in the same transaction, so that a run that lost its place can write nothing more.

mod write_ahead;

use std::{
    fmt,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    event::{Event, Record},
    state::State,
};

/// The version of the journal's format that this program writes.
pub const FORMAT_VERSION: u32 = 2;

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

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, pid, command, since } = self;
        let since = since.format(HOLDER_TIME).map_err(|_| fmt::Error)?;
        write!(formatter, "`{command}` by {user}@{host} (process {pid}) since {since} UTC")
    }
}

/// A moment, as people read it.
const HOLDER_TIME: &[time::format_description::BorrowedFormatItem<'_>] =
    time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another run is active.
    #[error("another run is active{}", holder.as_ref().map_or(", and has not said yet whose it is".to_owned(), |holder| format!(": {holder}")))]
    Held {
        /// Who, if it has come so far that it has said so.
        holder: Option<Box<Holder>>,
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
    #[error("{}: {reason}; nothing was changed", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, and how.
        reason: String,
    },
    /// A settlement makes no sense to this program.
    #[error(
        "the journal's record `{key}` cannot be read: {source}; another version wrote it, or it is damaged; nothing was changed"
    )]
    Illegible {
        /// What was settled.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
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
    /// Whether what is recorded is at fault, so that no later try will read it.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Illegible { .. })
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
    lease: Option<Lease>,
    epoch: u64,
    recovered: Option<String>,
}

/// The right to write in an environment's directory, kept by the kernel for as long as this lives.
#[derive(Debug)]
pub struct Lease {
    _lock: File,
}

/// How often a run tries to take the lock from those who only look at it.
const GLANCES: u32 = 10_000;

/// The columns of an event; a journal of format 1 has no checksums.
const COLUMNS: &str =
    "sequence INTEGER PRIMARY KEY, run INTEGER NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL, checksum INTEGER";

impl Journal {
    /// The journal's file in an environment's directory.
    pub fn file(directory: &Path) -> PathBuf {
        directory.join("journal.sqlite")
    }

    /// Says who is at work in the directory, if somebody is.
    pub fn check_free(directory: &Path) -> Result<(), JournalError> {
        if Self::is_held(directory) { Err(Self::held(Self::file(directory))?) } else { Ok(()) }
    }

    /// Opens an existing journal for reading; `None` if there is none.
    pub fn open_to_read(directory: &Path) -> Result<Option<Self>, JournalError> {
        let path = Self::file(directory);
        if !path.exists() {
            return Ok(None);
        }
        // Beside a run that writes, the end of the log may be half written.
        let recovered = if Self::is_held(directory) { None } else { Self::inspect(&path)? };
        // Read-write flags, because reading a write-ahead log may have to recover it first; what it is, the next run
        // shall still find.
        let mut journal = Self::connect(path, Durability::Process)?;
        let keep = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        journal.database().set_db_config(keep, true).map_err(|source| journal.failed(source))?;
        journal.recovered = recovered;
        Ok(Some(journal))
    }

    /// Opens the journal, making it if need be, and becomes its only writer: the next run.
    pub fn open_to_write(directory: &Path, holder: &Holder, durability: Durability) -> Result<Self, JournalError> {
        create_private_directory(directory)?;
        let path = Self::file(directory);
        let Some(lease) = Self::claim(directory)? else { return Err(Self::held(path)?) };
        if !path.exists() {
            Self::create(&path)?;
        }
        let recovered = Self::inspect(&path)?;
        let mut journal = Self::connect(path, durability)?;
        journal.migrate()?;
        journal.recovered = recovered;
        journal.lease = Some(lease);
        journal.epoch = journal.begin_epoch(holder)?;
        Ok(journal)
    }

    /// Claims the directory, without beginning a run; `None` if somebody else has it.
    pub fn claim(directory: &Path) -> Result<Option<Lease>, JournalError> {
        let path = directory.join("journal.lock");
        loop {
            let opened = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            let lock = opened.into_parts().0;
            match Self::take(&lock) {
                Ok(()) if is_at(&lock, &path)? => return Ok(Some(Lease { _lock: lock })),
                // Who had it has removed the file with everything else: the lock is worth nothing any more.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }

    /// Closes the journal and keeps the right to write in its directory: what is removed there is nobody else's yet.
    pub fn close(self) -> Option<Lease> {
        self.lease
    }

    /// Takes the lock, unless another run has it. Who only looks whether somebody has it shares it for an instant, and
    /// that is nobody to give way to.
    fn take(lease: &File) -> Result<(), TryLockError> {
        for _ in 0..GLANCES {
            match lease.try_lock() {
                Err(TryLockError::WouldBlock) => lease.try_lock_shared()?,
                taken => return taken,
            }
            std::thread::yield_now();
        }
        Err(TryLockError::WouldBlock)
    }

    fn held(path: PathBuf) -> Result<JournalError, JournalError> {
        let holder = if path.exists() { Self::connect(path, Durability::Process)?.holder()? } else { None };
        Ok(JournalError::Held { holder: holder.map(Box::new) })
    }

    /// Makes an empty journal, in one piece: a file that is there is never one that was only begun.
    fn create(path: &Path) -> Result<(), JournalError> {
        let log = log_of(path);
        if log.exists() {
            return Err(Self::damage(path, "it is missing, and its write-ahead log is there".to_owned()));
        }
        let new = draft_of(path);
        if new.exists() {
            fs_err::remove_file(&new)?;
        }
        create_private(&new)?;
        let failed = |source| JournalError::Database { path: new.clone(), source };
        let database = Connection::open(&new).map_err(failed)?;
        let tables = format!(
            "PRAGMA journal_mode = MEMORY;
             BEGIN;
             CREATE TABLE event ({COLUMNS});
             CREATE TABLE run (epoch INTEGER PRIMARY KEY, holder TEXT NOT NULL);
             PRAGMA user_version = {FORMAT_VERSION};
             COMMIT;"
        );
        database.execute_batch(&tables).map_err(failed)?;
        drop(database);
        Ok(rename_durably(&new, path)?)
    }

    /// What is wrong with the files before the database opens them: a torn last record, in words, or an error.
    fn inspect(path: &Path) -> Result<Option<String>, JournalError> {
        if fs_err::metadata(path)?.len() == 0 {
            return Err(Self::damage(path, "it is empty".to_owned()));
        }
        let log = log_of(path);
        match write_ahead::inspect(&log)? {
            None => Ok(None),
            Some(write_ahead::Trouble::Torn { offset, bytes }) => Ok(Some(format!(
                "the last record was not written to its end and is dropped ({bytes} bytes at offset {offset} of {})",
                log.display()
            ))),
            Some(write_ahead::Trouble::Damaged { offset }) => {
                Err(Self::damage(&log, format!("it is damaged at offset {offset}, in front of other records")))
            }
        }
    }

    fn connect(path: PathBuf, durability: Durability) -> Result<Self, JournalError> {
        let failed = |source| match source {
            rusqlite::Error::SqliteFailure(error, _) if is_damage(error.code) => {
                Self::damage(&path, source.to_string())
            }
            source => JournalError::Database { path: path.clone(), source },
        };
        let database = Connection::open(&path).map_err(failed)?;
        database.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
        database.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        let synchronous = if durability == Durability::Disk { "FULL" } else { "OFF" };
        database.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
        let found: u32 = database.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        match found {
            0 => Err(Self::damage(&path, "it is not a journal".to_owned())),
            1..=FORMAT_VERSION => {
                Ok(Self { path, database: Mutex::new(database), lease: None, epoch: 0, recovered: None })
            }
            _ => Err(JournalError::Newer { path, found }),
        }
    }

    fn format_version(&self) -> Result<u32, JournalError> {
        let version = self.database().pragma_query_value(None, "user_version", |row| row.get(0));
        version.map_err(|source| self.failed(source))
    }

    /// Brings a journal of an earlier format to this one.
    fn migrate(&self) -> Result<(), JournalError> {
        if self.format_version()? == 1 {
            let batch = "BEGIN; ALTER TABLE event ADD COLUMN checksum INTEGER; PRAGMA user_version = 2; COMMIT;";
            self.database().execute_batch(batch).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// What opening the journal had to give up, in words: a record that was being written when the power went.
    pub fn recovered(&self) -> Option<&str> {
        self.recovered.as_deref()
    }

    /// Makes every later append fail as on a full or a read-only disk.
    #[cfg(test)]
    pub(crate) fn fill_disk(&self, read_only: bool) {
        let pages: u32 = self.database().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        match read_only {
            true => self.database().pragma_update(None, "query_only", true).unwrap(),
            // The value that is set is returned.
            false => self.database().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap(),
        }
    }

    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_epoch(&self, holder: &Holder) -> Result<u64, JournalError> {
        let holder = serde_json::to_string(holder).map_err(|error| Self::damage(&self.path, error.to_string()))?;
        self.database()
            .query_one(
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
        text.map(|text| serde_json::from_str(&text).map_err(|error| Self::damage(&self.path, error.to_string())))
            .transpose()
    }

    /// Whether a run is active in this directory right now.
    pub fn is_held(directory: &Path) -> bool {
        fs_err::File::open(directory.join("journal.lock"))
            .is_ok_and(|file| matches!(file.file().try_lock_shared(), Err(TryLockError::WouldBlock)))
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
        if verdict == "ok" { Ok(()) } else { Err(Self::damage(&self.path, verdict)) }
    }

    /// Brings everything into the database's own file, so that nothing is lost with its write-ahead log.
    pub fn checkpoint(&self) -> Result<(), JournalError> {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.database().query_row(checkpoint, [], |_| Ok(())).map_err(|source| self.failed(source))
    }

    /// Appends one event; when this returns, it is as durable as was asked for.
    pub fn append(&self, at: OffsetDateTime, event: Event) -> Result<Record, JournalError> {
        let bug = |error: &dyn std::fmt::Display| JournalError::File(std::io::Error::other(error.to_string()));
        let body = serde_json::to_string(&event).map_err(|error| bug(&error))?;
        let when = at.format(&time::format_description::well_known::Rfc3339).map_err(|error| bug(&error))?;
        let checksum = checksum(self.epoch, &when, &body);
        let sequence: Option<u64> = self
            .database()
            .prepare_cached(
                "INSERT INTO event (run, at, body, checksum) SELECT ?1, ?2, ?3, ?4 WHERE (SELECT max(epoch) FROM run) = ?1 RETURNING sequence",
            )
            .and_then(|mut statement| {
                // Stepped to its end: what follows the row is the commit, and on a full disk that is what fails.
                statement.query_one(params![self.epoch, when, body, checksum], |row| row.get(0)).optional()
            })
            .map_err(|source| self.failed(source))?;
        let sequence = sequence.ok_or_else(|| JournalError::LostLease { path: self.path.clone() })?;
        Ok(Record { sequence, run: self.epoch, at, event })
    }

    /// The events after `sequence`, in order.
    pub fn after(&self, sequence: u64) -> Result<Vec<Record>, JournalError> {
        let mut records = Vec::new();
        self.each(sequence, |record| records.push(record))?;
        Ok(records)
    }

    /// What is the case, without keeping every event in memory.
    pub fn state(&self) -> Result<State, JournalError> {
        let mut state = State::default();
        self.each(0, |record| state.apply(&record))?;
        Ok(state)
    }

    fn each(&self, after: u64, mut take: impl FnMut(Record)) -> Result<(), JournalError> {
        let checksum = if self.format_version()? == 1 { "NULL" } else { "checksum" };
        let database = self.database();
        let query =
            format!("SELECT sequence, run, at, body, {checksum} FROM event WHERE sequence > ?1 ORDER BY sequence");
        let mut statement = database.prepare_cached(&query).map_err(|source| self.failed(source))?;
        let mut rows = statement.query(params![after]).map_err(|source| self.failed(source))?;
        let mut expected = after + 1;
        while let Some(row) = rows.next().map_err(|source| self.failed(source))? {
            let record = self.record(row, expected)?;
            expected = record.sequence + 1;
            take(record);
        }
        Ok(())
    }

    fn record(&self, row: &Row<'_>, expected: u64) -> Result<Record, JournalError> {
        let damaged = |reason: &dyn std::fmt::Display| Self::damage(&self.path, format!("record {expected}: {reason}"));
        let text = |column| row.get_ref(column).and_then(|value| Ok(value.as_str()?)).map_err(|error| damaged(&error));
        let number = |column| row.get::<_, u64>(column).map_err(|error| damaged(&error));
        let (sequence, run, at, body) = (number(0)?, number(1)?, text(2)?, text(3)?);
        if sequence != expected {
            return Err(damaged(&format!("it is missing; the next is {sequence}")));
        }
        let recorded: Option<u32> = row.get(4).map_err(|error| damaged(&error))?;
        if recorded.is_some_and(|recorded| recorded != checksum(run, at, body)) {
            return Err(damaged(&"it is not what was written (its checksum is wrong)"));
        }
        let at = OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339);
        let at = at.map_err(|error| damaged(&error))?;
        let event = serde_json::from_str(body).map_err(|error| damaged(&error))?;
        Ok(Record { sequence, run, at, event })
    }

    fn failed(&self, source: rusqlite::Error) -> JournalError {
        match source {
            rusqlite::Error::SqliteFailure(error, _) if is_damage(error.code) => {
                Self::damage(&self.path, source.to_string())
            }
            source => JournalError::Database { path: self.path.clone(), source },
        }
    }

    fn damage(path: &Path, reason: String) -> JournalError {
        JournalError::Damaged { path: path.to_owned(), reason }
    }
}

fn is_damage(code: rusqlite::ErrorCode) -> bool {
    matches!(code, rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
}

/// SQLite's write-ahead log of a database.
fn log_of(path: &Path) -> PathBuf {
    path.with_extension("sqlite-wal")
}

fn checksum(run: u64, at: &str, body: &str) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&run.to_le_bytes());
    checksum.update(at.as_bytes());
    checksum.update(body.as_bytes());
    checksum.finalize()
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

/// Where a file is written until it is whole. Everything that is only begun has such a name, so that whoever is killed
/// leaves nothing unknown.
pub fn draft_of(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// The name of the file whose draft has this name.
pub fn drafted(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(".new")
}

/// Puts a file that is durable itself in the place of another, so that the new name survives a power cut too: a name is
/// an entry of its directory, which has to reach the disk as well (Linux manual, fsync(2)).
pub fn rename_durably(from: &Path, to: &Path) -> Result<(), std::io::Error> {
    fs_err::rename(from, to)?;
    #[cfg(unix)]
    if let Some(directory) = to.parent() {
        fs_err::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Whether an open file is still the one that its path names.
fn is_at(file: &File, path: &Path) -> Result<bool, std::io::Error> {
    use std::os::unix::fs::MetadataExt as _;
    let opened = file.metadata()?;
    match fs_err::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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
mod tests;
