//! `check`: whether a deployment can begin: what Azure will allow, or whether the hosts are fit. Touches nothing.

use deploy::{
    config::{Config, Severity},
    session::Neighbour,
};
use engine::Clock as _;
use serde_json::json;

use crate::{
    commands::{Context, FORMAT_VERSION},
    configuration,
    error::{CommandError, Exit},
    printer::{BAD, CARE},
    views::{count, status::ago},
    world::{Login, Reach, reach},
};

/// Looks, and says everything that was found at once. Exit code 3 if anything stands in the way.
pub(crate) async fn run(context: &Context) -> Result<u8, CommandError> {
    let mut configuration = configuration::read(context)?;
    let reach = reach(context).await?;
    reach.adapt(&mut configuration.config);
    let config = &configuration.config;
    warn_if_locked_out(context, &reach, config).await;
    let session = reach.session(context, "check", &Login::of(Some(config)))?;
    let findings = session.examine(config).await?;
    let neighbours = session.neighbours(config).await.unwrap_or_default();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let proxy = reach.proxy(config);
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION,
            "findings": findings,
            "neighbours": neighbours,
            "proxy": proxy,
        }));
    } else {
        for finding in &findings {
            match finding.severity {
                Severity::Error => context.printer.marked(BAD, "error", &finding.to_string()),
                Severity::Warning => context.printer.marked(CARE, "warning", &finding.to_string()),
            }
        }
        if let Some(proxy) = proxy {
            context.printer.result(&format!("Through the proxy {proxy}"));
        }
        note_neighbours(context, &neighbours);
        let machines = count(config.node_count() as usize, "machine");
        match errors {
            0 => context.printer.result(&format!("Ready to deploy: {machines}")),
            errors => context.printer.result(&format!("Not ready: {}", count(errors, "problem"))),
        }
    }
    Ok(if errors == 0 { 0 } else { Exit::Refused as u8 })
}

/// What nobody will get past later is said before anything is touched.
pub(super) async fn warn_if_locked_out(context: &Context, reach: &Reach, config: &Config) {
    if let Some(why) = reach.locked_out(context, config).await {
        context.printer.marked(CARE, "warning", &why);
    }
}

/// Names the clusters that there are in the subscription, where nothing is recorded here: one of them may be ours.
pub(super) fn note_neighbours(context: &Context, neighbours: &[Neighbour]) {
    if neighbours.is_empty() {
        return;
    }
    let now = engine::SystemClock.utc();
    let told = |neighbour: &Neighbour| {
        let owner = neighbour.owner.iter().map(|owner| format!("of {owner}"));
        let age = neighbour.created_at.iter().map(|created| format!("begun {}", ago(now - *created)));
        let details: Vec<String> = owner.chain(age).collect();
        format!("\n  {} ({})", neighbour.cluster_id, details.join(", "))
    };
    let clusters: String = neighbours.iter().map(told).collect();
    let (number, look) = (count(neighbours.len(), "cluster"), context.command("leftovers"));
    context.printer.say(&format!(
        "note: nothing is recorded in {}, and the subscription has {number} of k0rdentctl:{clusters}\nwhat there is of them: {look}",
        context.global.home.display()
    ));
}
