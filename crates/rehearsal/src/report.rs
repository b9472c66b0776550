//! What a rehearsal found out.

use std::collections::BTreeMap;

use deploy::session::{Finished, Session, SessionError};
use engine::{State, StepState};
use serde::Serialize;
use twin::critical_path::{CriticalPath, critical_path};

use crate::stage::Stage;

/// The whole of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The version of this format.
    pub format_version: u32,
    /// `succeeded` or `failed`.
    pub outcome: &'static str,
    /// Why it failed.
    pub failures: Vec<String>,
    /// How many machines there were.
    pub nodes: usize,
    /// From the first request to the last step, in world seconds.
    pub makespan_seconds: f64,
    /// What an engine without overhead would have needed.
    pub critical_path_seconds: f64,
    /// What the critical path consists of, with the instant at which each could have been there.
    pub critical_path: Vec<(String, f64)>,
    /// The makespan by the critical path.
    pub overhead_ratio: f64,
    /// The instant at which all nodes were Ready.
    pub nodes_ready_seconds: Option<f64>,
    /// Requests to Azure's management endpoint, as the world counted them.
    pub requests: Requests,
    /// Commands run on machines and requests to the Kubernetes API.
    pub other_requests: BTreeMap<String, u64>,
    /// Requests and commands that can be laid at the door of one machine.
    pub requests_by_node: BTreeMap<String, u64>,
    /// When each phase began and ended.
    pub phases: Vec<PhaseReport>,
    /// When each machine reached what.
    pub timeline: Vec<NodeTimeline>,
    /// How long the teardown took, in world seconds.
    pub teardown_seconds: f64,
    /// What was left after the teardown, as the world sees it.
    pub leftovers: Vec<Leftover>,
    /// CPU seconds of this process; filled in by who can ask.
    pub cpu_seconds: f64,
    /// Peak memory of this process; filled in by who can ask.
    pub peak_memory_bytes: u64,
}

/// Requests to Azure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Those that look.
    pub reads: u64,
    /// Those that create or change.
    pub writes: u64,
    /// Those that delete.
    pub deletes: u64,
    /// Those that were answered with 429.
    pub throttled: u64,
}

/// When a phase was under way.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub status: &'static str,
    /// World seconds since the beginning.
    pub started_seconds: Option<f64>,
    /// World seconds since the beginning.
    pub ended_seconds: Option<f64>,
}

/// When a machine reached what, in world seconds since the beginning.
#[derive(Debug, Clone, Serialize)]
pub struct NodeTimeline {
    /// Its name.
    pub name: String,
    /// Each step with its beginning and its end.
    pub steps: Vec<(String, f64, f64)>,
}

