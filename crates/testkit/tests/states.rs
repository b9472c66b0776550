//! The table of states and commands: whatever state an environment is in, no two commands contradict each other or the
//! world, and what they tell a person to type next is accepted.
//!
//! Each state is made on a world of its own, in memory. What the commands say are the answers of the library that the
//! program prints. The test prints the table.

use std::{
    collections::BTreeSet,
    io::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use deploy::{
    config::{self, Config},
    difference::Difference,
    leftovers::Leftover,
    recipe::{Manner, Part},
    session::{Finished, Session, SessionError, Teardown, Watching, status_of},
    task::Phase,
    topology::ClusterId,
    views::{Milestones, Status},
};
use engine::{
    FailureKind, Stop,
    runner::{FaultInjector, FaultPoint, Injection},
};
use rehearsal::Stage;
use serde_json::json;
use tokio::sync::{Notify, watch};
use twin::{Action, Fault, FaultKind};

const CONFIGURATION: &str = "cluster:\n  controllers: {count: 1, zones: [1]}\n  workers: {count: 1, zones: [2]}\n";
const NODES: [&str; 2] = ["k0s-controller-1", "k0s-worker-1"];
const KILLING: [FaultPoint; 3] = [FaultPoint::AfterEffect, FaultPoint::BeforeRecord, FaultPoint::AfterRecord];
/// Until what Azure has accepted has come to its end.
const SETTLED: Duration = Duration::from_secs(1200);
/// Longer than any command takes.
const TOO_LONG: Duration = Duration::from_secs(24 * 3600);

/// A command that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Deploy(Phase),
    Uninstall(Part),
    Reset(Manner),
}

/// What becomes of a run at a place.
#[derive(Debug, Clone)]
enum Blow {
    Kill(FaultPoint, String),
    Fail(String),
}

/// How a state comes about.
#[derive(Debug, Clone)]
enum Step {
    Run(Command),
    Struck(Command, Blow),
    /// It may fail.
    Try(Command),
    Happens(Action),
    Wait(Duration),
    /// Something of somebody else in the cluster's group: a lock, or a disk.
    Put(&'static str, serde_json::Value),
    /// The environment's directory is gone.
    LoseRecords,
    Fault(Fault),
}

/// One environment on one world.
struct House {
    stage: Stage,
    home: tempfile::TempDir,
    config: Config,
    starts: u64,
    /// The cluster, also when the records are lost.
    cluster: Option<ClusterId>,
}

/// How a run ended.
enum End {
    Finished(Box<Finished>),
    Failed(SessionError),
    Killed,
}

impl House {
    fn new() -> Self {
        let config = config::load(CONFIGURATION).expect("a good configuration").config;
        let home = tempfile::tempdir().expect("a directory");
        Self { stage: Stage::new(7), home, config, starts: 0, cluster: None }
    }

    fn session(&self, until: Phase) -> Session {
        Session::new(self.stage.settings(self.home.path(), until))
    }

