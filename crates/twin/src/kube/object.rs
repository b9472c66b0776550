//! Small helpers for Kubernetes objects as JSON values.

use serde_json::{Map, Value, json};

/// What is at a path, `/spec/versions/0`: a JSON pointer without its escapes, and so without the strings that
/// [`Value::pointer`] makes of every name to replace them.
pub(super) fn at<'object>(object: &'object Value, path: &str) -> Option<&'object Value> {
    path.strip_prefix('/')?.split('/').try_fold(object, |place, name| match place {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => place.get(name),
    })
}

/// The string at a path, empty where there is none.
pub(super) fn text<'object>(object: &'object Value, path: &str) -> &'object str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The array at a path, empty where there is none.
pub(super) fn list<'object>(object: &'object Value, path: &str) -> &'object [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The object's name.
pub(super) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The object's namespace, empty for what belongs to none.
pub(super) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// Makes `object[path...]` be `value`, with the objects on the way.
pub(super) fn set(object: &mut Value, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut place = object;
    for parent in parents {
        place = entry(place, parent);
    }
    *entry(place, last) = value;
}

/// Takes `object[path...]` away.
pub(super) fn unset(object: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let mut place = object;
    for parent in parents {
        place = place.get_mut(parent)?;
    }
    place.as_object_mut()?.remove(*last)
}

fn entry<'object>(object: &'object mut Value, key: &str) -> &'object mut Value {
    fields(object).entry(key).or_insert(Value::Null)
}

/// The fields of an object; what is none becomes an empty one.
pub(super) fn fields(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    match object {
        Value::Object(fields) => fields,
        _ => unreachable!("it was just made an object"),
    }
}

/// Whether the object is on its way out.
pub(super) fn is_terminating(object: &Value) -> bool {
    at(object, "/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// Whether something still holds the object back from being deleted.
pub(super) fn has_finalizers(object: &Value) -> bool {
    !list(object, "/metadata/finalizers").is_empty()
}

/// Whether the object carries this finalizer.
pub(super) fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    list(object, "/metadata/finalizers").iter().any(|each| each == finalizer)
}

/// Adds a finalizer unless it is there.
pub(super) fn add_finalizer(object: &mut Value, finalizer: &str) {
    if has_finalizer(object, finalizer) {
        return;
    }
    let mut finalizers = list(object, "/metadata/finalizers").to_vec();
    finalizers.push(json!(finalizer));
    set(object, &["metadata", "finalizers"], Value::Array(finalizers));
}

/// Takes a finalizer away.
pub(super) fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let rest: Vec<Value> =
        list(object, "/metadata/finalizers").iter().filter(|each| *each != finalizer).cloned().collect();
    if rest.is_empty() {
        unset(object, &["metadata", "finalizers"]);
    } else {
        set(object, &["metadata", "finalizers"], Value::Array(rest));
    }
}

/// The condition of a type.
pub(super) fn condition<'object>(object: &'object Value, kind: &str) -> Option<&'object Value> {
    list(object, "/status/conditions").iter().find(|each| text(each, "/type") == kind)
}

/// Whether the condition of a type is `True`.
pub(super) fn condition_holds(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|each| text(each, "/status") == "True")
}

/// Sets a condition; its transition time moves only when its status does.
pub(super) fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let conditions = entry(entry(object, "status"), "conditions");
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Value::Array(conditions) = conditions else { return };
    let before = conditions.iter_mut().find(|each| text(each, "/type") == kind);
    let since = match &before {
        Some(before) if text(before, "/status") == status => text(before, "/lastTransitionTime").to_owned(),
        _ => now.to_owned(),
    };
    let new = json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    match before {
        Some(before) => *before = new,
        None => conditions.push(new),
    }
}

/// A reference to an owner that controls what it owns.
pub(super) fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    })
}

/// Whether `object` is owned by the object with this uid.
pub(super) fn is_owned_by(object: &Value, uid: &str) -> bool {
    list(object, "/metadata/ownerReferences").iter().any(|owner| text(owner, "/uid") == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_transition_time_until_its_status_changes() {
        let mut object = json!({});
        set_condition(&mut object, "Ready", "False", "Waiting", "", "t1");
        set_condition(&mut object, "Ready", "False", "StillWaiting", "", "t2");
        assert_eq!(condition(&object, "Ready").map(|ready| text(ready, "/lastTransitionTime")), Some("t1"));
        set_condition(&mut object, "Ready", "True", "Done", "", "t3");
        assert_eq!(condition(&object, "Ready").map(|ready| text(ready, "/lastTransitionTime")), Some("t3"));
    }

    #[test]
    fn the_last_finalizer_leaves_no_empty_list() {
        let mut object = json!({"metadata": {}});
        add_finalizer(&mut object, "a");
        add_finalizer(&mut object, "a");
        assert_eq!(object, json!({"metadata": {"finalizers": ["a"]}}));
        remove_finalizer(&mut object, "a");
        assert_eq!(object, json!({"metadata": {}}));
    }
}
