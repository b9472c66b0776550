//! Files of our own, and a look at whether Azure will let us.

use std::collections::BTreeSet;

use engine::{Context, Done, Failure};
use serde_json::json;

use crate::{
    azure::{Call, Demand, NodeDemand, Severity, preflight as azure_preflight},
    cloud_init,
    config::{self, Bastion, Host},
    deployment::{Deployment, arm_failure},
    environment::Access,
    hosts::Finding,
    keys::{openssh_private, openssh_public},
    words::count,
};

/// Where the cloud-init documents are.
const DOCUMENTS: &str = "cloud-init-yaml";

fn document_file(node: &str) -> String {
    format!("{DOCUMENTS}/{node}-cloud-init.yaml")
}

/// The SSH key, the known hosts' keys and one cloud-init document a machine.
pub(super) async fn documents(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    if !deployment.topology.provider.makes_machines() {
        return openssh_of_hosts(deployment, context);
    }
    let Deployment { environment, config, topology, keys, mesh, .. } = deployment;
    let user_key = keys.ssh_user();
    let key_file = deployment.ssh_key_file();
    environment.artifact(context, &key_file, openssh_private(&user_key).expose(), Access::Secret)?;
    let public = format!("{}\n", openssh_public(&user_key));
    environment.artifact(context, &format!("{key_file}.pub"), &public, Access::Public)?;
    for node in &topology.nodes {
        let document = cloud_init::document(config, topology, keys, *mesh, node);
        if document.expose().len() > cloud_init::BYTES_LIMIT {
            return Err(Failure::refused(format!(
                "the cloud-init document of {} has {} bytes; Azure takes {} at most",
                node.name,
                document.expose().len(),
                cloud_init::BYTES_LIMIT
            )));
        }
        environment.artifact(context, &document_file(&node.name), document.expose(), Access::Secret)?;
    }
    // They hold private keys: of machines that are not wanted any more, nobody needs them.
    let files: BTreeSet<String> = topology.nodes.iter().map(|node| document_file(&node.name)).collect();
    environment.discard(context, DOCUMENTS, |file| files.contains(file))?;
    Ok(Done::seen(count(topology.nodes.len(), "document")))
}

/// Everything that Azure can be asked before the first write.
pub(super) async fn preflight(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let call = Call::within(context.step().deadline);
    super::local_files::are_usable(deployment)?;
    context.waiting("Azure's answers about permissions, sizes, quota and images", "");
    let arm = &deployment.azure()?.arm;
    let report = azure_preflight::preflight(arm, &demand(deployment), call).await.map_err(arm_failure)?;
    let errors: Vec<_> = report.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    for finding in report.findings.iter().filter(|finding| finding.severity != Severity::Error) {
        context.note(finding.to_string())?;
    }
    if errors.is_empty() {
        // All machines of a run are made from the same version, whatever is published meanwhile.
        let version = Some(&report.facts.image_version).filter(|version| !version.is_empty());
        version.map(|version| deployment.image_version.get_or_init(|| version.clone()));
        let evidence = |text: &str| context.waiting("resource providers are registered", text);
        for namespace in &report.facts.unregistered {
            let intent = context.intend(format!("register resource provider {namespace}")).await?;
            let subscription = &deployment.azure()?.ids.subscription;
            azure_preflight::register(&intent, arm, subscription, namespace, call, &evidence)
                .await
                .map_err(arm_failure)?;
            context.effected(intent).await?;
        }
        return Ok(Done::seen(format!("room for {}", count(deployment.topology.nodes.len(), "machine"))));
    }
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Failure::refused(format!("Azure will not let us; nothing was created:\n{}", messages.join("\n"))))
}

/// The same questions, when nothing follows from the answers.
pub(crate) async fn examine(deployment: &Deployment, call: Call) -> Result<Vec<Finding>, Failure> {
    let arm = &deployment.azure()?.arm;
    let report = azure_preflight::preflight(arm, &demand(deployment), call).await.map_err(arm_failure)?;
    let findings = report.findings.iter().map(|finding| Finding {
        subject: "Azure".to_owned(),
        severity: match finding.severity {
            Severity::Error => config::Severity::Error,
            Severity::Warning => config::Severity::Warning,
        },
        message: finding.to_string(),
    });
    Ok(findings.collect())
}

