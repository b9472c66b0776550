//! Virtual machines: created, provisioned, reachable, and in the mesh.

use std::{sync::PoisonError, time::Duration};

use engine::{Context, Done, Failure, pause};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::network::{only_ours, priority, tags};
use crate::{
    azure::{Answer, ArmError, Call, ErrorClass, Kind, Priority, inventory, resources},
    cloud_init,
    config::{EvictionPolicy, VmPriority},
    deployment::{Deployment, Fate, LOOK_AGAIN, arm_failure, ssh_failure},
    keys::openssh_public,
    ssh::{Remote, SshError},
};

/// How often a machine is made anew, each time on evidence.
const REPLACEMENTS: u32 = 2;

fn body(deployment: &Deployment, node: usize) -> Result<Value, Failure> {
    let config = &deployment.config;
    let planned = deployment.node(node);
    let eviction = match config.azure.eviction_policy {
        EvictionPolicy::Deallocate => resources::Eviction::Deallocate,
        EvictionPolicy::Delete => resources::Eviction::Delete,
    };
    let document = cloud_init::document(config, &deployment.topology, &deployment.keys, deployment.mesh, planned);
    Ok(resources::virtual_machine(&resources::VirtualMachine {
        name: &planned.name,
        location: &config.azure.location,
        zone: deployment.machine(node).zone(),
        size: &planned.size,
        spot: (config.azure.vm_priority == VmPriority::Spot).then_some(eviction),
        image: &config.azure.vm_image.to_string(),
        disk_name: &planned.os_disk_name(),
        disk_gb: u32::from(config.azure.os_disk_gb),
        username: &config.ssh.username,
        public_key: &openssh_public(&deployment.keys.ssh_user()),
        custom_data: document.expose(),
        network_interface_id: &deployment.azure()?.ids.of(Kind::NetworkInterface, &planned.network_interface_name()),
        tags: &tags(deployment, Some(node)),
    }))
}

async fn put(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Result<(), ArmError>, Failure> {
    let planned = deployment.node(node);
    let zone = deployment.machine(node).zone();
    let call =
        Call::within(context.step().deadline).with_priority(priority(deployment, Priority::VIRTUAL_MACHINE, node));
    let path = deployment.azure()?.ids.of(Kind::VirtualMachine, &planned.name);
    let intent = context.intend(format!("create virtual machine {} in zone {zone}", planned.name)).await?;
    context.waiting("Azure accepts the machine", format!("asked for {} in zone {zone}", planned.size));
    let answer: Answer = match deployment.azure()?.arm.put(&path, &body(deployment, node)?, call).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(error)),
    };
    deployment.azure()?.watch.remember(Kind::VirtualMachine, &planned.name, &answer);
    context.effected(intent).await?;
    Ok(Ok(()))
}

/// Asks Azure for the machine; the next zone is tried at once if this one has no room.
pub(super) async fn create(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let planned = deployment.node(node);
    if let Some(existing) = deployment.inventory.find(Kind::VirtualMachine, &planned.name) {
        only_ours(deployment, existing, &format!("virtual machine {}", planned.name))?;
        match inventory::power_state(existing) {
            _ if inventory::is_deleting(existing) => {
                let evidence = |text: &str| context.waiting(format!("the old machine {} is gone", planned.name), text);
                let call = Call::within(context.step().deadline);
                let removed =
                    deployment.azure()?.watch.removed(Kind::VirtualMachine, &planned.name, call, &evidence).await;
                removed.map_err(arm_failure)?;
            }
            Some("deallocated" | "deallocating" | "stopped" | "stopping") => {
                return start(deployment, context, node).await;
            }
            _ => return Ok(Done::seen("it exists")),
        }
    }
    let mut tried = vec![deployment.machine(node).zone()];
    loop {
        match put(deployment, context, node).await? {
            Ok(()) => return Ok(Done::seen(format!("accepted in zone {}", deployment.machine(node).zone()))),
            Err(error) => {
                let Some(zone) = next_zone(deployment, node, &error, &tried) else {
                    return doomed(deployment, node, arm_failure(error));
                };
                move_to(deployment, context, node, zone, &error)?;
                tried.push(zone);
            }
        }
    }
}

async fn start(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let path = format!("{}/start", deployment.azure()?.ids.of(Kind::VirtualMachine, &deployment.node(node).name));
    let intent = context.intend("start the stopped machine").await?;
    deployment
        .azure()?
        .arm
        .post(&path, &Value::Null, Call::within(context.step().deadline))
        .await
        .map_err(arm_failure)?;
    context.effected(intent).await?;
    Ok(Done::seen("started"))
}

