//! Why a machine in Azure does not answer SSH: what Azure says about it and about the way there, and what to do.

use engine::Failure;
use ipnet::IpNet;

use crate::{
    azure::{
        Inventory, Kind, inventory,
        resources::{self, RuleTrouble, SSH_RULE},
    },
    config::Config,
    deployment::ssh_failure,
    difference::{DifferenceKind, Reason},
    ssh::SshError,
    topology::{Node, Topology},
};

/// That SSH is open to others, and not to this address.
pub(crate) fn closed_to(ranges: &[&str], own: &[String]) -> String {
    let own: Vec<&str> = own.iter().map(|own| address(own)).collect();
    format!("SSH is open to {}, you are now {}", ranges.join(", "), own.join(", "))
}

/// A range of one address is that address.
fn address(range: &str) -> &str {
    range.strip_suffix("/32").or_else(|| range.strip_suffix("/128")).unwrap_or(range)
}

/// Why the network security group lets nobody in who comes from this address; nothing if it does, or if nobody knows.
pub(crate) fn closed(topology: &Topology, inventory: &Inventory, own: Option<&str>) -> Option<String> {
    inventory.group.as_ref()?;
    let name = &topology.names.nsg;
    let Some(group) = inventory.find(Kind::NetworkSecurityGroup, name) else {
        return Some(format!("its network security group {name} does not exist any more, and nothing lets SSH in"));
    };
    let wanted: Vec<String> = own.iter().map(|own| (*own).to_owned()).collect();
    match resources::rule_trouble(group, topology.mesh_port, &wanted) {
        Some(RuleTrouble::Missing(SSH_RULE)) => Some(format!("the rule {SSH_RULE} was removed from {name}")),
        Some(RuleTrouble::Changed(SSH_RULE)) => {
            Some(format!("the rule {SSH_RULE} of {name} does not let SSH in any more"))
        }
        Some(RuleTrouble::OpenTo(ranges)) if !ranges.iter().any(|range| has(range, own)) => {
            Some(closed_to(&ranges, &wanted))
        }
        _ => None,
    }
}

/// What kind of difference it is that a machine does not answer, and what a person reads about it: a deployment can open
/// SSH, and cannot wake a machine that sleeps.
pub(crate) fn silent(topology: &Topology, inventory: &Inventory, own: Option<&str>, node: &Node, why: &str) -> Reason {
    if node.host.is_some() {
        return Reason::new(DifferenceKind::SshSilent, why);
    }
    match closed(topology, inventory, own) {
        Some(closed) => Reason::new(DifferenceKind::SshClosed, closed),
        None => {
            let restart = restart(topology, node);
            Reason::new(DifferenceKind::SshSilent, format!("{why} (to restart it: `{restart}`)"))
        }
    }
}

/// The command of Azure's own client that restarts a machine.
fn restart(topology: &Topology, node: &Node) -> String {
    format!("az vm restart --resource-group {} --name {}", topology.names.resource_group, node.name)
}

/// Whether a range of a rule has this address in it; what is not understood may have it.
fn has(range: &str, own: Option<&str>) -> bool {
    let (range, own) = (range.parse::<IpNet>(), own.and_then(|own| own.parse::<IpNet>().ok()));
    match (range, own) {
        (Ok(range), Some(own)) => range.contains(&own),
        _ => true,
    }
}

/// What Azure could be asked about a machine that does not answer.
pub struct Asked<'a> {
    /// The cluster.
    pub topology: &'a Topology,
    /// How it was made.
    pub config: &'a Config,
    /// What there is, or why nobody could say.
    pub inventory: Result<&'a Inventory, &'a str>,
    /// The range of our own address, if it could be found out.
    pub own: Option<&'a str>,
}

impl Asked<'_> {
    /// Why this machine does not answer, as far as anybody can say, and what to type next.
    pub fn explain(&self, node: &Node, error: &SshError) -> Failure {
        let (SshError::Unreachable { machine, .. } | SshError::Timeout { machine, .. }) = error else {
            return ssh_failure(error.clone());
        };
        let failure = |why: String, advice: String| Failure::new(format!("{machine}: {why}")).advise(advice);
        let inventory = match self.inventory {
            Ok(inventory) => inventory,
            Err(why) => {
                let advice = format!("Azure could not be asked about it: {why}");
                return Failure::new(error.to_string()).advise(advice);
            }
        };
        let again = |what: &str| format!("{what}: k0rdentctl deploy");
        let Some(found) =
            inventory.find(Kind::VirtualMachine, &node.name).filter(|found| !inventory::is_deleting(found))
        else {
            return failure("it does not exist any more".to_owned(), again("make it anew"));
        };
        if let Some(power @ ("deallocated" | "deallocating" | "stopped" | "stopping")) = inventory::power_state(found) {
            return failure(format!("Azure says that it is {power}"), again("start it"));
        }
        if let Some(why) = closed(self.topology, inventory, self.own) {
            let is_ours = self.config.azure.ssh_allowed_from.is_empty();
            let advice = if is_ours || !why.starts_with("SSH is open") {
                again("open it again")
            } else {
                again("add your address to azure.ssh_allowed_from, and open it")
            };
            return failure(why, advice);
        }
        let power = inventory::power_state(found).unwrap_or("there");
        let advice = format!("restart it: {}", restart(self.topology, node));
        Failure::new(format!("{error}. Azure says that it is {power}, and SSH is open{}", self.to_us())).advise(advice)
    }

    fn to_us(&self) -> String {
        self.own.map_or_else(String::new, |own| format!(" to {}", address(own)))
    }
}
