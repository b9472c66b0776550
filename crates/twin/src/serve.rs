//! The same world over TCP, for other programs: Azure's hosts on ports of 127.0.0.1, machines on addresses of their own
//! in a 127.N.0.0/16 of this twin, and an administrator's port to look at the world and to make it difficult.

use std::{
    collections::BTreeMap,
    fs::TryLockError,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::Response;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use crate::{
    Action, Fault, Options, Twin,
    azure::{self, Service},
    http::{self, Body, Received},
    machine, net,
};

/// How often addresses are looked at, in real time.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The networks from which a twin takes one: 127.20.0.0/16 and the 200 that follow.
const FIRST_NETWORK: u8 = 20;
const NETWORKS: u16 = 200;
/// Where machines answer SSH if this user may not listen on port 22.
const UNPRIVILEGED_SSH_PORT: u16 = 2222;

/// How to serve a world.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where `ca.pem` and `endpoints.json` go; made if it does not exist.
    pub data_dir: PathBuf,
    /// Decides every latency.
    pub seed: u64,
    /// World seconds per second.
    pub speed: f64,
    /// The calendar time at which the world starts.
    pub epoch: OffsetDateTime,
}

/// Where the world answers; also the content of `endpoints.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Endpoints {
    /// The version of this format.
    pub format_version: u32,
    /// The URL of Azure Resource Manager.
    pub arm: String,
    /// The URL of the login endpoint.
    pub authority: String,
    /// The URL of everything else on the internet that there is.
    pub internet: String,
    /// The URL of the administrator's port, without TLS.
    pub admin: String,
    /// The certificate that clients of `arm` and `authority` must trust.
    pub ca_file: PathBuf,
    /// The port on which machines answer SSH, at their own addresses.
    pub ssh_port: u16,
    /// This process.
    pub pid: u32,
    /// The one subscription that exists.
    pub subscription_id: String,
    /// Its tenant.
    pub tenant_id: String,
    /// World seconds per second.
    pub speed: f64,
    /// What its latencies are drawn from.
    pub seed: u64,
    /// When it began: a world that is served again begins anew.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
}

/// Whoever serves from a directory has it alone, until its process ends: the files in it lead to one world.
fn claim(data_dir: &Path) -> io::Result<fs_err::File> {
    let directory = fs_err::File::open(data_dir)?;
    directory.file().try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            io::Error::other("another twin is served from there; end that one, or name another directory")
        }
        TryLockError::Error(error) => error,
    })?;
    Ok(directory)
}

/// Serves a new world until the future is dropped; `ready` is called once clients can come.
pub async fn serve(options: ServeOptions, ready: impl FnOnce(&Endpoints)) -> io::Result<()> {
    let ServeOptions { data_dir, seed, speed, epoch } = options;
    fs_err::create_dir_all(&data_dir)?;
    let _claim = claim(&data_dir)?;
    let arm = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let ssh_port = ssh_port().await;
    let (network, _reservation) = reserve_network(arm.local_addr()?.port(), ssh_port).await?;
    let twin = Twin::new(Options { seed, speed, epoch, loopback: Some(network), ..Options::default() });
    let authority = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let internet = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let endpoints = Endpoints {
        format_version: 1,
        arm: format!("https://{}", arm.local_addr()?),
        authority: format!("https://{}", authority.local_addr()?),
        internet: format!("https://{}", internet.local_addr()?),
        admin: format!("http://{}", admin.local_addr()?),
        ca_file: data_dir.join("ca.pem"),
        ssh_port,
        pid: std::process::id(),
        subscription_id: azure::SUBSCRIPTION.into(),
        tenant_id: azure::TENANT.into(),
        speed,
        seed,
        started_at: epoch,
    };
    let ca_pem = twin.with(|world| {
        world.azure.login_url = endpoints.authority.clone();
        world.azure.ca_pem()
    });
    write(&endpoints.ca_file, ca_pem.as_bytes())?;
    write(&data_dir.join("endpoints.json"), &serde_json::to_vec_pretty(&endpoints)?)?;
    ready(&endpoints);
    let (of_arm, of_authority, of_internet, of_admin) = (twin.clone(), twin.clone(), twin.clone(), twin.clone());
    tokio::join!(
        biased;
        twin.clone().drive(),
        accept(arm, move |stream, _| net::serve_azure(of_arm.clone(), Service::ResourceManager, stream)),
        accept(authority, move |stream, _| net::serve_azure(of_authority.clone(), Service::Login, stream)),
        accept(internet, move |stream, peer| {
            let from = of_internet.client(Some(peer));
            crate::internet::serve(of_internet.clone(), from, stream)
        }),
        accept(admin, move |stream, _| {
            let twin = of_admin.clone();
            http::serve(stream, move |request| administrate(twin.clone(), request))
        }),
        serve_machines(twin, endpoints.ssh_port),
    );
    Ok(())
}

