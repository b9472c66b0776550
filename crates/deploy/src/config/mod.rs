//! The configuration: one YAML file, read strictly, with every problem reported at once and at its place.

mod check;
mod forms;
mod idle;
mod image;
mod model;
mod proxy;
mod read;
mod regions;
mod schema;
mod tree;

pub(crate) use check::{MESH_FIRST_NODE_OFFSET, SUBNET_FIRST_NODE_OFFSET};
pub use image::Image;
pub use model::*;
pub use proxy::ProxyAddress;
use read::join;
pub use schema::{Field, Kind, Setting};
use serde_json::Value;
use serde_saphyr::granit_parser::Span;
use std::fmt;
use tree::Position;

impl Azure {
    /// The tags that whoever wrote the configuration gives to everything: those that are not k0rdentctl's own.
    pub fn given_tags(&self) -> std::collections::BTreeMap<String, String> {
        let is_own = |name: &str| check::OWN_TAGS.iter().any(|own| own.eq_ignore_ascii_case(name));
        self.tags.iter().filter(|(name, _)| !is_own(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// Starter files by name.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("minimal", include_str!("../../data/templates/minimal.yaml")),
    ("development", include_str!("../../data/templates/development.yaml")),
    ("production", include_str!("../../data/templates/production.yaml")),
    ("production-arm64", include_str!("../../data/templates/production-arm64.yaml")),
    ("production-arm64-spot", include_str!("../../data/templates/production-arm64-spot.yaml")),
    ("hosts", include_str!("../../data/templates/hosts.yaml")),
];

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably does not mean what its author wants.
    Warning,
}

/// Something wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The line from 1; none when the file does not say anything there.
    pub line: Option<usize>,
    /// The column from 1.
    pub column: Option<usize>,
    /// The dotted key; empty for a problem of the file as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    fn new(position: Option<Position>, key: String, message: String) -> Self {
        let (line, column) = position.map(|position| (position.line, position.column)).unzip();
        Self { severity: Severity::Error, line, column, key, message }
    }

    fn at(span: &Span, message: &str) -> Self {
        Self::new(Some(Position::from(span)), String::new(), message.to_owned())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(formatter, "{line}:{column}: ")?;
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)
    }
}

/// A usable configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The settings, complete with defaults.
    pub config: Config,
    /// What its author should know.
    pub warnings: Vec<Problem>,
}

/// Reads a configuration. All problems, errors and warnings, come at once and in the order of the file; those of keys
/// that the file does not have come last.
pub fn load(text: &str) -> Result<Loaded, Vec<Problem>> {
    let root = tree::parse(text).map_err(|problem| vec![problem])?;
    let mut reading = read::Reading::default();
    let value = reading.section("", top_level(), root.as_ref());
    let mut config: Config = serde_json::from_value(value)
        .map_err(|error| vec![Problem::new(None, String::new(), format!("cannot be read: {error}"))])?;
    let mut problems = check::check(&mut config, &reading);
    problems.append(&mut reading.problems);
    problems.sort_by_key(|problem| (problem.line.is_none(), problem.line, problem.column));
    match problems.iter().any(|problem| problem.severity == Severity::Error) {
        true => Err(problems),
        false => Ok(Loaded { config, warnings: problems }),
    }
}

/// The whole configuration as YAML that loads again, with a line for every key.
pub fn render(config: &Config) -> String {
    serde_saphyr::to_string(config).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

/// The starter file of that name.
pub fn template(name: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Every key with its default and meaning, as a Markdown table.
pub fn reference() -> String {
    let mut lines = vec!["| key | default | meaning |".to_owned(), "| --- | --- | --- |".to_owned()];
    each_key("", top_level(), &mut |key, field| {
        if !matches!(field.kind, Kind::Section(_)) {
            let default = match (field.default)() {
                Value::Null if field.required => "required".to_owned(),
                Value::Null => "not set".to_owned(),
                value => format!("`{value}`"),
            };
            let idle = idle::never_followed(key).map_or_else(String::new, |why| format!(" No effect: {why}."));
            lines.push(format!("| `{key}` | {default} | {}{idle} |", field.documentation.trim()));
        }
    });
    lines.join("\n") + "\n"
}

fn top_level() -> &'static [Field] {
    match Config::KIND {
        Kind::Section(fields) => fields,
        _ => &[],
    }
}

/// Visits every known key, sections before their keys.
fn each_key(path: &str, fields: &'static [Field], visit: &mut dyn FnMut(&str, &Field)) {
    for field in fields {
        let key = join(path, field.name);
        visit(&key, field);
        match field.kind {
            Kind::Section(fields) => each_key(&key, fields, visit),
            Kind::List(Kind::Section(fields)) => each_key(&format!("{key}[]"), fields, visit),
            _ => {}
        }
    }
}

/// The known key that the author of `unknown` most probably meant: similar as a whole, or the same word elsewhere.
fn nearest(unknown: &str) -> Option<String> {
    const SIMILAR_ENOUGH: f64 = 0.75;
    let word = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let mut best = (SIMILAR_ENOUGH, None);
    each_key("", top_level(), &mut |key, _| {
        let whole = strsim::normalized_damerau_levenshtein(key, unknown);
        let similarity = if word(key) == word(unknown) { whole.max(SIMILAR_ENOUGH + whole / 100.0) } else { whole };
        if similarity > best.0 {
            best = (similarity, Some(key.to_owned()));
        }
    });
    best.1
}
