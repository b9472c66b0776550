//! What others do to a cluster is named, planned for, and repaired; and a changed configuration is followed.

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{Environment, a_while, configuration};
use deploy::{session::SessionError, task::Phase};
use engine::{Event, Message, StepId};
use tokio::sync::Notify;
use twin::Action;

/// Deploys 3+2, lets something happen, and expects that one difference and its repair.
async fn repaired(text: &str, action: Action, name: &str, subject: &str) {
    let environment = Environment::new(text, 7);
    environment.deploy().await.expect("a deployment");
    assert_eq!(environment.check().await, [], "nothing has happened yet");
    environment.stage.twin.with(|world| action.perform(world)).expect("something happens");
    // Azure itself takes a minute over some of it.
    engine::pause(std::time::Duration::from_secs(300)).await;
    let differences = environment.check().await;
    let named = differences.iter().any(|(found, about)| *found == name && about.contains(subject));
    assert!(named, "{name} of {subject} is not among {differences:?}");
    environment.deploy().await.expect("a repair");
    assert_eq!(environment.check().await, [], "everything is repaired");
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_machine_is_started() {
    let action = Action::StopMachine { machine: "k0s-worker-1".into() };
    repaired(&configuration(3, 2), action, "machine-stopped", "k0s-worker-1").await;
}

#[tokio::test(start_paused = true)]
async fn a_deallocated_controller_is_started() {
    let action = Action::DeallocateMachine { machine: "k0s-controller-2".into() };
    repaired(&configuration(3, 2), action, "machine-stopped", "k0s-controller-2").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_worker_comes_back() {
    let action = Action::DeleteMachine { machine: "k0s-worker-2".into() };
    repaired(&configuration(3, 2), action, "machine-missing", "k0s-worker-2").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_controller_comes_back() {
    let action = Action::DeleteMachine { machine: "k0s-controller-3".into() };
    repaired(&configuration(3, 2), action, "machine-missing", "k0s-controller-3").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_first_controller_comes_back_by_way_of_the_others() {
    let action = Action::DeleteMachine { machine: "k0s-controller-1".into() };
    repaired(&configuration(3, 2), action, "machine-missing", "k0s-controller-1").await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_spot_machine_comes_back() {
    let text = configuration(3, 2)
        + "azure: {vm_priority: Spot, eviction_policy: Delete}\nvm_sizing: {controller: {size: Standard_D2s_v5}, worker: {size: Standard_D2s_v5}}\n";
    repaired(&text, Action::EvictMachine { machine: "k0s-worker-1".into() }, "machine-missing", "k0s-worker-1").await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_rule_is_restored() {
    for rule in ["AllowWireGuard", "AllowSSH"] {
        let action = Action::RemoveRule { rule: rule.into() };
        repaired(&configuration(1, 1), action, "rule-missing", "network security group").await;
    }
}

#[tokio::test(start_paused = true)]
async fn wireguard_is_started_again() {
    let action = Action::StopUnit { machine: "k0s-worker-1".into(), unit: "wg-quick@wg0".into() };
    repaired(&configuration(3, 2), action, "mesh-down", "k0s-worker-1").await;
}

#[tokio::test(start_paused = true)]
async fn k0s_is_started_again() {
    let action = Action::StopUnit { machine: "k0s-worker-1".into(), unit: "k0sworker".into() };
    repaired(&configuration(3, 2), action, "k0s-down", "k0s-worker-1").await;
}

#[tokio::test(start_paused = true)]
async fn the_cluster_grows_and_shrinks_and_nobody_else_is_touched() {
    let mut environment = Environment::new(&configuration(3, 2), 7);
    environment.deploy().await.expect("a deployment");
    let mut scale = async |workers: u16| {
        let before = environment.ledger(|_| true) as u64;
        environment.configure(&configuration(3, workers));
        environment.deploy().await.expect("another size");
        let changes = |entry: &&twin::Entry| {
            entry.sequence >= before
                && entry.object.contains("/providers/")
                && ["created", "deleted"].contains(&entry.verb.as_str())
        };
        environment.stage.twin.with(|world| {
            let changed = world.ledger.entries.iter().filter(changes);
            let touched: BTreeSet<String> = changed
                .filter_map(|entry| entry.object.rsplit('/').next())
                .map(|name| {
                    name.trim_end_matches("-nic").trim_end_matches("-pip").trim_end_matches("-osdisk").to_owned()
                })
                .collect();
            touched.into_iter().collect::<Vec<_>>()
        })
    };
    assert_eq!(scale(5).await, ["k0s-worker-3", "k0s-worker-4", "k0s-worker-5"]);
    assert_eq!(scale(3).await, ["k0s-worker-4", "k0s-worker-5"]);
    assert_eq!(environment.check().await, []);
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn controllers_come_and_go_one_at_a_time() {
    let mut environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    for controllers in [3, 1] {
        environment.configure(&configuration(controllers, 1));
        environment.deploy().await.expect("another number of controllers");
        assert_eq!(environment.check().await, []);
    }
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_built_in_is_refused_before_anything_is_touched() {
    let mut environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    let before = environment.ledger(|entry| entry.kind == "change" && entry.actor == "arm");
    environment.configure(&(configuration(1, 1) + "ssh: {username: ada}\n"));
    let Err(SessionError::Failed(refusals)) = environment.deploy().await else { panic!("not refused") };
    assert!(refusals[0].message.starts_with("ssh.username cannot change"), "{refusals:?}");
    assert_eq!(environment.ledger(|entry| entry.kind == "change" && entry.actor == "arm"), before);
    environment.configure(&configuration(1, 1));
    assert_eq!(environment.deploy().await.expect("as before").steps_run, 0);
}

fn tags_of(environment: &Environment) -> Vec<serde_json::Value> {
    environment.stage.twin.with(|world| twin::azure::resources(world))
}

/// Somebody writes the tags of a resource anew.
fn retag(environment: &Environment, resource: &serde_json::Value, change: impl FnOnce(&mut serde_json::Value)) {
    let mut tags = resource["tags"].clone();
    change(&mut tags);
    let path = format!("{}/providers/Microsoft.Resources/tags/default", resource["id"].as_str().expect("an id"));
    let action = Action::Put { path, body: serde_json::json!({"properties": {"tags": tags}}) };
    environment.stage.twin.with(|world| action.perform(world)).expect("other tags");
}

#[tokio::test(start_paused = true)]
async fn changed_tags_are_followed_in_place_and_those_of_others_stay() {
    let with_tags = |tags: &str| configuration(1, 1) + &format!("azure: {{tags: {tags}}}\n");
    let mut environment = Environment::new(&with_tags("{Team: storage, Env: dev}"), 7);
    environment.deploy().await.expect("a deployment");
    for resource in tags_of(&environment) {
        retag(&environment, &resource, |tags| tags["theirs"] = "kept".into());
    }
    assert_eq!(environment.check().await, [], "the tags of others are no difference");
    environment.configure(&with_tags("{Team: compute}"));
    let config = deploy::config::load(&with_tags("{Team: compute}")).expect("a good configuration").config;
    let planned = environment.session(deploy::task::Phase::K0rdent).plan(&config).await.expect("a plan");
    let [change] = &planned.preview.changes[..] else { panic!("{:?}", planned.preview.changes) };
    let number = tags_of(&environment).len();
    assert_eq!((change.kind, change.name.as_str()), ("tags of", format!("{number} resources").as_str()));
    let why = change.why.clone().expect("a reason");
    assert!(why.contains("Team=compute is not set") && why.contains("Env=dev is not wanted any more"), "{why}");
    let writes =
        environment.ledger(|entry| entry.actor == "arm" && ["PUT", "POST", "DELETE"].contains(&entry.verb.as_str()));
    environment.deploy().await.expect("other tags");
    for resource in tags_of(&environment) {
        let tags = &resource["tags"];
        let seen = (tags["Team"].as_str(), tags["Env"].as_str(), tags["theirs"].as_str());
        assert_eq!(seen, (Some("compute"), None, Some("kept")), "{resource}");
    }
    let written =
        environment.ledger(|entry| entry.actor == "arm" && ["PUT", "POST", "DELETE"].contains(&entry.verb.as_str()));
    assert_eq!(written, writes, "nothing is made anew");
    assert_eq!(environment.deploy().await.expect("as before").steps_run, 0);
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_tag_of_ours_that_somebody_has_removed_comes_back() {
    let environment = Environment::new(&(configuration(1, 1) + "azure: {tags: {Team: storage}}\n"), 7);
    environment.deploy().await.expect("a deployment");
    let interface = tags_of(&environment).into_iter().find(|resource| resource["name"] == "k0s-worker-1-nic");
    retag(&environment, &interface.expect("an interface"), |tags| {
        let tags = tags.as_object_mut().expect("tags");
        tags.remove("Team");
        tags.insert("k0rdent-node".to_owned(), "another".into());
    });
    assert_eq!(environment.check().await, [("tags-changed", "tags of what exists".to_owned())]);
    environment.deploy().await.expect("a repair");
    assert_eq!(environment.check().await, []);
    let interface = tags_of(&environment).into_iter().find(|resource| resource["name"] == "k0s-worker-1-nic");
    let tags = interface.expect("an interface")["tags"].clone();
    assert_eq!((tags["Team"].as_str(), tags["k0rdent-node"].as_str()), (Some("storage"), Some("k0s-worker-1")));
}

/// A resource by its name, as it is now.
fn resource(environment: &Environment, name: &str) -> Option<serde_json::Value> {
    tags_of(environment).into_iter().find(|resource| resource["name"] == name)
}

/// Somebody creates an address or an interface that was there before.
fn put(environment: &Environment, resource: &serde_json::Value) {
    let id = resource["id"].as_str().expect("an id");
    let (group, _) = id.split_once("/providers/").expect("the id of a resource");
    let cluster = resource["tags"]["k0rdent-cluster-id"].as_str().expect("a cluster");
    let properties = if id.ends_with("-pip") {
        serde_json::json!({"publicIPAllocationMethod": "Static"})
    } else {
        let network = format!("{group}/providers/Microsoft.Network/virtualNetworks/{cluster}-vnet");
        let subnet = serde_json::json!({"id": format!("{network}/subnets/{cluster}-subnet")});
        serde_json::json!({"ipConfigurations": [{"name": "primary", "properties": {"subnet": subnet}}]})
    };
    let body = serde_json::json!({
        "location": "westus2", "tags": resource["tags"], "sku": {"name": "Standard"}, "properties": properties,
    });
    let action = Action::Put { path: id.to_owned(), body };
    environment.stage.twin.with(|world| action.perform(world)).expect("something is put");
}

/// The machine is gone, and of what belonged to it these are left, as after a deletion that stopped half-way.
async fn only_left_of(environment: &Environment, machine: &str, parts: &[&str]) {
    let name = |part: &&str| format!("{machine}-{part}");
    let left: Vec<_> = parts.iter().map(|part| resource(environment, &name(part)).expect("it is there")).collect();
    environment.delete(machine);
    a_while().await;
    assert!(parts.iter().all(|part| resource(environment, &name(part)).is_none()), "they go with the machine");
    left.iter().for_each(|left| put(environment, left));
    a_while().await;
}

/// The members of etcd, as the first controller says.
async fn members(environment: &Environment) -> String {
    let deployment = environment.session(Phase::K0rdent).look().await.expect("a look");
    let remote = deployment.remote(0).await.expect("a way in");
    let asked = remote.try_run("sudo /usr/local/bin/k0s etcd member-list", None, Duration::from_secs(60));
    asked.await.expect("an answer").stdout
}

/// A run may have ended after a machine was gone: what belonged to it is nobody's, and goes.
#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_machine_that_is_not_wanted_goes() {
    let mut environment = Environment::new(&configuration(1, 2), 7);
    environment.deploy().await.expect("a deployment");
    only_left_of(&environment, "k0s-worker-2", &["pip", "nic"]).await;
    environment.configure(&configuration(1, 1));
    environment.deploy().await.expect("a smaller cluster");
    for part in ["pip", "nic"] {
        assert_eq!(resource(&environment, &format!("k0s-worker-2-{part}")), None);
    }
    assert_eq!(environment.check().await, []);
    assert_eq!(environment.deploy().await.expect("nothing to do").steps_run, 0);
    environment.reset_to_nothing().await;
}

/// etcd knows a controller by its name, too. Those that are gone leave first: they count for the majority that the others
/// need to leave.
#[tokio::test(start_paused = true)]
async fn controllers_that_are_gone_leave_etcd_first() {
    for parts in [&["pip"][..], &[]] {
        let mut environment = Environment::new(&configuration(3, 1), 7);
        environment.deploy().await.expect("a deployment");
        only_left_of(&environment, "k0s-controller-3", parts).await;
        assert_eq!(members(&environment).await.matches("k0s-controller-").count(), 3, "nobody has told etcd");
        environment.configure(&configuration(1, 1));
        environment.deploy().await.expect("a smaller cluster");
        assert_eq!(members(&environment).await.matches("k0s-controller-").count(), 1);
        assert_eq!(resource(&environment, "k0s-controller-3-pip"), None);
        assert_eq!(environment.check().await, []);
        environment.reset_to_nothing().await;
    }
}

/// A run that takes a machine away may be killed before it hears that the machine is gone. What held there is not missing:
/// nobody says that it was lost, whoever wants it again.
#[tokio::test(start_paused = true)]
async fn what_was_taken_away_by_a_run_that_was_killed_is_not_lost() {
    for (more, fewer, machine) in
        [((3, 1), (1, 1), "k0s-controller-2"), ((3, 1), (1, 1), "k0s-controller-3"), ((1, 2), (1, 1), "k0s-worker-2")]
    {
        let mut environment = Environment::new(&configuration(more.0, more.1), 7);
        environment.deploy().await.expect("a deployment");
        environment.configure(&configuration(fewer.0, fewer.1));
        let step = StepId::new(format!("k0s/{machine}/delete"));
        let is_deleting = Notify::new();
        let listener = |message: &Message| {
            if matches!(message, Message::Recorded(record) if matches!(&record.event, Event::Intended { step: of, .. } if *of == step))
            {
                is_deleting.notify_one();
            }
        };
        tokio::select! {
            biased;
            ended = environment.deploy_heard(Phase::K0rdent, &listener) => panic!("not killed: {ended:?}"),
            () = async { is_deleting.notified().await; engine::pause(Duration::from_secs(2)).await } => {}
        }
        a_while().await;
        environment.deploy().await.expect("a deployment");
        assert_eq!(environment.check().await, []);
        environment.configure(&configuration(more.0, more.1));
        assert_eq!(environment.check().await, [], "{machine} was taken away, and not lost");
        environment.deploy().await.expect("the machine is wanted again");
        assert_eq!(environment.check().await, []);
        assert_eq!(environment.clusters(), 1);
    }
}

/// The documents hold private keys, which nobody needs once their machine is gone.
#[tokio::test(start_paused = true)]
async fn the_documents_of_machines_that_are_gone_go_too() {
    let mut environment = Environment::new(&configuration(1, 2), 7);
    environment.deploy().await.expect("a deployment");
    let documents = |environment: &Environment| {
        let entries = fs_err::read_dir(environment.home().join("cloud-init-yaml")).expect("a directory").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let (state, _) = environment.session(Phase::K0rdent).recorded().expect("a journal").expect("records");
        let recorded =
            state.artifacts.into_keys().filter_map(|file| Some(file.strip_prefix("cloud-init-yaml/")?.to_owned()));
        assert_eq!(recorded.collect::<Vec<_>>(), names, "what is recorded is what is there");
        names.iter().map(|name| name.trim_end_matches("-cloud-init.yaml").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(documents(&environment), ["k0s-controller-1", "k0s-worker-1", "k0s-worker-2"]);
    environment.configure(&configuration(1, 1));
    environment.deploy().await.expect("a smaller cluster");
    assert_eq!(documents(&environment), ["k0s-controller-1", "k0s-worker-1"]);
}

/// What k0rdent says about itself is kept, also where it never becomes what was wanted.
#[tokio::test(start_paused = true)]
async fn what_a_management_object_says_that_is_not_ready_is_kept() {
    let environment = Environment::new(&configuration(1, 1), 7);
    let component = twin::Fault {
        name: twin::FaultKind::ComponentFailure,
        target: Some("cluster-api-provider-azure".into()),
        times: None,
    };
    environment.set_faults(&[component]);
    environment.deploy().await.expect_err("it never becomes ready");
    let status = deploy::session::status_of(environment.home()).expect("a status");
    assert!(status.milestones.k0rdent_installed && !status.milestones.k0rdent_ready, "{status:?}");
    let management = status.management.expect("what it said");
    let failing: Vec<_> = management.components.iter().filter(|component| !component.success).collect();
    let [failing] = &failing[..] else { panic!("{management:?}") };
    assert_eq!(failing.name, "cluster-api-provider-azure");
    assert!(failing.error.is_some(), "{failing:?}");
    assert_eq!((management.ready, management.deleting), (false, false));
    assert_eq!(management.message, "Components not ready: [cluster-api-provider-azure]");
    let exported = fs_err::read_to_string(environment.home().join("deployment-state.yaml")).expect("the state");
    let section: Vec<_> = exported.lines().skip_while(|line| *line != "management:").take(60).collect();
    assert!(section.contains(&"  ready: false") && exported.contains(&management.message), "{section:?}");
    assert!(section.iter().any(|line| line.starts_with("  release: ")), "{section:?}");
    environment.set_faults(&[]);
    let finished = environment.deploy().await.expect("it becomes ready");
    assert!(finished.status.management.is_some_and(|management| management.ready));
}

/// An object that is on its way out is neither missing nor not ready.
#[tokio::test(start_paused = true)]
async fn a_management_object_that_is_being_deleted_is_called_so() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    let deployment = environment.session(Phase::K0rdent).look().await.expect("a look");
    let kubernetes = deployment.kubernetes().await.expect("a way in");
    let management = deploy::kubernetes::MANAGEMENT;
    kubernetes.delete(&engine::Intent::for_tests(), management, None, "kcm").await.expect("a deletion that begins");
    let drift = environment.session(Phase::K0rdent).check().await.expect("a look at the world");
    let [difference] = &drift.differences[..] else { panic!("{drift:?}") };
    let told = (difference.kind.name(), difference.subject.as_str(), difference.cause.as_str());
    assert_eq!(told, ("management-deleting", "k0rdent Management", "it is being deleted"));
}
