//! Commands that run other commands, wait, or change the shell itself.

use std::time::Duration;

use super::{Gone, Kernel, Outcome, Running, Shell, coreutils, glance, programs};
use crate::{
    FaultKind, Latency,
    machine::{cloud_init, files, k0s},
};

/// Where programs are looked for.
const PROGRAM_DIRECTORIES: [&str; 5] = ["/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What a command word leads to.
enum Program {
    /// One that this model knows by name.
    Known(String),
    /// The k0s binary at a path.
    K0s(String),
    /// A script: its text.
    Script(String),
    /// Nothing that can run: exit code and what is said.
    Not(u32, String),
}

impl Shell<'_> {
    /// Runs one command with its arguments.
    pub(super) fn execute<'a>(&'a mut self, words: Vec<String>) -> Running<'a> {
        Box::pin(async move {
            let Some((name, arguments)) = words.split_first() else { return Ok(Outcome::code(0)) };
            match self.find(name)? {
                Program::Known(name) => self.known(&name, arguments).await,
                Program::K0s(path) => self.k0s(&path, arguments).await,
                Program::Script(text) => {
                    // A process of its own: what it sets ends with it.
                    let before = (self.variables.clone(), std::mem::replace(&mut self.arguments, arguments.to_vec()));
                    let outcome = self.run(&text).await;
                    (self.variables, self.arguments) = before;
                    self.exited = false;
                    outcome
                }
                Program::Not(code, reason) => Ok(self.cannot_run(name, code, &reason)),
            }
        })
    }

    /// A program that cannot be run (observed with bash 5.2 and dash 0.5.12).
    fn cannot_run(&self, name: &str, code: u32, reason: &str) -> Outcome {
        Outcome::fails(
            code,
            match (self.is_bash, code) {
                (false, 126) if reason.starts_with("Is a") => format!("sh: 1: {name}: Permission denied"),
                (false, _) => format!("sh: 1: {name}: {reason}"),
                (true, 127) if name.contains('/') => format!("bash: line 1: {name}: No such file or directory"),
                (true, 127) => format!("bash: line 1: {name}: command not found"),
                (true, _) if reason.starts_with("Exec") => {
                    format!("bash: line 1: {name}: cannot execute binary file: {reason}")
                }
                (true, _) => format!("bash: line 1: {name}: {reason}"),
            },
        )
    }

    fn find(&mut self, name: &str) -> Result<Program, Gone> {
        let (who, directory) = (self.who()?, self.directory.clone());
        self.machine(|machine| {
            let base = match name.rsplit_once('/') {
                Some((directory, base)) if PROGRAM_DIRECTORIES.contains(&directory) => base,
                _ => name,
            };
            let path =
                if name.contains('/') { files::absolute(name, &directory) } else { format!("/usr/local/bin/{name}") };
            if let Ok(node) = machine.files.look(&path, &who)
                && (name.contains('/') || node.mode & 0o111 != 0)
            {
                if node.is_directory() {
                    return Program::Not(126, "Is a directory".into());
                }
                if !machine.files.allows(&path, &who, files::EXECUTE) {
                    return Program::Not(126, "Permission denied".into());
                }
                let text = machine.files.text(&path).unwrap_or_default();
                return match k0s::Binary::read(text.as_bytes()) {
                    Some(binary) if binary.architecture == machine.architecture() => Program::K0s(path),
                    Some(_) => Program::Not(126, "Exec format error".into()),
                    None => Program::Script(text),
                };
            }
            let packaged = programs::PACKAGED.iter().find(|(program, _)| *program == base);
            let programs = [&KNOWN[..], &coreutils::KNOWN, &glance::KNOWN, &programs::KNOWN];
            let known = programs.iter().any(|programs| programs.contains(&base))
                && packaged
                    .is_none_or(|(_, packages)| packages.iter().any(|package| machine.packages.contains(*package)));
            match known && !base.contains('/') {
                true => Program::Known(base.to_owned()),
                false => Program::Not(127, "not found".into()),
            }
        })
    }

    async fn known(&mut self, name: &str, arguments: &[String]) -> Result<Outcome, Gone> {
        match name {
            "sudo" => self.sudo(arguments).await,
            "sh" | "bash" | "dash" => self.sh(arguments, name == "bash").await,
            "timeout" => self.timeout(arguments).await,
            "sleep" => match arguments.iter().map(|text| duration(text)).sum::<Option<Duration>>() {
                Some(time) if !arguments.is_empty() => {
                    self.sleep(time).await;
                    Ok(Outcome::code(0))
                }
                _ => Ok(Outcome::fails(1, "sleep: invalid time interval")),
            },
            "env" | "command" | "exec" | "nohup" => self.wrapped(name, arguments).await,
            "cloud-init" => self.cloud_init(arguments).await,
            "curl" => self.curl(arguments).await,
            "cd" | "exit" | "export" | "set" | "umask" | ":" => self.own_state(name, arguments),
            _ => self.simple(name, arguments).await,
        }
    }

    /// Programs that change the machine in one moment.
    async fn simple(&mut self, name: &str, arguments: &[String]) -> Result<Outcome, Gone> {
        let input = if coreutils::reads_input(name, arguments) { self.input.read().await } else { Vec::new() };
        let (who, directory, umask) = (self.who()?, self.directory.clone(), self.umask);
        if glance::KNOWN.contains(&name) {
            return self.here(|world, key| glance::run(world, key, &who, name, arguments));
        }
        if programs::KNOWN.contains(&name) {
            return self.here(|world, key| programs::run(world, key, &who, name, arguments));
        }
        let call = coreutils::Call { who: &who, directory: &directory, umask, arguments, input: &input };
        self.machine(|machine| coreutils::run(machine, name, &call))
    }

    fn own_state(&mut self, name: &str, arguments: &[String]) -> Result<Outcome, Gone> {
        let first = arguments.first().map_or("", String::as_str);
        match name {
            "cd" => {
                let target = if first.is_empty() { self.variable("HOME")? } else { first.to_owned() };
                let path = files::absolute(&target, &self.directory);
                if !self.machine(|machine| machine.files.get(&path).is_some_and(files::Node::is_directory))? {
                    return Ok(match self.is_bash {
                        true => Outcome::fails(1, format!("bash: line 1: cd: {target}: No such file or directory")),
                        false => Outcome::fails(2, format!("sh: 1: cd: can't cd to {target}")),
                    });
                }
                self.directory = path;
            }
            "exit" => {
                self.exited = true;
                return Ok(Outcome::code(first.parse().unwrap_or(self.last_code) & 0xff));
            }
            "export" => {
                for (name, value) in arguments.iter().filter_map(|argument| argument.split_once('=')) {
                    self.variables.insert(name.into(), value.into());
                }
            }
            "umask" => match u32::from_str_radix(first, 8) {
                Ok(umask) => self.umask = umask & 0o777,
                Err(_) if first.is_empty() => return Ok(Outcome::says(format!("{:04o}\n", self.umask))),
                Err(_) => return Ok(Outcome::fails(2, format!("sh: 1: umask: Illegal number: {first}"))),
            },
            "set" => {
                let options = arguments.iter().filter_map(|argument| argument.strip_prefix('-'));
                self.exit_on_error |= options.into_iter().any(|letters| letters.contains('e'));
            }
            _ => {}
        }
        Ok(Outcome::code(0))
    }

    async fn sudo(&mut self, arguments: &[String]) -> Result<Outcome, Gone> {
        let (mut rest, mut target) = (arguments, "root".to_owned());
        while let Some((option, after)) = rest.split_first().filter(|(option, _)| option.starts_with('-')) {
            rest = after;
            match option.as_str() {
                "--" => break,
                "-u" | "--user" => {
                    let Some((user, after)) = rest.split_first() else { break };
                    (target, rest) = (user.clone(), after);
                }
                _ => {}
            }
        }
        let user = self.user.clone();
        let allowed =
            user == "root" || self.machine(|machine| machine.users.get(&user).is_some_and(|user| user.sudo))?;
        if !allowed {
            return Ok(Outcome::fails(1, "sudo: a password is required"));
        }
        let Some(name) = rest.first() else { return Ok(Outcome::fails(1, "usage: sudo -h | -K | -k | -V")) };
        if !self.machine(|machine| machine.users.contains_key(&target))? {
            return Ok(Outcome::fails(1, format!("sudo: unknown user {target}")));
        }
        let before = std::mem::replace(&mut self.user, target);
        let missing = matches!(self.find(name), Ok(Program::Not(127, _)));
        let outcome = match missing {
            true => Ok(Outcome::fails(1, format!("sudo: {name}: command not found"))),
            false => self.execute(rest.to_vec()).await,
        };
        self.user = before;
        outcome
    }

    async fn sh(&mut self, arguments: &[String], is_bash: bool) -> Result<Outcome, Gone> {
        let (mut rest, mut script, mut stop) = (arguments, None, self.exit_on_error);
        while let Some((option, after)) = rest.split_first().filter(|(option, _)| option.starts_with('-')) {
            rest = after;
            stop |= !option.starts_with("--") && option.contains('e');
            if !option.starts_with("--") && option.contains('c') {
                script = rest.first().cloned();
                rest = rest.get(1..).unwrap_or_default();
                break;
            }
        }
        let script = match (script, rest.first()) {
            (Some(script), _) => script,
            (None, Some(file)) => {
                let (who, path) = (self.who()?, files::absolute(file, &self.directory));
                match self.machine(|machine| machine.files.read(&path, &who).map(<[u8]>::to_vec))? {
                    Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                    Err(_) => return Ok(Outcome::fails(2, format!("sh: 0: cannot open {file}: No such file"))),
                }
            }
            (None, None) => String::from_utf8_lossy(&self.input.read().await).into_owned(),
        };
        let before = (self.variables.clone(), self.directory.clone(), self.umask, self.exit_on_error, self.is_bash);
        self.variables.extend(rest.iter().enumerate().map(|(position, value)| (position.to_string(), value.clone())));
        (self.exit_on_error, self.is_bash) = (stop, is_bash);
        let outcome = self.run(&script).await;
        (self.variables, self.directory, self.umask, self.exit_on_error, self.is_bash) = before;
        self.exited = false;
        outcome
    }

    async fn timeout(&mut self, arguments: &[String]) -> Result<Outcome, Gone> {
        let rest: Vec<String> = arguments.iter().skip_while(|argument| argument.starts_with('-')).cloned().collect();
        let Some((limit, command)) = rest.split_first().and_then(|(limit, rest)| Some((duration(limit)?, rest))) else {
            return Ok(Outcome::fails(125, "timeout: invalid time interval"));
        };
        let Kernel::Live(twin) = &self.kernel else { return self.execute(command.to_vec()).await };
        let twin = twin.clone();
        let (user, directory) = (self.user.clone(), self.directory.clone());
        let outcome = tokio::select! {
            biased;
            outcome = self.execute(command.to_vec()) => return outcome,
            () = twin.sleep(limit) => Outcome::code(124),
        };
        // What was cut short could not put these back.
        (self.user, self.directory) = (user, directory);
        Ok(outcome)
    }

    async fn wrapped(&mut self, name: &str, arguments: &[String]) -> Result<Outcome, Gone> {
        if name == "command" && arguments.first().is_some_and(|first| first == "-v") {
            let Some(wanted) = arguments.get(1) else { return Ok(Outcome::code(2)) };
            return Ok(match self.find(wanted)? {
                Program::Not(..) => Outcome::code(127),
                Program::K0s(path) => Outcome::says(format!("{path}\n")),
                _ => Outcome::says(format!("/usr/bin/{wanted}\n")),
            });
        }
        let mut rest = arguments;
        while let Some((first, after)) = rest.split_first() {
            match first.split_once('=') {
                Some((variable, value)) => drop(self.variables.insert(variable.into(), value.into())),
                None if first.starts_with('-') => {}
                None => return self.execute(rest.to_vec()).await,
            }
            rest = after;
        }
        Ok(Outcome::code(0))
    }

    async fn cloud_init(&mut self, arguments: &[String]) -> Result<Outcome, Gone> {
        if arguments.first().map(String::as_str) != Some("status") {
            return Ok(Outcome::fails(2, "usage: cloud-init [-h] {status}"));
        }
        let mut dots = String::new();
        if arguments.iter().any(|argument| ["--wait", "-w"].contains(&argument.as_str())) {
            dots = self.wait_for_cloud_init().await?;
        }
        let text = arguments.join(" ");
        let json = text.contains("--format json") || text.contains("--format=json");
        self.machine(|machine| {
            let state: &cloud_init::CloudInit = &machine.cloud_init;
            let text = if json { state.status_json() } else { format!("{dots}status: {}\n", state.status()) };
            Outcome { code: state.exit_code(), ..Outcome::says(text) }
        })
    }

    async fn wait_for_cloud_init(&mut self) -> Result<String, Gone> {
        let mut dots = String::new();
        loop {
            let changed = self.machine(|machine| machine.changed.clone())?;
            let notified = changed.notified();
            if self.machine(|machine| machine.cloud_init.done)? {
                return Ok(if dots.is_empty() { dots } else { dots + "\n" });
            }
            // During boot nobody would ever come to wake us.
            let Kernel::Live(_) = self.kernel else { return Ok(dots) };
            dots.push_str("....");
            notified.await;
        }
    }

    async fn curl(&mut self, arguments: &[String]) -> Result<Outcome, Gone> {
        let mut request = match programs::Curl::parse(arguments) {
            Ok(request) => request,
            Err(outcome) => return Ok(outcome),
        };
        if request.reads_options {
            let options = self.input.read().await;
            request.read_options(&String::from_utf8_lossy(&options));
        }
        if let Err(outcome) = self.here(|world, key| request.way(world, key))? {
            return Ok(outcome);
        }
        let mut binary = match request.answer() {
            Ok(binary) => binary,
            Err(outcome) => return Ok(outcome),
        };
        if request.head {
            return Ok(Outcome::code(0));
        }
        let wait = self.here(|world, key| {
            let name = world.machines.get(key).map(|machine| machine.name().to_owned()).unwrap_or_default();
            if let Some(machine) = world.machines.get_mut(key) {
                machine.k0s.has_downloaded = true;
            }
            if world.faults.strikes(FaultKind::TamperedDownload, &name) {
                binary.extend_from_slice(b"and something that nobody has released\n");
            }
            world.latency(Latency::K0sDownload, &name)
        })?;
        self.sleep(wait).await;
        let Some(output) = request.output else { return Ok(Outcome::says(binary)) };
        let (who, mode) = (self.who()?, 0o666 & !self.umask);
        let path = files::absolute(&output, &self.directory);
        if path == "/dev/null" {
            return Ok(Outcome::code(0));
        }
        let written = self.machine(|machine| {
            if request.create_directories {
                machine.files.make_directory(files::parent(&path), true, 0o755, &who)?;
            }
            machine.files.write(&path, &binary, false, mode, &who)
        })?;
        Ok(match written {
            Ok(()) => Outcome::code(0),
            Err(_) => Outcome::fails(23, "curl: (23) Failure writing output to destination"),
        })
    }

    async fn k0s(&mut self, path: &str, arguments: &[String]) -> Result<Outcome, Gone> {
        let (who, kubeconfig) = (self.who()?, self.variable("KUBECONFIG")?);
        let answer = self.here(|world, key| k0s::command(world, key, (&who, &kubeconfig), path, arguments))?;
        match answer {
            k0s::Answer::Now(outcome) => Ok(outcome),
            k0s::Answer::After(delay, finish) => {
                self.sleep(delay).await;
                self.here(finish)
            }
        }
    }

    /// Where the interactive shell says it is.
    pub(in crate::machine) fn prompt(&mut self) -> Result<String, Gone> {
        let hostname = self.machine(|machine| machine.hostname.clone())?;
        let home = self.variable("HOME")?;
        let directory = if self.directory == home { "~" } else { &self.directory };
        Ok(format!("{}@{hostname}:{directory}$ ", self.user))
    }
}

/// Commands of this file.
const KNOWN: [&str; 18] = [
    ":",
    "bash",
    "cd",
    "cloud-init",
    "command",
    "curl",
    "dash",
    "env",
    "exec",
    "exit",
    "export",
    "nohup",
    "set",
    "sh",
    "sleep",
    "sudo",
    "timeout",
    "umask",
];

/// `5`, `0.5`, `5s`, `2m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        None => (text, 1.0),
        Some(number) if text.ends_with('m') => (number, 60.0),
        Some(number) if text.ends_with('h') => (number, 3600.0),
        Some(number) => (number, 1.0),
    };
    let seconds: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(seconds * unit).ok()
}
