'use strict';
// A small meeting on the real Jitsi client library: enough to see and hear
// that a deployment works, with the numbers beside the pictures.
// `config.js` (written by deploy/quickstart) sets window.VIADUCT.

const $ = id => document.getElementById(id);
const J = window.JitsiMeetJS;
const tiles = new Map();          // key (endpoint or source) -> tile
const meeting = { connection: null, conference: null, local: [], desktop: null };

// Libraries of 2022 take these from init(), current ones from the connection.
const flags = { sourceNameSignaling: true, sendMultipleVideoStreams: true, receiveMultipleVideoStreams: true };

function say(text) { $('state').textContent = text; }

function nameOf(id) {
    const member = meeting.conference && meeting.conference.getParticipantById(id);
    return (member && member.getDisplayName()) || id;
}

// ---- tiles

function tile(key, endpoint, label) {
    let t = tiles.get(key);
    if (t) { return t; }
    const box = document.createElement('div');
    box.className = 'tile';
    box.dataset.endpoint = endpoint;
    const video = document.createElement('video');
    video.autoplay = true; video.playsInline = true; video.muted = true;
    const name = document.createElement('span');
    name.className = 'label';
    const detail = document.createElement('span');
    detail.className = 'detail';
    box.append(video, name, detail);
    $('tiles').append(box);
    t = { box, video, name, detail, endpoint, track: null, label, muted: {}, frames: 0, at: performance.now() };
    tiles.set(key, t);
    relabel(t);
    return t;
}

function relabel(t) {
    const marks = [t.muted.audio ? 'muted' : '', t.muted.video ? 'camera off' : ''].filter(Boolean);
    t.name.textContent = (t.label || nameOf(t.endpoint)) + (marks.length ? ` (${marks.join(', ')})` : '');
}

function drop(key) {
    const t = tiles.get(key);
    if (!t) { return; }
    t.box.remove();
    tiles.delete(key);
}

const isDesktop = track => track.getVideoType && track.getVideoType() === 'desktop';
const keyOf = track => track.getParticipantId() + (isDesktop(track) ? '/screen' : '');

function addTrack(track) {
    const local = track.isLocal();
    if (track.getType() === 'audio') {
        if (local) { return; }
        const sound = document.createElement('audio');
        sound.autoplay = true;
        $('sounds').append(sound);
        track.attach(sound);
        track.viaductSound = sound;
    } else {
        const key = local ? (isDesktop(track) ? 'me/screen' : 'me') : keyOf(track);
        const id = local ? 'me' : track.getParticipantId();
        const label = local ? (isDesktop(track) ? 'my screen' : 'me')
            : isDesktop(track) ? `${nameOf(id)}'s screen` : null;
        const t = tile(key, id, label);
        t.track = track;
        track.attach(t.video);
        track.viaductTile = key;
    }
    muteChanged(track);
}

function removeTrack(track) {
    if (track.viaductSound) { track.detach(track.viaductSound); track.viaductSound.remove(); }
    if (track.viaductTile) {
        const t = tiles.get(track.viaductTile);
        if (t) { track.detach(t.video); t.track = null; }
        if (/screen$/.test(track.viaductTile)) { drop(track.viaductTile); }
    }
}

function muteChanged(track) {
    const key = track.isLocal() ? 'me' : keyOf(track);
    const t = tiles.get(key);
    if (!t) { return; }
    if (/screen$/.test(key)) { t.box.hidden = track.isMuted(); return; }
    t.muted[track.getType()] = track.isMuted();
    relabel(t);
}

// ---- joining and leaving

