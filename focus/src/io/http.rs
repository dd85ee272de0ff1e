//! HTTP: conference requests (client-focus §2.3), health, statistics, metrics and
//! `/debug` (focus-bridge §5.1). Private, on the loopback by default.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, CONTENT_TYPE, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use prometheus::{CounterVec, Encoder, GaugeVec, Opts, TextEncoder};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use viaduct_signalling::iq::{Condition, StanzaError};
use viaduct_signalling::jitsi::Conference as ConferenceIq;
use viaduct_signalling::jitsi::conference::{HttpAnswer, HttpRequest};

use crate::config::Http;
use crate::stats::{Kind, Statistics};

/// A conference request is small.
const MAX_BODY: usize = 64 * 1024;

/// What HTTP asks the focus.
#[derive(Debug)]
pub enum Query {
    Conference(
        ConferenceIq,
        oneshot::Sender<Result<ConferenceIq, StanzaError>>,
    ),
    Statistics(oneshot::Sender<Statistics>),
    Debug(oneshot::Sender<Value>),
    Rooms(oneshot::Sender<Vec<String>>),
    Room(String, oneshot::Sender<Option<Value>>),
}

#[derive(Clone)]
struct Shared {
    queries: mpsc::Sender<Query>,
    origins: Vec<String>,
}

impl Shared {
    /// `None`: the focus is ending.
    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.queries.send(query(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// The routes that the configuration allows.
pub fn router(settings: &Http, queries: mpsc::Sender<Query>) -> Router {
    let mut router = Router::new()
        .route("/about/version", get(version))
        .route("/stats", get(stats));
    if settings.health {
        router = router.route("/about/health", get(health));
    }
    if settings.metrics {
        router = router.route("/metrics", get(metrics));
    }
    if settings.debug {
        router = router
            .route("/debug", get(debug))
            .route("/debug/conferences", get(conferences))
            .route("/debug/conference/{room}", get(conference));
    }
    if settings.conference_request {
        router = router.route(
            "/conference-request/v1",
            post(conference_request).options(preflight),
        );
    }
    router
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Shared {
            queries,
            origins: settings.origins.clone(),
        })
}

fn ending() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the focus is ending").into_response()
}

async fn version() -> Json<Value> {
    Json(json!({
        "name": "Viaduct focus",
        "version": crate::VERSION,
        "os": std::env::consts::OS,
    }))
}

async fn health(State(shared): State<Shared>) -> Response {
    let Some(statistics) = shared.ask(Query::Statistics).await else {
        return ending();
    };
    let gauges = &statistics.gauges;
    let fault = if !gauges.connected {
        "not connected to the XMPP server"
    } else if !gauges.brewery_joined {
        "not in the bridges' room"
    } else {
        return (StatusCode::OK, "OK").into_response();
    };
    (StatusCode::INTERNAL_SERVER_ERROR, fault).into_response()
}

async fn stats(State(shared): State<Shared>) -> Response {
    match shared.ask(Query::Statistics).await {
        Some(statistics) => Json(statistics.json(crate::VERSION)).into_response(),
        None => ending(),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let Some(statistics) = shared.ask(Query::Statistics).await else {
        return ending();
    };
    match exposition(&statistics) {
        Ok(text) => {
            let kind = HeaderValue::from_static("text/plain; version=0.0.4");
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The text form of Prometheus, with jicofo's names.
fn exposition(statistics: &Statistics) -> prometheus::Result<Vec<u8>> {
    let registry = prometheus::Registry::new();
    let mut vectors: std::collections::HashMap<String, GaugeVec> = Default::default();
    for (name, kind, label, value) in statistics.figures() {
        let labels: Vec<&str> = label.iter().map(|(name, _)| *name).collect();
        let values: Vec<&str> = label.iter().map(|(_, value)| value.as_str()).collect();
        match kind {
            Kind::Counter => {
                let name = format!("jitsi_jicofo_{name}_total");
                let counter = CounterVec::new(Opts::new(&name, &name), &labels)?;
                counter.with_label_values(&values).inc_by(value);
                registry.register(Box::new(counter))?;
            }
            Kind::Gauge => {
                let name = format!("jitsi_jicofo_{name}");
                if !vectors.contains_key(&name) {
                    let gauge = GaugeVec::new(Opts::new(&name, &name), &labels)?;
                    registry.register(Box::new(gauge.clone()))?;
                    vectors.insert(name.clone(), gauge);
                }
                vectors[&name].with_label_values(&values).set(value);
            }
        }
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

async fn debug(State(shared): State<Shared>) -> Response {
    match shared.ask(Query::Debug).await {
        Some(value) => Json(value).into_response(),
        None => ending(),
    }
}

async fn conferences(State(shared): State<Shared>) -> Response {
    match shared.ask(Query::Rooms).await {
        Some(rooms) => Json(rooms).into_response(),
        None => ending(),
    }
}

async fn conference(State(shared): State<Shared>, Path(room): Path<String>) -> Response {
    match shared.ask(|answer| Query::Room(room, answer)).await {
        Some(Some(value)) => Json(value).into_response(),
        Some(None) => (StatusCode::NOT_FOUND, "no such conference").into_response(),
        None => ending(),
    }
}

async fn conference_request(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut response = match serde_json::from_slice::<HttpRequest>(&body) {
        Err(error) => (
            StatusCode::BAD_REQUEST,
            format!("not a conference request: {error}"),
        )
            .into_response(),
        Ok(request) => {
            let request = ConferenceIq::from(request);
            match shared
                .ask(|answer| Query::Conference(request, answer))
                .await
            {
                Some(Ok(answer)) => Json(HttpAnswer::from(answer)).into_response(),
                Some(Err(error)) => {
                    let status = match error.condition {
                        Condition::NotAuthorized => StatusCode::FORBIDDEN,
                        _ => StatusCode::BAD_REQUEST,
                    };
                    (status, error.to_string()).into_response()
                }
                None => ending(),
            }
        }
    };
    allow_origin(&shared, &headers, &mut response);
    response
}

async fn preflight(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let mut response = StatusCode::OK.into_response();
    let answer = response.headers_mut();
    answer.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST, OPTIONS"),
    );
    answer.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("content-type, authorization"),
    );
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    allow_origin(&shared, &headers, &mut response);
    response
}

/// Lets pages of the allowed origins read the answer; jicofo lets none.
fn allow_origin(shared: &Shared, headers: &HeaderMap, response: &mut Response) {
    let Some(origin) = headers.get(ORIGIN) else {
        return;
    };
    let allowed = shared
        .origins
        .iter()
        .any(|allowed| allowed == "*" || origin.to_str().is_ok_and(|origin| origin == allowed));
    if allowed {
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(VARY, HeaderValue::from_static("Origin"));
    }
}
