//! Every configuration key does something that can be seen, or whoever sets it is told that it does nothing.

mod common;

use std::collections::BTreeSet;

use common::{Environment, run};
use deploy::{
    config::{self, Config, Field, Kind, Setting as _},
    session::{Session, Watching},
    task::Phase,
};
use engine::Stop;
use rehearsal::Stage;
use tokio::sync::watch;

/// Keys that are for the readers of the file, or that only commands follow which are not a deployment; with the test
/// that shows it.
const ELSEWHERE: &[&str] = &[
    // A note for whoever reads the file.
    "metadata.description",
    // k0rdentctl's teardown tests: `protect: true` refuses.
    "protect",
    // deploy's archive tests.
    "archive.retention_days",
    // The deadline of steps that only a reset has.
    "timeouts.reset_minutes",
    // The login: the twin has one subscription and one tenant.
    "azure.subscription_id",
    "azure.tenant_id",
    // deploy's tests of the layout.
    "metadata.version",
    "metadata.schema",
    // rehearsal/tests/ways.rs: how long connections and commands may take.
    "timeouts.ssh_connect",
    "timeouts.ssh_command",
    // rehearsal/tests/hosts.rs, with the keys of hosts and bastions.
    "hosts",
    "ssh.bastions",
    "provider",
];

/// Burstable machines are never Spot machines.
const SPOT: &str =
    "azure.vm_priority: Spot\nvm_sizing.controller.size: Standard_D2s_v5\nvm_sizing.worker.size: Standard_D2s_v5";

const DIGEST: &str = "software.k0s.sha256.amd64: 'a123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'";

/// Another value than the default, and what must be so beside it, before and after.
fn other_value(key: &str) -> Option<(&'static str, &'static str)> {
    let value = match key {
        "metadata.owner" => "ada",
        "azure.location" => "eastus",
        "azure.vm_image" => "Debian:debian-12:12-gen2:0.20250703.2162",
        "azure.vm_priority" => "Spot",
        "azure.eviction_policy" => return Some(("Delete", SPOT)),
        "azure.os_disk_gb" => "128",
        "azure.tags" => "{team: storage}",
        "azure.ssh_allowed_from" => "[198.51.100.0/24]",
        "network.vnet_prefix" => "10.0.0.0/17",
        "network.subnet_prefix" => "10.0.2.0/24",
        "network.wireguard_network" => "192.168.101.0/24",
        "network.mesh_port" => "5000",
        "network.pod_cidr" => "10.245.0.0/16",
        "network.service_cidr" => "10.112.0.0/12",
        "network.calico_mtu" => "1400",
        "proxy.http" | "proxy.https" => "'http://proxy.example:3128'",
        "proxy.no_proxy" => return Some(("[.corp]", "proxy.http: 'http://proxy.example:3128'")),
        "vm_sizing.controller.size" | "vm_sizing.worker.size" => "Standard_D2s_v5",
        "cluster.controllers.count" | "cluster.workers.count" => "3",
        "cluster.controllers.zones" | "cluster.workers.zones" => "[2]",
        "cluster.controllers.run_workloads" => "true",
        "ssh.username" => "ada",
        "software.k0s.version" => "v1.32.1+k0s.0",
        "software.k0s.download_url" => return Some(("https://example.org/k0s", DIGEST)),
        "software.k0s.sha256.amd64" | "software.k0s.sha256.arm64" => {
            "b123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
        }
        "software.k0s.binary" => "/opt/k0s",
        "software.k0s.airgap_bundle" => "/opt/images.tar",
        "software.k0rdent.version" => "1.0.0",
        "software.k0rdent.registry" => "oci://registry.example.org/kcm/charts/kcm",
        "software.k0rdent.namespace" => "kcm",
        "software.k0rdent.providers" => "[cluster-api-provider-azure]",
        "timeouts.cloud_init_timeout" => "1200",
        "timeouts.vm_creation_minutes" => "20",
        _ if key.starts_with("timeouts.") => "77",
        "kof.enabled" => "true",
        "kof.mothership.collectors.global" => "{a: b}",
        "kof.regional.cp_instance_size" | "kof.regional.worker_instance_size" => "Standard_D2s_v5",
        "kof.regional.location" => "eastus",
        "kof.version" | "kof.istio.version" => "1.2.0",
        _ if key.starts_with("kof.mothership.") && key.contains("retr") => "77",
        "kof.regional.root_volume_size" => "77",
        "kof.regional.domain" => "kof.example.org",
        "kof.regional.admin_email" => "ada@example.org",
        _ if key.starts_with("kof.") || key.starts_with("ssh.") => "other",
        _ => return None,
    };
    Some((value, ""))
}

