//! What each step does. One function a step: look, change what is missing, and return when it was seen to hold.

mod binary;
pub(crate) mod hosts;
pub mod k0rdent;
pub mod k0s;
mod leaving;
mod left_behind;
mod local_files;
mod machine;
mod network;
pub(crate) mod prepare;
mod proxy;
mod releases;
mod removal;
mod replacing;
pub(crate) mod tags;
mod teardown;
pub(crate) mod uninstall;

use std::sync::Arc;

use async_trait::async_trait;
use engine::{Context, Done, Failure, Step};

use crate::{deployment::Deployment, task::Task};

/// A task with everything that it needs.
pub struct Bound {
    /// The task.
    pub task: Task,
    /// What it works on.
    pub deployment: Arc<Deployment>,
}

#[async_trait]
impl Step for Bound {
    async fn ensure(&self, context: &Context<'_>) -> Result<Done, Failure> {
        let deployment = &*self.deployment;
        let makes_machines = deployment.topology.provider.makes_machines();
        match self.task {
            Task::Documents => prepare::documents(deployment, context).await,
            Task::Preflight if makes_machines => prepare::preflight(deployment, context).await,
            Task::Preflight => hosts::preflight(deployment, context).await,
            Task::ResourceGroup => network::resource_group(deployment, context).await,
            Task::SshKey => network::ssh_key(deployment, context).await,
            Task::SecurityGroup => network::security_group(deployment, context).await,
            Task::VirtualNetwork => network::virtual_network(deployment, context).await,
            Task::Tags => tags::tags(deployment, context).await,
            Task::PublicAddress(node) => network::public_address(deployment, context, node).await,
            Task::Interface(node) => network::interface(deployment, context, node).await,
            Task::Replace(node) => replacing::replace(deployment, context, node).await,
            Task::Machine(node) => machine::create(deployment, context, node).await,
            Task::Provisioned(node) => machine::provisioned(deployment, context, node).await,
            Task::Ready(node) if makes_machines => machine::ready(deployment, context, node).await,
            Task::Ready(node) => hosts::claim(deployment, context, node).await,
            Task::MeshMember(node) => machine::mesh_member(deployment, context, node).await,
            Task::MeshHolds => machine::mesh_holds(deployment, context).await,
            Task::MeshOperator => prepare::mesh_operator(deployment, context).await,
            Task::Binary(node) => binary::binary(deployment, context, node).await,
            Task::Leader(node) => k0s::leader(deployment, context, node).await,
            Task::Controller(node) => k0s::controller(deployment, context, node).await,
            Task::Worker(node) => k0s::worker(deployment, context, node).await,
            Task::NodesReady => k0s::nodes_ready(deployment, context).await,
            Task::Tokens => k0s::revoke_tokens(deployment, context).await,
            Task::Kubeconfig => k0s::kubeconfig(deployment, context).await,
            Task::K0sctl => k0s::k0sctl(deployment, context).await,
            Task::HomeKubeconfig(node) => k0s::home_kubeconfig(deployment, context, node).await,
            Task::Chart => k0rdent::chart(deployment, context).await,
            Task::Management => k0rdent::management(deployment, context).await,
            Task::Drain(machine) => leaving::drain(deployment, context, machine).await,
            Task::LeaveEtcd(machine) => leaving::leave_etcd(deployment, context, machine).await,
            Task::DeleteMachine(machine) => leaving::delete(deployment, context, machine).await,
            Task::ChildClusters => uninstall::child_clusters(deployment, context).await,
            Task::DeleteManagement => uninstall::management(deployment, context).await,
            Task::DeleteChart => uninstall::chart(deployment, context).await,
            Task::DeleteLeftBehind => uninstall::left_behind(deployment, context).await,
            Task::DeleteNamespace => uninstall::namespaces(deployment, context).await,
            Task::K0rdentGone => uninstall::k0rdent_gone(deployment).await,
            Task::ResetMachine(node) => teardown::reset_machine(deployment, context, node).await,
            Task::CheckGroup => removal::check_group(deployment, context).await,
            Task::Survey => removal::survey(deployment, context).await,
            Task::DeleteResourceGroup => removal::resource_group(deployment, context).await,
            Task::TryResourceGroup => removal::try_resource_group(deployment, context).await,
            Task::RequestDeletion => removal::request_deletion(deployment, context).await,
            Task::DeleteRest => removal::rest(deployment, context).await,
            Task::Evidence if makes_machines => removal::evidence(deployment, context).await,
            Task::Evidence => hosts::evidence(deployment, context).await,
            Task::Release(node) => hosts::release(deployment, context, node).await,
            Task::K0sGone => uninstall::k0s_gone(deployment, context).await,
        }
    }
}
