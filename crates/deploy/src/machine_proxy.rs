//! The proxy through which machines download, in the words of those who do it there: apt, curl, and k0s with everything that
//! it starts (containerd, and its Helm controller).
//!
//! k0s gets it as variables of its unit (k0s documentation, environment variables). They are in a file of their own, which
//! root alone can read: what a unit itself says is shown to everybody (systemd documentation, `Environment=`).

use std::{fmt::Display, net::Ipv4Addr};

use ipnet::IpNet;

use crate::{
    config::{Config, ProxyAddress},
    environment::sha256,
    k0s,
    secret::Secret,
    topology::{Node, Topology},
};

/// Where apt is told: a file of ours, because the one that cloud-init makes of its key `apt` can be read by everybody
/// (cloud-init source, `cc_apt_configure`).
pub const APT: &str = "/etc/apt/apt.conf.d/90k0rdentctl-proxy";

/// What is near, whatever the configuration says: this machine, Azure's metadata and its platform (Azure documentation:
/// 169.254.169.254, 168.63.129.16), and names of the cluster.
const NEAR: [&str; 6] = ["localhost", "127.0.0.0/8", "169.254.169.254", "168.63.129.16", ".svc", ".cluster.local"];

/// The directory of what is added to k0s' unit on a machine.
pub fn directory(node: &Node) -> String {
    format!("/etc/systemd/system/{}.service.d", k0s::unit(node))
}

/// The files of it: what is added to the unit, and the variables.
pub fn files(node: &Node) -> [String; 2] {
    ["conf", "env"].map(|ending| format!("{}/k0rdentctl-proxy.{ending}", directory(node)))
}

/// Those files, if the machine has them.
pub fn places(config: &Config, node: &Node) -> Vec<String> {
    if config.proxy.is_set() { files(node).to_vec() } else { Vec::new() }
}

/// What is added to the unit.
pub fn drop_in(node: &Node) -> String {
    let [_, variables] = files(node);
    format!("[Service]\nEnvironmentFile={variables}\n")
}

/// The variables for k0s on every machine.
pub fn environment(config: &Config, topology: &Topology) -> Option<Secret> {
    let [http, https] = [&config.proxy.http, &config.proxy.https].map(|proxy| proxy.as_ref().map(ProxyAddress::secret));
    let text = variables(config, topology, [http, https].map(|proxy| proxy.map(Secret::expose)))?;
    Some(Secret::new(text))
}

fn variables(config: &Config, topology: &Topology, proxies: [Option<impl Display>; 2]) -> Option<String> {
    let lines = ["HTTP_PROXY", "HTTPS_PROXY"].into_iter().zip(proxies);
    let lines: String = lines.filter_map(|(name, proxy)| Some(format!("{name}=\"{}\"\n", proxy?))).collect();
    (!lines.is_empty()).then(|| format!("{lines}NO_PROXY=\"{}\"\n", exceptions(config, topology).join(",")))
}

/// What machines reach without the proxy: each other, pods, services, what is near, and what the configuration names.
fn exceptions(config: &Config, topology: &Topology) -> Vec<String> {
    let network = &config.network;
    let given: Vec<IpNet> = config.proxy.no_proxy.iter().filter_map(|text| text.parse().ok()).collect();
    let is_given = |address: Ipv4Addr| given.iter().any(|range| range.contains(&std::net::IpAddr::from(address)));
    let nodes: Vec<String> = match topology.provider.makes_machines() {
        true => vec![network.vnet_prefix.to_string(), network.wireguard_network.to_string()],
        false => {
            let addresses = topology.nodes.iter().map(|node| node.private_address);
            addresses.filter(|address| !is_given(*address)).map(|address| address.to_string()).collect()
        }
    };
    let near = NEAR.map(str::to_owned).into_iter().chain(nodes);
    let inside = [network.pod_cidr.to_string(), network.service_cidr.to_string()];
    near.chain(inside).chain(config.proxy.no_proxy.iter().cloned()).collect()
}

/// What a step that tells a machine of it is made from; the same as without this module if there is no proxy. Of user and
/// password it has as much as shows a change, and too little to find them with.
pub fn mark(config: &Config, topology: &Topology) -> String {
    let shown = variables(config, topology, [&config.proxy.http, &config.proxy.https].map(Option::as_ref));
    let whole = environment(config, topology).map(|whole| sha256(whole.expose()));
    match (shown, whole) {
        (Some(shown), Some(whole)) => format!(" {shown} {}", &whole[..4]),
        _ => String::new(),
    }
}

/// Prints what the files on a machine are: their SHA-256, if they are there.
pub fn look(node: &Node) -> String {
    format!("sudo sha256sum {}", files(node).join(" "))
}

/// Whether that is what they should be.
pub fn stands(printed: &str, node: &Node, environment: &Secret) -> bool {
    let wanted = [sha256(&drop_in(node)), sha256(environment.expose())];
    let found: Vec<&str> = printed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    found == wanted
}

