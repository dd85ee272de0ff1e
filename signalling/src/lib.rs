//! Every stanza, message and address of Jitsi's signalling.