/// What the machines that do not exist yet will need.
fn demand(deployment: &Deployment) -> Demand {
    let config = &deployment.config;
    let mut nodes: Vec<NodeDemand> = Vec::new();
    for node in &deployment.topology.nodes {
        if deployment.inventory.find(crate::azure::Kind::VirtualMachine, &node.name).is_some() {
            continue;
        }
        match nodes.iter_mut().find(|demand| demand.size == node.size && demand.zones == node.allowed_zones) {
            Some(demand) => demand.count += 1,
            None => nodes.push(NodeDemand { size: node.size.clone(), count: 1, zones: node.allowed_zones.clone() }),
        }
    }
    Demand {
        location: config.azure.location.clone(),
        spot: config.azure.vm_priority == crate::config::VmPriority::Spot,
        nodes,
        image: config.azure.vm_image.clone(),
    }
}

/// The operator's side of the mesh, and what OpenSSH needs to reach the machines.
pub(super) async fn mesh_operator(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let Deployment { environment, topology, keys, mesh, config, .. } = deployment;
    let address = |name: &str| {
        let position = topology.nodes.iter().position(|node| node.name == name).unwrap_or_default();
        deployment.machine(position).address().map(|address| address.to_string()).unwrap_or_default()
    };
    let file = format!("wireguard/{}.conf", mesh.operator_interface(&topology.cluster_id));
    let operator = mesh.operator_config(topology, keys, |node| address(&node.name));
    environment.artifact(context, &file, operator.expose(), Access::Secret)?;
    let key_file = absolute(&environment.path(&deployment.ssh_key_file()));
    let logins = topology.nodes.iter().map(|node| Login {
        name: node.name.clone(),
        address: address(&node.name),
        port: SSH_PORT,
        user: config.ssh.username.clone(),
        key_file: key_file.clone(),
        host_key: openssh_public(&keys.ssh_host(&node.name)),
        jump: None,
    });
    openssh(deployment, context, &logins.collect::<Vec<_>>())?;
    Ok(Done::seen(file.clone()).with(json!({"file": file})))
}

/// What OpenSSH needs to reach hosts that existed before, by way of the bastions.
fn openssh_of_hosts(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    super::local_files::are_usable(deployment)?;
    let mut logins: Vec<Login> = Vec::new();
    for (index, bastion) in deployment.config.ssh.bastions.iter().enumerate() {
        let Bastion { address, port, user, key, host_key } = bastion.clone();
        let jump = logins.last().map(|login| login.name.clone());
        let (name, host_key) = (format!("bastion-{}", index + 1), host_key.to_string());
        logins.push(Login { name, address, port, user, key_file: key, host_key, jump });
    }
    let jump = logins.last().map(|login| login.name.clone());
    for node in &deployment.topology.nodes {
        let Some(Host { address, port, user, key, host_key, .. }) = node.host.clone() else { continue };
        let (name, host_key) = (node.name.clone(), host_key.to_string());
        logins.push(Login { name, address, port, user, key_file: key, host_key, jump: jump.clone() });
    }
    openssh(deployment, context, &logins)?;
    Ok(Done::seen(count(logins.len(), "host")))
}

/// The port of SSH that OpenSSH takes by itself.
const SSH_PORT: u16 = 22;

/// Where and as whom OpenSSH logs in.
struct Login {
    name: String,
    address: String,
    port: u16,
    user: String,
    key_file: String,
    host_key: String,
    jump: Option<String>,
}

/// `ssh/config` and `ssh/known_hosts`.
fn openssh(deployment: &Deployment, context: &Context<'_>, logins: &[Login]) -> Result<(), Failure> {
    let environment = &deployment.environment;
    let (mut known_hosts, mut ssh_config) = (String::new(), String::new());
    for Login { name, address, port, user, key_file, host_key, jump } in logins {
        // The key without its comment.
        let host_key = host_key.split(' ').take(2).collect::<Vec<_>>().join(" ");
        known_hosts += &format!("{name},{address} {host_key}\n");
        ssh_config += &format!("Host {name}\n  HostName {address}\n");
        if *port != SSH_PORT {
            ssh_config += &format!("  Port {port}\n");
        }
        if let Some(jump) = jump {
            ssh_config += &format!("  ProxyJump {jump}\n");
        }
        ssh_config += &format!(
            "  HostKeyAlias {name}\n  User {user}\n  IdentityFile {key_file}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n\n",
            absolute(&environment.path("ssh/known_hosts")),
        );
    }
    environment.artifact(context, "ssh/known_hosts", &known_hosts, Access::Public)?;
    environment.artifact(context, "ssh/config", &ssh_config, Access::Public)?;
    Ok(())
}

fn absolute(path: &std::path::Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
