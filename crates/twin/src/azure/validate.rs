//! Checks that several kinds of resources share.

use serde_json::Value;

use super::{
    call::Refusal,
    catalogue::{REGIONS, has_zones},
    resource::{Kind, Target},
};
use crate::World;

/// The region in `location`: `West US 2` and `westus2` are the same.
pub(super) fn location(request: &Value) -> Result<String, Refusal> {
    let asked = request["location"].as_str().unwrap_or_default();
    if asked.is_empty() {
        return Err(Refusal::new(400, "LocationRequired", "The location property is required for this definition."));
    }
    let name = asked.to_lowercase().replace(' ', "");
    let known: Vec<&str> = REGIONS.iter().map(|(name, _)| *name).collect();
    if known.contains(&name.as_str()) {
        return Ok(name);
    }
    let text = format!(
        "The provided location '{asked}' is not available for resource group or resource. List of available regions is '{}'.",
        known.join(",")
    );
    Err(Refusal::new(400, "LocationNotAvailableForResourceType", text))
}

/// The limits on tags (Azure documentation).
pub(super) fn tags(request: &Value) -> Result<(), Refusal> {
    let Some(tags) = request.get("tags").filter(|tags| !tags.is_null()) else { return Ok(()) };
    let Some(tags) = tags.as_object() else {
        return Err(Refusal::new(400, "InvalidRequestContent", "The tags must be an object."));
    };
    if tags.len() > 50 {
        return Err(Refusal::new(400, "TooManyTags", format!("{} tags are too many. The maximum is 50.", tags.len())));
    }
    for (name, value) in tags {
        let Some(value) = value.as_str() else {
            let text = format!("The value of the tag '{name}' must be a string.");
            return Err(Refusal::new(400, "InvalidRequestContent", text));
        };
        if name.chars().count() > 512 || name.contains(['<', '>', '%', '&', '\\', '?', '/']) {
            return Err(Refusal::new(400, "InvalidTagNameCharacters", format!("The tag name '{name}' is invalid.")));
        }
        if value.chars().count() > 256 {
            return Err(Refusal::new(400, "TagValueTooLarge", format!("The value of the tag '{name}' is too long.")));
        }
    }
    Ok(())
}

/// The limits on names (Azure documentation): 64 characters for Linux machines, 80 otherwise.
pub(super) fn name(target: &Target) -> Result<(), Refusal> {
    let most = if target.kind == Kind::VirtualMachine { 64 } else { 80 };
    let fits = |character: char| character.is_alphanumeric() || "-_.".contains(character);
    let name = &target.name;
    let ends_well = name.ends_with(|character: char| character.is_alphanumeric() || character == '_');
    let starts_well = name.starts_with(|character: char| character.is_alphanumeric());
    if name.chars().count() <= most && starts_well && ends_well && name.chars().all(fits) {
        return Ok(());
    }
    let text = format!(
        "Resource name {name} is invalid. The name can be up to {most} characters long and must begin with a word character."
    );
    Err(Refusal::new(400, "InvalidResourceName", text))
}

/// The lower-case id of what `reference` (`{"id": ...}`) points at, if it points at anything; refused if that does not
/// exist.
pub(super) fn reference(
    world: &World,
    from: &str,
    reference: &Value,
    kind: Kind,
    location: &str,
) -> Result<Option<String>, Refusal> {
    let Some(id) = reference["id"].as_str() else { return Ok(None) };
    let key = id.to_lowercase();
    let in_place = |record: &super::store::Record| record.location() == location;
    if Kind::of(&key) == Some(kind) && world.azure.store.get(&key).is_some_and(in_place) {
        return Ok(Some(key));
    }
    Err(missing_reference(from, id))
}

/// What Azure says about a reference into nothing.
pub(super) fn missing_reference(from: &str, id: &str) -> Refusal {
    let text = format!(
        "Resource {id} referenced by resource {from} was not found. Please make sure that the referenced resource exists, \
         and that both resources are in the same region."
    );
    Refusal::new(400, "InvalidResourceReference", text)
}

/// Zones must be among those of the region (Azure documentation: `InvalidAvailabilityZone`).
pub(super) fn zones(request: &Value, location: &str) -> Result<Vec<String>, Refusal> {
    let zones = request["zones"].as_array().map(Vec::as_slice).unwrap_or_default();
    let zones: Vec<String> = zones.iter().filter_map(|zone| zone.as_str().map(String::from)).collect();
    if !zones.is_empty() && !has_zones(location) {
        let text = format!(
            "The zone(s) '{}' is not supported. The supported zones for location '{location}' are ''.",
            zones.join(",")
        );
        return Err(Refusal::new(400, "InvalidAvailabilityZone", text));
    }
    match zones.iter().find(|zone| !["1", "2", "3"].contains(&zone.as_str())) {
        None => Ok(zones),
        Some(zone) => {
            let text = format!(
                "The zone(s) '{zone}' is not supported. The supported zones for location '{location}' are '1,2,3'."
            );
            Err(Refusal::parameter("zones", text))
        }
    }
}
