//! Lists: typed ones, the generic list of resources, `$filter`, and pages.

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use regex::Regex;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::{
    call::{Answer, Call, Refusal, Reply},
    groups::{self, LISTING_LAG},
    resource::Kind,
    store::Record,
};
use crate::World;

/// Items on one page (guess); clients must follow `nextLink`.
const PAGE_ITEMS: usize = 300;

/// One page of items with the link to the next; only what is on the page is turned into JSON.
pub(super) fn page<'a, Item>(
    call: &Call,
    items: impl Iterator<Item = Item>,
    json_of: impl Fn(Item) -> Cow<'a, str>,
) -> Reply {
    let number = |name: &str| call.query(name).and_then(|value| value.parse::<usize>().ok());
    let skipped = number("$skiptoken").unwrap_or(0);
    let limit = number("$top").map_or(PAGE_ITEMS, |top| top.clamp(1, PAGE_ITEMS));
    let mut items = items.skip(skipped);
    let mut text = String::from("{\"value\":[");
    for (index, item) in items.by_ref().take(limit).enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&json_of(item));
    }
    text.push(']');
    if items.next().is_some() {
        let link = call.url_with("$skiptoken", &(skipped + limit).to_string());
        text.push_str(&format!(",\"nextLink\":{}", json!(link)));
    }
    text.push('}');
    Reply::text(200, text)
}

/// The resources of one kind, in a group or everywhere.
pub(super) fn typed(world: &World, call: &Call, kind: Kind, group: Option<&str>) -> Answer {
    let prefixes: Vec<String> = match group {
        Some(group) => vec![kind.prefix(group)],
        None => world.azure.groups.keys().map(|group| kind.prefix(group)).collect(),
    };
    let store = &world.azure.store;
    let with_view = kind == Kind::VirtualMachine
        && (call.query("statusonly").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || call.query("$expand").is_some_and(|value| value.eq_ignore_ascii_case("instanceView")));
    let keys = prefixes.iter().flat_map(|prefix| store.under(prefix)).map(|(key, _)| key);
    Ok(page(call, keys, |key| Cow::from(if with_view { store.view_text(key) } else { store.text(key) })))
}

/// A `$filter`: clauses that must all hold. `substringof('part', name)` is the clause `substringof`.
pub(super) struct Filter(Vec<(String, String)>);

impl Filter {
    /// The filter of a request; keywords and property names are case-insensitive (the Azure CLI writes lower case).
    pub(super) fn parse(call: &Call) -> Result<Self, Refusal> {
        static CLAUSE: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r"(?i)(\w+)\s+eq\s+'((?:[^']|'')*)'").ok());
        static PART: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r"(?i)(substringof)\('((?:[^']|'')*)',\s*name\)").ok());
        let text = call.query("$filter").unwrap_or_default();
        let (Some(pattern), Some(part)) = (CLAUSE.as_ref(), PART.as_ref()) else { return Ok(Self(Vec::new())) };
        let found = pattern.captures_iter(text).chain(part.captures_iter(text));
        let clauses: Vec<(String, String)> =
            found.map(|found| (found[1].to_lowercase(), found[2].replace("''", "'"))).collect();
        let known = ["tagname", "tagvalue", "resourcetype", "name", "resourcegroup", "location", "substringof"];
        let rest = part.replace_all(&pattern.replace_all(text, ""), "").to_lowercase();
        let only_and = rest.split_whitespace().all(|word| word == "and" || word == "(" || word == ")");
        let invalid = |why: &str| {
            Err(Refusal::new(
                400,
                "InvalidFilterInQueryString",
                format!("Invalid $filter '{text}' specified in the query string: {why}."),
            ))
        };
        if !only_and || clauses.iter().any(|(name, _)| !known.contains(&name.as_str())) {
            return invalid("it is not understood");
        }
        let by_tag = clauses.iter().filter(|(name, _)| name.starts_with("tag")).count();
        if by_tag != 0 && by_tag != clauses.len() {
            return invalid("filters by tag cannot be combined with others");
        }
        Ok(Self(clauses))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(clause, _)| clause == name).map(|(_, value)| value.as_str())
    }

    fn by_tag(&self) -> bool {
        self.value("tagname").is_some()
    }

    /// Whether a body passes.
    pub(super) fn matches(&self, body: &Value) -> bool {
        let tag_matches = self.value("tagname").is_none_or(|wanted| {
            let tags = body["tags"].as_object();
            // The names of tags are case-insensitive, their values are not (Azure documentation).
            let tag = tags.and_then(|tags| tags.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)));
            tag.is_some_and(|(_, value)| self.value("tagvalue").is_none_or(|wanted| value.as_str() == Some(wanted)))
        });
        let text = |field: &str| body[field].as_str().unwrap_or_default();
        let group = text("id").split('/').nth(4).unwrap_or_default();
        let part = self.value("substringof").unwrap_or_default().to_lowercase();
        tag_matches
            && text("name").to_lowercase().contains(&part)
            && [
                ("resourcetype", text("type")),
                ("name", text("name")),
                ("location", text("location")),
                ("resourcegroup", group),
            ]
            .iter()
            .all(|(clause, actual)| self.value(clause).is_none_or(|wanted| wanted.eq_ignore_ascii_case(actual)))
    }
}

