//! The ways into a cluster that a deployment says is there: `ssh NODE -- true` to each machine, `kubeconfig`, and
//! `exec -- kubectl get nodes`.

use deploy::{kubeconfig::Admin, kubernetes::NODE, session::Session, topology::Role};
use engine::Failure;

/// Each of them leads where it should.
pub async fn lead_in(session: &Session) -> Result<(), String> {
    let said = |failure: Failure| failure.message;
    let deployment = session.look().await.map_err(|error| error.to_string())?;
    for (node, planned) in deployment.topology.nodes.iter().enumerate() {
        let answer = async {
            let remote = deployment.remote(node).await.map_err(said)?;
            let output = remote.run("true").await.map_err(|error| error.to_string());
            remote.disconnect().await;
            output
        };
        answer.await.map_err(|why| format!("ssh {} -- true: {why}", planned.name))?;
    }
    let file = deployment.kubeconfig_file();
    let kubeconfig = deployment.environment.read(&file).map_err(|error| error.to_string())?;
    let kubeconfig = kubeconfig.ok_or_else(|| format!("kubeconfig: there is no {file}"))?;
    Admin::from_kubeconfig(&kubeconfig).map_err(|why| format!("kubeconfig: {why}"))?;
    let nodes = async {
        let kubernetes = deployment.kubernetes().await.map_err(said)?;
        kubernetes.list(NODE, None).await.map_err(|error| error.to_string())
    };
    let nodes = nodes.await.map_err(|why| format!("exec -- kubectl get nodes: {why}"))?;
    // A controller beside workers has no kubelet, and so is no node (k0s documentation).
    let mut workers = deployment.topology.nodes.iter().filter(|node| node.role == Role::Worker);
    match workers.find(|node| !nodes.contains_key(&node.name)) {
        _ if nodes.is_empty() => Err("exec -- kubectl get nodes: there is none".to_owned()),
        None => Ok(()),
        Some(node) => Err(format!("exec -- kubectl get nodes: {} is missing", node.name)),
    }
}
