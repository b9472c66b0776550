//! The state that people and their tools read while a run goes on: whoever kills it leaves no older truth behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use engine::{Decision, Event, Message, Plan, Record, State, StepId};

use super::run::Run;
use crate::{seam::lock, task::Phase, views::Milestones};

/// Which records change what the exported state says.
pub(super) struct Exporting<'run, 'session> {
    run: &'run Run<'session>,
    /// The steps that run.
    steps: BTreeMap<StepId, Running>,
    seen: Mutex<Seen>,
}

/// What matters of a step that runs.
struct Running {
    phase: String,
    is_of_machine: bool,
    undoes_something: bool,
}

/// What is known by now, and what was exported last.
struct Seen {
    state: State,
    milestones: Milestones,
    /// How many steps of each phase have not ended well.
    open: BTreeMap<String, usize>,
    /// What a teardown has begun to do to the first of the machines.
    begun: BTreeSet<String>,
}

impl<'run, 'session> Exporting<'run, 'session> {
    /// For a run that follows this plan.
    pub(super) fn new(run: &'run Run<'session>, plan: &Plan) -> Self {
        let runs = plan.steps.iter().filter(|step| step.decision == Decision::Run);
        let (mut steps, mut open) = (BTreeMap::new(), BTreeMap::new());
        for step in runs {
            let (is_of_machine, undoes_something) = (step.node.is_some(), !step.undoes.is_empty());
            steps.insert(step.id.clone(), Running { phase: step.phase.clone(), is_of_machine, undoes_something });
            *open.entry(step.phase.clone()).or_default() += 1;
        }
        let state = run.state.clone();
        let milestones = Milestones::of(&state, &run.deployment.topology);
        Self { run, steps, seen: Mutex::new(Seen { state, milestones, open, begun: BTreeSet::new() }) }
    }

    /// Hears of a record, and writes the state if what it says is not true any more: at the beginning, after each phase,
    /// and when something is there or gone.
    pub(super) fn hear(&self, message: &Message) {
        let Message::Recorded(record) = message else { return };
        let mut seen = lock(&self.seen);
        seen.state.apply(record);
        if self.is_due(record, &mut seen) {
            // It is written again at the end, which says what is wrong.
            let _tried_again = self.run.export_state(&seen.state, true);
        }
    }

    fn is_due(&self, record: &Record, seen: &mut Seen) -> bool {
        let (step, is_done) = match &record.event {
            Event::Planned { .. } => return true,
            Event::StepSucceeded { step, .. } => (step, true),
            Event::Intended { step, .. } => (step, false),
            _ => return false,
        };
        let Some(Running { phase, is_of_machine, undoes_something }) = self.steps.get(step) else { return false };
        let is_teardown = phase == Phase::Teardown.name();
        let is_last = is_done && {
            let open = seen.open.entry(phase.clone()).or_default();
            *open = open.saturating_sub(1);
            *open == 0
        };
        // Of five hundred machines, each changes little: what is said of all holds with the last one, whose phase ends, and
        // does not hold any more with the first one to which something is done.
        let may_change = match (is_teardown, *is_of_machine) {
            (true, true) => !is_done && *undoes_something && seen.begun.insert(kind_of(step)),
            (true, false) => true,
            (false, is_of_machine) => is_done && !is_of_machine,
        };
        if !is_last && !may_change {
            return false;
        }
        let milestones = Milestones::of(&seen.state, &self.run.deployment.topology);
        std::mem::replace(&mut seen.milestones, milestones) != milestones || is_last
    }
}

/// What a step does, whichever machine it is about.
fn kind_of(step: &StepId) -> String {
    step.as_str().rsplit('/').next().unwrap_or_default().to_owned()
}
