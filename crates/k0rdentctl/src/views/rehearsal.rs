//! The report of a rehearsal, for people.

use std::time::Duration;

use deploy::{config::Config, prices};
use rehearsal::{NodeTimeline, Report};

use super::{count, duration, plan::cost, table};

/// The most machines whose timeline is shown.
const MACHINES_SHOWN: usize = 24;

/// The steps of a machine that are shown, with the heading of their end.
const STATIONS: [(&str, &[&str]); 5] = [
    ("ADDRESS", &["public-address"]),
    ("ACCEPTED", &["create"]),
    ("PROVISIONED", &["provisioned"]),
    ("CLOUD-INIT", &["ready"]),
    ("IN CLUSTER", &["first-controller", "controller", "worker"]),
];

/// The whole report.
pub(crate) fn text(report: &Report, config: &Config, verbose: bool) -> String {
    let mut parts = vec![headline(report), summary(report, config), phases(report), timeline(report)];
    if verbose || report.critical_path_seconds == 0.0 {
        parts.push(time(report));
    }
    if verbose {
        parts.push(requests(report));
    }
    parts.push(left(report));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn seconds(seconds: f64) -> String {
    duration(Duration::from_secs_f64(seconds.max(0.0)))
}

fn headline(report: &Report) -> String {
    let mut lines = vec![format!("Rehearsed on the twin: {}, {}", report.outcome, count(report.nodes, "machine"))];
    lines.extend(report.failures.iter().map(|failure| format!("  {failure}")));
    lines.join("\n")
}

/// What somebody wants to know who is about to do it: how long, and for how much.
fn summary(report: &Report, config: &Config) -> String {
    let mut rows = Vec::new();
    if report.outcome == "succeeded" {
        let ready =
            report.nodes_ready_seconds.map(|at| format!("; every machine in the cluster after {}", seconds(at)));
        rows.push(("deploy", format!("{}{}", seconds(report.makespan_seconds), ready.unwrap_or_default())));
    }
    let kept = match report.leftovers.len() {
        0 => "0 left".to_owned(),
        some => format!("{} left", count(some, "resource")),
    };
    rows.push(("reset", format!("{}; {kept}", seconds(report.teardown_seconds))));
    if config.provider.makes_machines() {
        let sizes = [&config.vm_sizing.controller.size, &config.vm_sizing.worker.size];
        let numbers = [config.cluster.controllers.count, config.cluster.workers.count];
        let prices = sizes.into_iter().zip(numbers).flat_map(|(size, number)| {
            std::iter::repeat_n(prices::of_machine(config, size), usize::from(number)).flatten()
        });
        rows.push(("cost", format!("on Azure {}", cost(prices.collect(), config))));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, text)| vec![format!("  {what}"), text]).collect();
    table(&rows)
}

fn phases(report: &Report) -> String {
    let mut rows = vec![["PHASE", "BEGAN", "ENDED", "STATUS"].map(str::to_owned).to_vec()];
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
        vec![std::iter::once("MACHINE").chain(STATIONS.map(|(heading, _)| heading)).map(str::to_owned).collect()];
    rows.extend(report.timeline.iter().take(MACHINES_SHOWN).map(machine));
    let more = report.timeline.len().saturating_sub(MACHINES_SHOWN);
    let rest = if more > 0 { format!("\n... and {more} more (--output json has all)") } else { String::new() };
    if rows.len() == 1 { String::new() } else { table(&rows) + &rest }
}

fn machine(machine: &NodeTimeline) -> Vec<String> {
    let end = |names: &[&str]| {
        let step = machine.steps.iter().find(|(name, ..)| names.contains(&name.as_str()));
        step.map_or_else(|| "-".to_owned(), |(_, _, end)| seconds(*end))
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
        "Requests to Azure    {}, {}, {}, {} throttled",
        count(requests.reads as usize, "read"),
        count(requests.writes as usize, "write"),
        count(requests.deletes as usize, "deletion"),
        requests.throttled
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

fn left(report: &Report) -> String {
    report.leftovers.iter().map(|left| format!("  left: {} {}", left.kind, left.id)).collect::<Vec<_>>().join("\n")
}
