//! The HelmReleases of k0rdent's components: what Flux has given up for good, and asking it to begin again.
//!
//! kcm has Flux install its components, and Flux gives an install up after four tries. When a webhook of another component
//! was late, that is all that was wrong, and nobody would try again (kcm issue 1094).

use std::{collections::BTreeMap, ops::ControlFlow, sync::Mutex};

use engine::{Context, Failure, pause};
use kube::api::DynamicObject;
use time::format_description::well_known::Rfc3339;

use super::k0s::refused;
use crate::{
    deployment::{Deployment, LOOK_AGAIN},
    kubernetes::{HELM_RELEASE, Kubernetes, RECONCILE_REQUEST, condition},
    seam::lock,
};

/// How often Flux is asked to begin again with one release, in one run.
const REQUESTS: u32 = 3;

/// Releases that Flux has given up and that are left as they are: what there is to say of each.
pub(super) type GivenUp = Mutex<BTreeMap<String, String>>;

/// A release that Flux does not try any more.
#[derive(Debug, PartialEq, Eq)]
struct Stalled {
    /// Flux's words about that.
    given_up: String,
    /// Helm's words about the last try.
    why: String,
}

impl Stalled {
    /// Nothing if Flux still tries, or is about to: it has not seen the newest spec, or not acted on the newest request
    /// (Flux documentation, HelmRelease, conditions and triggering a reconcile).
    fn of(release: &DynamicObject) -> Option<Self> {
        let stalled = condition(release, "Stalled").filter(|stalled| stalled["status"] == "True")?;
        let seen = stalled["observedGeneration"].as_i64();
        let requested = release.metadata.annotations.as_ref().and_then(|all| all.get(RECONCILE_REQUEST));
        let handled = release.data["status"]["lastHandledReconcileAt"].as_str();
        if seen.is_some_and(|seen| Some(seen) != release.metadata.generation)
            || requested.is_some_and(|requested| handled != Some(requested))
        {
            return None;
        }
        let said = |kind: &str| {
            let failed = condition(release, kind).filter(|condition| condition["status"] == "False")?;
            failed["message"].as_str()
        };
        // After the last try, Ready may speak of what came after it.
        let words = [said("Released"), said("Ready")];
        let why = words.into_iter().flatten().find(|words| webhook(words).is_some()).or(words[1]).or(words[0]);
        let given_up = stalled["message"].as_str().unwrap_or_default();
        Some(Self { given_up: on_one_line(given_up), why: on_one_line(why.unwrap_or_default()) })
    }
}

/// Where Helm's words speak of a webhook that did not answer: one that answered and refused is another matter (Kubernetes
/// source, errors of webhooks).
fn webhook(words: &str) -> Option<&str> {
    ["failed calling webhook ", "conversion webhook for "]
        .iter()
        .find_map(|begin| words.find(begin))
        .and_then(|begin| words.get(begin..))
}

