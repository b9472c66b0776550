//! One cluster: its objects, its keys, and the one path on which everything is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rand_chacha::{ChaCha8Rng, rand_core::RngCore as _};
use rustls::ServerConfig;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    ClusterId, ClusterSpec,
    controllers::{self, Job, charts::Installation, kcm::Kcm},
    object::{
        condition, has_finalizers, is_owned_by, is_terminating, list, name, namespace, set, set_condition, text, unset,
    },
    store::{Change, ObjectKey, Store, Verb, key_of},
    types::{DEFINITIONS, ResourceType, Types},
};
use crate::{
    World,
    tls::{Authority, Identity},
};

/// What generated names end in: no vowels, so that no words come out (Kubernetes source).
const NAME_CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A cluster, from the inside.
pub(super) struct Cluster {
    pub(super) spec: ClusterSpec,
    pub(super) certificate_pem: String,
    pub(super) server: Identity,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) administrator: Identity,
    /// Bearer tokens that are known.
    pub(super) tokens: BTreeSet<String>,
    pub(super) store: Store,
    pub(super) types: Types,
    /// The calendar time of this visit.
    pub(super) now: String,
    /// The same, in seconds since 1970.
    pub(super) unix_seconds: i64,
    /// Jobs that controllers will do soon.
    pub(super) pending: BTreeSet<Job>,
    /// When pods that have a node will run, in the world's time.
    pub(super) pod_starts: BTreeMap<ObjectKey, Duration>,
    /// Deployments that need nothing for as long as these objects are the ones that there are.
    pub(super) settled: BTreeMap<ObjectKey, Vec<Arc<Value>>>,
    /// The static pods of the nodes' kubelets.
    pub(super) static_pods: BTreeMap<String, Vec<String>>,
    /// The Helm releases that k0s has installed, by their Chart.
    pub(super) installations: BTreeMap<ObjectKey, Installation>,
    /// Alive while the kcm chart is installed.
    pub(super) kcm: Option<Kcm>,
    random: ChaCha8Rng,
    changes: Vec<Arc<Change>>,
}

/// What became of a deletion.
pub(super) enum Deletion {
    /// It is gone; the object as it was last.
    Gone(Arc<Value>),
    /// Finalizers hold it back.
    Held(Arc<Value>),
}

