//! The resource group and the network in it.

use std::time::Duration;

use engine::{Context, Done, Failure, pause};
use serde_json::{Value, json};

use crate::{
    azure::{ArmError, Call, ErrorClass, Kind, Priority, Tags, inventory, resources},
    deployment::{Deployment, arm_failure},
    topology::Role,
};

/// How often a resource is asked for when Azure accepts the request and fails later: the same request is a new try
/// (Azure documentation: `PUT` is idempotent).
const TRIES: u32 = 3;
/// Between two of those tries.
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

fn call(context: &Context<'_>, priority: Priority) -> Call {
    Call::within(context.step().deadline).with_priority(priority)
}

/// Controllers first: everything waits for them.
pub(super) fn priority(deployment: &Deployment, base: Priority, node: usize) -> Priority {
    if deployment.node(node).role == Role::Worker { base.worker() } else { base }
}

/// The tags of a resource, of a node's if there is one.
pub(super) fn tags(deployment: &Deployment, node: Option<usize>) -> Tags {
    let node = node.map(|node| deployment.node(node));
    let node = node.map(|node| (node.name.as_str(), node.role.name()));
    let cluster = deployment.topology.cluster_id.as_str();
    let ours = resources::resource_tags(cluster, &deployment.owner, deployment.epoch, node);
    resources::with_tags(&deployment.config.azure.given_tags(), ours)
}

/// The group that holds everything. One that is not ours is left alone.
pub(super) async fn resource_group(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let cluster = deployment.topology.cluster_id.as_str();
    let group = &deployment.topology.names.resource_group;
    if let Some(existing) = &deployment.inventory.group {
        only_ours(deployment, existing, &format!("resource group {group}"))?;
        if !deployment.inventory.is_deleting() {
            return Ok(Done::seen("it exists"));
        }
        let evidence = |text: &str| context.waiting(format!("the old resource group {group} is gone"), text);
        let call = call(context, Priority::FOUNDATION);
        deployment.azure()?.watch.gone(None, call, &evidence).await.map_err(arm_failure)?;
    }
    let created = deployment.world.clock.utc().replace_nanosecond(0).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let created = created.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    let body = resources::resource_group(
        &deployment.config.azure.location,
        &resources::with_tags(
            &deployment.config.azure.given_tags(),
            resources::group_tags(cluster, &deployment.owner, &created),
        ),
    );
    let intent = context.intend(format!("create resource group {group}")).await?;
    let path = deployment.azure()?.ids.group();
    deployment
        .azure()?
        .arm
        .put(&intent, &path, &body, call(context, Priority::FOUNDATION))
        .await
        .map_err(arm_failure)?;
    context.effected(intent).await?;
    Ok(Done::seen("created"))
}

