//! The functions of template expressions: those that people use most.
//!
//! Source: Azure documentation, "ARM template functions".

use std::cmp::Ordering;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::expression::{NoValue, Scope, invalid};
use crate::azure::{SUBSCRIPTION, TENANT};

/// The value of a function; its name is in lower case.
pub(super) fn call(scope: &Scope<'_>, name: &str, arguments: &[Value]) -> Result<Value, NoValue> {
    let found = match name {
        "parameters"
        | "variables"
        | "copyindex"
        | "reference"
        | "resourceid"
        | "subscriptionresourceid"
        | "resourcegroup"
        | "subscription"
        | "deployment"
        | "tenant" => of_scope(scope, name, arguments)?,
        "concat" | "union" | "array" | "createarray" | "createobject" | "length" | "empty" | "contains" | "first"
        | "last" | "skip" | "take" | "range" | "coalesce" | "items" => of_collections(name, arguments),
        "equals" | "less" | "lessorequals" | "greater" | "greaterorequals" | "and" | "or" | "not" | "bool" | "true"
        | "false" | "null" => of_logic(name, arguments),
        "add" | "sub" | "mul" | "div" | "mod" | "min" | "max" | "int" => of_numbers(name, arguments),
        _ => of_text(name, arguments),
    };
    let given = Value::from(arguments.to_vec());
    found
        .map_or_else(|| invalid(format!("The template function '{name}' is not valid with the arguments {given}.")), Ok)
}

fn of_scope(scope: &Scope<'_>, name: &str, arguments: &[Value]) -> Result<Option<Value>, NoValue> {
    let text = |index: usize| arguments.get(index).and_then(Value::as_str);
    Ok(match (name, arguments.len()) {
        ("parameters", 1) => {
            let name = text(0).unwrap_or_default();
            let missing = || NoValue::Invalid(format!("The template parameter '{name}' is not found."));
            Some(scope.parameters.get(&name.to_lowercase()).cloned().ok_or_else(missing)?)
        }
        ("variables", 1) => {
            let name = text(0).unwrap_or_default();
            let variable = scope.variables.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            let missing = || NoValue::Invalid(format!("The template variable '{name}' is not found."));
            Some(scope.value(variable.ok_or_else(missing)?.1)?)
        }
        ("copyindex", 0..=2) => {
            let name = text(0).map(str::to_lowercase);
            let of_loop = |(known, _): &&(String, u64)| name.as_ref().is_none_or(|name| name == known);
            let offset = arguments.iter().find_map(Value::as_u64).unwrap_or(0);
            scope.turns.iter().rev().find(of_loop).map(|(_, turn)| json!(turn + offset))
        }
        ("reference", 1..=3) => {
            let whole = (scope.find)(text(0).unwrap_or_default())?;
            let full = text(2).is_some_and(|what| what.eq_ignore_ascii_case("full"));
            Some(if full { whole } else { whole["properties"].clone() })
        }
        ("resourceid" | "subscriptionresourceid", _) => resource_id(scope, name == "resourceid", arguments),
        ("resourcegroup", 0) => Some(scope.group.clone()),
        ("deployment", 0) => Some(scope.deployment.clone()),
        ("subscription", 0) => Some(json!({
            "id": format!("/subscriptions/{SUBSCRIPTION}"), "subscriptionId": SUBSCRIPTION, "tenantId": TENANT,
            "displayName": "Twin",
        })),
        ("tenant", 0) => Some(json!({"tenantId": TENANT})),
        _ => None,
    })
}

/// `([subscription,] [group,] type, name, ...)`: the type is the first that has a slash.
fn resource_id(scope: &Scope<'_>, in_group: bool, arguments: &[Value]) -> Option<Value> {
    let words: Vec<&str> = arguments.iter().map(Value::as_str).collect::<Option<_>>()?;
    let at = words.iter().position(|word| word.contains('/'))?;
    let (before, names) = (&words[..at], &words[at + 1..]);
    let (provider, kinds) = words[at].split_once('/')?;
    let kinds: Vec<&str> = kinds.split('/').collect();
    if kinds.len() != names.len() || before.len() > 2 {
        return None;
    }
    let own_group = scope.group["name"].as_str().unwrap_or_default();
    let (subscription, group) = match (before, in_group) {
        ([], _) => (SUBSCRIPTION, own_group),
        ([group], true) => (SUBSCRIPTION, *group),
        ([subscription], false) => (*subscription, ""),
        ([subscription, group], true) => (*subscription, *group),
        _ => return None,
    };
    let group = if in_group { format!("/resourceGroups/{group}") } else { String::new() };
    let parts: String = kinds.iter().zip(names).map(|(kind, name)| format!("/{kind}/{name}")).collect();
    Some(json!(format!("/subscriptions/{subscription}{group}/providers/{provider}{parts}")))
}