    /// A program that begins, and that is cut off when it has ended or was killed. Says which places it has passed.
    async fn start(&mut self, command: Command, blow: Option<Blow>) -> (End, Vec<(FaultPoint, String)>) {
        let (passed, reached) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let faults: FaultInjector = {
            let (passed, reached, blow) = (Arc::clone(&passed), Arc::clone(&reached), blow.clone());
            Arc::new(move |point, step| {
                passed.lock().expect("no panic").push((point, step.to_string()));
                match &blow {
                    Some(Blow::Kill(deadly, at)) if *deadly == point && at == step.as_str() => {
                        reached.notify_one();
                        Injection::Hang
                    }
                    Some(Blow::Fail(at)) if point == FaultPoint::Start && at == step.as_str() => Injection::Fail,
                    _ => Injection::None,
                }
            })
        };
        let (_go_on, stop) = watch::channel(Stop::No);
        let watching = Watching { stop, listener: &|_| {}, faults: Some(faults) };
        let session = self.session(if let Command::Deploy(until) = command { until } else { Phase::K0rdent });
        let running = async {
            match command {
                Command::Deploy(_) => session.deploy(CONFIGURATION, &self.config, watching).await,
                Command::Uninstall(part) => session.uninstall(part, watching).await,
                Command::Reset(manner) => session.reset(&Teardown { manner, ..Teardown::default() }, watching).await,
            }
        };
        let end = tokio::select! {
            biased;
            () = reached.notified() => End::Killed,
            ended = tokio::time::timeout(TOO_LONG, running) => match ended {
                Ok(Ok(finished)) => End::Finished(Box::new(finished)),
                Ok(Err(error)) => End::Failed(error),
                Err(_) => panic!("{command:?} goes on for ever"),
            },
        };
        self.starts += 1;
        self.stage.network.sever();
        let stage = self.stage.again(100 + self.starts);
        let before = std::mem::replace(&mut self.stage, stage);
        engine::pause(Duration::from_millis(1)).await;
        drop(before);
        let status = status_of(self.home.path()).ok().and_then(|status| status.cluster_id);
        self.cluster = status.and_then(|id| ClusterId::parse(&id).ok()).or_else(|| self.cluster.take());
        let passed = passed.lock().expect("no panic").clone();
        (end, passed)
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Run(command) => {
                let (end, _) = self.start(*command, None).await;
                assert!(matches!(end, End::Finished(_)), "{command:?}: {}", describe(&end));
            }
            Step::Struck(command, blow) => {
                let (end, _) = self.start(*command, Some(blow.clone())).await;
                assert!(!matches!(end, End::Finished(_)), "{command:?} was not struck by {blow:?}");
            }
            Step::Try(command) => drop(self.start(*command, None).await),
            Step::Happens(action) => self.happens(action),
            Step::Wait(long) => engine::pause(*long).await,
            Step::Put(path, body) => {
                let group = format!("{}-resgrp", self.cluster.as_ref().expect("a cluster"));
                let path = format!("/subscriptions/{}/resourceGroups/{group}/{path}", twin::azure::SUBSCRIPTION);
                self.happens(&Action::Put { path, body: body.clone() });
            }
            Step::LoseRecords => fs_err::remove_dir_all(self.home.path()).expect("a directory to remove"),
            Step::Fault(fault) => self.stage.twin.with(|world| world.faults.active = vec![fault.clone()]),
        }
    }

    fn happens(&self, action: &Action) {
        self.stage.twin.with(|world| action.perform(world)).expect("something happens");
    }

    /// What all commands say, and what is the case.
    async fn look(&self) -> Seen {
        let session = self.session(Phase::K0rdent);
        let ours: BTreeSet<String> =
            self.stage.twin.with(|world| twin::azure::resources(world)).iter().map(id).collect();
        let cluster = self.cluster.as_ref();
        let leftovers = session.leftovers(cluster, None).await.map(|(_, left)| left).map_err(|error| error.to_string());
        let reset = session.teardown_plan(&Teardown::default()).await;
        let drift = session.check().await.map_err(|error| error.to_string());
        Seen {
            status: status_of(self.home.path()).ok().filter(|status| status.cluster_id.is_some()),
            is_refused: drift.as_ref().is_ok_and(|drift| drift.refusal.is_some()),
            check: drift.map(|drift| drift.differences),
            plan: session
                .plan(&self.config)
                .await
                .map(|planned| (planned.plan.to_run(), planned.differences))
                .map_err(|error| error.to_string()),
            reset: reset.map(|plan| plan.map(|plan| ids(&plan.found))).map_err(|error| error.to_string()),
            leftovers: leftovers.map(|left| ids(&left)),
            is_deleting: session.deletion().await.is_ok_and(|deletion| deletion.is_some()),
            members: self
                .stage
                .twin
                .with(|world| twin::machine::memberships(world).into_iter().map(|member| member.name).collect()),
            machines: ours
                .iter()
                .filter(|id| id.contains("/virtualmachines/"))
                .filter_map(|id| id.rsplit('/').next().map(str::to_owned))
                .collect(),
            ours: ours.into_iter().filter(|id| !id.ends_with("/photos")).collect(),
            archives: fs_err::read_dir(self.home.path().join("old_deployments")).map_or(0, Iterator::count),
            there: self.stage.twin.with(there),
            exported: self.exported(),
        }
    }

