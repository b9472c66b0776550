//! Templates: their parameters, and the resources that they describe.
//!
//! Source: Azure documentation, "Understand the structure and syntax of ARM templates".

mod expression;
mod functions;
mod lenient;

use std::{cell::Cell, collections::BTreeMap};

use serde_json::{Map, Value, json};

pub(super) use self::{
    expression::{NoValue, Scope},
    lenient::parse,
};
use super::call::Refusal;

/// Resources in one template, and turns of one loop (Azure documentation).
const MOST_RESOURCES: u64 = 800;

/// A template with its parameters, its resources in the order in which they are written.
#[derive(Debug, Clone)]
pub(super) struct Template {
    parameters: BTreeMap<String, Value>,
    variables: Map<String, Value>,
    outputs: Map<String, Value>,
    pub(super) resources: Vec<Planned>,
    /// The parameters as a deployment shows them: without what is secret.
    pub(super) shown_parameters: Value,
    group: Value,
    deployment: Value,
}

/// A resource of a template.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) id: String,
    /// The id in lower case.
    pub(super) key: String,
    /// `Microsoft.Network/virtualNetworks/subnets`.
    pub(super) kind: String,
    /// `vnet/nodes`.
    pub(super) name: String,
    pub(super) api_version: String,
    /// Those that must be there first, by their position.
    pub(super) depends_on: Vec<usize>,
    /// The names of its loops, and its turn in each.
    turns: Vec<(String, u64)>,
    dependencies: Vec<String>,
    written: Map<String, Value>,
}

/// What Azure says about a template that makes no sense.
pub(super) fn invalid(why: &str) -> Refusal {
    Refusal::new(400, "InvalidTemplate", format!("Deployment template validation failed: '{why}'."))
}

fn refusal(no_value: NoValue) -> Refusal {
    match no_value {
        NoValue::Invalid(why) => invalid(&format!("Unable to process template language expressions: {why}")),
        NoValue::Missing(_) | NoValue::NotYet => {
            invalid("The template function 'reference' is not expected at this location.")
        }
    }
}

impl Template {
    /// Reads the `properties` of a deployment called `name` in `group`.
    pub(super) fn read(group: Value, name: &str, properties: &Value) -> Result<Self, Refusal> {
        let template = &properties["template"];
        if !template.is_object() {
            let text = "The request content is invalid: the deployment has no template. A templateLink is not imitated by the twin.";
            return Err(Refusal::new(400, "InvalidRequestContent", text));
        }
        let part = |name: &str| template[name].as_object().cloned().unwrap_or_default();
        let deployment = json!({"name": name, "properties": {"mode": properties["mode"]}});
        let mut read = Self {
            parameters: BTreeMap::new(),
            variables: part("variables"),
            outputs: part("outputs"),
            resources: Vec::new(),
            shown_parameters: json!({}),
            group,
            deployment,
        };
        read.read_parameters(&part("parameters"), &properties["parameters"])?;
        if let Some(copies) = read.variables.get("copy").cloned() {
            let made = read.value(&json!({"copy": copies}))?;
            read.variables.remove("copy");
            read.variables.extend(made.as_object().cloned().unwrap_or_default());
        }
        let written = match &template["resources"] {
            // With symbolic names, resources are an object (Azure documentation, languageVersion 2.0).
            Value::Object(resources) => resources.values().cloned().collect(),
            resources => resources.as_array().cloned().unwrap_or_default(),
        };
        for resource in &written {
            read.add(resource, None)?;
        }
        read.connect()?;
        Ok(read)
    }

    fn read_parameters(&mut self, declared: &Map<String, Value>, given: &Value) -> Result<(), Refusal> {
        let given = given.as_object().cloned().unwrap_or_default();
        let unknown: Vec<&str> =
            given.keys().map(String::as_str).filter(|name| find(declared, name).is_none()).collect();
        if !unknown.is_empty() {
            return Err(invalid(&format!(
                "The template parameters '{}' in the parameters file are not valid; they are not present in the original \
                 template and can therefore not be provided at deployment time. The only supported parameters for this \
                 template are '{}'",
                unknown.join(", "),
                declared.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
            )));
        }
        for (name, declaration) in declared {
            let value = match find(&given, name).and_then(|parameter| parameter.get("value")) {
                Some(value) => value.clone(),
                None => {
                    let missing = || {
                        invalid(&format!(
                            "The value for the template parameter '{name}' is not provided. Please see https://aka.ms/arm-create-parameter-file for usage details."
                        ))
                    };
                    self.value(declaration.get("defaultValue").ok_or_else(missing)?)?
                }
            };
            check_parameter(name, declaration, &value)?;
            let kind = declaration["type"].as_str().unwrap_or_default();
            let mut shown = json!({"type": type_name(kind)});
            if !kind.to_lowercase().starts_with("secure") {
                shown["value"] = value.clone();
            }
            self.shown_parameters[name] = shown;
            self.parameters.insert(name.to_lowercase(), value);
        }
        Ok(())
    }

