//! The two HTTP servers: the private one for operators and the public one that
//! carries bridge channels. Paths and answers: `focus-bridge` §4.2, §4.3.
//!
//! Here: the servers and what is short; `colibri` has bridge control, `debug` the
//! state of conferences.
//!
//! Whatever the configuration turns off is 404. Both servers tell browsers that
//! any page may read them, as JVB's do.

mod colibri;
mod debug;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get, post};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::io::control::Bridge;
use crate::io::{metrics, websocket};

/// Binds a server's port; the error names the address and what to do.
pub fn bind(server: &str, host: IpAddr, port: u16) -> anyhow::Result<std::net::TcpListener> {
    let address = SocketAddr::new(host, port);
    let listener = std::net::TcpListener::bind(address).with_context(|| {
        format!(
            "cannot listen on {address} (TCP): is another bridge running? Stop it, or choose \
             another videobridge.http-servers.{server}.port"
        )
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until the process ends.
pub async fn serve(listener: std::net::TcpListener, router: Router) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    Ok(axum::serve(listener, router).await?)
}

/// Health, version, debug, statistics, metrics, bridge control.
pub fn private(bridge: Arc<Bridge>) -> Router {
    let config = &bridge.config;
    let mut router = Router::new();
    if config.rest.health {
        router = router.route("/about/health", get(health));
    }
    if config.rest.version {
        router = router.route("/about/version", get(version));
    }
    if config.rest.debug {
        router = router.merge(debug::routes());
    }
    if config.rest.prometheus {
        router = router.route("/metrics", get(prometheus));
    }
    if config.rest.colibri {
        router = router
            .route("/colibri/stats", get(statistics))
            .merge(colibri::routes());
        if config.rest.debug {
            router = router.merge(debug::old_routes());
        }
        if config.rest.shutdown {
            router = router.route("/colibri/shutdown", post(shutdown));
        }
        if config.rest.drain {
            router = router
                .route("/colibri/drain", get(drain))
                .route("/colibri/drain/enable", post(drain_enable))
                .route("/colibri/drain/disable", post(drain_disable));
        }
    }
    router
        .layer(map_response(readable_by_any_page))
        .with_state(bridge)
}

/// Bridge channels, and nothing else.
pub fn public(bridge: Arc<Bridge>) -> Router {
    Router::new()
        .route(
            "/colibri-ws/{server}/{conference}/{endpoint}",
            any(websocket::accept),
        )
        .layer(map_response(readable_by_any_page))
        .with_state(bridge)
}

async fn readable_by_any_page(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let any = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    let methods = HeaderValue::from_static("GET, POST");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    response
}

async fn health(State(bridge): State<Arc<Bridge>>) -> Response {
    match bridge.unhealthy() {
        None => StatusCode::OK.into_response(),
        Some(why) => (StatusCode::INTERNAL_SERVER_ERROR, why).into_response(),
    }
}

async fn version() -> Json<Value> {
    Json(json!({
        "name": metrics::NAME,
        "version": metrics::VERSION,
        "os": std::env::consts::OS,
    }))
}

async fn statistics(State(bridge): State<Arc<Bridge>>) -> Json<Value> {
    let all = metrics::statistics(&bridge).into_iter();
    let object: Map<String, Value> = all.map(|(name, v)| (name.to_owned(), v)).collect();
    Json(Value::Object(object))
}

async fn prometheus(State(bridge): State<Arc<Bridge>>) -> Response {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4");
    ([kind], metrics::prometheus(&bridge)).into_response()
}

/// The value may be the string `"true"`: the script that Jitsi ships sends that.
async fn shutdown(State(bridge): State<Arc<Bridge>>, body: String) -> StatusCode {
    let body: Option<Value> = serde_json::from_str(&body).ok();
    let graceful = match body.as_ref().and_then(|body| body.get("graceful-shutdown")) {
        Some(Value::Bool(graceful)) => *graceful,
        Some(Value::String(graceful)) => graceful == "true",
        _ => return StatusCode::BAD_REQUEST,
    };
    bridge.shut_down(graceful);
    StatusCode::OK
}

async fn drain(State(bridge): State<Arc<Bridge>>) -> Json<Value> {
    Json(json!({ "drain": bridge.drain.load(Relaxed) }))
}

async fn drain_enable(State(bridge): State<Arc<Bridge>>) {
    bridge.drain.store(true, Relaxed);
}

async fn drain_disable(State(bridge): State<Arc<Bridge>>) {
    bridge.drain.store(false, Relaxed);
}
