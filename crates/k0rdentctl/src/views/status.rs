//! The status of an environment for people.

use anstyle::Style;
use deploy::views::{PhaseStatus, Status};

use time::OffsetDateTime;

use super::{clock_time, count, duration, indented, moment, table};
use crate::printer::{BAD, CARE, GOOD, HEADING, paint};

/// The whole page; `next` is the command to type next.
pub(crate) fn text(status: &Status, next: &str, asked: &Asked<'_>) -> String {
    let colours = asked.colours;
    let heading = |text: &str| paint(colours, HEADING, text);
    let mut parts = vec![overview(status, asked)];
    let mut rows = vec![["PHASE", "STATUS", "STARTED (UTC)", "TOOK"].map(str::to_owned).to_vec()];
    rows.extend(status.phases.iter().map(phase));
    parts.push(coloured(&table(&rows), colours));
    if !status.nodes.is_empty() {
        // The role is in the name; so a line fits 80 columns.
        let header = ["MACHINE", "ZONE", "STATE", "PUBLIC", "PRIVATE", "MESH"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(status.nodes.iter().map(|node| {
            let none = || "-".to_owned();
            let public = node.public_ip.clone().unwrap_or_else(none);
            let zone = node.zone.map_or_else(none, |zone| zone.to_string());
            let (private, mesh) = (node.private_ip.clone(), node.mesh_ip.clone().unwrap_or_else(none));
            vec![node.name.clone(), zone, node.state.to_owned(), public, private, mesh]
        }));
        parts.push(coloured(&table(&rows), colours));
    }
    if let Some(management) = &status.management {
        let state = match (management.deleting, management.ready) {
            (true, _) => "being deleted",
            (false, true) => "Ready",
            (false, false) => "not Ready",
        };
        let components = count(management.components.len(), "component");
        let mut lines =
            vec![format!("k0rdent {}: {state}, release {}, {components}", management.version, management.release)];
        if (management.deleting || !management.ready) && !management.message.is_empty() {
            lines.push(format!("  {}", indented(&management.message, 2)));
        }
        lines.extend(management.components.iter().filter(|component| !component.success).map(|component| {
            format!("  {}: {}", component.name, component.error.as_deref().unwrap_or("not successful"))
        }));
        parts.push(lines.join("\n"));
    }
    let warnings = status.warnings.iter().map(|warning| format!("{} {warning}", paint(colours, CARE, "!")));
    parts.extend((!status.warnings.is_empty()).then(|| warnings.collect::<Vec<_>>().join("\n")));
    if !status.failures.is_empty() {
        let mut lines = vec![paint(colours, BAD, "failed")];
        for failure in &status.failures {
            lines.push(format!("  {}: {}", failure.step, indented(&failure.message, 4)));
            lines.extend(failure.advice.iter().map(|advice| format!("    {advice}")));
        }
        parts.push(lines.join("\n"));
    }
    parts.push(format!("{} {next}", heading("next:")));
    parts.join("\n\n")
}

/// When and how it was asked.
pub(crate) struct Asked<'a> {
    /// Now.
    pub(crate) now: OffsetDateTime,
    /// The command that compares the records with the live resources.
    pub(crate) compare: &'a str,
    /// Whether there are colours.
    pub(crate) colours: bool,
}

/// `2 h ago`, in the largest unit.
pub(crate) fn ago(since: time::Duration) -> String {
    // A clock that was put back tells no story.
    let since = since.max(time::Duration::ZERO);
    match (since.whole_days(), since.whole_hours(), since.whole_minutes()) {
        (0, 0, 0) => "just now".to_owned(),
        (0, 0, minutes) => format!("{minutes} min ago"),
        (0, hours, _) => format!("{hours} h ago"),
        (days, ..) => format!("{} ago", count(usize::try_from(days).unwrap_or_default(), "day")),
    }
}

fn overview(status: &Status, asked: &Asked<'_>) -> String {
    let cluster = status.cluster_id.clone().unwrap_or_else(|| "none".to_owned());
    let mut rows = vec![vec!["cluster".to_owned(), cluster], vec!["phase".to_owned(), status.phase.to_owned()]];
    if let Some(run) = &status.last_run {
        let took = run.ended_at.map(|end| format!(" in {}", duration((end - run.started_at).unsigned_abs())));
        let took = took.unwrap_or_default();
        let when = format!("{} by {}, {} UTC, {}{took}", run.command, run.by, moment(run.started_at), run.outcome);
        rows.push(vec!["last run".to_owned(), when]);
        let at = run.ended_at.unwrap_or(run.started_at);
        // What others have done since is not in it.
        let recorded = match run.outcome {
            "active" => "by a run that is active".to_owned(),
            _ => format!("{} UTC, {}; compare: {}", clock_time(at), ago(asked.now - at), asked.compare),
        };
        rows.push(vec!["recorded".to_owned(), recorded]);
    }
    if let Some(since) = status.deletion_since {
        rows.push(vec!["deletion".to_owned(), format!("accepted by Azure {}, not waited for", moment(since))]);
    }
    table(&rows)
}

