//! The grammar of the shell: what a command line means before anything runs.
//!
//! A part of the POSIX shell: quoting, variables, `$(...)`, lists, pipes, groups and redirections. Loops, conditions,
//! here-documents and patterns are not known and said to be so.

use std::iter::Peekable;

/// Commands and what joins them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::machine) struct List(pub(in crate::machine) Vec<(Connector, Pipeline)>);

/// When a pipeline runs, seen from the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::machine) enum Connector {
    /// After `;` or a new line.
    Always,
    /// After `&&`.
    And,
    /// After `||`.
    Or,
}

/// Commands that feed each other.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::machine) struct Pipeline {
    /// Whether `!` turns the exit code around.
    pub(in crate::machine) negated: bool,
    /// From left to right.
    pub(in crate::machine) commands: Vec<Command>,
}

/// One command with its redirections.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::machine) struct Command {
    /// `NAME=value` before the first word.
    pub(in crate::machine) assignments: Vec<(String, Word)>,
    /// The name and the arguments.
    pub(in crate::machine) words: Vec<Word>,
    /// In order.
    pub(in crate::machine) redirects: Vec<Redirect>,
    /// The commands of `( ... )` or `{ ...; }`, instead of words.
    pub(in crate::machine) group: Option<List>,
}

/// Pieces that make up one word.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::machine) struct Word(pub(in crate::machine) Vec<Part>);

/// A piece of a word.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::machine) enum Part {
    /// As it stands.
    Text(String),
    /// `$NAME`, `${NAME}`, `${NAME:-default}`; whether it is quoted.
    Variable(String, Option<String>, bool),
    /// `$(...)`; whether it is quoted.
    Substitution(List, bool),
}

/// Where a stream goes or comes from.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::machine) enum Redirect {
    /// `N> file` or, appending, `N>> file`.
    Output(u8, Word, bool),
    /// `N>&M`.
    Duplicate(u8, u8),
    /// `< file`.
    Input(Word),
}

/// Why a command line cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Syntax error: {0}")]
pub(in crate::machine) struct SyntaxError(String);

type Characters<'a> = Peekable<std::str::Chars<'a>>;

/// Understands a script.
pub(in crate::machine) fn parse(script: &str) -> Result<List, SyntaxError> {
    let mut characters = script.chars().peekable();
    let list = parse_list(&mut characters, None)?;
    match characters.peek() {
        None => Ok(list),
        Some(other) => Err(SyntaxError(format!("\"{other}\" unexpected"))),
    }
}

fn skip_blanks(characters: &mut Characters<'_>) {
    loop {
        match characters.peek() {
            Some(' ' | '\t' | '\r') => drop(characters.next()),
            Some('#') => while characters.next_if(|character| *character != '\n').is_some() {},
            Some('\\') => {
                let mut ahead = characters.clone();
                ahead.next();
                if ahead.next() != Some('\n') {
                    return;
                }
                *characters = ahead;
            }
            _ => return,
        }
    }
}

fn take(characters: &mut Characters<'_>, text: &str) -> bool {
    let mut ahead = characters.clone();
    let found = text.chars().all(|wanted| ahead.next() == Some(wanted));
    if found {
        *characters = ahead;
    }
    found
}

/// Reads up to the end or `end`, which it leaves in place.
fn parse_list(characters: &mut Characters<'_>, end: Option<char>) -> Result<List, SyntaxError> {
    let mut list = List::default();
    let mut connector = Connector::Always;
    loop {
        skip_blanks(characters);
        match characters.peek() {
            None if end.is_some() => return Err(SyntaxError("end of file unexpected".into())),
            None => break,
            found if found == end.as_ref() => break,
            Some(';' | '\n') if connector != Connector::Always => {
                if take(characters, ";") {
                    return Err(SyntaxError("\";\" unexpected".into()));
                }
                characters.next();
                continue;
            }
            Some(';' | '\n') => {
                characters.next();
                continue;
            }
            Some(_) => {}
        }
        list.0.push((connector, parse_pipeline(characters)?));
        skip_blanks(characters);
        connector = if take(characters, "&&") {
            Connector::And
        } else if take(characters, "||") {
            Connector::Or
        } else if take(characters, "&") {
            return Err(SyntaxError("background commands are not supported here".into()));
        } else {
            Connector::Always
        };
    }
    if connector == Connector::Always { Ok(list) } else { Err(SyntaxError("end of file unexpected".into())) }
}

fn parse_pipeline(characters: &mut Characters<'_>) -> Result<Pipeline, SyntaxError> {
    let negated = take(characters, "! ");
    let mut commands = vec![parse_command(characters)?];
    loop {
        skip_blanks(characters);
        let mut ahead = characters.clone();
        if ahead.next() != Some('|') || ahead.peek() == Some(&'|') {
            return Ok(Pipeline { negated, commands });
        }
        *characters = ahead;
        while characters.next_if(|character| character.is_whitespace()).is_some() {}
        commands.push(parse_command(characters)?);
    }
}

