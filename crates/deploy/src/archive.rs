//! What remains of clusters that were torn down: the report of each, the list of all, and how long they are kept.

use std::{collections::BTreeMap, io, path::PathBuf};

use engine::{Event, Outcome, Record, State, StepId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem};

use crate::{
    environment::{ARCHIVE, Environment},
    task::Task,
    topology::ClusterId,
    views::FORMAT_VERSION,
};

/// The report's file in an archive.
pub const REPORT_FILE: &str = "report.json";
/// What is settled about the requests to Azure of all runs.
pub(crate) const REQUESTS: &str = "requests";

const MOMENT: &[BorrowedFormatItem<'_>] =
    time::macros::format_description!("[year]-[month]-[day]_[hour]-[minute]-[second]");

/// The name of the archive of a cluster that was torn down at that moment.
pub fn name(cluster: &ClusterId, at: OffsetDateTime) -> String {
    format!("{cluster}_{}", at.format(MOMENT).unwrap_or_default())
}

/// The cluster and the moment that an archive's name says; `None` if it is not one.
fn parsed(name: &str) -> Option<(ClusterId, OffsetDateTime)> {
    let (cluster, moment) = name.split_once('_')?;
    Some((ClusterId::parse(cluster).ok()?, PrimitiveDateTime::parse(moment, MOMENT).ok()?.assume_utc()))
}

/// What there is to know about a cluster that was torn down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format.
    pub format_version: u32,
    /// The cluster.
    pub cluster_id: String,
    /// When its first deployment began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deployed_at: Option<OffsetDateTime>,
    /// Who began it.
    pub deployed_by: Option<String>,
    /// When its teardown ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub reset_at: Option<OffsetDateTime>,
    /// Who tore it down.
    pub reset_by: Option<String>,
    /// From the one to the other.
    pub lived_seconds: Option<u64>,
    /// How its last deployment ended: `succeeded`, `failed`, `interrupted` or `killed`; `none` if there was none.
    pub outcome: String,
    /// What the search after the teardown found.
    pub leftovers: Value,
    /// Requests to Azure of all runs that came to an end.
    pub requests: Value,
    /// Every run.
    pub runs: Vec<Run>,
}

/// A run, with what it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The command.
    pub command: String,
    /// Who.
    pub by: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// How long it took; absent if it was killed.
    pub seconds: Option<f64>,
    /// `succeeded`, `failed`, `interrupted` or `killed`.
    pub outcome: String,
    /// The steps that ended, in that order.
    pub steps: Vec<StepTaken>,
}

/// A step that a run took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTaken {
    /// Its name.
    pub id: StepId,
    /// How long it took.
    pub seconds: f64,
    /// What was seen when it held, or why it failed.
    pub evidence: String,
    /// Whether it failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

fn word(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Succeeded) => "succeeded",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::Interrupted) => "interrupted",
        None => "killed",
    }
}

impl Report {
    /// The report of everything that the journal says.
    pub fn of(cluster: &ClusterId, records: &[Record]) -> Self {
        let state = State::of(records);
        let mut steps = steps_of_runs(records);
        let run = |run: &engine::state::RunState| Run {
            command: run.command.clone(),
            by: format!("{}@{}", run.holder.user, run.holder.host),
            started_at: run.started_at,
            seconds: run.ended_at.map(|ended| (ended - run.started_at).as_seconds_f64()),
            outcome: word(run.outcome).to_owned(),
            steps: steps.remove(&run.run).unwrap_or_default(),
        };
        let runs: Vec<Run> = state.runs.iter().map(run).collect();
        let deployments = || runs.iter().filter(|run| run.command == "deploy");
        let deployed = deployments().next();
        let reset = runs.last().filter(|run| run.command == "reset");
        let reset_at = state.runs.last().filter(|_| reset.is_some()).and_then(|run| run.ended_at);
        let lived = deployed.zip(reset_at).map(|(deployed, reset_at)| reset_at - deployed.started_at);
        let found = state.output(&Task::Evidence.common_id()).map(|output| output["leftovers"].clone());
        Self {
            format_version: FORMAT_VERSION,
            cluster_id: cluster.to_string(),
            deployed_at: deployed.map(|run| run.started_at),
            deployed_by: deployed.map(|run| run.by.clone()),
            reset_at,
            reset_by: reset.map(|run| run.by.clone()),
            lived_seconds: lived.and_then(|lived| u64::try_from(lived.whole_seconds()).ok()),
            outcome: deployments().next_back().map_or("none", |run| &run.outcome).to_owned(),
            leftovers: found.unwrap_or_default(),
            requests: state.settled.get(REQUESTS).cloned().unwrap_or_default(),
            runs,
        }
    }
}

/// The steps that each run took to their end.
fn steps_of_runs(records: &[Record]) -> BTreeMap<u64, Vec<StepTaken>> {
    let mut began: BTreeMap<&StepId, OffsetDateTime> = BTreeMap::new();
    let mut steps: BTreeMap<u64, Vec<StepTaken>> = BTreeMap::new();
    for record in records {
        let (id, evidence, failed) = match &record.event {
            Event::StepStarted { step } => {
                began.insert(step, record.at);
                continue;
            }
            Event::StepSucceeded { step, evidence, .. } => (step, evidence, false),
            Event::StepFailed { step, failure } => (step, &failure.message, true),
            _ => continue,
        };
        let seconds = (record.at - began.get(id).copied().unwrap_or(record.at)).as_seconds_f64();
        let step = StepTaken { id: id.clone(), seconds, evidence: evidence.clone(), failed };
        steps.entry(record.run).or_default().push(step);
    }
    steps
}

