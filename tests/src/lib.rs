//! Starts real peers for the end-to-end tests.
