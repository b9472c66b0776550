//! The `ClusterConfig`: read as strictly as k0s reads it.

use serde_json::{Map, Value};

/// What matters here of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `spec.api.address`.
    pub(super) address: Option<String>,
    /// `spec.api.externalAddress`.
    pub(super) external_address: Option<String>,
    /// `spec.api.sans`.
    pub(super) names: Vec<String>,
    /// `spec.storage.etcd.peerAddress`.
    pub(super) peer_address: Option<String>,
    /// `spec.network.nodeLocalLoadBalancing.enabled`.
    pub(super) balances: bool,
}

/// The keys of each part (k0s custom resource definition of `ClusterConfig`). What is not listed may hold anything.
const KEYS: [(&str, &[&str]); 14] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    (
        "spec",
        &[
            "api",
            "controllerManager",
            "extensions",
            "featureGates",
            "images",
            "installConfig",
            "konnectivity",
            "metricsServer",
            "network",
            "scheduler",
            "storage",
            "telemetry",
            "workerProfiles",
        ],
    ),
    (
        "spec.api",
        &[
            "address",
            "ca",
            "externalAddress",
            "extraArgs",
            "k0sApiPort",
            "onlyBindToAddress",
            "port",
            "rawArgs",
            "sans",
        ],
    ),
    ("spec.api.ca", &["certificatesExpireAfter", "expiresAfter"]),
    ("spec.storage", &["etcd", "kine", "type"]),
    ("spec.storage.etcd", &["ca", "externalCluster", "extraArgs", "peerAddress", "rawArgs"]),
    (
        "spec.network",
        &[
            "calico",
            "clusterDomain",
            "controlPlaneLoadBalancing",
            "coreDNS",
            "dualStack",
            "kubeProxy",
            "kuberouter",
            "nodeLocalLoadBalancing",
            "podCIDR",
            "primaryAddressFamily",
            "provider",
            "serviceCIDR",
        ],
    ),
    (
        "spec.network.calico",
        &[
            "envVars",
            "flexVolumeDriverPath",
            "ipAutodetectionMethod",
            "ipV6AutodetectionMethod",
            "mode",
            "mtu",
            "overlay",
            "patches",
            "vxlanPort",
            "vxlanVNI",
            "wireguard",
        ],
    ),
    (
        "spec.network.kuberouter",
        &[
            "autoMTU",
            "extraArgs",
            "hairpin",
            "hairpinMode",
            "ipMasq",
            "metricsPort",
            "mtu",
            "patches",
            "peerRouterASNs",
            "peerRouterIPs",
            "rawArgs",
        ],
    ),
    ("spec.network.nodeLocalLoadBalancing", &["enabled", "envoyProxy", "traefik", "type"]),
    ("spec.konnectivity", &["adminPort", "agentPort", "externalAddress"]),
    ("spec.telemetry", &["enabled"]),
    ("spec.extensions", &["helm", "storage"]),
    ("spec.extensions.helm", &["charts", "concurrencyLevel", "repositories"]),
];

/// Reads a configuration.
pub(super) fn parse(text: &str) -> Result<Settings, String> {
    let document: Value = serde_saphyr::from_str(text)
        .map_err(|error| format!("error converting YAML: {}", error.to_string().lines().next().unwrap_or_default()))?;
    let Value::Object(document) = document else { return Err("config is not a mapping".into()) };
    for (key, wanted) in [("apiVersion", "k0s.k0sproject.io/v1beta1"), ("kind", "ClusterConfig")] {
        let found = document.get(key).and_then(Value::as_str).unwrap_or_default();
        if found != wanted {
            return Err(format!("{key}: Invalid value: \"{found}\": must be \"{wanted}\""));
        }
    }
    check(&document, "")?;
    let provider = document.get("spec").and_then(|spec| spec.pointer("/network/provider")).and_then(Value::as_str);
    if let Some(provider) = provider.filter(|provider| !["kuberouter", "calico", "custom"].contains(provider)) {
        return Err(format!("spec: network: provider: Unsupported value: \"{provider}\""));
    }
    Ok(settings(&document))
}

fn check(values: &Map<String, Value>, path: &str) -> Result<(), String> {
    let Some((_, known)) = KEYS.iter().find(|(place, _)| *place == path) else { return Ok(()) };
    for (key, value) in values {
        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if !known.contains(&key.as_str()) {
            return Err(format!("error unmarshaling JSON: while decoding JSON: json: unknown field \"{place}\""));
        }
        match value {
            Value::Object(values) => check(values, &place)?,
            Value::Null => {}
            _ if KEYS.iter().any(|(path, _)| *path == place) => {
                return Err(format!("error unmarshaling JSON: json: cannot unmarshal into Go struct field {place}"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn settings(document: &Map<String, Value>) -> Settings {
    let spec = document.get("spec").cloned().unwrap_or_default();
    let text = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let names = spec.pointer("/api/sans").and_then(Value::as_array).cloned().unwrap_or_default();
    Settings {
        address: text("/api/address"),
        external_address: text("/api/externalAddress").filter(|address| !address.is_empty()),
        names: names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        peer_address: text("/storage/etcd/peerAddress"),
        balances: spec.pointer("/network/nodeLocalLoadBalancing/enabled") == Some(&Value::Bool(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nmetadata: {name: k0s}\nspec:\n  \
        api: {address: 10.0.0.4, sans: [10.0.0.4, a.example]}\n  storage: {type: etcd, etcd: {peerAddress: 10.0.0.4}}\n";

    #[test]
    fn a_good_one_says_what_matters() {
        let settings = parse(GOOD).unwrap();
        assert_eq!(settings.address.as_deref(), Some("10.0.0.4"));
        assert_eq!(settings.names, ["10.0.0.4", "a.example"]);
        assert_eq!(settings.peer_address.as_deref(), Some("10.0.0.4"));
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(parse(&GOOD.replace("sans", "san")).unwrap_err().contains("spec.api.san"));
        assert!(parse(&GOOD.replace("v1beta1", "v1")).unwrap_err().contains("apiVersion"));
        assert!(parse(&GOOD.replace("{type: etcd, etcd: {peerAddress: 10.0.0.4}}", "etcd")).is_err());
        assert!(parse("a: [").is_err());
    }
}