/// Whole or not at all.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    fs_err::write(&draft, content)?;
    fs_err::rename(&draft, path)
}

/// Gives each connection a task of its own, until the future is dropped.
#[expect(clippy::disallowed_methods, reason = "sockets live in real time")]
async fn accept<Serving>(listener: TcpListener, serve: impl Fn(TcpStream, IpAddr) -> Serving)
where
    Serving: Future<Output = ()> + Send + 'static,
{
    let mut connections = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without it, every small answer waits for an acknowledgement.
                let _unimportant = stream.set_nodelay(true);
                connections.spawn(serve(stream, peer.ip()));
            }
            // Too many open files, for example: others may close theirs.
            Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Port 22 if this user may listen there.
async fn ssh_port() -> u16 {
    match TcpListener::bind((Ipv4Addr::new(127, FIRST_NETWORK, 255, 253), 22)).await {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => UNPRIVILEGED_SSH_PORT,
        _ => 22,
    }
}

/// A 127.N.0.0/16 that no other twin on this computer uses: its last address is kept for as long as the twin runs. The
/// search begins somewhere that differs from twin to twin.
async fn reserve_network(somewhere: u16, port: u16) -> io::Result<(u8, TcpListener)> {
    for step in 0..NETWORKS {
        let network = FIRST_NETWORK + ((somewhere + step) % NETWORKS) as u8;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::new(127, network, 255, 254), port)).await {
            return Ok((network, listener));
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "every 127.N.0.0/16 has a twin already: end some of them"))
}

/// What listens at a machine's address: sshd, or nobody who ever answers.
struct Door {
    reach: machine::Reach,
    task: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps each machine's SSH port as clients from this computer meet it: open, silent or refused.
async fn serve_machines(twin: Twin, port: u16) {
    let mut doors: BTreeMap<IpAddr, Door> = BTreeMap::new();
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    loop {
        interval.tick().await;
        let client = twin.client(Some(Ipv4Addr::LOCALHOST.into()));
        let wanted: BTreeMap<IpAddr, machine::Reach> = twin.with(|world| {
            let addresses = machine::addresses(world).into_iter();
            addresses.map(|address| (address, machine::reach(world, client, address, 22))).collect()
        });
        doors.retain(|address, door| wanted.get(address) == Some(&door.reach) && !door.task.is_finished());
        for (address, reach) in wanted {
            if reach == machine::Reach::Refused || doors.contains_key(&address) {
                continue;
            }
            // A port that is taken is tried again at the next look.
            let place = SocketAddr::new(address, port);
            let task = match reach {
                machine::Reach::Silent => silence(place).await.map(tokio::spawn),
                _ => TcpListener::bind(place)
                    .await
                    .map(|listener| tokio::spawn(accept_ssh(twin.clone(), address, listener))),
            };
            if let Ok(task) = task {
                doors.insert(address, Door { reach, task });
            }
        }
    }
}

/// Connections outlive their listener: what becomes of them is the machine's concern.
async fn accept_ssh(twin: Twin, address: IpAddr, listener: TcpListener) {
    while let Ok((stream, peer)) = listener.accept().await {
        let _unimportant = stream.set_nodelay(true);
        let client = twin.client(Some(peer.ip()));
        let is_let_in = twin.with(|world| machine::lets_in(world, client, address, 22));
        if is_let_in {
            tokio::spawn(machine::serve(twin.clone(), address, 22, stream));
        } else {
            // A client with an address of its own: its packets cannot be dropped here any more, only left unanswered.
            tokio::spawn(unanswered(stream));
        }
    }
}

async fn unanswered(mut stream: TcpStream) {
    // Until the client has had enough.
    let _gone = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

/// A port that drops what comes, as a security group and a machine that is off do: a queue for connections in which
/// there is no more room, so that the kernel leaves further ones without an answer (Linux source, `tcp_conn_request`).
async fn silence(place: SocketAddr) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let socket = if place.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(place)?;
    let full = socket.listen(0)?;
    let occupant = TcpStream::connect(place).await?;
    Ok(async move {
        std::future::pending::<()>().await;
        drop((full, occupant));
    })
}

/// One or several faults.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Faults {
    Several(Vec<Fault>),
    One(Fault),
}

