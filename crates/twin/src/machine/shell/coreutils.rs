//! Small programs on files and text. Messages and exit codes are those of GNU coreutils and grep.

use regex::Regex;
use sha2::{Digest, Sha256};

use super::{Outcome, test, text};
use crate::machine::{
    Machine,
    files::{self, FileError, READ, Who, absolute, parent},
};

/// One invocation.
pub(super) struct Call<'a> {
    /// Who runs it.
    pub(super) who: &'a Who,
    /// The working directory.
    pub(super) directory: &'a str,
    /// Bits that new files do not get.
    pub(super) umask: u32,
    /// The arguments.
    pub(super) arguments: &'a [String],
    /// Standard input.
    pub(super) input: &'a [u8],
}

/// The programs of this file.
pub(super) const KNOWN: [&str; 31] = [
    "[",
    "cat",
    "chmod",
    "chown",
    "cp",
    "echo",
    "false",
    "grep",
    "head",
    "hostname",
    "id",
    "install",
    "ln",
    "ls",
    "mkdir",
    "mv",
    "printf",
    "pwd",
    "readlink",
    "rm",
    "sha256sum",
    "stat",
    "sync",
    "tail",
    "tee",
    "test",
    "touch",
    "true",
    "uname",
    "wc",
    "whoami",
];

/// Whether this invocation reads standard input.
pub(super) fn reads_input(name: &str, arguments: &[String]) -> bool {
    let from_input = arguments.iter().any(|argument| argument == "-" || argument == "/dev/stdin");
    let operands = arguments.iter().filter(|argument| !argument.starts_with('-')).count();
    match name {
        "tee" => true,
        "cat" | "sha256sum" | "wc" => from_input || operands == 0,
        "head" | "tail" => {
            let mut words = arguments.iter().map(String::as_str);
            let mut names_file = false;
            while let Some(word) = words.next() {
                match word {
                    // With the number behind it.
                    "-n" | "-c" => drop(words.next()),
                    option if option.starts_with('-') => {}
                    _ => names_file = true,
                }
            }
            from_input || !names_file
        }
        "grep" => from_input || operands < 2,
        "install" | "cp" => from_input,
        _ => false,
    }
}

/// Runs one of [`KNOWN`].
pub(super) fn run(machine: &mut Machine, name: &str, call: &Call<'_>) -> Outcome {
    match name {
        "true" | "sync" => Outcome::code(0),
        "false" => Outcome::code(1),
        "echo" => echo(call),
        "printf" => printf(call),
        "pwd" => Outcome::says(format!("{}\n", call.directory)),
        "hostname" => Outcome::says(format!("{}\n", machine.hostname)),
        "uname" => uname(machine, call),
        "whoami" => Outcome::says(format!("{}\n", call.who.user)),
        "id" => id(call),
        "test" | "[" => test::run(machine, name, call),
        "cat" => each_input(machine, call, "cat", |_, bytes| bytes.to_vec()),
        "sha256sum" => each_input(machine, call, "sha256sum", |path, bytes| {
            format!("{}  {path}\n", hex::encode(Sha256::digest(bytes))).into_bytes()
        }),
        "head" | "tail" => text::part(machine, name, call),
        "wc" => text::wc(machine, call),
        "grep" => grep(machine, call),
        "ls" => ls(machine, call),
        "stat" => stat(machine, call),
        "mkdir" => mkdir(machine, call),
        "touch" => each_operand(machine, call, "cannot touch", |machine, path| {
            machine.files.write(path, b"", true, 0o666 & !call.umask, call.who)
        }),
        "rm" => rm(machine, call),
        "mv" | "cp" => mv(machine, name, call),
        "chmod" => chmod(machine, call),
        "chown" => chown(machine, call),
        "tee" => tee(machine, call),
        "install" => install(machine, call),
        "ln" => ln(machine, call),
        "readlink" => readlink(machine, call),
        _ => Outcome::code(127),
    }
}

