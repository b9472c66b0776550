//! Galleries of somebody's own images (Azure documentation: Azure Compute Gallery): galleries, image definitions, versions.

use serde_json::{Value, json};

use super::{
    call::{Answer, Call, Refusal, Reply},
    catalogue::Resolved,
    groups, validate,
};
use crate::World;

/// Requests to a gallery, its images and their versions.
pub(super) fn answer(world: &mut World, call: &Call, group: &str) -> Answer {
    groups::exists(world, group)?;
    let (key, id) = (format!("/{}", call.lower.join("/")), format!("/{}", call.segments.join("/")));
    // Kinds and names alternate behind the provider: an odd number of parts is a list.
    let is_list = (call.segments.len() - 6) % 2 == 1;
    match call.method.as_str() {
        "GET" if is_list => {
            let prefix = format!("{key}/");
            let inside = world
                .azure
                .galleries
                .iter()
                .filter(|(id, _)| id.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')));
            Ok(Reply::new(200, &json!({"value": inside.map(|(_, body)| body).collect::<Vec<_>>()})))
        }
        "GET" => world.azure.galleries.get(&key).map(|body| Reply::new(200, body)).ok_or_else(|| missing(&id)),
        "PUT" if !is_list => {
            let mut body = call.json()?;
            body["location"] = json!(validate::location(&body)?);
            let parent = key.rsplitn(3, '/').nth(2).unwrap_or_default();
            if parent.contains("/galleries/") && !world.azure.galleries.contains_key(parent) {
                return Err(Refusal::new(
                    404,
                    "ParentResourceNotFound",
                    format!("The parent of '{id}' was not found."),
                ));
            }
            let kinds: Vec<&str> = call.segments[6..].iter().step_by(2).map(String::as_str).collect();
            body["type"] = json!(format!("Microsoft.Compute/{}", kinds.join("/")));
            body["name"] = json!(call.segments.last());
            body["id"] = json!(id);
            body["properties"]["provisioningState"] = json!("Succeeded");
            world.azure.galleries.insert(key, body.clone());
            world.ledger.change(world.now, "arm", "created", id);
            Ok(Reply::new(201, &body))
        }
        "DELETE" if !is_list => {
            let inside = format!("{key}/");
            world.azure.galleries.retain(|id, _| *id != key && !id.starts_with(&inside));
            world.ledger.change(world.now, "arm", "deleted", id);
            Ok(Reply::empty(200))
        }
        _ => Err(Refusal::method(call)),
    }
}

/// An image that was published before anybody looks: its definition and one version, in one region.
pub(super) fn publish(world: &mut World, definition: &str, version: &str, architecture: &str, region: &str) {
    let properties =
        json!({"osType": "Linux", "osState": "Generalized", "hyperVGeneration": "V2", "architecture": architecture});
    let profile = json!({"publishingProfile": {"targetRegions": [{"name": region}], "excludeFromLatest": false}});
    let id = format!("{definition}/versions/{version}");
    for (id, properties) in [(definition, properties), (id.as_str(), profile)] {
        let name = id.rsplit('/').next();
        let body = json!({"id": id, "name": name, "location": region, "properties": properties});
        world.azure.galleries.insert(id.to_lowercase(), body);
    }
}

fn missing(id: &str) -> Refusal {
    Refusal::new(404, "ResourceNotFound", format!("The Resource '{id}' was not found."))
}

/// The image behind the id of a definition, which means its latest version, or of a version. It must have been replicated
/// to the region (Azure documentation: `GalleryImageNotFound`).
pub(super) fn resolve(world: &World, id: &str, location: &str) -> Result<Resolved, Refusal> {
    let key = id.to_lowercase();
    let (definition, asked) =
        key.split_once("/versions/").map_or((key.as_str(), None), |(image, name)| (image, Some(name)));
    let not_here = || {
        let text = format!(
            "The gallery image {id} is not available in {location} region. Please contact image owner to replicate to this \
             region, or change your requested region."
        );
        Refusal { target: Some("imageReference".into()), ..Refusal::new(404, "GalleryImageNotFound", text) }
    };
    let image = world.azure.galleries.get(definition).ok_or_else(not_here)?;
    let prefix = format!("{definition}/versions/");
    let here = |version: &&Value| {
        let profile = &version["properties"]["publishingProfile"];
        let mut regions = profile["targetRegions"].as_array().into_iter().flatten();
        let counts = asked.is_some() || profile["excludeFromLatest"] != true;
        let is_here = |region: &Value| {
            region["name"].as_str().is_some_and(|name| name.to_lowercase().replace(' ', "") == location)
        };
        counts && regions.any(is_here)
    };
    let versions = world
        .azure
        .galleries
        .iter()
        .filter(|(id, _)| id.strip_prefix(&prefix).is_some_and(|name| asked.is_none_or(|asked| asked == name)));
    let names = versions.map(|(_, version)| version).filter(here).filter_map(|version| version["name"].as_str());
    let number = |name: &&str| name.split('.').map(|part| part.parse::<u64>().unwrap_or_default()).collect::<Vec<_>>();
    let version = names.max_by_key(number).ok_or_else(not_here)?;
    let text = |key: &str, default: &str| image["properties"][key].as_str().unwrap_or(default).to_owned();
    Ok(Resolved {
        architecture: text("architecture", "x64"),
        generation: text("hyperVGeneration", "V1"),
        version: version.to_owned(),
    })
}
