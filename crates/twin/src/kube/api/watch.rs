//! The body of a watch: one JSON document per line, written as things happen.

use std::{collections::VecDeque, convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    super::{
        failure::Failure,
        store::{Verb, Watch},
        types::ResourceType,
    },
    read::in_version,
    request::Request,
    table,
};
use crate::{Twin, http::Body};

/// How long a watch lasts when its client does not say: API servers draw between 30 and 60 minutes (Kubernetes source).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// A watch that has begun, and how its client wants to see it.
pub(in super::super) struct Stream {
    kind: Option<ResourceType>,
    past: VecDeque<Bytes>,
    future: Option<mpsc::Receiver<(Verb, Arc<Value>)>>,
    timeout: Duration,
    form: Form,
    bookmarks: bool,
    revision: u64,
}

struct Form {
    table: bool,
    include_object: String,
    columns_sent: bool,
}

impl Stream {
    pub(super) fn new(
        request: &Request,
        kind: &ResourceType,
        watch: Watch,
        announce_initial_end: bool,
        now: i64,
    ) -> Self {
        let seconds = request.parameter("timeoutSeconds").parse().ok().filter(|&seconds| seconds > 0);
        let mut stream = Self {
            kind: Some(kind.clone()),
            past: VecDeque::new(),
            future: Some(watch.future),
            timeout: seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            form: Form {
                table: request.wants_table(),
                include_object: request.parameter("includeObject").into(),
                columns_sent: false,
            },
            bookmarks: request.flag("allowWatchBookmarks"),
            revision: watch.revision,
        };
        for (verb, object) in watch.past {
            let line = stream.event(verb, &object, now);
            stream.past.push_back(line);
        }
        stream.revision = watch.revision;
        if announce_initial_end {
            let bookmark = stream.bookmark(true);
            stream.past.push_back(bookmark);
        }
        stream
    }

    /// A watch that cannot begin says so in its only event.
    pub(super) fn failed(failure: &Failure) -> Self {
        let line = Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": failure.status()})));
        let form = Form { table: false, include_object: String::new(), columns_sent: false };
        Self {
            kind: None,
            past: VecDeque::from([line]),
            future: None,
            timeout: Duration::ZERO,
            form,
            bookmarks: false,
            revision: 0,
        }
    }

    fn event(&mut self, verb: Verb, object: &Arc<Value>, now_unix_seconds: i64) -> Bytes {
        self.revision = object["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|revision| revision.parse().ok())
            .unwrap_or(self.revision);
        let Some(kind) = &self.kind else { return Bytes::new() };
        let object = in_version(kind, object);
        let mut line = format!("{{\"type\":\"{}\",\"object\":", verb.event());
        if self.form.table {
            let metadata = json!({"resourceVersion": self.revision.to_string()});
            let with_columns = !std::mem::replace(&mut self.form.columns_sent, true);
            let items = [object.as_ref()];
            let table = table::table(now_unix_seconds, kind, &self.form.include_object, &items, metadata, with_columns);
            line += &table.to_string();
        } else {
            line += &object.to_string();
        }
        line += "}\n";
        line.into()
    }

    fn bookmark(&self, end_of_initial: bool) -> Bytes {
        let Some(kind) = &self.kind else { return Bytes::new() };
        let mut metadata = json!({"resourceVersion": self.revision.to_string(), "creationTimestamp": null});
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
        format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()
    }

    /// The next line; `None` when the watch is over.
    async fn next(&mut self, twin: &Twin, deadline: &mut Pin<Box<dyn Future<Output = ()> + Send>>) -> Option<Bytes> {
        if let Some(line) = self.past.pop_front() {
            return Some(line);
        }
        let future = self.future.as_mut()?;
        let happened = tokio::select! {
            biased;
            happened = future.recv() => happened,
            () = deadline.as_mut() => {
                self.future = None;
                return self.bookmarks.then(|| self.bookmark(false));
            }
        };
        let (verb, object) = happened?;
        let now = if self.form.table { twin.with(|world| world.utc().unix_timestamp()) } else { 0 };
        Some(self.event(verb, &object, now))
    }

    pub(super) fn into_body(self, twin: Twin) -> Body {
        let timeout = self.timeout;
        let timer = twin.clone();
        let deadline: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move { timer.sleep(timeout).await });
        let lines = stream::unfold((self, twin, deadline), |(mut watch, twin, mut deadline)| async move {
            let line = watch.next(&twin, &mut deadline).await?;
            Some((Ok::<_, Infallible>(Frame::data(line)), (watch, twin, deadline)))
        });
        StreamBody::new(lines).boxed_unsync()
    }

    /// What is there already, for tests.
    #[cfg(test)]
    pub(in super::super) fn drain(&mut self) -> Vec<Value> {
        let mut lines: Vec<Bytes> = self.past.drain(..).collect();
        while let Some(Ok((verb, object))) = self.future.as_mut().map(mpsc::Receiver::try_recv) {
            lines.push(self.event(verb, &object, 0));
        }
        lines.iter().map(|line| serde_json::from_slice(line).expect("a JSON line")).collect()
    }
}
