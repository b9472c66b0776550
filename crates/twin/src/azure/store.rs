//! What exists: typed resources by lower-case id, who refers to whom, and which private addresses are taken.

use std::{cell::OnceCell, collections::BTreeMap, net::Ipv4Addr, ops::Bound, time::Duration};

use serde_json::{Value, json};

use super::power;

/// One resource.
pub(super) struct Record {
    /// As the client wrote it.
    pub(super) id: String,
    /// What a `GET` shows, without what others say about it (see [`Store::rendered`]).
    pub(super) body: Value,
    /// What the client last asked for, secrets removed.
    pub(super) request: Value,
    pub(super) created_at: Duration,
    pub(super) changed_at: Duration,
    /// Counts the writes, so that the end of an old operation does not touch the result of a newer one.
    pub(super) generation: u64,
    /// From which part of it (an id) to what (a lower-case id).
    pub(super) references: Vec<(String, String)>,
    pub(super) hidden: Hidden,
    text: OnceCell<String>,
    view_text: OnceCell<String>,
}

/// What Azure knows about a resource and does not show.
#[derive(Default)]
pub(super) struct Hidden {
    /// A public address, before it is announced.
    pub(super) public_address: Option<Ipv4Addr>,
    /// Private addresses in use: lower-case subnet id, address, id of the IP configuration.
    pub(super) private_addresses: Vec<(String, Ipv4Addr, String)>,
    /// The machine for which an interface is kept though it does not exist, and until when.
    pub(super) reserved: Option<(String, Duration)>,
    /// The operation that deletes it.
    pub(super) deletion: Option<String>,
    pub(super) machine: Option<MachineFacts>,
}

/// What Azure knows about a virtual machine.
#[derive(Debug, Clone)]
pub(super) struct MachineFacts {
    pub(super) cores: u64,
    pub(super) family: &'static str,
    pub(super) spot: bool,
    /// `starting`, `running`, `stopping`, `stopped`, `deallocating`, `deallocated`.
    pub(super) power: &'static str,
    /// Custom data is secret and immutable: its hash is enough to compare.
    pub(super) custom_data_hash: [u8; 32],
    /// Whether a computer has been found for it.
    pub(super) placed: bool,
}

impl Record {
    pub(super) fn state(&self) -> &str {
        self.body["properties"]["provisioningState"].as_str().unwrap_or("Succeeded")
    }

    pub(super) fn name(&self) -> &str {
        self.body["name"].as_str().unwrap_or_default()
    }

    pub(super) fn location(&self) -> &str {
        self.body["location"].as_str().unwrap_or_default()
    }
}

/// All resources.
#[derive(Default)]
pub(super) struct Store {
    records: BTreeMap<String, Record>,
    /// Lower-case id of what is referred to; then by lower-case id of who refers, its id as written.
    references: BTreeMap<String, BTreeMap<String, String>>,
    /// By lower-case subnet id: taken addresses and the IP configuration that has each.
    addresses: BTreeMap<String, BTreeMap<Ipv4Addr, String>>,
}

impl Store {
    /// The name of the first resource of a type (lower case).
    pub(super) fn first_name(&self, kind: &str) -> Option<&str> {
        let part = format!("/providers/{kind}/");
        let is_one = |key: &str| key.split_once(&part).is_some_and(|(_, name)| !name.contains('/'));
        self.records.iter().find(|(key, _)| is_one(key)).map(|(_, record)| record.name())
    }

    pub(super) fn get(&self, key: &str) -> Option<&Record> {
        self.records.get(key)
    }

    /// Creates or replaces; answers the record's new generation.
    pub(super) fn put(&mut self, now: Duration, id: &str, parts: Parts) -> u64 {
        let key = id.to_lowercase();
        let old = self.take(&key);
        let (created_at, generation) = old.map_or((now, 1), |old| (old.created_at, old.generation + 1));
        for (from, target) in &parts.references {
            self.references.entry(target.clone()).or_default().insert(from.to_lowercase(), from.clone());
            self.forget_text(target);
        }
        for (subnet, address, configuration) in &parts.hidden.private_addresses {
            self.addresses.entry(subnet.clone()).or_default().insert(*address, configuration.clone());
        }
        let record = Record {
            id: id.to_owned(),
            body: parts.body,
            request: parts.request,
            created_at,
            changed_at: now,
            generation,
            references: parts.references,
            hidden: parts.hidden,
            text: OnceCell::new(),
            view_text: OnceCell::new(),
        };
        self.records.insert(key, record);
        generation
    }

