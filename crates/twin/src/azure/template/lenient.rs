//! JSON as Resource Manager reads it in deployments: with comments, trailing commas, line breaks in strings, and names
//! without quotes.
//!
//! The Azure CLI puts the file of the template into the body of its request as it is, after an unquoted `template:`
//! (observed with Azure CLI 2.91.0).

use std::{iter::Peekable, str::Chars};

use serde_json::Value;

/// Reads the body of a deployment.
pub(in crate::azure) fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&strict(text))
}

/// The same as strict JSON; what is not even lenient JSON stays wrong.
fn strict(text: &str) -> String {
    let mut strict = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '"' | '\'' => string(&mut strict, &mut rest, character),
            '/' if rest.peek() == Some(&'/') => while rest.next_if(|next| *next != '\n').is_some() {},
            '/' if rest.peek() == Some(&'*') => block_comment(&mut rest),
            '}' | ']' => {
                let before = strict.trim_end();
                if before.ends_with(',') {
                    strict.truncate(before.len() - 1);
                }
                strict.push(character);
            }
            _ if character.is_alphabetic() || "_$".contains(character) => word(&mut strict, &mut rest, character),
            _ => strict.push(character),
        }
    }
    strict
}

fn string(strict: &mut String, rest: &mut Peekable<Chars<'_>>, quote: char) {
    strict.push('"');
    while let Some(character) = rest.next() {
        match character {
            '\\' if rest.next_if_eq(&'\'').is_some() => strict.push('\''),
            '\\' => {
                strict.push(character);
                strict.extend(rest.next());
            }
            _ if character == quote => break,
            '"' => strict.push_str("\\\""),
            '\n' => strict.push_str("\\n"),
            '\r' => strict.push_str("\\r"),
            '\t' => strict.push_str("\\t"),
            _ => strict.push(character),
        }
    }
    strict.push('"');
}

fn block_comment(rest: &mut Peekable<Chars<'_>>) {
    rest.next();
    while let Some(character) = rest.next() {
        if character == '*' && rest.next_if_eq(&'/').is_some() {
            break;
        }
    }
}

/// A name of a field gets quotes; `true`, `false`, `null` and the `e` of a number do not.
fn word(strict: &mut String, rest: &mut Peekable<Chars<'_>>, first: char) {
    let mut word = String::from(first);
    while let Some(next) = rest.next_if(|next| next.is_alphanumeric() || "_$-.".contains(*next)) {
        word.push(next);
    }
    let mut blank = String::new();
    while let Some(next) = rest.next_if(|next| next.is_whitespace()) {
        blank.push(next);
    }
    let named = rest.peek() == Some(&':');
    strict.push_str(&if named { format!("\"{word}\"") } else { word });
    strict.push_str(&blank);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_azure_cli_sends_is_read() {
        let text = r#"{"properties": {"mode": "Incremental", template: {
            // the file, as it is: "with" 'quotes'
            "url": "https://host/path", /* nothing, */ 'single': 'it\'s "quoted"', "lines": "a
b", "numbers": [1e3, -2, true, null,],
        }}}"#;
        let template = json!({
            "url": "https://host/path", "single": "it's \"quoted\"", "lines": "a\nb", "numbers": [1000.0, -2, true, null],
        });
        let read = parse(text).expect("lenient JSON");
        assert_eq!(read, json!({"properties": {"mode": "Incremental", "template": template}}));
        for broken in ["{", "{a b: 1}", "{\"a\": }", "", "{\"a\": [1,,2]}", "{\"a\": \"never ends}"] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }
}
