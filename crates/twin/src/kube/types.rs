//! The resource types that an API server knows: the built-in ones and those that CRDs define.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use serde_json::Value;

use super::object::{list, text};

/// A column of a custom resource's table.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub(super) kind: String,
    pub(super) description: String,
    pub(super) priority: i64,
    /// Where the value is.
    pub(super) json_path: String,
}

/// What a CRD adds to a type.
#[derive(Debug, Clone)]
pub(super) struct Custom {
    /// The CRD, and which of its versions this is.
    definition: Arc<Value>,
    version: usize,
    pub(super) columns: Vec<Column>,
}

impl Custom {
    /// The `openAPIV3Schema`.
    pub(super) fn schema(&self) -> &Value {
        &self.definition["spec"]["versions"][self.version]["schema"]["openAPIV3Schema"]
    }
}

/// One version of a resource type.
#[derive(Debug, Clone)]
pub(super) struct ResourceType {
    /// `plural.group`, or just the plural for the core group: the name under which objects are stored.
    pub(super) id: String,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) list_kind: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) short_names: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) namespaced: bool,
    /// Status is written apart from the rest.
    pub(super) has_status: bool,
    /// `metadata.generation` counts changes of what is wanted.
    pub(super) has_generation: bool,
    /// Set for custom resources.
    pub(super) custom: Option<Custom>,
}

impl ResourceType {
    /// `group/version`, or just the version for the core group.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Group, version, kind, plural, namespaced, status subresource, generation, short names.
type BuiltIn = (&'static str, &'static str, &'static str, &'static str, bool, bool, bool, &'static [&'static str]);

/// From the Kubernetes API reference.
const BUILT_IN: &[BuiltIn] = &[
    ("", "v1", "ConfigMap", "configmaps", true, false, false, &["cm"]),
    ("", "v1", "Event", "events", true, false, false, &["ev"]),
    ("", "v1", "Namespace", "namespaces", false, true, false, &["ns"]),
    ("", "v1", "Node", "nodes", false, true, false, &["no"]),
    ("", "v1", "PersistentVolume", "persistentvolumes", false, true, false, &["pv"]),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true, true, false, &["pvc"]),
    ("", "v1", "Pod", "pods", true, true, false, &["po"]),
    ("", "v1", "Secret", "secrets", true, false, false, &[]),
    ("", "v1", "Service", "services", true, true, false, &["svc"]),
    ("", "v1", "ServiceAccount", "serviceaccounts", true, false, false, &["sa"]),
    (ADMISSION, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false, false, true, &[]),
    (ADMISSION, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", false, false, true, &[]),
    (EXTENSIONS, "v1", "CustomResourceDefinition", "customresourcedefinitions", false, true, true, &["crd", "crds"]),
    ("apps", "v1", "DaemonSet", "daemonsets", true, true, true, &["ds"]),
    ("apps", "v1", "Deployment", "deployments", true, true, true, &["deploy"]),
    ("apps", "v1", "ReplicaSet", "replicasets", true, true, true, &["rs"]),
    ("apps", "v1", "StatefulSet", "statefulsets", true, true, true, &["sts"]),
    ("batch", "v1", "CronJob", "cronjobs", true, true, true, &["cj"]),
    ("batch", "v1", "Job", "jobs", true, true, true, &[]),
    ("coordination.k8s.io", "v1", "Lease", "leases", true, false, false, &[]),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", true, true, true, &["ing"]),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true, false, true, &["netpol"]),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true, true, true, &["pdb"]),
    (RBAC, "v1", "ClusterRole", "clusterroles", false, false, false, &[]),
    (RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", false, false, false, &[]),
    (RBAC, "v1", "Role", "roles", true, false, false, &[]),
    (RBAC, "v1", "RoleBinding", "rolebindings", true, false, false, &[]),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false, false, false, &["pc"]),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", false, false, false, &["sc"]),
];

const ADMISSION: &str = "admissionregistration.k8s.io";
const EXTENSIONS: &str = "apiextensions.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

/// The type of types.
pub(super) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

static BUILT_IN_TYPES: LazyLock<Vec<Arc<ResourceType>>> = LazyLock::new(|| {
    let convert = |&(group, version, kind, plural, namespaced, has_status, has_generation, short): &BuiltIn| {
        let workload = group == "apps" || matches!(plural, "pods" | "services" | "jobs" | "cronjobs");
        Arc::new(ResourceType {
            id: if group.is_empty() { plural.into() } else { format!("{plural}.{group}") },
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            list_kind: format!("{kind}List"),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: short.iter().map(|&name| name.into()).collect(),
            categories: if workload { vec!["all".into()] } else { Vec::new() },
            namespaced,
            has_status,
            has_generation,
            custom: None,
        })
    };
    BUILT_IN.iter().map(convert).collect()
});

