//! Synthetic Jitsi participants that drive a deployment and verify what they
//! receive.
//!
//! Every media payload carries a tag ([`source::tag`]) from which its receivers
//! tell loss, order, owner, delay, and whether the pictures could have been
//! decoded ([`measure`]).

pub mod measure;
pub mod source;
