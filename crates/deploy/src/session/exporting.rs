//! The state that people and their tools read while a run goes on: whoever kills it leaves no older truth behind.

use std::{collections::BTreeMap, sync::Mutex};

use engine::{Decision, Event, Message, Plan, Record, State, StepId};

use super::run::Run;
use crate::{seam::lock, task::Phase, views::Milestones};

/// Which records change what the exported state says.
pub(super) struct Exporting<'run, 'session> {
    run: &'run Run<'session>,
    /// The phase of each step that runs, and whether it is about one machine.
    steps: BTreeMap<StepId, (String, bool)>,
    seen: Mutex<Seen>,
}

/// What is known by now, and what was exported last.
struct Seen {
    state: State,
    milestones: Milestones,
    /// How many steps of each phase have not ended well.
    open: BTreeMap<String, usize>,
}

impl<'run, 'session> Exporting<'run, 'session> {
    /// For a run that follows this plan.
    pub(super) fn new(run: &'run Run<'session>, plan: &Plan) -> Self {
        let runs = plan.steps.iter().filter(|step| step.decision == Decision::Run);
        let steps: BTreeMap<StepId, (String, bool)> =
            runs.map(|step| (step.id.clone(), (step.phase.clone(), step.node.is_some()))).collect();
        let mut open = BTreeMap::new();
        for (phase, _) in steps.values() {
            *open.entry(phase.clone()).or_default() += 1;
        }
        let state = run.state.clone();
        let milestones = Milestones::of(&state, &run.deployment.topology);
        Self { run, steps, seen: Mutex::new(Seen { state, milestones, open }) }
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
        let Some((phase, is_of_machine)) = self.steps.get(step) else { return false };
        let is_teardown = phase == Phase::Teardown.name();
        let is_last = is_done && {
            let open = seen.open.entry(phase.clone()).or_default();
            *open = open.saturating_sub(1);
            *open == 0
        };
        // Of five hundred machines, each changes little; the last one of a phase has been counted.
        if !is_last && !is_teardown && (*is_of_machine || !is_done) {
            return false;
        }
        let milestones = Milestones::of(&seen.state, &self.run.deployment.topology);
        std::mem::replace(&mut seen.milestones, milestones) != milestones || is_last
    }
}
