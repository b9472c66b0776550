//! k0s: the binary, the first controller, those that join it, and the kubeconfigs that come out of it.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use engine::{Context, Done, Failure, pause};
use serde_json::json;
use tokio::time::Instant;

use super::local_files::{self, Place};
use crate::{
    deployment::{Deployment, LOOK_AGAIN, kubernetes_failure, ssh_failure},
    environment::Access,
    k0s::{
        self, AIRGAP_BUNDLE, API_PORT, BINARY, CONFIG, TOKEN, architecture_of_size, cluster_config, download_url,
        install_command, k0sctl_config, kubeconfig_env, unit,
    },
    kubernetes::{KubernetesError, NODE, node_ready},
    secret::Secret,
    ssh::Remote,
    topology::{Node, Role},
};

/// How long a join token is good for.
const TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// A token with less time left is not handed out any more.
const TOKEN_RESERVE: Duration = Duration::from_secs(10 * 60);
/// How long a command on a machine may usually take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A join token of this run.
pub struct Token {
    text: Secret,
    made: Instant,
}

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
    let wanted = &deployment.config.software.k0s.version;
    let partial = &format!("{BINARY}.partial");
    local_files::place(deployment, context, remote, file, &Place { path: BINARY, partial, mode: "0755" }).await?;
    match installed_version(remote).await? {
        Some(version) if version == *wanted => Ok(Done::seen(format!("k0s {wanted} is there, from {file}"))),
        Some(version) => Err(Failure::refused(format!("{file} is k0s {version}, and {wanted} is wanted"))
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
    if installed_version(remote).await?.as_deref() == Some(wanted) {
        return Ok(Done::seen(format!("k0s {wanted} is there")));
    }
    let architecture = match planned.host {
        None => architecture_of_size(planned),
        Some(_) => {
            let machine = remote.run("uname -m").await.map_err(ssh_failure)?;
            let unknown = || Failure::refused(format!("{}: there is no k0s for {}", planned.name, machine.trim()));
            k0s::architecture(machine.trim()).ok_or_else(unknown)?
        }
    };
    let url = download_url(&deployment.config, architecture);
    let intent = context.intend(format!("download {url} to {}", planned.name)).await?;
    context.waiting(format!("k0s is downloaded to {}", planned.name), &url);
    let partial = format!("{BINARY}.partial");
    let command = format!(
        "sudo curl -fsSL --retry 5 --retry-connrefused -o {partial} '{url}' && sudo chmod 0755 {partial} && sudo mv -f {partial} {BINARY}"
    );
    remote.run_with(&command, None, context.step().deadline).await.map_err(ssh_failure)?;
    context.effected(intent).await?;
    match installed_version(remote).await? {
        Some(version) if version == *wanted => Ok(Done::seen(format!("k0s {wanted} is there"))),
        other => Err(Failure::new(format!(
            "{url} on {} is not k0s {wanted} but {}",
            planned.name,
            other.unwrap_or_else(|| "no program that runs there".to_owned())
        ))
        .advise("Check software.k0s.version, software.k0s.download_url and the machine's architecture.")),
    }
}

async fn installed_version(remote: &Remote) -> Result<Option<String>, Failure> {
    let output = remote.try_run(&format!("{BINARY} version"), None, PATIENCE).await.map_err(ssh_failure)?;
    Ok((output.code == 0).then(|| output.stdout.trim().to_owned()))
}

async fn is_active(node: &Node, remote: &Remote) -> Result<bool, Failure> {
    let status = remote.try_run(&format!("systemctl is-active {}", unit(node)), None, PATIENCE).await;
    Ok(status.map_err(ssh_failure)?.stdout.trim() == "active")
}

/// Installs and starts the service on a machine; a service that runs already is left alone.
async fn install(
    deployment: &Deployment,
    context: &Context<'_>,
    node: &Node,
    remote: &Remote,
    token: Option<Secret>,
) -> Result<(), Failure> {
    if is_active(node, remote).await? {
        return Ok(());
    }
    let intent = context.intend(format!("install and start {} on {}", unit(node), node.name)).await?;
    if node.role == Role::Controller {
        let content = cluster_config(&deployment.config, &deployment.topology, node);
        remote.upload(CONFIG, content.as_bytes(), "0600", "root").await.map_err(ssh_failure)?;
    }
    let joins = token.is_some();
    if let Some(token) = token {
        remote.upload(TOKEN, token.expose().as_bytes(), "0600", "root").await.map_err(ssh_failure)?;
    }
    let command = format!(
        "{} && sudo systemctl daemon-reload && sudo systemctl enable --now {}",
        install_command(node, joins),
        unit(node)
    );
    context.waiting(format!("{} starts on {}", unit(node), node.name), "");
    remote.run_with(&command, None, PATIENCE).await.map_err(ssh_failure)?;
    context.effected(intent).await
}

/// The first controller: installed, started, and its API server ready.
pub(super) async fn leader(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    if deployment.speaker() != node {
        // It was lost, and others have kept the cluster: it comes back as one of them.
        return controller(deployment, context, node).await;
    }
    let remote = deployment.remote(node).await?;
    let planned = deployment.node(node);
    install(deployment, context, planned, &remote, None).await?;
    api_ready(context, planned, &remote).await?;
    deployment.forget_cluster();
    Ok(Done::seen("its API server is ready"))
}

async fn api_ready(context: &Context<'_>, node: &Node, remote: &Remote) -> Result<(), Failure> {
    let condition = format!("the API server on {} is ready", node.name);
    loop {
        let output = remote
            .try_run(&format!("sudo {BINARY} kubectl get --raw=/readyz"), None, PATIENCE)
            .await
            .map_err(ssh_failure)?;
        if output.code == 0 && output.stdout.trim() == "ok" {
            return Ok(());
        }
        let said = if output.stderr.trim().is_empty() { output.stdout } else { output.stderr };
        context.waiting(&condition, said.lines().last().unwrap_or_default().trim());
        pause(LOOK_AGAIN).await;
    }
}

/// A further controller: it joins etcd, and its own API server is ready.
pub(super) async fn controller(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let remote = deployment.remote(node).await?;
    let planned = deployment.node(node);
    if !is_active(planned, &remote).await? {
        // What is left of an earlier life of this machine would keep it from joining.
        let address = planned.private_address.to_string();
        super::leaving::strike_off(deployment, context, &planned.name, &address).await?;
        let token = join_token(deployment, context, Role::Controller).await?;
        install(deployment, context, planned, &remote, Some(token)).await?;
    }
    api_ready(context, planned, &remote).await?;
    forget_token(deployment, context, planned, &remote).await?;
    Ok(Done::seen("member of etcd; its API server is ready"))
}

/// A worker: it joins, and its node is Ready.
pub(super) async fn worker(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let remote = deployment.remote(node).await?;
    let planned = deployment.node(node);
    if !is_active(planned, &remote).await? {
        let token = join_token(deployment, context, Role::Worker).await?;
        install(deployment, context, planned, &remote, Some(token)).await?;
    }
    node_is_ready(deployment, context, &planned.name).await?;
    forget_token(deployment, context, planned, &remote).await?;
    Ok(Done::seen("its node is Ready"))
}

/// One token for each role, made when it is first needed and again when it is about to expire.
async fn join_token(deployment: &Deployment, context: &Context<'_>, role: Role) -> Result<Secret, Failure> {
    let mut tokens = deployment.tokens.lock().await;
    if let Some(token) = tokens.get(&role)
        && token.made.elapsed() + TOKEN_RESERVE < TOKEN_LIFETIME
    {
        return Ok(token.text.clone());
    }
    let leader = deployment.remote(deployment.speaker()).await?;
    let intent = context.intend(format!("make a join token for {role}s, good for 30 min")).await?;
    let command = format!("sudo {BINARY} token create --role={role} --expiry=30m");
    let text = Secret::new(leader.run(&command).await.map_err(ssh_failure)?.trim());
    context.effected(intent).await?;
    tokens.insert(role, Token { text: text.clone(), made: Instant::now() });
    Ok(text)
}

/// What stays in the place of a used token. One release refuses to start without a well-formed token, even if it never
/// uses it again (k0s issue 7202).
async fn forget_token(
    deployment: &Deployment,
    context: &Context<'_>,
    node: &Node,
    remote: &Remote,
) -> Result<(), Failure> {
    if deployment.config.software.k0s.version == "v1.35.1+k0s.0" {
        return Ok(());
    }
    let comment = format!("# {} has joined; its token is gone\n", node.name);
    let intent = context.intend(format!("remove the used join token from {}", node.name)).await?;
    remote.upload(TOKEN, comment.as_bytes(), "0600", "root").await.map_err(ssh_failure)?;
    context.effected(intent).await
}

/// Invalidates this run's tokens; those of a run that was killed expire by themselves.
pub(super) async fn revoke_tokens(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let mut tokens = deployment.tokens.lock().await;
    let mut revoked = 0;
    while let Some((role, token)) = tokens.pop_first() {
        let Some(id) = token_id(token.text.expose()) else { continue };
        let leader = deployment.remote(deployment.speaker()).await?;
        let intent = context.intend(format!("revoke the join token for {role}s")).await?;
        let command = format!("sudo {BINARY} token invalidate {id}");
        leader.run(&command).await.map_err(ssh_failure)?;
        context.effected(intent).await?;
        revoked += 1;
    }
    Ok(Done::seen(format!("{revoked} tokens revoked")))
}

/// The public half of a join token: a token is base64(gzip(kubeconfig)), in which the user's token is `id.secret` (k0s
/// source).
fn token_id(token: &str) -> Option<String> {
    use base64::Engine as _;
    use std::io::Read as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(token).ok()?;
    let mut kubeconfig = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).take(1 << 20).read_to_string(&mut kubeconfig).ok()?;
    let value: serde_json::Value = serde_saphyr::from_str(&kubeconfig).ok()?;
    let (id, _) = value.pointer("/users/0/user/token")?.as_str()?.split_once('.')?;
    Some(id.to_owned())
}

