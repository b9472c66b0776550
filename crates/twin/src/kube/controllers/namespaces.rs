//! What goes when something else goes: the contents of namespaces, the objects of CRDs, what owners owned.

use serde_json::Value;

use super::super::{
    ClusterId,
    cluster::{Cluster, enter},
    object::{has_finalizers, is_owned_by, is_terminating, list, set_condition},
    store::ObjectKey,
    types::DEFINITIONS,
};
use crate::World;

/// Deletes what is in a namespace that is on its way out; when nothing is left, the namespace.
pub(super) fn empty(world: &mut World, id: ClusterId, namespace: &str) {
    enter(world, id, "world", |cluster| {
        let key: ObjectKey = (String::new(), namespace.to_owned());
        let leaving = cluster.store.get("namespaces", "", namespace).is_some_and(|object| is_terminating(&object));
        if !leaving {
            return;
        }
        discard_all(cluster, |_, key, _| key.0 == namespace);
        let left: Vec<(String, Vec<String>)> = cluster
            .store
            .everything()
            .filter(|(_, (each, _), _)| each == namespace)
            .map(|(kind, _, object)| (kind.clone(), finalizers(object)))
            .collect();
        if left.is_empty() {
            cluster.remove("namespaces", &key);
            return;
        }
        let now = cluster.now.clone();
        let (resources, held) = (tally(left.iter().map(|(kind, _)| kind)), tally(left.iter().flat_map(|(_, all)| all)));
        cluster.modify("namespaces", &key, |object| {
            let message = format!("Some resources are remaining: {}", join(&resources, "has", "resource instances"));
            set_condition(object, "NamespaceContentRemaining", "True", "SomeResourcesRemain", &message, &now);
            let message = format!(
                "Some content in the namespace has finalizers remaining: {}",
                join(&held, "in", "resource instances")
            );
            set_condition(object, "NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", &message, &now);
        });
    });
}

/// Deletes the objects of a CRD that is on its way out; when none is left, the CRD.
pub(super) fn empty_definition(world: &mut World, id: ClusterId, name: &str) {
    enter(world, id, "world", |cluster| {
        discard_all(cluster, |kind, _, _| kind == name);
        if cluster.store.iter(name).next().is_none() {
            cluster.remove(DEFINITIONS, &(String::new(), name.to_owned()));
        }
    });
}

/// Deletes what the object with this uid owned.
pub(super) fn collect_garbage(world: &mut World, id: ClusterId, uid: &str) {
    enter(world, id, "world", |cluster| discard_all(cluster, |_, _, object| is_owned_by(object, uid)));
}

fn discard_all(cluster: &mut Cluster, is_meant: impl Fn(&str, &ObjectKey, &Value) -> bool) {
    let meant: Vec<(String, ObjectKey)> = cluster
        .store
        .everything()
        .filter(|(kind, key, object)| {
            is_meant(kind, key, object) && !(is_terminating(object) && has_finalizers(object))
        })
        .map(|(kind, key, _)| (kind.clone(), key.clone()))
        .collect();
    for (kind, key) in meant {
        cluster.discard(&kind, &key);
    }
}

fn finalizers(object: &Value) -> Vec<String> {
    list(object, "/metadata/finalizers").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn tally<'name>(names: impl Iterator<Item = &'name String>) -> Vec<(String, usize)> {
    let mut counts: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for name in names {
        *counts.entry(name.clone()).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn join(counts: &[(String, usize)], verb: &str, what: &str) -> String {
    counts.iter().map(|(name, count)| format!("{name} {verb} {count} {what}")).collect::<Vec<_>>().join(", ")
}
