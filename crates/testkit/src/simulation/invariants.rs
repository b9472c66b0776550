//! What must hold whatever happens: of the world's ledger, of the journal, and between the two.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Event, Outcome, PlannedStep, Record, StepId, runner::SETTLE};
use time::OffsetDateTime;
use twin::Entry;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {detail}")]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// How it was broken.
    pub detail: String,
}

/// Fails with a rule and a detail.
pub(super) fn broken<T>(rule: &'static str, detail: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { rule, detail: detail.into() })
}

/// Two instants of two clocks that tell the same time are equal within this, in seconds.
const SAME_SECONDS: f64 = 0.001;
/// Steps end within their deadline and this, in seconds.
const SLACK_SECONDS: f64 = 1.0;
/// How commands of an administrator begin that change nothing.
const LOOKS: [&str; 7] = [
    "/usr/local/bin/k0s kubectl get ",
    "/usr/local/bin/k0s kubeconfig admin",
    "/usr/local/bin/k0s etcd member-list",
    "wg show ",
    "ls -d ",
    "sha256sum ",
    "test ",
];

/// What is known about the resources of the world from its ledger.
#[derive(Default)]
pub(super) struct Books {
    /// How many entries were read.
    read: usize,
    /// What exists, by lower-case id, and whether it is in order.
    alive: BTreeMap<String, bool>,
    /// What existed and was in order when the present run began.
    before: BTreeMap<String, bool>,
}

/// One run of the program, for those who judge what it did.
pub(super) struct Deeds<'a> {
    /// When the world began.
    pub(super) epoch: OffsetDateTime,
    /// What the run recorded.
    pub(super) records: &'a [Record],
    /// The resource group that it may touch.
    pub(super) group: &'a str,
    /// The machines that were in use when it began, and that it wants.
    pub(super) in_use: &'a BTreeSet<String>,
}

/// An intention as the ledger's clock has it.
struct Intention<'a> {
    at_seconds: f64,
    step: &'a str,
    what: &'a str,
}

impl Books {
    /// From here on, another run is responsible.
    pub(super) fn begin(&mut self, entries: &[Entry]) -> Result<(), Violation> {
        self.read_on(entries, true, |_, _| Ok(()))?;
        self.before.clone_from(&self.alive);
        Ok(())
    }

    /// Judges everything that happened since [`Books::begin`].
    pub(super) fn judge(&mut self, entries: &[Entry], deeds: &Deeds<'_>) -> Result<(), Violation> {
        let intentions = deeds.intentions();
        self.read_on(entries, false, |books, entry| {
            if entry.kind != "request" || entry.status.is_some_and(|status| status >= 300 && entry.actor != "ssh") {
                return Ok(());
            }
            match entry.actor {
                "arm" if !matches!(entry.verb.as_str(), "GET" | "HEAD") => books.judge_azure(entry, deeds, &intentions),
                "ssh" => judge_command(entry, &intentions),
                "kubernetes" if !matches!(entry.verb.as_str(), "GET" | "LIST" | "WATCH") => {
                    judge_kubernetes(entry, &intentions)
                }
                _ => Ok(()),
            }
        })
    }

    /// Reads what is new in the ledger.
    fn read_on(
        &mut self,
        entries: &[Entry],
        by_others: bool,
        mut judge: impl FnMut(&Self, &Entry) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        for entry in &entries[self.read..] {
            self.read += 1;
            judge(self, entry)?;
            if entry.kind != "change" || !entry.object.starts_with("/subscriptions/") {
                continue;
            }
            let id = entry.object.to_lowercase();
            match entry.verb.as_str() {
                "created" if self.alive.contains_key(&id) => {
                    return broken(
                        "nothing is created twice",
                        format!("{} at {:.3} s", entry.object, entry.at_seconds),
                    );
                }
                "succeeded" if by_others => drop(self.alive.entry(id).or_insert(true)),
                "created" | "succeeded" => drop(self.alive.insert(id, true)),
                "failed" => drop(self.alive.insert(id, false)),
                // It, or what it is a part of, is not as we made it any more.
                "updated" if by_others => {
                    let parts: Vec<&str> = id.split('/').take(9).collect();
                    self.alive.insert(parts.join("/"), false);
                }
                "deleted" => drop(self.alive.remove(&id)),
                _ => {}
            }
        }
        Ok(())
    }

