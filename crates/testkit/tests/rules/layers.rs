//! Rule 1: the twin knows nobody, the engine knows nobody, the product does not know the twin; only the program itself
//! reads the environment or prints.

use crate::source::{Findings, SHIPPED, Source, broken, expect_none, root, sources_of, words};

/// Which of our crates each crate may depend on, to be built and to be tested.
const MAY_DEPEND_ON: &[(&str, &[&str], &[&str])] = &[
    ("engine", &[], &[]),
    ("twin", &[], &[]),
    ("deploy", &["engine"], &[]),
    ("rehearsal", &["deploy", "engine", "twin"], &["testkit"]),
    ("k0rdentctl", &["deploy", "engine", "rehearsal", "twin"], &["testkit"]),
    ("testkit", &["deploy", "engine", "rehearsal", "twin"], &["rehearsal"]),
    ("xtask", &[], &[]),
];

/// What the engine and the product have no business with.
const FOREIGN: &[(&str, &[&str])] = &[
    ("engine", &["axum", "clap", "hyper", "indicatif", "kube", "k8s-openapi", "russh", "rustls", "reqwest"]),
    ("deploy", &["clap", "indicatif", "terminal_size", "anstyle"]),
];

#[test]
fn crates_depend_only_on_those_below() {
    let mut command = metadata();
    let output =
        command.args(["metadata", "--no-deps", "--offline", "--format-version=1"]).current_dir(root()).output();
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.expect("cargo").stdout).expect("cargo's description of the workspace");
    let mut broken = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, built_with, tested_with)) = MAY_DEPEND_ON.iter().find(|(known, ..)| *known == name) else {
            broken.push(format!("{name}: a new crate needs a place among the layers"));
            continue;
        };
        let foreign = FOREIGN.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, foreign)| *foreign);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            let is_ours = MAY_DEPEND_ON.iter().any(|(known, ..)| *known == other);
            let may = built_with.contains(&other) || dependency["kind"] == "dev" && tested_with.contains(&other);
            if (is_ours && !may) || foreign.contains(&other) {
                broken.push(format!("{name} depends on {other}"));
            }
        }
    }
    expect_none(&broken);
}

#[expect(clippy::disallowed_methods, reason = "nobody but cargo knows what depends on what")]
fn metadata() -> std::process::Command {
    std::process::Command::new(option_env!("CARGO").unwrap_or("cargo"))
}

/// `env` as the name of a module: neither a method, nor a field, nor the macro that asks at build time.
pub(crate) fn reads_environment(source: &Source) -> Findings {
    let mut found = words(&source.code, &["env"]);
    found.retain(|(place, word)| {
        let (before, after) = (&source.code[..*place], &source.code[place + word.len()..]);
        let is_other = before.ends_with('.') || after.starts_with(['!', '(', ':']);
        after.starts_with("::") || !is_other
    });
    found
}

/// Macros that print, and the streams themselves.
pub(crate) fn prints(source: &Source) -> Findings {
    words(&source.code, &["println!", "eprintln!", "print!", "eprint!", "dbg!", "io::stdout", "io::stderr"])
}

#[test]
fn only_the_program_reads_the_environment_or_prints() {
    let sources = sources_of(SHIPPED);
    let exceptions = [("crates/k0rdentctl/src/settings.rs", "the one reader of the environment")];
    expect_none(&broken(&sources, &exceptions, reads_environment));
    let exceptions = [
        ("crates/k0rdentctl/src/printer.rs", "the one that prints"),
        ("crates/k0rdentctl/src/settings.rs", "whether there is a terminal"),
        ("crates/k0rdentctl/src/commands/mod.rs", "clap prints its help and errors itself"),
    ];
    expect_none(&broken(&sources, &exceptions, prints));
}