fn of_collections(name: &str, arguments: &[Value]) -> Option<Value> {
    let whole_number = |index: usize| Some(usize::try_from(arguments.get(index)?.as_i64()?.max(0)).unwrap_or(0));
    Some(match (name, arguments) {
        ("concat", [Value::Array(_), ..]) => {
            let parts: Vec<&Vec<Value>> = arguments.iter().map(Value::as_array).collect::<Option<_>>()?;
            parts.into_iter().flatten().cloned().collect()
        }
        ("concat", _) => json!(arguments.iter().map(text_of).collect::<Option<String>>()?),
        ("union", [Value::Object(_), ..]) => {
            let parts: Vec<&Map<String, Value>> = arguments.iter().map(Value::as_object).collect::<Option<_>>()?;
            Value::Object(parts.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        ("union", [Value::Array(_), ..]) => {
            let mut union: Vec<Value> = Vec::new();
            for item in arguments.iter().map(Value::as_array).collect::<Option<Vec<_>>>()?.into_iter().flatten() {
                if !union.contains(item) {
                    union.push(item.clone());
                }
            }
            Value::Array(union)
        }
        ("array", [Value::Array(_)]) => arguments[0].clone(),
        ("array", [one]) => json!([one]),
        ("createarray", _) => Value::Array(arguments.to_vec()),
        ("createobject", _) if arguments.len().is_multiple_of(2) => {
            let pairs = arguments.chunks(2).map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].clone())));
            Value::Object(pairs.collect::<Option<_>>()?)
        }
        ("length", [one]) => json!(length(one)?),
        ("empty", [Value::Null]) => json!(true),
        ("empty", [one]) => json!(length(one)? == 0),
        ("contains", [Value::String(text), part]) => json!(text.contains(&text_of(part)?)),
        ("contains", [Value::Array(items), item]) => json!(items.contains(item)),
        ("contains", [Value::Object(fields), Value::String(name)]) => {
            json!(fields.keys().any(|field| field.eq_ignore_ascii_case(name)))
        }
        ("first", [Value::Array(items)]) => items.first()?.clone(),
        ("last", [Value::Array(items)]) => items.last()?.clone(),
        ("first", [Value::String(text)]) => json!(text.chars().take(1).collect::<String>()),
        ("last", [Value::String(text)]) => json!(text.chars().last().map(String::from).unwrap_or_default()),
        ("skip", [Value::Array(items), _]) => items.iter().skip(whole_number(1)?).cloned().collect(),
        ("take", [Value::Array(items), _]) => items.iter().take(whole_number(1)?).cloned().collect(),
        ("skip", [Value::String(text), _]) => json!(text.chars().skip(whole_number(1)?).collect::<String>()),
        ("take", [Value::String(text), _]) => json!(text.chars().take(whole_number(1)?).collect::<String>()),
        // At most 10,000 numbers (Azure documentation).
        ("range", [from, count]) => {
            let (from, count) = (from.as_i64()?, count.as_i64().filter(|count| (0..=10_000).contains(count))?);
            (0..count).map(|step| from.saturating_add(step)).collect()
        }
        ("coalesce", _) => arguments.iter().find(|value| !value.is_null()).cloned().unwrap_or(Value::Null),
        ("items", [Value::Object(fields)]) => {
            fields.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
        }
        _ => return None,
    })
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.chars().count()),
        Value::Array(items) => Some(items.len()),
        Value::Object(fields) => Some(fields.len()),
        _ => None,
    }
}

