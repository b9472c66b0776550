//! What others do to the world behind a client's back: a colleague in the portal, Azure itself, somebody on a machine.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::{World, azure, machine};

/// Something that happens to the world.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Somebody deletes a machine.
    DeleteMachine {
        /// Its name.
        machine: String,
    },
    /// Somebody stops a machine; it still costs.
    StopMachine {
        /// Its name.
        machine: String,
    },
    /// Somebody deallocates a machine.
    DeallocateMachine {
        /// Its name.
        machine: String,
    },
    /// Azure calls a machine failed that goes on running: an extension, an update or a deletion has failed (Azure
    /// documentation: provisioning states of virtual machines).
    FailMachine {
        /// Its name.
        machine: String,
    },
    /// Somebody removes a file or a directory on a machine.
    RemoveFile {
        /// The machine's name.
        machine: String,
        /// Its path.
        path: String,
    },
    /// Azure takes a Spot machine back.
    EvictMachine {
        /// Its name.
        machine: String,
    },
    /// Somebody removes a rule from a network security group.
    RemoveRule {
        /// Its name.
        rule: String,
    },
    /// Somebody stops a systemd unit on a machine.
    StopUnit {
        /// The machine's name.
        machine: String,
        /// The unit's name.
        unit: String,
    },
    /// Whoever looks at this world from outside goes on from another network: all of them, because there is usually one.
    MoveClient {
        /// The address from which they come now.
        address: IpAddr,
    },
    /// Somebody creates or changes something in Azure: a thing of their own in our group, a lock, a tag.
    Put {
        /// Its id: `/subscriptions/...`.
        path: String,
        /// What it shall be, as Resource Manager takes it.
        body: Value,
    },
    /// Somebody deletes something in Azure.
    Delete {
        /// Its id: `/subscriptions/...`.
        path: String,
    },
}

impl Action {
    /// Does it; says what is wrong if it cannot be done.
    pub fn perform(&self, world: &mut World) -> Result<(), String> {
        let vm = |world: &World, name: &str| id(world, "Microsoft.Compute/virtualMachines", name);
        let status = match self {
            Self::DeleteMachine { machine } => {
                let path = vm(world, machine)?;
                azure::act(world, http::Method::DELETE, &path, None)
            }
            Self::StopMachine { machine } => {
                let path = vm(world, machine)? + "/powerOff";
                azure::act(world, http::Method::POST, &path, None)
            }
            Self::DeallocateMachine { machine } => {
                let path = vm(world, machine)? + "/deallocate";
                azure::act(world, http::Method::POST, &path, None)
            }
            Self::FailMachine { machine } => {
                let path = vm(world, machine)?;
                azure::call_failed(world, &path);
                200
            }
            Self::RemoveFile { machine, path } => {
                let vm = vm(world, machine)?;
                machine::remove_file(world, &vm, path);
                200
            }
            Self::EvictMachine { machine } => {
                let path = vm(world, machine)? + "/simulateEviction";
                azure::act(world, http::Method::POST, &path, None)
            }
            Self::RemoveRule { rule } => {
                let group = id(world, "Microsoft.Network/networkSecurityGroups", "")?;
                azure::act(world, http::Method::DELETE, &format!("{group}/securityRules/{rule}"), None)
            }
            Self::StopUnit { machine, unit } => {
                let path = vm(world, machine)?;
                machine::stop_unit(world, &path, unit);
                200
            }
            Self::MoveClient { address } => {
                world.client_moved_to = Some(*address);
                200
            }
            Self::Delete { path } => azure::act(world, http::Method::DELETE, path, None),
            Self::Put { path, body } => azure::act(world, http::Method::PUT, path, Some(body)),
        };
        if status < 400 { Ok(()) } else { Err(format!("Azure answers {status}")) }
    }
}

/// The id of the resource of that type and name; the first of the type if no name is given.
fn id(world: &World, kind: &str, name: &str) -> Result<String, String> {
    let text = |resource: &Value, key: &str| resource[key].as_str().unwrap_or_default().to_owned();
    azure::resources(world)
        .iter()
        .find(|resource| text(resource, "type") == kind && (name.is_empty() || text(resource, "name") == name))
        .map(|resource| text(resource, "id"))
        .ok_or_else(|| format!("there is no {kind} {name}"))
}
