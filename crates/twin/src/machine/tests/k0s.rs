//! k0s from the first controller to the last reset.

use super::*;

const DOWNLOAD: &str = "sudo curl -fsSL --retry 3 -o /tmp/k0s \
    https://github.com/k0sproject/k0s/releases/download/v1.33.2%2Bk0s.0/k0s-v1.33.2%2Bk0s.0-amd64 && \
    sudo install -m 0755 -o root -g root /tmp/k0s /usr/local/bin/k0s";
const CONFIG: &str =
    "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n  api:\n    address: 10.0.0.1\n";

async fn with_k0s(twin: &Twin, number: u8) -> Session {
    let session = login(twin, number).await;
    ok(&session, "cloud-init status --wait").await;
    ok(&session, DOWNLOAD).await;
    session
}

async fn upload(session: &Session, path: &str, text: &str) {
    let command = format!("sudo install -D -m 0600 -o root -g root /dev/stdin {path}");
    assert_eq!(run_with(session, &command, text.as_bytes()).await.0, 0, "{path}");
}

/// Repeats a command until it succeeds.
async fn until(twin: &Twin, session: &Session, command: &str) -> String {
    for _ in 0..120 {
        let (code, stdout, _) = run(session, command).await;
        if code == 0 {
            return stdout;
        }
        twin.sleep(Duration::from_secs(2)).await;
    }
    let (_, log, _) = run(session, "sudo journalctl -n 20").await;
    panic!("never: {command}\n{log}");
}

async fn lead(twin: &Twin, options: &str) -> Session {
    let leader = with_k0s(twin, 1).await;
    upload(&leader, "/etc/k0s/k0s.yaml", CONFIG).await;
    ok(&leader, "sudo k0s config validate --config /etc/k0s/k0s.yaml").await;
    ok(&leader, &format!("sudo k0s install controller --config=/etc/k0s/k0s.yaml {options}")).await;
    ok(&leader, "sudo systemctl start k0scontroller").await;
    let ready = until(twin, &leader, "sudo k0s kubectl get --raw=/readyz").await;
    assert_eq!(ready.trim(), "ok");
    leader
}

async fn join(leader: &Session, session: &Session, role: &str, options: &str) {
    let token = ok(leader, &format!("sudo k0s token create --role={role} --expiry=30m")).await;
    upload(session, "/etc/k0s/token", &token).await;
    ok(session, &format!("sudo k0s install {role} --token-file=/etc/k0s/token {options}")).await;
    ok(session, "sudo k0s start").await;
}

fn nodes_ready(number: usize) -> String {
    format!("test $(sudo k0s kubectl get nodes | grep -c ' Ready ') = {number}")
}

#[tokio::test(start_paused = true)]
async fn the_binary_needs_the_right_name_and_root() {
    let mut arm = spec(2, &careful_config());
    arm.architecture = "Arm64".into();
    let twin = world(vec![spec(1, &careful_config()), arm]);
    let session = with_k0s(&twin, 1).await;
    assert_eq!(ok(&session, "k0s version").await, "v1.33.2+k0s.0\n");
    assert_eq!(run(&session, "k0s status").await.2, "Error: this command must be run as root\n");
    let (code, _, said) = run(&session, "sudo k0s status -o json").await;
    assert!(code == 1 && said.contains("can't get \"status\" via \"/run/k0s/status.sock\""), "{said}");
    assert_eq!(run(&session, "curl -fsSLo /tmp/x https://github.com/k0sproject/k0s/nothing").await.0, 22);
    assert_eq!(run(&session, "curl -fsSL https://example.org/x").await.0, 6);
    assert_eq!(run(&session, "sudo k0s start").await.0, 1);
    let session = with_k0s(&twin, 2).await;
    assert_eq!(run(&session, "k0s version").await.0, 126, "made for another architecture");
}