/// Answers one request to the administrator's port.
async fn administrate(twin: Twin, request: Received) -> Response<Body> {
    let refuse = |status, message: String| http::json(status, &json!({"error": {"message": message}}));
    match (request.head.method.as_str(), request.head.uri.path()) {
        ("GET", "/resources") => http::json(200, &Value::Array(twin.with(|world| azure::resources(world)))),
        ("GET", "/ledger") => http::json(200, &twin.with(|world| json!(world.ledger.entries))),
        ("GET", "/faults") => http::json(200, &twin.with(|world| json!(world.faults.active))),
        ("GET", "/now") => {
            let now = twin.with(|world| json!({"seconds": world.now.as_secs_f64(), "utc": world.timestamp()}));
            http::json(200, &now)
        }
        ("POST", "/faults") => match serde_json::from_slice(&request.body) {
            Ok(faults) => {
                let faults = match faults {
                    Faults::Several(faults) => faults,
                    Faults::One(fault) => vec![fault],
                };
                let answer = json!(faults);
                twin.with(|world| world.faults.active = faults);
                http::json(200, &answer)
            }
            Err(error) => refuse(400, format!("this is neither a fault nor a list of faults: {error}")),
        },
        ("POST", "/actions") => match serde_json::from_slice::<Action>(&request.body) {
            Ok(action) => match twin.with(|world| action.perform(world)) {
                Ok(()) => http::json(200, &json!({"done": true})),
                Err(reason) => refuse(409, reason),
            },
            Err(error) => refuse(400, format!("this is no action: {error}")),
        },
        ("DELETE", "/faults") => {
            twin.with(|world| world.faults.active.clear());
            http::json(200, &json!([]))
        }
        (_, "/resources" | "/ledger" | "/faults" | "/actions" | "/now") => {
            refuse(405, format!("{} is not for this path", request.head.method))
        }
        (_, path) => {
            refuse(404, format!("there is nothing at {path}; try /resources, /ledger, /faults, /actions or /now"))
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn ask(twin: &Twin, method: &str, path: &str, body: &'static str) -> (u16, Value) {
        let request = hyper::Request::builder().method(method).uri(path).body(()).expect("a request");
        let (head, ()) = request.into_parts();
        let response = administrate(twin.clone(), Received { head, body: body.into() }).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test(start_paused = true)]
    async fn the_administrator_makes_the_world_difficult() {
        let twin = Twin::new(Options::default());
        let one = r#"{"name": "throttle", "times": 2}"#;
        assert_eq!(ask(&twin, "POST", "/faults", one).await, (200, json!([{"name": "throttle", "times": 2}])));
        let several = r#"[{"name": "capacity", "target": "zone-1"}]"#;
        assert_eq!(ask(&twin, "POST", "/faults", several).await.0, 200);
        assert_eq!(ask(&twin, "GET", "/faults", "").await.1, json!([{"name": "capacity", "target": "zone-1"}]));
        assert_eq!(ask(&twin, "POST", "/faults", r#"{"name": "nonsense"}"#).await.0, 400);
        assert_eq!(ask(&twin, "DELETE", "/faults", "").await, (200, json!([])));
        assert_eq!(ask(&twin, "GET", "/now", "").await.1["utc"], "2027-01-04T08:00:00Z");
        assert_eq!(ask(&twin, "GET", "/resources", "").await.1, json!([]));
        assert_eq!(ask(&twin, "PUT", "/ledger", "").await.0, 405);
        assert_eq!(ask(&twin, "GET", "/nothing", "").await.0, 404);
    }
}
