//! WireGuard under systemd: up, tried again, repaired, and a tunnel from the operator.

use deploy::mesh::Mesh;
use engine::Intent;
use testkit::hosts::{Host, Paper, block_on};

const MESH: Mesh = Mesh::Wireguard;

fn is_active() -> String {
    format!("systemctl is-active {}", MESH.unit())
}

#[test]
fn the_operator_reaches_machines_through_their_tunnels() {
    block_on(async {
        let paper = Paper::new(1, 1);
        let (machine, operator) = (Host::start(&paper, 0), Host::start(&paper, 1));
        machine.ready().await;
        operator.ready().await;
        machine.until(&is_active(), "active").await;
        let address = |node: &deploy::topology::Node| match node.position {
            0 => machine.address.to_string(),
            _ => operator.address.to_string(),
        };
        let config = MESH.operator_config(&paper.topology, &paper.keys, address);
        let name = MESH.operator_interface(&paper.topology.cluster_id);
        let file = format!("/etc/wireguard/{name}.conf");
        operator
            .remote
            .upload(&Intent::for_tests(), &file, config.expose().as_bytes(), "0600", "root")
            .await
            .expect("an upload");
        // Two interfaces would claim the same addresses.
        operator.ok(&format!("sudo systemctl stop {} && sudo wg-quick up {name}", MESH.unit())).await;
        let mesh_address = paper.node(0).mesh_address;
        operator.ok(&format!("sudo ping -c 1 -w 10 {mesh_address}")).await;
        let greeting = operator.ok(&format!("timeout 5 bash -c 'head -c 8 < /dev/tcp/{mesh_address}/22'")).await;
        assert_eq!(greeting, "SSH-2.0-");
        assert_eq!(machine.ok(MESH.identity_command()).await.trim(), MESH.identity(&paper.keys, paper.node(0)));
    });
}

#[test]
fn systemd_waits_for_the_network_and_tries_again() {
    block_on(async {
        let paper = Paper::new(1, 0);
        let host = Host::start(&paper, 0);
        host.ready().await;
        host.until(&is_active(), "active").await;
        let unit = MESH.unit();
        let show =
            format!("systemctl show {unit} -p After,Wants,Restart,RestartUSec,StartLimitIntervalUSec,UnitFileState");
        let settings = host.ok(&show).await;
        let setting = |name: &str| settings.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        assert!(setting("After=").contains("network-online.target"), "{settings}");
        assert!(setting("Wants=").contains("network-online.target"), "{settings}");
        let numbers = [setting("Restart="), setting("RestartUSec="), setting("StartLimitIntervalUSec=")];
        assert_eq!(numbers, ["on-failure", "5s", "0"], "{settings}");
        assert_eq!(setting("UnitFileState="), "enabled");
        assert_eq!(
            host.ok(&format!("systemd-analyze verify --man=no {unit} 2>&1")).await,
            "",
            "what systemd thinks of it"
        );

        // The tunnel dies under a unit that has done its work: only a look at the interface tells.
        host.ok("sudo ip link delete wg0").await;
        assert_eq!(host.run(&is_active()).await.stdout, "active\n");
        assert_eq!(host.run(MESH.identity_command()).await.code, 1);
        host.run(&format!("sudo systemctl restart {unit}")).await;
        host.until(MESH.identity_command(), &MESH.identity(&paper.keys, paper.node(0))).await;
        host.until(&is_active(), "active").await;
    });
}
