//! The only place that prints: results to standard output, everything else to standard error.
//!
//! A reader that went away (`k0rdentctl events | head`) is no error; whoever prints for long asks
//! [`Printer::is_cut_off`].

use std::{
    io::{self, IsTerminal as _, Write},
    sync::atomic::{AtomicBool, Ordering},
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

/// Where text goes, and in which colours.
pub(crate) struct Printer {
    /// How results are printed.
    pub(crate) output: Output,
    /// Whether results are coloured.
    pub(crate) colours: bool,
    colours_of_messages: bool,
    quiet: bool,
    cut_off: AtomicBool,
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
            cut_off: AtomicBool::new(false),
        }
    }

    /// Whether results are for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// A result for people.
    pub(crate) fn result(&self, text: &str) {
        self.out(text);
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
        let mut stream = io::stderr().lock();
        let _nobody_there = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    }

    /// Whether nobody reads our results any more.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    fn out(&self, text: &str) {
        if write_line(io::stdout().lock(), text).is_err() {
            self.cut_off.store(true, Ordering::Relaxed);
        }
    }

    fn err(&self, text: &str) {
        let _nobody_there = write_line(io::stderr().lock(), text);
    }
}

/// In one piece, so that lines of several programs do not mix.
fn write_line(mut stream: impl Write, text: &str) -> io::Result<()> {
    let text = format!("{}\n", text.strip_suffix('\n').unwrap_or(text));
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// The text in that style, if colours are wanted.
pub(crate) fn paint(colours: bool, style: Style, text: &str) -> String {
    if colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
}