    fn judge_azure(&self, entry: &Entry, deeds: &Deeds<'_>, intentions: &[Intention<'_>]) -> Result<(), Violation> {
        let at = format!("{} {} at {:.3} s", entry.verb, entry.object, entry.at_seconds);
        let path = entry.object.to_lowercase();
        let group = format!("/resourcegroups/{}", deeds.group);
        let inside = path.split_once(&group).filter(|(_, rest)| rest.is_empty() || rest.starts_with('/'));
        if inside.is_none() && !path.ends_with("/register") {
            return broken("what is not ours is left alone", at);
        }
        // 200: it was there before. A request may arrive twice within a run, when its first answer was lost.
        if entry.verb == "PUT"
            && entry.status == Some(200)
            && self.before.get(&path) == Some(&true)
            && self.alive.get(&path) == Some(&true)
        {
            return broken("nothing is created without a look whether it exists", at);
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_machine = path.contains("/virtualmachines/") || path.contains("/disks/");
        // What Azure calls failed, or others have changed, is not as it was made.
        let held = self.before.get(&path) == Some(&true) && deeds.in_use.contains(name.trim_end_matches("-osdisk"));
        if entry.verb == "DELETE" && is_machine && held {
            return broken("nothing that is in use is deleted", at);
        }
        let steps = steps_for(&path);
        let is_intended = |intention: &Intention<'_>| {
            intention.at_seconds <= entry.at_seconds + SAME_SECONDS
                && steps.iter().any(|step| intention.step.ends_with(step.as_str()))
        };
        match intentions.iter().any(is_intended) {
            true => Ok(()),
            false => broken("every change is intended before", format!("{at}: no intention of {}", steps.join(" or "))),
        }
    }
}

