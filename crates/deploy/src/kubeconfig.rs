//! Kubeconfigs: read what k0s gives, write what each place needs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{secret::Secret, yaml::yaml};

/// Who the administrator is, and whom to trust.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The certificate authority, PEM.
    pub authority: String,
    /// The client certificate, PEM.
    pub certificate: String,
    /// The client's key, PEM.
    pub key: Secret,
}

impl Admin {
    /// Takes the administrator out of a kubeconfig as `k0s kubeconfig admin` prints it.
    ///
    /// # Errors
    /// What is missing, without any content.
    pub fn from_kubeconfig(text: &str) -> Result<Self, String> {
        let value: Value = serde_saphyr::from_str(text).map_err(|_| "it is not YAML".to_owned())?;
        let field = |pointer: &str| {
            let encoded = value.pointer(pointer).and_then(Value::as_str);
            let bytes = encoded.and_then(|text| STANDARD.decode(text).ok());
            bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| format!("{pointer} is missing"))
        };
        Ok(Self {
            authority: field("/clusters/0/cluster/certificate-authority-data")?,
            certificate: field("/users/0/user/client-certificate-data")?,
            key: Secret::new(field("/users/0/user/client-key-data")?),
        })
    }

    /// A kubeconfig for the cluster `name`, reached at `server`.
    pub fn kubeconfig(&self, name: &str, server: &str) -> Secret {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": name,
                "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(&self.authority)},
            }],
            "users": [{
                "name": format!("{name}-admin"),
                "user": {
                    "client-certificate-data": STANDARD.encode(&self.certificate),
                    "client-key-data": STANDARD.encode(self.key.expose()),
                },
            }],
            "contexts": [{"name": name, "context": {"cluster": name, "user": format!("{name}-admin")}}],
            "current-context": name,
        });
        Secret::new(yaml(&value))
    }
}