async fn node_is_ready(deployment: &Deployment, context: &Context<'_>, name: &str) -> Result<(), Failure> {
    let condition = format!("node {name} is Ready");
    context.waiting(&condition, "the service has started");
    let nodes = deployment.node_board().await?;
    let mut seen = nodes.subscribe();
    loop {
        let evidence = match seen.borrow_and_update().get(name) {
            Some(node) if node.ready => return Ok(()),
            Some(node) => node.message.clone(),
            None => "the node has not registered yet".to_owned(),
        };
        context.waiting(&condition, evidence);
        if seen.changed().await.is_err() {
            return Err(Failure::new(format!("nobody watches the nodes any more while waiting for {name}")));
        }
    }
}

/// Every node that runs workloads is Ready. Controllers that run none have no node.
pub(super) async fn nodes_ready(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let expected: Vec<&Node> = deployment.topology.nodes.iter().filter(|node| node.runs_workloads).collect();
    for node in &expected {
        node_is_ready(deployment, context, &node.name).await?;
    }
    Ok(Done::seen(format!("{} of {} nodes Ready", expected.len(), expected.len())))
}

/// The kubeconfig on this computer, for use through the mesh, and the file to source.
pub(super) async fn kubeconfig(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let remote = deployment.remote(deployment.speaker()).await?;
    let text = remote.run(&format!("sudo {BINARY} kubeconfig admin")).await.map_err(ssh_failure)?;
    let admin = crate::kubeconfig::Admin::from_kubeconfig(&text)
        .map_err(|why| Failure::new(format!("`k0s kubeconfig admin` on {}: {why}", remote.target().node)))?;
    let speaker = deployment.node(deployment.speaker());
    let server = format!("https://{}:{API_PORT}", speaker.operator_side_address());
    let content = admin.kubeconfig(deployment.topology.cluster_id.as_str(), &server);
    let file = deployment.kubeconfig_file();
    deployment.environment.artifact(context, &file, content.expose(), Access::Secret)?;
    let name = file.rsplit('/').next().unwrap_or_default();
    deployment.environment.artifact(context, "kubeconfig/kubeconfig-env.sh", &kubeconfig_env(name), Access::Public)?;
    Ok(Done::seen(&file).with(json!({"file": file})))
}

