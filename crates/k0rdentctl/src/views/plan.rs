//! A plan for people.

use deploy::{plan::Difference, views::PlanView};
use engine::Decision;

use super::{count, duration, table};
use crate::printer::{HEADING, paint};

/// The whole page. `next` is the command that carries the plan out; `every_step` names steps node by node.
pub(crate) fn text(plan: &PlanView, next: &str, every_step: bool, colours: bool) -> String {
    let heading = |text: &str| paint(colours, HEADING, text);
    let cluster = plan.cluster_id.clone().unwrap_or_else(|| "a new one; deploy draws its name".to_owned());
    let mut rows = vec![["PHASE", "STEPS", "TO DO"].map(str::to_owned).to_vec()];
    let row = |name: &str, steps: usize, to_run: usize| vec![name.to_owned(), steps.to_string(), to_run.to_string()];
    rows.extend(plan.phases.iter().map(|phase| row(phase.name, phase.steps, phase.to_run)));
    rows.push(row("all", plan.steps.len(), plan.steps_to_run));
    let mut parts = vec![format!("cluster  {cluster}"), table(&rows)];
    if plan.steps_to_run == 0 {
        parts.push("nothing to do".to_owned());
        return parts.join("\n\n");
    }
    if !plan.differences.is_empty() {
        parts.push(format!("{}\n{}", heading("not as it was left"), differences(&plan.differences)));
    }
    parts.push(format!("{}\n{}", heading("to do, and why"), table(&to_do(plan, every_step))));
    let usual = duration(std::time::Duration::from_secs(plan.expected_seconds));
    parts.push(match plan.requests {
        Some(requests) => {
            let reads = count(requests.reads, "request");
            format!("usually {usual}; about {reads} to Azure that read and {} that write", requests.writes)
        }
        None => format!("usually {usual}"),
    });
    parts.push(format!("{} {next}", heading("next:")));
    parts.join("\n\n")
}

/// What is not as it is recorded: what, about what, why, and the repair.
pub(crate) fn differences(differences: &[Difference]) -> String {
    let row = |difference: &Difference| {
        let repair = difference.repair.as_deref().unwrap_or("left alone: a person has to decide");
        let Difference { name, subject, cause, .. } = difference;
        vec![format!("  {name}"), subject.clone(), cause.clone(), format!("-> {repair}")]
    };
    table(&differences.iter().map(row).collect::<Vec<_>>())
}

/// The steps that run; those that do the same on several nodes for the same reason have one row, unless each is wanted.
fn to_do(plan: &PlanView, every_step: bool) -> Vec<Vec<String>> {
    let mut rows: Vec<(String, usize, &str)> = Vec::new();
    for step in plan.steps.iter().filter(|step| step.decision == Decision::Run) {
        let name = match &step.node {
            Some(node) if !every_step => step.id.replace(&format!("/{node}/"), "/*/"),
            _ => step.id.clone(),
        };
        match rows.iter_mut().find(|(known, _, why)| *known == name && *why == step.why) {
            Some((_, number, _)) => *number += 1,
            None => rows.push((name, 1, &step.why)),
        }
    }
    let row = |(name, number, why): (String, usize, &str)| {
        let times = if number > 1 { format!("x {number}") } else { String::new() };
        vec![format!("  {name}"), times, why.to_owned()]
    };
    rows.into_iter().map(row).collect()
}
