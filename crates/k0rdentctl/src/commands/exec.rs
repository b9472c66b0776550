//! `exec`: runs a program with a way into the cluster, and closes the way again.
//!
//! ```text
//! program -> 127.0.0.1:PORT -> SSH to a controller -> 127.0.0.1:6443 there
//! ```

use std::{ffi::OsString, io::Write as _, os::unix::process::ExitStatusExt as _, sync::Arc};

use deploy::{
    environment::RUNNING,
    k0s::API_PORT,
    ssh::{Connection, Remote},
};
use engine::journal::create_private_directory;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
};

use crate::{
    commands::{
        Context,
        ssh::look,
        way_in::{controllers, enter},
    },
    error::{CommandError, Exit},
    signals::Signals,
    world::reach,
};

/// What shells answer for a program that is not there, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
/// What shells add to the number of the signal that ended a program.
const ENDED_BY_SIGNAL: i32 = 128;

/// The exit code is the program's own.
pub(crate) async fn run(context: &Context, command: &[OsString]) -> Result<u8, CommandError> {
    let reach = reach(context).await?;
    let deployment = look(context, &reach, "exec").await?;
    let (speaker, remote) = enter(context, &reach, &deployment, &controllers(&deployment)).await?;
    deployment.set_speaker(speaker);
    let here = |error: std::io::Error| CommandError::failed(format!("no port on 127.0.0.1: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(here)?;
    let server = format!("https://127.0.0.1:{}", listener.local_addr().map_err(here)?.port());
    let content = deployment.admin().await?.kubeconfig(deployment.topology.cluster_id.as_str(), &server);
    let no_file = |error: std::io::Error| CommandError::failed(format!("no temporary kubeconfig: {error}"));
    let running = context.global.home.join(RUNNING);
    create_private_directory(&running).map_err(no_file)?;
    let mut file = tempfile::Builder::new().prefix("kubeconfig-").tempfile_in(&running).map_err(no_file)?;
    // Whoever finds it unlocked knows that nobody is here any more to remove it.
    file.as_file().lock().map_err(no_file)?;
    file.write_all(content.expose().as_bytes()).map_err(|error| CommandError::file(&error))?;

    let mut signals = Signals::listen()?;
    let [program, arguments @ ..] = command else { return Err(CommandError::usage("no program is named")) };
    #[expect(clippy::disallowed_methods, reason = "the user asked for this program")]
    let started = Command::new(program).args(arguments).env("KUBECONFIG", file.path()).kill_on_drop(true).spawn();
    let child = match started {
        Ok(child) => child,
        Err(error) => return Ok(not_started(context, program, &error)),
    };
    tokio::select! {
        biased;
        code = wait(child, &mut signals) => code,
        never = forward(listener, &remote) => never,
    }
}

/// Waits for the program. Ctrl-C reaches it by itself, because it shares our terminal; who asks only us to end means
/// both.
async fn wait(mut child: Child, signals: &mut Signals) -> Result<u8, CommandError> {
    loop {
        tokio::select! {
            biased;
            status = child.wait() => {
                let status = status.map_err(|error| CommandError::failed(format!("the program was lost: {error}")))?;
                let code = status.code().or(status.signal().map(|signal| ENDED_BY_SIGNAL + signal));
                return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            from_keyboard = signals.next() => {
                if !from_keyboard {
                    let _gone_already = child.start_kill();
                    return Err(CommandError::new(Exit::Interrupted, "interrupted; the program was ended"));
                }
            }
        }
    }
}

/// Carries connections for as long as it is polled.
async fn forward(listener: TcpListener, remote: &Arc<Remote>) -> Result<u8, CommandError> {
    let mut lines = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = lines.join_next() => {}
            accepted = listener.accept() => {
                // A line that cannot be carried is closed; the program says what that means to it.
                if let Ok((stream, _)) = accepted {
                    lines.spawn(carry(stream, Arc::clone(remote)));
                }
            }
        }
    }
}

async fn carry(mut here: TcpStream, remote: Arc<Remote>) {
    let _immediate = here.set_nodelay(true);
    let connection: Result<Arc<Connection>, _> = remote.connect().await;
    let Ok(connection) = connection else { return };
    if let Ok(mut there) = connection.tunnel("127.0.0.1", API_PORT).await {
        let _closed = copy_bidirectional(&mut here, &mut there).await;
    }
}

fn not_started(context: &Context, program: &OsString, error: &std::io::Error) -> u8 {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let why = if missing { "command not found".to_owned() } else { error.to_string() };
    context.printer.warn(&format!("{}: {why}", program.display()));
    if missing { NOT_FOUND } else { NOT_EXECUTABLE }
}
