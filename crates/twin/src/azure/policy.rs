//! Azure Policy: assignments of a few built-in definitions that deny, on the subscription or a resource group.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{
    call::{Answer, Call, Refusal, Reply},
    locks,
};
use crate::World;

/// The type of a resource group, as policies see it.
pub(super) const GROUP: &str = "Microsoft.Resources/subscriptions/resourceGroups";

/// What a definition looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A resource has the tag `tagName`.
    Tag,
    /// A resource group has the tag `tagName`.
    GroupTag,
    /// A resource has the tag `tagName` with the value `tagValue`.
    TagValue,
    /// A resource is in one of `listOfAllowedLocations`.
    Locations,
}

/// A definition that every tenant has.
struct Definition {
    name: &'static str,
    display_name: &'static str,
    rule: Rule,
}

/// Names, display names and rules of built-in definitions (Azure documentation: list of built-in policy definitions).
static DEFINITIONS: LazyLock<[Definition; 4]> = LazyLock::new(|| {
    let definition = |name, display_name, rule| Definition { name, display_name, rule };
    [
        definition("871b6d14-10aa-478d-b590-94f262ecfa99", "Require a tag on resources", Rule::Tag),
        definition("96670d01-0a4d-4649-9c89-2d3abc0a5025", "Require a tag on resource groups", Rule::GroupTag),
        definition("1e30110a-5ceb-460c-a204-c1c3969c6d62", "Require a tag and its value on resources", Rule::TagValue),
        definition("e56962a6-4747-49cd-b67b-bf8b01975c4c", "Allowed locations", Rule::Locations),
    ]
});

impl Definition {
    fn id(&self) -> String {
        format!("/providers/Microsoft.Authorization/policyDefinitions/{}", self.name)
    }

    fn of(id: &str) -> Option<&'static Self> {
        DEFINITIONS.iter().find(|definition| definition.id().eq_ignore_ascii_case(id))
    }
}

/// `GET .../policyAssignments`: those on the scope and above it.
pub(super) fn list(world: &World, call: &Call) -> Answer {
    let scope = locks::scope(call, 3);
    let above = |assignment: &&Value| {
        assignment["properties"]["scope"].as_str().is_some_and(|of| locks::inside(&scope, &of.to_lowercase()))
    };
    let assignments: Vec<&Value> = world.azure.policies.values().filter(above).collect();
    Ok(Reply::new(200, &json!({"value": assignments})))
}

/// `GET`, `PUT` and `DELETE` of one assignment.
pub(super) fn one(world: &mut World, call: &Call) -> Answer {
    let key = format!("/{}", call.lower.join("/"));
    let id = format!("/{}", call.segments.join("/"));
    match call.method.as_str() {
        "GET" => {
            let text = format!("The policy assignment '{}' is not found.", call.path);
            let missing = || Refusal::new(404, "PolicyAssignmentNotFound", text);
            world.azure.policies.get(&key).map(|assignment| Reply::new(200, assignment)).ok_or_else(missing)
        }
        "PUT" => {
            locks::check_scope(world, &locks::scope(call, 4))?;
            let mut properties = call.json()?["properties"].take();
            let definition = properties["policyDefinitionId"].as_str().unwrap_or_default();
            if Definition::of(definition).is_none() {
                return Err(Refusal::unsupported(&format!("the policy definition '{definition}'")));
            }
            let name = call.segments.last().cloned().unwrap_or_default();
            properties["scope"] = json!(format!("/{}", call.segments[..call.segments.len() - 4].join("/")));
            if !properties["displayName"].is_string() {
                properties["displayName"] = json!(name);
            }
            let kind = "Microsoft.Authorization/policyAssignments";
            let assignment = json!({"id": id, "type": kind, "name": name, "properties": properties});
            world.azure.policies.insert(key, assignment.clone());
            world.ledger.change(world.now, "arm", "created", id);
            Ok(Reply::new(201, &assignment))
        }
        "DELETE" => {
            let removed = world.azure.policies.remove(&key);
            if removed.is_some() {
                world.ledger.change(world.now, "arm", "deleted", id);
            }
            Ok(Reply::empty(if removed.is_some() { 200 } else { 204 }))
        }
        _ => Err(Refusal::method(call)),
    }
}

