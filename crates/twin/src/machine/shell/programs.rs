//! systemctl, journalctl, wg and curl, as far as they are needed. Messages and exit codes are those of systemd 252,
//! wireguard-tools and curl.

use percent_encoding::percent_decode_str;

use super::Outcome;
use crate::{
    World,
    machine::{files::Who, k0s, systemd, wireguard},
};

/// The programs that [`run`] knows.
pub(super) const KNOWN: [&str; 6] = ["date", "df", "journalctl", "systemctl", "wg", "wg-quick"];

/// Programs that are there once one of these packages has been installed.
pub(super) const PACKAGED: [(&str, &[&str]); 3] =
    [("curl", &["curl"]), ("wg", &["wireguard", "wireguard-tools"]), ("wg-quick", &["wireguard", "wireguard-tools"])];

/// Runs one of [`KNOWN`].
pub(super) fn run(world: &mut World, key: &str, who: &Who, name: &str, arguments: &[String]) -> Outcome {
    match name {
        "systemctl" => systemctl(world, key, who, arguments),
        "journalctl" => journalctl(world, key, who, arguments),
        "wg" => wg(world, key, who, arguments),
        "date" => date(world, key, arguments),
        "df" => df(arguments),
        _ => wg_quick(world, key, who, arguments),
    }
}

/// Seconds since 1970; other formats are left out.
fn date(world: &World, key: &str, arguments: &[String]) -> Outcome {
    let ahead = world.machines.get(key).map_or(0, |machine| machine.clock_ahead_seconds);
    match arguments {
        [format] if format == "+%s" => Outcome::says(format!("{}\n", world.utc().unix_timestamp() + ahead)),
        _ => Outcome::fails(1, "date: invalid date"),
    }
}

/// `df -Pk`: a disk of 64 GiB of which little is used (guess).
fn df(arguments: &[String]) -> Outcome {
    let (size, used) = (64 << 20, 2 << 20);
    let paths = arguments.iter().filter(|argument| !argument.starts_with('-'));
    let lines: String = paths.map(|_| format!("/dev/sda1 {size} {used} {} 4% /\n", size - used)).collect();
    Outcome::says(format!("Filesystem 1024-blocks Used Available Capacity Mounted on\n{lines}"))
}

/// What systemctl was asked.
#[derive(Default)]
struct Asked {
    verb: String,
    units: Vec<String>,
    properties: Vec<String>,
    value: bool,
    now: bool,
    no_block: bool,
    quiet: bool,
}

fn asked(arguments: &[String]) -> Asked {
    let mut asked = Asked::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-p" | "--property" => asked.properties.extend(arguments.next().into_iter().flat_map(|list| split(list))),
            "--value" => asked.value = true,
            "--now" => asked.now = true,
            "--no-block" => asked.no_block = true,
            "-q" | "--quiet" => asked.quiet = true,
            option if option.starts_with("--property=") => {
                asked.properties.extend(split(&option["--property=".len()..]));
            }
            option if option.starts_with("-p") => asked.properties.extend(split(&option[2..])),
            option if option.starts_with('-') => {}
            verb if asked.verb.is_empty() => asked.verb = verb.into(),
            unit => asked.units.push(unit.trim_end_matches(".service").into()),
        }
    }
    asked
}

