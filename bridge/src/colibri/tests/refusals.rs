//! What is refused, and how.

use super::*;

/// Condition, colibri2 reason and text of every error in `focus-bridge`
/// §2.4 and §2.5, each on a fresh bridge with conference `m` and endpoint `a`.
#[test]
fn errors_are_those_of_the_reference() {
    let relay = "<relay id='r' create='true'><transport/></relay>";
    let two = format!("{}{}", create("b"), create("c"));
    let mixed = format!("<endpoint id='a'/>{relay}");
    let twice = "<relay id='r' expire='true'/><relay id='s' expire='true'/>";
    let no_names = "<endpoint id='b' create='true'><transport/></endpoint>";
    let no_transport =
        "<endpoint id='b' create='true'><capability name='source-names'/></endpoint>";
    let sctp = "<endpoint id='b' create='true'><capability name='source-names'/><transport><sctp port='5001'/></transport></endpoint>";
    let sctp_update = "<endpoint id='a'><transport><sctp role='client'/></transport></endpoint>";
    let visitor = "<endpoint id='b' create='true' muc-role='visitor'><capability name='source-names'/><transport/>\
        <sources><media-source type='audio' id='b-a0'><source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='5'/></media-source></sources></endpoint>";
    let unknown = "<endpoint id='x'><sources/></endpoint>";
    let fingerprint = "<endpoint id='a'><transport><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1'>\
        <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='active'>xyz</fingerprint></transport></transport></endpoint>";
    let rtx = "<endpoint id='a'><media type='video'><payload-type xmlns='urn:xmpp:jingle:apps:rtp:1' id='96' name='rtx'/></media></endpoint>";
    use Condition::*;
    use ErrorReason as R;
    for (attributes, children, condition, reason, text) in [
        (
            "meeting-id='n'",
            "",
            ItemNotFound,
            Some(R::ConferenceNotFound),
            "Conference not found for ID: n",
        ),
        (
            "meeting-id='n' expire='true'",
            "",
            ItemNotFound,
            Some(R::ConferenceNotFound),
            "Conference not found for ID: n",
        ),
        (
            CREATE,
            "",
            Conflict,
            Some(R::ConferenceAlreadyExists),
            "Conference already exists for ID: m",
        ),
        (
            "meeting-id='n' create='true' name='r@c/nick'",
            "",
            BadRequest,
            None,
            "Conference name is not a bare JID: r@c/nick",
        ),
        (
            M,
            unknown,
            ItemNotFound,
            Some(R::UnknownEndpoint),
            "Endpoint not found for ID: x",
        ),
        (
            M,
            &create("a"),
            Conflict,
            None,
            "Endpoint with ID a already exists",
        ),
        (
            M,
            no_transport,
            BadRequest,
            None,
            "Attempt to create endpoint with no <transport>",
        ),
        (
            M,
            no_names,
            BadRequest,
            None,
            "Source name support is mandatory.",
        ),
        (
            M,
            sctp,
            BadRequest,
            None,
            "Specific SCTP port requested, not supported.",
        ),
        (
            M,
            sctp_update,
            FeatureNotImplemented,
            None,
            "Unsupported SCTP role: client",
        ),
        (
            M,
            visitor,
            BadRequest,
            None,
            "Visitors cannot have sources.",
        ),
        (
            M,
            &two,
            FeatureNotImplemented,
            Some(R::FeatureNotImplemented),
            "Creating or updating multiple endpoints in a single request",
        ),
        (
            M,
            &mixed,
            FeatureNotImplemented,
            Some(R::FeatureNotImplemented),
            "Using both endpoints and relays in a single request",
        ),
        (
            M,
            twice,
            FeatureNotImplemented,
            Some(R::FeatureNotImplemented),
            "Using multiple relays in a single request",
        ),
        (
            M,
            relay,
            FeatureNotImplemented,
            None,
            "Octo is disabled in configuration.",
        ),
        (
            M,
            fingerprint,
            BadRequest,
            None,
            "A fingerprint is not hexadecimal octets",
        ),
        (M, rtx, BadRequest, None, "rtx payload type 96 without apt"),
    ] {
        let mut bridge = bridge();
        bridge
            .handle(Instant::now(), &request(CREATE, &create("a")))
            .expect("a conference with an endpoint");
        let before = bridge.registered();
        let error = refusal(&mut bridge, attributes, children);
        assert_eq!(error.condition, condition, "{attributes} {children}");
        let told = wire::reason(&error).map(|(reason, _)| reason);
        assert_eq!(told, reason, "{attributes} {children}");
        assert_eq!(error.text.as_deref(), Some(text));
        assert_eq!(bridge.registered(), before, "nothing half made: {text}");
    }
}

#[test]
fn an_unknown_endpoint_is_named_in_the_error() {
    let mut bridge = bridge();
    bridge
        .handle(Instant::now(), &request(CREATE, &create("a")))
        .expect("created");
    let error = refusal(&mut bridge, M, "<endpoint id='x'><transport/></endpoint>");
    let (_, endpoint) = wire::reason(&error).expect("a reason");
    assert_eq!(endpoint.as_deref(), Some("x"));
}

#[test]
fn graceful_shutdown_refuses_conferences_and_takes_endpoints() {
    let mut bridge = bridge();
    bridge
        .handle(Instant::now(), &request(CREATE, &create("a")))
        .expect("created");
    bridge.refuse_conferences();
    let error = refusal(&mut bridge, "meeting-id='n' create='true'", "");
    assert_eq!(error.condition, Condition::ServiceUnavailable);
    let (reason, _) = wire::reason(&error).expect("a reason");
    assert_eq!(reason, ErrorReason::GracefulShutdown);
    bridge
        .handle(Instant::now(), &request(M, &create("b")))
        .expect("still taken");
}
