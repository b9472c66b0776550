//! The live lines of a terminal: one for the whole, and one for each thing that is waited for, as far as there is room.
//! Machines that wait for the same have one together.

use std::{collections::BTreeMap, time::Duration};

use engine::{Decision, Event, Message, Plan, PlannedStep, StepId};
use tokio::time::Instant;

use super::{clock, count, painter::Painter, plan::ranges, wrapped};
use crate::{
    printer::draw_messages,
    settings::{terminal_height, terminal_width},
};

/// Rows of the terminal that are left to what scrolls.
const ROWS_KEPT: usize = 4;
/// Wider lines are hard to follow, and break when a terminal becomes narrower.
const COLUMNS_AT_MOST: usize = 80;
/// Names of machines that are longer together are told as a number.
const NAMES_AT_MOST: usize = 36;
/// Evidence that is longer is for `-v`.
const EVIDENCE_AT_MOST: usize = 240;

/// What is going on.
#[derive(Default)]
struct Running {
    command: String,
    plan: Plan,
    began: Option<Instant>,
    done: BTreeMap<StepId, Duration>,
    active: BTreeMap<StepId, Active>,
    /// World seconds to a second.
    speed: f64,
}

/// A step that is running.
struct Active {
    since: Instant,
    planned: Option<PlannedStep>,
    waiting_for: String,
    evidence: String,
}

/// Steps that wait for the same.
struct Group<'a> {
    machines: Vec<&'a str>,
    title: &'a str,
    since: Instant,
    usual: Duration,
    waiting: String,
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
                Event::RunStarted { command, .. } => {
                    (self.began, self.command) = (Some(now), command.clone());
                }
                Event::Planned { steps } => self.plan = Plan { steps: steps.clone() },
                Event::StepStarted { step } => {
                    let planned = self.plan.steps.iter().find(|planned| planned.id == *step).cloned();
                    let (waiting_for, evidence) = Default::default();
                    self.active.insert(step.clone(), Active { since: now, planned, waiting_for, evidence });
                }
                Event::StepSucceeded { step, .. } => {
                    let took = self.active.remove(step).map(|active| now - active.since).unwrap_or_default();
                    self.done.insert(step.clone(), took);
                }
                Event::StepFailed { step, .. } => {
                    self.active.remove(step);
                }
                _ => {}
            },
        }
    }

    /// How long the rest usually takes: what is left of the longest chain of steps.
    fn left(&self, now: Instant) -> Duration {
        let mut rest = self.plan.clone();
        for step in &mut rest.steps {
            let running = self.active.get(&step.id).map(|active| now - active.since);
            let since = if self.done.contains_key(&step.id) { step.usual } else { running.unwrap_or_default() };
            step.usual = step.usual.saturating_sub(since.mul_f64(self.speed));
        }
        rest.usual().div_f64(self.speed)
    }

    /// The lines for a terminal of that size; those that run longest come first.
    fn lines(&self, now: Instant, columns: usize, rows: usize) -> Vec<String> {
        let Some(began) = self.began else { return Vec::new() };
        let to_run = self.plan.steps.iter().filter(|step| step.decision == Decision::Run).count();
        let elapsed = clock(now - began);
        let mut lines = vec![match to_run {
            0 => format!("{} {elapsed}  looking at what is there", self.command),
            _ => {
                let (done, left) = (self.done.len(), clock(self.left(now)));
                format!("{} {elapsed}  {} {done}/{to_run} steps, about {left} left", self.command, bar(done, to_run))
            }
        }];
        let room = rows.saturating_sub(ROWS_KEPT).max(2);
        let groups = self.groups();
        let width = columns.min(COLUMNS_AT_MOST).saturating_sub(1).max(10);
        for (index, group) in groups.iter().enumerate() {
            let text: Vec<String> = group.text(now, self.speed, width).lines().map(str::to_owned).collect();
            let needed = text.len() + usize::from(index + 1 < groups.len());
            if lines.len() + needed > room {
                lines.push(format!("  and {} more", groups.len() - index));
                break;
            }
            lines.extend(text);
        }
        lines.iter().map(|line| line.chars().take(width).collect()).collect()
    }

    /// Whether what a step waits for is said by another one: a machine that boots is one thing, though Azure and the
    /// machine are both asked. If it takes too long, both are of interest.
    fn is_told(&self, id: &StepId, active: &Active) -> bool {
        let is_other = |other: &Active| {
            let node = |active: &Active| active.planned.as_ref().map(|step| step.node.clone());
            !other.waiting_for.is_empty() && node(other) == node(active)
        };
        let late = active.planned.as_ref().is_none_or(|step| active.since.elapsed() > 2 * step.usual);
        let others = || self.active.iter().filter(|(other, _)| *other != id);
        id.as_str().ends_with("/provisioned") && !late && others().any(|(_, other)| is_other(other))
    }

    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: BTreeMap<(String, String), Group<'_>> = BTreeMap::new();
        for (id, active) in self.active.iter().filter(|(id, active)| !self.is_told(id, active)) {
            let planned = active.planned.as_ref();
            let machine = planned.and_then(|step| step.node.as_deref());
            let waiting = active.waiting(machine);
            let verb = id.as_str().rsplit('/').next().unwrap_or_default();
            let key = (if machine.is_some() { verb } else { id.as_str() }.to_owned(), waiting.clone());
            let usual = planned.map(|step| step.usual).unwrap_or_default();
            let title = planned.map_or(id.as_str(), |step| &step.title);
            let new = || Group { machines: Vec::new(), title, since: active.since, usual, waiting };
            let group = groups.entry(key).or_insert_with(new);
            group.since = group.since.min(active.since);
            group.machines.extend(machine);
        }
        let mut groups: Vec<Group<'_>> = groups.into_values().collect();
        groups.sort_by_key(|group| group.since);
        groups
    }
}

