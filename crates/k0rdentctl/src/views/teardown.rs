//! Teardowns and leftovers for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use deploy::{
    azure::Kind,
    leftovers::{Leftover, Share, Standing, cost, short},
    recipe::Manner,
    session::{Children, Finished, TeardownPlan},
    topology::ClusterId,
};

use super::{count, duration, moment, plan::ranges, table, wrapped};
use crate::printer::{BAD, paint};

/// What is about to go: what, by name; what it saves; how long it takes; what stays.
pub(crate) fn plan(plan: &TeardownPlan, home: &Path, page: Page) -> String {
    let seconds = |seconds: u64| duration(Duration::from_secs(seconds));
    let is_going = |left: &&Leftover| left.kept().is_none();
    let mut rows: Vec<(&str, String)> = vec![("will delete", things(plan.found.iter().filter(is_going)))];
    if !plan.found.is_empty() || plan.cost.usd_per_hour > 0.0 {
        rows.push(("saves", format!("{}{}", plan.cost, spent(plan))));
    }
    let takes = match plan.found.is_empty() {
        true => format!("about {}", seconds(plan.usual_seconds)),
        false => format!("about {}, at most {}", seconds(plan.usual_seconds), seconds(plan.bound_seconds)),
    };
    rows.push(("time", takes));
    if plan.manner == Manner::FastNoWait {
        rows.push(("waiting", "none; Azure finishes in the background".to_owned()));
    } else {
        rows.push(("local files", format!("deleted: all in {} except old_deployments", home.display())));
    }
    rows.extend(children(&plan.children).map(|text| ("children", text)));
    rows.extend(plan.skipped.iter().map(|reason| ("skipped", reason.clone())));
    rows.extend(plan.strangers.iter().map(|id| ("not ours, kept", short(id))));
    let kept = plan.found.iter().filter(|left| left.kept().is_some());
    rows.extend(kept.map(|left| ("kept for that", short(&left.id))));
    let label = rows.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
    let line = |(what, text): (&str, String)| wrapped(&format!("  {what:<label$}  "), &text, page.width);
    let place = match &plan.subscription_id {
        Some(subscription) => format!(" in subscription {subscription} will be deleted"),
        None => " will be taken off its hosts".to_owned(),
    };
    let heading = paint(page.colours, BAD, &format!("{}{place}:", plan.cluster_id));
    std::iter::once(heading).chain(rows.into_iter().map(line)).collect::<Vec<_>>().join("\n")
}

/// What is known of the child clusters, with what they cost; nothing if there are none.
fn children(children: &Children) -> Option<String> {
    let machines = children.found.iter().filter(|found| found.known_kind() == Some(Kind::VirtualMachine)).count();
    let found = match children.found.len() {
        0 => String::new(),
        _ => format!(": {}, {}", count(machines, "machine"), children.cost),
    };
    match (&children.unknown, children.names.is_empty()) {
        (None, true) => None,
        (None, false) => Some(format!(
            "{}{found}; they run on without this cluster unless --with-children deletes them first",
            children.names.join(", ")
        )),
        (Some(why), _) => {
            let there = if found.is_empty() {
                "; no machine in the subscription belongs to one".to_owned()
            } else {
                let names: BTreeSet<&str> = children.found.iter().map(|found| found.cluster_id.as_str()).collect();
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                format!("; in the subscription there are {names}{found}, of this cluster or of another one")
            };
            Some(format!("not known: {why}{there}"))
        }
    }
}

/// How a page looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    /// Whether there are colours.
    pub(crate) colours: bool,
    /// How many columns there are.
    pub(crate) width: usize,
}

/// What it has cost so far, if it has always cost what it costs now.
fn spent(plan: &TeardownPlan) -> String {
    let Some(lived) = plan.lived_seconds else { return String::new() };
    let spent = plan.cost.usd_per_hour * lived as f64 / 3600.0;
    let spent = if plan.cost.usd_per_hour > 0.0 { format!(", about {spent:.2} USD so far") } else { String::new() };
    format!("; it has lived {}{spent}", duration(Duration::from_secs(lived)))
}

