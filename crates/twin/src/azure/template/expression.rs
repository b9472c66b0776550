//! The expressions of templates, `[concat(parameters('name'), '-nsg')]`: how they are read, and what they are worth.
//!
//! Source: Azure documentation, "Syntax and expressions in ARM templates".

use std::{cell::Cell, collections::BTreeMap};

use serde_json::{Map, Value, json};

use super::functions;

/// Characters in one expression (Azure documentation).
const MOST_CHARACTERS: usize = 24_576;
/// How deep expressions and values may be nested (guess).
const MOST_NESTED: usize = 60;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::azure) enum NoValue {
    /// There never will be.
    Invalid(String),
    /// A resource that it refers to does not exist.
    Missing(String),
    /// A resource that it refers to is being deployed.
    NotYet,
}

/// What an expression may refer to.
pub(in crate::azure) struct Scope<'a> {
    /// By name in lower case.
    pub(in crate::azure) parameters: &'a BTreeMap<String, Value>,
    /// As written.
    pub(in crate::azure) variables: &'a Map<String, Value>,
    /// Names of the loops that the expression is in, and the turn of each; the innermost is the last.
    pub(in crate::azure) turns: Vec<(String, u64)>,
    /// What `resourceGroup()` is.
    pub(in crate::azure) group: &'a Value,
    /// What `deployment()` is.
    pub(in crate::azure) deployment: &'a Value,
    /// Finds a resource by its id or by its name in the template.
    pub(in crate::azure) find: &'a dyn Fn(&str) -> Result<Value, NoValue>,
    /// How deep we are.
    pub(in crate::azure) depth: Cell<usize>,
}

/// One expression.
#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Literal(Value),
    /// A function, its name in lower case.
    Call(String, Vec<Expression>),
    /// A property or an element of something.
    Part(Box<Expression>, Box<Expression>),
}

pub(super) fn invalid<Anything>(text: impl Into<String>) -> Result<Anything, NoValue> {
    Err(NoValue::Invalid(text.into()))
}

impl Scope<'_> {
    /// The value of what stands in a template: expressions in strings, loops in objects.
    pub(in crate::azure) fn value(&self, written: &Value) -> Result<Value, NoValue> {
        if self.depth.get() >= MOST_NESTED {
            return invalid("The template is nested too deeply, or refers to itself.");
        }
        self.depth.set(self.depth.get() + 1);
        let value = self.value_here(written);
        self.depth.set(self.depth.get() - 1);
        value
    }

    fn value_here(&self, written: &Value) -> Result<Value, NoValue> {
        match written {
            Value::String(text) if text.starts_with("[[") => Ok(json!(text[1..])),
            Value::String(text) if text.starts_with('[') && text.ends_with(']') => {
                self.evaluate(&parse(&text[1..text.len() - 1])?)
            }
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                let mut object = Map::new();
                for (name, field) in fields {
                    match (name.as_str(), field.as_array()) {
                        ("copy", Some(loops)) => object.extend(self.loops(loops)?),
                        _ => drop(object.insert(name.clone(), self.value(field)?)),
                    }
                }
                Ok(Value::Object(object))
            }
            _ => Ok(written.clone()),
        }
    }

    /// `"copy": [{"name": ..., "count": ..., "input": ...}]`: fields that are made in a loop.
    fn loops(&self, loops: &[Value]) -> Result<Map<String, Value>, NoValue> {
        let mut fields = Map::new();
        for field in loops {
            let name = field["name"].as_str().unwrap_or_default();
            let count = self.count(&field["count"])?;
            let turns = (0..count).map(|turn| self.at_turn(name, turn).value(&field["input"]));
            fields.insert(name.into(), Value::Array(turns.collect::<Result<_, _>>()?));
        }
        Ok(fields)
    }

    /// How often a loop goes round.
    pub(super) fn count(&self, written: &Value) -> Result<u64, NoValue> {
        match self.value(written)?.as_u64().filter(|count| *count <= super::MOST_RESOURCES) {
            Some(count) => Ok(count),
            None => invalid(format!("The value of 'count' must be an integer from 0 to {}.", super::MOST_RESOURCES)),
        }
    }

    /// The same inside one turn of a loop.
    pub(super) fn at_turn(&self, name: &str, turn: u64) -> Scope<'_> {
        let turns = self.turns.iter().cloned().chain([(name.to_lowercase(), turn)]).collect();
        Scope { turns, depth: self.depth.clone(), ..*self }
    }

    fn evaluate(&self, expression: &Expression) -> Result<Value, NoValue> {
        match expression {
            Expression::Literal(value) => Ok(value.clone()),
            // Only the branch that counts is looked at.
            Expression::Call(name, arguments) if name == "if" => match arguments.as_slice() {
                [condition, yes, no] => match self.evaluate(condition)? {
                    Value::Bool(condition) => self.evaluate(if condition { yes } else { no }),
                    other => invalid(format!("The condition of 'if' must be a boolean, not {other}.")),
                },
                _ => invalid("The template function 'if' takes three arguments."),
            },
            Expression::Call(name, arguments) => {
                let arguments: Vec<Value> =
                    arguments.iter().map(|argument| self.evaluate(argument)).collect::<Result<_, _>>()?;
                functions::call(self, name, &arguments)
            }
            Expression::Part(whole, part) => {
                let (whole, part) = (self.evaluate(whole)?, self.evaluate(part)?);
                let found = match (&whole, &part) {
                    (Value::Object(fields), Value::String(name)) => {
                        fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
                    }
                    (Value::Array(items), Value::Number(index)) => {
                        index.as_u64().and_then(|index| items.get(usize::try_from(index).ok()?))
                    }
                    _ => None,
                };
                let missing = format!("The language expression property {part} doesn't exist.");
                found.cloned().ok_or(NoValue::Invalid(missing))
            }
        }
    }
}