    /// What the exported state says is there: a line each.
    fn exported(&self) -> Option<Milestones> {
        let text = fs_err::read_to_string(self.home.path().join("deployment-state.yaml")).ok()?;
        let says = |field: &str| text.lines().any(|line| line == format!("{field}: true"));
        Some(Milestones {
            infrastructure_ready: says("infrastructure_ready"),
            vms_ready: says("vms_ready"),
            k0s_installed: says("k0s_installed"),
            k0rdent_installed: says("k0rdent_installed"),
            k0rdent_ready: says("k0rdent_ready"),
        })
    }
}

/// What is there in the world, whatever any records say.
fn there(world: &mut twin::World) -> Milestones {
    let resources: BTreeSet<String> = twin::azure::resources(world).iter().map(id).collect();
    let exists = |end: String| resources.iter().any(|id| id.ends_with(&end));
    let shared = ["-resgrp", "-admin", "-nsg", "-vnet"].iter().all(|end| exists((*end).to_owned()));
    let each = |of: fn(&str) -> String| NODES.iter().all(|node| exists(of(node)));
    let memberships = twin::machine::memberships(world);
    let object = |world: &mut twin::World, kind: &str, name: &str| {
        let cluster = memberships.first()?.cluster;
        let arguments = ["get", kind, name, "-n", "kube-system", "-o", "json"].map(str::to_owned);
        let (_, object, _) = twin::kube::kubectl(world, cluster, &arguments);
        serde_json::from_str::<serde_json::Value>(&object).ok()
    };
    let chart = object(world, "charts.helm.k0sproject.io", "kcm");
    let management = object(world, "managements.k0rdent.mirantis.com", "kcm");
    let is_going = |object: &serde_json::Value| !object["metadata"]["deletionTimestamp"].is_null();
    let is_ready = |management: &serde_json::Value| {
        let conditions = management["status"]["conditions"].as_array();
        let ready = |condition: &serde_json::Value| condition["type"] == "Ready" && condition["status"] == "True";
        !is_going(management) && conditions.is_some_and(|conditions| conditions.iter().any(ready))
    };
    Milestones {
        infrastructure_ready: shared && each(|node| format!("/{node}-pip")) && each(|node| format!("/{node}-nic")),
        vms_ready: each(|node| format!("/virtualmachines/{node}")),
        k0s_installed: NODES.iter().all(|node| memberships.iter().any(|member| member.name == *node)),
        k0rdent_installed: chart.is_some_and(|chart| !is_going(&chart) && chart["status"]["releaseName"].is_string()),
        k0rdent_ready: management.as_ref().is_some_and(is_ready),
    }
}

