//! What must hold whatever happens, as pure functions of the world's ledger and of what the runs recorded.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use engine::{Event, Failure, Record, State, StepStatus};
use serde::Serialize;
use twin::Entry;

use super::scene::Told;

/// Nothing is created while it exists. Objects in a cluster live as long as the cluster.
pub fn created_once(ledger: &[Entry]) -> Result<(), String> {
    let mut alive = BTreeSet::new();
    for entry in ledger.iter().filter(|entry| entry.kind == "change") {
        let is_ours = entry.object.starts_with("/subscriptions/") || entry.actor == "kubernetes";
        match entry.verb.as_str() {
            "created" if is_ours && !alive.insert(entry.object.to_lowercase()) => {
                return Err(format!("{} was created twice", entry.object));
            }
            "deleted" if entry.object == "k0s cluster" => alive.retain(|object| object.starts_with("/subscriptions/")),
            "deleted" => drop(alive.remove(&entry.object.to_lowercase())),
            _ => {}
        }
    }
    Ok(())
}

/// There is never more than one etcd cluster: a second one begins empty, and knows nothing of the first.
pub fn one_etcd(ledger: &[Entry]) -> Result<(), String> {
    let mut clusters = 0_u32;
    for entry in ledger.iter().filter(|entry| entry.kind == "change" && entry.object.ends_with("k0s cluster")) {
        clusters = if entry.verb == "created" { clusters + 1 } else { clusters.saturating_sub(1) };
        if clusters > 1 {
            return Err(format!("{} begins a second etcd cluster at {:.3} s", entry.object, entry.at_seconds));
        }
    }
    Ok(())
}

/// No machine and no disk that was in use before a deployment, as `before` says, is deleted by it.
pub fn held(ledger: &[Entry], before: &State) -> Result<(), String> {
    let deletions =
        ledger.iter().filter(|entry| entry.kind == "request" && entry.actor == "arm" && entry.verb == "DELETE");
    for path in deletions.map(|entry| entry.object.to_lowercase()) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let node = name.strip_suffix("-osdisk").unwrap_or(name);
        let ready = engine::StepId::new(format!("machines/{node}/ready"));
        let is_machine = path.contains("/virtualmachines/") || path.contains("/disks/");
        if is_machine && before.steps.get(&ready).is_some_and(|step| step.completed_with.is_some()) {
            return Err(format!("a deployment deletes {path}, which was in use"));
        }
    }
    Ok(())
}

/// Every node of which it is said that it has joined is a member of one and the same cluster.
pub fn members(claimed: &BTreeSet<String>, memberships: &[twin::machine::Membership]) -> Result<(), String> {
    let members: BTreeSet<String> = memberships.iter().map(|member| member.name.clone()).collect();
    let clusters: BTreeSet<_> = memberships.iter().map(|member| format!("{:?}", member.cluster)).collect();
    if members == *claimed && clusters.len() <= 1 {
        return Ok(());
    }
    Err(format!("{claimed:?} are said to have joined, and {members:?} have, {} clusters", clusters.len()))
}

/// Nothing was asked of a group that is not ours but to look at it.
pub fn untouched(ledger: &[Entry], group: &str) -> Result<(), String> {
    let group = group.to_lowercase();
    let touches = |entry: &&Entry| {
        let is_change = entry.kind == "change" || !matches!(entry.verb.as_str(), "GET" | "HEAD");
        is_change && !group.is_empty() && entry.object.to_lowercase().contains(&group)
    };
    match ledger.iter().find(touches) {
        Some(entry) => Err(format!("{} {} is none of our business", entry.verb, entry.object)),
        None => Ok(()),
    }
}

/// Each request by which we change the world was answered after the step that makes it had recorded its intention, and
/// before that step was done. Steps and requests are matched by the names in their paths and commands: see [`makers`].
pub fn explained(ledger: &[Entry], told: &[Told]) -> Result<(), String> {
    let mut intended: BTreeSet<&str> = BTreeSet::new();
    let mut told = told.iter().peekable();
    for entry in ledger.iter().filter(|entry| entry.kind == "request") {
        while let Some(next) = told.next_if(|told| told.ledger as u64 <= entry.sequence) {
            match &next.record.event {
                Event::Intended { step, .. } => drop(intended.insert(step.as_str())),
                Event::StepSucceeded { step, .. } => drop(intended.remove(step.as_str())),
                _ => {}
            }
        }
        let makers = makers(entry)?;
        if !makers.is_empty() && !makers.iter().any(|pattern| intended.iter().any(|step| fits(pattern, step))) {
            return Err(format!(
                "{} {} {} at {:.3} s, and no {} had said so before",
                entry.actor,
                entry.verb,
                entry.object,
                entry.at_seconds,
                makers.join(" or ")
            ));
        }
    }
    Ok(())
}

