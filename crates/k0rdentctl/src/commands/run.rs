//! What `deploy`, `uninstall` and `reset` have in common: they are watched while they run, and can be asked to stop.

use std::{pin::pin, time::Duration};

use deploy::{
    recipe::{Manner, Part},
    session::{Finished, Session, SessionError, Teardown, Watching},
};
use engine::{Message, Stop, pause};
use tokio::{sync::watch, time::timeout};

use crate::{
    commands::Context,
    configuration::Configuration,
    error::{CommandError, Exit},
    signals::Signals,
    views::run::View,
};

/// How often the live lines move.
const TICK: Duration = Duration::from_millis(100);
/// How long a run that must end at once may take to say so in the journal.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is to run.
pub(crate) enum Run<'a> {
    /// Bring the cluster up.
    Deploy(&'a Configuration),
    /// Take a part of it off.
    Uninstall(Part),
    /// Take it down.
    Reset(&'a Teardown),
}

impl Run<'_> {
    /// The command to continue with.
    fn name(&self) -> &'static str {
        match self {
            Self::Deploy(_) => "deploy",
            Self::Reset(Teardown { manner: Manner::Orderly, .. }) => "reset",
            Self::Reset(Teardown { manner: Manner::Force, .. }) => "reset --force",
            Self::Reset(Teardown { manner: Manner::Fast | Manner::FastNoWait, .. }) => "reset --fast",
            Self::Uninstall(part) => part.command(),
        }
    }

    async fn start(&self, session: &Session, watching: Watching<'_>) -> Result<Finished, SessionError> {
        match self {
            Self::Deploy(configuration) => session.deploy(&configuration.text, &configuration.config, watching).await,
            Self::Reset(teardown) => session.reset(teardown, watching).await,
            Self::Uninstall(part) => session.uninstall(*part, watching).await,
        }
    }
}

/// Runs it to its end, shows what happens, and heeds signals: the first lets running steps settle, the second ends the
/// run at once.
pub(crate) async fn watch(context: &Context, session: &Session, run: Run<'_>) -> Result<Finished, CommandError> {
    let mut signals = Signals::listen()?;
    let view = View::new(context);
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
                view.say("stopping: what runs may settle for 30 s; press Ctrl-C again to stop at once");
            }
            () = pause(TICK) => view.tick(),
        }
    };
    view.end();
    let again = format!("continue with: k0rdentctl {}", run.name());
    result.map_err(|error| match error {
        SessionError::Failed(_) if matches!(run, Run::Reset(Teardown { manner: Manner::Orderly, .. })) => {
            let error = CommandError::from(error).hint(again);
            let is_failed = error.exit == Exit::Failed;
            if is_failed { error.hint("or without asking the cluster: k0rdentctl reset --force") } else { error }
        }
        SessionError::Interrupted | SessionError::Failed(_) => CommandError::from(error).hint(again),
        error => error.into(),
    })
}
