//! Custom resources against their `openAPIV3Schema`: pruning, defaults, validation.
//!
//! The rules of `x-kubernetes-validations` (CEL) are not evaluated: what only they forbid is accepted here.

use regex::Regex;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;

use super::failure::Cause;

/// Removes the fields that the schema does not know, and returns their paths.
pub(super) fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_fields(schema, object, "", true, &mut unknown);
    unknown
}

fn prune_fields(schema: &Value, value: &mut Value, path: &str, root: bool, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if preserves(schema) && schema.get("properties").is_none() {
                return;
            }
            let properties = schema.get("properties");
            let additional = schema.get("additionalProperties").filter(|each| **each != false);
            let mut kept = serde_json::Map::new();
            for (key, mut field) in std::mem::take(fields) {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                // Metadata has its own schema, which no CRD can change.
                let is_meta = root && matches!(key.as_str(), "apiVersion" | "kind" | "metadata");
                match properties.and_then(|properties| properties.get(&key)).or(additional) {
                    _ if is_meta => {}
                    Some(schema) => prune_fields(schema, &mut field, &at, false, unknown),
                    None if preserves(schema) => {}
                    None => {
                        unknown.push(at);
                        continue;
                    }
                }
                kept.insert(key, field);
            }
            *fields = kept;
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter_mut().enumerate() {
                    prune_fields(schema, item, &format!("{path}[{index}]"), false, unknown);
                }
            }
        }
        _ => {}
    }
}

fn preserves(schema: &Value) -> bool {
    // A schema without a type and without properties is `{}`: anything goes.
    schema["x-kubernetes-preserve-unknown-fields"] == true
        || schema["x-kubernetes-embedded-resource"] == true
        || schema["additionalProperties"] == true
}

/// Fills in the defaults of fields that are absent, or null where null is not allowed.
pub(super) fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (key, schema) in properties.into_iter().flatten() {
                let absent = fields.get(key).is_none_or(|field| field.is_null() && schema["nullable"] != true);
                match schema.get("default") {
                    Some(value) if absent => {
                        fields.insert(key.clone(), value.clone());
                    }
                    _ => {}
                }
                if let Some(field) = fields.get_mut(key) {
                    default(schema, field);
                }
            }
            if let Some(schema) = schema.get("additionalProperties").filter(|each| each.is_object()) {
                for (_, field) in fields.iter_mut() {
                    default(schema, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| default(schema, item));
            }
        }
        _ => {}
    }
}

/// Everything that is wrong with a value.
pub(super) fn validate(schema: &Value, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    validate_at(schema, value, "", &mut causes);
    causes
}

fn validate_at(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && (schema["nullable"] == true || path.is_empty()) {
        return;
    }
    if let Some(wanted) = wrong_type(schema, value) {
        let found = type_of(value);
        let why = format!("{path} in body must be of type {wanted}: \"{found}\"");
        causes.push(Cause {
            reason: "FieldValueTypeInvalid",
            field: path.into(),
            message: format!("Invalid value: \"{found}\": {why}"),
        });
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            field: path.into(),
            message: format!("Unsupported value: {value}: supported values: {}", allowed.join(", ")),
        });
    }
    match value {
        Value::String(text) => validate_text(schema, text, value, path, causes),
        Value::Number(number) => validate_number(schema, number.as_f64().unwrap_or(0.0), value, path, causes),
        Value::Array(items) => {
            validate_count(schema, items.len(), "items", ("minItems", "maxItems"), value, path, causes);
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    validate_at(schema, item, &format!("{path}[{index}]"), causes);
                }
            }
        }
        Value::Object(fields) => validate_fields(schema, fields, value, path, causes),
        _ => {}
    }
    validate_alternatives(schema, value, path, causes);
}

fn validate_fields(
    schema: &Value,
    fields: &serde_json::Map<String, Value>,
    value: &Value,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for required in super::object::list(schema, "/required").iter().filter_map(Value::as_str) {
        if !fields.contains_key(required) {
            causes.push(Cause::required(at(required)));
        }
    }
    validate_count(schema, fields.len(), "properties", ("minProperties", "maxProperties"), value, path, causes);
    for (key, field) in fields {
        let known = schema.get("properties").and_then(|properties| properties.get(key));
        let additional = schema.get("additionalProperties").filter(|each| each.is_object());
        if let Some(schema) = known.or(additional) {
            validate_at(schema, field, &at(key), causes);
        }
    }
}

fn validate_text(schema: &Value, text: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if schema["minLength"].as_u64().is_some_and(|least| length < least) {
        let why = format!("{path} in body should be at least {} chars long", schema["minLength"]);
        causes.push(Cause::invalid(path, value, why));
    }
    if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            field: path.into(),
            message: format!("Too long: may not be more than {} bytes", schema["maxLength"]),
        });
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text))
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body should match '{pattern}'")));
    }
    if schema["format"] == "date-time" && time::OffsetDateTime::parse(text, &Rfc3339).is_err() {
        causes.push(Cause::invalid(path, value, format!("{path} in body must be of type date-time: {value}")));
    }
}

