//! `deploy`: creates the cluster, or continues where it was.

use deploy::{
    config::{Config, Provider, VmPriority},
    prices::{self, Cost},
    session::Finished,
    task::Phase,
};
use serde_json::json;

use crate::{
    arguments::{self, Deploy},
    commands::{
        Context, ending,
        run::{Run, watch},
    },
    configuration,
    error::CommandError,
    views::count,
    world::{Login, reach},
};

/// Deploys, after a question.
pub(crate) async fn run(context: &Context, arguments: &Deploy) -> Result<u8, CommandError> {
    let mut configuration = configuration::read(context)?;
    let reach = reach(context)?;
    reach.adapt(&mut configuration.config);
    let config = &configuration.config;
    let mut settings = reach.settings(context, "deploy", &Login::of(Some(config)))?;
    let status = deploy::session::status_of(&context.global.home)?;
    context.printer.say(&intention(config, status.cluster_id.as_deref()));
    context.printer.say(&match &context.global.twin {
        None if !config.provider.makes_machines() => {
            format!("What is put there goes with `{}`; nothing else is touched.", context.command("reset"))
        }
        None => format!(
            "Azure charges for {} until `{}`: {} for the machines alone.",
            count(config.node_count() as usize, "machine"),
            context.command("reset"),
            machines_cost(config),
        ),
        Some(twin) => format!("On the twin in {}: it costs nothing.", twin.display()),
    });
    if !context.confirm(arguments.confirmation.yes, "Continue? [y/N] ", &["y", "yes"])? {
        context.printer.say("cancelled; nothing was touched");
        return Ok(0);
    }
    settings.own_address = reach.own_address(context, config).await?;
    settings.force_regenerate = arguments.force_regenerate;
    settings.until = until(arguments);
    let session = deploy::session::Session::new(settings);
    let finished = watch(context, &session, Run::Deploy(&configuration)).await?;
    if context.printer.is_json() {
        let mut last = ending("succeeded", 0);
        last["steps_run"] = json!(finished.steps_run);
        last["status"] = json!(finished.status);
        context.printer.object(&last);
    } else {
        context.printer.result(&success(context, &finished));
    }
    Ok(0)
}

/// What is about to be made.
fn intention(config: &Config, cluster: Option<&str>) -> String {
    let (controllers, workers) = (&config.cluster.controllers, &config.cluster.workers);
    let zones = |zones: &[u8]| zones.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let line = |number: u16, word: &str, size: &str, places: &[u8]| {
        let label = if places.len() == 1 { "zone" } else { "zones" };
        format!("  {:<14} {size}, {label} {}", count(usize::from(number), word), zones(places))
    };
    let place = match config.provider {
        Provider::Azure => format!("in {}", config.azure.location),
        Provider::Ssh => "on hosts that exist already".to_owned(),
    };
    let mut lines = vec![match cluster {
        Some(cluster) => format!("The cluster {cluster} {place}:"),
        None => format!("A new k0rdent management cluster {place}:"),
    }];
    for host in &config.hosts {
        lines.push(format!("  {:<14} {}@{}:{}", host.role, host.user, host.address, host.port));
    }
    if config.provider.makes_machines() {
        lines.push(line(controllers.count, "controller", &config.vm_sizing.controller.size, &controllers.zones));
        if workers.count > 0 {
            lines.push(line(workers.count, "worker", &config.vm_sizing.worker.size, &workers.zones));
        }
    }
    let software = &config.software;
    lines.push(format!("  {:<14} k0s {}, k0rdent {}", "software", software.k0s.version, software.k0rdent.version));
    lines.join("\n")
}

/// What the machines cost; Spot machines have a price of the day.
fn machines_cost(config: &Config) -> Cost {
    let (controllers, workers) = (&config.cluster.controllers, &config.cluster.workers);
    let is_spot = config.azure.vm_priority == VmPriority::Spot;
    let price = |size: &str| if is_spot { None } else { prices::machine(size) };
    let of = |number: u16, size: &str| vec![price(size); usize::from(number)];
    let controllers = of(controllers.count, &config.vm_sizing.controller.size);
    controllers.into_iter().chain(of(workers.count, &config.vm_sizing.worker.size)).collect()
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

/// What there is now, and what to type next.
fn success(context: &Context, finished: &Finished) -> String {
    let status = &finished.status;
    let cluster = status.cluster_id.as_deref().unwrap_or_default();
    let home = context.global.home.join("kubeconfig");
    let did = if finished.steps_run == 0 { "nothing to do: " } else { "" };
    let mut lines = Vec::new();
    match status.phase {
        "k0rdent_deployed" => {
            lines.push(format!("{did}{cluster} runs k0rdent on {}", count(status.nodes.len(), "node")))
        }
        phase => lines.push(format!("{did}{cluster} has reached {phase}")),
    }
    lines.push(String::new());
    let mut next = |what: &str, command: String| lines.push(format!("  {what:<12} {command}"));
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
