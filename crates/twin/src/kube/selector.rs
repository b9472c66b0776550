//! Label and field selectors.

use serde_json::Value;

use super::{
    failure::Failure,
    object::{at, text},
};

/// One requirement on labels.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// What a list or a watch is limited to.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    /// The namespace; all of them if absent.
    pub(super) namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

impl Selector {
    /// Reads the query parameters `labelSelector` and `fieldSelector`.
    pub(super) fn parse(
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
        custom_resource: bool,
    ) -> Result<Self, Failure> {
        let mut selector = Self { namespace: namespace.map(str::to_owned), ..Self::default() };
        for requirement in split(labels) {
            let parsed = parse_requirement(&requirement).ok_or_else(|| {
                Failure::bad_request(format!(
                    "unable to parse requirement: found '{requirement}', expected: identifier"
                ))
            })?;
            selector.labels.push(parsed);
        }
        for requirement in fields.split(',').map(str::trim).filter(|each| !each.is_empty()) {
            let (key, equal, value) = parse_equality(requirement).ok_or_else(|| {
                Failure::bad_request(format!("invalid selector: '{requirement}'; can't understand it"))
            })?;
            if custom_resource && !matches!(key, "metadata.name" | "metadata.namespace") {
                return Err(Failure::bad_request(format!("field label not supported: {key}")));
            }
            selector.fields.push((format!("/{}", key.replace('.', "/")), equal, value.to_owned()));
        }
        Ok(selector)
    }

    /// The only name that can match, if the fields say so.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields.iter().find(|(key, equal, _)| key == "/metadata/name" && *equal).map(|(_, _, name)| name.as_str())
    }

    /// Whether the object is meant.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.namespace.as_deref().is_none_or(|wanted| text(object, "/metadata/namespace") == wanted)
            && self.labels.iter().all(|requirement| requirement.matches(labels))
            && self.fields.iter().all(|(pointer, equal, wanted)| (field(object, pointer) == *wanted) == *equal)
    }
}

/// A field's value as selectors see it: booleans and numbers are compared by their text.
fn field(object: &Value, pointer: &str) -> String {
    match at(object, pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(value)) => value.to_string(),
        // `spec.unschedulable` is the one boolean that people select nodes by, and its absence means false.
        None if pointer == "/spec/unschedulable" => "false".into(),
        _ => String::new(),
    }
}

impl Requirement {
    fn matches(&self, labels: &Value) -> bool {
        let value = |key: &str| labels.get(key).and_then(Value::as_str);
        match self {
            Self::In(key, wanted) => value(key).is_some_and(|value| wanted.iter().any(|each| each == value)),
            Self::NotIn(key, refused) => value(key).is_none_or(|value| refused.iter().all(|each| each != value)),
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
        }
    }
}

/// Splits at the commas that are not inside parentheses.
fn split(labels: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0usize;
    for character in labels.chars() {
        match character {
            ',' if depth == 0 => parts.push(String::new()),
            _ => {
                match character {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if let Some(part) = parts.last_mut() {
                    part.push(character);
                }
            }
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn parse_requirement(text: &str) -> Option<Requirement> {
    if let Some(rest) = text.strip_suffix(')') {
        let (head, values) = rest.split_once('(')?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => Some(Requirement::In(key.trim().into(), values)),
            "notin" => Some(Requirement::NotIn(key.trim().into(), values)),
            _ => None,
        };
    }
    if let Some((key, equal, value)) = parse_equality(text) {
        let (key, values) = (key.to_owned(), vec![value.to_owned()]);
        return Some(if equal { Requirement::In(key, values) } else { Requirement::NotIn(key, values) });
    }
    let (key, absent) = match text.strip_prefix('!') {
        Some(key) => (key.trim(), true),
        None => (text, false),
    };
    if key.is_empty() || key.contains(char::is_whitespace) {
        return None;
    }
    Some(if absent { Requirement::Absent(key.into()) } else { Requirement::Exists(key.into()) })
}

fn parse_equality(text: &str) -> Option<(&str, bool, &str)> {
    let (key, equal, value) = if let Some((key, value)) = text.split_once("!=") {
        (key, false, value)
    } else if let Some((key, value)) = text.split_once("==") {
        (key, true, value)
    } else {
        let (key, value) = text.split_once('=')?;
        (key, true, value)
    };
    (!key.trim().is_empty()).then_some((key.trim(), equal, value.trim()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_select_by_equality_sets_and_existence() {
        let object = json!({"metadata": {"labels": {"tier": "web", "zone": "1"}}});
        for (labels, expected) in [
            ("", true),
            ("tier=web", true),
            ("tier==web,zone=1", true),
            ("tier!=web", false),
            ("color!=red", true),
            ("tier in (web, db),zone", true),
            ("tier notin (web,db)", false),
            ("!color", true),
            ("!tier", false),
        ] {
            let selector = Selector::parse(None, labels, "", true).expect(labels);
            assert_eq!(selector.matches(&object), expected, "{labels}");
        }
        assert!(Selector::parse(None, "a b", "", true).is_err());
    }

    #[test]
    fn fields_select_by_name_and_custom_resources_know_no_others() {
        let selector = Selector::parse(None, "", "metadata.name=kcm", true).expect("known field");
        assert_eq!(selector.name(), Some("kcm"));
        assert!(selector.matches(&json!({"metadata": {"name": "kcm"}})));
        assert!(!selector.matches(&json!({"metadata": {"name": "other"}})));
        assert!(Selector::parse(None, "", "spec.release=x", true).is_err());
        let pods = Selector::parse(None, "", "spec.nodeName=a,status.phase!=Succeeded", false).expect("known fields");
        assert!(pods.matches(&json!({"spec": {"nodeName": "a"}})));
    }
}
