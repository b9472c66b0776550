//! Sizes, lints, and documents that say what is the case.

use crate::source::{Findings, Source, broken, expect_none, files, root, sources, words};

/// The most lines that a file of production code may have.
const MOST_LINES: usize = 600;
/// Flat lists that may be longer, with the reason.
const FLAT_LISTS: &[(&str, &str)] = &[];
/// The most lines of ARCHITECTURE.md.
const MOST_LINES_OF_ARCHITECTURE: usize = 300;

/// Files with more production code than a reader can keep in mind.
pub(crate) fn is_too_long(source: &Source) -> Findings {
    let code = source.code.lines();
    let all = source.text.lines().count();
    // Lines of tests are blank in the code, and not in the text.
    let tests = code.zip(source.text.lines()).filter(|(code, text)| code.trim().is_empty() && !text.trim().is_empty());
    let lines = all - tests.count();
    if !source.is_test && lines > MOST_LINES { vec![(0, format!("{lines} lines"))] } else { Vec::new() }
}

#[test]
fn no_file_is_too_long() {
    expect_none(&broken(&sources(), FLAT_LISTS, is_too_long));
}

/// What is left to do.
pub(crate) fn is_unfinished(source: &Source) -> Findings {
    words(&source.with_tests, &["todo!", "unimplemented!", "dbg!"])
}

#[test]
fn nothing_is_unfinished() {
    expect_none(&broken(&sources(), &[], is_unfinished));
}

#[test]
fn every_file_says_what_it_owns() {
    let silent = |source: &Source| {
        let text = fs_err::read_to_string(root().join(&source.path)).unwrap_or_default();
        if text.starts_with("//!") {
            Vec::new()
        } else {
            vec![(0, "does not begin with what it owns (`//!`)".to_owned())]
        }
    };
    expect_none(&broken(&sources(), &[], silent));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let manifests = files("crates").into_iter().chain(files("xtask")).filter(|path| path.ends_with("Cargo.toml"));
    let mut count = 0;
    for manifest in manifests {
        let text = fs_err::read_to_string(&manifest).expect("a manifest");
        assert!(text.contains("[lints]\nworkspace = true\n"), "{}", manifest.display());
        count += 1;
    }
    assert!(count >= 7, "{count} crates");
}

#[test]
fn no_file_names_a_directory_of_this_machine() {
    let here = format!("{}/", root().display());
    for file in files("") {
        // A repository that is very near the root of the file system has a path like any other word.
        let is_telling = here.matches('/').count() > 2;
        let text = fs_err::read(&file).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        assert!(!is_telling || !text.contains(&here), "{} names {here}", file.display());
    }
}

fn document(name: &str) -> String {
    fs_err::read_to_string(root().join(name)).expect("a document")
}

#[test]
fn documents_are_there_and_short() {
    let readme = document("README.md");
    for command in ["cargo run --release -- rehearse --config examples/production.yaml\n", "cargo xtask test\n"] {
        assert!(readme.contains(command), "README.md does not show `{}`", command.trim());
    }
    let lines = document("ARCHITECTURE.md").lines().count();
    assert!(lines <= MOST_LINES_OF_ARCHITECTURE, "ARCHITECTURE.md has {lines} lines");
    assert!(document("LICENSE").contains("Apache License"));
    assert!(document("CHANGELOG.md").contains("## [Unreleased]"));
    assert!(document(".ci/run").contains("cargo xtask test\n"));
}

#[test]
fn the_architecture_names_every_crate_and_every_main_file() {
    let text = document("ARCHITECTURE.md");
    for manifest in files("crates").iter().filter(|path| path.ends_with("Cargo.toml")) {
        let name = manifest.parent().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
        assert!(text.contains(&format!("`{name}`")), "ARCHITECTURE.md does not name {name}");
    }
    // Paths between backquotes that look like files of the project are files of the project.
    let named =
        text.split('`').skip(1).step_by(2).filter(|word| word.starts_with("crates/") || word.starts_with("docs/"));
    for path in named {
        assert!(root().join(path).exists(), "ARCHITECTURE.md names {path}, which is not there");
    }
}

#[test]
fn the_reference_is_complete() {
    let text = document("docs/reference.md");
    let source = |path: &str| sources().into_iter().find(|source| source.path == path).expect("a source");
    let settings = source("crates/k0rdentctl/src/settings.rs");
    let others = sources().into_iter().filter(|source| source.path.starts_with("crates/k0rdentctl/src/"));
    for read in others.chain([settings]) {
        for (place, call) in read.literals.match_indices("variable(\"") {
            let name = read.literals[place + call.len()..].split('"').next().unwrap_or_default();
            assert!(text.contains(&format!("`{name}`")), "docs/reference.md does not explain {name}");
        }
    }
    let faults = source("crates/twin/src/faults.rs");
    let start = faults.code.find("pub enum FaultKind {").expect("the faults");
    let length = faults.code[start..].find("\n}").expect("their end");
    for name in faults.code[start..start + length].lines().skip(1).map(|line| line.trim().trim_end_matches(',')) {
        let words = name.char_indices().map(|(place, letter)| match letter {
            letter if letter.is_uppercase() && place > 0 => format!("-{}", letter.to_ascii_lowercase()),
            letter => letter.to_ascii_lowercase().to_string(),
        });
        let name: String = words.collect();
        assert!(name.is_empty() || text.contains(&format!("`{name}`")), "docs/reference.md does not explain {name}");
    }
}
