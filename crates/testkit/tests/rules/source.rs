//! The sources of the project, with comments, text literals and tests made blank where a rule does not care for them.
//!
//! This is no parser: it knows comments, literals, brackets and the word `fn`, which is enough for the rules.

use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
};

/// One Rust file. All texts have the same length, so that a place in one is the same place in the others.
pub(crate) struct Source {
    /// From the root of the repository: `crates/deploy/src/plan.rs`.
    pub(crate) path: String,
    /// Without comments.
    pub(crate) text: String,
    /// Without comments, tests and the content of text literals.
    pub(crate) code: String,
    /// Without comments and tests, but with literals.
    pub(crate) literals: String,
    /// Without comments and the content of text literals, but with tests.
    pub(crate) with_tests: String,
    /// Whether the whole file is tests, or an example for developers.
    pub(crate) is_test: bool,
    /// The functions outside of tests, in order.
    pub(crate) functions: Vec<Function>,
    test_modules: Vec<String>,
}

/// A function with a body.
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// From the word `fn` to the body.
    pub(crate) signature: Range<usize>,
    /// From brace to brace.
    pub(crate) body: Range<usize>,
}

/// The crates that become the program.
pub(crate) const SHIPPED: &[&str] = &["engine", "deploy", "twin", "rehearsal", "k0rdentctl"];

/// The root of the repository, as cargo says now: a target directory that several clones share may hold a test that was
/// built in another one.
#[expect(clippy::disallowed_methods, reason = "cargo tells tests where they are")]
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = Path::new(&here);
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Every file below a directory of the repository, in order, without what cargo and git keep.
pub(crate) fn files(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs_err::read_dir(&directory).expect("a directory of the repository") {
            let path = entry.expect("an entry of the repository").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match path.is_dir() {
                true if [".git", ".k0rdent", "target"].contains(&name.as_str()) => {}
                true => open.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

/// All Rust files of the project.
pub(crate) fn sources() -> Vec<Source> {
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned();
        Source::new(&name, &fs_err::read_to_string(path).expect("a source file"))
    };
    let paths = files("crates").into_iter().chain(files("xtask"));
    let rust: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect();
    let mut sources: Vec<Source> = rust.iter().map(read).collect();
    let modules: BTreeSet<String> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let of_tests = modules.iter().any(|module| stem == module || stem.starts_with(&format!("{module}/")));
        if of_tests || ["tests", "examples", "benches"].contains(&source.path.split('/').nth(2).unwrap_or_default()) {
            source.is_test = true;
            source.code = blank(&source.code, std::slice::from_ref(&(0..source.code.len())));
            source.literals.clone_from(&source.code);
            source.functions.clear();
        }
    }
    sources
}

/// The sources of these crates.
pub(crate) fn sources_of(crates: &[&str]) -> Vec<Source> {
    let belongs = |source: &Source| source.path.split('/').nth(1).is_some_and(|name| crates.contains(&name));
    sources().into_iter().filter(belongs).collect()
}

impl Source {
    /// Reads one file.
    pub(crate) fn new(path: &str, raw: &str) -> Self {
        let (comments, contents) = comments_and_contents(raw);
        let text = blank(raw, &comments);
        let with_tests = blank(&text, &contents);
        let (tests, test_modules) = tests(path, &text, &with_tests);
        let code = blank(&with_tests, &tests);
        let functions = functions(&code);
        let literals = blank(&text, &tests);
        Self { path: path.to_owned(), text, code, literals, with_tests, is_test: false, functions, test_modules }
    }

    /// The innermost function around a place.
    pub(crate) fn function_at(&self, place: usize) -> Option<&Function> {
        self.functions.iter().rfind(|function| function.body.contains(&place))
    }

    /// The number of the line of a place.
    pub(crate) fn line(&self, place: usize) -> usize {
        self.text[..place].matches('\n').count() + 1
    }
}

/// Where a rule is broken in a source, and how.
pub(crate) type Findings = Vec<(usize, String)>;

/// What breaks a rule, as `path:line: what`. An exception is the beginning of a path, with its reason; one that nobody
/// needs any more is reported too.
pub(crate) fn broken(
    sources: &[Source],
    exceptions: &[(&str, &str)],
    find: impl Fn(&Source) -> Findings,
) -> Vec<String> {
    let mut unneeded: BTreeSet<&str> = exceptions.iter().map(|(path, _)| *path).collect();
    let mut broken = Vec::new();
    for source in sources {
        for (place, what) in find(source) {
            match exceptions.iter().find(|(path, _)| source.path.starts_with(path)) {
                Some((path, _)) => {
                    unneeded.remove(path);
                }
                None => broken.push(format!("{}:{}: {what}", source.path, source.line(place))),
            }
        }
    }
    broken.extend(unneeded.into_iter().map(|path| format!("{path}: needs no exception any more")));
    broken
}

/// Fails with everything that breaks a rule.
pub(crate) fn expect_none(broken: &[String]) {
    assert!(broken.is_empty(), "{} times:\n{}", broken.len(), broken.join("\n"));
}

/// Where the words occur in a text, as words: `fs` is not in `fs_err`.
pub(crate) fn words(text: &str, words: &[&str]) -> Findings {
    let mut found: Findings = Vec::new();
    for word in words {
        for (place, _) in text.match_indices(word) {
            let (before, after) = (text[..place].chars().next_back(), text[place + word.len()..].chars().next());
            let joins = |end: Option<char>, next: Option<char>| end.is_some_and(is_word) && next.is_some_and(is_word);
            if !joins(word.chars().next(), before) && !joins(word.chars().next_back(), after) {
                found.push((place, (*word).to_owned()));
            }
        }
    }
    found.sort();
    found
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The text with these parts made blank; lines stay where they are.
fn blank(text: &str, parts: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for part in parts {
        bytes[part.clone()].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    String::from_utf8(bytes).expect("whole characters were made blank")
}

/// Where the comments are, and where the content of text literals is.
fn comments_and_contents(text: &str) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let (mut comments, mut contents) = (Vec::new(), Vec::new());
    let mut place = 0;
    while place < text.len() {
        let rest = &text[place..];
        let raw = raw_opening(text, place);
        if rest.starts_with("//") {
            let end = rest.find('\n').map_or(text.len(), |length| place + length);
            comments.push(place..end);
            place = end;
        } else if rest.starts_with("/*") {
            let end = place + block_comment(rest);
            comments.push(place..end);
            place = end;
        } else if let Some((opening, hashes)) = raw {
            let start = place + opening;
            let end = text[start..].find(&format!("\"{hashes}")).map_or(text.len(), |length| start + length);
            contents.push(start..end);
            place = (end + 1 + hashes.len()).min(text.len());
        } else if let Some(content) = rest.strip_prefix('"') {
            let end = place + 1 + literal_length(content, '"');
            contents.push(place + 1..end);
            place = (end + 1).min(text.len());
        } else if rest.starts_with('\'') && is_character(rest) {
            let end = place + 1 + literal_length(&rest[1..], '\'');
            contents.push(place + 1..end);
            place = (end + 1).min(text.len());
        } else {
            place += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    (comments, contents)
}

/// `r#"` at a place: its length and its hashes.
fn raw_opening(text: &str, place: usize) -> Option<(usize, String)> {
    let rest = text[place..].strip_prefix('r')?;
    let before = text[..place].chars().next_back();
    let begins = before.is_none_or(|before| !is_word(before) || before == 'b');
    let hashes: String = rest.chars().take_while(|letter| *letter == '#').collect();
    (begins && rest[hashes.len()..].starts_with('"')).then(|| (2 + hashes.len(), hashes))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut place) = (0, 0);
    while place < rest.len() {
        let here = &rest[place..];
        let step = if here.starts_with("/*") {
            depth += 1;
            2
        } else if here.starts_with("*/") {
            depth -= 1;
            2
        } else {
            here.chars().next().map_or(1, char::len_utf8)
        };
        place += step;
        if depth == 0 {
            return place;
        }
    }
    rest.len()
}

/// Up to the closing quote.
fn literal_length(content: &str, quote: char) -> usize {
    let mut escaped = false;
    for (place, letter) in content.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return place,
            _ => {}
        }
    }
    content.len()
}

/// Whether a quote begins a character and not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut letters = rest.chars().skip(1);
    letters.next() == Some('\\') || letters.next() == Some('\'')
}

