//! Teardowns that always end, with evidence: by force when everything is broken, in one request when that is safe, and
//! never at the expense of others.

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{Environment, configuration};
use deploy::{
    recipe::Manner,
    session::{Deletion, Finished, SessionError, Teardown},
    task::Phase,
    topology::ClusterId,
};
use engine::{Event, FailureKind, Journal, Stop};
use serde_json::{Value, json};
use twin::{Action, Fault, FaultKind, azure::SUBSCRIPTION};

/// A key of somebody else (its private half was thrown away).
const PUBLIC_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJmvB0gV1lT3nEyk0ZJ0zV3wJrZ2h8Qk2bV5uJ7cXx1A colleague";

fn manner(manner: Manner) -> Teardown {
    Teardown { manner, ..Teardown::default() }
}

fn forced(cluster: &ClusterId) -> Teardown {
    let subscription = Some(SUBSCRIPTION.to_owned());
    Teardown { manner: Manner::Force, cluster: Some(cluster.clone()), subscription }
}

fn fault(name: FaultKind, target: &str) -> Fault {
    Fault { name, target: (!target.is_empty()).then(|| target.to_owned()), times: None }
}

impl Environment {
    fn cluster(&self) -> ClusterId {
        let (state, _) = self.session(Phase::K0rdent).recorded().expect("a journal").expect("records");
        deploy::session::cluster_id(&state).expect("a cluster")
    }

    /// Somebody creates or changes something.
    fn put(&self, path: &str, body: Value) {
        let path = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{path}");
        self.stage.twin.with(|world| Action::Put { path, body }.perform(world)).expect("something is put");
    }

    fn act(&self, action: &Action) {
        self.stage.twin.with(|world| action.perform(world)).expect("something happens");
    }

    fn ids(&self) -> BTreeSet<String> {
        let all = self.stage.twin.with(|world| twin::azure::resources(world));
        all.iter().filter_map(|resource| Some(resource["id"].as_str()?.to_owned())).collect()
    }

    /// What the world has changed, by whomever, since that many lines of its ledger.
    fn changes_since(&self, line: usize) -> usize {
        self.stage.twin.with(|world| world.ledger.entries[line..].iter().filter(|entry| entry.kind == "change").count())
    }

    fn lines(&self) -> usize {
        self.ledger(|_| true)
    }
}

fn group(cluster: &ClusterId) -> String {
    format!("{cluster}-resgrp")
}

