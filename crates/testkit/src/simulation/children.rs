//! Child clusters: somebody makes them on a cluster that is deployed, and what each teardown says of them is compared with
//! the world.

use std::{collections::BTreeSet, time::Duration};

use deploy::{
    kubernetes::{CLUSTER_DEPLOYMENT, condition},
    leftovers::Leftover,
    recipe::Manner,
    session::{Session, SessionError, TeardownPlan},
};
use engine::{FailureKind, Intent};
use rehearsal::Stage;
use serde_json::{Value, json};
use twin::Action;

use super::{
    ending::Ended,
    foreign::CHILD,
    invariants::{Violation, broken},
    scenario::{Act, Fate},
};

/// Where k0rdent looks for child clusters.
const NAMESPACE: &str = "kcm-system";
/// Until the machines of a child were asked for.
const BIRTH: Duration = Duration::from_secs(120);
/// Until a resource group that somebody deletes is gone.
const DEATH: Duration = Duration::from_secs(1800);

/// The children of the cluster that lives now.
#[derive(Debug, Default)]
pub(super) struct Children {
    names: BTreeSet<String>,
    born: u64,
    /// What has become of all so far.
    pub(super) fates: Fates,
}

/// What became of the children of all lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fates {
    /// Lives that ended.
    pub lives: u64,
    /// Those of them in which child clusters had machines.
    pub with_children: u64,
    /// Teardowns that were refused because of them.
    pub refused: u64,
    /// Lives that ended without anything of them.
    pub deleted: u64,
    /// Lives that ended with all that was left of them named.
    pub named: u64,
}

impl Children {
    /// Somebody makes so many, and their machines run.
    pub(super) async fn make(&mut self, session: &Session, stage: &Stage, number: u8) -> Result<(), Violation> {
        let failed = |why: String| Violation { rule: "a cluster that is deployed takes child clusters", detail: why };
        for _ in 0..number {
            self.born += 1;
            let name = format!("child-{}", self.born);
            let object = json!({
                "apiVersion": "k0rdent.mirantis.com/v1beta1", "kind": "ClusterDeployment",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {
                    "template": "azure-standalone-cp-1-0-8",
                    "config": {"location": "westus2", "controlPlaneNumber": 1, "workersNumber": self.born % 2},
                },
            });
            let deployment = session.look().await.map_err(|error| failed(error.to_string()))?;
            let kubernetes = deployment.kubernetes().await.map_err(|failure| failed(failure.message))?;
            let applied = kubernetes.apply(&Intent::for_tests(), CLUSTER_DEPLOYMENT, Some(NAMESPACE), &object).await;
            applied.map_err(|error| failed(error.to_string()))?;
            self.names.insert(name);
        }
        engine::pause(BIRTH).await;
        let deployment = session.look().await.map_err(|error| failed(error.to_string()))?;
        let kubernetes = deployment.kubernetes().await.map_err(|failure| failed(failure.message))?;
        let seen = kubernetes.list(CLUSTER_DEPLOYMENT, None).await.map_err(|error| failed(error.to_string()))?;
        let said = |name: &str| {
            let child = seen.values().find(|child| child.metadata.name.as_deref() == Some(name))?;
            condition(child, "Ready").map(|ready| ready["message"].to_string())
        };
        let things = self.things(stage);
        let runs = |name: &&String| !things.iter().any(|id| id.contains(&format!("/virtualmachines/{name}-cp-")));
        match self.names.iter().find(runs) {
            None => Ok(()),
            Some(name) => Err(failed(format!("{name} has no machine: {:?}", said(name)))),
        }
    }