/// Every key that is not a section, but for the keys of items of lists.
fn keys(path: &str, fields: &'static [Field], found: &mut Vec<String>) {
    for field in fields {
        let key = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        match field.kind {
            Kind::Section(fields) => keys(&key, fields, found),
            _ => found.push(key),
        }
    }
}

/// `a.b.c: value` as YAML, for several such lines.
fn yaml(lines: &[String]) -> String {
    let mut root = serde_json::Map::new();
    for line in lines.iter().flat_map(|lines| lines.lines()) {
        let (key, value) = line.split_once(": ").expect("a key and a value");
        let mut section = &mut root;
        let words: Vec<&str> = key.split('.').collect();
        let (last, sections) = words.split_last().expect("a word");
        for word in sections {
            section =
                section.entry((*word).to_owned()).or_insert_with(|| serde_json::json!({})).as_object_mut().unwrap();
        }
        section.insert((*last).to_owned(), serde_saphyr::from_str(value).expect("a value"));
    }
    serde_json::to_string(&root).expect("YAML")
}

fn planned(steps: &[engine::PlannedStep]) -> BTreeSet<String> {
    steps.iter().map(|step| serde_json::to_string(step).expect("a step")).collect()
}

/// What a deployment plans, without looking at any world.
async fn plan(text: &str) -> BTreeSet<String> {
    let config = config::load(text).expect("a good configuration").config;
    let home = tempfile::tempdir().expect("a directory");
    let session = Session::new(Stage::new(7).settings(home.path(), Phase::K0rdent));
    planned(&session.plan(&config).await.expect("a plan").plan.steps)
}

/// What there is in Azure after a deployment, or as much of one as is possible.
async fn deployed(text: &str) -> BTreeSet<String> {
    let config: Config = config::load(text).expect("a good configuration").config;
    let stage = Stage::new(7).with_files_of(&config);
    let home = tempfile::tempdir().expect("a directory");
    let (_go_on, stop) = watch::channel(Stop::No);
    let listener = |_: &engine::Message| {};
    let session = Session::new(stage.settings(home.path(), Phase::K0rdent));
    let finished = session.deploy(text, &config, Watching { stop, listener: &listener, faults: None }).await;
    let seen = stage.twin.with(|world| [twin::azure::resources(world), twin::azure::bodies(world)].concat());
    let mut seen: BTreeSet<String> = seen.iter().map(ToString::to_string).collect();
    seen.insert(format!("{:?}", finished.err()));
    seen
}