/// Removes the files from a machine that is somebody's, and the directory if nobody else has anything in it.
pub fn removal(config: &Config, node: &Node) -> String {
    match places(config, node).as_slice() {
        [] => String::new(),
        files => format!("sudo rm -f -- {}; sudo rmdir {} 2>/dev/null; ", files.join(" "), directory(node)),
    }
}

/// What apt is told.
pub fn apt(config: &Config) -> Option<Secret> {
    let lines = [("http", &config.proxy.http), ("https", &config.proxy.https)];
    let line = |(scheme, proxy): (&str, &Option<ProxyAddress>)| {
        let address = proxy.as_ref()?.secret().expose();
        Some(format!("Acquire::{scheme}::Proxy \"{address}\";\n"))
    };
    let text: String = lines.into_iter().filter_map(line).collect();
    let is_direct = config.proxy.no_proxy.iter().any(|exception| exception == "*");
    (!text.is_empty() && !is_direct).then(|| Secret::new(text))
}

/// What curl reads from its standard input with `--config -`, for an address of https.
pub fn curl(config: &Config) -> Option<Secret> {
    let proxy = config.proxy.https.as_ref()?.secret().expose();
    Some(Secret::new(format!("proxy = \"{proxy}\"\nnoproxy = \"{}\"\n", config.proxy.no_proxy.join(","))))
}

/// What may help a machine that cannot download over such a scheme.
pub fn advice(config: &Config, scheme: &str) -> String {
    let proxy = if scheme == "http" { &config.proxy.http } else { &config.proxy.https };
    match proxy {
        Some(proxy) => format!("The machines download through proxy.{scheme}, {proxy}: check it."),
        None => format!("If machines reach the internet through a proxy, set proxy.{scheme} in the configuration."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{ClusterId, topology};

    fn paper(text: &str) -> (Config, Topology) {
        let config = crate::config::load(text).unwrap().config;
        let topology = topology(&config, &ClusterId::parse("k0rdent-abcd1234").unwrap());
        (config, topology)
    }

    #[test]
    fn everybody_is_told_in_their_own_words() {
        let (config, topology) = paper(
            "proxy: {http: 'http://proxy.example:3128', https: 'http://ada:hunter2@proxy.example:3128', no_proxy: [.corp, 10.9.0.0/16]}\n",
        );
        let node = &topology.nodes[0];
        let [environment, apt, curl] =
            [environment(&config, &topology), apt(&config), curl(&config)].map(Option::unwrap);
        let all =
            [environment.expose(), apt.expose(), curl.expose(), &drop_in(node), &look(node), &removal(&config, node)];
        insta::assert_snapshot!(all.join("\n"), @r#"
        HTTP_PROXY="http://proxy.example:3128"
        HTTPS_PROXY="http://ada:hunter2@proxy.example:3128"
        NO_PROXY="localhost,127.0.0.0/8,169.254.169.254,168.63.129.16,.svc,.cluster.local,10.0.0.0/16,192.168.100.0/24,10.244.0.0/16,10.96.0.0/12,.corp,10.9.0.0/16"

        Acquire::http::Proxy "http://proxy.example:3128";
        Acquire::https::Proxy "http://ada:hunter2@proxy.example:3128";

        proxy = "http://ada:hunter2@proxy.example:3128"
        noproxy = ".corp,10.9.0.0/16"

        [Service]
        EnvironmentFile=/etc/systemd/system/k0scontroller.service.d/k0rdentctl-proxy.env

        sudo sha256sum /etc/systemd/system/k0scontroller.service.d/k0rdentctl-proxy.conf /etc/systemd/system/k0scontroller.service.d/k0rdentctl-proxy.env
        sudo rm -f -- /etc/systemd/system/k0scontroller.service.d/k0rdentctl-proxy.conf /etc/systemd/system/k0scontroller.service.d/k0rdentctl-proxy.env; sudo rmdir /etc/systemd/system/k0scontroller.service.d 2>/dev/null;
        "#);
        let digests = format!("{}  a\n{}  b\n", sha256(&drop_in(node)), sha256(environment.expose()));
        assert!(stands(&digests, node, &environment));
        assert!(!stands("", node, &environment) && !stands(&digests, node, &Secret::new("other")));
        let mark = mark(&config, &topology);
        assert!(mark.contains("ada:***@") && !mark.contains("hunter2"), "{mark}");
    }

    #[test]
    fn without_a_proxy_nothing_is_said() {
        let (config, topology) = paper("{}\n");
        assert!(environment(&config, &topology).is_none() && apt(&config).is_none() && curl(&config).is_none());
        assert_eq!(mark(&config, &topology) + &removal(&config, &topology.nodes[0]), "");
        // Nothing goes through it, and apt knows no exceptions.
        assert!(apt(&paper("proxy: {http: 'http://a', https: 'http://a', no_proxy: ['*']}\n").0).is_none());
    }

    #[test]
    fn another_password_is_another_mark() {
        let mark = |password: &str| {
            let (config, topology) = paper(&format!("proxy: {{https: 'http://ada:{password}@proxy.example'}}\n"));
            mark(&config, &topology)
        };
        assert_ne!(mark("first"), mark("second"));
        assert_eq!(mark("first"), mark("first"));
    }
}