fn validate_number(schema: &Value, number: f64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if schema["minimum"].as_f64().is_some_and(|least| number < least) {
        let why = format!("{path} in body should be greater than or equal to {}", schema["minimum"]);
        causes.push(Cause::invalid(path, value, why));
    }
    if schema["maximum"].as_f64().is_some_and(|most| number > most) {
        let why = format!("{path} in body should be less than or equal to {}", schema["maximum"]);
        causes.push(Cause::invalid(path, value, why));
    }
}

fn validate_count(
    schema: &Value,
    count: usize,
    what: &str,
    (least, most): (&str, &str),
    value: &Value,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    if schema[least].as_u64().is_some_and(|least| (count as u64) < least) {
        let why = format!("{path} in body should have at least {} {what}", schema[least]);
        causes.push(Cause::invalid(path, value, why));
    }
    if schema[most].as_u64().is_some_and(|most| count as u64 > most) {
        let message = format!("Too many: {count}: must have at most {} {what}", schema[most]);
        causes.push(Cause { reason: "FieldValueTooMany", field: path.into(), message });
    }
}

fn validate_alternatives(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let holds = |schema: &Value| {
        let mut causes = Vec::new();
        validate_at(schema, value, path, &mut causes);
        causes.is_empty()
    };
    for each in super::object::list(schema, "/allOf") {
        validate_at(each, value, path, causes);
    }
    let some = super::object::list(schema, "/anyOf");
    if !some.is_empty() && !some.iter().any(holds) {
        causes.push(Cause::invalid(path, value, format!("{path} in body must validate at least one schema (anyOf)")));
    }
    let one = super::object::list(schema, "/oneOf");
    if !one.is_empty() && one.iter().filter(|each| holds(each)).count() != 1 {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must validate one and only one schema (oneOf)"),
        ));
    }
    if schema.get("not").is_some_and(holds) {
        causes.push(Cause::invalid(path, value, format!("{path} in body must not validate the schema (not)")));
    }
}

/// The wanted type, if the value has another one.
fn wrong_type(schema: &Value, value: &Value) -> Option<String> {
    if schema["x-kubernetes-int-or-string"] == true {
        return (!value.is_string() && !value.is_i64() && !value.is_u64()).then(|| "integer,string".into());
    }
    let wanted = schema["type"].as_str()?;
    let right = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    };
    (!right).then(|| wanted.to_owned())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {"spec": {
            "type": "object", "required": ["release"],
            "properties": {
                "release": {"type": "string", "minLength": 1, "pattern": "^kcm-"},
                "mode": {"type": "string", "enum": ["fast", "slow"], "default": "slow"},
                "count": {"type": "integer", "minimum": 1, "maximum": 3},
                "port": {"x-kubernetes-int-or-string": true},
                "free": {"x-kubernetes-preserve-unknown-fields": true},
                "list": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["name"],
                    "properties": {"name": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "boolean"}},
            },
        }}})
    }

    fn problems(spec: Value) -> Vec<String> {
        let causes = validate(&schema(), &json!({"spec": spec}));
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn each_rule_is_enforced_in_the_words_of_kubernetes() {
        for (spec, expected) in [
            (json!({}), "spec.release: Required value"),
            (
                json!({"release": ""}),
                r#"spec.release: Invalid value: "": spec.release in body should be at least 1 chars long"#,
            ),
            (json!({"release": "x"}), r#"spec.release: Invalid value: "x": spec.release in body should match '^kcm-'"#),
            (
                json!({"release": 1}),
                r#"spec.release: Invalid value: "integer": spec.release in body must be of type string: "integer""#,
            ),
            (
                json!({"release": "kcm-1", "mode": "x"}),
                r#"spec.mode: Unsupported value: "x": supported values: "fast", "slow""#,
            ),
            (
                json!({"release": "kcm-1", "count": 0}),
                "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1",
            ),
            (
                json!({"release": "kcm-1", "list": []}),
                "spec.list: Invalid value: []: spec.list in body should have at least 1 items",
            ),
            (json!({"release": "kcm-1", "list": [{}]}), "spec.list[0].name: Required value"),
            (
                json!({"release": "kcm-1", "map": {"a": 1}}),
                r#"spec.map.a: Invalid value: "integer": spec.map.a in body must be of type boolean: "integer""#,
            ),
        ] {
            assert_eq!(problems(spec).first().map(String::as_str), Some(expected));
        }
        for port in [json!(80), json!("http")] {
            assert_eq!(
                problems(json!({"release": "kcm-1", "port": port, "free": [1, {"a": 2}]})),
                Vec::<String>::new()
            );
        }
    }

    #[test]
    fn unknown_fields_are_pruned_and_named_and_defaults_filled_in() {
        let mut object = json!({"kind": "X", "metadata": {"name": "a"}, "top": 1,
            "spec": {"release": "kcm-1", "typo": 1, "free": {"any": 1}, "list": [{"name": "a", "b": 1}]}});
        assert_eq!(prune(&schema(), &mut object), ["spec.list[0].b", "spec.typo", "top"]);
        default(&schema(), &mut object);
        assert_eq!(
            object,
            json!({"kind": "X", "metadata": {"name": "a"},
                "spec": {"release": "kcm-1", "mode": "slow", "free": {"any": 1}, "list": [{"name": "a"}]}})
        );
    }
}
