//! From the document that the product makes to a host that it can log in to.

use deploy::{
    seam::World,
    ssh::{Connection, SshError, Target},
};
use engine::Intent;
use testkit::hosts::{Host, Paper, block_on};

#[test]
fn a_host_becomes_what_its_document_says() {
    block_on(async {
        let paper = Paper::new(1, 0);
        let host = Host::start(&paper, 0);
        host.ready().await;
        assert_eq!(host.ok("hostname; id -un; sudo id -un").await, "k0s-controller-1\nk0rdent\nroot\n");
        let modes =
            "sudo stat -c '%a %U:%G' /etc/wireguard/wg0.conf /etc/ssh/ssh_host_ed25519_key .ssh/authorized_keys";
        assert_eq!(host.ok(modes).await, "600 root:root\n600 root:root\n600 k0rdent:k0rdent\n");
        // `lock_passwd`, `ssh_pwauth`, `ssh_deletekeys`: one key leads in, to a host that has one key.
        assert_eq!(host.ok("sudo passwd --status k0rdent | cut -d' ' -f2").await, "L\n");
        assert_eq!(host.ok("sudo sshd -T | grep -i ^passwordauthentication").await, "passwordauthentication no\n");
        assert_eq!(host.ok("ls /etc/ssh/ssh_host_*_key").await, "/etc/ssh/ssh_host_ed25519_key\n");
        assert_eq!(host.ok("systemctl is-system-running --wait").await, "running\n");

        let world = World::real().expect("this machine");
        let other = Paper::new(3, 2);
        let stranger = Target { host_key: other.target(1, "").host_key, ..host.target.clone() };
        assert!(matches!(Connection::open(&world, &stranger).await, Err(SshError::HostKey { .. })));
        let eve = Target { identity: paper.keys.ssh_host("eve").into(), ..host.target.clone() };
        assert!(matches!(Connection::open(&world, &eve).await, Err(SshError::Login { .. })));
        let root = Target { user: "root".to_owned(), ..host.target.clone() };
        assert!(matches!(Connection::open(&world, &root).await, Err(SshError::Login { .. })));
    });
}

#[test]
fn cloud_init_finds_nothing_to_say_about_any_document() {
    block_on(async {
        let papers = [Paper::new(1, 0), Paper::new(3, 2)];
        let host = Host::start(&papers[0], 0);
        host.ready().await;
        let mut checked = 0;
        for paper in &papers {
            for position in 0..paper.topology.nodes.len() {
                let document = paper.document(position);
                host.remote
                    .upload(&Intent::for_tests(), "/root/document", document.as_bytes(), "0600", "root")
                    .await
                    .expect("an upload");
                let said = host.run("sudo cloud-init schema --config-file /root/document").await;
                assert_eq!(
                    (said.code, said.stdout.trim()),
                    (0, "Valid cloud-config: /root/document"),
                    "{}",
                    said.stderr
                );
                checked += 1;
            }
        }
        assert_eq!(checked, 6);
        let wrong = papers[0].document(0).replace("users:", "users: 7\nuzers:");
        host.remote
            .upload(&Intent::for_tests(), "/root/document", wrong.as_bytes(), "0600", "root")
            .await
            .expect("an upload");
        assert_eq!(host.run("sudo cloud-init schema --config-file /root/document").await.code, 1);
    });
}