impl Cluster {
    pub(super) fn new(spec: ClusterSpec, random: ChaCha8Rng) -> Self {
        let authority = Authority::new("kubernetes-ca");
        let mut names = spec.names.clone();
        // What every API server of k0s answers to, besides its own addresses (k0s source).
        for name in [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            "10.96.0.1",
        ] {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let server = authority.server(&names);
        let administrator = authority.client("kubernetes-admin", "system:masters");
        let tls = Authority::server_config(&server, Some(&authority.certificate));
        Self::with(spec, authority.certificate_pem, tls, server, administrator, random)
    }

    /// A cluster with these keys and without any object.
    pub(super) fn with(
        spec: ClusterSpec,
        certificate_pem: String,
        tls: Arc<ServerConfig>,
        server: Identity,
        administrator: Identity,
        random: ChaCha8Rng,
    ) -> Self {
        Self {
            spec,
            certificate_pem,
            server,
            tls,
            administrator,
            tokens: BTreeSet::new(),
            store: Store::default(),
            types: Types::new(),
            now: String::new(),
            unix_seconds: 0,
            pending: BTreeSet::new(),
            pod_starts: BTreeMap::new(),
            settled: BTreeMap::new(),
            static_pods: BTreeMap::new(),
            installations: BTreeMap::new(),
            kcm: None,
            random,
            changes: Vec::new(),
        }
    }

    /// A new object: it gets what the server decides, is written, and brings along what comes with its kind.
    pub(super) fn create(&mut self, kind: &ResourceType, mut object: Value) -> Arc<Value> {
        set(&mut object, &["apiVersion"], json!(kind.api_version()));
        set(&mut object, &["kind"], json!(kind.kind));
        set(&mut object, &["metadata", "uid"], json!(self.uid()));
        set(&mut object, &["metadata", "creationTimestamp"], json!(self.now));
        if kind.has_generation {
            set(&mut object, &["metadata", "generation"], json!(1));
        }
        match kind.id.as_str() {
            DEFINITIONS => establish(&mut object, &self.now),
            "namespaces" => {
                let name = name(&object).to_owned();
                set(&mut object, &["metadata", "labels", "kubernetes.io/metadata.name"], json!(name));
                set(&mut object, &["spec", "finalizers"], json!(["kubernetes"]));
                set(&mut object, &["status", "phase"], json!("Active"));
            }
            _ => {}
        }
        let change = self.store.put(&kind.id, object);
        let object = change.object.clone();
        self.changes.push(change);
        match kind.id.as_str() {
            DEFINITIONS => self.types.define(&object),
            "namespaces" => self.furnish(name(&object)),
            _ => {}
        }
        object
    }

    /// What every namespace holds from the start (Kubernetes documentation).
    fn furnish(&mut self, namespace: &str) {
        let metadata = |name: &str| json!({"name": name, "namespace": namespace});
        self.ensure("serviceaccounts", json!({"metadata": metadata("default")}));
        let certificate = self.certificate_pem.clone();
        self.ensure("configmaps", json!({"metadata": metadata("kube-root-ca.crt"), "data": {"ca.crt": certificate}}));
    }

    /// Writes an object that exists; an unchanged one is not written. Without its last finalizer, what is on its way
    /// out is gone.
    pub(super) fn update(&mut self, kind: &ResourceType, mut object: Value) -> Arc<Value> {
        let key = key_of(&object);
        let Some(before) = self.store.get(&kind.id, &key.0, &key.1) else { return Arc::new(object) };
        for field in [
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            match before["metadata"].get(field).cloned() {
                Some(kept) => set(&mut object, &["metadata", field], kept),
                None => _ = unset(&mut object, &["metadata", field]),
            }
        }
        if object == *before {
            return before;
        }
        if kind.has_generation && wants_differ(&before, &object) {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(1) + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        let (terminating, held) = (is_terminating(&object), has_finalizers(&object));
        let is_namespace = kind.id == "namespaces";
        let change = self.store.put(&kind.id, object);
        let object = change.object.clone();
        self.changes.push(change);
        if kind.id == DEFINITIONS {
            self.types.define(&object);
        }
        if terminating && !held && !is_namespace {
            self.remove(&kind.id, &key);
        }
        object
    }

    /// Deletes as a client does: finalizers first.
    pub(super) fn delete(&mut self, kind: &ResourceType, key: &ObjectKey) -> Option<Deletion> {
        let before = self.store.get(&kind.id, &key.0, &key.1)?;
        // Namespaces and CRDs are emptied by their controllers first.
        let emptied_first = matches!(kind.id.as_str(), "namespaces" | DEFINITIONS);
        if !has_finalizers(&before) && !emptied_first {
            return self.remove(&kind.id, key).map(Deletion::Gone);
        }
        if is_terminating(&before) {
            return Some(Deletion::Held(before));
        }
        let mut object = (*before).clone();
        set(&mut object, &["metadata", "deletionTimestamp"], json!(self.now));
        set(&mut object, &["metadata", "deletionGracePeriodSeconds"], json!(0));
        if kind.has_generation {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(1) + 1;
            object["metadata"]["generation"] = json!(generation);
        }
        match kind.id.as_str() {
            "namespaces" => set(&mut object, &["status", "phase"], json!("Terminating")),
            DEFINITIONS => {
                let now = self.now.clone();
                set_condition(&mut object, "Terminating", "True", "InstanceDeletionInProgress", "", &now);
            }
            _ => {}
        }
        let change = self.store.put(&kind.id, object);
        let object = change.object.clone();
        self.changes.push(change);
        Some(Deletion::Held(object))
    }

    /// Removes at once, whatever holds it.
    pub(super) fn remove(&mut self, kind: &str, key: &ObjectKey) -> Option<Arc<Value>> {
        let change = self.store.remove(kind, key)?;
        let object = change.object.clone();
        self.changes.push(change);
        if kind == DEFINITIONS {
            self.types.forget(&key.1);
        }
        Some(object)
    }

    /// For controllers: creates the object unless one of its name exists.
    pub(super) fn ensure(&mut self, kind: &str, object: Value) -> Option<Arc<Value>> {
        let kind = self.types.by_id(kind)?;
        match self.store.get(&kind.id, namespace(&object), name(&object)) {
            Some(existing) => Some(existing),
            None => Some(self.create(&kind, object)),
        }
    }

    /// For controllers: changes an object that exists.
    pub(super) fn modify(
        &mut self,
        kind: &str,
        key: &ObjectKey,
        change: impl FnOnce(&mut Value),
    ) -> Option<Arc<Value>> {
        let kind = self.types.by_id(kind)?;
        let mut object = (*self.store.get(&kind.id, &key.0, &key.1)?).clone();
        change(&mut object);
        Some(self.update(&kind, object))
    }

    /// For controllers: deletes an object, finalizers first.
    pub(super) fn discard(&mut self, kind: &str, key: &ObjectKey) {
        if let Some(kind) = self.types.by_id(kind) {
            self.delete(&kind, key);
        }
    }

    /// Whether a job to collect garbage would find any.
    pub(super) fn has_dependents(&self, job: &Job) -> bool {
        let Job::Garbage(uid) = job else { return true };
        self.store.everything().any(|(_, _, object)| is_owned_by(object, uid))
    }

    /// Whether a namespace takes new objects: `None` if there is none, `Some(false)` if it is on its way out.
    pub(super) fn namespace_accepts(&self, namespace: &str) -> Option<bool> {
        self.store.get("namespaces", "", namespace).map(|object| !is_terminating(&object))
    }

    /// Five characters for a generated name.
    pub(super) fn name_suffix(&mut self) -> String {
        (0..5).map(|_| char::from(NAME_CHARACTERS[self.random.next_u32() as usize % NAME_CHARACTERS.len()])).collect()
    }

    fn uid(&mut self) -> String {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

/// Enters a cluster on behalf of `actor`; afterwards the ledger knows what changed, and the controllers do.
pub(super) fn enter<R>(
    world: &mut World,
    id: ClusterId,
    actor: &'static str,
    visit: impl FnOnce(&mut Cluster) -> R,
) -> Option<R> {
    let (now, unix_seconds) = (world.timestamp(), world.utc().unix_timestamp());
    let cluster = world.clusters.by_id.get_mut(&id)?;
    cluster.now = now;
    cluster.unix_seconds = unix_seconds;
    let result = visit(cluster);
    let changes = std::mem::take(&mut cluster.changes);
    for change in changes {
        record(world, actor, &change);
        controllers::react(world, id, &change);
    }
    Some(result)
}

/// A short digest that names what is derived from something else.
pub(super) fn digest(text: &str, characters: usize) -> String {
    let mut digest = hex::encode(Sha256::digest(text));
    digest.truncate(characters);
    digest
}

fn record(world: &mut World, actor: &'static str, change: &Change) {
    let verb = match change.verb {
        Verb::Added => "created",
        Verb::Deleted => "deleted",
        Verb::Modified if change.previous.as_ref().is_some_and(|before| matters(before, &change.object)) => "updated",
        Verb::Modified => return,
    };
    let (namespace, name) = key_of(&change.object);
    let name = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
    let now = world.now;
    world.ledger.change(now, actor, verb, format!("{} {name}", change.kind));
}

/// Whether a change is worth a line: what is wanted, whether it is ready, that it is on its way out.
fn matters(before: &Value, after: &Value) -> bool {
    fn shown(object: &Value) -> [&Value; 5] {
        let (ready, status) = (condition(object, "Ready").unwrap_or(&Value::Null), &object["status"]);
        [&ready["status"], &ready["reason"], &status["phase"], &status["revision"], &status["error"]]
    }
    is_terminating(before) != is_terminating(after) || shown(before) != shown(after) || wants_differ(before, after)
}

/// Whether anything but metadata and status differs.
fn wants_differ(before: &Value, after: &Value) -> bool {
    fn wants(object: &Value) -> BTreeMap<&String, &Value> {
        let fields = object.as_object().into_iter().flatten();
        fields.filter(|(key, _)| *key != "metadata" && *key != "status").collect()
    }
    wants(before) != wants(after)
}

/// A CRD is served from the moment it exists (in reality some milliseconds later).
fn establish(definition: &mut Value, now: &str) {
    let names = definition["spec"]["names"].clone();
    set(definition, &["status", "acceptedNames"], names);
    let stored: Vec<Value> = list(definition, "/spec/versions")
        .iter()
        .filter(|version| version["storage"] == true)
        .map(|version| json!(text(version, "/name")))
        .collect();
    set(definition, &["status", "storedVersions"], Value::Array(stored));
    set_condition(definition, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now);
    set_condition(
        definition,
        "Established",
        "True",
        "InitialNamesAccepted",
        "the initial names have been accepted",
        now,
    );
}