/// An archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Archived {
    /// Where it is.
    pub directory: PathBuf,
    /// The cluster.
    pub cluster: ClusterId,
    /// When it was torn down.
    pub reset_at: OffsetDateTime,
    /// Its report, or why there is none to read.
    pub report: Result<Report, String>,
}

/// All archives, oldest first. What is there and is none is left out.
pub fn history(environment: &Environment) -> io::Result<Vec<Archived>> {
    let entries = match fs_err::read_dir(environment.path(ARCHIVE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut archives = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let Some((cluster, reset_at)) = parsed(&file_name) else { continue };
        let report = read_report(environment, &format!("{ARCHIVE}/{file_name}/{REPORT_FILE}"));
        archives.push(Archived { directory: entry.path(), cluster, reset_at, report });
    }
    archives.sort_by(|one, other| (one.reset_at, &one.directory).cmp(&(other.reset_at, &other.directory)));
    Ok(archives)
}

fn read_report(environment: &Environment, file: &str) -> Result<Report, String> {
    let text = environment.read(file).map_err(|error| error.to_string())?;
    // Archives of the first releases have none.
    let text = text.ok_or_else(|| "it has no report".to_owned())?;
    let report: Report = serde_json::from_str(&text).map_err(|error| format!("{REPORT_FILE}: {error}"))?;
    match report.format_version {
        FORMAT_VERSION => Ok(report),
        other => Err(format!("{REPORT_FILE}: its format version is {other}, not {FORMAT_VERSION}")),
    }
}

/// Removes the archives that are older than so many days, and says which; 0 keeps all.
pub fn expire(environment: &Environment, now: OffsetDateTime, days: u32) -> io::Result<Vec<PathBuf>> {
    if days == 0 {
        return Ok(Vec::new());
    }
    let is_old = |archive: &Archived| now - archive.reset_at > Duration::days(days.into());
    let old: Vec<PathBuf> = history(environment)?.into_iter().filter(is_old).map(|archive| archive.directory).collect();
    for name in old.iter().filter_map(|directory| directory.file_name()) {
        environment.remove(&format!("{ARCHIVE}/{}", name.to_string_lossy()))?;
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use engine::{Failure, Holder};
    use time::macros::datetime;

    use super::*;
    use crate::environment::Access;

    fn environment_with(names: &[&str]) -> (tempfile::TempDir, Environment) {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::new(directory.path());
        for name in names {
            environment.write(&format!("{ARCHIVE}/{name}/deployment-state.yaml"), "x", Access::Secret).unwrap();
        }
        (directory, environment)
    }

    #[test]
    fn old_archives_expire_and_nothing_else() {
        let names = [
            "k0rdent-abcd1234_2026-01-31_12-00-00",
            "k0rdent-abcd1234_2026-01-01_12-00-01",
            "k0rdent-abcd1234_2026-01-01_11-59-59",
            "k0rdent-abcd1234_2026-01-01_11-59-59.new",
            "notes",
        ];
        let (_directory, environment) = environment_with(&names);
        let now = datetime!(2026-01-31 12:00:00 UTC);
        assert_eq!(expire(&environment, now, 0).unwrap(), [] as [PathBuf; 0]);
        let expired = expire(&environment, now, 30).unwrap();
        assert_eq!(expired, [environment.path(&format!("{ARCHIVE}/k0rdent-abcd1234_2026-01-01_11-59-59"))]);
        assert_eq!(fs_err::read_dir(environment.path(ARCHIVE)).unwrap().count(), 4);
        let left: Vec<OffsetDateTime> =
            history(&environment).unwrap().into_iter().map(|archive| archive.reset_at).collect();
        assert_eq!(left, [datetime!(2026-01-01 12:00:01 UTC), now]);
    }

    #[test]
    fn without_archives_the_history_is_empty() {
        let (_directory, environment) = environment_with(&[]);
        assert_eq!(history(&environment).unwrap(), []);
        assert_eq!(expire(&environment, datetime!(2026-01-31 12:00:00 UTC), 1).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_report_says_who_did_what_and_how_long_it_took() {
        let start = datetime!(2026-01-01 12:00:00 UTC);
        let mut sequence = 0;
        let mut record = |run: u64, after: i64, event: Event| {
            sequence += 1;
            Record { sequence, run, at: start + Duration::seconds(after), event }
        };
        let began = |command: &str| {
            let since = start;
            let holder = Holder { user: "ada".into(), host: "desk".into(), pid: 7, command: command.into(), since };
            Event::RunStarted { command: command.into(), holder }
        };
        let step = StepId::new("machines/a/create");
        let records = [
            record(1, 0, began("deploy")),
            record(1, 1, Event::StepStarted { step: step.clone() }),
            record(1, 4, Event::StepFailed { step: step.clone(), failure: Failure::new("no room") }),
            record(1, 5, Event::RunEnded { outcome: Outcome::Failed }),
            record(2, 60, began("deploy")),
            record(3, 100, began("reset")),
            record(3, 400, Event::RunEnded { outcome: Outcome::Succeeded }),
        ];
        let report = Report::of(&ClusterId::parse("k0rdent-abcd1234").unwrap(), &records);
        assert_eq!((report.lived_seconds, report.outcome.as_str()), (Some(400), "killed"));
        assert_eq!(report.reset_by.as_deref(), Some("ada@desk"));
        let outcomes: Vec<&str> = report.runs.iter().map(|run| run.outcome.as_str()).collect();
        assert_eq!(outcomes, ["failed", "killed", "succeeded"]);
        let taken = StepTaken { id: step, seconds: 3.0, evidence: "no room".into(), failed: true };
        assert_eq!(report.runs[0].steps, [taken]);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
