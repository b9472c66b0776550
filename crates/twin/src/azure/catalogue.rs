//! What Azure sells here: regions, virtual machine sizes and images.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{
    SUBSCRIPTION,
    call::{Answer, Call, Refusal, Reply},
};

/// Regions: name and display name.
pub(super) const REGIONS: [(&str, &str); 9] = [
    ("eastus", "East US"),
    ("eastus2", "East US 2"),
    ("northeurope", "North Europe"),
    ("southeastasia", "Southeast Asia"),
    ("swedencentral", "Sweden Central"),
    ("uksouth", "UK South"),
    ("westcentralus", "West Central US"),
    ("westeurope", "West Europe"),
    ("westus2", "West US 2"),
];

/// Whether a region has availability zones; all that have any have three (Azure documentation: list of regions).
pub(super) fn has_zones(location: &str) -> bool {
    location != "westcentralus"
}

/// A virtual machine size.
#[derive(Debug, PartialEq)]
pub(super) struct Size {
    pub(super) name: &'static str,
    pub(super) family: &'static str,
    pub(super) cores: u64,
    pub(super) memory_gigabytes: u64,
    /// `x64` or `Arm64`.
    pub(super) architecture: &'static str,
    /// `V1,V2` or one of them.
    pub(super) generations: &'static str,
    pub(super) spot: bool,
    pub(super) premium_storage: bool,
}

const BOTH: &str = "V1,V2";

#[rustfmt::skip]
#[expect(clippy::too_many_arguments, reason = "one per column")]
const fn size(
    name: &'static str, family: &'static str, cores: u64, memory_gigabytes: u64, architecture: &'static str,
    generations: &'static str, spot: bool, premium_storage: bool,
) -> Size {
    Size { name, family, cores, memory_gigabytes, architecture, generations, spot, premium_storage }
}

/// Sizes as in the Azure documentation.
#[rustfmt::skip]
pub(super) static SIZES: [Size; 33] = [
    size("Standard_A2_v2", "standardAv2Family", 2, 4, "x64", "V1", true, false),
    size("Standard_A4_v2", "standardAv2Family", 4, 8, "x64", "V1", true, false),
    size("Standard_B2s", "standardBSFamily", 2, 4, "x64", BOTH, false, true),
    size("Standard_B2ms", "standardBSFamily", 2, 8, "x64", BOTH, false, true),
    size("Standard_B4ms", "standardBSFamily", 4, 16, "x64", BOTH, false, true),
    size("Standard_B2s_v2", "standardBsv2Family", 2, 8, "x64", BOTH, false, true),
    size("Standard_B4s_v2", "standardBsv2Family", 4, 16, "x64", BOTH, false, true),
    size("Standard_B2pls_v2", "standardBpsv2Family", 2, 4, "Arm64", "V2", false, true),
    size("Standard_B2ps_v2", "standardBpsv2Family", 2, 8, "Arm64", "V2", false, true),
    size("Standard_B4ps_v2", "standardBpsv2Family", 4, 16, "Arm64", "V2", false, true),
    size("Standard_DS2_v2", "standardDSv2Family", 2, 7, "x64", BOTH, true, true),
    size("Standard_DS3_v2", "standardDSv2Family", 4, 14, "x64", BOTH, true, true),
    size("Standard_DS4_v2", "standardDSv2Family", 8, 28, "x64", BOTH, true, true),
    size("Standard_D2_v5", "standardDv5Family", 2, 8, "x64", BOTH, true, false),
    size("Standard_D4_v5", "standardDv5Family", 4, 16, "x64", BOTH, true, false),
    size("Standard_D8_v5", "standardDv5Family", 8, 32, "x64", BOTH, true, false),
    size("Standard_D2s_v5", "standardDSv5Family", 2, 8, "x64", BOTH, true, true),
    size("Standard_D4s_v5", "standardDSv5Family", 4, 16, "x64", BOTH, true, true),
    size("Standard_D8s_v5", "standardDSv5Family", 8, 32, "x64", BOTH, true, true),
    size("Standard_D16s_v5", "standardDSv5Family", 16, 64, "x64", BOTH, true, true),
    size("Standard_D2pls_v5", "standardDPLSv5Family", 2, 4, "Arm64", "V2", true, true),
    size("Standard_D4pls_v5", "standardDPLSv5Family", 4, 8, "Arm64", "V2", true, true),
    size("Standard_D8pls_v5", "standardDPLSv5Family", 8, 16, "Arm64", "V2", true, true),
    size("Standard_D2ps_v5", "standardDPSv5Family", 2, 8, "Arm64", "V2", true, true),
    size("Standard_D4ps_v5", "standardDPSv5Family", 4, 16, "Arm64", "V2", true, true),
    size("Standard_D8ps_v5", "standardDPSv5Family", 8, 32, "Arm64", "V2", true, true),
    size("Standard_D2pls_v6", "StandardDplsv6Family", 2, 4, "Arm64", "V2", true, true),
    size("Standard_D4pls_v6", "StandardDplsv6Family", 4, 8, "Arm64", "V2", true, true),
    size("Standard_D8pls_v6", "StandardDplsv6Family", 8, 16, "Arm64", "V2", true, true),
    size("Standard_D16pls_v6", "StandardDplsv6Family", 16, 32, "Arm64", "V2", true, true),
    size("Standard_D2ps_v6", "StandardDpsv6Family", 2, 8, "Arm64", "V2", true, true),
    size("Standard_D4ps_v6", "StandardDpsv6Family", 4, 16, "Arm64", "V2", true, true),
    size("Standard_D8ps_v6", "StandardDpsv6Family", 8, 32, "Arm64", "V2", true, true),
];

