//! Hosts that exist already: examined, claimed, and given back as they were found.
//!
//! A host is ours while it carries our claim; whoever else's it is, or nobody's with k0s on it, is left alone.

use std::time::Duration;

use engine::{Context, Done, Failure};
use futures::StreamExt as _;
use serde_json::json;

use super::teardown;
use crate::{
    config::Severity,
    deployment::{Deployment, ssh_failure},
    hosts::{CLAIM, Finding, Survey, download_command, findings_together, survey_command},
    k0s,
    leftovers::Leftover,
    machine_proxy,
    ssh::{Remote, SshError},
    topology::{Node, Topology},
    words::count,
};

/// How long a host may take to say how it is, with everything that it has to reach.
const SURVEY: Duration = Duration::from_secs(120);
/// How long a host may take to answer a small question.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many hosts are asked at the same time.
const HOSTS_AT_ONCE: usize = 64;

/// Everything that speaks against the hosts, of all of them at once. Changes nothing.
pub(crate) async fn examine(deployment: &Deployment) -> Vec<Finding> {
    let mut asked = Vec::new();
    for (position, node) in deployment.topology.nodes.iter().enumerate() {
        asked.push(async move { (node, survey(deployment, position).await) });
    }
    let answers: Vec<_> = futures::stream::iter(asked).buffered(HOSTS_AT_ONCE).collect().await;
    let (mut findings, mut surveys) = (Vec::new(), Vec::new());
    for (node, answer) in answers {
        match answer {
            Ok(survey) => {
                findings.extend(survey.findings(node, Some(deployment.topology.cluster_id.as_str())));
                surveys.push((node, survey));
            }
            Err(failure) => {
                let subject = node.name.clone();
                findings.push(Finding { subject, severity: Severity::Error, message: failure.message });
            }
        }
    }
    findings.extend(findings_together(&surveys, deployment.world.clock.utc().unix_timestamp()));
    findings
}

async fn survey(deployment: &Deployment, position: usize) -> Result<Survey, Failure> {
    let remote = deployment.remote(position).await?;
    let downloads = k0s::downloads(&deployment.config);
    let proxy = machine_proxy::curl(&deployment.config);
    let direct = if proxy.is_some() { &[][..] } else { &downloads };
    let mut said = remote.run_once(&survey_command(direct), SURVEY).await.map_err(ssh_failure)?.stdout;
    if let Some(proxy) = proxy {
        for url in &downloads {
            let (command, input) = (download_command(url, true), Some(proxy.expose().as_bytes()));
            let connection = remote.connect().await.map_err(ssh_failure)?;
            said += &connection.run(&command, input, SURVEY).await.map_err(ssh_failure)?.stdout;
        }
    }
    remote.disconnect_unless(deployment.node(position).leader).await;
    Ok(Survey::of(&said))
}

/// Whether the hosts are fit, before the first change.
pub(super) async fn preflight(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    context.waiting("every host says how it is", "");
    let (errors, warnings): (Vec<_>, Vec<_>) =
        examine(deployment).await.into_iter().partition(|finding| finding.severity == Severity::Error);
    for warning in &warnings {
        context.note(warning.to_string())?;
    }
    if errors.is_empty() {
        return Ok(Done::seen(format!("fit: {}", count(deployment.topology.nodes.len(), "host"))));
    }
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Failure::refused(format!("these hosts cannot be used as they are; nothing was touched:\n{}", lines.join("\n")))
        .advise("Put it right, look again with `k0rdentctl check`, then run `k0rdentctl deploy`."))
}

/// Claims a host for the cluster.
pub(super) async fn claim(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let (remote, planned) = (deployment.remote(node).await?, deployment.node(node));
    let cluster = deployment.topology.cluster_id.as_str();
    context.waiting(format!("{} answers SSH", planned.name), "");
    match claimed_by(&remote).await.map_err(ssh_failure)? {
        Some(owner) if owner == cluster => {}
        Some(owner) => return Err(belongs_to(planned, &owner)),
        None => {
            let intent = context.intend(format!("claim {} for {cluster}", planned.name)).await?;
            // It fails where somebody was faster, and leaves nothing half done.
            let claim = format!("sudo ln -s {cluster} {CLAIM}");
            remote.try_run(&claim, None, PATIENCE).await.map_err(ssh_failure)?;
            match claimed_by(&remote).await.map_err(ssh_failure)? {
                Some(owner) if owner == cluster => context.effected(intent).await?,
                Some(owner) => return Err(belongs_to(planned, &owner)),
                None => return Err(Failure::new(format!("{} cannot be claimed: no {CLAIM}", planned.name))),
            }
        }
    }
    Ok(Done::seen("SSH answers with the pinned key; the host is ours"))
}

fn belongs_to(node: &Node, owner: &str) -> Failure {
    Failure::refused(format!("{} belongs to the cluster {owner} ({CLAIM}); it is left alone", node.name))
        .advise("Take it out of the configuration, or reset that cluster.")
}