/// The zone to try after a lack of capacity: the next allowed one that was not tried.
fn next_zone(deployment: &Deployment, node: usize, error: &ArmError, tried: &[u8]) -> Option<u8> {
    if !matches!(error.class, ErrorClass::Capacity { .. }) {
        return None;
    }
    let allowed = &deployment.node(node).allowed_zones;
    let here = allowed.iter().position(|&zone| zone == deployment.machine(node).zone()).unwrap_or_default();
    (1..=allowed.len()).map(|step| allowed[(here + step) % allowed.len()]).find(|zone| !tried.contains(zone))
}

fn move_to(
    deployment: &Deployment,
    context: &Context<'_>,
    node: usize,
    zone: u8,
    error: &ArmError,
) -> Result<(), Failure> {
    let machine = deployment.machine(node);
    let name = &deployment.node(node).name;
    context.note(format!("{name} moves from zone {} to zone {zone}: {error}", machine.zone()))?;
    *machine.zone.lock().unwrap_or_else(PoisonError::into_inner) = zone;
    Ok(())
}

/// Those who wait for the machine need not wait any longer.
fn doomed(deployment: &Deployment, node: usize, failure: Failure) -> Result<Done, Failure> {
    deployment.machine(node).fate.send_replace(Fate::Doomed(failure.message.clone()));
    Err(failure)
}

/// Waits until Azure calls the machine ready. A machine that Azure itself calls failed is made anew, in another zone
/// if this one has no room.
pub(super) async fn provisioned(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let name = &deployment.node(node).name;
    let mut tried = vec![deployment.machine(node).zone()];
    for replacement in 0..=REPLACEMENTS {
        let call = Call::within(context.step().deadline);
        let evidence = |text: &str| context.waiting(format!("Azure calls {name} ready"), text);
        let error = match deployment.azure()?.watch.settled(Kind::VirtualMachine, name, call, &evidence).await {
            Ok(_) => {
                let zone = deployment.machine(node).zone();
                deployment.machine(node).fate.send_replace(Fate::Up);
                return Ok(Done::seen(format!("running in zone {zone}")).with(json!({"zone": zone})));
            }
            Err(error) => error,
        };
        let no_room = matches!(error.class, ErrorClass::Capacity { .. });
        let zone = next_zone(deployment, node, &error, &tried);
        let replaceable =
            matches!(error.class, ErrorClass::Capacity { .. } | ErrorClass::Failed | ErrorClass::Unavailable);
        if replacement == REPLACEMENTS || !replaceable || (no_room && zone.is_none()) {
            return doomed(deployment, node, arm_failure(error));
        }
        match zone {
            Some(zone) => {
                move_to(deployment, context, node, zone, &error)?;
                tried.push(zone);
            }
            None => context.note(format!("{name} is made anew: {error}"))?,
        }
        replace(deployment, context, node).await?;
    }
    Err(Failure::new(format!("{name} was made anew {REPLACEMENTS} times and failed each time")))
}

