//! Rule 3: no effect without a recorded intention, no creation without a look, no wait without an end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use deploy::{
    config::{self, Provider},
    recipe::{self, Manner},
    task::Phase,
    topology::{ClusterId, Leaving, Role, Topology, topology},
};
use engine::{
    Context, Decision, Done, Failure, FailureKind, Journal, Options, Outcome, Plan, PlannedStep, Step, StepId, Stop,
    SystemClock, journal::Durability,
};

use crate::{
    source::{Findings, Source, broken, expect_none, sources, words},
    stage::{configuration, holder},
};

/// Calls by which a step changes the world.
const EFFECTS: &[&str] =
    &[".put(", ".post(", ".patch(", ".delete(", ".apply(", ".upload(", ".upload_from(", "preflight::register("];
/// Those of them that create.
const CREATIONS: &[&str] = &[".put(", ".apply("];
/// Calls by which a step looks whether a thing is there.
const LOOKS: &[&str] = &["inventory.", ".get(", ".removed("];
/// Commands that change nothing, though they need an administrator's rights.
const HARMLESS: &[&str] =
    &["\"sudo {BINARY} kubectl get", "\"sudo {BINARY} kubeconfig admin", "\"sudo {BINARY} etcd member-list"];

/// Effects, and commands as administrator, before which their function records no intention.
pub(crate) fn acts_without_intention(source: &Source) -> Findings {
    let mut effects = words(&source.code, EFFECTS);
    let commands = source.literals.match_indices("\"sudo ");
    let harmful =
        commands.filter(|(place, _)| !HARMLESS.iter().any(|line| source.literals[*place..].starts_with(line)));
    effects.extend(harmful.map(|(place, _)| (place, "a command as administrator".to_owned())));
    effects.retain(|(place, _)| {
        let before = source.function_at(*place).map_or("", |function| &source.code[function.body.start..*place]);
        !before.contains(".intend(")
    });
    effects
}

/// Creations before which neither their function nor every caller of it looks whether the thing is there.
pub(crate) fn creates_without_looking(source: &Source) -> Findings {
    let looks = |start: usize, end: usize| !words(&source.code[start..end], LOOKS).is_empty();
    let mut creations = words(&source.code, CREATIONS);
    creations.retain(|(place, _)| {
        let Some(function) = source.function_at(*place) else { return true };
        let calls: Vec<usize> = words(&source.code, &[&format!("{}(", function.name)])
            .into_iter()
            .map(|(call, _)| call)
            .filter(|call| !source.code[..*call].ends_with("fn ") && !source.code[..*call].ends_with('.'))
            .collect();
        let callers_look = !calls.is_empty()
            && calls.iter().all(|call| source.function_at(*call).is_some_and(|caller| looks(caller.body.start, *call)));
        !looks(function.body.start, *place) && !callers_look
    });
    creations
}

fn steps() -> Vec<Source> {
    sources().into_iter().filter(|source| source.path.starts_with("crates/deploy/src/steps/")).collect()
}

#[test]
fn every_effect_of_a_step_comes_after_its_intention() {
    expect_none(&broken(&steps(), &[], acts_without_intention));
}

#[test]
fn every_creation_comes_after_a_look() {
    expect_none(&broken(&steps(), &[], creates_without_looking));
}

/// Calls that change Azure or Kubernetes.
pub(crate) fn changes_the_cloud(source: &Source) -> Findings {
    let calls = [".put(", ".post(", ".patch(", "arm.delete(", "kubernetes.delete(", "kubernetes.apply("];
    words(&source.code, &calls)
}

#[test]
fn only_steps_change_the_cloud() {
    let product = ["crates/deploy/src/", "crates/k0rdentctl/src/"];
    let sources: Vec<Source> =
        sources().into_iter().filter(|source| product.iter().any(|path| source.path.starts_with(path))).collect();
    let exceptions = [
        ("crates/deploy/src/steps/", "that is what steps are for"),
        ("crates/deploy/src/azure/", "the client itself"),
        ("crates/deploy/src/kubernetes.rs", "the client itself; it takes the intention as proof"),
    ];
    expect_none(&broken(&sources, &exceptions, changes_the_cloud));
}