async fn claimed_by(remote: &Remote) -> Result<Option<String>, SshError> {
    let output = remote.try_run(&format!("readlink {CLAIM}"), None, PATIENCE).await?;
    Ok(Some(output.stdout.trim().to_owned()).filter(|owner| !owner.is_empty()))
}

/// Gives a host back: k0s and our files are gone, and last the claim. One that is not ours is left alone.
pub(super) async fn release(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    give_back(deployment, context, deployment.node(node)).await
}

/// [`release`], of a host that may not be wanted any more.
pub(super) async fn give_back(deployment: &Deployment, context: &Context<'_>, node: &Node) -> Result<Done, Failure> {
    let remote = &deployment.remote_host(node)?;
    let cluster = deployment.topology.cluster_id.as_str();
    context.waiting(format!("{} answers SSH", node.name), "");
    match claimed_by(remote).await.map_err(ssh_failure)? {
        None => return Ok(Done::seen("it is not claimed: nothing of ours is there")),
        Some(owner) if owner != cluster => return Ok(Done::seen(format!("it belongs to the cluster {owner}"))),
        Some(_) => {}
    }
    let intent = context.intend(format!("give {} back", node.name)).await?;
    teardown::clear(deployment, context, node, remote).await?.map_err(ssh_failure)?;
    let unit = k0s::unit(node);
    let places = k0s::PLACES.join(" ");
    let proxy = machine_proxy::removal(&deployment.config, node);
    let remove = format!(
        "sudo systemctl disable {unit} >/dev/null 2>&1; {proxy}sudo rm -rf --one-file-system -- {places} /etc/systemd/system/{unit}.service && sudo systemctl daemon-reload && sudo rm -f -- {CLAIM}"
    );
    remote.run(&remove).await.map_err(ssh_failure)?;
    context.effected(intent).await?;
    remote.disconnect().await;
    Ok(Done::seen("k0s and our files are gone"))
}

/// Every host is as it was: nothing of ours is left anywhere.
pub(super) async fn evidence(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    context.waiting("no host has anything of this cluster", "");
    let left = left(deployment).await;
    if left.is_empty() {
        let hosts = deployment.topology.nodes.len();
        return Ok(Done::seen(format!("0 left on {}", count(hosts, "host"))).with(json!({"leftovers": []})));
    }
    let names: Vec<&str> = left.iter().map(|left| left.id.as_str()).collect();
    Err(Failure::new(format!("{} left: {}", left.len(), names.join(", ")))
        .advise("Run `k0rdentctl reset` again; it removes what is left."))
}

/// What is left of the cluster on its hosts. One that does not answer may have anything.
pub(crate) async fn left(deployment: &Deployment) -> Vec<Leftover> {
    let Topology { nodes, leaving, .. } = &deployment.topology;
    let mut hosts: Vec<&Node> = nodes.iter().collect();
    hosts.extend(leaving.iter().filter_map(|leaving| leaving.host.as_deref()));
    let mut asked = Vec::new();
    for host in hosts {
        asked.push(left_on(deployment, host));
    }
    let answers: Vec<_> = futures::stream::iter(asked).buffered(HOSTS_AT_ONCE).collect().await;
    answers.into_iter().flatten().collect()
}

async fn left_on(deployment: &Deployment, planned: &Node) -> Option<Leftover> {
    let cluster = deployment.topology.cluster_id.as_str();
    let what = match ask(deployment, planned).await {
        Ok(lines) if lines.first().map(String::as_str) != Some(cluster) => return None,
        Ok(lines) => lines.into_iter().skip(1).chain([CLAIM.to_owned()]).collect::<Vec<_>>().join(", "),
        Err(failure) => failure.message,
    };
    let host = planned.host.as_ref().map(|host| host.address.as_str()).unwrap_or_default();
    Some(Leftover {
        id: format!("{} ({host}): {what}", planned.name),
        kind: "host".to_owned(),
        cluster_id: cluster.to_owned(),
        is_sure: true,
        usd_per_hour: Some(0.0),
        remove: "k0rdentctl reset".to_owned(),
        held_by: Vec::new(),
    })
}

/// Whose the host is, and what there is of k0s.
async fn ask(deployment: &Deployment, node: &Node) -> Result<Vec<String>, Failure> {
    let remote = deployment.remote_host(node)?;
    let proxy = machine_proxy::places(&deployment.config, node);
    let places: Vec<&str> = k0s::PLACES.into_iter().chain(proxy.iter().map(String::as_str)).collect();
    let question = format!("readlink {CLAIM}; ls -d {} 2>/dev/null", places.join(" "));
    let output = remote.run_once(&question, PATIENCE).await.map_err(ssh_failure)?;
    Ok(output.stdout.lines().map(|line| line.trim().to_owned()).collect())
}