/// Deletes the failed machine, keeping its address, and asks for a new one. The interface must outlive the machine, so
/// it is made again if it went with it.
async fn replace(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<(), Failure> {
    let planned = deployment.node(node);
    let call = Call::within(context.step().deadline);
    let ids = &deployment.azure()?.ids;
    let (kind, name) = (Kind::VirtualMachine, &planned.name);
    let intent = context.intend(format!("delete the failed machine {name}")).await?;
    // Detached first: the address and the interface would die with the machine.
    let keep = json!({"properties": {"networkProfile": {"networkInterfaces": [{
        "id": ids.of(Kind::NetworkInterface, &planned.network_interface_name()),
        "properties": {"primary": true, "deleteOption": "Detach"},
    }]}}});
    deployment.azure()?.arm.patch(&ids.of(kind, name), &keep, call).await.map_err(arm_failure)?;
    deployment.azure()?.arm.delete(&ids.of(kind, name), call).await.map_err(arm_failure)?;
    context.effected(intent).await?;
    let evidence = |text: &str| context.waiting(format!("the failed machine {name} is gone"), text);
    deployment.azure()?.watch.removed(kind, name, call, &evidence).await.map_err(arm_failure)?;
    put(deployment, context, node).await?.map_err(arm_failure)?;
    deployment.machine(node).fate.send_replace(Fate::Open);
    Ok(())
}

/// Waits until the machine answers SSH with the host key that was made for it, and cloud-init is done. Its time begins
/// when Azure calls the machine ready: until then Azure may still give it up, and it is made anew.
pub(super) async fn ready(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let remote = deployment.remote(node).await?;
    let mut fate = deployment.machine(node).fate.subscribe();
    let patience = |fate: &Fate| match fate {
        Fate::Up => deployment.config.timeouts.machine_ready(),
        _ => context.step().deadline,
    };
    let mut patient = patience(&fate.borrow_and_update());
    let mut deadline = Instant::now() + patient;
    let mut becoming = std::pin::pin!(become_ready(&remote, context));
    loop {
        tokio::select! {
            biased;
            turned = turn(&mut fate) => {
                match &turned {
                    Fate::Open => {
                        remote.disconnect().await;
                        becoming.set(become_ready(&remote, context));
                    }
                    Fate::Up => {}
                    Fate::Doomed(why) => {
                        return Err(Failure::new(format!("{} will not come up: {why}", deployment.node(node).name)));
                    }
                }
                patient = patience(&turned);
                deadline = Instant::now() + patient;
            }
            result = tokio::time::timeout_at(deadline, &mut becoming) => {
                return result.unwrap_or_else(|_| Err(context.too_late(patient)));
            }
        }
    }
}

/// What happens to the machine while others wait for it: Azure calls it ready, it is made anew, or given up.
async fn turn(fate: &mut tokio::sync::watch::Receiver<Fate>) -> Fate {
    if let doomed @ Fate::Doomed(_) = &*fate.borrow_and_update() {
        return doomed.clone();
    }
    match fate.changed().await {
        Ok(()) => fate.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}

async fn become_ready(remote: &Remote, context: &Context<'_>) -> Result<Done, Failure> {
    let node = &remote.target().node;
    let waiting = format!("{node} answers SSH on {}:{}", remote.target().host, remote.target().port);
    loop {
        match remote.connect().await {
            Ok(_) => break,
            Err(error @ SshError::HostKey { .. }) => return Err(ssh_failure(error)),
            Err(error) => context.waiting(&waiting, error.to_string()),
        }
        pause(LOOK_AGAIN).await;
    }
    loop {
        context.waiting(format!("cloud-init on {node} is done"), "SSH answers; cloud-init is running");
        // It blocks on the machine until cloud-init is done; the deadline is the step's.
        let patience = context.step().deadline;
        let output = match remote.try_run("cloud-init status --wait --format json", None, patience).await {
            Ok(output) => output,
            Err(error @ SshError::HostKey { .. }) => return Err(ssh_failure(error)),
            Err(error) => {
                context.waiting(format!("cloud-init on {node} is done"), error.to_string());
                pause(LOOK_AGAIN).await;
                continue;
            }
        };
        let report = output.stdout.find('{').map(|start| &output.stdout[start..]).unwrap_or_default();
        let report: Value = serde_json::from_str(report).unwrap_or_default();
        let errors: Vec<&str> = report["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        return match report["status"].as_str() {
            Some("done") if errors.is_empty() => Ok(Done::seen("SSH answers with the pinned key; cloud-init is done")),
            status => Err(Failure::new(format!(
                "cloud-init on {node} ended with {} (exit code {}): {}",
                status.unwrap_or("no status"),
                output.code,
                if errors.is_empty() { output.stderr.trim().to_owned() } else { errors.join("; ") },
            ))
            .advise(format!(
                "Look: `k0rdentctl ssh {node} -- sudo cat /var/log/cloud-init-output.log`. Then delete the machine in Azure, and run `k0rdentctl deploy` again."
            ))),
        };
    }
}

/// How long the mesh's unit may try by itself before it is restarted.
const MESH_PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the mesh is up on the machine, with the key that was made for it.
pub(super) async fn mesh_member(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let mesh = deployment.mesh;
    let planned = deployment.node(node);
    let remote = deployment.remote(node).await?;
    let expected = mesh.identity(&deployment.keys, planned);
    let condition = format!("{} is active on {} with its own key", mesh.unit(), planned.name);
    let since = Instant::now();
    let mut repaired = false;
    loop {
        let patience = Duration::from_secs(30);
        let unit = format!("systemctl is-active {}", mesh.unit());
        let active = remote.try_run(&unit, None, patience).await.map_err(ssh_failure)?;
        let identity = remote.try_run(mesh.identity_command(), None, patience).await.map_err(ssh_failure)?;
        if active.stdout.trim() == "active" && identity.stdout.trim() == expected {
            return Ok(Done::seen(format!("public key {expected}")));
        }
        let why = if identity.code == 0 && identity.stdout.trim() != expected {
            "another key is in use".to_owned()
        } else {
            format!("the unit is {}; {}", active.stdout.trim(), identity.stderr.trim())
        };
        context.waiting(&condition, why);
        if since.elapsed() > MESH_PATIENCE && !repaired {
            repaired = true;
            let intent = context.intend(format!("restart {} on {}", mesh.unit(), planned.name)).await?;
            let restart = format!("sudo systemctl restart {}", mesh.unit());
            remote.try_run(&restart, None, patience).await.map_err(ssh_failure)?;
            context.effected(intent).await?;
        }
        pause(LOOK_AGAIN).await;
    }
}
