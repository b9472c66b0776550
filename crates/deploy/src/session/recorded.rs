//! What earlier runs have settled, as it is in the journal. What cannot be read is an error and never "nothing": hosts
//! that are claimed would be forgotten, and addresses dealt anew.

use std::collections::BTreeSet;

use engine::{JournalError, State, StepStatus};
use serde::de::DeserializeOwned;

use crate::{
    azure::Tags,
    tags,
    task::Task,
    topology::{ClusterId, Leaving, Node, Positions, Topology},
};

/// What is settled about child clusters: their names; null if a teardown could not ask for them.
pub(crate) const CHILDREN: &str = "children";
/// What is settled about hosts that existed before.
pub(super) const HOSTS: &str = "hosts";
/// What is settled about the world in which the cluster is: its name.
pub(super) const WORLD: &str = "world";
/// What is settled about the places of machines in the address ranges.
pub(super) const POSITIONS: &str = "positions";

/// The state, if everything in it can be read that decides what belongs to the cluster.
pub(super) fn legible(state: State) -> Result<State, JournalError> {
    positions(&state)?;
    settled::<Vec<Node>>(&state, HOSTS)?;
    children(&state)?;
    settled::<Tags>(&state, tags::SETTLED)?;
    Ok(state)
}

/// The world in which the cluster is; journals of earlier versions do not say.
pub(super) fn world(state: &State) -> Option<&str> {
    state.settled.get(WORLD)?.as_str()
}

/// The child clusters that an earlier run has seen.
pub(super) fn children(state: &State) -> Result<BTreeSet<String>, JournalError> {
    settled(state, CHILDREN)
}

/// The same, for those who have no session.
pub fn known_children(state: &State) -> Result<BTreeSet<String>, super::SessionError> {
    Ok(children(state)?)
}

/// The places that machines have.
pub(super) fn positions(state: &State) -> Result<Positions, JournalError> {
    settled(state, POSITIONS)
}

/// The hosts that existed before and were claimed, or are about to be.
pub(super) fn claimed_hosts(state: &State) -> Result<Vec<Node>, JournalError> {
    let mut nodes: Vec<Node> = settled(state, HOSTS)?;
    nodes.retain(|node| {
        let begun = state.steps.get(&Task::Ready(0).id_of(&node.name));
        let gone = state.steps.get(&Task::DeleteMachine(0).id_of(&node.name));
        let gone = gone.filter(|step| step.status == StepStatus::Completed).and_then(|step| step.ended_at);
        gone.is_none() || gone < begun.and_then(|step| step.started_at)
    });
    Ok(nodes)
}

/// The hosts that were claimed and are not wanted any more, until they are given back.
pub(super) fn leaving_hosts(topology: &Topology, state: &State) -> Result<Vec<Leaving>, JournalError> {
    let leaving = claimed_hosts(state)?.into_iter().filter(|node| topology.node(&node.name).is_none());
    let leaving = leaving.map(|node| Leaving {
        name: node.name.clone(),
        role: node.role,
        private_address: Some(node.private_address),
        host: Some(Box::new(node)),
    });
    Ok(leaving.collect())
}

/// The cluster that an environment's records name.
pub fn cluster_id(state: &State) -> Option<ClusterId> {
    state.settled.get("cluster_id").and_then(|id| ClusterId::parse(id.as_str()?).ok())
}

/// A settlement; what there is before any, if there is none.
fn settled<T: DeserializeOwned + Default>(state: &State, key: &str) -> Result<T, JournalError> {
    let Some(recorded) = state.settled.get(key).filter(|recorded| !recorded.is_null()) else { return Ok(T::default()) };
    let illegible = |source| JournalError::Illegible { key: key.to_owned(), source };
    serde_json::from_value(recorded.clone()).map_err(illegible)
}
