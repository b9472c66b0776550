//! The world that a command talks to: Azure and the internet, or a twin that another process serves.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use deploy::{
    azure::{Credentials, Endpoints},
    config::Config,
    http::{HttpClient, HttpError},
    seam::{Disk, Files, Network, Roots, Stream, Tcp, World},
    secret::Secret,
    session::{Session, Settings},
    task::Phase,
};
use engine::journal::Durability;
use ipnet::IpNet;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;

use crate::{
    commands::Context,
    configuration,
    credentials::credentials,
    error::{CommandError, Exit},
    keyring::OperatorKeyring,
    way_out::{proxy, roots},
};

/// The port of SSH.
const SSH_PORT: u16 = 22;
/// The name of the world that is no twin.
const AZURE: &str = "Azure";
/// Says from which address we come (Amazon documentation); asked only if SSH is to be opened for that address.
const ADDRESS_SERVICE: &str = "https://checkip.amazonaws.com";
/// How long it may take.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(3);
/// How long a twin may take to accept a connection.
const TWIN_PATIENCE: Duration = Duration::from_secs(3);
/// Azure's clouds: where to log in, and the Resource Manager that belongs to it (Azure documentation).
const CLOUDS: [(&str, &str); 3] = [
    ("login.microsoftonline.com", "https://management.azure.com"),
    ("login.microsoftonline.us", "https://management.usgovcloudapi.net"),
    ("login.chinacloudapi.cn", "https://management.chinacloudapi.cn"),
];

/// The world, and how to find Azure in it.
pub(crate) struct Reach {
    /// Connections, clock, chance.
    pub(crate) world: World,
    endpoints: Endpoints,
    /// What is wrong with the way to Azure and the internet, as the surroundings describe it.
    way_out: Result<(), CommandError>,
    /// The twin, if it is one.
    pub(crate) twin: Option<Served>,
}

/// A twin that another process serves: its `endpoints.json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Served {
    arm: String,
    authority: String,
    ca_file: PathBuf,
    /// Everything else on the internet that there is; twins of earlier versions have none.
    internet: Option<String>,
    /// The port on which its machines answer SSH.
    #[serde(default = "usual_ssh_port")]
    pub(crate) ssh_port: u16,
    subscription_id: Option<String>,
    tenant_id: Option<String>,
    /// World seconds per second.
    #[serde(default = "usual_speed")]
    speed: f64,
    /// The process that serves it; twins of earlier versions do not say.
    pid: Option<u32>,
    /// What its latencies are drawn from, and when it began: together they tell one twin from another.
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    started_at: String,
}

fn usual_speed() -> f64 {
    1.0
}

fn usual_ssh_port() -> u16 {
    SSH_PORT
}

/// Who has to be known before the command can do anything.
pub(crate) enum Login<'a> {
    /// Azure is asked: somebody must be logged in, in this tenant if it is named.
    Needed(Option<&'a str>),
    /// Azure is not asked.
    NotNeeded,
    /// Nobody is asked but the cluster's machines.
    NobodyAsked,
}

impl<'a> Login<'a> {
    /// For a cluster of this configuration; if nobody knows it, somebody may have to be logged in.
    pub(crate) fn of(config: Option<&'a Config>) -> Self {
        match config {
            Some(config) if !config.provider.makes_machines() => Self::NotNeeded,
            config => Self::Needed(config.and_then(|config| config.azure.tenant_id.as_deref())),
        }
    }
}

/// The files of the one who runs this: `~/` is their home.
struct UserFiles {
    home: Option<PathBuf>,
}

impl UserFiles {
    fn path(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }
}

