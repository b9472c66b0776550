//! `cargo xtask twin-docs`: where the twin's behaviour comes from, as its doc comments say, in `docs/twin.md`.
//!
//! A source stands in parentheses at the end of what it is the source of: who has documented it, whose source it is, with which
//! client it was observed; or that it is a guess.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fs_err as fs;
use regex::Regex;

use crate::azure_clients::root;

/// The twin's sources, in the workspace.
const SOURCES: &str = "crates/twin/src";
/// The table, in the workspace.
const TABLE: &str = "docs/twin.md";
/// What is said about the table before it begins.
const INTRODUCTION: &str = "# Where the twin's behaviour comes from

Made by `cargo xtask twin-docs` from the comments of `crates/twin/src`; a test compares. *Seen* are samples from public logs, *observed* is
what a real client or a real system was seen to do. A guess has no better source than experience: whoever knows better is welcome.
";

/// A behaviour with its source.
#[derive(Debug, PartialEq)]
struct Row {
    item: String,
    behaviour: String,
    source: String,
}

/// Writes the table.
pub(crate) fn write() -> Result<bool, String> {
    fs::write(root()?.join(TABLE), table()?).map_err(|error| error.to_string())?;
    Ok(true)
}

/// The table as the sources have it now.
fn table() -> Result<String, String> {
    let directory = root()?.join(SOURCES);
    let mut files = BTreeMap::new();
    collect(&directory, &directory, &mut files)?;
    let rows: BTreeMap<String, Vec<Row>> = files.into_iter().map(|(name, text)| (name, rows(&text))).collect();
    let all = || rows.values().flatten();
    let guesses = all().filter(|row| row.source.contains("guess")).count();
    let mut text = format!("{INTRODUCTION}\n{} behaviours, {guesses} of them guesses.\n", all().count());
    for (file, rows) in rows.iter().filter(|(_, rows)| !rows.is_empty()) {
        text += &format!("\n## `{file}`\n\n| what | behaviour | source |\n|---|---|---|\n");
        for Row { item, behaviour, source } in rows {
            text += &format!("| {item} | {} | {} |\n", behaviour.replace('|', "\\|"), source.replace('|', "\\|"));
        }
    }
    Ok(text)
}

/// Every source file below a directory that is not a test, by its path.
fn collect(base: &Path, directory: &Path, files: &mut BTreeMap<String, String>) -> Result<(), String> {
    let entries = fs::read_dir(directory).map_err(|error| error.to_string())?;
    for entry in entries {
        let path: PathBuf = entry.map_err(|error| error.to_string())?.path();
        let name = path.strip_prefix(base).unwrap_or(&path).display().to_string();
        if name.contains("tests") {
            continue;
        }
        if path.is_dir() {
            collect(base, &path, files)?;
        } else if name.ends_with(".rs") {
            files.insert(name, fs::read_to_string(&path).map_err(|error| error.to_string())?);
        }
    }
    Ok(())
}

/// The behaviours that a file's comments give a source for.
fn rows(text: &str) -> Vec<Row> {
    let source = Regex::new(
        r"\s*\(([^()]*\b(?:documentation|source|specification|observed|seen|guess|RFC \d+)\b[^()]*(?:\([^()]*\)[^()]*)*)\)",
    );
    let source = source.unwrap_or_else(|error| unreachable!("a good pattern: {error}"));
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut lines = code.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some(mut comment) = said(line) else { continue };
        while let Some(more) = lines.peek().and_then(|line| said(line)) {
            comment = format!("{comment} {more}");
            lines.next();
        }
        let item = lines.clone().find(|line| !line.starts_with('#')).map(item).unwrap_or_default();
        for found_source in source.captures_iter(&comment) {
            let (Some(whole), Some(source)) = (found_source.get(0), found_source.get(1)) else { continue };
            let before = &comment[..whole.start()];
            let start = [". ", ": ", "; "].iter().filter_map(|end| before.rfind(end)).max().map_or(0, |end| end + 2);
            let after = &comment[whole.end()..];
            let rest = after.find(['.', ';']).map_or(after, |end| &after[..end]);
            let behaviour = format!("{}{rest}", &before[start..]);
            let row =
                Row { item: item.clone(), behaviour: behaviour.trim().to_owned(), source: source.as_str().to_owned() };
            found.push(row);
        }
    }
    found
}

/// What a comment says; nothing if the line is none.
fn said(line: &str) -> Option<String> {
    let text = ["///", "//!", "//"].iter().find_map(|mark| line.strip_prefix(mark))?;
    Some(text.trim().to_owned())
}

/// The name of what a line declares, as code; nothing if it declares nothing.
fn item(line: &str) -> String {
    let words: Vec<&str> =
        line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let kinds = ["fn", "struct", "enum", "const", "static", "type", "trait", "mod"];
    let declared = words.windows(2).find(|pair| kinds.contains(&pair[0]) && pair[1] != "fn").map(|pair| &pair[1]);
    let is_variant = || line.ends_with(',') && words.len() == 1;
    match declared.or_else(|| words.first().filter(|_| is_variant())) {
        Some(name) => format!("`{name}`"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_found_with_what_they_are_sources_of() {
        let text = "/// Answers late. It is a lie (k0s source, `Foo`); and so on. More\n/// or less (guess).\n#[derive(Debug)]\npub const fn answer() {\n    // A (thing) (RFC 1918).\n    let x = 1;\n}\n";
        let row = |item: &str, behaviour: &str, source: &str| Row {
            item: item.to_owned(),
            behaviour: behaviour.to_owned(),
            source: source.to_owned(),
        };
        assert_eq!(
            rows(text),
            [
                row("`answer`", "It is a lie", "k0s source, `Foo`"),
                row("`answer`", "More or less", "guess"),
                row("", "A (thing)", "RFC 1918"),
            ]
        );
    }

    #[test]
    fn the_table_is_as_the_sources_have_it() {
        let written = fs::read_to_string(root().unwrap().join(TABLE)).unwrap();
        assert!(written == table().unwrap(), "{TABLE} is old: run `cargo xtask twin-docs`");
    }

    #[test]
    fn every_latency_and_every_fault_has_a_source() {
        for file in ["latency.rs", "faults.rs"] {
            let text = fs::read_to_string(root().unwrap().join(SOURCES).join(file)).unwrap();
            let (_, variants) = text.split_once("pub enum ").unwrap();
            let variants = variants.split("\n}").next().unwrap();
            let names = variants.lines().skip(1).map(item).filter(|name| !name.is_empty());
            let known: Vec<String> = rows(variants).into_iter().map(|row| row.item).collect();
            let unknown: Vec<String> = names.filter(|name| !known.contains(name)).collect();
            assert_eq!(unknown, [] as [String; 0], "{file}");
        }
    }
}
