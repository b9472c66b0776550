//! One look at what exists in a resource group, at a constant number of requests.

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::Value;

use super::{
    arm::{ArmClient, Call},
    error::ArmError,
    resources::{Ids, TAG_CLUSTER, TAG_EPOCH},
    watch::{Kind, key_of, state_of},
};

/// What exists. Resources are kept by lower-case name, as ARM describes them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// The resource group, if there is one.
    pub group: Option<Value>,
    /// Machines, with their power state where Azure says it.
    pub vms: BTreeMap<String, Value>,
    /// Network interfaces.
    pub nics: BTreeMap<String, Value>,
    /// Public addresses.
    pub public_ips: BTreeMap<String, Value>,
    /// Virtual networks.
    pub vnets: BTreeMap<String, Value>,
    /// Network security groups.
    pub nsgs: BTreeMap<String, Value>,
    /// SSH public keys.
    pub ssh_keys: BTreeMap<String, Value>,
    /// Disks.
    pub disks: BTreeMap<String, Value>,
}

impl Inventory {
    /// Looks. Without a resource group this is one request, with one it is nine, plus pages of large lists. What is in a
    /// group that is being deleted does not count any more.
    pub async fn take(arm: &ArmClient, ids: &Ids, call: Call) -> Result<Inventory, ArmError> {
        let Some(group) = arm.find(&ids.group(), call).await? else { return Ok(Inventory::default()) };
        let group_only = Inventory { group: Some(group), ..Inventory::default() };
        if group_only.is_deleting() {
            return Ok(group_only);
        }
        let members = |kind| members(arm, ids, kind, call);
        let (vms, power, nics, public_ips, vnets, nsgs, ssh_keys, disks) = futures::try_join!(
            members(Kind::VirtualMachine),
            power_states(arm, ids, call),
            members(Kind::NetworkInterface),
            members(Kind::PublicIp),
            members(Kind::VirtualNetwork),
            members(Kind::NetworkSecurityGroup),
            members(Kind::SshKey),
            members(Kind::Disk),
        )?;
        let vms = with_power(vms, power);
        Ok(Inventory { group: group_only.group, vms, nics, public_ips, vnets, nsgs, ssh_keys, disks })
    }

    /// Whether the group is on its way out, so that nothing may be built on it.
    pub fn is_deleting(&self) -> bool {
        self.group.as_ref().is_some_and(is_deleting)
    }

    /// The resources of a kind.
    pub fn of(&self, kind: Kind) -> &BTreeMap<String, Value> {
        match kind {
            Kind::VirtualMachine => &self.vms,
            Kind::NetworkInterface => &self.nics,
            Kind::PublicIp => &self.public_ips,
            Kind::VirtualNetwork => &self.vnets,
            Kind::NetworkSecurityGroup => &self.nsgs,
            Kind::SshKey => &self.ssh_keys,
            Kind::Disk => &self.disks,
        }
    }

    /// The latest run that has made anything of this cluster, and what it has made, as the tags say.
    pub fn latest_run(&self, cluster: &str) -> Option<(u64, &str)> {
        let resources = Kind::ALL.into_iter().flat_map(|kind| self.of(kind).values());
        let ours = resources.filter(|resource| tag(resource, TAG_CLUSTER) == Some(cluster));
        let run = |resource: &Value| tag(resource, TAG_EPOCH)?.parse::<u64>().ok();
        // Of several that one run has made, the first is named.
        ours.filter_map(|resource| Some((run(resource)?, resource["name"].as_str()?)))
            .min_by_key(|(run, _)| Reverse(*run))
    }

    /// One resource, by its name in any case.
    pub fn find(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.of(kind).get(&name.to_ascii_lowercase())
    }
}

/// `properties.provisioningState` of a resource.
pub fn provisioning_state(resource: &Value) -> Option<&str> {
    state_of(resource)
}

/// Whether a resource is on its way out.
pub fn is_deleting(resource: &Value) -> bool {
    state_of(resource).is_some_and(|state| state.eq_ignore_ascii_case("deleting"))
}

/// A tag of a resource; names of tags are compared without case (Azure documentation).
pub fn tag<'a>(resource: &'a Value, name: &str) -> Option<&'a str> {
    let tags = resource["tags"].as_object()?;
    tags.iter().find(|(tag, _)| tag.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str())
}

/// The power state of a machine, such as `running`, `stopped` or `deallocated`.
pub fn power_state(machine: &Value) -> Option<&str> {
    let statuses = machine["properties"]["instanceView"]["statuses"].as_array()?;
    statuses.iter().find_map(|status| status["code"].as_str()?.strip_prefix("PowerState/"))
}

