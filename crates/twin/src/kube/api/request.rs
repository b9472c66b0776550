//! A request as the API sees it, and what it answers.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Response, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::super::{failure::Failure, object::text, store};
use crate::{
    Twin,
    http::{Body, Received, full},
};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Caller {
    /// Showed a certificate of the cluster's authority.
    Administrator,
    /// Showed a bearer token.
    Token(String),
    /// Showed nothing.
    Nobody,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Objects of a type.
    Objects {
        group: String,
        version: String,
        plural: String,
        namespace: Option<String>,
        name: Option<String>,
        subresource: String,
    },
    /// What a version of a group has.
    Api { group: String, version: String },
    /// Anything else.
    Path,
}

/// A request, taken apart.
#[derive(Debug, Clone)]
pub(in super::super) struct Request {
    pub(in super::super) method: String,
    pub(in super::super) path: String,
    pub(in super::super) query: BTreeMap<String, String>,
    pub(in super::super) accept: String,
    pub(in super::super) content_type: String,
    pub(in super::super) user_agent: String,
    pub(in super::super) body: Bytes,
    pub(in super::super) caller: Caller,
    pub(super) target: Target,
}

impl Request {
    /// From the wire.
    pub(in super::super) fn new(received: &Received, certified: bool) -> Self {
        let head = &received.head;
        let caller = match bearer(&head.headers) {
            _ if certified => Caller::Administrator,
            Some(token) => Caller::Token(token),
            None => Caller::Nobody,
        };
        Self {
            accept: header_text(&head.headers, header::ACCEPT),
            content_type: header_text(&head.headers, header::CONTENT_TYPE),
            user_agent: header_text(&head.headers, header::USER_AGENT),
            ..Self::of(caller, head.method.as_str(), head.uri.path(), head.uri.query(), received.body.clone())
        }
    }

    /// From its parts.
    pub(in super::super) fn of(caller: Caller, method: &str, path: &str, query: Option<&str>, body: Bytes) -> Self {
        Self {
            method: method.into(),
            target: target(path),
            path: path.into(),
            query: parse_query(query.unwrap_or_default()),
            accept: String::new(),
            content_type: "application/json".into(),
            user_agent: String::new(),
            body,
            caller,
        }
    }

    /// A query parameter, empty if absent.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether a boolean query parameter is set.
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1")
    }

    /// Whether nothing is to be written.
    pub(super) fn is_dry_run(&self) -> bool {
        self.parameter("dryRun") == "All"
    }

    /// Who is writing, as managed fields call it.
    pub(super) fn manager(&self) -> String {
        match self.parameter("fieldManager") {
            "" => self.user_agent.split('/').next().filter(|agent| !agent.is_empty()).unwrap_or("unknown").to_owned(),
            manager => manager.to_owned(),
        }
    }

    /// Whether the client wants rows for people.
    pub(super) fn wants_table(&self) -> bool {
        self.accept.split(',').next().is_some_and(|first| first.contains("as=Table"))
    }

    /// Whether the client takes JSON at all.
    pub(super) fn accepts_json(&self) -> bool {
        self.accept.is_empty()
            || self.accept.contains("json")
            || self.accept.contains("*/*")
            || self.accept.contains("text/")
            // The one document that is served in another form.
            || self.path == "/openapi/v2"
    }

    /// The media type of the body, without parameters.
    pub(super) fn media_type(&self) -> &str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }

    /// The body as a JSON value; YAML is read where Kubernetes reads it.
    pub(super) fn document(&self) -> Result<Value, Failure> {
        let unreadable = |why: String| Failure::bad_request(format!("error decoding request body: {why}"));
        match self.media_type() {
            "application/yaml" | "application/apply-patch+yaml" => {
                let body = std::str::from_utf8(&self.body).map_err(|error| unreadable(error.to_string()))?;
                serde_saphyr::from_str(body).map_err(|error| unreadable(error.to_string()))
            }
            ""
            | "application/json"
            | "application/merge-patch+json"
            | "application/json-patch+json"
            | "application/strategic-merge-patch+json"
            | "application/apply-patch+json" => {
                serde_json::from_slice(&self.body).map_err(|error| unreadable(error.to_string()))
            }
            "application/vnd.kubernetes.protobuf" => super::protobuf::decode(&self.body)
                .ok_or_else(|| Failure::unsupported_media("application/vnd.kubernetes.protobuf")),
            other => Err(Failure::unsupported_media(other)),
        }
    }

    /// The body as an object.
    pub(super) fn object(&self) -> Result<Value, Failure> {
        let object = self.document()?;
        if !object.is_object() || text(&object, "/kind").is_empty() {
            return Err(Failure::bad_request("Object 'Kind' is missing in the request body"));
        }
        Ok(object)
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> String {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(|token| token.trim().to_owned())
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn target(path: &str) -> Target {
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let parts: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Target::Path,
    };
    let objects = |namespace: Option<&str>, plural: &str, rest: &[&str]| Target::Objects {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        namespace: namespace.map(str::to_owned),
        name: rest.first().map(|&name| name.to_owned()),
        subresource: rest.get(1..).unwrap_or_default().join("/"),
    };
    match rest {
        [] => Target::Api { group: group.into(), version: version.into() },
        // `namespaces/a/status` is about the namespace; `namespaces/a/pods` is about what is in it.
        ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
            objects(Some(namespace), plural, rest)
        }
        [plural, rest @ ..] => objects(None, plural, rest),
    }
}