/// What the generic list shows of a resource.
pub(super) fn item(world: &World, record: &Record) -> Value {
    let body = &record.body;
    let mut item = json!({"id": body["id"], "name": body["name"], "type": body["type"], "location": body["location"]});
    for field in ["tags", "kind", "sku", "zones", "identity"] {
        if let Some(value) = body.get(field) {
            item[field] = value.clone();
        }
    }
    item["createdTime"] = json!(calendar(world, record.created_at));
    item["changedTime"] = json!(calendar(world, record.changed_at));
    item["provisioningState"] = json!(record.state());
    item
}

fn calendar(world: &World, at: Duration) -> String {
    (world.options.epoch + at).format(&Rfc3339).unwrap_or_default()
}

/// `GET .../resources`: lags behind the truth, in both directions.
pub(super) fn resources(world: &mut World, call: &Call, group: Option<&str>) -> Answer {
    if let Some(group) = group {
        groups::exists(world, group)?;
    }
    let filter = Filter::parse(call)?;
    let now = world.now;
    world.azure.ghosts.retain(|(until, ..)| *until > now);
    let prefix = group.map(|group| format!("{}/", groups::key(group))).unwrap_or_default();
    let world = &*world;
    let visible = world.azure.store.under(&prefix).filter(|(_, record)| record.created_at + LISTING_LAG <= now);
    let living = visible.filter(|(_, record)| filter.matches(&record.body)).map(|(_, record)| Listed::Living(record));
    let ghosts = world.azure.ghosts.iter().filter(|(_, key, item)| key.starts_with(&prefix) && filter.matches(item));
    let ghosts = ghosts.map(|(.., item)| Listed::Ghost(item));
    let expanded = call.query("$expand").unwrap_or_default().to_lowercase();
    Ok(page(call, living.chain(ghosts), |listed| {
        let mut item = match listed {
            Listed::Living(record) => item(world, record),
            Listed::Ghost(item) => item.clone(),
        };
        if let Some(fields) = item.as_object_mut() {
            for field in ["createdTime", "changedTime", "provisioningState"] {
                if !expanded.contains(&field.to_lowercase()) {
                    fields.remove(field);
                }
            }
            // A list that was filtered by tag does not show tags (Azure SDK documentation).
            if filter.by_tag() {
                fields.remove("tags");
            }
        }
        item.to_string().into()
    }))
}

/// What the generic list shows: a resource, or one that is gone.
enum Listed<'a> {
    Living(&'a Record),
    Ghost(&'a Value),
}
