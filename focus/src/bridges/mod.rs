//! The bridges: who is there and how loaded (`registry`), whether they live
//! (`health`), which one a participant goes to (`select`), and what is said to
//! them about a conference (`session`).

pub mod health;
pub mod registry;
pub mod select;
pub mod session;
