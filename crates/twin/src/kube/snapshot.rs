//! A cluster as data: everything that a control plane has on its disk.

use std::{collections::BTreeMap, sync::Arc};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ClusterId, ClusterSpec,
    cluster::Cluster,
    controllers::{self, charts::Installation, kcm::Kcm},
    store::{ObjectKey, Store},
    types::DEFINITIONS,
};
use crate::{
    World,
    tls::{Authority, Identity},
};

/// A certificate and its key, PEM.
type Pair = (String, String);

#[derive(Serialize, Deserialize)]
struct Snapshot {
    k0s_version: String,
    names: Vec<String>,
    authority: String,
    server: Pair,
    administrator: Pair,
    revision: u64,
    /// With the ids of their types.
    objects: Vec<(String, Value)>,
    installations: Vec<(ObjectKey, Installation)>,
    kcm: Option<Kcm>,
}

/// Everything of a cluster but its bearer tokens; nothing if it does not exist.
pub fn snapshot(world: &World, id: ClusterId) -> Option<Value> {
    let cluster = world.clusters.by_id.get(&id)?;
    let pair = |identity: &Identity| (identity.certificate_pem.clone(), identity.key_pem.clone());
    let installations = cluster.installations.iter();
    let snapshot = Snapshot {
        k0s_version: cluster.spec.k0s_version.clone(),
        names: cluster.spec.names.clone(),
        authority: cluster.certificate_pem.clone(),
        server: pair(&cluster.server),
        administrator: pair(&cluster.administrator),
        revision: cluster.store.revision,
        objects: cluster.store.everything().map(|(kind, _, object)| (kind.clone(), (**object).clone())).collect(),
        installations: installations.map(|(key, each)| (key.clone(), each.clone().interrupted())).collect(),
        kcm: cluster.kcm.clone(),
    };
    serde_json::to_value(snapshot).ok()
}

/// A number that changes with the objects of a cluster.
pub(crate) fn revision(world: &World, id: ClusterId) -> u64 {
    world.clusters.by_id.get(&id).map_or(0, |cluster| cluster.store.revision)
}

/// Makes a cluster from what [`snapshot`] has said, and starts its controllers.
pub fn restore(world: &mut World, snapshot: Value) -> Result<ClusterId, String> {
    let Snapshot { k0s_version, names, authority, server, administrator, revision, objects, installations, kcm } =
        serde_json::from_value(snapshot).map_err(|error| error.to_string())?;
    let identity = |(certificate, key): &Pair| Identity::from_pem(certificate, key).map_err(|error| error.to_string());
    let (server, administrator) = (identity(&server)?, identity(&administrator)?);
    let trusted = CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|error| error.to_string())?;
    world.clusters.made += 1;
    let id = world.clusters.made;
    // Nothing gets the name of something that exists.
    let random = world.random(&format!("kubernetes cluster {id} from {revision}"));
    let tls = Authority::server_config(&server, Some(&trusted));
    let spec = ClusterSpec { k0s_version, names };
    let mut cluster = Cluster::with(spec, authority, tls, server, administrator, random);
    let objects: Vec<_> = objects.into_iter().map(|(kind, object)| (kind, Arc::new(object))).collect();
    for (kind, object) in &objects {
        if kind == DEFINITIONS {
            cluster.types.define(object);
        }
    }
    cluster.store = Store::restored(revision, objects);
    cluster.installations = BTreeMap::from_iter(installations);
    cluster.kcm = kcm;
    world.clusters.by_id.insert(id, cluster);
    controllers::resume(world, id);
    Ok(id)
}