fn split(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

fn systemctl(world: &mut World, key: &str, who: &Who, arguments: &[String]) -> Outcome {
    let asked = asked(arguments);
    let changes = ["start", "stop", "restart", "enable", "disable", "daemon-reload", "reset-failed", "try-restart"];
    if changes.contains(&asked.verb.as_str()) && !who.is_root() {
        // Without polkit, which a server has not got, nobody can be asked (observed with systemd 252).
        return match (asked.verb.as_str(), asked.units.first()) {
            ("enable" | "disable", _) => Outcome::fails(1, format!("Failed to {} unit: Access denied", asked.verb)),
            (verb, Some(unit)) => Outcome::fails(
                4,
                format!(
                    "Failed to {verb} {unit}.service: Access denied\n\
                    See system logs and 'systemctl status {unit}.service' for details."
                ),
            ),
            _ => Outcome::fails(1, "Reload daemon failed: Access denied"),
        };
    }
    if ["daemon-reload", "reset-failed"].contains(&asked.verb.as_str()) && asked.units.is_empty() {
        return Outcome::code(0);
    }
    let mut all = Outcome::default();
    for unit in &asked.units {
        let outcome = systemctl_unit(world, key, &asked, unit);
        let code = all.code.max(outcome.code);
        all.then(outcome);
        all.code = code;
    }
    if asked.units.is_empty() { Outcome::fails(1, "Too few arguments.") } else { all }
}

fn systemctl_unit(world: &mut World, key: &str, asked: &Asked, unit: &str) -> Outcome {
    let known = systemd::exists(world, key, unit);
    let state = world.machines.get(key).and_then(|machine| machine.units.get(unit)).cloned().unwrap_or_default();
    match asked.verb.as_str() {
        "is-active" | "is-failed" => {
            let wanted = if asked.verb == "is-active" { "active" } else { "failed" };
            let text = if asked.quiet { String::new() } else { format!("{}\n", state.active()) };
            Outcome {
                code: if state.active() == wanted {
                    0
                } else if wanted == "failed" {
                    1
                } else {
                    3
                },
                ..Outcome::says(text)
            }
        }
        "is-enabled" if !known => {
            Outcome::fails(1, format!("Failed to get unit file state for {unit}.service: No such file or directory"))
        }
        "is-enabled" => Outcome {
            code: u32::from(!state.enabled),
            ..Outcome::says(if asked.quiet {
                ""
            } else if state.enabled {
                "enabled\n"
            } else {
                "disabled\n"
            })
        },
        "enable" | "disable" if !known => {
            Outcome::fails(1, format!("Failed to {} unit: Unit file {unit}.service does not exist.", asked.verb))
        }
        "enable" | "disable" => enable(world, key, unit, asked),
        "start" | "restart" if !known => {
            Outcome::fails(5, format!("Failed to {} {unit}.service: Unit {unit}.service not found.", asked.verb))
        }
        "start" => job(asked, unit, systemd::start(world, key, unit)),
        "restart" | "try-restart" => {
            systemd::stop(world, key, unit);
            job(asked, unit, systemd::start(world, key, unit))
        }
        "stop" if !known => {
            Outcome::fails(5, format!("Failed to stop {unit}.service: Unit {unit}.service not loaded."))
        }
        "stop" => {
            systemd::stop(world, key, unit);
            Outcome::code(0)
        }
        "reset-failed" => {
            systemd::reset_failed(world, key, unit);
            Outcome::code(0)
        }
        "show" => show(asked, &state, known, unit),
        "status" if !known => Outcome::fails(4, format!("Unit {unit}.service could not be found.")),
        "status" => {
            let enabled = if state.enabled { "enabled" } else { "disabled" };
            Outcome {
                code: if state.active() == "active" { 0 } else { 3 },
                ..Outcome::says(format!(
                    "* {unit}.service\n     Loaded: loaded ({unit}.service; {enabled}; preset: enabled)\n     Active: {} ({})\n",
                    state.active(),
                    state.sub()
                ))
            }
        }
        verb => Outcome::fails(1, format!("Unknown command verb {verb}.")),
    }
}

fn job(asked: &Asked, unit: &str, result: Result<(), String>) -> Outcome {
    match result {
        Ok(()) => Outcome::code(0),
        // Whoever does not wait for the job does not hear of its end.
        Err(_) if asked.no_block => Outcome::code(0),
        Err(_) => Outcome::fails(
            1,
            format!(
                "Job for {unit}.service failed because the control process exited with error code.\n\
                See \"systemctl status {unit}.service\" and \"journalctl -xeu {unit}.service\" for details."
            ),
        ),
    }
}

fn enable(world: &mut World, key: &str, unit: &str, asked: &Asked) -> Outcome {
    let on = asked.verb == "enable";
    let changed = systemd::set_enabled(world, key, unit, on);
    let link = format!("/etc/systemd/system/multi-user.target.wants/{unit}.service");
    let mut outcome = Outcome::code(0);
    if changed && on {
        outcome.stderr = format!("Created symlink {link} → {}.\n", systemd::path(unit)).into_bytes();
    } else if changed {
        outcome.stderr = format!("Removed \"{link}\".\n").into_bytes();
    }
    if asked.now && on {
        outcome.then(job(asked, unit, systemd::start(world, key, unit)));
    } else if asked.now {
        systemd::stop(world, key, unit);
    }
    outcome
}

fn show(asked: &Asked, state: &systemd::Unit, known: bool, unit: &str) -> Outcome {
    // In systemctl's own order, whatever order was asked for: first the service, then the unit.
    let all = [
        ("MainPID", state.process.to_string()),
        ("Result", if state.active() == "failed" { "exit-code" } else { "success" }.to_owned()),
        ("NRestarts", state.restarts.to_string()),
        ("ExecMainStatus", u32::from(state.active() == "failed").to_string()),
        ("Id", format!("{unit}.service")),
        ("LoadState", if known { "loaded" } else { "not-found" }.to_owned()),
        ("ActiveState", state.active().to_owned()),
        ("SubState", state.sub().to_owned()),
        (
            "UnitFileState",
            if !known {
                ""
            } else if state.enabled {
                "enabled"
            } else {
                "disabled"
            }
            .to_owned(),
        ),
    ];
    let wanted =
        all.iter().filter(|(name, _)| asked.properties.is_empty() || asked.properties.iter().any(|p| p == name));
    let line =
        |(name, value): &(&str, String)| if asked.value { format!("{value}\n") } else { format!("{name}={value}\n") };
    Outcome::says(wanted.map(line).collect::<String>())
}

fn journalctl(world: &World, key: &str, who: &Who, arguments: &[String]) -> Outcome {
    if !who.is_root() && !["adm", "systemd-journal"].iter().any(|group| who.groups.contains(*group)) {
        return Outcome::fails(1, "No journal files were opened due to insufficient permissions.");
    }
    let after = |short: &str, long: &str| {
        let position = arguments.iter().position(|argument| argument == short || argument == long);
        let glued = arguments.iter().find_map(|argument| argument.strip_prefix(&format!("{long}=")));
        position.and_then(|position| arguments.get(position + 1).map(String::as_str)).or(glued)
    };
    let Some(machine) = world.machines.get(key) else { return Outcome::code(1) };
    let unit = after("-u", "--unit").map(|unit| unit.trim_end_matches(".service"));
    let count: usize = after("-n", "--lines").and_then(|count| count.parse().ok()).unwrap_or(usize::MAX);
    let lines: Vec<String> = machine
        .journal
        .iter()
        .filter(|line| unit.is_none_or(|unit| line.unit == unit))
        .map(|line| {
            format!("{} {} {}[{}]: {}\n", line.time, machine.hostname, line.program, line.process, line.message)
        })
        .collect();
    if lines.is_empty() {
        return Outcome::says("-- No entries --\n");
    }
    Outcome::says(lines[lines.len() - count.min(lines.len())..].concat())
}

fn wg(world: &World, key: &str, who: &Who, arguments: &[String]) -> Outcome {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(machine) = world.machines.get(key) else { return Outcome::code(1) };
    let (name, what) = match words.as_slice() {
        [] | ["show"] | ["show", "all"] => (None, ""),
        ["show", "interfaces"] => {
            let names: Vec<&str> = machine.interfaces.keys().map(String::as_str).collect();
            return Outcome::says(if names.is_empty() { String::new() } else { format!("{}\n", names.join(" ")) });
        }
        ["show", name] => (Some(*name), ""),
        ["show", name, what] => (Some(*name), *what),
        _ => return Outcome::fails(1, "Usage: wg <cmd> [<args>]"),
    };
    let wanted: Vec<&String> = match name {
        None => machine.interfaces.keys().collect(),
        Some(name) => match machine.interfaces.get_key_value(name) {
            Some((name, _)) => vec![name],
            None => return Outcome::fails(1, "Unable to access interface: No such device"),
        },
    };
    if !who.is_root() && !wanted.is_empty() {
        return Outcome::fails(1, format!("Unable to access interface {}: Operation not permitted", wanted[0]));
    }
    match wanted.iter().map(|name| wireguard::show(world, key, name, what)).collect::<Option<String>>() {
        Some(text) => Outcome::says(text),
        None => Outcome::fails(1, format!("Usage: wg show <interface> [{what}]")),
    }
}

fn wg_quick(world: &mut World, key: &str, who: &Who, arguments: &[String]) -> Outcome {
    if !who.is_root() {
        return Outcome::fails(1, "wg-quick: must be run as root");
    }
    match arguments {
        [verb, name] if verb == "up" => match wireguard::up(world, key, name) {
            Ok(()) => Outcome::code(0),
            Err(reason) => Outcome::fails(1, reason),
        },
        [verb, name] if verb == "down" && wireguard::down(world, key, name) => Outcome::code(0),
        [verb, name] if verb == "down" => Outcome::fails(1, format!("wg-quick: `{name}' is not a WireGuard interface")),
        _ => Outcome::fails(1, "Usage: wg-quick [ up | down | save | strip ] [ CONFIG_FILE | INTERFACE ]"),
    }
}

/// What curl was asked.
pub(super) struct Curl {
    url: String,
    /// Where the answer goes.
    pub(super) output: Option<String>,
    /// Whether the directories above it are made.
    pub(super) create_directories: bool,
    fail: bool,
    /// Whether the answer itself is not wanted.
    pub(super) head: bool,
}

/// Registries of images and charts that are there.
const REGISTRIES: [&str; 3] = ["ghcr.io", "quay.io", "registry.mirantis.com"];
/// Options of curl that take a value.
const CURL_VALUES: [&str; 13] = [
    "-o",
    "--output",
    "--retry",
    "--retry-delay",
    "--retry-max-time",
    "--connect-timeout",
    "-m",
    "--max-time",
    "-H",
    "--header",
    "-A",
    "--user-agent",
    "--proto",
];
/// Options of curl that take none.
const CURL_SWITCHES: [&str; 10] = [
    "--fail",
    "--silent",
    "--show-error",
    "--location",
    "--retry-connrefused",
    "--retry-all-errors",
    "--create-dirs",
    "--compressed",
    "--tlsv1.2",
    "--no-progress-meter",
];

impl Curl {
    /// Understands the command line.
    pub(super) fn parse(arguments: &[String]) -> Result<Self, Outcome> {
        let mut curl = Self { url: String::new(), output: None, create_directories: false, fail: false, head: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let switch = argument.as_str();
            if CURL_VALUES.contains(&switch) {
                let value = arguments.next().cloned();
                if switch == "-o" || switch == "--output" {
                    curl.output = value;
                }
            } else if CURL_SWITCHES.contains(&switch) {
                curl.fail |= switch == "--fail";
                curl.create_directories |= switch == "--create-dirs";
            } else if let Some(letters) = switch.strip_prefix('-') {
                // Letters may be joined, and the last of them may take the next word: `-fsSLo FILE`.
                let (switches, takes_file) = letters.strip_suffix('o').map_or((letters, false), |rest| (rest, true));
                if !switches.chars().all(|letter| "fsSLIk46".contains(letter)) {
                    return Err(Outcome::fails(2, format!("curl: option {switch}: is unknown")));
                }
                curl.fail |= switches.contains('f');
                curl.head |= switches.contains('I');
                if takes_file {
                    curl.output = arguments.next().cloned();
                }
            } else {
                curl.url = argument.clone();
            }
        }
        if curl.url.is_empty() { Err(Outcome::fails(2, "curl: no URL specified!")) } else { Ok(curl) }
    }

    /// What the internet answers: the k0s releases are all there is of it.
    pub(super) fn answer(&self) -> Result<Vec<u8>, Outcome> {
        let rest = self.url.strip_prefix("https://").or_else(|| self.url.strip_prefix("http://")).unwrap_or(&self.url);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // They want to know who asks, and say so (OCI distribution specification).
        if REGISTRIES.contains(&host) && path == "v2/" && !self.fail {
            return Ok(b"{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}".to_vec());
        }
        if host != "github.com" {
            return Err(Outcome::fails(6, format!("curl: (6) Could not resolve host: {host}")));
        }
        let path = percent_decode_str(path).decode_utf8_lossy();
        let release = path.strip_prefix("k0sproject/k0s/releases/download/").and_then(|rest| rest.split_once('/'));
        let binary = release.and_then(|(version, file)| k0s::Binary::released(version, file));
        match binary {
            Some(binary) => Ok(binary.bytes()),
            None if self.fail => Err(Outcome::fails(22, "curl: (22) The requested URL returned error: 404")),
            None => Ok(b"Not Found".to_vec()),
        }
    }
}