impl Active {
    /// `until cloud-init on it is done (SSH answers)`. What is said of a machine is said of each of its group.
    fn waiting(&self, machine: Option<&str>) -> String {
        let about = |text: &str| match machine {
            Some(machine) => called_it(text, machine),
            None => text.to_owned(),
        };
        let evidence: String = about(&self.evidence).chars().take(EVIDENCE_AT_MOST).collect();
        // Whatever others say is one line, and moves no cursor.
        let evidence = evidence.split(|character: char| character.is_control()).collect::<Vec<_>>().join(" ");
        match (about(&self.waiting_for).as_str(), evidence.as_str()) {
            ("", _) => String::new(),
            (condition, "") => format!("until {condition}"),
            (condition, evidence) => format!("until {condition} ({evidence})"),
        }
    }
}

/// The text with the machine, or its node, called `it`; other things and machines whose names begin like its name keep theirs.
fn called_it(text: &str, machine: &str) -> String {
    let mut parts = text.split(machine);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, rest| match rest.starts_with(|next: char| next.is_alphanumeric() || next == '-') {
        true => text + machine + rest,
        false => text.strip_suffix("node ").unwrap_or(&text).to_owned() + "it" + rest,
    })
}

impl Group<'_> {
    fn text(&self, now: Instant, speed: f64, width: usize) -> String {
        let who = match self.machines.as_slice() {
            [] => self.title.to_owned(),
            [_] if self.waiting.is_empty() => self.title.to_owned(),
            machines => {
                let names = ranges(machines);
                if names.len() > NAMES_AT_MOST { count(machines.len(), "machine") } else { names }
            }
        };
        let time = format!("{}/{}", clock(now - self.since), clock(self.usual.div_f64(speed)));
        // Further lines are indented more than the first.
        let text = wrapped("      ", &format!("{who}  {time}  {}", self.waiting), width);
        text.chars().skip(4).collect()
    }
}

