//! What an operator may see of the registry.

use std::time::Instant;

use super::{Colibri, Conference};
use crate::id::{ConferenceId, EndpointId};
use crate::view::Subject;

/// A conference, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    pub id: ConferenceId,
    pub meeting_id: String,
    /// The room's address, if the focus told it.
    pub name: Option<String>,
    pub rtcstats_enabled: bool,
    pub created: Instant,
    /// Each with the name it has in statistics.
    pub endpoints: Vec<(EndpointId, Option<String>)>,
}

impl Overview {
    fn new(meeting_id: &str, conference: &Conference) -> Self {
        let endpoints = conference.endpoints.iter();
        Self {
            id: conference.id,
            meeting_id: meeting_id.to_owned(),
            name: conference.name.clone(),
            rtcstats_enabled: conference.rtcstats_enabled,
            created: conference.created,
            endpoints: endpoints
                .map(|(id, endpoint)| (id.clone(), endpoint.stats_id.clone()))
                .collect(),
        }
    }
}

impl Colibri {
    /// The conference of this meeting.
    pub fn find(&self, meeting: &str) -> Option<ConferenceId> {
        Some(self.conferences.get(meeting)?.id)
    }

    /// One conference.
    pub fn overview(&self, conference: ConferenceId) -> Option<Overview> {
        let meeting = self.meetings.get(&conference)?;
        Some(Overview::new(meeting, self.conferences.get(meeting)?))
    }

    /// The first conferences, as long as they have no more endpoints together than
    /// `endpoints`.
    pub fn overviews(&self, mut endpoints: usize) -> Vec<Overview> {
        let all = self.conferences.iter();
        let fitting = all.take_while(|(_, conference)| {
            // One without endpoints takes room, too.
            let left = endpoints.checked_sub(conference.endpoints.len().max(1));
            endpoints = left.unwrap_or(0);
            left.is_some()
        });
        fitting
            .map(|(meeting, conference)| Overview::new(meeting, conference))
            .collect()
    }

    /// Asks all parts of a conference about it; answers how many there are.
    pub fn describe(&mut self, conference: ConferenceId, query: u64, subject: &Subject) -> usize {
        self.placement.describe(conference, query, subject)
    }
}
