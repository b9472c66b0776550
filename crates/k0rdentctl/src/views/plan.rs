//! A plan for people: what is created, changed and deleted, by name; what it costs; what is opened to whom.

use std::{collections::BTreeMap, time::Duration};

use anstyle::Style;
use deploy::{
    config::{Config, VmPriority},
    difference::Difference,
    preview::{Action, Change, Opening},
    prices::{self, Cost},
    session::Place,
    views::PlanView,
};
use engine::Decision;

use super::{count, duration, indented, table, wrapped};
use crate::printer::{BAD, CARE, GOOD, HEADING, paint};

/// What the page depends on beside the plan.
pub(crate) struct Frame<'a> {
    /// What is wanted.
    pub(crate) config: &'a Config,
    /// The twin, if it is not Azure that is talked to.
    pub(crate) twin: Option<&'a std::path::Path>,
    /// Whether every step is named.
    pub(crate) every_step: bool,
    /// Whether there are colours.
    pub(crate) colours: bool,
    /// How wide the page is.
    pub(crate) width: usize,
}

/// The whole page.
pub(crate) fn text(plan: &PlanView, frame: &Frame<'_>) -> String {
    let heading = |text: &str| paint(frame.colours, HEADING, text);
    let mut parts = vec![overview(plan, frame)];
    if !plan.differences.is_empty() {
        parts.push(format!("{}\n{}", heading("Changed outside k0rdentctl"), differences(&plan.differences)));
    }
    if plan.steps_to_run == 0 {
        parts.push("nothing to do: everything is as the configuration wants it".to_owned());
        return parts.join("\n\n");
    }
    let changes = changes(plan, frame);
    if !changes.is_empty() {
        parts.push(format!("{}\n{}", heading("Changes"), changes.join("\n")));
    }
    if changes.is_empty() || frame.every_step {
        parts.push(format!("{}\n{}", heading("Steps"), table(&steps(plan, frame.every_step))));
    }
    parts.push(sum(plan));
    parts.extend((!plan.preview.dangers.is_empty()).then(|| dangers(plan, frame)));
    parts.join("\n\n")
}

/// Who, where, what, for how much.
fn overview(plan: &PlanView, frame: &Frame<'_>) -> String {
    let config = frame.config;
    let mut rows: Vec<(&str, String)> = vec![("where", place(plan.place.as_ref(), config))];
    rows.extend(
        machines(config)
            .into_iter()
            .enumerate()
            .map(|(row, machines)| (if row == 0 { "machines" } else { "" }, machines)),
    );
    let software = &config.software;
    rows.push(("software", format!("k0s {}, k0rdent {}", software.k0s.version, software.k0rdent.version)));
    if !plan.preview.open.is_empty() {
        rows.push(("open", open(&plan.preview.open)));
    }
    match frame.twin {
        Some(twin) => rows.push(("cost", format!("simulated (twin in {}): nothing is billed", twin.display()))),
        None if config.provider.makes_machines() => {
            rows.push(("cost", costs(plan.preview.cost_before, plan.preview.cost_after, config)));
        }
        None => {}
    }
    if plan.steps_to_run > 0 {
        rows.push(("time", time(plan)));
    }
    let line = |(what, text): (&str, String)| wrapped(&format!("  {what:<10} "), &text, frame.width);
    let cluster = match &plan.cluster_id {
        Some(cluster) => format!("The k0rdent management cluster {cluster}"),
        None => "A new k0rdent management cluster (deploy assigns its name)".to_owned(),
    };
    let cluster = paint(frame.colours, HEADING, &cluster);
    std::iter::once(cluster).chain(rows.into_iter().map(line)).collect::<Vec<_>>().join("\n")
}

fn place(place: Option<&Place>, config: &Config) -> String {
    if !config.provider.makes_machines() {
        return "hosts that exist already".to_owned();
    }
    let location = &config.azure.location;
    let Some(place) = place else {
        let subscription = match &config.azure.subscription_id {
            Some(id) => format!("subscription {id}"),
            None => "the subscription of whoever deploys".to_owned(),
        };
        return format!("Azure {location}, {subscription}");
    };
    let id = place.subscription_id.as_deref().unwrap_or("unknown");
    let subscription = match &place.subscription_name {
        Some(name) => format!("subscription \"{name}\" ({id})"),
        None => format!("subscription {id}"),
    };
    let account = place.account.as_ref().map(|account| format!(", as {account}")).unwrap_or_default();
    format!("Azure {location}, {subscription}{account}")
}

