//! `/debug`: the state of the bridge, its conferences and endpoints, in the shape
//! in which jitsi-videobridge tells it where it has the same.
//!
//! Names and who is where come from the registry, all else from the shards. An
//! answer has a bound in size and in time: what is left out is counted, and can
//! be asked for by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::colibri::Overview;
use crate::id::{ConferenceId, EndpointId};
use crate::io::clock;
use crate::io::control::Bridge;
use crate::lifecycle::Lifecycle;
use crate::view::{Speakers, Subject};

/// Endpoints of all conferences in one answer, in short and in full.
const MAX_SHORT: usize = 10_000;
const MAX_FULL: usize = 1000;
/// How long the shards are asked for one answer about all conferences.
const MAX_TIME: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
struct Detail {
    full: Option<bool>,
}

pub(super) fn routes() -> Router<Arc<Bridge>> {
    Router::new()
        .route("/debug", get(bridge_state))
        .route("/debug/{conference}", get(conference_state))
        .route("/debug/{conference}/{endpoint}", get(endpoint_state))
}

/// Where these paths were in older versions of jitsi-videobridge.
pub(super) fn old_routes() -> Router<Arc<Bridge>> {
    let moved = |rest: &str, RawQuery(query): RawQuery| {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let to = format!("/debug{rest}{query}");
        let location = [(axum::http::header::LOCATION, to)];
        (StatusCode::MOVED_PERMANENTLY, location).into_response()
    };
    Router::new()
        .route(
            "/colibri/debug",
            get(move |query: RawQuery| async move { moved("", query) }),
        )
        .route(
            "/colibri/debug/{*rest}",
            get(
                move |Path(rest): Path<String>, query: RawQuery| async move {
                    moved(&format!("/{rest}"), query)
                },
            ),
        )
}

/// `GET /debug`: conferences with the names of their endpoints; with `?full=true`
/// all there is to tell.
async fn bridge_state(
    State(bridge): State<Arc<Bridge>>,
    Query(detail): Query<Detail>,
) -> Json<Value> {
    let full = detail.full.unwrap_or(false);
    let most = if full { MAX_FULL } else { MAX_SHORT };
    let (all, shown) = bridge.colibri(|c| (c.registered().conferences, c.overviews(most)));
    let mut left_out = all - shown.len();
    let deadline = Instant::now() + MAX_TIME;
    let mut conferences = Map::new();
    for overview in shown {
        if Instant::now() > deadline {
            left_out += 1;
            continue;
        }
        let (id, state) = describe(&bridge, overview, None, full).await;
        conferences.insert(id, state);
    }
    let mut state = root(&bridge, conferences);
    state["conferences_left_out"] = json!(left_out);
    let why = bridge.unhealthy();
    state["health"] = json!({
        "success": why.is_none(),
        "hardFailure": why.is_some(),
        "responseCode": if why.is_none() { 200 } else { 500 },
        "message": why,
    });
    let logins = bridge.xmpp.logins.lock().expect("no holder panics").clone();
    state["xmpp"] = json!(logins);
    Json(state)
}

async fn conference_state(
    State(bridge): State<Arc<Bridge>>,
    Path(conference): Path<String>,
    Query(detail): Query<Detail>,
) -> Response {
    answer(&bridge, &conference, None, detail).await
}

async fn endpoint_state(
    State(bridge): State<Arc<Bridge>>,
    Path((conference, endpoint)): Path<(String, String)>,
    Query(detail): Query<Detail>,
) -> Response {
    let endpoint = EndpointId::from(endpoint.as_str());
    answer(&bridge, &conference, Some(endpoint), detail).await
}

