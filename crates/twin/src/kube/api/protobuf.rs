//! Request bodies in Kubernetes' protocol buffers, which typed clients (`kubectl create namespace`) send.
//!
//! Only the messages that kubectl writes on its own are known; the field numbers are those of `generated.proto` in the
//! Kubernetes source. Answers are always JSON, which the same clients accept.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::super::object::fields;

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Integer,
    Boolean,
    /// Bytes, base64 in JSON.
    Bytes,
    Message(&'static [Field]),
    Texts,
    Messages(&'static [Field]),
    TextMap,
    BytesMap,
}

/// Number, JSON name, kind.
type Field = (u64, &'static str, Kind);

const OWNER: &[Field] = &[
    (1, "kind", Kind::Text),
    (3, "name", Kind::Text),
    (4, "uid", Kind::Text),
    (5, "apiVersion", Kind::Text),
    (6, "controller", Kind::Boolean),
    (7, "blockOwnerDeletion", Kind::Boolean),
];
const METADATA: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
    (13, "ownerReferences", Kind::Messages(OWNER)),
    (14, "finalizers", Kind::Texts),
];
const NAMED: &[Field] = &[(1, "name", Kind::Text)];
const NAMESPACE: &[Field] = &[(1, "metadata", Kind::Message(METADATA))];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::TextMap),
    (3, "binaryData", Kind::BytesMap),
    (4, "immutable", Kind::Boolean),
];
const SECRET: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::BytesMap),
    (3, "type", Kind::Text),
    (4, "stringData", Kind::TextMap),
    (5, "immutable", Kind::Boolean),
];
const SERVICE_ACCOUNT: &[Field] =
    &[(1, "metadata", Kind::Message(METADATA)), (3, "imagePullSecrets", Kind::Messages(NAMED))];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Kind::Integer),
    (2, "preconditions", Kind::Message(&[(1, "uid", Kind::Text), (2, "resourceVersion", Kind::Text)])),
    (4, "propagationPolicy", Kind::Text),
    (5, "dryRun", Kind::Texts),
];
const EVICTION: &[Field] =
    &[(1, "metadata", Kind::Message(METADATA)), (2, "deleteOptions", Kind::Message(DELETE_OPTIONS))];
const PORT: &[Field] = &[(1, "name", Kind::Text), (3, "containerPort", Kind::Integer), (4, "protocol", Kind::Text)];
const CONTAINER: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "image", Kind::Text),
    (3, "command", Kind::Texts),
    (4, "args", Kind::Texts),
    (6, "ports", Kind::Messages(PORT)),
];
const POD_TEMPLATE: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(&[(2, "containers", Kind::Messages(CONTAINER))])),
];
const DEPLOYMENT_SPEC: &[Field] = &[
    (1, "replicas", Kind::Integer),
    (2, "selector", Kind::Message(&[(1, "matchLabels", Kind::TextMap)])),
    (3, "template", Kind::Message(POD_TEMPLATE)),
];
const DEPLOYMENT: &[Field] = &[(1, "metadata", Kind::Message(METADATA)), (2, "spec", Kind::Message(DEPLOYMENT_SPEC))];
const RULE: &[Field] = &[
    (1, "verbs", Kind::Texts),
    (2, "apiGroups", Kind::Texts),
    (3, "resources", Kind::Texts),
    (4, "resourceNames", Kind::Texts),
    (5, "nonResourceURLs", Kind::Texts),
];
const ROLE: &[Field] = &[(1, "metadata", Kind::Message(METADATA)), (2, "rules", Kind::Messages(RULE))];
const SUBJECT: &[Field] =
    &[(1, "kind", Kind::Text), (2, "apiGroup", Kind::Text), (3, "name", Kind::Text), (4, "namespace", Kind::Text)];
const ROLE_REFERENCE: &[Field] = &[(1, "apiGroup", Kind::Text), (2, "kind", Kind::Text), (3, "name", Kind::Text)];
const ROLE_BINDING: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "subjects", Kind::Messages(SUBJECT)),
    (3, "roleRef", Kind::Message(ROLE_REFERENCE)),
];
const TYPE: &[Field] = &[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)];

