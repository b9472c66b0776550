//! k0s: the binary, the first controller, those that join it, and the kubeconfigs that come out of it.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use engine::{Context, Done, Failure, pause};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    control_plane::etcd_peers,
    deployment::{Deployment, LOOK_AGAIN, kubernetes_failure, ssh_failure},
    environment::Access,
    k0s::{
        API_PORT, BALANCER_PORT, BELONGINGS, BINARY, CONFIG, KUBECTL, KUBECTL_SCRIPT, TOKEN, cluster_config,
        install_command, k0sctl_config, kubeconfig_env, membership, unit,
    },
    kubernetes::{KubernetesError, NODE, node_ready},
    secret::Secret,
    ssh::Remote,
    topology::{Node, Role},
    words::count,
};

/// How long a join token is good for.
const TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// A token with less time left is not handed out any more.
const TOKEN_RESERVE: Duration = Duration::from_secs(10 * 60);
/// How long a command on a machine may usually take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a machine may need to become a member before it is looked at again.
const JOIN_PATIENCE: Duration = Duration::from_secs(180);

/// A join token of this run.
pub struct Token {
    role: Role,
    text: Secret,
    made: Instant,
}

/// What a machine says of its k0s.
struct Service {
    /// Whether the service runs, with a kubelet if the machine is to run workloads.
    is_active: bool,
    /// Whether the disk has what only a member of a cluster has.
    has_joined: bool,
}

async fn service(node: &Node, remote: &Remote) -> Result<Service, Failure> {
    let (unit, membership) = (unit(node), membership(node));
    let question = format!(
        "systemctl is-active {unit}; sudo ls -d {membership} 2>/dev/null; grep -c enable-worker /etc/systemd/system/{unit}.service 2>/dev/null"
    );
    let output = remote.try_run(&question, None, PATIENCE).await.map_err(ssh_failure)?;
    let lines: Vec<&str> = output.stdout.lines().map(str::trim).collect();
    // A controller that had workers and has none any more was installed without a kubelet.
    let lacks_kubelet = node.role == Role::Controller && node.runs_workloads && lines.last() == Some(&"0");
    Ok(Service {
        is_active: lines.first() == Some(&"active") && !lacks_kubelet,
        has_joined: lines.contains(&membership),
    })
}

/// What a machine says of its k0s, and of what k0s was told when it started: one that runs with another proxy than the
/// configuration says has to be started again.
async fn told(deployment: &Deployment, node: &Node, remote: &Remote) -> Result<Service, Failure> {
    let service = service(node, remote).await?;
    let is_active = service.is_active && super::proxy::stands(deployment, node, remote).await?;
    Ok(Service { is_active, ..service })
}

/// How a machine comes into a cluster.
#[derive(Clone, Copy)]
enum Entry<'a> {
    /// It begins one.
    Begins,
    /// It joins with this token.
    Joins(&'a Secret),
    /// It was there before, and needs nothing.
    Returns,
}

/// Installs and starts the service on a machine.
async fn install(
    deployment: &Deployment,
    context: &Context<'_>,
    node: &Node,
    remote: &Remote,
    entry: Entry<'_>,
) -> Result<(), Failure> {
    super::proxy::place(deployment, context, node, remote).await?;
    let intent = context.intend(format!("install and start {} on {}", unit(node), node.name)).await?;
    if node.role == Role::Controller {
        let content = cluster_config(&deployment.config, &deployment.topology, node);
        remote.upload(&intent, CONFIG, content.as_bytes(), "0600", "root").await.map_err(ssh_failure)?;
    }
    if let Entry::Joins(token) = entry {
        remote.upload(&intent, TOKEN, token.expose().as_bytes(), "0600", "root").await.map_err(ssh_failure)?;
    }
    // The first controller had none, and k0s does not start without the file that it is given (k0s source).
    let has_token = match entry {
        Entry::Begins => false,
        Entry::Joins(_) => true,
        Entry::Returns => !node.leader,
    };
    let command = format!(
        "{} && sudo systemctl daemon-reload && sudo systemctl enable {unit} && sudo systemctl restart {unit}",
        install_command(node, has_token),
        unit = unit(node)
    );
    context.waiting(format!("{} starts on {}", unit(node), node.name), "");
    remote.run_with(&command, None, PATIENCE).await.map_err(ssh_failure)?;
    context.effected(intent).await
}

/// Stops a service that has got nowhere, and removes what it has of a cluster that it is no member of: k0s reads its token
/// when it starts, and makes nothing anew that is there.
async fn begin_anew(context: &Context<'_>, node: &Node, remote: &Remote) -> Result<(), Failure> {
    let intent = context.intend(format!("let {} join anew: it is no member of the cluster", node.name)).await?;
    context.note(format!("{}: {} is no member of the cluster; it begins anew", node.name, unit(node)))?;
    let command = format!("sudo systemctl stop {} && sudo rm -rf {BELONGINGS}", unit(node));
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
    let service = told(deployment, planned, &remote).await?;
    if deployment.has_cluster() && !service.has_joined {
        // It must not begin a second one.
        find_speaker(deployment, context, node).await?;
        return controller(deployment, context, node).await;
    }
    if deployment.repair.start_anew && !deployment.has_cluster() && (service.is_active || service.has_joined) {
        begin_anew(context, planned, &remote).await?;
        install(deployment, context, planned, &remote, Entry::Begins).await?;
    } else if !service.is_active {
        // With what it has of its cluster it begins nothing new. It has no token that it could be started with.
        install(deployment, context, planned, &remote, Entry::Begins).await?;
    }
    api_ready(context, planned, &remote).await?;
    deployment.forget_cluster();
    Ok(Done::seen("its API server is ready"))
}