/// Refuses a write that an assigned policy denies: `wanted` has the tags and the location that `key` (a lower-case id) would
/// have. Tags that are written at their scope are judged as well (guess).
pub(super) fn check(world: &World, key: &str, kind: &str, name: &str, wanted: &Value) -> Result<(), Refusal> {
    let violations: Vec<(Value, Value)> = world
        .azure
        .policies
        .values()
        .filter(|assignment| {
            assignment["properties"]["scope"].as_str().is_some_and(|scope| locks::inside(key, &scope.to_lowercase()))
        })
        .filter_map(|assignment| {
            let definition = Definition::of(assignment["properties"]["policyDefinitionId"].as_str()?)?;
            let expression = violation(definition.rule, &assignment["properties"]["parameters"], kind, wanted)?;
            Some(told(assignment, definition, &expression))
        })
        .collect();
    if violations.is_empty() {
        return Ok(());
    }
    let (identifiers, infos): (Vec<Value>, Vec<Value>) = violations.into_iter().unzip();
    let text =
        format!("Resource '{name}' was disallowed by policy. Policy identifiers: '{}'.", Value::Array(identifiers));
    Err(Refusal {
        target: Some(name.into()),
        additional_info: Some(Box::new(Value::Array(infos))),
        ..Refusal::new(403, "RequestDisallowedByPolicy", text)
    })
}

/// The expression by which a rule denies; nothing if it does not. Names of tags are compared without case (Azure
/// documentation).
fn violation(rule: Rule, parameters: &Value, kind: &str, wanted: &Value) -> Option<Value> {
    let is_group = kind.eq_ignore_ascii_case(GROUP);
    if is_group != (rule == Rule::GroupTag) {
        return None;
    }
    let parameter = |name: &str| &parameters[name]["value"];
    let no_tags = Map::new();
    let tags = wanted["tags"].as_object().unwrap_or(&no_tags);
    let name = parameter("tagName").as_str().unwrap_or_default();
    let tag = tags.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let field = |path: &str, operator: &str, result: &str, target: &Value| {
        let value = if path == "location" { &wanted["location"] } else { tag.unwrap_or(&Value::Null) };
        let mut expression = json!({
            "result": result, "expressionKind": "Field", "expression": path, "path": path, "targetValue": target,
            "operator": operator,
        });
        if !value.is_null() {
            expression["expressionValue"] = value.clone();
        }
        expression
    };
    let path = format!("tags[{name}]");
    match rule {
        Rule::Tag | Rule::GroupTag => tag.is_none().then(|| field(&path, "Exists", "True", &json!("false"))),
        Rule::TagValue => {
            let value = parameter("tagValue");
            (tag != Some(value)).then(|| field(&path, "Equals", "False", value))
        }
        Rule::Locations => {
            let allowed = parameter("listOfAllowedLocations");
            let location = wanted["location"].as_str()?.to_lowercase().replace(' ', "");
            let is_allowed = allowed.as_array().into_iter().flatten().any(|allowed| *allowed == json!(location));
            (!is_allowed).then(|| field("location", "NotIn", "True", allowed))
        }
    }
}

/// What the answer says of one violation, in its message and beside it (Azure documentation: errors of policy enforcement,
/// and those of Azure Automation with the whole answer).
fn told(assignment: &Value, definition: &Definition, expression: &Value) -> (Value, Value) {
    let properties = &assignment["properties"];
    let identifier = json!({
        "policyAssignment": {"name": properties["displayName"], "id": assignment["id"]},
        "policyDefinition": {"name": definition.display_name, "id": definition.id(), "version": "1.0.1"},
    });
    let info = json!({
        "policyDefinitionDisplayName": definition.display_name,
        "evaluationDetails": {"evaluatedExpressions": [expression]},
        "policyDefinitionId": definition.id(),
        "policyDefinitionName": definition.name,
        "policyDefinitionEffect": "deny",
        "policyAssignmentId": assignment["id"],
        "policyAssignmentName": assignment["name"],
        "policyAssignmentDisplayName": properties["displayName"],
        "policyAssignmentScope": properties["scope"],
        "policyAssignmentParameters": properties["parameters"],
    });
    (identifier, json!({"type": "PolicyViolation", "info": info}))
}