#[tokio::test(start_paused = true)]
async fn a_single_controller_runs_workloads_survives_a_reboot_and_is_reset() {
    let twin = world(vec![spec(1, &careful_config())]);
    let leader = lead(&twin, "--enable-worker --no-taints --kubelet-extra-args=--node-ip=10.0.0.1").await;
    let again = run(&leader, "sudo k0s install controller --config=/etc/k0s/k0s.yaml").await;
    assert!(again.0 == 1 && again.2.contains("already exists"), "{}", again.2);
    until(&twin, &leader, &nodes_ready(1)).await;
    let status: serde_json::Value = serde_json::from_str(&ok(&leader, "sudo k0s status -o json").await).unwrap();
    assert_eq!((&status["Role"], &status["Workloads"]), (&"controller".into(), &true.into()));
    let kubeconfig = ok(&leader, "sudo k0s kubeconfig admin").await;
    assert!(kubeconfig.contains("server: https://10.0.0.1:6443"), "{kubeconfig}");
    assert!(ok(&leader, "sudo cat /var/lib/k0s/pki/admin.conf").await.contains("server: https://localhost:6443"));
    assert!(leader.channel_open_direct_tcpip("127.0.0.1", 6443, "127.0.0.1", 1).await.is_ok());

    twin.with(|world| set_power(world, &format!("{ID}node-1"), false));
    twin.sleep(Duration::from_secs(60)).await;
    twin.with(|world| set_power(world, &format!("{ID}node-1"), true));
    let leader = login(&twin, 1).await;
    until(&twin, &leader, &nodes_ready(1)).await;

    assert!(run(&leader, "sudo k0s reset").await.2.contains("k0s seems to be running"));
    let mut forwarded = leader.channel_open_direct_tcpip("localhost", 6443, "127.0.0.1", 1).await.unwrap();
    ok(&leader, "sudo k0s stop && sudo k0s reset").await;
    assert!(forwarded.wait().await.is_none_or(|message| matches!(message, ChannelMsg::Eof | ChannelMsg::Close)));
    assert_eq!(run(&leader, "sudo test -e /var/lib/k0s").await.0, 1);
    assert_eq!(run(&leader, "systemctl is-active k0scontroller").await.0, 3);
    assert!(leader.channel_open_direct_tcpip("localhost", 6443, "127.0.0.1", 1).await.is_err());
    twin.with(|world| assert!(world.machines.k0s_clusters.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn three_controllers_keep_a_majority_and_workers_join() {
    let twin = world((1..=4).map(|number| spec(number, &careful_config())).collect());
    let leader = lead(&twin, "").await;
    let [second, third, worker] = [with_k0s(&twin, 2).await, with_k0s(&twin, 3).await, with_k0s(&twin, 4).await];
    // Both at once on a cluster of one: the later one has to try again.
    join(&leader, &second, "controller", "").await;
    join(&leader, &third, "controller", "").await;
    join(&leader, &worker, "worker", "").await;
    until(&twin, &third, "sudo k0s kubectl get --raw=/readyz").await;
    until(&twin, &second, "sudo k0s kubectl get --raw=/readyz").await;
    assert!(ok(&third, "sudo journalctl -u k0scontroller").await.contains("unhealthy cluster"));
    assert_ne!(ok(&third, "systemctl show -p NRestarts --value k0scontroller").await, "0\n");
    let members: serde_json::Value = serde_json::from_str(&ok(&leader, "sudo k0s etcd member-list").await).unwrap();
    assert_eq!(members["members"].as_object().unwrap().len(), 3);
    until(&twin, &leader, &nodes_ready(1)).await;

    ok(&second, "sudo k0s stop").await;
    ok(&leader, "sudo k0s kubectl get --raw=/readyz").await;
    ok(&third, "sudo systemctl stop k0scontroller").await;
    assert_eq!(run(&leader, "sudo k0s kubectl get --raw=/readyz").await.0, 1, "one of three is no majority");
    ok(&third, "sudo systemctl start k0scontroller").await;
    until(&twin, &leader, "sudo k0s kubectl get --raw=/readyz").await;
    ok(&leader, "sudo k0s etcd leave --peer-address=10.0.0.2").await;
    assert_eq!(run(&leader, "sudo k0s etcd leave --peer-address=10.0.0.2").await.0, 1);

    ok(&worker, "sudo k0s stop").await;
    until(&twin, &leader, &nodes_ready(0)).await;
    ok(&worker, "sudo k0s start").await;
    until(&twin, &leader, &nodes_ready(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_and_a_bad_configuration_is_said() {
    let twin = world(vec![spec(1, &careful_config()), spec(2, &careful_config())]);
    let leader = lead(&twin, "").await;
    let worker = with_k0s(&twin, 2).await;
    let token = ok(&leader, "sudo k0s token create --role=worker --expiry=1m").await;
    assert!(ok(&leader, "sudo k0s token list").await.contains("worker"));
    twin.sleep(Duration::from_secs(61)).await;
    assert!(ok(&leader, "sudo k0s token list").await.contains("No k0s join tokens"));
    upload(&worker, "/etc/k0s/token", &token).await;
    ok(&worker, "sudo k0s install worker --token-file=/etc/k0s/token && sudo k0s start").await;
    // It tries for a quarter of an hour before it says so, and reads its token when it begins again.
    twin.sleep(Duration::from_secs(1000)).await;
    assert!(!ok(&worker, "sudo journalctl -u k0sworker").await.contains("401 Unauthorized"));
    twin.sleep(Duration::from_secs(40)).await;
    assert!(ok(&worker, "sudo journalctl -u k0sworker").await.contains("401 Unauthorized"));
    let token = ok(&leader, "sudo k0s token create --role=worker --expiry=1h").await;
    upload(&worker, "/etc/k0s/token", &token).await;
    twin.sleep(Duration::from_secs(500)).await;
    assert_eq!(run(&worker, "sudo test -e /var/lib/k0s/kubelet.conf").await.0, 1);
    ok(&worker, "sudo systemctl restart k0sworker").await;
    until(&twin, &leader, &nodes_ready(1)).await;
    ok(&leader, "sudo k0s kubectl delete node node-2").await;
    ok(&worker, "sudo systemctl restart k0sworker").await;
    until(&twin, &leader, &nodes_ready(1)).await;
    assert_eq!(run(&leader, "sudo k0s token invalidate nobody").await.0, 1);
    ok(&worker, "sudo k0s stop && sudo k0s reset").await;
    upload(&worker, "/etc/k0s/bad.yaml", &CONFIG.replace("address", "adress")).await;
    assert_eq!(run(&worker, "sudo k0s config validate --config /etc/k0s/bad.yaml").await.0, 1);
    ok(&worker, "sudo k0s install controller --config=/etc/k0s/bad.yaml && sudo k0s start").await;
    assert_eq!(run(&worker, "systemctl is-active k0scontroller").await.1, "activating\n");
}

#[tokio::test(start_paused = true)]
async fn k0s_is_held_back_until_the_fault_is_lifted() {
    let twin = world(vec![spec(1, &careful_config())]);
    twin.with(|world| {
        world.faults.active.push(Fault { name: FaultKind::K0sNotReady, target: Some("node-1".into()), times: None });
    });
    let leader = with_k0s(&twin, 1).await;
    ok(&leader, "sudo k0s install controller --enable-worker --no-taints && sudo k0s start").await;
    twin.sleep(Duration::from_secs(600)).await;
    assert_eq!(run(&leader, "sudo k0s kubectl get --raw=/readyz").await.0, 1);
    ok(&leader, "systemctl is-active k0scontroller").await;
    twin.with(|world| world.faults.active.clear());
    until(&twin, &leader, &nodes_ready(1)).await;
}
