//! Who logs in: private keys in the formats that OpenSSH reads, and those that an ssh-agent holds.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use russh::{
    client::{self, AuthResult},
    keys::{
        Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, agent::client::AgentClient, decode_secret_key,
    },
};

use tokio::time::timeout;

use crate::seam::{Keyring, World};

/// How often a passphrase is asked for (OpenSSH's `NumberOfPasswordPrompts`, its default).
const PASSPHRASE_ATTEMPTS: u32 = 3;

/// How long an agent may take to say which keys it holds (guess).
const AGENT_PATIENCE: Duration = Duration::from_secs(5);

/// Somebody who can log in.
#[derive(Clone)]
pub enum Identity {
    /// With a private key that is at hand.
    Key(Arc<PrivateKey>),
    /// With a key that an ssh-agent holds, and signs with.
    Agent {
        /// The key.
        key: PublicKey,
        /// The way to the agent.
        keyring: Arc<dyn Keyring>,
    },
}

impl From<PrivateKey> for Identity {
    fn from(key: PrivateKey) -> Self {
        Self::Key(Arc::new(key))
    }
}

impl Identity {
    /// Reads the key that a file has: a private key, or a public one whose private key an ssh-agent holds. A private key
    /// with a passphrase is left to the agent if it has that one; otherwise the passphrase is asked for.
    ///
    /// # Errors
    /// What is wrong with the file, and what helps.
    pub async fn read(world: &World, file: &str) -> Result<Self, String> {
        let text = world.files.read_to_string(Path::new(file)).map_err(|error| error.to_string())?;
        if let Ok(public) = PublicKey::from_openssh(text.trim()) {
            return of_agent(world, &public).await.ok_or_else(|| {
                "it is a public key, and no ssh-agent holds its private key; `ssh-add` gives it one".to_owned()
            });
        }
        if is_locked(&text) {
            if let Some(public) = public_half(world, file, &text)
                && let Some(identity) = of_agent(world, &public).await
            {
                return Ok(identity);
            }
            return unlocked(world, file, &text).and_then(usable).map(Self::from);
        }
        let key = decode_secret_key(&text, None).map_err(|error| {
            format!("it is not a private key that can be read ({error}); `ssh-keygen -t ed25519` makes one")
        })?;
        match usable(key) {
            Ok(key) => Ok(key.into()),
            // A key on a device, whose file only says which: the agent knows the device.
            Err(why) => match public_half(world, file, &text) {
                Some(public) => of_agent(world, &public).await.ok_or(why),
                None => Err(why),
            },
        }
    }

    /// The public key.
    pub fn public_key(&self) -> &PublicKey {
        match self {
            Self::Key(key) => key.public_key(),
            Self::Agent { key, .. } => key,
        }
    }

    /// Logs in over a connection.
    ///
    /// # Errors
    /// Why no answer was had: of the other side, or of the agent.
    pub(crate) async fn log_in<Handler: client::Handler>(
        &self,
        handle: &mut client::Handle<Handler>,
        user: &str,
    ) -> Result<AuthResult, String> {
        // SHA-1 is over; a server that does not say what it takes takes one of the others (RFC 8332).
        let hash = match matches!(self.public_key().algorithm(), Algorithm::Rsa { .. }) {
            false => None,
            true => {
                let best = handle.best_supported_rsa_hash().await.map_err(|error| format!("SSH: {error}"))?;
                Some(best.flatten().unwrap_or(HashAlg::Sha512))
            }
        };
        match self {
            Self::Key(key) => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
                handle.authenticate_publickey(user, key).await.map_err(|error| format!("SSH: {error}"))
            }
            Self::Agent { key, keyring } => {
                let gone = |why: String| format!("the ssh-agent does not sign: {why}");
                let stream = keyring.agent().await.map_err(|error| gone(error.to_string()))?;
                let stream = stream.ok_or_else(|| gone("it is not there any more".to_owned()))?;
                let mut agent = AgentClient::connect(stream);
                let signed = handle.authenticate_publickey_with(user, key.clone(), hash, &mut agent).await;
                signed.map_err(|error| gone(error.to_string()))
            }
        }
    }
}