impl Call<'_> {
    /// Arguments split into options and operands; the options named in `with_value` take the word after them.
    pub(super) fn options(&self, with_value: &str) -> (Vec<(char, String)>, Vec<String>) {
        let (mut options, mut operands) = (Vec::new(), Vec::new());
        let mut arguments = self.arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix('-') {
                Some("-") => operands.extend(arguments.by_ref().cloned()),
                Some(long) if long.starts_with('-') => {
                    let (name, value) = long.split_once('=').unwrap_or((long, ""));
                    options.push((name.chars().nth(1).unwrap_or('-'), value.to_owned()));
                }
                Some(letters) if !letters.is_empty() => {
                    let mut letters = letters.chars();
                    while let Some(letter) = letters.next() {
                        if with_value.contains(letter) {
                            let rest: String = letters.by_ref().collect();
                            let value =
                                if rest.is_empty() { arguments.next().cloned().unwrap_or_default() } else { rest };
                            options.push((letter, value));
                        } else {
                            options.push((letter, String::new()));
                        }
                    }
                }
                _ => operands.push(argument.clone()),
            }
        }
        (options, operands)
    }

    /// The absolute path.
    pub(super) fn path(&self, path: &str) -> String {
        absolute(path, self.directory)
    }

    /// What is in a file, or in standard input.
    pub(super) fn read<'a>(&'a self, machine: &'a Machine, path: &str) -> Result<&'a [u8], FileError> {
        match path {
            "-" | "/dev/stdin" => Ok(self.input),
            "/dev/null" => Ok(b""),
            _ => machine.files.read(&self.path(path), self.who),
        }
    }
}

/// Whether an option is given.
pub(super) fn has(options: &[(char, String)], letter: char) -> bool {
    options.iter().any(|(option, _)| *option == letter)
}

/// The value of an option.
pub(super) fn value(options: &[(char, String)], letter: char) -> Option<&str> {
    options.iter().find(|(option, _)| *option == letter).map(|(_, value)| value.as_str())
}

/// Goes on after an error, and ends with that code.
pub(super) fn complain(outcome: &mut Outcome, code: u32, line: String) {
    outcome.code = code;
    outcome.stderr.extend_from_slice(line.as_bytes());
    outcome.stderr.push(b'\n');
}

fn echo(call: &Call<'_>) -> Outcome {
    let (words, end) = match call.arguments.split_first() {
        Some((first, rest)) if first == "-n" => (rest, ""),
        _ => (call.arguments, "\n"),
    };
    Outcome::says(format!("{}{end}", words.join(" ")))
}

/// `%s`, `%d`, `%%` and the usual escapes.
fn printf(call: &Call<'_>) -> Outcome {
    let Some((format, values)) = call.arguments.split_first() else {
        return Outcome::fails(2, "sh: 1: printf: usage: printf format [arg ...]");
    };
    let format = format.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
    let mut text = String::new();
    let mut values = values.iter().peekable();
    loop {
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            match (character, characters.clone().next()) {
                ('%', Some('%')) => text.push('%'),
                ('%', Some('s' | 'd')) => text.push_str(values.next().map_or("", String::as_str)),
                _ => {
                    text.push(character);
                    continue;
                }
            }
            characters.next();
        }
        if values.peek().is_none() || !format.contains('%') {
            return Outcome::says(text);
        }
    }
}

fn uname(machine: &Machine, call: &Call<'_>) -> Outcome {
    let hardware = if machine.architecture() == "arm64" { "aarch64" } else { "x86_64" };
    Outcome::says(match call.arguments.first().map(String::as_str) {
        None | Some("-s") => "Linux\n".into(),
        Some("-m") => format!("{hardware}\n"),
        Some("-r") => format!("6.1.0-28-cloud-{}\n", machine.architecture()),
        Some("-n") => format!("{}\n", machine.hostname),
        Some(_) => {
            format!("Linux {} 6.1.0-28-cloud-{} {hardware} GNU/Linux\n", machine.hostname, machine.architecture())
        }
    })
}

