//! The thread of a session.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{ClientSettings, ComponentSettings, Delivery, Shared};

/// Which kind of session.
pub(super) enum Role {
    Client(ClientSettings),
    Component(ComponentSettings),
}

pub(super) fn spawn(role: Role, _shared: Arc<Shared>, _events: mpsc::Sender<Delivery>) {
    match role {
        Role::Client(settings) => tracing::debug!(?settings, "session"),
        Role::Component(settings) => tracing::debug!(?settings, "session"),
    }
}