/// All types of one cluster, in the order in which discovery shows them.
#[derive(Debug, Clone)]
pub(super) struct Types {
    custom: BTreeMap<String, Vec<Arc<ResourceType>>>,
}

impl Types {
    pub(super) fn new() -> Self {
        Self { custom: BTreeMap::new() }
    }

    /// A CRD came to be or changed.
    pub(super) fn define(&mut self, definition: &Arc<Value>) {
        let id = text(definition, "/metadata/name").to_owned();
        let versions = list(definition, "/spec/versions").iter().enumerate();
        let served = versions.filter(|(_, version)| version["served"] == true);
        self.custom.insert(id, served.map(|(version, _)| Arc::new(custom_type(definition, version))).collect());
    }

    /// A CRD is gone.
    pub(super) fn forget(&mut self, id: &str) {
        self.custom.remove(id);
    }

    /// Every version of every type.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<ResourceType>> {
        BUILT_IN_TYPES.iter().chain(self.custom.values().flatten())
    }

    /// The type behind a path.
    pub(super) fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<Arc<ResourceType>> {
        self.iter().find(|each| each.plural == plural && each.version == version && each.group == group).cloned()
    }

    /// The first version of the type that is stored as `id`.
    pub(super) fn by_id(&self, id: &str) -> Option<Arc<ResourceType>> {
        self.iter().find(|each| each.id == id).cloned()
    }

    /// The type that people mean by a plural, singular, kind or short name, with or without the group.
    pub(super) fn by_name(&self, name: &str) -> Option<Arc<ResourceType>> {
        let name = name.to_lowercase();
        self.iter()
            .find(|each| {
                each.plural == name
                    || each.id == name
                    || each.singular == name
                    || each.short_names.contains(&name)
                    || name.strip_prefix(&each.plural).is_some_and(|rest| {
                        rest.strip_prefix('.').is_some_and(|group| !group.is_empty() && each.group.starts_with(group))
                    })
            })
            .cloned()
    }

    /// Every `group` and `version` that is served; the core group is the empty one.
    pub(super) fn versions(&self) -> Vec<(String, String)> {
        let mut versions: Vec<(String, String)> = Vec::new();
        for each in self.iter() {
            let pair = (each.group.clone(), each.version.clone());
            if !versions.contains(&pair) {
                versions.push(pair);
            }
        }
        versions
    }
}

fn custom_type(definition: &Arc<Value>, position: usize) -> ResourceType {
    let version = &definition["spec"]["versions"][position];
    let names = &definition["spec"]["names"];
    let strings = |pointer: &str| {
        list(names, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<String>>()
    };
    let kind = text(names, "/kind").to_owned();
    let or = |text: &str, default: String| if text.is_empty() { default } else { text.to_owned() };
    let columns = list(version, "/additionalPrinterColumns").iter().map(|column| Column {
        name: text(column, "/name").into(),
        kind: text(column, "/type").into(),
        description: text(column, "/description").into(),
        priority: column["priority"].as_i64().unwrap_or(0),
        json_path: text(column, "/jsonPath").into(),
    });
    ResourceType {
        id: text(definition, "/metadata/name").into(),
        group: text(definition, "/spec/group").into(),
        version: text(version, "/name").into(),
        list_kind: or(text(names, "/listKind"), format!("{kind}List")),
        plural: text(names, "/plural").into(),
        singular: or(text(names, "/singular"), kind.to_lowercase()),
        short_names: strings("/shortNames"),
        categories: strings("/categories"),
        namespaced: text(definition, "/spec/scope") == "Namespaced",
        has_status: version.pointer("/subresources/status").is_some(),
        has_generation: true,
        custom: Some(Custom { definition: definition.clone(), version: position, columns: columns.collect() }),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_what_people_call_them() {
        let types = Types::new();
        for name in ["nodes", "node", "Node", "no"] {
            assert_eq!(types.by_name(name).map(|each| each.id.clone()).as_deref(), Some("nodes"), "{name}");
        }
        for name in ["deploy", "deployments.apps", "deployment"] {
            assert_eq!(types.by_name(name).map(|each| each.id.clone()).as_deref(), Some("deployments.apps"), "{name}");
        }
        assert!(types.by_name("managements").is_none());
    }
}
