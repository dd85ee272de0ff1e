//! Bridge control over HTTP (`focus-bridge` §3). Requests of one conference go
//! one after the other over one connection, which stays open.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use viaduct_signalling::colibri2::{ConferenceModified, ConferenceModify};

/// Connections to a bridge.
const CONNECTIONS: u32 = 4;
/// Where conferences are.
const PATH: &str = "/colibri/v2/conferences";

/// The private HTTP server of a bridge.
pub(super) struct Rest {
    host: String,
    connections: Vec<Mutex<Option<SendRequest<Full<Bytes>>>>>,
}

impl Rest {
    /// Of `HOST:PORT`.
    pub(super) fn new(host: &str) -> Self {
        Self {
            host: host.trim_end_matches('/').to_owned(),
            connections: (0..CONNECTIONS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Asks for a change of a conference; those of one number go in order.
    pub(super) async fn modify(
        &self,
        conference: u32,
        modify: &ConferenceModify,
    ) -> Result<ConferenceModified> {
        let (method, path) = match modify.create {
            true => (Method::POST, PATH.to_owned()),
            false => (Method::PATCH, format!("{PATH}/{}", modify.meeting_id)),
        };
        let body = Bytes::from(modify.to_json());
        let mut connection = self.connections[(conference % CONNECTIONS) as usize]
            .lock()
            .await;
        let answer = match self.request(&mut connection, &method, &path, &body).await {
            Err(error) if connection.is_some() => {
                // The server may have closed it meanwhile.
                tracing::debug!(%error, "once more");
                *connection = None;
                self.request(&mut connection, &method, &path, &body).await
            }
            answer => answer,
        };
        let place = || format!("{method} http://{}{path}", self.host);
        let (status, answer) = answer.with_context(place)?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&answer);
            let hint = match status.as_u16() {
                404 if modify.create => " (is videobridge.apis.rest.enabled = true?)",
                _ => "",
            };
            bail!("{}: {status}{hint}: {text:.300}", place());
        }
        ConferenceModified::from_json(&answer).context("the bridge's answer")
    }

    async fn request(
        &self,
        connection: &mut Option<SendRequest<Full<Bytes>>>,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        if connection.is_none() {
            let tcp = TcpStream::connect(&self.host).await.context("connecting")?;
            tcp.set_nodelay(true).context("TCP_NODELAY")?;
            let (sender, driver) = http1::handshake(TokioIo::new(tcp)).await.context("HTTP")?;
            tokio::spawn(async move {
                if let Err(error) = driver.await {
                    tracing::debug!(%error, "HTTP connection");
                }
            });
            *connection = Some(sender);
        }
        let Some(sender) = connection else {
            bail!("no connection");
        };
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))
            .context("a request")?;
        sender.ready().await.context("HTTP")?;
        let response = sender.send_request(request).await.context("HTTP")?;
        let status = response.status();
        let answer = response
            .into_body()
            .collect()
            .await
            .context("HTTP")?
            .to_bytes();
        Ok((status, answer))
    }
}
