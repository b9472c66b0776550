//! What must never be seen, and where it might be.

use std::{collections::BTreeSet, path::Path};

use deploy::{
    keys::{ClusterKeys, OPERATOR, openssh_private},
    topology::ClusterId,
};
use serde_json::Value;

use super::invariants::{Violation, broken};

/// The beginnings of secrets that cannot be known beforehand: private keys as PEM and as OpenSSH writes them, ARM's
/// tokens (JWT), and k0s's join tokens (gzip in base64).
const BEGINNINGS: [&str; 6] =
    ["PRIVATE KEY-----", "b3BlbnNzaC1rZXktdjEAAAAA", "eyJhbGciOi", "eyJ0eXAiOi", "H4sIA", "Bearer "];
/// More machines than any scenario has.
const MACHINES: u16 = 6;

/// The secrets of one life of an environment.
#[derive(Default)]
pub(super) struct Secrets {
    texts: BTreeSet<String>,
    has_keys: bool,
    has_kubeconfig: bool,
}

impl Secrets {
    /// A secret that the caller made up.
    pub(super) fn add(&mut self, text: impl Into<String>) {
        self.texts.insert(text.into());
    }

    /// The environment's files were lost, and there may be others by now.
    pub(super) fn look_again(&mut self) {
        (self.has_keys, self.has_kubeconfig) = (false, false);
    }

    /// Finds out what is secret from the environment's own files.
    pub(super) fn learn(&mut self, home: &Path) {
        if !self.has_keys
            && let Ok(text) = fs_err::read_to_string(home.join("keys.json"))
        {
            self.has_keys = self.learn_keys(&text).is_some();
        }
        if !self.has_kubeconfig {
            self.has_kubeconfig = self.learn_kubeconfig(home).is_some();
        }
    }

    fn learn_keys(&mut self, text: &str) -> Option<()> {
        let file: Value = serde_json::from_str(text).ok()?;
        self.add(file["seed"].as_str()?);
        let keys = ClusterKeys::from_file(text, &ClusterId::parse(file["cluster_id"].as_str()?).ok()?).ok()?;
        let roles = ["controller", "worker"].into_iter();
        let nodes: Vec<String> =
            roles.flat_map(|role| (1..=MACHINES).map(move |number| format!("k0s-{role}-{number}"))).collect();
        let hosts = nodes.iter().map(|node| keys.ssh_host(node));
        for key in hosts.chain([keys.ssh_user()]) {
            // The first two lines hold what all keys have in common, and the public key.
            let text = openssh_private(&key);
            let lines = text.expose().lines().filter(|line| !line.starts_with('-')).skip(2);
            self.texts.extend(lines.filter(|line| line.len() > 30).map(str::to_owned));
        }
        for name in nodes.iter().map(String::as_str).chain([OPERATOR]) {
            self.add(keys.wireguard(name).private.expose());
        }
        Some(())
    }

    /// The key of the cluster's administrator.
    fn learn_kubeconfig(&mut self, home: &Path) -> Option<()> {
        for entry in fs_err::read_dir(home.join("kubeconfig")).ok()?.flatten() {
            let text = fs_err::read_to_string(entry.path()).ok()?;
            let key = text.lines().find_map(|line| line.trim().strip_prefix("client-key-data:"));
            if let Some(key) = key.map(|key| key.trim().trim_matches(['"', '\''])).filter(|key| key.len() > 60) {
                // All keys begin and end alike.
                self.add(&key[40..key.len() - 16]);
                return Some(());
            }
        }
        None
    }

    /// None of them is in the text.
    pub(super) fn judge(&self, place: &str, text: &str) -> Result<(), Violation> {
        let find = |secret: &str| memchr::memmem::find(text.as_bytes(), secret.as_bytes());
        let found = self.texts.iter().map(String::as_str).chain(BEGINNINGS).find_map(find);
        match found {
            None => Ok(()),
            Some(found) => {
                let from = text[..found].char_indices().rev().nth(80).map_or(0, |(at, _)| at);
                broken("no secret is seen", format!("{place}: ...{}", &text[from..found]))
            }
        }
    }
}
