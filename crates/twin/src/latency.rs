//! How long things take in this world.
//!
//! Each figure is a 10th, 50th and 95th percentile in seconds; a sample is drawn log-normally between them (cut at 2.5
//! standard deviations). Sources: *seen* are samples from public terraform logs against Azure, *guess* has no better
//! source than experience and is marked so.

use std::time::Duration;

use rand_chacha::{ChaCha8Rng, rand_core::RngCore};

/// A kind of thing that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Latency {
    /// A synchronous ARM request (guess).
    ArmRequest,
    /// `PUT` of a resource group (seen: 2 s).
    ResourceGroupPut,
    /// `PUT` of a virtual network with its subnets (seen: 3 s, about 11 s).
    VirtualNetworkPut,
    /// `PUT` of a network security group (seen: 1 to 13 s).
    SecurityGroupPut,
    /// `PUT` of a Standard public address (seen: 4 s).
    PublicAddressPut,
    /// `PUT` of a network interface (seen: 2 to 14 s).
    NetworkInterfacePut,
    /// `PUT` of a managed disk (guess).
    DiskPut,
    /// `PUT` of a Linux virtual machine until its operation has succeeded (seen: 13 to 113 s, median 51 s).
    VirtualMachinePut,
    /// `DELETE` of a virtual machine (seen: 20 s, 28 s, once almost 10 min).
    VirtualMachineDelete,
    /// `DELETE` of a network resource (seen: 5 to 22 s).
    NetworkDelete,
    /// `DELETE` of a resource group with machines in it (seen: 47 to 410 s).
    ResourceGroupDelete,
    /// `DELETE` of an empty resource group (seen: 15 to 80 s).
    EmptyResourceGroupDelete,
    /// Stopping and deallocating a machine (guess).
    Deallocate,
    /// Starting a stopped machine (guess).
    Start,
    /// From the accepted `PUT` of a machine until its SSH port is open (guess).
    Boot,
    /// From the open SSH port until cloud-init is done, with packages to install (guess).
    CloudInit,
    /// Downloading the k0s binary to a machine (guess: about 250 MB at 50 MB/s).
    K0sDownload,
    /// From starting the first controller until its API server is ready (k0sctl waits up to 2 min for it; guess).
    K0sInitialise,
    /// From starting a further controller until it is a member and its API server is ready (guess).
    K0sJoinController,
    /// From starting a worker until its node is Ready, images pulled (guess).
    K0sJoinWorker,
    /// A short command over SSH (guess).
    Command,
    /// Installing the kcm chart until its controller runs (k0rdent documentation: minutes).
    KcmChart,
    /// From the running kcm controller until one provider is installed (k0rdent documentation: 5 to 10 min in all).
    KcmComponent,
    /// Deleting the Management object with all its Helm releases (guess).
    KcmDelete,
    /// Uninstalling a Helm chart (guess).
    ChartUninstall,
    /// `k0s reset` on a machine (guess).
    K0sReset,
}

impl Latency {
    /// The 10th, 50th and 95th percentile, in seconds.
    pub const fn percentiles(self) -> (f64, f64, f64) {
        match self {
            Self::ArmRequest => (0.03, 0.06, 0.2),
            Self::ResourceGroupPut => (0.4, 1.0, 3.0),
            Self::VirtualNetworkPut => (2.0, 4.0, 11.0),
            Self::SecurityGroupPut => (1.5, 3.0, 11.0),
            Self::PublicAddressPut => (1.5, 3.5, 11.0),
            Self::NetworkInterfacePut => (1.0, 2.5, 12.0),
            Self::DiskPut => (1.0, 2.0, 6.0),
            Self::VirtualMachinePut => (15.0, 50.0, 115.0),
            Self::VirtualMachineDelete => (15.0, 28.0, 90.0),
            Self::NetworkDelete => (4.0, 10.0, 22.0),
            Self::ResourceGroupDelete => (45.0, 90.0, 600.0),
            Self::EmptyResourceGroupDelete => (15.0, 18.0, 80.0),
            Self::Deallocate => (20.0, 40.0, 90.0),
            Self::Start => (15.0, 35.0, 80.0),
            Self::Boot => (18.0, 30.0, 70.0),
            Self::CloudInit => (25.0, 45.0, 120.0),
            Self::K0sDownload => (3.0, 5.0, 15.0),
            Self::K0sInitialise => (20.0, 30.0, 60.0),
            Self::K0sJoinController => (15.0, 25.0, 50.0),
            Self::K0sJoinWorker => (15.0, 25.0, 60.0),
            Self::Command => (0.02, 0.04, 0.1),
            Self::KcmChart => (40.0, 60.0, 120.0),
            Self::KcmComponent => (120.0, 180.0, 300.0),
            Self::KcmDelete => (30.0, 60.0, 150.0),
            Self::ChartUninstall => (5.0, 10.0, 30.0),
            Self::K0sReset => (5.0, 10.0, 25.0),
        }
    }

    /// Draws one duration.
    pub fn sample(self, random: &mut ChaCha8Rng) -> Duration {
        let (p10, p50, p95) = self.percentiles();
        let deviations = standard_normal(random).clamp(-2.5, 2.5);
        let spread = if deviations < 0.0 { (p50 / p10).ln() / 1.2816 } else { (p95 / p50).ln() / 1.6449 };
        let seconds = (p50.ln() + deviations * spread).exp();
        Duration::from_millis((seconds * 1000.0).round() as u64)
    }
}

/// The Box-Muller transform.
fn standard_normal(random: &mut ChaCha8Rng) -> f64 {
    let unit = |random: &mut ChaCha8Rng| (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let (first, second) = (unit(random).max(1e-12), unit(random));
    (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos()
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn the_median_and_the_tail_are_as_stated() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut samples: Vec<f64> =
            (0..4000).map(|_| Latency::VirtualMachinePut.sample(&mut random).as_secs_f64()).collect();
        samples.sort_by(f64::total_cmp);
        assert!((45.0..55.0).contains(&samples[2000]), "median {}", samples[2000]);
        assert!((100.0..130.0).contains(&samples[3800]), "95th percentile {}", samples[3800]);
    }
}
