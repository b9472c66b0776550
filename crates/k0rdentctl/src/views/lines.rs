//! Plain lines: what happens in a run, one thing a line, for logs and for whoever has no terminal.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use engine::{Decision, Event, Message, Origin, PlannedStep, Record, StepId};
use time::{OffsetDateTime, macros::format_description};

use super::{clock, count, duration, indented};
use crate::printer::{BAD, CARE, GOOD, paint};

/// How lines look.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    /// What stands in front of a line.
    pub(crate) time: Time,
    /// 1: what running steps wait for; 2: what they begin and intend, too.
    pub(crate) verbose: u8,
    /// Whether each step of each node has its line when it is done.
    pub(crate) every_step: bool,
    /// The environment's directory, to name files in full.
    pub(crate) home: PathBuf,
    /// Whether there are colours.
    pub(crate) colours: bool,
}

/// What stands in front of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// Seconds since the run began.
    SinceStart,
    /// The calendar, UTC.
    Calendar,
}

/// Turns messages into lines; remembers what it needs for that.
pub(crate) struct Lines {
    style: Style,
    run_started_at: OffsetDateTime,
    steps: BTreeMap<StepId, PlannedStep>,
    started_at: BTreeMap<StepId, OffsetDateTime>,
    /// How many steps of each phase have not succeeded yet.
    open: BTreeMap<String, usize>,
}