/// Functions of the Kubernetes client that write and do not ask for the proof of an intention.
pub(crate) fn writes_without_proof(source: &Source) -> Findings {
    let writes = [".patch(", ".delete(", ".create(", ".replace(", ".delete_collection(", ".patch_status("];
    let unproven = source.functions.iter().filter(|function| {
        let is_writing = !words(&source.code[function.body.clone()], &writes).is_empty();
        is_writing && !source.code[function.signature.clone()].contains("&Intent")
    });
    unproven.map(|function| (function.signature.start, format!("fn {}", function.name))).collect()
}

#[test]
fn the_kubernetes_client_writes_only_on_proof_of_an_intention() {
    let client = |source: &Source| source.path == "crates/deploy/src/kubernetes.rs";
    let client: Vec<Source> = sources().into_iter().filter(client).collect();
    assert!(words(&client[0].code, &["&Intent"]).len() >= 2, "the client asks for no proof at all");
    expect_none(&broken(&client, &[], writes_without_proof));
}

#[test]
fn every_step_has_a_deadline() {
    let config = config::load(configuration()).expect("a good configuration").config;
    let cluster = ClusterId::parse("k0rdent-abcd1234").expect("a cluster's name");
    let mut topology = topology(&config, &cluster);
    let (name, role) = ("k0s-controller-3".to_owned(), Role::Controller);
    topology.leaving = vec![Leaving { name, role, private_address: None, host: None }];
    topology.replacing = [0].into();
    let manners = [Manner::Orderly, Manner::Force, Manner::Fast, Manner::FastNoWait];
    let resets = manners.into_iter().flat_map(|manner| recipe::reset(&topology, Some(Phase::K0rdent), true, manner));
    let lines = recipe::deploy(&topology).into_iter().chain(resets);
    let uninstalls = recipe::Part::ALL.iter().flat_map(|part| recipe::uninstall(&topology, *part));
    let hosts = Topology { provider: Provider::Ssh, ..topology.clone() };
    let given_back = recipe::reset(&hosts, None, false, Manner::Force);
    let lines = lines.chain(uninstalls).chain(recipe::deploy(&hosts)).chain(given_back);
    let mut known = BTreeSet::new();
    for task in lines.map(|line| line.task) {
        let (usual, deadline) = (task.usual(), task.deadline(&config));
        assert!(usual > Duration::ZERO && usual <= deadline, "{task:?} usually takes {usual:?} of {deadline:?}");
        known.insert(format!("{task:?}").split('(').next().unwrap_or_default().to_owned());
    }
    assert_eq!(known, tasks(), "a task that no recipe names, or one that this test does not see");
}

/// The variants of `Task`, as its source lists them.
fn tasks() -> BTreeSet<String> {
    let source = sources().into_iter().find(|source| source.path.ends_with("deploy/src/task.rs")).expect("task.rs");
    let start = source.code.find("pub enum Task {").expect("the enum");
    let length = source.code[start..].find("\n}").expect("its end");
    let lines = source.code[start..start + length].lines().skip(1).map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.split(['(', ',']).next().unwrap_or_default().to_owned()).collect()
}

/// A step that waits for something that never happens.
struct Patient;

#[async_trait::async_trait]
impl Step for Patient {
    async fn ensure(&self, context: &Context<'_>) -> Result<Done, Failure> {
        context.waiting("the sun rises", "it is dark");
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn the_runner_ends_a_wait_at_its_deadline() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open_to_write(home.path(), &holder(), Durability::Process).expect("a journal");
    let id = StepId::new("wait");
    let step = PlannedStep {
        id: id.clone(),
        phase: "phase".to_owned(),
        title: "morning".to_owned(),
        node: None,
        after: Vec::new(),
        decision: Decision::Run,
        why: String::new(),
        usual: Duration::from_secs(1),
        deadline: Duration::from_secs(120),
        fingerprint: String::new(),
        undoes: Vec::new(),
        output: serde_json::Value::Null,
    };
    let (_go_on, stop) = tokio::sync::watch::channel(Stop::No);
    let options = Options { clock: Arc::new(SystemClock), stop, listener: &|_| {}, faults: None, at_end: None };
    let steps = [(id, Box::new(Patient) as Box<dyn Step>)].into();
    let plan = Plan { steps: vec![step] };
    let running = engine::run(&plan, &steps, &journal, &options);
    let report = tokio::time::timeout(Duration::from_secs(121), running).await.expect("an end").expect("a report");
    let (_, failure) = &report.failures[0];
    assert_eq!((report.outcome, failure.kind), (Outcome::Failed, FailureKind::Deadline));
    assert_eq!(failure.message, "morning: not done after 2 min; waiting for: the sun rises; last seen: it is dark");
}
