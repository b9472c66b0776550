//! The three kinds of patches: JSON patch, merge patch, strategic merge patch.

use serde_json::{Map, Value};

use super::{
    super::{
        failure::Failure,
        object::{fields, text},
    },
    fields::{ListKind, list_kind},
};

/// RFC 7396.
pub(in super::super) fn json_merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let target = fields(target);
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            json_merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// RFC 6902.
pub(super) fn json_patch(target: &mut Value, patch: &Value) -> Result<(), Failure> {
    let operations = patch.as_array().ok_or_else(|| {
        Failure::bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        )
    })?;
    for operation in operations {
        let (path, from) = (text(operation, "/path"), text(operation, "/from"));
        let value = || operation.get("value").cloned().unwrap_or_default();
        let missing = |path: &str| Failure::unprocessable(format!("the path {path} does not exist: missing path"));
        match text(operation, "/op") {
            "add" => add(target, path, value()).ok_or_else(|| missing(path))?,
            "remove" => _ = take(target, path).ok_or_else(|| missing(path))?,
            "replace" => *target.pointer_mut(path).ok_or_else(|| missing(path))? = value(),
            "move" => {
                let moved = take(target, from).ok_or_else(|| missing(from))?;
                add(target, path, moved).ok_or_else(|| missing(path))?;
            }
            "copy" => {
                let copied = target.pointer(from).cloned().ok_or_else(|| missing(from))?;
                add(target, path, copied).ok_or_else(|| missing(path))?;
            }
            "test" if target.pointer(path).unwrap_or(&Value::Null) == &value() => {}
            "test" => {
                return Err(Failure::unprocessable(format!(
                    "the server rejected our request due to an error in our request: testing path {path}: test failed"
                )));
            }
            other => return Err(Failure::bad_request(format!("Unexpected kind: {other}"))),
        }
    }
    Ok(())
}

fn parent<'target>(target: &'target mut Value, path: &str) -> Option<(&'target mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((target.pointer_mut(parent)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    let (parent, last) = parent(target, path)?;
    match parent {
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let index = last.parse().ok().filter(|&index| index <= items.len())?;
            items.insert(index, value);
        }
        Value::Object(fields) => _ = fields.insert(last, value),
        _ => return None,
    }
    Some(())
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = parent(target, path)?;
    match parent {
        Value::Array(items) => {
            let index = last.parse().ok().filter(|&index| index < items.len())?;
            Some(items.remove(index))
        }
        Value::Object(fields) => fields.remove(&last),
        _ => None,
    }
}

/// Kubernetes' own patch for built-in types: lists of named things are merged by name, directives begin with `$`.
pub(super) fn strategic_merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").is_some_and(|directive| directive == "replace") {
        *target = Value::Object(without_directives(patch));
        return;
    }
    let target = fields(target);
    if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|key, _| retained.iter().any(|each| each == key));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Some(gone)) = (target.get_mut(field), value.as_array()) {
                items.retain(|item| !gone.contains(item));
            }
        } else if key.starts_with('$') {
            // `$setElementOrder` only orders what is merged by name, where order means nothing.
        } else if value.is_null() || value.get("$patch").is_some_and(|directive| directive == "delete") {
            target.remove(key);
        } else if let Value::Array(items) = value {
            merge_list(key, target.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new())), items);
        } else {
            strategic_merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch.iter().filter(|(key, _)| !key.starts_with('$')).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn merge_list(field: &str, target: &mut Value, patch: &[Value]) {
    let is_directive = |item: &Value, directive: &str| item.get("$patch").is_some_and(|each| each == directive);
    let plain = || patch.iter().filter(|item| item.get("$patch").is_none()).cloned().collect::<Vec<Value>>();
    let (Value::Array(items), false) = (&mut *target, patch.iter().any(|item| is_directive(item, "replace"))) else {
        *target = Value::Array(plain());
        return;
    };
    match list_kind(field, None, patch) {
        ListKind::Atomic => *items = plain(),
        ListKind::Set => {
            let new: Vec<Value> = patch.iter().filter(|item| !items.contains(item)).cloned().collect();
            items.extend(new);
        }
        ListKind::Map(keys) => {
            let key = keys.first().map_or("", String::as_str);
            for item in patch {
                let same = |other: &Value| other.get(key) == item.get(key);
                if is_directive(item, "delete") {
                    items.retain(|other| !same(other));
                } else if let Some(existing) = items.iter_mut().find(|other| same(other)) {
                    strategic_merge(existing, item);
                } else {
                    let mut new = Value::Null;
                    strategic_merge(&mut new, item);
                    items.push(new);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_removes_what_is_null() {
        let mut object = json!({"spec": {"a": 1, "b": {"c": 2}}});
        json_merge(&mut object, &json!({"spec": {"a": null, "b": {"d": [3]}}}));
        assert_eq!(object, json!({"spec": {"b": {"c": 2, "d": [3]}}}));
    }

    #[test]
    fn a_json_patch_does_one_thing_after_the_other() {
        let mut object = json!({"list": [1, 3], "a/b": 1});
        let patch = json!([
            {"op": "test", "path": "/list/0", "value": 1},
            {"op": "add", "path": "/list/1", "value": 2},
            {"op": "add", "path": "/list/-", "value": 4},
            {"op": "replace", "path": "/a~1b", "value": 5},
            {"op": "move", "from": "/a~1b", "path": "/moved"},
            {"op": "remove", "path": "/list/0"},
        ]);
        json_patch(&mut object, &patch).expect("a valid patch");
        assert_eq!(object, json!({"list": [2, 3, 4], "moved": 5}));
        let failed = json_patch(&mut object, &json!([{"op": "test", "path": "/moved", "value": 6}]));
        assert_eq!(failed.map_err(|failure| failure.code), Err(422));
    }

    #[test]
    fn a_strategic_patch_merges_lists_by_name() {
        let mut object = json!({"spec": {
            "containers": [{"name": "a", "image": "a:1", "args": ["x"]}, {"name": "b", "image": "b:1"}], "taints": [1],
        }});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
            "containers": [{"name": "a", "image": "a:2"}, {"name": "b", "$patch": "delete"}, {"name": "c"}],
            "taints": [2],
        }});
        strategic_merge(&mut object, &patch);
        assert_eq!(
            object,
            json!({"spec": {
                "containers": [{"name": "a", "image": "a:2", "args": ["x"]}, {"name": "c"}], "taints": [2],
            }})
        );
    }
}
