//! What goes wrong, by name.

use std::{cell::RefCell, collections::BTreeSet};

use serde::{Deserialize, Serialize};

/// A way for the world to be difficult.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The zone has no capacity for the machine (Azure documentation: `ZonalAllocationFailed`). Target: `zone-1` or a machine.
    Capacity,
    /// The subscription's quota is smaller than usual (Azure documentation: `OperationNotAllowed` on create, and the usages say so).
    Quota,
    /// ARM answers 429 with `Retry-After` (Azure documentation).
    Throttle,
    /// A long-running operation ends in `Failed` (Azure documentation: `InternalOperationError`). Target: a resource name.
    /// The deletion of a resource group is undone half-way (Azure documentation: `ResourceGroupDeletionBlocked`). Target: its
    /// name.
    OperationFailure,
    /// Lists go on showing what was deleted (Azure documentation; guess: for ten minutes). Target: a resource id.
    StaleListing,
    /// ARM answers 500 or 503 (Azure documentation).
    ServerError,
    /// The machine takes five times as long to boot (guess).
    SlowBoot,
    /// The machine never opens its SSH port, and its create operation ends in `OSProvisioningTimedOut` (Azure documentation).
    BootFailure,
    /// cloud-init ends with a module error (cloud-init documentation).
    CloudInitError,
    /// Somebody else has apt's lock: cloud-init waits 30 s for it and gives its packages up, and apt-get says so (cloud-init
    /// source, `APT_LOCK_WAIT_TIMEOUT`; apt's own words). Target: the machine.
    AptLock,
    /// WireGuard's unit fails (observed with wg-quick under systemd).
    WireguardDown,
    /// A machine downloads something that is not what was released, and that runs (guess: a mirror or proxy that was broken into). Target: the machine.
    TamperedDownload,
    /// The SSH port refuses connections (observed while sshd starts).
    SshRefused,
    /// The SSH port accepts and never answers (guess: a host that is out of memory).
    SshHang,
    /// What is sent to the machine's SSH port arrives half a second later (guess: a satellite, or a link that is full). Not
    /// used up.
    SlowLink,
    /// k0s starts, but never becomes ready, its API server or its node (guess).
    K0sNotReady,
    /// The API server accepts requests and never answers them (guess: etcd without a quorum). Target: a path; discovery is `/apis`.
    ApiServerHang,
    /// A controller that joins begins a cluster of its own instead, and its API server is ready (guess, after reports in k0s
    /// issues about what a reset has left). Target: the machine.
    IsolatedController,
    /// One component of the Management object reports that its HelmRelease has failed for good, as long as the fault is in
    /// force (kcm source, `status.components`; Flux documentation). Target: the component.
    ComponentFailure,
    /// A webhook is late, so that the install of a component fails, three more tries with it, and Flux gives it up for good
    /// unless it is asked to begin again (kcm issue 1094; Flux documentation). Once is until Flux has given it up. Target:
    /// the component.
    LateWebhook,
    /// The Management object never becomes Ready (guess).
    ManagementNotReady,
    /// The Management object reports another release than the wanted one (guess).
    WrongRelease,
    /// A child cluster's deletion does not go on: its finalizer stays, and so do its machines (guess, after reports in kcm issues). Target: the child cluster.
    ChildDeletionHang,
    /// When k0rdent's chart goes, an object stays whose finalizer nobody clears any more (guess, after reports in kcm issues).
    FinalizerStuck,
}

/// One fault in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What goes wrong.
    pub name: FaultKind,
    /// Where: a part of the name of the thing it strikes; everything if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How many times it strikes; without end if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

impl Fault {
    fn hits(&self, name: FaultKind, thing: &str) -> bool {
        self.name == name
            && self.times != Some(0)
            && self.target.as_ref().is_none_or(|target| thing.to_lowercase().contains(&target.to_lowercase()))
    }
}

/// The faults in force.
#[derive(Debug, Default)]
pub struct Faults {
    /// In the order in which they were asked for.
    pub active: Vec<Fault>,
    /// Those that have made a difference so far.
    struck: RefCell<BTreeSet<FaultKind>>,
}

impl Faults {
    /// Whether the fault strikes `thing` now; uses up one of its times.
    pub fn strikes(&mut self, name: FaultKind, thing: &str) -> bool {
        let Some(fault) = self.active.iter_mut().find(|fault| fault.hits(name, thing)) else { return false };
        self.struck.borrow_mut().insert(name);
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        true
    }

    /// Whether the fault is in force for `thing`; uses nothing up.
    pub fn holds(&self, name: FaultKind, thing: &str) -> bool {
        let holds = self.active.iter().any(|fault| fault.hits(name, thing));
        if holds {
            self.struck.borrow_mut().insert(name);
        }
        holds
    }

    /// The kinds that have made a difference so far: what never strikes proves nothing.
    pub fn struck(&self) -> BTreeSet<FaultKind> {
        self.struck.borrow().clone()
    }
}
