//! The journal on a disk that is really full: what an append has promised is there, wherever the room ends.
//!
//! A test binary of its own: a process that is about to start shares the locks of the one that starts it, for a moment.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use engine::{Event, Holder, Journal, StepId, journal::Durability};
use time::OffsetDateTime;

/// Names the directory in which this test, started again as a process of its own, is to write.
const CHILD: &str = "ENGINE_TEST_FULL_DISK";
/// How many events the child tries to append.
const APPENDS: u64 = 8;
/// More room than it needs, in blocks of 512 bytes.
const ENOUGH_BLOCKS: u32 = 400;

/// Appends, and says on its standard output which appends were promised to be durable.
#[expect(clippy::print_stdout, reason = "the pipe to the parent has no limit, files have")]
fn append_until_full(directory: &Path) {
    let since = OffsetDateTime::UNIX_EPOCH;
    let holder = Holder { user: "ada".into(), host: "desk".into(), pid: 7, command: "deploy".into(), since };
    let Ok(journal) = Journal::open_to_write(directory, &holder, Durability::Disk) else { return };
    for number in 1..=APPENDS {
        let event = Event::Noted { step: StepId::new("a"), text: format!("{number} ").repeat(700) };
        let Ok(record) = journal.append(OffsetDateTime::UNIX_EPOCH, event) else { return };
        println!("promised {}", record.sequence);
    }
}

/// Runs this test again, as a process whose files may grow to so many blocks of 512 bytes. The signal that would end it
/// is ignored, so that it gets an error, as on a full disk.
#[expect(clippy::disallowed_methods, reason = "only a process of its own can have a limit of its own")]
fn promised_with_room_for(blocks: u32, directory: &Path) -> u64 {
    let this = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" --exact --nocapture \"$1\"")])
        .arg(this)
        .arg("what_an_append_has_promised_is_there_wherever_the_disk_ends")
        .env(CHILD, directory)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().filter(|line| line.contains("promised ")).count() as u64
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the child learns from its parent where to write")]
fn what_an_append_has_promised_is_there_wherever_the_disk_ends() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return append_until_full(Path::new(&directory));
    }
    let (mut most, mut cut_short) = (0, 0);
    for blocks in (0..ENOUGH_BLOCKS).step_by(4) {
        let directory = tempfile::tempdir().unwrap();
        let promised = promised_with_room_for(blocks, directory.path());
        // What is there is read with room again. Without a journal nothing can have been promised.
        let journal = Journal::file(directory.path()).exists().then(|| Journal::open_to_read(directory.path()));
        let there = match journal {
            Some(journal) => journal.unwrap().unwrap().after(0).unwrap().len() as u64,
            None => 0,
        };
        assert!(promised <= there, "room for {blocks} blocks: {promised} appends were promised, and {there} are there");
        cut_short += u64::from(promised > 0 && promised < APPENDS);
        most = most.max(promised);
    }
    assert_eq!(most, APPENDS, "the last ones had enough room");
    assert!(cut_short > 5, "the room ended between two appends {cut_short} times only");
}