impl Files for UserFiles {
    fn read_to_string(&self, path: &Path) -> io::Result<String> {
        Disk.read_to_string(&self.path(path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        Disk.open(&self.path(path))
    }
}

/// The world that the options name.
pub(crate) async fn reach(context: &Context) -> Result<Reach, CommandError> {
    let world = World::real().map_err(|error| CommandError::failed(format!("no randomness: {error}")))?;
    let files = UserFiles { home: context.surroundings.variable("HOME").map(PathBuf::from) };
    let keyring = Arc::new(OperatorKeyring::of(&context.surroundings));
    let world = World { files: Arc::new(files), keyring, ..world };
    let Some(directory) = &context.global.twin else {
        let trouble = |error: &CommandError| Err(error.clone());
        let (proxy, roots) = (proxy(&context.surroundings), roots(&context.surroundings));
        let way_out = proxy.as_ref().err().or(roots.as_ref().err()).map_or(Ok(()), trouble);
        let world = World { proxy: proxy.unwrap_or_default(), roots: roots.unwrap_or_default(), ..world };
        return Ok(Reach { world, endpoints: azure(context)?, way_out, twin: None });
    };
    let served = Served::read(directory)?;
    let endpoints = Endpoints { arm: address(&served.arm)?, authority: address(&served.authority)? };
    served.runs(directory, &endpoints.arm).await?;
    let internet = served.internet.as_deref().map(address).transpose()?.and_then(|address| address.port_u16());
    let network = TwinNetwork { ssh_port: served.ssh_port, internet };
    let world =
        World { roots: Roots::PublicAnd(served.certificates(directory)?), ..world.with_network(Arc::new(network)) };
    Ok(Reach { world, endpoints, way_out: Ok(()), twin: Some(served) })
}

/// How many seconds of the world pass in one of ours: a twin may run faster.
pub(crate) fn speed(context: &Context) -> f64 {
    let twin = context.global.twin.as_ref().and_then(|directory| Served::read(directory).ok());
    twin.map_or(1.0, |twin| twin.speed)
}

/// Azure's endpoints, of the cloud that `AZURE_AUTHORITY_HOST` belongs to.
fn azure(context: &Context) -> Result<Endpoints, CommandError> {
    let Some(authority) = context.surroundings.variable("AZURE_AUTHORITY_HOST") else {
        return Ok(Endpoints::default());
    };
    let host = authority.trim_start_matches("https://").trim_end_matches('/');
    let arm = CLOUDS.iter().find(|(login, _)| *login == host).map(|(_, arm)| *arm).ok_or_else(|| {
        let known: Vec<_> = CLOUDS.iter().map(|(login, _)| *login).collect();
        CommandError::usage(format!("AZURE_AUTHORITY_HOST: {host:?} is none of {}", known.join(", ")))
    })?;
    Ok(Endpoints { arm: address(arm)?, authority: address(&format!("https://{host}"))? })
}

fn address(text: &str) -> Result<http::Uri, CommandError> {
    text.parse().map_err(|error| CommandError::usage(format!("{text:?} is not an address: {error}")))
}

impl Reach {
    /// A session in the environment that the options name.
    pub(crate) fn session(&self, context: &Context, command: &str, login: &Login<'_>) -> Result<Session, CommandError> {
        Ok(Session::new(self.settings(context, command, login)?))
    }

    /// What a session needs; the caller adds what is its own.
    pub(crate) fn settings(
        &self,
        context: &Context,
        command: &str,
        login: &Login<'_>,
    ) -> Result<Settings, CommandError> {
        let home = &context.global.home;
        if home.exists() && !home.is_dir() {
            return Err(CommandError::bad_file(home, "it is not a directory").hint("name another with --home DIR"));
        }
        if !matches!(login, Login::NobodyAsked) {
            self.way_out.clone()?;
        }
        let credentials = match (login, &self.twin) {
            (_, Some(twin)) => twin.credentials(),
            (Login::Needed(tenant), None) => credentials(&context.surroundings, *tenant)?,
            // Nobody asks for it.
            (Login::NotNeeded | Login::NobodyAsked, None) => Credentials::ManagedIdentity { client_id: None },
        };
        Ok(Settings {
            home: home.clone(),
            world: self.world.clone(),
            endpoints: self.endpoints.clone(),
            credentials,
            world_name: self.twin.as_ref().map_or_else(|| AZURE.to_owned(), Served::name),
            holder: context.surroundings.holder(command),
            owner: context.surroundings.owner(),
            own_address: None,
            durability: Durability::Disk,
            force_regenerate: None,
            with_children: false,
            abandon_children: false,
            protect: configuration::at_hand(context).map(|config| config.protect),
            repair: deploy::deployment::Repair::default(),
            until: Phase::K0rdent,
        })
    }

    /// The subscription where no records name it: as the command line, the configuration or the surroundings say.
    pub(crate) fn subscription(&self, context: &Context, said: Option<&String>) -> Option<String> {
        if let Some(twin) = &self.twin {
            return twin.subscription_id.clone();
        }
        let configured = || configuration::at_hand(context)?.azure.subscription_id;
        let surroundings = || context.surroundings.variable("AZURE_SUBSCRIPTION_ID").map(str::to_owned);
        said.cloned().or_else(configured).or_else(surroundings)
    }

    /// In the twin there is one subscription, whatever the configuration says.
    pub(crate) fn adapt(&self, config: &mut Config) {
        if let Some(twin) = &self.twin {
            config.azure.subscription_id.clone_from(&twin.subscription_id);
        }
    }

    /// The range from which SSH is allowed if the configuration does not say: our own address.
    pub(crate) async fn own_address(&self, context: &Context, config: &Config) -> Result<Option<String>, CommandError> {
        let allowed = &config.azure.ssh_allowed_from;
        if !config.provider.makes_machines() {
            return Ok(None);
        }
        if let Some(first) = allowed.first() {
            self.is_inside(context, allowed).await.map_err(|own| {
                let address = first.hosts().next().unwrap_or_else(|| first.addr());
                let message =
                    format!("on this twin you come from {own}, and azure.ssh_allowed_from does not let you in");
                let action = format!("{{\"action\": \"move-client\", \"address\": \"{address}\"}}");
                CommandError::usage(message).hint(format!("POST {action} to /actions of its admin address first"))
            })?;
            return Ok(None);
        }
        let unknown = |(why, advice): (String, Option<String>)| {
            let message = format!("the address from which SSH is to be allowed is not known: {why}");
            advice
                .into_iter()
                .fold(CommandError::new(Exit::Refused, message), CommandError::hint)
                .hint("set azure.ssh_allowed_from in the configuration, or K0RDENT_OPERATOR_ADDRESS")
        };
        let text = self.said_address(context).await.map_err(unknown)?;
        range(&text).map(Some).ok_or_else(|| unknown((format!("{text:?} is not an address"), None)))
    }

    /// Why no machine will answer: the configuration opens SSH to others than to whoever comes from here, as far as that
    /// is known.
    pub(crate) async fn locked_out(&self, context: &Context, config: &Config) -> Option<String> {
        let allowed = &config.azure.ssh_allowed_from;
        if allowed.is_empty() || !config.provider.makes_machines() {
            return None;
        }
        let own: IpNet = self.where_we_are(context).await?.parse().ok()?;
        let list: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        (!allowed.iter().any(|allowed| allowed.contains(&own))).then(|| {
            format!(
                "you come from {own}, and azure.ssh_allowed_from opens SSH to {} alone: from here, no machine will answer",
                list.join(", ")
            )
        })
    }

    /// Whether these ranges let us in, if this is a twin: there nobody else is asked for it. Otherwise where we come from.
    async fn is_inside(&self, context: &Context, allowed: &[IpNet]) -> Result<(), String> {
        let own = if self.twin.is_some() { self.where_we_are(context).await } else { None };
        match own.map(|own| own.parse::<IpNet>().map(|range| (own, range))) {
            Some(Ok((own, range))) if !allowed.iter().any(|allowed| allowed.contains(&range)) => Err(own),
            _ => Ok(()),
        }
    }

    /// The range of our own address, if it can be found out.
    pub(crate) async fn where_we_are(&self, context: &Context) -> Option<String> {
        range(&self.said_address(context).await.ok()?)
    }

    async fn said_address(&self, context: &Context) -> Result<String, (String, Option<String>)> {
        match (context.surroundings.variable("K0RDENT_OPERATOR_ADDRESS"), &self.twin) {
            (Some(address), _) => Ok(address.to_owned()),
            // Twins of earlier versions do not say it.
            (None, Some(Served { internet: None, .. })) => Ok("127.0.0.1".to_owned()),
            (None, _) => ask_for_address(&self.world).await,
        }
    }

    /// The proxy through which a deployment of this configuration goes, if there is one.
    pub(crate) fn proxy(&self, config: &Config) -> Option<String> {
        let release = http::Uri::try_from(deploy::k0s::release_address(&config.software.k0s.version)).ok();
        let azure = [&self.endpoints.arm, &self.endpoints.authority].into_iter();
        let mut asked = azure.filter(|_| config.provider.makes_machines()).chain(&release);
        asked.find_map(|address| self.world.proxy.used_for(address))
    }

    /// The proxy of which our own address is, as others see it: that of connections that do not go through it may be
    /// another one.
    pub(crate) fn address_proxy(&self, context: &Context, config: &Config) -> Option<String> {
        let is_asked = config.provider.makes_machines()
            && config.azure.ssh_allowed_from.is_empty()
            && context.surroundings.variable("K0RDENT_OPERATOR_ADDRESS").is_none();
        self.world.proxy.used_for(&http::Uri::from_static(ADDRESS_SERVICE)).filter(|_| is_asked)
    }
}

/// An address as a range of one; a range as it is.
fn range(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: std::net::IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = length.map_or(Some(longest), |length| length.parse().ok())?;
    (length <= longest).then(|| format!("{address}/{length}"))
}

/// The answer; or why there is none, and what to do about it where somebody knows.
async fn ask_for_address(world: &World) -> Result<String, (String, Option<String>)> {
    let request = http::Request::get(ADDRESS_SERVICE).body(bytes::Bytes::new());
    let request = request.map_err(|error| (error.to_string(), None))?;
    let no_answer = |error: HttpError| (error.to_string(), error.advice());
    let answer = HttpClient::new(world).send(request, ADDRESS_PATIENCE).await.map_err(no_answer)?;
    if !answer.status().is_success() {
        return Err((format!("{ADDRESS_SERVICE} answers {}", answer.status()), None));
    }
    Ok(String::from_utf8_lossy(answer.body()).trim().chars().take(64).collect())
}

impl Served {
    /// Which twin it is: one that is served again is another one, and knows nothing.
    fn name(&self) -> String {
        format!("the twin with seed {} that began at {}", self.seed, self.started_at)
    }

    fn read(directory: &Path) -> Result<Self, CommandError> {
        let file = directory.join("endpoints.json");
        let text = fs_err::read_to_string(&file).map_err(|error| {
            CommandError::usage(format!("no twin is served from {}: {error}", directory.display()))
                .hint(format!("serve one with `k0rdentctl twin serve --data-dir {}`", directory.display()))
        })?;
        serde_json::from_str(&text).map_err(|error| CommandError::bad_file(&file, error))
    }

    /// Somebody listens where it is said to be: a twin dies with its process, and nobody waits for it to come back.
    async fn runs(&self, directory: &Path, arm: &http::Uri) -> Result<(), CommandError> {
        let (host, port) = (arm.host().unwrap_or_default(), arm.port_u16().unwrap_or(443));
        match Tcp.connect_within(host, port, TWIN_PATIENCE).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let process = self.pid.map_or_else(String::new, |pid| format!(" (its process {pid} is gone)"));
                let directory = directory.display();
                let message = format!("no twin runs in {directory} any more{process}");
                Err(CommandError::usage(message)
                    .hint(format!("serve another one: k0rdentctl twin serve --data-dir {directory}"))
                    .hint("it begins empty: what was in the old one is gone with it"))
            }
            // Whatever else there is to say, who asks for more will hear.
            _ => Ok(()),
        }
    }

