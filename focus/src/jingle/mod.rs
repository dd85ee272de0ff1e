//! A client's session: what it can do (`features`), what it is offered
//! (`codec`, `offer`).

pub mod codec;
pub mod features;
pub mod offer;
