//! What an object has to be like before it is written: names, schemas, defaults, and the webhooks of kcm.

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use regex::Regex;
use serde_json::{Value, json};

use super::{
    super::{
        cluster::Cluster,
        controllers::kcm::{CLUSTER_DEPLOYMENTS, MANAGEMENTS, REGIONS},
        failure::{Cause, Failure},
        object::{list, name, set, text, unset},
        schema,
        types::{DEFINITIONS, ResourceType},
    },
    request::Request,
};

static SUBDOMAIN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$").ok());
static LABEL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$").ok());

const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
     or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
     must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// The fields at the top of some built-in types, for `fieldValidation`; the others are not checked.
const TOP_LEVEL: [(&str, &[&str]); 7] = [
    ("configmaps", &["data", "binaryData", "immutable"]),
    ("secrets", &["data", "stringData", "immutable", "type"]),
    ("namespaces", &["spec", "status"]),
    ("nodes", &["spec", "status"]),
    ("pods", &["spec", "status"]),
    ("services", &["spec", "status"]),
    ("deployments.apps", &["spec", "status"]),
];

/// Checks and completes an object that is about to be written; returns warnings.
pub(super) fn admit(request: &Request, kind: &ResourceType, object: &mut Value) -> Result<Vec<String>, Failure> {
    let unknown = match &kind.custom {
        Some(custom) => {
            let unknown = schema::prune(custom.schema(), object);
            schema::default(custom.schema(), object);
            unknown
        }
        None => prune_top(kind, object),
    };
    let warnings = unknown_fields(request, kind, &unknown)?;
    let mut causes = name_causes(kind, object);
    match &kind.custom {
        Some(custom) => causes.extend(schema::validate(custom.schema(), object)),
        None => causes.extend(complete_built_in(kind, object)),
    }
    if causes.is_empty() { Ok(warnings) } else { Err(Failure::invalid(kind, name(object), &causes)) }
}

fn unknown_fields(request: &Request, kind: &ResourceType, unknown: &[String]) -> Result<Vec<String>, Failure> {
    let lines: Vec<String> = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
    match request.parameter("fieldValidation") {
        "Ignore" => Ok(Vec::new()),
        "Strict" if !lines.is_empty() => Err(Failure::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
            kind.kind,
            kind.version,
            kind.kind,
            lines.join(", ")
        ))),
        _ => Ok(lines),
    }
}

fn prune_top(kind: &ResourceType, object: &mut Value) -> Vec<String> {
    let Some((_, known)) = TOP_LEVEL.iter().find(|(id, _)| *id == kind.id) else { return Vec::new() };
    let fields = super::super::object::fields(object);
    let is_known = |key: &str| matches!(key, "apiVersion" | "kind" | "metadata") || known.contains(&key);
    let unknown: Vec<String> = fields.keys().filter(|key| !is_known(key)).cloned().collect();
    fields.retain(|key, _| is_known(key));
    unknown
}

fn name_causes(kind: &ResourceType, object: &Value) -> Vec<Cause> {
    let name = text(object, "/metadata/name");
    let (rule, why) = match kind.id.as_str() {
        "namespaces" => (&LABEL, LABEL_RULE),
        "services" => (&LABEL, LABEL_RULE),
        // Their names may hold colons (system:node).
        id if id.ends_with("rbac.authorization.k8s.io") => return Vec::new(),
        _ => (&SUBDOMAIN, SUBDOMAIN_RULE),
    };
    let fits = name.len() <= 253 && rule.as_ref().is_none_or(|rule| rule.is_match(name));
    if fits { Vec::new() } else { vec![Cause::invalid("metadata.name", &json!(name), why)] }
}