/// A disk of somebody else in our group.
fn stranger(environment: &Environment, cluster: &ClusterId) -> String {
    let path = format!("{}/providers/Microsoft.Compute/disks/photos", group(cluster));
    let disk =
        json!({"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 32}});
    environment.put(&path, disk);
    path
}

fn refusals(result: Result<Finished, SessionError>) -> String {
    let Err(SessionError::Failed(failures)) = result else { panic!("not refused: {result:?}") };
    assert!(failures.iter().all(|failure| failure.kind == FailureKind::Refused), "{failures:?}");
    failures.into_iter().map(|failure| failure.message).collect::<Vec<_>>().join("\n")
}

/// From each station of the road: nothing is left anywhere, and the next deployment works.
async fn from_every_station(how: Manner) {
    for station in Phase::DEPLOY {
        let environment = Environment::new(&configuration(1, 1), 7);
        environment.deploy_until(station).await.expect("a part of a deployment");
        environment.reset_as(&manner(how)).await.unwrap_or_else(|error| panic!("{how:?} from {station:?}: {error}"));
        environment.nothing_is_left();
        environment.deploy_until(Phase::Infrastructure).await.expect("something new");
        environment.reset_to_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn by_force_from_every_station() {
    from_every_station(Manner::Force).await;
}

#[tokio::test(start_paused = true)]
async fn fast_from_every_station() {
    from_every_station(Manner::Fast).await;
}

#[tokio::test(start_paused = true)]
async fn fast_asks_the_cluster_for_its_children_and_nothing_else() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    let before = environment.ledger(|entry| entry.actor != "arm" && entry.actor != "login" && entry.kind == "request");
    environment.reset_as(&manner(Manner::Fast)).await.expect("a teardown");
    let after = environment.ledger(|entry| entry.actor != "arm" && entry.actor != "login" && entry.kind == "request");
    let asked = environment.stage.twin.with(|world| {
        let others = world.ledger.entries.iter();
        let others = others.filter(|entry| entry.actor != "arm" && entry.actor != "login" && entry.kind == "request");
        others.skip(before).map(|entry| format!("{} {}", entry.verb, entry.object)).collect::<Vec<_>>()
    });
    assert_eq!(asked.iter().filter(|asked| asked.contains("clusterdeployments")).count(), 1, "{asked:?}");
    assert!(after - before <= 3, "a way in, and one question: {asked:?}");
    environment.nothing_is_left();
}

/// The whole wall falls at once; what remains is the cluster's name and a login.
#[tokio::test(start_paused = true)]
async fn everything_is_broken_at_once() {
    let environment = Environment::new(&configuration(3, 2), 7);
    environment.deploy().await.expect("a deployment");
    let cluster = environment.cluster();
    for machine in ["k0s-controller-2", "k0s-controller-3", "k0s-worker-1", "k0s-worker-2"] {
        environment.act(&Action::StopUnit { machine: machine.into(), unit: "wg-quick@wg0".into() });
    }
    environment.act(&Action::DeleteMachine { machine: "k0s-controller-1".into() });
    engine::pause(Duration::from_secs(300)).await;
    environment.set_faults(&[fault(FaultKind::SshHang, ""), fault(FaultKind::ApiServerHang, "")]);
    for file in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
        let _not_there = fs_err::remove_file(environment.home().join(file));
    }
    let (began, line) = (environment.stage.twin.now(), environment.lines());
    let finished = environment.reset_as(&forced(&cluster)).await.expect("a teardown");
    let took = environment.stage.twin.now() - began;
    let deletion = environment.stage.twin.with(|world| {
        let entries = &world.ledger.entries[line..];
        let of_group = |entry: &&twin::Entry| entry.object.ends_with(&group(&cluster));
        let asked = entries.iter().filter(of_group).find(|entry| entry.verb == "DELETE").expect("it was asked for");
        let gone = entries.iter().filter(of_group).find(|entry| entry.verb == "deleted").expect("it is gone");
        Duration::from_secs_f64(gone.at_seconds - asked.at_seconds)
    });
    assert!(took - deletion < Duration::from_secs(180), "{took:?}, of which {deletion:?} for the group");
    let skipped = finished.skipped.join("\n");
    assert!(skipped.contains("k0rdent and k0s are not uninstalled"), "{skipped}");
    assert!(skipped.contains("child clusters were not looked for: "), "{skipped}");
    environment.nothing_is_left();
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_in_discovery_does_not_hold_up_force() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    environment.set_faults(&[fault(FaultKind::ApiServerHang, "/api")]);
    let finished = environment.reset_as(&manner(Manner::Force)).await.expect("a teardown");
    assert!(finished.skipped.iter().any(|reason| reason.contains("within 30 s")), "{finished:?}");
    environment.nothing_is_left();
}

/// Nothing is known but the name: another computer, another directory.
#[tokio::test(start_paused = true)]
async fn from_another_host() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    let cluster = environment.cluster();
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let session = deploy::session::Session::new(environment.stage.settings(elsewhere.path(), Phase::K0rdent));
    let plan = session.teardown_plan(&forced(&cluster)).await.expect("a look").expect("a plan");
    assert_eq!(plan.found.len(), environment.ids().len());
    assert!(plan.cost.usd_per_hour > 0.08 && plan.cost.unknown == 0, "{:?}", plan.cost);
    assert!(plan.skipped.iter().any(|reason| reason.contains("keys.json")), "{:?}", plan.skipped);
    assert_eq!(fs_err::read_dir(elsewhere.path()).expect("a directory").count(), 0, "a plan touches nothing");
    let (_go_on, stop) = tokio::sync::watch::channel(Stop::No);
    let watching = deploy::session::Watching { stop, listener: &|_| {}, faults: None };
    session.reset(&forced(&cluster), watching).await.expect("a teardown");
    assert_eq!(environment.ids(), BTreeSet::new());
    let left = fs_err::read_dir(elsewhere.path()).expect("a directory").flatten().map(|entry| entry.file_name());
    let left: BTreeSet<_> = left.collect();
    assert_eq!(left.iter().collect::<Vec<_>>(), [".gitignore", "README", "old_deployments"]);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_is_moved_into_the_archive() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
    let cluster = environment.cluster();
    let journal = environment.home().join("journal.sqlite");
    for file in ["journal.sqlite-wal", "journal.sqlite-shm"] {
        let _not_there = fs_err::remove_file(environment.home().join(file));
    }
    fs_err::write(&journal, "not a database, but long enough to be taken for one ".repeat(200)).expect("a file");
    fs_err::write(environment.home().join("k0rdent.yaml"), "azure: [").expect("a file");
    let Err(SessionError::Journal(error)) = environment.reset().await else { panic!("not refused") };
    assert!(error.is_damage(), "{error}");
    let other = ClusterId::parse("k0rdent-somebody").expect("a name");
    let Err(SessionError::BadFile { reason, .. }) = environment.reset_as(&forced(&other)).await else {
        panic!("not refused")
    };
    assert!(reason.starts_with(&format!("these are the files of {cluster}, not of {other}")), "{reason}");
    environment.reset_as(&manner(Manner::Force)).await.expect("a teardown: the keys name the cluster");
    environment.nothing_is_left();
    let archives = fs_err::read_dir(environment.home().join("old_deployments")).expect("archives").flatten();
    let damaged = archives.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("/damaged_"));
    let damaged = damaged.expect("the damaged files");
    assert!(damaged.join("journal.sqlite").exists() && damaged.join("k0rdent.yaml").exists());
}