/// The milestones by name.
fn named(milestones: &Milestones) -> [(&'static str, bool); 5] {
    [
        ("infrastructure_ready", milestones.infrastructure_ready),
        ("vms_ready", milestones.vms_ready),
        ("k0s_installed", milestones.k0s_installed),
        ("k0rdent_installed", milestones.k0rdent_installed),
        ("k0rdent_ready", milestones.k0rdent_ready),
    ]
}

fn id(resource: &serde_json::Value) -> String {
    resource["id"].as_str().unwrap_or_default().to_lowercase()
}

fn ids(left: &[Leftover]) -> BTreeSet<String> {
    left.iter().map(|left| left.id.to_lowercase()).collect()
}

fn describe(end: &End) -> String {
    match end {
        End::Finished(finished) => format!("finished, {}", finished.status.phase),
        End::Failed(error) => format!("failed: {error}"),
        End::Killed => "killed".to_owned(),
    }
}

/// What the commands say in one state, and what is the case.
struct Seen {
    status: Option<Status>,
    check: Result<Vec<Difference>, String>,
    /// Whether `status --check` says that a deployment refuses.
    is_refused: bool,
    /// How many steps `plan` wants to run, and what it says is otherwise.
    plan: Result<(usize, Vec<Difference>), String>,
    /// What `reset` says that it finds.
    reset: Result<Option<BTreeSet<String>>, String>,
    leftovers: Result<BTreeSet<String>, String>,
    is_deleting: bool,
    /// What exists in Azure of ours, by id.
    ours: BTreeSet<String>,
    /// The machines that exist.
    machines: BTreeSet<String>,
    /// The machines that are members of the cluster.
    members: BTreeSet<String>,
    archives: usize,
    /// What is there.
    there: Milestones,
    /// What the exported state says is there.
    exported: Option<Milestones>,
}

impl Seen {
    fn row(&self) -> [String; 6] {
        let size = |result: Result<usize, &String>, what: &str| match result {
            Ok(number) => format!("{number} {what}"),
            Err(why) => format!("no: {}", why.lines().next().unwrap_or_default().chars().take(40).collect::<String>()),
        };
        let status = self.status.as_ref();
        [
            status.map_or("no cluster", |status| status.phase).to_owned(),
            size(self.check.as_ref().map(Vec::len), "differ"),
            size(self.plan.as_ref().map(|plan| plan.0), "to run"),
            size(self.reset.as_ref().map(|found| found.as_ref().map_or(0, BTreeSet::len)), "found"),
            size(self.leftovers.as_ref().map(BTreeSet::len), "left"),
            status.map(|status| status.next.trim_start_matches("k0rdentctl ").to_owned()).unwrap_or_default(),
        ]
    }

    /// Whether `status --check` says something about this.
    fn names(&self, what: &str) -> bool {
        let about = |difference: &Difference| difference.subject.contains(what) || difference.cause.contains(what);
        self.check.as_ref().is_ok_and(|differences| differences.iter().any(about))
    }

    /// Everything that cannot be true at the same time.
    fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut claim = |holds: bool, what: String| {
            if !holds {
                found.push(what);
            }
        };
        let differs = self.check.as_ref().map_or(0, Vec::len);
        let everything = |set: &BTreeSet<String>| NODES.iter().all(|node| set.contains(*node));
        if let Ok((to_run, differences)) = &self.plan {
            let phase = self.status.as_ref().map_or("none", |status| status.phase);
            if *to_run == 0 {
                // What failed and holds by now is recorded by the next deployment, and the status says to run that.
                let is_done = phase == "k0rdent_deployed"
                    || self
                        .status
                        .as_ref()
                        .is_some_and(|status| status.next == "k0rdentctl deploy" && !status.failures.is_empty());
                claim(is_done, format!("plan has nothing to do, and the status is {phase}"));
                let whole = everything(&self.machines) && everything(&self.members);
                claim(whole, format!("plan has nothing to do, and there are {:?}", self.members));
                let open = self.check.iter().flatten().filter(|difference| difference.repair.is_some()).count();
                claim(open == 0, format!("plan has nothing to do, and {open} differences are to be repaired"));
            }
            if phase == "k0rdent_deployed" && self.check.is_ok() && differs == 0 {
                claim(*to_run == 0, format!("there is no difference, all is deployed, and plan has {to_run} steps"));
            }
            if let Ok(checked) = &self.check {
                claim(checked == differences, format!("check says {checked:?}, and plan {differences:?}"));
            }
        }
        if let (Ok(checked), Err(why)) = (&self.check, &self.plan) {
            claim(
                self.is_refused || checked.is_empty(),
                format!("check has differences repaired, and plan says {why}"),
            );
        }
        claim(
            !self.is_refused || self.plan.is_err(),
            "check says that a deployment refuses, and plan does not".to_owned(),
        );
        let Some(status) = &self.status else {
            claim(self.check.is_err(), "there is no cluster, and check has looked at it".to_owned());
            claim(!matches!(self.reset, Ok(Some(_))), "there is no cluster, and reset has found it".to_owned());
            return found;
        };
        for node in &status.nodes {
            let (name, state) = (node.name.as_str(), node.state);
            let exists = self.machines.contains(name);
            let is_said = self.names(name) || self.names("resource group") || status.phase == "deleting";
            claim(!(exists && state == "absent"), format!("{name} is absent, and exists"));
            let says_it_is = ["booting", "ready", "joined"].contains(&state);
            claim(exists || !says_it_is || is_said, format!("{name} is {state}, does not exist, and check is silent"));
            let joined = self.members.contains(name) || state != "joined" || is_said;
            claim(joined, format!("{name} is joined, is no member, and check is silent"));
        }
        // What others have done since is what check is there for.
        let is_compared = self.check.as_ref().is_ok_and(|differences| differences.is_empty());
        let has_ended = status.last_run.as_ref().is_some_and(|run| run.outcome == "succeeded");
        for ((name, said), (_, is)) in named(&status.milestones).into_iter().zip(named(&self.there)) {
            claim(is || !said || !is_compared, format!("{name} is true, is not the case, and check is silent"));
            claim(said || !is || !has_ended, format!("{name} is false, and is the case"));
        }
        if let Some(exported) = &self.exported {
            // Of what a run that was killed has begun, the file says nothing better than the status does.
            let older =
                named(exported).into_iter().zip(named(&status.milestones)).find(|(one, other)| one.1 && !other.1);
            let older = older.map(|((name, _), _)| name);
            claim(older.is_none(), format!("the exported state says {older:?}, and the status does not"));
            claim(!has_ended || *exported == status.milestones, "the exported state is not the status".to_owned());
        }
        let failed = status.last_run.as_ref().is_some_and(|run| run.outcome == "failed");
        claim(!failed || !status.failures.is_empty(), "the last run failed, and no failure is shown".to_owned());
        claim(
            status.deletion_since.is_some() == self.is_deleting,
            format!("a deletion is under way since {:?}: {}", status.deletion_since, self.is_deleting),
        );
        if let Ok(left) = &self.leftovers {
            let missed = self.ours.symmetric_difference(left).collect::<Vec<_>>();
            claim(missed.is_empty(), format!("leftovers and the world do not agree on {missed:?}"));
            if let Ok(reset) = &self.reset {
                let reset = reset.clone().unwrap_or_default();
                let missed = reset.symmetric_difference(left).collect::<Vec<_>>();
                claim(missed.is_empty(), format!("leftovers and reset do not agree on {missed:?}"));
            }
        }
        found
    }
}

