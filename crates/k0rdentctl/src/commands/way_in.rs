//! The way into a cluster's machines for `ssh`, `exec` and `kubeconfig`: the first machine that answers; otherwise what is
//! wrong, within seconds.

use std::{pin::pin, sync::Arc, time::Duration};

use deploy::{
    azure::{Call, Inventory},
    deployment::Deployment,
    ssh::{Remote, SshError},
    topology::Role,
    way_in::Asked,
};
use engine::pause;
use futures::future::select_ok;

use crate::{
    commands::{Context, patience::patiently},
    error::CommandError,
    world::{Login, Reach},
};

/// How long a machine may be silent before others are asked about it.
const SUSPICION: Duration = Duration::from_secs(1);
/// How long those may take.
const QUESTIONS: Duration = Duration::from_secs(7);

/// What others say about machines that do not answer.
struct Said {
    inventory: Result<Option<Inventory>, String>,
    own: Option<String>,
}

/// The first of these machines that answers; all are tried at the same time.
pub(crate) async fn enter(
    context: &Context,
    reach: &Reach,
    deployment: &Deployment,
    nodes: &[usize],
) -> Result<(usize, Arc<Remote>), CommandError> {
    let names: Vec<&str> = nodes.iter().map(|&node| deployment.node(node).name.as_str()).collect();
    let waiting = format!("waiting for SSH on {}", names.join(", "));
    patiently(context, &waiting, answering(context, reach, deployment, nodes)).await
}

/// The controllers, the first one first.
pub(crate) fn controllers(deployment: &Deployment) -> Vec<usize> {
    let is_controller = |node: &usize| deployment.node(*node).role == Role::Controller;
    let mut controllers: Vec<usize> = (0..deployment.topology.nodes.len()).filter(is_controller).collect();
    controllers.sort_by_key(|&node| node != deployment.leader());
    controllers
}

async fn answering(
    context: &Context,
    reach: &Reach,
    deployment: &Deployment,
    nodes: &[usize],
) -> Result<(usize, Arc<Remote>), CommandError> {
    let mut tries = Vec::new();
    let mut first = None;
    for &node in nodes {
        match deployment.remote(node).await {
            Ok(remote) => tries.push(Box::pin(async move {
                let connected = remote.connect_for_a_look(deployment.config.ssh.bastions.len()).await;
                connected.map(|_| (node, remote)).map_err(|error| (node, error))
            })),
            // It has no address: there may be others that have one.
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    if tries.is_empty() {
        return Err(first.map_or_else(|| CommandError::failed("there is no controller"), CommandError::from));
    }
    let asking = async {
        pause(SUSPICION).await;
        ask(context, reach, deployment).await
    };
    let (mut trying, mut asking) = (pin!(select_ok(tries)), pin!(asking));
    let mut said = None;
    let (node, error): (usize, SshError) = loop {
        tokio::select! {
            biased;
            tried = &mut trying => match tried {
                Ok((found, _)) => return Ok(found),
                Err(silent) => break silent,
            },
            answer = &mut asking, if said.is_none() => said = Some(answer),
        }
    };
    let said = match said {
        Some(said) => said,
        None => asking.await,
    };
    let Said { inventory, own } = &said;
    let inventory = match inventory {
        Ok(Some(inventory)) => Ok(inventory),
        Ok(None) => return Err(CommandError::failed(error.to_string())),
        Err(why) => Err(why.as_str()),
    };
    let (topology, config) = (&deployment.topology, &deployment.config);
    let why = Asked { topology, config, inventory, own: own.as_deref() }.explain(deployment.node(node), &error);
    let error = CommandError::from(why);
    Err(match nodes.len() {
        1 => error,
        several => {
            CommandError { message: format!("none of {several} controllers answers; {}", error.message), ..error }
        }
    })
}

/// Asks Azure about the machines, and others where we are.
async fn ask(context: &Context, reach: &Reach, deployment: &Deployment) -> Said {
    let mut config = deployment.config.clone();
    reach.adapt(&mut config);
    let azure = async {
        let session = reach.session(context, "ssh", &Login::of(Some(&config))).map_err(|error| error.message)?;
        session.inventory(deployment, Call::within(QUESTIONS)).await.map_err(|error| error.to_string())
    };
    let (inventory, own) = futures::join!(azure, reach.where_we_are(context));
    Said { inventory, own }
}
