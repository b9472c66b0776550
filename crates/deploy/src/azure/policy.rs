//! Which Azure policy denies a request, what it misses, and which key of the configuration says it.

use std::fmt;

use serde_json::Value;

/// The denial of a request, by at least one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial(Vec<Violation>);

/// One policy that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Violation {
    /// The definition's display name: `Require a tag on resources`.
    policy: String,
    /// The assignment's display name, which its owner has given.
    assignment: String,
    /// What it misses; nothing where Azure does not say it to us.
    misses: Vec<Miss>,
}

/// What a policy misses in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Miss {
    /// A tag, with the value that it must have, if only one will do.
    Tag(String, Option<String>),
    /// Another region: one of these.
    Region(Vec<String>),
    /// Another machine size: one of these.
    Size(Vec<String>),
}

/// How deep errors are nested in errors, at most.
const DEPTH: u8 = 8;

impl Denial {
    /// Reads the answer: `additionalInfo` where there is one, else the names that stand in `message` (Azure documentation:
    /// errors of policy enforcement). Nothing if neither says anything.
    pub(super) fn of(body: &Value, message: &str) -> Option<Self> {
        let mut violations = Vec::new();
        collect(body, DEPTH, &mut violations);
        if violations.is_empty() {
            violations = named_in(message);
        }
        (!violations.is_empty()).then_some(Self(violations))
    }

    /// What to do next.
    pub(super) fn advice(&self) -> String {
        let mut advice: Vec<String> = Vec::new();
        for violation in &self.0 {
            let keys: Vec<String> = match violation.misses.as_slice() {
                [] => vec![format!(
                    "Ask whoever has assigned \"{}\" what it wants, or for an exemption; tags are set with azure.tags",
                    violation.assignment
                )],
                misses => misses.iter().map(Miss::key).collect(),
            };
            advice.extend(keys);
        }
        advice.dedup();
        format!("{}. Then repeat.", advice.join(". "))
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Violation { policy, assignment, misses }) in self.0.iter().enumerate() {
            let start = if index == 0 { "the" } else { "; the" };
            write!(formatter, "{start} Azure policy \"{policy}\", assigned as \"{assignment}\", forbids it")?;
            let misses: Vec<String> = misses.iter().map(ToString::to_string).collect();
            if !misses.is_empty() {
                write!(formatter, ": {}", misses.join(", "))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(name, None) => write!(formatter, "the tag {name} is missing"),
            Self::Tag(name, Some(value)) => write!(formatter, "the tag {name} is not {value:?}"),
            Self::Region(allowed) => write!(formatter, "the region is none of {}", allowed.join(", ")),
            Self::Size(allowed) => write!(formatter, "the machine size is none of {}", allowed.join(", ")),
        }
    }
}

impl Miss {
    /// What to set.
    fn key(&self) -> String {
        match self {
            // The one tag of ours that has a key of its own.
            Self::Tag(name, value) if name.eq_ignore_ascii_case("owner") => {
                format!("Set metadata.owner{} in the configuration", to(value.as_deref()))
            }
            Self::Tag(name, value) => format!("Set azure.tags.{name}{} in the configuration", to(value.as_deref())),
            Self::Region(_) => "Set azure.location to one of these in the configuration".to_owned(),
            Self::Size(_) => "Set vm_sizing to one of these in the configuration".to_owned(),
        }
    }
}

fn to(value: Option<&str>) -> String {
    value.map(|value| format!(" to {value:?}")).unwrap_or_default()
}

/// Every violation in an answer, however deep its error is nested; a message may itself be JSON with an error inside.
fn collect(value: &Value, depth: u8, found: &mut Vec<Violation>) {
    if depth == 0 {
        return;
    }
    match value {
        Value::Object(fields) => {
            if fields.get("type").and_then(Value::as_str) == Some("PolicyViolation") {
                found.push(violation(&value["info"]));
                return;
            }
            fields.values().for_each(|field| collect(field, depth - 1, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, depth - 1, found)),
        Value::String(text) if text.starts_with('{') => {
            if let Ok(inner) = serde_json::from_str::<Value>(text) {
                collect(&inner, depth - 1, found);
            }
        }
        _ => {}
    }
}

fn violation(info: &Value) -> Violation {
    let text = |key: &str| info[key].as_str().filter(|text| !text.is_empty());
    let policy = text("policyDefinitionDisplayName").or(text("policyDefinitionName")).unwrap_or("without a name");
    let assignment = text("policyAssignmentDisplayName").or(text("policyAssignmentName")).unwrap_or(policy);
    let expressions = info["evaluationDetails"]["evaluatedExpressions"].as_array();
    let mut misses: Vec<Miss> = expressions.into_iter().flatten().filter_map(missed).collect();
    // Whoever may not read policies is not told what was evaluated, but may be told the parameters.
    let parameter = |name: &str| info["policyAssignmentParameters"][name]["value"].as_str().map(str::to_owned);
    if let (true, Some(name)) = (misses.is_empty(), parameter("tagName")) {
        misses.push(Miss::Tag(name, parameter("tagValue")));
    }
    Violation { policy: policy.to_owned(), assignment: assignment.to_owned(), misses }
}

/// What one evaluated expression says that a configuration can change.
fn missed(expression: &Value) -> Option<Miss> {
    let path = expression["path"].as_str().or(expression["expression"].as_str())?;
    let target = &expression["targetValue"];
    let operator = expression["operator"].as_str().unwrap_or_default().to_ascii_lowercase();
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        items.chain(value.as_str()).map(str::to_owned).collect()
    };
    if let Some(name) = tag_of(path) {
        let wants_value = ["equals", "notequals"].contains(&operator.as_str());
        return Some(Miss::Tag(name.to_owned(), wants_value.then(|| target.as_str().map(str::to_owned)).flatten()));
    }
    let is_list = ["in", "notin", "equals", "notequals"].contains(&operator.as_str());
    match path.to_ascii_lowercase().as_str() {
        "location" if is_list => Some(Miss::Region(texts(target))),
        "microsoft.compute/virtualmachines/sku.name" if is_list => Some(Miss::Size(texts(target))),
        _ => None,
    }
}