/// The command that a hint names.
fn command(next: &str) -> Option<Command> {
    match next.strip_prefix("k0rdentctl ")? {
        "deploy" => Some(Command::Deploy(Phase::K0rdent)),
        "reset" => Some(Command::Reset(Manner::Orderly)),
        "uninstall k0rdent" => Some(Command::Uninstall(Part::K0rdent)),
        "uninstall k0s" => Some(Command::Uninstall(Part::K0s)),
        _ => None,
    }
}

/// Whether somebody was turned away at the door.
fn refusal(end: &End) -> Option<String> {
    let End::Failed(SessionError::Failed(failures)) = end else { return None };
    let refused = failures.iter().find(|failure| failure.kind == FailureKind::Refused);
    refused.map(|failure| failure.message.clone())
}

/// What a state is called, and how it comes about. `repairable`: the next command is expected to succeed.
struct Case {
    name: String,
    steps: Vec<Step>,
    repairable: bool,
}

fn case(name: impl Into<String>, steps: Vec<Step>) -> Case {
    Case { name: name.into(), steps, repairable: true }
}

const DEPLOY: Command = Command::Deploy(Phase::K0rdent);
const RESET: Command = Command::Reset(Manner::Orderly);

/// What an undisturbed command passes.
async fn course(before: &[Command], command: Command) -> Vec<(FaultPoint, String)> {
    let mut house = House::new();
    for command in before {
        house.step(&Step::Run(*command)).await;
    }
    house.start(command, None).await.1
}

