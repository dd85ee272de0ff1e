'use strict';
// Two bare RTCPeerConnections against a bridge, without a client library and
// without a focus: this page speaks colibri2 to the bridge itself, as an
// occupant of the brewery. It sends AV1 L3T3_KEY by the first connection and
// watches it arrive by the second.
//
// window.bare({ ws, domain, user, password, brewery, codec, mode }) resolves
// when both are negotiated; window.constrain(height) asks for another height.

const NS = {
    colibri2: 'jitsi:colibri2', rtp: 'urn:xmpp:jingle:apps:rtp:1', ice: 'urn:xmpp:jingle:transports:ice-udp:1',
    dtls: 'urn:xmpp:jingle:apps:dtls:0', ssma: 'urn:xmpp:jingle:apps:rtp:ssma:0', ext: 'urn:xmpp:jingle:apps:rtp:rtp-hdrext:0',
    fb: 'urn:xmpp:jingle:apps:rtp:rtcp-fb:0', colibri: 'http://jitsi.org/protocol/colibri'
};
const CODECS = { AV1: [41, 42], VP8: [100, 96] };
const EXTENSIONS = [
    [11, 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension'],
    [5, 'http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01']
];
const one = (node, ns, name) => node.getElementsByTagNameNS(ns, name)[0];

class Xmpp {
    constructor(url) {
        this.socket = new WebSocket(url, 'xmpp');
        this.waiting = [];
        this.serial = 0;
        this.listeners = [];
        this.socket.onmessage = ({ data }) => {
            const element = new DOMParser().parseFromString(data, 'text/xml').documentElement;
            const i = this.listeners.findIndex(([wanted]) => wanted(element));
            if (i >= 0) { this.listeners.splice(i, 1)[0][1](element); }
        };
    }
    when(wanted) { return new Promise(done => this.listeners.push([wanted, done])); }
    ask(xml, wanted) { const answer = this.when(wanted); this.socket.send(xml); return answer; }
    async iq(type, to, body) {
        const id = `q${++this.serial}`;
        const answer = await this.ask(`<iq xmlns="jabber:client" type="${type}" id="${id}"${to ? ` to="${to}"` : ''}>${body}</iq>`,
            e => e.localName === 'iq' && e.getAttribute('id') === id);
        if (answer.getAttribute('type') !== 'result') { throw new Error(new XMLSerializer().serializeToString(answer)); }
        return answer;
    }
    async login(domain, user, password) {
        await new Promise((ok, no) => { this.socket.onopen = ok; this.socket.onerror = () => no(new Error('no XMPP WebSocket')); });
        const open = `<open xmlns="urn:ietf:params:xml:ns:xmpp-framing" to="${domain}" version="1.0"/>`;
        await this.ask(open, e => e.localName === 'features');
        const token = btoa(`\0${user}\0${password}`);
        const verdict = await this.ask(`<auth xmlns="urn:ietf:params:xml:ns:xmpp-sasl" mechanism="PLAIN">${token}</auth>`, e => /success|failure/.test(e.localName));
        if (verdict.localName !== 'success') { throw new Error('login refused'); }
        await this.ask(open, e => e.localName === 'features');
        await this.iq('set', '', '<bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"/>');
    }
}

function candidateLines(transport) {
    return [...transport.getElementsByTagNameNS(NS.ice, 'candidate')].map(c => {
        const a = name => c.getAttribute(name);
        return `a=candidate:${a('foundation')} ${a('component')} ${a('protocol')} ${a('priority')} ${a('ip')} ${a('port')} typ ${a('type')}`
            + (a('rel-addr') ? ` raddr ${a('rel-addr')} rport ${a('rel-port')}` : '') + ' generation 0';
    });
}

function offer(transport, codec, direction, ssrcLines) {
    const [pt, rtx] = CODECS[codec];
    const fingerprint = one(transport, NS.dtls, 'fingerprint');
    return ['v=0', 'o=- 1 1 IN IP4 0.0.0.0', 's=-', 't=0 0', 'a=group:BUNDLE 0', 'a=extmap-allow-mixed',
        `m=video 9 UDP/TLS/RTP/SAVPF ${pt} ${rtx}`, 'c=IN IP4 0.0.0.0', 'a=mid:0', `a=${direction}`, 'a=rtcp-mux', 'a=rtcp-rsize',
        `a=ice-ufrag:${transport.getAttribute('ufrag')}`, `a=ice-pwd:${transport.getAttribute('pwd')}`,
        `a=fingerprint:${fingerprint.getAttribute('hash')} ${fingerprint.textContent.trim()}`, `a=setup:${fingerprint.getAttribute('setup')}`,
        `a=rtpmap:${pt} ${codec}/90000`, `a=rtcp-fb:${pt} nack`, `a=rtcp-fb:${pt} nack pli`, `a=rtcp-fb:${pt} ccm fir`, `a=rtcp-fb:${pt} transport-cc`,
        `a=rtpmap:${rtx} rtx/90000`, `a=fmtp:${rtx} apt=${pt}`,
        ...EXTENSIONS.map(([id, uri]) => `a=extmap:${id} ${uri}`), ...ssrcLines, ...candidateLines(transport), ''].join('\r\n');
}

function media(codec) {
    const [pt, rtx] = CODECS[codec];
    const fb = ['<rtcp-fb xmlns="' + NS.fb + '" type="nack"/>', `<rtcp-fb xmlns="${NS.fb}" type="nack" subtype="pli"/>`, `<rtcp-fb xmlns="${NS.fb}" type="transport-cc"/>`].join('');
    return `<media type="video"><payload-type xmlns="${NS.rtp}" id="${pt}" name="${codec}" clockrate="90000">${fb}</payload-type>`
        + `<payload-type xmlns="${NS.rtp}" id="${rtx}" name="rtx" clockrate="90000"><parameter name="apt" value="${pt}"/></payload-type>`
        + EXTENSIONS.map(([id, uri]) => `<rtp-hdrext xmlns="${NS.ext}" id="${id}" uri="${uri}"/>`).join('')
        + `<extmap-allow-mixed xmlns="${NS.ext}"/></media>`;
}

const line = (sdp, name) => sdp.match(new RegExp(`^a=${name}:(.*)$`, 'm'))[1].trim();
function clientTransport(sdp) {
    const [hash, ...value] = line(sdp, 'fingerprint').split(' ');
    return `<transport><transport xmlns="${NS.ice}" ufrag="${line(sdp, 'ice-ufrag')}" pwd="${line(sdp, 'ice-pwd')}"><rtcp-mux/>`
        + `<fingerprint xmlns="${NS.dtls}" hash="${hash}" setup="${line(sdp, 'setup')}">${value.join(' ')}</fingerprint></transport></transport>`;
}

let channel;
window.constrain = maxHeight => channel.send(JSON.stringify({ colibriClass: 'ReceiverVideoConstraints', lastN: -1, defaultConstraints: { maxHeight } }));

window.bare = async ({ ws, domain, user, password, brewery, codec, mode }) => {
    const xmpp = new Xmpp(ws);
    await xmpp.login(domain, user, password);
    const bridge = await xmpp.ask(`<presence xmlns="jabber:client" to="${brewery}/tester-${Date.now()}"><x xmlns="http://jabber.org/protocol/muc"/></presence>`,
        e => e.localName === 'presence' && one(e, NS.colibri, 'stats'));
    const to = bridge.getAttribute('from');
    const meeting = `bare-${Date.now()}`;
    const modify = (attributes, body) => xmpp.iq('get', to, `<conference-modify xmlns="${NS.colibri2}" meeting-id="${meeting}" ${attributes}>${body}</conference-modify>`);
    const create = async (id, attributes) => one(await modify(attributes, `<endpoint id="${id}" create="true"><capability name="source-names"/>${media(codec)}<transport ice-controlling="true"/><sources/></endpoint>`), NS.ice, 'transport');

    const sending = new RTCPeerConnection();
    const stream = await navigator.mediaDevices.getUserMedia({ video: true });
    const sender = sending.addTrack(stream.getVideoTracks()[0], stream);
    await sending.setRemoteDescription({ type: 'offer', sdp: offer(await create('aaaaaaaa', 'create="true" name="bare@example.net"'), codec, 'recvonly', []) });
    await sending.setLocalDescription(await sending.createAnswer());
    if (mode) {
        const parameters = sender.getParameters();
        parameters.encodings[0].scalabilityMode = mode;
        await sender.setParameters(parameters);
    }
    const answer = sending.localDescription.sdp;
    const [ssrc, rtx] = line(answer, 'ssrc-group').split(' ').slice(1);
    await modify('', `<endpoint id="aaaaaaaa">${clientTransport(answer)}<sources><media-source type="video" id="aaaaaaaa-v0">`
        + [ssrc, rtx].map(s => `<source xmlns="${NS.ssma}" ssrc="${s}" name="aaaaaaaa-v0"/>`).join('')
        + `<ssrc-group xmlns="${NS.ssma}" semantics="FID"><source ssrc="${ssrc}"/><source ssrc="${rtx}"/></ssrc-group></media-source></sources></endpoint>`);

    const receiving = new RTCPeerConnection();
    receiving.ontrack = ({ track }) => { document.querySelector('video').srcObject = new MediaStream([track]); };
    const transport = await create('bbbbbbbb', '');
    await receiving.setRemoteDescription({ type: 'offer', sdp: offer(transport, codec, 'sendonly', [
        `a=ssrc-group:FID ${ssrc} ${rtx}`, ...[ssrc, rtx].flatMap(s => [`a=ssrc:${s} cname:bare`, `a=ssrc:${s} msid:bare video`])]) });
    await receiving.setLocalDescription(await receiving.createAnswer());
    channel = new WebSocket(one(transport, NS.colibri, 'web-socket').getAttribute('url'));
    await new Promise((ok, no) => { channel.onopen = ok; channel.onerror = () => no(new Error('no bridge channel')); });
    await modify('', `<endpoint id="bbbbbbbb">${clientTransport(receiving.localDescription.sdp)}<sources/></endpoint>`);

    window.state = async () => {
        const find = async (pc, type) => { let hit; (await pc.getStats()).forEach(s => { if (s.type === type && s.kind !== 'audio') { hit = s; } }); return hit || {}; };
        const inbound = await find(receiving, 'inbound-rtp'), outbound = await find(sending, 'outbound-rtp'), wire = await find(receiving, 'transport');
        let codecName = '';
        (await receiving.getStats()).forEach(s => { if (s.id === inbound.codecId) { codecName = s.mimeType; } });
        return { codec: codecName, frames: inbound.framesDecoded || 0, height: inbound.frameHeight || 0, lost: inbound.packetsLost, mode: outbound.scalabilityMode,
            srtp: wire.srtpCipher, dtls: wire.dtlsState, tls: wire.tlsVersion };
    };
};