/// What is answered.
pub(in super::super) struct Reply {
    pub(in super::super) code: u16,
    pub(in super::super) content: Content,
    content_type: &'static str,
    pub(super) warnings: Vec<String>,
}

/// The body of an answer.
pub(in super::super) enum Content {
    /// All of it.
    Whole(Vec<u8>),
    /// Events, as they happen.
    Watch(Box<super::watch::Stream>),
}

impl Reply {
    /// A JSON document.
    pub(in super::super) fn json(code: u16, value: &Value) -> Self {
        Self::raw(code, "application/json", value.to_string().into_bytes())
    }

    /// Plain text.
    pub(super) fn text(code: u16, body: &str) -> Self {
        Self::raw(code, "text/plain; charset=utf-8", body.as_bytes().to_vec())
    }

    pub(super) fn raw(code: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { code, content: Content::Whole(body), content_type, warnings: Vec::new() }
    }

    pub(super) fn watch(stream: super::watch::Stream) -> Self {
        let content = Content::Watch(Box::new(stream));
        Self { code: 200, content, content_type: "application/json", warnings: Vec::new() }
    }

    /// What API servers say to paths that they do not serve.
    pub(super) fn not_served() -> Self {
        Self::text(404, "404 page not found\n")
    }

    /// Whether this is a watch.
    pub(super) fn is_watch(&self) -> bool {
        matches!(self.content, Content::Watch(_))
    }

    /// The body as text; empty for a watch.
    pub(in super::super) fn body_text(&self) -> String {
        match &self.content {
            Content::Whole(body) => String::from_utf8_lossy(body).into_owned(),
            Content::Watch(_) => String::new(),
        }
    }

    pub(super) fn respond(self, twin: &Twin) -> Response<Body> {
        let body = match self.content {
            Content::Whole(body) => full(body),
            Content::Watch(stream) => stream.into_body(twin.clone()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(self.code).unwrap_or_default();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
        for warning in &self.warnings {
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = header::HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                headers.append(header::WARNING, value);
            }
        }
        response
    }
}

/// Where the next page of a list begins.
pub(super) fn continue_token(key: &store::ObjectKey) -> String {
    BASE64_STANDARD.encode(serde_json::json!({"v": "meta.k8s.io/v1", "start": [key.0, key.1]}).to_string())
}

/// Reads what [`continue_token`] wrote.
pub(super) fn parse_continue_token(token: &str) -> Option<store::ObjectKey> {
    let value: Value = serde_json::from_slice(&BASE64_STANDARD.decode(token).ok()?).ok()?;
    Some((text(&value, "/start/0").to_owned(), text(&value, "/start/1").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let objects = |group: &str, plural: &str, namespace: Option<&str>, name: Option<&str>, subresource: &str| {
            Target::Objects {
                group: group.into(),
                version: "v1".into(),
                plural: plural.into(),
                namespace: namespace.map(str::to_owned),
                name: name.map(str::to_owned),
                subresource: subresource.into(),
            }
        };
        for (path, expected) in [
            ("/api/v1/nodes", objects("", "nodes", None, None, "")),
            ("/api/v1/namespaces/a", objects("", "namespaces", None, Some("a"), "")),
            ("/api/v1/namespaces/a/status", objects("", "namespaces", None, Some("a"), "status")),
            ("/api/v1/namespaces/a/pods/p/log", objects("", "pods", Some("a"), Some("p"), "log")),
            ("/apis/apps/v1/namespaces/a/deployments", objects("apps", "deployments", Some("a"), None, "")),
            ("/apis/apps/v1", Target::Api { group: "apps".into(), version: "v1".into() }),
            ("/readyz", Target::Path),
        ] {
            assert_eq!(target(path), expected, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = parse_query("labelSelector=a%3Db%2Cc+in+%28d%29&watch");
        assert_eq!(query.get("labelSelector").map(String::as_str), Some("a=b,c in (d)"));
        assert_eq!(query.get("watch").map(String::as_str), Some(""));
    }
}
