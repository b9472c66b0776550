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
    http::HttpClient,
    seam::{Disk, Files, Network, Stream, Tcp, World},
    secret::Secret,
    session::{Session, Settings},
    task::Phase,
};
use engine::journal::Durability;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;

use crate::{
    commands::Context,
    configuration,
    credentials::credentials,
    error::{CommandError, Exit},
};

/// The port of SSH.
const SSH_PORT: u16 = 22;
/// Says from which address we come (Amazon documentation); asked only if SSH is to be opened for that address.
const ADDRESS_SERVICE: &str = "https://checkip.amazonaws.com";
/// How long it may take.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(5);
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
    /// The twin, if it is one.
    pub(crate) twin: Option<Served>,
}

/// A twin that another process serves: its `endpoints.json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Served {
    arm: String,
    authority: String,
    ca_file: PathBuf,
    /// The port on which its machines answer SSH.
    #[serde(default = "usual_ssh_port")]
    pub(crate) ssh_port: u16,
    subscription_id: Option<String>,
    tenant_id: Option<String>,
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
pub(crate) fn reach(context: &Context) -> Result<Reach, CommandError> {
    let world = World::real().map_err(|error| CommandError::failed(format!("no randomness: {error}")))?;
    let files = UserFiles { home: context.surroundings.variable("HOME").map(PathBuf::from) };
    let world = World { files: Arc::new(files), ..world };
    let Some(directory) = &context.global.twin else {
        return Ok(Reach { world, endpoints: azure(context)?, twin: None });
    };
    let served = Served::read(directory)?;
    let endpoints = Endpoints { arm: address(&served.arm)?, authority: address(&served.authority)? };
    let network = TwinNetwork { ssh_port: served.ssh_port };
    let world = World { roots: served.certificates(directory)?, ..world.with_network(Arc::new(network)) };
    Ok(Reach { world, endpoints, twin: Some(served) })
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
        let credentials = match (login, &self.twin) {
            (_, Some(twin)) => twin.credentials(),
            (Login::Needed(tenant), None) => credentials(&context.surroundings, *tenant)?,
            // Nobody asks for it.
            (Login::NotNeeded, None) => Credentials::ManagedIdentity { client_id: None },
        };
        Ok(Settings {
            home: home.clone(),
            world: self.world.clone(),
            endpoints: self.endpoints.clone(),
            credentials,
            holder: context.surroundings.holder(command),
            owner: context.surroundings.owner(),
            own_address: None,
            durability: Durability::Disk,
            force_regenerate: false,
            with_children: false,
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
        if !config.azure.ssh_allowed_from.is_empty() || !config.provider.makes_machines() {
            return Ok(None);
        }
        if self.twin.is_some() {
            return Ok(Some("127.0.0.1/32".to_owned()));
        }
        let unknown = |why: String| {
            CommandError::new(Exit::Refused, format!("the address from which SSH is to be allowed is not known: {why}"))
                .hint("set azure.ssh_allowed_from in the configuration, or K0RDENT_OPERATOR_ADDRESS")
        };
        let text = match context.surroundings.variable("K0RDENT_OPERATOR_ADDRESS") {
            Some(address) => address.to_owned(),
            None => ask_for_address(&self.world).await.map_err(unknown)?,
        };
        range(&text).map(Some).ok_or_else(|| unknown(format!("{text:?} is not an address")))
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

async fn ask_for_address(world: &World) -> Result<String, String> {
    let request = http::Request::get(ADDRESS_SERVICE).body(bytes::Bytes::new()).map_err(|error| error.to_string())?;
    let answer = HttpClient::new(world).send(request, ADDRESS_PATIENCE).await.map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("{ADDRESS_SERVICE} answers {}", answer.status()));
    }
    Ok(String::from_utf8_lossy(answer.body()).trim().chars().take(64).collect())
}

impl Served {
    fn read(directory: &Path) -> Result<Self, CommandError> {
        let file = directory.join("endpoints.json");
        let text = fs_err::read_to_string(&file).map_err(|error| {
            CommandError::usage(format!("no twin is served from {}: {error}", directory.display()))
                .hint(format!("serve one with `k0rdentctl twin serve --data-dir {}`", directory.display()))
        })?;
        serde_json::from_str(&text).map_err(|error| CommandError::bad_file(&file, error))
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

/// TCP to a twin, whose machines answer SSH on a port of its choice.
struct TwinNetwork {
    ssh_port: u16,
}

#[async_trait]
impl Network for TwinNetwork {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        Tcp.connect(host, if port == SSH_PORT { self.ssh_port } else { port }).await
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
