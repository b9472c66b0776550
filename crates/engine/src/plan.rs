//! Plans: which steps there are, what each waits for, and why it runs or need not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Names a step for ever: `network/vnet`, `machines/k0s-worker-1/vm`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepId(String);

impl StepId {
    /// The step called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a step has anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// It is done, and the world agrees: nothing to do.
    Skip,
    /// It has to run: look closer, then create, repair or wait.
    Run,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its name.
    pub id: StepId,
    /// The phase under which people see it.
    pub phase: String,
    /// What it does, for people: `virtual machine k0s-worker-1`.
    pub title: String,
    /// The node that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The steps that must have succeeded before.
    pub after: Vec<StepId>,
    /// Whether it runs.
    pub decision: Decision,
    /// Why it runs, or why it need not.
    pub why: String,
    /// How long it usually takes.
    pub usual: Duration,
    /// How long it may take at most.
    pub deadline: Duration,
    /// A digest of what it was made from: the same inputs, the same digest.
    pub fingerprint: String,
    /// The steps that do not hold any more once this one has succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undoes: Vec<StepId>,
    /// What was seen of a step that need not run, as it would have told others: it may have ended without saying so.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub output: serde_json::Value,
}

/// The steps of one run, in an order in which each comes after what it depends on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In order.
    pub steps: Vec<PlannedStep>,
}

impl Plan {
    /// How many steps will run.
    pub fn to_run(&self) -> usize {
        self.steps.iter().filter(|step| step.decision == Decision::Run).count()
    }

    /// How long the steps that run usually take along the longest chain of dependencies.
    pub fn usual(&self) -> Duration {
        self.longest_chain(|step| step.usual)
    }

    /// How long the steps that run may take: the deadlines along the longest chain of dependencies.
    pub fn bound(&self) -> Duration {
        self.longest_chain(|step| step.deadline)
    }

    fn longest_chain(&self, takes: impl Fn(&PlannedStep) -> Duration) -> Duration {
        let mut ends: BTreeMap<&StepId, Duration> = BTreeMap::new();
        for step in &self.steps {
            let start = step.after.iter().filter_map(|id| ends.get(id)).max().copied().unwrap_or_default();
            let takes = if step.decision == Decision::Run { takes(step) } else { Duration::ZERO };
            ends.insert(&step.id, start + takes);
        }
        ends.into_values().max().unwrap_or_default()
    }

    /// What is wrong with the plan itself: a name used twice, or a dependency that does not come before.
    pub fn defect(&self) -> Option<String> {
        let mut known = BTreeSet::new();
        for step in &self.steps {
            if let Some(missing) = step.after.iter().find(|id| !known.contains(id)) {
                return Some(format!("step {} comes after {missing}, which does not come before it", step.id));
            }
            if !known.insert(&step.id) {
                return Some(format!("step {} is planned twice", step.id));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, after: &[&str], seconds: u64) -> PlannedStep {
        PlannedStep {
            id: StepId::new(id),
            phase: "p".into(),
            title: id.into(),
            node: None,
            after: after.iter().map(|id| StepId::new(*id)).collect(),
            decision: Decision::Run,
            why: String::new(),
            usual: Duration::from_secs(seconds),
            deadline: Duration::from_secs(60),
            fingerprint: String::new(),
            undoes: Vec::new(),
            output: serde_json::Value::Null,
        }
    }

    #[test]
    fn the_longest_chain_counts() {
        let plan =
            Plan { steps: vec![step("a", &[], 3), step("b", &["a"], 4), step("c", &["a"], 1), step("d", &["c"], 1)] };
        assert_eq!(plan.usual(), Duration::from_secs(7));
        assert_eq!(plan.bound(), Duration::from_secs(180));
        assert_eq!(plan.defect(), None);
    }

    #[test]
    fn a_dependency_must_come_before() {
        let plan = Plan { steps: vec![step("a", &["b"], 3), step("b", &[], 4)] };
        assert_eq!(plan.defect().unwrap(), "step a comes after b, which does not come before it");
    }
}