    /// What there is of them in Azure: ids in lower case.
    pub(super) fn things(&self, stage: &Stage) -> BTreeSet<String> {
        of_groups(stage, &self.names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What a teardown would do is what it then does: it knows them, and says whether it would be refused.
    pub(super) fn judge_plan(&self, act: &Act, plan: &TeardownPlan, stage: &Stage) -> Result<(), Violation> {
        let named: BTreeSet<String> = plan.children.names.iter().cloned().collect();
        if !self.names.is_subset(&named) || plan.children.unknown.is_some() {
            return broken("the plan of a teardown names the child clusters", format!("{:?}", plan.children));
        }
        let (found, there) = (ids(&plan.children.found), self.things(stage));
        if found != there {
            return broken("the plan of a teardown names what child clusters have", format!("{found:?} and {there:?}"));
        }
        let refuses = plan.refusal(act.fate == Fate::Deleted, act.fate == Fate::Abandoned).is_some();
        match refuses == (act.fate == Fate::Unsaid && !self.names.is_empty()) {
            true => Ok(()),
            false => broken("the plan of a teardown says whether it is refused", format!("{refuses}")),
        }
    }

    /// What a teardown says of them when it ends is what is the case. `before`: what there was when it began. `whole`: the
    /// cluster could be asked, and nothing stood in the way.
    pub(super) fn judge(
        &mut self,
        act: &Act,
        ended: &Ended,
        before: &BTreeSet<String>,
        whole: bool,
        stage: &Stage,
    ) -> Result<(), Violation> {
        let there = self.things(stage);
        match ended {
            Ended::Finished(Some(finished)) => {
                let named = ids(&finished.children);
                let unnamed: Vec<_> = there.difference(&named).collect();
                if !unnamed.is_empty() {
                    return broken("a teardown that is done names what runs on of children", format!("{unnamed:?}"));
                }
                self.judge_named(&finished.children, stage)?;
                if whole && !there.is_empty() && act.fate != Fate::Abandoned {
                    return broken("no teardown abandons a child cluster unasked", format!("{there:?}"));
                }
                if whole && act.fate == Fate::Abandoned && there != *before {
                    return broken("what is left behind is left alone", format!("{before:?} became {there:?}"));
                }
            }
            Ended::Failed(SessionError::Leftovers(remains)) => {
                let is_childs = |left: &&Leftover| left.cluster_id.starts_with("child-") || left.cluster_id == CHILD;
                self.judge_named(&remains.left.iter().filter(is_childs).cloned().collect::<Vec<_>>(), stage)?;
            }
            Ended::Failed(SessionError::Failed(failures)) if whole && !before.is_empty() => {
                let is_refusal = failures.iter().all(|failure| failure.kind == FailureKind::Refused);
                let is_named = self.names.iter().all(|name| ended.describe().contains(name));
                if act.fate != Fate::Unsaid || !is_refusal || !is_named {
                    return broken("a teardown is refused because of its children alone", ended.describe());
                }
                if there != *before {
                    return broken(
                        "a teardown that is refused touches nothing",
                        format!("{before:?} became {there:?}"),
                    );
                }
                self.fates.refused += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whatever is said to be there, is there.
    fn judge_named(&self, named: &[Leftover], stage: &Stage) -> Result<(), Violation> {
        let groups: Vec<&str> = self.names.iter().map(String::as_str).chain([CHILD]).collect();
        let all = of_groups(stage, &groups);
        match ids(named).difference(&all).next() {
            None => Ok(()),
            Some(id) => broken("what is named of child clusters is there", id.clone()),
        }
    }

    /// A life has ended: `leftovers` names what is left of its children, and a person removes it as it is told to.
    pub(super) async fn bury(&mut self, session: &Session, stage: &Stage) -> Result<(), Violation> {
        self.fates.lives += 1;
        if self.names.is_empty() {
            return Ok(());
        }
        self.fates.with_children += 1;
        let there = self.things(stage);
        if there.is_empty() {
            self.fates.deleted += 1;
        } else {
            self.fates.named += 1;
        }
        let look = session.leftovers(None, None).await;
        let (_, left) = look.map_err(|error| Violation { rule: "leftovers can look", detail: error.to_string() })?;
        let missed: Vec<String> = there.difference(&ids(&left)).cloned().collect();
        if !missed.is_empty() {
            return broken("leftovers names what is left of child clusters", format!("{missed:?}"));
        }
        let removals: BTreeSet<&str> = left
            .iter()
            .filter(|left| self.names.contains(&left.cluster_id))
            .filter_map(|left| left.remove.strip_prefix("az group delete --name "))
            .collect();
        for group in removals {
            let path = format!("/subscriptions/{}/resourceGroups/{group}", twin::azure::SUBSCRIPTION);
            let deleted = stage.twin.with(|world| Action::Delete { path }.perform(world));
            deleted.or_else(|why| broken("what removes leftovers can be typed", why))?;
        }
        engine::pause(DEATH).await;
        let there = self.things(stage);
        self.names.clear();
        if there.is_empty() { Ok(()) } else { broken("what removes leftovers removes them", format!("{there:?}")) }
    }

    /// Whether the cluster has any.
    pub(super) fn are_there(&self) -> bool {
        !self.names.is_empty()
    }
}

/// Whether anything but an answer about children kept this teardown from being done.
pub(super) fn is_about_children(ended: &Ended) -> bool {
    let text = ended.describe();
    matches!(ended, Ended::Failed(_)) && text.contains("child")
}

/// What a person does when a teardown says that children are in its way: it goes on without them.
pub(super) fn without_children(act: &Act) -> Act {
    Act { manner: Manner::Force, fate: Fate::Abandoned, loss: None, ..act.clone() }
}

fn ids(left: &[Leftover]) -> BTreeSet<String> {
    left.iter().map(|left| left.id.to_lowercase()).collect()
}

/// What is in resource groups, the groups with it.
fn of_groups(stage: &Stage, groups: &[&str]) -> BTreeSet<String> {
    let group_of = |resource: &Value| {
        let id = resource["id"].as_str().unwrap_or_default().to_lowercase();
        id.split('/').nth(4).is_some_and(|group| groups.contains(&group)).then_some(id)
    };
    stage.twin.with(|world| twin::azure::resources(world)).iter().filter_map(group_of).collect()
}
