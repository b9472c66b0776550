//! The only place that prints: results to standard output, everything else to standard error.
//!
//! Names, messages and output come from clouds and machines of others. What a terminal would obey in them is shown instead
//! ([`harmless`]), here and nowhere else.
//!
//! A reader that went away (`k0rdentctl events | head`) is no error; whoever prints for long asks
//! [`Printer::is_cut_off`].

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use serde::Serialize;

use crate::{
    arguments::{Global, Output},
    settings::Surroundings,
};

/// Something went wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Something deserves attention.
pub(crate) const CARE: Style = AnsiColor::Yellow.on_default().bold();
/// A heading.
pub(crate) const HEADING: Style = Style::new().bold();

/// How a command line of ours begins.
const PROGRAM: &str = "k0rdentctl ";

/// Where text goes, and in which colours.
pub(crate) struct Printer {
    /// How results are printed.
    pub(crate) output: Output,
    /// Whether results are coloured.
    pub(crate) colours: bool,
    /// Whether messages are coloured.
    pub(crate) colours_of_messages: bool,
    quiet: bool,
    /// The options that lead to the same environment, for command lines to type next.
    options: String,
    cut_off: AtomicBool,
    trouble: Mutex<Option<io::Error>>,
}

impl Printer {
    /// As the options and the terminal want it.
    pub(crate) fn new(global: &Global, surroundings: &Surroundings) -> Self {
        let plain = surroundings.variable("NO_COLOR").is_some() || surroundings.variable("TERM") == Some("dumb");
        let colours = |terminal: bool| match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !plain,
        };
        Self {
            output: global.output,
            colours: colours(io::stdout().is_terminal()),
            colours_of_messages: colours(io::stderr().is_terminal()),
            quiet: global.quiet,
            options: options(global),
            cut_off: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// Whether results are for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// A command line to type next, with the options that lead to the same environment.
    pub(crate) fn command(&self, rest: &str) -> String {
        format!("{PROGRAM}{}{rest}", self.options)
    }

    /// A text with the command lines in it as they are to be typed: steps and journals know of no options.
    pub(crate) fn typed<'text>(&self, text: &'text str) -> Cow<'text, str> {
        if self.options.is_empty() || !text.contains(PROGRAM) {
            return Cow::Borrowed(text);
        }
        let mut pieces = text.split(PROGRAM);
        let mut typed = pieces.next().unwrap_or_default().to_owned();
        for rest in pieces {
            let is_command = typed.is_empty() || ["`", ": ", "\n"].iter().any(|before| typed.ends_with(before));
            let has_options = ["-", "init", "twin "].iter().any(|start| rest.starts_with(start));
            let options = if is_command && !has_options { &*self.options } else { "" };
            typed += &format!("{PROGRAM}{options}{rest}");
        }
        Cow::Owned(typed)
    }

    /// Whether only results, warnings and questions are printed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A result for people.
    pub(crate) fn result(&self, text: &str) {
        self.out(&self.typed(text));
    }

    /// A result as one JSON document.
    pub(crate) fn document(&self, value: &impl Serialize) {
        self.out(&serde_json::to_string_pretty(value).unwrap_or_default());
    }

    /// One object of a stream of results.
    pub(crate) fn object(&self, value: &impl Serialize) {
        self.out(&serde_json::to_string(value).unwrap_or_default());
    }

    /// Something worth knowing.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            self.err(text);
        }
    }

    /// Something that must be known: a warning, a question.
    pub(crate) fn warn(&self, text: &str) {
        self.err(text);
    }

    /// A warning or an error, its first word marked.
    pub(crate) fn marked(&self, style: Style, word: &str, text: &str) {
        self.err(&format!("{}: {text}", paint(self.colours_of_messages, style, word)));
    }

    /// A question, without a new line after it.
    pub(crate) fn ask(&self, text: &str) {
        draw_messages(&harmless(text));
    }

    /// Whether nobody reads our results any more.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Why results could not be written, if that was nobody's wish: a full disk, and not a reader that went away.
    pub(crate) fn trouble(&self) -> Option<io::Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn out(&self, text: &str) {
        let Err(error) = write_line(io::stdout().lock(), text) else { return };
        self.cut_off.store(true, Ordering::Relaxed);
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn err(&self, text: &str) {
        let _nobody_there = write_line(io::stderr().lock(), &self.typed(text));
    }
}