impl Lines {
    /// Lines in that style.
    pub(crate) fn new(style: Style) -> Self {
        Self {
            style,
            run_started_at: OffsetDateTime::UNIX_EPOCH,
            steps: BTreeMap::new(),
            started_at: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    /// The lines for a message.
    pub(crate) fn message(&mut self, message: &Message) -> Vec<String> {
        match message {
            Message::Recorded(record) => self.record(record),
            Message::Progress { .. } if self.style.verbose == 0 => Vec::new(),
            Message::Progress { step, waiting_for, evidence, elapsed } => {
                let started_at = self.started_at.get(&step.id).copied().unwrap_or(self.run_started_at);
                let seen = if evidence.is_empty() { String::new() } else { format!(" ({evidence})") };
                vec![self.at(started_at + *elapsed, &format!("{}: waiting until {waiting_for}{seen}", step.id))]
            }
        }
    }

    /// The lines for an event.
    pub(crate) fn record(&mut self, record: &Record) -> Vec<String> {
        let is_chatty = self.style.verbose > 1;
        let line = |lines: &Self, text: String| vec![lines.at(record.at, &text)];
        match &record.event {
            Event::RunStarted { command, holder } => {
                self.run_started_at = record.at;
                let text = format!("{command} by {}@{}", holder.user, holder.host);
                if self.style.time == Time::Calendar { line(self, text) } else { Vec::new() }
            }
            Event::Settled { key, value } if key == "cluster_id" => {
                line(self, format!("the cluster is {}", value.as_str().unwrap_or_default()))
            }
            Event::Planned { steps } => self.planned(steps),
            Event::StepStarted { step } => {
                self.started_at.insert(step.clone(), record.at);
                if is_chatty { line(self, format!("{step}: begins")) } else { Vec::new() }
            }
            Event::Intended { step, what } if is_chatty => line(self, format!("{step}: will {what}")),
            Event::Noted { step, text } => {
                line(self, format!("{step}: {}: {text}", paint(self.style.colours, CARE, "note")))
            }
            Event::Recovered { what } => line(self, format!("note: {what}")),
            Event::StepSucceeded { step, evidence, .. } => self.succeeded(record.at, step, evidence),
            Event::StepFailed { step, failure } => {
                let mut lines = line(
                    self,
                    format!("{step}: {}: {}", paint(self.style.colours, BAD, "failed"), indented(&failure.message, 4)),
                );
                lines.extend(failure.advice.iter().map(|advice| format!("    {advice}")));
                lines
            }
            Event::Artifact { path, origin, .. } => vec![self.artifact(path, *origin)],
            Event::Discarded { path } => {
                vec![format!("==> Removing file: {} (not needed any more)", self.style.home.join(path).display())]
            }
            Event::RunEnded { outcome } if self.style.time == Time::Calendar => {
                line(self, format!("ended: {}", format!("{outcome:?}").to_lowercase()))
            }
            Event::Settled { .. } | Event::Intended { .. } | Event::RunEnded { .. } | Event::Unknown => Vec::new(),
        }
    }

    /// What need not run, and how much is to do.
    fn planned(&mut self, steps: &[PlannedStep]) -> Vec<String> {
        self.steps = steps.iter().map(|step| (step.id.clone(), step.clone())).collect();
        self.open.clear();
        for step in steps.iter().filter(|step| step.decision == Decision::Run) {
            *self.open.entry(step.phase.clone()).or_default() += 1;
        }
        let plan = engine::Plan { steps: steps.to_vec() };
        let mut phases: Vec<(&str, usize, usize)> = Vec::new();
        for step in steps {
            let skipped = usize::from(step.decision == Decision::Skip);
            match phases.iter_mut().find(|(phase, ..)| *phase == step.phase) {
                Some((_, all, done)) => (*all, *done) = (*all + 1, *done + skipped),
                None => phases.push((&step.phase, 1, skipped)),
            }
        }
        let skipping = |(phase, all, done): (&str, usize, usize)| match done {
            0 => None,
            done if done == all => Some(format!("==> Skipping: {phase} (already completed)")),
            done => Some(format!("==> Skipping: {done} of {} of {phase} (already completed)", count(all, "step"))),
        };
        let mut lines: Vec<String> = phases.into_iter().filter_map(skipping).collect();
        match plan.to_run() {
            // `deploy` says so itself, as its result.
            0 if self.style.time == Time::SinceStart => {}
            0 => lines.push("nothing to do".to_owned()),
            steps => lines.push(format!("{} to do, usually {}", count(steps, "step"), duration(plan.usual()))),
        }
        lines
    }

    fn succeeded(&mut self, at: OffsetDateTime, id: &StepId, evidence: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let step = self.steps.get(id);
        // Whatever else is shown, what is gone is named.
        let deletes = id.as_str().ends_with("/delete") || id.as_str().ends_with("/release");
        if self.style.every_step || deletes || step.is_none_or(|step| step.node.is_none()) {
            let evidence = if evidence.is_empty() { String::new() } else { format!(": {evidence}") };
            lines.push(self.at(at, &format!("{id}: done{evidence}")));
        }
        if let Some(phase) = step.map(|step| step.phase.clone())
            && let Some(open) = self.open.get_mut(&phase)
        {
            *open = open.saturating_sub(1);
            if *open == 0 {
                lines.push(self.at(at, &format!("{phase}: {}", paint(self.style.colours, GOOD, "complete"))));
            }
        }
        lines
    }

    fn artifact(&self, path: &str, origin: Origin) -> String {
        let file = self.style.home.join(path);
        let file = file.display();
        match origin {
            Origin::Existing => format!("==> Using existing file: {file}"),
            Origin::Generated => format!("==> Generating new file: {file}"),
            Origin::Regenerated => format!("==> Regenerating file: {file} (forced)"),
            Origin::Updated => format!("==> Regenerating file: {file} (what it is made from has changed)"),
            Origin::Edited => {
                format!("==> Regenerating file: {file} (it was changed by hand; the old one is kept as {file}.bak)")
            }
        }
    }

    fn at(&self, at: OffsetDateTime, text: &str) -> String {
        match self.style.time {
            Time::SinceStart => {
                let since = Duration::try_from(at - self.run_started_at).unwrap_or_default();
                format!("[{:>6}] {text}", clock(since))
            }
            Time::Calendar => {
                let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
                format!("{}  {text}", at.format(format).unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Failure, Holder, Outcome};

    fn step(id: &str, node: Option<&str>, decision: Decision) -> PlannedStep {
        PlannedStep {
            id: StepId::new(id),
            phase: id.split('/').next().unwrap_or_default().to_owned(),
            title: format!("title of {id}"),
            node: node.map(str::to_owned),
            after: Vec::new(),
            decision,
            why: String::new(),
            usual: Duration::from_secs(80),
            deadline: Duration::from_secs(600),
            fingerprint: String::new(),
            undoes: Vec::new(),
            output: serde_json::Value::Null,
        }
    }

    fn lines(style: Style, steps: &[PlannedStep], events: Vec<Event>) -> String {
        let holder = Holder {
            user: "ada".into(),
            host: "desk".into(),
            pid: 7,
            command: "deploy".into(),
            since: OffsetDateTime::UNIX_EPOCH,
        };
        let began = [Event::RunStarted { command: "deploy".into(), holder }, Event::Planned { steps: steps.to_vec() }];
        let mut lines = Lines::new(style);
        let mut text = Vec::new();
        for (sequence, event) in began.into_iter().chain(events).enumerate() {
            let at = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(1500 * sequence as u64);
            let record = Record { sequence: sequence as u64 + 1, run: 1, at, event };
            text.extend(lines.message(&Message::Recorded(Box::new(record))));
        }
        if let Some(step) = steps.first() {
            text.extend(lines.message(&Message::Progress {
                step: step.clone(),
                waiting_for: "SSH answers".into(),
                evidence: "no answer on port 22".into(),
                elapsed: Duration::from_secs(30),
            }));
        }
        text.join("\n")
    }

    fn style(verbose: u8, time: Time) -> Style {
        Style { time, verbose, every_step: true, home: PathBuf::from("home"), colours: false }
    }

    fn events() -> Vec<Event> {
        let id = || StepId::new("machines/k0s-worker-1/ready");
        let artifact = |origin| Event::Artifact { path: "ssh/config".into(), sha256: String::new(), origin };
        vec![
            Event::StepStarted { step: id() },
            Event::Intended { step: id(), what: "write a file".into() },
            artifact(Origin::Existing),
            artifact(Origin::Generated),
            artifact(Origin::Regenerated),
            Event::Noted { step: id(), text: "moves to zone 2".into() },
            Event::StepFailed { step: id(), failure: Failure::new("no").advise("Try again.") },
            Event::StepSucceeded { step: id(), evidence: "SSH answers".into(), output: serde_json::Value::Null },
            Event::RunEnded { outcome: Outcome::Succeeded },
        ]
    }

    #[test]
    fn a_run_in_lines() {
        let steps = [
            step("machines/k0s-worker-1/ready", Some("k0s-worker-1"), Decision::Run),
            step("machines/k0s-worker-1/create", Some("k0s-worker-1"), Decision::Skip),
            step("prepare/documents", None, Decision::Skip),
            step("prepare/preflight", None, Decision::Skip),
        ];
        insta::assert_snapshot!(lines(style(0, Time::SinceStart), &steps, events()), @"
        ==> Skipping: 1 of 2 steps of machines (already completed)
        ==> Skipping: prepare (already completed)
        1 step to do, usually 1 min 20 s
        ==> Using existing file: home/ssh/config
        ==> Generating new file: home/ssh/config
        ==> Regenerating file: home/ssh/config (forced)
        [  0:11] machines/k0s-worker-1/ready: note: moves to zone 2
        [  0:12] machines/k0s-worker-1/ready: failed: no
            Try again.
        [  0:14] machines/k0s-worker-1/ready: done: SSH answers
        [  0:14] machines: complete
        ");
        insta::assert_snapshot!(lines(style(2, Time::Calendar), &steps, events()), @"
        1970-01-01 00:00:00  deploy by ada@desk
        ==> Skipping: 1 of 2 steps of machines (already completed)
        ==> Skipping: prepare (already completed)
        1 step to do, usually 1 min 20 s
        1970-01-01 00:00:03  machines/k0s-worker-1/ready: begins
        1970-01-01 00:00:04  machines/k0s-worker-1/ready: will write a file
        ==> Using existing file: home/ssh/config
        ==> Generating new file: home/ssh/config
        ==> Regenerating file: home/ssh/config (forced)
        1970-01-01 00:00:10  machines/k0s-worker-1/ready: note: moves to zone 2
        1970-01-01 00:00:12  machines/k0s-worker-1/ready: failed: no
            Try again.
        1970-01-01 00:00:13  machines/k0s-worker-1/ready: done: SSH answers
        1970-01-01 00:00:13  machines: complete
        1970-01-01 00:00:15  ended: succeeded
        1970-01-01 00:00:33  machines/k0s-worker-1/ready: waiting until SSH answers (no answer on port 22)
        ");
    }

    #[test]
    fn steps_of_nodes_can_be_left_out() {
        let steps = [
            step("mesh/k0s-worker-1/member", Some("k0s-worker-1"), Decision::Run),
            step("mesh/operator", None, Decision::Run),
        ];
        let done = |id: &str| Event::StepSucceeded {
            step: StepId::new(id),
            evidence: String::new(),
            output: serde_json::Value::Null,
        };
        let style = Style { every_step: false, ..style(0, Time::SinceStart) };
        let events = vec![done("mesh/operator"), done("mesh/k0s-worker-1/member")];
        insta::assert_snapshot!(lines(style, &steps, events), @"
        2 steps to do, usually 1 min 20 s
        [  0:03] mesh/operator: done
        [  0:05] mesh: complete
        ");
    }
}
