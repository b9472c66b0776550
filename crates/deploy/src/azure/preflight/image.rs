//! Whether there is the image, and which version of it.

use serde_json::Value;

use super::{Demand, Facts, Finding, answered};
use crate::{
    azure::{ArmClient, ArmError, Call, ErrorClass},
    config::Image,
};

/// The image's properties with its version's name, or why there is none.
pub(super) async fn image(
    arm: &ArmClient,
    subscription: &str,
    demand: &Demand,
    call: Call,
) -> Result<(String, Value), ArmError> {
    let missing = |why: &str| ArmError::new(404, "ImageNotFound", why, &demand.image.to_string());
    let (publisher, offer, sku, version) = match &demand.image {
        Image::Marketplace { publisher, offer, sku, version } => (publisher, offer, sku, version),
        Image::Gallery { definition, version } => {
            let properties = arm.get(definition, call).await?.body["properties"].take();
            let versions = arm.list(&format!("{definition}/versions"), call).await?;
            let version = own_version(&versions, version.as_deref(), &demand.location);
            return Ok((version.ok_or_else(|| missing("no version of it is in the region"))?, properties));
        }
    };
    let versions = format!(
        "/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{}/publishers/{publisher}/artifacttypes/vmimage\
         /offers/{offer}/skus/{sku}/versions",
        demand.location
    );
    let version = if version.eq_ignore_ascii_case("latest") {
        let newest = arm.list(&format!("{versions}?$top=1&$orderby=name desc"), call).await?;
        let name = newest.first().and_then(|version| version["name"].as_str()).map(str::to_owned);
        name.ok_or_else(|| missing("there is no version of it"))?
    } else {
        version.to_owned()
    };
    let answer = arm.get(&format!("{versions}/{version}"), call).await?;
    Ok((version, answer.body["properties"].clone()))
}

/// The version of an own image that is in a region: the one that is asked for, or the highest that counts for the latest
/// (Azure documentation: `targetRegions`, `excludeFromLatest`).
fn own_version(versions: &[Value], asked: Option<&str>, location: &str) -> Option<String> {
    let plain = |region: &str| region.to_ascii_lowercase().replace(' ', "");
    let counts = |version: &&Value| {
        let profile = &version["properties"]["publishingProfile"];
        let mut regions = profile["targetRegions"].as_array().into_iter().flatten();
        let is_here = regions.any(|region| region["name"].as_str().is_some_and(|name| plain(name) == plain(location)));
        let name = version["name"].as_str();
        is_here && asked.map_or(profile["excludeFromLatest"] != true, |asked| name == Some(asked))
    };
    let numbers = |name: &&str| name.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    let names = versions.iter().filter(counts).filter_map(|version| version["name"].as_str());
    names.max_by_key(numbers).map(str::to_owned)
}

pub(super) fn check_image(
    image: Result<(String, Value), ArmError>,
    demand: &Demand,
    facts: &mut Facts,
    findings: &mut Vec<Finding>,
) -> Result<Value, ArmError> {
    match image {
        Ok((version, properties)) => {
            facts.image_version = version;
            if properties["plan"].is_object() {
                let advice = "Choose an image without a marketplace plan, such as Debian:debian-12:12-gen2:latest.";
                findings.push(Finding::error("image", "no purchase plan", "an image with one", advice));
            }
            Ok(properties)
        }
        Err(error) if matches!(error.class, ErrorClass::NotFound | ErrorClass::Invalid) => {
            let need = format!("{} in {}", demand.image, demand.location);
            let (have, advice) = match &demand.image {
                Image::Marketplace { .. } => (error.code, "Check publisher, offer, sku and version of the image."),
                Image::Gallery { .. } => (
                    format!("{}: {}", error.code, error.message),
                    "Check the id of the image, and that its version is replicated to the region.",
                ),
            };
            findings.push(Finding::error("image", need, have, advice));
            Ok(Value::Null)
        }
        Err(error) => Ok(answered("image", Err(error), findings)?.unwrap_or_default()),
    }
}