/// `[####......]`
fn bar(done: usize, all: usize) -> String {
    const WIDTH: usize = 20;
    let full = (WIDTH * done).checked_div(all).unwrap_or(WIDTH).min(WIDTH);
    format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH - full))
}

/// The lines on the terminal.
pub(crate) struct Live {
    running: Running,
    painter: Painter,
}

impl Live {
    /// Takes the lower part of the terminal; so many seconds of the world pass in one.
    pub(crate) fn new(speed: f64) -> Self {
        Self { running: Running { speed, ..Running::default() }, painter: Painter::default() }
    }

    /// Takes a message into account; the next [`Live::draw`] shows it.
    pub(crate) fn see(&mut self, message: &Message) {
        self.running.see(message, Instant::now());
    }

    /// A line that stays, above the live ones.
    pub(crate) fn print(&mut self, line: &str) {
        draw_messages(&self.painter.print(line, terminal_width()));
    }

    /// Brings the terminal up to date.
    pub(crate) fn draw(&mut self) {
        let columns = terminal_width();
        let lines = self.running.lines(Instant::now(), columns, terminal_height());
        draw_messages(&self.painter.draw(lines, columns));
    }

    /// Gives the terminal back.
    pub(crate) fn end(&mut self) {
        draw_messages(&self.painter.erase(terminal_width()));
    }
}

/// What plain lines say when nothing has happened for a while, so that nobody ends a silent job.
pub(crate) struct Heartbeat {
    running: Running,
    last: Instant,
}

impl Heartbeat {
    /// How long nothing may be said.
    const SILENCE: Duration = Duration::from_secs(30);

    /// Begins now; so many seconds of the world pass in one.
    pub(crate) fn new(speed: f64) -> Self {
        Self { running: Running { speed, ..Running::default() }, last: Instant::now() }
    }

    /// Takes a message into account; `said` if there was a line for it.
    pub(crate) fn see(&mut self, message: &Message, said: bool) {
        let now = Instant::now();
        self.running.see(message, now);
        if said {
            self.last = now;
        }
    }

