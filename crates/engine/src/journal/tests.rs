//! The journal: what is written is read, in any state that a power cut or damage leaves its files in.

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
    insta::assert_snapshot!(refused, @"another run is active: `deploy` by ada@desk (process 7) since 1970-01-01 00:00:00 UTC");
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

/// A journal whose run is still alive: the records that it wrote, with its files as a power cut would leave them.
fn cut_off(directory: &Path, count: usize) -> (Vec<Record>, Journal) {
    let journal = Journal::open_to_write(directory, &holder("deploy"), Durability::Disk).unwrap();
    let append = |number| journal.append(OffsetDateTime::UNIX_EPOCH, note(&format!("event {number}"))).unwrap();
    ((0..count).map(append).collect(), journal)
}

/// Copies the journal's files, with the write-ahead log as `change` makes it.
fn copy(from: &Path, change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let mut log = fs_err::read(log_of(&Journal::file(from))).unwrap();
    change(&mut log);
    fs_err::copy(Journal::file(from), Journal::file(to.path())).unwrap();
    fs_err::write(log_of(&Journal::file(to.path())), log).unwrap();
    to
}

#[test]
fn after_a_power_cut_the_journal_begins_with_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let (written, journal) = cut_off(directory.path(), 12);
    let length = fs_err::metadata(log_of(&journal.path)).unwrap().len() as usize;
    let mut most = 0;
    for end in (0..=length).step_by(1013).chain([length]) {
        let copy = copy(directory.path(), |log| log.truncate(end));
        let read = Journal::open_to_read(copy.path()).unwrap().unwrap();
        let (records, torn) = (read.after(0).unwrap(), read.recovered().is_some());
        drop(read);
        assert_eq!(records, written[..records.len()], "cut at {end}");
        assert!(records.len() >= most, "cut at {end}");
        most = records.len();
        // Who only looks takes nothing away from the next run, which says what was dropped and goes on.
        let next = Journal::open_to_write(copy.path(), &holder("deploy"), Durability::Disk).unwrap();
        assert_eq!(next.recovered().is_some(), torn, "cut at {end}");
        let record = next.append(OffsetDateTime::UNIX_EPOCH, note("on")).unwrap();
        assert_eq!(record.sequence as usize, records.len() + 1);
    }
    assert_eq!(most, written.len());
}

#[test]
fn a_torn_record_is_dropped_with_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let (_, _alive) = cut_off(directory.path(), 3);
    let copy = copy(directory.path(), |log| log.truncate(log.len() - 100));
    let journal = Journal::open_to_write(copy.path(), &holder("deploy"), Durability::Disk).unwrap();
    let message = journal.recovered().unwrap().replace(&copy.path().display().to_string(), "HOME");
    insta::assert_snapshot!(message, @"the last record was not written to its end and is dropped (4020 bytes at offset 12392 of HOME/journal.sqlite-wal)");
    assert_eq!(journal.after(0).unwrap().len(), 2);
}

#[test]
fn damage_in_the_middle_of_the_log_stops_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (_, _alive) = cut_off(directory.path(), 5);
    let copy = copy(directory.path(), |log| {
        let middle = log.len() / 2;
        log[middle] ^= 1;
    });
    let Err(error) = Journal::open_to_write(copy.path(), &holder("deploy"), Durability::Disk) else {
        panic!("damage was not seen")
    };
    insta::assert_snapshot!(error.to_string().replace(&copy.path().display().to_string(), "HOME"), @"HOME/journal.sqlite-wal: it is damaged at offset 8272, in front of other records; nothing was changed");
    assert!(matches!(Journal::open_to_read(copy.path()), Err(JournalError::Damaged { .. })));
}

#[test]
fn a_changed_letter_in_a_record_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    drop(cut_off(directory.path(), 5));
    let mut bytes = fs_err::read(Journal::file(directory.path())).unwrap();
    let place = bytes.windows(7).position(|window| window == b"event 3").unwrap();
    bytes[place + 6] = b'8';
    fs_err::write(Journal::file(directory.path()), bytes).unwrap();
    let journal = Journal::open_to_read(directory.path()).unwrap().unwrap();
    let error = journal.after(0).unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&directory.path().display().to_string(), "HOME"), @"HOME/journal.sqlite: record 4: it is not what was written (its checksum is wrong); nothing was changed");
    assert!(journal.state().is_err());
}

#[test]
fn what_is_no_journal_is_not_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    drop(cut_off(directory.path(), 50));
    let file = Journal::file(directory.path());
    let whole = fs_err::read(&file).unwrap();
    let half = &whole[..whole.len() / 2];
    for content in [&b""[..], b"not a database, but long enough to be one", half] {
        fs_err::write(&file, content).unwrap();
        let read = Journal::open_to_read(directory.path())
            .and_then(|journal| journal.map(|journal| journal.after(0)).transpose());
        assert!(matches!(read, Err(JournalError::Damaged { .. })), "{read:?}");
        assert_eq!(fs_err::read(&file).unwrap(), content);
    }
}

#[test]
fn a_journal_of_format_1_is_read_and_continued() {
    let directory = tempfile::tempdir().unwrap();
    let database = Connection::open(Journal::file(directory.path())).unwrap();
    database
        .execute_batch(
            "CREATE TABLE event (
                sequence INTEGER PRIMARY KEY, run INTEGER NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL);
             CREATE TABLE run (epoch INTEGER PRIMARY KEY, holder TEXT NOT NULL);
             INSERT INTO event VALUES (1, 1, '1970-01-01T00:00:00Z', '{\"event\":\"noted\",\"step\":\"a\",\"text\":\"old\"}');
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(database);
    let read = |journal: &Journal| {
        let records = journal.after(0).unwrap();
        records.into_iter().map(|record| record.event).collect::<Vec<_>>()
    };
    assert_eq!(read(&Journal::open_to_read(directory.path()).unwrap().unwrap()), [note("old")]);
    let journal = Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Disk).unwrap();
    journal.append(OffsetDateTime::UNIX_EPOCH, note("new")).unwrap();
    assert_eq!(read(&journal), [note("old"), note("new")]);
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

#[test]
fn who_only_looks_whether_a_run_is_active_keeps_no_run_out() {
    let directory = tempfile::tempdir().unwrap();
    drop(Journal::open_to_write(directory.path(), &holder("deploy"), Durability::Process).unwrap());
    let glance = fs_err::File::open(directory.path().join("journal.lock")).unwrap();
    glance.file().try_lock_shared().unwrap();
    std::thread::scope(|scope| {
        let (began, has_begun) = std::sync::mpsc::channel();
        let directory = directory.path();
        let run = scope.spawn(move || {
            began.send(()).unwrap();
            Journal::open_to_write(directory, &holder("deploy"), Durability::Process).map(|run| run.epoch())
        });
        has_begun.recv().unwrap();
        drop(glance);
        assert_eq!(run.join().unwrap().unwrap(), 2);
    });
}

#[test]
fn a_run_that_has_not_said_yet_whose_it_is_is_not_taken_for_the_one_that_asks() {
    let directory = tempfile::tempdir().unwrap();
    let lock = fs_err::File::create(directory.path().join("journal.lock")).unwrap();
    lock.file().try_lock().unwrap();
    let refused = Journal::check_free(directory.path()).unwrap_err();
    insta::assert_snapshot!(refused, @"another run is active, and has not said yet whose it is");
}
