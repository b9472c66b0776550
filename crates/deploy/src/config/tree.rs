//! YAML text to a tree whose nodes know their place in the file. Scalars stay as written: what they mean depends on
//! the key that they belong to.

use super::Problem;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use std::collections::BTreeMap;

/// Nesting and size that no configuration needs; beyond them the file is an attack or an accident.
const MAXIMUM_DEPTH: usize = 32;
const MAXIMUM_NODES: usize = 20_000;

/// The key that brings in the entries of other mappings (YAML 1.1, merge key).
const MERGE: &str = "<<";

/// A place in the file, both numbers from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl From<&Span> for Position {
    fn from(span: &Span) -> Self {
        Self { line: span.start.line(), column: span.start.col() + 1 }
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) content: Content,
}

/// A value.
#[derive(Clone)]
pub(super) enum Content {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, and whether it stood without quotes.
    Scalar(String, bool),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Content {
    /// What this is, in words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Scalar(text, _) => format!("{text:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// A key of a mapping.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) position: Position,
    pub(super) text: String,
}

/// The one document in `text`; `None` when it is empty.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Problem> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0 };
    let mut root = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::DocumentStart(..), span) if root.is_some() => {
                return Err(Problem::at(&span, "a second document starts here; one file holds one configuration"));
            }
            (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
            (event, span) => root = Some(reader.node(event, span, 0)?),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => return Err(syntax(&error)),
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        self.nodes += 1;
        if depth > MAXIMUM_DEPTH || self.nodes > MAXIMUM_NODES {
            return Err(Problem::at(&span, "the file is too deep or too large for a configuration"));
        }
        let position = Position::from(&span);
        let (content, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(text.into_owned(), style), anchor),
            Event::SequenceStart(_, anchor, _) => (Content::List(self.list(depth)?), anchor),
            Event::MappingStart(_, anchor, _) => (Content::Map(self.map(depth)?), anchor),
            Event::Alias(anchor) => (self.alias(anchor, &span)?, 0),
            _ => return Err(Problem::at(&span, "expected a value")),
        };
        let node = Node { position, content };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Problem> {
        let (mut entries, mut merged) = (Vec::new(), Vec::new());
        loop {
            let (event, span) = self.next()?;
            let (key, style) = match event {
                Event::MappingEnd => return Ok(with_merged(entries, merged)),
                Event::Scalar(text, style, ..) => {
                    (Key { position: Position::from(&span), text: text.into_owned() }, style)
                }
                _ => return Err(Problem::at(&span, "a key must be a plain word")),
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            if key.text == MERGE && style == ScalarStyle::Plain {
                merge(node, &span, &mut merged)?;
            } else {
                entries.push((key, node));
            }
        }
    }

    /// A copy of what the anchor names. Copies count, so that aliases of aliases cannot grow without bound.
    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Content, Problem> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(Problem::at(span, "an alias cannot stand inside what it names"));
        };
        self.nodes += count(&node);
        Ok(node.content)
    }
}

/// The entries of the mappings that a merge key names, in the order in which they count.
fn merge(node: Node, span: &Span, merged: &mut Vec<(Key, Node)>) -> Result<(), Problem> {
    match node.content {
        Content::Null => {}
        Content::Map(entries) => merged.extend(entries),
        Content::List(items) if items.iter().all(|item| matches!(item.content, Content::Map(_))) => {
            for item in items {
                merge(item, span, merged)?;
            }
        }
        _ => return Err(Problem::at(span, "`<<` takes a mapping or a list of mappings, as in `<<: *common`")),
    }
    Ok(())
}

/// The mapping's own entries, and of the merged ones those that it does not have; of several, the first.
fn with_merged(mut entries: Vec<(Key, Node)>, merged: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
    for (key, node) in merged {
        if !entries.iter().any(|(own, _)| own.text == key.text) {
            entries.push((key, node));
        }
    }
    entries
}

fn count(node: &Node) -> usize {
    match &node.content {
        Content::Null | Content::Scalar(..) => 1,
        Content::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Content::Map(entries) => 1 + entries.iter().map(|(_, node)| count(node)).sum::<usize>(),
    }
}

fn scalar(text: String, style: ScalarStyle) -> Content {
    let plain = style == ScalarStyle::Plain;
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" if plain => Content::Null,
        _ => Content::Scalar(text, plain),
    }
}

fn syntax(error: &ScanError) -> Problem {
    let marker = error.marker();
    let position = Position { line: marker.line(), column: marker.col() + 1 };
    Problem::new(Some(position), String::new(), format!("not valid YAML: {}", error.info()))
}