/// A line for each kind of machine, or for each host.
fn machines(config: &Config) -> Vec<String> {
    if !config.provider.makes_machines() {
        let hosts = config.hosts.iter();
        return hosts.map(|host| format!("{} {}@{}:{}", host.role, host.user, host.address, host.port)).collect();
    }
    let (controllers, workers) = (&config.cluster.controllers, &config.cluster.workers);
    let line = |number: u16, word: &str, size: &str, zones: &[u8]| {
        let numbers = zones.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let zones = match zones.len() {
            0 => "no zone".to_owned(),
            1 => format!("zone {numbers}"),
            _ => format!("zones {numbers}"),
        };
        format!("{:<14} {size}, {zones}", count(usize::from(number), word))
    };
    let mut lines = vec![line(controllers.count, "controller", &config.vm_sizing.controller.size, &controllers.zones)];
    if workers.count > 0 {
        lines.push(line(workers.count, "worker", &config.vm_sizing.worker.size, &workers.zones));
    }
    lines
}

fn open(openings: &[Opening]) -> String {
    let from = |from: &[String]| match from {
        [] => "the address of whoever deploys".to_owned(),
        [any] if any == "0.0.0.0/0" => "anywhere".to_owned(),
        ranges => ranges.join(", "),
    };
    let line = |opening: &Opening| {
        let port = opening.port.map_or_else(|| "port".to_owned(), |port| port.to_string());
        format!("{} {port} ({}) from {}", opening.protocol, opening.purpose, from(&opening.from))
    };
    let lines: Vec<String> = openings.iter().map(line).collect();
    format!("{}; nothing else", lines.join("; "))
}

/// What it costs, and what it has cost so far if that is something else.
fn costs(before: Cost, after: Cost, config: &Config) -> String {
    let same = before == after || before == Cost::default();
    let now = if same { String::new() } else { format!("now {before}; afterwards ") };
    format!("{now}{}", cost(after, config))
}

/// What machines, disks and addresses cost; and why, if that is not known.
pub(crate) fn cost(cost: Cost, config: &Config) -> String {
    let month = match cost.usd_per_hour {
        0.0 => String::new(),
        _ => format!(", {} USD a month", thousands(cost.usd_per_month())),
    };
    let sizes = [&config.vm_sizing.controller.size, &config.vm_sizing.worker.size];
    let mut unknown: Vec<&str> =
        sizes.into_iter().map(String::as_str).filter(|size| prices::machine(size).is_none()).collect();
    unknown.dedup();
    let is_spot = config.azure.vm_priority == VmPriority::Spot;
    let why = match (cost.unknown, cost.usd_per_hour) {
        (0, _) => " (list prices of East US, without traffic)".to_owned(),
        (_, known) => {
            let known = if known == 0.0 { "" } else { ": disks and addresses; " };
            let why = match unknown.as_slice() {
                _ if is_spot => "the price of Spot machines changes by the day".to_owned(),
                [] => "there are things in it without a list price here".to_owned(),
                sizes => format!("no list price is known here for {}", sizes.join(" and ")),
            };
            format!("{known}{why}")
        }
    };
    match (cost.unknown, cost.usd_per_hour) {
        (0, 0.0) => "nothing".to_owned(),
        (_, 0.0) => why,
        (_, known) => format!("about {known:.2} USD an hour{month}{why}"),
    }
}

/// `1,686`.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(plan: &PlanView) -> String {
    let usual = duration(Duration::from_secs(plan.expected_seconds));
    let Some(requests) = plan.requests else { return format!("about {usual}") };
    let (reads, writes) = (count(requests.reads, "read"), count(requests.writes, "write"));
    let deletes = match requests.deletes {
        0 => String::new(),
        deletes => format!(", {}", count(deletes, "deletion")),
    };
    format!("about {usual}; {reads}, {writes}{deletes} in Azure")
}

/// `6 to create, 1 to change, 2 to delete`; a machine with its disk, interface and address is several things.
fn sum(plan: &PlanView) -> String {
    let number = |action: Action| plan.preview.changes.iter().filter(|change| change.action == action).count();
    let numbers = [(Action::Create, "create"), (Action::Change, "change"), (Action::Delete, "delete")];
    let parts = numbers.map(|(action, word)| (number(action), word));
    let parts: Vec<String> =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} to {word}")).collect();
    let steps = count(plan.steps_to_run, "step");
    if parts.is_empty() {
        format!("{steps}, nothing to create, change or delete")
    } else {
        format!("{} ({steps})", parts.join(", "))
    }
}