/// Addresses would be dealt anew, and hosts that are claimed forgotten.
#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_never_taken_for_nothing() {
    for key in ["positions", "hosts", "children"] {
        let environment = Environment::new(&configuration(1, 1), 7);
        environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
        let settings = environment.stage.settings(environment.home(), Phase::K0rdent);
        let journal = Journal::open_to_write(environment.home(), &settings.holder, settings.durability);
        let record = Event::Settled { key: key.to_owned(), value: json!({"of": "another version"}) };
        journal.expect("the journal").append(settings.world.clock.utc(), record).expect("a record");
        let (before, line) = (environment.ids(), environment.lines());
        for refused in [environment.deploy().await, environment.reset().await] {
            let Err(SessionError::Journal(error)) = refused else { panic!("{key}: not refused") };
            assert!(error.to_string().starts_with(&format!("the journal's record `{key}` cannot be read")), "{error}");
        }
        assert_eq!((environment.ids(), environment.changes_since(line)), (before, 0));
        environment.reset_as(&manner(Manner::Force)).await.expect("a teardown: the keys name the cluster");
        environment.nothing_is_left();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_named_and_nothing_is_touched() {
    for how in [Manner::Fast, Manner::FastNoWait, Manner::Orderly] {
        let environment = Environment::new(&configuration(1, 1), 7);
        environment.deploy().await.expect("a deployment");
        let cluster = environment.cluster();
        stranger(&environment, &cluster);
        engine::pause(Duration::from_secs(60)).await;
        let (before, line) = (environment.ids(), environment.lines());
        let refusal = refusals(environment.reset_as(&manner(how)).await);
        assert!(refusal.contains(&format!("disks/photos in {}", group(&cluster))), "{refusal}");
        assert_eq!((environment.ids(), environment.changes_since(line)), (before, 0));
        assert_eq!(environment.deploy().await.expect("it goes on").steps_run, 0);
    }
}

/// Force takes what is ours and leaves the stranger, and the group that holds it.
#[tokio::test(start_paused = true)]
async fn force_leaves_the_stranger() {
    let environment = Environment::new(&configuration(3, 2), 7);
    environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
    let cluster = environment.cluster();
    let disk = stranger(&environment, &cluster);
    engine::pause(Duration::from_secs(60)).await;
    let own = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{}", group(&cluster));
    let disk = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{disk}");
    // As often as it is asked, and with or without records.
    for how in [manner(Manner::Force), forced(&cluster)] {
        let began = environment.stage.twin.now();
        let finished = environment.reset_as(&how).await.expect("all that is ours is gone");
        assert_eq!(environment.ids(), BTreeSet::from([own.clone(), disk.clone()]));
        let [kept] = &finished.kept[..] else { panic!("{finished:?}") };
        assert_eq!((kept.id.as_str(), &kept.held_by[..]), (own.as_str(), &[disk.clone()][..]));
        assert!(how.cluster.is_none() || environment.stage.twin.now() - began < Duration::from_secs(30), "no waiting");
        let archive = finished.archive.expect("its records are put away");
        let report = fs_err::read_to_string(archive.join("report.json")).expect("a report");
        assert!(report.contains(&disk), "{report}");
        // Nothing here knows the cluster any more, and everybody says the same of it.
        let session = environment.session(Phase::K0rdent);
        assert_eq!(deploy::session::status_of(environment.home()).expect("a status").cluster_id, None);
        assert!(session.teardown_plan(&Teardown::default()).await.expect("a look").is_none());
        let (_, left) = session.leftovers(Some(&cluster), None).await.expect("a look");
        assert_eq!(left, finished.kept);
        let (_, all) = session.leftovers(None, None).await.expect("a look");
        assert_eq!(all, finished.kept);
        let again = session.teardown_plan(&forced(&cluster)).await.expect("a look").expect("a plan");
        assert_eq!((&again.found, &again.strangers[..]), (&finished.kept, &[disk.clone()][..]));
    }
    environment.act(&Action::Delete { path: disk });
    engine::pause(Duration::from_secs(60)).await;
    let finished = environment.reset_as(&forced(&cluster)).await.expect("a teardown");
    assert_eq!(finished.kept, []);
    environment.nothing_is_left();
}

/// Machines with more cores than there are under [`FaultKind::Quota`].
fn too_large(workers: u16) -> String {
    configuration(1, workers) + "vm_sizing: {controller: {size: Standard_D2s_v5}, worker: {size: Standard_D8s_v5}}\n"
}

impl Environment {
    /// A deployment whose quota somebody else uses up when it asks for that machine.
    async fn deploy_without_room_for(&self, text: &str, machine: &str) -> String {
        let used_up = |message: &engine::Message| {
            common::show(message);
            if let engine::Message::Recorded(record) = message
                && matches!(&record.event, Event::Intended { what, .. } if what.starts_with(&format!("create virtual machine {machine}")))
            {
                self.set_faults(&[fault(FaultKind::Quota, "")]);
            }
        };
        let loaded = deploy::config::load(text).expect("a good configuration");
        let (_go_on, stop) = tokio::sync::watch::channel(Stop::No);
        let watching = deploy::session::Watching { stop, listener: &used_up, faults: None };
        let failed = self.session(Phase::Machines).deploy(text, &loaded.config, watching).await;
        self.set_faults(&[]);
        failed.expect_err("there is no room").to_string()
    }
}

/// Azure keeps the interface of a machine that could not be made for three minutes, whoever wants it gone.
#[tokio::test(start_paused = true)]
async fn an_interface_that_azure_keeps_goes_once_it_is_let_go() {
    let mut environment = Environment::new(&too_large(1), 7);
    environment.deploy().await.expect("a deployment");
    let why = environment.deploy_without_room_for(&too_large(2), "k0s-worker-2").await;
    assert!(why.contains("quota"), "{why}");
    environment.configure(&too_large(1));
    environment.deploy().await.expect("what is not wanted any more goes");
    assert!(environment.ids().iter().all(|id| !id.contains("k0s-worker-2")), "{:?}", environment.ids());
    environment.reset_to_nothing().await;
}

/// The same, where everything goes one by one.
#[tokio::test(start_paused = true)]
async fn force_waits_for_an_interface_that_azure_keeps() {
    let text = too_large(1).replace("D2s", "D16s").replace("D8s", "D16s");
    let environment = Environment::new(&text, 7);
    environment.deploy_until(Phase::Infrastructure).await.expect("a part of a deployment");
    let cluster = environment.cluster();
    let disk = stranger(&environment, &cluster);
    engine::pause(Duration::from_secs(60)).await;
    environment.deploy_without_room_for(&text, "k0s-").await;
    let finished = environment.reset_as(&manner(Manner::Force)).await.expect("all that is ours is gone");
    assert_eq!(finished.kept.len(), 1, "{finished:?}");
    let ids = environment.ids();
    assert!(ids.len() == 2 && ids.iter().any(|id| id.ends_with(&disk)), "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_named() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
    let cluster = environment.cluster();
    for scope in
        [group(&cluster), format!("{0}/providers/Microsoft.Network/virtualNetworks/{cluster}-vnet", group(&cluster))]
    {
        let lock = format!("{scope}/providers/Microsoft.Authorization/locks/keep");
        environment.put(&lock, json!({"properties": {"level": "CanNotDelete"}}));
        let line = environment.lines();
        for how in [Manner::Fast, Manner::Orderly] {
            let refusal = refusals(environment.reset_as(&manner(how)).await);
            assert!(refusal.contains("lock keep on"), "{refusal}");
            assert_eq!(environment.changes_since(line), 0);
        }
        environment.act(&Action::Delete { path: format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{lock}") });
    }
    environment.reset_to_nothing().await;
}

/// A lock in the group does not stop force: everything else goes, and the rest is named.
#[tokio::test(start_paused = true)]
async fn force_deletes_around_a_lock() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
    let cluster = environment.cluster();
    let network = format!("{0}/providers/Microsoft.Network/virtualNetworks/{cluster}-vnet", group(&cluster));
    let lock = format!("{network}/providers/Microsoft.Authorization/locks/keep");
    environment.put(&lock, json!({"properties": {"level": "CanNotDelete"}}));
    let Err(SessionError::Leftovers(remains)) = environment.reset_as(&manner(Manner::Force)).await else {
        panic!("nothing is left")
    };
    let names: Vec<&str> = remains.left.iter().filter_map(|left| left.id.rsplit('/').next()).collect();
    assert_eq!(names, [group(&cluster), format!("{cluster}-nsg"), format!("{cluster}-vnet")], "{remains}");
    environment.act(&Action::Delete { path: format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{lock}") });
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_only_has_our_name_is_left_alone() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy_until(Phase::Prepare).await.expect("a name");
    let cluster = environment.cluster();
    environment.put(&group(&cluster), json!({"location": "westus2", "tags": {"owner": "colleague"}}));
    stranger(&environment, &cluster);
    engine::pause(Duration::from_secs(60)).await;
    let (before, line) = (environment.ids(), environment.lines());
    let Err(SessionError::Leftovers(remains)) = environment.reset_as(&manner(Manner::Force)).await else {
        panic!("nothing is left")
    };
    assert!(!remains.left[0].is_sure && remains.left[0].remove.starts_with("az group delete"), "{remains:?}");
    assert!(refusals(environment.reset_as(&manner(Manner::Fast)).await).contains("is not ours"));
    assert_eq!((environment.ids(), environment.changes_since(line)), (before, 0));
}

/// What is ours in somebody else's group goes in the order of dependencies, and nothing else there is touched.
#[tokio::test(start_paused = true)]
async fn ours_in_a_foreign_group() {
    for how in [Manner::Orderly, Manner::Force, Manner::Fast] {
        let environment = Environment::new(&configuration(1, 1), 7);
        environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
        let cluster = environment.cluster();
        let tags = json!({"k0rdent-cluster-id": cluster.as_str()});
        let network = |name: &str| format!("colleague/providers/Microsoft.Network/{name}");
        let id = |name: &str| json!({"id": format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{}", network(name))});
        environment.put("colleague", json!({"location": "westus2"}));
        let key = json!({"location": "westus2", "properties": {"publicKey": PUBLIC_KEY}});
        environment.put("colleague/providers/Microsoft.Compute/sshPublicKeys/theirs", key);
        let theirs = environment.ids();
        environment.put(
            &network("networkSecurityGroups/guard"),
            json!({"location": "westus2", "tags": tags, "properties": {"securityRules": []}}),
        );
        engine::pause(Duration::from_secs(60)).await;
        let subnet = json!({"name": "s", "properties":
            {"addressPrefix": "10.9.0.0/24", "networkSecurityGroup": id("networkSecurityGroups/guard")}});
        let address_space = json!({"addressPrefixes": ["10.9.0.0/16"]});
        environment.put(
            &network("virtualNetworks/net"),
            json!({"location": "westus2", "tags": tags, "properties":
                {"addressSpace": address_space, "subnets": [subnet]}}),
        );
        engine::pause(Duration::from_secs(60)).await;
        let configuration = json!({"name": "c", "properties": {"subnet": id("virtualNetworks/net/subnets/s")}});
        environment.put(
            &network("networkInterfaces/card"),
            json!({"location": "westus2", "tags": tags, "properties": {"ipConfigurations": [configuration]}}),
        );
        engine::pause(Duration::from_secs(60)).await;
        assert_eq!(environment.ids().difference(&theirs).count(), 3);
        environment.reset_as(&manner(how)).await.expect("a teardown");
        let left = environment.ids();
        assert!(left.len() == 2 && left.is_subset(&theirs), "{how:?}: {left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_deletion_is_found_again() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
    let cluster = environment.cluster();
    environment.set_faults(&[fault(FaultKind::OperationFailure, &group(&cluster))]);
    let Err(SessionError::Leftovers(remains)) = environment.reset_as(&manner(Manner::Fast)).await else {
        panic!("it is gone")
    };
    assert!(remains.reasons[0].contains("ResourceGroupDeletionBlocked"), "{remains}");
    let (_, found) = environment.session(Phase::K0rdent).leftovers(Some(&cluster), None).await.expect("a look");
    assert_eq!(found, remains.left);
    assert!(found.iter().all(|left| left.remove == format!("k0rdentctl reset --force --cluster-id {cluster}")));
    let (_, all) = environment.session(Phase::K0rdent).leftovers(None, None).await.expect("a look");
    assert_eq!(all, found);
    environment.set_faults(&[]);
    environment.reset_as(&manner(Manner::Fast)).await.expect("a teardown");
    environment.nothing_is_left();
    let (_, all) = environment.session(Phase::K0rdent).leftovers(None, None).await.expect("a look");
    assert_eq!(all, []);
}

/// Where the whole group cannot be deleted, force deletes one by one.
#[tokio::test(start_paused = true)]
async fn force_goes_on_after_a_failed_deletion() {
    let environment = Environment::new(&configuration(3, 2), 7);
    environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
    let cluster = environment.cluster();
    let once = Fault { times: Some(1), ..fault(FaultKind::OperationFailure, &group(&cluster)) };
    environment.set_faults(&[once]);
    let finished = environment.reset_as(&manner(Manner::Force)).await.expect("a teardown");
    assert!(finished.skipped.iter().any(|reason| reason.contains("ResourceGroupDeletionBlocked")), "{finished:?}");
    environment.nothing_is_left();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_and_the_next_deployment_knows() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    let cluster = environment.cluster();
    let began = environment.stage.twin.now();
    environment.reset_as(&manner(Manner::FastNoWait)).await.expect("an accepted deletion");
    assert!(environment.stage.twin.now() - began < Duration::from_secs(10));
    let status = deploy::session::status_of(environment.home()).expect("a status");
    assert_eq!((status.phase, status.deletion_since.is_some()), ("deleting", true));
    assert_eq!(status.next, "k0rdentctl reset");
    let session = environment.session(Phase::K0rdent);
    assert_eq!(session.deletion().await.expect("a look"), Some(Deletion::UnderWay));
    environment.deploy().await.expect("another deployment");
    assert_ne!(environment.cluster(), cluster);
    assert!(environment.ids().iter().all(|id| !id.contains(cluster.as_str())), "{:?}", environment.ids());
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn how_an_unwatched_deletion_ended_is_known() {
    for fails in [false, true] {
        let environment = Environment::new(&configuration(1, 1), 7);
        environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
        let cluster = environment.cluster();
        let times = Some(u32::from(fails));
        environment.set_faults(&[Fault { times, ..fault(FaultKind::OperationFailure, &group(&cluster)) }]);
        environment.reset_as(&manner(Manner::FastNoWait)).await.expect("an accepted deletion");
        engine::pause(Duration::from_secs(1800)).await;
        let deletion = environment.session(Phase::K0rdent).deletion().await.expect("a look").expect("a deletion");
        match (fails, deletion) {
            (true, Deletion::Failed(why)) => assert!(why.contains("ResourceGroupDeletionBlocked"), "{why}"),
            (false, Deletion::Done) => {}
            (_, other) => panic!("{other:?}"),
        }
        environment.reset_to_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn stale_lists_do_not_hold_up_the_evidence() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
    environment.set_faults(&[fault(FaultKind::StaleListing, "")]);
    environment.reset_to_nothing().await;
    assert!(environment.stage.twin.with(|world| !world.faults.active.is_empty()));
}

/// One request to stop is enough, and the teardown goes on later.
#[tokio::test(start_paused = true)]
async fn a_stop_ends_it_and_it_can_be_resumed() {
    for how in [Manner::Orderly, Manner::Force, Manner::Fast] {
        let environment = Environment::new(&configuration(1, 1), 7);
        environment.deploy_until(Phase::Machines).await.expect("a part of a deployment");
        let session = environment.session(Phase::K0rdent);
        let (stop, receiver) = tokio::sync::watch::channel(Stop::No);
        let watching = deploy::session::Watching { stop: receiver, listener: &|_| {}, faults: None };
        let teardown = manner(how);
        let twin = environment.stage.twin.clone();
        let interrupt = tokio::spawn(async move {
            engine::pause(Duration::from_secs(15)).await;
            stop.send_replace(Stop::Gently);
            twin.now()
        });
        let ended = session.reset(&teardown, watching).await;
        let asked = interrupt.await.expect("it was asked to stop");
        assert!(matches!(ended, Err(SessionError::Interrupted)), "{how:?}: {ended:?}");
        assert!(environment.stage.twin.now() - asked <= Duration::from_secs(35));
        environment.reset_as(&teardown).await.expect("the rest of the teardown");
        environment.nothing_is_left();
    }
}