/// The name in `tags[NAME]`, `tags['NAME']` or `tags.NAME` (Azure documentation: fields of policy rules).
fn tag_of(path: &str) -> Option<&str> {
    let in_brackets = path.strip_prefix("tags[").and_then(|rest| rest.strip_suffix(']'));
    let name = in_brackets.map(|name| name.trim_matches('\'')).or_else(|| path.strip_prefix("tags."))?;
    (!name.is_empty()).then_some(name)
}

/// The names that stand in the message as JSON: `Policy identifiers: '[...]'`.
fn named_in(message: &str) -> Vec<Violation> {
    let json = message.split_once("Policy identifiers: '").and_then(|(_, rest)| Some(rest.rsplit_once('\'')?.0));
    let identifiers: Value = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let named = identifiers.as_array().into_iter().flatten().filter_map(|identifier| {
        let name = |key: &str| identifier[key]["name"].as_str().map(str::to_owned);
        let policy = name("policyDefinition").or_else(|| name("policyAssignment"))?;
        let assignment = name("policyAssignment").unwrap_or_else(|| policy.clone());
        Some(Violation { policy, assignment, misses: Vec::new() })
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ArmError;

    /// The answer to a group without a tag, as Azure documentation shows it for another type.
    fn answer(info: &serde_json::Value) -> serde_json::Value {
        let identifiers = r#"[{"policyAssignment":{"name":"Cost centres","id":"/subscriptions/s/providers/Microsoft.Authorization/policyAssignments/a1"},"policyDefinition":{"name":"Require a tag on resource groups","id":"/providers/Microsoft.Authorization/policyDefinitions/96670d01"}}]"#;
        json!({"error": {
            "code": "RequestDisallowedByPolicy", "target": "g",
            "message": format!("Resource 'g' was disallowed by policy. Policy identifiers: '{identifiers}'."),
            "additionalInfo": info,
        }})
    }

    fn told(body: &serde_json::Value) -> String {
        let error = ArmError::from_response(403, body, "/subscriptions/s/resourceGroups/g");
        assert!(error.is_refusal());
        format!("{error}\n{}", error.advice())
    }

    fn info(expressions: &serde_json::Value) -> serde_json::Value {
        json!([{"type": "PolicyViolation", "info": {
            "policyDefinitionDisplayName": "Require a tag on resource groups",
            "evaluationDetails": {"evaluatedExpressions": expressions},
            "policyDefinitionName": "96670d01", "policyDefinitionEffect": "deny", "policyAssignmentName": "a1",
            "policyAssignmentDisplayName": "Cost centres", "policyAssignmentParameters": {"tagName": {"value": "CostCenter"}},
        }}])
    }

    #[test]
    fn the_policy_the_tag_and_the_key_are_named() {
        let of_type = json!({"result": "True", "expressionKind": "Field", "expression": "type", "path": "type",
            "expressionValue": "Microsoft.Resources/subscriptions/resourceGroups", "operator": "Equals",
            "targetValue": "Microsoft.Resources/subscriptions/resourceGroups"});
        let of_tag = json!({"result": "True", "expressionKind": "Field", "expression": "tags[CostCenter]",
            "path": "tags[CostCenter]", "targetValue": "false", "operator": "Exists"});
        insta::assert_snapshot!(told(&answer(&info(&json!([of_type, of_tag])))), @r#"
        resourceGroups/g: RequestDisallowedByPolicy: the Azure policy "Require a tag on resource groups", assigned as "Cost centres", forbids it: the tag CostCenter is missing
        Set azure.tags.CostCenter in the configuration. Then repeat.
        "#);
    }

    #[test]
    fn a_wanted_value_a_region_and_a_tag_of_ours_have_their_keys() {
        let expression = |path: &str, operator: &str, target: serde_json::Value| {
            json!({"result": "True",
            "expressionKind": "Field", "expression": path, "path": path, "operator": operator, "targetValue": target})
        };
        let expressions = json!([
            expression("tags['env']", "Equals", json!("prod")),
            expression("tags.Owner", "Exists", json!("false")),
            expression("location", "NotIn", json!(["westeurope", "northeurope"])),
        ]);
        insta::assert_snapshot!(told(&answer(&info(&expressions))), @r#"
        resourceGroups/g: RequestDisallowedByPolicy: the Azure policy "Require a tag on resource groups", assigned as "Cost centres", forbids it: the tag env is not "prod", the tag Owner is missing, the region is none of westeurope, northeurope
        Set azure.tags.env to "prod" in the configuration. Set metadata.owner in the configuration. Set azure.location to one of these in the configuration. Then repeat.
        "#);
    }

    #[test]
    fn who_may_not_read_policies_is_told_what_azure_tells() {
        let mut hidden = info(&json!([]));
        assert!(told(&answer(&hidden)).contains("the tag CostCenter is missing"));
        hidden[0]["info"]["policyAssignmentParameters"] = json!({});
        insta::assert_snapshot!(told(&answer(&hidden)), @r#"
        resourceGroups/g: RequestDisallowedByPolicy: the Azure policy "Require a tag on resource groups", assigned as "Cost centres", forbids it
        Ask whoever has assigned "Cost centres" what it wants, or for an exemption; tags are set with azure.tags. Then repeat.
        "#);
        assert_eq!(told(&answer(&serde_json::Value::Null)), told(&answer(&hidden)));
    }
}
