//! The proxy that k0s uses, on a machine.

use std::time::Duration;

use engine::{Context, Failure};

use crate::{
    deployment::{Deployment, ssh_failure},
    machine_proxy,
    ssh::{Remote, SshError},
    topology::Node,
};

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells k0s; it listens when it starts.
pub(super) async fn place(
    deployment: &Deployment,
    context: &Context<'_>,
    node: &Node,
    remote: &Remote,
) -> Result<(), Failure> {
    let Some(environment) = machine_proxy::environment(&deployment.config, &deployment.topology) else {
        return Ok(());
    };
    let [drop_in, variables] = machine_proxy::files(node);
    let content = environment.expose().as_bytes();
    let intent = context.intend(format!("tell k0s on {} of the proxy", node.name)).await?;
    remote.upload(&intent, &variables, content, "0600", "root").await.map_err(ssh_failure)?;
    let content = machine_proxy::drop_in(node);
    remote.upload(&intent, &drop_in, content.as_bytes(), "0644", "root").await.map_err(ssh_failure)?;
    context.effected(intent).await
}

/// Whether k0s was told what the configuration says now.
pub(super) async fn stands(deployment: &Deployment, node: &Node, remote: &Remote) -> Result<bool, Failure> {
    let Some(environment) = machine_proxy::environment(&deployment.config, &deployment.topology) else {
        return Ok(true);
    };
    let output = remote.try_run(&machine_proxy::look(node), None, PATIENCE).await.map_err(ssh_failure)?;
    Ok(machine_proxy::stands(&output.stdout, node, &environment))
}

/// A download that came to nothing, with what may help: the numbers are curl's for who cannot be resolved, reached or spoken to,
/// and for answers that are none (curl 7.88), of which a proxy's is one.
pub(super) fn no_download(deployment: &Deployment, error: SshError) -> Failure {
    let is_about_the_way = match &error {
        SshError::Command { code: 22, .. } => deployment.config.proxy.https.is_some(),
        SshError::Command { code, .. } => [5, 6, 7, 28, 35, 52, 56, 60, 97].contains(code),
        _ => false,
    };
    let failure = ssh_failure(error);
    if is_about_the_way { failure.advise(machine_proxy::advice(&deployment.config, "https")) } else { failure }
}