/// Size, region and zone that this subscription may not use: an example of a restriction.
const RESTRICTED: [(&str, &str, &str); 1] = [("Standard_D2pls_v5", "westus2", "3")];

/// The size with this name, in any case.
pub(super) fn find_size(name: &str) -> Option<&'static Size> {
    SIZES.iter().find(|size| size.name.eq_ignore_ascii_case(name))
}

/// Whether a zone of a region has a size, for this subscription.
pub(super) fn zone_offers(size: &Size, location: &str, zone: &str) -> bool {
    !RESTRICTED.contains(&(size.name, location, zone))
}

fn sku(size: &Size, location: &str) -> Value {
    let yes_no = |value: bool| if value { "True" } else { "False" };
    let restrictions: Vec<Value> = RESTRICTED
        .iter()
        .filter(|(name, region, _)| *name == size.name && *region == location)
        .map(|(_, region, zone)| {
            json!({
                "type": "Zone", "values": [region], "reasonCode": "NotAvailableForSubscription",
                "restrictionInfo": {"locations": [region], "zones": [zone]},
            })
        })
        .collect();
    let capabilities: Vec<Value> = [
        ("MaxResourceVolumeMB", "0".to_owned()),
        ("OSVhdSizeMB", "1047552".into()),
        ("vCPUs", size.cores.to_string()),
        ("MemoryPreservingMaintenanceSupported", "True".into()),
        ("HyperVGenerations", size.generations.into()),
        ("MemoryGB", size.memory_gigabytes.to_string()),
        ("MaxDataDiskCount", (size.cores * 2).to_string()),
        ("CpuArchitectureType", size.architecture.into()),
        ("LowPriorityCapable", yes_no(size.spot).into()),
        ("PremiumIO", yes_no(size.premium_storage).into()),
        ("vCPUsAvailable", size.cores.to_string()),
        ("EphemeralOSDiskSupported", "False".into()),
        ("EncryptionAtHostSupported", "True".into()),
        ("AcceleratedNetworkingEnabled", yes_no(size.spot).into()),
        ("MaxNetworkInterfaces", "2".into()),
    ]
    .into_iter()
    .map(|(name, value)| json!({"name": name, "value": value}))
    .collect();
    let zones: &[&str] = if has_zones(location) { &["1", "2", "3"] } else { &[] };
    json!({
        "resourceType": "virtualMachines", "name": size.name, "tier": "Standard", "family": size.family,
        "size": size.name.trim_start_matches("Standard_"), "locations": [location],
        "locationInfo": [{"location": location, "zones": zones, "zoneDetails": []}],
        "capabilities": capabilities, "restrictions": restrictions,
    })
}

