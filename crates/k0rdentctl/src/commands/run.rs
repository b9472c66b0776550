//! What `deploy`, `uninstall` and `reset` have in common: they are watched while they run, and can be asked to stop.

use std::{pin::pin, time::Duration};

use deploy::{
    environment::Environment,
    prices,
    recipe::{Manner, Part},
    session::{Agreed, Finished, Session, SessionError, Teardown, Watching, status_of, used_config},
    views::NodeStatus,
};
use engine::{Failure, FailureKind, Message, Stop, pause};
use tokio::{sync::watch, time::timeout};

use crate::{
    commands::Context,
    configuration::Configuration,
    error::{CommandError, Exit},
    signals::Signals,
    views::{count, plan::cost, run::View},
    world::speed,
};

/// How often the live lines move.
const TICK: Duration = Duration::from_millis(100);
/// How long a run that must end at once may take to say so in the journal.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is to run.
pub(crate) enum Run<'a> {
    /// Bring the cluster up, as somebody has agreed to.
    Deploy(&'a Configuration, &'a Agreed),
    /// Take a part of it off.
    Uninstall(Part),
    /// Take it down.
    Reset(&'a Teardown),
}

impl Run<'_> {
    /// The command to continue with.
    fn name(&self) -> &'static str {
        match self {
            Self::Deploy(..) => "deploy",
            Self::Reset(Teardown { manner: Manner::Orderly, .. }) => "reset",
            Self::Reset(Teardown { manner: Manner::Force, .. }) => "reset --force",
            Self::Reset(Teardown { manner: Manner::Fast | Manner::FastNoWait, .. }) => "reset --fast",
            Self::Uninstall(part) => part.command(),
        }
    }

    async fn start(&self, session: &Session, watching: Watching<'_>) -> Result<Finished, SessionError> {
        match self {
            Self::Deploy(configuration, agreed) => {
                let Configuration { text, config, .. } = configuration;
                session.deploy_as_agreed(text, config, Some(agreed), watching).await
            }
            Self::Reset(teardown) => session.reset(teardown, watching).await,
            Self::Uninstall(part) => session.uninstall(*part, watching).await,
        }
    }
}

/// [`watched`], and why it did not end well, for people.
pub(crate) async fn watch(context: &Context, session: &Session, run: Run<'_>) -> Result<Finished, CommandError> {
    watched(context, session, &run).await?.map_err(|error| explained(context, &run, error))
}

/// Runs it to its end, shows what happens, and heeds signals: the first lets running steps settle, the second ends the
/// run at once.
pub(crate) async fn watched(
    context: &Context,
    session: &Session,
    run: &Run<'_>,
) -> Result<Result<Finished, SessionError>, CommandError> {
    let mut signals = Signals::listen()?;
    let view = View::new(context, speed(context));
    let listener = |message: &Message| view.see(message);
    let (stop, receiver) = watch::channel(Stop::No);
    let mut running = pin!(run.start(session, Watching { stop: receiver, listener: &listener, faults: None }));
    let result = loop {
        tokio::select! {
            biased;
            result = &mut running => break result,
            _ = signals.next() => {
                let again = *stop.borrow() != Stop::No;
                stop.send_replace(if again { Stop::Now } else { Stop::Gently });
                if again {
                    break timeout(LAST_WORDS, &mut running).await.unwrap_or(Err(SessionError::Interrupted));
                }
                view.say("Stopping: finishing what is in flight (up to 30 s). Ctrl-C again to stop now.");
            }
            () = pause(TICK) => view.tick(),
        }
    };
    view.end();
    Ok(result)
}

/// Why a run did not do what it should, what it costs that it did not, and how to go on.
pub(crate) fn explained(context: &Context, run: &Run<'_>, error: SessionError) -> CommandError {
    let again = format!("continue with: {}", context.command(run.name()));
    match error {
        // It names the command that comes first: another hint would contradict it.
        SessionError::Failed(ref failures) if failures.iter().all(names_another_command) => error.into(),
        SessionError::Failed(_) if matches!(run, Run::Reset(Teardown { manner: Manner::Orderly, .. })) => {
            let error = CommandError::from(error).hint(again);
            let is_failed = error.exit == Exit::Failed;
            let forced = format!("or without asking the cluster: {}", context.command("reset --force"));
            if is_failed { error.hint(forced) } else { error }
        }
        SessionError::Interrupted => {
            let error = CommandError::from(error);
            let message = format!("{}{}", error.message, machines_left(context).unwrap_or_default());
            CommandError { message, ..error }.hint(again)
        }
        SessionError::Failed(_) => CommandError::from(error).hint(again),
        error => error.into(),
    }
}

fn names_another_command(failure: &Failure) -> bool {
    let advice = failure.advice.as_deref().unwrap_or_default();
    failure.kind == FailureKind::Refused && advice.contains("`k0rdentctl ")
}

/// How many machines go on running, and costing, when a run was interrupted.
fn machines_left(context: &Context) -> Option<String> {
    let home = &context.global.home;
    let status = status_of(home).ok()?;
    let config = used_config(&Environment::new(home)).ok()??;
    if !config.provider.makes_machines() {
        return None;
    }
    let is_there = |node: &&NodeStatus| !matches!(node.state, "absent" | "creating");
    let there: Vec<&NodeStatus> = status.nodes.iter().filter(is_there).collect();
    let prices = there.iter().flat_map(|node| match node.role.as_str() {
        "controller" => prices::of_machine(&config, &config.vm_sizing.controller.size),
        _ => prices::of_machine(&config, &config.vm_sizing.worker.size),
    });
    let (machines, cost) = (count(there.len(), "machine"), cost(prices.collect(), &config));
    let reset = context.command("reset");
    Some(match (there.len(), &context.global.twin) {
        (0, _) => "; no machine runs yet".to_owned(),
        (_, Some(_)) => format!("; {machines} of the twin go on running"),
        (_, None) => format!("; {machines} go on running until `{reset}`: {cost}"),
    })
}