fn of_logic(name: &str, arguments: &[Value]) -> Option<Value> {
    let booleans = || arguments.iter().map(Value::as_bool).collect::<Option<Vec<bool>>>();
    let compared = |fits: fn(Ordering) -> bool| match arguments {
        [Value::String(left), Value::String(right)] => Some(fits(left.cmp(right))),
        [left, right] => Some(fits(left.as_i64()?.cmp(&right.as_i64()?))),
        _ => None,
    };
    Some(match (name, arguments) {
        ("true", []) => json!(true),
        ("false", []) => json!(false),
        ("null", []) => Value::Null,
        ("not", [Value::Bool(value)]) => json!(!value),
        ("and", [_, _, ..]) => json!(booleans()?.into_iter().all(|value| value)),
        ("or", [_, _, ..]) => json!(booleans()?.into_iter().any(|value| value)),
        ("equals", [left, right]) => json!(left == right),
        ("less", _) => json!(compared(Ordering::is_lt)?),
        ("lessorequals", _) => json!(compared(Ordering::is_le)?),
        ("greater", _) => json!(compared(Ordering::is_gt)?),
        ("greaterorequals", _) => json!(compared(Ordering::is_ge)?),
        ("bool", [Value::Bool(value)]) => json!(value),
        ("bool", [Value::Number(number)]) => json!(number.as_i64()? != 0),
        ("bool", [Value::String(text)]) => json!(text.to_lowercase().parse::<bool>().ok()?),
        _ => return None,
    })
}

