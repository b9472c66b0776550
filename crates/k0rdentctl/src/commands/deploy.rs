//! `deploy`: creates the cluster, or continues where it was.

use deploy::{
    config::Config,
    deployment::Repair,
    prices::Cost,
    session::{Agreed, Finished, Session, SessionError},
    task::Phase,
    views::PlanView,
};
use serde_json::json;

use crate::{
    arguments::{self, Deploy},
    commands::{
        Context, FORMAT_VERSION,
        check::{note_neighbours, warn_if_locked_out},
        ending,
        patience::patiently,
        plan::page,
        run::{Run, explained, watched},
    },
    configuration,
    error::CommandError,
    printer::CARE,
    views::{count, duration, plan::cost},
    world::{Login, Reach, reach},
};

/// Deploys, after the plan was seen and agreed to. If the world is another one when the plan begins, the new plan is
/// shown, and there is a new question.
pub(crate) async fn run(context: &Context, arguments: &Deploy) -> Result<u8, CommandError> {
    let mut configuration = configuration::read(context)?;
    let reach = reach(context).await?;
    reach.adapt(&mut configuration.config);
    let config = &configuration.config;
    if reach.twin.is_none() {
        warn_if_locked_out(context, &reach, config).await;
    }
    let mut settings = reach.settings(context, "deploy", &Login::of(Some(config)))?;
    let yes = arguments.confirmation.yes;
    if !yes && !context.surroundings.interactive {
        return Err(context.unconfirmed().hint(format!("see what it would do: {}", context.command("plan"))));
    }
    engine::Journal::check_free(&settings.home)?;
    settings.own_address = reach.own_address(context, config).await?;
    if let (Some(own), Some(proxy)) = (&settings.own_address, reach.address_proxy(context, config)) {
        context.printer.marked(
            CARE,
            "warning",
            &format!(
                "{own} is the address of whoever asks through the proxy {proxy}, and SSH does not go through it: if SSH leaves \
                 from another address, set azure.ssh_allowed_from"
            ),
        );
    }
    settings.force_regenerate = regenerated(context, arguments)?;
    settings.until = until(arguments);
    settings.repair = Repair { start_anew: arguments.start_anew, replace: arguments.replace.clone() };
    let session = Session::new(settings);
    let (finished, cost) = loop {
        let looking = async {
            let (planned, place) = (session.plan(config).await?, session.place(config).await?);
            // Nobody is in the way of a deployment because others cannot be seen.
            Ok::<_, SessionError>((planned, place, session.neighbours(config).await.unwrap_or_default()))
        };
        let (planned, place, neighbours) = patiently(context, "looking at Azure and at the machines", looking).await?;
        note_neighbours(context, &neighbours);
        let view = PlanView::of(&planned, place);
        show(context, &reach, config, &view, yes);
        if !is_agreed(context, &view, yes)? {
            context.printer.say("cancelled; nothing was touched");
            return Ok(0);
        }
        let agreed = Agreed { to_more: yes || planned.is_new, shown: planned.preview };
        let run = Run::Deploy(&configuration, &agreed);
        match watched(context, &session, &run).await? {
            Ok(finished) => break (finished, view.preview.cost_after),
            Err(SessionError::PlanChanged(_)) if !yes => {
                context
                    .printer
                    .warn("The world has changed since this plan was made; nothing was touched. The new plan:\n");
            }
            Err(error) => return Err(explained(context, &run, error)),
        }
    };
    if context.printer.is_json() {
        let mut last = ending("succeeded", 0);
        last["steps_run"] = json!(finished.steps_run);
        last["status"] = json!(finished.status);
        context.printer.object(&last);
    } else {
        context.printer.result(&success(context, config, &finished, cost));
    }
    Ok(0)
}