/// Creates one resource unless it exists, and waits until Azure calls it ready.
async fn ensure(
    deployment: &Deployment,
    context: &Context<'_>,
    (kind, name): (Kind, &str),
    body: impl FnOnce() -> Value,
    priority: Priority,
    goes_with: Option<&str>,
) -> Result<Value, Failure> {
    let call = call(context, priority);
    let evidence = |text: &str| context.waiting(format!("Azure calls {name} ready"), text);
    let after: Option<Value>;
    let found = match goes_with {
        None => deployment.inventory.find(kind, name),
        Some(machine) => {
            after = left_of(deployment, context, (kind, name), machine, call).await?;
            after.as_ref()
        }
    };
    if let Some(found) = found {
        only_ours(deployment, found, name)?;
    }
    let state = found.map(|found| (found, inventory::provisioning_state(found)));
    match state {
        Some((found, _)) if kind == Kind::NetworkSecurityGroup && rules_differ(deployment, found) => {
            let mut body = body();
            // The request replaces all tags, and those of others are theirs.
            if let (Some(theirs), Some(ours)) = (found["tags"].as_object(), body["tags"].as_object_mut()) {
                let is_ours = |name: &str| ours.keys().any(|own| own.eq_ignore_ascii_case(name));
                let kept: Vec<_> = theirs.iter().filter(|(name, _)| !is_ours(name)).collect();
                ours.extend(kept.into_iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            create(deployment, context, kind, name, &body, call).await?.map_err(arm_failure)
        }
        Some((found, None | Some("Succeeded"))) => Ok(found.clone()),
        Some((_, Some("Creating" | "Updating"))) => {
            deployment.azure()?.watch.settled(kind, name, call, &evidence).await.map_err(arm_failure)
        }
        _ => {
            let body = body();
            for _ in 1..TRIES {
                match create(deployment, context, kind, name, &body, call).await? {
                    Err(error) if matches!(error.class, ErrorClass::Failed | ErrorClass::Unavailable) => {
                        context.note(format!("{name} is asked for again: {error}"))?;
                        pause(BETWEEN_TRIES).await;
                    }
                    other => return other.map_err(arm_failure),
                }
            }
            create(deployment, context, kind, name, &body, call).await?.map_err(arm_failure)
        }
    }
}

/// What is not ours is left alone, whatever its name.
pub(super) fn only_ours(deployment: &Deployment, found: &Value, name: &str) -> Result<(), Failure> {
    let cluster = deployment.topology.cluster_id.as_str();
    if inventory::tag(found, resources::TAG_CLUSTER) == Some(cluster) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{name} exists and is not ours (no tag {}={cluster}); it is left alone",
        resources::TAG_CLUSTER
    ))
    .advise("Rename or delete it, or start a new environment in another directory (`--home`)."))
}

fn rules_differ(deployment: &Deployment, group: &Value) -> bool {
    resources::rule_trouble(group, deployment.topology.mesh_port, &deployment.ssh_from).is_some()
}

/// Asks once, and waits for what becomes of it.
async fn create(
    deployment: &Deployment,
    context: &Context<'_>,
    kind: Kind,
    name: &str,
    body: &Value,
    call: Call,
) -> Result<Result<Value, ArmError>, Failure> {
    let evidence = |text: &str| context.waiting(format!("Azure calls {name} ready"), text);
    let intent = context.intend(format!("create {}", context.step().title)).await?;
    let created = deployment.azure()?.watch.put(&intent, kind, name, body, call, &evidence).await;
    context.effected(intent).await?;
    Ok(created)
}

/// The key's public half, where people look for it.
pub(super) async fn ssh_key(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let body = || {
        let key = crate::keys::openssh_public(&deployment.keys.ssh_user());
        resources::ssh_key(&deployment.config.azure.location, &tags(deployment, None), &key)
    };
    let named = (Kind::SshKey, deployment.topology.names.ssh_key.as_str());
    ensure(deployment, context, named, body, Priority::BACKGROUND, None).await?;
    Ok(Done::seen("its public half is in Azure"))
}

/// The rules: the mesh from anywhere, SSH from the operator.
pub(super) async fn security_group(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    if deployment.ssh_from.is_empty() {
        // Without the rule no machine could be reached, and the next look would call it missing.
        return Err(Failure::refused("nobody has said from where SSH is to be allowed")
            .advise("Set azure.ssh_allowed_from in the configuration."));
    }
    let body = || {
        resources::network_security_group(
            &deployment.config.azure.location,
            &tags(deployment, None),
            deployment.topology.mesh_port,
            &deployment.ssh_from,
        )
    };
    let name = &deployment.topology.names.nsg;
    ensure(deployment, context, (Kind::NetworkSecurityGroup, name), body, Priority::FOUNDATION, None).await?;
    let from = deployment.ssh_from.join(", ");
    Ok(Done::seen(format!("mesh on UDP {}, SSH from {from}", deployment.topology.mesh_port)))
}

