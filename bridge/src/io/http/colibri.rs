//! Bridge control over HTTP: colibri2 as JSON (`focus-bridge` §3), through the
//! registry that answers the focus, too.
//!
//! As upstream, whatever the registry refuses is 400 with its words; a conference
//! that is not here is 404 where the path names it. What upstream says in the
//! reason phrase stands in the body.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use viaduct_signalling::colibri2::{ConferenceModify, JsonError};
use viaduct_signalling::iq::StanzaError;

use super::debug;
use crate::io::clock;
use crate::io::control::Bridge;

/// Octets of one request. The longest that a focus has reason for, one that lists
/// every endpoint of the largest conference, has a quarter of that.
const MAX_BODY: usize = 1 << 20;
/// How long a request's body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("Unsupported media type: application/json expected")]
    NotJson,
    #[error("The body did not come within {} s", BODY_TIMEOUT.as_secs())]
    Slow,
    #[error("The body has more than {MAX_BODY} octets, or broke off")]
    Body,
    #[error("Failed to parse ConferenceModify JSON: {0}")]
    Malformed(#[from] JsonError),
    #[error("Conference not found for ID: {0}")]
    NoConference(String),
    #[error("Failed to create conference: {}", .0.text.as_deref().unwrap_or_default())]
    Refused(StanzaError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NoConference(_) => StatusCode::NOT_FOUND,
            Self::Body | Self::Malformed(_) | Self::Refused(_) => StatusCode::BAD_REQUEST,
        };
        (status, self.to_string()).into_response()
    }
}

pub(super) fn routes() -> Router<Arc<Bridge>> {
    Router::new()
        .route("/colibri/v2/conferences", post(create).get(not_implemented))
        .route("/colibri/v2/conferences/", post(create))
        .route(
            "/colibri/v2/conferences/{meeting}",
            get(conference).patch(modify),
        )
        .route(
            "/colibri/v2/conferences/{meeting}/dominant-speaker-identification",
            get(debug::speakers),
        )
}

/// Upstream has these, without an answer yet.
async fn not_implemented() -> StatusCode {
    StatusCode::NOT_IMPLEMENTED
}

async fn conference(
    State(bridge): State<Arc<Bridge>>,
    Path(meeting): Path<String>,
) -> Result<StatusCode, Refusal> {
    known(&bridge, &meeting)?;
    Ok(StatusCode::NOT_IMPLEMENTED)
}

async fn create(
    State(bridge): State<Arc<Bridge>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let body = read(&headers, body).await?;
    apply(&bridge, &ConferenceModify::from_json(&body)?)
}

async fn modify(
    State(bridge): State<Arc<Bridge>>,
    Path(meeting): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    known(&bridge, &meeting)?;
    let body = read(&headers, body).await?;
    apply(
        &bridge,
        &ConferenceModify::from_json_about(&meeting, &body)?,
    )
}

fn known(bridge: &Bridge, meeting: &str) -> Result<(), Refusal> {
    let known = bridge.colibri(|colibri| colibri.find(meeting).is_some());
    known
        .then_some(())
        .ok_or_else(|| Refusal::NoConference(meeting.to_owned()))
}

/// The body of a request that says it is JSON, or does not say what it is.
async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::NotJson);
        }
    }
    let whole = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY));
    whole
        .await
        .map_err(|_| Refusal::Slow)?
        .map_err(|_| Refusal::Body)
}

fn apply(bridge: &Bridge, request: &ConferenceModify) -> Result<Response, Refusal> {
    let answer = bridge.colibri(|colibri| colibri.handle(clock::now(), request));
    let answer = answer.map_err(Refusal::Refused)?;
    let kind = (header::CONTENT_TYPE, "application/json");
    Ok(([kind], answer.to_json()).into_response())
}