/// `6 virtual machines: k0s-controller-1, ...; 6 disks`: machines first and by name, then the others by their number.
fn things<'a>(found: impl Iterator<Item = &'a Leftover>) -> String {
    let name = |left: &Leftover| left.id.rsplit('/').next().unwrap_or_default().to_owned();
    let mut kinds: BTreeMap<(usize, &str), Vec<String>> = BTreeMap::new();
    for left in found {
        let kind = left.kind.rsplit('/').next().unwrap_or_default();
        let is_machine = kind.eq_ignore_ascii_case("virtualMachines");
        kinds.entry((usize::from(!is_machine), kind)).or_default().push(name(left));
    }
    let known = |kind: &str| match kind.to_ascii_lowercase().as_str() {
        "virtualmachines" => "virtual machine".to_owned(),
        "networkinterfaces" => "network interface".to_owned(),
        "publicipaddresses" => "public IP".to_owned(),
        "virtualnetworks" => "virtual network".to_owned(),
        "networksecuritygroups" => "network security group".to_owned(),
        "sshpublickeys" => "SSH key".to_owned(),
        "disks" => "disk".to_owned(),
        "resourcegroups" => "resource group".to_owned(),
        // A host that existed before.
        "host" => "host".to_owned(),
        _ => format!("of {kind}"),
    };
    if kinds.is_empty() {
        return "nothing: nothing of it was found".to_owned();
    }
    let group = |((others, kind), names): ((usize, &str), Vec<String>)| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let number = count(names.len(), &known(kind));
        if others == 0 { format!("{number}: {};", ranges(&names)) } else { format!("{number},") }
    };
    let text = kinds.into_iter().map(group).collect::<Vec<_>>().join(" ");
    text.trim_end_matches([',', ';']).to_owned()
}