    /// Its certificate authority; a relative path is one of the process that serves it.
    fn certificates(&self, directory: &Path) -> Result<Vec<CertificateDer<'static>>, CommandError> {
        let beside = self.ca_file.file_name().map(|name| directory.join(name));
        let file = beside.filter(|_| self.ca_file.is_relative()).unwrap_or_else(|| self.ca_file.clone());
        let pem = fs_err::read(&file).map_err(|error| CommandError::file(&error))?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        found.map_err(|error| CommandError::bad_file(&file, error))
    }

    /// The twin accepts every application, so that nobody needs an account.
    fn credentials(&self) -> Credentials {
        Credentials::ServicePrincipal {
            tenant: self.tenant_id.clone().unwrap_or_else(|| "organizations".to_owned()),
            client_id: "k0rdentctl".to_owned(),
            secret: Secret::new("of no value"),
        }
    }
}

/// TCP to a twin, whose machines answer SSH on a port of its choice, and who is the internet as well.
struct TwinNetwork {
    ssh_port: u16,
    internet: Option<u16>,
}

#[async_trait]
impl Network for TwinNetwork {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        match self.internet {
            Some(internet) if port == 443 && host != "localhost" && host.parse::<std::net::IpAddr>().is_err() => {
                Tcp.connect("127.0.0.1", internet).await
            }
            _ => Tcp.connect(host, if port == SSH_PORT { self.ssh_port } else { port }).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_range() {
        assert_eq!(range("192.0.2.7").as_deref(), Some("192.0.2.7/32"));
        assert_eq!(range("192.0.2.0/24").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(range("2001:db8::1").as_deref(), Some("2001:db8::1/128"));
        assert_eq!(range("192.0.2.0/33"), None);
        assert_eq!(range("<html>"), None);
    }
}