fn complete_built_in(kind: &ResourceType, object: &mut Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut require = |object: &Value, pointer: &str, field: &str| {
        if object.pointer(pointer).is_none_or(Value::is_null) {
            causes.push(Cause::required(field));
        }
    };
    match kind.id.as_str() {
        "secrets" => return complete_secret(object),
        "configmaps" => return strings_only(object, "data"),
        "services" => complete_service(object),
        "pods" => require(object, "/spec/containers", "spec.containers"),
        "deployments.apps" | "replicasets.apps" | "statefulsets.apps" | "daemonsets.apps" => {
            require(object, "/spec/selector", "spec.selector");
            require(object, "/spec/template/spec/containers", "spec.template.spec.containers");
            if kind.plural != "daemonsets" && object["spec"]["replicas"].is_null() {
                set(object, &["spec", "replicas"], json!(1));
            }
        }
        DEFINITIONS => {
            for (pointer, field) in [
                ("/spec/group", "spec.group"),
                ("/spec/names/plural", "spec.names.plural"),
                ("/spec/names/kind", "spec.names.kind"),
                ("/spec/scope", "spec.scope"),
                ("/spec/versions/0", "spec.versions"),
            ] {
                require(object, pointer, field);
            }
            let wanted = format!("{}.{}", text(object, "/spec/names/plural"), text(object, "/spec/group"));
            if causes.is_empty() && name(object) != wanted {
                causes.push(Cause::invalid(
                    "metadata.name",
                    &json!(name(object)),
                    "must be spec.names.plural+\".\"+spec.group",
                ));
            }
        }
        _ => {}
    }
    causes
}

fn complete_secret(object: &mut Value) -> Vec<Cause> {
    if let Some(Value::Object(plain)) = unset(object, &["stringData"]) {
        for (key, value) in plain {
            let encoded = BASE64_STANDARD.encode(value.as_str().unwrap_or_default());
            set(object, &["data", &key], json!(encoded));
        }
    }
    if text(object, "/type").is_empty() {
        set(object, &["type"], json!("Opaque"));
    }
    let fields = object.get("data").and_then(Value::as_object).into_iter().flatten();
    fields
        .filter(|(_, value)| value.as_str().is_none_or(|text| BASE64_STANDARD.decode(text).is_err()))
        .map(|(key, _)| Cause::invalid(format!("data[{key}]"), &json!("<bytes>"), "illegal base64 data"))
        .collect()
}

fn strings_only(object: &Value, field: &str) -> Vec<Cause> {
    let fields = object.get(field).and_then(Value::as_object).into_iter().flatten();
    fields
        .filter(|(_, value)| !value.is_string())
        .map(|(key, value)| Cause::invalid(format!("{field}[{key}]"), value, "must be a string"))
        .collect()
}

fn complete_service(object: &mut Value) {
    if text(object, "/spec/type").is_empty() {
        set(object, &["spec", "type"], json!("ClusterIP"));
    }
    let mut ports = list(object, "/spec/ports").to_vec();
    for port in &mut ports {
        if port["protocol"].is_null() {
            port["protocol"] = json!("TCP");
        }
        if port["targetPort"].is_null() {
            port["targetPort"] = port["port"].clone();
        }
    }
    if !ports.is_empty() {
        set(object, &["spec", "ports"], Value::Array(ports));
    }
}

/// Whether an object may be deleted.
pub(super) fn admit_deletion(cluster: &Cluster, kind: &ResourceType, object: &Value) -> Result<(), Failure> {
    let is_protected = matches!(name(object), "default" | "kube-system" | "kube-public");
    if kind.id == "namespaces" && is_protected {
        return Err(Failure::forbidden(kind, name(object), "this namespace may not be deleted"));
    }
    // kcm's webhook (kcm source; its name is a guess). Without its controllers nobody is there to refuse.
    if kind.id == MANAGEMENTS && cluster.kcm.is_some() {
        for (blocking, called) in [(REGIONS, "Region"), (CLUSTER_DEPLOYMENTS, "ClusterDeployment")] {
            if cluster.store.iter(blocking).next().is_some() {
                let why = format!("the Management object can't be removed if {called} objects still exist");
                return Err(Failure::denied("validation.management.k0rdent.mirantis.com", &why));
            }
        }
    }
    Ok(())
}