/// The network, its subnet guarded by the rules.
pub(super) async fn virtual_network(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let names = &deployment.topology.names;
    let network = &deployment.config.network;
    let group = deployment.azure()?.ids.of(Kind::NetworkSecurityGroup, &names.nsg);
    let body = || {
        resources::virtual_network(
            &deployment.config.azure.location,
            &tags(deployment, None),
            &network.vnet_prefix.to_string(),
            (&names.subnet, &network.subnet_prefix.to_string()),
            &group,
        )
    };
    ensure(deployment, context, (Kind::VirtualNetwork, &names.vnet), body, Priority::FOUNDATION, None).await?;
    Ok(Done::seen(network.vnet_prefix.to_string()))
}

/// A machine's address on the internet. It spans the zones, where there are any, so that the machine may move between them.
pub(super) async fn public_address(
    deployment: &Deployment,
    context: &Context<'_>,
    node: usize,
) -> Result<Done, Failure> {
    let name = deployment.node(node).public_ip_name();
    let has_zones = !deployment.node(node).allowed_zones.is_empty();
    let location = &deployment.config.azure.location;
    let body = || resources::public_ip(location, &tags(deployment, Some(node)), has_zones);
    let priority = priority(deployment, Priority::PUBLIC_IP, node);
    let machine = deployment.inventory.find(Kind::VirtualMachine, &deployment.node(node).name);
    let goes = machine.is_some_and(inventory::is_deleting).then_some(deployment.node(node).name.as_str());
    let created = ensure(deployment, context, (Kind::PublicIp, &name), body, priority, goes).await?;
    let address = inventory::ip_address(&created)
        .and_then(|address| address.parse().ok())
        .ok_or_else(|| Failure::new(format!("public address {name} is ready and has no address")))?;
    deployment.machine(node).set_address(address);
    Ok(Done::seen(address.to_string()).with(json!({"public_address": address})))
}

/// A machine's network interface.
pub(super) async fn interface(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let machine = &deployment.node(node).name;
    let goes = deployment.inventory.find(Kind::VirtualMachine, machine).is_some_and(inventory::is_deleting);
    interface_of(deployment, context, node, goes).await
}

/// [`interface`]; if the machine goes or went, what was there before counts for nothing.
pub(super) async fn interface_of(
    deployment: &Deployment,
    context: &Context<'_>,
    node: usize,
    goes: bool,
) -> Result<Done, Failure> {
    let planned = deployment.node(node);
    let ids = &deployment.azure()?.ids;
    let names = &deployment.topology.names;
    let body = || {
        resources::network_interface(
            &deployment.config.azure.location,
            &tags(deployment, Some(node)),
            &ids.subnet(&names.vnet, &names.subnet),
            planned.private_address,
            &ids.of(Kind::PublicIp, &planned.public_ip_name()),
        )
    };
    let priority = priority(deployment, Priority::NETWORK_INTERFACE, node);
    let name = planned.network_interface_name();
    let goes = goes.then_some(planned.name.as_str());
    ensure(deployment, context, (Kind::NetworkInterface, &name), body, priority, goes).await?;
    Ok(Done::seen(planned.private_address.to_string()))
}

/// What is left of something that belongs to a machine, once that machine is gone: it may have gone along.
async fn left_of(
    deployment: &Deployment,
    context: &Context<'_>,
    (kind, name): (Kind, &str),
    machine: &str,
    call: Call,
) -> Result<Option<Value>, Failure> {
    let azure = deployment.azure()?;
    let evidence = |text: &str| context.waiting(format!("the old machine {machine} is gone"), text);
    azure.watch.removed(Kind::VirtualMachine, machine, call, &evidence).await.map_err(arm_failure)?;
    let evidence = |text: &str| context.waiting(format!("the old {name} is gone"), text);
    let found = azure.arm.find(&azure.ids.of(kind, name), call).await.map_err(arm_failure)?;
    if !found.as_ref().is_some_and(inventory::is_deleting) {
        return Ok(found);
    }
    azure.watch.removed(kind, name, call, &evidence).await.map_err(arm_failure)?;
    Ok(None)
}
