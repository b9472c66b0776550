//! The report of a rehearsal, for people.

use std::time::Duration;

use rehearsal::{NodeTimeline, Report};

use super::{count, duration, table};

/// The most machines whose timeline is shown.
const MACHINES_SHOWN: usize = 24;

/// The steps of a machine that are shown, with the heading of their end.
const STATIONS: [(&str, &[&str]); 5] = [
    ("address", &["public-address"]),
    ("accepted", &["create"]),
    ("provisioned", &["provisioned"]),
    ("cloud-init", &["ready"]),
    ("in cluster", &["first-controller", "controller", "worker"]),
];

/// The whole report.
pub(crate) fn text(report: &Report) -> String {
    let mut parts =
        vec![headline(report), phases(report), timeline(report), time(report), requests(report), end(report)];
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn seconds(seconds: f64) -> String {
    duration(Duration::from_secs_f64(seconds.max(0.0)))
}

fn headline(report: &Report) -> String {
    let mut lines = vec![format!("Rehearsal on the twin: {}, {}", report.outcome, count(report.nodes, "node"))];
    lines.extend(report.failures.iter().map(|failure| format!("  {failure}")));
    lines.join("\n")
}

fn phases(report: &Report) -> String {
    let mut rows = vec![["Phase", "began", "ended", ""].map(str::to_owned).to_vec()];
    for phase in &report.phases {
        let at = |instant: Option<f64>| instant.map_or_else(|| "-".to_owned(), seconds);
        rows.push(vec![
            phase.name.to_owned(),
            at(phase.started_seconds),
            at(phase.ended_seconds),
            phase.status.to_owned(),
        ]);
    }
    table(&rows)
}

/// When each machine was where, in simulated seconds since the beginning.
fn timeline(report: &Report) -> String {
    let mut rows =
        vec![std::iter::once("Machine").chain(STATIONS.map(|(heading, _)| heading)).map(str::to_owned).collect()];
    rows.extend(report.timeline.iter().take(MACHINES_SHOWN).map(machine));
    let more = report.timeline.len().saturating_sub(MACHINES_SHOWN);
    let rest = if more > 0 { format!("\n... and {more} more (--output json has all)") } else { String::new() };
    if rows.len() == 1 { String::new() } else { table(&rows) + &rest }
}

fn machine(machine: &NodeTimeline) -> Vec<String> {
    let end = |names: &[&str]| {
        let step = machine.steps.iter().find(|(name, ..)| names.contains(&name.as_str()));
        step.map_or_else(|| "-".to_owned(), |(_, _, end)| format!("{end:.1} s"))
    };
    std::iter::once(machine.name.clone()).chain(STATIONS.map(|(_, names)| end(names))).collect()
}

fn time(report: &Report) -> String {
    if report.critical_path_seconds == 0.0 {
        return format!("Simulated time until it ended: {}", seconds(report.makespan_seconds));
    }
    let mut lines = vec![
        format!("Deployment took      {:>9.1} simulated seconds", report.makespan_seconds),
        format!(
            "The world itself     {:>9.1} (critical path, no client could be faster)",
            report.critical_path_seconds
        ),
        format!("Overhead ratio       {:>9.3}", report.overhead_ratio),
    ];
    lines.extend(report.critical_path.iter().map(|(what, at)| format!("  {at:>8.1} s  {what}")));
    lines.join("\n")
}

fn requests(report: &Report) -> String {
    let requests = &report.requests;
    let mut lines = vec![format!(
        "Requests to Azure    {} reads, {} writes, {} deletes, {} throttled",
        requests.reads, requests.writes, requests.deletes, requests.throttled
    )];
    for (actor, number) in &report.other_requests {
        let what = match actor.as_str() {
            "ssh" => "commands over SSH",
            "kubernetes" => "requests to the Kubernetes API",
            "login" => "logins",
            other => other,
        };
        lines.push(format!("                     {number} {what}"));
    }
    if let Some((node, most)) = report.requests_by_node.iter().max_by_key(|(_, number)| **number) {
        lines.push(format!("                     at most {most} about one machine ({node})"));
    }
    lines.push(format!(
        "This computer        {:.2} CPU seconds, {:.0} MB at most",
        report.cpu_seconds,
        report.peak_memory_bytes as f64 / 1e6
    ));
    lines.join("\n")
}

fn end(report: &Report) -> String {
    let mut lines = vec![format!(
        "Teardown took        {:>9.1} simulated seconds; {}",
        report.teardown_seconds,
        count(report.leftovers.len(), "leftover")
    )];
    lines.extend(report.leftovers.iter().map(|left| format!("  left: {} {}", left.kind, left.id)));
    lines.join("\n")
}