fn parse(text: &str) -> Result<Expression, NoValue> {
    if text.len() > MOST_CHARACTERS {
        return invalid(format!("The template language expression exceeds the limit of {MOST_CHARACTERS} characters."));
    }
    let mut parser = Parser { text, rest: text, depth: 0 };
    let expression = parser.expression()?;
    if parser.rest.trim_start().is_empty() { Ok(expression) } else { parser.wrong() }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn wrong<Anything>(&self) -> Result<Anything, NoValue> {
        let position = self.text.len() - self.rest.trim_start().len();
        invalid(format!("The language expression '{}' is not valid at position {position}.", self.text))
    }

    fn eat(&mut self, token: char) -> bool {
        let eaten = self.rest.trim_start().strip_prefix(token);
        self.rest = eaten.unwrap_or(self.rest);
        eaten.is_some()
    }

    fn expect(&mut self, token: char) -> Result<(), NoValue> {
        if self.eat(token) { Ok(()) } else { self.wrong() }
    }

    /// The longest start that consists of such characters.
    fn take(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let start = self.rest.trim_start();
        let (taken, rest) = start.split_at(start.find(|character| !fits(character)).unwrap_or(start.len()));
        self.rest = rest;
        taken
    }

    fn expression(&mut self) -> Result<Expression, NoValue> {
        self.depth += 1;
        if self.depth > MOST_NESTED {
            return invalid("The language expression is nested too deeply.");
        }
        let mut expression = self.primary()?;
        loop {
            let part = if self.eat('.') {
                match self.take(|character| character.is_alphanumeric() || "_$".contains(character)) {
                    "" => return self.wrong(),
                    name => Expression::Literal(json!(name)),
                }
            } else if self.eat('[') {
                let part = self.expression()?;
                self.expect(']')?;
                part
            } else {
                break;
            };
            expression = Expression::Part(Box::new(expression), Box::new(part));
        }
        self.depth -= 1;
        Ok(expression)
    }

    fn primary(&mut self) -> Result<Expression, NoValue> {
        if self.eat('\'') {
            return self.string();
        }
        let word = self.take(|character| character.is_alphanumeric() || "-_".contains(character));
        if let Ok(number) = word.parse::<i64>() {
            return Ok(Expression::Literal(json!(number)));
        }
        if word.is_empty() || !self.eat('(') {
            return self.wrong();
        }
        let mut arguments = Vec::new();
        if !self.eat(')') {
            loop {
                arguments.push(self.expression()?);
                if !self.eat(',') {
                    break;
                }
            }
            self.expect(')')?;
        }
        Ok(Expression::Call(word.to_lowercase(), arguments))
    }

    /// What follows an apostrophe; two of them are one.
    fn string(&mut self) -> Result<Expression, NoValue> {
        let mut text = String::new();
        loop {
            let Some((part, rest)) = self.rest.split_once('\'') else { return self.wrong() };
            text.push_str(part);
            self.rest = rest;
            match rest.strip_prefix('\'') {
                Some(rest) => {
                    text.push('\'');
                    self.rest = rest;
                }
                None => return Ok(Expression::Literal(json!(text))),
            }
        }
    }
}