/// What has to be said in red.
fn dangers(plan: &PlanView, frame: &Frame<'_>) -> String {
    let line = |danger: &String| paint(frame.colours, BAD, &wrapped("! ", danger, frame.width));
    plan.preview.dangers.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What happens to which thing: what is created in groups, what is changed with its reason, what is deleted one by one.
fn changes(plan: &PlanView, frame: &Frame<'_>) -> Vec<String> {
    let of = |action: Action| plan.preview.changes.iter().filter(move |change| change.action == action);
    let line = |sign: &str, style: Style, text: &str| {
        paint(frame.colours, style, &wrapped(&format!("  {sign} "), text, frame.width))
    };
    let mut lines = Vec::new();
    let is_new = plan.cluster_id.is_none();
    let created = grouped(of(Action::Create), |_| String::new());
    let (machines, others): (Vec<_>, Vec<_>) = created.iter().partition(|(kind, ..)| *kind == "virtual machine");
    lines.extend(machines.iter().map(|(kind, _, names)| line("+", GOOD, &things(kind, names, is_new))));
    // What comes with new machines is named like them.
    let other = |(kind, _, names): &&Group<'_>| match names.len() {
        1 => things(kind, names, is_new),
        number if !machines.is_empty() => count(number, kind),
        _ => things(kind, names, is_new),
    };
    let others: Vec<String> = others.iter().map(other).collect();
    lines.extend((!others.is_empty()).then(|| line("+", GOOD, &others.join(", "))));
    let changed = grouped(of(Action::Change), |change| change.why.clone().unwrap_or_default());
    lines.extend(
        changed.iter().map(|(kind, why, names)| {
            line("~", CARE, &format!("{}: {}", things(kind, names, false), indented(why, 4)))
        }),
    );
    lines.extend(deleted(of(Action::Delete)).iter().map(|text| line("-", BAD, text)));
    lines
}

type Group<'a> = (&'a str, String, Vec<&'a str>);

/// By kind and reason, in the order in which they first appear.
fn grouped<'a>(changes: impl Iterator<Item = &'a Change>, reason: impl Fn(&Change) -> String) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for change in changes {
        let why = reason(change);
        match groups.iter_mut().find(|(kind, known, _)| *kind == change.kind && *known == why) {
            Some((_, _, names)) => names.push(&change.name),
            None => groups.push((change.kind, why, vec![&change.name])),
        }
    }
    groups
}

/// `6 virtual machines: k0s-controller-1 to 3, k0s-worker-1 to 3`. What is named after a cluster without a name has none.
fn things(kind: &str, names: &[&str], is_new: bool) -> String {
    let of_machines = ["k0s-controller-", "k0s-worker-"];
    let is_named = !is_new || names.iter().any(|name| of_machines.iter().any(|prefix| name.starts_with(prefix)));
    match names {
        [_] if !is_named && kind != "k0rdent chart" => kind.to_owned(),
        [name] => format!("{kind} {name}"),
        names => format!("{}: {}", count(names.len(), kind), ranges(names)),
    }
}

/// A line for each machine that goes, with what goes with it.
fn deleted<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<String> {
    let mut lines: Vec<(String, Vec<&str>, &str)> = Vec::new();
    for change in changes {
        let is_part = !change.kind.starts_with("virtual machine") && !change.kind.starts_with("k0s on");
        match lines.last_mut() {
            Some((_, parts, _)) if is_part => parts.push(change.kind),
            _ => {
                let why = change.why.as_deref().unwrap_or_default();
                lines.push((format!("{} {}", change.kind, change.name), Vec::new(), why));
            }
        }
    }
    let line = |(what, parts, why): (String, Vec<&str>, &str)| {
        let parts = if parts.is_empty() { String::new() } else { format!(" with its {}", parts.join(", ")) };
        format!("{what}{parts}: {why}")
    };
    lines.into_iter().map(line).collect()
}