fn id(call: &Call<'_>) -> Outcome {
    let number = if call.who.is_root() { 0 } else { 1000 };
    let user = &call.who.user;
    Outcome::says(match call.arguments.first().map(String::as_str) {
        Some("-un") => format!("{user}\n"),
        Some("-u" | "-g") => format!("{number}\n"),
        _ => format!("uid={number}({user}) gid={number}({user}) groups={number}({user})\n"),
    })
}

/// Turns each file, or standard input, into output.
fn each_input(machine: &Machine, call: &Call<'_>, name: &str, turn: impl Fn(&str, &[u8]) -> Vec<u8>) -> Outcome {
    let (_, mut paths) = call.options("");
    if paths.is_empty() {
        paths.push("-".into());
    }
    let mut outcome = Outcome::default();
    for path in &paths {
        match call.read(machine, path) {
            Ok(bytes) => outcome.stdout.extend(turn(path, bytes)),
            Err(error) => complain(&mut outcome, 1, format!("{name}: {path}: {error}")),
        }
    }
    outcome
}

fn grep(machine: &Machine, call: &Call<'_>) -> Outcome {
    let (options, mut operands) = call.options("e");
    let pattern = match value(&options, 'e') {
        Some(pattern) => pattern.to_owned(),
        None if operands.is_empty() => return Outcome::fails(2, "Usage: grep [OPTION]... PATTERNS [FILE]..."),
        None => operands.remove(0),
    };
    let literal = if has(&options, 'F') { regex::escape(&pattern) } else { pattern };
    let whole = if has(&options, 'x') { format!("^(?:{literal})$") } else { literal };
    let Ok(expression) = Regex::new(&if has(&options, 'i') { format!("(?i){whole}") } else { whole }) else {
        return Outcome::fails(2, "grep: Invalid regular expression");
    };
    let (mut outcome, mut found) = (Outcome::default(), 0);
    let paths = if operands.is_empty() { vec!["-".to_owned()] } else { operands };
    for path in &paths {
        match call.read(machine, path) {
            Ok(bytes) => {
                for line in String::from_utf8_lossy(bytes).lines() {
                    if expression.is_match(line) != has(&options, 'v') {
                        found += 1;
                        outcome.stdout.extend_from_slice(format!("{line}\n").as_bytes());
                    }
                }
            }
            Err(_) if has(&options, 's') => outcome.code = 2,
            Err(error) => complain(&mut outcome, 2, format!("grep: {path}: {error}")),
        }
    }
    if has(&options, 'c') {
        outcome.stdout = format!("{found}\n").into_bytes();
    }
    if has(&options, 'q') {
        outcome.stdout.clear();
    }
    // A match wins over an error when nothing has to be printed (grep manual, -q).
    match (found, outcome.code) {
        (0, 0) => outcome.code = 1,
        (1.., _) if has(&options, 'q') => outcome.code = 0,
        _ => {}
    }
    outcome
}

fn ls(machine: &Machine, call: &Call<'_>) -> Outcome {
    let (options, mut operands) = call.options("");
    if operands.is_empty() {
        operands.push(".".into());
    }
    let mut outcome = Outcome::default();
    let several = operands.len() > 1;
    // GNU ls looks at everything in the order in which it was named, then shows what is no directory, then the others.
    operands.retain(|operand| match machine.files.look(&call.path(operand), call.who) {
        Ok(_) => true,
        Err(error) => {
            complain(&mut outcome, 2, format!("ls: cannot access '{operand}': {error}"));
            false
        }
    });
    let is_listed = |operand: &String| {
        !has(&options, 'd') && machine.files.get(&call.path(operand)).is_some_and(files::Node::is_directory)
    };
    operands.sort_by_key(|operand| (is_listed(operand), operand.clone()));
    for operand in &operands {
        let path = call.path(operand);
        if !is_listed(operand) {
            outcome.stdout.extend_from_slice(format!("{operand}\n").as_bytes());
            continue;
        }
        if !machine.files.allows(&path, call.who, READ) {
            complain(&mut outcome, 2, format!("ls: cannot open directory '{operand}': Permission denied"));
            continue;
        }
        if several {
            let gap = if outcome.stdout.is_empty() { "" } else { "\n" };
            outcome.stdout.extend_from_slice(format!("{gap}{operand}:\n").as_bytes());
        }
        let is_shown = |name: &String| has(&options, 'a') || has(&options, 'A') || !name.starts_with('.');
        let names = machine.files.names(&path).into_iter().filter(is_shown);
        outcome.stdout.extend(names.flat_map(|name| format!("{name}\n").into_bytes()));
    }
    outcome
}

