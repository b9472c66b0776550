//! The keys of a cluster, all derived from one seed.
//!
//! A cluster has one secret of 32 bytes. Every key (the operator's SSH key, each machine's SSH host key, each WireGuard
//! key) is derived from it by HKDF-SHA256 (RFC 5869) under a label of its own. A run that starts again therefore has
//! the same keys as the one before, whatever it had got round to writing down.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hkdf::Hkdf;
use russh::keys::{
    PrivateKey,
    ssh_key::{LineEnding, private::Ed25519Keypair},
};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroize;

use crate::{secret::Secret, topology::ClusterId};

/// The version of the key file's format.
const FORMAT_VERSION: u32 = 1;

/// The operator's name in the mesh.
pub const OPERATOR: &str = "operator";

/// The secret from which all keys of a cluster come.
pub struct ClusterKeys {
    cluster: ClusterId,
    seed: [u8; 32],
}

impl Drop for ClusterKeys {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

/// A WireGuard key pair, base64 as `wg` writes it.
#[derive(Debug, Clone)]
pub struct WireguardKey {
    /// The private key.
    pub private: Secret,
    /// The public key.
    pub public: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    format_version: u32,
    cluster_id: String,
    seed: String,
}

impl ClusterKeys {
    /// The keys of `cluster` that come from `seed`.
    pub fn new(cluster: ClusterId, seed: [u8; 32]) -> Self {
        Self { cluster, seed }
    }

    /// Reads what [`ClusterKeys::to_file`] wrote.
    ///
    /// # Errors
    /// What is wrong with the text, without the text.
    pub fn from_file(text: &str, cluster: &ClusterId) -> Result<Self, String> {
        let file: KeyFile =
            serde_json::from_str(text).map_err(|error| format!("line {}: not a key file", error.line()))?;
        if file.format_version > FORMAT_VERSION {
            return Err(format!("format {} is newer than this program ({FORMAT_VERSION})", file.format_version));
        }
        if file.cluster_id != cluster.to_string() {
            return Err(format!("it holds the keys of {}, not of {cluster}", file.cluster_id));
        }
        let bytes = hex::decode(&file.seed).map_err(|_| "the seed is not hexadecimal".to_owned())?;
        let seed = bytes.try_into().map_err(|_| "the seed does not have 32 bytes".to_owned())?;
        Ok(Self::new(cluster.clone(), seed))
    }

    /// The cluster whose keys a file holds, if it is a key file.
    pub fn cluster_in(text: &str) -> Option<ClusterId> {
        let file: KeyFile = serde_json::from_str(text).ok()?;
        ClusterId::parse(&file.cluster_id).ok()
    }

    /// The text of the key file: secret.
    pub fn to_file(&self) -> String {
        let file = KeyFile {
            format_version: FORMAT_VERSION,
            cluster_id: self.cluster.to_string(),
            seed: hex::encode(self.seed),
        };
        serde_json::to_string_pretty(&file).expect("text and a number") + "\n"
    }

    fn derive(&self, label: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        Hkdf::<Sha256>::new(Some(self.cluster.to_string().as_bytes()), &self.seed)
            .expand(label.as_bytes(), &mut bytes)
            .expect("32 bytes are within the limit of HKDF-SHA256 (RFC 5869 section 2.3)");
        bytes
    }

    fn ssh(&self, label: &str, comment: String) -> PrivateKey {
        let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&self.derive(label)));
        key.set_comment(comment);
        key
    }

    /// The key with which the operator, and this program, log in.
    pub fn ssh_user(&self) -> PrivateKey {
        self.ssh("ssh user", format!("k0rdent-{}", self.cluster))
    }

    /// The key by which a machine proves who it is.
    pub fn ssh_host(&self, node: &str) -> PrivateKey {
        self.ssh(&format!("ssh host {node}"), node.to_owned())
    }

    /// The WireGuard key of a node, or of the [`OPERATOR`].
    pub fn wireguard(&self, name: &str) -> WireguardKey {
        let private = x25519_dalek::StaticSecret::from(self.derive(&format!("wireguard {name}")));
        let public = x25519_dalek::PublicKey::from(&private);
        WireguardKey {
            private: Secret::new(STANDARD.encode(private.to_bytes())),
            public: STANDARD.encode(public.as_bytes()),
        }
    }
}

/// A private key as OpenSSH writes it.
pub fn openssh_private(key: &PrivateKey) -> Secret {
    let text = key.to_openssh(LineEnding::LF).expect("an Ed25519 key that is not encrypted has a form in text");
    Secret::new(text.to_string())
}

/// A public key as one line of `authorized_keys`.
pub fn openssh_public(key: &PrivateKey) -> String {
    key.public_key().to_openssh().expect("an Ed25519 key has a form in text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(id: &str) -> ClusterId {
        ClusterId::parse(id).unwrap()
    }

    fn keys() -> ClusterKeys {
        ClusterKeys::new(cluster("k0rdent-abcd1234"), [7; 32])
    }

    #[test]
    fn the_same_seed_gives_the_same_keys() {
        let again = ClusterKeys::from_file(&keys().to_file(), &cluster("k0rdent-abcd1234")).unwrap();
        assert_eq!(openssh_public(&keys().ssh_user()), openssh_public(&again.ssh_user()));
        assert_eq!(keys().wireguard("a").public, again.wireguard("a").public);
        assert_ne!(keys().wireguard("a").public, keys().wireguard("b").public);
        assert_ne!(openssh_public(&keys().ssh_host("a")), openssh_public(&keys().ssh_host("b")));
    }

    #[test]
    fn another_clusters_keys_are_refused() {
        let Err(refused) = ClusterKeys::from_file(&keys().to_file(), &cluster("k0rdent-zzzzzzzz")) else {
            panic!("accepted")
        };
        assert_eq!(refused, "it holds the keys of k0rdent-abcd1234, not of k0rdent-zzzzzzzz");
    }
}