async function join(room, name, devices) {
    const c = window.VIADUCT;
    J.init({ disableAudioLevels: false, enableAnalyticsLogging: false, disableThirdPartyRequests: true, flags, sourceNameSignaling: true });
    J.setLogLevel('warn');
    $('lobby').hidden = true;
    $('meeting').hidden = false;
    $('title').textContent = room;
    say('asking for microphone and camera');
    for (const device of devices) {
        try {
            meeting.local.push(...await J.createLocalTracks({ devices: [device], resolution: 720 }));
        } catch (e) {
            say(`no ${device === 'audio' ? 'microphone' : 'camera'}: ${e.message || e}`);
        }
    }
    tile('me', 'me', name || 'me');
    meeting.local.forEach(addTrack);

    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const connection = meeting.connection = new J.JitsiConnection(null, null, {
        hosts: { domain: c.domain, muc: c.muc, focus: c.focus },
        serviceUrl: `${scheme}://${location.host}/xmpp-websocket`,
        p2p: { enabled: false }, flags, deploymentInfo: {}, enableWebsocketResume: true,
        bridgeChannel: { preferSctp: false }
    });
    const on = J.events.connection;
    connection.addEventListener(on.CONNECTION_ESTABLISHED, () => enter(room, name));
    connection.addEventListener(on.CONNECTION_FAILED, (code, why) => say(`connection failed: ${code} ${why || ''}`));
    connection.addEventListener(on.CONNECTION_DISCONNECTED, () => say('disconnected'));
    say('connecting');
    connection.connect({});
}

function enter(room, name) {
    const conference = meeting.conference = meeting.connection.initJitsiConference(room, {
        p2p: { enabled: false }, openBridgeChannel: 'websocket', enableLayerSuspension: true, channelLastN: -1
    });
    const E = J.events.conference;
    conference.on(E.CONFERENCE_JOINED, () => { say('in the room; waiting for others'); document.body.dataset.joined = conference.myUserId(); });
    conference.on(E.CONFERENCE_FAILED, (...why) => say(`conference failed: ${why.map(String).join(' ')}`));
    conference.on(E.CONFERENCE_ERROR, (...why) => say(`conference error: ${why.map(String).join(' ')}`));
    conference.on(E.CONNECTION_ESTABLISHED, () => say('media connected'));
    conference.on(E.CONNECTION_INTERRUPTED, () => say('media interrupted'));
    conference.on(E.CONNECTION_RESTORED, () => say('media restored'));
    conference.on(E.TRACK_ADDED, track => { if (!track.isLocal()) { addTrack(track); } });
    conference.on(E.TRACK_REMOVED, removeTrack);
    conference.on(E.TRACK_MUTE_CHANGED, muteChanged);
    conference.on(E.USER_JOINED, id => { tile(id, id); say(`${tiles.size} here`); });
    conference.on(E.USER_LEFT, id => { drop(id); drop(`${id}/screen`); say(`${nameOf(id)} left`); });
    conference.on(E.DISPLAY_NAME_CHANGED, id => { const t = tiles.get(id); if (t) { relabel(t); } });
    conference.on(E.DOMINANT_SPEAKER_CHANGED, id => {
        const mine = id === conference.myUserId();
        tiles.forEach(t => t.box.classList.toggle('speaking', mine ? t.endpoint === 'me' : t.endpoint === id));
    });
    conference.on(E.DATA_CHANNEL_OPENED, pickLayer);
    if (name) { conference.setDisplayName(name); }
    Promise.all(meeting.local.map(track => conference.addTrack(track))).then(() => conference.join());
}

// Asks for the same height of everybody: current libraries name sources, those
// of 2022 endpoints; `defaultConstraints` and `lastN` mean the same to both.
function pickLayer() {
    const maxHeight = Number($('layer').value);
    try {
        meeting.conference.setReceiverConstraints({ lastN: -1, defaultConstraints: { maxHeight } });
    } catch (e) {
        say(`layer: ${e.message || e}`);
    }
}

async function leave() {
    if (meeting.conference) { try { await meeting.conference.leave(); } catch { /* gone already */ } }
    if (meeting.connection) { meeting.connection.disconnect(); }
    location.reload();
}

async function toggleMute(type, button, on, off) {
    const track = meeting.local.find(x => x.getType() === type && !isDesktop(x));
    if (!track) { return say(`no ${type} to mute`); }
    try {
        await (track.isMuted() ? track.unmute() : track.mute());
    } catch (e) {
        say(`could not change ${type}: ${e.message || e}`);
    }
    button.setAttribute('aria-pressed', track.isMuted());
    button.textContent = track.isMuted() ? off : on;
    muteChanged(track);
}