/// Helm's words have line breaks, and lines of evidence have none.
pub(super) fn on_one_line(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a release is one of a component of k0rdent: child clusters have theirs in the same namespace (kcm source).
fn is_component(name: &str, providers: &[String]) -> bool {
    matches!(name, "kcm" | "capi" | "projectsveltos")
        || name.starts_with("cluster-api-provider-")
        || providers.iter().any(|provider| provider == name)
}

/// Follows the releases for as long as it is let, and has Flux try again what it has given up because of a webhook that
/// was late. The rest goes to `given_up`, and `tell` is called when that has changed. Ends with a failure only.
pub(super) async fn follow(
    deployment: &Deployment,
    context: &Context<'_>,
    given_up: &GivenUp,
    tell: impl Fn() + Sync,
) -> Result<std::convert::Infallible, Failure> {
    let kubernetes = deployment.kubernetes().await?;
    let k0rdent = &deployment.config.software.k0rdent;
    let namespace = k0rdent.namespace.as_str();
    let mut requests: BTreeMap<String, u32> = BTreeMap::new();
    let look = |releases: &BTreeMap<String, DynamicObject>| {
        let ours = releases.iter().filter(|(name, _)| is_component(name, &k0rdent.providers));
        let stalled = ours.filter_map(|(name, release)| Some((name.clone(), Stalled::of(release)?)));
        let (late, others): (Vec<_>, Vec<_>) = stalled.partition(|(_, stalled)| webhook(&stalled.why).is_some());
        let others = others.into_iter().map(|(name, Stalled { given_up, .. })| {
            let words = format!(
                "HelmRelease {namespace}/{name} has failed for good ({given_up}), and Flux does not try it again"
            );
            (name, words)
        });
        let others: BTreeMap<String, String> = others.collect();
        if *lock(given_up) != others {
            *lock(given_up) = others;
            tell();
        }
        late.into_iter().next().map_or(ControlFlow::Continue(()), ControlFlow::Break)
    };
    loop {
        // Who waits for the Management says what is wrong with the API.
        let (name, stalled) =
            kubernetes.follow(HELM_RELEASE, Some(namespace), None, look, |_| {}).await.map_err(refused)?;
        let asked = requests.entry(name.clone()).or_default();
        if *asked == REQUESTS {
            let Stalled { given_up, why } = stalled;
            return Err(Failure::new(format!(
                "HelmRelease {namespace}/{name} has failed for good ({given_up}), though Flux was asked {REQUESTS} times to try again: {why}"
            ))
            .advise(
                "See whether the pods run that are to answer: `k0rdentctl exec -- kubectl get pods --all-namespaces`. Then run `k0rdentctl deploy`; it asks Flux again.",
            ));
        }
        *asked += 1;
        ask(deployment, context, &kubernetes, namespace, &name).await?;
        let cause = webhook(&stalled.why).unwrap_or_default();
        context.note(format!(
            "HelmRelease {namespace}/{name} had failed for good because a webhook was late ({cause}): asked Flux to try again, {asked} of {REQUESTS}"
        ))?;
    }
}

/// Asks Flux to begin again with a release.
async fn ask(
    deployment: &Deployment,
    context: &Context<'_>,
    kubernetes: &Kubernetes,
    namespace: &str,
    name: &str,
) -> Result<(), Failure> {
    let token = deployment.world.clock.utc().format(&Rfc3339).unwrap_or_default();
    let intent = context.intend(format!("ask Flux to try HelmRelease {namespace}/{name} again")).await?;
    loop {
        match kubernetes.try_again(&intent, namespace, name, &token).await {
            Ok(()) => return context.effected(intent).await,
            Err(error) if error.is_transient() => {
                context
                    .waiting(format!("Flux is asked to try HelmRelease {namespace}/{name} again"), error.to_string());
            }
            Err(error) => return Err(refused(error)),
        }
        pause(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const LATE: &str = "Helm install failed for release kcm-system/capi with chart cluster-api@0.1.0: 1 error occurred:\n\t* Internal error occurred: failed calling webhook \"vcoreprovider.kb.io\": failed to call webhook: Post \"https://x.svc:443/y?timeout=10s\": dial tcp 10.96.119.28:443: i/o timeout";

    fn release(metadata: Value, conditions: &[(&str, &str, &str)], handled: &str) -> DynamicObject {
        let conditions = conditions.iter().map(|(kind, status, message)| {
            json!({"type": kind, "status": status, "message": message, "observedGeneration": 1})
        });
        let status = json!({"conditions": conditions.collect::<Vec<_>>(), "lastHandledReconcileAt": handled});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    #[test]
    fn what_flux_still_tries_is_not_given_up() {
        let failed = [("Stalled", "True", "Failed to install after 4 attempt(s)"), ("Ready", "False", LATE)];
        let stalled = Stalled::of(&release(json!({"generation": 1}), &failed, "")).unwrap();
        assert_eq!(stalled.given_up, "Failed to install after 4 attempt(s)");
        assert_eq!(webhook(&stalled.why).map(|cause| cause.ends_with("10.96.119.28:443: i/o timeout")), Some(true));
        assert!(!stalled.why.contains('\n'));
        // Between two tries it fails as well, and is not stalled.
        assert_eq!(Stalled::of(&release(json!({"generation": 1}), &failed[1..], "")), None);
        // It was changed since, or asked for and not yet looked at.
        assert_eq!(Stalled::of(&release(json!({"generation": 2}), &failed, "")), None);
        let asked = json!({"generation": 1, "annotations": {RECONCILE_REQUEST: "b"}});
        assert_eq!(Stalled::of(&release(asked.clone(), &failed, "a")), None);
        assert!(Stalled::of(&release(asked, &failed, "b")).is_some());
    }

    #[test]
    fn the_cause_is_found_behind_what_came_after_it() {
        let removed = ("Ready", "False", "Helm uninstall remediation for release kcm-system/capi.v1 succeeded");
        let failed = [("Stalled", "True", "x"), removed, ("Released", "False", LATE)];
        let stalled = Stalled::of(&release(json!({"generation": 1}), &failed, "")).unwrap();
        assert!(webhook(&stalled.why).is_some(), "{stalled:?}");
    }

    #[test]
    fn a_webhook_that_refuses_is_not_late() {
        assert!(webhook("admission webhook \"validation.kcm.mirantis.com\" denied the request: no").is_none());
        assert!(webhook("context deadline exceeded").is_none());
        assert!(webhook("conversion webhook for x/v1, Kind=Y failed: Post \"https://x\": EOF").is_some());
    }

    #[test]
    fn releases_of_child_clusters_are_not_ours() {
        let own = ["cluster-api-provider-metal3".to_owned(), "mine".to_owned()];
        assert!(
            ["kcm", "capi", "projectsveltos", "cluster-api-provider-aws", "mine"]
                .iter()
                .all(|name| is_component(name, &own))
        );
        assert!(!is_component("child", &own));
    }
}