fn parse_command(characters: &mut Characters<'_>) -> Result<Command, SyntaxError> {
    let mut command = Command::default();
    skip_blanks(characters);
    if take(characters, "(") {
        command.group = Some(parse_group(characters, ')')?);
    } else if take(characters, "{ ") || take(characters, "{\n") {
        command.group = Some(parse_group(characters, '}')?);
    }
    loop {
        skip_blanks(characters);
        if let Some(redirect) = parse_redirect(characters)? {
            command.redirects.push(redirect);
            continue;
        }
        match characters.peek() {
            None | Some('\n' | ';' | '&' | '|' | ')') => break,
            Some(other) if command.group.is_some() => return Err(SyntaxError(format!("\"{other}\" unexpected"))),
            Some('(') => return Err(SyntaxError("\"(\" unexpected".into())),
            Some('}') if command.words.is_empty() => break,
            Some(_) => add_word(&mut command, parse_word(characters)?)?,
        }
    }
    let empty = command.words.is_empty() && command.assignments.is_empty() && command.group.is_none();
    if empty && command.redirects.is_empty() {
        let found = characters.peek().map_or("end of file".into(), |character| format!("\"{character}\""));
        return Err(SyntaxError(format!("{found} unexpected")));
    }
    Ok(command)
}

fn parse_group(characters: &mut Characters<'_>, end: char) -> Result<List, SyntaxError> {
    let list = parse_list(characters, Some(end))?;
    characters.next();
    Ok(list)
}

fn add_word(command: &mut Command, word: Word) -> Result<(), SyntaxError> {
    if command.words.is_empty() {
        if let [Part::Text(text)] = word.0.as_slice()
            && ["if", "for", "while", "until", "case", "function"].contains(&text.as_str())
        {
            return Err(SyntaxError(format!("\"{text}\" is not supported here")));
        }
        if let Some((name, value)) = assignment(&word) {
            command.assignments.push((name, value));
            return Ok(());
        }
    }
    command.words.push(word);
    Ok(())
}

fn assignment(word: &Word) -> Option<(String, Word)> {
    let Some(Part::Text(text)) = word.0.first() else { return None };
    let (name, rest) = text.split_once('=')?;
    let valid = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    let mut value = vec![Part::Text(rest.to_owned())];
    value.extend_from_slice(&word.0[1..]);
    valid.then(|| (name.to_owned(), Word(value)))
}

fn parse_redirect(characters: &mut Characters<'_>) -> Result<Option<Redirect>, SyntaxError> {
    let mut ahead = characters.clone();
    let number = ahead.next_if(char::is_ascii_digit).and_then(|digit| digit.to_digit(10)).map(|digit| digit as u8);
    match ahead.next_if(|character| ['<', '>'].contains(character)) {
        None => return Ok(None),
        Some('<') => {
            if ahead.peek() == Some(&'<') {
                return Err(SyntaxError("here-documents are not supported here".into()));
            }
            *characters = ahead;
            skip_blanks(characters);
            return Ok(Some(Redirect::Input(parse_word(characters)?)));
        }
        Some(_) => *characters = ahead,
    }
    let from = number.unwrap_or(1);
    let append = take(characters, ">");
    if !append && take(characters, "&") {
        let target = characters.next().and_then(|character| character.to_digit(10));
        let target = target.ok_or_else(|| SyntaxError("Bad fd number".into()))?;
        return Ok(Some(Redirect::Duplicate(from, target as u8)));
    }
    skip_blanks(characters);
    Ok(Some(Redirect::Output(from, parse_word(characters)?, append)))
}

fn parse_word(characters: &mut Characters<'_>) -> Result<Word, SyntaxError> {
    let mut word = Word::default();
    if characters.peek() == Some(&'~') {
        let mut ahead = characters.clone();
        ahead.next();
        if ahead.peek().is_none_or(|next| *next == '/' || next.is_whitespace()) {
            *characters = ahead;
            word.0.push(Part::Variable("HOME".into(), None, true));
        }
    }
    let mut started = !word.0.is_empty();
    while let Some(&character) = characters.peek() {
        match character {
            ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
            '\'' => parse_single_quotes(characters, &mut word)?,
            '"' => parse_double_quotes(characters, &mut word)?,
            '$' => parse_dollar(characters, &mut word, false)?,
            '`' => return Err(SyntaxError("backquotes are not supported here".into())),
            '\\' => {
                characters.next();
                if let Some(escaped) = characters.next().filter(|escaped| *escaped != '\n') {
                    push(&mut word, escaped);
                }
            }
            other => {
                characters.next();
                push(&mut word, other);
            }
        }
        started = true;
    }
    if started { Ok(word) } else { Err(SyntaxError("word expected".into())) }
}