/// The identities that these files hold; each file is read once.
///
/// # Errors
/// What is wrong, by file.
pub(crate) async fn read_all<'a>(
    world: &World,
    files: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, Identity>, BTreeMap<String, String>> {
    let (mut found, mut failures) = (BTreeMap::new(), BTreeMap::new());
    for file in files {
        if found.contains_key(file) || failures.contains_key(file) {
            continue;
        }
        match Identity::read(world, file).await {
            Ok(identity) => drop(found.insert(file.clone(), identity)),
            Err(why) => drop(failures.insert(file.clone(), why)),
        }
    }
    if failures.is_empty() { Ok(found) } else { Err(failures) }
}

/// Whether a private key has a passphrase: in OpenSSH's own format, in PKCS#8 (RFC 5958) or in PEM's older way (RFC 1421).
fn is_locked(text: &str) -> bool {
    text.contains("BEGIN ENCRYPTED PRIVATE KEY")
        || text.contains("Proc-Type: 4,ENCRYPTED")
        || PrivateKey::from_openssh(text).is_ok_and(|key| key.is_encrypted())
}

/// The public half of a private key, which OpenSSH's own format has in clear, and others have in a file beside it.
fn public_half(world: &World, file: &str, text: &str) -> Option<PublicKey> {
    if let Ok(key) = PrivateKey::from_openssh(text) {
        return Some(key.public_key().clone());
    }
    let beside = world.files.read_to_string(&PathBuf::from(format!("{file}.pub"))).ok()?;
    PublicKey::from_openssh(beside.trim()).ok()
}

/// The agent's, if there is an agent and it holds the key. One that cannot be asked holds nothing.
async fn of_agent(world: &World, key: &PublicKey) -> Option<Identity> {
    let asked = async {
        let stream = world.keyring.agent().await.ok()??;
        AgentClient::connect(stream).request_identities().await.ok()
    };
    let held = timeout(AGENT_PATIENCE, asked).await.ok()??;
    let is_held = held.iter().any(|held| held.public_key().key_data() == key.key_data());
    is_held.then(|| Identity::Agent { key: key.clone(), keyring: Arc::clone(&world.keyring) })
}

fn unlocked(world: &World, file: &str, text: &str) -> Result<PrivateKey, String> {
    // OpenSSL's older encryption is read as ssh-keygen writes it, and for RSA alone.
    let is_read = text.contains("DEK-Info: AES-128-CBC,") && text.contains("BEGIN RSA PRIVATE KEY");
    if text.contains("Proc-Type: 4,ENCRYPTED") && !is_read {
        return Err(format!("it is encrypted in a way that is not read; `ssh-keygen -p -f {file}` writes it anew"));
    }
    for attempt in 0..PASSPHRASE_ATTEMPTS {
        let Some(passphrase) = world.keyring.passphrase(Path::new(file), attempt) else {
            return Err(match attempt {
                0 => format!(
                    "it has a passphrase, and nobody is there to ask; `ssh-add {file}` gives it to an ssh-agent, or set K0RDENT_SSH_PASSPHRASE"
                ),
                _ => "the passphrase is wrong".to_owned(),
            });
        };
        if let Ok(key) = decode_secret_key(text, Some(passphrase.expose())) {
            return Ok(key);
        }
    }
    Err("the passphrase is wrong".to_owned())
}

/// Keys that this program can sign with.
fn usable(key: PrivateKey) -> Result<PrivateKey, String> {
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
            Err("it is on a device, and no ssh-agent holds it; `ssh-add` gives it one".to_owned())
        }
        other => Err(format!("{other} keys cannot be used; `ssh-keygen -t ed25519` makes one")),
    }
}