/// One conference, by its id in the bridge or by the meeting's, or one endpoint of
/// it; in full unless asked otherwise.
async fn answer(
    bridge: &Bridge,
    name: &str,
    endpoint: Option<EndpointId>,
    detail: Detail,
) -> Response {
    let overview = bridge.colibri(|colibri| {
        let id = u64::from_str_radix(name, 16).ok().map(ConferenceId);
        id.and_then(|id| colibri.overview(id))
            .or_else(|| colibri.overview(colibri.find(name)?))
    });
    let Some(mut overview) = overview else {
        return (StatusCode::NOT_FOUND, "no such conference").into_response();
    };
    if let Some(endpoint) = &endpoint {
        overview.endpoints.retain(|(id, _)| id == endpoint);
        if overview.endpoints.is_empty() {
            return (StatusCode::NOT_FOUND, "no such endpoint").into_response();
        }
    }
    let full = detail.full.unwrap_or(true);
    let (id, state) = describe(bridge, overview, endpoint, full).await;
    Json(root(bridge, Map::from_iter([(id, state)]))).into_response()
}

/// What stands in every answer.
fn root(bridge: &Bridge, conferences: Map<String, Value>) -> Value {
    let stress = bridge.stress();
    json!({
        "shutdown_state": match bridge.lifecycle() {
            Lifecycle::Running => "RUNNING",
            Lifecycle::Graceful { .. } => "GRACEFUL_SHUTDOWN",
            Lifecycle::ShuttingDown { .. } | Lifecycle::Ended => "SHUTTING_DOWN",
        },
        "drain": bridge.drain.load(Relaxed),
        "time": clock::unix_ms(),
        "load_management": {
            "state": if stress < 1.0 { "NOT_OVERLOADED" } else { "OVERLOADED" },
            "stress": stress,
            "reducer_enabled": false,
        },
        "conferences": conferences,
    })
}

/// A conference under its id, with all of its endpoints or one.
async fn describe(
    bridge: &Bridge,
    overview: Overview,
    endpoint: Option<EndpointId>,
    full: bool,
) -> (String, Value) {
    let mut state = Map::new();
    state.insert("id".to_owned(), json!(overview.id.to_string()));
    let mut put = |key: &str, value: Value| state.insert(key.to_owned(), value);
    put("rtcstatsEnabled", json!(overview.rtcstats_enabled));
    put("meeting_id", json!(overview.meeting_id));
    if let Some(name) = &overview.name {
        put("name", json!(name));
    }
    // Relays do not exist here.
    put("relays", json!({}));
    let ids = || overview.endpoints.iter();
    let mut endpoints: Map<String, Value> = ids()
        .map(|(id, stats_id)| (id.to_string(), json!(stats_id)))
        .collect();
    if full {
        let age = clock::now().saturating_duration_since(overview.created);
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let created = clock::unix_ms().saturating_sub(age);
        put("creation_time", json!(created));
        let subject = endpoint.map_or(Subject::Conference, Subject::Endpoint);
        let (parts, missing) = bridge.describe(overview.id, &subject).await;
        put("workers_without_answer", json!(missing));
        let mut described = Map::new();
        for part in parts {
            if let Some(speakers) = part.speakers {
                put("speech_activity", speech_activity(&speakers));
            }
            for (id, endpoint) in part.endpoints {
                // One that has left meanwhile is not in the registry.
                if let Some(stats_id) = endpoints.remove(&id) {
                    let mut endpoint = json!(endpoint);
                    endpoint["stats_id"] = stats_id;
                    described.insert(id, endpoint);
                }
            }
        }
        put("endpoints_left_out", json!(endpoints.len()));
        endpoints = described;
    }
    put("endpoints", Value::Object(endpoints));
    (overview.id.to_string(), Value::Object(state))
}

fn speech_activity(speakers: &Speakers) -> Value {
    json!({
        // Upstream says it with this word.
        "dominantEndpoint": speakers.dominant.as_deref().unwrap_or("null"),
        "dominantSpeakerIdentification": null,
        "endpointsBySpeechActivity": speakers.order,
        "endpointsInLastNOrder": speakers.order,
    })
}

/// `GET /colibri/v2/conferences/{meeting}/dominant-speaker-identification`.
pub(super) async fn speakers(
    State(bridge): State<Arc<Bridge>>,
    Path(meeting): Path<String>,
) -> Response {
    let Some(conference) = bridge.colibri(|colibri| colibri.find(&meeting)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (parts, _) = bridge.describe(conference, &Subject::Speakers).await;
    match parts.into_iter().find_map(|part| part.speakers) {
        Some(speakers) => Json(speech_activity(&speakers)).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