/// The items under `#[cfg(test)]`, and the modules in files of their own among them, as paths without `.rs`.
fn tests(path: &str, text: &str, code: &str) -> (Vec<Range<usize>>, Vec<String>) {
    let (mut items, mut modules) = (Vec::new(), Vec::new());
    for (start, _) in code.match_indices("#[cfg(test)]").chain(code.match_indices("#[cfg(all(test")) {
        let mut place = start;
        let mut file = None;
        while code[place..].trim_start().starts_with("#[") {
            let open = place + code[place..].find('[').unwrap_or_default();
            let end = closing(code, open);
            let attribute = &text[open..end];
            if let Some(name) = attribute.strip_prefix("[path = \"") {
                file = name.split('"').next();
            }
            place = end;
        }
        let length = head(&code[place..]);
        let end = if code[place + length..].starts_with('{') { closing(code, place + length) } else { place + length };
        items.push(start..end);
        let name = code[place..place + length].trim().rsplit_once("mod ").map(|(_, name)| name.trim());
        if let Some(name) = name.filter(|_| code[place + length..].starts_with(';')) {
            let (directory, stem) = path.trim_end_matches(".rs").rsplit_once('/').unwrap_or(("", path));
            modules.push(match file {
                Some(file) => format!("{directory}/{}", file.trim_end_matches(".rs")),
                None if ["mod", "lib", "main"].contains(&stem) => format!("{directory}/{name}"),
                None => format!("{directory}/{stem}/{name}"),
            });
        }
    }
    (items, modules)
}

/// Up to the body or the end of an item: the first brace or semicolon that is in no parentheses or brackets.
fn head(item: &str) -> usize {
    let mut depth = 0usize;
    for (place, letter) in item.char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' | ';' if depth == 0 => return place,
            _ => {}
        }
    }
    item.len()
}

/// The place after the bracket that closes the one at `open`.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (place, letter) in code[open..].char_indices() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return open + place + letter.len_utf8();
        }
    }
    code.len()
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, _) in words(code, &["fn"]) {
        let after = &code[start + 2..];
        let name: String = after.trim_start().chars().take_while(|letter| is_word(*letter)).collect();
        // A type such as `fn(&str)` has no name, a method of a trait may have no body.
        let open = start + 2 + head(after);
        if !name.is_empty() && code[open..].starts_with('{') {
            found.push(Function { name, signature: start..open, body: open..closing(code, open) });
        }
    }
    found
}