#[tokio::test(start_paused = true)]
async fn the_group_and_everything_in_it_have_the_tags_that_are_wanted() {
    let text = "azure: {tags: {cost-center: 007, Team: 'a & b', K0rdent-Cluster-Id: mine}}\n";
    let seen = Environment::new(text, 7);
    seen.deploy_until(Phase::Machines).await.expect("a deployment");
    let resources = seen.stage.twin.with(|world| twin::azure::resources(world));
    let ours = resources.iter().filter(|resource| resource["type"] != "Microsoft.Compute/disks");
    for resource in ours {
        let tags = &resource["tags"];
        assert_eq!((tags["cost-center"].as_str(), tags["Team"].as_str()), (Some("007"), Some("a & b")), "{resource}");
        assert!(tags["k0rdent-cluster-id"].as_str().is_some_and(|id| id != "mine"), "{resource}");
        assert!(tags["K0rdent-Cluster-Id"].is_null(), "{resource}");
    }
    assert!(resources.len() > 8, "{resources:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rehearsal_begins_where_ssh_is_allowed_from() {
    for range in ["198.51.100.0/24", "192.0.2.7/32"] {
        let report = run(&format!("azure: {{ssh_allowed_from: [{range}]}}\n"), 7).await;
        assert_eq!((report.outcome, report.failures), ("succeeded", Vec::new()), "{range}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_key_does_something_or_its_author_is_told() {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    let Kind::Section(fields) = Config::KIND else { panic!("a section") };
    keys("", fields, &mut all);
    assert!(all.len() > 60, "{all:?}");
    for key in all.iter().filter(|key| !ELSEWHERE.contains(&key.as_str())) {
        let (value, beside) = other_value(key).unwrap_or_else(|| panic!("say another value for {key}"));
        let before = yaml(&[beside.to_owned()]);
        let after = yaml(&[beside.to_owned(), format!("{key}: {value}")]);
        let loaded = config::load(&after).unwrap_or_else(|problems| panic!("{key}: {problems:?}"));
        let told = loaded.warnings.iter().any(|problem| {
            problem.message.starts_with("has no effect") && (problem.key == *key || problem.message.contains(key))
        });
        let does =
            plan(&before).await != plan(&after).await || (!told && deployed(&before).await != deployed(&after).await);
        match (does, told) {
            (false, false) => wrong.push(format!("{key} does nothing, and nobody is told")),
            (true, true) => wrong.push(format!("{key} does something, and is called idle")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The bodies of the resources of that type.
fn bodies(environment: &Environment, kind: &str) -> Vec<serde_json::Value> {
    let bodies = environment.stage.twin.with(|world| twin::azure::bodies(world));
    bodies.into_iter().filter(|body| body["type"] == kind).collect()
}

#[tokio::test(start_paused = true)]
async fn a_region_without_zones_has_machines_without_one() {
    let with = |zones: &str| {
        format!(
            "azure: {{location: westcentralus}}\ncluster: {{controllers: {{zones: {zones}}}, workers: {{zones: {zones}}}}}\n"
        )
    };
    let mut environment = Environment::new(&with("[1]"), 7);
    let refusal = common::refusal(environment.deploy().await);
    let told = "zones: need 1; have none: westcentralus has no availability zones. Set cluster.controllers.zones and cluster.workers.zones to [] in the configuration";
    assert!(refusal.message.contains(told), "{}", refusal.message);
    environment.configure(&with("[]"));
    let finished = environment.deploy().await.expect("a deployment");
    let zones: Vec<Option<u64>> = finished.status.nodes.iter().map(|node| node.zone).collect();
    assert_eq!(zones, [None, None]);
    for kind in ["Microsoft.Compute/virtualMachines", "Microsoft.Compute/disks", "Microsoft.Network/publicIPAddresses"]
    {
        let bodies = bodies(&environment, kind);
        assert!(bodies.len() == 2 && bodies.iter().all(|body| body.get("zones").is_none()), "{bodies:?}");
    }
    assert_eq!(environment.check().await, []);
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn machines_are_made_from_one_version_of_an_own_image() {
    let gallery = format!(
        "/subscriptions/{}/resourceGroups/images/providers/Microsoft.Compute/galleries/own",
        twin::azure::SUBSCRIPTION
    );
    let image = format!("{gallery}/images/debian");
    let mut environment = Environment::new(&format!("azure: {{vm_image: {image}}}\n"), 7);
    let refusal = common::refusal(environment.deploy().await);
    assert!(refusal.message.contains("image: need") && refusal.message.contains(&image), "{}", refusal.message);
    let put = |path: String, properties: serde_json::Value| {
        let body = serde_json::json!({"location": "westus2", "properties": properties});
        environment
            .stage
            .twin
            .with(|world| twin::Action::Put { path, body }.perform(world))
            .expect("something of theirs");
    };
    put(gallery.split("/providers/").next().expect("a group").to_owned(), serde_json::json!({}));
    put(gallery.clone(), serde_json::json!({}));
    put(image.clone(), serde_json::json!({"osType": "Linux", "architecture": "x64", "hyperVGeneration": "V2"}));
    let regions = |name: &str| serde_json::json!({"publishingProfile": {"targetRegions": [{"name": name}]}});
    put(format!("{image}/versions/1.9.0"), regions("West US 2"));
    put(format!("{image}/versions/1.10.0"), regions("West US 2"));
    put(format!("{image}/versions/2.0.0"), regions("East US"));
    environment.deploy_until(Phase::Machines).await.expect("machines");
    let machines = bodies(&environment, "Microsoft.Compute/virtualMachines");
    assert_eq!(machines.len(), 2);
    for machine in machines {
        let reference = &machine["properties"]["storageProfile"]["imageReference"];
        assert_eq!(reference["id"], format!("{image}/versions/1.10.0"), "{reference}");
    }
    environment.configure("azure: {vm_image: 'Debian:debian-12:12-gen2:latest'}\n");
    assert!(common::refusal(environment.deploy().await).message.starts_with("azure.vm_image cannot change"));
}

#[tokio::test(start_paused = true)]
async fn machines_of_one_run_are_made_from_one_version_of_the_image() {
    let environment = Environment::new("{}\n", 7);
    environment.deploy_until(Phase::Machines).await.expect("machines");
    for machine in bodies(&environment, "Microsoft.Compute/virtualMachines") {
        let reference = &machine["properties"]["storageProfile"]["imageReference"];
        assert_eq!(reference["version"], reference["exactVersion"], "{reference}");
    }
}