/// The same cluster for k0sctl's users.
pub(super) async fn k0sctl(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let key = std::path::absolute(deployment.environment.path(&deployment.ssh_key_file()))
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    let file = format!("k0sctl-config/{}-k0sctl.yaml", deployment.topology.cluster_id);
    let content = k0sctl_config(&deployment.config, &deployment.topology, &key);
    deployment.environment.artifact(context, &file, &content, Access::Public)?;
    Ok(Done::seen(file))
}

/// A kubeconfig in the user's home on a machine, with an address that works from there.
pub(super) async fn home_kubeconfig(
    deployment: &Deployment,
    context: &Context<'_>,
    node: usize,
) -> Result<Done, Failure> {
    let remote = deployment.remote(node).await?;
    let planned = deployment.node(node);
    let user = &deployment.config.ssh.username;
    let api = match planned.role {
        Role::Controller => planned.private_address,
        Role::Worker => deployment.node(deployment.speaker()).private_address,
    };
    let server = format!("https://{api}:{API_PORT}");
    let content = deployment.admin().await?.kubeconfig(deployment.topology.cluster_id.as_str(), &server);
    let line = "export KUBECONFIG=$HOME/.kube/config";
    let intent = context.intend(format!("write /home/{user}/.kube/config on {}", planned.name)).await?;
    let directory = format!("sudo install -d -m 0700 -o {user} -g {user} /home/{user}/.kube");
    remote.run(&directory).await.map_err(ssh_failure)?;
    let path = format!("/home/{user}/.kube/config");
    remote.upload(&path, content.expose().as_bytes(), "0600", user).await.map_err(ssh_failure)?;
    let profile = format!("grep -qxF '{line}' .bashrc || echo '{line}' >> .bashrc");
    remote.run(&profile).await.map_err(ssh_failure)?;
    context.effected(intent).await?;
    remote.disconnect_unless(node == deployment.speaker()).await;
    Ok(Done::seen(format!("{path}, server {server}")))
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Whether it is Ready.
    pub ready: bool,
    /// Why not, in its own words.
    pub message: String,
    /// The kubelet's version.
    pub version: String,
}

