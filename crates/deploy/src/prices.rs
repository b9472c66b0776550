//! What things cost, about: enough to say what a teardown saves and what a leftover burns.
//!
//! List prices in US dollars for pay-as-you-go, Linux, in East US (Azure's price list of 2025, rounded). Other regions
//! differ by up to a third, Spot machines and agreements by more; what is not in the tables is not guessed.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::{
    azure::resources::disk_type,
    config::{Config, VmPriority},
};

/// A month as Azure counts it.
const HOURS_PER_MONTH: f64 = 730.0;
/// A Standard public address.
pub const PUBLIC_ADDRESS: f64 = 0.005;

/// Machines, by the hour.
const MACHINES: [(&str, f64); 30] = [
    ("standard_a2_v2", 0.091),
    ("standard_a4_v2", 0.191),
    ("standard_b1s", 0.0104),
    ("standard_b2s", 0.0416),
    ("standard_b2ms", 0.0832),
    ("standard_b4ms", 0.166),
    ("standard_b8ms", 0.333),
    ("standard_b2s_v2", 0.0832),
    ("standard_b4s_v2", 0.166),
    ("standard_ds2_v2", 0.146),
    ("standard_ds3_v2", 0.293),
    ("standard_ds4_v2", 0.585),
    ("standard_d2_v5", 0.096),
    ("standard_d4_v5", 0.192),
    ("standard_d8_v5", 0.384),
    ("standard_d2s_v3", 0.096),
    ("standard_d4s_v3", 0.192),
    ("standard_d8s_v3", 0.384),
    ("standard_d2s_v5", 0.096),
    ("standard_d4s_v5", 0.192),
    ("standard_d8s_v5", 0.384),
    ("standard_d16s_v5", 0.768),
    ("standard_d2as_v5", 0.086),
    ("standard_d4as_v5", 0.172),
    ("standard_d2pls_v5", 0.068),
    ("standard_d4pls_v5", 0.136),
    ("standard_d8pls_v5", 0.272),
    ("standard_d2ps_v5", 0.077),
    ("standard_d4ps_v5", 0.154),
    ("standard_d8ps_v5", 0.308),
];

/// Disks by kind: the largest size of each step in GiB, and its price by the month.
const DISKS: [(&str, &[(u64, f64)]); 2] = [
    ("Premium_LRS", &[(32, 5.28), (64, 10.21), (128, 19.71), (256, 38.02), (512, 73.22), (1024, 135.17)]),
    ("StandardSSD_LRS", &[(32, 2.4), (64, 4.8), (128, 9.6), (256, 19.2), (512, 38.4), (1024, 76.8)]),
];

/// What things cost together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Those whose price is known, in US dollars.
    pub usd_per_hour: f64,
    /// How many have a price that is not known here.
    pub unknown: usize,
}

impl Cost {
    /// One more thing.
    pub fn add(&mut self, usd_per_hour: Option<f64>) {
        match usd_per_hour {
            Some(price) => self.usd_per_hour += price,
            None => self.unknown += 1,
        }
    }

    /// One thing less.
    pub fn subtract(&mut self, usd_per_hour: Option<f64>) {
        match usd_per_hour {
            // What is left of a sum of prices is not less than nothing.
            Some(price) => self.usd_per_hour = (self.usd_per_hour - price).max(0.0),
            None => self.unknown = self.unknown.saturating_sub(1),
        }
    }

    /// The same, by the month.
    pub fn usd_per_month(&self) -> f64 {
        self.usd_per_hour * HOURS_PER_MONTH
    }
}

impl FromIterator<Option<f64>> for Cost {
    fn from_iter<Prices: IntoIterator<Item = Option<f64>>>(prices: Prices) -> Self {
        prices.into_iter().fold(Self::default(), |mut cost, price| {
            cost.add(price);
            cost
        })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.usd_per_hour, self.unknown) {
            (known, 0) => write!(formatter, "about {known:.2} USD an hour"),
            (0.0, _) => formatter.write_str("how much is not known here"),
            (known, some) => {
                write!(formatter, "about {known:.2} USD an hour, and {some} more whose price is not known here")
            }
        }
    }
}

/// A machine of this size.
pub fn machine(size: &str) -> Option<f64> {
    MACHINES.iter().find(|(name, _)| name.eq_ignore_ascii_case(size)).map(|(_, price)| *price)
}

/// A machine of this configuration with its disk and its address.
pub fn of_machine(config: &Config, size: &str) -> [Option<f64>; 3] {
    // Azure sets the price of Spot machines anew each day.
    let machine = if config.azure.vm_priority == VmPriority::Spot { None } else { machine(size) };
    [machine, disk(disk_type(size), u64::from(config.azure.os_disk_gb)), Some(PUBLIC_ADDRESS)]
}

/// A resource as its own list shows it, by the hour; what Azure does not charge for costs nothing.
pub fn resource(body: &Value) -> Option<f64> {
    let properties = &body["properties"];
    match body["type"].as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "microsoft.compute/virtualmachines" if properties["priority"] == "Spot" => None,
        "microsoft.compute/virtualmachines" => machine(properties["hardwareProfile"]["vmSize"].as_str()?),
        "microsoft.compute/disks" => disk(body["sku"]["name"].as_str()?, properties["diskSizeGB"].as_u64()?),
        "microsoft.network/publicipaddresses" => Some(PUBLIC_ADDRESS),
        "microsoft.network/networkinterfaces"
        | "microsoft.network/virtualnetworks"
        | "microsoft.network/networksecuritygroups"
        | "microsoft.compute/sshpublickeys"
        | "microsoft.resources/resourcegroups" => Some(0.0),
        _ => None,
    }
}

/// A disk of a kind and a size in GiB.
pub fn disk(sku: &str, gigabytes: u64) -> Option<f64> {
    let (_, steps) = DISKS.iter().find(|(name, _)| name.eq_ignore_ascii_case(sku))?;
    steps.iter().find(|(largest, _)| gigabytes <= *largest).map(|(_, month)| month / HOURS_PER_MONTH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let vm = |size: &str, priority: &str| {
            resource(&json!({"type": "Microsoft.Compute/virtualMachines",
                "properties": {"priority": priority, "hardwareProfile": {"vmSize": size}}}))
        };
        let disk = |gigabytes: u64| {
            resource(&json!({"type": "Microsoft.Compute/disks", "sku": {"name": "Premium_LRS"},
                "properties": {"diskSizeGB": gigabytes}}))
        };
        assert_eq!([vm("Standard_B2s", "Regular"), vm("standard_b2s", "Spot")], [Some(0.0416), None]);
        assert_eq!([vm("Standard_Huge", "Regular"), disk(4096)], [None, None]);
        let cost: Cost = [vm("Standard_D4s_v5", "Regular"), disk(100), Some(PUBLIC_ADDRESS)].into_iter().collect();
        assert_eq!(cost.to_string(), "about 0.22 USD an hour");
        let cost: Cost = [Some(0.1), None, None].into_iter().collect();
        assert_eq!(cost.to_string(), "about 0.10 USD an hour, and 2 more whose price is not known here");
    }
}
