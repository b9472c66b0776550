//! A request as the handlers see it, an answer, and a refusal.

use std::{collections::BTreeMap, fmt::Write as _};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use hyper::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use crate::{
    Latency, World,
    http::{Body, Received, full},
};

/// What may stand unescaped in a query value.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One request.
pub(super) struct Call {
    pub(super) method: Method,
    /// As asked, without the query.
    pub(super) path: String,
    /// The decoded parts of the path.
    pub(super) segments: Vec<String>,
    /// The same in lower case: ARM's paths are case-insensitive.
    pub(super) lower: Vec<String>,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    pub(super) body: Bytes,
}

/// What a handler returns.
pub(super) type Answer = Result<Reply, Refusal>;

impl Call {
    pub(super) fn new(request: &Received) -> Self {
        let path = request.head.uri.path().to_owned();
        let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let pairs = request.head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key).to_lowercase(), decode(&value.replace('+', " ")))
        });
        let headers = request.head.headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
        Self {
            method: request.head.method.clone(),
            lower: segments.iter().map(|part| part.to_lowercase()).collect(),
            segments,
            path,
            query: query.collect(),
            headers: headers.collect(),
            body: request.body.clone(),
        }
    }

    /// A request that nobody sent: one that Azure makes by itself, or somebody else does.
    pub(super) fn made(method: Method, path: &str, api_version: &str, body: String) -> Self {
        let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(String::from).collect();
        Self {
            method,
            path: path.to_owned(),
            lower: segments.iter().map(|part| part.to_lowercase()).collect(),
            segments,
            query: BTreeMap::from([("api-version".to_owned(), api_version.to_owned())]),
            headers: BTreeMap::new(),
            body: body.into(),
        }
    }

    /// A query parameter; names are case-insensitive.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A header; `name` in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The host that the client asked, as the start of a URL.
    pub(super) fn base(&self) -> String {
        format!("https://{}", self.header("host").unwrap_or("management.azure.com"))
    }

    /// The API version, as the client gave it.
    pub(super) fn api_version(&self) -> &str {
        self.query("api-version").unwrap_or_default()
    }

    /// The body as a JSON object.
    pub(super) fn json(&self) -> Result<Value, Refusal> {
        let invalid = |why: String| {
            Refusal::new(
                400,
                "InvalidRequestContent",
                format!("The request content was invalid and could not be deserialized: '{why}'."),
            )
        };
        let value: Value = serde_json::from_slice(&self.body).map_err(|error| invalid(error.to_string()))?;
        if value.is_object() { Ok(value) } else { Err(invalid("an object is expected".into())) }
    }

    /// The URL of this request with one query parameter set.
    pub(super) fn url_with(&self, name: &str, value: &str) -> String {
        let mut url = format!("{}{}?", self.base(), self.path);
        for (key, value) in self.query.iter().filter(|(key, _)| *key != name) {
            let _ =
                write!(url, "{}={}&", utf8_percent_encode(key, QUERY_VALUE), utf8_percent_encode(value, QUERY_VALUE));
        }
        let _ = write!(url, "{}={}", utf8_percent_encode(name, QUERY_VALUE), utf8_percent_encode(value, QUERY_VALUE));
        url
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// One answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    /// JSON, or nothing.
    pub(super) body: String,
    /// How long the answer takes, if not as long as usual.
    pub(super) latency: Option<Latency>,
}

impl Reply {
    pub(super) fn new(status: u16, body: &Value) -> Self {
        Self::text(status, body.to_string())
    }

    /// An answer whose JSON is already written.
    pub(super) fn text(status: u16, body: String) -> Self {
        Self { status, headers: Vec::new(), body, latency: None }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self::text(status, String::new())
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn headers(mut self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    pub(super) fn takes(mut self, latency: Latency) -> Self {
        self.latency = Some(latency);
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let empty = self.body.is_empty();
        let mut response = Response::new(full(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if !empty {
            let json = HeaderValue::from_static("application/json; charset=utf-8");
            response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// Why Azure says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) target: Option<Box<str>>,
    /// World seconds.
    pub(super) retry_after: Option<u64>,
    /// The errors that this one is made of.
    pub(super) details: Vec<Value>,
    /// What Azure says beyond that, such as which policies deny the request.
    pub(super) additional_info: Option<Box<Value>>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            target: None,
            retry_after: None,
            details: Vec::new(),
            additional_info: None,
        }
    }

    /// 400 `InvalidParameter`, which names the parameter.
    pub(super) fn parameter(target: &str, message: impl Into<String>) -> Self {
        Self { target: Some(target.into()), ..Self::new(400, "InvalidParameter", message) }
    }

    /// A feature of Azure that this world lacks.
    pub(super) fn unsupported(what: &str) -> Self {
        Self::new(501, "NotImplementedByTwin", format!("The twin does not imitate this: {what}."))
    }

    pub(super) fn method(call: &Call) -> Self {
        Self::new(405, "HttpMethodNotSupported", format!("{} is not supported on '{}'.", call.method, call.path))
    }

    pub(super) fn after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The `error` object.
    pub(super) fn error(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(target) = &self.target {
            error["target"] = json!(target);
        }
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        if let Some(info) = &self.additional_info {
            error["additionalInfo"] = json!(info);
        }
        error
    }

    pub(super) fn reply(&self, world: &World) -> Reply {
        let mut reply =
            Reply::new(self.status, &json!({"error": self.error()})).header("x-ms-failure-cause", "gateway");
        reply.headers.extend(self.retry_after.map(|seconds| retry_after(world, seconds)));
        reply
    }
}

/// When to ask again. Clients wait in their own time: in a faster world, fewer seconds, which only the header in
/// milliseconds can say (the Azure SDKs know both: observed with azure-core 1.41.0).
pub(super) fn retry_after(world: &World, seconds: u64) -> (&'static str, String) {
    let speed = world.options.speed;
    if speed == 1.0 {
        return ("retry-after", seconds.to_string());
    }
    let milliseconds = (seconds as f64 * 1000.0 / speed).round().max(1.0);
    ("retry-after-ms", format!("{milliseconds:.0}"))
}
