//! The k0s binary on a machine: it is run only if it is, byte for byte, what the release or the configuration says.

use std::time::Duration;

use engine::{Context, Done, Failure};
use serde_json::json;

use super::local_files::{self, Place};
use crate::{
    deployment::{Deployment, ssh_failure},
    k0s::{self, AIRGAP_BUNDLE, BINARY, architecture_of_size, download_url},
    machine_proxy, release,
    ssh::Remote,
    topology::Node,
};

/// How long a command on a machine may usually take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Puts the wanted k0s binary on a machine, and the images if there are any, unless they are there.
pub(super) async fn binary(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let remote = deployment.remote(node).await?;
    let planned = deployment.node(node);
    let software = &deployment.config.software.k0s;
    let done = match &software.binary {
        Some(file) => uploaded(deployment, context, planned, &remote, file).await?,
        None => downloaded(deployment, context, planned, &remote).await?,
    };
    if let Some(file) = software.airgap_bundle.as_ref().filter(|_| planned.runs_workloads) {
        let place = Place { path: AIRGAP_BUNDLE, partial: "/var/lib/k0s/airgap-bundle.partial", mode: "0644" };
        local_files::place(deployment, context, &remote, file, &place).await?;
    }
    Ok(done)
}

async fn uploaded(
    deployment: &Deployment,
    context: &Context<'_>,
    node: &Node,
    remote: &Remote,
    file: &str,
) -> Result<Done, Failure> {
    let k0s = &deployment.config.software.k0s;
    let digest = local_files::digest(deployment, file).await?;
    if !k0s.sha256.any().is_empty() && !k0s.sha256.any().contains(&digest.as_str()) {
        return Err(Failure::refused(format!(
            "{file} is not what the configuration says, and was not uploaded: it has SHA-256 {digest}, not {}",
            k0s.sha256.any().join(" or ")
        ))
        .advise("Correct software.k0s.binary or software.k0s.sha256 in the configuration."));
    }
    let partial = &format!("{BINARY}.partial");
    local_files::place(deployment, context, remote, file, &Place { path: BINARY, partial, mode: "0755" }).await?;
    match installed_version(remote).await? {
        Some(version) if version == k0s.version => Ok(there(&version, &digest, file)),
        Some(version) => Err(Failure::refused(format!("{file} is k0s {version}, and {} is wanted", k0s.version))
            .advise(format!("Set software.k0s.version to {version}, or software.k0s.binary to another file."))),
        None => Err(Failure::refused(format!("{file} does not run on {}", node.name))
            .advise("Check that software.k0s.binary is k0s for the machine's architecture.")),
    }
}

async fn downloaded(
    deployment: &Deployment,
    context: &Context<'_>,
    planned: &Node,
    remote: &Remote,
) -> Result<Done, Failure> {
    let wanted = &deployment.config.software.k0s.version;
    let architecture = match planned.host {
        None => architecture_of_size(planned),
        Some(_) => {
            let machine = remote.run("uname -m").await.map_err(ssh_failure)?;
            let unknown = || Failure::refused(format!("{}: there is no k0s for {}", planned.name, machine.trim()));
            k0s::architecture(machine.trim()).ok_or_else(unknown)?
        }
    };
    let url = download_url(&deployment.config, architecture);
    let evidence = |text: &str| context.waiting("the SHA-256 of k0s is known", text);
    let digest = release::digest(deployment, architecture, context.step().deadline, &evidence).await?;
    // Whatever is there is not run before it was compared.
    if digest_of(remote, BINARY).await?.as_ref() != Some(&digest) {
        let intent = context.intend(format!("download {url} to {}", planned.name)).await?;
        context.waiting(format!("k0s is downloaded to {}", planned.name), &url);
        let partial = format!("{BINARY}.partial");
        // A password in its arguments would be seen by everybody there.
        let proxy = machine_proxy::curl(&deployment.config);
        let through = if proxy.is_some() { "--config - " } else { "" };
        let command = format!("sudo curl {through}-fsSL --retry 5 --retry-connrefused -o {partial} '{url}'");
        let input = proxy.as_ref().map(|proxy| proxy.expose().as_bytes());
        let downloaded = remote.run_with(&command, input, context.step().deadline).await;
        downloaded.map_err(|error| super::proxy::no_download(deployment, error))?;
        let arrived = digest_of(remote, &partial).await?.unwrap_or_default();
        if arrived != digest {
            remote.run(&format!("sudo rm -f {partial}")).await.map_err(ssh_failure)?;
            return Err(Failure::refused(format!(
                "{url} is not k0s {wanted} on {}: it has SHA-256 {arrived} there, and {} says {digest}; nothing of it was run",
                planned.name,
                release::witness(&deployment.config, architecture),
            ))
            .advise("Something between the machine and the release changes what is downloaded: a mirror, a proxy, or somebody. Check software.k0s.download_url and software.k0s.sha256."));
        }
        remote
            .run(&format!("sudo chmod 0755 {partial} && sudo mv -f {partial} {BINARY}"))
            .await
            .map_err(ssh_failure)?;
        context.effected(intent).await?;
    }
    match installed_version(remote).await? {
        Some(version) if version == *wanted => Ok(there(&version, &digest, &url)),
        other => Err(Failure::new(format!(
            "{url} on {} is not k0s {wanted} but {}",
            planned.name,
            other.unwrap_or_else(|| "no program that runs there".to_owned())
        ))
        .advise("Check software.k0s.version, software.k0s.download_url and the machine's architecture.")),
    }
}

fn there(version: &str, digest: &str, source: &str) -> Done {
    Done::seen(format!("k0s {version} is there, SHA-256 {digest}"))
        .with(json!({"version": version, "sha256": digest, "source": source}))
}

/// The SHA-256 of a file on a machine; none if it is not there.
async fn digest_of(remote: &Remote, path: &str) -> Result<Option<String>, Failure> {
    let output = remote.try_run(&format!("sha256sum {path}"), None, PATIENCE).await.map_err(ssh_failure)?;
    Ok(output.stdout.split_whitespace().next().filter(|_| output.code == 0).map(str::to_owned))
}

async fn installed_version(remote: &Remote) -> Result<Option<String>, Failure> {
    let output = remote.try_run(&format!("{BINARY} version"), None, PATIENCE).await.map_err(ssh_failure)?;
    Ok((output.code == 0).then(|| output.stdout.trim().to_owned()))
}
