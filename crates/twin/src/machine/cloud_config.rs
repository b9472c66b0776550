//! What a cloud-config asks for: reading it, and finding what is wrong with it.
//!
//! Known keys and their types are those of cloud-init's own schema (cloud-init documentation, module reference).

use russh::keys::PrivateKey;
use serde_json::{Map, Value};

/// A cloud-config, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct CloudConfig {
    /// The keys that are valid.
    pub(super) values: Map<String, Value>,
    /// Why nothing of it can be used.
    pub(super) error: Option<String>,
    /// What had to be left out.
    pub(super) warnings: Vec<String>,
}

/// The types that a key may have, one letter each: **b**oolean, **s**tring, **n**umber, **l**ist, **m**ap.
const KEYS: [(&str, &str); 29] = [
    ("apt", "m"),
    ("bootcmd", "l"),
    ("disable_root", "b"),
    ("final_message", "s"),
    ("fqdn", "s"),
    ("groups", "slm"),
    ("growpart", "m"),
    ("hostname", "s"),
    ("locale", "bs"),
    ("manage_etc_hosts", "bs"),
    ("mounts", "l"),
    ("ntp", "m"),
    ("output", "m"),
    ("package_reboot_if_required", "b"),
    ("package_update", "b"),
    ("package_upgrade", "b"),
    ("packages", "l"),
    ("power_state", "m"),
    ("prefer_fqdn_over_hostname", "b"),
    ("preserve_hostname", "b"),
    ("runcmd", "l"),
    ("ssh_deletekeys", "b"),
    ("ssh_genkeytypes", "l"),
    ("ssh_keys", "m"),
    ("ssh_pwauth", "bs"),
    ("swap", "m"),
    ("timezone", "s"),
    ("users", "slm"),
    ("write_files", "l"),
];

const FILE_KEYS: [(&str, &str); 7] = [
    ("append", "b"),
    ("content", "s"),
    ("defer", "b"),
    ("encoding", "s"),
    ("owner", "s"),
    ("path", "s"),
    ("permissions", "s"),
];

const USER_KEYS: [(&str, &str); 14] = [
    ("gecos", "s"),
    ("groups", "slm"),
    ("homedir", "s"),
    ("lock_passwd", "b"),
    ("name", "s"),
    ("no_create_home", "b"),
    ("no_user_group", "b"),
    ("passwd", "s"),
    ("primary_group", "s"),
    ("shell", "s"),
    ("ssh_authorized_keys", "l"),
    ("sudo", "bsl"),
    ("system", "b"),
    ("uid", "sn"),
];

/// Reads custom data. What is invalid is left out and said.
pub(super) fn parse(custom_data: &[u8]) -> CloudConfig {
    let mut config = CloudConfig::default();
    let text = String::from_utf8_lossy(custom_data);
    if text.trim().is_empty() {
        return config;
    }
    if text.lines().next().map(str::trim_end) != Some("#cloud-config") {
        let start: String = text.chars().take(20).collect();
        config.error = Some(format!("Unhandled non-multipart (text/x-not-multipart) userdata: '{start:?}...'"));
        return config;
    }
    let values: Map<String, Value> = match serde_saphyr::from_str(&text) {
        Ok(values) => values,
        // Nothing but comments.
        Err(_) if text.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) => Map::new(),
        Err(error) => {
            let error = error.to_string();
            let first = error.lines().next().unwrap_or_default();
            config.error = Some(format!("Failed loading yaml blob. Invalid format: {first}"));
            return config;
        }
    };
    config.values = valid(values, &KEYS, "", &mut config.warnings);
    for (key, keys) in [("write_files", &FILE_KEYS[..]), ("users", &USER_KEYS[..])] {
        check_items(&mut config, key, keys);
    }
    config
}

/// Checks the maps in a list; one with an unknown key or a wrong type stays, without that key.
fn check_items(config: &mut CloudConfig, key: &str, keys: &[(&str, &str)]) {
    let Some(Value::Array(items)) = config.values.get_mut(key) else { return };
    for (position, item) in items.iter_mut().enumerate() {
        if let Value::Object(values) = item {
            let place = format!("{key}.{position}.");
            *values = valid(std::mem::take(values), keys, &place, &mut config.warnings);
        }
    }
}

fn valid(
    values: Map<String, Value>,
    keys: &[(&str, &str)],
    place: &str,
    warnings: &mut Vec<String>,
) -> Map<String, Value> {
    let mut left = Map::new();
    for (key, value) in values {
        match keys.iter().find(|(known, _)| *known == key) {
            None => {
                warnings.push(format!("{place}{key}: Additional properties are not allowed ('{key}' was unexpected)"))
            }
            Some((_, types)) if !types.contains(type_letter(&value)) => {
                warnings.push(format!("{place}{key}: {value} is not of type {}", type_names(types)));
            }
            Some(_) => drop(left.insert(key, value)),
        }
    }
    left
}

fn type_letter(value: &Value) -> char {
    match value {
        Value::Null => '0',
        Value::Bool(_) => 'b',
        Value::Number(_) => 'n',
        Value::String(_) => 's',
        Value::Array(_) => 'l',
        Value::Object(_) => 'm',
    }
}

fn type_names(types: &str) -> String {
    let name = |letter| match letter {
        'b' => "'boolean'",
        'n' => "'number'",
        's' => "'string'",
        'l' => "'array'",
        _ => "'object'",
    };
    types.chars().map(name).collect::<Vec<_>>().join(", ")
}

impl CloudConfig {
    /// The SSH host key it brings, if it is one.
    pub(super) fn host_key(&self) -> Option<PrivateKey> {
        let text = self.values.get("ssh_keys")?.get("ed25519_private")?.as_str()?;
        PrivateKey::from_openssh(text.trim()).ok()
    }

    /// The hostname it sets.
    pub(super) fn hostname(&self) -> Option<&str> {
        self.values.get("hostname").or_else(|| self.values.get("fqdn")).and_then(Value::as_str)
    }

    /// The items of a list, none if it is not there.
    pub(super) fn list(&self, key: &str) -> &[Value] {
        match self.values.get(key) {
            Some(Value::Array(items)) => items,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_one_has_no_complaints() {
        let config = parse(
            b"#cloud-config\nhostname: a\npackages: [curl]\nruncmd:\n  - echo 1\n  - [echo, two]\nusers: [default]\n\
            write_files:\n  - {path: /a, content: 'x', permissions: '0600'}\n",
        );
        assert_eq!((config.error, config.warnings), (None, vec![]));
        assert_eq!(config.values["runcmd"][1][1], "two");
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_left_out_and_said() {
        let config = parse(b"#cloud-config\npackage: [a]\nruncmd: echo\nwrite_files:\n  - {path: /a, mode: '0600'}\n");
        assert_eq!(config.error, None);
        assert_eq!(
            config.warnings,
            [
                "package: Additional properties are not allowed ('package' was unexpected)",
                "runcmd: \"echo\" is not of type 'array'",
                "write_files.0.mode: Additional properties are not allowed ('mode' was unexpected)",
            ]
        );
    }

    #[test]
    fn what_is_no_cloud_config_is_an_error() {
        assert!(parse(b"hostname: a\n").error.is_some());
        assert!(parse(b"#cloud-config\na: [\n").error.is_some());
        assert!(parse(b"#cloud-config\n- a\n").error.is_some());
        assert!(parse(b"#cloud-config\n# nothing\n").error.is_none());
        assert!(parse(b"").error.is_none());
    }
}