/// `*` stands for one part of a step's name.
fn fits(pattern: &str, step: &str) -> bool {
    let (mut pattern, mut step) = (pattern.split('/'), step.split('/'));
    loop {
        match (pattern.next(), step.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
            _ => return false,
        }
    }
}

/// The steps that make such a request; none if it changes nothing.
fn makers(entry: &Entry) -> Result<Vec<String>, String> {
    match entry.actor {
        "arm" => Ok(arm_makers(&entry.verb, &entry.object.to_lowercase())),
        "ssh" => ssh_makers(&entry.object),
        "kubernetes" => Ok(kubernetes_makers(&entry.verb, &entry.object)),
        _ => Ok(Vec::new()),
    }
}

fn arm_makers(verb: &str, path: &str) -> Vec<String> {
    if matches!(verb, "GET" | "HEAD") {
        return Vec::new();
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let node = |suffix: &str| name.strip_suffix(suffix).unwrap_or(name).to_owned();
    let step = match () {
        () if path.ends_with("/register") => "prepare/preflight".to_owned(),
        () if path.ends_with("/start") => format!("machines/{}/create", path.rsplit('/').nth(1).unwrap_or_default()),
        () if path.contains("/sshpublickeys/") => "infrastructure/ssh-key".to_owned(),
        () if path.contains("/networksecuritygroups/") => "infrastructure/security-group".to_owned(),
        () if path.contains("/virtualnetworks/") => "infrastructure/virtual-network".to_owned(),
        () if path.contains("/publicipaddresses/") => format!("infrastructure/{}/public-address", node("-pip")),
        () if path.contains("/networkinterfaces/") => format!("infrastructure/{}/interface", node("-nic")),
        () if path.contains("/virtualmachines/") && verb == "PUT" => {
            return ["create", "provisioned", "replace"].map(|verb| format!("machines/{name}/{verb}")).to_vec();
        }
        () if path.contains("/virtualmachines/") => {
            return ["machines/NODE/provisioned", "machines/NODE/replace", "k0s/NODE/delete"]
                .map(|step| step.replace("NODE", name))
                .to_vec();
        }
        () if verb == "DELETE" => "teardown/resource-group".to_owned(),
        () => "infrastructure/resource-group".to_owned(),
    };
    vec![step]
}

fn ssh_makers(object: &str) -> Result<Vec<String>, String> {
    const LOOKS: &[&str] = &[
        // What a person asks after a deployment.
        "true",
        "systemctl is-active ",
        "cloud-init status ",
        "sudo wg show ",
        "test -x ",
        "sha256sum ",
        "sudo sha256sum ",
        // The look before a run.
        "echo k0s $(systemctl is-active ",
        "/usr/local/bin/k0s version",
        "sudo /usr/local/bin/k0s kubectl get ",
        "sudo /usr/local/bin/k0s kubeconfig admin",
        "sudo /usr/local/bin/k0s etcd member-list",
    ];
    const ACTS: &[(&str, &[&str])] = &[
        ("sudo systemctl restart wg", &["mesh/NODE/member"]),
        ("sudo systemctl daemon-reload; sudo systemctl enable wg", &["mesh/NODE/member", "k0rdent/mesh"]),
        ("sudo apt-get ", &["machines/NODE/ready"]),
        ("sudo curl ", &["k0s/NODE/binary"]),
        ("sudo rm -f /usr/local/bin/k0s.partial", &["k0s/NODE/binary"]),
        ("sudo chmod 0755 /usr/local/bin/k0s.partial ", &["k0s/NODE/binary"]),
        ("sudo /usr/local/bin/k0s install ", &["k0s/NODE/first-controller", "k0s/NODE/controller", "k0s/NODE/worker"]),
        ("sudo /usr/local/bin/k0s token create --role=controller", &["k0s/*/controller", "k0s/*/first-controller"]),
        ("sudo /usr/local/bin/k0s token create --role=worker", &["k0s/*/worker"]),
        ("sudo /usr/local/bin/k0s token invalidate ", &["k0s/tokens"]),
        ("sudo install -d ", &["k0s/NODE/home-kubeconfig"]),
        ("grep -qxF ", &["k0s/NODE/home-kubeconfig"]),
        (
            "sudo /usr/local/bin/k0s etcd leave ",
            &["teardown/NODE/k0s", "k0s/*/leave-etcd", "k0s/*/controller", "k0s/*/first-controller"],
        ),
        (
            "sudo systemctl stop k0s",
            &["teardown/NODE/k0s", "k0s/NODE/first-controller", "k0s/NODE/controller", "k0s/NODE/worker"],
        ),
        ("sudo /usr/local/bin/k0s reset", &["teardown/NODE/k0s"]),
        ("sudo rm -rf ", &["teardown/NODE/k0s"]),
    ];
    const UPLOADS: &[(&str, &[&str])] = &[
        (" /etc/k0s/k0s.yaml", &["k0s/NODE/first-controller", "k0s/NODE/controller"]),
        (" /etc/k0s/k0stoken", &["k0s/NODE/first-controller", "k0s/NODE/controller", "k0s/NODE/worker"]),
        ("/k0rdentctl-proxy.conf", &["k0s/NODE/first-controller", "k0s/NODE/controller", "k0s/NODE/worker"]),
        ("/k0rdentctl-proxy.env", &["k0s/NODE/first-controller", "k0s/NODE/controller", "k0s/NODE/worker"]),
        (" /etc/apt/apt.conf.d/90k0rdentctl-proxy", &["machines/NODE/ready"]),
        ("/.kube/config", &["k0s/NODE/home-kubeconfig"]),
        (" /usr/local/bin/kubectl", &["k0s/NODE/home-kubeconfig"]),
        (" /etc/wireguard/wg0.conf", &["mesh/NODE/member", "k0rdent/mesh"]),
    ];
    let (node, command) = object.split_once(": ").unwrap_or_default();
    if LOOKS.iter().any(|look| command.starts_with(look)) {
        return Ok(Vec::new());
    }
    let found = if command.starts_with("cat | sudo install ") {
        UPLOADS.iter().find(|(file, _)| command.ends_with(file))
    } else {
        ACTS.iter().find(|(act, _)| command.starts_with(act))
    };
    let (_, steps) = found.ok_or_else(|| format!("nobody knows why there is a command `{command}` on {node}"))?;
    Ok(steps.iter().map(|step| step.replace("NODE", node)).collect())
}

fn kubernetes_makers(verb: &str, path: &str) -> Vec<String> {
    let teardown = match verb {
        "GET" | "HEAD" | "WATCH" => return Vec::new(),
        _ if path.contains("/nodes/") || path.ends_with("/eviction") => return vec!["k0s/*/drain".to_owned()],
        "DELETE" => true,
        _ => false,
    };
    // Flux is asked to try a release again by the step that waits for it.
    let kinds = [
        ("/charts/", "chart"),
        ("/managements/", "management"),
        ("/helmreleases/", "management"),
        ("/namespaces/", "namespace"),
    ];
    let kind = kinds.iter().find(|(part, _)| path.contains(part)).map_or("nothing", |(_, kind)| kind);
    vec![format!("{}/{kind}", if teardown { "teardown" } else { "k0rdent" })]
}

/// The journal holds exactly what the runs have told, in that order.
pub fn recorded(journal: &[Record], told: &[Told]) -> Result<(), String> {
    for (position, told) in told.iter().enumerate() {
        match journal.get(position) {
            Some(record) if *record == told.record => {}
            other => return Err(format!("the journal holds {other:?} where {:?} was told", told.record)),
        }
    }
    match journal.get(told.len()) {
        Some(record) => Err(format!("the journal holds {record:?}, which nobody told")),
        None => Ok(()),
    }
}

/// Two views are the same.
pub fn same(what: &str, recorded: &impl Serialize, reported: &impl Serialize) -> Result<(), String> {
    let [recorded, reported] = [serde_json::to_value(recorded), serde_json::to_value(reported)]
        .map(|value| value.map_err(|error| error.to_string()));
    let (recorded, reported) = (recorded?, reported?);
    if recorded == reported {
        return Ok(());
    }
    Err(format!("{what} of the journal is {recorded}, and the run reported {reported}"))
}

/// The failures that a run reported are those that it recorded.
pub fn failures(state: &State, reported: &[Failure]) -> Result<(), String> {
    let failed = |step: &&engine::StepState| step.status == StepStatus::Failed;
    let recorded: BTreeMap<_, _> = state.order.iter().filter_map(|id| state.steps.get_key_value(id)).collect();
    let recorded: Vec<_> = recorded.values().copied().filter(failed).filter_map(|step| step.failure.as_ref()).collect();
    let told = |failure: &&&Failure| reported.iter().any(|reported| reported.message.ends_with(&failure.message));
    if recorded.len() == reported.len() && recorded.iter().filter(told).count() == recorded.len() {
        return Ok(());
    }
    Err(format!("the run reported {reported:?}, and recorded {recorded:?}"))
}

/// A torn down environment's directory holds archives only, each whole and without private keys.
pub fn only_the_archive(home: &Path) -> Result<(), String> {
    let names = |directory: &Path| -> Result<Vec<String>, String> {
        let entries = fs_err::read_dir(directory).map_err(|error| error.to_string())?;
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    };
    let left = names(home)?;
    if left != [".gitignore", "README", "old_deployments"] {
        return Err(format!("a teardown leaves {left:?} in the directory"));
    }
    for archive in names(&home.join("old_deployments"))? {
        let directory = home.join("old_deployments").join(&archive);
        let files = names(&directory)?;
        if files != ["deployment-events.yaml", "deployment-state.yaml", "k0rdent.yaml", "report.json"] {
            return Err(format!("archive {archive} holds {files:?}"));
        }
        for file in files {
            let text = fs_err::read_to_string(directory.join(&file)).map_err(|error| error.to_string())?;
            if text.is_empty() || text.contains("PRIVATE KEY") {
                return Err(format!("{archive}/{file} is empty or holds a private key"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use engine::StepId;

    use super::*;

    fn entry(sequence: u64, actor: &'static str, kind: &'static str, verb: &str, object: &str) -> Entry {
        let (verb, object) = (verb.to_owned(), object.to_owned());
        Entry { sequence, at_seconds: 0.0, actor, kind, verb, object, status: None, node: None }
    }

    fn told(ledger: usize, event: Event) -> Told {
        let at = engine::Clock::utc(&engine::SystemClock);
        Told { ledger, record: Record { sequence: 1, run: 1, at, event } }
    }

    fn intended(ledger: usize, step: &str) -> Told {
        told(ledger, Event::Intended { step: StepId::new(step), what: String::new() })
    }

    #[test]
    fn a_thing_lives_once_at_a_time() {
        let change = |verb: &str| entry(0, "arm", "change", verb, "/subscriptions/a");
        assert!(created_once(&[change("created"), change("deleted"), change("created")]).is_ok());
        assert!(created_once(&[change("created"), change("created")]).is_err());
    }

    #[test]
    fn an_effect_needs_an_intention_that_is_older_and_not_yet_fulfilled() {
        let path = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/publicIPAddresses/n-pip";
        let put = [entry(5, "arm", "request", "PUT", path)];
        let step = "infrastructure/n/public-address";
        assert!(explained(&put, &[intended(5, step)]).is_ok());
        assert!(explained(&put, &[intended(6, step)]).is_err());
        assert!(explained(&put, &[intended(5, "infrastructure/m/public-address")]).is_err());
        let done =
            Event::StepSucceeded { step: StepId::new(step), evidence: String::new(), output: serde_json::Value::Null };
        assert!(explained(&put, &[intended(4, step), told(5, done)]).is_err());
    }

    #[test]
    fn a_second_etcd_cluster_is_seen() {
        let change = |verb: &str| entry(0, "world", "change", verb, "k0s-controller-1: k0s cluster");
        assert!(one_etcd(&[change("created"), change("deleted"), change("created")]).is_ok());
        assert!(one_etcd(&[change("created"), change("created")]).is_err());
    }

    #[test]
    fn what_was_in_use_may_not_be_deleted() {
        let path = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/k0s-worker-1";
        let deletion = [entry(0, "arm", "request", "DELETE", path)];
        let planned = serde_json::json!({
            "id": "machines/k0s-worker-1/ready", "phase": "machines", "title": "", "node": null, "after": [],
            "decision": "run", "why": "", "usual": {"secs": 1, "nanos": 0}, "deadline": {"secs": 1, "nanos": 0},
            "fingerprint": "f", "undoes": [],
        });
        let planned: engine::PlannedStep = serde_json::from_value(planned).expect("a planned step");
        let step = planned.id.clone();
        let done = Event::StepSucceeded { step, evidence: String::new(), output: serde_json::Value::Null };
        let events = [Event::Planned { steps: vec![planned] }, done];
        let ready: Vec<Record> = events.into_iter().map(|event| told(0, event).record).collect();
        assert!(held(&deletion, &State::of(&ready[..1])).is_ok());
        assert!(held(&deletion, &State::of(&ready)).is_err());
    }

    #[test]
    fn unknown_commands_are_not_waved_through() {
        assert!(ssh_makers("n: sudo rm /").is_err());
        assert_eq!(ssh_makers("n: systemctl is-active k0sworker"), Ok(Vec::new()));
        assert_eq!(ssh_makers("n: sudo /usr/local/bin/k0s reset"), Ok(vec!["teardown/n/k0s".to_owned()]));
    }
}