fn push(word: &mut Word, character: char) {
    match word.0.last_mut() {
        Some(Part::Text(text)) => text.push(character),
        _ => word.0.push(Part::Text(character.into())),
    }
}

fn parse_single_quotes(characters: &mut Characters<'_>, word: &mut Word) -> Result<(), SyntaxError> {
    characters.next();
    word.0.push(Part::Text(String::new()));
    loop {
        match characters.next() {
            None => return Err(SyntaxError("Unterminated quoted string".into())),
            Some('\'') => return Ok(()),
            Some(other) => push(word, other),
        }
    }
}

fn parse_double_quotes(characters: &mut Characters<'_>, word: &mut Word) -> Result<(), SyntaxError> {
    characters.next();
    word.0.push(Part::Text(String::new()));
    loop {
        match characters.peek() {
            None => return Err(SyntaxError("Unterminated quoted string".into())),
            Some('"') => {
                characters.next();
                return Ok(());
            }
            Some('$') => parse_dollar(characters, word, true)?,
            Some('\\') => {
                characters.next();
                match characters.next() {
                    Some('\n') | None => {}
                    Some(escaped @ ('$' | '`' | '"' | '\\')) => push(word, escaped),
                    Some(other) => {
                        push(word, '\\');
                        push(word, other);
                    }
                }
            }
            Some(&other) => {
                characters.next();
                push(word, other);
            }
        }
    }
}

fn parse_dollar(characters: &mut Characters<'_>, word: &mut Word, quoted: bool) -> Result<(), SyntaxError> {
    characters.next();
    if take(characters, "(") {
        word.0.push(Part::Substitution(parse_group(characters, ')')?, quoted));
        return Ok(());
    }
    if take(characters, "{") {
        let mut inside = String::new();
        loop {
            match characters.next() {
                None => return Err(SyntaxError("Missing '}'".into())),
                Some('}') => break,
                Some(other) => inside.push(other),
            }
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
            None => (inside, None),
        };
        word.0.push(Part::Variable(name, default, quoted));
        return Ok(());
    }
    let mut name = String::new();
    if let Some(special) = characters.next_if(|next| next.is_ascii_digit() || ['?', '$', '@', '*'].contains(next)) {
        name.push(special);
    } else {
        while let Some(next) = characters.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
            name.push(next);
        }
    }
    if name.is_empty() {
        push(word, '$');
    } else {
        word.0.push(Part::Variable(name, None, quoted));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<String> {
        let list = parse(script).unwrap();
        list.0[0].1.commands[0]
            .words
            .iter()
            .map(|word| {
                let text = |part: &Part| match part {
                    Part::Text(text) => text.clone(),
                    Part::Variable(name, ..) => format!("<{name}>"),
                    Part::Substitution(..) => "<()>".into(),
                };
                word.0.iter().map(text).collect()
            })
            .collect()
    }

    #[test]
    fn quoting() {
        assert_eq!(
            words(r#"echo 'a  b' "c $HOME" d\ e "\"x\"" '' # no"#),
            ["echo", "a  b", "c <HOME>", "d e", "\"x\"", ""]
        );
        assert_eq!(words("echo a'b'\"c\"d$(id -un)"), ["echo", "abcd<()>"]);
        assert_eq!(words("cat ~/x a~b"), ["cat", "<HOME>/x", "a~b"]);
        assert_eq!(words("a \\\n b"), ["a", "b"]);
    }

    #[test]
    fn lists_and_pipes() {
        let list = parse("a && b || c; d | e\nf").unwrap();
        let connectors: Vec<Connector> = list.0.iter().map(|(connector, _)| *connector).collect();
        use Connector::{Always, And, Or};
        assert_eq!(connectors, [Always, And, Or, Always, Always]);
        assert_eq!(list.0[3].1.commands.len(), 2);
        assert!(parse("! a").unwrap().0[0].1.negated);
    }

    #[test]
    fn redirections() {
        let list = parse("a >/dev/null 2>&1 <in 2>>log").unwrap();
        let redirects = &list.0[0].1.commands[0].redirects;
        assert_eq!(redirects.len(), 4);
        assert_eq!(redirects[1], Redirect::Duplicate(2, 1));
        assert!(matches!(redirects[3], Redirect::Output(2, _, true)));
    }

    #[test]
    fn groups_and_assignments() {
        let list = parse("{ a; b; } 2>/dev/null; (c); X=1 Y=\"$Z\" d").unwrap();
        assert_eq!(list.0[0].1.commands[0].group.as_ref().unwrap().0.len(), 2);
        assert_eq!(list.0[2].1.commands[0].assignments.len(), 2);
    }

    #[test]
    fn nonsense_is_refused() {
        for script in ["'", "\"", "a &&", "| a", "a || ;", "(a", "a )", "for x in y", "a &", "cat <<E"] {
            assert!(parse(script).is_err(), "{script}");
        }
    }
}