/// A command struck at each place that it passes.
fn struck(before: &[Command], command: Command, passed: &[(FaultPoint, String)]) -> Vec<Case> {
    let word = match command {
        Command::Deploy(_) => "deploy".to_owned(),
        Command::Uninstall(part) => part.command().to_owned(),
        Command::Reset(manner) => format!("reset {manner:?}"),
    };
    let mut seen = BTreeSet::new();
    let mut cases = Vec::new();
    for (point, step) in passed {
        let blow = match point {
            // Nothing has happened between the two.
            FaultPoint::BeforeRecord if passed.contains(&(FaultPoint::AfterEffect, step.clone())) => continue,
            FaultPoint::Start => Blow::Fail(step.clone()),
            point if KILLING.contains(point) => Blow::Kill(*point, step.clone()),
            _ => continue,
        };
        let name = format!("{word} {}", describe_blow(&blow));
        if seen.insert(name.clone()) {
            let mut steps: Vec<Step> = before.iter().copied().map(Step::Run).collect();
            steps.push(Step::Struck(command, blow));
            cases.push(case(name, steps));
        }
    }
    cases
}

fn describe_blow(blow: &Blow) -> String {
    match blow {
        Blow::Kill(point, step) => format!("killed {point:?} of {step}"),
        Blow::Fail(step) => format!("failed at {step}"),
    }
}