    /// What is waited for longest, if it is time to say so.
    pub(crate) fn beat(&mut self) -> Option<String> {
        let now = Instant::now();
        let began = self.running.began.filter(|_| now - self.last >= Self::SILENCE)?;
        let group = self.running.groups().into_iter().next()?.text(now, self.running.speed, usize::MAX);
        self.last = now;
        Some(format!("[{:>6}] still running: {}", clock(now - began), group.trim_start()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Holder, Record};
    use time::OffsetDateTime;

    fn step(number: u32) -> PlannedStep {
        PlannedStep {
            id: StepId::new(format!("machines/k0s-worker-{number}/ready")),
            phase: "machines".into(),
            title: format!("SSH and cloud-init on k0s-worker-{number}"),
            node: Some(format!("k0s-worker-{number}")),
            after: Vec::new(),
            decision: Decision::Run,
            why: String::new(),
            usual: Duration::from_secs(80),
            deadline: Duration::from_secs(600),
            fingerprint: String::new(),
            undoes: Vec::new(),
            output: serde_json::Value::Null,
        }
    }

    fn recorded(event: Event) -> Message {
        Message::Recorded(Box::new(Record { sequence: 1, run: 1, at: OffsetDateTime::UNIX_EPOCH, event }))
    }

    /// Fifty workers that boot, one controller that waits for Azure, and k0rdent.
    fn running(began: Instant) -> Running {
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut steps: Vec<_> = (1..=50).map(step).collect();
        let management = PlannedStep {
            id: StepId::new("k0rdent/management"),
            phase: "k0rdent".into(),
            title: "k0rdent Management".into(),
            node: None,
            usual: Duration::from_secs(440),
            ..step(0)
        };
        steps.push(management.clone());
        let mut running = Running { speed: 1.0, ..Running::default() };
        assert!(running.lines(began, 80, 24).is_empty());
        let holder = Holder {
            user: String::new(),
            host: String::new(),
            pid: 1,
            command: String::new(),
            since: OffsetDateTime::UNIX_EPOCH,
        };
        running.see(&recorded(Event::RunStarted { command: "deploy".into(), holder }), began);
        assert_eq!(running.lines(at(3), 80, 24), ["deploy 0:03  looking at what is there"]);
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
        let mut progress = |step: &PlannedStep, waiting_for: &str, evidence: &str| {
            let (waiting_for, evidence) = (waiting_for.to_owned(), evidence.to_owned());
            let progress = Message::Progress { step: step.clone(), waiting_for, evidence, elapsed: Duration::ZERO };
            running.see(&progress, at(70));
        };
        for step in &steps[1..40] {
            let name = step.node.as_deref().unwrap_or_default();
            progress(step, &format!("cloud-init on {name} is done"), "SSH answers; cloud-init is running");
        }
        for step in &steps[40..42] {
            progress(
                step,
                &format!("{} answers SSH", step.node.as_deref().unwrap_or_default()),
                "no answer on port 22",
            );
        }
        progress(
            &management,
            "Management kcm is Ready with release kcm-1-1-1",
            "7 of 13 components are ready; capi: HelmRelease kcm-system/capi is not ready: Helm install in progress",
        );
        running
    }

    #[tokio::test(start_paused = true)]
    async fn the_reason_fits_a_terminal_of_80_columns() {
        let began = Instant::now();
        let running = running(began);
        let at = began + Duration::from_secs(80);
        insta::assert_snapshot!(running.lines(at, 80, 24).join("\n"), @"
        deploy 1:20  [....................] 1/51 steps, about 7:00 left
          k0s-worker-2 to k0s-worker-40  1:09/1:20  until cloud-init on it is done
              (SSH answers; cloud-init is running)
          k0s-worker-41, k0s-worker-42  0:30/1:20  until it answers SSH (no answer
              on port 22)
          k0s-worker-43 to k0s-worker-50  0:28/1:20
          k0rdent Management  0:20/7:20  until Management kcm is Ready with release
              kcm-1-1-1 (7 of 13 components are ready; capi: HelmRelease
              kcm-system/capi is not ready: Helm install in progress)
        ");
        insta::assert_snapshot!(running.lines(at, 140, 40).join("\n"), @"
        deploy 1:20  [....................] 1/51 steps, about 7:00 left
          k0s-worker-2 to k0s-worker-40  1:09/1:20  until cloud-init on it is done
              (SSH answers; cloud-init is running)
          k0s-worker-41, k0s-worker-42  0:30/1:20  until it answers SSH (no answer
              on port 22)
          k0s-worker-43 to k0s-worker-50  0:28/1:20
          k0rdent Management  0:20/7:20  until Management kcm is Ready with release
              kcm-1-1-1 (7 of 13 components are ready; capi: HelmRelease
              kcm-system/capi is not ready: Helm install in progress)
        ");
        for (columns, rows) in [(80, 24), (140, 40), (40, 10), (20, 5)] {
            let lines = running.lines(at, columns, rows);
            assert!(lines.len() < rows, "{lines:#?}");
            assert!(lines.iter().all(|line| line.chars().count() < columns), "{lines:#?}");
        }
    }

    #[test]
    fn only_the_machine_itself_is_it() {
        let text = "Azure calls k0s-worker-1-nic of k0s-worker-1 ready, not k0s-worker-10";
        assert_eq!(called_it(text, "k0s-worker-1"), "Azure calls k0s-worker-1-nic of it ready, not k0s-worker-10");
        assert_eq!(
            called_it("node k0s-worker-1 is Ready, and node k0s-worker-10", "k0s-worker-1"),
            "it is Ready, and node k0s-worker-10"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_is_left_is_the_worlds() {
        let began = Instant::now();
        let mut running = running(began);
        let at = began + Duration::from_secs(100);
        assert_eq!(running.left(at), Duration::from_secs(440 - 40));
        running.speed = 10.0;
        assert_eq!(running.left(at), Duration::from_secs(4));
    }
}