fn of_numbers(name: &str, arguments: &[Value]) -> Option<Value> {
    let number = match (name, arguments) {
        ("int", [Value::String(text)]) => text.trim().parse().ok()?,
        ("int", [one]) => one.as_i64()?,
        ("min" | "max", [Value::Array(numbers)]) => return of_numbers(name, numbers),
        ("min", [_, ..]) => arguments.iter().map(Value::as_i64).collect::<Option<Vec<_>>>()?.into_iter().min()?,
        ("max", [_, ..]) => arguments.iter().map(Value::as_i64).collect::<Option<Vec<_>>>()?.into_iter().max()?,
        (_, [left, right]) => {
            let (left, right) = (left.as_i64()?, right.as_i64()?);
            match name {
                "add" => left.checked_add(right)?,
                "sub" => left.checked_sub(right)?,
                "mul" => left.checked_mul(right)?,
                "div" => left.checked_div(right)?,
                "mod" => left.checked_rem(right)?,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(json!(number))
}

fn of_text(name: &str, arguments: &[Value]) -> Option<Value> {
    let texts: Vec<String> = arguments.iter().map(text_of).collect::<Option<_>>().unwrap_or_default();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let starts = |text: &str, part: &str| text.to_lowercase().starts_with(&part.to_lowercase());
    let ends = |text: &str, part: &str| text.to_lowercase().ends_with(&part.to_lowercase());
    Some(match (name, texts.as_slice()) {
        ("string", [_]) => json!(texts[0]),
        ("format", [pattern, values @ ..]) => json!(format(pattern, values)),
        ("tolower", [text]) => json!(text.to_lowercase()),
        ("toupper", [text]) => json!(text.to_uppercase()),
        ("trim", [text]) => json!(text.trim()),
        ("replace", [text, old, new]) => json!(text.replace(old, new)),
        ("startswith", [text, part]) => json!(starts(text, part)),
        ("endswith", [text, part]) => json!(ends(text, part)),
        ("indexof", [text, part]) => {
            let text = text.to_lowercase();
            let before = text.split_once(&part.to_lowercase()).map(|(before, _)| before.chars().count());
            json!(before.and_then(|count| i64::try_from(count).ok()).unwrap_or(-1))
        }
        ("split", [text, separator]) if !separator.is_empty() => text.split(separator).collect(),
        ("join", [_, separator]) => {
            json!(arguments[0].as_array()?.iter().map(text_of).collect::<Option<Vec<_>>>()?.join(separator))
        }
        ("substring", [text, start, length @ ..]) => {
            let (start, length) = (start.parse::<usize>().ok()?, length.first().map(|length| length.parse::<usize>()));
            let taken: String = text.chars().skip(start).take(length.unwrap_or(Ok(usize::MAX)).ok()?).collect();
            json!(taken)
        }
        ("padleft", [text, width, filler @ ..]) => {
            let filler = filler.first().and_then(|filler| filler.chars().next()).unwrap_or(' ');
            let missing =
                width.parse::<usize>().ok().filter(|width| *width <= 1024)?.saturating_sub(text.chars().count());
            json!(std::iter::repeat_n(filler, missing).chain(text.chars()).collect::<String>())
        }
        ("base64", [text]) => json!(STANDARD.encode(text)),
        ("base64tostring", [text]) => json!(String::from_utf8(STANDARD.decode(text).ok()?).ok()?),
        ("json", [text]) => serde_json::from_str(text).ok()?,
        // Deterministic as in Azure, but Azure's hash is not known (guess).
        ("uniquestring", [_, ..]) => json!(hex::encode(Sha256::digest(texts.join("-")))[..13]),
        ("guid", [_, ..]) => {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&Sha256::digest(texts.join("-"))[..16]);
            json!(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
        }
        _ => return None,
    })
}

/// What a value is as a string: texts as they are, everything else as JSON.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// `{0}`, `{1}`, ...; what follows a colon (`{0:D2}`) is the least number of digits.
fn format(pattern: &str, values: &[&str]) -> String {
    let mut text = pattern.to_owned();
    for (index, value) in values.iter().enumerate() {
        text = text.replace(&format!("{{{index}}}"), value);
        for digits in 1..10 {
            text = text.replace(&format!("{{{index}:D{digits}}}"), &format!("{value:0>digits$}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeMap};

    use super::*;

    fn value(written: &Value) -> Result<Value, NoValue> {
        let variables = json!({"zones": ["1", "2"], "first": "[variables('zones')[0]]", "self": "[variables('self')]"});
        let scope = Scope {
            parameters: &BTreeMap::from([("name".to_owned(), json!("Nodes"))]),
            variables: variables.as_object().expect("an object"),
            turns: vec![("machines".into(), 2)],
            group: &json!({"name": "rg", "location": "westus2"}),
            deployment: &json!({"name": "one"}),
            find: &|id| match id {
                "here" => Ok(json!({"properties": {"address": "10.0.0.4"}, "location": "westus2"})),
                "later" => Err(NoValue::NotYet),
                _ => Err(NoValue::Missing(id.into())),
            },
            depth: Cell::new(0),
        };
        scope.value(written)
    }

    #[test]
    fn expressions_have_values() {
        let network =
            "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.Network";
        for (written, expected) in [
            ("plain", json!("plain")),
            ("[[not an expression]", json!("[not an expression]")),
            ("[concat(parameters('NAME'), '-', 'it''s')]", json!("Nodes-it's")),
            ("[ toLower( format('{0}/{1:D2}', parameters('name'), 7) ) ]", json!("nodes/07")),
            ("[variables('first')]", json!("1")),
            (
                "[resourceId('Microsoft.Network/virtualNetworks/subnets', 'v', 's')]",
                json!(format!("{network}/virtualNetworks/v/subnets/s")),
            ),
            ("[reference('here').address]", json!("10.0.0.4")),
            ("[reference('here', '2024-05-01', 'Full').location]", json!("westus2")),
            ("[if(true(), resourceGroup().location, reference('nowhere'))]", json!("westus2")),
            ("[copyIndex('machines', 1)]", json!(3)),
            ("[add(copyIndex(), mul(2, -3))]", json!(-4)),
            ("[concat(variables('zones'), createArray('3'))]", json!(["1", "2", "3"])),
            ("[length(union(createObject('a', 1), createObject('b', 2, 'a', 3)))]", json!(2)),
            ("[and(equals('a', 'a'), not(empty('x')), lessOrEquals(1, 1))]", json!(true)),
            ("[base64(string(range(1, 3)))]", json!("WzEsMiwzXQ==")),
            ("[join(split('a,b', ','), '+')]", json!("a+b")),
            ("[padLeft(substring('12345', 3), 4, '0')]", json!("0045")),
            ("[min(3, 2)]", json!(2)),
            ("[json('{\"a\": [null]}').a[0]]", json!(null)),
        ] {
            assert_eq!(value(&json!(written)), Ok(expected), "{written}");
        }
        let looped = json!({"copy": [{"name": "disks", "count": 2, "input": {"lun": "[copyIndex('disks')]"}}], "x": 1});
        assert_eq!(value(&looped), Ok(json!({"disks": [{"lun": 0}, {"lun": 1}], "x": 1})));
    }

    #[test]
    fn nonsense_has_none() {
        let deep = format!("[{}1{}]", "not(".repeat(500), ")".repeat(500));
        for written in [
            "[concat('a']",
            "[concat('a') b]",
            "['never ends]",
            "[parameters('unknown')]",
            "[variables('self')]",
            "[noSuchFunction()]",
            "[div(1, 0)]",
            "[variables('zones')[7]]",
            "[]",
            deep.as_str(),
        ] {
            assert!(matches!(value(&json!(written)), Err(NoValue::Invalid(_))), "{written}");
        }
        assert_eq!(value(&json!("[reference('later').x]")), Err(NoValue::NotYet));
        assert_eq!(value(&json!("[reference('nowhere')]")), Err(NoValue::Missing("nowhere".into())));
    }
}