fn stat(machine: &Machine, call: &Call<'_>) -> Outcome {
    let (options, operands) = call.options("c");
    let format = value(&options, 'c').or_else(|| value(&options, 'f')).unwrap_or("%n").to_owned();
    let mut outcome = Outcome::default();
    for operand in &operands {
        match machine.files.look(&call.path(operand), call.who) {
            Err(error) => complain(&mut outcome, 1, format!("stat: cannot statx '{operand}': {error}")),
            Ok(node) => {
                let kind = if node.is_directory() { "directory" } else { "regular file" };
                let text = format
                    .replace("%a", &format!("{:o}", node.mode))
                    .replace("%U", &node.owner)
                    .replace("%G", &node.group)
                    .replace("%s", &node.content.as_ref().map_or(4096, Vec::len).to_string())
                    .replace("%n", operand)
                    .replace("%F", kind);
                outcome.stdout.extend_from_slice(format!("{text}\n").as_bytes());
            }
        }
    }
    outcome
}

/// Does something to each operand; `verb` is what could not be done.
fn each_operand(
    machine: &mut Machine,
    call: &Call<'_>,
    verb: &str,
    act: impl Fn(&mut Machine, &str) -> Result<(), FileError>,
) -> Outcome {
    let (_, operands) = call.options("mgot");
    let mut outcome = Outcome::default();
    for operand in &operands {
        if let Err(error) = act(machine, &call.path(operand)) {
            let name = verb.rsplit(' ').next().unwrap_or_default();
            let name = if name == "directory" { "mkdir" } else { name };
            complain(&mut outcome, 1, format!("{name}: {verb} '{operand}': {error}"));
        }
    }
    outcome
}

fn mkdir(machine: &mut Machine, call: &Call<'_>) -> Outcome {
    let (options, _) = call.options("m");
    let mode = value(&options, 'm').and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o777 & !call.umask);
    each_operand(machine, call, "cannot create directory", |machine, path| {
        machine.files.make_directory(path, has(&options, 'p'), mode, call.who)
    })
}

fn rm(machine: &mut Machine, call: &Call<'_>) -> Outcome {
    let (options, operands) = call.options("");
    let recursive = has(&options, 'r') || has(&options, 'R');
    let mut outcome = Outcome::default();
    for operand in &operands {
        match machine.files.remove(&call.path(operand), recursive, call.who) {
            Err(FileError::NotFound) if has(&options, 'f') => {}
            Err(error) => complain(&mut outcome, 1, format!("rm: cannot remove '{operand}': {error}")),
            Ok(()) => {}
        }
    }
    outcome
}

/// `ln -s TARGET PATH`; hard links are left out.
fn ln(machine: &mut Machine, call: &Call<'_>) -> Outcome {
    let (options, operands) = call.options("");
    let [target, path] = operands.as_slice() else { return Outcome::fails(1, "ln: missing file operand") };
    if !has(&options, 's') {
        return Outcome::fails(
            1,
            format!("ln: failed to create hard link '{path}' => '{target}': Operation not permitted"),
        );
    }
    match machine.files.link(target, &call.path(path), call.who) {
        Ok(()) => Outcome::default(),
        Err(error) => Outcome::fails(1, format!("ln: failed to create symbolic link '{path}': {error}")),
    }
}