/// It is gone: what was looked for and where; and what was not done on the way.
pub(crate) fn gone(plan: &TeardownPlan, finished: &Finished) -> String {
    let run = finished.status.last_run.as_ref();
    let ended = run.and_then(|run| run.ended_at).map(|at| format!(", {} UTC", moment(at))).unwrap_or_default();
    let place = match &plan.subscription_id {
        Some(subscription) => format!("looked by tag and by name in subscription {subscription}{ended}"),
        None => format!("looked on its hosts{ended}"),
    };
    let all = match plan.found.len() {
        0 => String::new(),
        all => format!(" of {}", count(all, "resource")),
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    if let Some(lived) = plan.lived_seconds {
        let took = run.and_then(|run| Some((run.ended_at? - run.started_at).unsigned_abs())).unwrap_or_default();
        let lived = Duration::from_secs(lived) + took;
        let spent = plan.cost.usd_per_hour * lived.as_secs_f64() / 3600.0;
        let spent = if spent >= 0.005 { format!(", about {spent:.2} USD at list prices") } else { String::new() };
        rows.push(vec!["  lived".to_owned(), format!("{}{spent}", duration(lived))]);
    }
    for left in &finished.kept {
        rows.push(vec!["  kept".to_owned(), left.kept().unwrap_or_else(|| short(&left.id))]);
        rows.push(vec!["  once that is gone".to_owned(), format!("delete it: {}", left.remove)]);
    }
    rows.extend(finished.children.iter().map(|left| {
        vec!["  left behind".to_owned(), format!("{} of child cluster {}", short(&left.id), left.cluster_id)]
    }));
    rows.extend(finished.skipped.iter().map(|reason| vec!["  skipped".to_owned(), reason.clone()]));
    let archive = finished.archive.as_ref().map(|archive| archive.display().to_string()).unwrap_or_default();
    rows.push(vec!["  records".to_owned(), archive]);
    rows.extend(finished.expired.iter().map(|old| vec!["  expired".to_owned(), format!("{}; removed", old.display())]));
    let kept: Vec<String> = finished.kept.iter().map(|left| short(&left.id)).collect();
    let but_for = if kept.is_empty() { String::new() } else { format!(", but for {}", kept.join(", ")) };
    format!("{} is gone{but_for}: {}{all} left ({place})\n\n{}", plan.cluster_id, kept.len(), table(&rows))
}

/// It is going.
pub(crate) fn accepted(cluster: &str, look: &str, prove: &str) -> String {
    let rows = [["  progress", look], ["  verify", prove]].map(|row| row.map(str::to_owned).to_vec());
    format!("{cluster}: Azure has accepted the deletion and finishes it in the background\n\n{}", table(&rows))
}

/// What there is of each cluster; how to remove what remains of those that do not live any more. `details`: all resources.
pub(crate) fn shares(shares: &[Share], details: &[Leftover], subscription: &str) -> String {
    if shares.is_empty() {
        return format!("0 left of any cluster in subscription {subscription}");
    }
    let block = |share: &Share| {
        let is_child = ClusterId::parse(&share.cluster_id).is_err();
        let what = if is_child { "child cluster " } else { "" };
        let standing = match share.standing {
            Standing::AliveKnownHere => "alive, known here",
            Standing::AliveNotKnownHere => "alive, not known here",
            Standing::Remains => "remains",
        };
        let (machines, resources) = (count(share.machines, "machine"), count(share.resources, "resource"));
        let mut lines = vec![
            format!("{what}{}: {standing}", share.cluster_id),
            format!("  {machines}, {resources}, {}", share.cost),
        ];
        if is_child && share.standing == Standing::AliveNotKnownHere {
            lines.push("  its management cluster deletes it; if that is gone, delete its resource groups".to_owned());
        }
        lines.extend(details.iter().filter(|left| left.cluster_id == share.cluster_id).map(|left| {
            let price = left.usd_per_hour.map_or_else(|| "price unknown".to_owned(), |price| format!("{price:.4}"));
            format!("  {}: {price}", short(&left.id))
        }));
        lines.extend(share.kept.iter().map(|kept| format!("  kept: {kept}")));
        let remove = remove_when(share.kept.len() == share.resources);
        lines.extend(share.remove.iter().map(|command| format!("  {remove}: {command}")));
        lines.join("\n")
    };
    let blocks: Vec<String> = shares.iter().map(block).collect();
    format!("{}\n\nlooked by tag and by name in subscription {subscription}", blocks.join("\n\n"))
}

/// What stands before the command that removes something; what others keep it can remove only later.
fn remove_when(is_kept: bool) -> &'static str {
    if is_kept { "once that is gone, remove" } else { "remove" }
}

/// What is left, what it costs, and how to remove it.
pub(crate) fn leftovers(left: &[Leftover], subscription: Option<&str>, cluster: Option<&str>) -> String {
    let of = cluster.map_or_else(|| "any cluster".to_owned(), str::to_owned);
    let place = match subscription {
        Some(subscription) => format!("of {of} in subscription {subscription}"),
        None => "on the hosts".to_owned(),
    };
    if left.is_empty() {
        return format!("0 left {place}");
    }
    let mut rows = vec![["CLUSTER", "WHAT", "USD AN HOUR"].map(str::to_owned).to_vec()];
    rows.extend(left.iter().map(|left| {
        let price = left.usd_per_hour.map_or_else(|| "unknown".to_owned(), |price| format!("{price:.4}"));
        vec![left.cluster_id.clone(), short(&left.id), price]
    }));
    let mut lines = vec![table(&rows), String::new()];
    lines.push(format!("{} left {place}: {}", left.len(), cost(left)));
    let mut removals: Vec<&str> = left.iter().map(|left| left.remove.as_str()).collect();
    removals.sort_unstable();
    removals.dedup();
    let kept: Vec<String> = left.iter().filter_map(Leftover::kept).collect();
    lines.extend(kept.iter().map(|kept| format!("kept: {kept}")));
    let remove = remove_when(kept.len() == left.len());
    lines.extend(removals.iter().map(|command| format!("{remove}: {command}")));
    lines.join("\n")
}
