//! The focus: places conferences, speaks Jingle.