fn phase(phase: &PhaseStatus) -> Vec<String> {
    let took = phase.took_seconds.map(|seconds| duration(std::time::Duration::from_secs(seconds)));
    let started = phase.started_at.map(moment);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![phase.name.to_owned(), phase.status.to_owned(), or_dash(started), or_dash(took)]
}

/// Colours the words that say how it stands. After the table is made, because colours have no width.
fn coloured(table: &str, colours: bool) -> String {
    let words: [(&str, Style); 6] = [
        (" completed ", GOOD),
        (" joined ", GOOD),
        (" ready ", GOOD),
        (" failed ", BAD),
        (" running ", CARE),
        (" booting ", CARE),
    ];
    let paint_word = |text: String, (word, style): &(&str, Style)| {
        text.replace(word, &format!(" {} ", paint(colours, *style, word.trim())))
    };
    words.iter().fold(table.to_owned(), paint_word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deploy::{
        steps::k0rdent::{ComponentSeen, ManagementSeen},
        views::{FailedStep, LastRun, Milestones, NodeStatus},
    };
    use time::macros::datetime;

    #[test]
    fn the_page() {
        let at = datetime!(2027-01-04 08:00:00 UTC);
        let node = |number: u64, state| NodeStatus {
            name: format!("k0s-worker-{number}"),
            role: "worker".into(),
            zone: Some(number),
            public_ip: (number == 1).then(|| "20.0.0.1".to_owned()),
            private_ip: format!("10.0.1.{number}"),
            mesh_ip: Some(format!("192.168.100.1{number}")),
            state,
        };
        let component = |name: &str, error: Option<&str>| ComponentSeen {
            name: name.into(),
            success: error.is_none(),
            error: error.map(str::to_owned),
        };
        let status = Status {
            format_version: 1,
            cluster_id: Some("k0rdent-abcd1234".into()),
            phase: "vms_ready",
            milestones: Milestones::default(),
            phases: vec![
                PhaseStatus {
                    name: "machines",
                    status: "completed",
                    started_at: Some(at),
                    ended_at: Some(at + time::Duration::hours(9)),
                    took_seconds: Some(130),
                },
                PhaseStatus { name: "mesh", status: "pending", started_at: None, ended_at: None, took_seconds: None },
            ],
            nodes: vec![node(1, "joined"), node(2, "booting")],
            management: Some(ManagementSeen {
                ready: false,
                release: "kcm-1-1-1".into(),
                version: "1.1.1".into(),
                components: vec![component("kcm", None), component("capi", Some("timed out"))],
                message: String::new(),
                deleting: false,
            }),
            last_run: Some(LastRun {
                command: "deploy".into(),
                by: "ada@desk".into(),
                started_at: at,
                ended_at: None,
                outcome: "failed",
            }),
            holder: None,
            deletion_since: None,
            failures: vec![FailedStep {
                step: "k0rdent/management".into(),
                message: "not done after 25 min".into(),
                advice: Some("Look.".into()),
            }],
            warnings: Vec::new(),
            next: "k0rdentctl deploy".into(),
        };
        let now = at + time::Duration::hours(2);
        let asked = Asked { now, compare: "k0rdentctl status --check", colours: false };
        insta::assert_snapshot!(text(&status, "k0rdentctl deploy", &asked), @"
        cluster   k0rdent-abcd1234
        phase     vms_ready
        last run  deploy by ada@desk, 2027-01-04 08:00:00 UTC, failed
        recorded  08:00 UTC, 2 h ago; compare: k0rdentctl status --check

        PHASE     STATUS     STARTED (UTC)        TOOK
        machines  completed  2027-01-04 08:00:00  2 min 10 s
        mesh      pending    -                    -

        MACHINE       ZONE  STATE    PUBLIC    PRIVATE   MESH
        k0s-worker-1  1     joined   20.0.0.1  10.0.1.1  192.168.100.11
        k0s-worker-2  2     booting  -         10.0.1.2  192.168.100.12

        k0rdent 1.1.1: not Ready, release kcm-1-1-1, 2 components
          capi: timed out

        failed
          k0rdent/management: not done after 25 min
            Look.

        next: k0rdentctl deploy
        ");
        assert!(text(&status, "k0rdentctl deploy", &Asked { colours: true, ..asked }).contains("\u{1b}["));
    }
}