/// The options, each followed by a space, that lead to the environment of this command.
fn options(global: &Global) -> String {
    let home = Some(&global.home).filter(|home| home.as_path() != std::path::Path::new("./.k0rdent"));
    let named = [("--home", home), ("--config", global.config.as_ref()), ("--twin", global.twin.as_ref())];
    let given = named.into_iter().filter_map(|(name, path)| Some((name, path?.display().to_string())));
    given.map(|(name, path)| format!("{name} {} ", shell_words::quote(&path))).collect()
}

/// Where messages go, as it is and in one piece, so that nothing flickers.
pub(crate) fn draw_messages(text: &str) {
    let mut stream = io::stderr().lock();
    let _nobody_there = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

/// In one piece, so that lines of several programs do not mix.
fn write_line(mut stream: impl Write, text: &str) -> io::Result<()> {
    let text = format!("{}\n", harmless(text.strip_suffix('\n').unwrap_or(text)));
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// The text with its control characters written as in JSON, `\u001b`, but for those that end lines and columns, and for the
/// colours of this program. So nobody's text moves the cursor, clears the screen or sets a title; and what is JSON stays it.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let is_bad = |character: char| character.is_control() && !['\n', '\t'].contains(&character);
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    static OURS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let styles = [BAD, GOOD, CARE, HEADING];
        styles.iter().flat_map(|style| [format!("{style}"), format!("{style:#}")]).collect()
    });
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(character) = rest.chars().next() {
        let ours = OURS.iter().filter(|ours| rest.starts_with(ours.as_str())).map(String::len).max();
        let length = ours.unwrap_or(character.len_utf8());
        match ours {
            None if is_bad(character) => shown.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => shown.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    Cow::Owned(shown)
}

/// The text in that style, if colours are wanted.
pub(crate) fn paint(colours: bool, style: Style, text: &str) -> String {
    if colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer(options: &str) -> Printer {
        Printer {
            output: Output::Text,
            colours: false,
            colours_of_messages: false,
            quiet: false,
            options: options.to_owned(),
            cut_off: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    #[test]
    fn every_command_line_in_a_text_leads_to_the_same_environment() {
        let text = "Restore it, and run `k0rdentctl deploy`. Or: k0rdentctl replace k0s-worker-1\nk0rdentctl status";
        insta::assert_snapshot!(printer("--home b ").typed(text), @r"
        Restore it, and run `k0rdentctl --home b deploy`. Or: k0rdentctl --home b replace k0s-worker-1
        k0rdentctl --home b status
        ");
        assert_eq!(printer("").typed(text), text);
    }

    #[test]
    fn what_has_options_or_needs_none_is_left_as_it_is() {
        for text in ["look: k0rdentctl --home b status", "`k0rdentctl init > k0rdent.yaml`", "made by k0rdentctl 0.1.0"]
        {
            assert_eq!(printer("--home b ").typed(text), text);
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_our_colours_are_not() {
        assert_eq!(harmless("two\tcolumns\nand Grüße"), "two\tcolumns\nand Grüße");
        let title = "a\u{1b}]0;owned\u{7}b\rc\u{9b}2Jd\u{7f}";
        assert_eq!(harmless(title), r"a\u001b]0;owned\u0007b\u000dc\u009b2Jd\u007f");
        let ours = paint(true, BAD, "failed");
        assert_eq!(harmless(&ours), ours);
        assert_eq!(harmless(&paint(true, BAD, "\u{1b}[8m")), paint(true, BAD, r"\u001b[8m"));
    }

    #[test]
    fn json_says_the_same_as_before() {
        let value = serde_json::json!({"name": "a\u{1b}[2J\u{9b}\u{7f}"});
        let text = serde_json::to_string(&value).expect("JSON");
        let shown: serde_json::Value = serde_json::from_str(&harmless(&text)).expect("JSON as before");
        assert_eq!(shown, value);
        assert!(!harmless(&text).contains(char::is_control));
    }
}
