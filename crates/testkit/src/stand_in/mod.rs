//! A program that behaves as k0s on a real host: the twin's k0s and its Kubernetes API as a process, under a real systemd, on
//! real ports, in real time.
//!
//! It stands where no real k0s can be had. What is not modelled is a line of the host: files, units, sockets. Everything
//! else is `twin::machine::host`.
//!
//! - [`command`]: what ends at once, and questions to the process that runs
//! - [`controller`]: the process that has the cluster
//! - [`worker`]: the process of a node
//! - [`link`]: what a worker and its controller say to each other
//!
//! Not like k0s: workers and their controller talk through a protocol of their own, on k0s's port for those who join, and no
//! system users are made. One controller and any number of workers. Things happen [`HASTE`] times faster than in the model, unless the variable
//! `K0S_STAND_IN_HASTE` says otherwise.

mod command;
mod controller;
mod link;
mod worker;

use std::{
    convert::Infallible,
    io::{self, Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
    process::ExitCode,
};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};
use twin::{
    Options, Twin,
    machine::host::{self, Host, Said},
};

/// The release that it says it is.
pub const VERSION: &str = "v1.33.2+k0s.0";
/// How many times faster than usual things happen.
const HASTE: f64 = 20.0;
/// Where k0s keeps its data.
const DATA: &str = "/var/lib/k0s";
/// Where k0s has its sockets.
const RUN: &str = "/run/k0s";
/// Where a running k0s answers.
const SOCKET: &str = "/run/k0s/status.sock";

/// The whole program.
pub fn main(arguments: Vec<String>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(&format!("no runtime: {error}")),
    };
    let ended_with = runtime.block_on(async {
        match arguments.first().map(String::as_str) {
            Some("controller") => controller::run(&arguments[1..]).await,
            Some("worker") => worker::run(&arguments[1..]).await,
            _ => Ok(command::run(&arguments).await),
        }
    });
    match ended_with {
        Ok(Said { code, stdout, stderr }) => {
            print!("{stdout}");
            eprint!("{stderr}");
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Err(error) => ended(&error.to_string()),
    }
}

fn ended(why: &str) -> ExitCode {
    eprintln!("Error: {why}");
    ExitCode::FAILURE
}

/// This host. `config` is the `ClusterConfig`, which may say at which address it is reached.
fn this_host(config: Option<&str>) -> Host {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Host {
        name: name.trim().to_lowercase(),
        address: config.and_then(host::api_address).unwrap_or_else(first_address),
        architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.to_owned(),
        version: VERSION.to_owned(),
    }
}

/// The first address of this host that is not its own alone.
fn first_address() -> Ipv4Addr {
    let said = program("hostname", &["-I"]).map(|(_, said)| said).unwrap_or_default();
    said.split_whitespace().find_map(|address| address.parse().ok()).unwrap_or(Ipv4Addr::LOCALHOST)
}

/// Runs another program: whether it succeeded, and what it said.
#[expect(clippy::disallowed_methods, reason = "systemd is asked through its own program")]
fn program(name: &str, arguments: &[&str]) -> io::Result<(bool, String)> {
    let output = std::process::Command::new(name).args(arguments).output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// The model, with this host in the place of a machine and nothing else in it.
#[expect(clippy::disallowed_methods, reason = "a real host has the real time, and its harness a variable")]
fn model(this: &Host) -> io::Result<Twin> {
    let haste = std::env::var("K0S_STAND_IN_HASTE").ok().and_then(|text| text.parse().ok()).unwrap_or(HASTE);
    let mut seed = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let epoch = time::OffsetDateTime::now_utc();
    let twin = Twin::new(Options { seed: u64::from_le_bytes(seed), haste, epoch, ..Options::default() });
    twin.with(|world| host::adopt(world, this));
    Ok(twin)
}

/// Lets the model have the service that is installed with these arguments.
fn have_service(twin: &Twin, this: &Host, role: &str, arguments: &[String]) -> Result<(), Said> {
    let mut install = vec!["install".to_owned(), role.to_owned()];
    install.extend_from_slice(arguments);
    install.push("--force".to_owned());
    let said = twin.with(|world| host::run(world, &this.name, true, &install));
    if said.code == 0 { Ok(()) } else { Err(said) }
}

/// The value of `--name=value` or `--name value`.
fn flag<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix(name) {
            Some("") => return arguments.next().map(String::as_str),
            Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
            _ => {}
        }
    }
    None
}

/// Writes a file that only root may read: whole, and on the disk, or not at all.
fn keep(path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = Path::new(path).parent().unwrap_or(Path::new("/"));
    make_directory(directory)?;
    let draft = format!("{path}.new");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn make_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// A question to the process that runs.
#[derive(Serialize, Deserialize)]
struct Question {
    arguments: Vec<String>,
}

/// Asks the process that runs on this host.
async fn ask(arguments: &[String]) -> io::Result<Said> {
    let mut stream = BufReader::new(UnixStream::connect(SOCKET).await?);
    let mut question = serde_json::to_vec(&Question { arguments: arguments.to_vec() })?;
    question.push(b'\n');
    stream.get_mut().write_all(&question).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    Ok(serde_json::from_str(&answer)?)
}

/// Answers who asks on this host, for ever.
async fn answer_questions(answer: impl Fn(&[String]) -> Said) -> io::Result<Infallible> {
    make_directory(Path::new(RUN))?;
    // What an earlier process has left.
    let _absent = fs::remove_file(SOCKET);
    let listener = UnixListener::bind(SOCKET)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let asked = tokio::time::timeout(link::PATIENCE, stream.read_line(&mut line)).await;
        let Ok(Ok(_)) = asked else { continue };
        let Ok(question) = serde_json::from_str::<Question>(&line) else { continue };
        let mut said = serde_json::to_vec(&answer(&question.arguments))?;
        said.push(b'\n');
        // Who asks may be gone.
        let _gone = stream.get_mut().write_all(&said).await;
    }
}
