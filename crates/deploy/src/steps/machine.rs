//! Virtual machines: created, provisioned, reachable, and in the mesh.

use std::time::Duration;

use engine::{Context, Done, Failure, pause};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    network::{only_ours, priority, tags},
    replacing::again,
};
use crate::{
    azure::{Answer, ArmError, Call, ErrorClass, Kind, Priority, inventory, resources},
    cloud_init,
    config::{EvictionPolicy, VmPriority},
    control_plane::{MACHINE, broken},
    deployment::{Deployment, Fate, LOOK_AGAIN, arm_failure, ssh_failure},
    keys::openssh_public,
    machine_proxy,
    seam::lock,
    ssh::{Remote, SshError},
    words::count,
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
        image: &config.azure.vm_image,
        image_version: deployment.image_version.get().map(String::as_str),
        disk_name: &planned.os_disk_name(),
        disk_gb: u32::from(config.azure.os_disk_gb),
        username: &config.ssh.username,
        public_key: &openssh_public(&deployment.keys.ssh_user()),
        custom_data: document.expose(),
        network_interface_id: &deployment.azure()?.ids.of(Kind::NetworkInterface, &planned.network_interface_name()),
        tags: &tags(deployment, Some(node)),
    }))
}

pub(super) async fn put(
    deployment: &Deployment,
    context: &Context<'_>,
    node: usize,
) -> Result<Result<(), ArmError>, Failure> {
    let planned = deployment.node(node);
    let zone = deployment.machine(node).zone();
    let call =
        Call::within(context.step().deadline).with_priority(priority(deployment, Priority::VIRTUAL_MACHINE, node));
    let path = deployment.azure()?.ids.of(Kind::VirtualMachine, &planned.name);
    let place = place(zone);
    let intent = context.intend(format!("create virtual machine {}{place}", planned.name)).await?;
    context.waiting("Azure accepts the machine", format!("asked for {}{place}", planned.size));
    let answer: Answer = match deployment.azure()?.arm.put(&intent, &path, &body(deployment, node)?, call).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(error)),
    };
    deployment.azure()?.watch.remember(Kind::VirtualMachine, &planned.name, &answer);
    deployment.machine(node).set_new(inventory::identity(&answer.body));
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
    let mut tried = Vec::from_iter(deployment.machine(node).zone());
    loop {
        match put(deployment, context, node).await? {
            Ok(()) => return Ok(Done::seen(format!("accepted{}", place(deployment.machine(node).zone())))),
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
    let call = Call::within(context.step().deadline);
    let intent = context.intend("start the stopped machine").await?;
    let answer = deployment.azure()?.arm.post(&intent, &path, &Value::Null, call).await.map_err(arm_failure)?;
    context.effected(intent).await?;
    let name = &deployment.node(node).name;
    let evidence = |text: &str| context.waiting(format!("Azure starts {name}"), text);
    // Azure accepts the start before it knows whether it has room for the machine.
    if let Some(url) = &answer.operation {
        let ended = deployment.azure()?.watch.operation(url, &path, call, &evidence).await;
        ended.or_else(|error| doomed(deployment, node, arm_failure(error)).map(drop))?;
    }
    Ok(Done::seen("started"))
}

/// The zone to try after a lack of capacity: the next allowed one that was not tried.
fn next_zone(deployment: &Deployment, node: usize, error: &ArmError, tried: &[u8]) -> Option<u8> {
    if !matches!(error.class, ErrorClass::Capacity { .. }) {
        return None;
    }
    let allowed = &deployment.node(node).allowed_zones;
    let here = allowed.iter().position(|&zone| Some(zone) == deployment.machine(node).zone()).unwrap_or_default();
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
    let from = machine.zone().map(|from| format!(" from zone {from}")).unwrap_or_default();
    context.note(format!("{name} moves{from} to zone {zone}: {error}"))?;
    *lock(&machine.zone) = Some(zone);
    Ok(())
}

/// ` in zone 2`; nothing for a machine that is in none.
fn place(zone: Option<u8>) -> String {
    zone.map(|zone| format!(" in zone {zone}")).unwrap_or_default()
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
    let mut tried = Vec::from_iter(deployment.machine(node).zone());
    for replacement in 0..=REPLACEMENTS {
        let call = Call::within(context.step().deadline);
        let evidence = |text: &str| context.waiting(format!("Azure calls {name} ready"), text);
        let machine = deployment.machine(node);
        let error = match deployment.azure()?.watch.settled(Kind::VirtualMachine, name, call, &evidence).await {
            Ok(_) => {
                let zone = deployment.machine(node).zone();
                deployment.machine(node).fate.send_replace(Fate::Up);
                return Ok(Done::seen(format!("running{}", place(zone))).with(json!({"zone": zone})));
            }
            Err(error) => error,
        };
        let no_room = matches!(error.class, ErrorClass::Capacity { .. });
        let zone = next_zone(deployment, node, &error, &tried);
        let replaceable =
            matches!(error.class, ErrorClass::Capacity { .. } | ErrorClass::Failed | ErrorClass::Unavailable);
        if replaceable && machine.is_kept() {
            context.note(format!("{name} is left as it is, though Azure calls it Failed: {error}"))?;
            machine.fate.send_replace(Fate::Up);
            return Ok(
                Done::seen("Azure calls it Failed, and it is left as it is").with(json!({"zone": machine.zone()}))
            );
        }
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
        again(deployment, context, node).await?;
    }
    Err(Failure::new(format!("{name} was made anew {REPLACEMENTS} times and failed each time")))
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
    let become_ready = || become_ready(deployment, &remote, context, node);
    let mut becoming = std::pin::pin!(become_ready());
    loop {
        let is_there = *fate.borrow() != Fate::Replaced;
        tokio::select! {
            biased;
            turned = turn(&mut fate) => {
                match &turned {
                    Fate::Open => {}
                    Fate::Replaced => {
                        // First, because what it replaces may be about to connect.
                        becoming.set(become_ready());
                        remote.disconnect().await;
                    }
                    Fate::Up => {}
                    Fate::Doomed(why) => {
                        return Err(Failure::new(format!("{} will not come up: {why}", deployment.node(node).name)));
                    }
                }
                patient = patience(&turned);
                deadline = Instant::now() + patient;
            }
            result = tokio::time::timeout_at(deadline, &mut becoming), if is_there => {
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

async fn become_ready(
    deployment: &Deployment,
    remote: &Remote,
    context: &Context<'_>,
    index: usize,
) -> Result<Done, Failure> {
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
        let machine = deployment.machine(index);
        let identity = json!({MACHINE: machine.identity()});
        let status = report["status"].as_str();
        if status == Some("done") && errors.is_empty() {
            machine.keep();
            return Ok(Done::seen("SSH answers with the pinned key; cloud-init is done").with(identity));
        }
        if is_about_packages(&errors) {
            install_packages(deployment, context, remote).await?;
            machine.keep();
            return Ok(Done::seen("SSH answers with the pinned key; its packages are installed").with(identity));
        }
        if !machine.is_kept() {
            // cloud-init runs once: the next run makes the machine anew.
            context.settle(broken(node), json!({MACHINE: machine.identity(), "why": "its cloud-init has failed"}))?;
        }
        return Err(Failure::new(format!(
                "cloud-init on {node} ended with {} (exit code {}): {}",
                status.unwrap_or("no status"),
                output.code,
                if errors.is_empty() { output.stderr.trim().to_owned() } else { errors.join("; ") },
            ))
            .advise(format!(
                "Look: `k0rdentctl ssh {node} -- sudo cat /var/log/cloud-init-output.log`. `k0rdentctl deploy` makes the machine anew."
            )));
    }
}

/// Whether cloud-init has failed over its packages alone; commands that need them fail with them. Names of modules are
/// written with hyphens or underscores (cloud-init 22.4 and 23.4).
fn is_about_packages(errors: &[&str]) -> bool {
    let is_of = |error: &str, module: &str| error.replace('-', "_").contains(module);
    errors.iter().any(|error| is_of(error, "package_update_upgrade_install"))
        && errors.iter().all(|error| is_of(error, "package_update_upgrade_install") || is_of(error, "scripts_user"))
}

/// Installs what cloud-init could not, as often as it takes until whoever has apt's lock lets go of it.
async fn install_packages(deployment: &Deployment, context: &Context<'_>, remote: &Remote) -> Result<(), Failure> {
    let node = &remote.target().node;
    let intent = context.intend(format!("install the packages that cloud-init could not install on {node}")).await?;
    context.note(format!("{node}: cloud-init could not install its packages; that is done once more"))?;
    if let Some(content) = machine_proxy::apt(&deployment.config) {
        // It may have been configured after the machine was born.
        let uploaded = remote.upload(&intent, machine_proxy::APT, content.expose().as_bytes(), "0600", "root").await;
        uploaded.map_err(ssh_failure)?;
    }
    let command = cloud_init::install_packages(deployment.mesh);
    loop {
        context.waiting(format!("the packages of {node} are installed"), "apt is at work");
        let seen = match remote.try_run(&command, None, PACKAGES_PATIENCE).await {
            Ok(output) if output.code == 0 => return context.effected(intent).await,
            Ok(output) => {
                let said = output.stderr.trim().lines().next().unwrap_or("apt-get said nothing").to_owned();
                match said.starts_with("E: Failed to fetch") {
                    true => format!("{said}. {}", machine_proxy::advice(&deployment.config, "http")),
                    false => said,
                }
            }
            Err(error @ SshError::HostKey { .. }) => return Err(ssh_failure(error)),
            Err(error) => error.to_string(),
        };
        context.waiting(format!("the packages of {node} are installed"), seen);
        pause(PACKAGES_AGAIN).await;
    }
}

/// How long apt may take, and how long until it is asked again.
const PACKAGES_PATIENCE: Duration = Duration::from_secs(600);
const PACKAGES_AGAIN: Duration = Duration::from_secs(10);

/// How many machines are asked at the same time.
const AT_ONCE: usize = 64;
/// How long the mesh's unit may try by itself before it is put right again.
const MESH_PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the mesh is up on the machine, with the key that was made for it.
pub(super) async fn mesh_member(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let mesh = deployment.mesh;
    let planned = deployment.node(node);
    let remote = deployment.remote(node).await?;
    let expected = mesh.identity(&deployment.keys, planned);
    let condition = format!("{} is active on {} with its own key", mesh.unit(), planned.name);
    let mut since: Option<Instant> = None;
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
        // A unit that is on its way may arrive by itself; one that nobody has started, or that runs with something else, will not.
        let is_on_its_way = ["activating", "reloading"].contains(&active.stdout.trim());
        let is_due = since.map_or(!is_on_its_way, |since| since.elapsed() > MESH_PATIENCE);
        if is_due {
            put_right(deployment, context, &remote, planned).await?;
        }
        if is_due || since.is_none() {
            since = Some(Instant::now());
        }
        pause(LOOK_AGAIN).await;
    }
}

/// Every machine is still in the mesh; one that has fallen out is put right.
pub(super) async fn mesh_holds(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    context.waiting("every machine is in the mesh", "");
    let unit = deployment.mesh.unit();
    let look = async |node: usize| {
        let remote = deployment.remote(node).await?;
        let question = format!("systemctl is-active {unit}");
        let active = remote.try_run(&question, None, Duration::from_secs(30)).await.map_err(ssh_failure)?;
        let state = active.stdout.trim().to_owned();
        if state != "active" {
            context.note(format!("{}: {unit} is {state}", deployment.node(node).name))?;
            mesh_member(deployment, context, node).await?;
        }
        remote.disconnect_unless(node == deployment.speaker()).await;
        Ok::<_, Failure>(())
    };
    let nodes = deployment.topology.nodes.len();
    let looks: Vec<_> = futures::stream::iter((0..nodes).map(look)).buffer_unordered(AT_ONCE).collect().await;
    looks.into_iter().collect::<Result<(), Failure>>()?;
    Ok(Done::seen(format!("{nodes} of {}", count(nodes, "machine"))))
}

/// Writes what the mesh needs on the machine again, and restarts its unit.
async fn put_right(
    deployment: &Deployment,
    context: &Context<'_>,
    remote: &Remote,
    planned: &crate::topology::Node,
) -> Result<(), Failure> {
    let mesh = deployment.mesh;
    let intent = context.intend(format!("restart {} on {}", mesh.unit(), planned.name)).await?;
    for file in mesh.files(&deployment.topology, &deployment.keys, planned) {
        let content = file.content.expose().as_bytes();
        remote.upload(&intent, file.path, content, file.mode, "root").await.map_err(ssh_failure)?;
    }
    let restart =
        format!("sudo systemctl daemon-reload; sudo systemctl enable {0}; sudo systemctl restart {0}", mesh.unit());
    remote.try_run(&restart, None, Duration::from_secs(30)).await.map_err(ssh_failure)?;
    context.effected(intent).await
}
