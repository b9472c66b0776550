//! What is otherwise than it was made: found by the planner, shown by `status --check`, repaired by `deploy`.

use serde::Serialize;

use crate::environment::Loose;

/// What kind of difference it is; programs read its name, `machine-stopped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum DifferenceKind {
    /// SSH is open to an address that we had, and not to the one that we have.
    AddressChanged,
    /// k0rdent's chart is not installed.
    ChartMissing,
    /// The API server does not answer.
    ClusterSilent,
    /// The only controller, or the quorum of several, is gone.
    ControlPlaneLost,
    /// A file of the environment is missing, or was edited.
    FileChanged,
    /// Others may read a file that holds a secret.
    FileMode,
    /// Something of that name exists and is not ours.
    Foreign,
    /// The resource group is going.
    GroupDeleting,
    /// There is no resource group.
    GroupMissing,
    /// A host does not carry the mark of this cluster.
    HostNotOurs,
    /// The k0s binary of a machine is missing, or of another version.
    K0sBinary,
    /// The service of k0s does not run.
    K0sDown,
    /// A node runs another version of k0s than the configuration names.
    K0sVersion,
    /// kubectl, or the kubeconfig beside it, is missing on a machine.
    KubectlMissing,
    /// The Management object is going.
    ManagementDeleting,
    /// There is no Management object.
    ManagementMissing,
    /// The Management object is not Ready.
    ManagementNotReady,
    /// A machine is not there, or is going.
    MachineMissing,
    /// Azure does not call a machine ready.
    MachineNotReady,
    /// A machine is not the one on which the step was done.
    MachineReplaced,
    /// A machine has another size than the configuration names.
    MachineSize,
    /// A machine does not run.
    MachineStopped,
    /// A machine on which nothing was ever done and that is of no use.
    MachineUseless,
    /// A machine is in another zone than the configuration names.
    MachineZone,
    /// A machine is not in the mesh.
    MeshDown,
    /// A machine is no node of the cluster.
    NodeMissing,
    /// A node is not Ready.
    NodeNotReady,
    /// A resource of the network does not exist, or is going.
    ResourceMissing,
    /// Azure does not call a resource of the network ready.
    ResourceNotReady,
    /// A rule of the network security group lets something else in.
    RuleChanged,
    /// A rule of the network security group is missing.
    RuleMissing,
    /// A machine does not answer, and the rules do not let us in.
    SshClosed,
    /// A machine does not answer, and nothing in the cloud says why.
    SshSilent,
    /// Tags are not what they were set to.
    TagsChanged,
}

impl DifferenceKind {
    /// Its name in texts and in JSON.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Something that was done and is not the case any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What kind of difference it is.
    #[serde(rename = "name")]
    pub kind: DifferenceKind,
    /// What it is about.
    pub subject: String,
    /// What was seen, in words.
    pub cause: String,
    /// What `deploy` will do about it; nothing if a person has to.
    pub repair: Option<String>,
}

impl Difference {
    /// What others may read and must not.
    pub(crate) fn of_mode(loose: Loose) -> Self {
        Self {
            kind: DifferenceKind::FileMode,
            cause: format!("others may read it (mode {:04o})", loose.mode),
            repair: Some(format!("make it private ({:04o})", loose.wanted)),
            subject: loose.path,
        }
    }
}

/// Why a step has to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    pub cause: Cause,
    pub text: String,
}

/// What kind of reason a step has to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was not done yet: no difference, but work.
    NotDone,
    /// It follows another step that runs: no difference of its own.
    Follows,
    /// It is wanted otherwise than before: no difference, but a change.
    Changed,
    /// It was done, and does not hold any more.
    Differs(DifferenceKind),
}

impl From<DifferenceKind> for Cause {
    fn from(kind: DifferenceKind) -> Self {
        Self::Differs(kind)
    }
}

impl Reason {
    pub(crate) fn new(cause: impl Into<Cause>, text: impl Into<String>) -> Self {
        Self { cause: cause.into(), text: text.into() }
    }
}
