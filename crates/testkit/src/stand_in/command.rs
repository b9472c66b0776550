//! `k0s COMMAND`: the model says what happens, and then it is done to the host.

use std::io;

use fs_err as fs;
use twin::{
    Twin,
    machine::host::{self, Host, Said},
};

use super::{DATA, RUN, ask, flag, have_service, is_root, keep, model, program, this_host};

/// Roles with their units.
const ROLES: [(&str, &str); 2] = [("controller", "k0scontroller"), ("worker", "k0sworker")];

/// Runs a command to its end.
pub(super) async fn run(arguments: &[String]) -> Said {
    match act(arguments).await {
        Ok(said) => said,
        Err(error) => Said { code: 1, stdout: String::new(), stderr: format!("Error: {error}\n") },
    }
}

async fn act(arguments: &[String]) -> io::Result<Said> {
    let this = this_host(None);
    let twin = model(&this)?;
    let installed = mirror(&twin, &this, arguments)?;
    let in_model = || twin.with(|world| host::run(world, &this.name, is_root(), arguments));
    let verb = arguments.first().map(String::as_str).unwrap_or_default();
    match verb {
        _ if !is_root() => Ok(in_model()),
        "version" | "sysinfo" | "config" => Ok(in_model()),
        "install" => {
            let said = in_model();
            if said.code == 0 {
                install(&twin, &this)?;
            }
            Ok(said)
        }
        "start" | "stop" => {
            let said = in_model();
            if let (0, Some(unit)) = (said.code, installed) {
                program("systemctl", &[verb, unit])?;
            }
            Ok(said)
        }
        "reset" => {
            let said = in_model();
            if said.code == 0 {
                reset()?;
            }
            Ok(said)
        }
        _ => match ask(arguments).await {
            Ok(said) => Ok(said),
            Err(_) => Ok(in_model()),
        },
    }
}

fn path(unit: &str) -> String {
    format!("/etc/systemd/system/{unit}.service")
}

/// Shows the host to the model: its service, whether that runs, and the configuration. Returns the unit, if there is one.
fn mirror(twin: &Twin, this: &Host, arguments: &[String]) -> io::Result<Option<&'static str>> {
    let config = flag(arguments, "--config").or(flag(arguments, "-c")).unwrap_or("/etc/k0s/k0s.yaml");
    if let Ok(content) = fs::read(config) {
        twin.with(|world| host::put_file(world, &this.name, config, &content));
    }
    let admin = format!("{DATA}/pki/admin.conf");
    if let Ok(content) = fs::read(&admin) {
        twin.with(|world| host::put_file(world, &this.name, &admin, &content));
    }
    for (role, unit) in ROLES {
        let Ok(text) = fs::read_to_string(path(unit)) else { continue };
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap_or_default();
        let words: Vec<String> = line.split_whitespace().skip(2).map(|word| word.replace("\\x20", " ")).collect();
        // A unit that k0s has not written is none.
        if have_service(twin, this, role, &words).is_err() {
            continue;
        }
        if program("systemctl", &["is-active", unit])?.0 {
            twin.with(|world| host::runs_elsewhere(world, &this.name, false));
        }
        return Ok(Some(unit));
    }
    Ok(None)
}

/// Writes the unit that the model has written.
fn install(twin: &Twin, this: &Host) -> io::Result<()> {
    let Some((unit, _)) = twin.with(|world| host::unit(world, &this.name)) else { return Ok(()) };
    let Some((text, mode)) = twin.with(|world| host::file(world, &this.name, &path(unit))) else { return Ok(()) };
    keep(&path(unit), &text, mode)?;
    program("systemctl", &["daemon-reload"])?;
    program("systemctl", &["enable", unit])?;
    Ok(())
}

/// What k0s removes: its units, its data, its sockets (k0s source, `pkg/cleanup`).
fn reset() -> io::Result<()> {
    for (_, unit) in ROLES {
        if fs::metadata(path(unit)).is_ok() {
            program("systemctl", &["disable", unit])?;
            fs::remove_file(path(unit))?;
        }
    }
    program("systemctl", &["daemon-reload"])?;
    for directory in [DATA, RUN] {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