/// It says nothing of what is no link.
fn readlink(machine: &Machine, call: &Call<'_>) -> Outcome {
    let (_, operands) = call.options("");
    let Some(path) = operands.first() else { return Outcome::fails(1, "readlink: missing operand") };
    match machine.files.target(&call.path(path), call.who) {
        Some(target) => Outcome::says(format!("{target}\n")),
        None => Outcome::code(1),
    }
}

fn mv(machine: &mut Machine, name: &str, call: &Call<'_>) -> Outcome {
    let (_, operands) = call.options("");
    let [from, to] = operands.as_slice() else { return Outcome::fails(1, format!("{name}: missing file operand")) };
    let source = call.path(from);
    let mut target = call.path(to);
    if machine.files.get(&target).is_some_and(|node| node.is_directory()) {
        target = format!("{}/{}", target.trim_end_matches('/'), source.rsplit('/').next().unwrap_or_default());
    }
    let exists = machine.files.look(&source, call.who).map(|node| node.mode);
    let moved = match (name, exists) {
        (_, Err(error)) => return Outcome::fails(1, format!("{name}: cannot stat '{from}': {error}")),
        ("mv", Ok(_)) => machine.files.rename(&source, &target, call.who),
        (_, Ok(mode)) => call
            .read(machine, from)
            .map(<[u8]>::to_vec)
            .and_then(|bytes| machine.files.write(&target, &bytes, false, mode & !call.umask, call.who)),
    };
    match moved {
        Ok(()) => Outcome::code(0),
        Err(error) if name == "mv" => Outcome::fails(1, format!("mv: cannot move '{from}' to '{to}': {error}")),
        Err(error) => Outcome::fails(1, format!("cp: cannot create regular file '{to}': {error}")),
    }
}

fn chmod(machine: &mut Machine, call: &Call<'_>) -> Outcome {
    // A mode may begin with a dash (`-w`), options here may not: only -R and -f are known, and ignored.
    let mut words = call.arguments.iter().filter(|word| !["-R", "-f", "--"].contains(&word.as_str()));
    let Some(mode) = words.next() else { return Outcome::fails(1, "chmod: missing operand") };
    let mut outcome = Outcome::default();
    for operand in words {
        let path = call.path(operand);
        let result = match machine.files.look(&path, call.who).map(|node| new_mode(mode, node.mode)) {
            Ok(Some(mode)) => machine.files.set_mode(&path, mode, call.who),
            Ok(None) => return Outcome::fails(1, format!("chmod: invalid mode: '{mode}'")),
            Err(error) => Err(error),
        };
        match result {
            Err(FileError::NotPermitted) => {
                complain(
                    &mut outcome,
                    1,
                    format!("chmod: changing permissions of '{operand}': Operation not permitted"),
                );
            }
            Err(error) => complain(&mut outcome, 1, format!("chmod: cannot access '{operand}': {error}")),
            Ok(()) => {}
        }
    }
    outcome
}

/// An octal mode, or `[ugoa]*[+-=][rwx]*`.
fn new_mode(text: &str, before: u32) -> Option<u32> {
    if let Ok(mode) = u32::from_str_radix(text, 8) {
        return Some(mode);
    }
    let operator = text.find(['+', '-', '='])?;
    let shift = |class| match class {
        'u' => Some(0o700),
        'g' => Some(0o070),
        'o' => Some(0o007),
        'a' => Some(0o777),
        _ => None,
    };
    let classes = match &text[..operator] {
        "" => 0o777,
        classes => classes.chars().map(shift).try_fold(0, |all, class| Some(all | class?))?,
    };
    let bits = text[operator + 1..].chars().try_fold(0, |all, letter| match letter {
        'r' => Some(all | 0o444),
        'w' => Some(all | 0o222),
        'x' => Some(all | 0o111),
        _ => None,
    })?;
    Some(match &text[operator..=operator] {
        "+" => before | bits & classes,
        "-" => before & !(bits & classes),
        _ => before & !classes | bits & classes,
    })
}