/// What is agreed to is shown, however quiet the program is to be; what deletes something is shown in any case.
fn show(context: &Context, reach: &Reach, config: &Config, view: &PlanView, yes: bool) {
    if context.printer.is_json() {
        context.printer.object(&json!({"format_version": FORMAT_VERSION, "event": "deployment-plan", "plan": view}));
    } else if view.steps_to_run > 0 {
        let text = page(context, reach, config, view, context.printer.colours_of_messages);
        let must_be_seen = !yes || view.preview.is_destructive();
        if must_be_seen { context.printer.warn(&text) } else { context.printer.say(&text) }
    }
}

/// Nothing to do is no question; what cannot be taken back wants the cluster's name.
fn is_agreed(context: &Context, view: &PlanView, yes: bool) -> Result<bool, CommandError> {
    match &view.cluster_id {
        _ if view.steps_to_run == 0 => Ok(true),
        Some(cluster) if view.preview.is_destructive() => {
            context.confirm(yes, &format!("Type {cluster} to confirm: "), &[cluster])
        }
        _ => context.confirm(yes, "Continue? [y/N] ", &["y", "yes"]),
    }
}

/// Which files are to be made anew. A part that no file of this environment has is a mistake.
fn regenerated(context: &Context, arguments: &Deploy) -> Result<Option<String>, CommandError> {
    let Some(part) = &arguments.force_regenerate else { return Ok(None) };
    let recorded = deploy::session::recorded(&context.global.home)?;
    let files: Vec<String> = recorded.map(|(state, _)| state.artifacts.into_keys().collect()).unwrap_or_default();
    if files.is_empty() || files.iter().any(|file| file.contains(part.as_str())) {
        return Ok(Some(part.clone()));
    }
    let message = format!("--force-regenerate: no file of this environment has {part:?} in its path");
    Err(CommandError::usage(message).hint(format!("there are {}", files.join(", "))))
}

/// The last phase that is wanted.
fn until(arguments: &Deploy) -> Phase {
    match arguments.until {
        Some(arguments::Phase::Prepare) => Phase::Prepare,
        Some(arguments::Phase::Infrastructure) => Phase::Infrastructure,
        Some(arguments::Phase::Machines) => Phase::Machines,
        Some(arguments::Phase::Mesh) => Phase::Mesh,
        Some(arguments::Phase::K0s) => Phase::K0s,
        None if arguments.no_wait => Phase::K0s,
        Some(arguments::Phase::K0rdent) | None => Phase::K0rdent,
    }
}

/// What there is now, how long it took, what it costs, and what to type next.
fn success(context: &Context, config: &Config, finished: &Finished, now: Cost) -> String {
    let status = &finished.status;
    let cluster = status.cluster_id.as_deref().unwrap_or_default();
    let home = context.global.home.join("kubeconfig");
    let machines = count(status.nodes.len(), "machine");
    let state = match status.phase {
        "k0rdent_deployed" => {
            format!("{cluster} runs k0rdent {} on {machines}", config.software.k0rdent.version)
        }
        phase => format!("{cluster} has reached {phase}"),
    };
    let run = status.last_run.as_ref();
    let took = run.and_then(|run| Some(duration((run.ended_at? - run.started_at).unsigned_abs())));
    let mut lines = vec![match (finished.steps_run, took) {
        (0, _) => format!("nothing to do: {state}"),
        (_, Some(took)) => format!("{state}; it took {took}"),
        (_, None) => state,
    }];
    lines.extend(status.warnings.iter().map(|warning| format!("! {warning}")));
    lines.push(String::new());
    let mut next = |what: &str, command: String| lines.push(format!("  {what:<12} {command}"));
    if config.provider.makes_machines() && context.global.twin.is_none() {
        next("cost", format!("{} until `{}`", cost(now, config), context.command("reset")));
    }
    if matches!(status.phase, "k0s_deployed" | "k0rdent_deployed") {
        next("use it", context.command("exec -- kubectl get nodes"));
        next("kubeconfig", home.join(format!("{cluster}-kubeconfig")).display().to_string());
        next("in a shell", format!(". {}", home.join("kubeconfig-env.sh").display()));
    }
    if status.phase != "k0rdent_deployed" {
        next("continue", context.command("deploy"));
    }
    next("look", context.command("status"));
    next("take down", context.command("reset"));
    lines.join("\n")
}