/// Something that should not exist any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Report {
    /// What there is to say after the deployment.
    pub(crate) fn of_deployment(
        stage: &Stage,
        session: &Session,
        deployed: &Result<Finished, SessionError>,
    ) -> Result<Self, SessionError> {
        let makespan = stage.twin.now().as_secs_f64();
        let path = match deployed {
            Ok(_) => stage.twin.with(|world| critical_path(world)),
            Err(_) => CriticalPath::default(),
        };
        let state = session.recorded()?.map(|(state, _)| state).unwrap_or_default();
        let epoch = twin::Options::default().epoch;
        let since = |at: Option<time::OffsetDateTime>| at.map(|at| (at - epoch).as_seconds_f64());
        let provider = session.used_config()?.map(|config| config.provider).unwrap_or_default();
        let status = deploy::views::status(&state, provider, None, false);
        let phases = status.phases.iter().map(|phase| PhaseReport {
            name: phase.name,
            status: phase.status,
            started_seconds: since(phase.started_at),
            ended_seconds: since(phase.ended_at),
        });
        let nodes_ready = state.steps.values().find(|step| step.planned.id.as_str().ends_with("/nodes-ready"));
        let timeline = timeline(&state, epoch);
        let mut report = Self {
            format_version: 1,
            outcome: if deployed.is_ok() { "succeeded" } else { "failed" },
            failures: deployed.as_ref().err().map(failures).unwrap_or_default(),
            nodes: timeline.len(),
            makespan_seconds: rounded(makespan),
            critical_path_seconds: rounded(path.seconds),
            overhead_ratio: if path.seconds > 0.0 { rounded(makespan / path.seconds) } else { 0.0 },
            critical_path: path.chain.into_iter().map(|(name, at)| (name, rounded(at))).collect(),
            nodes_ready_seconds: nodes_ready.and_then(|step| since(step.ended_at)),
            requests: Requests::default(),
            other_requests: BTreeMap::new(),
            requests_by_node: BTreeMap::new(),
            phases: phases.collect(),
            timeline,
            teardown_seconds: 0.0,
            leftovers: Vec::new(),
            cpu_seconds: 0.0,
            peak_memory_bytes: 0,
        };
        report.count(stage);
        Ok(report)
    }

    /// Counts what the world was asked so far.
    fn count(&mut self, stage: &Stage) {
        stage.twin.with(|world| {
            for entry in world.ledger.entries.iter().filter(|entry| entry.kind == "request") {
                if let Some(node) = &entry.node {
                    *self.requests_by_node.entry(node.clone()).or_default() += 1;
                }
                if entry.actor != "arm" {
                    *self.other_requests.entry(entry.actor.to_owned()).or_default() += 1;
                    continue;
                }
                let counter = match entry.verb.as_str() {
                    "GET" | "HEAD" => &mut self.requests.reads,
                    "DELETE" => &mut self.requests.deletes,
                    _ => &mut self.requests.writes,
                };
                *counter += 1;
                self.requests.throttled += u64::from(entry.status == Some(429));
            }
        });
    }

    /// What there is to say after the teardown.
    pub(crate) fn add_teardown(&mut self, stage: &Stage, torn_down: &Result<Finished, SessionError>) {
        self.teardown_seconds = rounded(stage.twin.now().as_secs_f64() - self.makespan_seconds);
        if let Err(error) = torn_down
            && !matches!(error, SessionError::NoCluster(_))
        {
            self.outcome = "failed";
            self.failures.extend(failures(error));
        }
        (self.requests, self.other_requests, self.requests_by_node) = Default::default();
        self.count(stage);
        let text = |resource: &serde_json::Value, key: &str| resource[key].as_str().unwrap_or_default().to_owned();
        let left = stage.twin.with(|world| twin::azure::resources(world));
        self.leftovers =
            left.iter().map(|resource| Leftover { id: text(resource, "id"), kind: text(resource, "type") }).collect();
        if !self.leftovers.is_empty() {
            self.outcome = "failed";
        }
    }
}

fn failures(error: &SessionError) -> Vec<String> {
    match error {
        SessionError::Failed(failures) => failures.iter().map(|failure| failure.message.clone()).collect(),
        other => vec![other.to_string()],
    }
}

fn timeline(state: &State, epoch: time::OffsetDateTime) -> Vec<NodeTimeline> {
    let mut nodes: BTreeMap<String, NodeTimeline> = BTreeMap::new();
    let mut order = Vec::new();
    let planned = state.order.iter().filter_map(|id| state.steps.get(id));
    for step in planned {
        let Some(node) = &step.planned.node else { continue };
        let entry = nodes.entry(node.clone()).or_insert_with(|| {
            order.push(node.clone());
            NodeTimeline { name: node.clone(), steps: Vec::new() }
        });
        entry.steps.extend(span(step, epoch));
    }
    order.into_iter().filter_map(|name| nodes.remove(&name)).collect()
}

fn span(step: &StepState, epoch: time::OffsetDateTime) -> Option<(String, f64, f64)> {
    let name = step.planned.id.as_str().rsplit('/').next()?.to_owned();
    let since = |at: time::OffsetDateTime| rounded((at - epoch).as_seconds_f64());
    Some((name, since(step.started_at?), since(step.ended_at?)))
}

/// To the millisecond.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