/// `GET .../skus`; only a filter by location is supported (Azure documentation).
pub(super) fn skus(call: &Call) -> Answer {
    let filter = call.query("$filter").unwrap_or_default();
    let wanted = filter.split('\'').nth(1).map(str::to_lowercase);
    let regions = SKUS.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == name));
    let skus: Vec<&str> = regions.map(|(_, skus)| skus.as_str()).collect();
    Ok(Reply::text(200, format!(r#"{{"value":[{}]}}"#, skus.join(","))))
}

/// The sizes of each region, as JSON and separated by commas: they are asked for often, and never change.
static SKUS: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let skus = |region| SIZES.iter().map(|size| sku(size, region).to_string()).collect::<Vec<_>>().join(",");
    REGIONS.iter().map(|(region, _)| (*region, skus(region))).collect()
});

/// A marketplace image.
#[derive(Debug)]
pub(super) struct Image {
    publisher: &'static str,
    offer: &'static str,
    sku: &'static str,
    architecture: &'static str,
    /// `V1` or `V2`.
    generation: &'static str,
    /// The oldest first.
    versions: [&'static str; 2],
}

/// The size of every image's disk.
pub(super) const IMAGE_GIGABYTES: u64 = 30;

/// Publishers, offers and skus as in the Azure marketplace; versions are examples.
static IMAGES: LazyLock<Vec<Image>> = LazyLock::new(|| {
    let debian_12 = ["0.20260901.2220", "0.20261102.2282"];
    let debian_13 = ["0.20260901.2221", "0.20261102.2283"];
    let ubuntu = ["24.04.202610010", "24.04.202611050"];
    [
        ("Debian", "debian-12", "12", "x64", "V1", debian_12),
        ("Debian", "debian-12", "12-gen2", "x64", "V2", debian_12),
        ("Debian", "debian-12", "12-arm64", "Arm64", "V2", debian_12),
        ("Debian", "debian-13", "13-gen2", "x64", "V2", debian_13),
        ("Debian", "debian-13", "13-arm64", "Arm64", "V2", debian_13),
        ("Canonical", "ubuntu-24_04-lts", "server", "x64", "V2", ubuntu),
        ("Canonical", "ubuntu-24_04-lts", "server-arm64", "Arm64", "V2", ubuntu),
    ]
    .into_iter()
    .map(|(publisher, offer, sku, architecture, generation, versions)| Image {
        publisher,
        offer,
        sku,
        architecture,
        generation,
        versions,
    })
    .collect()
});

/// The image with this name, in any case.
fn find_image(publisher: &str, offer: &str, sku: &str) -> Option<&'static Image> {
    IMAGES.iter().find(|image| {
        image.publisher.eq_ignore_ascii_case(publisher)
            && image.offer.eq_ignore_ascii_case(offer)
            && image.sku.eq_ignore_ascii_case(sku)
    })
}

/// An image as a machine is made from it.
#[derive(Debug)]
pub(super) struct Resolved {
    /// `x64` or `Arm64`.
    pub(super) architecture: String,
    /// `V1` or `V2`.
    pub(super) generation: String,
    /// Its exact version.
    pub(super) version: String,
}

/// The image of the marketplace that a virtual machine asks for.
pub(super) fn resolve_image(reference: &Value) -> Result<Resolved, Refusal> {
    let field = |name: &str| reference[name].as_str().unwrap_or_default();
    let (publisher, offer, sku, version) = (field("publisher"), field("offer"), field("sku"), field("version"));
    let found = find_image(publisher, offer, sku).and_then(|image| {
        let latest = version.is_empty() || version.eq_ignore_ascii_case("latest");
        let exact = if latest { image.versions.last() } else { image.versions.iter().find(|known| **known == version) };
        Some(Resolved {
            architecture: image.architecture.into(),
            generation: image.generation.into(),
            version: (*exact?).into(),
        })
    });
    found.ok_or_else(|| {
        let text = format!(
            "The platform image '{publisher}:{offer}:{sku}:{version}' is not available. Verify that all fields in the storage \
             profile are correct. For more details about storage profile information, please refer to \
             https://aka.ms/storageprofile."
        );
        Refusal { target: Some("imageReference".into()), ..Refusal::new(404, "PlatformImageNotFound", text) }
    })
}

