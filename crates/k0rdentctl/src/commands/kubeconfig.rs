//! `kubeconfig`: the administrator's kubeconfig on this computer.

use deploy::{environment::Access, k0s::API_PORT};
use serde_json::json;

use crate::{
    commands::{
        Context, FORMAT_VERSION,
        ssh::look,
        way_in::{controllers, enter},
    },
    error::CommandError,
    world::reach,
};

/// Prints its path. If it is missing, a controller is asked for it.
pub(crate) async fn run(context: &Context) -> Result<u8, CommandError> {
    let reach = reach(context).await?;
    let deployment = look(context, &reach, "kubeconfig").await?;
    let cluster = deployment.topology.cluster_id.as_str();
    let leader = deployment.node(deployment.leader());
    let server = format!("https://{}:{API_PORT}", leader.operator_side_address());
    let file = deployment.kubeconfig_file();
    let path = deployment.environment.path(&file);
    if !path.is_file() {
        let (speaker, _) = enter(context, &reach, &deployment, &controllers(&deployment)).await?;
        deployment.set_speaker(speaker);
        let content = deployment.admin().await?.kubeconfig(cluster, &server);
        let written = deployment.environment.write(&file, content.expose(), Access::Secret);
        written.map_err(|error| CommandError::file(&error))?;
    }
    if context.printer.is_json() {
        let document = json!({"format_version": FORMAT_VERSION, "cluster_id": cluster, "path": path, "server": server});
        context.printer.document(&document);
        return Ok(0);
    }
    context.printer.result(&path.display().to_string());
    let script = path.with_file_name("kubeconfig-env.sh");
    if script.is_file() {
        context.printer.say(&format!("in a shell:       . {}", script.display()));
    }
    let place = if leader.host.is_some() { "where its SSH answers" } else { "in the mesh" };
    context.printer.say(&format!("its server is {server}, an address {place}; without a way to it:"));
    context.printer.say(&format!("                  {}", context.command("exec -- kubectl get nodes")));
    Ok(0)
}
