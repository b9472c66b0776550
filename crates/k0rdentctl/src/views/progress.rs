//! The live lines of a terminal: one for the whole, and one for each running step, as far as there is room.

use std::{collections::BTreeMap, time::Duration};

use engine::{Decision, Event, Message, Plan, StepId};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::duration;
use crate::settings::terminal_height;

/// Rows of the terminal that are left to what scrolls.
const ROWS_KEPT: usize = 4;
/// How often the terminal is drawn at most, per second.
const DRAWS_PER_SECOND: u8 = 10;

/// What is going on.
#[derive(Default)]
struct Running {
    plan: Plan,
    began: Option<Instant>,
    done: usize,
    active: BTreeMap<StepId, Active>,
}

/// A step that is running.
struct Active {
    since: Instant,
    usual: Duration,
    waiting_for: String,
    evidence: String,
}

impl Running {
    fn see(&mut self, message: &Message, now: Instant) {
        match message {
            Message::Progress { step, waiting_for, evidence, .. } => {
                if let Some(active) = self.active.get_mut(&step.id) {
                    active.waiting_for.clone_from(waiting_for);
                    active.evidence.clone_from(evidence);
                }
            }
            Message::Recorded(record) => match &record.event {
                Event::RunStarted { .. } => self.began = Some(now),
                Event::Planned { steps } => self.plan = Plan { steps: steps.clone() },
                Event::StepStarted { step } => self.start(step, now),
                Event::StepSucceeded { step, .. } => {
                    self.active.remove(step);
                    self.done += 1;
                }
                Event::StepFailed { step, .. } => {
                    self.active.remove(step);
                }
                _ => {}
            },
        }
    }

    fn start(&mut self, id: &StepId, now: Instant) {
        let planned = self.plan.steps.iter().find(|step| step.id == *id);
        let usual = planned.map(|step| step.usual).unwrap_or_default();
        let active = Active { since: now, usual, waiting_for: String::new(), evidence: String::new() };
        self.active.insert(id.clone(), active);
    }

    /// The lines for a terminal of that many rows; those that run longest come first.
    fn lines(&self, now: Instant, rows: usize) -> Vec<String> {
        let Some(began) = self.began else { return Vec::new() };
        let to_run = self.plan.steps.iter().filter(|step| step.decision == Decision::Run).count();
        let elapsed = duration(now - began);
        let mut lines = match to_run {
            0 => vec![format!("{elapsed}: looking at what is there")],
            _ => vec![format!("{}/{to_run} steps, {elapsed} of usually {}", self.done, duration(self.plan.usual()))],
        };
        let room = rows.saturating_sub(ROWS_KEPT).max(1);
        let mut active: Vec<_> = self.active.iter().collect();
        active.sort_by_key(|(_, active)| active.since);
        let shown = if active.len() > room { room - 1 } else { active.len() };
        lines.extend(active.iter().take(shown).map(|(id, active)| active.line(id, now)));
        if active.len() > shown {
            lines.push(format!("  and {} more", active.len() - shown));
        }
        lines
    }
}

impl Active {
    fn line(&self, id: &StepId, now: Instant) -> String {
        let elapsed = format!("{} of usually {}", duration(now - self.since), duration(self.usual));
        match (self.waiting_for.as_str(), self.evidence.as_str()) {
            ("", _) => format!("  {id}  {elapsed}"),
            (condition, "") => format!("  {id}  {elapsed}: {condition}"),
            (condition, evidence) => format!("  {id}  {elapsed}: {condition} ({evidence})"),
        }
    }
}

/// The lines on the terminal.
pub(crate) struct Live {
    running: Running,
    terminal: MultiProgress,
    rows: Vec<ProgressBar>,
}

impl Live {
    /// Takes the lower part of the terminal.
    pub(crate) fn new() -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        Self { running: Running::default(), terminal: MultiProgress::with_draw_target(target), rows: Vec::new() }
    }

    /// Takes a message into account; the next [`Live::draw`] shows it.
    pub(crate) fn see(&mut self, message: &Message) {
        self.running.see(message, Instant::now());
    }

    /// A line that stays, above the live ones.
    pub(crate) fn print(&self, line: &str) {
        let _nobody_there = self.terminal.println(line);
    }

    /// Brings the terminal up to date.
    pub(crate) fn draw(&mut self) {
        let lines = self.running.lines(Instant::now(), terminal_height());
        while self.rows.len() < lines.len() {
            let row = ProgressBar::new_spinner();
            row.set_style(
                ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            self.rows.push(self.terminal.add(row));
        }
        for row in self.rows.drain(lines.len()..) {
            row.finish_and_clear();
            self.terminal.remove(&row);
        }
        for (row, line) in self.rows.iter().zip(lines) {
            row.set_message(line);
        }
    }

    /// Gives the terminal back.
    pub(crate) fn end(&mut self) {
        self.rows.clear();
        let _nobody_there = self.terminal.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Holder, PlannedStep, Record};
    use time::OffsetDateTime;

    fn step(number: u32) -> PlannedStep {
        PlannedStep {
            id: StepId::new(format!("machines/k0s-worker-{number}/ready")),
            phase: "machines".into(),
            title: String::new(),
            node: None,
            after: Vec::new(),
            decision: Decision::Run,
            why: String::new(),
            usual: Duration::from_secs(80),
            deadline: Duration::from_secs(600),
            fingerprint: String::new(),
            undoes: Vec::new(),
        }
    }

    fn recorded(event: Event) -> Message {
        Message::Recorded(Box::new(Record { sequence: 1, run: 1, at: OffsetDateTime::UNIX_EPOCH, event }))
    }

    #[tokio::test(start_paused = true)]
    async fn the_lines_fit_the_terminal() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let steps: Vec<_> = (1..=9).map(step).collect();
        let mut running = Running::default();
        assert!(running.lines(began, 24).is_empty());
        let holder = Holder {
            user: String::new(),
            host: String::new(),
            pid: 1,
            command: String::new(),
            since: OffsetDateTime::UNIX_EPOCH,
        };
        running.see(&recorded(Event::RunStarted { command: "deploy".into(), holder }), began);
        assert_eq!(running.lines(at(3), 24), ["3 s: looking at what is there"]);
        running.see(&recorded(Event::Planned { steps: steps.clone() }), at(5));
        for (step, second) in steps.iter().zip(10..) {
            running.see(&recorded(Event::StepStarted { step: step.id.clone() }), at(second));
        }
        let done = Event::StepSucceeded {
            step: steps[0].id.clone(),
            evidence: String::new(),
            output: serde_json::Value::Null,
        };
        running.see(&recorded(done), at(30));
        let progress = Message::Progress {
            step: steps[1].clone(),
            waiting_for: "SSH answers".into(),
            evidence: "no answer on port 22".into(),
            elapsed: Duration::ZERO,
        };
        running.see(&progress, at(31));
        insta::assert_snapshot!(running.lines(at(80), 8).join("\n"), @"
        1/9 steps, 1 min 20 s of usually 1 min 20 s
          machines/k0s-worker-2/ready  1 min 9 s of usually 1 min 20 s: SSH answers (no answer on port 22)
          machines/k0s-worker-3/ready  1 min 8 s of usually 1 min 20 s
          machines/k0s-worker-4/ready  1 min 7 s of usually 1 min 20 s
          and 5 more
        ");
        assert_eq!(running.lines(at(80), 24).len(), 9);
    }
}