/// The image that the path of a request names.
fn image_of(call: &Call) -> Result<&'static Image, Refusal> {
    let part = |index: usize| call.segments.get(index).map(String::as_str).unwrap_or_default();
    let found = find_image(part(7), part(11), part(13));
    found.ok_or_else(|| Refusal::new(404, "NotFound", "Artifact: VMImage was not found."))
}

fn version_body(image: &Image, location: &str, version: &str) -> Value {
    let Image { publisher, offer, sku, .. } = image;
    let id = format!(
        "/Subscriptions/{SUBSCRIPTION}/Providers/Microsoft.Compute/Locations/{location}/Publishers/{publisher}/ArtifactTypes\
         /VMImage/Offers/{offer}/Skus/{sku}/Versions/{version}"
    );
    json!({"id": id, "name": version, "location": location})
}

fn image_properties(image: &Image) -> Value {
    json!({
        "architecture": image.architecture, "hyperVGeneration": image.generation, "plan": null,
        "osDiskImage": {"operatingSystem": "Linux", "sizeInGb": IMAGE_GIGABYTES}, "dataDiskImages": [],
        "automaticOSUpgradeProperties": {"automaticOSUpgradeSupported": false},
        "features": [{"name": "IsAcceleratedNetworkSupported", "value": "True"}],
    })
}

/// `GET .../publishers`, `.../offers` and `.../skus`: bare arrays too (observed with Azure CLI 2.91.0). The path names
/// those that the answer is about.
pub(super) fn image_names(call: &Call, location: &str) -> Answer {
    let given = |index: usize| call.segments.get(index).map(String::as_str);
    let same = |index: usize, name: &str| given(index).is_none_or(|given| given.eq_ignore_ascii_case(name));
    let of_image = |image: &Image| match call.segments.len() {
        7 => image.publisher,
        11 => image.offer,
        _ => image.sku,
    };
    let images = IMAGES.iter().filter(|image| same(7, image.publisher) && same(11, image.offer));
    let mut names: Vec<&str> = images.map(of_image).collect();
    names.dedup();
    if names.is_empty() {
        return Err(Refusal::new(404, "NotFound", "Artifact: VMImage was not found."));
    }
    let bodies = names
        .into_iter()
        .map(|name| json!({"id": format!("{}/{name}", call.path), "name": name, "location": location}));
    Ok(Reply::new(200, &bodies.collect()))
}

/// `GET .../vmSizes`.
pub(super) fn machine_sizes() -> Answer {
    let sizes = SIZES.iter().map(|size| {
        json!({
            "name": size.name, "numberOfCores": size.cores, "memoryInMB": size.memory_gigabytes * 1024,
            "osDiskSizeInMB": 1_047_552, "resourceDiskSizeInMB": 0, "maxDataDiskCount": size.cores * 2,
        })
    });
    Ok(Reply::new(200, &json!({"value": sizes.collect::<Vec<_>>()})))
}

/// `GET .../versions`: a bare array, unlike any other list (observed with Azure CLI 2.91.0).
pub(super) fn image_versions(call: &Call, location: &str) -> Answer {
    let image = image_of(call)?;
    let mut versions = image.versions.to_vec();
    if call.query("$orderby").is_some_and(|order| order.to_lowercase().ends_with("desc")) {
        versions.reverse();
    }
    versions.truncate(call.query("$top").and_then(|top| top.parse().ok()).unwrap_or(usize::MAX));
    let expanded = call.query("$expand").is_some_and(|expand| expand.eq_ignore_ascii_case("properties"));
    let bodies = versions.into_iter().map(|version| {
        let mut body = version_body(image, location, version);
        if expanded {
            body["properties"] = image_properties(image);
        }
        body
    });
    Ok(Reply::new(200, &bodies.collect()))
}

/// `GET .../versions/{version}`; `latest` is not a version here.
pub(super) fn image_version(call: &Call, location: &str) -> Answer {
    let image = image_of(call)?;
    let asked = call.segments.last().map(String::as_str).unwrap_or_default();
    let known = image.versions.iter().find(|version| **version == asked);
    let missing = || Refusal::new(404, "NotFound", format!("Artifact: VMImage version '{asked}' was not found."));
    let mut body = version_body(image, location, known.ok_or_else(missing)?);
    body["properties"] = image_properties(image);
    Ok(Reply::new(200, &body))
}