/// Names that differ in a number at their end or before their last word are told as ranges.
pub(crate) fn ranges(names: &[&str]) -> String {
    let mut groups: BTreeMap<(usize, String, String), Vec<u32>> = BTreeMap::new();
    let mut order = Vec::new();
    for name in names {
        let end = name.rfind(|character: char| character.is_ascii_digit()).map_or(0, |place| place + 1);
        let start = name[..end].rfind(|character: char| !character.is_ascii_digit()).map_or(0, |place| place + 1);
        let (before, number, after) = (&name[..start], name[start..end].parse::<u32>().ok(), &name[end..]);
        let key = (before.to_owned(), after.to_owned());
        let place = order.iter().position(|known| *known == key).unwrap_or_else(|| {
            order.push(key.clone());
            order.len() - 1
        });
        groups.entry((place, key.0, key.1)).or_default().extend(number);
    }
    let group = |((_, before, after), mut numbers): ((usize, String, String), Vec<u32>)| {
        numbers.sort_unstable();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for number in numbers {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        if runs.is_empty() {
            return format!("{before}{after}");
        }
        let run = |(first, last): (u32, u32)| match last - first {
            0 => format!("{before}{first}{after}"),
            1 => format!("{before}{first}{after}, {before}{last}{after}"),
            _ => format!("{before}{first}{after} to {before}{last}{after}"),
        };
        runs.into_iter().map(run).collect::<Vec<_>>().join(", ")
    };
    groups.into_iter().map(group).collect::<Vec<_>>().join(", ")
}

/// What is not as it is recorded: what, about what, why, and the repair.
pub(crate) fn differences(differences: &[Difference]) -> String {
    let row = |difference: &Difference| {
        let repair = difference.repair.as_deref().unwrap_or("not repaired automatically");
        let Difference { kind, subject, cause, .. } = difference;
        vec![format!("  {}", kind.name()), subject.clone(), cause.clone(), format!("-> {repair}")]
    };
    table(&differences.iter().map(row).collect::<Vec<_>>())
}

/// The steps that run; those that do the same on several nodes for the same reason have one row, unless each is wanted.
fn steps(plan: &PlanView, every_step: bool) -> Vec<Vec<String>> {
    let mut rows: Vec<(String, Vec<&str>, &str)> = Vec::new();
    for step in plan.steps.iter().filter(|step| step.decision == Decision::Run) {
        let node = step.node.as_deref();
        let name = match node {
            Some(node) if !every_step => step.id.replace(&format!("/{node}/"), "/*/"),
            _ => step.id.clone(),
        };
        match rows.iter_mut().find(|(known, _, why)| *known == name && *why == step.why) {
            Some((_, nodes, _)) => nodes.extend(node),
            None => rows.push((name, node.into_iter().collect(), &step.why)),
        }
    }
    let row = |(name, nodes, why): (String, Vec<&str>, &str)| {
        let nodes = if every_step { String::new() } else { ranges(&nodes) };
        vec![format!("  {name}"), nodes, why.to_owned()]
    };
    rows.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_row_are_a_range() {
        assert_eq!(ranges(&["k0s-worker-2"]), "k0s-worker-2");
        assert_eq!(
            ranges(&["k0s-controller-1", "k0s-worker-3", "k0s-worker-1", "k0s-worker-2", "k0s-worker-7"]),
            "k0s-controller-1, k0s-worker-1 to k0s-worker-3, k0s-worker-7"
        );
        assert_eq!(ranges(&["k0s-worker-1-osdisk", "k0s-worker-2-osdisk"]), "k0s-worker-1-osdisk, k0s-worker-2-osdisk");
        assert_eq!(ranges(&["kcm", "chart"]), "kcm, chart");
    }

    #[test]
    fn what_a_cluster_costs_is_said_or_why_not() {
        let config = |text: &str| deploy::config::load(text).expect("a configuration").config;
        let known = Cost { usd_per_hour: 2.309, unknown: 0 };
        assert_eq!(
            cost(known, &config("{}")),
            "about 2.31 USD an hour, 1,686 USD a month (list prices of East US, without traffic)"
        );
        let sizes = "vm_sizing: {controller: {size: Standard_D4s_v9}, worker: {size: Standard_D4s_v9}}";
        let unknown = Cost { usd_per_hour: 0.1, unknown: 6 };
        assert_eq!(
            cost(unknown, &config(sizes)),
            "about 0.10 USD an hour, 73 USD a month: disks and addresses; no list price is known here for \
             Standard_D4s_v9"
        );
        let spot = config("azure: {vm_priority: Spot}");
        assert_eq!(
            cost(Cost { usd_per_hour: 0.0, unknown: 6 }, &spot),
            "the price of Spot machines changes by the day"
        );
    }
}