    /// What stands in the template outside of any resource; no resource can be referred to.
    fn value(&self, written: &Value) -> Result<Value, Refusal> {
        let nothing = |id: &str| Err(NoValue::Missing(id.into()));
        self.scope(&[], &nothing).value(written).map_err(refusal)
    }

    fn scope<'a>(&'a self, turns: &[(String, u64)], find: &'a dyn Fn(&str) -> Result<Value, NoValue>) -> Scope<'a> {
        Scope {
            parameters: &self.parameters,
            variables: &self.variables,
            turns: turns.to_vec(),
            group: &self.group,
            deployment: &self.deployment,
            find,
            depth: Cell::new(0),
        }
    }

    /// Adds a resource of the template, or of another resource in it: as often as its loop says, and if its condition
    /// holds.
    fn add(&mut self, resource: &Value, parent: Option<&Planned>) -> Result<(), Refusal> {
        let name = resource["copy"]["name"].as_str().unwrap_or_default().to_lowercase();
        let nothing = |id: &str| Err(NoValue::Missing(id.into()));
        let outer = parent.map(|parent| parent.turns.clone()).unwrap_or_default();
        let turns = match resource.get("copy") {
            None => vec![outer],
            Some(copy) => {
                let count = self.scope(&outer, &nothing).count(&copy["count"]).map_err(refusal)?;
                let turn = |turn| outer.iter().cloned().chain([(name.clone(), turn)]).collect();
                (0..count).map(turn).collect::<Vec<_>>()
            }
        };
        for turns in turns {
            let planned = {
                let scope = self.scope(&turns, &nothing);
                let head = |field: &str| scope.value(&resource[field]).map_err(refusal);
                if head("condition")? == false || head("existing")? == true {
                    continue;
                }
                let mut planned = self.plan(&head("type")?, &head("name")?, &head("apiVersion")?, parent)?;
                let dependencies = head("dependsOn")?;
                let dependencies = dependencies.as_array().into_iter().flatten().filter_map(Value::as_str);
                planned.dependencies.extend(dependencies.map(str::to_lowercase));
                planned.written = resource.as_object().cloned().unwrap_or_default();
                planned.turns = turns;
                planned
            };
            if self.resources.iter().any(|other| other.key == planned.key) {
                return Err(invalid(&format!(
                    "The resource '{}' is defined multiple times in a template. Please see https://aka.ms/arm-syntax-resources for usage details.",
                    planned.id
                )));
            }
            if self.resources.len() as u64 >= MOST_RESOURCES {
                return Err(invalid(&format!(
                    "The number of template resources limit exceeded. Limit: '{MOST_RESOURCES}'"
                )));
            }
            self.resources.push(planned.clone());
            for child in resource["resources"].as_array().into_iter().flatten() {
                self.add(child, Some(&planned))?;
            }
        }
        Ok(())
    }

    fn plan(&self, kind: &Value, name: &Value, version: &Value, parent: Option<&Planned>) -> Result<Planned, Refusal> {
        let text = |value: &Value, field: &str| {
            let text = value.as_str().filter(|text| !text.is_empty()).map(String::from);
            text.ok_or_else(|| invalid(&format!("The template resource is missing the property '{field}'")))
        };
        let (mut kind, mut name) = (text(kind, "type")?, text(name, "name")?);
        let api_version = text(version, "apiVersion")?;
        if let Some(parent) = parent.filter(|_| !kind.contains('/')) {
            (kind, name) = (format!("{}/{kind}", parent.kind), format!("{}/{name}", parent.name));
        }
        let (provider, kinds) = kind.split_once('/').unwrap_or((&kind, ""));
        let (kinds, names): (Vec<&str>, Vec<&str>) = (kinds.split('/').collect(), name.split('/').collect());
        if kinds.len() != names.len() {
            return Err(invalid(&format!(
                "The template resource '{name}' for type '{kind}' has incorrect segment lengths. A nested resource type must \
                 have identical number of segments as its resource name. A root resource type must have segment length one \
                 greater than its resource name. Please see https://aka.ms/arm-syntax-resources for usage details."
            )));
        }
        let parts: String = kinds.iter().zip(names).map(|(kind, name)| format!("/{kind}/{name}")).collect();
        let id = format!("{}/providers/{provider}{parts}", self.group["id"].as_str().unwrap_or_default());
        Ok(Planned {
            key: id.to_lowercase(),
            id,
            kind,
            name,
            api_version,
            depends_on: Vec::new(),
            turns: Vec::new(),
            dependencies: Vec::new(),
            written: Map::new(),
        })
    }