/// The steps that may change a resource: the ends of their names.
fn steps_for(path: &str) -> Vec<String> {
    let mut parts = path.rsplit('/');
    let (name, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // A machine is made by one step, made anew by others, and taken away by a last one.
    let of_machine = |name: &str, verb: &str| {
        [verb, "provisioned", "replace", "delete"].map(|verb| format!("/{name}/{verb}")).to_vec()
    };
    match kind {
        "resourcegroups" => vec!["/resource-group".to_owned()],
        "sshpublickeys" => vec!["/ssh-key".to_owned()],
        "networksecuritygroups" => vec!["/security-group".to_owned()],
        "virtualnetworks" => vec!["/virtual-network".to_owned()],
        "publicipaddresses" => of_machine(name.trim_end_matches("-pip"), "public-address"),
        "networkinterfaces" => of_machine(name.trim_end_matches("-nic"), "interface"),
        "virtualmachines" => of_machine(name, "create"),
        // `POST .../virtualMachines/NAME/start`
        machine if path.contains("/virtualmachines/") => of_machine(machine, "create"),
        _ => vec!["prepare/preflight".to_owned()],
    }
}

/// Whether an administrator's part of a command may change something: each part does unless known otherwise.
fn changes(command: &str) -> bool {
    let mut parts = command.split([';', '|', '&', '(', '`']).filter_map(|part| part.split_once("sudo "));
    parts.any(|(_, act)| !LOOKS.iter().any(|look| act.starts_with(look)))
}

/// Commands are in the ledger when they end.
fn judge_command(entry: &Entry, intentions: &[Intention<'_>]) -> Result<(), Violation> {
    if !changes(&entry.object) {
        return Ok(());
    }
    let node = entry.node.as_deref().unwrap_or_default();
    let is_intended = |intention: &Intention<'_>| {
        intention.at_seconds <= entry.at_seconds + SAME_SECONDS
            && (intention.step.contains(&format!("/{node}/"))
                || intention.what.contains("token")
                || (intention.step == "k0rdent/mesh" && intention.what.ends_with(&format!(" on {node}"))))
    };
    match intentions.iter().any(is_intended) {
        true => Ok(()),
        false => broken("every change is intended before", format!("{} at {:.3} s", entry.object, entry.at_seconds)),
    }
}

fn judge_kubernetes(entry: &Entry, intentions: &[Intention<'_>]) -> Result<(), Violation> {
    let may = |step: &str| step.starts_with("k0rdent/") || step.starts_with("teardown/") || step.ends_with("/drain");
    let is_intended =
        |intention: &Intention<'_>| intention.at_seconds <= entry.at_seconds + SAME_SECONDS && may(intention.step);
    match intentions.iter().any(is_intended) {
        true => Ok(()),
        false => broken("every change is intended before", format!("{} {}", entry.verb, entry.object)),
    }
}

impl Deeds<'_> {
    fn intentions(&self) -> Vec<Intention<'_>> {
        self.records
            .iter()
            .filter_map(|record| match &record.event {
                Event::Intended { step, what } => {
                    Some(Intention { at_seconds: self.seconds(record.at), step: step.as_str(), what })
                }
                _ => None,
            })
            .collect()
    }

    fn seconds(&self, at: OffsetDateTime) -> f64 {
        (at - self.epoch).as_seconds_f64()
    }

    /// What one run wrote makes sense: it began, it planned before it acted, no step took longer than it may, and none
    /// that ended well or badly is missing from the end of a run that came to its end.
    pub(super) fn judge_journal(&self, now: OffsetDateTime) -> Result<(), Violation> {
        let Some(first) = self.records.first() else { return Ok(()) };
        if !matches!(first.event, Event::RunStarted { .. }) || self.records.iter().any(|record| record.run != first.run)
        {
            return broken("a run's events are its own", format!("{:?}", first.event));
        }
        let mut planned: BTreeMap<&StepId, &PlannedStep> = BTreeMap::new();
        let mut running: BTreeMap<&StepId, OffsetDateTime> = BTreeMap::new();
        let mut ended: Option<(OffsetDateTime, Outcome)> = None;
        for record in self.records {
            match &record.event {
                Event::Planned { steps } => planned = steps.iter().map(|step| (&step.id, step)).collect(),
                Event::StepStarted { step } => drop(running.insert(step, record.at)),
                Event::Intended { step, .. } if !running.contains_key(step) => {
                    return broken("only running steps intend something", step.to_string());
                }
                Event::StepSucceeded { step, .. } | Event::StepFailed { step, .. } => {
                    let Some(since) = running.remove(step) else {
                        return broken("a step begins before it ends", step.to_string());
                    };
                    self.judge_step(planned.get(step).copied(), step, since, record.at, 0.0)?;
                }
                Event::RunEnded { outcome } => ended = Some((record.at, *outcome)),
                _ => {}
            }
        }
        for (step, since) in &running {
            let until = ended.map_or(now, |(at, _)| at);
            self.judge_step(planned.get(*step).copied(), step, *since, until, SETTLE.as_secs_f64())?;
        }
        match ended {
            Some((_, Outcome::Succeeded | Outcome::Failed)) if !running.is_empty() => {
                broken("every step that began ends", format!("{:?}", running.keys().collect::<Vec<_>>()))
            }
            _ => Ok(()),
        }
    }

    fn judge_step(
        &self,
        planned: Option<&PlannedStep>,
        step: &StepId,
        since: OffsetDateTime,
        until: OffsetDateTime,
        grace_seconds: f64,
    ) -> Result<(), Violation> {
        let Some(planned) = planned else { return broken("only planned steps run", step.to_string()) };
        let took = (until - since).as_seconds_f64();
        let may = planned.deadline.as_secs_f64() + grace_seconds + SLACK_SECONDS;
        if took <= may {
            return Ok(());
        }
        broken("no step takes longer than its deadline", format!("{step} took {took:.1} s of {:?}", planned.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_looks_change_nothing() {
        for look in [
            "n: systemctl is-active k0sworker; sudo ls -d /var/lib/k0s/kubelet.conf 2>/dev/null",
            "n: systemctl is-active wg-quick@wg0; sudo wg show wg0 public-key",
            "n: cloud-init status --wait",
        ] {
            assert!(!changes(look), "{look}");
        }
        for act in [
            "n: sudo systemctl stop k0sworker && sudo /usr/local/bin/k0s status",
            "n: sudo rm -rf /var/lib/status",
            "n: cat | sudo install -D /dev/stdin /etc/kubectl get",
            "n: sudo ls -d / && sudo rm -rf /",
        ] {
            assert!(changes(act), "{act}");
        }
    }
}