async function toggleShare() {
    const button = $('share');
    if (meeting.desktop) {
        const track = meeting.desktop;
        meeting.desktop = null;
        await meeting.conference.removeTrack(track);
        removeTrack(track);
        await track.dispose();
    } else {
        try {
            const [track] = await J.createLocalTracks({ devices: ['desktop'] });
            meeting.desktop = track;
            await meeting.conference.addTrack(track);
            addTrack(track);
        } catch (e) {
            say(`no screen shared: ${e.message || e}`);
        }
    }
    button.setAttribute('aria-pressed', Boolean(meeting.desktop));
    button.textContent = meeting.desktop ? 'Stop sharing' : 'Share screen';
}

// ---- numbers

// Peer connections are kept as they are made: the libraries differ in how they
// show theirs, the browser's own statistics do not.
const connections = new Set();
const Native = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Native {
    constructor(...args) { super(...args); connections.add(this); }
};

const last = new Map();
async function numbers() {
    const lines = [];
    const now = performance.now();
    for (const pc of connections) {
        if (pc.connectionState === 'closed') { connections.delete(pc); continue; }
        const report = await pc.getStats();
        const all = new Map();
        report.forEach(s => all.set(s.id, s));
        for (const s of all.values()) {
            const codec = s.codecId && all.get(s.codecId) ? all.get(s.codecId).mimeType.split('/')[1] : '';
            if (s.type === 'candidate-pair' && s.nominated) {
                const remote = all.get(s.remoteCandidateId);
                lines.push(`bridge ${remote ? `${remote.address}:${remote.port}` : '?'}  round trip ${Math.round(1000 * (s.currentRoundTripTime || 0))} ms`);
            } else if (s.type === 'inbound-rtp' || s.type === 'outbound-rtp') {
                const bytes = s.type === 'inbound-rtp' ? s.bytesReceived : s.bytesSent;
                const before = last.get(s.id) || { bytes, now };
                last.set(s.id, { bytes, now });
                const rate = now > before.now ? Math.round(8 * (bytes - before.bytes) / (now - before.now)) : 0;
                const size = s.frameHeight ? `${s.frameWidth}x${s.frameHeight}@${Math.round(s.framesPerSecond || 0)}` : '';
                const loss = s.packetsLost === undefined ? '' : `lost ${s.packetsLost}`;
                lines.push(`${s.type === 'inbound-rtp' ? 'in ' : 'out'} ${s.kind} ${codec} ${size} ${rate} kbit/s ${loss} ssrc ${s.ssrc}`);
            }
        }
    }
    $('stats').textContent = lines.join('\n');
    for (const t of tiles.values()) {
        const { videoWidth: w, videoHeight: h } = t.video;
        const quality = t.video.getVideoPlaybackQuality ? t.video.getVideoPlaybackQuality().totalVideoFrames : 0;
        const fps = Math.round(1000 * (quality - t.frames) / Math.max(1, now - t.at));
        t.frames = quality; t.at = now;
        t.detail.textContent = w ? `${w}x${h} ${fps} fps` : '';
    }
}
setInterval(() => { numbers().catch(e => { $('stats').textContent = String(e); }); }, 1000);

// ---- the page

$('lobby').addEventListener('submit', e => {
    e.preventDefault();
    const devices = [$('with-audio').checked && 'audio', $('with-video').checked && 'video'].filter(Boolean);
    join($('room').value, $('name').value.trim(), devices).catch(why => say(String(why)));
});
$('mute-audio').onclick = () => toggleMute('audio', $('mute-audio'), 'Mute', 'Unmute');
$('mute-video').onclick = () => toggleMute('video', $('mute-video'), 'Stop camera', 'Start camera');
$('share').onclick = () => toggleShare().catch(e => say(String(e)));
$('layer').onchange = pickLayer;
$('stats-toggle').onclick = () => {
    $('stats').hidden = !$('stats').hidden;
    $('stats-toggle').setAttribute('aria-pressed', !$('stats').hidden);
};
$('leave').onclick = leave;

const query = new URLSearchParams(location.search);
$('room').value = query.get('room') || 'hello';
$('name').value = query.get('name') || '';
if (!J) { $('notice').textContent = 'The client library did not load: run deploy/quickstart up again.'; }
if (!window.isSecureContext) { $('notice').textContent = 'Browsers give no camera to this address: use http://localhost or https://.'; }
if (query.has('join')) { $('lobby').requestSubmit(); }
