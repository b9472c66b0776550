//! What the program said, kept for those who compare it with its journal and with the world.

use std::collections::BTreeSet;

use engine::{Event, Message, Record, State, StepId};

/// What the program said, from the birth of an environment to its reset.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) records: Vec<Record>,
    /// What follows from them.
    pub(super) state: State,
    pub(super) text: String,
}

impl Heard {
    pub(super) fn hear(&mut self, message: &Message) {
        match message {
            Message::Recorded(record) => {
                self.text += &format!("{record:?}\n");
                self.state.apply(record);
                self.records.push((**record).clone());
            }
            Message::Progress { waiting_for, evidence, .. } => {
                self.text += waiting_for;
                self.text += evidence;
            }
        }
    }

    /// Which of these machines have been ready.
    pub(super) fn in_use(&self, nodes: &[String]) -> BTreeSet<String> {
        let ready = |node: &&String| {
            let step = self.state.steps.get(&StepId::new(format!("machines/{node}/ready")));
            step.is_some_and(|step| step.completed_with.is_some())
        };
        nodes.iter().filter(ready).cloned().collect()
    }

    /// Whether the cluster has its name.
    pub(super) fn has_name(&self) -> bool {
        self.records.iter().any(|record| matches!(&record.event, Event::Settled { key, .. } if key == "cluster_id"))
    }
}
