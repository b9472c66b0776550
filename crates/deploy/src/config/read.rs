//! From the tree to typed settings: unknown keys, duplicates and wrong types, all at once, with defaults for the rest.

use super::Problem;
use super::schema::{Field, Kind};
use super::tree::{Content, Key, Node, Position};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What reading found: where each given key stands, which keys have no usable value, and why.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) positions: BTreeMap<String, Position>,
    pub(super) rejected: BTreeSet<String>,
    pub(super) problems: Vec<Problem>,
}

impl Reading {
    /// The value of a section: what is given where it is usable, defaults elsewhere.
    pub(super) fn section(&mut self, path: &str, fields: &'static [Field], node: Option<&Node>) -> Value {
        let entries = match node.map(|node| &node.content) {
            None | Some(Content::Null) => &[][..],
            Some(Content::Map(entries)) => entries,
            Some(other) => {
                self.reject(path, node, format!("expected a mapping, found {}", other.describe()));
                &[]
            }
        };
        self.check_keys(path, fields, entries);
        let mut values = Map::new();
        for field in fields {
            let key = join(path, field.name);
            let given = entries.iter().find(|(key, _)| key.text == field.name).map(|(_, node)| node);
            if field.required && given.is_none() {
                self.reject(&key, node, format!("is missing: {}", field.documentation.trim()));
            }
            values.insert(field.name.to_owned(), self.field(&key, field, given));
        }
        Value::Object(values)
    }

    /// The value of a section in a list; none if anything in it is wrong.
    fn item(&mut self, path: &str, fields: &'static [Field], node: &Node) -> Option<Value> {
        let before = self.problems.len();
        let value = self.section(path, fields, Some(node));
        (self.problems.len() == before).then_some(value)
    }

    fn field(&mut self, path: &str, field: &'static Field, node: Option<&Node>) -> Value {
        if let Some(node) = node {
            self.positions.insert(path.to_owned(), node.position);
        }
        if let Kind::Section(fields) = field.kind {
            return self.section(path, fields, node);
        }
        // An empty text says the same as no text where a key can be without a value.
        let optional = (field.default)().is_null();
        let given = node.filter(|node| match &node.content {
            Content::Null => false,
            Content::Scalar(text, _) => !(optional && text.is_empty()),
            _ => true,
        });
        given.and_then(|node| self.value(path, &field.kind, node)).unwrap_or_else(field.default)
    }

    /// Unknown keys and keys that stand twice.
    fn check_keys(&mut self, path: &str, fields: &[Field], entries: &[(Key, Node)]) {
        let mut seen = BTreeMap::new();
        for (key, _) in entries {
            let full = join(path, &key.text);
            let message = match seen.insert(&key.text, key.position.line) {
                Some(first) => format!("stands twice; the first is on line {first}"),
                None if fields.iter().any(|field| field.name == key.text) => continue,
                // A place for what is merged elsewhere, as in the files of Docker Compose.
                None if path.is_empty() && key.text.starts_with("x-") => continue,
                None => match super::nearest(&full) {
                    Some(known) => format!("unknown key; did you mean {known}?"),
                    None => "unknown key".to_owned(),
                },
            };
            self.problems.push(Problem::new(Some(key.position), full, message));
        }
    }

    fn value(&mut self, path: &str, kind: &'static Kind, node: &Node) -> Option<Value> {
        let read = match (kind, &node.content) {
            (Kind::Section(fields), _) => return self.item(path, fields, node),
            (Kind::Texts, Content::Map(entries)) => return self.texts(path, entries),
            (Kind::List(item), Content::List(nodes)) => return self.list(path, item, nodes),
            (Kind::Text, Content::Scalar(text, _)) => Ok(Value::from(text.as_str())),
            (Kind::Boolean, Content::Scalar(text, _)) => boolean(text).ok_or(None),
            (Kind::Integer(maximum), Content::Scalar(text, _)) => integer(text, *maximum),
            (Kind::Parsed(_, parse), Content::Scalar(text, _)) => parse(text).map(Value::from).map_err(Some),
            (Kind::Free, Content::Map(_)) => Ok(free(node)),
            _ => Err(None),
        };
        read.map_err(|reason| {
            let expected = || format!("expected {}, found {}", kind.describe(), node.content.describe());
            self.reject(path, Some(node), reason.unwrap_or_else(expected));
        })
        .ok()
    }

    fn texts(&mut self, path: &str, entries: &[(Key, Node)]) -> Option<Value> {
        let mut texts = Map::new();
        for (key, node) in entries {
            let full = join(path, &key.text);
            self.positions.insert(full.clone(), key.position);
            let text = match &node.content {
                Content::Null => "",
                Content::Scalar(text, _) => text,
                other => {
                    self.reject(&full, Some(node), format!("expected text, found {}", other.describe()));
                    continue;
                }
            };
            if texts.insert(key.text.clone(), Value::from(text)).is_some() {
                self.problems.push(Problem::new(Some(key.position), full, "stands twice".to_owned()));
            }
        }
        Some(Value::Object(texts))
    }

    fn list(&mut self, path: &str, item: &'static Kind, nodes: &[Node]) -> Option<Value> {
        let mut values = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let key = format!("{path}[{index}]");
            self.positions.insert(key.clone(), node.position);
            values.push(self.value(&key, item, node));
        }
        let values: Option<Vec<_>> = values.into_iter().collect();
        if values.is_none() {
            self.rejected.insert(path.to_owned());
        }
        values.map(Value::Array)
    }

    fn reject(&mut self, path: &str, node: Option<&Node>, message: String) {
        self.rejected.insert(path.to_owned());
        self.problems.push(Problem::new(node.map(|node| node.position), path.to_owned(), message));
    }
}

/// `path.name`, or `name` at the top.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn boolean(text: &str) -> Option<Value> {
    match text {
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// Quotes do not matter: the scripts' own files put a number in quotes.
fn integer(text: &str, maximum: u64) -> Result<Value, Option<String>> {
    let number = text.parse::<u128>().map_err(|_| None)?;
    match u64::try_from(number) {
        Ok(number) if number <= maximum => Ok(Value::from(number)),
        _ => Err(Some(format!("{text} is too large; the most is {maximum}"))),
    }
}

/// A value that no key describes, by YAML's own rules for plain scalars.
fn free(node: &Node) -> Value {
    match &node.content {
        Content::Null => Value::Null,
        Content::Scalar(text, true) => boolean(text)
            .or_else(|| text.parse::<i64>().ok().map(Value::from))
            .or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from))
            .unwrap_or_else(|| Value::from(text.as_str())),
        Content::Scalar(text, false) => Value::from(text.as_str()),
        Content::List(items) => Value::Array(items.iter().map(free).collect()),
        Content::Map(entries) => entries.iter().map(|(key, node)| (key.text.clone(), free(node))).collect(),
    }
}