/// Reads a body (`k8s` and a zero byte, then `runtime.Unknown`); `None` if it is none, or of a kind that is not known.
pub(super) fn decode(body: &[u8]) -> Option<Value> {
    let mut rest = body.strip_prefix(b"k8s\0")?;
    let (mut identity, mut content) = (json!({}), &b""[..]);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Wire::Bytes(bytes)) => identity = message(TYPE, bytes)?,
            (2, Wire::Bytes(bytes)) => content = bytes,
            _ => {}
        }
    }
    let table = match identity["kind"].as_str()? {
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "DeleteOptions" => DELETE_OPTIONS,
        "Eviction" => EVICTION,
        "Deployment" => DEPLOYMENT,
        "Role" | "ClusterRole" => ROLE,
        "RoleBinding" | "ClusterRoleBinding" => ROLE_BINDING,
        // What they ask makes no difference to the answer.
        "SelfSubjectReview" | "SelfSubjectAccessReview" | "SelfSubjectRulesReview" => NAMESPACE,
        _ => return None,
    };
    let mut object = message(table, content)?;
    for key in ["apiVersion", "kind"] {
        object[key] = identity[key].clone();
    }
    Some(object)
}

enum Wire<'body> {
    Number(u64),
    Bytes(&'body [u8]),
}

fn field<'body>(rest: &mut &'body [u8]) -> Option<(u64, Wire<'body>)> {
    let key = number(rest)?;
    let value = match key & 7 {
        0 => Wire::Number(number(rest)?),
        1 => Wire::Bytes(take(rest, 8)?),
        2 => {
            let count = usize::try_from(number(rest)?).ok()?;
            Wire::Bytes(take(rest, count)?)
        }
        5 => Wire::Bytes(take(rest, 4)?),
        _ => return None,
    };
    Some((key >> 3, value))
}

fn take<'body>(rest: &mut &'body [u8], count: usize) -> Option<&'body [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn message(table: &[Field], mut rest: &[u8]) -> Option<Value> {
    let mut object = json!({});
    while !rest.is_empty() {
        let (number, wire) = field(&mut rest)?;
        let Some((_, name, kind)) = table.iter().find(|(known, ..)| *known == number) else { continue };
        add(&mut object, name, *kind, &wire)?;
    }
    Some(object)
}

fn add(object: &mut Value, name: &str, kind: Kind, wire: &Wire<'_>) -> Option<()> {
    let plain = |value: Value, object: &mut Value| {
        // Protocol buffers of Kubernetes spell empty strings out.
        if value != "" {
            object[name] = value;
        }
    };
    match (kind, wire) {
        (Kind::Text, Wire::Bytes(bytes)) => plain(text(bytes)?, object),
        (Kind::Bytes, Wire::Bytes(bytes)) => plain(json!(BASE64_STANDARD.encode(bytes)), object),
        (Kind::Integer, Wire::Number(number)) => plain(json!(*number as i64), object),
        (Kind::Boolean, Wire::Number(number)) => plain(json!(*number != 0), object),
        (Kind::Message(table), Wire::Bytes(bytes)) => plain(message(table, bytes)?, object),
        (Kind::Texts, Wire::Bytes(bytes)) => push(object, name, text(bytes)?),
        (Kind::Messages(table), Wire::Bytes(bytes)) => push(object, name, message(table, bytes)?),
        (Kind::TextMap | Kind::BytesMap, Wire::Bytes(bytes)) => {
            let value = if matches!(kind, Kind::TextMap) { Kind::Text } else { Kind::Bytes };
            let entry = message(&[(1, "key", Kind::Text), (2, "value", value)], bytes)?;
            let key = entry["key"].as_str().unwrap_or_default().to_owned();
            let value = entry.get("value").cloned().unwrap_or_else(|| json!(""));
            fields(&mut object[name]).insert(key, value);
        }
        _ => return None,
    }
    Some(())
}

fn text(bytes: &[u8]) -> Option<Value> {
    std::str::from_utf8(bytes).ok().map(|text| json!(text))
}

fn push(object: &mut Value, name: &str, item: Value) {
    match &mut object[name] {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read() {
        let mut body = b"k8s\0".to_vec();
        body.extend(b"\x0a\x0c\x0a\x02v1\x12\x06Secret");
        // metadata {name: "a"}, data {"k": "v"}, type "Opaque"
        let secret = b"\x0a\x03\x0a\x01a\x12\x06\x0a\x01k\x12\x01v\x1a\x06Opaque";
        body.extend([0x12, secret.len() as u8]);
        body.extend(secret);
        assert_eq!(
            decode(&body),
            Some(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "dg=="}, "type": "Opaque",
            }))
        );
        assert_eq!(decode(b"k8s\0\x0a\xff"), None);
        assert_eq!(decode(b"{}"), None);
    }
}
