//! `ssh`: runs a command on a machine, or logs in to it.

use std::os::unix::process::CommandExt as _;

use deploy::{
    deployment::{Deployment, ssh_failure},
    session::Session,
};
use tokio::io::{stderr, stdin, stdout};

use crate::{
    commands::{Context, way_in::enter},
    error::CommandError,
    world::{Login, Reach, reach},
};

/// Where `deploy` writes what OpenSSH needs, in the environment's directory.
const OPENSSH_CONFIGURATION: &str = "ssh/config";

/// With a command, its exit code is ours.
pub(crate) async fn run(context: &Context, node: &str, command: &[String]) -> Result<u8, CommandError> {
    let reach = reach(context).await?;
    let deployment = look(context, &reach, "ssh").await?;
    let Some(position) = deployment.topology.nodes.iter().position(|known| known.name == node) else {
        let names: Vec<&str> = deployment.topology.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(CommandError::usage(format!("there is no machine {node}; there are {}", names.join(", "))));
    };
    let (_, remote) = enter(context, &reach, &deployment, &[position]).await?;
    if command.is_empty() {
        return Err(log_in(context, &reach, node));
    }
    let connection = remote.connect().await.map_err(ssh_failure)?;
    let code = connection.attach(&command_line(command), stdin(), stdout(), stderr()).await.map_err(ssh_failure)?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The cluster to look at, without asking Azure.
pub(crate) async fn look(context: &Context, reach: &Reach, command: &str) -> Result<Deployment, CommandError> {
    let session: Session = reach.session(context, command, &Login::NobodyAsked)?;
    Ok(session.look().await?)
}

/// One word is a command line for the machine's shell; several arrive there as they are here.
fn command_line(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        words => shell_words::join(words),
    }
}

/// Hands over to OpenSSH, which knows terminals, with the keys and the pinned host keys that `deploy` wrote. Returns
/// only if that is not possible.
fn log_in(context: &Context, reach: &Reach, node: &str) -> CommandError {
    let instead = format!("run a command instead: {}", context.command(&format!("ssh {node} -- COMMAND")));
    let file = context.global.home.join(OPENSSH_CONFIGURATION);
    if !file.is_file() {
        return CommandError::failed(format!("{} is not there yet", file.display())).hint(instead);
    }
    #[expect(clippy::disallowed_methods, reason = "the user asked for a shell")]
    let mut openssh = std::process::Command::new("ssh");
    openssh.arg("-F").arg(&file);
    if let Some(twin) = &reach.twin {
        openssh.args(["-p", &twin.ssh_port.to_string()]);
    }
    let error = openssh.arg(node).exec();
    CommandError::failed(format!("a shell on {node} needs OpenSSH's `ssh`: {error}")).hint(instead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_are() {
        let line = |words: &[&str]| command_line(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(line(&["ls /etc | wc -l"]), "ls /etc | wc -l");
        assert_eq!(line(&["echo", "a  b", "|"]), "echo 'a  b' '|'");
    }
}