fn quiet_states() -> Vec<Case> {
    let machine = || "k0s-worker-1".to_owned();
    let hour = Step::Wait(Duration::from_secs(3600));
    let after_deploy = |more: Vec<Step>| [vec![Step::Run(DEPLOY)], more].concat();
    let mut cases = vec![case("fresh", Vec::new())];
    cases.extend(Phase::DEPLOY.map(|phase| case(format!("until {phase:?}"), vec![Step::Run(Command::Deploy(phase))])));
    for (name, action) in [
        ("a machine was stopped", Action::StopMachine { machine: machine() }),
        ("a machine was deallocated", Action::DeallocateMachine { machine: machine() }),
        ("a machine was deleted", Action::DeleteMachine { machine: machine() }),
        ("a rule was removed", Action::RemoveRule { rule: "AllowSSH".to_owned() }),
        ("wireguard was stopped", Action::StopUnit { machine: machine(), unit: "wg-quick@wg0".to_owned() }),
        ("k0s was stopped", Action::StopUnit { machine: machine(), unit: "k0sworker".to_owned() }),
    ] {
        cases.push(case(name, after_deploy(vec![Step::Happens(action), hour.clone()])));
    }
    let part = |part| Step::Run(Command::Uninstall(part));
    cases.push(case("k0rdent uninstalled", after_deploy(vec![part(Part::K0rdent)])));
    cases.push(case("k0s uninstalled", after_deploy(vec![part(Part::K0rdent), part(Part::K0s)])));
    cases.push(case("reset", after_deploy(vec![Step::Run(RESET)])));
    let unwaited = Step::Run(Command::Reset(Manner::FastNoWait));
    cases.push(case("deletion under way", after_deploy(vec![unwaited.clone()])));
    cases.push(case("deletion done", after_deploy(vec![unwaited.clone(), hour.clone()])));
    let given_up = Fault { name: FaultKind::OperationFailure, target: Some("resgrp".to_owned()), times: Some(1) };
    cases.push(case("deletion given up", after_deploy(vec![Step::Fault(given_up), unwaited, hour.clone()])));
    let lock =
        Step::Put("providers/Microsoft.Authorization/locks/keep", json!({"properties": {"level": "CanNotDelete"}}));
    let disk =
        json!({"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 32}});
    let stranger = Step::Put("providers/Microsoft.Compute/disks/photos", disk);
    for (name, obstacle) in [("a lock", lock), ("a stranger", stranger)] {
        for manner in [Manner::Orderly, Manner::Force] {
            let name = format!("reset {manner:?} with {name}");
            let steps = after_deploy(vec![obstacle.clone(), Step::Try(Command::Reset(manner))]);
            cases.push(Case { repairable: false, ..case(name, steps) });
        }
    }
    let controller = Action::DeleteMachine { machine: "k0s-controller-1".to_owned() };
    let lost = after_deploy(vec![Step::Happens(controller), hour]);
    cases.push(Case { repairable: false, ..case("the only controller was deleted", lost) });
    cases.push(Case { repairable: false, ..case("records lost", after_deploy(vec![Step::LoseRecords])) });
    cases
}

/// Judges one state; what it says, and every contradiction.
async fn judge(case: &Case, number: usize) -> ([String; 6], Vec<String>) {
    let mut house = House::new();
    for step in &case.steps {
        house.step(step).await;
    }
    // Azure's lists lag behind, and what was begun goes on.
    engine::pause(SETTLED).await;
    let before = house.look().await;
    let (row, mut found) = (before.row(), before.contradictions());
    let next = before.status.as_ref().and_then(|status| command(&status.next));
    // Half of the states are asked for what the hint says, and half for a deployment.
    let chosen = next.filter(|_| number.is_multiple_of(2)).unwrap_or(DEPLOY);
    if !case.repairable {
        return (row, found);
    }
    let (end, _) = house.start(chosen, None).await;
    match (refusal(&end), &before.plan) {
        (Some(why), _) if Some(chosen) == next => {
            found.push(format!("{chosen:?} is what to do next, and is refused: {why}"))
        }
        (Some(why), Ok((to_run, _))) if chosen == DEPLOY => {
            found.push(format!("plan has {to_run} steps, and deploy refuses: {why}"));
        }
        (None, Err(why)) if chosen == DEPLOY && matches!(end, End::Finished(_)) => {
            found.push(format!("deploy has worked, and plan refuses: {why}"));
        }
        _ => {}
    }
    if let (None, End::Failed(error)) = (refusal(&end), &end)
        && !matches!(error, SessionError::NoCluster(_))
    {
        found.push(format!("{chosen:?} fails: {error}"));
    }
    if let End::Finished(finished) = &end {
        engine::pause(SETTLED).await;
        let after = house.look().await;
        found.extend(after.contradictions().into_iter().map(|what| format!("after {chosen:?}: {what}")));
        match chosen {
            Command::Reset(_) => {
                let nothing = after.ours.is_empty() && after.status.is_none() && after.archives > 0;
                if !nothing {
                    found.push(format!("reset is done, and there is {:?}, {} archives", after.ours, after.archives));
                }
            }
            _ if chosen == DEPLOY && finished.status.phase != "k0rdent_deployed" => {
                found.push(format!("deploy is done, and the status is {}", finished.status.phase));
            }
            _ => {}
        }
    }
    (row, found)
}

fn in_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = rehearsal::runtime(7).enable_time().build().expect("a runtime");
    runtime.block_on(work)
}

#[test]
fn no_command_contradicts_another_in_any_state() {
    let mut cases = quiet_states();
    for (before, command) in [
        (vec![], DEPLOY),
        (vec![DEPLOY], RESET),
        (vec![DEPLOY], Command::Reset(Manner::Force)),
        (vec![DEPLOY], Command::Reset(Manner::Fast)),
        (vec![DEPLOY], Command::Uninstall(Part::K0rdent)),
        (vec![DEPLOY, Command::Uninstall(Part::K0rdent)], Command::Uninstall(Part::K0s)),
    ] {
        cases.extend(struck(&before, command, &in_a_runtime(course(&before, command))));
    }
    // Two at a time; the table is in their order.
    let judged = |start: usize| {
        let mine = cases.iter().enumerate().skip(start).step_by(2);
        mine.map(|(number, case)| (number, in_a_runtime(judge(case, number)))).collect::<Vec<_>>()
    };
    let mut judged = std::thread::scope(|scope| {
        let other = scope.spawn(|| judged(1));
        [judged(0), other.join().expect("no panic")].concat()
    });
    judged.sort_by_key(|(number, _)| *number);
    let (mut table, mut contradictions) = (String::new(), Vec::new());
    for (number, ([status, check, plan, reset, left, next], found)) in judged {
        let (name, mark) = (&cases[number].name, if found.is_empty() { "" } else { "  CONTRADICTION" });
        table += &format!("{name:<62}{status:<22}{check:<12}{plan:<14}{reset:<12}{left:<10}{next}{mark}\n");
        contradictions.extend(found.into_iter().map(|what| format!("{name}: {what}")));
    }
    // Past the test runner, which shows only what failing tests print.
    writeln!(std::io::stderr(), "{} states\n{table}", cases.len()).expect("a stream for messages");
    assert!(contradictions.is_empty(), "{} contradictions\n{}", contradictions.len(), contradictions.join("\n"));
}