/// Waits until one of the other controllers runs, and speaks to the cluster through it.
async fn find_speaker(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<(), Failure> {
    let name = &deployment.node(node).name;
    let condition = format!("another controller lets {name} into its cluster");
    let nodes = deployment.topology.nodes.iter().enumerate();
    let others: Vec<_> = nodes.filter(|(other, planned)| *other != node && planned.role == Role::Controller).collect();
    loop {
        for (other, planned) in &others {
            let asked = async {
                let remote = deployment.remote(*other).await?;
                remote.connect().await.map_err(ssh_failure)?;
                service(planned, &remote).await
            };
            let evidence = match asked.await {
                Ok(Service { is_active: true, has_joined: true }) => {
                    deployment.set_speaker(*other);
                    deployment.forget_cluster();
                    return Ok(());
                }
                Ok(_) => format!("{}: {} does not run", planned.name, unit(planned)),
                Err(failure) => format!("{}: {failure}", planned.name),
            };
            context.waiting(&condition, evidence);
        }
        pause(LOOK_AGAIN).await;
    }
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
    let address = planned.private_address.to_string();
    let mut refused = None;
    loop {
        let service = told(deployment, planned, &remote).await?;
        // A cluster that does not answer may be waiting for this very controller.
        let is_member = service.has_joined && super::leaving::is_member(deployment, &address).await.unwrap_or(true);
        if !is_member {
            if service.is_active || service.has_joined {
                begin_anew(context, planned, &remote).await?;
            }
            // What is left of an earlier life of this machine would keep it from joining.
            super::leaving::strike_off(deployment, context, &planned.name, &address).await?;
            let token = join_token(deployment, context, Role::Controller, refused.as_ref()).await?;
            install(deployment, context, planned, &remote, Entry::Joins(&token)).await?;
            refused = Some(token);
        } else if !service.is_active {
            install(deployment, context, planned, &remote, Entry::Returns).await?;
        }
        if let Ok(ready) = timeout(JOIN_PATIENCE, api_ready(context, planned, &remote)).await {
            ready?;
            if is_in_etcd(deployment, context, planned, &remote).await? {
                break;
            }
        }
    }
    forget_token(deployment, context, planned, &remote).await?;
    Ok(Done::seen("member of etcd; its API server is ready"))
}

/// A worker: it joins, and its node is Ready.
pub(super) async fn worker(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let remote = deployment.remote(node).await?;
    let planned = deployment.node(node);
    let mut refused = None;
    loop {
        let service = told(deployment, planned, &remote).await?;
        let is_member = service.has_joined && is_node(deployment, &planned.name).await;
        if !is_member {
            if service.is_active || service.has_joined {
                begin_anew(context, planned, &remote).await?;
            }
            let token = join_token(deployment, context, Role::Worker, refused.as_ref()).await?;
            install(deployment, context, planned, &remote, Entry::Joins(&token)).await?;
            refused = Some(token);
        } else if !service.is_active {
            install(deployment, context, planned, &remote, Entry::Returns).await?;
        }
        if let Ok(ready) = timeout(JOIN_PATIENCE, node_is_ready(deployment, context, &planned.name)).await {
            ready?;
            break;
        }
    }
    forget_token(deployment, context, planned, &remote).await?;
    Ok(Done::seen("its node is Ready"))
}

/// Whether a controller and those that were there before it say the same of etcd's members. One that has started by
/// itself is a cluster of its own, however ready it is.
async fn is_in_etcd(
    deployment: &Deployment,
    context: &Context<'_>,
    node: &Node,
    remote: &Remote,
) -> Result<bool, Failure> {
    let ask = async |remote: &Remote| {
        let answer = remote.run(&format!("sudo {BINARY} etcd member-list")).await.map_err(ssh_failure)?;
        Ok::<_, Failure>(etcd_peers(&answer))
    };
    let (theirs, own) = (ask(&*deployment.remote(deployment.speaker()).await?).await?, ask(remote).await?);
    let same = theirs == own;
    if !same {
        context.note(format!("{}: its etcd is a cluster of its own; it joins anew", node.name))?;
        begin_anew(context, node, remote).await?;
    }
    Ok(same)
}

/// Whether the cluster knows the node. A cluster that does not answer is not a reason to let anybody join anew.
async fn is_node(deployment: &Deployment, name: &str) -> bool {
    let Ok(kubernetes) = deployment.kubernetes().await else { return true };
    !matches!(kubernetes.get(NODE, None, name).await, Ok(None))
}

/// One token for each role, made when it is first needed, again when it is about to expire, and when one was refused:
/// whether a token is good is the cluster's to say, and not our clock's.
async fn join_token(
    deployment: &Deployment,
    context: &Context<'_>,
    role: Role,
    refused: Option<&Secret>,
) -> Result<Secret, Failure> {
    let mut tokens = deployment.tokens.lock().await;
    let is_good = |token: &&Token| {
        token.role == role && token.made.elapsed() + TOKEN_RESERVE < TOKEN_LIFETIME && refused != Some(&token.text)
    };
    if let Some(token) = tokens.iter().rfind(is_good) {
        return Ok(token.text.clone());
    }
    let leader = deployment.remote(deployment.speaker()).await?;
    let intent = context.intend(format!("make a join token for {role}s, good for 30 min")).await?;
    let command = format!("sudo {BINARY} token create --role={role} --expiry=30m");
    let text = Secret::new(leader.run(&command).await.map_err(ssh_failure)?.trim());
    context.effected(intent).await?;
    tokens.push(Token { role, text: text.clone(), made: Instant::now() });
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
    remote.upload(&intent, TOKEN, comment.as_bytes(), "0600", "root").await.map_err(ssh_failure)?;
    context.effected(intent).await
}

/// Invalidates this run's tokens; those of a run that was killed expire by themselves.
pub(super) async fn revoke_tokens(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let mut tokens = deployment.tokens.lock().await;
    let mut revoked = 0;
    while let Some(token) = tokens.last() {
        let role = token.role;
        let unreadable = || Failure::new(format!("the join token for {role}s cannot be read, and so not be revoked"));
        let id = token_id(token.text.expose()).ok_or_else(unreadable)?;
        let leader = deployment.remote(deployment.speaker()).await?;
        let intent = context.intend(format!("revoke the join token for {role}s")).await?;
        match leader.run(&format!("sudo {BINARY} token invalidate {id}")).await {
            // What has expired is removed by the cluster itself.
            Err(error) if !error.to_string().contains("not found") => return Err(ssh_failure(error)),
            _ => {}
        }
        context.effected(intent).await?;
        tokens.pop();
        revoked += 1;
    }
    Ok(Done::seen(format!("{} revoked", count(revoked, "join token"))))
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
    Ok(Done::seen(format!("every node of the cluster is Ready ({})", expected.len())))
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
    let path = deployment.environment.path(&file);
    let script = kubeconfig_env(&std::path::absolute(&path).unwrap_or(path));
    deployment.environment.artifact(context, "kubeconfig/kubeconfig-env.sh", &script, Access::Public)?;
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
    // A worker reaches every controller through k0s's load balancer on itself, so that it misses none of them.
    let server = match planned.role {
        Role::Controller => format!("https://{}:{API_PORT}", planned.private_address),
        Role::Worker => format!("https://127.0.0.1:{BALANCER_PORT}"),
    };
    let content = deployment.admin().await?.kubeconfig(deployment.topology.cluster_id.as_str(), &server);
    let line = "export KUBECONFIG=$HOME/.kube/config";
    let intent = context.intend(format!("write /home/{user}/.kube/config on {}", planned.name)).await?;
    let line_of_profile = format!("grep -qxF '{line}' .bashrc || echo '{line}' >> .bashrc");
    let prepare = format!("sudo install -d -m 0700 -o {user} -g {user} /home/{user}/.kube && {{ {line_of_profile}; }}");
    remote.run(&prepare).await.map_err(ssh_failure)?;
    remote.upload(&intent, KUBECTL, KUBECTL_SCRIPT.as_bytes(), "0755", "root").await.map_err(ssh_failure)?;
    let path = format!("/home/{user}/.kube/config");
    remote.upload(&intent, &path, content.expose().as_bytes(), "0600", user).await.map_err(ssh_failure)?;
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
    board: Arc<tokio::sync::watch::Sender<BTreeMap<String, NodeSeen>>>,
) {
    // Of five hundred nodes one has changed.
    let mut versions = BTreeMap::new();
    let mut look = |nodes: &BTreeMap<String, kube::api::DynamicObject>| {
        board.send_if_modified(|current| {
            let before = current.len();
            current.retain(|name, _| nodes.contains_key(name));
            let mut is_changed = current.len() != before;
            for (name, node) in nodes {
                let version = &node.metadata.resource_version;
                let is_known = version.is_some() && current.contains_key(name);
                if is_known && versions.get(name) == Some(version) {
                    continue;
                }
                versions.insert(name.clone(), version.clone());
                let seen = NodeSeen::of(node);
                is_changed |= current.insert(name.clone(), seen.clone()) != Some(seen);
            }
            is_changed
        });
        ControlFlow::<()>::Continue(())
    };
    loop {
        // It ends by a refusal only; those who wait have deadlines of their own, and the next try may be allowed.
        let _refused: Result<(), KubernetesError> = kubernetes.follow(NODE, None, None, &mut look, |_| {}).await;
        pause(LOOK_AGAIN).await;
    }
}

/// Turns a refusal of the API into a failure.
pub(super) fn refused(error: KubernetesError) -> Failure {
    kubernetes_failure(error)
}