fn chown(machine: &mut Machine, call: &Call<'_>) -> Outcome {
    let (_, operands) = call.options("");
    let Some((spec, paths)) = operands.split_first() else { return Outcome::fails(1, "chown: missing operand") };
    let (owner, group) = spec.split_once(':').map_or((spec.as_str(), None), |(owner, group)| (owner, Some(group)));
    if !owner.is_empty() && !machine.users.contains_key(owner) {
        return Outcome::fails(1, format!("chown: invalid user: '{spec}'"));
    }
    let mut outcome = Outcome::default();
    for operand in paths {
        let owner = Some(owner).filter(|owner| !owner.is_empty());
        match machine.files.set_owner(&call.path(operand), owner, group, call.who) {
            Err(FileError::NotPermitted) => {
                complain(&mut outcome, 1, format!("chown: changing ownership of '{operand}': Operation not permitted"));
            }
            Err(error) => complain(&mut outcome, 1, format!("chown: cannot access '{operand}': {error}")),
            Ok(()) => {}
        }
    }
    outcome
}

fn tee(machine: &mut Machine, call: &Call<'_>) -> Outcome {
    let (options, operands) = call.options("");
    let mut outcome = Outcome::says(call.input);
    for operand in operands.iter().filter(|operand| *operand != "/dev/null") {
        let mode = 0o666 & !call.umask;
        let path = call.path(operand);
        if let Err(error) = machine.files.write(&path, call.input, has(&options, 'a'), mode, call.who) {
            complain(&mut outcome, 1, format!("tee: {operand}: {error}"));
        }
    }
    outcome
}

fn install(machine: &mut Machine, call: &Call<'_>) -> Outcome {
    let (options, operands) = call.options("mgo");
    let mode = value(&options, 'm').map_or(Some(0o755), |mode| new_mode(mode, 0));
    let Some(mode) = mode else { return Outcome::fails(1, "install: invalid mode") };
    let (owner, group) = (value(&options, 'o'), value(&options, 'g'));
    if let Some(unknown) = owner.filter(|owner| !machine.users.contains_key(*owner)) {
        return Outcome::fails(1, format!("install: invalid user '{unknown}'"));
    }
    let finish = |machine: &mut Machine, path: &str| {
        machine.files.set_mode(path, mode, call.who)?;
        machine.files.set_owner(path, owner, group, call.who)
    };
    if has(&options, 'd') {
        return each_operand(machine, call, "cannot create directory", |machine, path| {
            machine.files.make_directory(path, true, 0o755, call.who)?;
            finish(machine, path)
        });
    }
    let [from, to] = operands.as_slice() else { return Outcome::fails(1, "install: missing file operand") };
    let bytes = match call.read(machine, from) {
        Ok(bytes) => bytes.to_vec(),
        Err(error) => return Outcome::fails(1, format!("install: cannot stat '{from}': {error}")),
    };
    let mut path = call.path(to);
    if machine.files.get(&path).is_some_and(|node| node.is_directory()) {
        path = format!("{path}/{}", from.rsplit('/').next().unwrap_or_default());
    }
    // The old file is removed first, as the program does it: its mode does not matter.
    if has(&options, 'D')
        && let Err(error) = machine.files.make_directory(parent(&path), true, 0o755, call.who)
    {
        let error = if error == FileError::Exists { FileError::NotDirectory } else { error };
        return Outcome::fails(1, format!("install: cannot create directory '{}': {error}", parent(to)));
    }
    let written = match machine.files.remove(&path, false, call.who) {
        Err(FileError::NotFound) | Ok(()) => machine.files.write(&path, &bytes, false, 0o600, call.who),
        Err(error) => Err(error),
    };
    match written.and_then(|()| finish(machine, &path)) {
        Ok(()) => Outcome::code(0),
        Err(FileError::NotPermitted) => {
            Outcome::fails(1, format!("install: cannot change ownership of '{to}': Operation not permitted"))
        }
        Err(error) => Outcome::fails(1, format!("install: cannot create regular file '{to}': {error}")),
    }
}