impl NodeSeen {
    /// What a Node object says.
    pub fn of(node: &kube::api::DynamicObject) -> Self {
        let message = crate::kubernetes::condition(node, "Ready")
            .and_then(|ready| ready["message"].as_str())
            .unwrap_or("it says nothing about being Ready");
        let version = node.data.pointer("/status/nodeInfo/kubeletVersion").and_then(|version| version.as_str());
        Self { ready: node_ready(node), message: message.to_owned(), version: version.unwrap_or_default().to_owned() }
    }
}

/// Follows the nodes for as long as the run lives, on one watch for all who wait.
pub(crate) async fn follow_nodes(
    kubernetes: crate::kubernetes::Kubernetes,
    board: Arc<tokio::sync::watch::Sender<std::collections::BTreeMap<String, NodeSeen>>>,
) {
    let look = |nodes: &std::collections::BTreeMap<String, kube::api::DynamicObject>| {
        let seen: std::collections::BTreeMap<_, _> =
            nodes.iter().map(|(name, node)| (name.clone(), NodeSeen::of(node))).collect();
        board.send_if_modified(|current| {
            let changed = *current != seen;
            if changed {
                *current = seen;
            }
            changed
        });
        ControlFlow::<()>::Continue(())
    };
    loop {
        // It ends by a refusal only; those who wait have deadlines of their own, and the next try may be allowed.
        let _refused: Result<(), KubernetesError> = kubernetes.follow(NODE, None, None, look, |_| {}).await;
        pause(LOOK_AGAIN).await;
    }
}

/// Turns a refusal of the API into a failure.
pub(super) fn refused(error: KubernetesError) -> Failure {
    kubernetes_failure(error)
}
