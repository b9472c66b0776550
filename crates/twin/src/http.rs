//! HTTP/1.1 over any stream, for every server of the world.

use std::{convert::Infallible, future::Future};

use bytes::Bytes;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

/// The body of an answer: whole, or a stream (a watch).
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is there as a whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).boxed_unsync()
}

/// An answer with a JSON body.
pub fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// A request whose body has arrived.
pub struct Received {
    /// Method, URI and headers.
    pub head: http::request::Parts,
    /// The body.
    pub body: Bytes,
}

/// Serves one connection until the client closes it. `answer` runs for each request, its body already read.
pub async fn serve<Stream, Answer, Answering>(stream: Stream, answer: Answer)
where
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Answer: Fn(Received) -> Answering + Clone + Send + 'static,
    Answering: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => Bytes::new(),
            };
            // On a task of its own: a client that goes away cannot undo what it asked for.
            let answering = tokio::spawn(answer(Received { head, body }));
            let response = answering.await.unwrap_or_else(|_| {
                json(500, &serde_json::json!({"error": {"code": "TwinDefect", "message": "the twin panicked; see its output"}}))
            });
            Ok::<_, Infallible>(response)
        }
    });
    // A connection that breaks is the client's concern.
    let _ended = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}
