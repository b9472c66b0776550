//! The process of a controller: it has the cluster, serves its API, keeps it on the disk, and lets workers in.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{self, Read as _},
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fs_err as fs;
use serde_json::{Value, json};
use tokio::{
    io::BufReader,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use twin::{
    Twin, kube,
    machine::host::{self, Said},
};

use super::{
    DATA, answer_questions, flag, have_service, keep,
    link::{self, Hello, News},
    model, this_host,
};

/// The API server's port.
const API_PORT: u16 = 6443;
/// How often the model is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What all connections share.
struct Controller {
    twin: Twin,
    name: String,
    kept: Mutex<Kept>,
    ports: Mutex<Ports>,
}

/// What was last written to the disk.
#[derive(Default)]
struct Kept {
    revision: Option<(u64, u64, usize, usize)>,
    /// By node: what it shows when it comes back.
    credentials: BTreeMap<String, String>,
    /// By node: counts its connections.
    links: BTreeMap<String, u64>,
}

/// The ports, from the moment at which there is somebody to answer.
#[derive(Default)]
struct Ports {
    are_open: bool,
    /// Until somebody accepts what comes there.
    api: Option<TcpListener>,
    links: Option<TcpListener>,
}

/// Where etcd has its data: who removes that has taken the cluster away.
fn state_file() -> String {
    format!("{DATA}/etcd/member/stand-in.json")
}

/// Runs until it fails.
pub(super) async fn run(arguments: &[String]) -> io::Result<Said> {
    let config = flag(arguments, "--config").map(|path| (path, fs::read_to_string(path).unwrap_or_default()));
    let this = this_host(config.as_ref().map(|(_, text)| text.as_str()));
    let twin = model(&this)?;
    if let Some((path, text)) = &config
        && fs::metadata(path).is_ok()
    {
        twin.with(|world| host::put_file(world, &this.name, path, text.as_bytes()));
    }
    if let Err(said) = have_service(&twin, &this, "controller", arguments) {
        return Ok(said);
    }
    let controller = Arc::new(Controller {
        twin: twin.clone(),
        name: this.name.clone(),
        kept: Mutex::default(),
        ports: Mutex::default(),
    });
    match fs::read(state_file()) {
        Ok(bytes) => controller.restore(&bytes)?,
        Err(_) if twin.with(|world| host::joins_controllers(world, &this.name)) => {
            return Err(io::Error::other(
                "this stand-in for k0s can be the only controller of a cluster, and join none",
            ));
        }
        Err(_) => {}
    }
    twin.with(|world| host::start(world, &this.name));
    let asked = controller.clone();
    tokio::select! {
        biased;
        () = twin.clone().drive() => Err(io::Error::other("time has ended")),
        ended = answer_questions(move |arguments| asked.answer(arguments)) => match ended? {},
        ended = controller.clone().look() => ended,
        ended = controller.clone().serve_api() => match ended? {},
        ended = controller.clone().serve_links() => match ended? {},
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl Controller {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restore(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state: Value = serde_json::from_slice(bytes)?;
        self.twin.with(|world| host::restore(world, &self.name, state["model"].take())).map_err(io::Error::other)?;
        self.kept().credentials = serde_json::from_value(state["credentials"].take())?;
        Ok(())
    }

    /// Writes everything to the disk, if anything has changed.
    fn save(&self) {
        let mut kept = self.kept();
        let revision = self.twin.with(|world| host::revision(world, &self.name));
        if revision.is_none() || kept.revision == revision {
            return;
        }
        let Some(model) = self.twin.with(|world| host::snapshot(world, &self.name)) else { return };
        let state = json!({"model": model, "credentials": kept.credentials}).to_string();
        match keep(&state_file(), state.as_bytes(), 0o600) {
            Ok(()) => kept.revision = revision,
            Err(error) => eprintln!("the cluster cannot be kept: {error}"),
        }
    }

    /// Opens the ports once the API server is there; no command says so before.
    fn open_ports(&self) -> io::Result<Option<kube::ClusterId>> {
        let serving = self.twin.with(|world| host::serving(world, &self.name));
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if serving.is_some() && !ports.are_open {
            (ports.api, ports.links) = (Some(listen(API_PORT)?), Some(listen(link::PORT)?));
            ports.are_open = true;
        }
        Ok(serving)
    }

    fn answer(&self, arguments: &[String]) -> Said {
        if let Err(error) = self.open_ports() {
            eprintln!("the ports cannot be opened: {error}");
        }
        let said = self.twin.with(|world| host::run(world, &self.name, true, arguments));
        self.save();
        said
    }

    /// Passes on what the model says and writes; ends when it fails, as k0s does.
    async fn look(self: Arc<Self>) -> io::Result<Said> {
        let admin = format!("{DATA}/pki/admin.conf");
        let mut written = None;
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        loop {
            interval.tick().await;
            self.twin.with(|world| host::take_log(world, &self.name)).iter().for_each(|line| eprintln!("{line}"));
            self.save();
            let file = self.twin.with(|world| host::file(world, &self.name, &admin));
            if let Some((content, mode)) = file.filter(|file| written.as_ref() != Some(file)) {
                keep(&admin, &content, mode)?;
                written = Some((content, mode));
            }
            if self.twin.with(|world| host::has_failed(world, &self.name)) {
                return Ok(Said { code: 1, stdout: String::new(), stderr: String::new() });
            }
        }
    }

    /// Waits until the API server is there; takes one of the ports.
    async fn serving(
        &self,
        port: impl Fn(&mut Ports) -> Option<TcpListener>,
    ) -> io::Result<(kube::ClusterId, TcpListener)> {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        loop {
            interval.tick().await;
            let cluster = self.open_ports()?;
            let listener = port(&mut self.ports.lock().unwrap_or_else(PoisonError::into_inner));
            if let (Some(cluster), Some(listener)) = (cluster, listener) {
                return Ok((cluster, listener));
            }
        }
    }

    async fn serve_api(self: Arc<Self>) -> io::Result<Infallible> {
        let (cluster, listener) = self.serving(|ports| ports.api.take()).await?;
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            let _unimportant = stream.set_nodelay(true);
            let this = self.clone();
            connections.spawn(kube::serve_and_keep(self.twin.clone(), cluster, stream, move || this.save()));
            while connections.try_join_next().is_some() {}
        }
    }

    async fn serve_links(self: Arc<Self>) -> io::Result<Infallible> {
        let (cluster, listener) = self.serving(|ports| ports.links.take()).await?;
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            connections.spawn(self.clone().link(cluster, stream));
            while connections.try_join_next().is_some() {}
        }
    }

    /// One worker, from its first word until it falls silent.
    async fn link(self: Arc<Self>, cluster: kube::ClusterId, stream: TcpStream) {
        let Some(tls) = self.twin.with(|world| kube::tls(world, cluster)) else { return };
        let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
        let mut stream = BufReader::new(stream);
        let Ok(hello) = link::hear::<Hello>(&mut stream).await else { return };
        let name = hello.host.name.clone();
        if let Err(said) = self.let_in(&hello) {
            let log = said.stderr.lines().map(str::to_owned).collect();
            let _gone = link::say(&mut stream, &News { log, node_ready: false, credential: None }).await;
            return;
        }
        let number = {
            let mut kept = self.kept();
            let number = kept.links.entry(name.clone()).or_default();
            *number += 1;
            *number
        };
        while self.kept().links.get(&name) == Some(&number) {
            let (log, (joined, node_ready)) =
                self.twin.with(|world| (host::take_log(world, &name), host::node(world, &name)));
            let credential = joined.then(|| self.credential(&name));
            if link::say(&mut stream, &News { log, node_ready, credential }).await.is_err()
                || link::hear::<()>(&mut stream).await.is_err()
            {
                break;
            }
        }
        if self.kept().links.get(&name) == Some(&number) {
            self.twin.with(|world| host::stop(world, &name));
        }
    }

    /// The worker's machine starts: the one that it had, or a new one that has to join.
    fn let_in(&self, hello: &Hello) -> Result<(), Said> {
        let name = &hello.host.name;
        let is_known = hello.credential.is_some() && hello.credential.as_ref() == self.kept().credentials.get(name);
        if is_known {
            self.twin.with(|world| host::stop(world, name));
        } else {
            self.twin.with(|world| host::adopt(world, &hello.host));
            self.kept().credentials.remove(name);
        }
        if let Some(path) = flag(&hello.arguments, "--token-file") {
            self.twin.with(|world| host::put_file(world, name, path, hello.token.as_bytes()));
        }
        have_service(&self.twin, &hello.host, "worker", &hello.arguments)?;
        self.twin.with(|world| host::start(world, name));
        Ok(())
    }

    fn credential(&self, name: &str) -> String {
        let mut kept = self.kept();
        if let Some(known) = kept.credentials.get(name) {
            return known.clone();
        }
        let mut bytes = [0; 16];
        // Without randomness the worker joins again instead of coming back.
        let _unlikely = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        let credential = hex::encode(bytes);
        kept.credentials.insert(name.to_owned(), credential.clone());
        kept.revision = None;
        drop(kept);
        self.save();
        credential
    }
}
