//! Hosts that reboot, hang, fill up or do not let us do things: what the product's client makes of it.

use engine::Intent;
use std::time::Duration;

use deploy::{
    mesh::Mesh,
    seam::World,
    ssh::{Connection, SshError},
};
use testkit::hosts::{Host, Paper, block_on};

#[test]
fn a_reboot_keeps_the_identity_and_the_mesh() {
    block_on(async {
        let paper = Paper::new(1, 0);
        let host = Host::start(&paper, 0);
        host.ready().await;
        host.reboot().await;
        let mesh = Mesh::Wireguard;
        host.until(&format!("systemctl is-active {}", mesh.unit()), "active").await;
        host.until(mesh.identity_command(), &mesh.identity(&paper.keys, paper.node(0))).await;
    });
}

#[test]
fn a_clock_that_is_wrong_locks_nobody_out_and_can_be_read() {
    block_on(async {
        let paper = Paper::new(1, 0);
        let host = Host::start(&paper, 0);
        host.ready().await;
        let seconds = async || {
            let there: i64 = host.ok("date +%s").await.trim().parse().expect("seconds");
            World::real().expect("this machine").clock.utc().unix_timestamp() - there
        };
        assert!((0..30).contains(&seconds().await));
        host.set_clock("-2h").await;
        assert!((7200..7230).contains(&seconds().await));
    });
}

#[test]
fn an_sshd_that_is_restarted_or_killed_comes_back() {
    block_on(async {
        let paper = Paper::new(1, 0);
        let host = Host::start(&paper, 0);
        host.ready().await;
        for command in ["sudo systemctl restart ssh", "sudo systemctl kill --signal=KILL --kill-who=main ssh"] {
            host.ok(command).await;
            // A session outlives the sshd that it came through; the next one needs the new sshd.
            host.ok("true").await;
            host.remote.disconnect().await;
            host.answers().await;
        }
        host.ok("sudo systemctl stop ssh.service ssh.socket").await;
        let refused = Connection::open(&World::real().expect("this machine"), &host.target).await.err();
        assert!(
            matches!(&refused, Some(SshError::Unreachable { cause, .. }) if cause.contains("refused")),
            "{refused:?}"
        );
    });
}

#[test]
fn a_cable_that_is_pulled_is_a_wait_with_an_end() {
    block_on(async {
        let paper = Paper::new(1, 0);
        let host = Host::start(&paper, 0);
        host.ready().await;
        let mut nowhere = host.target.clone();
        nowhere.host = "198.51.100.250".to_owned();
        let silent = Connection::open(&World::real().expect("this machine"), &nowhere).await.err();
        let expected = "k0s-controller-1 (198.51.100.250): no answer on port 22";
        assert_eq!(silent.map(|error| error.to_string()).as_deref(), Some(expected));
        host.plug(false);
        let cut = host.remote.run_once("true", Duration::from_secs(3)).await;
        assert!(matches!(cut, Err(SshError::Timeout { seconds: 3, .. })), "{cut:?}");
        host.plug(true);
        assert_eq!(host.run("true").await.code, 0);
    });
}

#[test]
fn a_full_disk_is_named() {
    block_on(async {
        let paper = Paper::new(1, 0);
        let host = Host::start(&paper, 0);
        host.ready().await;
        host.run("sudo dd if=/dev/zero of=/filler bs=1M").await;
        let upload = async || {
            host.remote.upload(&Intent::for_tests(), "/etc/k0s/k0s.yaml", &[b'x'; 100_000], "0600", "root").await
        };
        let refused = upload().await.expect_err("there is no room").to_string();
        assert!(refused.contains("exit code 1") && refused.contains("No space left on device"), "{refused}");
        host.ok("sudo rm /filler").await;
        upload().await.expect("there is room again");
        assert_eq!(host.ok("sudo stat -c '%a %s' /etc/k0s/k0s.yaml").await, "600 100000\n");
    });
}