    /// Finds what each resource depends on, and refuses circles.
    fn connect(&mut self) -> Result<(), Refusal> {
        for at in 0..self.resources.len() {
            let mut depends_on = Vec::new();
            for dependency in &self.resources[at].dependencies {
                let found: Vec<usize> =
                    (0..self.resources.len()).filter(|other| self.resources[*other].is_called(dependency)).collect();
                if found.is_empty() {
                    return Err(invalid(&format!(
                        "The resource '{dependency}' is not defined in the template. Please see https://aka.ms/arm-syntax for usage details."
                    )));
                }
                depends_on.extend(found);
            }
            self.resources[at].depends_on = depends_on;
        }
        let mut done = vec![false; self.resources.len()];
        while let Some(ready) =
            (0..done.len()).find(|at| !done[*at] && self.resources[*at].depends_on.iter().all(|other| done[*other]))
        {
            done[ready] = true;
        }
        match done.iter().position(|done| !done) {
            None => Ok(()),
            Some(at) => Err(invalid(&format!(
                "Circular dependency detected on resource: '{}'. Please see https://aka.ms/arm-syntax-resources for usage details.",
                self.resources[at].id
            ))),
        }
    }

    /// The position of the resource with this id or name.
    pub(super) fn position(&self, called: &str) -> Option<usize> {
        let called = called.to_lowercase();
        self.resources.iter().position(|resource| resource.is_called(&called))
    }

    /// The body of the request that makes a resource.
    pub(super) fn request(&self, at: usize, find: &dyn Fn(&str) -> Result<Value, NoValue>) -> Result<Value, NoValue> {
        let planned = &self.resources[at];
        let about_the_template =
            ["type", "name", "apiVersion", "dependsOn", "condition", "copy", "comments", "resources", "scope"];
        let mut written = planned.written.clone();
        written.retain(|field, _| !about_the_template.contains(&field.as_str()));
        let scope = Scope { turns: planned.turns.clone(), ..self.scope(&[], find) };
        scope.value(&Value::Object(written))
    }

    /// The outputs, once all resources are there.
    pub(super) fn outputs(&self, find: &dyn Fn(&str) -> Result<Value, NoValue>) -> Result<Value, NoValue> {
        let scope = self.scope(&[], find);
        let mut outputs = json!({});
        for (name, output) in &self.outputs {
            if output.get("condition").map(|condition| scope.value(condition)).transpose()? == Some(json!(false)) {
                continue;
            }
            let kind = output["type"].as_str().unwrap_or_default();
            outputs[name] = json!({"type": type_name(kind)});
            if !kind.to_lowercase().starts_with("secure") {
                outputs[name]["value"] = scope.value(&output["value"])?;
            }
        }
        Ok(outputs)
    }
}

impl Planned {
    /// Whether a text in lower case means this resource: its id, its type and name, its name, or its loop.
    fn is_called(&self, text: &str) -> bool {
        let without_group = self.key.split_once("/providers/").map(|(_, rest)| rest);
        self.key == text
            || without_group == Some(text)
            || self.name.eq_ignore_ascii_case(text)
            || format!("{}/{}", self.kind, self.name).eq_ignore_ascii_case(text)
            || self.turns.last().is_some_and(|(name, _)| name == text)
    }
}

/// The name of a type as Azure writes it.
fn type_name(kind: &str) -> &str {
    let known = ["String", "SecureString", "Int", "Bool", "Object", "SecureObject", "Array"];
    known.into_iter().find(|known| known.eq_ignore_ascii_case(kind)).unwrap_or(kind)
}

/// The entry with this name, in any case.
fn find<'a>(entries: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    entries.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn check_parameter(name: &str, declaration: &Value, value: &Value) -> Result<(), Refusal> {
    let kind = declaration["type"].as_str().unwrap_or_default();
    let fits = match kind.to_lowercase().as_str() {
        "string" | "securestring" => value.is_string(),
        "int" => value.is_i64(),
        "bool" => value.is_boolean(),
        "object" | "secureobject" => value.is_object(),
        "array" => value.is_array(),
        _ => return Err(invalid(&format!("The type '{kind}' of the template parameter '{name}' is not supported"))),
    };
    if !fits {
        let text = format!(
            "The provided value for the template parameter '{name}' is not valid. Expected a value of type '{kind}'"
        );
        return Err(invalid(&text));
    }
    if let Some(allowed) = declaration["allowedValues"].as_array().filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<String> =
            allowed.iter().map(|value| value.as_str().map_or(value.to_string(), String::from)).collect();
        return Err(invalid(&format!(
            "The provided value for the template parameter '{name}' is not valid. The value is not part of the allowed value(s): '{}'.",
            allowed.join(",")
        )));
    }
    let length = match value {
        Value::String(text) => i64::try_from(text.chars().count()).ok(),
        Value::Array(items) => i64::try_from(items.len()).ok(),
        _ => None,
    };
    for (rule, measured, least) in [
        ("minLength", length, true),
        ("maxLength", length, false),
        ("minValue", value.as_i64(), true),
        ("maxValue", value.as_i64(), false),
    ] {
        let (Some(limit), Some(measured)) = (declaration[rule].as_i64(), measured) else { continue };
        if (least && measured < limit) || (!least && measured > limit) {
            let text =
                format!("The provided value for the template parameter '{name}' is not valid. {rule} is '{limit}'");
            return Err(invalid(&text));
        }
    }
    Ok(())
}
