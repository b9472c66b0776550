//! Rule 2: the world is met in few places. Only the seam opens sockets, only the journal and the environment's directory
//! write files; who plans or renders does neither. And time and tasks follow a clock that tests can turn.

use crate::source::{Findings, SHIPPED, Source, broken, expect_none, sources, sources_of, words};

/// Sockets.
pub(crate) fn opens_sockets(source: &Source) -> Findings {
    words(&source.code, &["TcpStream", "TcpListener", "TcpSocket", "UdpSocket", "UnixStream", "UnixListener"])
}

#[test]
fn only_the_seam_opens_sockets() {
    let exceptions = [
        ("crates/deploy/src/seam.rs", "the seam"),
        ("crates/twin/src/serve.rs", "the world over TCP"),
        ("crates/k0rdentctl/src/commands/exec.rs", "a local port that leads into the cluster"),
    ];
    expect_none(&broken(&sources_of(SHIPPED), &exceptions, opens_sockets));
}

/// What changes the file system, on a line that speaks of files, and temporary files.
pub(crate) fn writes_files(source: &Source) -> Findings {
    const WRITES: &[&str] = &[
        "write",
        "create",
        "create_dir",
        "create_dir_all",
        "remove_file",
        "remove_dir",
        "remove_dir_all",
        "rename",
        "copy",
        "hard_link",
        "symlink",
        "set_permissions",
        "OpenOptions",
        "DirBuilder",
    ];
    let mut found = words(&source.code, &["tokio::fs", "tempfile::tempdir", "tempfile::tempfile", "tempfile::Builder"]);
    for (place, module) in words(&source.code, &["std::fs", "fs_err"]) {
        let line = source.code[place..].lines().next().unwrap_or_default();
        found.extend(words(line, WRITES).into_iter().map(|(_, word)| (place, format!("{module} {word}"))));
    }
    found
}

#[test]
fn only_the_journal_and_the_environment_write_files() {
    let exceptions = [
        ("crates/engine/src/journal.rs", "the journal"),
        ("crates/deploy/src/environment.rs", "the environment's directory"),
        ("crates/twin/src/serve.rs", "its addresses and its certificate"),
        ("crates/k0rdentctl/src/commands/exec.rs", "a kubeconfig for as long as a program runs"),
        ("crates/k0rdentctl/src/rehearse.rs", "an environment for as long as a rehearsal runs"),
    ];
    expect_none(&broken(&sources_of(SHIPPED), &exceptions, writes_files));
}

/// Anything but thinking.
pub(crate) fn does_more_than_think(source: &Source) -> Findings {
    words(
        &source.code,
        &["async", "await", "tokio", "fs_err", "std::fs", "dyn Network", "Clock", "utc", "pause", "Mutex"],
    )
}

#[test]
fn who_plans_or_renders_is_pure() {
    const PURE: &[&str] = &[
        "crates/engine/src/plan.rs",
        "crates/engine/src/state.rs",
        "crates/deploy/src/azure/resources.rs",
        "crates/deploy/src/cloud_init.rs",
        "crates/deploy/src/config/",
        "crates/deploy/src/k0s.rs",
        "crates/deploy/src/kubeconfig.rs",
        "crates/deploy/src/mesh.rs",
        "crates/deploy/src/plan.rs",
        "crates/deploy/src/recipe/",
        "crates/deploy/src/task.rs",
        "crates/deploy/src/topology.rs",
        "crates/deploy/src/views.rs",
    ];
    let mut sources = sources();
    for path in PURE {
        assert!(sources.iter().any(|source| source.path.starts_with(path)), "{path} is not there any more");
    }
    sources.retain(|source| PURE.iter().any(|path| source.path.starts_with(path)));
    expect_none(&broken(&sources, &[], does_more_than_think));
}

/// Pauses that are not the engine's own: `sleep(...)` as a function, timers, and what stops the thread.
pub(crate) fn sleeps(source: &Source) -> Findings {
    let mut found = words(&source.code, &["sleep", "sleep_until", "interval", "interval_at"]);
    found.retain(|(place, word)| {
        let (before, after) = (source.code[..*place].trim_end(), &source.code[place + word.len()..]);
        // The twin's own `Twin::sleep` is a method; its definition is in the list of exceptions.
        let is_method = before.ends_with('.') || before.ends_with(" fn");
        after.starts_with('(') && !is_method
    });
    found
}

#[test]
fn nobody_sleeps_but_the_clock() {
    let exceptions = [
        ("crates/engine/src/clock.rs", "the pause between two looks"),
        ("crates/engine/src/runner.rs", "the deadline of steps that settle after a stop"),
        ("crates/twin/src/world.rs", "Twin::sleep, in world time"),
        ("crates/twin/src/serve.rs", "sockets are looked at in real time"),
        ("crates/k0rdentctl/src/rehearse.rs", "slows a rehearsal down for people who watch"),
    ];
    expect_none(&broken(&sources_of(SHIPPED), &exceptions, sleeps));
}

/// Choices that the runtime makes by chance: a `select!` or `join!` of tokio that does not say `biased`.
pub(crate) fn chooses_by_chance(source: &Source) -> Findings {
    let mut found = words(&source.with_tests, &["tokio::select!", "tokio::join!", "tokio::try_join!"]);
    found.retain(|(place, word)| {
        let arguments =
            source.with_tests[place + word.len()..].trim_start().trim_start_matches(['{', '(']).trim_start();
        word == "tokio::select!" && !arguments.starts_with("biased;")
    });
    found
}

#[test]
fn every_select_has_an_order() {
    expect_none(&broken(&sources(), &[], chooses_by_chance));
}

/// Tasks that would outlive the run that started them, and threads.
pub(crate) fn outlives(source: &Source) -> Findings {
    words(&source.code, &["tokio::spawn", "task::spawn", "spawn_blocking", "thread::spawn", "spawn_local"])
}

#[test]
fn nothing_outlives_a_run() {
    // A `JoinSet` that the run owns is fine. The twin is a world, not a run: its inhabitants live on.
    expect_none(&broken(&sources_of(&["engine", "deploy"]), &[], outlives));
}

/// Tests that wait for real time.
pub(crate) fn waits_for_real_time(source: &Source) -> Findings {
    let mut found = words(&source.with_tests, &["#[tokio::test"]);
    found.retain(|(place, word)| !source.with_tests[place + word.len()..].starts_with("(start_paused = true)]"));
    found.extend(if source.is_test { words(&source.with_tests, &["thread::sleep"]) } else { Vec::new() });
    found
}

#[test]
fn no_test_waits_for_real_time() {
    // The tests of the command line talk to another process, which has a clock of its own.
    expect_none(&broken(&sources_of(&["engine", "deploy", "twin", "rehearsal", "testkit"]), &[], waits_for_real_time));
}