    /// Removes a record with its references and addresses.
    pub(super) fn take(&mut self, key: &str) -> Option<Record> {
        let record = self.records.remove(key)?;
        for (from, target) in &record.references {
            if let Some(sources) = self.references.get_mut(target) {
                sources.remove(&from.to_lowercase());
                if sources.is_empty() {
                    self.references.remove(target);
                }
            }
            self.forget_text(target);
        }
        for (subnet, address, _) in &record.hidden.private_addresses {
            if let Some(taken) = self.addresses.get_mut(subnet) {
                taken.remove(address);
            }
        }
        Some(record)
    }

    /// Changes a record in place.
    pub(super) fn change(&mut self, now: Duration, key: &str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.get_mut(key) {
            change(record);
            record.changed_at = now;
            record.text.take();
            record.view_text.take();
        }
    }

    /// The records whose key starts with `prefix`, in order.
    pub(super) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Record)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.records.range::<str, _>(from).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The records whose key starts with `prefix`, for a prefix that nobody keeps.
    pub(super) fn under_owned(&self, prefix: String) -> impl Iterator<Item = &Record> {
        let from = (Bound::Included(prefix.clone()), Bound::Unbounded);
        self.records.range(from).take_while(move |(key, _)| key.starts_with(&prefix)).map(|(_, record)| record)
    }

    /// The ids of those that refer to `key`.
    pub(super) fn referrers(&self, key: &str) -> impl Iterator<Item = &String> {
        self.references.get(key).into_iter().flat_map(BTreeMap::values)
    }

    /// Who has an address of a subnet.
    pub(super) fn address_owner(&self, subnet: &str, address: Ipv4Addr) -> Option<&String> {
        self.addresses.get(subnet)?.get(&address)
    }

    /// What a `GET` shows, with what others say about it: the references to it.
    pub(super) fn rendered(&self, key: &str) -> Option<Value> {
        let record = self.get(key)?;
        let mut body = record.body.clone();
        let ids = |key: &str, part: &str| -> Vec<Value> {
            let of_kind = self.referrers(key).filter(|id| id.contains(part));
            of_kind.map(|id| json!({"id": id})).collect()
        };
        let first = |part: &str| ids(key, part).into_iter().next();
        let properties = &mut body["properties"];
        match record.body["type"].as_str().unwrap_or_default() {
            "Microsoft.Network/publicIPAddresses" => set(properties, "ipConfiguration", first("/ipConfigurations/")),
            "Microsoft.Network/networkInterfaces" => set(properties, "virtualMachine", first("/virtualMachines/")),
            "Microsoft.Network/networkSecurityGroups" => {
                for (field, part) in [("networkInterfaces", "/networkInterfaces/"), ("subnets", "/subnets/")] {
                    let ids = ids(key, part);
                    set(properties, field, (!ids.is_empty()).then(|| json!(ids)));
                }
            }
            "Microsoft.Network/virtualNetworks" => {
                for subnet in properties["subnets"].as_array_mut().into_iter().flatten() {
                    let name = subnet["name"].as_str().unwrap_or_default().to_lowercase();
                    let ids = ids(&format!("{key}/subnets/{name}"), "/ipConfigurations/");
                    set(&mut subnet["properties"], "ipConfigurations", (!ids.is_empty()).then(|| json!(ids)));
                }
            }
            "Microsoft.Compute/disks" => {
                let machine = self.referrers(key).next();
                properties["diskState"] = json!(if machine.is_some() { "Attached" } else { "Unattached" });
                set(&mut body, "managedBy", machine.map(|id| json!(id)));
            }
            _ => {}
        }
        Some(body)
    }

    /// [`Store::rendered`] as JSON, kept until something changes.
    pub(super) fn text(&self, key: &str) -> &str {
        let Some(record) = self.get(key) else { return "null" };
        record.text.get_or_init(|| self.rendered(key).unwrap_or_default().to_string())
    }

    /// The same for a virtual machine with its instance view.
    pub(super) fn view_text(&self, key: &str) -> &str {
        let Some(record) = self.get(key) else { return "null" };
        record.view_text.get_or_init(|| {
            let mut body = record.body.clone();
            body["properties"]["instanceView"] = power::instance_view(record);
            body.to_string()
        })
    }

    /// The reference may point at a part of the record: a subnet of a virtual network.
    fn forget_text(&mut self, target: &str) {
        let whole = target.split("/subnets/").next().unwrap_or(target);
        if let Some(record) = self.records.get_mut(whole) {
            record.text.take();
        }
    }
}

/// What a record is made from.
pub(super) struct Parts {
    pub(super) body: Value,
    pub(super) request: Value,
    pub(super) references: Vec<(String, String)>,
    pub(super) hidden: Hidden,
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if let (Some(value), Some(object)) = (value, object.as_object_mut()) {
        object.insert(field.into(), value);
    }
}