/// What tells a machine from a later one of the same name (Azure documentation: `vmId` is unique and never reused).
pub fn identity(machine: &Value) -> Option<&str> {
    machine["properties"]["vmId"].as_str()
}

/// Whether Azure has given a resource up.
pub fn is_failed(resource: &Value) -> bool {
    state_of(resource).is_some_and(|state| ["failed", "canceled"].contains(&state.to_ascii_lowercase().as_str()))
}

/// The address of a public IP resource.
pub fn ip_address(public_ip: &Value) -> Option<&str> {
    public_ip["properties"]["ipAddress"].as_str()
}

async fn members(arm: &ArmClient, ids: &Ids, kind: Kind, call: Call) -> Result<BTreeMap<String, Value>, ArmError> {
    let members = match arm.list(&ids.collection(kind), call).await {
        Ok(members) => members,
        // The group may go between two requests.
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(members.into_iter().filter_map(|member| Some((key_of(&member)?, member))).collect())
}

/// The instance views of our machines: only the list of the whole subscription has them (Azure documentation).
async fn power_states(arm: &ArmClient, ids: &Ids, call: Call) -> Result<BTreeMap<String, Value>, ArmError> {
    let machines = format!(
        "/subscriptions/{}/providers/{}?statusOnly=true",
        ids.subscription,
        Kind::VirtualMachine.resource_type()
    );
    let ours = format!("{}/", ids.collection(Kind::VirtualMachine)).to_ascii_lowercase();
    let machines = arm.list(&machines, call).await?;
    let ours = machines.into_iter().filter_map(|mut machine| {
        let name = machine["id"].as_str()?.to_ascii_lowercase().strip_prefix(&ours)?.to_owned();
        Some((name, machine.pointer_mut("/properties/instanceView")?.take()))
    });
    Ok(ours.collect())
}

fn with_power(mut vms: BTreeMap<String, Value>, power: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    for (name, view) in power {
        if let Some(properties) = vms.get_mut(&name).and_then(|vm| vm.get_mut("properties")?.as_object_mut()) {
            properties.insert("instanceView".to_owned(), view);
        }
    }
    vms
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::azure::scripted::{Script, answer, json as json_answer};

    #[tokio::test(start_paused = true)]
    async fn no_group_is_one_request() {
        let script = Script::arm(|_| answer(404, r#"{"error":{"code":"ResourceGroupNotFound","message":""}}"#));
        let call = Call::within(Duration::from_secs(60));
        let inventory = Inventory::take(&script.client(), &Ids::new("sub", "g"), call).await.unwrap();
        assert_eq!(inventory, Inventory::default());
        assert_eq!(script.lines(), ["GET /subscriptions/sub/resourceGroups/g"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_a_constant_number_of_requests() {
        let machine = "/subscriptions/SUB/resourceGroups/G/providers/Microsoft.Compute/virtualMachines/VM-1";
        let script = Script::arm(move |seen| {
            let body = match seen.path.rsplit('/').next() {
                Some("g") => json!({"name": "g", "properties": {"provisioningState": "Succeeded"}}),
                Some("virtualMachines") if seen.query.contains("statusOnly=true") => json!({"value": [{"id": machine,
                    "properties": {"instanceView": {"statuses": [{"code": "PowerState/running"}]}}}]}),
                Some("virtualMachines") => {
                    json!({"value": [{"id": machine, "name": "VM-1", "tags": {"A": "b"}, "properties": {}}]})
                }
                _ => json!({"value": []}),
            };
            json_answer(200, &body)
        });
        let call = Call::within(Duration::from_secs(60));
        let inventory = Inventory::take(&script.client(), &Ids::new("sub", "g"), call).await.unwrap();
        assert_eq!(script.lines().len(), 9);
        let vm = inventory.find(Kind::VirtualMachine, "Vm-1").unwrap();
        assert_eq!((power_state(vm), tag(vm, "a")), (Some("running"), Some("b")));
        assert!(!inventory.is_deleting());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_a_group_that_goes_does_not_count() {
        let group = json!({"name": "g", "properties": {"provisioningState": "Deleting"}});
        let script = Script::arm(move |_| json_answer(200, &group));
        let call = Call::within(Duration::from_secs(60));
        let inventory = Inventory::take(&script.client(), &Ids::new("sub", "g"), call).await.unwrap();
        assert!(inventory.is_deleting() && inventory.vms.is_empty());
        assert_eq!(script.lines().len(), 1);
    }
}
