//! Join tokens: a kubeconfig, compressed, in base64 (k0s source, `token/joinencode.go`).

use std::{
    io::{Read, Write},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use rand_chacha::rand_core::RngCore;
use serde_json::Value;

use crate::{
    World,
    kube::{self, ClusterId},
};

/// A token that a cluster has given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Its public half.
    pub(super) id: String,
    pub(super) secret: String,
    /// Whether it admits controllers; otherwise workers.
    pub(super) is_controller: bool,
    /// World time at which it ends; never if absent.
    pub(super) expires: Option<Duration>,
}

impl Token {
    /// As Kubernetes takes it.
    pub(super) fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// Whether it is still good.
    pub(super) fn holds(&self, now: Duration) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// What somebody who joins reads in a token.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Invitation {
    /// The host of the server that it leads to.
    pub host: String,
    /// `id.secret`.
    pub bearer: String,
    /// The certificate authority of the cluster, PEM.
    pub authority: String,
}

/// Makes a token and its text. The server that it leads to is at `host`.
pub(super) fn create(
    world: &mut World,
    cluster: ClusterId,
    is_controller: bool,
    lifetime: Option<Duration>,
    host: &str,
) -> Option<String> {
    let number = world.machines.k0s_clusters.get(&cluster)?.tokens_made;
    let mut random = world.random(&format!("k0s-token/{cluster}/{number}"));
    let mut draw = |length: usize| -> String {
        let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
        (0..length).map(|_| letters[random.next_u32() as usize % letters.len()] as char).collect()
    };
    let (id, secret) = (draw(6), draw(16));
    let token = Token { id, secret, is_controller, expires: lifetime.map(|lifetime| world.now + lifetime) };
    let text = encode(world, cluster, &token, host);
    let bearer = token.bearer();
    kube::bearer_token(world, cluster, &bearer, true);
    if let Some(lifetime) = lifetime {
        world.after(lifetime, move |world| forget(world, cluster, &bearer));
    }
    let state = world.machines.k0s_clusters.get_mut(&cluster)?;
    state.tokens.push(token);
    state.tokens_made += 1;
    Some(text)
}

/// The API server no longer takes the token, and nobody finds it any more: what has expired is removed (Kubernetes
/// documentation, token cleaner).
pub(super) fn forget(world: &mut World, cluster: ClusterId, bearer: &str) {
    if let Some(state) = world.machines.k0s_clusters.get_mut(&cluster) {
        state.tokens.retain(|token| token.bearer() != bearer);
    }
    if world.machines.k0s_clusters.contains_key(&cluster) {
        kube::bearer_token(world, cluster, bearer, false);
    }
}

fn encode(world: &World, cluster: ClusterId, token: &Token, host: &str) -> String {
    // Controllers join through k0s's own API (k0s documentation, networking).
    let (user, port) = if token.is_controller { ("controller-bootstrap", 9443) } else { ("kubelet-bootstrap", 6443) };
    let authority = BASE64_STANDARD.encode(kube::certificate_authority(world, cluster));
    let text = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://{host}:{port}\n  \
        name: k0s\ncontexts:\n- context:\n    cluster: k0s\n    user: {user}\n  name: k0s\ncurrent-context: k0s\n\
        kind: Config\npreferences: {{}}\nusers:\n- name: {user}\n  user:\n    token: {}\n",
        authority,
        token.bearer(),
    );
    // Not compressed, so that its size does not depend on keys, which differ in each run of the same world.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(text.as_bytes());
    BASE64_STANDARD.encode(encoder.finish().unwrap_or_default())
}

/// Reads the text of a token.
pub fn read(text: &str) -> Result<Invitation, String> {
    let bytes = BASE64_STANDARD.decode(text.trim()).map_err(|error| format!("failed to decode token: {error}"))?;
    let mut kubeconfig = String::new();
    GzDecoder::new(bytes.as_slice())
        .read_to_string(&mut kubeconfig)
        .map_err(|error| format!("failed to decode token: gzip: {error}"))?;
    let document: Value = serde_saphyr::from_str(&kubeconfig).map_err(|_| "failed to parse kubeconfig".to_owned())?;
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let server = text("/clusters/0/cluster/server");
    let host = server.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':')).map(|(host, _)| host.to_owned());
    let host = host.ok_or_else(|| format!("invalid server in token: {server}"))?;
    let authority = BASE64_STANDARD.decode(text("/clusters/0/cluster/certificate-authority-data")).unwrap_or_default();
    let authority = String::from_utf8(authority).unwrap_or_default();
    Ok(Invitation { host, bearer: text("/users/0/user/token"), authority })
}

/// Go's durations: `30m`, `1h30m`, `10m0s`; `0s` is none at all.
pub(super) fn lifetime(text: &str) -> Option<Option<Duration>> {
    let (mut seconds, mut number) = (0, String::new());
    for character in text.chars() {
        let unit = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            digit => {
                number.push(digit);
                continue;
            }
        };
        seconds += number.parse::<u64>().ok()? * unit;
        number.clear();
    }
    let whole = number.is_empty() || text == "0";
    whole.then(|| (seconds > 0).then(|| Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime("1h30m"), Some(Some(Duration::from_secs(5400))));
        assert_eq!(lifetime("0s"), Some(None));
        assert_eq!(lifetime("10"), None);
        assert_eq!(lifetime("x"), None);
    }

    #[test]
    fn nonsense_is_no_token() {
        assert!(read("abc").is_err());
        assert!(read(&BASE64_STANDARD.encode("not compressed")).is_err());
    }
}
